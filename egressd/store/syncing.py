"""What a power cut does not take: fsync(2) of a file or a folder by its path."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """On disk when this returns: what is in a file, or of a folder which files are in it. Raises OSError."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
