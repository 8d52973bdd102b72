"""Cases of DNS: streams, answers that say more than addresses, ports that promise nothing, messages made to hurt."""

from __future__ import annotations

import struct

from pcaps.cases import Made, case
from pcaps.packets import (
    CLIENT,
    RESOLVER,
    Capture,
    Tcp,
    answer,
    framed,
    question,
    raw_question,
    resolve,
    wire_name,
)

PUBLIC_RESOLVER = "198.51.100.53"


@case(
    "dns-tcp-pipelined-split",
    """Three questions in one TCP connection before any answer (RFC 7766 section 6.2.1.1), cut so that a length prefix
    and a name lie in two segments; the answers come in another order, cut as well.""",
)
def dns_tcp_pipelined_split() -> Made:
    capture = Capture()
    names = ("www.good.example", "c2.bad.example", "mail.good.example")
    asked = b"".join(framed(question(name, 0x4000 + at)) for at, name in enumerate(names))
    answered = b"".join(
        framed(answer(names[at], 0x4000 + at, f"{names[at]} A 198.51.100.{10 + at}")) for at in (2, 0, 1)
    )
    tcp = Tcp(capture, (CLIENT, 40_053), (RESOLVER, 53)).open()
    first = 2 + len(question(names[0], 0))
    for start, end in ((0, first + 1), (first + 1, first + 20), (first + 20, len(asked))):
        tcp.send(asked[start:end])
    for start, end in ((0, 1), (1, 70), (70, len(answered))):
        tcp.receive(answered[start:end])
    tcp.close()
    return capture


@case(
    "dns-edns",
    """Questions and answers with EDNS (RFC 6891): the OPT record is no answer, and a response code above 15 has its
    upper bits in it.""",
)
def dns_edns() -> Made:
    capture = Capture()
    at = (CLIENT, 50_001)
    capture.udp(at, (RESOLVER, 53), question("www.good.example", 0x5001, edns=0))
    opt = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)
    capture.udp((RESOLVER, 53), at, _more(answer("www.good.example", 0x5001, "www.good.example A 192.0.2.20"), opt))
    capture.udp(at, (RESOLVER, 53), question("c2.bad.example", 0x5002, edns=0))
    refused = b"\0" + struct.pack(">HHIH", 41, 1232, 0x01000000, 0)  # BADVERS: 16
    capture.udp((RESOLVER, 53), at, _more(answer("c2.bad.example", 0x5002), refused))
    return capture


def _more(message: bytes, record: bytes) -> bytes:
    """A message with one more record in its additional section."""
    count = struct.unpack_from(">H", message, 10)[0] + 1
    return message[:10] + struct.pack(">H", count) + message[12:] + record


@case(
    "dns-cname-into-listed",
    """An innocent name's answer, from a resolver with a public address, leads to a listed name by two CNAMEs. The
    listed name is what matches; neither the innocent one nor the resolver is in any decision.""",
)
def dns_cname_into_listed() -> Made:
    capture = Capture()
    chain = (
        "www.shop.example CNAME shop.cdn.example",
        "shop.cdn.example CNAME edge.bad.example",
        "edge.bad.example A 198.51.100.7",
    )
    at, there = (CLIENT, 50_001), (PUBLIC_RESOLVER, 53)
    capture.udp(at, there, question("www.shop.example", 0x6001))
    capture.udp(there, at, answer("www.shop.example", 0x6001, *chain))
    resolve(capture, "static.shop.example", "192.0.2.21", port=50_002)
    return capture


@case(
    "dns-https-hints",
    """An HTTPS record (RFC 9460) gives addresses as hints, so no A record is ever asked for. A connection to a hint is
    a contact with the name, although nothing in it says so.""",
)
def dns_https_hints() -> Made:
    capture = Capture()
    at = (CLIENT, 50_001)
    capture.udp(at, (RESOLVER, 53), question("c2.bad.example", 0x7001, "HTTPS"))
    record = "c2.bad.example HTTPS 1 . alpn=h3 ipv4hint=198.51.100.8 ech=AAT+DQAA ipv6hint=2001:db8:a::8"
    capture.udp((RESOLVER, 53), at, answer("c2.bad.example", 0x7001, record, rrtype="HTTPS"))
    Tcp(capture, (CLIENT, 40_002), ("198.51.100.8", 4_000)).open().send(b"\x01\x02\x03 no known protocol")
    return capture


@case(
    "dns-compression-bomb",
    """A message of 65,535 bytes over TCP in which every name points to the one before it, and datagrams whose names
    point at themselves or forward. Work is bounded, the error is told, and what follows is read.""",
)
def dns_compression_bomb() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_053), (RESOLVER, 53)).open()
    tcp.send(framed(question("start.good.example", 0x8001)))
    message = bytearray(struct.pack(">HHHHHH", 0x8001, 0x8180, 1, 60_000, 0, 0))
    message += wire_name(b"start", b"good", b"example") + struct.pack(">HH", 1, 1)
    before = 12
    while len(message) + 16 <= 65_535:
        at = len(message)
        message += b"\x01a" + struct.pack(">H", 0xC000 | before) if at < 0x4000 else struct.pack(">H", 0xC000 | before)
        message += struct.pack(">HHIH", 1, 1, 60, 4) + bytes((192, 0, 2, 1))
        before = at if at < 0x4000 else before
    bomb = framed(bytes(message.ljust(65_535, b"\0")))
    for start in range(0, len(bomb), 8_192):  # as a host with segmentation offload captures it
        tcp.segment(bomb[start : start + 8_192], "PA", server=True)
    tcp.send(framed(question("after.bad.example", 0x8002))).close()
    at = (CLIENT, 50_001)
    capture.udp(at, (RESOLVER, 53), raw_question(b"\xc0\x0c", 0x8003))  # points at itself
    capture.udp(at, (RESOLVER, 53), raw_question(b"\x01a\xc0\x20", 0x8004))  # points forward
    capture.udp(at, (RESOLVER, 53), question("last.bad.example", 0x8005))
    return capture


@case(
    "dns-odd-port",
    """DNS on ports that promise nothing: a datagram to port 9953, a connection to port 8053. Content decides. Beside
    them a datagram to port 53 that is no DNS.""",
)
def dns_odd_port() -> Made:
    capture = Capture()
    at, there = (CLIENT, 50_001), (PUBLIC_RESOLVER, 9_953)
    capture.udp(at, there, question("udp.bad.example", 0x9001))
    capture.udp(there, at, answer("udp.bad.example", 0x9001, "udp.bad.example A 198.51.100.9"))
    tcp = Tcp(capture, (CLIENT, 40_053), (PUBLIC_RESOLVER, 8_053)).open()
    tcp.send(framed(question("tcp.bad.example", 0x9002)))
    tcp.receive(framed(answer("tcp.bad.example", 0x9002, "tcp.bad.example A 198.51.100.10"))).close()
    capture.udp(at, (PUBLIC_RESOLVER, 53), b"this is a tunnel, not a question")
    return capture


@case(
    "mdns-llmnr-kept-apart",
    """mDNS and LLMNR look like DNS but stay on the link: names in them are counted, never told as contacts, listed or
    not. A question to a public address on mDNS's port does leave, so it is one.""",
)
def mdns_llmnr_kept_apart() -> Made:
    capture = Capture()
    capture.udp((CLIENT, 5353), ("224.0.0.251", 5353), question("printer.bad.example", 0))
    capture.udp((CLIENT, 5353), ("224.0.0.251", 5353), question("_ipp._tcp.local", 0, "PTR"))
    capture.udp(("10.0.0.9", 5353), (CLIENT, 5353), answer("printer.local", 0, "printer.local A 10.0.0.9"))
    capture.udp((CLIENT, 50_002), ("224.0.0.252", 5355), question("wpad", 0xA001))
    capture.udp((CLIENT, 50_003), (PUBLIC_RESOLVER, 5353), question("out.bad.example", 0xA002))
    return capture


@case(
    "name-forms",
    """One name in the forms that hosts send: capitals at random (0x20), all capitals, a trailing dot, a port. They are
    the same name; the record keeps nothing of the form but in the question itself.""",
)
def name_forms() -> Made:
    from pcaps.hellos import SERVER_HELLO, hello
    from pcaps.packets import OK, get

    capture = Capture()
    scrambled = wire_name(b"C2", b"bAd", b"eXaMpLe")
    capture.udp((CLIENT, 50_001), (RESOLVER, 53), raw_question(scrambled, 0xB001))
    web = Tcp(capture, (CLIENT, 40_001), ("192.0.2.10", 80)).open()
    web.send(get("C2.BAD.EXAMPLE.:80", "/upper")).receive(OK).close()
    Tcp(capture, (CLIENT, 40_002)).open().send(hello("C2.Bad.Example.")).receive(SERVER_HELLO).close()
    return capture


@case(
    "hostile-names",
    """Names made to hurt whoever prints, stores or runs them: terminal escapes, quotes, markup, line ends, a zero
    byte, a dot inside a label, shell and path tricks. They stand in the record escaped and match nothing, although
    they end in a listed name; so does a Host with a second name behind a line end.""",
)
def hostile_names() -> Made:
    from pcaps.hellos import SERVER_HELLO, hello
    from pcaps.packets import OK, get

    capture = Capture()
    labels = (
        b"\x1b]0;owned\x07",
        b"<img src=x onerror=alert(1)>",
        b'"},{"a":"',
        b"$(reboot)",
        b"two\r\nlines",
        b"zero\0byte",
        b"a.dot.inside",
        "bücher".encode("latin-1"),
    )
    for at, label in enumerate(labels):
        name = wire_name(label, b"bad", b"example")
        capture.udp((CLIENT, 50_001 + at), (RESOLVER, 53), raw_question(name, 0xC001 + at))
    web = Tcp(capture, (CLIENT, 40_001), ("192.0.2.10", 80)).open()
    web.send(get('"><script>alert(1)</script>.bad.example', "/\x1b[2J")).receive(OK)
    web.send(get("bad.example;reboot", "/'; DROP TABLE hosts; --")).receive(OK).close()
    for port, name in (
        (40_002, "../../etc/bad.example"),
        (40_003, "\x1b[31mred\x9b.bad.example"),
        (40_004, "a" * 64 + ".bad.example"),
    ):
        Tcp(capture, (CLIENT, port)).open().send(hello(name)).receive(SERVER_HELLO).close()
    return capture
