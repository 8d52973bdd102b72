"""What a live engine takes for evidence, learns from others, and writes down."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect import gathering
from egressd.detect.gathering import GatheringHistory
from egressd.detect.history import PastContact
from egressd.model import DNS_QUERY, FLOW, TLS_SNI, UDP, FlowKey, Observation
from tests.detect.live_scene import LiveScene, standing
from tests.detect.scene import RESOLVER, A, B, X, Y, at, flow, message, packed, record
from tests.detect.test_changing import C2, FOREIGN, held

# -- whose answers are evidence


def test_an_answer_of_the_resolver_blocks_for_everybody() -> None:
    scene = LiveScene()
    scene.from_inside(False)
    scene.resolve(0, A, C2, X)
    assert held(scene) == ({X}, set(), {})


def test_an_answer_from_inside_is_no_evidence_for_everybody() -> None:
    """A host may send under the resolver's address; on the hosts' side a true answer always goes out to them."""
    scene = LiveScene()
    scene.from_inside(True)
    scene.resolve(0, A, C2, X)
    assert held(scene) == (set(), {(A, X)}, {})
    scene.from_inside(False)
    scene.resolve(1, A, C2, X)
    assert held(scene)[0] == {X}


def test_an_answer_from_inside_gives_nothing_free() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.from_inside(True)
    scene.resolve(1, B, "innocent.example", X)
    assert held(scene)[0] == {X}
    scene.from_inside(False)
    scene.resolve(2, B, "innocent.example", X)
    assert held(scene)[0] == set()


@pytest.mark.parametrize("port", [5353, 54, 40_000])
def test_an_answer_from_another_port_is_no_evidence_for_everybody(port: int) -> None:
    scene = LiveScene()
    key = FlowKey(UDP, packed(A), 50_000, packed(RESOLVER), port)
    for kind, second, detail in (
        ("dns_query", 0.0, message(C2, 7, (), False)),
        ("dns_answer", 0.1, message(C2, 7, [record(C2, X)])),
    ):
        scene.engine.observe(Observation(kind, at(second), 0, key, C2, C2, detail))
    assert held(scene) == (set(), {(A, X)}, {})


def test_an_answer_of_a_strange_server_is_no_evidence_for_everybody() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X, server=FOREIGN)
    assert held(scene) == (set(), {(A, X)}, {})


# -- the kernel's log


def test_what_the_kernel_dropped_is_an_attempt_that_was_not_seen_otherwise() -> None:
    scene = LiveScene()
    scene.engine.adopt(standing(addresses=(X,)))
    key = FlowKey(6, packed(A), 40_000, packed(X), 443)
    scene.engine.dropped(key, at(0.1))  # the log was quicker than the ring
    scene.engine.observe(Observation(FLOW, at(0.1), 0, key, "", "", None, 0, ""))
    scene.engine.dropped(key, at(1.1))  # sent again
    assert [(one.decision_id, one.count) for one in scene.attempts] == [("D9", 1)]
    scene.engine.observe(Observation(FLOW, at(2), 0, key, "", "", None, 0, ""))  # the same ports, a new SYN
    scene.engine.dropped(key, at(2))
    assert [one.count for one in scene.attempts] == [1, 2]
    assert scene.incidents[0].via == {FLOW: 3}  # every sign counts there: the log's, and the tap's twice


# -- passive DNS


def test_what_others_saw_counts_for_what_is_shared() -> None:
    scene = LiveScene()
    scene.engine.learn([(f"tenant{number}.example", packed(X), at(0)) for number in range(3)])
    assert scene.engine.take_learned() == []  # it is theirs
    scene.resolve(1, A, C2, X)
    assert scene.said("refuse") == [("refuse", "shared", f"address {X}")]


def test_what_is_learned_is_handed_over_once() -> None:
    scene = LiveScene()
    scene.resolve(0, A, "one.example", X)
    scene.resolve(1, A, "www.one.example", X)
    scene.resolve(2, A, "two.example", X, Y)
    assert scene.engine.take_learned() == [
        ("one.example", packed(X), at(0.01)),
        ("two.example", packed(X), at(2.01)),
        ("two.example", packed(Y), at(2.01)),
    ]
    assert scene.engine.take_learned() == []
    scene.resolve(3, A, "one.example", X)
    assert scene.engine.take_learned() == []  # not new


def test_one_process_learns_what_the_other_hands_over() -> None:
    one, two = LiveScene(), LiveScene()
    one.resolve(0, A, "fine.example", X)
    two.engine.learn(one.engine.take_learned())
    two.resolve(1, B, C2, X)
    assert two.said("extend") == [("extend", "pair", f"pair {B}>{X}")]


# -- history that is written down


RECORDS = st.lists(
    st.tuples(
        st.sampled_from([A, B]), st.sampled_from(["a.example", "b.example", packed(X), packed(Y)]),
        st.integers(0, 50), st.booleans(), st.sampled_from([b"", packed(X)]),
    ),
    max_size=40,
)  # fmt: skip
Record = tuple[str, str | bytes, int, bool, bytes]


def put(history: GatheringHistory, one: Record) -> None:
    client, what, second, new, server = one
    history.record(flow(client, X), what, at(second), 1, DNS_QUERY if not server else TLS_SNI, new, server)


def key_of(one: Record) -> tuple[bytes, str, bytes]:
    client, what, _, _, server = one
    return (packed(client), what, server) if isinstance(what, str) else (packed(client), "", what)


@given(RECORDS, st.integers(0, 40))
def test_every_contact_is_gathered_once(records: list[Record], cut: int) -> None:
    records.sort(key=lambda one: one[2])
    history = GatheringHistory()
    for part in (records[:cut], records[cut:]):
        wanted: dict[tuple[bytes, str, bytes], list[int]] = defaultdict(list)
        count: dict[tuple[bytes, str, bytes], int] = defaultdict(int)
        for one in part:
            put(history, one)
            wanted[key_of(one)].append(at(one[2]))
            count[key_of(one)] += one[3]
        taken = dict(history.take())
        assert {key: (row.first_us, row.last_us, row.count) for key, row in taken.items()} == {
            key: (min(times), max(times), count[key]) for key, times in wanted.items()
        }
        assert history.take() == []
    assert history.ungathered == 0


def test_times_out_of_order_span_what_was_seen() -> None:
    """What the kernel's log tells comes later than what the tap saw after it."""
    history = GatheringHistory()
    for second in (5, 9, 3):
        put(history, (A, "a.example", second, True, b""))
    ((_, row),) = history.take()
    assert (row.first_us, row.last_us, row.count) == (at(3), at(9), 3)


def test_gathering_is_bounded_and_the_rest_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_GATHERED", 3)
    history = GatheringHistory()
    for number in range(5):
        put(history, (A, f"n{number}.example", number, True, b""))
    put(history, (A, "n0.example", 9, True, b""))
    taken = dict(history.take())
    assert (len(taken), history.ungathered) == (3, 2)
    assert taken[packed(A), "n0.example", b""].count == 2
    put(history, (A, "n4.example", 9, True, b""))
    assert len(history.take()) == 1


def test_what_was_not_handed_over_yet_is_found_here_and_what_was_is_not() -> None:
    """What was handed over is found on disk by the core, and comes back as an order."""
    scene = LiveScene()
    scene.tls(0, A, X, "worse.example")
    ((key, row),) = scene.engine.gathering.take()
    scene.tls(1, B, Y, "very.worse.example")
    scene.swap(2, "worse.example")
    assert [(one.retro, one.name) for one in scene.sightings] == [(True, "very.worse.example")]
    assert scene.engine.gathering.take() == []  # what was told is no row of history any more
    client, name, address = key
    past = PastContact(FlowKey(0, client, 0, address, 0), name, address, "flow", 7, row.first_us, row.last_us)
    scene.engine.recall([past, past._replace(name="fine.example")], at(3))
    told = scene.sightings[-1]
    assert (told.name, told.retro, told.count, told.first_us) == ("worse.example", True, 7, at(0))
    assert [one.contacts for one in scene.incidents] == [1, 7]
    assert ("extend", "pair", f"pair {A}>{X}") in scene.said("extend")


def test_an_address_of_the_past_is_recalled_unless_it_is_allowed() -> None:
    scene = LiveScene(f"{X}", allow=f'allow-destination {Y} owner=o reason="r"')
    flows = [FlowKey(0, packed(A), 0, packed(one), 0) for one in (X, Y)]
    scene.engine.recall([PastContact(one, "", one.server, "flow", 2, at(0), at(1)) for one in flows], at(3))
    assert [(one.address, one.count) for one in scene.sightings] == [(packed(X), 2)]


def test_what_is_listed_is_not_gathered() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.tls(1, A, X, C2)
    scene.tls(2, A, Y, "fine.example")
    assert [key for key, _ in scene.engine.gathering.take()] == [(packed(A), "fine.example", packed(Y))]


# -- listed addresses, written in another way


@pytest.mark.parametrize("line", ["198.51.100.7", "198.51.100.0/24"])
@pytest.mark.parametrize("written", ["64:ff9b::c633:6407", "2002:c633:6407::1"])
def test_a_listed_address_is_blocked_as_packets_carry_it(line: str, written: str) -> None:
    """The kernel's element for the IPv4 address stops no IPv6 packet to it."""
    scene = LiveScene(line)
    scene.flow(0, A, written)
    scene.flow(1, B, written)
    kind = "network" if "/" in line else "address"
    assert scene.targets("block", "extend") == [f"{kind} {line}", f"address {written}"]
    told = scene.decisions[1]
    assert (told.id, told.evidence) == (scene.decisions[0].id, "E0")
    assert told.reason == f"packets to the listed {line} carry it"
    assert scene.engine.blocks.stops(packed(B), packed(written), at(2))


def test_who_may_go_to_a_listed_address_may_by_ipv6_too() -> None:
    scene = LiveScene("198.51.100.0/24", 'never-block 198.51.100.7 owner=a reason="ours"')
    scene.flow(0, A, "64:ff9b::c633:6407")
    scene.flow(1, A, "64:ff9b::c633:6408")
    assert "address 64:ff9b::c633:6407" not in scene.targets("extend")


def test_a_listed_ipv6_address_is_blocked_as_it_is() -> None:
    scene = LiveScene("64:ff9b::c633:6407")
    scene.flow(0, A, "64:ff9b::c633:6407")
    assert scene.targets("block", "extend") == ["address 64:ff9b::c633:6407"]


def test_what_a_name_led_to_is_blocked_behind_nat64_too() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.flow(1, B, "64:ff9b::c633:6407")
    assert scene.targets("extend") == [f"address {X}", "address 64:ff9b::c633:6407"]
    scene.flow(2, B, "64:ff9b::c633:6407", 40_001)
    assert len(scene.targets("extend")) == 2


def test_one_clients_way_is_closed_behind_nat64_for_that_client() -> None:
    scene = LiveScene()
    scene.tls(0, A, X, C2)
    scene.flow(1, A, "64:ff9b::c633:6407")
    scene.flow(2, B, "64:ff9b::c633:6407")
    assert scene.targets("extend") == [f"pair {A}>{X}", f"pair {A}>64:ff9b::c633:6407"]


def test_a_pair_by_ipv6_stays_a_pair() -> None:
    scene = LiveScene()
    scene.engine.adopt(standing(pairs=((A, "2001:db8:f::7"), (A, X))))
    scene.flow(5, A, "2001:db8:f::7")
    scene.flow(6, A, "64:ff9b::c633:6407")
    assert scene.targets("extend") == [f"pair {A}>64:ff9b::c633:6407"]


def test_a_listed_address_is_blocked_behind_the_networks_own_nat64() -> None:
    """The configuration names the prefix while the daemon runs; blocks of before are found under it too."""
    inside = "2001:db8:64::c633:6407"
    scene = LiveScene(f"c2.bad.example\n{Y}")
    scene.resolve(0, A, C2, X)
    scene.flow(1, B, inside)
    assert scene.targets("extend") == [f"address {X}"]
    scene.swap(2, f"c2.bad.example\n{Y}", nat64="2001:db8:64::/96")
    scene.flow(3, B, inside, 40_001)
    scene.flow(4, B, "2001:db8:64::c633:6408")
    assert scene.targets("extend") == [f"address {X}", f"address {inside}", "address 2001:db8:64::c633:6408"]
    assert scene.targets("block")[-1] == f"address {Y}"
    scene.swap(5, "worse.example")
    assert scene.blocks == []
