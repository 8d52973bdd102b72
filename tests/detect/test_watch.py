"""The watch: attempts per block and client, leaks where blocks are enforced, bounds."""

from __future__ import annotations

import pytest

from egressd.detect.blocks import Block, Blocks, main_target
from egressd.detect.watch import Watch
from egressd.model import DNS_QUERY, FLOW, Match, Sighting
from tests.detect.scene import A, B, Scene, X, at, flow, listed, packed

(INDICATOR,) = listed("bad.example")
MATCH = Match("host", INDICATOR, "bad.example", "example")


def block() -> Block:
    return Blocks().add(main_target(MATCH), MATCH, 0)


def sighting(client: str = A, second: float = 0, via: str = FLOW, sport: int = 40000) -> Sighting:
    return Sighting(
        at(second), 3, flow(client, X, sport), "bad.example", MATCH, via, "", False, 1, at(second), at(second),
        incident="I1", campaign="C1",
    )  # fmt: skip


def test_attempts_count_up_per_client() -> None:
    watch, blocked = Watch(), block()
    said = [watch.attempt(blocked, sighting(client, second), False) for second, client in enumerate([A, A, B, A])]
    assert [(one.first, one.count) for one in said] == [(True, 1), (False, 2), (True, 1), (False, 3)]
    assert (said[0].decision_id, said[0].target.value, said[0].incident) == ("D1", "bad.example", "I1")
    mine = watch.by_block["D1"][packed(A)]
    assert (mine.first_us, mine.last_us, mine.count, mine.leaks) == (at(0), at(3), 3, 0)


def test_an_answer_is_a_leak_once_and_leaves_the_attempt_as_it_was() -> None:
    watch = Watch()
    tried = watch.attempt(block(), sighting(), True)
    leak = watch.answered(tried.flow, at(1), 4)
    assert leak is not None and leak.leak and not leak.first
    assert (leak.ts_us, leak.number, leak.count, leak.decision_id) == (at(1), 4, 1, "D1")
    assert not tried.leak  # it was handed on
    assert watch.answered(tried.flow, at(2), 5) is None
    assert watch.by_block["D1"][packed(A)].leaks == 1
    watch.attempt(block(), sighting(second=3), True)
    assert watch.answered(tried.flow, at(4), 6) is not None


@pytest.mark.parametrize(("enforced", "via"), [(False, FLOW), (True, DNS_QUERY)])
def test_no_leak_without_enforcement_nor_by_a_resolvers_answer(enforced: bool, via: str) -> None:
    watch = Watch()
    tried = watch.attempt(block(), sighting(via=via), enforced)
    assert watch.answered(tried.flow, at(1), 4) is None
    assert watch.answered(flow(B, X), at(1), 4) is None


def test_bounded_over_all_blocks() -> None:
    watch = Watch(limit=10, clients=3)
    blocks = Blocks()
    found = [blocks.add(main_target(MATCH), MATCH, 0) for _ in range(2)]
    said = [
        watch.attempt(one, sighting(f"10.0.0.{number}", sport=number + 1), True)
        for one in found
        for number in range(20)
    ]
    assert [one.first for one in said] == [True] * 3 + [False] * 37
    assert all(one.count == 1 for one in said)
    assert (sum(map(len, watch.by_block.values())), watch.uncounted) == (3, 37)
    assert len(watch._tried) <= 10
    again = watch.attempt(found[0], sighting("10.0.0.1"), True)
    assert (again.first, again.count) == (False, 2)


def test_a_leak_is_of_the_attempt_that_was_made() -> None:
    watch = Watch()
    one = watch.attempt(block(), sighting(sport=1), True)
    two = watch.attempt(block(), sighting(sport=2, second=1), True)
    assert one.stopped and two.stopped
    leak = watch.answered(one.flow, at(2), 9)
    assert leak is not None
    assert (leak.flow, leak.count, leak.stopped, leak.campaign, leak.incident) == (one.flow, 1, True, "C1", "I1")
    assert watch.by_block["D1"][packed(A)].leaks == 1


def test_what_nothing_stops_is_no_leak_even_of_an_enforced_block() -> None:
    watch = Watch()
    tried = watch.attempt(block(), sighting(), False)
    assert not tried.stopped
    assert watch.answered(tried.flow, at(1), 4) is None
    assert watch.by_block["D1"][packed(A)].leaks == 0


def test_beyond_the_bound_an_answer_is_a_leak_all_the_same() -> None:
    watch = Watch(clients=0)
    tried = watch.attempt(block(), sighting(), True)
    assert (tried.first, watch.uncounted) == (False, 1)
    leak = watch.answered(tried.flow, at(1), 4)
    assert leak is not None and leak.leak


def test_a_block_that_ends_makes_room_for_the_clients_of_others() -> None:
    scene = Scene("bad.example\nworse.example", history=10)
    watch = scene.engine.watch = Watch(clients=1)
    scene.engine.blocks.on_remove = watch.forget
    scene.question(0, A, "bad.example")
    scene.question(1, A, "worse.example", txid=1)
    scene.question(60, A, "bad.example", txid=2)
    scene.question(61, A, "worse.example", txid=3)
    assert [one.first for one in scene.attempts] == [True, False] and watch.uncounted == 1
    scene.engine.blocks.remove(scene.engine.blocks.by_id["D1"])
    scene.question(120, A, "worse.example", txid=4)
    assert scene.attempts[-1].first and list(watch.by_block) == ["D2"]


def test_a_block_that_is_known_elsewhere_under_an_older_id_leaves_no_client_behind() -> None:
    watch, blocks = Watch(clients=2), Blocks()
    one = blocks.add(main_target(MATCH), MATCH, 0)
    watch.attempt(one, sighting(A), False)
    blocks.rename(one, "D9")
    watch.attempt(one, sighting(B), False)
    watch.rename("D9", "D1")
    watch.forget("D1")
    blocks.rename(one, "D7")
    assert [watch.attempt(one, sighting(client), False).first for client in (A, B)] == [True, True]
