"""The packet process's way up: events and sums to the core, in batches, without ever waiting for it.

A sighting is never dropped: what it counts goes into the tally, which is sent when there is room. Decisions and first
signs go at once; of the rest so many are told one by one and the others only counted.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from egressd.metrics.histogram import Histogram
from egressd.model import Attempt, Decision, Event, Incident, Sighting
from egressd.runtime.messages import pack_event, render_batch
from egressd.runtime.tally import Tally

FLUSH_US: Final = 250_000  # what is not urgent waits this long
STATS_US: Final = 1_000_000
TOLD_PER_BATCH: Final = 64  # sightings and attempts told one by one in FLUSH_US; 256 a second
MAX_WAITING_BYTES: Final = 8 << 20  # in front of a core that does not read: from here on only sums are kept


class Reporter:
    """Collects what happens and sends it up a stream socket that it does not own."""

    def __init__(self, up: socket.socket) -> None:
        self.tally = Tally()
        self.untold = 0  # sightings and attempts that were only counted
        self.pushed = Histogram()
        self.canaries: list[list[Any]] = []
        self._up = up
        self._events: list[list[Any]] = []
        self._told = 0
        self._window_us = 0  # until then no more are told one by one
        self._waiting = bytearray()
        self._urgent = False
        self._due_us = 0
        self._stats_due_us = 0
        self._number = 0
        self._pushed_told = 0

    def event(self, event: Event) -> None:
        """Take an event of the engine."""
        if isinstance(event, Sighting):
            self.tally.sighting(event)
            self._tell(event, event.retro)
        elif isinstance(event, Attempt):
            self.tally.attempt(event)
            self._tell(event, event.first or event.leak)
        elif isinstance(event, Decision):
            self._events.append(pack_event(event))
            self._urgent = True
        elif isinstance(event, Incident):
            self._urgent = True  # its sums tell the rest

    def answered(self, incident: Incident) -> None:
        """The engine counts an answer."""
        self.tally.answered(incident)

    def canary(self, name: str, seen_us: int, pushed_us: int) -> None:
        """A canary's question was seen, and pushed into the kernel (-1 when it was not)."""
        self.canaries.append([name, seen_us, pushed_us])
        self._urgent = True

    def _tell(self, event: Sighting | Attempt, urgent: bool) -> None:
        if self._told >= TOLD_PER_BATCH and not urgent:
            self.untold += 1
            return
        if self._told >= 16 * TOLD_PER_BATCH:
            self.untold += 1
            return
        self._told += 1
        self._urgent = self._urgent or urgent
        self._events.append(pack_event(event))

    def clock_was_set(self) -> None:
        """What was due by the clock of before is due now, or nothing would be told until it is that late again."""
        self._due_us = self._stats_due_us = self._window_us = 0

    def due(self, now_us: int) -> bool:
        """Whether something should be sent now."""
        return self._urgent or now_us >= self._due_us or now_us >= self._stats_due_us

    def wait_ms(self, now_us: int) -> int:
        """How long nothing needs to be sent."""
        return max(0, min(self._due_us, self._stats_due_us) - now_us) // 1000 + 1

    @property
    def is_stuck(self) -> bool:
        """The core does not read: sums wait here."""
        return len(self._waiting) > MAX_WAITING_BYTES

    def wants_stats(self, now_us: int) -> bool:
        """Whether the next batch should say how the process is: once a second, and when it has blocked something."""
        return now_us >= self._stats_due_us or self.pushed.count != self._pushed_told

    def send(self, now_us: int, stats: dict[str, Any] | None, bulk: dict[str, Any]) -> None:
        """Send what there is. `bulk` is what may be lost (history, passive DNS)."""
        self._urgent = False
        self._due_us = now_us + FLUSH_US
        if stats is not None:
            self._stats_due_us = now_us + STATS_US
            self._pushed_told = self.pushed.count
        if self.is_stuck:
            self._flush()
            return
        if self._events or len(self.tally) or stats is not None or bulk or self.canaries:
            self._number += 1
            batch: dict[str, Any] = {"n": self._number, "t": now_us}
            if self._events:
                batch["events"] = self._events
                self._events = []
            if len(self.tally):
                batch.update(self.tally.take())
                self._urgent = len(self.tally) > 0  # what did not fit in comes at once
            if self.canaries:
                batch["canaries"] = self.canaries
                self.canaries = []
            if stats is not None:
                batch["stats"] = stats
            batch.update(bulk)
            self._waiting += render_batch(batch)
        if now_us >= self._window_us:
            self._window_us = now_us + FLUSH_US
            self._told = 0
        self._flush()

    def finish(self) -> None:
        """Send all that waits, waiting for the core this once."""
        self._up.settimeout(5.0)
        try:
            self._up.sendall(self._waiting)
        except OSError:
            return  # it has gone: nobody is left to tell
        self._waiting.clear()

    def _flush(self) -> None:
        while self._waiting:
            try:
                sent = self._up.send(self._waiting[: 1 << 20], socket.MSG_DONTWAIT)
            except OSError:  # full, or the core has gone: then its end of the socket says so too
                return
            del self._waiting[:sent]
