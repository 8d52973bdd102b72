"""Whether packets are being lost, over the last minute."""

from __future__ import annotations

from collections import deque
from typing import Final


class LossWindow:
    """Whether packets are being lost: over 1 % of those of the last minute. One lost burst that is that large counts
    for as long as it is within the minute; a loss that is smaller over the minute never does."""

    SPAN_US: Final = 60_000_000
    BOUND: Final = 0.01
    _STEP_US: Final = 1_000_000

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int, int]] = deque()  # (when, received, lost) as told, a second apart

    def note(self, received: int, lost: int, now_us: int) -> None:
        """Totals so far: packets handed to us, and packets dropped before that. When they or the clock go backwards
        (a process was started again), the minute begins anew."""
        samples = self._samples
        if samples and (received < samples[-1][1] or lost < samples[-1][2] or now_us < samples[-1][0]):
            samples.clear()
        if len(samples) > 1 and now_us - samples[-2][0] < self._STEP_US:
            samples[-1] = (now_us, received, lost)
            return
        samples.append((now_us, received, lost))
        while len(samples) > 2 and samples[1][0] <= now_us - self.SPAN_US:
            samples.popleft()

    def ratio(self, now_us: int) -> float:
        """Share of packets lost, 0 to 1, over the last minute or as much of it as is known."""
        if len(self._samples) < 2 or now_us - self._samples[-1][0] >= self.SPAN_US:
            return 0.0
        first, last = self._samples[0], self._samples[-1]
        lost = last[2] - first[2]
        return lost / (lost + last[1] - first[1]) if lost else 0.0

    def degraded(self, now_us: int) -> bool:
        """Over the bound, over a whole minute."""
        known_us = self._samples[-1][0] - self._samples[0][0] if self._samples else 0
        return known_us >= self.SPAN_US and self.ratio(now_us) > self.BOUND
