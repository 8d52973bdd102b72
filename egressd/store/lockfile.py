"""One process owns a database: an exclusive lock on a file beside it (flock(2)), which ends with the process."""

from __future__ import annotations

import fcntl
import os
from errno import EROFS
from pathlib import Path

from egressd.store.errors import IO, LOCKED, StoreError

# A lock of flock(2) belongs to the open file, which a forked child shares: it would outlive its parent in a packet
# process, and the daemon could not start again. So a child closes its copies at once.
_held: set[int] = set()


def _forked() -> None:
    for number in _held:
        os.close(number)
    _held.clear()


os.register_at_fork(after_in_child=_forked)


class LockFile:
    """The lock of one database, held from construction to `release`."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError when another process holds it, naming that process."""
        try:
            try:
                number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                if error.errno != EROFS:
                    raise
                number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)  # left by the last run
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; egressd must be able to write this directory", IO) from error
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(number, 32, 0).decode("ascii", "replace").strip()
            os.close(number)
            named = f"process {holder}" if holder.isdigit() else "another process"
            raise StoreError(f"{path}: held by {named}; stop it first, only one may own the ledger", LOCKED) from error
        self._number = number
        _held.add(number)
        try:
            os.ftruncate(number, 0)
            os.pwrite(number, f"{os.getpid()}\n".encode(), 0)
        except OSError:  # a full disk, or a read-only one: the lock holds all the same, it only cannot say whose it is
            pass

    def release(self) -> None:
        """Let go; the file stays, for removing it would let two processes lock two files of one name."""
        if self._number in _held:
            _held.discard(self._number)
            os.close(self._number)
