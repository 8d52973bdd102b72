"""One egressd alone changes the table of a network namespace: two would take back each other's blocks for ever.

The lock is a name of an abstract unix socket (unix(7)): the kernel knows it apart in each network namespace, as it does
the table, and forgets it when its holder dies. Everybody on the machine may take such a name, so who holds it is asked
of the kernel: somebody who could not be an egressd, by user or by capability, keeps none from its work.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from egressd.enforce.adapter import AdapterError

NAME: Final = b"\0egressd-table"
USER: Final = "egressd"  # of the systemd unit
_NET_ADMIN: Final = 1 << 12  # CAP_NET_ADMIN of linux/capability.h
_PROC: Final = Path("/proc")
_BACKLOG: Final = 8  # who asks and was not let go yet
_CREDENTIALS: Final = struct.Struct("3i")  # ucred of linux/socket.h: process, user, group


class TableHeld(AdapterError):
    """Another egressd has the table."""


class TableLock:
    """Not held until `take`. While it is held, call `answer` whenever `fileno()` is readable."""

    def __init__(self, name: bytes = NAME) -> None:
        self.problem = ""  # why another egressd would not be noticed, while that is so
        self._name = name
        self._socket: socket.socket | None = None
        self._users: frozenset[int] = frozenset()  # once asked for: that may take a while, and `take` is called often

    @property
    def is_held(self) -> bool:
        """Whether another egressd would be told that we have the table."""
        return self._socket is not None

    def fileno(self) -> int:
        """For selectors; -1 when it is not held."""
        return self._socket.fileno() if self._socket is not None else -1

    def take(self) -> None:
        """Have the table for ourselves. Raises TableHeld when another egressd has it. When it cannot be found out
        whether one has, because somebody else took the name, `problem` says so, and it is not held."""
        self.problem = ""
        if self._socket is not None:
            return
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            ours.bind(self._name)
            ours.listen(_BACKLOG)
        except OSError as error:
            ours.close()
            if error.errno != errno.EADDRINUSE:
                self.problem = f"another egressd would not be noticed: {error.strerror}"
                return
            self._meet()
            return
        self._socket = ours

    def answer(self) -> bool:
        """Let those go who asked who we are: the kernel has told them. False when that cannot be done now, for want of
        a file descriptor (accept(2): EMFILE, ENFILE, ENOBUFS, ENOMEM): `fileno()` stays readable until it can."""
        for _ in range(_BACKLOG):
            if self._socket is None:
                break
            try:
                self._socket.accept()[0].close()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except OSError:
                return False
        return True

    def release(self) -> None:
        """Others may have the table. Nothing when it is not held."""
        self.problem = ""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _meet(self) -> None:
        """Somebody has the name. Raises TableHeld when that is an egressd."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
            try:
                asking.connect(self._name)
                told = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            except OSError as error:  # it does not listen, or does not answer
                self.problem = f"another egressd would not be noticed: its name is taken ({error.strerror})"
                return
        pid, uid, _ = _CREDENTIALS.unpack(told)
        self._users = self._users or _users()
        if uid in self._users or _may_change_tables(pid, uid):
            raise TableHeld(
                f"another egressd (process {pid}) has the table inet egressd: two would take back each other's blocks."
                " Stop that one, or leave this one in mode monitor"
            )
        self.problem = f"another egressd would not be noticed: process {pid} of user {uid} has taken its name"


def _may_change_tables(pid: int, uid: int) -> bool:
    """Whether a process has the right to change the table: whoever has could delete ours, too. The capabilities that
    somebody has in a user namespace of his own, which anybody may make, are none here: its numbers of users tell it
    (user_namespaces(7); the same map as ours cannot be written without a right to all those users). Not of a process
    that /proc hides from us, or of another pid namespace."""
    try:
        status = (_PROC / str(pid) / "status").read_text("ascii", "replace")
        if (_PROC / str(pid) / "uid_map").read_bytes() != (_PROC / "self/uid_map").read_bytes():
            return False
    except OSError:
        return False
    told = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    try:
        is_same = int(told["Uid"].split()[1]) == uid  # and not another process, which has the number by now
        return is_same and bool(int(told["CapPrm"], 16) & _NET_ADMIN)
    except (KeyError, IndexError, ValueError):
        return False


def _users() -> frozenset[int]:
    """Users that an egressd may run as: root, our own, the unit's."""
    found = {0, os.geteuid()}
    with suppress(KeyError):
        found.add(pwd.getpwnam(USER).pw_uid)
    return frozenset(found)
