"""Cases of HTTP and of SOCKS: what a client's side says, however it is cut and whatever it asks of a proxy."""

from __future__ import annotations

from pcaps.cases import Made, case
from pcaps.hellos import SERVER_HELLO, hello
from pcaps.packets import CLIENT, OK, SERVER, Capture, Tcp, get

PROXY = "10.0.0.3"


@case(
    "http-keepalive",
    """Four requests in one connection to three names. The second one's Host lies in the next segment, the third one's
    body holds a request that was never made, the fourth follows in the body's last segment.""",
)
def http_keepalive() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (SERVER, 80)).open()
    tcp.send(get("www.good.example", "/one")).receive(OK)
    second = get("two.bad.example", "/two")
    cut = second.index(b"Host: two") + 8
    tcp.send(second[:cut]).send(second[cut:]).receive(OK)
    body = get("never-sent.bad.example", "/body").decode()
    third = get("www.good.example", "/three", method="POST", body=body)
    tcp.send(third[:150]).send(third[150:] + get("four.bad.example", "/four")).receive(OK).receive(OK)
    tcp.close()
    return capture


@case(
    "http-chunked-upload",
    """A chunked body whose chunks look like requests, then a real request. Only the chunk sizes tell them apart.""",
)
def http_chunked_upload() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (SERVER, 80)).open()
    fake = get("never-sent.bad.example")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (fake[:30], fake[30:], fake))
    head = get("up.good.example", "/up", method="PUT", more="Transfer-Encoding: chunked\r\n")
    tcp.send(head + chunks + b"0\r\nTrailer: x\r\n\r\n" + get("after.bad.example", "/after"), 90).receive(OK).close()
    return capture


@case(
    "http-lenient-server",
    """Requests that no browser sends and servers answer: behind many blank lines (nginx, Node), with tabs (Python), of
    a method that nobody knows (Go), of version 2.0 (Node), with a Host behind 70 KB of other fields and with a target
    of 20 KB (Apache, Go), after a chunk whose size has twenty zeros before it (Node), in a request without a version,
    behind a Content-Length with a sign, and behind a coding that says nothing of an end (Python).""",
)
def http_lenient_server() -> Made:
    capture = Capture()
    for port, (name, change) in enumerate(
        {
            "blank": lambda octets: b"\r\n" * 900 + octets,
            "tabs": lambda octets: octets.replace(b"GET / ", b"GET\t/\t", 1),
            "method": lambda octets: octets.replace(b"GET", b"XGET", 1),
            "version": lambda octets: octets.replace(b"/1.1", b"/2.0", 1),
            "head": lambda octets: octets.replace(b"Host", b"X: %s\r\nHost" % (b"x" * 70_000), 1),
            "target": lambda octets: octets.replace(b"/ ", b"/%s " % (b"x" * 20_000), 1),
            "chunk": lambda octets: (
                get("up.good.example", method="PUT", more="Transfer-Encoding: chunked\r\n")
                + b"0" * 20
                + b"2\r\nok\r\n0\r\n\r\n"
                + octets
            ),
            "old": lambda octets: octets.replace(b" HTTP/1.1", b"", 1),
            "sign": lambda octets: get("up.good.example", more="Content-Length: +2\r\n") + b"ok" + octets,
            "coding": lambda octets: get("up.good.example", more="Transfer-Encoding: gzip\r\n") + octets,
        }.items()
    ):
        tcp = Tcp(capture, (CLIENT, 40_001 + port), (SERVER, 80)).open()
        tcp.send(change(get(f"{name}.bad.example")), 1_200).receive(OK).close()
    return capture


@case(
    "http-absolute-form-proxy",
    """Requests to a proxy name the destination in the request target (RFC 9112 section 3.2.2); a Host that disagrees
    is read too, for it may be the one that counts further on.""",
)
def http_absolute_form_proxy() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (PROXY, 3128)).open()
    tcp.send(get("www.good.example", "http://target.bad.example:8080/gate?x=1")).receive(OK)
    tcp.send(get("cover.bad.example", "http://www.good.example/front")).receive(OK).close()
    return capture


@case(
    "http-connect-then-tls",
    """CONNECT through a proxy, then a ClientHello inside the tunnel for another name: both names are contacts.""",
)
def http_connect_then_tls() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (PROXY, 3128)).open()
    tcp.send(get("front.good.example:443", "front.good.example:443", method="CONNECT"))
    tcp.receive(b"HTTP/1.1 200 Connection established\r\n\r\n")
    tcp.send(hello("inner.bad.example")).receive(SERVER_HELLO).close()
    return capture


@case(
    "proxy-with-public-address",
    """A proxy at a public address: by CONNECT, by SOCKS and by the request target, each time to a listed name, twice
    with TLS inside. The name is the destination's, not the proxy's: to close the way to the proxy would cut the
    client off from everything.""",
)
def proxy_with_public_address() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), ("198.51.100.3", 3128)).open()
    tcp.send(get("c2.bad.example:443", "c2.bad.example:443", method="CONNECT"))
    tcp.receive(b"HTTP/1.1 200 Connection established\r\n\r\n")
    tcp.send(hello("c2.bad.example")).receive(SERVER_HELLO).close()
    tcp = Tcp(capture, (CLIENT, 40_002), ("198.51.100.4", 1080)).open()
    tcp.send(b"\x05\x01\x00").receive(b"\x05\x00")
    tcp.send(b"\x05\x01\x00\x03\x0ec2.bad.example\x01\xbb").receive(b"\x05\x00\x00\x01" + bytes(6))
    tcp.send(hello("c2.bad.example")).receive(SERVER_HELLO).close()
    tcp = Tcp(capture, (CLIENT, 40_003), ("198.51.100.5", 3128)).open()
    tcp.send(get("c2.bad.example", "http://c2.bad.example/gate")).receive(OK).close()
    return capture


@case("http-odd-port", "HTTP on port 4444 and, by IPv6, on port 22: content decides which parser reads a connection.")
def http_odd_port() -> Made:
    capture = Capture()
    Tcp(capture, (CLIENT, 40_001), (SERVER, 4444)).open().send(get("odd.bad.example:4444", "/g")).receive(OK).close()
    there = ("2001:db8:a::10", 22)
    Tcp(capture, ("2001:db8:5::5", 40_002), there).open().send(get("six.bad.example", "/h")).receive(OK).close()
    return capture


@case(
    "http-midstream",
    """The capture begins in the middle of an upload. The rest of that body is noise; the next request of the
    connection is read.""",
)
def http_midstream() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (SERVER, 80))
    tcp.segment(b"\x89PNG the middle of a picture " * 20, "PA", at=100_000)
    tcp.segment(b"\x00\x01\x02 its end " * 20, "PA")
    tcp.receive(OK)
    tcp.send(get("later.bad.example", "/later")).receive(OK).close()
    return capture


@case(
    "http-lost-segment",
    """One segment of a request was not captured, though the host received it: its request cannot be told, the next one
    can.""",
)
def http_lost_segment() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (SERVER, 80)).open()
    lost = get("lost.good.example", "/" + "x" * 200)
    tcp.packet(lost[:100], "PA")  # sent, not captured
    tcp.send(lost[100:]).receive(OK)
    capture.wait(4)
    tcp.send(get("next.bad.example", "/next")).receive(OK).close()
    return capture


@case(
    "url-listed",
    """A listed URL is that path on that host. Other paths of the host, and the path on another host, are no matches,
    and no name is blocked.""",
)
def url_listed() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (SERVER, 80)).open()
    for path in ("/", "/panel/gate.php.txt", "/panel/gate.php?id=7"):
        tcp.send(get("files.shared.example", path)).receive(OK)
    tcp.send(get("other.shared.example", "/panel/gate.php")).receive(OK).close()
    return capture


@case(
    "socks5-name",
    """SOCKS 5 with user name and password, then a request by name, then TLS for another name inside; and with a method
    of those that are for private use, of which nothing is known but that the request follows.""",
)
def socks5_name() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (PROXY, 1080)).open()
    tcp.send(b"\x05\x02\x00\x02").receive(b"\x05\x02")
    tcp.send(b"\x01\x04user\x06secret").receive(b"\x01\x00")
    name = b"c2.bad.example"
    tcp.send(b"\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x01\xbb")
    tcp.receive(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    tcp.send(hello("cover.good.example")).receive(SERVER_HELLO).close()
    name = b"private.bad.example"
    tcp = Tcp(capture, (CLIENT, 40_002), (PROXY, 1080)).open().send(b"\x05\x02\x80\xfe").receive(b"\x05\x80")
    tcp.send(b"\x80secret").receive(b"\x80\0")
    tcp.send(b"\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x01\xbb").close()
    return capture


@case(
    "socks4a-name", "SOCKS 4a: the name stands behind an address that cannot be; and plain SOCKS 4 to a listed address."
)
def socks4a_name() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_001), (PROXY, 9050)).open()
    tcp.send(b"\x04\x01\x00\x50\x00\x00\x00\x01user\x00c2.bad.example\x00")
    tcp.receive(b"\x00\x5a\x00\x50\x00\x00\x00\x01").send(get("cover.good.example")).receive(OK).close()
    tcp = Tcp(capture, (CLIENT, 40_002), (PROXY, 9050)).open()
    tcp.send(b"\x04\x01\x01\xbb" + bytes((203, 0, 113, 66)) + b"user\x00").receive(b"\x00\x5a" + bytes(6)).close()
    return capture
