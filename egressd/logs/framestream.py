"""Frame Streams, in which dnstap comes, from a file or over a socket (farsightsec.github.io/fstrm).

    data frame     length (4 bytes, big endian, not 0), payload
    control frame  0 (4 bytes), length (4 bytes, at most 512), type (4 bytes), fields: type, length, value

In a file, and from a writer that talks only one way, START comes first. A writer that listens sends READY, waits for
ACCEPT, and after STOP for FINISH.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from egressd.errors import Malformed

ACCEPT: Final = 1
START: Final = 2
STOP: Final = 3
READY: Final = 4
FINISH: Final = 5
DATA: Final = 0
CONTENT_TYPE: Final = 1
DNSTAP: Final = b"protobuf:dnstap.Dnstap"
MAX_CONTROL: Final = 512  # fstrm/control.h: FSTRM_CONTROL_FRAME_LENGTH_MAX
MAX_DATA: Final = 262_144  # two messages of DNS of the greatest length, and some words around them

_WORD: Final = Struct(">I")


class Frame(NamedTuple):
    """A frame: `kind` is DATA or a control frame's type. `content_types` are those that READY, ACCEPT or START name."""

    kind: int
    payload: bytes
    content_types: tuple[bytes, ...] = ()


class FrameStream:
    """Cuts a stream of bytes into frames, in whatever pieces it comes. `consumed` counts the bytes of whole frames."""

    def __init__(self) -> None:
        self.consumed = 0
        self._held = bytearray()

    def feed(self, octets: bytes) -> list[Frame]:
        """The frames that are complete now. Raises Malformed when the stream is none, or not any more."""
        self._held += octets
        frames: list[Frame] = []
        at = 0
        while True:
            end, frame = self._next(at)
            if frame is None:
                break
            frames.append(frame)
            at = end
        self.consumed += at
        del self._held[:at]
        return frames

    def _next(self, at: int) -> tuple[int, Frame | None]:
        held = self._held
        if len(held) < at + 4:
            return at, None
        (length,) = _WORD.unpack_from(held, at)
        if length:
            if length > MAX_DATA:
                raise Malformed("a data frame is too long")
            end = at + 4 + length
            return end, Frame(DATA, bytes(held[at + 4 : end])) if len(held) >= end else None
        if len(held) < at + 8:
            return at, None
        (length,) = _WORD.unpack_from(held, at + 4)
        if not 4 <= length <= MAX_CONTROL:
            raise Malformed("a control frame of an impossible length")
        end = at + 8 + length
        if len(held) < end:
            return at, None
        return end, parse_control(bytes(held[at + 8 : end]))


def parse_control(body: bytes) -> Frame:
    """A control frame's type and content types. Raises Malformed."""
    (kind,) = _WORD.unpack_from(body, 0)
    if not ACCEPT <= kind <= FINISH:
        raise Malformed("a control frame of an unknown type")
    found: list[bytes] = []
    at = 4
    while at < len(body):
        if at + 8 > len(body):
            raise Malformed("a control field is cut")
        field, length = _WORD.unpack_from(body, at)[0], _WORD.unpack_from(body, at + 4)[0]
        if at + 8 + length > len(body):
            raise Malformed("a control field is cut")
        if field == CONTENT_TYPE:
            found.append(body[at + 8 : at + 8 + length])
        at += 8 + length
    return Frame(kind, b"", tuple(found))


def render_control(kind: int, content_type: bytes = b"") -> bytes:
    """A control frame."""
    body = _WORD.pack(kind)
    if content_type:
        body += _WORD.pack(CONTENT_TYPE) + _WORD.pack(len(content_type)) + content_type
    return _WORD.pack(0) + _WORD.pack(len(body)) + body
