"""An index of two layers that answer as one: what people write, in memory, over long lists and feeds, in a file.

A change of the upper layer leaves the lower one alone: a line in a list of ten beside a feed of two million costs what
ten lines cost. Which layer an indicator lies in decides nothing: of several that cover, the one is told that an index
of all of them would tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import chain
from typing import Any

from egressd.intel.index import Index, Skip, added_at, preference
from egressd.intel.mapped import MappedIndex
from egressd.intel.networks import embedded_ipv4, parse_network
from egressd.model import Indicator, Match
from egressd.names import Suffixes


class LayeredIndex:
    """`upper` over `lower`; both under the suffix list given."""

    def __init__(self, upper: Index, lower: MappedIndex, suffixes: Suffixes) -> None:
        self.upper = upper
        self.lower = lower
        self._suffixes = suffixes

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes; the file is not sent, but where it lies. Opening it there raises IndexDamaged when it is
        gone or another one."""
        return LayeredIndex, (self.upper, self.lower, self._suffixes)

    @property
    def size(self) -> int:
        """How many indicators there are, in force or not."""
        return self.upper.size + self.lower.size

    def match_name(self, name: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a normal name at a time (epoch seconds), those left out that `skip` is true of."""
        registered, _, rule = self._suffixes.split(name)
        below = self.lower.match_split(name, registered, rule, now_s, skip)
        above = self.upper.match_split(name, registered, rule, now_s, skip)
        if above is None or below is None:
            return above if below is None else below
        if above.level != below.level:
            return above if above.level == "host" else below
        return above if preference(above.indicator) <= preference(below.indicator) else below

    def match_address(self, addr: bytes, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a packed address at a time; the most specific network first."""
        found = self._match_packed(addr, now_s, skip)
        if found is None and len(addr) == 16:
            for inner in embedded_ipv4(addr):
                found = found or self._match_packed(inner, now_s, skip)
        return found

    def _match_packed(self, addr: bytes, now_s: int, skip: Skip | None) -> Match | None:
        below = self.lower.match_packed(addr, now_s, skip)
        above = self.upper.match_packed(addr, now_s, skip)
        if above is None or below is None:
            return above if below is None else below
        return above if _specific(above.indicator) <= _specific(below.indicator) else below

    def match_url(self, host: str, path: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a request at a time; the longest listed path wins."""
        below = self.lower.match_url(host, path, now_s, skip)
        above = self.upper.match_url(host, path, now_s, skip)
        if above is None or below is None:
            return above if below is None else below
        return above if preference(above.indicator) <= preference(below.indicator) else below

    def holds(self, one: Indicator) -> bool:
        """Whether this very indicator is listed, on whatever line."""
        return self.upper.holds(one) or self.lower.holds(one)

    def alike(self, one: Indicator) -> Iterator[Indicator]:
        """The indicators of the same value."""
        return chain(self.upper.alike(one), self.lower.alike(one))

    def listed(self) -> Iterator[Indicator]:
        """Every indicator."""
        return chain(self.upper.listed(), self.lower.listed())

    def pending_after(self, now_s: int) -> list[Indicator]:
        """Indicators that come into force after a time, in order of `added_s`: for searching history then."""
        return list(merge(self.upper.pending_after(now_s), self.lower.pending_after(now_s), key=added_at))

    def changes_around(self, now_s: int) -> tuple[int, int]:
        """The time since when, and the one until before which, the same indicators are in force."""
        above, below = self.upper.changes_around(now_s), self.lower.changes_around(now_s)
        return max(above[0], below[0]), min(above[1], below[1])

    def plus(self, more: list[Indicator]) -> LayeredIndex:
        """This index and more indicators, which lie in the upper layer."""
        return LayeredIndex(self.upper.plus(more), self.lower, self._suffixes)


AnyIndex = Index | LayeredIndex


def added_between(old: AnyIndex, new: AnyIndex, limit: int) -> Iterator[Indicator]:
    """The indicators of `new` that `old` has not, at most `limit` of them; one that only moved to another line is none.
    Takes some microseconds for each indicator of `new` that is not in the layer that both share."""
    left = limit
    short = in_memory(old, new)
    for one in new.listed() if short is None else short:
        if left <= 0:
            return
        if not old.holds(one):
            left -= 1
            yield one


def in_memory(old: AnyIndex, new: AnyIndex) -> tuple[Indicator, ...] | None:
    """The indicators among which everything is that `new` has and `old` has not, where those in a file are the same;
    None where they are not."""
    if not isinstance(new, LayeredIndex):
        return new.indicators
    same = isinstance(old, LayeredIndex) and old.lower.head.digest == new.lower.head.digest
    return new.upper.indicators if same else None


def _specific(one: Indicator) -> tuple[int, tuple[int, int, str, int]]:
    """The least of this is the most specific network, and the preferred one of it."""
    network = parse_network(one.value)
    return -network[1] if network is not None else 0, preference(one)
