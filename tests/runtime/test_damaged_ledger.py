"""A ledger of which a failing disk has changed one value: the daemon starts, and shows and writes all else."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

import pytest

from egressd.detect.probation import FORGET_US
from egressd.model import Campaign, Incident, Target
from egressd.runtime import screens
from egressd.runtime.core import Core
from egressd.runtime.knowledge import load_texts
from egressd.runtime.messages import pack_match, unpack_match
from egressd.store import (
    attempts,
    audit,
    decision_rows,
    decisions,
    entries,
    feeds,
    incidents,
    ledger,
    meta,
    notes,
    queries,
    retention,
    spared,
    targets,
)
from egressd.store.attempts import AttemptCount, Batch, ContactCount
from egressd.store.decisions import NewTarget
from egressd.store.errors import CORRUPT, StoreError, explained
from egressd.store.ledger import open_ledger
from egressd.store.moments import WAITS
from egressd.store.records import DECISION, number_of
from egressd.store.unread import text_of
from tests.runtime.core_scene import CONFIG, Kernel
from tests.runtime.scene import Ears, Hands
from tests.store.scene import ANNA, DAY, HOUR, T0, TIMER, A, B, about, address, ledger_at, match, put, verdict, verify

MOST: Final = (1 << 63) - 1
STRANGE_MATCH: Final = {
    "level": "sibling", "registered_domain": "bad.example",
    "indicator": {
        "kind": "domain", "value": "bad.example", "line": -1, "confidence": 1 << 70, "added_s": -(1 << 70),
        "expires_s": 1 << 70, "first_seen_s": 1 << 70,
    },
}  # fmt: skip
BY_TYPE: Final = {
    "INTEGER": (MOST, -MOST - 1, -1, 0),
    "TEXT": (
        "''",
        "'{'",
        "'[1,'",
        "'x'",
        f"'{{\"a\":{MOST}}}'",
        "CAST(x'ff7b' AS TEXT)",
        f"'{MOST}'",
        "'-1'",
        f"'{json.dumps(STRANGE_MATCH)}'",
    ),
    "BLOB": ("x''", "x'0a00'", "zeroblob(16)"),
}
TABLES: Final = (
    "meta", "numbers", "decisions", "targets", "enforcements", "audit", "watches", "timeline", "batches", "campaigns",
    "campaign_keys", "incidents", "entries", "feeds", "verdicts", "incident_notes", "rejected_ties",
)  # fmt: skip
X: Final = address("203.0.113.1")


def fill(path: Path) -> None:
    """Two rows in every table; the first is damaged, the second is the other."""
    with ledger_at(path) as made:
        made.call(meta.begin_run, T0)
        made.call(meta.put, "remedies D1", "192.0.2.1")
        made.call(spared.keep, "D1", {X: "shared"})
        made.call(WAITS.keep, {"D1": T0})
        for number, domain in enumerate(("bad.example", "worse.example"), 1):
            id_, campaign, incident = f"D{number}", f"C{number}", f"I{number}"
            put(made, domain, NewTarget(X, T0 + HOUR, 1))
            tie = Campaign(campaign, [f"indicator {domain}"], [incident], T0, T0, ["tie"], {"C9": "why"})
            made.call(incidents.put_campaign, tie)
            found = Incident(
                incident, campaign, A, match(domain), T0, T0, T0, 1, 1, 0, False, 0, {domain: 1}, {"dns": 1},
                {"tap": 1}, "02:00:00:00:00:01", [A], "1 MB",
            )  # fmt: skip
            made.call(incidents.put_incident, found, "lab", 1)
            made.call(incidents.reject_tie, campaign, f"C{number + 7}", T0, ANNA)
            counts = AttemptCount(id_, A, X, T0, T0 + 5, 3, 1), ContactCount(incident, T0, T0 + 5, 1)
            made.call(attempts.record_batch, Batch(f"p{number}", 1, counts[:1], counts[1:]), T0)
            made.call(notes.add_notes, [notes.Note(incident, T0, "lifted", "an allowance")])
            kind = ("indicator", "allowance")[number - 1]
            made.call(entries.add, kind, f"entry-{number}.example", "uid:anna", "notice", T0, T0 + DAY, ANNA)
            row = targets.Enforcement(id_, X, "active", "")
            made.call(targets.set_enforcements, "nftables", [row], T0)
            made.call(feeds.note, feeds.FeedRow(f"feed-{number}", T0, T0, "", 1, 1, 0, 0))
            made.call(feeds.judge, incident, "confirmed", "uid:anna", "seen", T0, ANNA)
        put(made, "lifted.example")
        made.call(decisions.end, "D3", "withdrawn", T0, decision_rows.LIFTING[0], "allowed", ANNA)


def columns(connection: Connection, table: str) -> list[tuple[str, str]]:
    """(name, type) of a table's columns."""
    return [(name, type_) for _, name, type_, *_ in connection.execute(f"PRAGMA table_info({table})")]


class Opened:
    """A ledger's connection in place of its writer's thread, which a thousand cases need not each have."""

    low_on_space = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        self._connection.execute("SAVEPOINT one")
        try:
            return fn(self._connection, *args)
        except Exception as error:
            self._connection.execute("ROLLBACK TO one")
            raise explained(error, Path("ledger.db")) from error
        finally:
            self._connection.execute("RELEASE one")

    async def read(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.call(fn, *args)

    run = run_large = read


async def starts_and_shows(opened: Opened, path: Path, texts: Any) -> None:
    """What the daemon does at its start, and every screen."""
    hands = Hands(T0 + HOUR)
    opened_: Any = opened
    tellers: Any = Ears()
    core = Core(path, texts, hands.clock(), opened_, tellers)
    core.enforcement.protect = Kernel().protect  # type: ignore[method-assign]
    last = opened.call(meta.last_run)
    now_us = core.clock.now_us()
    set_us = meta.set_by_us(last, now_us)
    found = opened.call(ledger.load_all, now_us - set_us, FORGET_US)
    opened.call(meta.begin_run, now_us)
    opened.call(meta.clock_was_set, set_us, now_us)
    opened.call(audit.append, ANNA, now_us)
    core.restore(found, {id_: text.split(",") for id_, text in opened.call(meta.under, "remedies").items()})
    if set_us:
        core.shift(set_us)
    opened.call(targets.load_enforcements, "nftables")
    await core.renew()
    await core.tick()
    core.register.rules("enforce")
    assert number_of(core.new_id(), DECISION)
    assert {row.id for row in found.decisions} >= {"D2"}
    for row in found.decisions:  # what packet processes tell of it must be what the core takes (runtime/messages.py)
        assert unpack_match(json.loads(json.dumps(pack_match(row.match)))) == row.match
    assert {row.incident.id for row in found.incidents} >= {"I2"}
    assert "E2" in {one.id for one in found.entries}
    assert screens.timed(opened.call(queries.status, now_us))["incidents"]["open"] > 0
    assert (await screens.hosts(core))["hosts"]
    assert "I2" in [one["id"] for one in (await screens.incidents(core, "all", None))["incidents"]]
    assert "I2" in [one["id"] for one in (await screens.incidents(core, None, "10.0.0.1"))["incidents"]]
    assert "D2" in [one["id"] for one in screens.timed(opened.call(queries.decisions_told, "", 100))]
    assert "D2" in [one["decision_id"] for one in screens.timed(opened.call(queries.watches, now_us))]
    screens.listed(core)
    assert len((await screens.audit_rows(core, {"verify": False, "limit": 99, "actor": ""}))["rows"]) > 5
    opened.call(audit.rows, 100, "uid:anna")
    opened.call(verify)
    opened.call(feeds.scores)
    opened.call(feeds.rows)


def writes_others(opened: Opened) -> None:
    """The second of everything, and something new, is written."""
    now_us = T0 + HOUR
    tried = tuple(AttemptCount(one, client, X, T0, T0 + 5, 3, 1) for one in ("D1", "D2") for client in (A, B))
    reached = tuple(ContactCount(one, now_us, now_us + 5, 1, 1, 1, 1) for one in ("I1", "I2"))
    assert opened.call(attempts.record_batch, Batch("p9", 1, tried, reached), now_us).counted
    made = opened.call(decisions.commit, verdict("new.example"), [NewTarget(about("new.example"))], "rule:x")
    assert opened.call(decision_rows.load, made).targets[0].target == Target("registered_domain", "new.example")
    opened.call(incidents.put_campaign, Campaign("C2", ["indicator new.example"], [], T0, now_us))
    opened.call(incidents.put_campaign, Campaign("C7", ["address 198.51.100.7"], [], T0, now_us))
    opened.call(incidents.put_incident, Incident("I7", "C7", B, match("new.example"), now_us, now_us, now_us))
    opened.call(incidents.acknowledge, "I2", now_us, "uid:anna", ANNA)
    opened.call(notes.add_notes, [notes.Note("I2", now_us, "more", "")])
    opened.call(entries.add, "indicator", "newer.example", "uid:anna", "notice", now_us, 0, ANNA)
    opened.call(targets.set_enforcements, "nftables", [targets.Enforcement("D2", X, "failed", "why")], now_us)
    opened.call(feeds.add_hits, [("feed-1", 1, 1), ("feed-2", 1, 1)])
    opened.call(feeds.judge, "I2", "false-positive", "uid:anna", "ours", now_us, ANNA)
    opened.call(targets.expire, [("D2", X)], now_us, TIMER)
    opened.call(decisions.end, "D2", "undone", now_us, "uid:anna", "", ANNA)
    opened.call(retention.close_quiet, now_us, now_us, TIMER)
    opened.call(retention.trim, retention.Bounds(), now_us, TIMER)
    opened.call(retention.trim_audit, [], retention.Bounds(), now_us, TIMER)
    opened.call(incidents.merge_campaigns, "C2", "C7")
    for delta_us in (DAY, -DAY):
        opened.call(targets.shift_deadlines, delta_us)
    opened.call(meta.end_run, now_us)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Connection]:
    """A full ledger, opened for damage."""
    fill(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as connection:
        connection.text_factory = text_of
        yield connection


def damage(connection: Connection, table: str, column: str, value: object, row: int) -> bool:
    """Whether one value of a row is another now; SQLite takes none that breaks a key or is of another type."""
    key = [name for _, name, _, _, _, place in connection.execute(f"PRAGMA table_info({table})") if place]
    order = ", ".join(key) or "rowid"
    where = f"({order}) = (SELECT {order} FROM {table} ORDER BY {order} LIMIT 1 OFFSET {row})"
    try:
        changed = connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}")
    except sqlite3.IntegrityError:
        return False
    return changed.rowcount > 0


@pytest.mark.parametrize("table", TABLES)
def test_one_damaged_value_takes_nothing_else_down(whole: Connection, tmp_path: Path, table: str) -> None:
    path = tmp_path / "egressd.yaml"
    path.write_text(CONFIG)
    (tmp_path / "csirt.txt").write_text("c2.listed.example\n")
    texts = load_texts(path)
    opened = Opened(whole)
    failed: list[str] = []
    cases = [
        (column, value, row)
        for row in range(4 if table in ("numbers", "meta") else 1)
        for column, type_ in columns(whole, table)
        for value in BY_TYPE[type_]
    ]
    with asyncio.Runner() as loop:
        for column, value, row in cases:
            whole.execute("PRAGMA foreign_keys = OFF")  # a disk keeps to none
            whole.execute("BEGIN")
            try:
                if damage(whole, table, column, value, row):
                    loop.run(starts_and_shows(opened, path, texts))
                    writes_others(opened)
            except (Exception, AssertionError) as error:  # noqa: BLE001 - what fails is told below, all of it
                failed.append(f"{column} = {value} in row {row}: {error!r}")
            finally:
                whole.execute("ROLLBACK")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("table", TABLES)
def test_a_row_with_a_value_of_another_type_is_set_aside(whole: Connection, tmp_path: Path, table: str) -> None:
    """SQLite finds those when it looks through the file at the start, which they stopped."""
    path = tmp_path / "egressd.yaml"
    path.write_text(CONFIG)
    (tmp_path / "csirt.txt").write_text("c2.listed.example\n")
    texts = load_texts(path)
    strict = reshape(whole, table, lambda sql: sql.replace("STRICT", "").replace("NOT NULL", ""))
    whole.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    copy, aside = tmp_path / "copy.db", tmp_path / "copy.db.set-aside"
    found: list[str] = []
    with asyncio.Runner() as loop:
        for column, type_ in columns(whole, table):
            for value, what in (("NULL", "null"), ("x'00'", "blob") if type_ != "BLOB" else ("7", "integer")):
                with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                    whole.backup(connection)
                    connection.execute("PRAGMA ignore_check_constraints = ON")
                    is_damaged = damage(connection, table, column, value, 0)
                    reshape(connection, table, lambda sql: strict)
                if is_damaged:
                    opened = open_ledger(copy, T0)
                    told, again = opened.aside, []
                    opened.close()
                    opened = open_ledger(copy, T0)
                    again = opened.aside
                    opened.close()
                    (row,) = map(json.loads, aside.read_text().splitlines())
                    assert row["table"] == table and row["row"].keys() == {name for name, _ in columns(whole, table)}
                    assert again == [] and len(told) == 1 and told[0].startswith(f"table {table}, "), told
                    assert told[0].endswith(
                        f": {column} is of type {what}; the row is set aside in copy.db.set-aside"
                    ), told
                    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                        connection.text_factory = text_of
                        loop.run(starts_and_shows(Opened(connection), path, texts))
                        writes_others(Opened(connection))
                    found.append(column)
                for left in tmp_path.glob("copy.db*"):
                    left.unlink()
    assert found, "nothing was damaged"


def lose(whole: Connection, copy: Path, table: str, column: str) -> None:
    """A copy of a database in which the first row of a table has NULL in a column that must not have it."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        whole.backup(connection)
        strict = reshape(connection, table, lambda sql: sql.replace("STRICT", "").replace("NOT NULL", ""))
        connection.execute(f"UPDATE {table} SET {column} = NULL WHERE number = 1")
        reshape(connection, table, lambda sql: strict)


def test_a_row_in_a_state_that_there_is_not_is_set_aside(whole: Connection, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "copy.db", isolation_level=None)) as connection:
        whole.backup(connection)
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE incidents SET state = 'opem' WHERE number = 1")
    opened = open_ledger(tmp_path / "copy.db", T0)
    (told,) = opened.aside
    assert told.startswith("table incidents, number 1: a value is none that it can have; the row is set aside")
    opened.close()


def test_with_more_than_such_rows_the_ledger_is_damaged(whole: Connection, tmp_path: Path) -> None:
    """Without a row that says its shape, or with pages that are none, nothing is known of it."""
    lose(whole, tmp_path / "copy.db", "migrations", "name")
    with pytest.raises(StoreError, match=r"damaged.*migrations[.]name") as told:
        open_ledger(tmp_path / "copy.db", T0)
    assert told.value.kind == CORRUPT and not (tmp_path / "copy.db.set-aside").exists()


def test_a_row_that_can_be_kept_nowhere_holds_up_nothing(whole: Connection, tmp_path: Path) -> None:
    lose(whole, tmp_path / "copy.db", "incidents", "last_us")
    (tmp_path / "copy.db.set-aside").mkdir()
    opened = open_ledger(tmp_path / "copy.db", T0)
    (told,) = opened.aside
    assert told == (
        "table incidents, number 1: last_us is of type null; the row is set aside and NOT KEPT"
        " (copy.db.set-aside: Is a directory)"
    )
    opened.close()


def reshape(connection: Connection, table: str, change: Callable[[str], str]) -> str:
    """Change what SQLite knows of a table; returns what it knew."""
    (shape,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (change(shape), table))
    connection.execute("PRAGMA writable_schema = RESET")
    return str(shape)


def test_the_tables_are_all(whole: Connection) -> None:
    found = {name for (name,) in whole.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert found == {*TABLES, "migrations"}
