"""The control socket: one JSON object a line each way, for the command line and whoever else may use it.

Every peer is taken for hostile. What it can hold is bounded: a connection among 64, 64 KiB of one request, 5 s to
finish a line, 30 s of idling, a few running requests. When all connections are taken, the user who holds most of them
loses the one that has been without a running request for longest; so any number of slow connections keeps nobody else
waiting, and never keeps out another user: in an attack the command that blocks has to get through.

Who owns it: `open` first, then `serve` until it is cancelled. Nothing here runs beyond `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import grp
import logging
import os
import socket
import stat
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from egressd.errors import EgressdError
from egressd.web.connection import Bounds, Connection, Stats, render_answer, render_refusal
from egressd.web.peers import Credentials, Peer, Roles, peer_credentials
from egressd.web.requests import VERB_ROLES, Refused, check_args, parse_request

__all__ = ["VERB_ROLES", "Bounds", "ControlError", "ControlServer", "Peer", "Refused", "Roles", "Standing", "Stats"]

logger = logging.getLogger(__name__)

SOCKET_MODE: Final = 0o660
BACKLOG: Final = 128  # that the kernel keeps waiting
ACCEPTED_AT_ONCE: Final = 8  # between two looks at what the accepted have sent
BOUNDS: Final = Bounds()
GRACE_S: Final = 2.0  # for requests that run when the server stops

Record = dict[str, Any]
Handler = Callable[[Peer, str, Record], Awaitable[Mapping[str, Any]]]


class ControlError(EgressdError):
    """The socket cannot be made. The message says what to do."""


class Standing(NamedTuple):
    """How the daemon stands; goes with every answer, so that every screen can show it. `since` is when it began to
    look, in ISO 8601; `down` names the interfaces that see nothing, `failing` the adapters of which nobody knows what
    they hold; `unwritten` counts changes that the ledger lacks because it cannot be written, `modes`
    segments that are under another mode."""

    mode: str
    packets: int
    since: str
    down: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    unwritten: int = 0
    modes: int = 0


class ControlServer:
    """Serves `handler` at `path`. A handler gets checked arguments (requests.VERB_ARGS) of a peer that has the role for
    the verb, and returns the result; it raises Refused, or another EgressdError, whose message goes to the person."""

    def __init__(
        self,
        path: Path,
        handler: Handler,
        roles: Roles,
        standing: Callable[[], Standing],
        *,
        group: str = "",
        bounds: Bounds = BOUNDS,
        refused: Callable[[Peer, str], None] | None = None,
        credentials: Callable[[socket.socket], Credentials] = peer_credentials,
    ) -> None:
        """`group` owns the socket ("" leaves it to the daemon's). `refused` is told of each verb that a peer lacked the
        role for, for the audit log."""
        self.path = path
        self.bounds = bounds
        self.stats = Stats()
        self.credentials = credentials
        self._handler = handler
        self._roles = roles
        self._standing = standing
        self._group = group
        self._refused = refused
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: Counter[int] = Counter()
        self._lock_fd = -1
        self._inode = 0
        self._server: asyncio.Server | None = None

    # -- life

    async def open(self) -> None:
        """Make the socket and listen. Replaces the socket that a dead daemon left; raises ControlError when another
        one lives, or when the folder does not allow it."""
        try:
            self._lock()
            listening = self._bind()
        except OSError as error:
            self._unlock()
            why = "the path is too long for a socket" if "too long" in str(error) else os.strerror(error.errno or 0)
            raise ControlError(
                f"{self.path}: {why}; its folder must be there and be the daemon's (systemd: RuntimeDirectory=egressd)"
            ) from None
        except ControlError:
            self._unlock()
            raise
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            partial(Connection, self), sock=listening, backlog=ACCEPTED_AT_ONCE
        )
        listening.listen(BACKLOG)  # asyncio takes `backlog` for how many to accept at once, too

    async def serve(self) -> None:
        """Answer until cancelled; then the socket is gone and every request has ended."""
        if self._server is None:
            await self.open()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop; `serve` does it by itself, unless it was cancelled before it began. Running requests get a moment to
        end, for what they do may be half done. Closing twice does nothing."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        for connection in list(self._connections):
            if not connection.is_running:
                connection.drop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_S)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for connection in list(self._connections):
            connection.drop()
        self._roles.close()
        self._unlock()

    def _lock(self) -> None:
        """The kernel lets go of the lock when its holder dies, so two daemons that start at once cannot both win."""
        self._lock_fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ControlError(f"{self.path}: another egressd runs here; stop it first") from None

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _bind(self) -> socket.socket:
        """A listening socket at the path, which was never there with another mode or owner."""
        self._check_stale()
        new = Path(f"{self.path}.new")
        new.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listening.bind(str(new))  # nobody can connect before listen()
            if self._group:
                os.chown(new, -1, self._gid())
            new.chmod(SOCKET_MODE)
            listening.listen(BACKLOG)
            self._inode = new.stat().st_ino
            new.rename(self.path)
        except BaseException:
            listening.close()
            new.unlink(missing_ok=True)
            raise
        return listening

    def _gid(self) -> int:
        try:
            return grp.getgrnam(self._group).gr_gid
        except KeyError:
            raise ControlError(f"{self.path}: there is no group {self._group!a} to own the control socket") from None

    def _check_stale(self) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ControlError(f"{self.path}: is there and is no socket; it was not touched")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            refused = probe.connect_ex(str(self.path)) == errno.ECONNREFUSED
        if not refused:
            raise ControlError(f"{self.path}: another program answers there; stop it first")

    # -- connections

    def admit(self, new: Connection) -> None:
        """Take a connection in; over the bound another one has to go."""
        self.stats.connections += 1
        self._connections.add(new)
        if len(self._connections) <= self.bounds.connections:
            return
        held = Counter(one.uid for one in self._connections)
        idle = [one for one in self._connections if not one.is_running and one is not new]
        if not idle:
            self.stats.busy += 1
            new.leave("every connection is busy; try again", again=True)
            return
        self.stats.evicted += 1
        loser = max(idle, key=lambda one: (held[one.uid], -one.idle_since_s))
        loser.leave("too many connections; this one idled for longest", again=True)

    def release(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)

    def start(self, connection: Connection, line: bytes) -> None:
        """Begin to answer a line. The task is held until it has ended."""
        if self._running[connection.uid] >= self.bounds.running_per_uid or self._running.total() >= self.bounds.running:
            self.stats.busy += 1
            connection.leave("too many requests at once; try again", again=True)
            return
        self.stats.requests += 1
        self._running[connection.uid] += 1
        connection.is_running = True
        task = asyncio.get_running_loop().create_task(self._answer(connection, line))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, connection))

    async def _answer(self, connection: Connection, line: bytes) -> None:
        try:
            peer, verb, args = await self._understand(connection, line)
            result = await self._handler(peer, verb, args)
            standing = self._standing()._asdict()
            parts = []
            for part in render_answer({"ok": True, **standing, "result": result}):
                parts.append(part)
                await asyncio.sleep(0)  # a long answer must not hold up the rest of the daemon
        except EgressdError as error:
            refusal = error if isinstance(error, Refused) else Refused(str(error))
            parts = [render_refusal(refusal.text, refusal.code)]
        finally:
            self._stopped(connection)
        await connection.send(parts)

    async def _understand(self, connection: Connection, line: bytes) -> tuple[Peer, str, Record]:
        """Role before arguments: who has no role learns nothing but that."""
        peer = await self._roles.find(Credentials(connection.pid, connection.uid))
        try:
            request = parse_request(line)
        except Refused:
            self.stats.malformed += 1
            raise
        needed = VERB_ROLES[request.verb]
        if peer.role < needed:
            self.stats.refused += 1
            if self._refused is not None:
                self._refused(peer, request.verb)
            raise Refused(
                f"{request.verb} needs the role {needed.name.lower()};"
                f" {ascii(peer.name)[1:-1]} is {peer.role.name.lower()}"
            )
        return peer, *check_args(request)

    def _stopped(self, connection: Connection) -> None:
        connection.is_running = False
        connection.idle_since_s = asyncio.get_running_loop().time()
        self._running[connection.uid] -= 1
        if not self._running[connection.uid]:
            del self._running[connection.uid]

    def _ended(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            connection.drop()
            return
        error = task.exception()
        if error is not None:  # a mistake in a handler: the log gets all of it, the peer nothing
            self.stats.failed += 1
            logger.error("a control request failed", exc_info=error)
            connection.leave("internal error; the daemon's log has it (journalctl -u egressd)")
            return
        connection.ready()
