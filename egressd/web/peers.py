"""Who is at the other end of the control socket, and what role they have.

The kernel says the user (SO_PEERCRED, unix(7)); the account database says the groups, looked up anew every few seconds,
so that somebody who was removed from a group loses the role without logging out.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import struct
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from egressd.web.requests import Refused, Role

CACHE_S: Final = 10.0
MAX_CACHED: Final = 1_024
LOOKUP_S: Final = 5.0  # a directory server that is down must not hold requests for longer
_UCRED: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Credentials(NamedTuple):
    """What the kernel says of a peer, as of its connect()."""

    pid: int
    uid: int


class Account(NamedTuple):
    """What the account database says of a user; supplementary groups and the primary one."""

    name: str
    groups: frozenset[str]


class Peer(NamedTuple):
    """Somebody with a role. `pid` was theirs when they connected."""

    pid: int
    uid: int
    name: str
    role: Role

    @property
    def actor(self) -> str:
        """As the audit log writes it: `uid:alice`."""
        return f"uid:{self.name or self.uid}"


def peer_credentials(connection: socket.socket) -> Credentials:
    """Of the process that connected."""
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Credentials(pid, uid)


def find_account(uid: int) -> Account:
    """Of the account database; may block for as long as a directory server takes. An unknown user has no groups."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return Account("", frozenset())
    groups = set()
    for gid in os.getgrouplist(user.pw_name, user.pw_gid):
        try:
            groups.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return Account(user.pw_name, frozenset(groups))


def is_group(name: str) -> bool:
    """Whether the account database knows a group; may block as `find_account` does."""
    try:
        grp.getgrnam(name)
    except (KeyError, ValueError):  # ValueError: a NUL in it
        return False
    return True


class Roles:
    """Maps users to roles by the groups that the configuration names. Root and the daemon's own user are admin, by
    their number alone, so that a broken account database locks nobody out for good."""

    def __init__(
        self,
        viewers: Iterable[str] = (),
        operators: Iterable[str] = (),
        admins: Iterable[str] = (),
        *,
        own_uid: int | None = None,
        account: Callable[[int], Account] = find_account,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = (
            (Role.ADMIN, frozenset(admins)),
            (Role.OPERATOR, frozenset(operators)),
            (Role.VIEWER, frozenset(viewers)),
        )
        self._own_uid = os.geteuid() if own_uid is None else own_uid
        self._own_name = account(self._own_uid).name or str(self._own_uid)  # once, before there is anybody to hold up
        self._account = account
        self._monotonic_s = monotonic_s
        self._cached: dict[int, tuple[float, str, Role | None]] = {}
        self._threads: ThreadPoolExecutor | None = None

    async def find(self, credentials: Credentials) -> Peer:
        """The peer with its name and role. Raises Refused for somebody without a role."""
        uid = credentials.uid
        if uid in (0, self._own_uid):
            return Peer(credentials.pid, uid, "root" if uid == 0 else self._own_name, Role.ADMIN)
        known = self._cached.get(uid)
        if known is None or self._monotonic_s() - known[0] > CACHE_S:
            known = await self._look_up(uid)
        _, name, role = known
        if role is None:
            raise Refused(f"user {uid} ({ascii(name)[1:-1]}) is in no group that may use the control socket")
        return Peer(credentials.pid, uid, name, role)

    async def _look_up(self, uid: int) -> tuple[float, str, Role | None]:
        loop = asyncio.get_running_loop()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="accounts")
        try:
            async with asyncio.timeout(LOOKUP_S):
                account = await loop.run_in_executor(self._threads, self._account, uid)
        except (TimeoutError, OSError):
            raise Refused("the account database does not answer, so your role is unknown; root is let in") from None
        role = next((role for role, groups in self._groups if groups & account.groups), None)
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        known = self._cached[uid] = (self._monotonic_s(), account.name, role)
        return known

    def close(self) -> None:
        """Let go of the threads; a lookup that hangs is not waited for."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
