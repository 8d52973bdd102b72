"""What a power cut does not take: fsync(2) of a file or a folder by its path, and of what is added to a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def sync(path: Path) -> None:
    """On disk when this returns: what is in a file, or of a folder which files are in it. Raises OSError."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def append(path: Path, octets: bytes) -> None:
    """Add to the end of a file of ours, made if there is none; on disk when this returns. Raises OSError."""
    is_new = not path.exists()
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.write(number, octets) < len(octets):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(number)
    finally:
        os.close(number)
    if is_new:
        sync(path.parent)
