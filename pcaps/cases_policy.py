"""Cases of matching and policy: what a sighting justifies, and whom it must never hurt (DESIGN sections 5 to 7)."""

from __future__ import annotations

from pcaps.cases import Made, case
from pcaps.hellos import APPLICATION, SERVER_HELLO, hello
from pcaps.packets import CLIENT, OK, RESOLVER, SERVER, Capture, Tcp, answer, get, question, resolve

SHARED = "203.0.113.80"
ATTACKER = "198.51.100.66"


def visit(
    capture: Capture, name: str, address: str, *, client: str = CLIENT, port: int = 40_000, txid: int = 1
) -> None:
    """A client resolves a name and speaks TLS with what it was told."""
    resolve(capture, name, address, client=client, port=port + 10_000, txid=txid)
    Tcp(capture, (client, port), (address, 443)).open().send(hello(name)).receive(SERVER_HELLO).close()


@case(
    "sibling-match",
    """The list holds a.bad.example; the host asks for b.bad.example, which nobody ever listed. The registered domain
    is the same, so it matches as a sibling and the whole registered domain is blocked. bad.example.good.example and
    notbad.example are other people's.""",
)
def sibling_match() -> Made:
    capture = Capture()
    visit(capture, "b.bad.example", ATTACKER, port=40_001)
    visit(capture, "bad.example.good.example", "192.0.2.21", port=40_002)
    visit(capture, "notbad.example", "192.0.2.22", port=40_003)
    visit(capture, "a.bad.example", ATTACKER, port=40_004)
    visit(capture, "bad.example", ATTACKER, port=40_005)
    return capture


@case(
    "suffix-tenant-not-matched",
    """github.io is a public suffix of the list's private section: each name below it is somebody else's. One
    (invented) tenant is listed; another tenant and the suffix itself are not touched.""",
)
def suffix_tenant_not_matched() -> Made:
    capture = Capture()
    visit(capture, "egressd-case-innocent.github.io", "203.0.113.81", port=40_001)
    visit(capture, "github.io", "203.0.113.82", port=40_002)
    visit(capture, "www.egressd-case-listed.github.io", "203.0.113.83", port=40_003)
    return capture


@case(
    "shared-cdn-address",
    """Four innocent sites and then a listed one live on one address. The listed name is blocked by name; the address
    is not, neither for everybody nor for one client, because that would cut the innocent ones off.""",
)
def shared_cdn_address() -> Made:
    capture = Capture()
    for at, site in enumerate(("florist", "library", "school", "clinic")):
        visit(capture, f"www.{site}.example", SHARED, client=f"10.0.0.{6 + at}", port=40_001 + at)
    visit(capture, "c2.bad.example", SHARED, port=40_010)
    visit(capture, "www.florist.example", SHARED, client="10.0.0.6", port=40_011)
    return capture


@case(
    "address-given-back",
    """The listed name is seen on an address first, so the address is blocked for everybody. Then an innocent name
    turns out to live there too: the address is given free at once, the name stays blocked.""",
)
def address_given_back() -> Made:
    capture = Capture()
    visit(capture, "c2.bad.example", SHARED, port=40_001)
    visit(capture, "www.florist.example", SHARED, client="10.0.0.6", port=40_002)
    visit(capture, "c2.bad.example", SHARED, client="10.0.0.7", port=40_003)
    return capture


@case(
    "answer-points-at-resolver",
    """Whoever owns a listed name can let it point anywhere: at a public resolver, at the gateway, at the loopback
    address, at the host's own network, also wrapped in IPv6. Each is refused, with the reason; only the name is
    blocked.""",
)
def answer_points_at_resolver() -> Made:
    capture = Capture()
    resolve(capture, "c2.bad.example", "8.8.8.8", "127.0.0.1", "10.0.0.1", txid=0x1001)
    resolve(capture, "c2.bad.example", "::ffff:10.0.0.1", "64:ff9b::808:808", "fe80::1", txid=0x1002)
    resolve(capture, "c2.bad.example", ATTACKER, txid=0x1003)
    return capture


@case(
    "forged-sni-framing",
    """A host sends a listed name as SNI to an innocent site's address. That is an accusation by one client: its own
    way there may be closed, the address for everybody may not. Other clients' visits are no attempts.""",
)
def forged_sni_framing() -> Made:
    capture = Capture()
    innocent = "198.51.100.20"
    visit(capture, "www.good.example", innocent, client="10.0.0.6", port=40_001)
    tls = Tcp(capture, (CLIENT, 40_002), (innocent, 443)).open()
    tls.send(hello("c2.bad.example")).receive(SERVER_HELLO).close()
    visit(capture, "www.good.example", innocent, client="10.0.0.7", port=40_003)
    return capture


@case(
    "forged-answer",
    """Answers for a listed name that nobody asked for: another transaction id, another port, a server that was not
    asked. They tie no address to the name for everybody. The true answer does.""",
)
def forged_answer() -> Made:
    capture = Capture()
    name, at = "c2.bad.example", (CLIENT, 50_001)
    record = f"{name} A 198.51.100.21"
    capture.udp(at, (RESOLVER, 53), question(name, 0x1001))
    capture.udp((RESOLVER, 53), at, answer(name, 0x1002, record))
    capture.udp((RESOLVER, 53), (CLIENT, 50_002), answer(name, 0x1001, record.replace(".21", ".22")))
    capture.udp(("10.0.0.99", 53), at, answer(name, 0x1001, record.replace(".21", ".23")))
    capture.udp((RESOLVER, 53), at, answer(name, 0x1001, record.replace("198.51.100.21", ATTACKER)))
    return capture


@case(
    "watch-three-clients",
    """After the block of a listed name three clients go on trying, by questions, hellos and bare connections to its
    address. Each is an incident of its own in one campaign, each further try a count, and a client's first try is
    told as such.""",
)
def watch_three_clients() -> Made:
    capture = Capture()
    visit(capture, "c2.bad.example", ATTACKER, client="10.0.0.5", port=40_001)
    for turn in range(2):
        for host in (6, 7):
            capture.wait(60)
            visit(capture, "b.bad.example", ATTACKER, client=f"10.0.0.{host}", port=40_010 + turn, txid=10 + turn)
    capture.wait(60)
    Tcp(capture, ("10.0.0.8", 40_020), (ATTACKER, 8_080)).open()  # no name at all: the address tells
    capture.wait(60)
    for _ in range(3):  # a retransmitted SYN is one contact
        Tcp(capture, ("10.0.0.5", 40_021), (ATTACKER, 443)).segment(flags="S")
        capture.wait(1)
    return capture


@case(
    "address-listed",
    """A listed address and a listed network are reached without any name. Neighbours of either are not.""",
)
def address_listed() -> Made:
    capture = Capture()
    for at, address in enumerate(("203.0.113.66", "203.0.113.67", "198.51.100.130", "198.51.100.126")):
        Tcp(capture, (CLIENT, 40_001 + at), (address, 8_443)).open().send(b"\x01\x02 no known protocol")
    capture.udp((CLIENT, 45_000), ("203.0.113.66", 9_999), b"beacon")
    return capture


@case(
    "forged-host-literal",
    """A host names a listed address in its Host field, but sends the request to an innocent server. Nothing ties that
    server to the listed address, so nobody else's way to it may close.""",
)
def forged_host_literal() -> Made:
    capture = Capture()
    innocent = ("198.51.100.20", 80)
    web = Tcp(capture, (CLIENT, 40_001), innocent).open()
    web.send(get("203.0.113.66", "/gate")).receive(OK).close()
    Tcp(capture, ("10.0.0.7", 40_002), innocent).open().send(b"\x01\x02 no known protocol")
    Tcp(capture, ("10.0.0.8", 40_003), innocent).open().send(get("www.good.example")).receive(OK).close()
    Tcp(capture, ("10.0.0.9", 40_004), ("203.0.113.66", 80)).open().send(b"\x01\x02 no known protocol")
    return capture


@case(
    "indicator-arrives-later",
    """The indicator comes into force half an hour into the capture. Who contacted the name before is found in history,
    with the count and the first time; what comes after is an attempt.""",
)
def indicator_arrives_later() -> Made:
    capture = Capture()
    for at in range(3):
        visit(capture, "c2.bad.example", ATTACKER, port=40_001 + at, txid=at)
        capture.wait(300)
    visit(capture, "www.good.example", SERVER, client="10.0.0.6", port=40_005)
    capture.wait(1_800)
    visit(capture, "c2.bad.example", ATTACKER, client="10.0.0.7", port=40_006)
    return capture


@case(
    "established-connection",
    """A connection that was open before the block goes on sending: it was counted when it opened and is no new
    attempt.""",
)
def established_connection() -> Made:
    capture = Capture()
    resolve(capture, "c2.bad.example", ATTACKER)
    tls = Tcp(capture, (CLIENT, 40_001), (ATTACKER, 443)).open().send(hello("c2.bad.example")).receive(SERVER_HELLO)
    for _ in range(6):
        capture.wait(20)
        tls.send(APPLICATION).receive(APPLICATION)
    tls.close()
    return capture


@case(
    "allowances",
    """The four allowances: a client that is ignored, a destination allowed for one client only, an indicator that is
    ignored, and a name that is never blocked but still alerts.""",
)
def allowances() -> Made:
    capture = Capture()
    asked = (
        ("10.0.0.9", "c2.bad.example"),
        ("10.0.0.6", "tools.bad.example"),
        ("10.0.0.7", "tools.bad.example"),
        ("10.0.0.8", "x.sinkholed.example"),
        ("10.0.0.8", "portal.worse.example"),
        ("10.0.0.8", "portal.worse.example"),
    )
    for at, (client, name) in enumerate(asked):
        resolve(capture, name, f"198.51.100.{30 + at}", client=client, port=50_000 + at, txid=at)
        capture.wait(10)
    return capture


@case(
    "own-domain-listed",
    """Somebody lists a name under one of the operator's own registered domains, which the configuration tells. The
    block narrows to that name and what is below it; the rest of the domain is not touched.""",
)
def own_domain_listed() -> Made:
    capture = Capture()
    visit(capture, "www.ours.example", "192.0.2.40", port=40_001)
    visit(capture, "hacked.ours.example", "192.0.2.41", port=40_002)
    visit(capture, "deep.hacked.ours.example", "192.0.2.42", client="10.9.0.5", port=40_003)
    return capture
