"""TLS streams: however they are cut, the same hello; what is no TLS is told; only Malformed escapes."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.wire import tls
from egressd.wire.tls import parse_client_hello
from egressd.wire.tls_records import TlsStream, looks_like_tls
from tests.wire.hello_bytes import (
    BROWSER,
    POST_QUANTUM,
    alpn,
    extension,
    hello_body,
    message,
    records,
    server_name,
    vector,
)


def stream_result(chunks: list[bytes]) -> tuple[list[str], bool]:
    """Names found in a stream, and whether it turned out malformed."""
    stream = TlsStream()
    found: list[str] = []
    try:
        for chunk in chunks:
            found += [hello.raw_sni for hello in stream.feed(chunk)]
    except Malformed:
        return found, True
    return found, False


def test_stream_in_one_piece() -> None:
    stream = TlsStream()
    (hello,) = stream.feed(records(message(BROWSER)) + b"more")
    assert hello == parse_client_hello(BROWSER)
    assert stream.done and not stream.server_side and stream.rest is None
    assert stream.feed(b"anything") == []
    assert stream.finish() == []


@pytest.mark.parametrize("cuts", [(), (1,), (3,), (4,), (5, 6, 7), (900,), (60, 1500)])
def test_stream_cut_at_every_byte(cuts: tuple[int, ...]) -> None:
    whole = records(message(POST_QUANTUM), *cuts)
    for at in range(0, len(whole), 1 if len(cuts) < 2 else 7):
        assert stream_result([whole[:at], whole[at:]]) == (["pq.example"], False)
    assert stream_result([whole[at : at + 1] for at in range(len(whole))]) == (["pq.example"], False)


STREAMS = {
    "browser": records(message(BROWSER)),
    "three records": records(message(POST_QUANTUM), 2, 700),
    "alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "server": records(message(b"\x03\x03" + bytes(38), kind=2)),
    "no TLS": b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "interleaved": records(message(POST_QUANTUM), 500)[:505] + b"\x15\x03\x01\x00\x02\x02\x28",
    "bad length": b"\x16\x03\x01\x40\x01\x01\x00\x3f\xfd" + bytes(0x4001),
    "bad hello": records(message(BROWSER + b"\x00")),
    "long": records(message(hello_body(server_name(b"a.example"), extension(21, bytes(65_000)), session=b"")), 16000),
}


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(STREAMS)), edges=st.lists(st.integers(0, 2000), max_size=8))
def test_any_segmentation_gives_the_same(kind: str, edges: list[int]) -> None:
    whole = STREAMS[kind]
    cuts = sorted({0, len(whole), *(edge for edge in edges if edge < len(whole))})
    chunks = [whole[start:end] for start, end in itertools.pairwise(cuts)]
    assert stream_result(chunks) == stream_result([whole])


def test_streams_that_end_without_a_hello() -> None:
    for kind in ("alert", "server"):
        stream = TlsStream()
        assert stream.feed(STREAMS[kind]) == []
        assert stream.done
        assert stream.server_side == (kind == "server")
    for joined_late in (b"\x17\x03\x03\x00\x20" + bytes(32), b"\x14\x03\x03\x00\x01\x01"):
        stream = TlsStream()
        assert stream.feed(joined_late) == [] and stream.done and not stream.server_side
    key_exchange = TlsStream()
    assert key_exchange.feed(records(message(bytes(70), kind=16))) == []
    assert key_exchange.done and not key_exchange.server_side
    ssl2 = TlsStream()
    assert ssl2.feed(b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + bytes(37)) == []
    assert ssl2.done


@pytest.mark.parametrize("kind", ["no TLS", "interleaved", "bad length", "bad hello"])
def test_streams_that_are_malformed(kind: str) -> None:
    assert stream_result([STREAMS[kind]]) == ([], True)


@pytest.mark.parametrize(
    "sent",
    [
        records(message(BROWSER), 50, version=0x03FF),
        records(message(BROWSER), version=0x0305),
        records(message(b"\x04\x04" + BROWSER[2:])),  # supported_versions counts (RFC 8446 section 4.2.1)
        records(message(b"\xfe\xfd" + BROWSER[2:])),
        records(b"") * 32 + records(message(BROWSER)),
        records(message(BROWSER), 50, 50, 50),
    ],
)
def test_what_openssl_takes_though_no_client_sends_it(sent: bytes) -> None:
    """Seen with the server of OpenSSL 3: the version of a record and that before supported_versions change nothing."""
    for chunks in ([sent], [sent[at : at + 1] for at in range(len(sent))]):
        assert stream_result(chunks) == (["Www.Example"], False)
    verdicts = [looks_like_tls(sent[:size]) for size in range(len(sent))]
    assert verdicts == sorted(verdicts) and verdicts[-1] == 1
    assert stream_result([records(b"") * 33 + sent]) == ([], True)


def test_broken_behind_the_name_still_gives_the_name() -> None:
    for tail in (b"\x00\x2b\x00", b"\x00\x2b\x00\x09\x01"):
        body = hello_body(server_name(b"a.example"), tail)
        assert stream_result([records(message(body))]) == (["a.example"], False)
        assert stream_result([records(message(body), 3)]) == (["a.example"], False)
        assert stream_result([records(message(hello_body(alpn(b"h2"), tail)))]) == ([], True)


def huge(name_at_end: bool) -> bytes:
    parts = [extension(21, bytes(60_000)), server_name(b"a.example")]
    body = hello_body(*(parts if name_at_end else reversed(parts)))
    fixed = 2 + 32 + 33
    body = body[:fixed] + vector(2, b"\x13\x01" * 8000) + body[fixed + 6 :]
    content = message(body)
    return records(content, *range(16_000, len(content), 16_000))


def test_a_hello_over_the_bound_gives_its_name_if_that_lies_within() -> None:
    assert stream_result([huge(name_at_end=False)]) == (["a.example"], False)
    assert stream_result([huge(name_at_end=True)]) == ([], True)
    chunks = [huge(name_at_end=False)[at : at + 999] for at in range(0, 90_000, 999)]
    assert stream_result(chunks) == (["a.example"], False)


def test_memory_of_a_stream_is_bounded() -> None:
    stream = TlsStream()
    whole = huge(name_at_end=True)
    for at in range(0, 65_000, 1000):
        stream.feed(whole[at : at + 1000])
    assert len(stream._message) <= tls.MAX_HANDSHAKE_BYTES


@pytest.mark.parametrize("cuts", [(), (10,)])
def test_finish_salvages_the_name(cuts: tuple[int, ...]) -> None:
    whole = records(message(BROWSER), *cuts)
    end_of_name = whole.index(b"Www.Example") + len(b"Www.Example")
    for length in range(len(whole)):
        stream = TlsStream()
        assert stream.feed(whole[:length]) == []
        found = [hello.sni for hello in stream.finish()]
        assert found == (["www.example"] if length >= end_of_name else [])
        assert stream.done and stream.finish() == []


@settings(max_examples=200, deadline=None)
@given(
    seed=st.sampled_from([*STREAMS.values()]),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    tail=st.binary(max_size=40),
)
def test_only_malformed_escapes(seed: bytes, edits: list[tuple[int, int]], tail: bytes) -> None:
    mutated = bytearray(seed[:3000])
    for at, value in edits:
        mutated[at % len(mutated)] = value
    mutated += tail
    stream_result([bytes(mutated[:300]), bytes(mutated[300:])])
    stream = TlsStream()
    with contextlib.suppress(Malformed):
        stream.feed(bytes(mutated))
    stream.finish()
    for partial in (False, True):
        with contextlib.suppress(Malformed):
            parse_client_hello(bytes(mutated[9:]), partial)
    assert looks_like_tls(bytes(mutated)) in (-1, 0, 1)


@given(st.binary(max_size=120))
def test_random_bytes(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        parse_client_hello(body)
    stream_result([body[:5], body[5:]])
    looks_like_tls(body)


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        (b"", -1),
        (b"\x16", -1),
        (b"\x16\x03\x01\x02", -1),
        (b"\x16\x03\x01\x02\x00\x01", -1),
        (STREAMS["browser"][:11], 1),
        (STREAMS["three records"][:6], 1),  # a first record of two bytes
        (STREAMS["server"][:11], 1),
        (b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2a\x03\x03", 0),  # record is longer than its ClientHello
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x02\x00", 0),
        (b"\x16\x03\x01\x02\x00\x0b", 0),
        (b"\x16\x03\x01\x00\x00\x01", 0),
        (b"\x16\x03\x01\x00\x00\x16", -1),  # an empty record, then perhaps another
        (b"\x16\x03\x01\x00\x00" * 33, 0),
        (b"\x16\x03\x01\x7f\x00\x01", 0),
        (b"\x16\x02\x05", 0),
        (b"\x17\x03\x03", 0),
        (b"GET / HTTP", 0),
        (b"\x16\x04", 0),
    ],
)
def test_looks_like_tls(head: bytes, verdict: int) -> None:
    assert looks_like_tls(head) == verdict


def test_looks_like_tls_never_takes_back_a_verdict() -> None:
    for whole in STREAMS.values():
        verdicts = [looks_like_tls(whole[:length]) for length in range(40)]
        settled = [verdict for verdict in verdicts if verdict >= 0]
        assert len(set(settled)) == 1
        assert verdicts == sorted(verdicts, key=lambda verdict: verdict >= 0)


# -- Second opinions
