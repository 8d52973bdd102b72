"""The last content of each list that was good: what stands in for it while its file is wrong, also after a restart.

A folder with one file for each list, by a digest of the list's name, and never more than the configuration names.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

ENDING = ".list"


class LastGood:
    """The folder. Trouble with it costs what it is for, not the list: nothing here raises. `trouble` is what was in the
    way of keeping a content last, or ""."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trouble = ""

    def has_begun(self) -> bool:
        """Whether everything that is named was good once."""
        try:
            return self.folder.is_dir()
        except OSError:  # PermissionError, by somebody who only checks
            return False

    def find(self, name: str) -> Path | None:
        """Where the last good content of a list lies; None when there is none."""
        path = self._path(name)
        try:
            return path if path.is_file() else None
        except OSError:
            return None

    def keep(self, name: str, source: Path) -> None:
        """The content of `source` is good, and becomes the last good one."""
        target = self._path(name)
        half = target.with_suffix(".new")
        try:
            if target.exists() and filecmp.cmp(source, target, shallow=False):
                return
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with source.open("rb") as found, half.open("wb") as file:
                shutil.copyfileobj(found, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            half.replace(target)
        except OSError as error:
            self.trouble = error.strerror or str(error)

    def forget_others(self, names: Iterable[str]) -> None:
        """Only these lists are there any more."""
        wanted = {self._path(name) for name in names}
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self.folder.glob(f"*{ENDING}"):
                if path not in wanted:
                    path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / (blake2b(name.encode(), digest_size=16).hexdigest() + ENDING)
