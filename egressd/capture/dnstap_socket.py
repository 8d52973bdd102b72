"""A socket on which resolvers hand over dnstap: Frame Streams with their handshake, each connection by itself."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import Final

from egressd.errors import Malformed
from egressd.logs.framestream import ACCEPT, DATA, DNSTAP, FINISH, READY, STOP, FrameStream, render_control

MAX_CONNECTIONS: Final = 8  # a resolver has one, or one for each thread
READ_BYTES: Final = 1 << 18
# For egressd and a group: that of the folder, where it has the set-group-ID bit (inode(7)). Whoever can write to it can
# accuse anybody, so it is not for all.
MODE: Final = 0o660


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.stream = FrameStream()


class DnstapSocket:
    """Listens on a path. `problem` says why nothing can come, or is empty; `malformed` counts connections that spoke
    something else."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problem = ""
        self.malformed = 0
        self._listening: socket.socket | None = None
        self._connections: list[_Connection] = []

    def filenos(self) -> list[int]:
        """What to wait for."""
        found = [one.sock.fileno() for one in self._connections]
        return [self._listening.fileno(), *found] if self._listening is not None else found

    def close(self) -> None:
        """Let everything go, and take the socket away."""
        for one in self._connections:
            one.sock.close()
        self._connections.clear()
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            with suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108  (as bind wants it)

    def poll(self) -> list[bytes]:
        """Payloads that have come since, as many as one reading of each connection gives."""
        if self._listening is None and not self._listen():
            return []
        self._accept()
        payloads: list[bytes] = []
        for one in list(self._connections):
            try:
                octets = one.sock.recv(READ_BYTES)
                if not octets:
                    raise ConnectionError
                payloads += self._take(one, octets)
            except BlockingIOError:
                continue
            except (OSError, Malformed) as error:
                self.malformed += isinstance(error, Malformed)
                one.sock.close()
                self._connections.remove(one)
        return payloads

    def _listen(self) -> bool:
        """Take the path: what another run of ours left there is in the way."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                    raise OSError(0, "something that is no socket lies there")
                os.unlink(self.path)  # noqa: PTH108
            sock.bind(self.path)
            os.chmod(self.path, MODE)  # noqa: PTH101
            sock.listen(MAX_CONNECTIONS)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL, or too long
            sock.close()
            reason = getattr(error, "strerror", None) or "cannot be listened on"
            self.problem = f"{self.path}: {reason.lower()}"
            return False
        self._listening = sock
        self.problem = ""
        return True

    def _accept(self) -> None:
        while self._listening is not None and len(self._connections) < MAX_CONNECTIONS:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            sock.setblocking(False)
            self._connections.append(_Connection(sock))

    def _take(self, one: _Connection, octets: bytes) -> list[bytes]:
        payloads: list[bytes] = []
        for frame in one.stream.feed(octets):
            if frame.kind == DATA:
                payloads.append(frame.payload)
            elif frame.kind == READY:
                if frame.content_types and DNSTAP not in frame.content_types:
                    raise Malformed("a stream of something else than dnstap")
                one.sock.send(render_control(ACCEPT, DNSTAP))
            elif frame.kind == STOP:
                with suppress(OSError):  # who only sends does not wait for it
                    one.sock.send(render_control(FINISH))
        return payloads
