"""Entries on their way into a table of a mapped index, sorted by a hash of their key with a bounded part in memory.

They go into 256 parts by the first byte of their hash, and wait in a scratch file; a part is sorted when its turn
comes. Several processes may fill a table each, with a scratch file each that was made before they parted; `told` of
one and `join` of another bring them together, and any of them can then read any part.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

PARTS: Final = 256
MAX_WAITING: Final = 400_000  # entries held before they go to the scratch file: 40 MB


class Scratch(Protocol):
    """A file of ours that nobody else can open, which is gone when nobody has it open any more."""

    def append(self, packed: bytes) -> int:
        """Write at the end; where that was. Raises OSError."""

    def read(self, place: int, size: int) -> bytes:
        """So many bytes from a place, whichever process wrote them. Raises OSError."""

    def close(self) -> None:
        """Let it go."""


MakeScratch = Callable[[], Scratch]
Places = list[list[tuple[int, int]]]  # of each part: where pieces lie in the scratch file, and how many bytes


class Told(NamedTuple):
    """What another process has put into its scratch file."""

    taken: int
    places: Places


class Table:
    """Entries of one record each; those of the same key come out one after the other."""

    def __init__(self, salt: bytes, scratch: MakeScratch) -> None:
        self.count = 0
        self.max_waiting = MAX_WAITING
        self._salt = salt
        self._scratch = scratch
        self._file: Scratch | None = None
        self._waiting = 0
        self._parts: list[list[bytes]] = [[] for _ in range(PARTS)]
        self._places: Places = [[] for _ in range(PARTS)]
        self._others: list[tuple[Scratch, Places]] = []

    def open(self) -> Scratch:
        """The scratch file, made now if it was not: before another process takes over."""
        if self._file is None:
            self._file = self._scratch()
        return self._file

    def put(self, key: bytes, entry: bytes) -> None:
        """An entry of one record; those of the same key are put together later."""
        hashed = blake2b(key, digest_size=8, key=self._salt).digest()
        self._parts[hashed[0]].append(hashed + entry)
        self.count += 1
        self._waiting += 1
        if self._waiting >= self.max_waiting:
            self._flush()

    def told(self) -> Told:
        """What is in the scratch file, which is everything from now on."""
        self._flush()
        return Told(self.count, self._places)

    def join(self, other: Table, told: Told) -> None:
        """Take in what another process put into the scratch file of `other`."""
        self.count += told.taken
        self._others.append((other.open(), told.places))

    def sorted_parts(self, first: int, after: int) -> Iterator[list[bytes]]:
        """The pieces (hash and entry) of the parts from `first` to before `after`, in order of hash, part by part; each
        is let go when the next is asked for."""
        for number in range(first, after):
            pieces = self._parts[number]
            self._parts[number] = []
            if self._file is not None:
                pieces += _read(self._file, self._places[number])
            for file, places in self._others:
                pieces += _read(file, places[number])
            pieces.sort()
            yield pieces

    def _flush(self) -> None:
        file = self.open()
        for number, pieces in enumerate(self._parts):
            if pieces:
                packed = marshal.dumps(pieces)  # our own bytes
                self._places[number].append((file.append(packed), len(packed)))
                self._parts[number] = []
        self._waiting = 0


def _read(file: Scratch, places: list[tuple[int, int]]) -> list[bytes]:
    pieces: list[bytes] = []
    for place, size in places:
        pieces += marshal.loads(file.read(place, size))
    return pieces
