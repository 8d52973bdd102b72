"""The canary: a question of our own, sent once a minute on each watched interface, proves that we see and block.

It goes the way of every packet: out by a raw socket, in by the ring, through the dissector to the engine, and from
there by the fast lane into a scratch set of the kernel, where it is looked for and taken out: a sensor that is silently
dead is the worst of bugs. The frame is addressed to the interface itself, so no switch forwards it to anybody.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from struct import pack
from typing import Any, Final

from egressd.clock import Clock
from egressd.detect.live import CANARY_SOURCE, CANARY_TARGET
from egressd.enforce.adapter import AdapterError
from egressd.notify.eve import render_time
from egressd.runtime.canary_names import canary_address, canary_name
from egressd.runtime.enforcement import Enforcement

EVERY_S: Final = 60.0
WAIT_S: Final = 3.0
FAILS: Final = 2  # in a row, before it is an alarm: a burst may cost one packet
PORT: Final = 53
FAILING: Final = "failing"


class Canary:
    """Sends canaries and says how the last ones fared."""

    def __init__(self, clock: Clock, enforcement: Enforcement, sent: dict[str, int]) -> None:
        """`sent` counts the canaries by interface."""
        self.enabled = True
        self.state = "starting"
        self.last_ok_us = 0
        self.seen_us: dict[str, int] = {}  # when the last one was seen, by interface
        self.detect_ms: float | None = None
        self.push_ms: float | None = None
        self.failures = 0
        self.problem = ""
        self._clock = clock
        self._enforcement = enforcement
        self._row = 0
        self._number = int.from_bytes(pack("!Q", clock.now_us())[-4:], "big")
        self._waiting: dict[str, asyncio.Future[tuple[int, int]]] = {}
        self._sent = sent

    def seen(self, name: str, seen_us: int, pushed_us: int) -> None:
        """A packet process saw the canary of this name, and pushed it (-1: did not)."""
        future = self._waiting.get(name)
        if future is not None and not future.done():
            future.set_result((seen_us, pushed_us))

    async def run(self, interfaces: Callable[[], list[str]]) -> None:
        """Once a minute, until cancelled, on the interfaces there are then."""
        while True:
            await self.prove(interfaces())
            await asyncio.sleep(EVERY_S if self.state == "ok" else 5.0)

    async def prove(self, interfaces: list[str]) -> list[tuple[str, bool, str, float]]:
        """Send one on each interface; returns (what, whether it worked, detail, milliseconds) step by step."""
        steps: list[tuple[str, bool, str, float]] = []
        good = bool(interfaces)
        for interface in interfaces:
            found = await self._prove_one(interface)
            steps += found
            good = good and all(ok for _, ok, _, _ in found)
        self._row = 0 if good else self._row + 1
        if good:
            self.state = "ok"
            self.problem = ""
            self.last_ok_us = self._clock.now_us()
        else:
            self.failures += 1
            self.problem = "; ".join(f"{what}: {detail}" for what, ok, detail, _ in steps if not ok)
            if self._row >= FAILS or self.state == "starting":
                self.state = FAILING
        return steps

    def told(self) -> dict[str, Any]:
        """For a screen."""
        return {
            "state": self.state if self.enabled else "off",
            "last_ok": render_time(self.last_ok_us) if self.last_ok_us else None,
            "detect_ms": self.detect_ms,
            "push_ms": self.push_ms,
            "problem": self.problem or None,
        }

    async def _prove_one(self, interface: str) -> list[tuple[str, bool, str, float]]:
        self._number = (self._number + 1) & 0xFFFFFFFF
        name = canary_name(self._number.to_bytes(4, "big"))
        future: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        try:
            sent_us = self._clock.now_us()
            send_question(interface, name, self._number & 0xFFFF)
            self._sent[interface] = self._sent.get(interface, 0) + 1
            async with asyncio.timeout(WAIT_S):
                _, pushed_us = await future
        except TimeoutError:
            return [(f"detect {interface}", False, "the canary's question was not seen", WAIT_S * 1000)]
        except OSError as error:
            return [(f"detect {interface}", False, f"the canary could not be sent: {error.strerror}", 0.0)]
        finally:
            del self._waiting[name]
        seen_us = self._clock.now_us()
        self.seen_us[interface] = seen_us
        self.detect_ms = round((seen_us - sent_us) / 1000, 2)
        steps = [(f"detect {interface}", True, "a question was seen and told", self.detect_ms)]
        if pushed_us >= 0:
            try:
                there = await self._enforcement.take_canary(canary_address(name))
            except AdapterError as error:
                steps.append((f"push {interface}", False, str(error), 0.0))
                return steps
            self.push_ms = round((self._clock.now_us() - seen_us) / 1000, 2)
            detail = "pushed, found in the kernel, removed" if there else "pushed, but not in the kernel's scratch set"
            steps.append((f"push {interface}", there, detail, self.push_ms))
        return steps


def send_question(interface: str, name: str, txid: int) -> None:
    """Send a DNS question for `name` out on an interface, to its own hardware address. Raises OSError."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0x0800))
        own: bytes = sock.getsockname()[4]
        ip = _question(name, txid)
        if len(own) == 6:
            sock.send(own + b"\x02\x00\x00\x00\x00\x01" + b"\x08\x00" + ip)
        else:
            raise OSError(0, "an interface without hardware addresses carries no canary")


def _question(name: str, txid: int) -> bytes:
    """An IPv4 packet with the question (RFC 1035 section 4.1; checksums right, for whoever looks)."""
    labels = b"".join(bytes((len(label),)) + label.encode("ascii") for label in name.split("."))
    dns = pack("!HHHHHH", txid, 0x0100, 1, 0, 0, 0) + labels + b"\0" + pack("!HH", 1, 1)
    udp = pack("!HHHH", 40_000 + txid % 20_000, PORT, 8 + len(dns), 0) + dns
    head = pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), txid, 0, 1, 17, 0, CANARY_SOURCE, CANARY_TARGET)
    total = sum(int.from_bytes(head[at : at + 2], "big") for at in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + pack("!H", ~total & 0xFFFF) + head[12:] + udp
