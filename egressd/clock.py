"""The daemon's clock: epoch time that never jumps unless somebody is told.

Wall clocks are set: by hand, by a time server, from 1970 on machines without a battery. A block that should last an
hour must last an hour all the same. So the time here is the monotonic clock plus an offset; when the wall clock moves
away from it by more than a tolerance, that is a step: `follow` tells its size, and whoever owns deadlines moves them
along. Small drift (a time server slewing) is followed without a word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from egressd.units import MICROSECOND_NS

STEP_US: Final = 1_000_000  # a larger difference is a step; slewing moves 500 ppm, 0.5 ms a second


class Clock(Protocol):
    """Whoever needs the time is given one of these."""

    def now_us(self) -> int:
        """Epoch microseconds."""


class SteadyClock:
    """Monotonic epoch time. `CLOCK_MONOTONIC` is the machine's, so processes that share `offset_us` agree."""

    def __init__(
        self,
        offset_us: int | None = None,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`offset_us` is another process's; without it the wall clock of now is taken."""
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self.offset_us = self._wall_offset_us() if offset_us is None else offset_us

    def now_us(self) -> int:
        """Epoch microseconds, never jumping by itself."""
        return self._monotonic_ns() // MICROSECOND_NS + self.offset_us

    def wall_ahead_us(self) -> int:
        """How far the wall clock is ahead of this one now; what it adds to times that the kernel stamped with it."""
        return self._wall_offset_us() - self.offset_us

    def follow(self) -> int:
        """Follow the wall clock: drift silently; returns the size of a step in microseconds, 0 when there was none.
        After a step this clock shows the wall clock's time again, and deadlines must be moved by the same amount."""
        ahead_us = self.wall_ahead_us()
        self.offset_us += ahead_us
        return ahead_us if abs(ahead_us) > STEP_US else 0

    def _wall_offset_us(self) -> int:
        before_ns = self._monotonic_ns()
        wall_ns = self._wall_ns()
        return (wall_ns - (before_ns + self._monotonic_ns()) // 2) // MICROSECOND_NS
