"""What is usual by the hour: mean and mean deviation of the hours so far, and the greatest of them.

Mean and deviation are moved by a fixed share of the error, without a multiplication: V. Jacobson, Congestion Avoidance
and Control (SIGCOMM 1988), appendix A, as RFC 6298 section 2 has it for round-trip times, with its four deviations as
the bound of the usual. Mean and deviation forget what happens once a day or once a week, such as a backup; so the
greatest hour is kept beside them. It shrinks by a sixteenth a day, to two thirds in a week.
"""

from __future__ import annotations

from typing import Final

from egressd.native import mypyc_attr

DAY_HOURS: Final = 24
DEVIATIONS: Final = 4
LATE_HOURS: Final = 1  # so much earlier may be what is told late
TIMES_PEAK: Final = 2  # more than so many times the greatest hour is no repetition of it
_MEAN_SHIFT: Final = 3
_DEVIATION_SHIFT: Final = 2
_PEAK_SHIFT: Final = 4
_MAX_STEPS: Final = 96  # hours, or days, of silence after which nothing is left to forget


@mypyc_attr(acyclic=True)
class Hours:
    """Amounts by the hour, of one thing. `now` is the amount of hour number `hour` (since the epoch), which lasts."""

    __slots__ = ("hour", "mean", "now", "peak", "spread")

    def __init__(self, hour: int) -> None:
        self.hour = hour
        self.now = 0
        self.mean = 0
        self.spread = 0
        self.peak = 0

    def is_over(self, hour: int) -> bool:
        """Whether the hour at hand is, in hour number `hour`. What is told late counts as of now; after a clock was set
        back everything would, for as long as it had been ahead."""
        return hour > self.hour or hour < self.hour - LATE_HOURS

    def turn(self, hour: int) -> None:
        """It is hour number `hour` now. What was counted in an hour that has not come yet is let go."""
        silent = hour - self.hour - 1
        if silent < 0:
            if self.is_over(hour):
                self.hour = hour
                self.now = 0
            return
        self._learn(self.now)
        for _ in range(min(silent, _MAX_STEPS)):
            self._learn(0)
        for _ in range(min(hour // DAY_HOURS - self.hour // DAY_HOURS, _MAX_STEPS)):
            self.peak -= self.peak >> _PEAK_SHIFT
        if self.now > self.peak:
            self.peak = self.now
        self.hour = hour
        self.now = 0

    def bound(self) -> int:
        """More than this within an hour is unusual."""
        return max(self.mean + DEVIATIONS * self.spread, TIMES_PEAK * self.peak)

    def _learn(self, amount: int) -> None:
        error = amount - self.mean
        self.mean += error >> _MEAN_SHIFT
        self.spread += (abs(error) - self.spread) >> _DEVIATION_SHIFT
