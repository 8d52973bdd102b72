"""Attempts and leaks: counted exactly, once, whatever is sent twice."""

from __future__ import annotations

from sqlite3 import Connection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.detect.incident_sums import MAX_NAMES
from egressd.model import Campaign, Incident
from egressd.store import attempts, decision_rows, decisions, incidents
from egressd.store.attempts import AttemptCount, Batch, ContactCount, Counted, WatchRow
from egressd.store.db import Database
from egressd.store.decisions import NewTarget
from egressd.store.errors import StoreError
from tests.store.scene import ANNA, HOUR, T0, V6, A, B, about, address, ledger_at, match, put

ONE = address("203.0.113.1")


def tried(client: bytes = A, count: int = 1, at_us: int = T0, leaks: int = 0, id_: str = "D1") -> AttemptCount:
    return AttemptCount(id_, client, ONE, at_us, at_us + 5, count, leaks)


def opened(connection: Connection) -> str:
    incidents.put_campaign(connection, Campaign("C1", ["indicator bad.example"], [], T0, T0))
    incidents.put_incident(connection, Incident("I1", "C1", A, match(), T0, T0, T0), "lan")
    return "I1"


def test_counts_by_client_target_and_hour(ledger: Database) -> None:
    put(ledger, "bad.example", NewTarget(ONE))
    first = Batch("p1", 1, (tried(A, 3), tried(B, 1, T0 + 1), tried(A, 2, T0 + HOUR, 1)))
    assert ledger.call(attempts.record_batch, first, T0) == Counted(True, (("D1", A), ("D1", B)), 0)
    second = Batch("p1", 2, (tried(A, 4, T0 - 9), tried(V6, 1, T0 + 2 * HOUR)))
    assert ledger.call(attempts.record_batch, second, T0).new == (("D1", V6),)
    assert ledger.call(attempts.load_watches) == [
        WatchRow("D1", A, T0 - 9, T0 + HOUR + 5, 9, 1),
        WatchRow("D1", B, T0 + 1, T0 + 6, 1, 0),
        WatchRow("D1", V6, T0 + 2 * HOUR, T0 + 2 * HOUR + 5, 1, 0),
    ]
    row = ledger.call(decision_rows.load, "D1")
    assert row is not None
    assert [(one.attempts, one.last_attempt_us) for one in row.targets] == [(0, 0), (11, T0 + 2 * HOUR + 5)]
    assert ledger.call(attempts.attempts_since, T0 - 2 * HOUR) == (11, 0, 1)
    assert ledger.call(attempts.attempts_since, T0 + HOUR) == (3, 0, 1)
    ledger.call(decisions.end, "D1", "undone", T0, "uid:anna", "", ANNA)
    assert ledger.call(attempts.load_watches) == []


def test_a_batch_sent_again_is_not_counted_again(ledger: Database) -> None:
    put(ledger)
    batch = Batch("p1", 1, (tried(A, 3),))
    assert ledger.call(attempts.record_batch, batch, T0).counted
    assert ledger.call(attempts.record_batch, batch, T0) == Counted(False)
    assert ledger.call(attempts.record_batch, Batch("p2", 1, (tried(A, 3),)), T0).counted  # another process's
    assert [row.attempts for row in ledger.call(attempts.load_watches)] == [6]


def test_a_batch_that_fails_is_not_remembered_as_counted(ledger: Database) -> None:
    put(ledger)
    with pytest.raises(StoreError):
        ledger.call(attempts.record_batch, Batch("p1", 1, (tried(A, 3), tried(id_="nonsense"))), T0)
    assert ledger.call(attempts.load_watches) == []
    assert ledger.call(attempts.record_batch, Batch("p1", 1, (tried(A, 3),)), T0).counted


def test_what_is_no_longer_kept_is_told_and_the_rest_counts(ledger: Database) -> None:
    put(ledger)
    batch = Batch("p1", 1, (tried(id_="D9"), tried(A, 2)), (ContactCount("I5", T0, T0, 1),))
    assert ledger.call(attempts.record_batch, batch, T0) == Counted(True, (("D1", A),), 2)


def test_incidents_gain(ledger: Database) -> None:
    id_ = ledger.call(opened)
    one = ContactCount(id_, T0 - 5, T0 + 5, 2, 1, 1, 0, (("a.bad.example", 2),), (("dns_query", 1), ("tls_sni", 1)))
    two = ContactCount(id_, T0, T0 + 9, 1, 1, 0, 1, (("b.bad.example", 1),), (("dns_query", 1),))
    ledger.call(attempts.record_batch, Batch("p1", 1, (), (one, two)), T0)
    row = ledger.call(incidents.load_incident, id_)
    assert row is not None
    incident = row.incident
    assert (incident.first_us, incident.last_us) == (T0 - 5, T0 + 9)
    assert (incident.contacts, incident.attempts, incident.answered, row.leaks) == (3, 2, 1, 1)
    assert incident.names == {"a.bad.example": 2, "b.bad.example": 1}
    assert incident.via == {"dns_query": 2, "tls_sni": 1}


def test_names_of_an_incident_are_bounded(ledger: Database) -> None:
    id_ = ledger.call(opened)
    names = tuple((f"x{number}.example", 1) for number in range(MAX_NAMES + 50))
    ledger.call(attempts.record_batch, Batch("p1", 1, (), (ContactCount(id_, T0, T0, names=names + names[:1]),)), T0)
    row = ledger.call(incidents.load_incident, id_)
    assert row is not None and len(row.incident.names) == MAX_NAMES and row.incident.names["x0.example"] == 2


sent = st.lists(
    st.tuples(
        st.sampled_from(["p1", "p2", "p3"]),
        st.lists(st.tuples(st.sampled_from([A, B, V6]), st.integers(1, 9), st.integers(0, 3)), max_size=4),
        st.integers(1, 4),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(sent)
def test_sums_are_exact_however_often_batches_come(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[str, list[tuple[bytes, int, int]], int]]
) -> None:
    wanted: dict[bytes, list[int]] = {}
    numbers: dict[str, int] = {}
    with ledger_at(tmp_path_factory.mktemp("ledger") / "ledger.db") as ledger:
        put(ledger, "bad.example", NewTarget(ONE))
        for process, rows, times in batches:
            numbers[process] = numbers.get(process, 0) + 1
            counts = tuple(tried(client, count, T0, leaks) for client, count, leaks in rows)
            for time in range(times):
                batch = Batch(process, numbers[process], counts)
                assert ledger.call(attempts.record_batch, batch, T0).counted is (time == 0)
            for client, count, leaks in rows:
                sums = wanted.setdefault(client, [0, 0])
                sums[0] += count
                sums[1] += leaks
        found = {row.client: [row.attempts, row.leaks] for row in ledger.call(attempts.load_watches)}
        row = ledger.call(decision_rows.load, "D1")
    assert found == wanted
    assert row is not None and row.targets[1].attempts == sum(count for count, _ in wanted.values())
    assert row.targets[0].target == about() and row.targets[0].attempts == 0
