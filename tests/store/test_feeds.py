"""Scorecards of feeds: how they stand, what they met, what people said."""

from __future__ import annotations

import pytest

from egressd.store import audit, feeds, incidents
from egressd.store.audit import Act
from egressd.store.db import Database
from egressd.store.errors import StoreError
from egressd.store.feeds import CONFIRMED, FALSE_POSITIVE, FeedRow, Score
from tests.store.scene import T0, A, B, match, opened, tied, verify

ACT = Act("uid:anna", "socket", "judge", "", "looked at it")


def incident(ledger: Database, client: bytes = A, value: str = "bad.example") -> str:
    number = len(ledger.call(incidents.load_incidents)) + 1
    tied(ledger, f"C{number}", f"indicator {value}")
    opened(ledger, f"I{number}", f"C{number}", client, value)
    return f"I{number}"


def judge(ledger: Database, id_: str, verdict: str) -> str:
    return ledger.call(feeds.judge, id_, verdict, "uid:anna", "looked at it", T0, ACT)


def test_how_a_feed_stands_replaces_and_what_it_met_adds_up(ledger: Database) -> None:
    row = FeedRow("c2", T0, T0, "", 10, 10, 0, 1)
    ledger.call(feeds.note, row)
    ledger.call(feeds.add_hits, [("c2", 5, 2), ("new", 1, 0)])
    ledger.call(feeds.note, row._replace(error="refused", indicators=11))
    ledger.call(feeds.add_hits, [("c2", 1, 1)])
    assert ledger.call(feeds.scores) == {"c2": Score(6, 3), "new": Score(1, 0)}
    first, second = ledger.call(feeds.rows)
    assert (first["name"], first["error"], first["indicators"], second["last_try_us"]) == ("c2", "refused", 11, 0)


def test_verdicts_are_by_source_one_for_an_incident_and_audited(ledger: Database) -> None:
    source = match().indicator.source
    one, other = incident(ledger), incident(ledger, B, "worse.example")
    assert judge(ledger, one, FALSE_POSITIVE) == source
    assert judge(ledger, other, FALSE_POSITIVE) == source
    assert judge(ledger, other, CONFIRMED) == source
    assert ledger.call(feeds.scores) == {source: Score(0, 0, 1, 1)}
    (latest, *_) = ledger.call(audit.rows, 10, "")
    assert (latest["act"], latest["object"], latest["before"]) == ("judge", other, {"verdict": FALSE_POSITIVE})
    assert latest["after"]["verdict"] == CONFIRMED and ledger.call(verify).ok


@pytest.mark.parametrize(("id_", "verdict"), [("I9", CONFIRMED), ("D1", CONFIRMED), ("I1", "maybe")])
def test_what_cannot_be_judged(ledger: Database, id_: str, verdict: str) -> None:
    incident(ledger)
    with pytest.raises(StoreError):
        judge(ledger, id_, verdict)
    assert ledger.call(feeds.scores) == {}
