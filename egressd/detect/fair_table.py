"""A bounded table that no single host can fill: what one host makes us remember pushes out nobody else's."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from egressd.wire.table import CROWD_PART, SHARE, RecentTable

K = TypeVar("K")
V = TypeVar("V")

_MIN_SHARE: Final = 16


class FairTable(RecentTable[K, V], Generic[K, V]):
    """A table with a share for each source: keys are set by `claim` and `renew`. One source holds at most 1/SHARE of
    the table, half of it in a generation; what is more stands in the crowd, 1/CROWD_PART of the table that all such
    sources have together. A source of b"" is our own and has no bound."""

    def __init__(self, limit: int) -> None:
        crowd = max(2, limit // CROWD_PART)
        super().__init__(max(2, limit - crowd))
        self.over_share = 0  # keys of sources that had their share already
        self.crowd: RecentTable[K, V] = RecentTable(crowd)
        self._share = max(_MIN_SHARE, limit // SHARE // 2)
        self._claimed: dict[bytes, int] = {}
        self._claimed_in = 0  # the generation that they are of

    def get(self, key: K) -> V | None:
        """The value of `key`, or None; using it keeps it."""
        value = self._young.get(key)
        if value is None:
            old = self._old
            if old and key in old:  # as in RecentTable.get
                value = old.pop(key)
                self.add(key, value)
            elif self.over_share:
                value = self.crowd.get(key)
        return value

    def claim(self, key: K, value: V, source: bytes) -> bool:
        """Set a key that is not held, as `get` has just told. Whether it is within the share of `source`."""
        if self._claimed_in != self.generation or len(self._claimed) > self._share:
            self._claimed_in = self.generation
            self._claimed.clear()
        claimed = self._claimed.get(source, 0)
        if claimed >= self._share and source:
            self.over_share += 1
            self.crowd.add(key, value)
            return False
        self._claimed[source] = claimed + 1
        self.add(key, value)
        return True

    def renew(self, key: K, value: V) -> None:
        """Another value for a key that `get` has just given."""
        if key in self._young:
            self._young[key] = value
        else:
            self.crowd.add(key, value)

    def take(self, key: K) -> V | None:
        """The value of `key`, or None, and forget it."""
        value = self.pop(key)
        if value is None and self.over_share:
            value = self.crowd.pop(key)
        return value
