"""Beacons: contacts at regular intervals, with jitter.

Origin: RITA (Active Countermeasures; github.com/activecm/rita, analysis/beacons.go): of the intervals between contacts
the Bowley skewness (a beacon's are symmetric) and the median absolute deviation about the median (a beacon's is small),
weighted by how few clients share the destination and how new it is. RITA looks at a whole day; to tell after a few
contacts, the intervals are also held against chance: that so many of them would lie in one narrow window.

Not told apart by this: a poller that only one machine has, to a destination nobody here knew. That is what a person is
asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, log2
from typing import Final, NamedTuple

LEAST_INTERVALS: Final = 6
# Intervals with 30 % jitter either way lie within a window of this width (1.3 / 0.7); of intervals that chance makes
# (exponential, or log-normal with sigma 1, as people's are) a quarter lie in the best such window.
WINDOW: Final = 1.9
CHANCE: Final = 0.25
SCAN_BITS: Final = 2.0  # the window was chosen after the fact
ENOUGH_BITS: Final = 14.0  # 1 in 16,000: pairs of client and rare destination of a day are some thousands
SHORTEST: Final = 100  # ticks of a tenth of a second: closer ones are a conversation
MISSES: Final = 0.75  # so many intervals at least lie in the window


class Regularity(NamedTuple):
    """What intervals look like. `median` and `mad` are in ticks, `skew` is Bowley's, -1 to 1; `within` of `intervals`
    lie in the best window; `bits` is how much against chance that is."""

    intervals: int
    median: float
    mad: float
    skew: float
    within: int
    bits: float

    def score(self) -> int:
        """0 to 100."""
        if self.median < SHORTEST or self.within < MISSES * self.intervals or self.bits <= 0:
            return 0
        steady = max(0.0, 1.0 - self.mad / self.median)
        weight = self.intervals / (self.intervals + 12)  # of few intervals the skewness is mostly noise
        regular = (steady + weight * (1.0 - abs(self.skew))) / (1.0 + weight)
        return round(100 * regular * min(1.0, self.bits / ENOUGH_BITS))

    def reason(self, visits: int) -> str:
        """In words."""
        each = self.median / 10
        every = f"{each / 60:.0f} min" if each >= 600 else f"{each / 60:.1f} min" if each >= 90 else f"{each:.0f} s"
        spread = round(100 * self.mad / self.median) if self.median else 0
        return f"{visits} contacts, one every {every} (give or take {spread} %)"


def regularity(times: Sequence[int]) -> Regularity | None:
    """Look at contact times in ticks, in order; None when there are too few intervals."""
    gaps: list[float] = [float(times[at] - times[at - 1]) for at in range(1, len(times))]
    count = len(gaps)
    if count < LEAST_INTERVALS:
        return None
    gaps.sort()
    median = _quantile(gaps, 0.5)
    mad = _quantile(sorted([abs(gap - median) for gap in gaps]), 0.5)
    low, high = _quantile(gaps, 0.25), _quantile(gaps, 0.75)
    # As RITA: quartiles that lie closer than the clock's accuracy have no skewness.
    skew = (low + high - 2 * median) / (high - low) if high - low >= SHORTEST else 0.0
    within, first = 0, 0
    for last in range(count):
        while gaps[last] > WINDOW * gaps[first]:
            first += 1
        within = max(within, last - first + 1)
    return Regularity(count, median, mad, skew, within, surprise_bits(within, count))


def surprise_bits(within: int, count: int) -> float:
    """Minus log2 of the chance that `within` of `count` intervals or more fall into one window, less the scan."""
    tail = 0.0
    for hits in range(within, count + 1):
        tail += comb(count, hits) * CHANCE**hits * (1.0 - CHANCE) ** (count - hits)
    return -log2(tail) - SCAN_BITS if tail > 0.0 else 0.0


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Of values in order, between neighbours in proportion."""
    place = part * (len(ordered) - 1)
    at = int(place)
    if at + 1 >= len(ordered):
        return ordered[-1]
    return ordered[at] + (place - at) * (ordered[at + 1] - ordered[at])
