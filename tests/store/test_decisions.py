"""Decisions: one per main target, extended, narrowed, approved, ended; every change leaves its audit row or nothing."""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection
from typing import Any

import pytest

from egressd.model import Target
from egressd.store import audit, decision_rows, decisions
from egressd.store.audit import Act
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.errors import REQUEST, StoreError
from tests.store.scene import ANNA, HOUR, T0, about, address, put, verdict

ONE, TWO = address("203.0.113.1"), address("203.0.113.2")


def acts(ledger: Database) -> list[tuple[str, str, str]]:
    """(act, object, actor) of every audit row, oldest first."""
    return [(row["act"], row["object"], row["actor"]) for row in ledger.call(audit.rows)[::-1]]


def states(ledger: Database, id_: str) -> dict[Target, str]:
    row = ledger.call(decision_rows.load, id_)
    assert row is not None
    return {one.target: one.state for one in row.targets}


def test_a_new_decision_has_its_audit_row(ledger: Database) -> None:
    made = ledger.call(decisions.commit, verdict(), [NewTarget(about()), NewTarget(ONE)], "rule:level-sibling")
    assert made == "D1"
    assert acts(ledger) == [("block", "D1", "rule:level-sibling")]
    told = ledger.call(audit.rows)[0]["after"]
    assert told["count"] == 2 and told["targets"][1] == "address 203.0.113.1" and told["state"] == "active"


def test_the_same_main_target_twice_is_one_decision(ledger: Database) -> None:
    assert put(ledger) == "D1"
    again = ledger.call(decisions.commit, verdict(ts_us=T0 + 1), [NewTarget(about()), NewTarget(ONE)], "rule:x")
    assert again == "D1"
    assert ledger.call(decisions.commit, verdict(), [NewTarget(about()), NewTarget(ONE)], "rule:x") == "D1"
    assert [len(row.targets) for row in ledger.call(decision_rows.load_open)] == [2]
    assert len(acts(ledger)) == 2  # what changed nothing has no row
    ledger.call(decisions.end, "D1", "undone", T0 + 2, "uid:anna", "mistake", ANNA)
    assert put(ledger) == "D2"


def test_numbers_given_by_others_are_kept_and_never_given_again(ledger: Database) -> None:
    commit = decisions.commit
    assert ledger.call(commit, verdict("a.example", "D7"), [NewTarget(about("a.example"))], "x") == "D7"
    assert put(ledger, "b.example") == "D8"
    assert ledger.call(commit, verdict("c.example", "D3"), [NewTarget(about("c.example"))], "x") == "D3"
    assert put(ledger, "d.example") == "D9"
    with pytest.raises(StoreError, match="there is a decision D3 already"):
        ledger.call(commit, verdict("e.example", "D3"), [NewTarget(about("e.example"))], "x")


def test_extend_keeps_the_longer_time_and_counts_what_is_new(ledger: Database) -> None:
    put(ledger, "bad.example", NewTarget(ONE, T0 + HOUR))

    def extend(*targets: NewTarget) -> int:
        return ledger.call(decisions.extend, "D1", targets, T0 + 5, ANNA._replace(act="extend"))

    assert extend(NewTarget(ONE, T0 + 1), NewTarget(TWO, T0 + 9)) == 1
    assert extend(NewTarget(ONE, T0 + 2 * HOUR, 3), NewTarget(about(), T0 + 1)) == 0
    row = ledger.call(decision_rows.load, "D1")
    assert row is not None
    assert [(one.expires_us, one.level) for one in row.targets] == [(0, 0), (T0 + 2 * HOUR, 3), (T0 + 9, 0)]
    assert acts(ledger)[1:] == [("extend", "D1", "uid:anna")]


def test_withdraw_and_add_again(ledger: Database) -> None:
    put(ledger, "bad.example", NewTarget(ONE, T0 + HOUR, 3), NewTarget(TWO))
    withdraw = Act("rule:shared", "policy", "withdraw", "", "an innocent site")
    assert ledger.call(decisions.withdraw, "D1", [ONE, address("192.0.2.9")], T0 + 1, withdraw) == 1
    assert ledger.call(decisions.withdraw, "D1", [ONE], T0 + 2, withdraw) == 0
    assert states(ledger, "D1") == {about(): "active", ONE: "withdrawn", TWO: "active"}
    assert [one.target for one in ledger.call(decision_rows.load_open)[0].targets] == [about(), TWO]
    ledger.call(decisions.extend, "D1", [NewTarget(ONE, T0 + 9)], T0 + 7, ANNA)
    again = ledger.call(decision_rows.load_open)[0].targets[1]
    assert (again.target, again.expires_us, again.level, again.added_us) == (ONE, T0 + 9, 0, T0 + 7)
    assert len(acts(ledger)) == 3


@pytest.mark.parametrize(
    ("state", "left"), [("withdrawn", "withdrawn"), ("expired", "expired"), ("undone", "withdrawn")]
)
def test_the_end(ledger: Database, state: str, left: str) -> None:
    put(ledger, "bad.example", NewTarget(ONE))
    end = ANNA._replace(act="undo")
    assert ledger.call(decisions.end, "D1", state, T0 + 5, "uid:anna", "mistake", end)
    assert not ledger.call(decisions.end, "D1", state, T0 + 6, "uid:bert", "again", end)
    row = ledger.call(decision_rows.load, "D1")
    assert row is not None
    assert (row.state, row.ended_us, row.ended_by, row.ended_reason) == (state, T0 + 5, "uid:anna", "mistake")
    assert {one.state for one in row.targets} == {left}
    assert ledger.call(decision_rows.load_open) == []
    assert acts(ledger)[1:] == [("undo", "D1", "uid:anna")]
    with pytest.raises(StoreError, match=f"D1 has ended: it is {state}"):
        ledger.call(decisions.extend, "D1", [NewTarget(TWO)], T0 + 7, ANNA)


def test_a_proposal_is_approved_once_and_its_time_begins_then(ledger: Database) -> None:
    targets = [NewTarget(about()), NewTarget(ONE, T0 + HOUR)]
    ledger.call(decisions.commit, verdict(), targets, "rule:x", "proposed")
    act = ANNA._replace(act="approve")
    assert ledger.call(decisions.approve, "D1", T0 + 5 * HOUR, act)
    assert not ledger.call(decisions.approve, "D1", T0 + 6 * HOUR, act)
    (row,) = ledger.call(decision_rows.load_open)
    assert row.state == "active" and [one.expires_us for one in row.targets] == [0, T0 + 6 * HOUR]
    assert acts(ledger)[1:] == [("approve", "D1", "uid:anna")]


def test_a_proposal_that_comes_again_as_a_person_s_block_is_approved(ledger: Database) -> None:
    put(ledger, state="proposed")
    assert ledger.call(decisions.commit, verdict(), [NewTarget(about())], "uid:anna", "active", ANNA) == "D1"
    assert ledger.call(decision_rows.load_open)[0].state == "active"
    assert acts(ledger)[1:] == [("block", "D1", "uid:anna")]


def test_finding(ledger: Database) -> None:
    put(ledger, "a.example", NewTarget(ONE))
    put(ledger, "b.example", NewTarget(ONE))
    put(ledger, "c.example", state="proposed")
    assert ledger.call(decisions.find_open, about("c.example")) == ("D3", "proposed")
    assert ledger.call(decisions.find_open, ONE) is None  # nobody's main target


CALLS: list[Callable[[Connection], Any]] = [
    lambda connection: decisions.extend(connection, "D9", [NewTarget(ONE)], T0, ANNA),
    lambda connection: decisions.withdraw(connection, "D9", [ONE], T0, ANNA),
    lambda connection: decisions.end(connection, "D9", "undone", T0, "x", "x", ANNA),
    lambda connection: decisions.end(connection, "D1", "active", T0, "x", "x", ANNA),
    lambda connection: decisions.approve(connection, "D9", T0, ANNA),
    lambda connection: decisions.commit(connection, verdict(), [], "x"),
    lambda connection: decisions.commit(connection, verdict("o.example"), [NewTarget(ONE)], "x", "blue"),
]


@pytest.mark.parametrize("call", CALLS)
def test_what_cannot_be_done_changes_nothing(ledger: Database, call: Callable[[Connection], Any]) -> None:
    put(ledger)
    with pytest.raises(StoreError) as caught:
        ledger.call(call)
    assert caught.value.kind == REQUEST
    assert len(acts(ledger)) == 1 and states(ledger, "D1") == {about(): "active"}


def test_a_decision_whose_audit_row_fails_is_not_made(ledger: Database) -> None:
    with pytest.raises(StoreError, match="audit row"):
        ledger.call(
            decisions.commit, verdict(), [NewTarget(about())], "x", "active", ANNA._replace(reason="x" * 70_000)
        )
    assert ledger.call(decision_rows.load_open) == []
    assert put(ledger) == "D1"
