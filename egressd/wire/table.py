"""A bounded table for state that traffic creates.

Every table that traffic can fill must be bounded without pauses (DESIGN section 4). Deleting the oldest key of a dict
one by one rescans the hole it leaves, and `OrderedDict` costs twice the memory, so this one keeps two generations:
what is used moves to the young one; when that is half of the bound the old one is forgotten as a whole, a few entries
at each insertion. A key is thus kept for at least half of the bound's worth of newer keys (approximate LRU, O(1)).
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

# Two suffice: a generation of `limit / 2` is freed before the next is full. More would only bunch the work.
_FREED_PER_PUT: Final = 2


class RecentTable(Generic[K, V]):
    """Mapping of at most `limit` keys that forgets what was not used recently; `evicted` counts what it forgot."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.evicted = 0
        self.generation = 0
        self._half = max(1, limit // 2)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._leaving: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        """The value of `key`, or None; using it keeps it."""
        value = self._young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Set `key`; may forget others."""
        if len(self._young) >= self._half and key not in self._young:
            self.rotate()
        self._young[key] = value
        if self._old:
            self._old.pop(key, None)
        leaving = self._leaving
        if leaving:
            for _ in range(_FREED_PER_PUT):
                if leaving:
                    leaving.popitem()

    def pop(self, key: K) -> V | None:
        """Remove `key` and return its value, or None."""
        value = self._young.pop(key, None)
        if value is None:
            value = self._old.pop(key, None)
        return value

    def rotate(self) -> None:
        """Forget the old generation; the young one becomes old."""
        self.evicted += len(self._old)
        self._leaving = self._old
        self._old = self._young
        self._young = {}
        self.generation += 1

    def values(self) -> list[V]:
        """Every value held, oldest generation first, in order of insertion."""
        return [*self._old.values(), *self._young.values()]

    def items(self) -> list[tuple[K, V]]:
        """Every pair held, oldest generation first, in order of insertion."""
        return [*self._old.items(), *self._young.items()]
