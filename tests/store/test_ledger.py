"""The ledger as a whole: loaded as it was left, runs that ended well or not, operators' lines."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from egressd.detect.blocks import main_target
from egressd.model import Campaign, Incident
from egressd.store import attempts, audit, decision_rows, decisions, entries, incidents, ledger, meta, queries
from egressd.store.attempts import AttemptCount, Batch, WatchRow
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.entries import Entry
from egressd.store.errors import StoreError
from egressd.store.ledger import Loaded, load_all
from egressd.store.meta import LastRun
from tests.store.scene import ANNA, DAY, HOUR, T0, A, B, address, ledger_at, match, opened, put, tied


def test_nothing_to_load(ledger: Database) -> None:
    assert ledger.call(load_all, T0) == Loaded([], [], [], [], [], {"D": 0, "I": 0, "C": 0, "E": 0}, [], [], {}, [])


def test_the_daemon_carries_on_with_what_was_open(tmp_path: Path) -> None:
    one = address("203.0.113.1")
    with ledger_at(tmp_path / "ledger.db") as before:
        put(before, "bad.example", NewTarget(one, T0 + HOUR, 1))
        put(before, "gone.example")
        put(before, "asked.example", state="proposed")
        before.call(decisions.end, "D2", "undone", T0, "uid:anna", "", ANNA)
        before.call(attempts.record_batch, Batch("p", 1, (AttemptCount("D1", A, one, T0, T0 + 5, 3),)), T0)
        tied(before, "C1", "indicator bad.example")
        opened(before, "I1", "C1")
        line = before.call(entries.add, "indicator", "worse.example", "uid:anna", "notice", T0, 0, ANNA)
        assert before.call(load_all, T0).decisions[0].targets[1].attempts == 3
        left = before.call(load_all, T0)
    with ledger_at(tmp_path / "ledger.db") as again:
        loaded = again.call(load_all, T0 + DAY)
        assert loaded == left
        assert [row.id for row in loaded.decisions] == ["D1", "D3"]
        assert [row.state for row in loaded.decisions] == ["active", "proposed"]
        assert loaded.watches == [WatchRow("D1", A, T0, T0 + 5, 3, 0)]
        assert [row.incident.id for row in loaded.incidents] == ["I1"]
        assert loaded.campaigns == [Campaign("C1", ["indicator bad.example"], ["I1"], T0, T0)]
        assert loaded.entries == [line]
        assert loaded.last == {"D": 3, "I": 1, "C": 1, "E": 1}


def full_ledger(ledger: Database) -> Loaded:
    """Two of everything that the daemon carries on with; the second of each stays as it is."""
    one = address("203.0.113.1")
    for number, domain in enumerate(("bad.example", "worse.example"), 1):
        put(ledger, domain, NewTarget(one, T0 + HOUR, 1))
        ledger.call(attempts.record_batch, Batch("p", number, (AttemptCount(f"D{number}", A, one, T0, T0 + 5, 3),)), T0)
        campaign = Campaign(f"C{number}", [f"indicator {domain}"], [f"I{number}"], T0, T0, ["tie"], {"C9": "why"})
        ledger.call(incidents.put_campaign, campaign)
        found = Incident(
            f"I{number}", f"C{number}", A, match(domain), T0, T0, T0, 1, 1, 0, False, 0, {domain: 1}, {"dns": 1},
            {"tap": 1}, "", [A], "",
        )  # fmt: skip
        ledger.call(incidents.put_incident, found)
        ledger.call(entries.add, "indicator", domain, "uid:anna", "notice", T0, 0, ANNA)
    put(ledger, "lifted.example")
    ledger.call(decisions.end, "D3", "withdrawn", T0, decision_rows.LIFTING[0], "allowed", ANNA)
    return ledger.call(load_all, T0)


NO_TEXT, NO_JSON, NO_ADDRESS = "CAST(x'ff7b' AS TEXT)", "'{'", "x'0a00'"
DAMAGE = [
    ("decisions", "match", NO_JSON, "decision D1: why it was made cannot be read; it stands by what it is about"),
    ("decisions", "match", NO_TEXT, "decision D1: a text is damaged"),
    ("decisions", "reason", NO_TEXT, "decision D1: a text is damaged"),
    ("decisions", "client", NO_ADDRESS, "decision D1: the client is no address; it counts as none"),
    ("targets", "value", NO_TEXT, "decision D1: what it is about is not there; it is not in force"),
    ("watches", "client", NO_ADDRESS, "watch of D1: the client is no address; it is left out"),
    ("incidents", "match", NO_JSON, "incident I1: its reasons cannot be read, and count as none"),
    ("incidents", "names", NO_JSON, "incident I1: its names cannot be read, and count as none"),
    ("incidents", "via", NO_TEXT, "incident I1: its ways cannot be read, and count as none"),
    ("incidents", "sources", "'[]'", "incident I1: its sources cannot be read, and count as none"),
    ("incidents", "addresses", NO_JSON, "incident I1: its addresses cannot be read, and count as none"),
    ("incidents", "addresses", "'[\"0a\"]'", "incident I1: its addresses cannot be read, and count as none"),
    ("incidents", "device", NO_TEXT, "incident I1: a text is damaged"),
    ("incidents", "client", NO_ADDRESS, "incident I1: the client is no address; it is left out"),
    ("campaigns", "ties", NO_JSON, "campaign C1: its ties cannot be read, and count as none"),
    ("campaigns", "candidates", NO_JSON, "campaign C1: its candidates cannot be read, and count as none"),
    ("campaign_keys", "key", NO_TEXT, "a key of campaign C1: a text is damaged"),
    ("entries", "text", NO_TEXT, "entry E1: a text is damaged"),
]


@pytest.mark.parametrize(("table", "column", "value", "said"), DAMAGE, ids=[f"{d[0]}.{d[1]}={d[2]}" for d in DAMAGE])
def test_a_row_that_cannot_be_read_takes_no_other_down(
    tmp_path: Path, table: str, column: str, value: str, said: str
) -> None:
    """The daemon did not start for one."""
    with ledger_at(tmp_path / "ledger.db") as before:
        whole = full_ledger(before)
        before.call(lambda connection: connection.execute(f"UPDATE {table} SET {column} = {value} WHERE rowid IN"
            f" (SELECT min(rowid) FROM {table})" if table != "watches" else  # it has no rowid
            f"UPDATE watches SET client = {value} WHERE decision = 1"))  # fmt: skip
    with ledger_at(tmp_path / "ledger.db") as ledger:
        loaded = ledger.call(load_all, T0)
        assert whole.unread == () and said in loaded.unread
        for name in ("decisions", "watches", "incidents", "campaigns", "entries", "lifted"):
            assert getattr(loaded, name)[-1] == getattr(whole, name)[-1]
        assert not {one.incident.id for one in loaded.incidents} ^ {
            id_ for campaign in loaded.campaigns for id_ in campaign.incidents
        }
        if column == "match" and table == "decisions":
            (first, _) = loaded.decisions
            assert first.targets == whole.decisions[0].targets
            assert main_target(first.match) == first.targets[0].target
        ledger.call(queries.hosts)
        assert ledger.call(queries.decisions_told)[-1]["id"] == "D3"
        assert ledger.call(queries.watches, T0)[-1]["decision_id"] == "D2"
        assert ledger.call(queries.incidents, "all")[-1]["id"] == "I2"
        assert ledger.call(queries.incidents, "all", A)[-1]["id"] == "I2"
        assert ledger.call(queries.incidents, "all", B) == []
        ledger.call(meta.begin_run, T0)


def test_a_campaign_that_is_not_there_takes_no_incident_down(tmp_path: Path) -> None:
    with ledger_at(tmp_path / "ledger.db") as before:
        whole = full_ledger(before)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as damaged:
        damaged.execute("PRAGMA foreign_keys = OFF")
        damaged.execute("DELETE FROM campaigns WHERE number = 1")
    with ledger_at(tmp_path / "ledger.db") as ledger:
        loaded = ledger.call(load_all, T0)
    assert loaded.incidents == whole.incidents
    assert loaded.campaigns == [whole.campaigns[1], Campaign("C1", [], ["I1"], T0, T0)]
    assert loaded.unread == (
        "a key of campaign C1: the campaign is not there; it is left out",
        "campaign C1: it is not there, and begins anew with its incidents",
    )


def test_a_lifted_decision_that_cannot_be_read_whole_is_told(tmp_path: Path) -> None:
    with ledger_at(tmp_path / "ledger.db") as before:
        full_ledger(before)
        before.call(lambda connection: connection.execute("UPDATE decisions SET match = '{' WHERE number = 3"))
    with ledger_at(tmp_path / "ledger.db") as ledger:
        loaded = ledger.call(load_all, T0)
        assert [one.id for one in loaded.lifted] == ["D3"]
        assert loaded.unread == ("decision D3: why it was made cannot be read; it stands by what it is about",)


def test_a_damaged_time_of_the_last_run(ledger: Database) -> None:
    ledger.call(meta.begin_run, T0)
    ledger.call(meta.end_run, T0)
    ledger.call(meta.put, "seen_us", "12x")
    assert ledger.call(meta.begin_run, T0) == LastRun(False, 0)


def test_whether_the_last_run_ended_well(tmp_path: Path) -> None:
    with ledger_at(tmp_path / "ledger.db") as first:
        assert first.call(meta.begin_run, T0) == LastRun(True, 0)
        first.call(meta.seen, T0 + 5)
    with ledger_at(tmp_path / "ledger.db") as second:  # nobody said that the first had ended
        assert second.call(meta.begin_run, T0 + HOUR) == LastRun(False, T0 + 5)
        second.call(meta.end_run, T0 + 2 * HOUR)
    with ledger_at(tmp_path / "ledger.db") as third:
        assert third.call(meta.begin_run, T0 + DAY) == LastRun(True, T0 + 2 * HOUR)


def test_values_by_name(ledger: Database) -> None:
    assert ledger.call(meta.get, "mode", "monitor") == "monitor"
    for value in ("enforce", "approve"):
        ledger.call(meta.put, "mode", value)
    assert ledger.call(meta.get, "mode") == "approve"


def test_operators_lines(ledger: Database) -> None:
    def add(kind: str, text: str, expires_us: int = 0) -> Entry:
        return ledger.call(entries.add, kind, text, "uid:anna", "why", T0, expires_us, ANNA)

    bad = add("indicator", "bad.example scope=host")
    good = add("allowance", "good.example", T0 + HOUR)
    assert bad == Entry("E1", "indicator", "bad.example scope=host", "uid:anna", "why", T0, 0)
    assert ledger.call(entries.in_force, T0) == [bad, good]
    assert ledger.call(entries.in_force, T0, "allowance") == [good]
    assert ledger.call(entries.in_force, T0 + HOUR) == [bad]
    longer = add("allowance", "good.example", T0 + DAY)  # the same again: its time is the new one
    assert ledger.call(entries.in_force, T0) == [bad, longer]
    assert ledger.call(entries.remove, "E1", T0 + 1, "uid:bert", ANNA._replace(act="unblock")) == bad
    assert ledger.call(entries.in_force, T0) == [longer]
    for gone in ("E1", "E2", "E99"):
        with pytest.raises(StoreError, match=f"no entry {gone} in force"):
            ledger.call(entries.remove, gone, T0, "uid:anna", ANNA)
    with pytest.raises(StoreError, match="no kind of entry"):
        add("wish", "x.example")
    rows = ledger.call(audit.rows)
    assert [(row["act"], row["object"]) for row in rows[:2]] == [("unblock", "E1"), ("block", "E3")]


def test_the_module_is_named_for_what_it_opens(tmp_path: Path) -> None:
    opened = ledger.open_ledger(tmp_path / "x.db", T0, 0)
    assert opened.path == tmp_path / "x.db"
    opened.close()
