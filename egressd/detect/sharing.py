"""Whom a block of an address would cut off: what is shared, in words, and what a block must let go of for it.

An address is shared when it lies in a shared range, or when several registered domains that no list names were seen on
it. There the name is blocked and the address is not, neither for everybody nor for one client, who would lose every
innocent site on it; only a person blocks such an address, by a command or by a line with force=yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from egressd.detect.blocks import Block
from egressd.intel.networks import NAT64_WELL_KNOWN, carried_ipv4, parse_network, render_address, render_network
from egressd.intel.shared_ranges import SharedRanges
from egressd.model import Indicator, Target

WIDEST_IPV4: Final = 16  # prefix lengths of the widest networks that are blocked because a list names them
WIDEST_IPV6: Final = 32  # what a registry gives to one provider
BY_COMMAND: Final = "operator"  # the source of lines that people add by commands
BY_LINE: Final = "the line "  # how intel says that a person decided on this very line
BY_NAME_ONLY: Final = "blocked by name, not by address"
NOT_BY_ADDRESS: Final = "not blocked by address"
BY_NAME_AND_HOST: Final = "blocked by name and for the hosts that named it, not by address"


def shared_with(others: Sequence[str]) -> str:
    """Who else lives on an address, in words that stay short however many they are."""
    if len(others) <= 2:
        return "shared with " + " and ".join(others)
    return f"shared with {len(others)} other registered domains, among them {others[0]}"


def why_shared(ranges: SharedRanges, address: bytes, others: Sequence[str], shared_after: int) -> str:
    """Why a block of `address` would cut off innocent sites, "" when it would not; `others` are the co-tenants."""
    why = ranges.why(address)
    return shared_with(others) if not why and len(others) >= shared_after else why


def chose_address(indicator: Indicator) -> bool:
    """Whether a person decided on this very address or network."""
    return indicator.source == BY_COMMAND or indicator.narrowed.startswith(BY_LINE)


def is_persons(block: Block) -> bool:
    """Whether the block of a listed address or network is for a person to end, who was asked or decided on it."""
    return block.asked or chose_address(block.match.indicator)


def why_too_wide(addr: bytes, length: int, nat64: tuple[tuple[bytes, int], ...] = (NAT64_WELL_KNOWN,)) -> str:
    """Why a listed network is not blocked without a person, "" when it may be: a slip in its length would cut off whole
    providers. One of IPv6 is as wide as the IPv4 network that it carries."""
    for inner in carried_ipv4(addr, length, nat64):
        why = why_too_wide(inner.first, inner.length)
        if why:
            return why
    if length >= (WIDEST_IPV4 if len(addr) == 4 else WIDEST_IPV6):
        return ""
    if len(addr) == 4:
        return f"{render_network(addr, length)} holds {1 << (32 - length):,} addresses; a person must decide"
    return f"{render_network(addr, length)} holds a provider's worth of addresses; a person must decide"


def leave_to_person(why: str) -> str:
    """The reason why a listed address that is shared is not blocked."""
    return f"{NOT_BY_ADDRESS}: {why}; a person must decide"


def without_lead(reason: str) -> str:
    """A reason of this module where it is said already that no address is blocked."""
    return reason.removeprefix(f"{BY_NAME_ONLY}: ").removeprefix(f"{NOT_BY_ADDRESS}: ")


def listed_in_range(ranges: SharedRanges, block: Block) -> str:
    """Why the block of a listed address or network ends for a shared range, "" when it stands."""
    is_listed = block.target.kind in ("address", "network") or (block.target.kind == "pair" and bool(block.sole))
    network = parse_network(block.target.value.rpartition(">")[2]) if is_listed else None
    if network is None or is_persons(block):
        return ""
    return ranges.why_network(*network)


def listed_too_wide(block: Block, nat64: tuple[tuple[bytes, int], ...]) -> str:
    """Why the block of a listed network ends for its width, "" when it stands: a line may have lost its force=yes."""
    network = parse_network(block.target.value) if block.target.kind == "network" else None
    return why_too_wide(*network, nat64) if network is not None and not is_persons(block) else ""


def held_in_ranges(ranges: SharedRanges, block: Block) -> dict[str, list[tuple[bytes, bytes]]]:
    """What the block of a name covers in shared ranges: (client, address) by the reason; b"" is every client."""
    found: dict[str, list[tuple[bytes, bytes]]] = {}
    if block.target.kind in ("address", "network", "pair"):
        return found
    for client, address in [*((b"", address) for address in block.addresses), *block.pairs]:
        why = ranges.why(address)
        if why:
            found.setdefault(why, []).append((client, address))
    return found


def target_of(client: bytes, address: bytes) -> Target:
    """The way of `client` to `address`; of every client when that is b""."""
    if not client:
        return Target("address", render_address(address))
    return Target("pair", f"{render_address(client)}>{render_address(address)}")
