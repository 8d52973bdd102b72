"""Who has which address on the own links, as the kernel's neighbour table tells: all of it, and every change.

Only asking and listening. Entries count that the kernel has just had confirmed: an address that nobody answered for
lately (stale) may be somebody else's by now.
"""

from __future__ import annotations

from egressd.capture.rtnetlink import (
    MAX_NEIGHBOURS,
    MULTICAST_NEIGHBOURS,
    NEW_NEIGHBOUR,
    Listener,
    Neighbour,
    parse_neighbour,
    read_neighbours,
)


def read_confirmed() -> list[Neighbour]:
    """Every confirmed entry. Waits for the kernel; raises OSError when it does not tell."""
    return [one for one in read_neighbours() if one.is_confirmed]


class NeighbourWatch(Listener):
    """Hears of entries that are new, change, or are confirmed again. Raises OSError when it cannot listen."""

    def __init__(self) -> None:
        super().__init__(MULTICAST_NEIGHBOURS)
        self.lost = 0  # how often the kernel had to throw changes away

    def drain(self) -> list[Neighbour]:
        """The confirmed entries of what has come, at most MAX_NEIGHBOURS."""
        messages, is_lost = self.take()
        self.lost += is_lost
        found: list[Neighbour] = []
        for message in messages:
            one = parse_neighbour(message.body) if message.kind == NEW_NEIGHBOUR else None
            if one is not None and one.is_confirmed and len(found) < MAX_NEIGHBOURS:
                found.append(one)
        return found
