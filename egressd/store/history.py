"""Who contacted what, and who lived where: the past that a retro-hunt searches. A file beside the ledger's.

Lossy by contract: commits do not wait for the disk (NORMAL), so a power cut may take the last seconds; on a disk that
gets full, history is dropped before the ledger suffers; a damaged file is moved aside and begun anew. Everything lost
is counted or told.

Contacts are kept per client, name, address and hour. Names stand once, in a table of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from egressd.store import past
from egressd.store.ballast import DEFAULT_BALLAST_BYTES
from egressd.store.db import Checkpoint, Database
from egressd.store.errors import CORRUPT, FULL, SCHEMA, StoreError
from egressd.store.migrations import HISTORY
from egressd.store.records import plus
from egressd.units import DAY_US, HOUR_US

FOREVER_US: Final = (1 << 63) - 1
CHECK_BYTES: Final = 256 << 20  # a larger file is not read whole at start; damage shows when it is met
CACHE_KIB: Final = (
    16_384  # contacts come scattered over the whole file: more would be quicker, but the gateway is small
)
NAMES_AT_ONCE: Final = 20_000
ROWS_AT_ONCE: Final = 50_000  # a sixth of a second
KEYS: Final = {"contacts": "name, client, address, hour", "pdns": "address, registered_domain"}


P = ParamSpec("P")
T = TypeVar("T")


class Contact(NamedTuple):
    """Contacts of a client since the batch before. `name` and `registered_domain` are "" when none was named, `address`
    is packed, b"" when it only asked. They count for the hour of the last one."""

    client: bytes
    registered_domain: str
    name: str
    address: bytes
    first_us: int
    last_us: int
    contacts: int


class Tenant(NamedTuple):
    """A registered domain that was seen at an address."""

    registered_domain: str
    address: bytes
    first_us: int
    last_us: int
    times: int


class Bounds(NamedTuple):
    """How much is kept; a row of contacts takes about 150 bytes with its indexes."""

    age_us: int = 90 * DAY_US
    contacts: int = 10_000_000
    tenants: int = 2_000_000


DEFAULT_BOUNDS: Final = Bounds()


@dataclass(slots=True)
class Stats:
    """What became of the rows."""

    recorded: int = 0
    dropped: int = 0  # not written: the disk was full or failed
    begun_anew: int = 0  # the file was damaged


class History:
    """The file. `open` before use, `close` when done."""

    def __init__(
        self, path: Path, bounds: Bounds = DEFAULT_BOUNDS, reserve_bytes: int = 2 * DEFAULT_BALLAST_BYTES
    ) -> None:
        """`reserve_bytes` of the disk stay free for the ledger: with less, nothing is recorded here."""
        self.path = path
        self.stats = Stats()
        self._bounds = bounds
        self._reserve_bytes = reserve_bytes
        self._database = self._new()
        self._opened_us = 0
        self._names_at = 0  # where the search for unused names goes on

    def _new(self) -> Database:
        return Database(self.path, "NORMAL", steps=HISTORY, ballast_bytes=0, cache_kib=CACHE_KIB)

    @property
    def is_open(self) -> bool:
        """Whether anything is kept, and found."""
        return self._database.is_open

    def open(self, now_us: int) -> list[str]:
        """Returns warnings: a damaged file, or one of a newer version, was moved aside and a new one begun. Raises
        StoreError when that cannot be done either, or another process holds the file; it may be tried again."""
        self._opened_us = now_us
        try:
            size_bytes = self.path.stat().st_size
        except OSError:
            size_bytes = 0
        try:
            self._database.open(now_us, check=size_bytes <= CHECK_BYTES)
        except StoreError as error:
            if error.kind not in (CORRUPT, SCHEMA):
                raise
            return [self._begin_anew(error)]
        return []

    async def record(self, contacts: Sequence[Contact], tenants: Sequence[Tenant] = ()) -> list[str]:
        """Add counts, in bulk. Rows that cannot be written are dropped and counted. Returns warnings, as `open`. Raises
        StoreError when the file is damaged and no new one can be begun: it is closed then."""
        rows = len(contacts) + len(tenants)
        if self._is_tight():
            self.stats.dropped += rows
            return []
        try:
            await self._database.run_large(put, contacts, tenants)
        except StoreError as error:
            self.stats.dropped += rows
            return [self._begin_anew(error)] if error.kind == CORRUPT else []
        self.stats.recorded += rows
        return []

    async def ask(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, ...)` that only reads, for questions that are kept elsewhere (past.py). Raises StoreError."""
        return await self._database.read(fn, *args, **kwargs)

    async def mark_told(self, rows: Iterable[past.Untold]) -> None:
        """See `past.mark_told`. Raises StoreError."""
        await self._database.run_large(past.mark_told, tuple(rows))

    async def tenants_since(self, since_us: int, limit: int = 500_000, until_us: int = FOREVER_US) -> list[Tenant]:
        """Who was seen where, latest first: fills passive DNS again after a restart. What was seen after `until_us` was
        seen by a clock that was wrong, and is left out."""
        return await self._database.read(tenants_since, since_us, limit, until_us)

    async def trim(self, now_us: int) -> dict[str, int]:
        """Forget what is beyond the bounds, oldest first; returns rows deleted by table. Not everything at once: again
        while any count is not 0."""
        done, self._names_at = await self._database.run_large(trim, self._bounds, now_us, self._names_at)
        return done

    async def checkpoint(self) -> Checkpoint:
        """Move the log into the file: to be called by a timer."""
        return await self._database.checkpoint()

    def close(self) -> None:
        """Finish what waits."""
        self._database.close()

    def _is_tight(self) -> bool:
        try:
            room = os.statvfs(self.path.parent)
        except OSError:  # a folder above it that was closed: that says nothing of the room
            return False
        return room.f_bavail * room.f_frsize < self._reserve_bytes

    def _begin_anew(self, why: StoreError) -> str:
        """Raises StoreError when a new file cannot be made."""
        self._database.close()
        aside = self.path.with_name(self.path.name + ".damaged")
        try:
            if self.path.exists():
                self.path.replace(aside)  # the one before goes: damage must not fill the disk
            for ending in ("-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path}: damaged, and cannot be moved aside: {error.strerror}", FULL) from error
        self._database = self._new()
        self._database.open(self._opened_us)
        self.stats.begun_anew += 1
        return f"{why}. History begins anew; contacts before now are not found. The old file is {aside}"


def put(connection: Connection, contacts: Sequence[Contact], tenants: Sequence[Tenant]) -> None:
    """Add counts."""
    connection.executemany(
        "INSERT INTO names(name, registered_domain) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET"
        " registered_domain = excluded.registered_domain WHERE registered_domain <> excluded.registered_domain",
        {(one[2], one[1]) for one in contacts},
    )
    connection.executemany(
        "INSERT INTO contacts(name, client, address, hour, count, first_us, last_us)"
        " SELECT id, ?, ?, ?, ?, ?, ? FROM names WHERE name = ?"
        f" ON CONFLICT(name, client, address, hour) DO UPDATE SET count = {plus('count', 'excluded.count')},"
        " first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us)",
        [
            (client, address, last_us // HOUR_US, count, first_us, last_us, name)
            for client, _, name, address, first_us, last_us, count in contacts
        ],
    )
    connection.executemany(
        "INSERT INTO pdns(address, registered_domain, first_us, last_us, count) VALUES(?, ?, ?, ?, ?)"
        f" ON CONFLICT(address, registered_domain) DO UPDATE SET count = {plus('count', 'excluded.count')},"
        " first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us)",
        [(address, domain, first_us, last_us, count) for domain, address, first_us, last_us, count in tenants],
    )


def tenants_since(connection: Connection, since_us: int, limit: int, until_us: int = FOREVER_US) -> list[Tenant]:
    """See History.tenants_since."""
    rows = connection.execute(
        "SELECT registered_domain, address, first_us, last_us, count FROM pdns WHERE last_us BETWEEN ? AND ?"
        " ORDER BY last_us DESC LIMIT ?",
        (since_us, until_us, limit),
    )
    return [Tenant(*row) for row in rows]


def trim(connection: Connection, bounds: Bounds, now_us: int, names_at: int) -> tuple[dict[str, int], int]:
    """Forget what is beyond the bounds; also returns where to go on among the names."""
    before_us = now_us - bounds.age_us
    done = {
        "contacts": _delete(connection, "contacts", "hour", before_us // HOUR_US, bounds.contacts),
        "tenants": _delete(connection, "pdns", "last_us", before_us, bounds.tenants),
    }
    done["names"] = connection.execute(
        "DELETE FROM names WHERE id > ? AND id <= ? AND NOT EXISTS(SELECT 1 FROM contacts c WHERE c.name = names.id)",
        (names_at, names_at + NAMES_AT_ONCE),
    ).rowcount
    last = connection.execute("SELECT max(id) FROM names").fetchone()[0] or 0
    names_at += NAMES_AT_ONCE
    return done, names_at if names_at < last else 0


def _delete(connection: Connection, table: str, column: str, before: int, most: int) -> int:
    """`table` and `column` are this module's own words. The oldest values of `column` go first, those of before
    `before` whole, others until the bound holds; never more than ROWS_AT_ONCE, for an hour may have millions, and a
    statement that deletes them keeps everybody else from the disk for as long."""
    over = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] - most
    gone = 0
    key = KEYS[table]
    some = f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {column} = ? LIMIT ?)"
    while gone < ROWS_AT_ONCE:
        value = connection.execute(f"SELECT min({column}) FROM {table}").fetchone()[0]
        if value is None or (value >= before and gone >= over):
            break
        room = ROWS_AT_ONCE - gone
        gone += connection.execute(some, (value, room if value < before else min(room, over - gone))).rowcount
    return gone
