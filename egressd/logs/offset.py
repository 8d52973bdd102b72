"""By how much the clock of a log's sensor differs from ours, from when its lines come."""

from __future__ import annotations

from collections import deque
from typing import Final

KEPT: Final = 101  # of the latest lines
ENOUGH: Final = 5  # lines before which nothing is concluded
# A line comes some time after what it tells of: programs buffer, and we look four times a second. What lies within
# these bounds is taken for that. A line of the future, or of long ago, comes of a wrong clock or another time zone.
EARLIEST_US: Final = -2_000_000
LATEST_US: Final = 30_000_000


class ClockOffset:
    """The middle of how much later lines come than they say. `correction_us` is to be added to their times."""

    def __init__(self, correct: bool = True) -> None:
        """Without `correct` the clock is taken for right, and only measured."""
        self.correction_us = 0
        self.late_us = 0  # the middle of the latest, before the correction
        self._correct = correct
        self._late: deque[int] = deque(maxlen=KEPT)

    def note(self, written_us: int, arrival_us: int) -> None:
        """A line that was just written says that it was at `written_us`."""
        self._late.append(arrival_us - written_us)
        if len(self._late) < ENOUGH:
            return
        ranked = sorted(self._late)
        self.late_us = ranked[len(ranked) // 2]
        if self._correct:
            self.correction_us = 0 if EARLIEST_US <= self.late_us <= LATEST_US else self.late_us
