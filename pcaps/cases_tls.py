"""Cases of TLS and QUIC: hellos in pieces, out of order, twice, on any port; and what hides a name."""

from __future__ import annotations

import itertools

from pcaps.cases import Made, case
from pcaps.hellos import (
    AES_256_GCM,
    APPLICATION,
    QUIC_DRAFT_29,
    QUIC_V1,
    QUIC_V2,
    SERVER_HELLO,
    client_hello,
    crypto,
    ech,
    handshake,
    hello,
    initial,
    records,
)
from pcaps.packets import CLIENT, OK, SERVER, Capture, Tcp, get, resolve

SEGMENT = 1_400


@case(
    "tls-hello-two-segments",
    "A hello of 1.8 KB, as browsers send it since key shares are post-quantum: in two segments, the name in the first.",
)
def tls_hello_two_segments() -> Made:
    capture = Capture()
    octets = hello("www.bad.example", post_quantum=True)
    Tcp(capture, (CLIENT, 40_002)).open().send(octets, SEGMENT).receive(SERVER_HELLO).close()
    Tcp(capture, (CLIENT, 40_003)).open().send(octets, 60).receive(SERVER_HELLO).close()
    return capture


@case("tls-hello-out-of-order", "The second half of a long hello overtakes the first.")
def tls_hello_out_of_order() -> Made:
    capture = Capture()
    octets = hello("www.bad.example", post_quantum=True)
    tcp = Tcp(capture, (CLIENT, 40_002)).open()
    first = tcp.packet(octets[:SEGMENT], "PA")
    tcp.segment(octets[SEGMENT:], "PA")
    capture.add(first)
    tcp.receive(SERVER_HELLO).close()
    return capture


@case(
    "tls-hello-retransmitted-overlap",
    "A part of the hello is sent again together with the rest, with the same bytes: one hello, nothing ambiguous.",
)
def tls_hello_retransmitted_overlap() -> Made:
    capture = Capture()
    octets = hello("www.bad.example", post_quantum=True)
    tcp = Tcp(capture, (CLIENT, 40_002)).open()
    tcp.segment(octets[:900], "PA")
    tcp.segment(octets[:900], "PA", at=0)
    tcp.segment(octets[400:1700], "PA", at=400)
    tcp.segment(octets[1200:], "PA", at=1200)
    tcp.segment(octets, "PA", at=0)
    tcp.receive(SERVER_HELLO).close()
    return capture


@case(
    "tls-overlap-conflict",
    """Two hellos for the same place in the stream, one for an innocent name and one for a listed name of the same
    length: the first may have had a time to live that ends before the server. Nobody can tell which one the server
    took, so both names are told, the second as ambiguous. In the second connection the two change places.""",
)
def tls_overlap_conflict() -> Made:
    capture = Capture()
    innocent, listed = hello("www.ok.good.example"), hello("www.c2.evil.example")
    for port, first, second in ((40_002, innocent, listed), (40_003, listed, innocent)):
        tcp = Tcp(capture, (CLIENT, port)).open()
        tcp.segment(first, "PA")
        tcp.segment(second, "PA", at=0)
        tcp.receive(SERVER_HELLO).close()
    return capture


@case(
    "tls-hello-two-records", "One hello in three TLS records, cut inside its header and inside the name (RFC 8446 5.1)."
)
def tls_hello_two_records() -> Made:
    capture = Capture()
    message = client_hello(b"www.bad.example")
    octets = records(message, 3, message.index(b"bad.example") + 2)
    Tcp(capture, (CLIENT, 40_002)).open().send(octets).receive(SERVER_HELLO).close()
    Tcp(capture, (CLIENT, 40_003)).open().send(octets, 50).receive(SERVER_HELLO).close()
    return capture


@case("tls-odd-port", "TLS on ports 53, 80 and 22222: content decides.")
def tls_odd_port() -> Made:
    capture = Capture()
    for at, port in enumerate((53, 80, 22_222)):
        tcp = Tcp(capture, (CLIENT, 40_002 + at), (SERVER, port)).open()
        tcp.send(hello(f"port-{port}.bad.example")).receive(SERVER_HELLO).close()
    return capture


@case("tls-starttls-smtp", "TLS begins in the middle of an SMTP conversation (RFC 3207).")
def tls_starttls_smtp() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_002), (SERVER, 587)).open()
    tcp.receive(b"220 mail.bad.example ESMTP\r\n").send(b"EHLO client.good.example\r\n")
    tcp.receive(b"250-mail.bad.example\r\n250 STARTTLS\r\n").send(b"STARTTLS\r\n").receive(b"220 ready\r\n")
    tcp.send(hello("mail.bad.example", alpn=())).receive(SERVER_HELLO).close()
    return capture


@case(
    "tls-ech",
    """Encrypted ClientHello: a real one hides the name (its cipher suite is one that no browser uses for decoys), a
    decoy (GREASE) hides nothing. The outer name of the first is told, with the reason why it is not the true one.""",
)
def tls_ech() -> Made:
    capture = Capture()
    real = hello("public.front.example", more=ech(AES_256_GCM))
    Tcp(capture, (CLIENT, 40_002)).open().send(real).receive(SERVER_HELLO).close()
    decoy = hello("www.bad.example", more=ech())
    Tcp(capture, (CLIENT, 40_003)).open().send(decoy).receive(SERVER_HELLO).close()
    return capture


@case(
    "tls-syn-not-captured",
    """Connections that are under way when the capture begins. Ports and addresses point the wrong way: the client
    speaks from port 8443 to port 50123, both addresses are public. In the first connection the hello is the first
    packet, in the second a late answer of an older exchange comes before it. A hello comes from the client, so they
    are turned round.""",
)
def tls_syn_not_captured() -> Made:
    capture = Capture()
    client, server = ("203.0.113.5", 8443), ("198.51.100.9", 50_123)
    Tcp(capture, client, server).send(hello("www.bad.example")).receive(SERVER_HELLO)
    client, server = ("203.0.113.6", 8443), ("198.51.100.9", 50_124)
    tcp = Tcp(capture, client, server)
    tcp.segment(b"220 a greeting\r\n", "PA", server=True)
    tcp.send(hello("late.bad.example")).receive(SERVER_HELLO).receive(APPLICATION)
    return capture


@case("tls-data-in-syn", "TCP Fast Open (RFC 7413): the hello travels in the SYN itself.")
def tls_data_in_syn() -> Made:
    capture = Capture()
    tcp = Tcp(capture, (CLIENT, 40_002))
    tcp.segment(hello("www.bad.example"), "S")
    tcp.segment(flags="SA", server=True)
    tcp.segment()
    tcp.receive(SERVER_HELLO).close()
    return capture


@case(
    "tls-lenient-server",
    "What OpenSSL's server takes though no client sends it: records of an unknown minor version, an unknown version "
    "before supported_versions, empty records before and inside the hello.",
)
def tls_lenient_server() -> Made:
    capture = Capture()
    plain = hello("record.bad.example")
    message = client_hello(b"legacy.bad.example")
    pieces = client_hello(b"empty.bad.example")
    for port, octets in enumerate(
        (
            b"\x16\x03\xff" + plain[3:],
            records(message[:4] + b"\x04\x04" + message[6:]),
            records(b"") * 3 + records(pieces, 60, 60),
        )
    ):
        Tcp(capture, (CLIENT, 40_002 + port)).open().send(octets).receive(SERVER_HELLO).close()
    return capture


@case(
    "tls-misleading-segments",
    "Segments that no server takes and that made observers forget or believe: a SYN in the middle of a hello, a FIN "
    "and a hello without ACK. And a server that asks for another hello (HelloRetryRequest), with another name in it.",
)
def tls_misleading_segments() -> Made:
    capture = Capture()
    octets = hello("syn.bad.example")
    tcp = Tcp(capture, (CLIENT, 40_002)).open().send(octets[:100])
    Tcp(capture, (CLIENT, 40_002), isn=(5_000_000, 1)).segment(flags="S")
    tcp.segment(server=True)  # a challenge (RFC 5961 section 4)
    tcp.send(octets[100:]).receive(SERVER_HELLO).close()
    octets = hello("fin.bad.example")
    tcp = Tcp(capture, (CLIENT, 40_003)).open().send(octets[:100])
    tcp.segment(flags="F")
    tcp.send(octets[100:]).receive(SERVER_HELLO).close()
    octets = hello("ack.bad.example")
    tcp = Tcp(capture, (CLIENT, 40_004)).open()
    tcp.segment(hello("ack.good.example"), "P", at=0)
    tcp.segment(octets, "PA", at=0)
    tcp.receive(SERVER_HELLO).close()
    # RFC 8446 section 4.1.3; a key share (51) of the group that the second hello is to use.
    retry = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    retry = b"\x03\x03" + retry + b"\x20" + bytes(32) + b"\x13\x01\0\0\x0c\0\x2b\0\2\3\4\0\x33\0\2\0\x18"
    tcp = Tcp(capture, (CLIENT, 40_005)).open().send(hello("first.good.example"))
    tcp.receive(records(b"\x02" + len(retry).to_bytes(3, "big") + retry))
    tcp.send(b"\x14\x03\x03\0\1\1" + hello("retry.bad.example")).receive(SERVER_HELLO).close()
    return capture


@case(
    "tls-decoys",
    """What a client sends with so short a time to live that it does not reach the server: a harmless hello and some
    segments of nothing before the real hello, which comes in two segments in either order; a RST and a FIN in the
    middle of a hello; a harmless request with 20 KB of its body before the real request.""",
)
def tls_decoys() -> Made:
    capture = Capture()
    octets = hello("two.bad.example", post_quantum=True)
    for port, order in ((40_001, (0, 1_000)), (40_002, (1_000, 0))):
        tcp = Tcp(capture, (CLIENT, port)).open().send(hello("www.good.example")).send(bytes(6_000), 1_000)
        for at in order:
            tcp.segment(octets[at : at + 1_000], "PA", at=at)
        tcp.receive(SERVER_HELLO).close()
    for port, flags in ((40_003, "RA"), (40_004, "FA")):
        octets = hello(f"end{flags[0].lower()}.bad.example")
        tcp = Tcp(capture, (CLIENT, port)).open().send(octets[:100])
        tcp.segment(flags=flags)
        tcp.send(octets[100:]).receive(SERVER_HELLO).close()
    tcp = Tcp(capture, (CLIENT, 40_005), (SERVER, 80)).open()
    tcp.send(get("www.good.example", method="POST", body="b" * 20_000), 1_400)
    tcp.segment(get("post.bad.example"), "PA", at=0)
    tcp.receive(OK).close()
    return capture


def _quic(version: int) -> Capture:
    capture = Capture()
    at, there = (CLIENT, 45_002), (SERVER, 443)
    message = client_hello(b"www.bad.example", alpn=(b"h3",))
    capture.udp(at, there, initial(version, b"\x83\x94\xc8\xf0\x3e\x51\x57\x08", 0, crypto(0, message)))
    capture.udp(there, at, handshake(version, b"\x08\x57\x51\x3e\xf0"))
    capture.udp(at, there, b"\x40" + bytes(60))
    return capture


@case("quic-v1", "A ClientHello in a QUIC version 1 Initial packet (RFC 9001 section 5).")
def quic_v1() -> Made:
    return _quic(QUIC_V1)


@case("quic-v2", "The same in version 2 (RFC 9369): other salt, labels and packet types.")
def quic_v2() -> Made:
    return _quic(QUIC_V2)


@case("quic-draft29", "The same in draft 29, which clients spoke for a year and old ones still do.")
def quic_draft29() -> Made:
    return _quic(QUIC_DRAFT_29)


@case(
    "quic-crypto-out-of-order",
    """A post-quantum hello over two Initial packets whose CRYPTO frames are cut small, shuffled and mixed with PING
    and PADDING, as browsers send them; the second packet comes first. Another client's first packet is lost, so
    only a piece without the name is there.""",
)
def quic_crypto_out_of_order() -> Made:
    capture = Capture()
    message = client_hello(b"www.bad.example", alpn=(b"h3",), post_quantum=True)
    edges = (0, 40, 90, 140, 600, 1_000, 1_500, len(message))
    pieces = [crypto(start, message[start:end]) for start, end in itertools.pairwise(edges)]
    dcid = bytes(range(8))
    second = initial(QUIC_V1, dcid, 1, b"\x01" + pieces[5] + bytes(3) + pieces[1] + pieces[6])
    first = initial(QUIC_V1, dcid, 0, pieces[3] + b"\x01" + pieces[4] + pieces[2] + bytes(5) + pieces[0])
    capture.udp((CLIENT, 45_002), (SERVER, 443), second)
    capture.udp((CLIENT, 45_002), (SERVER, 443), first)
    capture.udp(("10.0.0.6", 45_003), (SERVER, 443), initial(QUIC_V1, dcid[::-1], 1, pieces[5] + pieces[6]))
    return capture


@case(
    "quic-several-hellos",
    """Names that come after a harmless one between the same addresses and ports: a second connection with another
    connection id; an Initial behind datagrams of junk and Initials that nobody can open; the second hello that
    HelloRetryRequest asks for; another hello after Retry; the hello behind one under the same keys that did not reach
    the server.""",
)
def quic_several_hellos() -> Made:
    capture = Capture()
    there, first, second = (SERVER, 443), b"\x83\x94\xc8\xf0\x3e\x51\x57\x08", b"\xf0\x67\xa5\x50\x2a\x42\x62\xb5"

    def hello_of(name: bytes) -> bytes:
        return client_hello(name, alpn=(b"h3",))

    def begin(port: int, name: bytes = b"www.good.example") -> tuple[str, int]:
        capture.udp((CLIENT, port), there, initial(QUIC_V1, first, 0, crypto(0, hello_of(name))))
        return CLIENT, port

    at = begin(45_001)
    capture.udp(there, at, handshake(QUIC_V1, first[::-1][:5]))
    capture.udp(at, there, b"\x40" + bytes(60))
    capture.udp(at, there, initial(QUIC_V1, second, 0, crypto(0, hello_of(b"next.bad.example"))))
    at = (CLIENT, 45_002)
    for number in range(20):
        capture.udp(at, there, b"junk %02d" % number)
        capture.udp(at, there, initial(QUIC_V1, first, number, b"\x01", keys_of=second))
    begin(45_002, b"junk.bad.example")
    at = begin(45_003)
    behind = crypto(len(hello_of(b"www.good.example")), hello_of(b"retry.bad.example"))
    capture.udp(at, there, initial(QUIC_V1, b"chosen by server", 1, behind, keys_of=first))
    at = begin(45_004)
    capture.udp(at, there, initial(QUIC_V1, second, 1, crypto(0, hello_of(b"token.bad.example"))))
    at = begin(45_005)
    capture.udp(at, there, initial(QUIC_V1, first, 1, crypto(0, hello_of(b"real.bad.example"))))
    return capture


@case(
    "doh-dot-doq-blind-spots",
    """What cannot be read is counted for each client: DNS over TLS, over QUIC, over HTTPS to a known resolver's
    address and by its name, a hello without a name, a hello whose name is encrypted. "Nothing was seen" is worth
    only as much as could be seen.""",
)
def doh_dot_doq_blind_spots() -> Made:
    capture = Capture()
    one, two = "10.0.0.5", "10.0.0.6"
    Tcp(capture, (one, 40_001), ("8.8.8.8", 853)).open().send(hello("dns.google", alpn=(b"dot",)))
    Tcp(capture, (one, 40_002), ("8.8.8.8", 443)).open().send(hello("dns.google"))
    Tcp(capture, (one, 40_003), ("192.0.2.77", 443)).open().send(hello("dns.google"))
    quic = initial(QUIC_V1, bytes(range(8)), 0, crypto(0, client_hello(b"dns.front.example", alpn=(b"doq",))))
    capture.udp((two, 45_004), ("192.0.2.78", 853), quic)
    Tcp(capture, (two, 40_005), ("192.0.2.79", 443)).open().send(hello(""))
    Tcp(capture, (two, 40_006), ("192.0.2.79", 443)).open().send(hello("public.front.example", more=ech(AES_256_GCM)))
    resolve(capture, "www.good.example", "192.0.2.20", client="10.0.0.7")
    return capture
