"""Ethernet frames made by hand, quickly, and a dissector to put them through: for tests of whole conversations."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from egressd.model import FLOW, REPLY, Observation
from egressd.wire.dissector import Dissector

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
EPOCH_US = 1_700_000_000_000_000
STEP_US = 1_000
CLIENT = "10.0.0.5"
SERVER = "192.0.2.10"
MODULUS = 1 << 32


def frame(source: str, target: str, proto: int, body: bytes) -> bytes:
    """An IP packet in an Ethernet frame; checksums are left empty."""
    here, there = ip_address(source).packed, ip_address(target).packed
    if len(here) == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, proto, 0) + here + there
        return bytes(12) + b"\x08\x00" + head + body
    return bytes(12) + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(body), proto, 64) + here + there + body


def tcp(
    source: tuple[str, int], target: tuple[str, int], seq: int, flags: int, payload: bytes = b"", ack: int = 0
) -> bytes:
    """A TCP segment in a frame."""
    head = struct.pack(">HHIIBBHHH", source[1], target[1], seq % MODULUS, ack % MODULUS, 0x50, flags, 64_240, 0, 0)
    return frame(source[0], target[0], 6, head + payload)


def udp(source: tuple[str, int], target: tuple[str, int], payload: bytes) -> bytes:
    """A UDP datagram in a frame."""
    return frame(source[0], target[0], 17, struct.pack(">HHHH", source[1], target[1], 8 + len(payload), 0) + payload)


class Tap:
    """A dissector and what it saw. Every frame comes a millisecond after the one before."""

    def __init__(self, conversations: int = 1_000) -> None:
        self.seen: list[Observation] = []
        self.dissector = Dissector(self.seen.append, conversations)
        self.now_us = EPOCH_US
        self.number = 0

    def put(self, octets: bytes, cut: int = 0) -> None:
        """One frame, of which the last `cut` bytes were not captured. Stray bytes stand around it in the buffer."""
        self.number += 1
        buf = b"\x16\x03" + octets[: len(octets) - cut] + b"\x16\x03\x01GET / "
        end = 2 + len(octets) - cut
        self.dissector.packet(self.now_us, self.number, 1, buf, 2, end, len(octets))
        self.now_us += STEP_US

    def wait(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)

    def flush(self) -> Tap:
        self.dissector.flush()
        return self

    def kinds(self) -> list[str]:
        return [seen.kind for seen in self.seen]

    def count(self, kind: str) -> int:
        return self.kinds().count(kind)

    def told(self) -> list[tuple[str, str, str]]:
        """(kind, name or text as sent, note) of what was told by content."""
        return [
            (seen.kind, seen.name or seen.raw_name, seen.note) for seen in self.seen if seen.kind not in (FLOW, REPLY)
        ]

    def names(self) -> list[str]:
        return [name for _, name, _ in self.told()]


class Line:
    """One TCP connection through a tap. Offsets count the bytes of a direction from 0."""

    def __init__(
        self,
        tap: Tap,
        client: tuple[str, int] = (CLIENT, 40_000),
        server: tuple[str, int] = (SERVER, 443),
        isn: tuple[int, int] = (1_000, 9_000),
    ) -> None:
        self.tap = tap
        self.ends = (client, server)
        self.isn = isn
        self.sent = [0, 0]

    def made(self, side: int, at: int, data: bytes = b"", flags: int = ACK) -> bytes:
        """A segment of the client (`side` 0) or the server (1) that begins at offset `at`; SYN and its like at -1."""
        source, target = self.ends[side], self.ends[1 - side]
        return tcp(source, target, self.isn[side] + 1 + at, flags, data, self.isn[1 - side] + 1)

    def syn(self, data: bytes = b"") -> Line:
        self.tap.put(self.made(0, -1, data, SYN))
        return self

    def syn_ack(self) -> Line:
        self.tap.put(self.made(1, -1, b"", SYN | ACK))
        return self

    def open(self) -> Line:
        self.syn().syn_ack()
        self.tap.put(self.made(0, 0))
        return self

    def send(self, data: bytes, at: int | None = None, side: int = 0, flags: int = ACK | PSH) -> Line:
        """The client sends one segment, at its place or at any other."""
        place = self.sent[side] if at is None else at
        self.sent[side] = max(self.sent[side], place + len(data))
        self.tap.put(self.made(side, place, data, flags))
        return self

    def receive(self, data: bytes, at: int | None = None) -> Line:
        return self.send(data, at, 1)

    def close(self) -> Line:
        for side in (0, 1):
            self.tap.put(self.made(side, self.sent[side], b"", FIN | ACK))
        return self
