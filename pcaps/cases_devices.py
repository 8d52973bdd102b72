"""Cases of device identity: which addresses are one machine's, and which only seem so (egressd/detect/devices.py)."""

from __future__ import annotations

from collections.abc import Mapping

from scapy.layers.l2 import Ether
from scapy.packet import Packet as Layer

from pcaps.cases import Made, case
from pcaps.hellos import SERVER_HELLO, hello
from pcaps.packets import ETHERNET, GATEWAY_MAC, Capture, Tcp, mac_of

BAD = "c2.bad.example"
ATTACKER = "198.51.100.66"
ATTACKER_6 = "2001:db8:a::66"
LAPTOP = "02:1a:2b:00:00:01"
PRINTER = "02:1a:2b:00:00:02"
ROUTER = "02:1a:2b:00:00:fe"


def link(macs: dict[str, str], *, ttl: int = 64) -> Capture:
    """A capture on the hosts' link; `macs` says who sends under which MAC, and may change meanwhile."""
    return Capture(ETHERNET, lambda packet: _frame(packet, macs, ttl))


def _frame(packet: Layer, macs: Mapping[str, str], ttl: int) -> bytes:
    source, target = macs.get(packet.src, mac_of(packet.src)), macs.get(packet.dst, mac_of(packet.dst))
    if packet.src in macs:
        packet = packet.copy()
        setattr(packet, "ttl" if packet.version == 4 else "hlim", ttl)
    assert GATEWAY_MAC in (source, target)
    return bytes(Ether(src=source, dst=target) / packet)


def contact(capture: Capture, client: str, port: int) -> None:
    """A TLS connection to the listed name, its address known from somewhere else."""
    server = ATTACKER_6 if ":" in client else ATTACKER
    Tcp(capture, (client, port), (server, 443)).open().send(hello(BAD)).receive(SERVER_HELLO).close()


@case(
    "device-changes-address",
    """A laptop contacts the listed name, sleeps for ten minutes, and comes back under another address with the same
    MAC. It is one machine: one incident, which lists both addresses.""",
)
def device_changes_address() -> Made:
    capture = link({"10.0.0.7": LAPTOP, "10.0.0.9": LAPTOP})
    contact(capture, "10.0.0.7", 40_001)
    capture.wait(600)
    contact(capture, "10.0.0.9", 40_002)
    return capture


@case(
    "device-changes-address-quickly",
    """The laptop's address changes within seconds and no lease says so: by then it could be a second machine on a
    bridge. Its new address gets an incident of its own, which the first one takes over when the earlier address has
    been quiet for five minutes.""",
)
def device_changes_address_quickly() -> Made:
    capture = link({"10.0.0.7": LAPTOP, "10.0.0.9": LAPTOP})
    contact(capture, "10.0.0.7", 40_001)
    capture.wait(10)
    for number in range(7):
        contact(capture, "10.0.0.9", 40_010 + number)
        capture.wait(60)
    return capture


@case(
    "device-privacy-addresses",
    """A machine uses two IPv6 privacy addresses by turns (RFC 8981), and IPv4 beside them: one incident with three
    addresses.""",
)
def device_privacy_addresses() -> Made:
    addresses = ("2001:db8:5::a", "2001:db8:5::b", "10.0.0.7")
    capture = link(dict.fromkeys(addresses, LAPTOP))
    for number in range(6):
        contact(capture, addresses[number % 3], 40_001 + number)
        capture.wait(20)
    return capture


@case(
    "device-address-handed-on",
    """The laptop leaves, and its address is given to the printer, which contacts the listed name as well: another MAC,
    so another machine and another incident, though the address is the same.""",
)
def device_address_handed_on() -> Made:
    macs = {"10.0.0.7": LAPTOP}
    capture = link(macs)
    contact(capture, "10.0.0.7", 40_001)
    capture.wait(3_600)
    macs["10.0.0.7"] = PRINTER
    contact(capture, "10.0.0.7", 40_002)
    capture.wait(60)
    contact(capture, "10.0.0.7", 40_003)
    return capture


@case(
    "device-behind-router",
    """Two hosts behind a router contact the listed name, an hour apart. Both speak under the router's MAC; their TTL
    shows that they do not stand on this link. They are two machines: two incidents, without a device.""",
)
def device_behind_router() -> Made:
    capture = link({"10.0.8.7": ROUTER, "10.0.8.9": ROUTER}, ttl=63)
    contact(capture, "10.0.8.7", 40_001)
    capture.wait(3_600)
    contact(capture, "10.0.8.9", 40_002)
    return capture


@case(
    "device-behind-bridge",
    """A wireless bridge that sends for two hosts under its own MAC and takes nothing off the TTL: they speak by turns,
    within seconds. Two incidents; the MAC is no device from then on.""",
)
def device_behind_bridge() -> Made:
    capture = link({"10.0.0.7": ROUTER, "10.0.0.9": ROUTER})
    for number in range(3):
        for at, client in enumerate(("10.0.0.7", "10.0.0.9")):
            contact(capture, client, 40_001 + 10 * number + at)
            capture.wait(5)
    capture.wait(900)
    contact(capture, "10.0.0.9", 40_100)
    return capture
