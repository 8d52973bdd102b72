"""What other sensors tell of: matched and decided like our own, counted once, and proof of nothing about addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.config.policy_conditions import Known
from egressd.config.policy_file import parse_policy
from egressd.detect.policy_settings import PolicySettings
from egressd.model import FLOW, HTTP_HOST, FlowKey, HttpRequest
from tests.detect.live_scene import ENFORCE, LiveScene
from tests.detect.scene import A, B, Scene, X, Y, at, packed, record

C2 = "c2.bad.example"


def squid(scene: Scene, second: float, client: str, host: str) -> None:
    """A proxy's line: it knows neither ports nor the client's connection."""
    request = HttpRequest("CONNECT", f"{host}:443", host, host, 443, "", "", "")
    with scene.told_by("squid"):
        scene.see(HTTP_HOST, second, FlowKey(0, packed(client), 0, b"", 0), host, request, "proxied")


def tap(scene: Scene, second: float) -> None:
    scene.flow(second, A, X)
    scene.tls(second + 0.05, A, X, C2)


def eve(scene: Scene, second: float) -> None:
    with scene.told_by("eve"):
        scene.tls(second + 0.05, A, X, C2)
        scene.flow(second, A, X)  # flows are logged when they are over


TELLERS = {"tap": tap, "eve": eve, "squid": lambda scene, second: squid(scene, second, A, C2)}


@given(st.permutations(["tap", "eve", "squid"]), st.floats(0, 4), st.floats(0, 4), st.booleans())
def test_one_contact_that_three_tell_of_in_any_order_counts_once(
    order: list[str], one: float, other: float, enforced: bool
) -> None:
    scene = Scene(sensors=True, enforced=enforced)
    for name, second in zip(order, (1, 1 + one, 1 + other), strict=True):
        TELLERS[name](scene, second)
    (incident,) = scene.incidents
    assert (incident.contacts, incident.attempts) == (1, 0)
    assert incident.sources == {"tap": 1, "eve": 1, "squid": 1}
    assert scene.sightings[-1].sources == 3
    assert scene.sightings[-1].told_by == ("eve", "squid", "tap")
    assert sum(sighting.new for sighting in scene.sightings) == 1
    assert scene.targets("block") == ["registered_domain bad.example"]


def test_each_further_contact_counts_once_too_and_is_an_attempt() -> None:
    scene = Scene(sensors=True)
    for second in range(0, 600, 60):
        tap(scene, second)
        squid(scene, second + 0.3, A, C2)
    assert scene.counts(A) == (10, 9)
    assert scene.incidents[0].sources == {"tap": 10, "squid": 10}


def test_what_the_tap_does_not_see_counts_as_well() -> None:
    scene = Scene(sensors=True)
    squid(scene, 0, A, C2)
    squid(scene, 60, B, C2)
    squid(scene, 61, B, C2)
    assert (scene.counts(A), scene.counts(B)) == ((1, 0), (2, 2))
    assert scene.engine.hearing.clients == {packed(A), packed(B)}
    assert not scene.engine.clients


def test_without_other_sensors_nothing_is_remembered_and_the_tap_is_the_source() -> None:
    scene = Scene()
    tap(scene, 0)
    assert scene.engine.agreement is None
    assert scene.incidents[0].sources == {"tap": 1}
    assert (scene.sightings[0].sources, scene.sightings[0].told_by) == (1, ())


def test_a_line_teaches_nothing_about_addresses() -> None:
    """Whoever can write a line must not be able to cut off, or to free, an address."""
    scene = Scene(sensors=True)
    with scene.told_by("eve"):
        scene.resolve(0, A, C2, X)
        scene.flow(1, B, X)
        scene.tls(1.1, B, X, "www.good.example")
    assert scene.targets("block", "extend") == ["registered_domain bad.example"]
    assert scene.engine.resolutions.name_for(packed(A), packed(X), 10**18) == ""
    scene.resolve(5, A, C2, X)
    assert scene.targets("extend") == [f"address {X}"]
    with scene.told_by("eve"):
        scene.tls(6, B, X, "www.good.example", sport=40_010)
    assert scene.targets("withdraw") == []


def test_a_client_named_by_another_sensor_is_kept_from_that_address_by_its_own_words_only() -> None:
    scene = Scene(sensors=True)
    eve(scene, 0)
    assert scene.targets("extend") == [f"pair {A}>{X}"]
    squid(scene, 1, B, C2)
    assert scene.targets("extend") == [f"pair {A}>{X}"], "to block the way to a proxy would cut off everything"


def test_an_answer_that_nobody_asked_for_accuses_nobody() -> None:
    scene = Scene(sensors=True)
    with scene.told_by("eve"):
        scene.answer(0, A, "www.good.example", record("www.good.example", C2), record(C2, X))
        assert scene.incidents == []
        assert scene.engine.hearing.unasked_answers == 1
        scene.question(1, A, "www.good.example")
        scene.answer(1.1, A, "www.good.example", record("www.good.example", C2), record(C2, X))
    assert scene.counts(A) == (1, 0)


def test_a_question_told_by_a_resolver_and_seen_by_the_tap_counts_once() -> None:
    scene = Scene(sensors=True)
    for second in (0, 30):
        scene.question(second, A, C2)
        scene.question(second + 0.01, A, C2, sport=50_001)  # AAAA
        with scene.told_by("dnsmasq"):
            scene.question(second + 0.02, A, C2, sport=0)
            scene.question(second + 0.03, A, C2, sport=0)
    assert scene.counts(A) == (2, 1)
    assert scene.incidents[0].sources == {"tap": 2, "dnsmasq": 2}


@pytest.mark.parametrize("first", ["tap", "eve"])
def test_history_counts_what_the_one_saw_that_saw_most(first: str) -> None:
    scene = Scene(sensors=True)
    for sensor in (first, "eve" if first == "tap" else "tap"):
        with scene.told_by("" if sensor == "tap" else sensor):
            for second in range(0, 300 if sensor == "tap" else 200, 100):
                scene.question(second, A, "www.later.example", sport=50_000 + second)
    (row,) = [row for row in scene.engine.history.rows() if row.name]
    assert row.contacts == 3


def test_a_flow_to_what_a_block_covers_is_a_contact_whoever_tells_of_it() -> None:
    scene = Scene(sensors=True)
    scene.resolve(0, A, C2, X)
    with scene.told_by("zeek"):
        scene.see(FLOW, 5, FlowKey(6, packed(B), 41_000, packed(X), 443))
        scene.see(FLOW, 5, FlowKey(6, packed(B), 41_001, packed(Y), 443))
    assert scene.counts(B) == (1, 1)


def test_a_rule_that_wants_two_sources_blocks_when_the_second_one_tells() -> None:
    agreed = "  - {name: agreed, when: {match: host, sources: {min: 2}}, then: block}\n"
    policy, problems = parse_policy(f"rules:\n{agreed}  - {{name: alone, then: alert}}\n", "p.yaml", Known((), ()))
    assert problems == []
    scene = Scene(settings=PolicySettings(rules=policy.rules), sensors=True)
    tap(scene, 0)
    assert [(one.action, one.rule) for one in scene.decisions] == [("alert", "alone")]
    squid(scene, 0.5, A, C2)
    assert [(one.action, one.rule) for one in scene.decisions[1:2]] == [("block", "agreed")]


def test_lines_of_many_hours_have_the_budget_of_the_hour_in_which_they_come() -> None:
    """A log with old times had the blocks of as many hours made within a second."""
    scene = LiveScene(
        "\n".join(f"bad{hour}.example" for hour in range(40)), settings=ENFORCE._replace(blocks_per_hour=8)
    )
    scene.engine.arrived_us = at(40 * 3_600)
    for hour in range(40):
        squid(scene, hour * 3_600, f"10.0.0.{hour}", f"c2.bad{hour}.example")
    blocks = [one for one in scene.decisions if one.action == "block"]
    assert len(blocks) == 8 and {one.ts_us for one in blocks} == {at(40 * 3_600)}
    assert len(scene.incidents) == 40
    assert scene.incidents[0].first_us == at(0), "when it was is told as the log tells it"
