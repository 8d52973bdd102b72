"""An index of layers that answer as one: what people write, in memory, over long lists and feeds, in files.

A change of one layer leaves the others alone: a line in a list of ten beside a feed of two million costs what
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
    """`upper` over `lowers`; all under the suffix list given, and the NAT64 prefixes of `upper`. A name that is in none
    costs one look at each filter."""

    def __init__(self, upper: Index, lowers: tuple[MappedIndex, ...], suffixes: Suffixes) -> None:
        self.upper = upper
        self.lowers = lowers
        self._suffixes = suffixes

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes; files are not sent, but where they lie. Opening one there raises IndexDamaged when it is
        gone or another one."""
        return LayeredIndex, (self.upper, self.lowers, self._suffixes)

    @property
    def size(self) -> int:
        """How many indicators there are, in force or not."""
        return self.upper.size + sum(one.size for one in self.lowers)

    def match_name(self, name: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a normal name at a time (epoch seconds), those left out that `skip` is true of."""
        registered, _, rule = self._suffixes.split(name)
        best = self.upper.match_split(name, registered, rule, now_s, skip)
        for lower in self.lowers:
            found = lower.match_split(name, registered, rule, now_s, skip)
            if found is not None and (best is None or _is_better(found, best)):
                best = found
        return best

    def match_address(self, addr: bytes, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a packed address at a time; the most specific network first."""
        found = self._match_packed(addr, now_s, skip)
        if found is None and len(addr) == 16:
            for inner in embedded_ipv4(addr, self.upper.nat64):
                found = found or self._match_packed(inner, now_s, skip)
        return found

    def _match_packed(self, addr: bytes, now_s: int, skip: Skip | None) -> Match | None:
        best = self.upper.match_packed(addr, now_s, skip)
        for lower in self.lowers:
            found = lower.match_packed(addr, now_s, skip)
            if found is not None and (best is None or _specific(found.indicator) < _specific(best.indicator)):
                best = found
        return best

    def match_url(self, host: str, path: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a request at a time; the longest listed path wins."""
        best = self.upper.match_url(host, path, now_s, skip)
        for lower in self.lowers:
            found = lower.match_url(host, path, now_s, skip)
            if found is not None and (best is None or preference(found.indicator) < preference(best.indicator)):
                best = found
        return best

    def holds(self, one: Indicator) -> bool:
        """Whether this very indicator is listed, on whatever line."""
        return self.upper.holds(one) or any(lower.holds(one) for lower in self.lowers)

    def alike(self, one: Indicator) -> Iterator[Indicator]:
        """The indicators of the same value."""
        return chain(self.upper.alike(one), *(lower.alike(one) for lower in self.lowers))

    def listed(self) -> Iterator[Indicator]:
        """Every indicator."""
        return chain(self.upper.listed(), *(lower.listed() for lower in self.lowers))

    def pending_after(self, now_s: int) -> list[Indicator]:
        """Indicators that come into force after a time, in order of `added_s`: for searching history then."""
        pending = [self.upper.pending_after(now_s), *(one.pending_after(now_s) for one in self.lowers)]
        return list(merge(*pending, key=added_at))

    def changes_around(self, now_s: int) -> tuple[int, int]:
        """The time since when, and the one until before which, the same indicators are in force."""
        around = [self.upper.changes_around(now_s), *(one.changes_around(now_s) for one in self.lowers)]
        return max(begin_s for begin_s, _ in around), min(end_s for _, end_s in around)

    def plus(self, more: list[Indicator]) -> LayeredIndex:
        """This index and more indicators, which lie in the upper layer."""
        return LayeredIndex(self.upper.plus(more), self.lowers, self._suffixes)


def over(index: AnyIndex, lowers: tuple[MappedIndex, ...], suffixes: Suffixes) -> AnyIndex:
    """An index over more of those in files."""
    if not lowers:
        return index
    if isinstance(index, LayeredIndex):
        return LayeredIndex(index.upper, (*index.lowers, *lowers), suffixes)
    return LayeredIndex(index, lowers, suffixes)


def _is_better(one: Match, other: Match) -> bool:
    """Host before sibling, then the preferred indicator."""
    if one.level != other.level:
        return one.level == "host"
    return preference(one.indicator) < preference(other.indicator)


AnyIndex = Index | LayeredIndex


def in_memory(old: AnyIndex, new: AnyIndex) -> tuple[Indicator, ...] | None:
    """The indicators among which everything is that `new` has and `old` has not, where `new` has no file that `old` has
    not; None where it has."""
    if not isinstance(new, LayeredIndex):
        return new.indicators
    return None if _not_in(old, new) else new.upper.indicators


def _not_in(old: AnyIndex, new: LayeredIndex) -> list[MappedIndex]:
    """The files of `new` that `old` does not share."""
    shared = {lower.head.digest for lower in old.lowers} if isinstance(old, LayeredIndex) else set()
    return [lower for lower in new.lowers if lower.head.digest not in shared]


def _specific(one: Indicator) -> tuple[int, tuple[int, int, str, int]]:
    """The least of this is the most specific network, and the preferred one of it."""
    network = parse_network(one.value)
    return -network[1] if network is not None else 0, preference(one)
