"""Attempts taken in: exact by client, decision and target, told once when new, over processes and restarts."""

from __future__ import annotations

import pytest

from egressd.model import DNS_QUERY
from egressd.store import queries
from tests.runtime.desk import restarted, rows, watches
from tests.runtime.process import Process
from tests.runtime.scene import (
    SECOND,
    T0,
    A,
    B,
    C,
    Desk,
    X,
    Y,
    about,
    address,
    attempt,
    in_force,
    match,
    pair,
    sighting,
    verdict,
)


def test_a_client_new_to_a_block_is_told_once_over_all_processes(desk: Desk) -> None:
    desk.register.add(in_force())
    desk.intake.take(0, Process().say(attempt(A, first=True), attempt(A, 1)).batch())
    assert [one.first for one in desk.ears.attempts] == [True]
    desk.intake.take(1, Process().say(attempt(A, 2, first=True)).batch())  # new to it, not to us
    assert len(desk.ears.attempts) == 1
    desk.intake.take(1, Process().say(attempt(B, 3, first=True)).batch())
    assert [one.flow.client for one in desk.ears.attempts] == [A, B]
    assert desk.ears.attempts[0].incident == "I1" and desk.ears.attempts[0].campaign == "C1"
    assert desk.intake.last_attempt_us == T0 + 3 * SECOND


def test_after_a_restart_a_known_client_is_not_new_and_its_count_goes_on(desk: Desk) -> None:
    desk.rulings.of_policy(0, verdict())
    desk.intake.take(0, Process().say(sighting(), attempt(A, 1, first=True), attempt(A, 2, count=2)).batch())
    restarted(desk)
    assert {id_: list(clients) for id_, clients in desk.intake.watched.by_decision.items()} == {"D1": [A]}
    desk.ears.attempts.clear()
    desk.ears.records.clear()
    desk.intake.take(0, Process().say(sighting(A), attempt(A, 9, first=True, count=1)).batch())
    assert desk.ears.attempts == []
    (told,) = [one["egressd"] for one in desk.ears.records if one["event_type"] == "attempt"]
    assert told["count"] == 3
    assert [(one.first_us, one.last_us, one.attempts) for one in watches(desk)] == [(T0 + SECOND, T0 + 9 * SECOND, 3)]
    assert len(desk.ears.incidents) == 1  # told before the restart
    assert rows(desk)["I1"].incident.contacts == 2


def test_what_was_let_through_is_counted_apart_and_goes_on_after_a_restart(desk: Desk) -> None:
    desk.intake.lets_through = lambda client, ts_us: ts_us < T0 + 5 * SECOND
    desk.rulings.of_policy(0, verdict())
    desk.intake.take(0, Process().say(sighting(), attempt(A, 1), attempt(A, 2, count=2)).batch())
    desk.intake.take(0, Process().say(attempt(A, 9, count=3)).batch())
    restarted(desk)
    desk.intake.lets_through = lambda client, ts_us: True
    desk.intake.take(0, Process().say(sighting(A), attempt(A, 19)).batch())
    incident = rows(desk)["I1"].incident
    assert (incident.attempts, incident.let_through) == (4, 3)
    (client,) = desk.ledger.call(queries.watches, T0)[0]["clients"]
    assert (client["count"], client["let_through"]) == (4, 3)


def test_after_a_restart_ids_and_leaks_go_on(desk: Desk) -> None:
    desk.intake.take(0, Process().say(sighting(A), attempt(A, leak=True)).batch())
    restarted(desk)
    desk.intake.take(
        0, Process().say(sighting(B), attempt(A, leak=True), sighting(C, found=match("worse.example"))).batch()
    )
    found = rows(desk)
    assert [(id_, row.leaks) for id_, row in found.items()] == [("I1", 2), ("I2", 0), ("I3", 0)]
    assert [row.incident.campaign for row in found.values()] == ["C1", "C1", "C2"]


def test_the_count_of_an_attempt_runs_on_from_batch_to_batch(desk: Desk) -> None:
    desk.register.add(in_force())
    process = Process()
    for count in range(1, 5):
        desk.intake.take(0, process.say(attempt(A, count, count=count, first=count == 1)).batch())
    told = [one["egressd"]["count"] for one in desk.ears.records if one["event_type"] == "attempt"]
    assert told == [1, 2, 3, 4]


def test_an_attempt_goes_to_the_target_that_stops_it(desk: Desk) -> None:
    desk.rulings.of_policy(0, verdict())
    desk.rulings.of_policy(0, verdict("D1", "extend", address(X), pair(A, Y)))
    process = Process().say(
        attempt(A), attempt(B), attempt(A, server=Y), attempt(B, server=Y), attempt(A, via=DNS_QUERY)
    )
    desk.intake.take(0, process.batch())
    held = desk.register.by_id["D1"].held
    assert (held[address(X)].attempts, held[pair(A, Y)].attempts, held[about()].attempts) == (2, 1, 0)
    assert held[address(X)].tried and held[pair(A, Y)].tried
    assert sum(one.attempts for one in watches(desk)) == 5
    assert {one.target.value: one.attempts for one in desk.row("D1").targets} == {
        "bad.example": 0,
        "198.51.100.7": 2,
        "10.0.0.5>198.51.100.8": 1,
    }


def test_attempts_at_what_is_not_known_are_counted_by_incident_alone(desk: Desk) -> None:
    desk.intake.take(0, Process().say(attempt(id_="D9")).batch())
    assert (watches(desk), desk.intake.watched.by_decision) == ([], {})
    assert (rows(desk)["I1"].incident.attempts, desk.intake.counts["attempts"]) == (1, 1)


def test_attempts_told_together_with_the_end_of_their_decision_are_in_the_ledger(desk: Desk) -> None:
    desk.rulings.of_policy(0, verdict())
    process = Process().say(attempt(A), verdict("D1", "withdraw", about(), rule="expired"), attempt(A))
    desk.intake.take(0, process.batch())
    desk.settle()
    assert desk.intake.watched.by_decision == {}
    assert desk.ledger.call(lambda one: one.execute("SELECT count, leaks FROM watches").fetchall()) == [(2, 0)]


def test_watches_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressd.runtime.watched.MAX_WATCHES", 2)
    desk.register.add(in_force())
    desk.intake.take(0, Process().say(*(attempt(client) for client in (A, B, C)), attempt(A)).batch())
    assert {client: one.count for client, one in desk.intake.watched.by_decision["D1"].items()} == {A: 2, B: 1}
    assert desk.intake.counts["attempts"] == 4


def test_watches_of_what_has_ended_make_room(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressd.runtime.watched.MAX_WATCHES", 1)
    desk.rulings.of_policy(0, verdict())
    desk.intake.take(0, Process().say(attempt(A)).batch())
    desk.intake.take(0, Process().say(verdict("D1", "withdraw", about(), rule="expired")).batch())
    desk.intake.take(0, Process().say(verdict("D3", "block", about("worse.example")), attempt(B, id_="D3")).batch())
    assert desk.intake.watched.by_decision["D3"][B].count == 1
