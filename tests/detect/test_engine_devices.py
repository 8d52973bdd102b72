"""When the engine looks at who sent a frame: seldom, and whenever it counts."""

from __future__ import annotations

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from egressd.detect.devices import SAMPLE_US
from egressd.detect.live import MAX_SPOKEN
from egressd.wire.dissector import Dissector
from tests.detect.live_scene import LiveScene
from tests.detect.scene import A, X, packed

LAPTOP, PRINTER = bytes.fromhex("021a2b000001"), bytes.fromhex("021a2b000002")


class Tap:
    """An engine that is fed with connections' first packets."""

    def __init__(self, lists: str = "bad.example\n") -> None:
        self.engine = LiveScene(lists).engine
        self.dissector = Dissector(self.engine.observe)
        self.engine.packets = self.dissector
        self.engine.sender_of = self.dissector.sender

    def connection(self, second: int, mac: bytes = LAPTOP, client: str = A) -> None:
        segment = IP(src=client, dst=X, ttl=64) / TCP(sport=40_000 + second % 10_000, dport=443, flags="S")
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
