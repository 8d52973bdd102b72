"""What is forgotten: by age, by rows, by size; never what is in force; told each time."""

from __future__ import annotations

from pathlib import Path

from egressd.store import attempts, audit, decision_rows, decisions, entries, incidents, retention, targets
from egressd.store.attempts import AttemptCount, Batch
from egressd.store.audit import Act
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.heads import append_head, load_heads
from egressd.store.retention import AT_ONCE, Bounds, Trimmed
from tests.store.scene import ANNA, DAY, HOUR, T0, A, B, address, closed, opened, put, tied, verify

KEEP = Act("egressd", "timer", "retention", "", "beyond the bounds")
MONTH = Bounds(age_us=30 * DAY)


def ended(ledger: Database, domain: str, at_us: int) -> str:
    id_ = put(ledger, domain, NewTarget(address("203.0.113.1")))
    ledger.call(decisions.end, id_, "withdrawn", at_us, "uid:anna", "", ANNA)
    return id_


def there(ledger: Database, table: str) -> int:
    return int(ledger.call(lambda one: one.execute(f"SELECT count(*) FROM {table}").fetchone()[0]))


def test_by_age_with_all_that_hangs_on_it(ledger: Database) -> None:
    ended(ledger, "old.example", T0)
    put(ledger, "still.example")  # old, but in force
    batch = Batch("p", 1, tuple(AttemptCount(id_, A, None, T0, T0, 1) for id_ in ("D1", "D2")))
    ledger.call(attempts.record_batch, batch, T0)
    ended(ledger, "young.example", T0 + 20 * DAY)
    for number, key in enumerate(("old", "young")):
        tied(ledger, f"C{number + 1}", key)
        opened(ledger, f"I{number + 1}", f"C{number + 1}")
        closed(ledger, f"I{number + 1}", T0 + number * 20 * DAY)
    ledger.call(entries.add, "allowance", "x.example", "uid:anna", "", T0, T0 + 1, ANNA)
    ledger.call(entries.add, "allowance", "y.example", "uid:anna", "", T0, 0, ANNA)
    done = ledger.call(retention.trim, MONTH, T0 + 31 * DAY, KEEP)
    assert done == Trimmed(1, 1, 1, 1, 1, 1, 1)
    assert ledger.call(retention.trim, MONTH, T0 + 31 * DAY, KEEP).is_empty()
    assert ledger.call(decision_rows.load, "D1") is None
    assert [row.id for row in ledger.call(decision_rows.load_open)] == ["D2"]
    assert ledger.call(decision_rows.load, "D3") is not None
    assert [row.incident.id for row in ledger.call(incidents.load_where, "", ())] == ["I2"]
    assert [there(ledger, table) for table in ("targets", "watches", "timeline", "campaigns", "entries")] == [
        3,
        0,
        0,
        1,
        1,
    ]
    row = ledger.call(audit.rows)[0]
    assert row["act"] == "retention" and row["after"] == {
        "decisions": 1, "incidents": 1, "campaigns": 1, "watches": 1, "timeline": 1, "entries": 1,
    }  # fmt: skip
    assert put(ledger, "next.example") == "D4"  # no number comes again


def test_what_a_decision_in_force_has_not_held_for_so_long(ledger: Database) -> None:
    """A name in flux lives as long as its indicator, and led to 140,000 addresses a year: nothing but its end took one
    away, and once the file was over its size all that had ended went instead."""
    found = [address(f"203.0.113.{number}") for number in range(4)]
    id_ = put(ledger, "flux.example", *(NewTarget(one, T0 + HOUR) for one in found))
    ledger.call(targets.expire, [(id_, found[0]), (id_, found[1])], T0, KEEP)
    ledger.call(decisions.withdraw, id_, [found[2]], T0 + 20 * DAY, KEEP)
    done = ledger.call(retention.trim, MONTH, T0 + 31 * DAY, KEEP)
    assert done == Trimmed(targets=2)
    assert ledger.call(audit.rows)[0]["after"] == {"targets": 2}
    (row,) = ledger.call(decision_rows.load_where, "1", ())
    assert [one.target.value for one in row.targets] == ["flux.example", "203.0.113.2", "203.0.113.3"]
    assert ledger.call(decisions.extend, id_, [NewTarget(found[0])], T0 + 31 * DAY, KEEP) == 1  # it may come back


def test_by_rows_oldest_end_first(ledger: Database) -> None:
    for number in range(20):
        ended(ledger, f"x{number}.example", T0 + (20 - number) * HOUR)
    assert ledger.call(retention.trim, Bounds(ended_decisions=5), T0 + DAY, KEEP).decisions == 15
    assert [ledger.call(decision_rows.load, f"D{n}") is not None for n in (1, 5, 6, 20)] == [True, True, False, False]


def test_a_bounded_part_at_a_time(ledger: Database) -> None:
    for number in range(AT_ONCE + 10):
        ended(ledger, f"x{number}.example", T0)
    one = ledger.call(retention.trim, MONTH, T0 + 31 * DAY, KEEP)
    two = ledger.call(retention.trim, MONTH, T0 + 31 * DAY, KEEP)
    assert (one.decisions, one.more, two.decisions, two.more) == (AT_ONCE, True, 10, False)


def test_watches_by_rows_quietest_first(ledger: Database) -> None:
    put(ledger)
    counts = [AttemptCount("D1", bytes([10, 0, 0, n]), None, T0, T0 + n, 1) for n in range(50)]
    ledger.call(attempts.record_batch, Batch("p", 1, tuple(counts)), T0)
    assert ledger.call(retention.trim, Bounds(watches=10), T0 + HOUR, KEEP).watches == 40
    assert [row.client[3] for row in ledger.call(attempts.load_watches)] == list(range(40, 50))


def test_by_size_without_the_audit_rows(ledger: Database) -> None:
    for number in range(300):
        ended(ledger, f"x{number}.example", T0 + number)
    put(ledger, "still.example")
    used = ledger.call(retention.used_bytes)
    of_audit = ledger.call(retention.audit_bytes)
    assert 0 < of_audit < used
    large = Bounds(size_bytes=used)
    assert ledger.call(retention.trim, large, T0 + HOUR, KEEP).is_empty()
    assert ledger.call(retention.trim, Bounds(size_bytes=1), T0 + HOUR, KEEP).decisions == 300
    assert [row.id for row in ledger.call(decision_rows.load_open)] == ["D301"]
    assert ledger.call(retention.used_bytes) < used


def test_acknowledged_and_quiet_is_closed(ledger: Database) -> None:
    tied(ledger, "C1", "x")
    opened(ledger, "I1", "C1", A)
    opened(ledger, "I2", "C1", B, last_us=T0 + 50 * DAY)
    assert ledger.call(retention.close_quiet, T0 + 20 * DAY, T0 + 60 * DAY, KEEP) == []  # nobody knows of it yet
    for id_ in ("I1", "I2"):
        ledger.call(incidents.acknowledge, id_, T0, "uid:anna", ANNA)
    assert ledger.call(retention.close_quiet, T0 + 20 * DAY, T0 + 60 * DAY, KEEP) == ["I1"]
    assert [row.incident.id for row in ledger.call(incidents.load_incidents)] == ["I2"]
    assert ledger.call(audit.rows)[0]["after"] == {"closed": 1, "incidents": ["I1"]}


def test_audit_rows_go_behind_a_tombstone_and_the_rest_verifies(ledger: Database, tmp_path: Path) -> None:
    file = tmp_path / "heads"
    for day in range(10):
        put(ledger, f"x{day}.example", ts_us=T0 + day * DAY)
        append_head(file, ledger.call(audit.head), T0 + day * DAY)
    heads, problems = load_heads(file)
    assert problems == []
    bounds = Bounds(audit_age_us=5 * DAY)
    assert ledger.call(retention.trim_audit, heads, bounds, T0 + 5 * DAY, KEEP) == 0
    assert ledger.call(retention.trim_audit, heads, bounds, T0 + 9 * DAY, KEEP) == 4
    assert ledger.call(retention.trim_audit, heads, bounds, T0 + 9 * DAY, KEEP) == 0
    verdict = ledger.call(verify, heads, 5 * DAY)
    assert (verdict.ok, verdict.rows, verdict.cut) == (True, 7, 4)
    assert ledger.call(verify, heads, 7 * DAY).problem == "rows up to 4 were cut before their time"
    assert ledger.call(retention.trim_audit, heads, Bounds(audit_rows=3), T0 + 9 * DAY, KEEP) == 4
    assert ledger.call(verify, heads).ok
    assert ledger.call(retention.trim_audit, [], Bounds(audit_rows=0), T0 + 900 * DAY, KEEP) == 0  # no head, no cut
