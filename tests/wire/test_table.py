"""Bounded tables: the bound, what is kept, what leaves; pairs keep both keys in step; one client's share."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.model import TCP
from egressd.wire.table import CROWD_PART, NETWORK_SHARE, SHARE, Pair, PairTable, RecentTable

STEPS = st.lists(st.tuples(st.sampled_from(["put", "get", "pop", "rotate"]), st.integers(0, 30)), max_size=300)


@given(st.integers(1, 20), STEPS)
def test_never_over_the_bound_and_never_wrong(limit: int, steps: list[tuple[str, int]]) -> None:
    left: list[int] = []
    table: RecentTable[int, int] = RecentTable(limit, lambda _, value: left.append(value))
    last: dict[int, int] = {}
    put = popped = 0
    for time, (step, key) in enumerate(steps):
        if step == "put":
            fresh = key not in table
            table.put(key, time)
            last[key] = time
            put += fresh
            assert table.get(key) == time
        elif step == "get":
            value = table.get(key)
            assert value is None or value == last[key]
        elif step == "pop":
            value = table.pop(key)
            assert value is None or value == last[key]
            popped += value is not None
            assert key not in table and table.get(key) is None
        else:
            table.rotate()
        assert len(table) <= max(limit, 2)
        assert len(table.values()) == len(table.items()) == len(table)
    assert put == popped + table.evicted + len(table)
    table.free_all()
    assert len(left) == table.evicted


def test_the_most_recent_half_is_always_kept() -> None:
    table: RecentTable[int, int] = RecentTable(100)
    for key in range(1_000):
        table.put(key, key)
        for recent in range(max(0, key - 40), key + 1):
            assert recent in table
    assert table.evicted == 1_000 - len(table)


def test_what_is_used_stays() -> None:
    table: RecentTable[int, str] = RecentTable(10)
    table.put(-1, "used")
    for key in range(500):
        table.put(key, "once")
        assert table.get(-1) == "used"


def test_no_call_frees_much_at_once() -> None:
    left: list[int] = []
    table: RecentTable[int, int] = RecentTable(1_000, lambda _, value: left.append(value))
    for key in range(10_000):
        before = len(left)
        table.put(key, key)
        assert len(left) - before <= 2
    assert len(left) > 8_000


def pair(client: int, port: int) -> Pair:
    return Pair(TCP, struct.pack(">IIHH", 0x0A000000 + client, 0xC0000201, port, 443))


def test_both_keys_lead_to_a_pair_and_swapping_changes_that_in_nothing() -> None:
    table: PairTable[Pair] = PairTable(10, 1_000)
    one = pair(1, 1)
    table.keep(one, 0)
    forward, backward = one.forward, one.backward
    one.swap()
    assert (one.forward, one.backward) == (backward, forward)
    assert one.flow.client == bytes.fromhex("c0000201")
    assert table.get(forward) is one and table.get(backward) is one
    assert table.all() == [one] and len(table) == 1
    table.forget(one)
    assert table.get(forward) is None and table.get(backward) is None and len(table) == 0


def test_a_direction_in_which_nothing_comes_is_not_forgotten_alone() -> None:
    table: PairTable[Pair] = PairTable(40, 1 << 60)
    one = pair(1, 1)
    table.keep(one, 0)
    for number in range(2, 1_000):
        table.keep(pair(number, number), number)
        assert table.get(one.forward) is one
    assert table.get(one.backward) is one


@settings(max_examples=60)
@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(1, 40)), max_size=400),
)
def test_pairs_are_whole_or_gone(limit: int, steps: list[tuple[int, int, int]]) -> None:
    left: list[Pair] = []
    table: PairTable[Pair] = PairTable(limit, 50, left.append)
    for time, (step, client, port) in enumerate(steps):
        key = pair(client, port).forward
        found = table.get(key)
        if step == 0 and found is not None:
            table.forget(found)
            assert table.get(found.backward) is None
        elif found is None:
            made = pair(client, port)
            table.keep(made, time * (step + 1))
            assert table.get(made.forward) is made and table.get(made.backward) is made
        else:
            assert table.get(found.backward) is found
        assert len(table) <= max(limit, 4)
    assert len({id(one) for one in table.all()}) == len(table.all())


def test_what_is_idle_is_forgotten_and_told() -> None:
    left: list[Pair] = []
    table: PairTable[Pair] = PairTable(1_000, 100, left.append)
    one = pair(1, 1)
    table.keep(one, 1_000)
    table.keep(pair(1, 2), 1_101)
    assert one not in left
    table.keep(pair(1, 3), 1_202)
    assert table.get(one.forward) is None
    table.all()
    assert one in left and table.evicted >= 1


def test_a_flood_of_one_client_pushes_out_nobody_else() -> None:
    table: PairTable[Pair] = PairTable(400, 1 << 60)
    others = [pair(client, 1) for client in range(1, 101)]
    for one in others:
        table.keep(one, 0)
    for port in range(10_000):
        flood = pair(200, port)
        table.keep(flood, 1)
        assert table.get(flood.backward) is flood
    assert all(table.get(one.forward) is one for one in others)
    assert table.over_share == 10_000 - 400 // SHARE
    assert len(table) <= 100 + 400 // SHARE + 400 // CROWD_PART
    # The newest of the flood are kept all the same.
    recent = [pair(200, port) for port in range(9_960, 10_000)]
    assert all(table.get(one.forward) is not None for one in recent)


def test_conversations_that_are_over_do_not_count_against_their_client() -> None:
    table: PairTable[Pair] = PairTable(400, 1 << 60)
    for port in range(10_000):
        one = pair(1, port)
        table.keep(one, 1)
        table.forget(one)
    assert table.over_share == 0


def test_counting_shares_is_bounded_too() -> None:
    table: PairTable[Pair] = PairTable(100, 1 << 60)
    for client in range(5_000):
        one = pair(client, 1)
        table.keep(one, 1)
        one.swap()  # the guess was wrong: the client that was counted is not found again
        table.forget(one)
    assert len(table._opened) <= 100


def pair6(network: int, host: int, port: int = 1) -> Pair:
    """A conversation of one of the addresses of an IPv6 network."""
    client = b"\x20\x01\x0d\xb8" + struct.pack(">IQ", network, host)
    return Pair(TCP, client + b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + struct.pack(">HH", port, 443))


def test_a_host_with_as_many_ipv6_addresses_as_it_likes_pushes_out_nobody_else() -> None:
    """Each address had a share, and the whole table was the flood's."""
    table: PairTable[Pair] = PairTable(400, 1 << 60)
    others = [pair(client, 1) for client in range(1, 31)] + [pair6(host, 1) for host in range(30)]
    for one in others:
        table.keep(one, 0)
    for host in range(10_000):
        table.keep(pair6(200, host), 1)
    assert all(table.get(one.forward) is one for one in others)
    assert table.over_share == 10_000 - 400 // NETWORK_SHARE


def test_ipv6_conversations_that_are_over_do_not_count_against_their_network() -> None:
    table: PairTable[Pair] = PairTable(400, 1 << 60)
    for host in range(10_000):
        one = pair6(1, host)
        table.keep(one, 1)
        table.forget(one)
    assert table.over_share == 0 and table._opened == {}
