"""Heads of HTTP/1.0 and 1.1 requests (RFC 9112): what they tell of where a request goes and of what follows it.

Of a head only what the project asks for is taken out: its lines are walked, and most are passed over by their first
letter. What is passed over keeps nothing, so the bound on the head is the bound on its fields. Heads are read as
latin-1 text, a character for each byte: compiled, to search a string costs a sixth of searching bytes.

Leniency follows what servers accept, because a client that a lenient server understands has been heard: bare LF line
ends, blanks before a field's colon, obs-fold, several Host fields, fields behind a request line of HTTP/0.9 (Python's
http.server), lengths with a sign, codings and lengths that say nothing (a server that does not look at them takes what
follows for the next request; when it is none, it is found out at once).
"""

from __future__ import annotations

import re
from typing import Final

from egressd.errors import Malformed
from egressd.model import HttpRequest
from egressd.names import escape, normalise
from egressd.wire.octets import COMPILED

MAX_LINE: Final = 65_536  # of the bytes that begin a direction: what a segment holds at most
MAX_TARGET: Final = 2048  # kept of target and path: a listed URL is a prefix and no longer than this
MAX_USER_AGENT: Final = 512  # kept: browsers send under 200
MAX_HOSTS: Final = 8  # looked at; one is legal, a second tells of disagreement, more is a flood
MAX_BODY: Final = 1 << 40  # bytes in a body or chunk; more is a tunnel's "for ever" (SSTP sends 2^64 - 1) or a lie

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
_METHODS: Final = frozenset(method.decode("ascii") for method in METHODS)
_PREFIXES: Final = frozenset(method[:length] for method in _METHODS for length in range(len(method) + 1))
_MAX_METHOD: Final = 20
_LINE_END: Final = " HTTP/1.1\r\n"  # of a request line, nearly always

# Blanks may follow the version, and what careless devices leave there (a NUL and a digit have been seen): lenient
# servers answer them. They part the words at any blank (RFC 9112 section 3), take methods that nobody knows, and other
# versions (2.0, 01.1).
_REQUEST_LINE: Final = re.compile(
    r"(?!PRI )([!#-'*+.^_`|~0-9A-Za-z-]{1,20})[ \t\v\f]++([^\n]*)[ \t\v\f]HTTP/[0-9][^\n]{0,11}\n"
)
# A request line of HTTP/0.9, and the beginning of a field behind it, as far as it is there: without one it is too
# little to tell it from other protocols, and there is no name in it.
_OLD_LINE: Final = re.compile(
    r"GET[ \t]+((?:/|[Hh][Tt][Tt][Pp]://)[^ \t\n]*)[ \t]*\n(?:\Z|[A-Za-z][A-Za-z0-9-]{0,40}(?:\Z|[ \t]*(?:\Z|:)))"
)
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://([^/?#]*)")
_FOLD: Final = re.compile(r"\r?\n[ \t]+")
_BLANK: Final = " \t\r"  # around a value; CR is what is left of its line end
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

# The fields that matter.
_HOST: Final = 1
_USER_AGENT: Final = 2
_UPGRADE: Final = 3
_CONTENT_LENGTH: Final = 4
_TRANSFER_CODING: Final = 5
_KINDS: Final = {  # by name. RFC 9112 section 5.1 allows no blanks before the colon, lenient servers do
    "host": _HOST,
    "user-agent": _USER_AGENT,
    "upgrade": _UPGRADE,
    "content-length": _CONTENT_LENGTH,
    "transfer-encoding": _TRANSFER_CODING,
}
_WORTH_READING: Final = "HhUuCcTt\r \t"  # how their lines begin, that which ends the head, and folds
Field = tuple[int, str]  # which it is, and its value with the blanks around it


def looks_like_http(head: bytes) -> int:
    """1 when `head` begins with a request of HTTP/1, 0 when not, -1 when so few bytes cannot tell.

    A known method is needed, or a whole first line; and a version of HTTP at the end of that line if it is in `head`:
    RTSP, SIP, ICAP, the preface of HTTP/2, responses, HTTP/0.9 and text protocols with like commands are all 0. Blank
    lines may come first.
    """
    text = head.decode("latin-1")
    if head and (head[0] == 0x0D or head[0] == 0x0A):
        text = text.lstrip("\r\n")
    space = text.find(" ", 0, _MAX_METHOD + 1)
    if space < 0 or text[:space] not in _METHODS:
        if space < 0 and text in _PREFIXES:
            return -1
        end = text.find("\n", 0, MAX_LINE + 1)
        if end < 0 or text.find("HTTP/", max(0, end - 18), end) < 0:
            return 0
        return 1 if _REQUEST_LINE.match(text) is not None else 0
    end = text.find("\n", space, MAX_LINE + 1)
    if end >= 0:
        if end - 10 > space and text[end - 10 : end + 1] == _LINE_END:
            return 1  # nearly always
        # Where _REQUEST_LINE, which would cost twice this, wants the version.
        tail = text[max(space + 1, end - 18) : end]
        version = tail.rfind("HTTP/")
        if version > 0 and tail[version - 1] in " \t\v\f" and "0" <= tail[version + 5 : version + 6] <= "9":
            return 1
        old = _OLD_LINE.match(text)
        if old is None:
            return 0
        return 1 if text[old.end() - 1] == ":" else -1
    if len(text) > MAX_LINE or (len(text) > space + 1 and ord(text[space + 1]) < 0x20):
        return 0
    return 1


def ends_in_number(name: str) -> bool:
    """Whether the last label of a normal name makes it an IPv4 literal (WHATWG URL section 3.5, "ends in a number").

    Clients hand such names to inet_aton, never to DNS: 192.0.2.1, 0xc0.0.2.1, 3221225985.
    """
    if name[-1] > "9" and "0x" not in name:
        return False
    return _NUMBER.fullmatch(name, name.rfind(".") + 1) is not None


def parse_ipv4(text: str) -> bytes:
    """The IPv4 address that inet_aton reads in `text`, packed, or b"": one to four numbers, decimal, octal or
    hexadecimal, the last of which fills what is left (WHATWG URL section 3.5, but that 0x alone is no number). Proxies
    resolve with getaddrinfo, which takes these forms too."""
    if not text.isascii():
        return b""
    parts = text.lower().split(".")
    if len(parts) > 4:
        return b""
    value = 0
    for at, part in enumerate(parts):
        base, digits = (16, part[2:]) if part.startswith("0x") else (8, part) if part[:1] == "0" else (10, part)
        if not digits or digits.strip("0123456789abcdef"[:base]):
            return b""
        digits = digits.lstrip("0")  # as many as anybody likes (strtoul)
        if len(digits) > 11:
            return b""
        number = int(digits or "0", base)
        room = 8 if at + 1 < len(parts) else 8 * (5 - len(parts))
        if number >> room:
            return b""
        value = value << room | number
    return value.to_bytes(4, "big")


def parse_authority(authority: bytes) -> tuple[str, str, int]:
    """(normal name or "", text as sent without port, escaped; port or 0) of `host [":" port]` (RFC 3986 section 3.2).

    The name of an address literal is ""; its text stays as sent, IPv6 with its brackets.
    """
    return _read_authority(authority.decode("latin-1"))


def _read_authority(authority: str) -> tuple[str, str, int]:
    name = authority
    port = 0
    colon = authority.rfind(":")
    if colon >= 0:
        if authority[0] == "[":  # IP-literal
            close = authority.find("]")
            if close >= 0:
                name = authority[: close + 1]
                if colon == close + 1:
                    port = _port(authority[colon + 1 :])
        else:
            first = authority.find(":")
            if first == colon:
                name = authority[:colon]
                port = _port(authority[colon + 1 :])
            elif authority.find(".", 0, first) >= 0:  # else IPv6 without brackets; nginx reads a name up to the first
                name = authority[:first]
    raw = name.encode("latin-1")
    host = normalise(raw)
    if host and not ends_in_number(host):
        return host, name, port
    return "", escape(raw), port


def _port(digits: str) -> int:
    if not _is_decimal(digits) or len(digits) > 5:
        return 0
    port = int(digits)
    return port if port <= 0xFFFF else 0


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit()


def read_fields(text: str, first: int) -> tuple[list[Field], int]:
    """The fields of a head that matter, in order, and the LF of its last line, -1 when its end is not there.

    `first` is the LF that ends the request line. A line that is cut is left out.
    """
    fields: list[Field] = []
    folded = False
    start = first + 1
    if COMPILED:
        end = text.find("\n", start)
        while end >= 0:
            code = ord(text[start])
            if code == 0x0A or (code == 0x0D and end == start + 1):  # the end of the head
                return _unfolded_fields(text[first:start]) if folded else fields, start - 1
            if code == 0x20 or code == 0x09:
                folded = True
            code |= 0x20
            if code == 0x68 or code == 0x75 or code == 0x63 or code == 0x74:  # h, u, c, t
                colon = text.find(":", start, end)
                if colon >= 0:
                    kind = _KINDS.get(text[start:colon].rstrip(" \t").lower(), 0)
                    if kind:
                        fields.append((kind, text[colon + 1 : end]))
            start = end + 1
            end = text.find("\n", start)
    else:
        lines = text[start:].split("\n")
        del lines[-1]
        for line in lines:
            if line[:1] in _WORTH_READING:
                if not line or line == "\r":
                    return _unfolded_fields(text[first:start]) if folded else fields, start - 1
                name, colon_sign, value = line.partition(":")
                kind = _KINDS.get(name.rstrip(" \t").lower(), 0)
                if kind and colon_sign:
                    fields.append((kind, value))
                elif line[0] == " " or line[0] == "\t":
                    folded = True
            start += len(line) + 1
    return _unfolded_fields(text[first:start]) if folded else fields, -1


def is_read(line: bytes) -> bool:
    """Whether a line of a head is a field that `read_fields` takes out."""
    return line[:64].partition(b":")[0].rstrip(b" \t").lower().decode("latin-1") in _KINDS


def _unfolded_fields(text: str) -> list[Field]:
    """The same when lines begin with a blank, and so belong to those before them (RFC 9112 section 5.2). What is folded
    right after the request line goes, as section 2.2 asks."""
    text = _FOLD.sub(" ", text)
    return read_fields(text, text.find("\n"))[0]


def read_request_line(text: str, end: int) -> tuple[str, str]:
    """Method and target of the request line with which `text` begins and which ends at the LF `end`. Raises
    Malformed."""
    space = text.find(" ", 0, _MAX_METHOD + 1)
    if 0 <= space < end - 10 and text[end - 10 : end + 1] == _LINE_END:
        method = text[:space]
        if method in _METHODS:
            return method, text[space + 1 : end - 10]  # nearly always
    line = _REQUEST_LINE.match(text)
    if line is not None:
        return line.group(1), line.group(2).rstrip(" \t\v\f")
    line = _OLD_LINE.match(text)
    if line is not None:
        return "GET", line.group(1).rstrip("\r")
    raise Malformed("not an HTTP/1 request line")


def is_line_open(text: str) -> bool:
    """Whether `text` begins with a request line of HTTP/0.9, and too little behind it to believe that."""
    old = _OLD_LINE.match(text)
    return old is not None and text[old.end() - 1] != ":"


def request_of(method: str, target: str, fields: list[Field], framing: list[Field]) -> HttpRequest:
    """Put a request together, and the fields that tell what follows it into `framing` (most requests have none).

    The target's authority wins over Host (RFC 9112 section 3.2.2), the first Host over more.
    """
    authority = ""
    path = target
    if method == "CONNECT":
        authority = target.strip(" ")
        path = ""
    elif not target or target[0] != "/":
        path = target = target.strip(" ")
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            authority = absolute.group(1)
            path = target[absolute.end() :]
            if not path or path[0] != "/":
                path = "/" + path
    host = raw_host = header_host = user_agent = ""
    port = hosts = 0
    if authority:
        host, raw_host, port = _read_authority(authority[authority.rfind("@") + 1 :])
        hosts = 1
    for kind, value in fields:
        if kind == _HOST:
            hosts += 1
            if hosts == 1:
                host, raw_host, port = _read_authority(value.strip(_BLANK))
            elif not header_host and hosts <= MAX_HOSTS:
                other = _read_authority(value.strip(_BLANK))[0]
                if other != host:
                    header_host = other
        elif kind != _USER_AGENT:
            framing.append((kind, value))
        elif not user_agent:
            user_agent = value.strip(_BLANK)[:MAX_USER_AGENT]
    kept = target[:MAX_TARGET]
    return HttpRequest(method, kept, host, raw_host, port, user_agent, header_host, path[:MAX_TARGET])


def asks_upgrade(framing: list[Field]) -> bool:
    """Whether a request asks to go on in another protocol (RFC 9110 section 7.8)."""
    return any(kind == _UPGRADE and value.strip(_BLANK) for kind, value in framing)


def body_length(framing: list[Field]) -> int:
    """Bytes of body, or -1 when it is chunked, by RFC 9112 section 6.3: a transfer coding beats Content-Length. What
    says nothing, a coding without an end or a length that is no number, is left out; of several lengths the first one
    counts.

    Raises Malformed when the body has no end.
    """
    coding = ""
    length = -1
    for kind, value in framing:
        if kind == _TRANSFER_CODING:  # several are one list
            coding = value.rpartition(",")[2].strip(_BLANK).lower() or coding
        elif kind == _CONTENT_LENGTH:  # RFC 9110 section 8.6: a list of equal numbers may be taken
            for text in value.split(","):
                digits = text.strip(_BLANK)
                if digits[:1] == "+":
                    digits = digits[1:]
                if length < 0 and _is_decimal(digits):
                    length = int(digits) if len(digits.lstrip("0")) <= 15 else MAX_BODY + 1
    if coding == "chunked":
        return -1
    if length > MAX_BODY:
        raise Malformed("absurd Content-Length")
    return max(length, 0)
