"""What a first look identifies, and conversations that turn round."""

from __future__ import annotations

import pytest

from egressd.wire.conversation import (
    DNS,
    HTTP,
    MORE,
    SOCKS,
    TLS,
    UNKNOWN,
    Conversation,
    identify,
    new_parser,
    past_proxy_header,
    past_tls_request,
)
from egressd.wire.dns import DnsStream
from egressd.wire.http import HttpStream
from egressd.wire.socks import SocksStream
from egressd.wire.tls_records import TlsStream
from pcaps.hellos import hello
from pcaps.packets import framed, get, question

HELLO = hello("www.shop.example")
DNS_FRAMED = framed(question("www.shop.example", 7))
# 1,281 bytes and number 1: the greeting of SOCKS.
PADDED = framed(question("www.shop.example", 1, edns=0)[:-2] + b"\x04\xd4\0\x0c\x04\xd0" + bytes(1232))
PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11\x00\x0c" + bytes(12)
PROXY_1 = b"PROXY TCP4 10.0.0.5 192.0.2.1 40000 443\r\n"


@pytest.mark.parametrize(
    ("head", "port", "kind"),
    [
        (HELLO, 443, TLS),
        (HELLO, 53, TLS),  # on the port of DNS too: content decides
        (HELLO[:5], 443, MORE),
        (get("www.shop.example"), 80, HTTP),
        (get("www.shop.example"), 53, HTTP),
        (b"GE", 80, MORE),
        (b"\x05\x01\x00", 1080, SOCKS),
        (b"\x05", 1080, MORE),
        (DNS_FRAMED, 53, DNS),
        (DNS_FRAMED, 5300, DNS),
        (DNS_FRAMED[:2], 5300, MORE),
        (b"\0", 53, DNS),
        (HELLO[:1], 53, MORE),  # a length of 5,000 and more, or a hello in morsels
        (HELLO[:4], 53, MORE),
        (b"GET", 53, MORE),
        (HELLO[:1] + bytes(13), 53, DNS),
        (PADDED, 53, DNS),
        (PADDED[:100], 53, DNS),
        (PADDED[:5], 53, MORE),
        (b"\x05\x01\x00\x05\x01\0\3\4mail\0\x50", 53, SOCKS),
        (b"220 mail.shop.example ESMTP\r\n", 25, UNKNOWN),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 22, UNKNOWN),
        (bytes(40), 9999, UNKNOWN),
        (b"\xff" * 40, 9999, UNKNOWN),
    ],
)
def test_identify(head: bytes, port: int, kind: int) -> None:
    assert identify(head, port) == kind


def test_no_beginning_of_what_is_identified_is_refused() -> None:
    for head, kind in ((HELLO, TLS), (get("www.shop.example"), HTTP), (b"\x05\x01\x00", SOCKS), (DNS_FRAMED, DNS)):
        for size in range(1, len(head) + 1):
            assert identify(head[:size], 9999) in (MORE, kind), (kind, size)


def test_each_kind_has_its_parser() -> None:
    made = [type(new_parser(kind)) for kind in (HTTP, TLS, DNS, SOCKS)]
    assert made == [HttpStream, TlsStream, DnsStream, SocksStream]


@pytest.mark.parametrize("header", [PROXY_1, PROXY_2])
def test_a_proxy_header_is_passed_over_once_it_is_whole(header: bytes) -> None:
    assert past_proxy_header(header + HELLO) == HELLO
    assert past_proxy_header(header) == b""
    for size in range(12, len(header)):
        assert past_proxy_header(header[:size]) == b"", size


def test_what_has_no_proxy_header_stays_as_it_is() -> None:
    for head in (HELLO, b"PROXIES", b"PROPFIND / HTTP/1.1\r\n", b"\r\n\r\nGET / HTTP/1.1\r\n"):
        assert past_proxy_header(head) is head
    endless = b"PROXY " + b"x" * 200
    assert past_proxy_header(endless) != b""  # not waited for


@pytest.mark.parametrize("asked", [bytes.fromhex("0000000804d2162f"), bytes.fromhex("20000001 85aeff19") + bytes(28)])
def test_a_request_for_tls_is_passed_over_and_waited_for(asked: bytes) -> None:
    assert past_tls_request(asked + HELLO) == HELLO
    for size in range(1, len(asked) + 1):
        assert past_tls_request(asked[:size]) == b"", size


@pytest.mark.parametrize(
    "head",
    [bytes.fromhex("0000000804d21630"), bytes.fromhex("20000001 85a6ff19") + bytes(28), bytes(40), b" GET", HELLO],
)
def test_what_asks_for_no_tls_stays_as_it_is(head: bytes) -> None:
    assert past_tls_request(head) == head


def test_turning_round_changes_everything_but_the_bytes() -> None:
    key = bytes((10, 0, 0, 5, 192, 0, 2, 10)) + b"\x9c\x40\x01\xbb"
    conversation = Conversation(key, False)
    client, server = conversation.client, conversation.server
    conversation.turn_round()
    assert (conversation.backward, conversation.flow.client_port) == (key, 443)
    assert (conversation.client, conversation.server) == (server, client)
    conversation.turn_round()
    assert (conversation.forward, conversation.flow.client_port, conversation.client) == (key, 40_000, client)
