"""What a packet process consists of, without its sockets: dissector and live engine in the loop of
`egressd/runtime/packet_process.py`, 64 packets to a turn, then the look for garbage, twenty times a second history and
passive DNS. It takes packets as a sink of a reader does."""

from __future__ import annotations

from pathlib import Path

from bench.traffic import planted_list
from egressd.config.load import default_config, load_intel
from egressd.config.settings import policy_settings
from egressd.detect.gathering import GATHER_US
from egressd.detect.live import LiveEngine
from egressd.model import Event
from egressd.runtime.heap import keep_large_apart
from egressd.runtime.packet_process import BULK_US, MAX_BULK_ROWS, PACKETS_PER_TURN
from egressd.runtime.young import YoungObjects
from egressd.wire import quic
from egressd.wire.dissector import Dissector


def write_planted(path: Path) -> Path:
    """A blocklist of what bench/traffic.py plants."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(planted_list(), encoding="ascii")
    return path


class PacketPath:
    """Reads packets, judges what they tell, and reports to nobody."""

    def __init__(self, blocklist: Path) -> None:
        config = default_config()
        intel = load_intel(config, [blocklist], base_dir=Path()).intel
        self.events = 0
        self.engine = LiveEngine(
            intel, policy_settings(config), self._event, enforced=True, first_number=1, stride=1
        )  # fmt: skip
        self.dissector = Dissector(self.engine.observe, config.limits.conversations)
        self.engine.packets = self.dissector
        self.quiet = self.dissector.quiet
        self.quiet_udp = self.dissector.quiet_udp
        self.recent = self.dissector.recent
        self.packets = 0
        self._bulk_due_us = 0

    def begin(self) -> None:
        """As the process does before its first packet."""
        keep_large_apart()
        quic.prepare()
        self.young = YoungObjects()

    def _event(self, event: Event) -> None:
        self.events += 1

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        """A packet, and after some the rest of a turn."""
        self.dissector.packet(ts_us, number, link, buf, start, end, orig_len)
        self.packets += 1
        if self.packets % PACKETS_PER_TURN == 0:
            self.look()
            self.engine.carry_on(1)
            if ts_us >= self._bulk_due_us:
                self._bulk_due_us = ts_us + BULK_US
                self.report(ts_us)

    def look(self) -> bool:
        """Look for garbage; whether it was due."""
        return self.young.look(self.dissector.packets)

    def report(self, now_us: int) -> None:
        """What is told twenty times a second."""
        self.engine.tick(now_us)
        self.engine.gathering.take(MAX_BULK_ROWS, now_us - GATHER_US)
        self.engine.take_learned()
