"""Who changes our table beside us: the kernel's own news about nftables (netlink group NFNLGRP_NFTABLES).

Every transaction is told as one message per changed thing and, last, NEWGEN with the process that made it. Our own
changes are dropped in the kernel by a small filter on the sender's netlink port, so that a hundred thousand elements of
ours do not come back at us as news. `nft`, which we start to load the rules, is told by its process id.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable
from typing import Final

from egressd.enforce.elements import FAMILY_INET, TABLE
from egressd.enforce.netlink import (
    NFTABLES,
    Message,
    NetfilterSocket,
    Overrun,
    generic,
    parse_attributes,
    parse_messages,
    text,
)
from egressd.errors import Malformed

GONE: Final = "gone"  # our table, or a set, chain or rule of it, was deleted
FOREIGN: Final = "foreign"  # somebody changed something in our table
OVERRUN: Final = "overrun"  # news was lost: look for yourself

NFNLGRP_NFTABLES: Final = 7
_SUBSYSTEM: Final = NFTABLES >> 8
_NEWGEN: Final = 15
_DELETIONS: Final = frozenset({2, 5, 8, 11})  # DELTABLE, DELCHAIN, DELRULE, DELSET
_GEN_PROC_PID: Final = 2
_OURS: Final = generic(FAMILY_INET)[:1]
_TABLE_ATTRIBUTE: Final = text(1, TABLE)  # stands first in every message about a thing in a table
_DATAGRAMS: Final = 64  # a turn: a storm must not hold the event loop
_MAX_PORTS: Final = 200
_SO_ATTACH_FILTER: Final = 26


class TableWatch:
    """A socket that hears of changes. Give `fileno()` to a selector and call `drain` when it is readable."""

    def __init__(self, own_ports: Iterable[int] = (), *, receive_bytes: int = 1 << 23) -> None:
        """`own_ports` are netlink ports of our own sockets. Raises AdapterError."""
        self._pids: set[int] = set()  # processes that work for us
        self._fast: frozenset[int] = frozenset()  # the packet processes there are
        self._ended: set[int] = set()  # those of them that are gone; what they did may not have been read yet
        self._ports = set(own_ports)
        self._pending: set[str] = set()
        self._link = NetfilterSocket(groups=(NFNLGRP_NFTABLES,), receive_bytes=receive_bytes)
        self._attach()

    @property
    def sock(self) -> socket.socket:
        """The socket itself."""
        return self._link.sock

    def fileno(self) -> int:
        """For selectors."""
        return self._link.fileno()

    def disregard(self, ports: Iterable[int]) -> None:
        """More netlink ports that are ours: those of the packet processes' fast lanes."""
        self._ports.update(ports)
        self._attach()

    def own(self, pids: Iterable[int]) -> None:
        """Packet processes of ours, all that there are now: what one pushes before it has told its port is no news."""
        self._fast = frozenset(pids)

    def expect(self, pid: int) -> None:
        """What this process does to our table is our own doing."""
        self._pids.add(pid)

    def ended(self, pid: int) -> None:
        """It is gone: once what it did has been read, the number may be somebody else's."""
        self._ended.add(pid)

    def drain(self) -> set[str]:
        """What happened since the last call, at most a bounded amount of it: the socket stays readable when there is
        more."""
        happened: set[str] = set()
        ended = set(self._ended)
        for _ in range(_DATAGRAMS):
            try:
                datagram = self._link.receive(socket.MSG_DONTWAIT)
                if not datagram:
                    self._ended -= ended
                    self._pids -= ended
                    break
                for told in parse_messages(datagram):
                    self._hear(told, happened)
            except (Overrun, Malformed):
                happened.add(OVERRUN)
        return happened

    def close(self) -> None:
        """Hear no more."""
        self._link.close()

    def _hear(self, told: Message, happened: set[str]) -> None:
        if told.kind >> 8 != _SUBSYSTEM or told.port in self._ports:
            return
        what = told.kind & 0xFF
        if what == _NEWGEN:
            pid = int.from_bytes(parse_attributes(told.body, 4).get(_GEN_PROC_PID, b""), "big")
            if pid not in self._pids and pid not in self._fast:
                happened |= self._pending
            self._pending.clear()
        elif told.body[:1] == _OURS and told.body.startswith(_TABLE_ATTRIBUTE, 4):
            self._pending.add(GONE if what in _DELETIONS else FOREIGN)

    def _attach(self) -> None:
        """Classic BPF on nlmsghdr's port, at offset 12 in host order; BPF loads big-endian. One datagram holds news of
        one sender only: the kernel sends what it gathered at the end of each transaction."""
        ports = sorted(self._ports)[:_MAX_PORTS]  # what does not fit is sorted out by drain
        steps = [struct.pack("=HBBI", 0x20, 0, 0, 12)]
        for at, port in enumerate(ports):
            swapped = int.from_bytes(struct.pack("=I", port), "big")
            steps.append(struct.pack("=HBBI", 0x15, len(ports) - at, 0, swapped))
        steps += [struct.pack("=HBBI", 0x06, 0, 0, 0xFFFF_FFFF), struct.pack("=HBBI", 0x06, 0, 0, 0)]
        program = ctypes.create_string_buffer(b"".join(steps))
        header = struct.pack("@HP", len(steps), ctypes.addressof(program))
        self._link.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
