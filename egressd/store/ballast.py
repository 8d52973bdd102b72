"""Space kept for hard times: a file given back when the disk is full, so that what must be recorded still is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

DEFAULT_BALLAST_BYTES: Final = 4 << 20  # about 2,000 decisions with their audit rows


class Ballast:
    """A file of real blocks beside the database. Holding none (size 0) is legal."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def held(self) -> bool:
        """Whether there is something to give back."""
        try:
            return self._size_bytes > 0 and self._path.stat().st_size > 0
        except OSError:
            return False

    def free(self) -> bool:
        """Give the space back; False when there was none."""
        if not self.held():
            return False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def refill(self) -> bool:
        """Take the space again if there is plenty: twice the ballast stays free. True when it is held afterwards."""
        if self.held() or not self._size_bytes:
            return True
        try:
            room = os.statvfs(self._path.parent)
            if room.f_bavail * room.f_frsize < 3 * self._size_bytes:
                return False
            number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(number, 0, self._size_bytes)
            finally:
                os.close(number)
        except OSError:
            with suppress(OSError):  # a folder that was closed to us, a disk that has become read-only
                self._path.unlink(missing_ok=True)
            return False
        return True
