"""A finished log from disk, for a replay: its observations in order of time.

Lines of a log stand about in order: of when they were written, which for a connection is when it was over. So they are
sorted through a window, and what was earlier than all of it comes late, as a packet of a jumping clock does.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import BinaryIO, Final

from egressd.capture.bytesource import GZIP_MAGIC
from egressd.errors import CaptureError, Malformed
from egressd.logs.formats import FRAMED, MAX_LINE_BYTES, PARSERS
from egressd.logs.framestream import DATA, FrameStream
from egressd.logs.parser import LogParser
from egressd.model import Observation

WINDOW: Final = 65_536  # observations that are sorted among each other
READ_BYTES: Final = 1 << 20


@dataclass
class LogResult:
    """What reading one log came to. `lines` are all of it (of dnstap, frames), `malformed` those that are none of its
    format or too long. Times are those of the first and last observation, 0 without any. `error` says why reading
    ended early, or is empty."""

    path: str
    format: str
    lines: int = 0
    observations: int = 0
    malformed: int = 0
    first_us: int = 0
    last_us: int = 0
    error: str = ""


class LogFile:
    """One log. `result` is complete when `observations` is at its end."""

    def __init__(self, path: str | Path, format_: str, sensor: str, now_us: int = 0) -> None:
        """`now_us` is a time about that of its lines, for what leaves the year out; 0: when the file was saved last.
        Raises CaptureError when it cannot be opened."""
        self.result = LogResult(str(path), format_)
        self._parser: LogParser = PARSERS[format_](sensor)
        self._shown = str(path) if str(path).isprintable() else ascii(str(path))
        try:
            file: BinaryIO = open(path, "rb")  # noqa: SIM115  (closed by `observations`)
            if file.peek(2)[:2] == GZIP_MAGIC:  # type: ignore[attr-defined]
                file = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
            self._now_us = now_us or int(Path(path).stat().st_mtime) * 1_000_000
        except OSError as error:
            raise CaptureError(f"{self._shown}: cannot be opened: {error.strerror}") from error
        self._file = file

    def observations(self) -> Iterator[Observation]:
        """Everything that it tells of, about in order of time."""
        waiting: list[tuple[int, int, Observation]] = []
        for number, seen in enumerate(self._read()):
            heappush(waiting, (seen.ts_us, number, seen))
            if len(waiting) > WINDOW:
                yield self._count(heappop(waiting)[2])
        while waiting:
            yield self._count(heappop(waiting)[2])

    def _count(self, seen: Observation) -> Observation:
        result = self.result
        result.observations += 1
        result.first_us = min(result.first_us or seen.ts_us, seen.ts_us)
        result.last_us = max(result.last_us, seen.ts_us)
        return seen

    def _read(self) -> Iterator[Observation]:
        try:
            with self._file:
                if self.result.format in FRAMED:
                    yield from self._frames()
                else:
                    yield from self._lines()
        except (OSError, EOFError) as error:  # EOFError: of gzip, whose end is missing
            self.result.error = f"cannot be read to its end: {error}"

    def _lines(self) -> Iterator[Observation]:
        too_long = False
        while line := self._file.readline(MAX_LINE_BYTES + 1):
            whole = line.endswith(b"\n") or len(line) <= MAX_LINE_BYTES
            if not too_long:
                self.result.lines += 1
                yield from self._told(line.rstrip(b"\r\n") if whole else None)
            too_long = not whole

    def _frames(self) -> Iterator[Observation]:
        stream = FrameStream()
        while octets := self._file.read(READ_BYTES):
            try:
                frames = stream.feed(octets)
            except Malformed as error:
                self.result.error = str(error)
                return
            for frame in frames:
                if frame.kind == DATA:
                    self.result.lines += 1
                    yield from self._told(frame.payload)

    def _told(self, line: bytes | None) -> list[Observation]:
        if line == b"":
            return []
        try:
            if line is None:
                raise Malformed("a line is too long")
            return self._parser.parse(line, self._now_us)
        except Malformed:
            self.result.malformed += 1
            return []
