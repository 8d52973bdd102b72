"""Targets in force: deadlines and enforcement states; 100,000 of them in seconds."""

from __future__ import annotations

import pytest

from egressd.store import audit, decision_rows, decisions, entries, targets
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.targets import Enforcement, Renewal
from tests.store.scene import ANNA, HOUR, SECOND, T0, TIMER, about, address, put, verdict

ONE, TWO = address("203.0.113.1"), address("203.0.113.2")


def test_renewed_and_expired(ledger: Database) -> None:
    put(ledger, "bad.example", NewTarget(ONE, T0 + 2 * HOUR, 1), NewTarget(TWO, T0 + HOUR))
    put(ledger, "asked.example", NewTarget(address("192.0.2.1"), T0 + 1), state="proposed")
    renewal = Renewal("D1", ONE, T0 + 26 * HOUR, 2)
    assert ledger.call(targets.renew, [renewal, Renewal("D77", ONE, 1, 1)], T0 + 2 * HOUR) == 1
    assert ledger.call(targets.expire, [("D1", TWO)], T0 + 2 * HOUR, TIMER) == []
    row = ledger.call(decision_rows.load, "D1")
    assert row is not None and row.state == "active"
    assert [(one.state, one.expires_us, one.level) for one in row.targets] == [
        ("active", 0, 0), ("active", T0 + 26 * HOUR, 2), ("expired", T0 + HOUR, 0),
    ]  # fmt: skip
    assert row.targets[1].renewed_us == T0 + 2 * HOUR
    assert ledger.call(targets.expire, [("D1", TWO)], T0 + 2 * HOUR, TIMER) == []
    assert [row["act"] for row in ledger.call(audit.rows)] == ["expire", "block", "block"]


def test_a_decision_ends_with_its_main_target(ledger: Database) -> None:
    main = address("198.51.100.7")
    ledger.call(decisions.commit, verdict(), [NewTarget(main, T0 + HOUR), NewTarget(ONE, T0 + 9 * HOUR)], "x")
    assert ledger.call(targets.expire, [("D1", main)], T0 + HOUR, TIMER) == ["D1"]
    row = ledger.call(decision_rows.load, "D1")
    assert row is not None and {one.state for one in row.targets} == {"expired"}
    assert (row.state, row.ended_us, row.ended_by, row.ended_reason) == (
        "expired", T0 + HOUR, "rule:time", "its time is over",
    )  # fmt: skip


@pytest.mark.parametrize("delta_us", [86_400 * SECOND, -86_400 * SECOND, -(T0 - 5 * SECOND)])
def test_a_clock_step_moves_every_deadline_that_is_to_come(ledger: Database, delta_us: int) -> None:
    """A day ahead, a day back, and back to 1970: no mass expiry, and each still lasts as long as it should."""
    put(ledger, "bad.example", NewTarget(ONE, T0 + HOUR), NewTarget(TWO, T0 + 2 * HOUR))
    put(ledger, "gone.example", NewTarget(ONE, T0 + HOUR))
    ledger.call(decisions.end, "D2", "undone", T0, "uid:anna", "", ANNA)
    entry = ledger.call(entries.add, "allowance", "ok.example", "uid:anna", "", T0, T0 + HOUR, ANNA)
    assert ledger.call(targets.shift_deadlines, delta_us) == 3
    now_us = T0 + delta_us
    (moved,) = ledger.call(decision_rows.load_open)
    assert [one.expires_us for one in moved.targets] == [0, now_us + HOUR, now_us + 2 * HOUR]
    assert ledger.call(entries.in_force, now_us + HOUR - 1)[0].id == entry.id
    assert ledger.call(entries.in_force, now_us + HOUR) == []
    ended = ledger.call(decision_rows.load, "D2")
    assert ended is not None and ended.targets[1].expires_us == T0 + HOUR
    assert ledger.call(targets.shift_deadlines, 0) == 0


def test_enforcement_states_change_only_where_they_differ(ledger: Database) -> None:
    put(ledger, "bad.example", NewTarget(ONE), NewTarget(TWO))
    rows = [
        Enforcement("D1", about(), "unsupported", "holds no names"),
        Enforcement("D1", ONE, "pending"),
        Enforcement("D1", TWO, "failed", "no space"),
        Enforcement("D99", TWO, "active"),
    ]
    assert ledger.call(targets.set_enforcements, "nftables", rows, T0) == 3
    assert ledger.call(targets.set_enforcements, "nftables", rows, T0 + 1) == 0
    assert ledger.call(targets.set_enforcements, "nftables", [Enforcement("D1", ONE, "active")], T0 + 2) == 1
    assert ledger.call(targets.set_enforcements, "dryrun", [Enforcement("D1", ONE, "active")], T0 + 2) == 1
    assert ledger.call(targets.enforcement_counts) == {
        "nftables": {"active": 1, "failed": 1, "unsupported": 1},
        "dryrun": {"active": 1},
    }
    ledger.call(decisions.withdraw, "D1", [TWO], T0, ANNA)
    assert "failed" not in ledger.call(targets.enforcement_counts)["nftables"]


def test_a_hundred_thousand_active_targets(ledger: Database) -> None:
    """As many as there may be: each written, read and moved in one piece (0.8, 0.15, 0.7 and 0.15 s of CPU)."""
    many = [NewTarget(address(f"198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"), T0 + HOUR + n) for n in range(100_000)]
    put(ledger, "bad.example", *many)
    states = [Enforcement("D1", one.target, "active") for one in many]
    assert ledger.call(targets.set_enforcements, "nftables", states, T0) == 100_000
    assert ledger.call(targets.shift_deadlines, 5) == 100_000
    (row,) = ledger.call(decision_rows.load_open)
    assert [one.expires_us for one in row.targets[:3]] == [0, T0 + HOUR + 5, T0 + HOUR + 6]
    assert len(row.targets) == 100_001
