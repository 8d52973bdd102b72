"""Who has which address on the own links, as the kernel's neighbour table tells: all of it, and every change.

Only asking and listening. Entries count that the kernel has just had confirmed: an address that nobody answered for
lately (stale) may be somebody else's by now.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from egressd.capture.rtnetlink import (
    MAX_NEIGHBOURS,
    MULTICAST_NEIGHBOURS,
    NEW_NEIGHBOUR,
    Neighbour,
    parse_messages,
    parse_neighbour,
    read_neighbours,
)

_RECEIVE_BYTES: Final = 1 << 18
_MAX_DRAINED: Final = 256  # datagrams at a time
_ROUTE: Final = 0  # NETLINK_ROUTE


def read_confirmed() -> list[Neighbour]:
    """Every confirmed entry. Waits for the kernel; raises OSError when it does not tell."""
    return [one for one in read_neighbours() if one.is_confirmed]


class NeighbourWatch:
    """Hears of entries that are new, change, or are confirmed again. Raises OSError when it cannot listen."""

    def __init__(self) -> None:
        self.lost = 0  # how often the kernel had to throw changes away
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _ROUTE)
        try:
            self._sock.bind((0, MULTICAST_NEIGHBOURS))
        except OSError:
            self._sock.close()
            raise

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._sock.fileno()

    def drain(self) -> list[Neighbour]:
        """The confirmed entries of what has come, without waiting, at most MAX_NEIGHBOURS. After very many at once the
        rest is still readable."""
        found: list[Neighbour] = []
        for _ in range(_MAX_DRAINED):
            try:
                octets, sender = self._sock.recvfrom(_RECEIVE_BYTES)
            except OSError as error:
                self.lost += error.errno == errno.ENOBUFS
                return found
            if sender[0] != 0:
                continue  # not from the kernel
            for message in parse_messages(octets):
                one = parse_neighbour(message.body) if message.kind == NEW_NEIGHBOUR else None
                if one is not None and one.is_confirmed and len(found) < MAX_NEIGHBOURS:
                    found.append(one)
        return found

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()
