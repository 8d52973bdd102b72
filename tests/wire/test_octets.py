"""What has one form for CPython and one for compiled code gives the same in both, whatever the bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.capture.merge import iter_packets
from egressd.errors import Malformed
from egressd.wire import direction, dns, dns_records, frame, http, http_head, tls
from egressd.wire.octets import read_u16, read_u32

T = TypeVar("T")
CASES = sorted(Path("pcaps").glob("*/input.pcap*"))
FORMS = (direction, dns, dns_records, frame, http_head, tls)


def both(run: Callable[[], T]) -> T | str:
    """What `run` gives, or the Malformed it raises: in one form, then in the other."""
    results: list[T | str] = []
    for compiled in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            for module in FORMS:
                patch.setattr(module, "COMPILED", compiled)
            dns_records._SEEN.clear()
            try:
                results.append(run())
            except Malformed as error:
                results.append(str(error))
    assert results[0] == results[1]
    return results[0]


@given(st.binary(min_size=4, max_size=9))
def test_numbers(data: bytes) -> None:
    assert read_u16(data, 0) == struct.unpack_from(">H", data)[0]
    assert read_u32(data, len(data) - 4) == struct.unpack_from(">I", data, len(data) - 4)[0]


@given(st.one_of(st.binary(min_size=12, max_size=12), st.binary(min_size=36, max_size=36)))
def test_keys(key: bytes) -> None:
    flow = both(lambda: direction.flow_of(6, key))
    back = both(lambda: direction.reverse_key(key))
    assert isinstance(back, bytes) and direction.reverse_key(back) == key
    assert both(lambda: direction.flow_toward(6, back)) == flow
    one = both(lambda: direction.pair_key(key))
    assert one == both(lambda: direction.pair_key(back))
    assert one in (key, back)


def decoded(link: int, wire: bytes) -> tuple[object, ...]:
    """Everything that a frame's decoding tells, read inside other bytes."""
    frames = frame.Frames()
    proto = frames.decode(link, b"\0\0\0" + wire + b"\xff" * 80, 3, 3 + len(wire), 0)
    if not proto:
        return 0, frames.counts
    seen = (frames.key, frames.sport, frames.dport, frames.payload_start, frames.payload_end)
    tcp = (frames.seq, frames.flags) if proto == frame.L4_TCP else ()
    return proto, *seen, *tcp, frames.cut, frames.depth, frames.vlan


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.parent.name)
def test_frames_of_the_cases(case: Path) -> None:
    for _, number, link, wire, _ in iter_packets(case):
        if number > 60:
            break
        result = both(lambda link=link, wire=wire: decoded(link, wire))
        assert isinstance(result, tuple)
        if result[0]:
            start, end = result[4], result[5]
            assert isinstance(start, int) and isinstance(end, int)
            both(lambda wire=wire, at=start - 3, to=end - 3: str(dns.parse_message(wire, at, to)))
            both(lambda wire=wire, at=start - 3: str(tls.parse_client_hello(wire[at + 9 :])))
        both(lambda wire=wire: decoded(1, wire[: len(wire) * 2 // 3]))


IPV4 = bytes.fromhex("02000000000102000000000208004500003c0001400040060000c0000201c6336401")
IPV6 = bytes.fromhex("02000000000102000000000286dd6000000000280640") + bytes(range(32))


@settings(max_examples=400)
@given(
    st.sampled_from((IPV4, IPV6)), st.binary(max_size=80), st.lists(st.tuples(st.integers(12, 90), st.integers(0, 255)))
)
def test_frames_that_nobody_built(head: bytes, body: bytes, changes: list[tuple[int, int]]) -> None:
    wire = bytearray(head + body)
    for at, value in changes:
        if at < len(wire):
            wire[at] = value
    both(lambda: decoded(1, bytes(wire)))


QUESTION = bytes.fromhex("1234810000010001000000010377777707657861") + b"mple\x03com\0\0\x01\0\x01"


@settings(max_examples=300)
@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(2, 90), st.integers(0, 255)), max_size=6))
def test_messages_that_nobody_sent(tail: bytes, changes: list[tuple[int, int]]) -> None:
    wire = bytearray(
        QUESTION + b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01\0\0\x29\x04\xd0\0\0\0\0\0\0" + tail
    )
    for at, value in changes:
        if at < len(wire):
            wire[at] = value
    both(lambda: str(dns.parse_message(bytes(wire), 0, len(wire))))


LINE = st.sampled_from(
    (
        *(
            "Host: a.example",
            "hOST : b.example",
            "Host\t:c.example",
            "Host",
            "host:",
            "Hosts: d.example",
            ": e.example",
        ),
        *(
            "User-Agent: f",
            "user-agent:",
            "Upgrade: g",
            "Upgrade-Insecure-Requests: 1",
            "Content-Length: 3",
            "Cookie: h",
        ),
        *("Transfer-Encoding: chunked", "TE: trailers", " i", "\tHost: j.example", " ", "\r", "\rHost: k.example", ""),
    )
)


@settings(max_examples=600)
@given(st.lists(st.tuples(LINE, st.sampled_from(("\n", "\r\n"))), max_size=8), st.integers(0, 20))
def test_heads_that_nobody_sent(lines: list[tuple[str, str]], cut: int) -> None:
    head = "GET / HTTP/1.1\r\n" + "".join(line + end for line, end in lines) + "\r\nPOST /"
    head = head[: max(16, len(head) - cut)]
    both(lambda: str(http_head.read_fields(head, 15)))
    both(lambda: str(http.HttpStream().feed(head.encode())))
