"""When indicators come into force, and when the blocks that rest on them lapse, in order of packet time."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from egressd.detect.blocks import Block
from egressd.model import Indicator
from egressd.units import SECOND_US

NEVER_US: Final = (1 << 62) - 1  # the largest that compiled code holds without an object


class Calendar:
    """What is due, soonest first. `next_us` is when the next thing is."""

    def __init__(self, pending: list[Indicator]) -> None:
        """`pending` are the indicators that come into force at a time of their own, in that order."""
        self._pending = pending[::-1]  # soonest last
        self._lapses: list[tuple[int, int, str]] = []  # (when, order, block id), a heap
        self._order = 0
        self.next_us = self._soonest_us()

    def watch(self, block: Block) -> None:
        """A listed indicator's block lives as long as its indicator (DESIGN section 7)."""
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

    def arriving(self) -> set[Indicator]:
        """The indicators that come into force at `next_us`, taken off."""
        arrived: set[Indicator] = set()
        while self._pending and self._pending[-1].added_s * SECOND_US == self.next_us:
            arrived.add(self._pending.pop())
        self.next_us = self._soonest_us()
        return arrived

    def _soonest_us(self) -> int:
        arrives_us = self._pending[-1].added_s * SECOND_US if self._pending else NEVER_US
        return min(arrives_us, self._lapses[0][0] if self._lapses else NEVER_US)
