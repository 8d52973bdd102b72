"""HTTP/1 requests: tables of heads, every way to cut a stream, hostile bytes, and two other readers of the same."""

from __future__ import annotations

import email.parser
import email.policy
import socket
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.model import HttpRequest
from egressd.wire import http, http_head
from egressd.wire.http import HttpStream
from egressd.wire.http_head import ends_in_number, looks_like_http, parse_authority, parse_ipv4

GET = b"GET /a HTTP/1.1\r\nHost: www.shop.example\r\n\r\n"


def one(wire: bytes) -> HttpRequest:
    requests = HttpStream().feed(wire)
    assert len(requests) == 1
    return requests[0]


def run(wire: bytes, cuts: list[int]) -> tuple[list[HttpRequest], bool, bool, bytes | None]:
    """Feed `wire` cut at `cuts`: (requests, stopped being HTTP, done, rest with what was not fed)."""
    stream = HttpStream()
    requests: list[HttpRequest] = []
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    for start, end in pairwise(edges):
        try:
            requests += stream.feed(wire[start:end])
        except Malformed:
            assert stream.failed
            break
        if stream.done:
            return requests, False, True, None if stream.rest is None else stream.rest + wire[end:]
    return requests, stream.failed != "", stream.done, stream.rest


def every_way(wire: bytes) -> tuple[list[HttpRequest], bool, bool, bytes | None]:
    whole = run(wire, [])
    assert run(wire, list(range(len(wire)))) == whole
    for cut in range(len(wire)):
        assert run(wire, [cut]) == whole
    return whole


def test_a_request_is_read_in_full() -> None:
    wire = b"POST /p/q?x=1 HTTP/1.1\r\nHost: WWW.Shop.Example:8080\r\nUser-Agent: tool/1 (\xe9)\r\nAccept: */*\r\n\r\n"
    assert every_way(wire) == (
        [
            HttpRequest(
                "POST", "/p/q?x=1", "www.shop.example", "WWW.Shop.Example", 8080, "tool/1 (\xe9)", "", "/p/q?x=1"
            )
        ],
        False,
        False,
        None,
    )


@pytest.mark.parametrize(
    ("head", "host", "raw_host", "port"),
    [
        (b"\r\nhost: a.example\r\n", "a.example", "a.example", 0),
        (b"\r\nHOST:a.example\r\n", "a.example", "a.example", 0),
        (b"\r\nHost:\t  a.example \t\r\n", "a.example", "a.example", 0),
        (b"\r\nHost : a.example\r\n", "a.example", "a.example", 0),
        (b"\nHost: a.example\n", "a.example", "a.example", 0),
        (b"\r\nHost: a.example.\r\n", "a.example", "a.example.", 0),
        (b"\r\nHost: a.example:\r\n", "a.example", "a.example", 0),
        (b"\r\nHost: a.example:443\r\n", "a.example", "a.example", 443),
        (b"\r\nHost: a.example:65536\r\n", "a.example", "a.example", 0),
        (b"\r\nHost: a.example:http\r\n", "a.example", "a.example", 0),
        (b"\r\nHost:\r\n a.example\r\n", "a.example", "a.example", 0),
        (b"\r\nX: 1\r\n\tb\r\nHost: a.example\r\nY: 2\r\n z\r\n", "a.example", "a.example", 0),
        (b"\r\n Host: fold.example\r\nHost: a.example\r\n", "a.example", "a.example", 0),
        (b"\r\nHost: a\r\n b.example\r\n", "", "a b.example", 0),
        (b"\r\nX-Host: b.example\r\nHost: a.example\r\n", "a.example", "a.example", 0),
        (b"\r\nHostess: b.example\r\nHost: a.example\r\n", "a.example", "a.example", 0),
        (b"\r\nX: Host: b.example\r\nHost: a.example\r\n", "a.example", "a.example", 0),
        (b"\r\nHost: my_host-1.a.example\r\n", "my_host-1.a.example", "my_host-1.a.example", 0),
        (b"\r\nHost: 192.0.2.7\r\n", "", "192.0.2.7", 0),
        (b"\r\nHost: 192.0.2.7:81\r\n", "", "192.0.2.7", 81),
        (b"\r\nHost: 0xC0000207\r\n", "", "0xC0000207", 0),
        (b"\r\nHost: 3221225991\r\n", "", "3221225991", 0),
        (b"\r\nHost: 7.a.example\r\n", "7.a.example", "7.a.example", 0),
        (b"\r\nHost: [2001:db8::7]\r\n", "", "[2001:db8::7]", 0),
        (b"\r\nHost: [2001:db8::7]:8080\r\n", "", "[2001:db8::7]", 8080),
        (b"\r\nHost: [2001:db8::7\r\n", "", "[2001:db8::7", 0),
        (b"\r\nHost: 2001:db8::7\r\n", "", "2001:db8::7", 0),
        (b"\r\nHost:\r\n", "", "", 0),
        (b"\r\nHost: :80\r\n", "", "", 80),
        (b"\r\nAccept: */*\r\n", "", "", 0),
        (b"\r\n", "", "", 0),
        (b"\r\nHost: a..example\r\n", "", "a..example", 0),
        (b"\r\nHost: a example\r\n", "", "a example", 0),
        (b"\r\nHost: a.example\x00.b.example\r\n", "", "a.example\\000.b.example", 0),
        (b"\r\nHost: a.example\rb\r\n", "", "a.example\\013b", 0),
        (b"\r\nHost: \xd0\xb0.example\r\n", "", "\\208\\176.example", 0),
        (b"\r\nHost: <script>.example\r\n", "", "<script>.example", 0),
        (b"\r\nHost: \x1b[2Ja.example\r\n", "", "\\027[2Ja.example", 0),
        (b"\r\nHost: a\\b.example\r\n", "", "a\\092b.example", 0),
        (b"\r\nHost: " + b"a" * 64 + b".example\r\n", "", "a" * 64 + ".example", 0),
        (b"\r\nHost: " + b"a." * 200 + b"example\r\n", "", ("a." * 200)[:255] + "...", 0),
    ],
)
def test_host_field(head: bytes, host: str, raw_host: str, port: int) -> None:
    request = one(b"GET / HTTP/1.1" + head + (b"\n" if head[:1] == b"\n" else b"\r\n"))
    assert (request.host, request.raw_host, request.port, request.header_host) == (host, raw_host, port, "")


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        # (host, raw_host, port, header_host, path): RFC 9112 section 3.2
        (b"GET http://a.example/x?y", b"a.example", ("a.example", "a.example", 0, "", "/x?y")),
        (b"GET http://a.example/x", b"b.example", ("a.example", "a.example", 0, "b.example", "/x")),
        (b"GET HTTP://A.example:81", b"a.example", ("a.example", "A.example", 81, "", "/")),
        (b"GET http://a.example?q", b"a.example", ("a.example", "a.example", 0, "", "/?q")),
        (b"GET http://u:p@a.example/", b"u", ("a.example", "a.example", 0, "u", "/")),
        (b"GET http://b.example@x@a.example/", b"a.example", ("a.example", "a.example", 0, "", "/")),
        (b"GET http://[2001:db8::7]:81/", b"b.example", ("", "[2001:db8::7]", 81, "b.example", "/")),
        (b"GET http://192.0.2.7/", b"b.example", ("", "192.0.2.7", 0, "b.example", "/")),
        (b"GET http:///x", b"a.example", ("a.example", "a.example", 0, "", "/x")),
        (b"GET ftp://a.example/x", b"", ("a.example", "a.example", 0, "", "/x")),
        (b"GET /http://b.example/", b"a.example", ("a.example", "a.example", 0, "", "/http://b.example/")),
        (b"GET //b.example/x", b"a.example", ("a.example", "a.example", 0, "", "//b.example/x")),
        (b"GET x", b"a.example", ("a.example", "a.example", 0, "", "x")),
        (b"GET   /x", b"a.example", ("a.example", "a.example", 0, "", "/x")),
        (b"GET /x y", b"a.example", ("a.example", "a.example", 0, "", "/x y")),
        (b"OPTIONS *", b"a.example", ("a.example", "a.example", 0, "", "*")),
        (b"CONNECT a.example:443", b"a.example:443", ("a.example", "a.example", 443, "", "")),
        (b"CONNECT a.example:443", b"front.example", ("a.example", "a.example", 443, "front.example", "")),
        (b"CONNECT 192.0.2.7:443", b"b.example", ("", "192.0.2.7", 443, "b.example", "")),
        (b"CONNECT [2001:db8::7]:443", b"", ("", "[2001:db8::7]", 443, "", "")),
        (b"GET /", b"a.example\r\nHost: b.example", ("a.example", "a.example", 0, "b.example", "/")),
        (b"GET /", b"a.example\r\nHost: A.example", ("a.example", "a.example", 0, "", "/")),
        (b"GET /", b"a.example\r\nHost: <\r\nhost: b.example", ("a.example", "a.example", 0, "b.example", "/")),
        (b"GET /", b"\r\nHost: b.example", ("", "", 0, "b.example", "/")),
        (b"GET /", b"a.example\r\n" + b"Host: <\r\n" * 99 + b"Host: b.example", ("a.example", "a.example", 0, "", "/")),
    ],
)
def test_target_beats_host_and_disagreement_shows(line: bytes, field: bytes, expected: tuple[str, ...]) -> None:
    request = one(line + b" HTTP/1.1\r\nHost: " + field + b"\r\n\r\n")
    assert (request.host, request.raw_host, request.port, request.header_host, request.path) == expected


BODIES = [
    b"POST / HTTP/1.1\r\nHost: p.example\r\nContent-Length: 5\r\n\r\nGET /",
    b"POST / HTTP/1.1\r\nHost: p.example\r\ncontent-length:0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: p.example\r\nContent-Length: 3, 3\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: p.example\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: p.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b'PUT / HTTP/1.1\r\nHost: p.example\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nGET /\r\n1;x="y"\r\n\n\r\n0\r\n\r\n',
    b"PUT / HTTP/1.1\r\nHost: p.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n00a \r\n0123456789\r\n"
    b"0\r\nA: b\r\nC: d\r\n\r\n",
    b"PUT / HTTP/1.1\nHost: p.example\nTransfer-Encoding: gzip\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n",
    b"PUT / HTTP/1.1\r\nHost: p.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: p.example\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: p.example\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nHost: p.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nHost: p.example\r\nContent-Length: 2\r\n\r\nab\r\n",  # a stray line end after the body
    b"GET / HTTP/1.1\r\nHost: p.example\r\nUpgrade-Insecure-Requests: 1\r\nUpgrade:\r\n\r\n",
    # What a lenient server takes, or does not look at.
    b"POST / HTTP/1.1\r\nHost: p.example\r\nContent-Length: +3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: p.example\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: p.example\r\nContent-Length: \r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: p.example\r\nContent-Length: x\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nHost: p.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nGET"[:-2],
    b"POST / HTTP/1.1\r\nHost: p.example\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: p.example\r\nTransfer-Encoding: chunked, gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /\r\nHost: p.example\r\n\r\n",
    b"GET \t/x \nA-b : c\nHost: p.example\n\n",
    b"GET http://p.example/\r\nHost: p.example\r\n\r\n",
]


@pytest.mark.parametrize("message", BODIES)
def test_the_request_after_a_body_is_found(message: bytes) -> None:
    requests, failed, done, rest = every_way(message + GET)
    assert [request.host for request in requests] == ["p.example", "www.shop.example"]
    assert (failed, done, rest) == (False, False, None)


@pytest.mark.parametrize(
    ("fields", "after"),
    [
        (b"Content-Length: 18446744073709551615\r\n", b""),
        (b"Content-Length: 1%s\r\n" % (b"0" * 5_000), b""),
        (b"Content-Length: 5\r\nContent-Length: 9\r\n", b"GET / HTTP/1.1\r\n"),
        (b"Transfer-Encoding: gzip\r\n", b"\x1f\x8b\x08\x00\x00"),
        (b"Transfer-Encoding: chunked\r\n", b"x\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"-1\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"FFFFFFFFFFFFFFFF\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\nabc\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"1;" + b"x" * 20_000 + b"\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n" + b"A: b\r\n" * 5000),
        (b"", b"\x16\x03\x01\x02\x00"),
        (b"", b"get / HTTP\r\n"),
        (b"", b"PRI * HTTP/2.0\r\n"),
        (b"", b"HTTP/1.1 200 OK\r\n"),
    ],
)
def test_what_cannot_be_followed_is_given_up_after_the_request(fields: bytes, after: bytes) -> None:
    wire = b"POST / HTTP/1.1\r\nHost: p.example\r\n" + fields + b"\r\n" + after
    requests, failed, done, rest = run(wire, [])
    assert ([request.host for request in requests], failed, done, rest) == (["p.example"], True, False, None)
    assert run(wire, list(range(len(wire)))) == (requests, failed, done, rest)
    stream = HttpStream()
    assert len(stream.feed(wire)) == 1  # the request is not lost with the stream
    with pytest.raises(Malformed):
        stream.feed(GET)


@pytest.mark.parametrize(
    "wire", [b"\x16\x03\x01", b"hello\n", b"GET /\r\n\r\n", b"GET /\r\nx y\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
)
def test_garbage_is_refused_early(wire: bytes) -> None:
    with pytest.raises(Malformed):
        HttpStream().feed(wire)
    assert run(wire, list(range(len(wire)))) == ([], True, False, None)


def test_skip_counts_the_body_and_skipped_stands_for_it() -> None:
    stream = HttpStream()
    assert stream.skip == 0
    stream.feed(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n0123456789")
    assert stream.skip == 990
    stream.skipped(900)
    stream.feed(b"x" * 80)
    assert stream.skip == 10
    stream.skipped(10)
    assert stream.skip == 0
    assert stream.feed(GET)[0].host == "www.shop.example"
    stream.feed(b"PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n")
    assert stream.skip == 100
    stream.skipped(100)
    assert stream.feed(b"\r\n0\r\n\r\n" + GET)[0].host == "www.shop.example"


def test_skipping_more_than_a_body_loses_the_stream() -> None:
    stream = HttpStream()
    stream.feed(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
    stream.skipped(6)
    with pytest.raises(Malformed):
        stream.feed(GET)


def test_junk_after_the_version_is_let_pass() -> None:
    request = one(b"GET /x y HTTP/1.0\x008\r\nHost: a.example\r\n\r\n")
    assert (request.path, request.host) == ("/x y", "a.example")
    assert one(b"GET /x HTTP/1.1 HTTP/1.0\r\n\r\n").path == "/x HTTP/1.1"


@pytest.mark.parametrize("tail", [b"", b"\x16\x03\x01\x00", GET])
def test_connect_leaves_the_rest(tail: bytes) -> None:
    wire = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 9\r\n\r\n"
    requests, failed, done, rest = every_way(wire + tail)
    assert ([request.host for request in requests], failed, done, rest) == (["a.example"], False, True, tail)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nupgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ],
)
def test_upgrade_leaves_the_rest_after_the_body(head: bytes) -> None:
    requests, failed, done, rest = every_way(head + b"PRI * HTTP/2.0")
    assert ([request.host for request in requests], failed, done, rest) == (
        ["a.example"],
        False,
        True,
        b"PRI * HTTP/2.0",
    )


def test_upgrade_ends_with_a_body_that_was_left_out() -> None:
    stream = HttpStream()
    stream.feed(b"POST / HTTP/1.1\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n")
    assert not stream.done
    stream.skipped(3)
    assert (stream.done, stream.rest) == (True, b"")
    assert (stream.feed(GET), stream.rest) == ([], GET)


def test_pipelined_requests_and_blank_lines_between() -> None:
    wire = b"\r\n" + GET + b"\n\r\n" + GET.replace(b"shop", b"news").replace(b"\r\n", b"\n") + GET
    requests, failed, _, _ = every_way(wire)
    assert [request.host for request in requests] == ["www.shop.example", "www.news.example", "www.shop.example"]
    assert not failed


def test_finish_gives_a_cut_head_once_its_name_is_told() -> None:
    wire = b"GET /a HTTP/1.1\r\nUser-Agent: tool\r\nHost: a.example\r\nCookie: x"
    for length in range(len(wire) + 1):
        stream = HttpStream()
        assert stream.feed(wire[:length]) == []
        found = stream.finish()
        whole = length >= wire.index(b"\r\nCookie") + 2
        assert [(request.host, request.user_agent) for request in found] == ([("a.example", "tool")] if whole else [])
        assert stream.done and stream.finish() == []


def test_finish_gives_the_name_in_the_request_line() -> None:
    stream = HttpStream()
    stream.feed(b"CONNECT a.example:443 HTTP/1.1\r\nUser-")
    assert [request.host for request in stream.finish()] == ["a.example"]


@pytest.mark.parametrize("wire", [b"", GET, GET[:-4].replace(b"Host", b"Hist") + b"\r\n", b"GET / HTTP/1.1"])
def test_finish_gives_nothing_else(wire: bytes) -> None:
    stream = HttpStream()
    stream.feed(wire)
    assert stream.finish() == []


def test_bounds_on_what_is_kept() -> None:
    long = b"/" + b"x" * 9000
    request = one(b"GET " + long + b" HTTP/1.1\r\nHost: a.example\r\nUser-Agent: " + b"u" * 2000 + b"\r\n\r\n")
    assert request.target == request.path == long[: http_head.MAX_TARGET].decode()
    assert request.user_agent == "u" * http_head.MAX_USER_AGENT
    absolute = one(b"GET http://" + b"u" * 3000 + b"@a.example" + long + b" HTTP/1.1\r\n\r\n")
    assert (absolute.host, len(absolute.target), absolute.path) == ("a.example", http_head.MAX_TARGET, request.path)


LENIENT = [  # seen with Node 20 or Python's http.server, which answer the request
    b"\r\n" * 2000 + GET,
    b"\n" * 10 + GET,
    GET.replace(b" ", b"\t"),
    GET.replace(b"1.1", b"2.0"),
    GET.replace(b"1.1", b"01.1"),
    GET.replace(b"GET", b"M-SEARCH"),
    GET.replace(b"GET", b"X.y"),  # Go's net/http
    GET.replace(b"/a", b"/" + b"a" * 60_000),
    GET.replace(b"/a", b"/" + b"a" * 200_000),
    GET.replace(b"Host", b"X: %s\r\nHost" % (b"y" * 200_000)),
    GET.replace(b"Host", b"X: y\r\n" * 20_000 + b"Host"),
    GET.replace(b"Host", b"X: y\r\n z\r\n" * 20_000 + b"Host"),
]


@pytest.mark.parametrize("wire", LENIENT)
@pytest.mark.parametrize("step", [512, 1000, 1 << 20])
def test_what_lenient_servers_take_is_read(wire: bytes, step: int) -> None:
    requests, failed, _, _ = run(wire + GET, list(range(0, len(wire), step)))
    assert ([request.host for request in requests], failed) == (["www.shop.example"] * 2, False)
    assert looks_like_http(wire[:1000]) != 0 or wire[:3] not in (b"GET", b"\r\n\r")


def test_a_head_past_its_bound_still_tells_its_name() -> None:
    for start in (b"GET / HTTP/1.1\r\nHost: a.example\r\n", b"GET /"):
        stream = HttpStream()
        requests = stream.feed(start)
        with pytest.raises(Malformed):
            for _ in range(http.MAX_WHOLE_HEAD // 4096 + 20):
                requests += stream.feed(b"X: y567\r\n" * 456 if b"Host" in start else b"x" * 4096)
                assert stream.buffered() <= http.MAX_HEAD + 4096
        assert [request.host for request in requests] == (["a.example"] if b"Host" in start else [])


def test_a_head_of_nothing_but_what_matters_is_given_up() -> None:
    wire = b"GET / HTTP/1.1\r\n" + b"Host: a.example\r\n" * 20_000
    requests, failed, _, _ = run(wire, list(range(0, len(wire), 1000)))
    assert ([request.host for request in requests], failed) == (["a.example"], True)


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        (b"", -1),
        (b"G", -1),
        (b"GET", -1),
        (b"GET ", 1),
        (b"GET /", 1),
        (b"GETS /", 0),
        (b"GEX", 0),
        (b"get / HTTP", 0),
        (b"get / HTTP/1.1\r\n", 1),
        (b"X!\t/\x0bHTTP/01.1\r\n", 1),
        (b"GET / HTTP/2.0\r\n", 1),
        (GET, 1),
        (b"GET /x HTTP/1.0\n", 1),
        (b"GET /x HTTP/1.1  \r\n", 1),
        (b"GET /x HTTP/1.0\x008\r\n", 1),
        (b"GET /x HTTP/1.0 and the rest\r\n", 0),
        (b"GET HTTP/1.1\r\n", 0),
        (b"\r\nGET / HTTP/1.1\r\n", 1),
        (b"\r\n", -1),
        (b"\r\n" * 400 + b"GET / HTTP/1.1\r\n", 1),
        (b"GET /x\r\n", -1),
        (b"GET /x\r\nHo", -1),
        (b"GET /x\r\nHost", -1),
        (b"GET /x\r\nHost:", 1),
        (b"GET http://a.example/\nUser-Agent : x", 1),
        (b"GET /x\r\n\r\n", 0),
        (b"GET /x\r\nHo st: x\r\n", 0),
        (b"POST /x\r\nHost: a.example\r\n", 0),
        (b"GET key\r\n", 0),
        (b"GET key\r\nHost: a.example\r\n", 0),
        (b"GET \x00", 0),
        (b"GET /" + b"x" * 70_000, 0),
        (b"PROPFIND /d HTTP/1.1\r\n", 1),
        (b"UPDATEREDIRECTRE", -1),
        (b"RPC_IN_DATA /rpc/rpcproxy.dll?a.example:6001 HTTP/1.1\r\n", 1),
        (b"HTTP/1.1 200 OK\r\n", 0),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
        (b"OPTIONS rtsp://a.example RTSP/1.0\r\n", 0),
        (b"OPTIONS sip:a.example SIP/2.0\r\n", 0),
        (b"OPTIONS icap://a.example/x ICAP/1.0\r\n", 0),
        (b"M-SEARCH * HTTP/1.1\r\n", 1),
        (b"UPDATE t SET a = 1;\n", 0),
        (b"\x16\x03\x01", 0),
    ],
)
def test_looks_like_http(head: bytes, verdict: int) -> None:
    assert looks_like_http(head) == verdict


@pytest.mark.parametrize("method", sorted(http_head.METHODS))
def test_every_known_method_is_read_and_recognised_at_every_length(method: bytes) -> None:
    wire = method + b" /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
    verdicts = [looks_like_http(wire[:length]) for length in range(len(wire) + 1)]
    assert verdicts == [-1] * (len(method) + 1) + [1] * (len(wire) - len(method))
    assert one(wire).method == method.decode()


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("192.0.2.1", True), ("a.1", True), ("0xc0.0x0", True), ("a.0x", True), ("1.example", False), ("a.0xyz", False)],
)
def test_ends_in_number(name: str, verdict: bool) -> None:
    assert ends_in_number(name) is verdict


LABEL = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,8}[a-z])", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "example"]).encode())
FIELD_NAME = st.from_regex(
    rb"(?i)(X-[a-z]{1,8}|Cookie|Connection|Hosts|User|TE|Content-Type|Upgrade-To)", fullmatch=True
)
VALUE = st.binary(max_size=30).map(lambda value: value.translate(None, b"\r\n").strip(b" \t"))
END = st.sampled_from([b"\r\n", b"\n"])


@st.composite
def heads(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """(head, Host, User-Agent) of a valid request without a body."""
    end = draw(END)
    host = draw(NAME) + draw(st.sampled_from([b"", b":8080"]))
    agent = draw(st.from_regex(rb"[!-~]([ -~]{0,30}[!-~])?", fullmatch=True))
    lines = [
        name + b":" + draw(st.sampled_from([b"", b" "])) + value
        for name, value in draw(st.lists(st.tuples(FIELD_NAME, VALUE), max_size=6))
    ]
    blank = draw(st.sampled_from([b"", b" ", b" \t "]))
    lines.insert(
        draw(st.integers(0, len(lines))),
        draw(st.sampled_from([b"Host", b"host", b"HOST"])) + b":" + blank + host + blank,
    )
    lines.insert(draw(st.integers(0, len(lines))), b"User-Agent: " + agent)
    path = draw(st.from_regex(rb"/[!-~]{0,40}", fullmatch=True))
    return (
        end.join([draw(st.sampled_from([b"GET", b"POST", b"M-X_Y"])) + b" " + path + b" HTTP/1.1", *lines, b"", b""]),
        host,
        agent,
    )


@settings(deadline=None)
@given(heads())
def test_generated_heads_read_as_email_reads_them(case: tuple[bytes, bytes, bytes]) -> None:
    head, host, agent = case
    request = one(head)
    assert (request.raw_host.encode(), request.port) == (host.partition(b":")[0], 8080 if b":" in host else 0)
    assert (request.host, request.user_agent) == (request.raw_host.lower(), agent.decode())
    if b"\r\n" in head and not any(
        byte in head for byte in b"\x0b\x0c\x1c\x1d\x1e\x85"
    ):  # email's idea of line ends is wider
        fields = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(head.partition(b"\n")[2])
        assert str(fields["Host"]).strip().encode() == host
        assert str(fields["User-Agent"]).encode() == agent


def test_scapy_reads_the_same() -> None:
    scapy_http = pytest.importorskip("scapy.layers.http")
    for wire in [
        GET,
        b"POST /x?y HTTP/1.1\r\nUser-Agent: tool/1\r\nHost: a.example:81\r\nContent-Length: 0\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\nHOST:b.example\r\nAccept: */*\r\n\r\n",
    ]:
        theirs = scapy_http.HTTPRequest(wire)
        ours = one(wire)
        assert theirs.Method.decode() == ours.method and theirs.Path.decode() == ours.target
        assert parse_authority(theirs.Host) == (ours.host, ours.raw_host, ours.port)
        assert (theirs.User_Agent or b"").decode() == ours.user_agent


STREAM = st.lists(
    st.one_of(st.sampled_from([*BODIES, GET]), heads().map(lambda case: case[0])), min_size=1, max_size=5
).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(STREAM, st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_cut_gives_the_same(wire: bytes, cuts: list[int]) -> None:
    whole = run(wire, [])
    assert not whole[1] and whole[0]
    assert run(wire, cuts) == whole


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    wire = bytearray(draw(STREAM))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 3))] = draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b"\n", b"\r\n ", b"\nHost:", b" ", b":", b"9" * 20, b"\nUpgrade: x"]),
            )
        )
    return bytes(wire)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(mutants(), st.binary(max_size=200), st.binary(max_size=60).map(lambda tail: b"GET / HTTP/1.1\n" + tail)),
    st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_only_malformed_escapes_and_cuts_do_not_matter(wire: bytes, cuts: list[int]) -> None:
    whole = run(wire, [])
    assert run(wire, cuts) == whole
    assert run(wire, list(range(len(wire)))) == whole
    assert looks_like_http(wire) in (-1, 0, 1)
    for request in whole[0]:
        assert request.host == request.host.lower() and request.raw_host.isascii() and request.raw_host.isprintable()
        assert request.header_host != request.host or not request.host


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_looking_never_takes_back_what_it_said(head: bytes) -> None:
    for wire in (head, b"GET " + head, b"\n" + head):
        verdicts = [looks_like_http(wire[:length]) for length in range(len(wire) + 1)]
        first = next((verdict for verdict in verdicts if verdict >= 0), -1)
        if first == 0:  # a yes may become a no when the line is whole; a no stays
            assert all(verdict == 0 for verdict in verdicts[verdicts.index(0) :])


@pytest.mark.parametrize(
    "text",
    [
        "203.0.113.7",
        "0xcb007107",
        "3405803783",
        "0313.0.0161.7",
        "203.0.28935",
        "203.28935",
        "0xCB.0.0x71.07",
        "0",
        "0x0000000000000000cb007107",
        "203.0.113.00000000000000000007",
    ],
)
def test_numbers_are_read_as_inet_aton_reads_them(text: str) -> None:
    assert parse_ipv4(text) == socket.inet_aton(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1.",
        "1..2",
        "256.1.1.1",
        "1.2.3.256",
        "1.2.3.4.5",
        "08.1.1.1",
        "4294967296",
        "0xg",
        "0x",
        "203.0x.113.7",
        "-1",
        "+1",
        "1_0",
        "\u0661",
        "a.1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_ipv4(text) == b""


@pytest.mark.parametrize("text", [b"www.evil.example:80:80", b"www.evil.example:x:", b"www.evil.example::"])
def test_a_name_ends_at_its_first_colon(text: bytes) -> None:
    """ngx_http_validate_host leaves out what follows it, whatever that is."""
    assert parse_authority(text) == ("www.evil.example", "www.evil.example", 0)


def test_an_address_of_ipv6_without_brackets_stays_whole() -> None:
    assert parse_authority(b"2001:db8::7") == ("", "2001:db8::7", 0)
    assert parse_authority(b"::ffff:192.0.2.7") == ("", "::ffff:192.0.2.7", 0)
