"""HTTP/1.0 and 1.1 requests (RFC 9112), the client's direction of a connection, on any port.

Of a head only what the project asks for is taken out: one regular expression picks the few fields that matter from the
bytes as they lie. What it passes over costs and keeps nothing, so the bound on the head is the bound on its fields.
Bodies are stepped over, never kept.

Leniency follows what servers accept, because a client that a lenient server understands has been heard: bare LF line
ends, blank lines before a request, blanks before a field's colon, obs-fold, several Host fields.
"""

from __future__ import annotations

import re
from typing import Final

from egressd.errors import Malformed
from egressd.model import HttpRequest
from egressd.names import escape, normalise

MAX_HEAD: Final = 65_536  # servers stop at 8 to 64 KB; more is a flood, or no request
MAX_LINE: Final = 16_384  # request line: the largest default of common servers
MAX_TARGET: Final = 2048  # kept of target and path: a listed URL is a prefix and no longer than this
MAX_USER_AGENT: Final = 512  # kept: browsers send under 200
MAX_BLANK: Final = 64  # CR and LF before a request line; RFC 9112 section 2.2 asks for one pair, old clients send two
MAX_HOSTS: Final = 8  # looked at; one is legal, a second tells of disagreement, more is a flood
MAX_BODY: Final = 1 << 40  # bytes in a body or chunk; more is a tunnel's "for ever" (SSTP sends 2^64 - 1) or a lie
MAX_CHUNK_LINE: Final = 4096  # size and extensions; nobody sends extensions, servers stop at 4 to 16 KB
MAX_TRAILERS: Final = 16_384  # trailer section as a whole

# RFC 9110, 5789; WebDAV and its family (RFC 3253, 3648, 3744, 4437, 4791, 4918, 5323, 5842, 2068); UPnP eventing;
# Exchange, RPC over HTTP, remote desktop gateway, BITS, SSTP, Configuration Manager; Icecast; caches; QUERY (draft).
# M-SEARCH is left out: SSDP is not spoken over TCP.
METHODS: Final = frozenset(
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY LINK UNLINK "
    b"PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK ACL SEARCH MKCALENDAR ORDERPATCH BIND UNBIND REBIND "
    b"VERSION-CONTROL REPORT CHECKOUT CHECKIN UNCHECKOUT MKWORKSPACE UPDATE LABEL MERGE BASELINE-CONTROL MKACTIVITY "
    b"MKREDIRECTREF UPDATEREDIRECTREF NOTIFY SUBSCRIBE UNSUBSCRIBE POLL BCOPY BDELETE BMOVE BPROPFIND BPROPPATCH "
    b"X-MS-ENUMATTS RPC_IN_DATA RPC_OUT_DATA RPC_CONNECT RDG_IN_DATA RDG_OUT_DATA BITS_POST SSTP_DUPLEX_POST CCM_POST "
    b"SMS_POST SOURCE PURGE BAN TRACK DEBUG INDEX".split()
)
_PREFIXES: Final = frozenset(method[:length] for method in METHODS for length in range(len(method) + 1))
_MAX_METHOD: Final = 20
_LINE_END: Final = b" HTTP/1.1\r\n"  # of a request line, nearly always

# Blanks may follow the version, and what careless devices leave there (a NUL and a digit have been seen): lenient
# servers answer them.
_REQUEST_LINE: Final = re.compile(rb"([A-Z_-]{1,20}) ([^\n]*) HTTP/1\.[0-9][^\n]{0,9}\n")
_METHOD_SO_FAR: Final = re.compile(rb"[A-Z_-]{1,20}(?: |\Z)")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,30}://([^/?#]*)")
# RFC 9112 section 5.1 allows no blank before the colon, lenient servers do. A line that begins with a blank is a fold.
# The look-ahead and the plain first letters spare most lines the case-insensitive search.
_FIELD: Final = re.compile(
    rb"\n(?=[HhUuCcTt \t])((?:[Hh](?i:ost)|[Uu](?i:ser-agent|pgrade)|[Cc](?i:ontent-length)|[Tt](?i:ransfer-encoding))"
    rb"[ \t]{0,64}:|[ \t])([^\n]*)"
)
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_CHUNK_SIZE: Final = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?")
_BLANK: Final = b" \t\r"  # around a value; CR is what is left of its line end
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

_HEAD: Final = 0  # what the next byte belongs to, once `skip` bytes are past
_CHUNK: Final = 1
_CHUNK_END: Final = 2
_TRAILERS: Final = 3


def looks_like_http(head: bytes) -> int:
    """1 when `head` begins with a request of HTTP/1, 0 when not, -1 when so few bytes cannot tell.

    A known method is needed, and HTTP/1.x at the end of the first line if that is in `head`: RTSP, SIP, ICAP, the
    preface of HTTP/2, responses, HTTP/0.9 and text protocols with like commands are all 0.
    """
    if head[:1] == b"\r" or head[:1] == b"\n":
        stripped = head.lstrip(b"\r\n")
        if len(head) - len(stripped) > 4:
            return 0
        head = stripped
    space = head.find(b" ", 0, _MAX_METHOD + 1)
    if space < 0:
        return -1 if head in _PREFIXES else 0
    if head[:space] not in METHODS:
        return 0
    end = head.find(b"\n", space, MAX_LINE + 1)
    if end >= 0:
        if end - 10 > space and head.startswith(_LINE_END, end - 10):
            return 1  # nearly always
        # Where _REQUEST_LINE, which would cost twice this, wants the version.
        tail = head[max(space + 1, end - 18) : end]
        version = tail.rfind(b" HTTP/1.")
        return 1 if version >= 0 and tail[version + 8 : version + 9].isdigit() else 0
    if len(head) > MAX_LINE or (len(head) > space + 1 and head[space + 1] < 0x20):
        return 0
    return 1


def ends_in_number(name: str) -> bool:
    """Whether the last label of a normal name makes it an IPv4 literal (WHATWG URL section 3.5, "ends in a number").

    Clients hand such names to inet_aton, never to DNS: 192.0.2.1, 0xc0.0.2.1, 3221225985.
    """
    if name[-1] > "9" and "0x" not in name:
        return False
    return _NUMBER.fullmatch(name, name.rfind(".") + 1) is not None


def parse_authority(authority: bytes) -> tuple[str, str, int]:
    """(normal name or "", text as sent without port, escaped; port or 0) of `host [":" port]` (RFC 3986 section 3.2).

    The name of an address literal is ""; its text stays as sent, IPv6 with its brackets.
    """
    name = authority
    port = 0
    colon = authority.rfind(b":")
    if colon >= 0:
        if authority[0] == 0x5B:  # "[": IP-literal
            close = authority.find(b"]")
            if close >= 0:
                name = authority[: close + 1]
                if colon == close + 1:
                    port = _port(authority[colon + 1 :])
        elif authority.find(b":") == colon:  # more than one is IPv6 without brackets, or nonsense: no port
            name = authority[:colon]
            port = _port(authority[colon + 1 :])
    host = normalise(name)
    if host and not ends_in_number(host):
        return host, name.decode("ascii"), port
    return "", escape(name), port


def _port(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 5:
        return 0
    port = int(digits)
    return port if port <= 0xFFFF else 0


def _fields(text: bytes, first: int, last: int) -> list[tuple[bytes, bytes]]:
    """The fields of a head that matter, in order: name as sent with its colon, and value with the blanks around it.

    `first` is the LF that ends the request line, `last` the LF that ends the last whole field line.
    """
    fields: list[tuple[bytes, bytes]] = _FIELD.findall(text, first, last)
    for field in fields:
        if field[0][0] <= 0x20:  # Unfold. A fold right after the request line goes, as RFC 9112 section 2.2 asks.
            return _FIELD.findall(_FOLD.sub(b" ", text[first:last]))
    return fields


def _request_line(text: bytes | bytearray, start: int) -> re.Match[bytes]:
    line = _REQUEST_LINE.match(text, start)
    if line is None or line.end() - start > MAX_LINE:
        raise Malformed("not an HTTP/1 request line")
    return line


def _request(
    line: re.Match[bytes], fields: list[tuple[bytes, bytes]], framing: list[tuple[bytes, bytes]]
) -> HttpRequest:
    """Put a request together, and the fields that tell what follows it into `framing` (most requests have none).

    The target's authority wins over Host (RFC 9112 section 3.2.2), the first Host over more.
    """
    method, target = line.groups()
    authority = b""
    path = target
    if method == b"CONNECT":
        authority = target.strip(b" ")
        path = b""
    elif target[:1] != b"/":
        path = target = target.strip(b" ")
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            authority = absolute.group(1)
            path = target[absolute.end() :]
            if path[:1] != b"/":
                path = b"/" + path
    host = raw_host = header_host = user_agent = ""
    port = hosts = 0
    if authority:
        host, raw_host, port = parse_authority(authority[authority.rfind(b"@") + 1 :])
        hosts = 1
    for name, value in fields:
        code = name[0] | 0x20
        if code == 0x68:  # Host
            hosts += 1
            if hosts == 1:
                host, raw_host, port = parse_authority(value.strip(_BLANK))
            elif not header_host and hosts <= MAX_HOSTS:
                other = parse_authority(value.strip(_BLANK))[0]
                if other != host:
                    header_host = other
        elif code != 0x75 or name[1] | 0x20 == 0x70:  # not User-Agent but Upgrade
            framing.append((name, value))
        elif not user_agent:
            user_agent = value.strip(_BLANK)[:MAX_USER_AGENT].decode("latin-1")
    kept = target[:MAX_TARGET].decode("latin-1")
    kept_path = kept if path is target else path[:MAX_TARGET].decode("latin-1")
    return HttpRequest(method.decode("ascii"), kept, host, raw_host, port, user_agent, header_host, kept_path)


def _head_end(text: bytes | bytearray, at: int) -> int:
    """Where the LF of the last line of a head stands, searched from `at` on; -1 when the head does not end here. RFC
    9112 section 2.2 lets a bare LF end a line."""
    end = text.find(b"\n\r\n", at)
    bare = text.find(b"\n\n", at, end + 1) if end >= 0 else text.find(b"\n\n", at)
    return bare if bare >= 0 else end


def _asks_upgrade(framing: list[tuple[bytes, bytes]]) -> bool:
    return any(name[0] | 0x20 == 0x75 and value.strip(_BLANK) for name, value in framing)


def _body_length(framing: list[tuple[bytes, bytes]]) -> int:
    """Bytes of body, or -1 when it is chunked, by RFC 9112 section 6.3: a transfer coding beats Content-Length.

    Raises Malformed when the body's end cannot be told.
    """
    coding = b""
    length = -1
    problem = ""
    for name, value in framing:
        code = name[0] | 0x20
        if code == 0x74:  # Transfer-Encoding: several are one list
            coding = value.rpartition(b",")[2].strip(_BLANK).lower() or coding
        elif code == 0x63:  # Content-Length; RFC 9110 section 8.6: a list of equal numbers may be taken
            for text in value.split(b","):
                digits = text.strip(_BLANK)
                if not digits.isdigit() or len(digits) > 15 or int(digits) > MAX_BODY:
                    problem = "absurd Content-Length"
                elif length >= 0 and int(digits) != length:
                    problem = "Content-Lengths that disagree"
                else:
                    length = int(digits)
    if coding == b"chunked":
        return -1
    if coding and coding != b"identity":  # of RFC 2616 section 3.6: no coding at all
        raise Malformed("transfer coding without an end")
    if problem:
        raise Malformed(problem)
    return max(length, 0)


class HttpStream:
    """The client's direction of one connection, bytes in order, cut anywhere; finds every request in it.

    `done`: nothing more can be learned. `rest`: after CONNECT, or after a request with Upgrade (RFC 9110 section 7.8)
    and its body, the bytes that may be another protocol, or HTTP still. `skip`: how many of the coming bytes are body;
    they may be left out by calling `skipped`. `failed`: why the stream stopped being HTTP, or "". When bytes complete a
    request and then break the stream, `feed` hands the request out and the next `feed` raises; `failed` tells at once.
    """

    __slots__ = (
        "_blank",
        "_buffer",
        "_line_ok",
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
        self.failed = ""
        self.rest: bytes | None = None
        self.skip = 0
        self._state = _HEAD
        self._buffer = bytearray()  # of a head or a line that is not complete; never more than MAX_HEAD and one feed
        self._scanned = 0  # no head ends before this index of the buffer
        self._line_ok = False  # the buffer's request line has been seen whole and is one
        self._blank = 0
        self._trailers = 0
        self._upgrade = False

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
        found: list[HttpRequest] = []
        if self._state == _HEAD and self._line_ok and not self.failed:
            self._take_cut_head(bytes(self._buffer), found)
        self._buffer = bytearray()
        self._line_ok = False
        self.done = True
        return found

    def _feed_head(self, data: bytes, at: int, found: list[HttpRequest]) -> int:
        """Look for a head in `data` from `at` on, and return how far `data` is used."""
        buffer = self._buffer
        size = len(data)
        if not buffer:
            while at < size and (data[at] == 0x0A or data[at] == 0x0D):  # RFC 9112 section 2.2
                at += 1
                self._blank += 1
                if self._blank > MAX_BLANK:
                    raise Malformed("blank lines instead of a request")
            end = _head_end(data, at)
            if end >= 0:
                return self._take_head(data, at, end, found)
        buffer += data[at:] if at else data
        end = _head_end(buffer, self._scanned)
        if end < 0:
            if buffer:
                self._check_cut_head(found)
            return size
        text = bytes(buffer)
        self._buffer = bytearray()
        return size - len(text) + self._take_head(text, 0, end, found)

    def _take_head(self, text: bytes, start: int, end: int, found: list[HttpRequest]) -> int:
        """Read the head that begins at `start` and whose last line ends at `end`, make ready for what follows it, and
        return where that begins."""
        after = end + (2 if text[end + 1] == 0x0A else 3)
        if after - start > MAX_HEAD:
            self._take_cut_head(text[start : start + MAX_HEAD], found)
            raise Malformed("head too long")
        line = _request_line(text, start)
        framing: list[tuple[bytes, bytes]] = []
        request = _request(line, _fields(text, line.end() - 1, end), framing)
        found.append(request)
        self._line_ok = False
        self._scanned = self._blank = 0
        if request.method == "CONNECT":  # has no content: RFC 9110 section 9.3.6
            self._upgrade = True
        elif framing:
            self._upgrade = _asks_upgrade(framing)
            self.skip = _body_length(framing)
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
            if buffer.find(b"\n", self._scanned) >= 0:
                _request_line(buffer, 0)
                self._line_ok = True
            elif len(buffer) > MAX_LINE or _METHOD_SO_FAR.match(buffer) is None:
                raise Malformed("not an HTTP/1 request line")
        if len(buffer) > MAX_HEAD:
            self._take_cut_head(bytes(buffer[:MAX_HEAD]), found)
            raise Malformed("head too long")
        self._scanned = max(0, len(buffer) - 2)

    def _take_cut_head(self, text: bytes, found: list[HttpRequest]) -> None:
        """The request of a head whose end is missing, if the target or a whole Host line tells where it goes."""
        line = _request_line(text, 0)
        request = _request(line, _fields(text, line.end() - 1, text.rfind(b"\n")), [])
        if request.raw_host:
            found.append(request)

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
