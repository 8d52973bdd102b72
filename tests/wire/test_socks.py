"""SOCKS requests: tables of conversations, every way to cut them, other protocols that begin alike, hostile bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.model import SocksRequest
from egressd.wire import socks
from egressd.wire.socks import SocksStream, looks_like_socks

V4 = bytes([192, 0, 2, 7])
V6 = bytes.fromhex("20010db8000000000000000000000007")
ASK = b"\x05\x01\x00\x03\x09a.example\x01\xbb"
ASKED = SocksRequest(5, 1, "a.example", "a.example", b"", 443)


def run(wire: bytes, cuts: list[int]) -> tuple[list[SocksRequest], bool, bool, bytes | None]:
    """Feed `wire` cut at `cuts`: (requests, refused, done, rest with what was not fed)."""
    stream = SocksStream()
    requests: list[SocksRequest] = []
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    for start, end in pairwise(edges):
        try:
            requests += stream.feed(wire[start:end])
        except Malformed:
            return requests, True, False, None
        if stream.done:
            return requests, False, True, None if stream.rest is None else stream.rest + wire[end:]
    return requests, False, stream.done, stream.rest


def every_way(wire: bytes) -> tuple[list[SocksRequest], bool, bool, bytes | None]:
    whole = run(wire, [])
    assert run(wire, list(range(len(wire)))) == whole
    for cut in range(len(wire)):
        assert run(wire, [cut]) == whole
    return whole


CONVERSATIONS = [
    (b"\x05\x01\x00" + ASK, ASKED),
    (b"\x05\x03\x00\x01\x02" + ASK, ASKED),
    (b"\x05\x02\x00\x80" + ASK, ASKED),
    (b"\x05\x01\x02\x01\x04user\x06secret" + ASK, ASKED),
    (b"\x05\x01\x02\x01\x00\x00" + ASK, ASKED),
    (b"\x05\x01\x02\x01\xff" + b"u" * 255 + b"\xff" + b"\x05" * 255 + ASK, ASKED),
    (b"\x05\x03\x00\x01\x02\x01\x01u\x06secret" + ASK, ASKED),  # one letter of user, GSSAPI offered too
    (ASK, ASKED),
    (b"\x05\x01\x00\x05\x01\x00\x01" + V4 + b"\x00\x50", SocksRequest(5, 1, "", "", V4, 80)),
    (b"\x05\x01\x00\x05\x03\x00\x04" + V6 + b"\x00\x00", SocksRequest(5, 3, "", "", V6, 0)),
    (b"\x05\x01\x00\x05\x02\x00\x03\x0aA.Example.\x00\x50", SocksRequest(5, 2, "a.example", "A.Example.", b"", 80)),
    (b"\x05\x01\x00\x05\xf0\x00\x03\x09a.example\x00\x00", SocksRequest(5, 0xF0, "a.example", "a.example", b"", 0)),
    (b"\x05\x01\x00\x05\x01\x07" + ASK[3:], ASKED),  # the reserved octet
    (b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", SocksRequest(5, 1, "", "", b"", 80)),
    (b"\x05\x01\x00\x05\x01\x00\x03\x09192.0.2.7\x00\x50", SocksRequest(5, 1, "", "192.0.2.7", V4, 80)),
    (b"\x05\x01\x00\x05\x01\x00\x03\x0b2001:db8::7\x00\x50", SocksRequest(5, 1, "", "2001:db8::7", V6, 80)),
    (b"\x05\x01\x00\x05\x01\x00\x03\x0a3221225991\x00\x50", SocksRequest(5, 1, "", "3221225991", V4, 80)),
    (b"\x05\x01\x00\x05\x01\x00\x03\x05a\x00\x1b[\\\x00\x50", SocksRequest(5, 1, "", "a\\000\\027[\\092", b"", 80)),
    (b"\x04\x01\x00\x50" + V4 + b"\x00", SocksRequest(4, 1, "", "", V4, 80)),
    (b"\x04\x02\x01\xbb" + V4 + b"user\x00", SocksRequest(4, 2, "", "", V4, 443)),
    (b"\x04\x01\x01\xbb\x00\x00\x00\x01user\x00a.example\x00", SocksRequest(4, 1, "a.example", "a.example", b"", 443)),
    (b"\x04\x01\x01\xbb\x00\x00\x00\xff\x00192.0.2.7\x00", SocksRequest(4, 1, "", "192.0.2.7", V4, 443)),
    (
        b"\x04\x01\x01\xbb\x00\x00\x00\x01" + b"u" * 255 + b"\x00a.example\x00",
        SocksRequest(4, 1, "a.example", "a.example", b"", 443),
    ),
    (b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00" + b"a" * 255 + b"\x00", SocksRequest(4, 1, "", "a" * 255, b"", 443)),
]


@pytest.mark.parametrize(("wire", "expected"), CONVERSATIONS)
@pytest.mark.parametrize("tail", [b"", b"\x16\x03\x01\x00", b"\x05\x01\x00"])
def test_a_request_is_read_and_what_follows_is_left(wire: bytes, expected: SocksRequest, tail: bytes) -> None:
    assert every_way(wire + tail) == ([expected], False, True, tail)
    for length in range(len(wire)):
        assert run(wire[:length], []) == ([], False, False, None)


@pytest.mark.parametrize(
    "wire",
    [
        b"\x06",
        b"GET / HTTP/1.1\r\n",
        b"\x05\x00",
        b"\x05\x01\x00\x16\x03\x01",
        b"\x05\x01\x00\x05\x04",
        b"\x05\x01\x00\x05\x01\x00\x02\x00",
        b"\x05\x01\x02\x01\x01u\x01p\x01",
        b"\x04\x03",
        b"\x04\x01\x00\x50" + V4 + b"u" * 256,
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + b"a" * 256,
    ],
)
def test_what_is_not_socks_is_refused(wire: bytes) -> None:
    assert every_way(wire) == ([], True, False, None)


def test_gssapi_is_given_up() -> None:
    wire = b"\x05\x03\x00\x01\x02\x01\x01\x00\x04abcd" + ASK
    requests, refused, done, rest = every_way(wire)
    assert (requests, refused, done, rest) == ([], False, True, None)


def test_the_password_is_never_kept() -> None:
    stream = SocksStream()
    for byte in b"\x05\x01\x02\x01\x04user\x06secret" + ASK[:-1]:
        assert stream.feed(bytes([byte])) == []
        kept = b"".join(value for value in (getattr(stream, name) for name in dir(stream)) if isinstance(value, bytes))
        assert not any(letter in kept for letter in (b"us", b"se", b"cr", b"et"))
    assert stream.feed(ASK[-1:]) == [ASKED]


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        (b"", -1),
        (b"\x05", -1),
        (b"\x05\x01", -1),
        (b"\x05\x02\x00", -1),
        (b"\x05\x01\x00", 1),
        (b"\x05\x03\x00\x01\x02", 1),
        (b"\x05\x02\x02\x00", 1),
        (b"\x05\x01\x00" + ASK, 1),
        (b"\x05\x01\x02\x01", 1),
        (b"\x05\x01\x02\x01\x04user", 1),
        (b"\x05\x01\x00\x05", 1),
        (b"\x05\x00", 0),
        (b"\x05\x00\x0b\x03\x10\x00\x00\x00\x48", 0),  # DCE/RPC bind
        (b"\x05\x02\x00\x00", 0),
        (b"\x05\x01\x04", 0),
        (b"\x05\x01\x80", 1),
        (b"\x05\x01\xfe", 1),
        (b"\x05\x02\x00\x80", 1),
        (b"\x05\x02\x41\x00", 1),
        (b"\x05\x02\x41\x42", 0),
        (b"\x05\x0b" + bytes(range(0x80, 0x8B)) + ASK, 1),
        (b"\x05\x01\xff", 0),
        (b"\x05\x02\x00\xff", 0),
        (b"\x05\x0b\x00", -1),
        (b"\x05\x21\x00", 0),
        (b"\x05\x01\x00\x00", 0),
        (b"\x05\x01\x00\x03", -1),
        (ASK[:-1], -1),
        (ASK, 1),
        (ASK + b"\x16", 0),
        (b"\x05\x01\x00\x03\x00\x01\xbb", 0),
        (b"\x05\x01\x00\x03\x02a\x00\x01\xbb", 0),
        (b"\x05\x01\x00\x03\x02a\xe9\x01\xbb", 0),
        (b"\x05\x01\x00\x01\x00", 0),
        (b"\x05\x01\x00\x05\x01\x01", 0),
        (b"\x05\x01\x00\x05\x04", 0),
        (b"\x05\x01\x00\x05\x01\x00\x02", 0),
        (b"\x04", -1),
        (b"\x04\x01", -1),
        (b"\x04\x01\x00\x50" + V4, -1),
        (b"\x04\x01\x00\x50" + V4 + b"user", -1),
        (b"\x04\x01\x00\x50" + V4 + b"\x00", 1),
        (b"\x04\x02\x00\x50" + V4 + b"user\x00", 1),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00", -1),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a.example", -1),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a.example\x00", 1),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", 0),
        (b"\x04\x00", 0),
        (b"\x04\x03", 0),
        (b"\x04\x01\x00\x00", 0),
        (b"\x04\x01\x00\x50\x00\x00\x00\x00\x00", 0),
        (b"\x04\x01\x00\x50\x00\x01\x00\x01\x00", 0),
        (b"\x04\x01\x00\x50" + V4 + b"us\x01er\x00", 0),
        (b"\x04\x01\x00\x50" + V4 + b"us\xe9r\x00", 0),
        (b"\x04\x01\x00\x50" + V4 + b"\x00\x00", 0),
        (b"\x04\x01\x00\x50" + V4 + b"\x00more", 0),
        (b"\x04\x01\x00\x50" + V4 + b"u" * 256, 0),
        (b"\x16\x03\x01", 0),
        (b"GET / HTTP/1.1\r\n", 0),
        (b"\x00\x05", 0),
    ],
)
def test_looks_like_socks(head: bytes, verdict: int) -> None:
    assert looks_like_socks(head) == verdict


@pytest.mark.parametrize(("wire", "expected"), CONVERSATIONS)
def test_conversations_are_recognised_as_soon_as_can_be(wire: bytes, expected: SocksRequest) -> None:
    verdicts = [looks_like_socks(wire[:length]) for length in range(len(wire) + 1)]
    if 0 in verdicts:  # strictness costs these: a greeting without waiting and an odd tail
        assert wire[:6] in (b"\x05\x01\x02\x01\x00\x00", b"\x05\x01\x00\x05\x01\x07")
        return
    if wire == ASK:  # its first three bytes are a greeting too
        verdicts[3] = -1
    assert verdicts == sorted(verdicts) and verdicts[-1] == 1
    assert expected.version == wire[0]


WIRES = st.sampled_from([wire for wire, _ in CONVERSATIONS])


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    wire = bytearray(draw(WIRES) + draw(st.binary(max_size=4)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(wire)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(mutants(), st.binary(max_size=40), st.binary(max_size=600).map(lambda tail: b"\x04\x01\x00\x50" + tail)),
    st.lists(st.integers(0, 1 << 16), max_size=8),
)
def test_only_malformed_escapes_and_cuts_do_not_matter(wire: bytes, cuts: list[int]) -> None:
    whole = run(wire, [])
    assert run(wire, cuts) == whole
    assert run(wire, list(range(len(wire)))) == whole
    for request in whole[0]:
        assert request.host == request.host.lower() and request.raw_host.isascii() and request.raw_host.isprintable()
        assert len(request.address) in (0, 4, 16)


@settings(deadline=None)
@given(st.one_of(mutants(), st.binary(max_size=40)))
def test_what_is_surely_not_socks_stays_so(wire: bytes) -> None:
    verdicts = [looks_like_socks(wire[:length]) for length in range(len(wire) + 1)]
    assert set(verdicts) <= {-1, 0, 1}
    if 0 in verdicts:
        assert all(verdict == 0 for verdict in verdicts[verdicts.index(0) :])


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=3000))
def test_no_more_is_kept_than_the_bound(wire: bytes) -> None:
    for head in (b"\x05\xff" + b"\x02" * 255, b"\x04\x01\x00\x50\x00\x00\x00\x01"):
        stream = SocksStream()
        try:
            stream.feed(head + wire)
        except Malformed:
            continue
        assert len(stream._buffer) < socks.MAX_PIECE
