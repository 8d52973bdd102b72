"""Decisions come back as they were made; what is no decision's id is refused."""

from __future__ import annotations

import pytest

from egressd.store import decision_rows, decisions
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.errors import REQUEST, StoreError
from tests.store.scene import HOUR, T0, A, about, address, match, verdict

ONE, TWO = address("203.0.113.1"), address("203.0.113.2")


def test_a_decision_comes_back_as_it_was_made(ledger: Database) -> None:
    made = verdict()
    targets = [NewTarget(about()), NewTarget(ONE, T0 + HOUR, 2), NewTarget(TWO)]
    assert ledger.call(decisions.commit, made, targets, "rule:level-sibling") == "D1"
    (row,) = ledger.call(decision_rows.load_open)
    assert (row.id, row.created_us, row.state, row.author) == ("D1", T0, "active", "rule:level-sibling")
    assert (row.action, row.mode, row.rule, row.evidence) == ("block", "enforce", "level-sibling", "E1")
    assert (row.reason, row.client, row.name, row.campaign) == (made.reason, A, "b.bad.example", "")
    assert row.match == match()
    assert [(one.target, one.expires_us, one.level, one.added_us) for one in row.targets] == [
        (about(), 0, 0, T0), (ONE, T0 + HOUR, 2, T0), (TWO, 0, 0, T0),
    ]  # fmt: skip
    assert row == ledger.call(decision_rows.load, "D1")


def test_what_is_not_there(ledger: Database) -> None:
    assert ledger.call(decision_rows.load, "D1") is None
    with pytest.raises(StoreError) as caught:
        ledger.call(decision_rows.load, "I1")
    assert caught.value.kind == REQUEST
