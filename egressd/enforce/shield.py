"""The adapter's own check of what may be blocked, the second of three: policy asked before it, and
the kernel's first rule asks again after it. An adapter believes nobody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, runtime_checkable

from egressd.enforce.adapter import CLIENT, SEGMENT, Existing
from egressd.enforce.elements import ADDRESS, NETWORK, PAIR, Place, Refused, network_of, pack, place_of
from egressd.intel.networks import NetworkTable, embedded_ipv4, first_address, render_network
from egressd.model import Target

_WIDEST_SEGMENT: Final = 8  # a segment of ours is no eighth of the internet

# No network inside these says which IPv4 addresses it holds: they are written backwards (Teredo, RFC 4380 section 4),
# or never on the wire (IPv4-compatible and -mapped, RFC 4291 section 2.5.5).
_CARRIERS: Final = ((bytes(16), 80), (bytes.fromhex("20010000") + bytes(12), 32))


class Protects(Protocol):
    """What knows the protected set (egressd.intel.protected.Protected)."""

    def why(self, addr: bytes) -> str:
        """Why an address may not be blocked, "" when it may."""

    def why_network(self, addr: bytes, length: int) -> str:
        """Why a network may not be blocked, "" when it may."""


@runtime_checkable
class ProtectingAdapter(Protocol):
    """An adapter that checks the protected set itself."""

    def set_protected(self, networks: Iterable[tuple[bytes, int]], protected: Protects) -> list[Existing]:
        """Protect these networks from now on; returns the blocks that were lifted because of it."""


class Shield:
    """What is protected as a destination, and which machines of ours are spared from isolation."""

    def __init__(self, protected: Protects, spare: Iterable[tuple[bytes, int]] = ()) -> None:
        """`spare` are networks: the gateway's own addresses, resolvers, peers of admin sessions."""
        self.protected = protected
        self._spare = NetworkTable((addr, length, render_network(addr, length)) for addr, length in spare)

    def refusal(self, target: Target) -> str:
        """Why a target is not to be enforced, "" when it may be. Says also what no place of ours can hold."""
        try:
            return self.refusal_at(target, place_of(target))
        except Refused as refused:
            return str(refused)

    def refusal_at(self, target: Target, place: Place) -> str:
        """The same for a target whose place is known."""
        if target.kind == ADDRESS:
            return self._address(place.key)
        if target.kind == PAIR:
            return self._address(place.key[len(place.key) // 2 :])
        if target.kind == NETWORK:
            return self._network(*network_of(target))
        if target.kind == CLIENT:
            spared = self._spare.longest(pack(target.value))
            return f"{spared} is spared from isolation" if spared else ""
        if target.kind == SEGMENT and network_of(target)[1] < _WIDEST_SEGMENT:
            return f"a segment wider than /{_WIDEST_SEGMENT} is not cut"
        return ""

    def _network(self, addr: bytes, length: int) -> str:
        for carrier, bits in _CARRIERS if len(addr) == 16 and length < 128 else ():
            shared = min(bits, length)
            if first_address(addr, shared) == first_address(carrier, shared):
                return f"{render_network(carrier, bits)} carries IPv4 addresses: block those"
        return self.protected.why_network(addr, length)

    def _address(self, addr: bytes) -> str:
        if len(addr) == 16 and addr.startswith(bytes(10)) and embedded_ipv4(addr):
            # Hosts send to these by IPv4 (RFC 4038 section 4.2): the block would stop nothing and look as if it did.
            return "an IPv4 address in IPv6 clothes: block the IPv4 address"
        return self.protected.why(addr)
