"""By what time things are old enough to be forgotten: the clock's, but not what it jumped ahead within the last day.

A clock that was set to 2099 by mistake, or that a dead battery left there, is noticed and set right within hours. What
would be deleted meanwhile, the history and all ended decisions, does not come back.
"""

from __future__ import annotations

from egressd.units import DAY_S, DAY_US, SECOND_US


class Ageing:
    """`now_us` is to be asked again and again, with the clock and with a time that nobody sets."""

    def __init__(self, seen_us: int) -> None:
        """`seen_us` is when the last run was alive, by the clock of then; 0 when there was none."""
        self._clock_us = seen_us
        self._steady_s = -1.0
        self._ahead_us = 0  # that is not believed yet
        self._since_s = 0.0

    def now_us(self, clock_us: int, steady_s: float) -> int:
        """The time to count ages by, epoch microseconds. What the clock jumped ahead by more than a day, or the time
        that nothing ran, counts after a day of running."""
        passed_us = round((steady_s - self._steady_s) * SECOND_US) if self._steady_s >= 0 else 0
        jumped_us = clock_us - self._clock_us - passed_us if self._clock_us else 0
        self._clock_us, self._steady_s = clock_us, steady_s
        if jumped_us > DAY_US:
            self._ahead_us += jumped_us
            self._since_s = steady_s
        elif jumped_us < -DAY_US:  # set right again
            self._ahead_us = max(0, self._ahead_us + jumped_us)
        if steady_s - self._since_s >= DAY_S:
            self._ahead_us = 0
        return clock_us - self._ahead_us
