"""What the core tells a process of ours by the socket between them: orders, put together from frames."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final

from egressd.runtime.messages import DOWN_FILE, DOWN_OBJECT, Frames

MAX_FILES: Final = 8  # descriptors that come with one read
MAX_DOWN_BYTES: Final = 64 << 20


class Inbox:
    """Orders in the order in which they were given. Whoever takes the first, a start, goes on with the same inbox."""

    def __init__(self, control: socket.socket) -> None:
        """`control` is the socket to the core."""
        self.control = control
        self.is_open = True  # False: the core has gone
        self._frames = Frames(MAX_DOWN_BYTES)
        self._files: list[int] = []
        self._waiting: list[Any] = []

    def first(self) -> Any:
        """The first order, waited for; None when the core went before it gave one."""
        while not self._waiting and self.is_open:
            self._take(0)
        return self._waiting.pop(0) if self._waiting else None

    def orders(self) -> Iterator[Any]:
        """What has come by now, one by one, without waiting."""
        while True:
            while self._waiting:
                yield self._waiting.pop(0)
            if not self.is_open:
                return
            try:
                self._take(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return

    def _take(self, flags: int) -> None:
        received, fds = _receive(self.control, flags)
        if not received:
            self.is_open = False
            return
        self._files += fds
        for kind, body in self._frames.feed(received):
            self._waiting.append(_read_order(kind, body, self._files))


def inbox_of_process(fd: int) -> Inbox:
    """For a process whose socket to the core is `fd`. The core alone stops it: signals for the group are not for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return Inbox(socket.socket(fileno=fd))


def _receive(control: socket.socket, flags: int) -> tuple[bytes, list[int]]:
    """Bytes and descriptors; not socket.recv_fds, which takes flags and leaves them out."""
    received, messages, _, _ = control.recvmsg(1 << 20, socket.CMSG_LEN(MAX_FILES * 4), flags)
    fds: list[int] = []
    for level, kind, body in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds += [int.from_bytes(body[at : at + 4], sys.byteorder) for at in range(0, len(body) - 3, 4)]
    return received, fds


def _read_order(kind: int, body: bytes, files: list[int]) -> Any:
    """The order in a frame; a large one lies in the memory file whose descriptor came first."""
    if kind == DOWN_OBJECT:
        return pickle.loads(body)
    if kind != DOWN_FILE:
        raise ValueError(f"a frame of kind {kind}")
    with os.fdopen(files.pop(0), "rb") as file:
        file.seek(0)
        return pickle.load(file)
