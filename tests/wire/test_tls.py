"""ClientHello from messages: tables of wire bytes, properties, and scapy and tshark as second opinions."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from egressd.errors import Malformed
from egressd.wire import tls
from egressd.wire.tls import judge_ech, parse_client_hello
from egressd.wire.tls_records import TlsStream
from tests.loops import HANG_S
from tests.wire.hello_bytes import (
    BROWSER,
    POST_QUANTUM,
    alpn,
    ech,
    extension,
    hello_body,
    message,
    records,
    server_name,
    vector,
    versions,
)


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
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANG_S).stdout.split()
    assert listed == [TlsStream().feed(whole)[0].sni for _, whole in made]


@pytest.mark.parametrize(
    ("sent", "sni"), [(b"a.example:443", "a.example"), (b"192.0.2.7:443", ""), (b"::ffff:1.2.3.4", ""), (b":443", "")]
)
def test_a_port_behind_the_server_name_is_left_out(sent: bytes, sni: str) -> None:
    hello = parse_client_hello(hello_body(server_name(sent)))
    assert (hello.sni, hello.raw_sni) == (sni, sent.decode("ascii"))
