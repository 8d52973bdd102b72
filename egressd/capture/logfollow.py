"""Follows a log while it is written: nothing is read twice, and nothing lost that is still there to be read.

A log is moved away and begun anew (rotation), or copied away and cut to nothing (copytruncate), and we are stopped and
started meanwhile. So of each file its inode, how far it was read and a digest of its first bytes are remembered
(`Mark`): by the inode a file is found again under its new name and read to its end, and by its first bytes one that was
written anew is told from the one that it was. A mark stands behind the last whole line; what a program has half written
is read when it is whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from egressd.errors import Malformed
from egressd.logs.formats import MAX_LINE_BYTES
from egressd.logs.framestream import DATA, FrameStream

HEAD_BYTES: Final = 256  # by which a file is known again
READ_BYTES: Final = 1 << 18  # at once
MAX_HEADER_BYTES: Final = 65_536  # in which the lines are that say how to read all others
DRAIN_US: Final = 10_000_000  # how long a program may go on writing to a file that was moved away
MAX_LISTED: Final = 4_096  # files in a folder that are looked at for one that was moved away


class Mark(NamedTuple):
    """How far a file was read: `head` is a digest of its first `head_bytes`."""

    inode: int
    offset: int
    head_bytes: int
    head: str


class Lines:
    """Cuts bytes into lines of bounded length. `consumed` counts the bytes of those that are whole, with their ends;
    `too_long` those that were left out."""

    def __init__(self) -> None:
        self.consumed = 0
        self.too_long = 0
        self.broken = ""
        self._held = b""
        self._skipping = False

    def feed(self, octets: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends."""
        parts = (self._held + octets).split(b"\n")
        self._held = parts.pop()
        lines: list[bytes] = []
        for part in parts:
            self.consumed += len(part) + 1
            if self._skipping:
                self._skipping = False
            elif len(part) > MAX_LINE_BYTES:
                self.too_long += 1
            else:
                line = part.rstrip(b"\r")
                if line:
                    lines.append(line)
        if len(self._held) > MAX_LINE_BYTES:
            self.too_long += not self._skipping
            self._skipping = True
            self.consumed += len(self._held)
            self._held = b""
        return lines


class Payloads:
    """Cuts bytes into the payloads of Frame Streams, like `Lines`. `broken` says why there are no more."""

    def __init__(self) -> None:
        self.too_long = 0
        self.broken = ""
        self._frames = FrameStream()
        self._lost = 0

    @property
    def consumed(self) -> int:
        """Bytes of whole frames, and all that came after one that is none."""
        return self._frames.consumed + self._lost

    def feed(self, octets: bytes) -> list[bytes]:
        """The payloads that are whole now."""
        if not self.broken:
            try:
                return [frame.payload for frame in self._frames.feed(octets) if frame.kind == DATA]
            except Malformed as error:
                self.broken = str(error)
        self._lost += len(octets)
        return []


class OpenFile:
    """One file that is read on as it grows."""

    def __init__(self, fd: int, offset: int, frames: bool) -> None:
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        self.splitter: Lines | Payloads = Payloads() if frames else Lines()
        self.quiet_since_us = 0
        self._frames = frames
        self._start = offset
        self._read = offset
        self._head = os.pread(fd, HEAD_BYTES, 0)
        self.was_read_whole = False  # by the last reading: what comes after it was written since

    def close(self) -> None:
        """Let it go."""
        os.close(self.fd)

    def mark(self) -> Mark:
        """How far it was read."""
        return Mark(self.inode, self._start + self.splitter.consumed, len(self._head), digest(self._head))

    def read(self) -> list[bytes]:
        """What was written since, READ_BYTES at most; nothing at its end. Raises OSError."""
        if os.fstat(self.fd).st_size < self._read or not self._is_the_same():
            self._begin_anew()
        octets = os.pread(self.fd, READ_BYTES, self._read)
        self._read += len(octets)
        self.was_read_whole = len(octets) < READ_BYTES
        return self.splitter.feed(octets) if octets else []

    @property
    def at_end(self) -> bool:
        """Whether all that there is was read."""
        return self._read >= os.fstat(self.fd).st_size

    def _is_the_same(self) -> bool:
        """Whether it still begins as it did; a head that was short has grown meanwhile."""
        head = os.pread(self.fd, HEAD_BYTES, 0)
        if not head.startswith(self._head):
            return False
        self._head = head
        return True

    def _begin_anew(self) -> None:
        """It was cut to nothing, and perhaps written again."""
        self.splitter = Payloads() if self._frames else Lines()
        self._start = self._read = 0
        self._head = os.pread(self.fd, HEAD_BYTES, 0)


class FollowedLog:
    """A path under which a log is written. `problem` says why nothing is read, or is empty; `gaps` counts how often
    lines may have been lost: a file that was read in part is not to be found any more."""

    def __init__(self, path: str, marks: Iterable[Mark] = (), *, frames: bool = False, new: bool = False) -> None:
        """`marks` are those of before a restart; without any, and unless the file is `new`, reading begins at its
        end."""
        self.path = path
        self.problem = ""
        self.gaps = 0
        self.too_long = 0
        self.caught_up = False  # what the last poll found was written since the one before
        self._was_at_end = False
        self._frames = frames
        self._from_end = not new
        self._marks = list(marks)
        self._current: OpenFile | None = None
        self._moved: list[OpenFile] = []  # under other names now, read to their ends

    def marks(self) -> list[Mark]:
        """How far everything was read, to go on from there after a restart."""
        opened = self._opened_now()
        return [one.mark() for one in opened] if opened or not self._marks else self._marks

    def close(self) -> None:
        """Let all files go."""
        for one in self._opened_now():
            one.close()
        self._moved.clear()
        self._current = None

    @property
    def inode(self) -> int:
        """Of the file that is read now, 0 when there is none."""
        return self._current.inode if self._current is not None else 0

    @property
    def is_behind(self) -> bool:
        """Whether there is more to read than one poll took."""
        return any(not one.at_end for one in self._opened_now())

    def header(self) -> list[bytes]:
        """The first lines that begin with #, of the file that is read now."""
        if self._current is None:
            return []
        lines = os.pread(self._current.fd, MAX_HEADER_BYTES, 0).split(b"\n")[:-1]
        found: list[bytes] = []
        for line in lines:
            if not line.startswith(b"#"):
                break
            found.append(line.rstrip(b"\r"))
        return found

    def poll(self, now_us: int) -> list[bytes]:
        """Lines that were written since, as many as fit in one reading of each file."""
        try:
            self._look(now_us)
            lines: list[bytes] = []
            for one in list(self._moved):
                lines += self._drain(one, now_us)
            if self._current is not None:
                self.caught_up = self._was_at_end
                lines += self._take(self._current)
                self._was_at_end = self._current.was_read_whole
                self.problem = self._current.splitter.broken
            return lines
        except OSError as error:
            self.problem = (error.strerror or "cannot be read").lower()
            return []

    def _opened_now(self) -> list[OpenFile]:
        return [*self._moved, self._current] if self._current is not None else self._moved

    def _take(self, one: OpenFile) -> list[bytes]:
        before = one.splitter
        count = before.too_long
        lines = one.read()
        self.too_long += one.splitter.too_long - (count if one.splitter is before else 0)
        return lines

    def _drain(self, one: OpenFile, now_us: int) -> list[bytes]:
        """The rest of a file that was moved away, until nobody has written to it for a while."""
        lines = self._take(one)
        if lines:
            one.quiet_since_us = now_us
        elif now_us - one.quiet_since_us > DRAIN_US:
            one.close()
            self._moved.remove(one)
        return lines

    def _look(self, now_us: int) -> None:
        """Open the file, or the one that has taken its place."""
        try:
            inode = Path(self.path).stat().st_ino
        except FileNotFoundError:
            if self._current is None:
                self.problem = "no such file"
                self._from_end = False  # what comes is new
            return
        if self._current is not None and self._current.inode == inode:
            return
        opened = self._open(self.path)
        if opened is None:
            return
        opened.quiet_since_us = now_us
        if self._current is not None:
            self._current.quiet_since_us = now_us
            self._moved.append(self._current)
        elif self._marks:
            self._find_again(opened.inode)
        self._current = opened
        self._from_end = False
        self._marks = []

    def _open(self, path: str, known: bool = False) -> OpenFile | None:
        """Open a file where reading goes on; None when it is no file, or not one that is `known`. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would block
        opened: OpenFile | None = None
        try:
            opened = self._opened(fd, known)
        finally:
            if opened is None:
                os.close(fd)
        return opened

    def _opened(self, fd: int, known: bool) -> OpenFile | None:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            self.problem = "is no regular file"
            return None
        mark = next((one for one in self._marks if one.inode == found.st_ino), None)
        goes_on = (
            mark is not None
            and found.st_size >= mark.offset
            and digest(os.pread(fd, mark.head_bytes, 0)) == mark.head
        )  # fmt: skip
        if known and not goes_on:
            return None
        offset = 0
        if mark is not None and goes_on:
            offset = mark.offset
        elif self._from_end and not self._marks:
            offset = _end_of_lines(fd, found.st_size) if not self._frames else found.st_size
        return OpenFile(fd, offset, self._frames)

    def _find_again(self, but: int) -> None:
        """Files that were read in part before a restart and have other names by now. What may not be looked for, or
        not be read any more, is a gap, and holds up nothing."""
        wanted = {mark.inode for mark in self._marks} - {but}
        if not wanted:
            return
        with suppress(OSError), os.scandir(Path(self.path).parent) as entries:
            for number, entry in enumerate(entries):
                if number >= MAX_LISTED or not wanted:
                    break
                if entry.inode() in wanted and entry.is_file(follow_symlinks=False):
                    self._go_on_with(entry.path, wanted)
        self.gaps += len(wanted)

    def _go_on_with(self, path: str, wanted: set[int]) -> None:
        """Read on where `path` is the file of one of these inodes, which is wanted no longer then."""
        with suppress(OSError):
            opened = self._open(path, known=True)
            if opened is not None:
                wanted.discard(opened.inode)
                self._moved.append(opened)


def digest(head: bytes) -> str:
    """Of the first bytes of a file."""
    return blake2b(head, digest_size=8).hexdigest()


def _end_of_lines(fd: int, size: int) -> int:
    """Behind the last line that is whole: one that is being written is read when it is."""
    start = max(0, size - MAX_LINE_BYTES)
    tail = os.pread(fd, size - start, start)
    return start + tail.rfind(b"\n") + 1 if b"\n" in tail else size if start else 0
