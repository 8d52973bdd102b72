"""Where the bytes of a capture come from: a file, a pipe, gzip. In chunks, and whatever happens without raising."""

from __future__ import annotations

import os
import stat
import zlib
from typing import Final

GZIP_MAGIC: Final = b"\x1f\x8b"  # RFC 1952 section 2.3.1
CHUNK_BYTES: Final = 120 * 1024  # one buffer stays in the cache, and below the size that malloc maps anew each time
MAX_CHUNK_BYTES: Final = 256 * 1024
COMPRESSED_CHUNK_BYTES: Final = 16 * 1024  # zlib copies what it has not used at every call: keep that small


class ByteSource:
    """Bytes of one file in order. `error` says why they ended before their time; `position` is how far the file itself
    (compressed, if it is) has been read."""

    def __init__(self, fd: int, chunk_bytes: int, owned: bool) -> None:
        self.fd = fd
        self.chunk_bytes = max(1, min(chunk_bytes, MAX_CHUNK_BYTES))
        self.owned = owned  # standard input is not ours to close
        self.position = 0
        self.error = ""

    def refill(self, buf: bytes, pos: int, want: int) -> bytes:
        """`buf[pos:]` and more: at least `want` bytes, fewer only where the file ends."""
        pieces = [buf[pos:]]
        have = len(buf) - pos
        while True:
            piece = self.read_piece()
            pieces.append(piece)
            have += len(piece)
            if have >= want or not piece:
                return b"".join(pieces)

    def read_piece(self) -> bytes:
        """The next bytes, or none at the end."""
        return self.read_fd(self.chunk_bytes)

    def size(self) -> int:
        """The file's own size; 0 for a pipe."""
        status = os.fstat(self.fd)
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def unread_bytes(self) -> int:
        """How many bytes of content are left when reading ends early; 0 for pipes and gzip, where nobody knows."""
        return 0

    def read_fd(self, size: int) -> bytes:
        """Up to `size` bytes as they lie in the file; an error of the system is noted and ends it."""
        try:
            piece = os.read(self.fd, size)
        except OSError as error:
            self.error = f"cannot be read any further: {error.strerror}"
            return b""
        self.position += len(piece)
        return piece

    def close(self) -> None:
        """Close the file; harmless when done already."""
        if self.owned and self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class RegularSource(ByteSource):
    """A file that can be read at any place: instead of joining a tail to the next chunk, both are read together."""

    def refill(self, buf: bytes, pos: int, want: int) -> bytes:
        """See `ByteSource.refill`."""
        place = self.position - (len(buf) - pos)
        have = b""
        try:
            while len(have) < want:
                piece = os.pread(self.fd, max(self.chunk_bytes, want) - len(have), place + len(have))
                if not piece:
                    break
                have = have + piece if have else piece
        except OSError as error:
            self.error = f"cannot be read any further: {error.strerror}"
        self.position = place + len(have)
        return have

    def unread_bytes(self) -> int:
        """See `ByteSource.unread_bytes`."""
        return max(0, os.fstat(self.fd).st_size - self.position)


class GzipSource(ByteSource):
    """The content of a gzip file (RFC 1952), member after member, never more than a chunk of it at a time."""

    def __init__(self, fd: int, chunk_bytes: int, owned: bool, head: bytes) -> None:
        super().__init__(fd, chunk_bytes, owned)
        self._raw = head  # compressed bytes not looked at yet
        self._member = zlib.decompressobj(31)
        self._started = True  # a member has begun: its end must come
        self._ended = False
        self.position = len(head)

    def read_piece(self) -> bytes:
        """The next bytes of the content."""
        while not self._ended:
            if not self._raw:
                self._raw = self.read_fd(COMPRESSED_CHUNK_BYTES)
            if not self._started and not self._next_member():
                break
            raw = self._raw
            try:
                piece = self._member.decompress(raw, self.chunk_bytes)
            except zlib.error:
                return self._end("its gzip stream is damaged")
            self._raw = self._member.unconsumed_tail
            if self._member.eof:
                self._raw = self._member.unused_data
                self._member = zlib.decompressobj(31)
                self._started = False
            if piece:
                return piece
            if not raw:
                return self._end("its gzip stream ends early")
        return b""

    def _next_member(self) -> bool:
        # Padding of zeros after the last member is common (tapes, block devices); anything else is not gzip.
        while not self._raw.strip(b"\0"):
            self._raw = self.read_fd(COMPRESSED_CHUNK_BYTES)
            if not self._raw:
                self._end("")
                return False
        if self._raw[0] != 0x1F:
            self._end("something that is not gzip follows its gzip stream")
            return False
        self._started = True
        return True

    def _end(self, error: str) -> bytes:
        self._ended = True
        self.error = self.error or error
        return b""
