"""Flow-directions from which nothing more can be learned, and until when.

The prefilter reads `until` directly: key as on the wire -> time in microseconds. A key that is thrown out early only
costs a second look, never a result. So the bound is kept by a ring of the keys in the order in which they came: each
new one throws out what its place held, which costs the same for every packet.
"""

from __future__ import annotations


class Quiet:
    """Bounded map of quiet flow-directions; `until` stays the same object for life because the prefilter holds it."""

    def __init__(self, limit: int, until: dict[bytes, int] | None = None) -> None:
        """`until` may be shared with others that hold other keys."""
        self.until: dict[bytes, int] = {} if until is None else until
        self._limit = limit
        self._ring: list[bytes] = []
        self._next = 0

    def begin(self, key: bytes, until_us: int) -> None:
        """From now on packets with this key are of no interest, until `until_us`."""
        until = self.until
        if key not in until:
            ring = self._ring
            if len(ring) < self._limit:
                ring.append(key)
            else:
                place = self._next
                until.pop(ring[place], None)
                ring[place] = key
                self._next = place + 1 if place + 1 < self._limit else 0
        until[key] = until_us

    def end(self, key: bytes) -> None:
        """Look again (a new connection uses the same addresses and ports)."""
        self.until.pop(key, None)
