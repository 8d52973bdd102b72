"""HTTP/1.0 and 1.1 requests (RFC 9112), the client's direction of a connection, on any port.

Bytes come in order and cut anywhere; heads are read by http_head.py, bodies are stepped over, never kept. Blank lines
before a request are taken, as servers do.
"""

from __future__ import annotations

import re
from typing import Final

from egressd.errors import Malformed
from egressd.model import HttpRequest
from egressd.native import mypyc_attr
from egressd.wire.http_head import (
    MAX_BODY,
    Field,
    asks_upgrade,
    body_length,
    is_line_open,
    is_read,
    read_fields,
    read_request_line,
    request_of,
)

MAX_HEAD: Final = 65_536  # kept of a head; most servers stop at 8 to 64 KB
# Read of a head that has told no name so far; only the lines that matter are kept then. Apache takes 100 fields of
# 8 KB, Python's http.server 100 of 64 KB. More is a flood, or no request.
MAX_WHOLE_HEAD: Final = 8 << 20
KEPT_LINE: Final = 4096  # of a line, when a head is shortened
MAX_CHUNK_LINE: Final = 16_640  # size and extensions; nobody sends extensions, servers stop at 4 to 16 KB
MAX_TRAILERS: Final = 16_384  # trailer section as a whole
_METHOD_SO_FAR: Final = re.compile(rb"[!#-'*+.^_`|~0-9A-Za-z-]{1,20}(?:[ \t\v\f]|\Z)")
_CHUNK_SIZE: Final = re.compile(rb"[ \t]*0*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?")

_HEAD: Final = 0  # what the next byte belongs to, once `skip` bytes are past
_CHUNK: Final = 1
_CHUNK_END: Final = 2
_TRAILERS: Final = 3


@mypyc_attr(acyclic=True)
class HttpStream:
    """The client's direction of one connection, bytes in order, cut anywhere; finds every request in it.

    `done`: nothing more can be learned. `rest`: after CONNECT, or after a request with Upgrade (RFC 9110 section 7.8)
    and its body, the bytes that may be another protocol, or HTTP still. `skip`: how many of the coming bytes are body;
    they may be left out by calling `skipped`. `failed`: why the stream stopped being HTTP, or "". When bytes complete a
    request and then break the stream, `feed` hands the request out and the next `feed` raises; `failed` tells at once.
    """

    __slots__ = (
        "_buffer",
        "_left_out",
        "_line_ok",
        "_line_open",
        "_scanned",
        "_state",
        "_trailers",
        "_upgrade",
        "done",
        "failed",
        "rest",
        "skip",
    )

    def __init__(self) -> None:
        self.done = False
        self._line_ok = False  # the buffer's request line has been seen whole and is one
        self._line_open = False  # it may be one of HTTP/0.9: what is behind it tells
        self._upgrade = False
        self.failed = ""
        self.rest: bytes | None = None
        self.skip = 0
        self._state = _HEAD
        self._buffer = bytearray()  # of a head or a line that is not complete; never more than MAX_HEAD and one feed
        self._scanned = 0  # no head ends before this index of the buffer
        self._left_out = 0  # bytes of the head that are not in the buffer any more
        self._trailers = 0

    def feed(self, data: bytes) -> list[HttpRequest]:
        """The requests whose heads `data` completes, in order. Raises Malformed when this is not HTTP (any more)."""
        if self.failed:
            raise Malformed(self.failed)
        if self.done:
            if self.rest is not None:  # it became done by `skipped`, and the caller has not looked yet
                self.rest += data
            return []
        found: list[HttpRequest] = []
        at = 0
        size = len(data)
        try:
            while at < size and not self.done:
                if self.skip:
                    step = min(self.skip, size - at)
                    at += step
                    self.skip -= step
                    if not self.skip and self._state == _HEAD:
                        self._end_message()
                elif self._state == _HEAD:
                    at = self._feed_head(data, at, found)
                else:
                    at = self._feed_chunk_line(data, at)
        except Malformed as why:
            self.failed = str(why)
            self._buffer = bytearray()
            self.skip = 0
            if not found:
                raise
        if self.rest is not None and at < size:
            self.rest += data[at:]
        return found

    def buffered(self) -> int:
        """Bytes kept of what is not complete."""
        return len(self._buffer)

    def skipped(self, count: int) -> None:
        """`count` bytes of body were left out. More than `skip` loses the stream: the next `feed` raises Malformed."""
        if count > self.skip:
            self.failed = self.failed or "more than a body was left out"
            self.skip = 0
        elif count > 0:
            self.skip -= count
            if not self.skip and self._state == _HEAD:
                self._end_message()

    def finish(self) -> list[HttpRequest]:
        """The flow ended, or the rest of it is lost: the request of a head cut short, if the name is already told."""
        found = self.so_far()
        self._buffer = bytearray()
        self._line_ok = False
        self.done = True
        return found

    def so_far(self) -> list[HttpRequest]:
        """The request of a head whose rest has not come, if the name is already told."""
        found: list[HttpRequest] = []
        if self._state == _HEAD and self._line_ok and not self.failed:
            self._take_cut_head(self._buffer.decode("latin-1"), found)
        return found

    def _feed_head(self, data: bytes, at: int, found: list[HttpRequest]) -> int:
        """Look for a head in `data` from `at` on, and return how far `data` is used."""
        buffer = self._buffer
        size = len(data)
        if not buffer:
            # RFC 9112 section 2.2 asks for one blank line; nginx and Node pass over any number, Apache over 100.
            while at < size and (data[at] == 0x0A or data[at] == 0x0D):
                at += 1
            used = self._take_head((data[at:] if at else data).decode("latin-1"), found)
            if used:
                return at + used
        buffer += data[at:] if at else data
        if _head_end(buffer, self._scanned) < 0:
            if buffer:
                self._check_cut_head(found)
            return size
        text = buffer.decode("latin-1")
        self._buffer = bytearray()
        return size - len(text) + self._take_head(text, found)

    def _take_head(self, text: str, found: list[HttpRequest]) -> int:
        """Read the head with which `text` begins, make ready for what follows it, and return where that begins; 0 when
        the head's end is not there."""
        line_end = text.find("\n")
        if line_end < 0:
            return 0
        method, target = read_request_line(text, line_end)
        fields, end = read_fields(text, line_end)
        if end < 0:
            return 0
        after = end + (2 if text[end + 1] == "\n" else 3)
        named = after > MAX_HEAD and line_end < MAX_HEAD and self._take_cut_head(text[:MAX_HEAD], found)
        if named or after > MAX_WHOLE_HEAD:
            raise Malformed("head too long")
        framing: list[Field] = []
        found.append(request_of(method, target, fields, framing))
        self._line_ok = self._line_open = False
        self._scanned = self._left_out = 0
        if method == "CONNECT":  # has no content: RFC 9110 section 9.3.6
            self._upgrade = True
        elif framing:
            self._upgrade = asks_upgrade(framing)
            self.skip = body_length(framing)
            if self.skip < 0:
                self.skip = self._trailers = 0
                self._state = _CHUNK
                return after
        if not self.skip:
            self._end_message()
        return after

    def _check_cut_head(self, found: list[HttpRequest]) -> None:
        """Raise Malformed as soon as the buffer cannot become a request any more, so that garbage is not collected."""
        buffer = self._buffer
        if not self._line_ok:
            end = buffer.find(b"\n", self._scanned)
            if end >= 0 or self._line_open:
                text = buffer.decode("latin-1")
                read_request_line(text, end)
                self._line_open = is_line_open(text)
                self._line_ok = not self._line_open
            elif _METHOD_SO_FAR.match(buffer) is None:
                raise Malformed("not an HTTP/1 request line")
        if len(buffer) > MAX_HEAD:
            before = len(buffer)
            if self._line_ok and self._take_cut_head(buffer[:MAX_HEAD].decode("latin-1"), found):
                raise Malformed("head too long")
            self._buffer = buffer = _shortened(bytes(buffer))
            self._left_out += before - len(buffer)
            if len(buffer) > MAX_HEAD // 2 or self._left_out > MAX_WHOLE_HEAD:
                raise Malformed("head too long")
        self._scanned = max(0, len(buffer) - 2)

    def _take_cut_head(self, text: str, found: list[HttpRequest]) -> bool:
        """The request of a head whose end is missing, if the target or a whole Host line tells where it goes."""
        line_end = text.find("\n")
        method, target = read_request_line(text, line_end)
        request = request_of(method, target, read_fields(text, line_end)[0], [])
        if request.raw_host:
            found.append(request)
        return request.raw_host != ""

    def _end_message(self) -> None:
        if self._upgrade:
            self.rest = b""
            self.done = True

    def _feed_chunk_line(self, data: bytes, at: int) -> int:
        """Read one line of the chunked coding (RFC 9112 section 7.1), or keep what there is of it."""
        buffer = self._buffer
        bound = 1 if self._state == _CHUNK_END else MAX_CHUNK_LINE
        stop = data.find(b"\n", at, at + bound + 1)
        if stop < 0:
            buffer += data[at : at + bound + 1]
            if len(buffer) > bound:
                raise Malformed("line of the chunked coding too long")
            return len(data)
        line = bytes(buffer) + data[at:stop] if buffer else data[at:stop]
        if len(line) > bound:
            raise Malformed("line of the chunked coding too long")
        self._buffer = bytearray()
        if self._state == _CHUNK:
            size = _CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise Malformed("not a chunk size")
            self.skip = int(size.group(1), 16)
            if self.skip > MAX_BODY:
                raise Malformed("absurd chunk size")
            self._state = _CHUNK_END if self.skip else _TRAILERS
        elif line == b"" or line == b"\r":
            if self._state == _CHUNK_END:
                self._state = _CHUNK
            else:
                self._state = _HEAD
                self._end_message()
        else:
            self._trailers += len(line)
            if self._state == _CHUNK_END or self._trailers > MAX_TRAILERS:
                raise Malformed("not a chunk's end")
        return stop + 1


def _shortened(head: bytes) -> bytearray:
    """A head whose end is not there, with no more of it than matters: the request line, fields that are read, and the
    line that is not complete, each up to KEPT_LINE bytes. What is folded stays with its field, or goes with it."""
    lines = head.split(b"\n")
    cut = lines.pop()
    kept: list[bytes] = []
    matters = True
    for line in lines:
        if kept and line[:1] != b" " and line[:1] != b"\t":
            matters = is_read(line)
        if matters:
            kept.append(_without_middle(line))
    if not matters:
        kept.append(b"-:")  # not to be folded into another field
    kept.append(_without_middle(cut))
    return bytearray(b"\n".join(kept))


def _without_middle(line: bytes) -> bytes:
    return line if len(line) <= KEPT_LINE else line[: KEPT_LINE - 64] + line[-64:]


def _head_end(text: bytearray, at: int) -> int:
    """Where the LF of the last line of a head stands, searched from `at` on; -1 when the head does not end here. RFC
    9112 section 2.2 lets a bare LF end a line."""
    end = text.find(b"\n\r\n", at)
    bare = text.find(b"\n\n", at, end + 1) if end >= 0 else text.find(b"\n\n", at)
    return bare if bare >= 0 else end
