"""rtnetlink messages from any bytes; real kernels in tests/netns."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture import rtnetlink
from egressd.capture.rtnetlink import (
    Address,
    Link,
    Neighbour,
    Route,
    parse_address_message,
    parse_attributes,
    parse_link,
    parse_messages,
    parse_neighbour,
    parse_routes,
)
from tests.detect.scene import packed


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body + bytes(-len(body) % 4)


def u32(number: int) -> bytes:
    return struct.pack("=I", number)


# -- messages


def test_messages_follow_each_other():
    octets = message(16, b"one") + message(17, b"second", 2)
    assert [(one.kind, one.flags, one.body) for one in parse_messages(octets)] == [(16, 0, b"one"), (17, 2, b"second")]
    assert [one.body for one in parse_messages(octets[:-3])] == [b"one"]
    assert parse_messages(struct.pack("=IHHII", 15, 1, 0, 0, 0)) == []


def test_attributes_by_type():
    octets = attribute(1, b"abc") + attribute(0x8000 | 2, b"nested") + attribute(1, b"again")
    assert parse_attributes(octets) == {1: b"again", 2: b"nested"}
    assert parse_attributes(octets + b"\x03\x00\x01\x00") == {1: b"again", 2: b"nested"}
    assert parse_attributes(attribute(1, b"abc")[:-2]) == {}


def test_a_link():
    body = struct.pack("=BxHiII", 0, 1, 7, 0x1003, 0)
    nested = attribute(1, b"vlan\0")
    body += attribute(3, b"lan.10\0") + attribute(1, b"\2\0\0\0\0\1") + attribute(18, nested)
    body += attribute(10, u32(3)) + attribute(5, u32(2))
    assert parse_link(body) == Link(7, "lan.10", 1, b"\2\0\0\0\0\1", True, False, "vlan", 3, 2)
    elsewhere = body + attribute(37, u32(0))  # stands on an interface of another namespace
    found = parse_link(elsewhere)
    assert found is not None and found.parent == 0
    assert parse_link(struct.pack("=BxHiII", 0, 1, 7, 0x1003, 0)) is None


def test_an_address_and_its_peer():
    head = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 4)
    body = head + attribute(1, packed("192.0.2.9")) + attribute(2, packed("192.0.2.1"))
    assert parse_address_message(body) == Address(4, packed("192.0.2.1"), packed("192.0.2.9"), 32)
    body = struct.pack("=BBBBI", socket.AF_INET6, 64, 0, 0, 4) + attribute(1, packed("2001:db8::1"))
    assert parse_address_message(body) == Address(4, packed("2001:db8::1"), packed("2001:db8::"), 64)
    for wrong in (head, head + attribute(1, b"abc"), struct.pack("=BBBBI", 2, 33, 0, 0, 4) + body[8:], b"\2" * 7):
        assert parse_address_message(wrong) is None


ROUTING = {"family": 2, "length": 0, "table": 254, "protocol": 0, "kind": 1, "flags": 0}


def routing(**changes: int) -> bytes:
    told = ROUTING | changes
    return struct.pack(
        "=BBBBBBBBI",
        told["family"],
        told["length"],
        0,
        0,
        told["table"],
        told["protocol"],
        0,
        told["kind"],
        told["flags"],
    )


def test_routes():
    gateway = packed("192.0.2.1")
    body = routing() + attribute(5, gateway) + attribute(4, u32(2)) + attribute(6, u32(100))
    assert parse_routes(body) == [Route(bytes(4), 0, gateway, 2, 100, 254)]
    body = routing(length=24, table=252) + attribute(1, packed("203.0.113.0")) + attribute(15, u32(51_820))
    assert parse_routes(body + attribute(4, u32(2))) == [Route(packed("203.0.113.0"), 24, b"", 2, 0, 51_820)]
    announced = routing(protocol=9) + attribute(5, gateway)
    assert [parse_routes(one)[0].is_told for one in (announced, routing(protocol=3) + attribute(5, gateway))] == [
        True,
        False,
    ]
    via = struct.pack("=H", 10) + packed("fe80::1")
    assert parse_routes(routing() + attribute(18, via) + attribute(4, u32(2)))[0].gateway == packed("fe80::1")
    hops = b"".join(
        struct.pack("=HBBi", 16, 0, 0, number) + attribute(5, packed(f"192.0.2.{number}")) for number in (7, 8)
    )
    found = parse_routes(routing() + attribute(9, hops))
    assert [(route.gateway, route.ifindex) for route in found] == [(packed("192.0.2.7"), 7), (packed("192.0.2.8"), 8)]


@pytest.mark.parametrize(
    "body",
    [
        routing(kind=2),
        routing(kind=6),
        routing(flags=0x200),
        routing(table=255),
        routing(family=7),
        routing(length=33),
        routing() + attribute(1, b"abc"),
        routing()[:11],
    ],
    ids=["local", "blackhole", "cloned", "table local", "family", "length", "target", "short"],
)
def test_no_routes(body):
    assert parse_routes(body) == []


def test_neighbours():
    def told(state: int, *attributes: bytes) -> Neighbour | None:
        return parse_neighbour(struct.pack("=BxHiHBB", 2, 0, 3, state, 0, 0) + b"".join(attributes))

    address, mac = attribute(1, packed("10.0.0.5")), attribute(2, b"\2\0\0\0\0\5")
    assert told(2, address, mac) == Neighbour(3, packed("10.0.0.5"), b"\2\0\0\0\0\5", True)
    stale = told(4, address, mac)
    assert stale is not None
    assert not stale.is_confirmed, "somebody else may have it by now"
    assert told(4, address, mac) is not None
    for state in (0x01, 0x20, 0x40):
        assert told(state, address, mac) is None
    assert told(2, address) is None and told(2, mac) is None and parse_neighbour(b"") is None


@given(st.binary(max_size=200), st.integers(0, 16))
def test_any_bytes_are_read_without_complaint(octets, at):
    """Whatever is found is whole: addresses of four or sixteen bytes."""
    for one in parse_messages(octets):
        assert len(one.body) <= len(octets) - 16
    assert all(len(value) <= len(octets) for value in parse_attributes(octets, at).values())
    parse_link(octets)
    parse_neighbour(octets)
    address = parse_address_message(octets)
    assert address is None or len(address.address) == len(address.network) in (4, 16)
    for route in parse_routes(octets):
        assert len(route.target) in (4, 16) and len(route.gateway) in (0, 4, 16)


@given(
    st.sampled_from([2, 10]), st.integers(0, 128), st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=40))),
    st.integers(0, 255),
)  # fmt: skip
def test_any_attributes_are_read_without_complaint(family, length, attributes, table):
    tail = b"".join(attribute(kind, value) for kind, value in attributes)
    for route in parse_routes(routing(family=family, length=length, table=table) + tail):
        assert len(route.target) == (4 if family == 2 else 16) and len(route.gateway) in (0, 4, 16)
    parse_address_message(struct.pack("=BBBBI", family, length, 0, 0, 4) + tail)
    parse_link(struct.pack("=BxHiII", family, 1, 1, 1, 0) + tail)


def test_the_watch_tells_changes_from_noise():
    changed = rtnetlink._is_change
    for kind in (16, 17, 20, 21):
        assert changed(parse_messages(message(kind, bytes(20)))[0])
    assert changed(parse_messages(message(24, routing()))[0])
    assert not changed(parse_messages(message(24, routing(flags=0x200)))[0])
    assert not changed(parse_messages(message(28, bytes(20)))[0])
