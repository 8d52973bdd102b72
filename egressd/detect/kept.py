"""What a new block must leave alone: what operators never block, or allow, inside what the block would cover."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from egressd.intel.allowances import ALLOW_DESTINATION, NEVER_BLOCK, Allowance, Allowances
from egressd.intel.networks import NetworkTable, carried_ipv4, first_address, last_address, parse_network
from egressd.model import Target


class Kept:
    """The allowances that stand in the way of a block, by what they lie under. Immutable."""

    def __init__(self, allowances: Allowances) -> None:
        self._allowances = allowances
        self._under: dict[str, list[Allowance]] = {}
        self._networks: list[Allowance] = []  # in the order of their lines; below by their numbers
        self._starts: list[tuple[bytes, int]] = []
        numbers: dict[tuple[bytes, int], list[int]] = {}
        self._for_some: list[tuple[bytes, Allowance]] = []
        for one in allowances.allowances:
            if one.client and one.kind == ALLOW_DESTINATION:
                client = parse_network(one.client)
                if client is not None:
                    self._for_some.append((first_address(*client), one))
                continue
            if one.kind not in (ALLOW_DESTINATION, NEVER_BLOCK):
                continue
            network = parse_network(one.value)
            if network is not None:
                start = first_address(*network)
                numbers.setdefault((start, network[1]), []).append(len(self._networks))
                self._starts.append((start, len(self._networks)))
                self._networks.append(one)
                continue
            name = one.value if one.kind == NEVER_BLOCK else ""  # what is allowed by name is passed by name
            while name:
                self._under.setdefault(name, []).append(one)
                name = name.partition(".")[2]
        self._starts.sort()
        self._table: NetworkTable[list[int]] = NetworkTable(
            (start, length, found) for (start, length), found in numbers.items()
        )

    def inside(self, target: Target, now_s: int) -> Allowance | None:
        """The allowance for something that a block of `target` would cover, if any."""
        if target.kind in ("registered_domain", "host"):
            for one in self._under.get(target.value, ()):
                if _in_force(one, now_s):
                    return one
        network = parse_network(target.value) if target.kind in ("address", "network") else None
        if network is None:
            return None
        carried = [(one.first, one.length) for one in carried_ipv4(*network, self._allowances.nat64)]
        for addr, length in (network, *carried):
            for number in self._sharing(addr, length):
                if _in_force(self._networks[number], now_s):
                    return self._networks[number]
        return None

    def _sharing(self, addr: bytes, length: int) -> list[int]:
        """Which allowances share an address with a network: those that hold its first one, and those that begin in it.
        Blocks and allowances may be thousands, and each of the one is asked about all of the other."""
        start, end = first_address(addr, length), last_address(addr, length)
        found = [number for numbers in self._table.covering(start) for number in numbers]
        begins = self._starts[
            bisect_left(self._starts, (start, 0)) : bisect_right(self._starts, (end, len(self._networks)))
        ]
        found += [number for other, number in begins if len(other) == len(addr)]
        return sorted(set(found))

    def for_some(self, name: str, address: bytes, now_s: int) -> Allowance | None:
        """An allowance that lets some client, but not every one, go to `address`: a block for everybody would stop that
        client too."""
        for client, one in self._for_some:
            if _in_force(one, now_s):
                found = self._allowances.allows(name, address, client, now_s)
                if found is not None and found.client:
                    return found
        return None


def _in_force(allowance: Allowance, now_s: int) -> bool:
    return not allowance.expires_s or now_s < allowance.expires_s


def tell(allowance: Allowance) -> str:
    """An allowance in a reason: what it says, where and why."""
    return f"{allowance.kind} {allowance.value} ({allowance.source}:{allowance.line}: {allowance.reason})"
