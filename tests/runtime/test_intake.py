"""Batches taken in: exact sums over processes and restarts, one incident per client and campaign, each told once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressd.detect.incident_shares import MAX_APART
from egressd.model import DNS_QUERY, FLOW, TLS_SNI, Sighting
from egressd.runtime.orders import Adopt
from egressd.runtime.tally import MAX_NAMES
from tests.detect.scene import packed
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
    desk_at,
    flow,
    match,
    pair,
    sighting,
    verdict,
)

# -- incidents


def test_one_incident_per_client_and_campaign_over_all_processes(desk: Desk) -> None:
    one, two = Process(), Process()
    desk.intake.take(0, one.say(sighting(A), sighting(B)).batch())
    desk.intake.take(1, two.say(sighting(A, "x.bad.example"), sighting(A, found=match("worse.example"))).batch())
    desk.intake.take(0, one.say(sighting(A)).batch())
    found = rows(desk)
    assert [(id_, row.incident.client, row.incident.campaign) for id_, row in found.items()] == [
        ("I1", A, "C1"),
        ("I2", B, "C1"),
        ("I3", A, "C2"),
    ]
    assert found["I1"].incident.contacts == 3
    assert (found["I1"].segment, found["I2"].segment) == ("lab", "")
    assert [id_ for id_, *_ in desk.ears.incidents] == ["I1", "I2", "I3"]  # each told once
    assert [hosts for *_, hosts in desk.ears.incidents] == [2, 2, 1]
    told = [record for record in desk.ears.records if record["event_type"] == "incident"]
    assert len(told) == 3


EVENTS = st.one_of(
    st.builds(
        sighting, st.sampled_from([A, B, C]), st.sampled_from(["a.bad.example", "bad.example"]), st.integers(0, 50),
        new=st.booleans(), count=st.integers(1, 5), via=st.sampled_from([TLS_SNI, DNS_QUERY]),
        found=st.sampled_from([match(), match("worse.example")]),
    ),
    st.builds(
        attempt, st.sampled_from([A, B, C]), st.integers(0, 50), id_=st.sampled_from(["D1", "D2"]), leak=st.booleans(),
        server=st.sampled_from([X, Y]), via=st.sampled_from([FLOW, DNS_QUERY]),
    ),
)  # fmt: skip
BATCHES = st.lists(st.tuples(st.integers(0, 1), st.lists(st.tuples(EVENTS, st.booleans()), max_size=8)), max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_sums_are_exact_whatever_came_in_which_batch_of_which_process(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[int, list[tuple[Any, bool]]]]
) -> None:
    with desk_at(tmp_path_factory.mktemp("sums")) as desk:
        for id_, name in (("D1", "bad.example"), ("D2", "worse.example")):
            desk.rulings.of_policy(0, verdict(id_, "block", about(name), found=match(name)))
            desk.rulings.of_policy(0, verdict(id_, "extend", address(X), pair(A, Y)))
        processes = (Process(), Process())
        incident: Counter[Any] = Counter()
        watch: Counter[Any] = Counter()
        target: Counter[Any] = Counter()
        for number, events in batches:
            for event, untold in events:
                processes[number].say(event, untold=untold)
                client, domain = event.flow.client, event.match.registered_domain
                if isinstance(event, Sighting):
                    incident[client, domain, "contacts"] += event.count if event.new else 0
                    incident[client, domain, event.via] += event.count
                    continue
                incident[client, domain, "leaks" if event.leak else "attempts"] += 1
                watch[event.decision_id, client, "leaks" if event.leak else "count"] += 1
                if not event.leak and event.via == FLOW and (event.flow.server == X or client == A):
                    target[event.decision_id, event.flow.server] += 1
            desk.intake.take(number, processes[number].batch())
        found: Counter[Any] = Counter()
        for row in rows(desk).values():
            one = row.incident
            place = (one.client, one.match.registered_domain)
            found[*place, "contacts"] += one.contacts
            found[*place, "attempts"] += one.attempts
            found[*place, "leaks"] += row.leaks
            for via, count in one.via.items():
                found[*place, via] += count
        assert found == incident
        in_ledger: Counter[Any] = Counter()
        for seen in watches(desk):
            in_ledger[seen.decision_id, seen.client, "count"] += seen.attempts
            in_ledger[seen.decision_id, seen.client, "leaks"] += seen.leaks
        in_memory: Counter[Any] = Counter()
        for id_, clients in desk.intake.watched.by_decision.items():
            for client, held in clients.items():
                in_memory[id_, client, "count"] += held.count
                in_memory[id_, client, "leaks"] += held.leaks
        assert in_ledger == in_memory == watch
        counted: Counter[Any] = Counter()
        for id_ in ("D1", "D2"):
            for one_target, server in ((address(X), X), (pair(A, Y), Y)):
                held_here = desk.register.by_id[id_].held[one_target]
                row_here = next(one for one in desk.row(id_).targets if one.target == one_target)
                assert held_here.attempts == row_here.attempts
                counted[id_, server] += held_here.attempts
        assert counted == target
        counts = desk.intake.counts
        assert counts["attempts"] == sum(n for (_, _, word), n in watch.items() if word == "count")
        assert counts["leaks"] == sum(n for (_, _, word), n in watch.items() if word == "leaks")
        assert counts["contacts"] == sum(n for (*_, word), n in incident.items() if word == "contacts")
        assert desk.scribe.refused == 0


def test_what_is_only_counted_opens_an_incident_too(desk: Desk) -> None:
    process = Process().say(*(sighting(A, f"n{number}.bad.example") for number in range(3)), untold=True)
    desk.intake.take(0, process.batch())
    assert rows(desk)["I1"].incident.names == {f"n{number}.bad.example": 1 for number in range(3)}
    assert len(desk.ears.incidents) == 1
    assert [record["event_type"] for record in desk.ears.records] == ["incident"]


def test_names_are_bounded_and_contacts_are_not(desk: Desk) -> None:
    process = Process()
    for turn in range(10):
        names = [f"t{turn}n{number}.bad.example" for number in range(MAX_NAMES)]
        desk.intake.take(0, process.say(*(sighting(A, name) for name in names)).batch())
    incident = rows(desk)["I1"].incident
    assert (incident.contacts, len(incident.names)) == (10 * MAX_NAMES, 64)


def test_leaks_and_answers_are_counted_by_incident(desk: Desk) -> None:
    process = Process().say(sighting(), attempt(leak=True), attempt(leak=True), attempt(B, leak=True))
    desk.intake.take(0, process.batch())
    incident = desk.campaigns.incidents["I1"]
    desk.intake.take(0, process.answered(incident).answered(incident).say(attempt(leak=True)).batch())
    found = rows(desk)
    assert (found["I1"].leaks, found["I2"].leaks, found["I1"].incident.answered) == (3, 1, 2)
    assert desk.intake.leaks == {"I1": 3, "I2": 1}
    assert [one.leak for one in desk.ears.attempts] == [True] * 4


def test_a_retro_hunt_is_an_incident_of_before(desk: Desk) -> None:
    before = sighting(A, second=-3_600, count=7, retro=True)
    before.ts_us = T0
    desk.intake.take(0, Process().say(before).batch())
    row = rows(desk)["I1"].incident
    assert (row.retro, row.contacts, row.first_us, row.last_us) == (True, 7, T0 - 3_600 * SECOND, T0 - 3_600 * SECOND)


def test_sightings_are_counted_by_match_level(desk: Desk) -> None:
    process = Process().say(
        sighting(A, count=2), sighting(B, found=match(level="sibling")), sighting(C, new=False, count=4)
    )
    desk.intake.take(0, process.batch())
    assert desk.intake.levels == {"host": 6, "sibling": 1}
    assert (desk.intake.counts["sightings"], desk.intake.counts["contacts"]) == (7, 3)


def test_levels_of_one_client_are_kept_apart(desk: Desk) -> None:
    process = Process().say(sighting(A), sighting(A, "x.bad.example", found=match(level="sibling")))
    desk.intake.take(0, process.batch())
    assert desk.intake.levels == {"host": 1, "sibling": 1}


# -- what is told of an incident


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        ("enforce", "BLOCKED by D1, still watched"),
        ("approve", "NOT blocked yet: egressd approve D1"),
        ("monitor", "NOT blocked: mode is monitor (would be D1)"),
    ],
)
def test_an_opened_incident_is_told_once_with_what_was_done(tmp_path: Path, mode: str, outcome: str) -> None:
    with desk_at(tmp_path, mode) as desk:
        process = Process()
        desk.intake.take(0, process.say(sighting(), verdict(mode=mode)).batch())
        assert desk.ears.incidents == [("I1", outcome, "lab", 1)]
        desk.intake.take(0, process.say(sighting(), attempt()).batch())
        assert len(desk.ears.incidents) == 1
        desk.intake.take(0, process.say(sighting(B)).batch())
        assert desk.ears.incidents[1:] == [("I2", outcome, "", 2)]


def test_an_incident_of_what_is_not_blocked(desk: Desk) -> None:
    refused = verdict("", "alert", rule="confidence")
    desk.intake.take(0, Process().say(sighting(), refused).batch())
    assert desk.ears.incidents == [("I1", "NOT blocked: alert only", "lab", 1)]
    assert [one.action for one in desk.ears.decisions] == ["alert"]


def one_address_for_two() -> dict[str, Any]:
    """A batch in which a client's two campaigns turn out to be one: both names live on one address."""
    process = Process()
    for id_, name in (("D1", "bad.example"), ("D2", "worse.example")):
        process.say(
            sighting(A, name, found=match(name)),
            verdict(id_, "block", about(name), found=match(name)),
            verdict(id_, "extend", address(), found=match(name)),
        )
    return process.batch()


def test_incidents_that_became_one_are_one_in_the_ledger(desk: Desk) -> None:
    desk.intake.take(0, one_address_for_two())
    found = rows(desk)
    assert list(found) == ["I1"]
    assert (found["I1"].incident.contacts, found["I1"].incident.campaign) == (2, "C1")
    assert {id_ for id_, *_ in desk.ears.incidents} == {"I1"}
    assert desk.row("D2").campaign == "C1"
    restarted(desk)
    assert (list(desk.campaigns.incidents), list(desk.campaigns.campaigns)) == (["I1"], ["C1"])


def test_incidents_that_became_one_are_told_once(desk: Desk) -> None:
    desk.intake.take(0, one_address_for_two())
    assert [id_ for id_, *_ in desk.ears.incidents] == ["I1"]


def test_leaks_of_incidents_that_became_one_add_up(desk: Desk) -> None:
    process = Process()
    for id_, name in (("D1", "bad.example"), ("D2", "worse.example")):
        leak = attempt(A, id_=id_, leak=True, found=match(name))
        desk.intake.take(0, process.say(sighting(A, name, found=match(name)), leak, leak).batch())
    assert [row.leaks for row in rows(desk).values()] == [2, 2]
    desk.campaigns.tie("C1", "C2")
    desk.intake.take(0, process.say(attempt(A, leak=True)).batch())
    assert [row.leaks for row in rows(desk).values()] == [5]


# -- ids


def test_ids_are_those_of_the_core(desk: Desk) -> None:
    desk.intake.take(0, Process().say(sighting(B), verdict("D1", client=B)).batch())
    desk.ears.records.clear()
    desk.intake.take(1, Process().say(sighting(A), verdict("D2"), verdict("D2", "extend", address())).batch())
    found = [record["egressd"] for record in desk.ears.records if record["event_type"] == "decision"]
    assert [one["decision_id"] for one in found] == ["D1", "D1"]
    assert {one["campaign"] for one in found} == {"C1"}
    assert [one.id for one in desk.ears.decisions[1:]] == ["D1", "D1"]
    assert desk.row("D1").campaign == "C1"


def test_a_decision_of_nobodys_traffic_keeps_its_campaign(desk: Desk) -> None:
    desk.intake.take(0, Process().say(sighting(), verdict()).batch())
    desk.intake.take(0, Process().say(verdict("D1", "withdraw", about(), rule="expired", client=b"")).batch())
    assert desk.ears.decisions[-1].campaign == "C1"
    assert (len(desk.ears.incidents), desk.row("D1").state) == (1, "expired")


def test_attempts_under_the_younger_id_count_for_the_decision(desk: Desk) -> None:
    """Both processes decide at once; the second one's attempts come before it learns what its decision is called."""
    desk.intake.take(0, Process().say(sighting(B), verdict("D1", client=B)).batch())
    second = Process().say(sighting(A), verdict("D2"), verdict("D2", "extend", address()), attempt(A, id_="D2"))
    desk.intake.take(1, second.batch())
    assert [type(order) for order, but in desk.told if but == -1] == [Adopt]
    assert [(one.decision_id, one.client, one.attempts) for one in watches(desk)] == [("D1", A, 1)]
    assert list(desk.intake.watched.by_decision) == ["D1"]
    assert desk.register.by_id["D1"].held[address()].attempts == 1
    told = [one["egressd"] for one in desk.ears.records if one["event_type"] == "attempt"]
    assert [one["decision_id"] for one in told] == ["D1"]


# -- bulk


def test_history_and_passive_dns_go_elsewhere(desk: Desk) -> None:
    history = [["0a000005", "fine.example", "www.fine.example", "c6336407", T0, T0 + 1, -3], ["", "", "", "", 0, 0, 1]]
    tenants = [["fine.example", "c6336407", T0]]
    desk.intake.take(3, Process().batch(history=history, tenants=tenants))
    assert desk.history == [
        (A, "fine.example", "www.fine.example", X, T0, T0 + 1, 0),
        (b"", "", "", b"", 0, 0, 1),
    ]
    assert desk.tenants == [(3, (("fine.example", X, T0),))]


def test_an_empty_batch_changes_nothing(desk: Desk) -> None:
    desk.intake.take(0, {})
    desk.intake.take(0, {"n": 1, "t": T0, "stats": {}})
    assert (desk.scribe.waiting, desk.ears.records, desk.history, desk.tenants) == (0, [], [], [])


# -- many hosts in one campaign


def host(number: int) -> bytes:
    return bytes((10, 128, *number.to_bytes(2, "big")))


def test_hosts_of_a_large_campaign_are_taken_in_as_fast(desk: Desk) -> None:
    """Each incident is told with the stages of its campaign, for which all its incidents were looked through."""

    def taken_s(first: int) -> float:
        batch = Process().say(*(sighting(host(number)) for number in range(first, first + 300))).batch()
        before_s = process_time()
        desk.intake.take(0, batch)
        return process_time() - before_s

    few_s = taken_s(0)
    one = desk.campaigns.incidents["I1"]
    many = [replace(one, id=f"I{number}", client=host(number), addresses=[]) for number in range(1_000, 21_000)]
    desk.campaigns.restore([], many)
    # The best of three: a look for garbage in all that a test run holds takes as long as ten of them.
    assert min(taken_s(first) for first in (30_000, 31_000, 32_000)) < 6 * few_s
    assert desk.ears.incidents[-1][-1] == 21_200


def reaching(client: bytes) -> Sighting:
    return replace(sighting(client), flow=flow(client, packed("2001:db8:ffff::1")))


def test_a_host_with_a_thousand_addresses_opens_few_incidents_over_all_processes(desk: Desk) -> None:
    mac = "021a2b000001"
    for process in range(2):
        for first in range(0, 500, 100):
            clients = [packed(f"2001:db8::{process:x}:{number:x}") for number in range(first, first + 100)]
            spoken = [[mac, client.hex(), True, T0] for client in clients]
            desk.intake.take(process, Process().say(*(reaching(one) for one in clients)).batch(spoken=spoken))
    assert len(rows(desk)) == MAX_APART
    assert sum(row.incident.contacts for row in rows(desk).values()) == 1_000


def test_leaks_of_an_incident_that_another_one_took_over(desk: Desk) -> None:
    for client, name in ((A, "bad.example"), (A, "worse.example"), (B, "worse.example")):
        found = match(name)
        desk.intake.take(
            0, Process().say(sighting(client, name, found=found), attempt(client, leak=True, found=found)).batch()
        )
    desk.campaigns.tie("C1", "C2")
    desk.intake.take(
        0, Process().say(sighting(A, second=9), sighting(B, "worse.example", found=match("worse.example"))).batch()
    )
    assert {id_: row.leaks for id_, row in rows(desk).items()} == {"I1": 2, "I3": 1}
