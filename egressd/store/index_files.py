"""Built indexes on disk: `index-7.idx`, and `index-7.json` that tells what it was built from.

A file is written beside the others and appears whole or not at all; it is never changed. The last three are kept: a
process that is about to open the one before the newest must find it. Who has one open keeps it for as long as needed.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from egressd.errors import IndexDamaged
from egressd.intel.index_format import Head
from egressd.intel.mapped import MappedIndex, open_mapped
from egressd.names import Suffixes
from egressd.store.syncing import sync

KEPT: Final = 3
MAX_STORY_BYTES: Final = 16 << 20
_HALF: Final = ".building"


class IndexFile:
    """An open file of an index; closed when nobody asks it any more."""

    def __init__(self, path: str) -> None:
        """Raises IndexDamaged when it cannot be opened."""
        self._number = -1
        try:
            self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            self.size = os.fstat(self._number).st_size
        except OSError as error:
            raise IndexDamaged(f"{path}: {error.strerror}") from error

    def __del__(self) -> None:
        if self._number >= 0:
            os.close(self._number)

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the file, fewer past its end. Not by a mapping: each page that is looked at once would count as
        this process's own for ever. Raises IndexDamaged when the disk does not give them."""
        try:
            return os.pread(self._number, size, at)
        except OSError as error:
            raise IndexDamaged(f"cannot be read: {error.strerror}") from error

    def map_words(self, at: int, size: int) -> memoryview:
        """A part of the file, mapped and read into memory: the same memory for all processes. Raises IndexDamaged."""
        start = at - at % mmap.ALLOCATIONGRANULARITY
        try:
            mapped = mmap.mmap(
                self._number, at + size - start, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ, offset=start
            )
        except (OSError, ValueError) as error:
            raise IndexDamaged(f"cannot be mapped: {error}") from error
        return memoryview(mapped)[at - start :].cast("Q")


def open_index(path: str, digest: bytes, suffixes: Suffixes) -> MappedIndex:
    """The index in a file, of which the head has this digest (b"" for any). Raises IndexDamaged."""
    file = IndexFile(path)
    try:
        index = open_mapped(file.size, file.read, file.map_words, suffixes)
    except IndexDamaged as error:
        raise IndexDamaged(f"{path}: {error}") from error
    if digest not in (b"", index.head.digest):
        raise IndexDamaged(f"{path}: another index than was built")
    index.reopen = (open_index, (path, index.head.digest, suffixes))
    return index


def warm(path: str) -> None:
    """Ask the kernel to have a file in memory, so that no packet process waits for the disk (posix_fadvise(2))."""
    with suppress(OSError):
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(number)


class ScratchFile:
    """See intel.mapped_parts.Scratch: a file without a name in a folder. What several processes share of it is read by
    place, not by position."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not in /tmp, which may be memory.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._end = 0

    def append(self, packed: bytes) -> int:
        """See Scratch."""
        place = self._end
        view = memoryview(packed)
        while view:
            written = os.pwrite(self._file.fileno(), view, self._end)
            self._end += written
            view = view[written:]
        return place

    def read(self, place: int, size: int) -> bytes:
        """See Scratch."""
        packed = b""
        while len(packed) < size:
            more = os.pread(self._file.fileno(), size - len(packed), place + len(packed))
            if not more:
                raise OSError(errno.EIO, "a scratch file is cut off")
            packed += more
        return packed

    def close(self) -> None:
        """See Scratch."""
        self._file.close()


class IndexFolder:
    """The folder that built indexes lie in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, write: Callable[[IO[bytes]], Head], story: dict[str, Any]) -> Path:
        """A new generation, on disk when this returns: `write` fills the file, `story` is what the index was built
        from. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        half = self.folder / f"{os.getpid()}{_HALF}"
        try:
            with half.open("w+b") as file:
                head = write(file)
                file.flush()
                os.fsync(file.fileno())
            number = 1 + max(self._generations(), default=0)
            while True:
                path = self.folder / f"index-{number}.idx"
                try:
                    os.link(half, path)  # unlike a rename, it takes nobody's place
                    break
                except FileExistsError:
                    number += 1
        finally:
            half.unlink(missing_ok=True)
        self._write_story(path.with_suffix(".json"), story | {"digest": head.digest.hex()})
        self.sweep()
        return path

    def _write_story(self, path: Path, story: dict[str, Any]) -> None:
        half = self.folder / f"{os.getpid()}-story{_HALF}"
        with half.open("w", encoding="utf-8") as file:
            json.dump(story, file)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
        sync(self.folder)

    def find(self, built_from: str, suffixes: Suffixes) -> tuple[MappedIndex, dict[str, Any]] | None:
        """The newest index whose story's `built_from` is this, and the story; None when there is none of use."""
        for number in sorted(self._generations(), reverse=True):
            path = self.folder / f"index-{number}.idx"
            story = load_story(path.with_suffix(".json"))
            if story.get("built_from") == built_from:
                with suppress(IndexDamaged, ValueError):
                    return open_index(str(path), bytes.fromhex(str(story.get("digest", ""))), suffixes), story
        return None

    def sweep(self) -> None:
        """Take away all but the newest, and what a build that was killed left behind."""
        numbers = sorted(self._generations())
        gone = [self.folder / f"index-{number}{end}" for number in numbers[:-KEPT] for end in (".idx", ".json")]
        for half in self._named(f"*{_HALF}"):
            pid = half.name.removesuffix(_HALF).partition("-")[0]
            if pid != str(os.getpid()) and not Path(f"/proc/{pid}").exists():
                gone.append(half)
        for path in gone:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _generations(self) -> list[int]:
        names = [path.name[6:-4] for path in self._named("index-*.idx")]
        return [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 19]

    def _named(self, pattern: str) -> list[Path]:
        """Files of that pattern; of a folder that was closed to us none."""
        try:
            return list(self.folder.glob(pattern))
        except OSError:
            return []


def load_story(path: Path) -> dict[str, Any]:
    """What an index was built from; empty when that cannot be told."""
    try:
        with path.open("rb") as file:
            story = json.loads(file.read(MAX_STORY_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return story if isinstance(story, dict) else {}
