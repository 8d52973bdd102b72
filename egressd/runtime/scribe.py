"""Writes to the ledger in order, and keeps what cannot be written until it can.

Blocking never waits for a disk: what policy decides is in memory and in the kernel, and its rows follow as soon as the
ledger takes them. Operators do wait: `settled` returns when all that was put so far is on disk, or says why it is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from sqlite3 import Connection
from typing import Any, Final

from egressd.store.db import Database
from egressd.store.errors import REQUEST, StoreError

MAX_WAITING: Final = 200_000  # rows; of more the oldest are given up, counted: the disk has failed for hours then
GROUP: Final = 512
RETRY_S: Final = 1.0

log = logging.getLogger("egressd.ledger")

Write = tuple[Callable[..., Any], tuple[Any, ...]]


class Scribe:
    """A queue of writes in front of a database."""

    def __init__(self, ledger: Database, on_written: Callable[[], None]) -> None:
        """`on_written` is called after each commit: what policy decided is put in force for longer."""
        self.ledger = ledger
        self.trouble = ""  # why nothing can be written at the moment
        self.given_up = 0
        self.refused = 0
        self._on_written = on_written
        self._waiting: deque[Write] = deque()
        self._put = 0
        self._done = 0
        self._writing: asyncio.Task[bool] | None = None  # a group that is at hand
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()

    @property
    def waiting(self) -> int:
        """Writes that are not on disk."""
        return self._put - self._done

    def put(self, write: Callable[..., Any], *args: Any) -> None:
        """`write(connection, *args)` after everything that was put before."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.given_up += 1
            self._done += 1
        self._waiting.append((write, args))
        self._put += 1
        self._wake.set()

    async def settled(self) -> None:
        """Wait until all that was put before now is on disk. Raises StoreError when the ledger cannot be written."""
        wanted = self._put
        async with self._progress:
            await self._progress.wait_for(lambda: self._done >= wanted or self.trouble != "")
        if self._done < wanted:
            raise StoreError(self.trouble)

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                if not await self._write_group():
                    await asyncio.sleep(RETRY_S)

    async def drain(self) -> None:
        """The daemon ends: write what waits, if it can be written."""
        while self._waiting and await self._write_group():
            pass

    async def _write_group(self) -> bool:
        """Write the oldest; False while that cannot be done. A commit that has begun is not taken back when whoever
        waits for it is cancelled (Database.run): the next call waits for that one, or its rows would be written twice.
        """
        if self._writing is None:
            group = [self._waiting[at] for at in range(min(GROUP, len(self._waiting)))]
            self._writing = asyncio.get_running_loop().create_task(self._write_all_of(group), name="ledger's group")
        writing = self._writing
        try:
            return await asyncio.shield(writing)
        finally:
            if writing.done():
                self._writing = None

    async def _write_all_of(self, group: list[Write]) -> bool:
        try:
            await self.ledger.run_large(_write_all, group)
        except StoreError as error:
            if error.kind != REQUEST:
                await self._stuck(str(error))
                return False
            if not await self._write_one_by_one(len(group)):
                return False
        else:
            self._took(len(group))
        if self.trouble:
            log.warning("the ledger can be written again")
            self.trouble = ""
        async with self._progress:
            self._progress.notify_all()
        self._on_written()
        return True

    async def _write_one_by_one(self, count: int) -> bool:
        """One of them cannot be written ever: all others can. False when the ledger fails meanwhile."""
        for _ in range(count):
            try:
                await self.ledger.run_large(_write_all, [self._waiting[0]])
            except StoreError as error:
                if error.kind != REQUEST:
                    await self._stuck(str(error))
                    return False
                self._refuse(error)
            self._took(1)
        return True

    def _took(self, count: int) -> None:
        """So many of the oldest need not be written any more."""
        for _ in range(count):
            self._waiting.popleft()
        self._done += count

    def _refuse(self, error: StoreError) -> None:
        """A row that the ledger has no place for: of something that ended in between."""
        self.refused += 1
        log.warning("the ledger refused a row: %s", error)

    async def _stuck(self, why: str) -> None:
        if not self.trouble:
            log.error("the ledger cannot be written, blocking goes on without it: %s", why)
        self.trouble = why
        async with self._progress:
            self._progress.notify_all()


def _write_all(connection: Connection, group: list[Write]) -> None:
    for write, args in group:
        write(connection, *args)
