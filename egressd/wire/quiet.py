"""Flow-directions from which nothing more can be learned, and until when.

The prefilter reads `until` directly: key as on the wire -> time in microseconds. A key that is thrown out early only
costs a second look, never a result. So the bound is kept by a ring of the keys in the order in which they came: each
new one throws out what its place held, which costs the same for every packet.

Compiled code asks `Recent` first, which holds what the dictionaries said of late. A slice, its hash and the look-up
of a dictionary take it 650 instructions and four or five lines of cache, this takes 200 and two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressd.wire.octets import read_u32

if TYPE_CHECKING:  # a machine integer to mypyc, and nothing at run time
    from mypy_extensions import i64

SLOTS: Final = 8192  # flow-directions that are busy at once, and few of them in one slot; 0.8 MB when all are taken
_KEY4_BYTES: Final = 12
_KEY6_BYTES: Final = 36
_IPV6: Final = 0x80  # beside the protocol, which is 6 or 17


class _Slot:
    """One flow-direction, as numbers, and the time until which it is quiet."""

    __slots__ = ("ports", "source", "source_net", "target", "target_net", "until_us")

    def __init__(self, ports: i64, source: i64, target: i64, source_net: i64, target_net: i64, until_us: i64) -> None:
        self.ports: i64 = ports  # and the protocol
        self.source: i64 = source
        self.target: i64 = target
        self.source_net: i64 = source_net  # the first half of an address of IPv6
        self.target_net: i64 = target_net
        self.until_us: i64 = until_us


_FREE: Final = _Slot(0, 0, 0, 0, 0, 0)


class Recent:
    """What dictionaries of quiet flow-directions said of late. Each key has one slot, which it loses to the next that
    falls on it; then, and of all it does not hold, the dictionary is asked. Who changes what a dictionary says of a key
    it holds has to say `forget`."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: list[_Slot] = [_FREE] * SLOTS

    def is_quiet4(self, buf: bytes, at: i64, proto: i64, ts_us: i64, until: dict[bytes, int]) -> bool:
        """Whether the key of IPv4 at `at` is quiet at a time, as `until`, the dictionary of its protocol, says."""
        source: i64 = read_u32(buf, at)
        target: i64 = read_u32(buf, at + 4)
        ports: i64 = read_u32(buf, at + 8)
        place: i64 = _place(source, target, ports)
        ports = ports << 8 | proto
        slot = self._slots[place]
        if slot.ports == ports and slot.source == source and slot.target == target and slot.until_us > ts_us:
            return True
        until_us: i64 = until.get(buf[at : at + _KEY4_BYTES], 0)
        if until_us <= ts_us:
            return False
        self._slots[place] = _Slot(ports, source, target, 0, 0, until_us)
        return True

    def is_quiet6(self, buf: bytes, at: i64, proto: i64, ts_us: i64, until: dict[bytes, int]) -> bool:
        """The same with a key of IPv6."""
        source_net: i64 = _read_u64(buf, at)
        source: i64 = _read_u64(buf, at + 8)
        target_net: i64 = _read_u64(buf, at + 16)
        target: i64 = _read_u64(buf, at + 24)
        ports: i64 = read_u32(buf, at + 32)
        place: i64 = _place(source, target, ports)
        ports = ports << 8 | _IPV6 | proto
        slot = self._slots[place]
        if (
            slot.ports == ports
            and slot.source == source
            and slot.target == target
            and slot.source_net == source_net
            and slot.target_net == target_net
            and slot.until_us > ts_us
        ):
            return True
        until_us: i64 = until.get(buf[at : at + _KEY6_BYTES], 0)
        if until_us <= ts_us:
            return False
        self._slots[place] = _Slot(ports, source, target, source_net, target_net, until_us)
        return True

    def forget(self, key: bytes) -> None:
        """What is said of a key changes."""
        place: i64
        if len(key) == _KEY4_BYTES:
            place = _place(read_u32(key, 0), read_u32(key, 4), read_u32(key, 8))
        elif len(key) == _KEY6_BYTES:
            place = _place(_read_u64(key, 8), _read_u64(key, 24), read_u32(key, 32))
        else:
            return
        self._slots[place] = _FREE


def _read_u64(buf: bytes, at: i64) -> i64:
    """Eight bytes as a number, which is a negative one in a machine integer when the first bit is set."""
    return read_u32(buf, at) << 32 | read_u32(buf, at + 4)


def _place(source: i64, target: i64, ports: i64) -> i64:
    """Hosts differ in the last bytes of their addresses, conversations of two hosts in the ports."""
    mixed: i64 = source ^ source >> 29 ^ target << 5 ^ target >> 24 ^ ports ^ ports >> 11
    return (mixed ^ mixed >> 13) & (SLOTS - 1)


class Quiet:
    """Bounded map of quiet flow-directions; `until` stays the same object for life because the prefilter holds it."""

    def __init__(self, limit: int, until: dict[bytes, int] | None = None, recent: Recent | None = None) -> None:
        """`until` may be shared with others that hold other keys; `recent` is kept true to it."""
        self.until: dict[bytes, int] = {} if until is None else until
        self._recent = recent
        self._limit = limit
        self._ring: list[bytes] = []
        self._next = 0

    def begin(self, key: bytes, until_us: int) -> None:
        """From now on packets with this key are of no interest, until `until_us`."""
        until = self.until
        if key not in until:
            ring = self._ring
            if len(ring) < self._limit:
                ring.append(key)
            else:
                place = self._next
                self.end(ring[place])
                ring[place] = key
                self._next = place + 1 if place + 1 < self._limit else 0
        elif self._recent is not None:
            self._recent.forget(key)
        until[key] = until_us

    def end(self, key: bytes) -> None:
        """Look again (a new connection uses the same addresses and ports)."""
        if self.until.pop(key, None) is not None and self._recent is not None:
            self._recent.forget(key)
