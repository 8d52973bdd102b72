"""When indicators come into force, and when the blocks that rest on them lapse, in order of packet time."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from egressd.detect.blocks import Block
from egressd.model import Indicator
from egressd.units import SECOND_US

BACK_US: Final = 3_600_000_000  # captures are a little out of order; what goes back further had been pulled ahead
MAX_BACK: Final = 16  # times that it is followed: what comes into force is searched for in all of the history
NEVER_US: Final = (1 << 62) - 1  # the largest that compiled code holds without an object


class Calendar:
    """What is due, soonest first. `next_us` is when the next thing is; before `back_us` time has gone back: some packet
    had another time than those around it."""

    def __init__(self, pending: list[Indicator]) -> None:
        """`pending` are the indicators that come into force at a time of their own, in that order."""
        self._pending = pending[::-1]  # soonest last
        self._lapses: list[tuple[int, int, str]] = []  # (when, order, block id), a heap
        self._order = 0
        self._arrived: list[Indicator] = []  # in that order
        self._back = 0  # times that time went back
        self.back_us = 0
        self.next_us = self._soonest_us()

    def watch(self, block: Block) -> None:
        """A listed indicator's block lives as long as its indicator: whoever lists it says for how long it is bad."""
        ends_us = (block.match.indicator.expires_s * SECOND_US, block.ends_us)
        for expires_us in filter(None, ends_us):
            self._order += 1
            heappush(self._lapses, (expires_us, self._order, block.id))
            self.next_us = min(self.next_us, expires_us)

    def lapsing(self) -> str:
        """The id of a block whose indicator expires at `next_us`, taken off; "" when there is none."""
        if not self._lapses or self._lapses[0][0] != self.next_us:
            return ""
        block_id = heappop(self._lapses)[2]
        self.next_us = self._soonest_us()
        return block_id

    def arriving(self, ts_us: int) -> set[Indicator]:
        """The indicators that come into force at `next_us`, taken off; it is `ts_us` by now."""
        arrived: set[Indicator] = set()
        while self._pending and self._pending[-1].added_s * SECOND_US == self.next_us:
            self._arrived.append(self._pending.pop())
            arrived.add(self._arrived[-1])
        if self._back < MAX_BACK:
            self.back_us = self.next_us if ts_us - self.next_us > BACK_US else self.next_us - BACK_US
        self.next_us = self._soonest_us()
        return arrived

    def go_back(self, ts_us: int) -> None:
        """It is `ts_us`: what came into force too early is yet to come, and what is contacted until then will be found.
        What lapsed too early stays: its next contact decides anew."""
        arrived = self._arrived
        while arrived and arrived[-1].added_s * SECOND_US > ts_us:
            self._pending.append(arrived.pop())
        self._back += 1
        self.back_us = 0
        if arrived and self._back < MAX_BACK:
            self.back_us = arrived[-1].added_s * SECOND_US - BACK_US
        self.next_us = self._soonest_us()

    def _soonest_us(self) -> int:
        arrives_us = self._pending[-1].added_s * SECOND_US if self._pending else NEVER_US
        return min(arrives_us, self._lapses[0][0] if self._lapses else NEVER_US)
