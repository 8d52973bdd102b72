"""Flows and their counters as the kernel writes them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce.accounting import parse_counted
from egressd.enforce.netlink import attribute, generic, nested
from egressd.errors import Malformed


def be64(value: int) -> bytes:
    return struct.pack(">Q", value)


def ends(source: str, destination: str, proto: int = 6, ports: tuple[int, int] = (40_000, 443)) -> bytes:
    here, there = ip_address(source).packed, ip_address(destination).packed
    kinds = (1, 2) if len(here) == 4 else (3, 4)
    ip = nested(1, attribute(kinds[0], here), attribute(kinds[1], there))
    return ip + nested(
        2, attribute(1, bytes((proto,))), *(attribute(at, port.to_bytes(2, "big")) for at, port in enumerate(ports, 2))
    )


def counters(packets: int, octets: int, padded: bool = False) -> bytes:
    pad = attribute(5, b"") if padded else b""
    return pad + attribute(1, be64(packets)) + pad + attribute(2, be64(octets))


def flow(
    source: str = "10.0.0.5",
    destination: str = "203.0.113.9",
    sent: int | None = 1_234_567_890_123,
    got: int | None = 77,
    proto: int = 6,
    id_: int = 9,
    padded: bool = False,
) -> bytes:
    body = generic(2) + nested(1, ends(source, destination, proto)) + nested(2, ends(destination, source, proto))
    body += attribute(3, b"\0\0\x01\x8e") + attribute(7, b"\0\0\x01\x00")
    if sent is not None:
        body += nested(9, counters(9, sent, padded))
    if got is not None:
        body += nested(10, counters(9, got, padded))
    return body + attribute(12, id_.to_bytes(4, "big"))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("source", "destination"), [("10.0.0.5", "203.0.113.9"), ("fd00::5", "2001:db8::9")])
@pytest.mark.parametrize("proto", [6, 17, 1])
def test_a_flow_with_its_counters(source: str, destination: str, proto: int, padded: bool) -> None:
    one = parse_counted(flow(source, destination, proto=proto, padded=padded))
    assert (one.proto, one.source, one.destination) == (
        proto, ip_address(source).packed, ip_address(destination).packed,
    )  # fmt: skip
    assert (one.out_bytes, one.in_bytes) == (1_234_567_890_123, 77)


def test_a_flow_that_the_kernel_does_not_count() -> None:
    one = parse_counted(flow(sent=None, got=None))
    assert (one.out_bytes, one.in_bytes) == (-1, -1)


def test_keys_tell_flows_apart_and_stay() -> None:
    assert parse_counted(flow()).key == parse_counted(flow(sent=5, got=None)).key
    others = [flow(id_=10), flow(source="10.0.0.6"), flow(destination="203.0.113.10"), flow(proto=17)]
    assert len({parse_counted(body).key for body in [flow(), *others]}) == 5


@pytest.mark.parametrize("body", [b"", generic(2), generic(2) + nested(1, b""), generic(2) + nested(1, bytes(12))])
def test_what_is_no_flow(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_counted(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_flow_or_malformed(octets: bytes) -> None:
    try:
        one = parse_counted(octets)
    except Malformed:
        return
    assert len(one.source) in (4, 16) and one.out_bytes >= -1


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_flow_is_a_flow_or_malformed(at: int, octet: int) -> None:
    body = bytearray(flow())
    body[at % len(body)] = octet
    try:
        parse_counted(bytes(body))
    except Malformed:
        return
