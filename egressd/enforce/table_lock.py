"""One egressd alone changes the table of a network namespace: two would take back each other's blocks for ever.

The lock is a name of an abstract unix socket (unix(7)): the kernel knows it apart in each network namespace, as it does
the table, and forgets it when its holder dies. Everybody on the machine may take such a name, so who holds it is asked
of the kernel: somebody who could not be an egressd keeps none from its work.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import struct
from contextlib import suppress
from typing import Final

from egressd.enforce.adapter import AdapterError

NAME: Final = b"\0egressd-table"
USER: Final = "egressd"  # of the systemd unit
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
            ours.listen(8)
        except OSError as error:
            ours.close()
            if error.errno != errno.EADDRINUSE:
                self.problem = f"another egressd would not be noticed: {error.strerror}"
                return
            self._meet()
            return
        self._socket = ours

    def answer(self) -> None:
        """Let those go who asked who we are: the kernel has told them."""
        with suppress(OSError):
            while self._socket is not None:
                self._socket.accept()[0].close()

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
        if uid in self._users:
            raise TableHeld(
                f"another egressd (process {pid}) has the table inet egressd: two would take back each other's blocks."
                " Stop that one, or leave this one in mode monitor"
            )
        self.problem = f"another egressd would not be noticed: process {pid} of user {uid} has taken its name"


def _users() -> frozenset[int]:
    """Users that an egressd may run as: root, our own, the unit's."""
    found = {0, os.geteuid()}
    with suppress(KeyError):
        found.add(pwd.getpwnam(USER).pw_uid)
    return frozenset(found)
