"""What went since the last look, from counters that only grow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce.accounting import Counted
from egressd.runtime.flow_sums import FlowSums

A, X, Y = b"\x0a\0\0\5", b"\xcb\0\x71\x09", b"\xcb\0\x71\x0a"


def flow(key: int, sent: int, got: int, server: bytes = X, source: bytes = A) -> Counted:
    return Counted(key, 6, source, server, sent, got)


def sums(limit: int = 100) -> FlowSums:
    return FlowSums(lambda source, destination: source == A, limit)


def look(one: FlowSums, *flows: Counted, ended: tuple[Counted, ...] = ()) -> dict[bytes, list[int]]:
    one.begin()
    for counted in flows:
        one.look([counted])
    one.end()
    one.ended(ended)
    for _ in one.forget():
        pass
    return {server: row for (_, server), row in one.take().items()}


def test_what_was_there_before_counts_from_then_on() -> None:
    one = sums()
    assert look(one, flow(1, 5_000, 700)) == {}
    assert look(one, flow(1, 5_100, 705), flow(2, 30, 4)) == {X: [130, 9]}
    assert look(one, flow(1, 5_100, 705), flow(2, 30, 4)) == {}


def test_flows_to_one_server_are_added_up() -> None:
    one = sums()
    look(one)
    assert look(one, flow(1, 10, 1), flow(2, 20, 2), flow(3, 40, 4, Y)) == {X: [30, 3], Y: [40, 4]}


def test_what_a_flow_carried_before_it_ended_is_not_lost() -> None:
    one = sums()
    look(one)
    look(one, flow(1, 10, 1))
    one.ended([flow(1, 15, 2)])  # between two looks
    one.ended([flow(7, 3, 3)])  # as short as that: met by no look
    assert look(one, flow(2, 8, 0), ended=(flow(2, 9, 1),)) == {X: [5 + 3 + 9, 1 + 3 + 1]}
    assert look(one) == {}


def test_an_end_before_the_first_look_is_of_unknown_age() -> None:
    one = sums()
    one.ended([flow(1, 1 << 40, 0)])
    assert look(one) == {}


def test_counters_that_were_set_to_zero() -> None:
    one = sums()
    look(one)
    look(one, flow(1, 100, 100))
    assert look(one, flow(1, 30, 1)) == {X: [30, 1]}


def test_flows_of_others_and_flows_without_counters() -> None:
    one = sums()
    look(one)
    assert look(one, flow(1, 9, 9, source=X), flow(2, -1, -1)) == {}
    assert (one.flows, one.uncounted) == (2, 1)
    one.ended([flow(2, -1, -1), flow(1, 20, 20, source=X)])
    assert look(one) == {}


def test_more_than_can_be_followed_is_counted_and_never_twice() -> None:
    one = sums(limit=2)
    look(one)
    assert look(one, flow(1, 10, 0), flow(2, 10, 0), flow(3, 10, 0)) == {X: [20, 0]}
    assert one.uncounted == 1
    assert look(one, flow(3, 90, 0), flow(2, 11, 0)) == {X: [1, 0]}  # how old 3 is, is not known
    assert look(one, flow(3, 95, 0)) == {X: [5, 0]}


def test_a_look_that_was_given_up_loses_nothing() -> None:
    one = sums()
    look(one)
    look(one, flow(1, 10, 0))
    one.begin()
    one.look([flow(2, 5, 0)])
    assert look(one, flow(1, 12, 0), flow(2, 6, 0)) == {X: [2 + 6, 0]}


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.booleans()), max_size=40
    ),
    st.integers(1, 7),
)
def test_every_byte_counts_once(steps: list[tuple[int, int, int, bool]], every: int) -> None:
    one = sums()
    look(one)
    alive: dict[int, list[int]] = {}
    sent = got = 0
    key = 0
    total = [0, 0]

    def add(found: dict[bytes, list[int]]) -> None:
        for row in found.values():
            total[0] += row[0]
            total[1] += row[1]

    for number, (slot, more_out, more_in, ends) in enumerate(steps):
        row = alive.setdefault(slot * 1_000 + key, [0, 0])
        row[0] += more_out
        row[1] += more_in
        sent += more_out
        got += more_in
        if ends:
            one.ended([flow(slot * 1_000 + key, *alive.pop(slot * 1_000 + key))])
            key += 1
        if number % every == 0:
            add(look(one, *(flow(which, *amounts) for which, amounts in alive.items())))
    add(look(one, *(flow(which, *amounts) for which, amounts in alive.items())))
    assert total == [sent, got]


@pytest.mark.parametrize("key", [-(1 << 62), 0, 1 << 62])
def test_keys_are_any_numbers(key: int) -> None:
    one = sums()
    look(one)
    assert look(one, flow(key, 1, 1)) == {X: [1, 1]}
