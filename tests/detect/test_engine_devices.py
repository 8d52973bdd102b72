"""When the engine looks at who sent a frame: seldom, and whenever it counts."""

from __future__ import annotations

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from egressd.detect.devices import SAMPLE_US
from egressd.detect.incident_shares import MAX_APART
from egressd.detect.live import MAX_SPOKEN
from egressd.wire.dissector import Dissector
from tests.detect.live_scene import LiveScene
from tests.detect.scene import A, X, packed

X6 = "2001:db8:ffff::1"
LAPTOP, PRINTER = bytes.fromhex("021a2b000001"), bytes.fromhex("021a2b000002")


class Tap:
    """An engine that is fed with connections' first packets."""

    def __init__(self, lists: str = "bad.example\n") -> None:
        self.engine = LiveScene(lists).engine
        self.dissector = Dissector(self.engine.observe)
        self.engine.packets = self.dissector
        self.engine.sender_of = self.dissector.sender

    def connection(self, second: int, mac: bytes = LAPTOP, client: str = A, ttl: int = 64) -> None:
        address = IPv6(src=client, dst=X6, hlim=ttl) if ":" in client else IP(src=client, dst=X, ttl=ttl)
        segment = address / TCP(sport=40_000 + second % 10_000, dport=443, flags="S")
        octets = bytes(Ether(src=mac.hex(":"), dst="02:00:00:00:00:01") / segment)
        self.dissector.packet(second * 1_000_000, second, 1, octets, 0, len(octets), len(octets))


def test_a_client_is_looked_at_when_it_is_new_and_once_a_minute() -> None:
    tap = Tap()
    looked = []
    for second in range(181):
        tap.connection(second)
        looked += tap.engine.take_spoken(10)
    every_s = SAMPLE_US // 1_000_000
    assert looked == [(LAPTOP, packed(A), True, second * 1_000_000) for second in range(0, 181, every_s)]


def test_with_each_sighting_it_is_asked_whose_frame_it_is() -> None:
    tap = Tap(f"{X}\n")
    tap.connection(1, LAPTOP)
    tap.connection(2, PRINTER)
    found = [(one.id, one.device) for one in tap.engine.campaigns.incidents.values()]
    assert found == [("I1", "02:1a:2b:00:00:01"), ("I2", "02:1a:2b:00:00:02")]


def test_samples_that_wait_are_bounded_and_counted() -> None:
    tap = Tap()
    for number in range(MAX_SPOKEN + 3):
        tap.connection(0, client=f"10.1.{number >> 8}.{number & 255}")
    assert (len(tap.engine.spoken), tap.engine.spoken_beyond) == (MAX_SPOKEN, 3)
    assert len(tap.engine.take_spoken(100)) == 100
    assert len(tap.engine.spoken) == MAX_SPOKEN - 100


def many_addresses(tap: Tap, ttl: int = 64) -> None:
    for number in range(1, 1_001):
        tap.connection(number, client=f"2001:db8::{number:x}", ttl=ttl)


def test_a_host_with_a_thousand_addresses_opens_few_incidents() -> None:
    """It is no device, for it may be a bridge with hosts behind it: those have incidents of their own, to a bound."""
    tap = Tap(f"{X6}\n")
    many_addresses(tap)
    campaigns = tap.engine.campaigns
    assert campaigns.devices.why_none(LAPTOP) == "several hosts: used 32 IPv6 addresses in a day"
    assert len(campaigns.incidents) == MAX_APART
    assert sum(one.contacts for one in campaigns.incidents.values()) == 1_000
    tap.connection(1_001, PRINTER, "2001:db8::fffe")
    assert len(campaigns.incidents) == MAX_APART + 1, "another machine has its own"
    assert campaigns.incidents["I17"].device == "02:1a:2b:00:00:02"


def test_hosts_behind_a_router_are_not_joined() -> None:
    tap = Tap(f"{X6}\n")
    many_addresses(tap, ttl=63)
    assert len(tap.engine.campaigns.incidents) == 1_000
