"""Cases of harm: traffic in which a careless block would cut off innocent people (docs/harm.md)."""

from __future__ import annotations

from pcaps.cases import Made, case
from pcaps.cases_policy import ATTACKER, SHARED, visit
from pcaps.hellos import SERVER_HELLO, hello
from pcaps.packets import CLIENT, OK, RESOLVER, Capture, Tcp, answer, get, question, resolve


@case(
    "cdn-range",
    """The listed name is the first that anybody visits on an address of a content delivery network. The range, from a
    file of the configuration, says that the address is shared: the name is blocked and no address, by IPv4 or by NAT64.
    A listed address in the range alerts; so does an address of the shipped ranges. One outside is blocked.""",
)
def cdn_range() -> Made:
    capture = Capture()
    visit(capture, "c2.bad.example", SHARED, port=40_001)
    resolve(capture, "c2.bad.example", "64:ff9b::cb00:7150", txid=2)
    resolve(capture, "c2.bad.example", "104.16.1.1", txid=3)
    resolve(capture, "c2.bad.example", ATTACKER, txid=4)
    Tcp(capture, (CLIENT, 40_002), ("203.0.113.81", 443)).open()
    return capture


@case(
    "fast-flux",
    """A listed name answers with forty addresses, two at a time. Sixteen are added to its block, one refusal is told,
    and the name stays blocked; the host is one incident.""",
)
def fast_flux() -> Made:
    capture = Capture()
    for turn in range(20):
        first = f"198.51.100.{100 + 2 * turn}"
        resolve(capture, "c2.bad.example", first, f"198.51.100.{101 + 2 * turn}", txid=turn + 1)
        Tcp(capture, (CLIENT, 40_001 + turn), (first, 443)).open()
        capture.wait(2)
    return capture


@case(
    "fronting",
    """A host that resolved a listed name says an innocent one in its handshake (domain fronting), which proves nothing
    about who lives there: the address stays blocked. Another sends a listed Host to an innocent server: only its own
    way there may close, and the innocent site's visitors are no attempts.""",
)
def fronting() -> Made:
    capture = Capture()
    resolve(capture, "c2.bad.example", ATTACKER)
    fronted = Tcp(capture, (CLIENT, 40_001), (ATTACKER, 443)).open()
    fronted.send(hello("www.good.example")).receive(SERVER_HELLO).close()
    visit(capture, "www.florist.example", SHARED, client="10.0.0.6", port=40_002)
    web = Tcp(capture, ("10.0.0.7", 40_003), (SHARED, 80)).open()
    web.send(get("c2.bad.example")).receive(OK).close()
    visit(capture, "www.florist.example", SHARED, client="10.0.0.6", port=40_004)
    return capture


@case(
    "parked-domain",
    """A listed domain has been given up and points at a parking host, beside the parked domains of many others that
    hosts here have looked up. The name is blocked, the parking host is not.""",
)
def parked_domain() -> Made:
    capture = Capture()
    for number in range(12):
        resolve(capture, f"parked{number}.example", SHARED, client="10.0.0.6", port=50_001 + number, txid=number)
    visit(capture, "c2.bad.example", SHARED, port=40_001, txid=99)
    return capture


@case(
    "sinkholed-domain",
    """A filtering resolver answers the listed name with no address (0.0.0.0, ::) and with the loopback address, a
    research network with its sinkhole, which the operator never blocks. None of them is blocked; the host that asked is
    an incident.""",
)
def sinkholed_domain() -> Made:
    capture = Capture()
    resolve(capture, "c2.bad.example", "0.0.0.0", txid=1)
    resolve(capture, "c2.bad.example", "::", txid=2)
    resolve(capture, "c2.bad.example", "127.0.0.1", txid=3)
    visit(capture, "b.bad.example", "198.51.100.99", port=40_001, txid=4)
    return capture


@case(
    "ipv6-twins",
    """A listed name has addresses of both families, an IPv4-mapped one, and one behind NAT64 on whose IPv4 host an
    innocent site lives. All are blocked as packets carry them, except the last: only the host that asked is kept from
    it.""",
)
def ipv6_twins() -> Made:
    capture = Capture()
    visit(capture, "www.florist.example", SHARED, client="10.0.0.6", port=40_001)
    resolve(capture, "c2.bad.example", ATTACKER, txid=2)
    resolve(capture, "c2.bad.example", "2001:db8::66", txid=3)
    resolve(capture, "c2.bad.example", "::ffff:198.51.100.67", txid=4)
    resolve(capture, "c2.bad.example", "64:ff9b::cb00:7150", txid=5)
    return capture


@case(
    "cname-into-innocent-network",
    """A listed name leads by CNAME to a name of a content delivery network. The network's own name shows that others
    live there: the host that asked is kept from the address, nobody else is.""",
)
def cname_into_innocent_network() -> Made:
    capture = Capture()
    at = (CLIENT, 50_001)
    capture.udp(at, (RESOLVER, 53), question("c2.bad.example", 1))
    chain = ("c2.bad.example CNAME e7.cdn-edge.example.", f"e7.cdn-edge.example A {SHARED}")
    capture.udp((RESOLVER, 53), at, answer("c2.bad.example", 1, *chain))
    Tcp(capture, (CLIENT, 40_001), (SHARED, 443)).open().send(hello("c2.bad.example")).receive(SERVER_HELLO).close()
    visit(capture, "www.florist.example", SHARED, client="10.0.0.6", port=40_002)
    return capture


@case(
    "resolver-inside",
    """A resolver inside asks the listed name's own server, which answers with the address of a name server that the
    resolver needs. The resolver is an incident, but no pair is made of it. What it tells a host is evidence like any
    configured resolver's.""",
)
def resolver_inside() -> Made:
    capture = Capture()
    resolve(capture, "c2.bad.example", "192.0.2.53", client=RESOLVER, resolver="198.51.100.53", txid=1)
    resolve(capture, "c2.bad.example", ATTACKER, client="10.0.0.6", txid=2)
    return capture


@case(
    "rebinding",
    """A listed name answers with its own address and then with addresses inside (DNS rebinding). The outside one is
    blocked; those inside, and the network's own resolver, are refused.""",
)
def rebinding() -> Made:
    capture = Capture()
    resolve(capture, "c2.bad.example", ATTACKER, txid=1)
    resolve(capture, "c2.bad.example", "10.0.0.1", "192.168.1.1", RESOLVER, txid=2)
    resolve(capture, "c2.bad.example", "fd00::1", txid=3)
    return capture


@case(
    "listed-address-shared",
    """A feed lists the address of a web host. Hosts here have looked up three sites on it: sightings alert, nothing is
    blocked. Of another listed address the sites are seen only after its block, which ends with the third.""",
)
def listed_address_shared() -> Made:
    capture = Capture()
    sites = ("florist", "library", "school")
    for at, site in enumerate(sites):
        resolve(capture, f"www.{site}.example", SHARED, client="10.0.0.6", port=50_001 + at, txid=at)
    Tcp(capture, (CLIENT, 40_010), (SHARED, 8_080)).open()
    Tcp(capture, (CLIENT, 40_011), (ATTACKER, 8_080)).open()
    for at, site in enumerate(sites):
        resolve(capture, f"www.{site}2.example", ATTACKER, client="10.0.0.6", port=50_020 + at, txid=20 + at)
    Tcp(capture, (CLIENT, 40_012), (ATTACKER, 8_080)).open()
    return capture


@case(
    "captive-portal",
    """A portal answers every name with its own address until a guest has signed in, the listed name first. The next
    innocent name gives the address free, and after the third nobody is kept from it.""",
)
def captive_portal() -> Made:
    capture = Capture()
    visit(capture, "c2.bad.example", SHARED, port=40_001, txid=1)
    for at, site in enumerate(("florist", "library", "school")):
        visit(capture, f"www.{site}.example", SHARED, client="10.0.0.6", port=40_002 + at, txid=2 + at)
    visit(capture, "c2.bad.example", SHARED, client="10.0.0.7", port=40_009, txid=9)
    return capture


@case(
    "popular-site-listed",
    """A feed lists a popular site whole for an hour, and one name under another. The popularity list keeps both: the
    first alerts, of the second only the listed name is blocked.""",
)
def popular_site_listed() -> Made:
    capture = Capture()
    visit(capture, "www.popular.example", SHARED, port=40_001)
    visit(capture, "www.famous.example", "203.0.113.82", port=40_002)
    visit(capture, "files.famous.example", ATTACKER, port=40_003)
    return capture


@case(
    "outsiders-to-our-server",
    """On a mirror port twenty strangers say the listed name to a web server inside, by HTTP and TLS, and ask the name
    server there for it. None of them is a host of ours. One host that goes to the listed site is the only incident.""",
)
def outsiders_to_our_server() -> Made:
    capture = Capture()
    visit(capture, "c2.bad.example", ATTACKER, port=40_001)
    for number in range(1, 21):
        outsider = f"203.0.113.{number}"
        capture.udp((outsider, 40_001), ("10.0.0.54", 53), question("c2.bad.example", number))
        web = Tcp(capture, (outsider, 40_002), ("10.0.0.80", 80)).open()
        web.send(get("c2.bad.example")).receive(OK).close()
        tls = Tcp(capture, (outsider, 40_003), ("10.0.0.80", 443)).open()
        tls.send(hello("c2.bad.example")).receive(SERVER_HELLO).close()
    return capture
