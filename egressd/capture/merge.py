"""Captures in time order: opening a file by what it is, several files as one stream, and packets one by one.

Merging. Each file waits with the time of its next packet; the file whose packet is the earliest (the one named first,
of equals) gives packets until one of them is later than what the next file waits with. Files that follow each other
in time, as those of a rotating capture do, are thus read whole at full speed, and only where files overlap does the
work change hands. Order within a file is the file's own, also where its clock jumps back: the result is that of
`heapq.merge`. Every file is opened twice, first for the time of its first packet only, so that thousands of them need
no descriptors.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Final

from egressd.capture.bytesource import CHUNK_BYTES, GZIP_MAGIC, ByteSource, GzipSource, RegularSource
from egressd.capture.pcapfile import CaptureReader, PcapReader
from egressd.capture.pcapng import BYTE_ORDER_BIG, BYTE_ORDER_LITTLE, PcapngReader
from egressd.capture.prefilter import Sink
from egressd.errors import CaptureError
from egressd.wire.links import is_read
from egressd.wire.quiet import Recent

STANDARD_INPUT: Final = "-"
SNIFF_BYTES: Final = 12  # up to the byte-order mark of pcapng
NO_LIMIT_US: Final = (1 << 62) - 1  # after every packet's time
BEFORE_ALL_US: Final = -1  # before every packet's time
PROGRESS_BYTES: Final = 1024 * 1024

PCAPNG_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
PCAP_MAGICS: Final = tuple(
    number.to_bytes(4, order) for number in (0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34) for order in ("little", "big")
)
SIDE_BY_SIDE: Final = (
    "; captures that overlap in time are read side by side: allow more open files (ulimit -n), or join some of them "
    "first (mergecap)"
)
UNPACK_WITH: Final = {
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"\xfd7zX": "xz -d",
    b"BZh": "bzip2 -d",
    b"PK\x03\x04": "unzip",
    b"\x04\x22\x4d\x18": "lz4 -d",
}


WHOLE_BYTES: Final = 1_500  # Ethernet's usual packet: a capture with less has only the beginning of some
ORDER_US: Final = 1_000_000  # several queues of a network card give packets a little out of order


@dataclass
class FileResult:
    """What reading one file came to. Times are those of its first and last packet in file order, 0 without packets;
    `content_bytes` is the content read (after gunzip), `truncated_bytes` what of it, at the end, made no packet;
    `error` says why the file ended other than at the end of a record, or is empty; `note` why what is read of it may
    mislead though it is whole."""

    path: str
    format: str = ""  # pcap | pcapng, "" when the file is too short to tell
    packets: int = 0
    gated: int = 0
    content_bytes: int = 0
    truncated_bytes: int = 0
    first_us: int = 0
    last_us: int = 0
    error: str = ""
    note: str = ""
    links: tuple[int, ...] = ()


def _note(snaplen: int, read: FileResult) -> str:
    """What a reader of the result should know about the capture."""
    notes = []
    unread = ", ".join(str(link) for link in read.links if not is_read(link))
    if read.packets and unread:
        notes.append(f"link type {unread} is not read: what its packets hold is missed")
    if read.packets and 0 < snaplen < WHOLE_BYTES:
        notes.append(f"holds {snaplen} bytes of a packet at most: names behind are missed")
    if read.last_us < read.first_us - ORDER_US:
        notes.append("is not in order of time: sort it (reordercap), or counts are wrong")
    return "; ".join(notes)


def open_capture(path: str | Path, chunk_bytes: int = CHUNK_BYTES) -> CaptureReader:
    """Open a capture file, `-` for standard input. The caller closes the reader.

    Raises CaptureError when the file cannot be opened or its format is not known. A file that ends before its format
    can be told is read as one without packets.
    """
    shown = str(path) if str(path).isprintable() else ascii(str(path))
    try:
        source = _open_source(str(path), chunk_bytes)
    except OSError as error:
        advice = SIDE_BY_SIDE if error.errno in (errno.EMFILE, errno.ENFILE) else ""
        raise CaptureError(f"{shown}: cannot be opened: {error.strerror}{advice}") from error
    try:
        head = source.refill(b"", 0, SNIFF_BYTES)
        if head[:2] == GZIP_MAGIC:
            if isinstance(source, RegularSource):
                head = b""  # was read without moving the descriptor
            source = GzipSource(source.fd, chunk_bytes, source.owned, head)
            head = source.refill(b"", 0, SNIFF_BYTES)
        return _reader_of(source, head, shown)
    except CaptureError:
        source.close()
        raise


def _open_source(path: str, chunk_bytes: int) -> ByteSource:
    if path == STANDARD_INPUT:
        return ByteSource(0, chunk_bytes, False)
    fd = os.open(path, os.O_RDONLY)
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        os.close(fd)
        raise IsADirectoryError(0, "is a directory")
    return RegularSource(fd, chunk_bytes, True) if stat.S_ISREG(mode) else ByteSource(fd, chunk_bytes, True)


def _reader_of(source: ByteSource, head: bytes, shown: str) -> CaptureReader:
    if head[:4] in PCAP_MAGICS:
        return PcapReader(source, head)
    if head[:4] == PCAPNG_MAGIC and (len(head) < SNIFF_BYTES or head[8:12] in (BYTE_ORDER_LITTLE, BYTE_ORDER_BIG)):
        return PcapngReader(source, head)
    if len(head) < 4 and any(magic.startswith(head) for magic in (*PCAP_MAGICS, PCAPNG_MAGIC, GZIP_MAGIC)):
        return EmptyReader(source, head)
    if source.error:
        raise CaptureError(f"{shown}: {source.error}")
    advice = next(
        (f"; unpack it with {tool} first" for magic, tool in UNPACK_WITH.items() if head.startswith(magic)), ""
    )
    raise CaptureError(
        f"{shown}: is not a capture that can be read (begins with {head[:8].hex(' ')}); "
        f"pcap, pcapng and either of them compressed by gzip can be{advice}"
    )


class EmptyReader(CaptureReader):
    """A file without even a magic number: what a capture looks like that was just begun."""

    def __init__(self, source: ByteSource, buf: bytes) -> None:
        super().__init__(source, buf)
        if buf or source.error:
            self._finish_inside("its file header")
        else:
            self._finish("is empty")

    def step(self, sink: Sink, gate: bool, limit_us: int) -> bool:
        """See `CaptureReader.step`."""
        return False


class Replay:
    """Captures in time order into a sink.

    `files` holds a result for each path, in the order given, complete after `run`. While `run` lasts, `current_file`
    is the index of the file whose packet is being given; packets are numbered per file, and `before` plus a packet's
    number is its place among the packets of all files. `progress(done, total)` is
    called about once a megabyte with bytes of the files as they lie on disk; pipes count nothing in `total`. With
    `prefilter` off every packet reaches the sink. `others` are the shards (wire/shards.py) of which packets need not.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        sink: Sink,
        *,
        prefilter: bool = True,
        progress: Callable[[int, int], None] | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        others: int = 0,
    ) -> None:
        self.paths = [str(path) for path in paths]
        self.files = [FileResult(path) for path in self.paths]
        self.current_file = 0
        self.before = 0
        self._given = 0
        self._sink = sink
        self._prefilter = prefilter
        self._progress = progress
        self._chunk_bytes = chunk_bytes
        self._others = others
        self._open: dict[int, CaptureReader] = {}
        self._closed_bytes = 0
        self._total_bytes = 0
        self._told_bytes = 0

    def run(self) -> None:
        """Read everything. Raises CaptureError, before any packet, when a file cannot be opened or is no capture."""
        if self.paths.count(STANDARD_INPUT) > 1:
            raise CaptureError("standard input can be read only once")
        try:
            waiting: list[tuple[int, int]] = []
            for index in range(len(self.paths)):
                self._peek(index, waiting)
            while waiting:
                _, index = heappop(waiting)
                limit_us = NO_LIMIT_US
                if waiting:
                    limit_us = waiting[0][0] if index < waiting[0][1] else waiting[0][0] - 1
                next_us = self._read_until(index, limit_us)
                if next_us >= 0:
                    heappush(waiting, (next_us, index))
            self._tell(0)
        finally:
            for index in list(self._open):
                self._finish(index)

    def _peek(self, index: int, waiting: list[tuple[int, int]]) -> None:
        """Find the time of the first packet; a file without packets is done with."""
        reader = open_capture(self.paths[index], self._chunk_bytes)
        self._open[index] = reader
        self._total_bytes += reader.source.size()
        while not reader.done:
            if reader.step(self._sink, False, BEFORE_ALL_US):
                self.files[index].first_us = reader.next_us
                heappush(waiting, (reader.next_us, index))
                if len(self.paths) > 1 and reader.source.size():
                    reader.close()
                    del self._open[index]
                return
        self._finish(index)

    def _read_until(self, index: int, limit_us: int) -> int:
        """Give packets of one file up to a time; the time of the one that waits then, -1 when the file is at its
        end."""
        reader = self._open.get(index)
        if reader is None:
            reader = open_capture(self.paths[index], self._chunk_bytes)
            self._open[index] = reader
        reader.others = self._others
        self.current_file = index
        self.before = self._given - reader.packets
        sink, prefilter = self._sink, self._prefilter
        while not reader.done:
            if reader.step(sink, prefilter, limit_us):
                self._given = self.before + reader.packets
                return reader.next_us
            self._tell(PROGRESS_BYTES)
        self._given = self.before + reader.packets
        self._finish(index)
        return -1

    def _finish(self, index: int) -> None:
        reader = self._open.pop(index)
        result = self.files[index]
        result.format = reader.format
        result.packets = reader.packets
        result.gated = reader.gated
        result.content_bytes = reader.content_bytes
        result.truncated_bytes = reader.truncated_bytes
        result.last_us = reader.last_us
        result.error = reader.error
        result.links = tuple(reader.links)
        result.note = _note(reader.snaplen, result)
        self._closed_bytes += reader.source.position
        reader.close()

    def _tell(self, after_bytes: int) -> None:
        if self._progress is None:
            return
        done = self._closed_bytes
        for reader in self._open.values():
            done += reader.source.position
        if done - self._told_bytes >= after_bytes:
            self._told_bytes = done
            self._progress(done, self._total_bytes)


class _Collector:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.quiet: dict[bytes, int] = {}
        self.quiet_udp: dict[bytes, int] = {}
        self.recent: Recent | None = None
        self.kept: list[tuple[int, int, int, bytes, int]] = []

    def packet(self, ts_us: int, number: int, link: int, buf: bytes, start: int, end: int, orig_len: int) -> None:
        """See `Sink.packet`."""
        self.kept.append((ts_us, number, link, buf[start:end], orig_len))


def iter_packets(path: str | Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, int, int, bytes, int]]:
    """Every packet of one file, in file order: (time in epoch microseconds, number, link type, bytes, length on the
    wire).

    Ends silently where the file is damaged; `Replay` tells. Raises CaptureError as `open_capture` does.
    """
    collector = _Collector()
    reader = open_capture(path, chunk_bytes)
    try:
        while not reader.done:
            reader.step(collector, False, NO_LIMIT_US)
            kept, collector.kept = collector.kept, []
            yield from kept
    finally:
        reader.close()
