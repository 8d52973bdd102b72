"""Puts the segments of one direction of one TCP connection in order (RFC 9293 section 3.4), in bounded memory.

Strategy: bytes are handed on as soon as they are contiguous. Segments that overtook others are held. Where two copies
of the same bytes differ the first one wins, as most receivers do it, and the other copy is offered to the caller,
because an attacker can send a harmless name with a short TTL first and the real one after it: both must be read.

What is compared is the last bytes delivered. Until the other side has answered (`keeps_first`) it is the first ones
instead, in which the name is: whatever else is sent meanwhile does not push them out.
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
MAX_RIVALS: Final = 4  # other copies followed at once: two names in two segments each, mixed in any way
MAX_LAID: Final = 16  # segments laid on one of them
MAX_RIVAL_BYTES: Final = WINDOW_BYTES  # followed no further: a name is whole by then, or it was not in the copy


@mypyc_attr(acyclic=True)
class Rival:
    """What a direction has said if another copy of some of its bytes counts: `other`, where `taken` was delivered.

    Both begin at the same place and grow with what is delivered; `place` is where the copy begins in them, `end_seq`
    the sequence number behind `other`. The rest is the caller's: sizes of `other` when first looked at, looked at last
    and when to look again, and the names it has found.
    """

    __slots__ = ("_laid", "_names", "end_seq", "first_size", "next_size", "other", "place", "seen_size", "taken")

    def __init__(
        self, taken: bytes, other: bytes, place: int, copy_bytes: int = 0, end_seq: int = -1, first: Rival | None = None
    ) -> None:
        """`copy_bytes` of `other`, from `place` on, are of the copy. `first` is followed already: what was found in one
        is no news in the other."""
        self.taken = taken
        self.other = other
        self.place = place
        self.end_seq = end_seq
        self.first_size = 0
        self.next_size = 0
        self.seen_size = 0
        self._names: set[str] = set() if first is None else first._names
        self._laid: list[tuple[int, int]] = [(place, place + copy_bytes)]  # from where to where `other` is of copies

    def lay(self, seq: int, data: bytes) -> bool:
        """Another segment lies in what was delivered, or goes on where this ends: it belongs to this copy, unless the
        copy has bytes of its own in that place. Returns whether it was there already."""
        low = len(self.other) - (((self.end_seq - seq + 0x80000000) & 0xFFFFFFFF) - 0x80000000)
        high = low + len(data)
        if low < 0 or low > len(self.other) or len(self._laid) > MAX_LAID:
            return False
        for first, last in self._laid:
            start, stop = max(first, low), min(last, high)
            if start < stop and self.other[start:stop] != data[start - low : stop - low]:
                return False
            if first <= low and high <= last:
                return True
        other = self.other[:low] + data + self.other[high:]
        if other != self.other:
            self.end_seq = (self.end_seq + len(other) - len(self.other)) & 0xFFFFFFFF
            self.other = other
            self.next_size = 0
        self._laid.append((low, high))
        return False

    def begin_at(self, start: int) -> None:
        """Leave out the first bytes."""
        self.other = self.other[start:]
        self.taken = self.taken[start:]
        self._laid = [(max(0, first - start), max(0, last - start)) for first, last in self._laid]

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
    `strayed` says that the last segment lay outside any plausible window. `keeps_first` is the caller's to set.
    """

    __slots__ = (
        "disagreed",
        "held",
        "held_bytes",
        "keeps_first",
        "next_seq",
        "rivals",
        "strayed",
        "window",
        "window_gap",
    )

    def __init__(self, next_seq: int) -> None:
        self.next_seq = next_seq
        self.held: list[tuple[int, bytes]] = _NOTHING_HELD  # in order of arrival
        self.held_bytes = 0
        self.keeps_first = False
        self.window = b""  # delivered bytes to compare with
        self.window_gap = 0  # how many bytes its end lies before `next_seq`
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
            self._forget_window()
        return max(lost, 0)

    def lose_place(self) -> None:
        """Bytes were sent but not captured (a short snapshot length): take what comes next as it comes."""
        self.next_seq = -1
        self._forget_window()

    def let_go(self) -> None:
        """Nothing of this direction is of interest any more: keep no bytes."""
        self.held = _NOTHING_HELD
        self.held_bytes = 0
        self._forget_window()

    def answered(self) -> None:
        """The other side has sent something: the first bytes were taken, or others in their place."""
        self.keeps_first = False
        if self.window_gap:
            self._forget_window()

    def await_answer(self) -> None:
        """What comes next is to be answered anew."""
        self._forget_window()
        self.keeps_first = True

    def _forget_window(self) -> None:
        self.window = b""
        self.window_gap = 0
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
        if self.rivals:
            self._go_on(data)
        self.next_seq = (self.next_seq + size) & 0xFFFFFFFF
        window = self.window
        if self.window_gap:
            self.window_gap += size
        elif len(window) + size <= WINDOW_BYTES:
            self.window = window + data if window else data
        elif self.keeps_first:
            room = WINDOW_BYTES - len(window)
            self.window = window + data[:room]
            self.window_gap = size - room
        else:  # begin anew with this segment: a message may begin there, it seldom does at any other place
            self.window = data[-WINDOW_BYTES:]

    def _go_on(self, data: bytes) -> None:
        """What is delivered now belongs to the copies that end here, too."""
        for rival in self.rivals:
            if rival.end_seq == self.next_seq and (len(rival.other) <= MAX_RIVAL_BYTES or not self.keeps_first):
                rival.taken += data
                rival.other += data
                rival.end_seq = (rival.end_seq + len(data)) & 0xFFFFFFFF

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
        seq = (self.next_seq - overlap) & 0xFFFFFFFF
        old = data[:overlap]
        known = False
        for rival in self.rivals:
            known |= rival.lay(seq, old)
        place = self.window_gap + len(window) - overlap  # of `data` in the window
        start = max(0, -place)  # bytes older than the window cannot be compared
        place = max(0, place)
        again = data[start : max(start, overlap - self.window_gap)]
        if again and again != window[place : place + len(again)]:
            self.disagreed += 1
            if len(self.rivals) < MAX_RIVALS and not known:
                # What lies before the window speaks for itself: a whole message sent again.
                before = b"" if start else window[:place]
                rest = window[place + len(again) :]
                if not self.rivals:
                    self.rivals = []
                end_seq = (seq + len(old) + len(rest)) & 0xFFFFFFFF
                first = self.rivals[0] if self.rivals else None
                self.rivals.append(Rival(window, before + old + rest, len(before), len(old), end_seq, first))
        return data[overlap:]
