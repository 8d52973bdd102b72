"""Hosts that this gateway itself depends on and that people name, not number: time servers, feeds. Where they live now.

Asked of the machine's own resolver, again and again, and never learned from traffic. What was answered within the last
day stays protected: pools give other addresses each time, and a resolver that is out of order must not expose anything.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from egressd.intel.networks import parse_address

AGAIN_S: Final = 300.0
RETRY_S: Final = 30.0
KEPT_S: Final = 86_400.0
MAX_NAMES: Final = 256
MAX_ADDRESSES: Final = 64  # of one name: those seen last

log = logging.getLogger("egressd")


class NamedHosts:
    """`want` says which, `addresses` tells what is known; `run` asks. All on the event loop."""

    def __init__(
        self,
        resolve: Callable[[str], list[bytes]] | None = None,
        now_s: Callable[[], float] = time.monotonic,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        """`resolve` may block; it returns packed addresses and raises OSError. `on_change` hears of new addresses."""
        self._resolve = resolve or resolve_name
        self._now_s = now_s
        self._on_change = on_change
        self._wanted: dict[str, str] = {}
        self._found: dict[str, dict[bytes, float]] = {}  # by name: address and when it was answered last
        self._due_s: dict[str, float] = {}
        self._failing: set[str] = set()
        self._news = asyncio.Event()

    def want(self, names: Mapping[str, str]) -> None:
        """The names of now, each with what it is ("time server"); others are forgotten. Addresses among them are known
        without asking."""
        wanted = dict(list(names.items())[:MAX_NAMES])
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._found = {name: seen for name, seen in self._found.items() if name in wanted}
        self._due_s = {name: due_s for name, due_s in self._due_s.items() if name in wanted}
        self._failing &= wanted.keys()
        now_s = self._now_s()
        for name in wanted:
            address = parse_address(name)
            if address:
                self._found[name] = {address: float("inf")}
            else:
                self._due_s.setdefault(name, now_s)
        self._news.set()

    def addresses(self) -> list[tuple[bytes, str]]:
        """(packed address, why it is protected), in order of names."""
        since_s = self._now_s() - KEPT_S
        rows: list[tuple[bytes, str]] = []
        for name, what in self._wanted.items():
            seen = self._found.get(name, {})
            rows += [(one, what if parse_address(name) else f"{what} {name}") for one in seen if seen[one] >= since_s]
        return rows

    @property
    def unknown(self) -> list[str]:
        """Names that could not be resolved when asked last."""
        return sorted(self._failing)

    async def run(self) -> None:
        """Until cancelled."""
        with ThreadPoolExecutor(1, thread_name_prefix="egressd-names") as pool:
            while True:
                await self.resolve_due(pool)
                wait_s = min(self._due_s.values(), default=float("inf")) - self._now_s()
                self._news.clear()
                try:
                    async with asyncio.timeout(None if wait_s == float("inf") else max(0.0, wait_s)):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def resolve_due(self, pool: ThreadPoolExecutor | None = None) -> None:
        """Ask for every name whose time has come, one after the other."""
        loop = asyncio.get_running_loop()
        for name in [one for one, due_s in self._due_s.items() if due_s <= self._now_s()]:
            try:
                found = await loop.run_in_executor(pool, self._resolve, name)
            except OSError as error:
                self._fail(name, error.strerror or str(error))
            else:
                self._take(name, found)

    def _take(self, name: str, found: list[bytes]) -> None:
        if name not in self._wanted:
            return  # it was given up while we asked
        now_s = self._now_s()
        known = self._found.setdefault(name, {})
        new = set(found) - known.keys()
        for address in found:
            known.pop(address, None)
            known[address] = now_s  # the last answered stand last
        for address in list(known)[:-MAX_ADDRESSES]:
            del known[address]
        self._due_s[name] = now_s + AGAIN_S
        self._failing.discard(name)
        if new:
            self._on_change()

    def _fail(self, name: str, why: str) -> None:
        if name not in self._wanted:
            return
        self._due_s[name] = self._now_s() + RETRY_S
        if name not in self._failing:
            self._failing.add(name)
            kept = "what it answered before stays protected" if self._found.get(name) else "it is not protected"
            log.warning("the %s %s cannot be resolved: %s; %s", self._wanted[name], name, why, kept)


def resolve_name(name: str) -> list[bytes]:
    """Ask this machine's resolver (getaddrinfo(3)). Raises OSError."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # of the codec "idna", which it goes through: a label is empty or too long
        raise OSError(errno.EINVAL, "no name that can be asked for") from error
    return list(dict.fromkeys(parse_address(str(one[4][0]).partition("%")[0]) for one in found))
