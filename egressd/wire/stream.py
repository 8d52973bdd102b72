"""Puts the segments of one direction of one TCP connection in order (RFC 9293 section 3.4), in bounded memory.

Strategy: bytes are handed on as soon as they are contiguous. Segments that overtook others are held. Where two copies
of the same bytes differ the first one wins, as most receivers do it, and the other copy is offered to the caller,
because an attacker can send a harmless name with a short TTL first and the real one after it: both must be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressd.native import mypyc_attr

if TYPE_CHECKING:  # four bytes to mypyc instead of eight, and nothing at run time
    from mypy_extensions import i32

MAX_HELD_BYTES: Final = 65_536  # one direction's out-of-order bytes: a full receive window of the common default
MAX_HELD_SEGMENTS: Final = 64
# Delivered bytes kept to compare retransmissions with. A ClientHello of today is 2 KB, an HTTP head seldom over 4 KB.
WINDOW_BYTES: Final = 4_096
# A segment further than this from what is expected belongs to no plausible window (RFC 7323 allows 1 GB, nobody uses it
# before the first request); it is an attack, or the connection was replaced.
MAX_JUMP: Final = 4 << 20
MAX_RIVALS: Final = 2  # other copies followed at once: two names are an attack, more are the same one
MAX_RIVAL_BYTES: Final = WINDOW_BYTES  # followed no further: a name is whole by then, or it was not in the copy


@mypyc_attr(acyclic=True)
class Rival:
    """What a direction has said if another copy of some of its bytes counts: `other`, where `taken` was delivered.

    Both begin at the same place and grow with what is delivered; `place` is where the copy begins in them. The rest is
    the caller's: sizes of `other` when first looked at and when to look again, and the names it has found.
    """

    __slots__ = ("_names", "first_size", "next_size", "other", "place", "taken")

    def __init__(self, taken: bytes, other: bytes, place: int) -> None:
        self.taken = taken
        self.other = other
        self.place = place
        self.first_size = 0
        self.next_size = 0
        self._names: set[str] = set()

    def is_news(self, name: str, limit: int) -> bool:
        """Whether `name` has not been found before, and is one of the first `limit`."""
        if name in self._names or len(self._names) >= limit:
            return False
        self._names.add(name)
        return True


# What most directions hold, one for all: nothing is ever put into these two, a list of its own takes their place.
_NOTHING_HELD: Final[list[tuple[int, bytes]]] = []
_NO_RIVALS: Final[list[Rival]] = []


@mypyc_attr(acyclic=True)
class Stream:
    """One direction of a connection. `next_seq` is the sequence number expected next, -1 until known.

    `rivals` are the copies that disagreed with what was delivered; the caller takes out those it is done with.
    `strayed` says that the last segment lay outside any plausible window.
    """

    __slots__ = ("disagreed", "held", "held_bytes", "next_seq", "rivals", "strayed", "window")

    def __init__(self, next_seq: int) -> None:
        self.next_seq = next_seq
        self.held: list[tuple[int, bytes]] = _NOTHING_HELD  # in order of arrival
        self.held_bytes = 0
        self.window = b""  # the last delivered bytes, ending just before `next_seq`
        self.rivals: list[Rival] = _NO_RIVALS
        self.disagreed: i32 = 0  # segments with another copy of bytes that were delivered
        self.strayed = False

    def add(self, seq: int, data: bytes) -> bytes:
        """Take a segment; return the bytes that are now contiguous, or b"" when there are none."""
        self.strayed = False
        if self.next_seq < 0:
            self.next_seq = seq
        offset = ((seq - self.next_seq + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        if offset:
            if offset > MAX_JUMP or offset < -MAX_JUMP:
                self.strayed = True
                return b""
            if offset > 0:
                self._hold(seq, data)
                return b""
            data = self._past_overlap(-offset, data)
            if not data:
                return b""
        self._deliver(data)
        return data + b"".join(self.drain()) if self.held else data

    def drain(self) -> list[bytes]:
        """The held bytes that have become contiguous, segment by segment."""
        parts: list[bytes] = []
        self.held.sort(key=self._distance)
        taken = 0
        for seq, data in self.held:
            offset = ((seq - self.next_seq + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            if offset > 0:
                break
            taken += 1
            self.held_bytes -= len(data)
            fresh = self._past_overlap(-offset, data) if offset < 0 else data
            if fresh:
                self._deliver(fresh)
                parts.append(fresh)
        del self.held[:taken]
        return parts

    def over_bound(self) -> bool:
        """More is held than the bound allows: the hole must be given up."""
        return self.held_bytes > MAX_HELD_BYTES or len(self.held) > MAX_HELD_SEGMENTS

    def skip_hole(self) -> int:
        """Give up the missing bytes before the first held segment; return how many there were (0: nothing is held)."""
        if not self.held:
            return 0
        self.held.sort(key=self._distance)
        lost = self._distance(self.held[0])
        if lost > 0:
            self.next_seq = self.held[0][0]
            self.window = b""
            self.rivals = _NO_RIVALS
        return max(lost, 0)

    def lose_place(self) -> None:
        """Bytes were sent but not captured (a short snapshot length): take what comes next as it comes."""
        self.next_seq = -1
        self.window = b""
        self.rivals = _NO_RIVALS

    def let_go(self) -> None:
        """Nothing of this direction is of interest any more: keep no bytes."""
        self.held = _NOTHING_HELD
        self.held_bytes = 0
        self.window = b""
        self.rivals = _NO_RIVALS

    def overtaken_by(self, seq: int, data: bytes) -> bool:
        """Whether this segment lies just before what was delivered first (a capture that begins with a late one)."""
        return (
            bool(self.window)
            and (seq + len(data)) & 0xFFFFFFFF == (self.next_seq - len(self.window)) & 0xFFFFFFFF
            and len(data) + len(self.window) <= WINDOW_BYTES
        )

    def _distance(self, held: tuple[int, bytes]) -> int:
        return ((held[0] - self.next_seq + 0x80000000) & 0xFFFFFFFF) - 0x80000000

    def _deliver(self, data: bytes) -> None:
        size = len(data)
        self.next_seq = (self.next_seq + size) & 0xFFFFFFFF
        window = self.window
        if len(window) + size <= WINDOW_BYTES:
            self.window = window + data if window else data
        else:  # begin anew with this segment: a message may begin there, it seldom does at any other place
            self.window = data[-WINDOW_BYTES:]
        for rival in self.rivals:
            rival.taken += data
            rival.other += data

    def _hold(self, seq: int, data: bytes) -> None:
        """Keep a segment, unless it was sent before; copies that differ are both kept, and compared in time."""
        for other_seq, other in self.held:
            if other_seq == seq and other.startswith(data):
                return
        if not self.held:
            self.held = []
        self.held.append((seq, data))
        self.held_bytes += len(data)

    def _past_overlap(self, overlap: int, data: bytes) -> bytes:
        """The part of `data` beyond its first `overlap` bytes, which were delivered before; notes a disagreement."""
        window = self.window
        known = min(overlap, len(window))
        start = overlap - known  # bytes older than the window cannot be compared
        again = data[start:overlap]
        place = len(window) - known
        if again and again != window[place : place + len(again)]:
            self.disagreed += 1
            if len(self.rivals) < MAX_RIVALS:
                # What lies before the window speaks for itself: a whole message sent again.
                before = b"" if start else window[:place]
                other = before + data[:overlap] + window[place + len(again) :]
                if not self.rivals:
                    self.rivals = []
                self.rivals.append(Rival(window, other, len(before)))
        return data[overlap:]
