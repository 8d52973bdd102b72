"""Networks inside networks. An interval set of the kernel's holds no two that overlap, so of nested ones only the
outermost stands there; the others are remembered, and take its place when it goes."""

from __future__ import annotations

from collections.abc import Iterable

from egressd.intel.networks import first_address

Network = tuple[bytes, int]


def outermost(networks: Iterable[Network]) -> dict[Network, Network]:
    """Each network, and the widest of them that covers it: itself where none does."""
    covers: dict[Network, Network] = {}
    widest: dict[int, Network | None] = {4: None, 16: None}
    for network in sorted(networks, key=lambda network: (len(network[0]), network[0], network[1])):
        addr, length = network
        outer = widest[len(addr)]
        if outer is None or outer[1] > length or first_address(addr, outer[1]) != outer[0]:
            outer = widest[len(addr)] = network
        covers[network] = outer
    return covers
