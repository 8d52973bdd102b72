"""Opaque GET tails: requests of one shape with an unknown string appended that is another each time.

Origin: the one trait that the public reports on the incident of 2015 give, HTTP GETs with unknown strings appended.
Many backdoors report so: MITRE ATT&CK T1071.001 (web protocols) and T1132.001 (encoded).

What is alike and innocent: a CDN's hashed assets (many shapes in one page, names that end in a file's type), analytics
(come with a page, for many clients), a token (the same each time), OCSP over GET (RFC 6960 appendix A.1: the tail is
a DER sequence, and says so).
"""

from __future__ import annotations

from array import array
from base64 import b64decode
from binascii import Error, crc32
from typing import Final, NamedTuple

from egressd.detect.behaviour.letters import STRANGE_BITS, entropy_bits, surprise
from egressd.detect.behaviour.sketch import MARKS, marks
from egressd.native import mypyc_attr

LEAST_TAIL: Final = 12  # characters
LONGEST: Final = 2_048  # characters of a target that are looked at
LEAST_VISITS: Final = 4  # with such a tail, each at another time
MAX_SHAPES: Final = 6
MOST_COUNTED: Final = 0xFFFF_FFFF
PER_VISIT: Final = 3  # requests of the shape: a page that loads a dozen such things is a page
MAIN_SHARE: Final = 0.7  # of all requests to the destination are of that one shape
LEAST_BITS: Final = 2.9  # entropy of the tail's own characters: twelve of eight different ones have so much
ASSETS: Final = frozenset(
    ("js", "mjs", "css", "map", "png", "jpg", "jpeg", "gif", "webp", "avif", "svg", "ico", "woff", "woff2", "ttf",
     "mp4", "webm", "ts", "m4s", "m3u8", "mpd", "mp3", "json", "wasm", "zip", "gz", "xz", "deb", "rpm", "cab", "msu",
     "crl", "crt", "pdf", "html", "htm")
)  # fmt: skip


class Tail(NamedTuple):
    """A request target cut in two: `shape` is what stays, with {} where the opaque `text` was."""

    shape: str
    text: str


def split_tail(target: str) -> Tail | None:
    """The opaque tail of a request target (path and query): the value of the last parameter, a query without names, or
    the last segment of the path when it is no file with a type. None when the tail is no opaque string."""
    target = target[:LONGEST]
    path, mark, query = target.partition("?")
    if mark and query:
        head, amp, last = query.rpartition("&")
        name, equals, value = last.partition("=")
        if not equals:
            name, value = "", last
        if not is_opaque(value):
            return None
        names = "&".join(part.partition("=")[0] for part in head.split("&")) if amp else ""
        return Tail(f"{path}?{names}{amp}{name}{equals}{{}}", value)
    folder, slash, file = path.rpartition("/")
    stem, dot, kind = file.rpartition(".")
    if dot and kind.lower() in ASSETS:
        return None
    text = stem if dot and len(kind) <= 5 else file
    if not is_opaque(text) or is_ocsp(text):
        return None
    rest = f".{kind}" if dot and len(kind) <= 5 else ""
    return Tail(f"{folder}{slash}{{}}{rest}", text)


def is_opaque(text: str) -> bool:
    """Whether a string is of one piece and tells a reader nothing: long enough, mixed, no words, no number."""
    if len(text) < LEAST_TAIL:
        return False
    plain = text.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=").rstrip("=")
    letters = digits = 0
    for one in plain:
        if one.isdigit():
            digits += 1
        elif one.isalpha() and one.isascii():
            letters += 1
        elif one not in "-_+/%.~":
            return False
    if letters < 4 or entropy_bits(plain) < LEAST_BITS:
        return False  # a number, a date, a run of one letter
    return surprise(plain.lower()) >= STRANGE_BITS or (digits >= len(plain) // 5 and _is_hex(plain))


def _is_hex(text: str) -> bool:
    return all(one in "0123456789abcdefABCDEF-" for one in text)


def is_ocsp(text: str) -> bool:
    """Whether a string is a DER SEQUENCE in base64 of exactly its length, as an OCSP request over GET is."""
    if not text.startswith(("MD", "ME", "MF", "MG", "MH", "MI")):
        return False
    plain = text.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
    try:
        octets = b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (Error, ValueError):
        return False
    if len(octets) < 2 or octets[0] != 0x30:
        return False
    if octets[1] < 0x80:
        return len(octets) == 2 + octets[1]
    return octets[1] == 0x81 and len(octets) > 2 and len(octets) == 3 + octets[2]


@mypyc_attr(acyclic=True)
class Requests:
    """GETs of one client to one destination."""

    __slots__ = ("first_us", "gets", "last_visit", "opaque", "shapes", "tails", "visits")

    def __init__(self, ts_us: int) -> None:
        self.first_us = ts_us
        self.gets = 0  # all of them
        self.opaque = 0  # with an opaque tail
        self.visits = 0  # in which there was such a one
        self.last_visit = 0
        self.tails = 0  # sketch of different tails
        self.shapes = array("I")  # CRC of a shape, how many of it, and so on: a dictionary would take thrice as much

    def take(self, method: str, target: str, visit: int) -> bool:
        """Take a request of visit number `visit`; True when its tail is the first opaque one of the visit."""
        self.gets += 1
        tail = split_tail(target) if method == "GET" else None
        if tail is None:
            return False
        self.opaque += 1
        shape = crc32(tail.shape.encode("utf-8", "replace"))
        self._count(shape)
        self.tails |= 1 << crc32(tail.text.encode("utf-8", "replace")) % MARKS
        if visit == self.last_visit:
            return False
        self.last_visit = visit
        self.visits += 1
        return True

    def _count(self, shape: int) -> None:
        shapes = self.shapes
        for at in range(0, len(shapes), 2):
            if shapes[at] == shape:
                shapes[at + 1] = min(shapes[at + 1] + 1, MOST_COUNTED)
                return
        if len(shapes) < 2 * MAX_SHAPES:
            self.shapes = array("I", (*shapes, shape, 1))  # without room for more, which few need

    def score(self) -> int:
        """How sure it is that these are reports of a backdoor, by themselves."""
        if self.visits < LEAST_VISITS:
            return 0
        main = max(self.shapes[1::2])
        if main < MAIN_SHARE * self.gets or main > PER_VISIT * self.visits:
            return 0
        if marks(self.tails) < 0.7 * min(self.opaque, MARKS):
            return 0  # the same string again: a token
        return min(90, 30 + 9 * self.visits)

    def reason(self) -> str:
        """In words."""
        return f"{self.opaque} GETs of one shape, each with another opaque string appended, at {self.visits} times"
