"""Shapes: made step by step, upgraded, never downgraded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from sqlite3 import Connection

import pytest

from egressd.store import attempts, decision_rows
from egressd.store.db import Database
from egressd.store.errors import SCHEMA, StoreError
from egressd.store.ledger import load_all, open_ledger
from egressd.store.migrations import LEDGER, name_of
from egressd.store.records import render_match
from tests.store.scene import HOUR, T0, A, match, opened, put, tied


def recorded(connection: Connection) -> list[tuple[int, str, int]]:
    return connection.execute("SELECT number, name, applied_us FROM migrations ORDER BY number").fetchall()


def shape(connection: Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def put_as_it_was(connection: Connection) -> None:
    """A decision in the columns of the first shape."""
    connection.execute("UPDATE numbers SET last = 1 WHERE kind = 'D'")
    connection.execute(
        "INSERT INTO decisions(number, created_us, action, state, mode, author, reason, rule, evidence, match,"
        " registered_domain, client, name, campaign, main_kind, main_value) VALUES(1, ?, 'block', 'active', 'enforce',"
        " 'policy', 'listed', 'level-host', 'E1', ?, 'bad.example', ?, '', 0, 'registered_domain', 'bad.example')",
        (T0, render_match(match()), A),
    )
    connection.execute(
        "INSERT INTO targets(decision, kind, value, state, added_us, expires_us, level, renewed_us)"
        " VALUES(1, 'registered_domain', 'bad.example', 'active', ?, 0, 0, ?)",
        (T0, T0),
    )


@pytest.mark.parametrize(
    ("mode", "since", "through"),
    [("monitor", T0 - 5, 7), ("monitor", T0 + 5, 0), ("monitor", 0, 0), ("enforce", T0 - 5, 0), ("damaged", 0, 0)],
)
def test_what_was_tried_under_monitor_before_the_upgrade_was_let_through(
    tmp_path: Path, mode: str, since: int, through: int
) -> None:
    """Armed after that, screens said that three of five hundred tries were let through: those since the upgrade."""

    def put_as_it_was_then(connection: Connection) -> None:
        connection.execute("INSERT INTO campaigns(number, first_us, last_us) VALUES(1, ?, ?)", (T0, T0))
        connection.execute(
            "INSERT INTO incidents(number, campaign, client, segment, state, match, registered_domain, opened_us,"
            " first_us, last_us, contacts, attempts, retro)"
            " VALUES(1, 1, ?, '', 'open', ?, 'bad.example', ?, ?, ?, 9, 7, 0)",
            (A, render_match(match()), T0, T0, T0),
        )
        connection.execute("INSERT INTO watches VALUES(1, ?, ?, ?, 7, 0)", (A, T0, T0))
        left = json.dumps({"mode": mode, "modes": {"lab": "monitor"}, "configured": mode})
        connection.execute("INSERT INTO meta VALUES('modes', ?)", (left if mode != "damaged" else "{",))
        connection.execute("INSERT INTO meta VALUES('modes since', ?)", (json.dumps({"": [since, 0, "", ""]}),))

    path = tmp_path / "ledger.db"
    old = Database(path, steps=LEDGER[:8], ballast_bytes=0)
    old.open(T0)
    old.call(put_as_it_was)
    old.call(put_as_it_was_then)
    old.close()
    new = Database(path, steps=LEDGER, ballast_bytes=0)
    new.open(T0 + 5)
    for table in ("incidents", "watches"):
        assert new.call(lambda one, of=table: one.execute(f"SELECT let_through FROM {of}").fetchone()) == (through,)
    new.close()


@pytest.mark.parametrize(("since", "through"), [(-1, 7), (1, 0), (10**30, 0)], ids=["before", "after", "damaged"])
def test_of_each_hour_too_that_was_whole_in_monitor(tmp_path: Path, since: int, through: int) -> None:
    hour = T0 // HOUR

    def put_hour(connection: Connection) -> None:
        connection.execute("INSERT INTO timeline VALUES(?, 1, 7, 0)", (hour,))
        left = json.dumps({"mode": "monitor", "modes": {}, "configured": "monitor"})
        connection.execute("INSERT INTO meta VALUES('modes', ?)", (left,))
        told = json.dumps({"": [hour * HOUR + since, 0, "", ""]})
        connection.execute("INSERT INTO meta VALUES('modes since', ?)", (told,))

    path = tmp_path / "ledger.db"
    old = Database(path, steps=LEDGER[:9], ballast_bytes=0)
    old.open(T0)
    old.call(put_as_it_was)
    old.call(put_hour)
    old.close()
    new = Database(path, steps=LEDGER, ballast_bytes=0)
    new.open(T0 + 5)
    assert new.call(attempts.attempts_since, T0 - HOUR) == (7, through, 0)
    new.close()


@pytest.mark.parametrize("made", range(1, len(LEDGER)))
def test_a_ledger_of_each_earlier_shape_upgrades_with_what_is_in_it(tmp_path: Path, made: int) -> None:
    path = tmp_path / "ledger.db"
    old = Database(path, steps=LEDGER[:made], ballast_bytes=0)
    assert old.open(T0) == [name_of(step) for step in LEDGER[:made]]
    old.call(put_as_it_was)
    old.close()
    new = Database(path, steps=LEDGER, ballast_bytes=0)
    assert new.open(T0 + 5) == [name_of(step) for step in LEDGER[made:]]
    assert [row[2] for row in new.call(recorded)] == [T0] * made + [T0 + 5] * (len(LEDGER) - made)
    (row,) = new.call(load_all, T0).decisions
    assert (row.id, row.ended_from, [one.withdrawn_by for one in row.targets]) == ("D1", "", [""])
    tied(new, "C1", "indicator bad.example")
    opened(new, "I1", "C1")
    upgraded = new.call(shape)
    new.close()
    fresh = open_ledger(tmp_path / "fresh.db", T0, 0)
    assert fresh.call(shape) == upgraded
    fresh.close()


def test_a_newer_shape_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    def of_the_future(connection: Connection) -> None:
        connection.execute("CREATE TABLE more(x)")

    path = tmp_path / "ledger.db"
    newer = Database(path, steps=(*LEDGER, of_the_future), ballast_bytes=0)
    newer.open(T0)
    put(newer)
    newer.close()
    with pytest.raises(StoreError, match=r"made by a newer egressd .*; install that version again") as caught:
        open_ledger(path, T0)
    assert caught.value.kind == SCHEMA
    newer.open(T0)
    assert newer.call(decision_rows.load, "D1") is not None
    newer.close()


def test_before_an_upgrade_the_ledger_is_copied_so_that_the_version_before_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = Database(path, steps=LEDGER[:5], ballast_bytes=0)
    old.open(T0)
    old.call(put_as_it_was)
    old.close()
    new = open_ledger(path, T0 + 5, 0)
    new.close()
    copy = tmp_path / "ledger.db.shape-5"
    taken = "ledger.db is taken over from an earlier version"
    assert new.upgraded == f"{taken}; ledger.db.shape-5 is a copy of it as it was"
    assert copy.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match=r"its first start, ledger\.db\.shape-5, in its place"):
        old.open(T0 + 10)
    copy.rename(path)
    assert old.open(T0 + 10) == []
    assert old.call(lambda one: one.execute("SELECT number FROM decisions").fetchall()) == [(1,)]
    old.close()


def test_an_upgrade_takes_copies_of_upgrades_long_ago_away(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for taken, days_old in ((3, 2), (5, 0)):  # the second one was cut off between two steps
        old = Database(path, steps=LEDGER[:taken], ballast_bytes=0, keeps_old=True)
        old.open(T0)
        old.close()
        copy = tmp_path / f"ledger.db.shape-{taken - 1}"
        copy.write_bytes(b"")
        ago_s = copy.stat().st_mtime - days_old * 86_400
        os.utime(copy, (ago_s, ago_s))
    open_ledger(path, T0, 0).close()
    left = sorted(one.name for one in tmp_path.glob("ledger.db.shape-*"))
    assert left == ["ledger.db.shape-3", "ledger.db.shape-4", "ledger.db.shape-5"]


def test_a_ledger_without_room_for_a_copy_is_upgraded_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = Database(path, steps=LEDGER[:5], ballast_bytes=0)
    old.open(T0)
    old.close()
    (tmp_path / "ledger.db.shape-5").mkdir()  # nothing can be put in its place
    new = open_ledger(path, T0, 0)
    assert "NO COPY" in new.upgraded and len(new.call(recorded)) == len(LEDGER)
    new.close()
    assert open_twice(path) == ""


def open_twice(path: Path) -> str:
    """What a start with a ledger of this version's shape tells of an upgrade."""
    same = open_ledger(path, T0, 0)
    same.close()
    return same.upgraded


def test_a_step_that_fails_leaves_no_half_of_itself(tmp_path: Path) -> None:
    def fails(connection: Connection) -> None:
        connection.execute("CREATE TABLE half(x)")
        connection.execute("no SQL")

    path = tmp_path / "ledger.db"
    open_ledger(path, T0, 0).close()
    with pytest.raises(StoreError, match="syntax error"):
        Database(path, steps=(*LEDGER, fails)).open(T0)
    again = open_ledger(path, T0, 0)
    assert len(again.call(recorded)) == len(LEDGER)
    assert "half" not in {name for name, _ in again.call(shape)}
    again.close()


@pytest.mark.parametrize("tables", [["CREATE TABLE songs(x)"], ["migrations"]])
def test_a_database_of_something_else_is_refused(tmp_path: Path, tables: list[str]) -> None:
    path = tmp_path / "ledger.db"

    def other(connection: Connection) -> None:
        connection.execute("CREATE TABLE songs(x)")

    foreign = Database(path, steps=(other,), ballast_bytes=0)
    foreign.open(T0)
    if tables != ["migrations"]:
        foreign.call(lambda connection: connection.execute("DROP TABLE migrations"))
    foreign.close()
    with pytest.raises(StoreError, match=r"something else|not one that egressd had"):
        open_ledger(path, T0)


def test_names_of_released_steps_do_not_change() -> None:
    assert [name_of(step) for step in LEDGER] == [
        "decisions_and_audit",
        "watches_and_incidents",
        "operators_entries",
        "feeds_and_verdicts",
        "allowances_and_notes",
        "sources_of_incidents",
        "devices_and_ties",
        "incidents_of_campaigns",
        "tries_let_through",
        "hours_let_through",
    ]
