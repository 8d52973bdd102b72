"""Who is the client: each rule alone, rules in order, both versions of IP."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.model import TCP, UDP, FlowKey
from egressd.wire import direction
from egressd.wire.direction import flow_of, is_group, is_private, pair_key, reverse_key, sender_is_client


def packed(text: str) -> bytes:
    return ip_address(text).packed


def flow(client: str, client_port: int, server: str, server_port: int) -> FlowKey:
    return FlowKey(TCP, packed(client), client_port, packed(server), server_port)


def test_a_key_is_read_as_it_lies_on_the_wire() -> None:
    key = packed("10.0.0.5") + packed("192.0.2.10") + b"\x9c\x40\x01\xbb"
    assert flow_of(UDP, key) == FlowKey(UDP, packed("10.0.0.5"), 40_000, packed("192.0.2.10"), 443)
    key = packed("fd00::5") + packed("2001:db8::10") + b"\x9c\x40\x01\xbb"
    assert flow_of(TCP, key) == FlowKey(TCP, packed("fd00::5"), 40_000, packed("2001:db8::10"), 443)


@given(st.one_of(st.binary(min_size=12, max_size=12), st.binary(min_size=36, max_size=36)))
def test_the_reverse_is_the_flow_from_the_other_side(key: bytes) -> None:
    there = flow_of(TCP, key)
    back = flow_of(TCP, reverse_key(key))
    assert (there.client, there.client_port, there.server, there.server_port) == (
        back.server,
        back.server_port,
        back.client,
        back.client_port,
    )
    assert reverse_key(reverse_key(key)) == key


@pytest.mark.parametrize(
    "ends", ["10.0.0.5 10.0.0.5", "10.0.0.5 192.0.2.10", "fd00::5 fd00::5", "2001:db8::10 fd00::5"]
)
def test_both_directions_lead_to_one_key(ends: str) -> None:
    source, target = map(packed, ends.split())
    there, back = source + target + b"\x9c\x40\x01\xbb", target + source + b"\x01\xbb\x9c\x40"
    assert pair_key(there) == pair_key(back) == min(there, back)
    itself = source + source + b"\x01\xbb\x01\xbb"
    assert pair_key(itself) == itself


def test_conversations_share_what_they_have_in_common_within_a_bound() -> None:
    one, two = (flow_of(UDP, packed("10.0.0.5") + packed("192.0.2.53") + port + b"\0\x35") for port in (b"ab", b"cd"))
    assert one.client is two.client and one.server is two.server and one.server_port is two.server_port
    for number in range(3 * direction.MAX_SHARED):
        flow = flow_of(TCP, number.to_bytes(4, "big") + packed("192.0.2.10") + b"\x9c\x40\x01\xbb")
        assert int.from_bytes(flow.client, "big") == number
        assert len(direction._SHARED) <= direction.MAX_SHARED


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("172.15.255.255", False),
        ("172.16.0.0", True),
        ("172.31.255.255", True),
        ("172.32.0.0", False),
        ("192.168.0.1", True),
        ("192.169.0.1", False),
        ("100.63.255.255", False),
        ("100.64.0.0", True),
        ("100.127.255.255", True),
        ("100.128.0.0", False),
        ("169.254.1.1", True),
        ("192.0.2.1", False),
        ("fd00::1", True),
        ("fc00::1", True),
        ("fe00::1", False),
        ("fe80::1", True),
        ("febf::1", True),
        ("fec0::1", False),
        ("2001:db8::1", False),
    ],
)
def test_private(text: str, private: bool) -> None:
    assert is_private(packed(text)) is private


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("223.255.255.255", False),
        ("224.0.0.0", True),
        ("239.255.255.255", True),
        ("240.0.0.0", False),
        ("255.255.255.254", False),
        ("255.255.255.255", True),
        ("ff02::fb", True),
        ("fe80::1", False),
    ],
)
def test_group(text: str, group: bool) -> None:
    assert is_group(packed(text)) is group


@pytest.mark.parametrize(
    ("sender", "right"),
    [
        # A service's port decides over everything else.
        (flow("192.0.2.1", 40_000, "10.0.0.1", 443), True),
        (flow("10.0.0.1", 443, "192.0.2.1", 40_000), False),
        (flow("192.0.2.1", 2_000, "10.0.0.1", 8443), True),
        # Both or none: the private side is the client.
        (flow("10.0.0.1", 5_000, "192.0.2.1", 6_000), True),
        (flow("192.0.2.1", 6_000, "10.0.0.1", 5_000), False),
        (flow("192.0.2.1", 123, "10.0.0.1", 123), False),
        # Both private or both public: an ephemeral port is the client's.
        (flow("10.0.0.1", 50_000, "10.0.0.2", 6_000), True),
        (flow("10.0.0.2", 6_000, "10.0.0.1", 50_000), False),
        # Nothing tells: who sent first.
        (flow("192.0.2.1", 50_000, "192.0.2.2", 60_000), True),
        (flow("192.0.2.2", 60_000, "192.0.2.1", 50_000), True),
    ],
)
def test_rules_in_order(sender: FlowKey, right: bool) -> None:
    assert sender_is_client(sender) is right
