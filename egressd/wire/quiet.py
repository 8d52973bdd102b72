"""Flow-directions from which nothing more can be learned, and until when.

The prefilter reads `until` directly: key as on the wire -> time in microseconds. A key that is thrown out early only
costs a second look, never a result, so the bound is kept by dropping the older half when it is reached.
"""

from __future__ import annotations


class Quiet:
    """Bounded map of quiet flow-directions; `until` stays the same object for life because the prefilter holds it."""

    def __init__(self, limit: int) -> None:
        self.until: dict[bytes, int] = {}
        self._limit = limit

    def begin(self, key: bytes, until_us: int) -> None:
        """From now on packets with this key are of no interest, until `until_us`."""
        until = self.until
        if len(until) >= self._limit:
            newer = list(until.items())[self._limit // 2 :]
            until.clear()
            until.update(newer)
        until[key] = until_us

    def end(self, key: bytes) -> None:
        """Look again (a new connection uses the same addresses and ports)."""
        self.until.pop(key, None)
