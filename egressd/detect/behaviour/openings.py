"""Connections that nothing has named yet, until it is sure enough that nothing will.

A client that speaks first does so within a round trip or two of the first packet. Before that nobody can say that a
connection has no name, and nearly all get one: they are to leave no trace under their address.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from egressd.detect.behaviour.ground import Track
from egressd.detect.calendar import NEVER_US
from egressd.model import FlowKey, Observation
from egressd.native import mypyc_attr
from egressd.wire.table import RecentTable

PENDING: Final = 8_192  # connections that wait; of more the oldest wait no longer
NAME_WITHIN_US: Final = 3_000_000


@mypyc_attr(acyclic=True)
class Opened:
    """A connection, by its first packet. `track` is that of its address once it was counted there."""

    __slots__ = ("named", "seen", "track")

    def __init__(self, seen: Observation) -> None:
        self.seen = seen
        self.named = False
        self.track: Track | None = None


class Openings:
    """In the order in which they began. `due_us`: when the first of them has waited for long enough."""

    def __init__(self) -> None:
        self.due_us = NEVER_US
        self._by_flow: RecentTable[FlowKey, Opened] = RecentTable(PENDING)
        self._waiting: deque[Opened] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, seen: Observation) -> None:
        """The first packet of a connection that nothing names."""
        opened = Opened(seen)
        self._by_flow.put(seen.flow, opened)
        self._waiting.append(opened)
        if len(self._waiting) == 1:
            self.due_us = seen.ts_us + NAME_WITHIN_US
        elif len(self._waiting) > PENDING:
            self.due_us = seen.ts_us

    def named(self, flow: FlowKey) -> None:
        """A name was said in a connection, perhaps late: its address is no bare one."""
        opened = self._by_flow.pop(flow)
        if opened is not None:
            opened.named = True
            if opened.track is not None:
                opened.track.named = True

    def take(self, ts_us: int, most: int) -> list[Opened]:
        """Those without a name that have waited for long enough by `ts_us`, of the first `most`."""
        found: list[Opened] = []
        waiting = self._waiting
        for _ in range(min(most, len(waiting))):
            if ts_us - waiting[0].seen.ts_us < NAME_WITHIN_US and len(waiting) <= PENDING:
                break
            opened = waiting.popleft()
            if not opened.named:
                found.append(opened)
        self.due_us = waiting[0].seen.ts_us + NAME_WITHIN_US if waiting else NEVER_US
        return found
