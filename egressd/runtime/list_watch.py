"""Notices when somebody saved a list: files that the configuration names, looked at twice a second.

Editors save in different ways: they write in place, in parts; they rename the old file away and write a new one; they
put a new file over the old one. A change counts when nothing has moved for a moment; a file that has vanished or is
empty gets longer, for its new content may be on the way, and all that it listed would be given free.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

LOOK_S: Final = 0.5
STILL_S: Final = 0.5
GONE_S: Final = 5.0

Sign = tuple[int, int, int, int]  # device, inode, size, time of the last change (ctime); of what a link leads to
Signs = Mapping[Path, Sign]


class ListWatch:
    """`look` at files again and again; `now_s` is a clock that nobody sets."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._taken: Signs = {}  # as the files were when they were read
        self._seen: Signs = {}
        self._since_s = 0.0

    def took(self, signs: Signs) -> None:
        """The files were read as they were then."""
        self._taken = self._seen = signs

    def look(self, signs: Signs) -> tuple[str, ...]:
        """What changed since the files were read, in words, if it is time to read them again; () when not."""
        now_s = self._now_s()
        if signs != self._seen:
            self._seen = signs
            self._since_s = now_s
        if signs == self._taken:
            return ()
        patience_s = GONE_S if any(self._is_going(path, signs) for path in self._taken) else STILL_S
        return self._changes(signs) if now_s - self._since_s >= patience_s else ()

    def _is_going(self, path: Path, signs: Signs) -> bool:
        sign = signs.get(path)
        return sign is None or (sign[2] == 0 and self._taken[path][2] > 0)

    def _changes(self, signs: Signs) -> tuple[str, ...]:
        told = [f"{path.name} is new" for path in signs.keys() - self._taken.keys()]
        told += [f"{path.name} is gone" for path in self._taken.keys() - signs.keys()]
        told += [
            f"{path.name} changed" for path in signs.keys() & self._taken.keys() if signs[path] != self._taken[path]
        ]
        return tuple(sorted(told))


def read_signs(paths: Iterable[Path]) -> Signs:
    """How files are now; those that are not there are left out. ctime, for it moves with permissions too, and with
    files that are copied with their old times; nobody can set it."""
    signs: dict[Path, Sign] = {}
    for path in paths:
        try:
            found = path.stat()
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(found.st_mode):
            signs[path] = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    return signs
