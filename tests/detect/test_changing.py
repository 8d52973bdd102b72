"""An engine that runs for months: what others decided, what rests and comes back, lists that change under it."""

from __future__ import annotations

import pytest

from egressd.detect.coverage import E1, E2
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.networks import render_address as text
from egressd.model import Target
from tests.detect.live_scene import ENFORCE, LiveScene, protecting, standing
from tests.detect.scene import A, B, X, Y, at, packed, when

BAD = "registered_domain bad.example"
C2 = "c2.bad.example"
FOREIGN = "203.0.113.80"  # a server of nobody


def pair(client: str, address: str) -> Target:
    return Target("pair", f"{client}>{address}")


def address(value: str) -> Target:
    return Target("address", value)


def held(scene: LiveScene, domain: str = "bad.example") -> tuple[set[str], set[tuple[str, str]], dict[str, str]]:
    """Addresses, pairs and what rests of a block, as text."""
    block = scene.engine.blocks.by_target[Target("registered_domain", domain)]
    return (
        {text(one) for one in block.addresses},
        {(text(client), text(one)) for client, one in block.pairs},
        {text(one): evidence for one, evidence in block.resting.items()},
    )


# -- adopt, end


def test_a_foreign_decision_is_adopted_with_all_it_covers() -> None:
    scene = LiveScene()
    scene.engine.adopt(standing(addresses=(X,), pairs=((B, Y),), resting=((FOREIGN, E2),)))
    assert held(scene) == ({X}, {(B, Y)}, {FOREIGN: E2})
    assert scene.events == []  # it is no news
    block = scene.engine.blocks.by_id["D9"]
    assert (block.campaign, block.enforced, block.created_us) == ("C7", True, at(0))
    scene.tls(1, A, X, C2)
    assert scene.decisions == []  # nothing is decided twice
    assert [(one.decision_id, one.first, one.stopped) for one in scene.attempts] == [("D9", True, True)]


def test_our_own_block_takes_the_older_name_and_keeps_what_it_has() -> None:
    scene = LiveScene(first_number=2, stride=3)
    scene.resolve(0, A, C2, X)
    assert scene.engine.blocks.by_target[Target("registered_domain", "bad.example")].id == "D2"
    campaign = scene.decisions[0].campaign
    scene.engine.adopt(standing(id_="D1", addresses=(Y,), enforced=True))
    block = scene.engine.blocks.by_id["D1"]
    assert list(scene.engine.blocks.by_id) == ["D1"]
    assert held(scene)[0] == {X, Y}
    assert block.campaign == campaign  # campaigns are each process's own
    scene.resolve(1, A, C2, FOREIGN)
    assert (scene.decisions[-1].action, scene.decisions[-1].id) == ("extend", "D1")
    scene.swap(3, "c2.bad.example\nworse.example")
    scene.resolve(4, A, "worse.example", "203.0.113.9")
    assert [one.id for one in scene.decisions if one.action == "block"] == ["D2", "D5"]  # numbers go on in their class


def test_adopted_again_it_learns_more_and_nothing_is_counted_twice() -> None:
    scene = LiveScene()
    for more in ((X,), (X, Y), (X, Y)):
        scene.engine.adopt(standing(addresses=more, pairs=((A, Y),), enforced=len(more) > 1))
    blocks = scene.engine.blocks
    assert (len(blocks), blocks.addresses, blocks.pairs) == (1, 2, 1)
    assert blocks.by_id["D9"].enforced


def test_what_stands_again_leaves_an_innocent_site_alone_that_came_meanwhile() -> None:
    """An allowance has ended: the evidence for its addresses is old."""
    scene = LiveScene()
    scene.resolve(0, A, "innocent.example", X)
    scene.engine.adopt(standing(addresses=(X, Y), pairs=((B, X), (B, Y)), second=1), at(1))
    assert scene.said() == [("withdraw", "shared", f"address {X}")]
    assert held(scene)[:2] == ({Y}, {(B, X), (B, Y)})  # one client's way goes with many sites only
    scene.events.clear()
    scene.engine.adopt(standing(addresses=(Y,), pairs=((B, X), (B, Y)), second=1), at(2))
    assert scene.events == []  # of what it holds nothing new is said


def test_what_a_decision_covers_again_was_not_covered_before() -> None:
    """A try from before is no leak."""
    scene = LiveScene()
    scene.engine.adopt(standing(enforced=True), at(0))
    scene.engine.adopt(standing(addresses=(X,), pairs=((A, Y),), enforced=True), at(60))
    blocks = scene.engine.blocks
    assert not blocks.stops(packed(A), packed(X), at(60)) and blocks.stops(packed(A), packed(X), at(60.01))
    assert not blocks.stops(packed(A), packed(Y), at(60)) and blocks.stops(packed(A), packed(Y), at(60.01))


def test_what_was_decided_by_a_clock_that_was_ahead_is_covered_from_now_on() -> None:
    """For years no try was stopped, and no answer a leak."""
    scene = LiveScene()
    scene.engine.adopt(standing(addresses=(X,), enforced=True, second=10**8), at(0))
    assert scene.engine.blocks.stops(packed(A), packed(X), at(60))


def test_what_comes_into_force_only_now_was_in_no_kernel_before() -> None:
    """What waited for a person, or was decided under monitor: the first connection after it was told as a leak."""
    scene = LiveScene()
    told = standing(addresses=(X,), pairs=((A, Y),), enforced=False)
    scene.engine.adopt(told, at(0))
    scene.engine.adopt(told._replace(enforced=True), at(60))
    scene.engine.adopt(told._replace(enforced=True), at(70))  # nothing new
    blocks = scene.engine.blocks
    for server in (X, Y):
        assert not blocks.stops(packed(A), packed(server), at(60.005))
        assert blocks.stops(packed(A), packed(server), at(60.01))


def test_a_block_that_an_armed_segment_calls_for_holds_from_then_on() -> None:
    """It was decided under monitor, and the armed host's first connection was told as a leak."""
    lab = ((packed("10.2.0.0"), 16, "lab"),)
    settings = ENFORCE._replace(mode="monitor", modes=(("lab", "enforce"),), segments=lab)
    scene = LiveScene(settings=settings)
    scene.resolve(0, A, C2, X)
    block = scene.engine.blocks.by_target[Target("registered_domain", "bad.example")]
    assert not block.enforced and block.addresses[packed(X)] < at(1)
    scene.resolve(60, "10.2.5.41", C2, X)
    assert block.enforced and block.addresses[packed(X)] == at(60)


def test_what_rests_elsewhere_is_bounded() -> None:
    scene = LiveScene()
    many = tuple((f"198.51.{number >> 8}.{number & 255}", E1) for number in range(600))
    scene.engine.adopt(standing(resting=many))
    scene.engine.adopt(standing(resting=many[300:]))
    assert len(scene.engine.blocks.by_id["D9"].resting) <= 256


def test_an_adopted_address_or_network_is_blocked() -> None:
    scene = LiveScene("198.51.100.0/24\n203.0.113.80")
    scene.engine.adopt(standing("203.0.113.80", id_="D1", level="address", addresses=(FOREIGN,)))
    scene.engine.adopt(standing("198.51.100.0/24", id_="D2", level="address"))
    scene.flow(0, A, FOREIGN)
    scene.flow(1, A, X)
    assert [one.decision_id for one in scene.attempts] == ["D1", "D2"]
    assert scene.decisions == []


def test_what_ended_elsewhere_is_gone_and_may_be_decided_anew() -> None:
    scene = LiveScene(first_number=4)
    scene.engine.adopt(standing(addresses=(X,), pairs=((A, Y),)))
    scene.engine.end("D9")
    scene.engine.end("D9")
    blocks = scene.engine.blocks
    assert (len(blocks), blocks.addresses, blocks.pairs, blocks.is_held(packed(X))) == (0, 0, 0, False)
    scene.tls(1, A, FOREIGN, C2)
    assert scene.decisions[0].id == "D4"


def test_an_adopted_block_lapses_with_its_indicator() -> None:
    scene = LiveScene()
    scene.engine.adopt(standing(f"c2.bad.example expires={when(60)}", addresses=(X,)))
    scene.engine.tick(at(59))
    assert scene.blocks == [BAD]
    scene.swap(59.5, f"c2.bad.example expires={when(60)}")
    scene.engine.tick(at(60))
    assert scene.said() == [("withdraw", "expired", BAD)]
    assert scene.engine.blocks.addresses == 0


def test_a_renamed_block_lapses_with_its_indicator() -> None:
    line = f"c2.bad.example expires={when(60)}"
    scene = LiveScene(line, first_number=2)
    scene.tls(0, A, X, C2)
    scene.engine.adopt(standing(line, id_="D1"))
    scene.engine.tick(at(61))
    assert scene.blocks == []


def test_a_renamed_block_knows_its_clients() -> None:
    scene = LiveScene(first_number=2)
    scene.tls(0, A, X, C2)
    scene.tls(1, A, X, C2, sport=40001)
    scene.engine.adopt(standing(id_="D1"))
    scene.tls(2, A, X, C2, sport=40002)
    assert [(one.decision_id, one.first, one.count) for one in scene.attempts] == [("D2", True, 1), ("D1", False, 2)]


# -- rest, and coming back


def test_an_address_rests_and_a_try_brings_it_back_for_everybody() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.engine.rest("D1", address(X))
    assert held(scene) == (set(), set(), {X: E2})
    assert scene.engine.blocks.covering(packed(B), packed(X)) is None
    before = len(scene.decisions)
    scene.flow(1, A, X)  # by the name that A resolved: a contact with what is listed
    assert [(one.action, one.evidence, one.targets) for one in scene.decisions[before:]] == [
        ("extend", E2, (address(X),))
    ]
    assert held(scene) == ({X}, set(), {})


def test_a_pair_comes_back_as_a_pair() -> None:
    scene = LiveScene()
    scene.tls(0, A, X, C2)
    assert held(scene)[1] == {(A, X)}
    scene.engine.rest("D1", pair(A, X))
    assert held(scene) == (set(), set(), {X: E1})
    scene.flow(1, A, X, 41000)
    assert (scene.decisions[-1].action, scene.decisions[-1].targets) == ("extend", (pair(A, X),))
    assert held(scene) == (set(), {(A, X)}, {})


def test_what_others_saw_at_rest_comes_back_here() -> None:
    scene = LiveScene()
    scene.engine.adopt(standing(resting=((X, E2),)))
    scene.resolve(0, A, C2, Y)  # the name lives elsewhere now
    scene.engine.resolutions.reached(packed(A), C2, packed(X), at(0))
    scene.flow(1, A, X)
    assert scene.said("extend")[-1] == ("extend", "address", f"address {X}")


def test_a_try_by_somebody_who_never_named_it_brings_nothing_back() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.engine.rest("D1", address(X))
    scene.flow(1, B, X)
    assert held(scene) == (set(), set(), {X: E2})
    assert scene.attempts == []


@pytest.mark.parametrize("target", [address(Y), pair(A, Y), address(X), pair(B, X)])
def test_to_rest_what_is_not_held_leaves_the_counts_right(target: Target) -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    for _ in range(3):
        scene.engine.rest("D1", target)
        scene.engine.rest("D77", target)
    blocks = scene.engine.blocks
    assert (blocks.addresses, blocks.pairs) == (len(blocks.by_id["D1"].addresses), len(blocks.by_id["D1"].pairs))
    assert blocks.addresses == (0 if target == address(X) else 1)


# -- lists, allowances, protected addresses change


def test_what_is_no_longer_listed_is_lifted_with_the_reason() -> None:
    scene = LiveScene("c2.bad.example\nworse.example")
    scene.resolve(0, A, C2, X)
    scene.resolve(1, A, "worse.example", Y)
    scene.events.clear()
    scene.swap(2, "worse.example")
    assert scene.said() == [("withdraw", "unlisted", BAD)]
    (lifted,) = scene.decisions
    assert (lifted.reason, lifted.id, lifted.client, lifted.ts_us) == (f"{C2} is no longer listed", "D1", b"", at(2))
    assert scene.blocks == ["registered_domain worse.example"]
    assert not scene.engine.blocks.is_held(packed(X)) and scene.engine.blocks.is_held(packed(Y))
    scene.tls(3, A, X, C2)
    assert scene.sightings == []


def test_what_is_still_listed_stays_with_its_new_line() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.events.clear()
    scene.swap(1, "# a comment more\nc2.bad.example threat=other")
    assert scene.events == []
    block = scene.engine.blocks.by_id["D1"]
    assert (block.match.indicator.threat, block.match.indicator.line) == ("other", 2)
    assert held(scene)[0] == {X}
    scene.tls(2, A, X, C2)
    assert scene.attempts[0].match.indicator.threat == "other"


def test_another_line_for_the_same_domain_keeps_the_block() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.events.clear()
    scene.swap(1, "other.bad.example")
    assert scene.events == []
    assert scene.engine.blocks.by_id["D1"].match.indicator.value == "other.bad.example"


def test_a_narrower_line_lifts_the_wide_block() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.events.clear()
    scene.swap(1, "c2.bad.example scope=host")
    assert scene.said() == [("withdraw", "unlisted", BAD)]
    scene.tls(2, A, X, C2)
    assert scene.said("block") == [("block", "level-host", "host c2.bad.example")]


def test_clients_of_the_day_before_are_known_no_more() -> None:
    """IPv6 addresses come and go: kept for ever they filled the table in a week, then no new one was known."""
    scene = LiveScene()
    scene.question(0, A, "www.good.example")
    for hour in range(1, 40):
        scene.question(hour * 3_600, B, "www.good.example", txid=hour)
        scene.engine.tick(at(hour * 3_600))
        known = packed(A) in scene.engine.clients
        assert known if hour < 12 else not known if hour > 24 else True
    assert packed(B) in scene.engine.clients and len(scene.engine.clients) == 1
    assert "clients_beyond_bound" not in scene.engine.counts()


def test_a_new_expiry_counts_from_the_next_list() -> None:
    scene = LiveScene()
    scene.tls(0, A, X, C2)
    scene.swap(1, f"c2.bad.example expires={when(30)}")
    scene.engine.tick(at(29))
    assert scene.blocks == [BAD]
    scene.engine.tick(at(30))
    assert scene.blocks == []
    later = LiveScene(f"c2.bad.example expires={when(30)}")
    later.tls(0, A, X, C2)
    later.swap(1, "c2.bad.example")
    later.engine.tick(at(10_000))
    assert later.blocks == [BAD]


def test_who_contacted_what_is_listed_only_now_is_found() -> None:
    scene = LiveScene()
    scene.resolve(0, A, "www.worse.example", X)
    scene.tls(1, A, X, "www.worse.example")
    scene.flow(2, B, Y)
    assert scene.sightings == []
    scene.swap(100, "c2.bad.example\nworse.example\n198.51.100.8")
    assert all(one.retro and one.ts_us == at(100) for one in scene.sightings)
    named = [one for one in scene.sightings if one.name == "www.worse.example"]
    assert {one.flow.client for one in named} == {packed(A)}
    assert (named[0].first_us, named[-1].last_us) == (at(0), at(1))
    assert [(one.first_us, one.last_us) for one in scene.incidents] == [(at(0), at(1)), (at(2), at(2))]
    assert ("", packed(B)) in {(one.name, one.flow.client) for one in scene.sightings}
    assert {"registered_domain worse.example", f"address {Y}"} <= set(scene.blocks)
    again = len(scene.sightings)
    scene.swap(101, "c2.bad.example\nworse.example\n198.51.100.8")
    scene.swap(102, "# moved\nc2.bad.example\nworse.example\n198.51.100.8")
    assert len(scene.sightings) == again  # nobody is found twice


def test_what_comes_into_force_later_is_found_then() -> None:
    scene = LiveScene()
    scene.tls(0, A, X, "worse.example")
    scene.swap(10, f"c2.bad.example\nworse.example added={when(60)}")
    scene.engine.tick(at(59))
    assert scene.sightings == []
    scene.engine.tick(at(60))
    assert [(one.retro, one.ts_us) for one in scene.sightings] == [(True, at(60))]


@pytest.mark.parametrize("line", ["allow-destination bad.example", "never-block bad.example"])
def test_an_allowance_lifts_the_block(line: str) -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.events.clear()
    scene.swap(1, "c2.bad.example", f'{line} owner=ops reason="a partner"')
    ((action, rule, target),) = scene.said()
    assert (action, target) == ("withdraw", BAD)
    assert rule in line
    assert "a partner" in scene.decisions[0].reason
    assert scene.blocks == []


def test_an_allowed_address_is_given_free_and_the_name_stays_blocked() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X, Y)
    scene.tls(1, B, FOREIGN, C2)
    scene.events.clear()
    scene.swap(
        2, "c2.bad.example", f"allow-destination {X} owner=ops reason=shop\nnever-block {FOREIGN} owner=ops reason=x"
    )
    assert sorted(scene.said()) == [
        ("withdraw", "allow-destination", f"address {X}"),
        ("withdraw", "never-block", f"pair {B}>{FOREIGN}"),
    ]
    assert held(scene)[:2] == ({Y}, set())


def test_an_allowance_for_one_client_frees_only_its_pair() -> None:
    scene = LiveScene()
    for client in (A, B):
        scene.tls(0, client, X, C2)
    scene.events.clear()
    scene.swap(1, "c2.bad.example", f"allow-destination {X} client={A} owner=ops reason=lab")
    assert scene.said() == [("withdraw", "allow-destination", f"pair {A}>{X}")]
    assert held(scene)[1] == {(B, X)}


def test_what_becomes_protected_is_given_free_at_once() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X, Y)
    scene.tls(1, B, FOREIGN, C2)
    scene.events.clear()
    scene.engine.protect(protecting((X, "gateway of this machine"), (FOREIGN, "resolver of this machine")), at(2))
    assert sorted(scene.said()) == [
        ("withdraw", "kept", f"address {X}"),
        ("withdraw", "kept", f"pair {B}>{FOREIGN}"),
    ]
    assert "gateway of this machine" in scene.decisions[0].reason
    assert held(scene)[:2] == ({Y}, set())
    scene.resolve(3, A, C2, X)
    assert scene.said("extend") == []
    assert scene.said("refuse") == [("refuse", "protected", f"address {X}")]


def test_a_listed_address_that_becomes_protected_is_lifted() -> None:
    scene = LiveScene(X)
    scene.flow(0, A, X)
    assert scene.blocks == [f"address {X}"]
    scene.events.clear()
    scene.engine.protect(protecting((X, "gateway of this machine")), at(1))
    assert scene.said() == [("withdraw", "protected", f"address {X}")]
    assert (scene.blocks, scene.engine.blocks.addresses) == ([], 0)
    scene.flow(2, A, X, 41000)
    assert [one.rule for one in scene.decisions[1:]] == ["protected"]


def test_a_network_with_something_protected_in_it_is_lifted_with_the_lists() -> None:
    scene = LiveScene("198.51.100.0/24")
    scene.flow(0, A, X)
    scene.events.clear()
    scene.swap(1, "198.51.100.0/24", protected=protecting((Y, "resolver of this machine")))
    assert scene.said() == [("withdraw", "protected", "network 198.51.100.0/24")]


def test_a_persons_pair_needs_no_list_line() -> None:
    scene = LiveScene()
    scene.engine.adopt(standing(X, id_="D4", target=pair(A, X), level="address", pairs=((A, X),)))
    scene.swap(1, "worse.example")
    assert (scene.blocks, scene.events) == ([f"pair {A}>{X}"], [])
    scene.swap(2, "worse.example", protected=protecting((X, "gateway of this machine")))
    assert scene.said() == [("withdraw", "protected", f"pair {A}>{X}")]
    assert (scene.blocks, scene.engine.blocks.pairs) == ([], 0)


def test_mode_and_policy_come_with_the_swap() -> None:
    scene = LiveScene(settings=PolicySettings(mode="monitor"), enforced=False)
    scene.tls(0, A, X, C2)
    assert (scene.decisions[0].mode, scene.engine.blocks.by_id["D1"].enforced) == ("monitor", False)
    scene.swap(1, "c2.bad.example\nworse.example", settings=ENFORCE, enforced=True)
    scene.tls(2, A, Y, "worse.example")
    block = scene.engine.blocks.by_target[Target("registered_domain", "worse.example")]
    assert (scene.decisions[-1].mode, block.enforced) == ("enforce", True)
    assert not scene.engine.blocks.by_id["D1"].enforced  # until the core says so by Adopt
    scene.engine.adopt(standing(id_="D1", enforced=True))
    assert scene.engine.blocks.by_id["D1"].enforced


def test_ignored_clients_go_on_being_counted() -> None:
    lines = f"ignore-client {A} owner=ops reason=lab"
    scene = LiveScene(allow=lines)
    scene.tls(0, A, X, C2)
    before = scene.engine.counts()["clients_ignored"]
    scene.swap(1, C2, lines)
    scene.tls(2, A, X, C2, sport=41000)
    assert scene.engine.counts()["clients_ignored"] > before > 0
