"""The one error of the store, and what SQLite's own errors mean for whoever runs the gateway."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from egressd.errors import EgressdError

FULL: Final = "full"
IO: Final = "io"
CORRUPT: Final = "corrupt"
LOCKED: Final = "locked"
SCHEMA: Final = "schema"
REQUEST: Final = "request"  # what was asked for cannot be done, now or later: no such decision, no such value
CLOSED: Final = "closed"
OTHER: Final = "other"

# Primary result codes (https://www.sqlite.org/rescode.html): the low byte of the extended code.
_KINDS: Final = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_IOERR: IO,
    sqlite3.SQLITE_CANTOPEN: IO,
    sqlite3.SQLITE_READONLY: IO,
    sqlite3.SQLITE_PERM: IO,
    sqlite3.SQLITE_CORRUPT: CORRUPT,
    sqlite3.SQLITE_NOTADB: CORRUPT,
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_CONSTRAINT: REQUEST,
    sqlite3.SQLITE_MISMATCH: REQUEST,
    sqlite3.SQLITE_TOOBIG: REQUEST,
    sqlite3.SQLITE_ERROR: REQUEST,  # a statement that does not fit the tables will not fit them later
    sqlite3.SQLITE_RANGE: REQUEST,
}
_ADVICE: Final = {
    FULL: "the disk is full: free space on it; writing resumes by itself",
    IO: "the disk or the file's permissions fail: look into the kernel's log; writing is tried again with each change",
    CORRUPT: "the file is damaged: put the daily backup in its place, as docs/operating.md says",
    LOCKED: "another process holds the file: stop it",
}


class StoreError(EgressdError):
    """Something could not be read or written. The message says what to do; `kind` is one of the constants above."""

    def __init__(self, message: str, kind: str = OTHER) -> None:
        super().__init__(message)
        self.kind = kind


def kind_of(error: BaseException) -> str:
    """What sort of trouble an error of SQLite's is; OTHER for every other exception."""
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    if code is None and isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)):
        return REQUEST  # the binding refused the call before SQLite saw it
    return _KINDS.get(code & 0xFF, OTHER) if isinstance(code, int) else OTHER


def explained(error: BaseException, path: Path) -> BaseException:
    """An error of SQLite's as ours, with advice, and so what its binding says of values that no column can hold
    (numbers beyond 64 bits, text with half a surrogate pair). Any other error as it is."""
    if isinstance(error, (OverflowError, UnicodeEncodeError)):
        return _caused(StoreError(f"{path}: no column can hold that value: {error}", REQUEST), error)
    if not isinstance(error, sqlite3.Error):
        return error
    kind = kind_of(error)
    advice = _ADVICE.get(kind)
    return _caused(StoreError(f"{path}: {error}; {advice}" if advice else f"{path}: {error}", kind), error)


def refused(what: str) -> StoreError:
    """A request that cannot be carried out; nothing is wrong with the store."""
    return StoreError(what, REQUEST)


def _caused(error: StoreError, cause: BaseException) -> StoreError:
    error.__cause__ = cause
    return error
