"""ClientHello from messages and streams: tables of wire bytes, properties, and scapy and tshark as second opinions."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.wire import tls
from egressd.wire.tls import TlsStream, judge_ech, looks_like_tls, parse_client_hello

# -- Builders: RFC 8446 section 4.1.2, each vector with its length in front.


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, content)


def server_name(*hosts: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes((kind,)) + vector(2, host) for host in hosts)))


def alpn(*protocols: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, protocol) for protocol in protocols)))


def versions(*numbers: int) -> bytes:
    return extension(43, vector(1, b"".join(number.to_bytes(2, "big") for number in numbers)))


def ech(enc_bytes: int = 32, payload_bytes: int = 208, aead: int = 1) -> bytes:
    head = b"\x00" + b"\x00\x01" + aead.to_bytes(2, "big") + b"\x5a"
    return extension(0xFE0D, head + vector(2, bytes(enc_bytes)) + vector(2, bytes(payload_bytes)))


def hello_body(*extensions: bytes, session: bytes = b"\x07" * 32, legacy: int = 0x0303) -> bytes:
    fixed = legacy.to_bytes(2, "big") + b"\x11" * 32 + vector(1, session) + vector(2, b"\x13\x01\x13\x02") + b"\x01\x00"
    return fixed + vector(2, b"".join(extensions))


def message(body: bytes, kind: int = 1) -> bytes:
    return bytes((kind,)) + vector(3, body)


def records(content: bytes, *cuts: int, version: int = 0x0301) -> bytes:
    edges = [0, *cuts, len(content)]
    pieces = [content[start:end] for start, end in itertools.pairwise(edges)]
    return b"".join(b"\x16" + version.to_bytes(2, "big") + vector(2, piece) for piece in pieces)


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


BROWSER = hello_body(
    extension(0x2A2A, b""),
    server_name(b"Www.Example"),
    extension(23, b""),
    alpn(b"h2", b"http/1.1"),
    ech(),
    versions(0x4A4A, 0x0304, 0x0303),
    extension(0x5A5A, b"\x00"),
)
random.seed(20)
# X25519MLKEM768 key share: 1216 bytes, so the whole takes two segments.
POST_QUANTUM = hello_body(
    extension(51, vector(2, b"\x11\xec" + vector(2, random.randbytes(1216)) + b"\x00\x1d" + vector(2, bytes(32)))),
    alpn(b"h2"),
    extension(13, vector(2, bytes(300))),
    versions(0x0304),
    server_name(b"pq.example"),
)


# -- One message


def test_reads_what_a_browser_offers() -> None:
    hello = parse_client_hello(BROWSER)
    assert (hello.sni, hello.raw_sni) == ("www.example", "Www.Example")
    assert hello.version == 0x0304
    assert hello.alpn == ("h2", "http/1.1")
    assert hello.ech == "grease"
    assert "not certain" in hello.ech_reason


@pytest.mark.parametrize(
    ("sent", "sni", "raw_sni"),
    [
        (b"a.example", "a.example", "a.example"),
        (b"A.EXAMPLE.", "a.example", "A.EXAMPLE."),
        (b"_x.a.example", "_x.a.example", "_x.a.example"),
        (b"192.0.2.7", "", "192.0.2.7"),
        (b"192.0.2.0x7", "", "192.0.2.0x7"),
        (b"3232235777", "", "3232235777"),
        (b"2001:db8::7", "", "2001:db8::7"),
        (b"[2001:db8::7]", "", "[2001:db8::7]"),
        (b"7a.example", "7a.example", "7a.example"),
        (b"host.7a", "host.7a", "host.7a"),
        (b"a\x00b.example", "", "a\\000b.example"),
        (b"a b.example", "", "a b.example"),
        (b"\xff\xfe", "", "\\255\\254"),
        (b"a" * 64 + b".example", "", "a" * 64 + ".example"),
        (b"", "", ""),
    ],
)
def test_server_name_is_normalised_or_kept_escaped(sent: bytes, sni: str, raw_sni: str) -> None:
    hello = parse_client_hello(hello_body(server_name(sent)))
    assert (hello.sni, hello.raw_sni) == (sni, raw_sni)


def test_without_server_name() -> None:
    hello = parse_client_hello(hello_body(alpn(b"h2")))
    assert (hello.sni, hello.raw_sni, hello.alpn) == ("", "", ("h2",))


def test_without_extensions() -> None:
    body = hello_body(legacy=0x0301)[:-2]
    assert parse_client_hello(body) == tls.ClientHello("", "", 0x0301, (), "", "")


def test_first_host_name_counts() -> None:
    assert parse_client_hello(hello_body(server_name(b"a.example", b"b.example"))).sni == "a.example"
    assert parse_client_hello(hello_body(server_name(b"a.example"), server_name(b"b.example"))).sni == "a.example"
    other_sort_first = extension(0, vector(2, b"\x09" + vector(2, b"zz") + b"\x00" + vector(2, b"b.example")))
    assert parse_client_hello(hello_body(other_sort_first)).sni == "b.example"
    assert parse_client_hello(hello_body(server_name(b"a.example", kind=1))).raw_sni == ""


@pytest.mark.parametrize(
    ("offered", "version"),
    [
        ((0x0304, 0x0303), 0x0304),
        ((0xDADA, 0x0303, 0x0302), 0x0303),
        ((0x7F1C, 0x0303), 0x0304),
        ((0xFAFA,), 0x0303),
        ((), 0x0303),
    ],
)
def test_highest_version(offered: tuple[int, ...], version: int) -> None:
    assert parse_client_hello(hello_body(versions(*offered))).version == version


def test_alpn_is_bounded_escaped_and_without_grease() -> None:
    assert parse_client_hello(hello_body(alpn(b"\x3a\x3a", b"h2", b"\xff\x01"))).alpn == ("h2", "\\255\\001")
    assert len(parse_client_hello(hello_body(alpn(*[b"p%d" % number for number in range(90)]))).alpn) == tls.MAX_ALPN
    assert parse_client_hello(hello_body(alpn(*[b"x" * 255] * 250))).alpn == ("x" * 255,)


@pytest.mark.parametrize(
    "broken",
    [
        extension(16, b"\x00\x09\x0bh2"),
        extension(16, b""),
        extension(43, b""),
        extension(43, b"\xff\x03"),
        extension(0xFE0D, b""),
        extension(0xFE0D, b"\x00\x00\x01\x00\x01\x07\xff\xff"),
    ],
)
def test_a_broken_side_extension_cannot_hide_the_name(broken: bytes) -> None:
    hello = parse_client_hello(hello_body(broken, server_name(b"a.example")))
    assert (hello.sni, hello.version, hello.alpn) == ("a.example", 0x0303, ())
    assert hello.ech in ("", "grease")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x03\x03",
        hello_body(legacy=0x02FF),
        hello_body(session=bytes(33)),
        hello_body(extension(0, b"")),
        hello_body(extension(0, b"\x00\x09\x00\x00\x01a")),
        hello_body(extension(0, vector(2, b"\x00\x00\x09a"))),
        hello_body(server_name(b"a.example")) + b"\x00",
        hello_body(server_name(b"a.example"), b"\x00\x2b\x00"),
        hello_body(server_name(b"a.example"), b"\x00\x2b\x00\x05\x01"),
        b"\x03\x03" + bytes(33) + b"\x00\x03\x13\x01\x13\x01\x00",
    ],
)
def test_broken_framing_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_client_hello(body)


def test_truncation_anywhere_is_malformed_and_only_that() -> None:
    for body in (BROWSER, POST_QUANTUM):
        without_extensions = len(hello_body()) - 2
        for length in range(len(body)):
            if length != without_extensions:  # a whole hello of old
                with pytest.raises(Malformed):
                    parse_client_hello(body[:length])


def test_partial_gives_the_name_once_it_is_there() -> None:
    end_of_name = BROWSER.index(b"Www.Example") + len(b"Www.Example")
    for length in range(len(BROWSER) + 1):
        if length < end_of_name:
            with pytest.raises(Malformed):
                parse_client_hello(BROWSER[:length], partial=True)
        else:
            assert parse_client_hello(BROWSER[:length], partial=True).sni == "www.example"
    assert parse_client_hello(hello_body(alpn(b"h2")), partial=True).alpn == ("h2",)  # whole, and has none
    with pytest.raises(Malformed):
        parse_client_hello(BROWSER + b"\x00", partial=True)


# -- ECH


@pytest.mark.parametrize(
    ("sni", "content", "expected"),
    [
        (b"cloudflare-ech.com", ech(), "outer"),
        (b"a.example", ech(payload_bytes=144), "grease"),
        (b"a.example", ech(payload_bytes=239, aead=3), "grease"),
        (b"a.example", ech(enc_bytes=0), "outer"),
        (b"a.example", ech(enc_bytes=65), "outer"),
        (b"a.example", ech(aead=2), "outer"),
        (b"a.example", extension(0xFE0D, b"\x01"), ""),
        (b"a.example", extension(0xFE0D, b"\x02"), "grease"),
        (b"a.example", extension(0xFFCE, b"\x13\x01"), "outer"),
    ],
)
def test_ech(sni: bytes, content: bytes, expected: str) -> None:
    hello = parse_client_hello(hello_body(content, server_name(sni)))
    assert hello.ech == expected
    assert hello.ech_reason
    assert hello.sni == sni.decode()


def test_judge_ech_heeds_what_the_caller_knows() -> None:
    suite = 0x0001_0001
    assert judge_ech("a.example", suite, 32, 208)[0] == "grease"
    assert judge_ech("a.example", suite, 32, 208, svcb_says_ech=True)[0] == "outer"
    assert judge_ech("front.example", suite, 32, 208, public_names=frozenset(("front.example",)))[0] == "outer"
    body = hello_body(server_name(b"front.example"), ech())
    assert parse_client_hello(body, ech_public_names=frozenset(("front.example",))).ech == "outer"
    assert parse_client_hello(body, svcb_says_ech=True).ech == "outer"


# -- Streams


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


# -- Recognition


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


def generated_hellos(count: int) -> list[tuple[str, bytes]]:
    rng = random.Random(8446)
    made: list[tuple[str, bytes]] = []
    for number in range(count):
        name = f"h{number}.{rng.choice(['a', 'bb', 'c-c'])}.example"
        extensions = [server_name(name.encode()), alpn(b"h2"), versions(0x0304, 0x0303), extension(23, b"")]
        extensions.append(extension(10, vector(2, b"\x00\x1d\x00\x17")))
        if number % 2:
            extensions.append(ech(payload_bytes=rng.choice([144, 176, 208, 240])))
        rng.shuffle(extensions)
        made.append((name, records(message(hello_body(*extensions, session=rng.randbytes(rng.choice([0, 32])))))))
    return made


def test_same_names_as_scapy() -> None:
    layers = pytest.importorskip("scapy.layers.tls.all")
    for name, whole in generated_hellos(25):
        seen = layers.TLS(whole)
        names = [host.servername.decode() for host in seen.msg[0].ext[0:] for host in getattr(host, "servernames", [])]
        assert names == [name]
        assert [hello.sni for hello in TlsStream().feed(whole)] == names


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_same_names_as_tshark(tmp_path: Path) -> None:
    inet = pytest.importorskip("scapy.layers.inet")
    utils = pytest.importorskip("scapy.utils")
    made = generated_hellos(40)
    packets = [
        inet.Ether()
        / inet.IP(src="10.0.0.5", dst="192.0.2.1")
        / inet.TCP(sport=20_000 + at, dport=443, flags="PA")
        / whole
        for at, (_, whole) in enumerate(made)
    ]
    capture = tmp_path / "hellos.pcap"
    utils.wrpcap(str(capture), packets)
    command = ["tshark", "-r", str(capture), "-T", "fields", "-e", "tls.handshake.extensions_server_name"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert listed == [TlsStream().feed(whole)[0].sni for _, whole in made]
