"""The writer thread: runs calls on the one connection, and commits together what queues up while a commit waits.

What waits when a commit ends goes into the next one: a burst costs one fsync, and nobody is told "done" before COMMIT
has returned. Each call has a savepoint, so that one that fails takes no other down.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from time import monotonic_ns
from types import TracebackType
from typing import Any, Final

from egressd.store.errors import CLOSED, CORRUPT, FULL, IO, StoreError, explained, kind_of

MAX_GROUP: Final = 512  # calls in one commit
MAX_GROUP_NS: Final = 20_000_000  # a commit begins at the latest after so much work
_STORAGE: Final = (FULL, IO, CORRUPT)  # not the call's fault: the whole transaction is lost

Run = Callable[[Connection], Any]


@dataclass(slots=True)
class Stats:
    """What the thread did since it started; read without a lock."""

    commits: int = 0
    calls: int = 0  # in those commits
    failed: int = 0  # calls whose caller got an error
    storage_errors: int = 0  # transactions that the disk refused
    last_commit_us: int = 0  # how long the last COMMIT took
    slowest_commit_us: int = 0


class _Outcome:
    """What came of one call. Whatever it raised goes to whoever awaits it, so it may not end the thread."""

    __slots__ = ("error", "value")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.value: Any = None

    def __enter__(self) -> _Outcome:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        return True


class _Call:
    """One function to run on the connection."""

    __slots__ = ("future", "large", "run")

    def __init__(self, run: Run, large: bool) -> None:
        self.run = run
        self.large = large
        self.future: Future[Any] = Future()


class Writer:
    """A thread with a connection, from construction to `close`."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[], Connection],
        make_room: Callable[[Connection], bool],
        after_commit: Callable[[Connection], None],
    ) -> None:
        """All three are called in the thread: `connect` once; `make_room` when the disk is full, and tells whether to
        try again; `after_commit` after every group. Raises what `connect` raises."""
        self.stats = Stats()
        self._path = path
        self._connect = connect
        self._make_room = make_room
        self._after_commit = after_commit
        self._wake = threading.Condition()
        self._writes: deque[_Call] = deque()
        self._others: deque[_Call] = deque()
        self._closing = False
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name=f"store {path.name}", daemon=True)
        self._thread.start()
        self._ready.result()

    # -- from any thread

    @property
    def waiting(self) -> int:
        """Calls that have not begun."""
        return len(self._writes) + len(self._others)

    def write(self, run: Run, large: bool = False) -> Future[Any]:
        """`run(connection)` in a transaction; when it is large in one of its own."""
        return self._put(self._writes, _Call(run, large))

    def alone(self, run: Run) -> Future[Any]:
        """`run(connection)` between two transactions."""
        return self._put(self._others, _Call(run, False))

    def close(self) -> None:
        """Finish what waits, then close the connection."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _put(self, queue: deque[_Call], call: _Call) -> Future[Any]:
        with self._wake:
            if self._closing:
                raise StoreError(f"{self._path}: is closed", CLOSED)
            queue.append(call)
            self._wake.notify()
        return call.future

    # -- in the thread

    def _work(self) -> None:
        opening = _Outcome()
        with opening:
            opening.value = self._connect()
        if opening.error is not None:
            self._ready.set_exception(explained(opening.error, self._path))
            return
        connection: Connection = opening.value
        self._ready.set_result(None)
        while self._wait():
            if self._writes:
                self._commit_waiting(connection)
            if self._others:  # one between two commits: neither side can starve the other
                self._run_alone(connection, self._others.popleft())
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with suppress(sqlite3.Error):
            connection.close()

    def _wait(self) -> bool:
        with self._wake:
            while not (self._writes or self._others or self._closing):
                self._wake.wait()
            return bool(self._writes or self._others)

    def _commit_waiting(self, connection: Connection) -> None:
        calls: list[_Call] = []
        while self._writes and len(calls) < MAX_GROUP and not (calls and (calls[0].large or self._writes[0].large)):
            call = self._writes.popleft()
            if call.future.set_running_or_notify_cancel():
                calls.append(call)
        while calls:
            calls = self._settle(connection, calls)
        self._after_commit(connection)

    def _settle(self, connection: Connection, calls: list[_Call]) -> list[_Call]:
        """Commit as many of `calls` as one transaction should hold, tell their callers, return the rest."""
        try:
            outcomes = self._transaction(connection, calls)
        except sqlite3.Error as error:
            self.stats.storage_errors += 1
            if kind_of(error) == FULL and self._make_room(connection):
                return calls
            if len(calls) == 1:
                self._fail(calls[0], error)
            for call in calls if len(calls) > 1 else ():  # which of them was too much shows one by one
                left = [call]
                while left:
                    left = self._settle(connection, left)
            return []
        for call, outcome in zip(calls, outcomes, strict=False):
            self._tell(call, outcome)
        return calls[len(outcomes) :]

    def _transaction(self, connection: Connection, calls: list[_Call]) -> list[_Outcome]:
        """Raises sqlite3.Error when the transaction as a whole came to nothing."""
        outcomes: list[_Outcome] = []
        limit_ns = monotonic_ns() + MAX_GROUP_NS
        try:
            connection.execute("BEGIN IMMEDIATE")
            for call in calls:
                outcome = _Outcome()
                # Under a savepoint SQLite keeps the former state of every page again for each statement, in a list that
                # it walks after each (memjrnlTruncate): 10,000 scattered rows took 6 s, and take 0.3 s without one.
                if not call.large:
                    connection.execute("SAVEPOINT one")
                with outcome:
                    outcome.value = call.run(connection)
                if isinstance(outcome.error, sqlite3.Error):
                    # SQLite ends the transaction by itself after some errors: https://www.sqlite.org/lang_transaction.html
                    if kind_of(outcome.error) in _STORAGE or not connection.in_transaction:
                        raise outcome.error
                if call.large:
                    if outcome.error is not None:
                        return [outcome]
                else:
                    if outcome.error is not None:
                        connection.execute("ROLLBACK TO one")
                    connection.execute("RELEASE one")
                outcomes.append(outcome)
                if monotonic_ns() > limit_ns:
                    break
            begun_ns = monotonic_ns()
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        stats = self.stats
        stats.commits += 1
        stats.calls += len(outcomes)
        stats.last_commit_us = (monotonic_ns() - begun_ns) // 1_000
        stats.slowest_commit_us = max(stats.slowest_commit_us, stats.last_commit_us)
        return outcomes

    def _run_alone(self, connection: Connection, call: _Call) -> None:
        if not call.future.set_running_or_notify_cancel():
            return
        outcome = _Outcome()
        with outcome:
            outcome.value = call.run(connection)
        self._tell(call, outcome)

    def _tell(self, call: _Call, outcome: _Outcome) -> None:
        if outcome.error is None:
            call.future.set_result(outcome.value)
        else:
            self._fail(call, outcome.error)

    def _fail(self, call: _Call, error: BaseException) -> None:
        self.stats.failed += 1
        call.future.set_exception(explained(error, self._path))
