"""Which machines were known before a block was made.

Whoever can send under others' MACs passes for as many machines as he likes, but none of them was there before he began.
So where many machines together speak against a block (budgets.why_rolled_back), those that nobody knew before it count
only as far as there are as many beside them that somebody did.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from egressd.units import DAY_US
from egressd.wire.table import RecentTable

MAX_KNOWN: Final = 65_536
# Before that much is known of who is here, everybody counts: on Monday the hosts of an office are seen for the first
# time since Friday.
ACQUAINTED_US: Final = 7 * DAY_US
BEFORE: Final = 0  # met at some time before the start
_MAC_BYTES: Final = 6


class Acquaintances:
    """When each MAC and each address (IPv6: its /64, for addresses come and go) was met first. Bounded; who was not met
    for longest is forgotten."""

    def __init__(self, since_us: int = 0) -> None:
        """`since_us` is when somebody began to look, 0: with whom is met first."""
        self.macs_since_us = since_us
        self._remembered_since_us = 0
        self._first_us: RecentTable[bytes, int] = RecentTable(MAX_KNOWN)

    def met(self, address: bytes, ts_us: int, mac: bytes = b"") -> None:
        """A host with this address was there, and sent under `mac` where that is known."""
        if not self.macs_since_us:
            self.macs_since_us = ts_us
        self._met(_place_of(address), ts_us)
        if mac:
            self._met(mac, ts_us)

    def remember(self, addresses: Iterable[bytes], since_us: int) -> None:
        """These were there before the start; what is known of addresses begins with `since_us`."""
        self._remembered_since_us = since_us
        for address in addresses:
            self._met(_place_of(address), BEFORE)

    @property
    def addresses_since_us(self) -> int:
        """Since when anything is known of addresses, 0: nothing is."""
        return min(self.macs_since_us, self._remembered_since_us or self.macs_since_us)

    def shift(self, delta_us: int) -> None:
        """The clock was set."""
        self.macs_since_us += delta_us
        for key, first_us in self._first_us.items():
            if first_us != BEFORE:
                self._first_us.put(key, first_us + delta_us)

    def knew(self, machine: bytes, address: bytes, ts_us: int) -> bool:
        """Whether a machine (its MAC, or else its address: Devices.machine_of) was there before `ts_us`; also when too
        little was known then to say. Any MAC may send under an address that somebody had, so the MAC decides."""
        is_mac = len(machine) == _MAC_BYTES
        if is_mac and self.macs_since_us and ts_us - self.macs_since_us >= ACQUAINTED_US:
            first_us = self._first_us.peek(machine)
        elif self.addresses_since_us and ts_us - self.addresses_since_us >= ACQUAINTED_US:
            first_us = self._first_us.peek(_place_of(address))
        else:
            return True
        return first_us is not None and first_us < ts_us

    def _met(self, key: bytes, ts_us: int) -> None:
        first_us = self._first_us.get(key)
        if first_us is None or ts_us < first_us:
            self._first_us.put(key, ts_us)


class Crowd:
    """Machines that ran into a block."""

    __slots__ = ("known", "new")

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.new: set[bytes] = set()  # nobody knew them before the block

    def __len__(self) -> int:
        return len(self.known) + len(self.new)

    def __contains__(self, machine: object) -> bool:
        return machine in self.known or machine in self.new

    def add(self, machine: bytes, is_known: bool) -> None:
        """One more."""
        (self.known if is_known else self.new).add(machine)

    def clear(self) -> None:
        """Nobody is counted any more."""
        self.known.clear()
        self.new.clear()

    @property
    def weight(self) -> int:
        """How many machines speak against the block."""
        return len(self.known) + min(len(self.new), len(self.known))


def _place_of(address: bytes) -> bytes:
    return address[:8] if len(address) == 16 else address
