"""What rules do in the engine: outcomes, scopes, time to live, segments under other modes, and roll-back."""

from __future__ import annotations

import pytest

from egressd.config.policy_conditions import Known
from egressd.config.policy_file import parse_policy
from egressd.detect.evidence import Evidence
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.networks import first_address
from egressd.model import FLOW, Indicator, Match, Sighting, Target
from egressd.wire.sender import Sender
from tests.detect.live_scene import LiveScene, standing
from tests.detect.scene import RESOLVER, A, B, C, Scene, X, Y, at, flow, packed, when

C2 = "c2.bad.example"
SEGMENTS = ((first_address(packed("10.0.0.0"), 30), 30, "servers"), (packed("10.0.0.4"), 30, "lab"))
# 10.0.0.5, .6 and .7 are in lab; 10.0.0.1 to .3 in servers
SERVER = "10.0.0.2"
HOST = Sender(b"\x02\0\0\0\0\1", True)  # who sends a frame
OTHER = Sender(b"\x02\0\0\0\0\2", True)


def settings(rules: str = "", mode: str = "enforce", **more: object) -> PolicySettings:
    """Settings with rules as YAML."""
    found = None
    if rules:
        policy, problems = parse_policy(f"rules:\n{rules}", "p.yaml", Known(("servers", "lab"), ("printer",)))
        assert problems == []
        found = policy.rules
    plain = PolicySettings(mode=mode, rules=found, segments=SEGMENTS, resolvers=frozenset((packed(RESOLVER),)))
    return plain._replace(**more)  # type: ignore[arg-type]


def test_an_ignored_sighting_is_seen_and_nothing_is_decided() -> None:
    scene = Scene(settings=settings("  - {name: quiet, when: {match: host}, then: ignore}\n"))
    scene.tls(0, A, X, C2)
    assert (len(scene.sightings), len(scene.opened), scene.decisions) == (1, 1, [])
    assert scene.engine.policy.ignored == 1


def test_an_alert_tells_what_its_rule_wanted() -> None:
    scene = Scene(settings=settings("  - {name: case, when: {threat: case}, then: alert}\n"))
    scene.tls(0, A, X, C2)
    scene.tls(1, B, X, C2)
    (alert,) = scene.decisions
    assert (alert.action, alert.rule, alert.reason) == ("alert", "case", "l.txt:1: rule case alerts (threat case)")


def test_what_no_rule_speaks_of_alerts() -> None:
    scene = Scene(settings=settings("  - {name: urls, when: {match: url}, then: block}\n"))
    scene.tls(0, A, X, C2)
    assert [(one.action, one.rule) for one in scene.decisions] == [("alert", "no-rule")]


def test_what_is_asked_for_waits_and_so_does_all_that_is_added_to_it() -> None:
    scene = LiveScene(settings=settings("  - {name: careful, when: {match: host}, then: ask}\n"))
    scene.resolve(0, A, C2, X)
    ask, extend = scene.decisions
    assert (ask.action, ask.rule, ask.mode) == ("ask", "careful", "enforce")
    assert ask.reason.endswith("; rule careful leaves it to a person")
    assert (extend.action, extend.mode) == ("extend", "approve")  # no packet process pushes that into the kernel
    assert not scene.engine.blocks.by_id["D1"].enforced
    scene.flow(1, B, X)
    assert scene.attempts == []  # a question stops nothing, so nothing is tried in vain


def test_a_rule_that_blocks_later_turns_the_question_into_a_block() -> None:
    rules = "  - {name: two, when: {clients: {min: 2}, match: host}, then: block}\n  - {name: one, then: ask}\n"
    scene = LiveScene(settings=settings(rules))
    scene.tls(0, A, X, C2)
    scene.tls(1, B, X, C2)
    said = [(one.id, one.action, one.rule) for one in scene.decisions if one.action != "extend"]
    assert said == [("D1", "ask", "one"), ("D1", "block", "two")]
    assert scene.engine.blocks.by_id["D1"].enforced


def test_a_client_is_isolated_once_and_within_a_budget() -> None:
    rules = "  - {name: cut-off, when: {match: host}, then: isolate}\n"
    scene = Scene(settings=settings(rules, isolations_per_hour=1))
    for second, client in enumerate((A, A, B, B)):
        scene.tls(second, client, X, C2)
    assert [(one.action, one.rule, one.targets[0].value) for one in scene.decisions] == [
        ("isolate", "cut-off", A),
        ("alert", "budget", "bad.example"),
    ]


def test_one_machine_does_not_use_up_the_isolations_of_an_hour() -> None:
    rules = "  - {name: cut-off, when: {match: host}, then: isolate}\n"
    scene = Scene(settings=settings(rules, isolations_per_hour=5))
    scene.engine.sender_of = lambda client: OTHER if client == packed(C) else HOST
    for second, client in enumerate([*(f"10.0.1.{number}" for number in range(1, 8)), C]):
        scene.tls(second, client, X, C2)
    assert [(one.action, one.targets[0].value) for one in scene.decisions] == [
        ("isolate", "10.0.1.1"),
        ("alert", "bad.example"),
        ("isolate", C),
    ]
    assert scene.decisions[1].reason == "over 1 isolated addresses of one machine in an hour"


def test_hard_checks_come_on_top_of_every_rule() -> None:
    block = "  - {name: all, when: {match: [host, sibling, address, url]}, then: block}\n"
    scene = Scene(f"{C2}\nplatform.example", "never-block c2.bad.example owner=a reason=b", settings(block))
    scene.tls(0, A, X, C2)
    scene.tls(1, A, Y, "platform.example")
    assert [(one.action, one.rule) for one in scene.decisions] == [("alert", "never-block"), ("alert", "guarded")]


def test_scope_host_blocks_the_name_alone_and_scope_pair_no_address_for_everybody() -> None:
    host = Scene(settings=settings("  - {name: h, when: {match: [host, sibling]}, then: block, scope: host}\n"))
    host.tls(0, A, X, "a.bad.example")
    host.tls(1, A, X, "a.bad.example", sport=40001)
    host.tls(2, A, Y, "b.bad.example")
    assert host.targets("block") == ["host a.bad.example", "host b.bad.example"]
    assert len(host.attempts) == 1
    pair = Scene(settings=settings("  - {name: p, when: {match: host}, then: block, scope: pair}\n"))
    pair.resolve(0, A, C2, X)
    assert pair.targets("block", "extend") == ["registered_domain bad.example", f"pair {A}>{X}"]


@pytest.mark.parametrize("sole", [False, True])
def test_what_a_rule_leaves_to_a_person_is_not_given_free_for_being_shared(sole: bool) -> None:
    """It was withdrawn when the core had taken it up, and when it had been approved: nobody could answer."""
    asks = settings("  - {name: q, when: {match: address}, then: ask}\n", blocks_per_hour=1 if sole else 100)
    ranges = "198.51.100.0/25 operator=CDN"
    scene = LiveScene(X, ranges=ranges, settings=asks)
    scene.flow(0, A, X)
    (question,) = scene.engine.blocks.by_id.values()
    told = standing(X, id_=question.id, level="address")._replace(waits=True, rule="q")
    if sole:
        pair = Target("pair", f"{A}>{X}")
        told = told._replace(id="D9", target=pair, pairs=((packed(A), packed(X)),), client=packed(A), rule="share:q")
    for number, one in enumerate((told, told._replace(waits=False))):
        scene.engine.adopt(one, at(2 * number + 1))
        for other in range(4):
            scene.tls(2 * number + 1, B, X, f"www.innocent{other}.example", sport=41_000 + other)
        scene.swap(2 * number + 2, f"{X}\n198.51.100.9{number}", ranges=ranges, settings=asks)
        assert scene.targets("withdraw") == []


@pytest.mark.parametrize(
    ("line", "ranges", "rule"), [("198.0.0.0/8", "", "too-wide"), (X, f"{X} operator=CDN", "shared")]
)
def test_what_only_a_person_blocks_ends_with_the_force_of_its_line(line: str, ranges: str, rule: str) -> None:
    """As of all addresses of feeds, which passed for forced: what was blocked so stood while it was listed."""
    scene = LiveScene(f"{line} force=yes", ranges=ranges)
    scene.flow(0, A, X)
    scene.swap(1, f"{line} force=yes\nother.example", ranges=ranges)
    assert len(scene.blocks) == 1
    scene.swap(2, line, ranges=ranges)
    assert (scene.blocks, [one[1] for one in scene.said("withdraw")]) == ([], [rule])


SCOPES = """\
  - {name: h, when: {match: [host, sibling]}, then: block, scope: host}
  - {name: a, when: {match: address}, then: block, scope: address}
"""


def test_what_a_rule_narrowed_stands_while_its_line_does() -> None:
    lists = f"bad.example\n{X.rpartition('.')[0]}.0/24\n"
    scene = LiveScene(lists, settings=settings(SCOPES))
    scene.tls(0, A, Y, "a.bad.example")
    scene.flow(1, A, X)
    assert scene.blocks == ["host a.bad.example", f"address {X}"]
    scene.swap(2, f"{lists}# a comment\nother.example", settings=settings(SCOPES))
    assert (scene.blocks, scene.targets("withdraw")) == (["host a.bad.example", f"address {X}"], [])
    scene.swap(3, f"{lists}a.bad.example scope=exact", settings=settings(SCOPES))
    assert (scene.blocks, scene.targets("withdraw")) == (["host a.bad.example", f"address {X}"], [])
    scene.swap(4, "other.example", settings=settings(SCOPES))
    assert scene.said("withdraw") == [
        ("withdraw", "unlisted", "host a.bad.example"),
        ("withdraw", "unlisted", f"address {X}"),
    ]


def test_what_a_rule_narrowed_is_taken_over_by_another_line_when_its_own_expires() -> None:
    scene = LiveScene(f"bad.example expires={when(60)}\nc2.bad.example", settings=settings(SCOPES))
    scene.tls(0, A, X, "a.bad.example")
    scene.tls(61, B, X, "a.bad.example")
    assert scene.blocks == ["host a.bad.example"] and scene.targets("withdraw") == []


@pytest.mark.parametrize(
    ("now", "stands"),
    [
        ("bad.example", True),
        ("a.bad.example scope=host", True),
        ("a.bad.example scope=exact", False),
        ("b.bad.example scope=host", False),
    ],
)
def test_what_a_rule_narrowed_is_never_wider_than_what_is_listed(now: str, stands: bool) -> None:
    scene = LiveScene("bad.example", settings=settings(SCOPES))
    scene.tls(0, A, X, "a.bad.example")
    scene.swap(1, now, settings=settings(SCOPES))
    assert scene.blocks == (["host a.bad.example"] if stands else [])


def test_no_scope_is_wider_than_the_line() -> None:
    rules = settings("  - {name: r, when: {match: [host, sibling]}, then: block, scope: registered_domain}\n")
    scene = LiveScene(f"{C2} scope=host", settings=rules)
    scene.tls(0, A, X, C2)
    assert scene.blocks == [f"host {C2}"]
    scene.swap(1, f"{C2} scope=host\nother.example", settings=rules)
    assert scene.blocks == [f"host {C2}"]


PAIRS = settings("  - {name: pairs, when: {match: host}, then: block, scope: pair}\n")


def test_what_another_process_blocks_by_a_rule_with_scope_pair_stays_narrow() -> None:
    first = LiveScene(settings=PAIRS)
    first.tls(0, A, X, C2)
    (made,) = (one for one in first.decisions if one.action == "block")
    second = LiveScene(settings=PAIRS, first_number=2, stride=2)
    second.engine.adopt(standing(id_=made.id)._replace(rule=made.rule, client=made.client), at(1))
    second.resolve(2, B, C2, X)
    assert second.targets("block", "extend") == [f"pair {B}>{X}"]


def test_a_narrow_block_stays_so_when_its_rule_is_gone() -> None:
    scene = LiveScene(settings=PAIRS)
    scene.tls(0, A, X, C2)
    scene.swap(1, C2, settings=settings())
    scene.engine.adopt(standing(id_="D1")._replace(rule="pairs", client=packed(A)), at(2))
    scene.resolve(3, B, C2, X)
    assert scene.targets("block", "extend")[-1] == f"pair {B}>{X}"


def test_a_time_to_live_ends_a_block_and_the_next_sighting_begins_another() -> None:
    scene = Scene(settings=settings("  - {name: short, when: {match: host}, then: block, ttl: 10m}\n"))
    scene.tls(0, A, X, C2)
    scene.tls(601, A, X, C2, sport=40001)
    said = [(one.id, one.action, one.rule) for one in scene.decisions if one.action != "extend"]
    assert said == [("D1", "block", "short"), ("D1", "withdraw", "expired"), ("D2", "block", "short")]


def test_the_rule_that_blocks_where_another_one_asked_says_how_wide_and_how_long() -> None:
    rules = """\
  - {name: two, when: {clients: {min: 2}, match: host}, then: block, ttl: 10m, scope: pair}
  - {name: one, then: ask}
"""
    for scene in (Scene(settings=settings(rules)), LiveScene(settings=settings(rules))):
        scene.tls(0, A, X, C2)
        scene.tls(1, B, X, C2)
        scene.resolve(2, B, C2, Y)
        assert scene.targets("extend") == [f"pair {A}>{X}", f"pair {B}>{X}", f"pair {B}>{Y}"]
        scene.tls(602, A, X, C2)
        assert [(one.id, one.action, one.rule) for one in scene.decisions if one.action != "extend"][-2:] == [
            ("D1", "withdraw", "expired"),
            ("D2", "block", "two"),
        ]


def test_what_was_approved_lives_as_long_as_the_core_says() -> None:
    scene = LiveScene(settings=settings("  - {name: short, when: {match: host}, then: ask, ttl: 10m}\n"))
    scene.tls(0, A, X, C2)
    scene.engine.adopt(standing(id_="D1")._replace(rule="short", client=packed(A)), at(500))  # approved
    scene.tls(601, A, X, C2, sport=40_001)
    assert scene.targets("withdraw") == []


def test_hours_are_those_of_packets() -> None:
    # the scene begins on Tuesday 2023-11-14 at 22:13:20 UTC
    rules = "  - {name: night, when: {match: host, time: {hours: '22:00-06:00'}}, then: block}\n"
    rules += "  - {name: day, then: alert}\n"
    scene = Scene(settings=settings(rules))
    scene.tls(12 * 3600, A, X, C2)
    scene.tls(24 * 3600, A, X, C2, sport=40001)
    assert [one.rule for one in scene.decisions if one.action != "extend"] == ["day", "night"]


# -- behaviour


def behaves(score: int, client: str = A, second: float = 0) -> Sighting:
    indicator = Indicator(
        "behaviour", "odd.example", "registered", "", "odd.example", "example", "behaviour:beacon", 0, "", score, 0, 0,
        "", "",
    )  # fmt: skip
    match = Match("behaviour", indicator, "odd.example", "example")
    return Sighting(at(second), 0, flow(client, X), "odd.example", match, FLOW, "", False, 1, at(second), at(second))


@pytest.mark.parametrize(("score", "action", "rule"), [(79, "alert", "behaviour"), (80, "ask", "behaviour-strong")])
def test_a_behaviour_alerts_or_asks_and_never_blocks_by_itself(score: int, action: str, rule: str) -> None:
    scene = Scene(settings=settings())
    decision = scene.engine.policy.decide(behaves(score))
    assert decision is not None
    assert (decision.action, decision.rule) == (action, rule)
    assert decision.targets[0] == ("registered_domain", "odd.example")


def test_a_behaviour_can_isolate_its_client_by_rule() -> None:
    rules = "  - {name: beacons, when: {match: behaviour, detector: beacon, segment: lab}, then: isolate}\n"
    scene = Scene(settings=settings(rules))
    decision = scene.engine.policy.decide(behaves(90))
    assert decision is not None and (decision.action, decision.targets[0]) == ("isolate", ("client", A))
    other = scene.engine.policy.decide(behaves(90, SERVER))
    assert other is not None and other.action == "alert"


def test_evidence_makes_an_incident_and_a_question_and_tells_no_alert_twice() -> None:
    scene = Scene(settings=settings())
    volume = Evidence("volume", packed(B), "odd.example", 100, "100 MB out in an hour", at(0), at(5))
    scene.engine.suspect(volume)
    assert (len(scene.opened), scene.decisions) == (1, [])
    weak = Evidence("beacon", packed(A), "odd.example", 60, "24 contacts every 60 s", at(0), at(5))
    scene.engine.suspect(weak)
    assert (len(scene.opened), scene.decisions) == (2, [])
    scene.engine.suspect(weak._replace(score=90, last_us=at(9)))
    scene.engine.suspect(weak._replace(score=95, last_us=at(12)))
    (ask,) = scene.decisions
    assert (ask.action, ask.rule, ask.targets[0].value) == ("ask", "behaviour-strong", "odd.example")
    assert "beacon scores 90: 24 contacts every 60 s" in ask.reason


# -- segments under other modes

ONE_ARMED = {"mode": "monitor", "modes": (("lab", "enforce"),)}


def test_nothing_is_in_force_on_account_of_a_segment_under_monitor() -> None:
    scene = LiveScene(settings=settings(**ONE_ARMED))  # type: ignore[arg-type]
    scene.resolve(0, SERVER, C2, X)
    assert [(one.action, one.mode) for one in scene.decisions] == [("block", "monitor"), ("extend", "monitor")]
    assert not scene.engine.blocks.by_id["D1"].enforced
    scene.flow(1, SERVER, X)
    scene.reply(1.1, SERVER, X)
    assert not scene.attempts[-1].stopped and scene.leaks == []


def test_the_first_client_of_an_enforcing_segment_puts_a_block_into_force() -> None:
    scene = LiveScene(settings=settings(**ONE_ARMED))  # type: ignore[arg-type]
    scene.resolve(0, SERVER, C2, X)
    scene.tls(1, A, X, C2)
    again = [one for one in scene.decisions if one.action == "block"][-1]
    assert (again.id, again.mode, again.client) == ("D1", "enforce", packed(A))
    assert scene.engine.blocks.by_id["D1"].enforced
    scene.flow(2, SERVER, X, sport=40002)
    assert not scene.attempts[-1].stopped  # the kernel lets the monitored segment through: an answer is no leak
    scene.flow(3, B, X, sport=40003)
    assert scene.attempts[-1].stopped


def test_under_approve_beside_enforce_only_pairs_are_added() -> None:
    modes = {"mode": "enforce", "modes": (("servers", "approve"),)}
    scene = LiveScene(settings=settings(**modes))  # type: ignore[arg-type]
    scene.resolve(0, A, C2, X)
    scene.resolve(1, SERVER, C2, X)
    assert scene.targets("extend") == [f"address {X}", f"pair {SERVER}>{X}"]


# -- roll-back


def crowd(scene: Scene, count: int, name: str = C2, server: str = X) -> None:
    for number in range(count):
        scene.tls(number, f"10.1.{number // 200}.{number % 200 + 1}", server, name)


def rolled_back(scene: Scene) -> list[str]:
    return [one.reason for one in scene.decisions if one.rule == "rollback"]


def test_a_block_that_too_many_run_into_within_an_hour_is_taken_back_once() -> None:
    scene = Scene(settings=settings(rollback_clients=10, rollback_share=0))
    crowd(scene, 30)
    (reason,) = rolled_back(scene)
    assert reason.startswith("11 clients ran into it within its first hour, over 10")
    ask = next(one for one in scene.decisions if one.rule == "rollback")
    assert (ask.action, ask.id, ask.targets[0].value) == ("ask", "D1", "bad.example")
    block = scene.engine.blocks.by_id["D1"]
    assert block.waits and block.final and not block.enforced and not block.clients


def test_a_share_of_the_known_clients_counts_from_twenty_on_and_for_a_day() -> None:
    few = Scene(settings=settings(rollback_clients=0))
    crowd(few, 19)
    assert rolled_back(few) == []
    crowd(few, 20)
    assert rolled_back(few)[0].startswith("20 of 20 clients (100%)")
    many = Scene(settings=settings(rollback_clients=0))
    crowd(many, 200, "innocent.example", Y)
    crowd(many, 50)
    assert rolled_back(many) == []  # a quarter is the budget, not over it
    crowd(many, 51)
    assert rolled_back(many)[0].startswith("51 of 200 clients (25%)")


def test_addresses_of_one_machine_make_no_crowd_of_which_others_are_a_small_share() -> None:
    """A host that takes thousands kept every mistaken block of a small network from being taken back."""
    scene = Scene(settings=settings(rollback_clients=0))
    for number in range(1, 400):
        scene.engine.devices.spoke(b"\x02host1", packed(f"2001:db8::{number:x}"), at(number), is_attached=True)
        scene.tls(number, f"2001:db8::{number:x}", Y, "innocent.example")
    crowd(scene, 30)
    assert rolled_back(scene)[0].startswith("20 of 21 clients (95%)")


def test_one_machine_counts_once_whatever_addresses_it_takes() -> None:
    scene = Scene(settings=settings(rollback_clients=10, rollback_share=0))
    for number in range(1, 40):
        scene.engine.devices.spoke(b"\x02host1", packed(f"2001:db8::{number:x}"), at(number), is_attached=True)
        scene.tls(number, f"2001:db8::{number:x}", X, C2)
    assert rolled_back(scene) == []
    for number in range(1, 40):  # hosts behind a router are many
        scene.engine.devices.spoke(b"\x02route", packed(f"10.9.0.{number}"), at(40 + number), is_attached=False)
        scene.tls(40 + number, f"10.9.0.{number}", X, C2)
    assert len(rolled_back(scene)) == 1


def test_a_slow_spread_is_no_reason() -> None:
    scene = Scene(settings=settings(rollback_clients=2, rollback_share=0))
    for hour, client in enumerate((A, B, SERVER, "10.0.0.9")):
        scene.tls(2 * 3600 * hour, client, X, C2)
    assert rolled_back(scene) == []
