"""Which lists are too long to be held in the memory of every process, and what is known of them once they are built.

Long lists go into a built index together; what is left is read as ever. A change to one of the short ones leaves the
built index as it is.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from egressd.errors import Problem
from egressd.intel.guard import Guard
from egressd.intel.mapped import MappedIndex
from egressd.intel.protected import Protected
from egressd.names import Suffixes

# Text of lists that is held in memory: some 20,000 lines. A packet process that is told of so many takes 30 ms to take
# them in (pure Python), and reads no packet meanwhile.
SMALL_BYTES: Final = 400_000


class ListFile(NamedTuple):
    """A list: the option that names it ("" for the command line), what it is called, and where it is."""

    key: str
    name: str
    path: Path


class Order(NamedTuple):
    """Lists to build an index of, and all that decides how their lines are read. `context` is a digest of the texts
    that suffixes, guard and protected addresses were made of."""

    files: tuple[ListFile, ...]
    suffixes: Suffixes
    guard: Guard
    protected: Protected
    context: str


class Built(NamedTuple):
    """A built index, and what was read by list name: (indicators, how many problems); and the first problems of each.
    `unread` are lists that could not be read at all."""

    lower: MappedIndex
    lists: dict[str, tuple[int, int]]
    problems: list[Problem]
    unread: dict[str, Problem]


Build = Callable[[Order], Built]


def choose_large(files: list[ListFile]) -> list[ListFile]:
    """The longest of the lists, as many as must go so that the rest is short. Pipes and what is not there stay."""
    sizes = [size_of(one.path) for one in files]
    left = sum(sizes)
    large: set[int] = set()
    for number in sorted(range(len(files)), key=lambda number: -sizes[number]):
        if left <= SMALL_BYTES or not sizes[number]:
            break
        large.add(number)
        left -= sizes[number]
    return [one for number, one in enumerate(files) if number in large]


def size_of(path: Path) -> int:
    """Bytes of a file; 0 of a pipe and of what is not there, which reading it tells of."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
