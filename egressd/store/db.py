"""A SQLite file that one process owns: one connection, in one thread (writer.py), with grouped commits.

Why one connection: the ledger is the truth and has one writer, and SQLite before 3.51.3 can lose commits when two
connections of a WAL database meet at a checkpoint (https://www.sqlite.org/wal.html, "the WAL-reset bug"). The
connection locks the file exclusively, so that no second one can be opened by mistake.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from errno import EROFS
from pathlib import Path
from sqlite3 import Connection
from typing import Concatenate, Final, Literal, NamedTuple, ParamSpec, TypeVar

from egressd.store.ballast import DEFAULT_BALLAST_BYTES, Ballast
from egressd.store.errors import CLOSED, CORRUPT, IO, StoreError
from egressd.store.lockfile import LockFile
from egressd.store.migrations import Step, migrate, old_copy
from egressd.store.set_aside import MAX_FAULTS, set_aside
from egressd.store.syncing import sync
from egressd.store.writer import Stats, Writer

P = ParamSpec("P")
T = TypeVar("T")

BUSY_S: Final = 5.0
# SQLite checkpoints by itself only when the timer has failed us: 64 MiB of pages.
SAFETY_CHECKPOINT_PAGES: Final = 16_384
CACHE_KIB: Final = 32_768
TOLD_FAULTS: Final = 5
OLD_COPY_S: Final = 86_400


class Checkpoint(NamedTuple):
    """Pages in the write-ahead log, and how many of them are in the database file by now."""

    log_pages: int
    moved_pages: int


class Database:
    """The file and its writer thread. `open` before use; `close` when done."""

    def __init__(
        self,
        path: Path,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        *,
        steps: Sequence[Step],
        ballast_bytes: int = DEFAULT_BALLAST_BYTES,
        cache_kib: int = CACHE_KIB,
        text_of: Callable[[bytes], str] | None = None,
        keeps_old: bool = False,
        may_be_in_memory: bool = False,
        sets_aside: bool = False,
    ) -> None:
        """`steps` are the migrations; `ballast_bytes` is kept free for when the disk is full, 0 = none; `cache_kib` of
        pages are kept in memory; `text_of` reads text columns, which are UTF-8 or an error without it. `keeps_old`: a
        copy is made before a migration, the way back to the version before. `may_be_in_memory`: on a disk that is
        read-only a copy in memory is opened instead. `sets_aside`: rows with a value that their column cannot hold are
        taken out (set_aside.py); else they are damage like any other."""
        self.path = path
        self.low_on_space = False  # there is no ballast, or it is spent; `checkpoint` takes it again once there is room
        self._synchronous = synchronous
        self._steps = steps
        self._cache_kib = cache_kib
        self._text_of = text_of
        self._keeps_old = keeps_old
        self._may_be_in_memory = may_be_in_memory
        self._sets_aside = sets_aside
        self.aside: list[str] = []  # what `open` took out of a damaged file
        self.in_memory = False  # what is written is in memory alone, until `save` finds that the disk can be written
        self.upgraded = ""  # what `open` did to a file of an earlier version, and where its copy lies
        self._ballast = Ballast(path.with_name(path.name + ".ballast"), ballast_bytes)
        self._lock: LockFile | None = None
        self._writer: Writer | None = None
        self._made: list[str] = []
        self._identity: tuple[int, int] | None = None  # device and inode of the file that is written

    # -- from any thread

    @property
    def is_open(self) -> bool:
        """Whether it is between `open` and `close`."""
        return self._writer is not None

    def open(self, now_us: int, check: bool = True) -> list[str]:
        """Lock, open, check and migrate; returns the names of the migrations made. `check` reads every page.

        Raises StoreError: held by another process, damaged, of a newer version, disk trouble.
        """
        if self._writer is not None:
            raise StoreError(f"{self.path}: is open already")
        self._lock = LockFile(self.path.with_name(self.path.name + ".lock"))
        try:
            self._writer = Writer(self.path, lambda: self._connect(now_us, check), self._make_room, self._keep_small)
        except StoreError:
            self.close()
            raise
        self._identity = _identity(self.path)
        return self._made

    def is_displaced(self) -> bool:
        """Whether another file, or none, lies where the one that is written was opened: somebody removed or replaced
        it, and what is written ends with this process. `backup` still has all of it. False when nobody can say: a
        folder that was closed to us has lost nothing."""
        found = _identity(self.path)
        return not self.in_memory and found is not None and found != self._identity

    async def run(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, ...)` in a transaction; returns after it is on disk. `fn` may be run twice when the disk was
        full (its first run is rolled back), so it must have no effect but on the connection.

        Raises what `fn` raises, and StoreError for trouble with the file. A cancelled caller does not undo a call that
        has begun.
        """
        value: T = await asyncio.wrap_future(self._opened().write(lambda one: fn(one, *args, **kwargs)))
        return value

    async def run_large(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `run`, in a transaction of its own: for thousands of rows at once, which others need not wait with, and
        which are slow under a savepoint."""
        value: T = await asyncio.wrap_future(self._opened().write(lambda one: fn(one, *args, **kwargs), large=True))
        return value

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, ...)` that only reads: after the writes that wait, without a commit. It holds up the writes
        that come while it runs, so it should be short."""
        value: T = await asyncio.wrap_future(
            self._opened().alone(lambda one: _only_reading(one, lambda same: fn(same, *args, **kwargs)))
        )
        return value

    def call(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `run`, waiting in this thread: for start-up, for tools and for tests; never inside the event loop."""
        value: T = self._opened().write(lambda one: fn(one, *args, **kwargs), large=True).result()
        return value

    async def checkpoint(self) -> Checkpoint:
        """Move the log into the file, and take the ballast again if there is room: to be called by a timer. Raises
        StoreError when the disk is full; nothing is lost by it."""
        done: Checkpoint = await asyncio.wrap_future(self._opened().alone(self._checkpoint))
        return done

    async def backup(self, path: Path) -> int:
        """Write a compact copy and put it in place of `path`, fsynced; returns its size in bytes. Holds up writes while
        it runs (about 0.1 s for 20 MB). Raises StoreError; the old copy stays then."""
        size_bytes: int = await asyncio.wrap_future(self._opened().alone(lambda one: _back_up(one, path)))
        return size_bytes

    async def save(self) -> None:
        """Put what is in memory in the file's place, which nobody changed since, for its lock is ours. Raises
        StoreError while the disk cannot be written."""
        await asyncio.wrap_future(self._opened().alone(lambda one: _back_up(one, self.path, has_log=True)))

    @property
    def stats(self) -> Stats:
        """What the writer thread did since `open`."""
        return self._opened().stats

    @property
    def waiting(self) -> int:
        """Calls that have not begun."""
        return self._opened().waiting

    def close(self) -> None:
        """Finish what waits, move the log into the file, let go of the lock."""
        if self._writer is not None:
            if self.in_memory:
                with suppress(StoreError, sqlite3.Error):  # it was an alarm all the while
                    self._writer.alone(lambda one: _back_up(one, self.path, has_log=True)).result()
            self._writer.close()
            self._writer = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _opened(self) -> Writer:
        if self._writer is None:
            raise StoreError(f"{self.path}: is closed", CLOSED)
        return self._writer

    # -- in the writer thread

    def _connect(self, now_us: int, check: bool) -> Connection:
        try:
            number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.fchmod(number, 0o600)  # the log takes its mode from the file's
            os.close(number)
        except OSError as error:
            self.in_memory = self._may_be_in_memory and error.errno == EROFS and self.path.exists()
            if not self.in_memory:
                raise StoreError(f"{self.path}: {error.strerror}; egressd must be able to write it", IO) from error
        name = ":memory:" if self.in_memory else self.path
        connection = sqlite3.connect(name, timeout=BUSY_S, isolation_level=None, cached_statements=256)
        try:
            if self.in_memory:
                _copy(self.path, connection)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA wal_autocheckpoint = {SAFETY_CHECKPOINT_PAGES}").fetchall()
            connection.execute(f"PRAGMA cache_size = -{self._cache_kib}")
            connection.execute("PRAGMA temp_store = MEMORY")
            if check:
                self._check(connection, now_us)
            self._made = self._migrate(connection, now_us)
        except (sqlite3.Error, StoreError):
            connection.close()
            raise
        if self._text_of is not None:
            connection.text_factory = self._text_of
        self.low_on_space = not self._ballast.refill()
        return connection

    def _migrate(self, connection: Connection, now_us: int) -> list[str]:
        try:
            return migrate(connection, self._steps, self.path, now_us, self._keep_old)
        except sqlite3.Error as error:
            # What is kept free is for rows, not for a copy: so without one.
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL or not self._make_room(connection):
                raise
            return migrate(connection, self._steps, self.path, now_us)

    def _keep_old(self, connection: Connection, shape: int) -> None:
        """Before the first step of an upgrade. Without room for a copy it is made all the same: a gateway must not
        be left without its watch."""
        if not self._keeps_old:
            return
        copy = old_copy(self.path, shape)
        self.upgraded = f"{self.path.name} is taken over from an earlier version"
        try:
            _back_up(connection, copy)
        except (sqlite3.Error, StoreError) as error:
            self.upgraded += f"; there is NO COPY of it as it was, and no way back to that version: {error}"
            return
        self.upgraded += f"; {copy.name} is a copy of it as it was"
        for other in copy.parent.glob(old_copy(self.path, 0).name[:-1] + "*"):
            with suppress(OSError):
                # One of the last day may be of this very upgrade, which was cut off between two steps.
                if other.stat().st_mtime < copy.stat().st_mtime - OLD_COPY_S:
                    other.unlink()

    def _check(self, connection: Connection, now_us: int) -> None:
        found = _faults(connection)
        if found and self._sets_aside:
            with suppress(sqlite3.Error):  # then it stays as it is
                self.aside = set_aside(connection, self.path, found, now_us)
                found = _faults(connection) if self.aside else found
        if found:
            advice = "stop egressd, keep a copy, and put the last backup in its place (docs/operating.md)"
            raise StoreError(f"{self.path}: damaged ({'; '.join(found[:TOLD_FAULTS])}); {advice}", CORRUPT)

    def _checkpoint(self, connection: Connection) -> Checkpoint:
        _, log_pages, moved_pages = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if self._ballast.refill():
            self.low_on_space = False
        return Checkpoint(log_pages, moved_pages)

    def _make_room(self, connection: Connection) -> bool:
        """Give the ballast back and use the log's space again. False when that was done before."""
        if not self._ballast.free():
            return False
        self.low_on_space = True
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return True

    def _keep_small(self, connection: Connection) -> None:
        if self.low_on_space:  # what is left of the ballast is for rows, not for the log
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _faults(connection: Connection) -> list[str]:
    found = [str(row[0]) for row in connection.execute(f"PRAGMA quick_check({MAX_FAULTS})")]
    return found if found != ["ok"] else []


def _only_reading(connection: Connection, fn: Callable[[Connection], T]) -> T:
    connection.execute("PRAGMA query_only = 1")
    try:
        return fn(connection)
    finally:
        connection.execute("PRAGMA query_only = 0")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode, zeros when there is no file, None when nobody can say."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _copy(path: Path, into: Connection) -> None:
    """All of a file on a disk that cannot be written. What a crash left in its log SQLite reads only where it can write
    beside it (https://www.sqlite.org/wal.html, "Read-Only Databases"). Raises StoreError."""
    log = path.with_name(path.name + "-wal")
    try:
        if not (log.exists() and log.stat().st_size):
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as source:
                source.backup(into)
            return
        with _scratch() as folder:
            copies = [shutil.copy(one, folder) for one in (path, log)]
            with closing(sqlite3.connect(copies[0])) as source:
                source.backup(into)
    except OSError as error:
        what = f"{path}: on a disk that is read-only, and its log cannot be copied elsewhere: {error.strerror}"
        raise StoreError(f"{what}; make it writable", IO) from error


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that can be written although a disk cannot, in memory if possible. Raises OSError."""
    for folder in (*os.environ.get("RUNTIME_DIRECTORY", "").split(":"), "/dev/shm"):
        if folder:
            with suppress(OSError):
                return tempfile.TemporaryDirectory(prefix="egressd-", dir=folder)
    return tempfile.TemporaryDirectory(prefix="egressd-")


def _back_up(connection: Connection, path: Path, *, has_log: bool = False) -> int:
    """`has_log`: there may be the log of an earlier run beside `path`, which would be taken for the copy's."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection.execute("VACUUM INTO ?", (str(fresh),))
        sync(fresh)
        for ending in ("-wal", "-shm") if has_log else ():
            path.with_name(path.name + ending).unlink(missing_ok=True)
        fresh.replace(path)
        sync(path.parent)
        return path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: no backup: {error.strerror}", IO) from error
    finally:
        with suppress(OSError):  # a folder that was closed to us, a disk that has become read-only
            fresh.unlink(missing_ok=True)
