"""The CRYPTO stream of a client's Initial packets (RFC 9000 section 19.6), put together from pieces in any order.

A stream holds one ClientHello, and a second behind it when the server asked for it (HelloRetryRequest, RFC 8446 section
4.1.4). The bytes of a hello that was read may come again: as they were, or as others, because whoever sends a harmless
hello that never reaches the server sends the real one after it under the same keys. So all of them are read again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from egressd.wire.quic_keys import InitialKeys, Numbering, Scheme

if TYPE_CHECKING:
    from mypy_extensions import i64

MAX_CRYPTO_BYTES: Final = 16_384  # of a ClientHello; real ones are below 3 KB, and below 20 KB with many tickets
MAX_RUNS: Final = 256  # separate pieces of CRYPTO kept; Chrome and quic-go cut a hello into some dozen

# Frame types that may stand in an Initial packet (RFC 9000 section 12.4), but PADDING and CRYPTO.
_PING: Final = 0x01
_ACK: Final = 0x02
_ACK_ECN: Final = 0x03
_CONNECTION_CLOSE: Final = 0x1C

_PADDING: Final = re.compile(rb"\x00*")  # steps over a run at C speed without copying the rest
_ZEROS: Final = bytes(1500)  # what padding is compared with that goes on to the end, as nearly all does

Runs = list[tuple[int, bytes]]


def varint(buf: bytes, pos: i64, end: i64) -> i64:
    """Variable-length integer (RFC 9000 section 16), -1 when cut. It takes `1 << (buf[pos] >> 6)` bytes."""
    if pos >= end:
        return -1
    first: i64 = buf[pos]
    if first < 0x40:
        return first
    size: i64 = 1 << (first >> 6)
    if pos + size > end:
        return -1
    value = first & 0x3F
    at = pos + 1
    while at < pos + size:
        value = value << 8 | buf[at]
        at += 1
    return value


class KeySpace:
    """The client's Initial keys that follow from one destination connection id, and the CRYPTO stream under them.

    `hello_end` is where the first hello in it ended, 0 until it was read.
    """

    __slots__ = ("_keys", "_numbering", "_rival", "dcid", "hello_end", "runs", "scheme")

    def __init__(self, scheme: Scheme, dcid: bytes, numbering: Numbering) -> None:
        self.scheme: Scheme = scheme
        self.dcid: bytes = dcid
        self.hello_end: int = 0
        self.runs: Runs = []  # of the CRYPTO stream, by offset, neither touching nor overlapping
        self._rival: Runs | None = None  # the same where two copies of some bytes differ, and the later one counts
        self._numbering: Numbering = numbering
        self._keys: InitialKeys | None = None

    def open(self, buf: bytes, start: int, pn_at: int, end: int) -> bytes | None:
        """The payload of a packet; None when the keys do not fit."""
        keys = self._keys
        if keys is None:
            keys = self._keys = InitialKeys(self.scheme, self.dcid, self._numbering)
        return keys.open(buf, start, pn_at, end)

    def let_go(self) -> None:
        """The client has gone on to other keys. What opens its Initials takes 3.5 KB; should one come all the same, it
        is made anew."""
        self._keys = None

    def gather(self, payload: bytes) -> int:
        """Keep the CRYPTO frames of a payload, and return how many there are. Stops at the first frame that has no
        place in an Initial packet."""
        pieces: Runs = []
        crypto_frame: i64 = self.scheme.crypto_frame
        limit: i64 = self.hello_end + MAX_CRYPTO_BYTES
        end: i64 = len(payload)
        pos: i64 = 0
        while pos < end:
            kind: i64 = payload[pos]
            if kind == 0:
                if payload[pos:] == _ZEROS[: end - pos]:
                    break
                match = _PADDING.match(payload, pos)
                pos = match.end() if match is not None else end
            elif kind == _PING:
                pos += 1
            elif kind == crypto_frame:
                offset = varint(payload, pos + 1, end)
                if offset < 0:
                    break
                pos += 1 + (1 << (payload[pos + 1] >> 6))
                length = varint(payload, pos, end)
                if length < 0:
                    break
                pos += 1 << (payload[pos] >> 6)
                if pos + length > end:
                    break
                if length and (offset < MAX_CRYPTO_BYTES or (offset + length > self.hello_end and offset < limit)):
                    pieces.append((offset, payload[pos : pos + min(length, limit - offset)]))
                pos += length
            else:
                pos = _after_frame(payload, pos, end)
        if pieces:
            self._keep(_merge(pieces) if len(pieces) > 1 else pieces)
        return len(pieces)

    def _keep(self, pieces: Runs) -> None:
        """Put pieces, sorted and apart, with what is there: most hellos come in order, a packet or two of them."""
        runs = self.runs
        rival = self._rival
        if rival is None:
            if not runs:
                self.runs = pieces
                return
            at, last = runs[-1]
            if pieces[0][0] >= at + len(last):
                self.runs = _merge(runs + pieces)
                return
        self.runs = _laid(runs, pieces)
        other = _laid(pieces, runs if rival is None else rival)
        self._rival = None if other == self.runs else other

    def kept_bytes(self) -> int:
        """Bytes of CRYPTO kept."""
        size = 0
        for _, run in self.runs:
            size += len(run)
        if self._rival is not None:
            for _, run in self._rival:
                size += len(run)
        return size

    def messages(self) -> list[tuple[bool, int, bytes]]:
        """(whether in the rival copy, place, bytes without a gap) of where messages of the client may begin: the first
        hello, and what follows one that was read."""
        runs = self.runs
        if not self.hello_end and self._rival is None:  # nearly always
            return [(False, 0, runs[0][1])] if runs and not runs[0][0] else []
        found: list[tuple[bool, int, bytes]] = []
        for is_rival in (False, True):
            for at, run in self._of(is_rival):
                behind = self.hello_end - at
                if behind < 0:
                    break
                if at == 0:
                    found.append((is_rival, 0, run))
                if self.hello_end and behind < len(run):
                    found.append((is_rival, self.hello_end, run[behind:]))
        return found

    def settle(self, is_rival: bool, start: int, end: int) -> None:
        """The message between two places was read: let go of it."""
        if start == 0:
            self.hello_end = end
        if not is_rival and len(self.runs) == 1 and self.runs[0][0] + len(self.runs[0][1]) <= end:
            self.runs = []
            return
        kept = [(max(at, end), run[max(0, end - at) :]) for at, run in self._of(is_rival) if at + len(run) > end]
        if not is_rival:
            self.runs = kept
        else:
            self._rival = kept or None

    def _of(self, is_rival: bool) -> Runs:
        return (self._rival or []) if is_rival else self.runs


def _after_frame(payload: bytes, pos: int, end: int) -> int:
    """Where an ACK or CONNECTION_CLOSE frame ends (RFC 9000 sections 19.3, 19.19); `end` if it is neither or is cut."""
    kind = payload[pos]
    if kind in (_ACK, _ACK_ECN):
        fields = 4  # largest, delay, count of ranges, first range
    elif kind == _CONNECTION_CLOSE:
        fields = 3  # error, frame type, length of the reason
    else:
        return end
    pos += 1
    index = 0
    while index < fields:
        value: int = varint(payload, pos, end)  # twice of it is no machine integer
        if value < 0:
            return end
        pos += 1 << (payload[pos] >> 6)
        index += 1
        if kind == _CONNECTION_CLOSE:
            if index == 3:
                pos += value
        elif index == 3:
            fields += 2 * value + (3 if kind == _ACK_ECN else 0)  # cut short by `end` if the count lies
    return min(pos, end)


def _laid(over: Runs, under: Runs) -> Runs:
    """Two sets of runs, each sorted and apart, as one; where both have bytes those of `over` count."""
    runs = list(over)
    first = 0
    for offset, piece in under:
        end = offset + len(piece)
        while first < len(over) and over[first][0] + len(over[first][1]) <= offset:
            first += 1
        reach = offset
        at = first
        while at < len(over) and over[at][0] < end:
            if over[at][0] > reach:
                runs.append((reach, piece[reach - offset : over[at][0] - offset]))
            reach = over[at][0] + len(over[at][1])
            at += 1
        if reach < end:
            runs.append((reach, piece[reach - offset :]))
    return _merge(runs)


def _merge(pieces: Runs) -> Runs:
    """Join pieces that touch or overlap. Sorted first, so the order in which they came makes no difference."""
    pieces = sorted(pieces)
    runs: Runs = []
    at = reach = 0
    parts: list[bytes] = []
    for offset, piece in pieces:
        if offset > reach or not parts:
            if parts:
                runs.append((at, b"".join(parts)))
            at = offset
            parts = [piece]
            reach = offset + len(piece)
        elif offset + len(piece) > reach:
            parts.append(piece[reach - offset :])
            reach = offset + len(piece)
    runs.append((at, b"".join(parts)))
    return runs[:MAX_RUNS] if reach <= MAX_CRYPTO_BYTES else _bounded(runs[:MAX_RUNS])  # the beginning has the name


def _bounded(runs: Runs) -> Runs:
    """As many bytes of runs that lie anywhere as a first hello sent again and the one behind it may have."""
    room = 2 * MAX_CRYPTO_BYTES
    kept: Runs = []
    for at, run in runs:
        if room > 0:
            kept.append((at, run[:room]))
        room -= len(run)
    return kept
