"""Which flows of the kernel's table are those of a host of ours to the outside."""

from __future__ import annotations

from typing import Final

from egressd.intel.networks import NetworkTable
from egressd.wire.direction import is_group, is_private

NOWHERE: Final[NetworkTable[str]] = NetworkTable(())


class Whose:
    """`own` are this machine's addresses, `lan` the networks of the interfaces that face hosts, `segments` those that
    an operator named. Replaced whole, never changed: another thread asks."""

    def __init__(
        self,
        own: frozenset[bytes] = frozenset(),
        lan: NetworkTable[str] = NOWHERE,
        segments: NetworkTable[str] = NOWHERE,
    ) -> None:
        self.own = own
        self.lan = lan
        self.segments = segments

    def leads_out(self, source: bytes, destination: bytes) -> bool:
        """Whether a flow that `source` opened is a host's of ours to somebody who is not. This machine is no host."""
        return self.is_host(source) and not self._is_inside(destination)

    def is_host(self, address: bytes) -> bool:
        """Whether an address is a host's of ours, as far as addresses tell."""
        return address not in self.own and (is_private(address) or self._is_named(address))

    def _is_inside(self, address: bytes) -> bool:
        return is_private(address) or is_group(address) or address in self.own or self._is_named(address)

    def _is_named(self, address: bytes) -> bool:
        return self.lan.longest(address) is not None or self.segments.longest(address) is not None
