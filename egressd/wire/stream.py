"""Puts the segments of one direction of one TCP connection in order (RFC 9293 section 3.4), in bounded memory.

Strategy: bytes are handed on as soon as they are contiguous. Segments that overtook others are held. Where two copies
of the same bytes differ the first one wins, as most receivers do it, and the other copy is offered to the caller,
because an attacker can send a harmless name with a short TTL first and the real one after it: both must be read.
"""

from __future__ import annotations

from typing import Final

MAX_HELD_BYTES: Final = 65_536  # one direction's out-of-order bytes: a full receive window of the common default
MAX_HELD_SEGMENTS: Final = 64
# Delivered bytes kept to compare retransmissions with. A ClientHello of today is 2 KB, an HTTP head seldom over 4 KB.
WINDOW_BYTES: Final = 4_096
# A segment further than this from what is expected belongs to no plausible window (RFC 7323 allows 1 GB, nobody uses it
# before the first request); it is an attack, or the connection was replaced.
MAX_JUMP: Final = 4 << 20


class Stream:
    """One direction of a connection. `next_seq` is the sequence number expected next, -1 until known."""

    __slots__ = ("conflict", "held", "held_bytes", "next_seq", "outside", "window")

    def __init__(self, next_seq: int) -> None:
        self.next_seq = next_seq
        self.held: dict[int, bytes] = {}
        self.held_bytes = 0
        self.window = b""  # the last delivered bytes, ending just before `next_seq`
        self.conflict = b""  # the other copy, when the last segment disagreed with bytes seen before; else empty
        self.outside = 0  # segments outside any plausible window

    def add(self, seq: int, data: bytes) -> bytes:
        """Take a segment; return the bytes that are now contiguous, or b"" when there are none."""
        self.conflict = b""
        if self.next_seq < 0:
            self.next_seq = seq
        offset = ((seq - self.next_seq + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        if offset == 0:
            if not self.held:
                return self._deliver(data)
        elif offset > 0:
            self._hold(seq, offset, data)
            return b""
        else:
            if offset < -MAX_JUMP:
                self.outside += 1
                return b""
            fresh = self._past_overlap(-offset, data)
            if not fresh:
                return b""
            data = fresh
        ready = self._deliver(data)
        return ready + b"".join(self.drain()) if self.held else ready

    def drain(self) -> list[bytes]:
        """The held bytes that have become contiguous, segment by segment."""
        parts: list[bytes] = []
        for seq in sorted(self.held, key=self._distance):
            offset = self._distance(seq)
            if offset > 0:
                break
            data = self.held.pop(seq)
            self.held_bytes -= len(data)
            if offset < 0:
                data = self._past_overlap(-offset, data)
            if data:
                parts.append(self._deliver(data))
        return parts

    def over_bound(self) -> bool:
        """More is held than the bound allows: the hole must be given up."""
        return self.held_bytes > MAX_HELD_BYTES or len(self.held) > MAX_HELD_SEGMENTS

    def skip_hole(self) -> int:
        """Give up the missing bytes before the first held segment; return how many there were (0: nothing is held)."""
        if not self.held:
            return 0
        first = min(self.held, key=self._distance)
        lost = self._distance(first)
        if lost > 0:
            self.next_seq = first
            self.window = b""
        return max(lost, 0)

    def skip_bytes(self, count: int) -> None:
        """Bytes that were sent but not captured (a short snapshot length): expect what follows them."""
        self.next_seq = (self.next_seq + count) & 0xFFFFFFFF
        self.window = b""

    def overtaken_by(self, seq: int, data: bytes) -> bool:
        """Whether this segment lies just before what was delivered first (a capture that begins with a late one)."""
        return (seq + len(data)) & 0xFFFFFFFF == (self.next_seq - len(self.window)) & 0xFFFFFFFF

    def _distance(self, seq: int) -> int:
        return ((seq - self.next_seq + 0x80000000) & 0xFFFFFFFF) - 0x80000000

    def _deliver(self, data: bytes) -> bytes:
        self.next_seq = (self.next_seq + len(data)) & 0xFFFFFFFF
        self.window = data if len(self.window) + len(data) > WINDOW_BYTES else self.window + data
        return data

    def _hold(self, seq: int, offset: int, data: bytes) -> None:
        if offset > MAX_JUMP:
            self.outside += 1
            return
        before = self.held.get(seq)
        if before is not None:
            shared = min(len(before), len(data))
            if before[:shared] != data[:shared]:
                self.conflict = data
            if len(data) <= len(before):
                return
            data = before + data[shared:]
            self.held_bytes -= len(before)
        self.held[seq] = data
        self.held_bytes += len(data)

    def _past_overlap(self, overlap: int, data: bytes) -> bytes:
        """The part of `data` beyond its first `overlap` bytes, which were delivered before; notes a disagreement."""
        window = self.window
        known = min(overlap, len(window))
        start = overlap - known  # bytes older than the window cannot be compared
        again = data[start:overlap]
        if again and again != window[len(window) - known : len(window) - known + len(again)]:
            self.conflict = data
        return data[overlap:]
