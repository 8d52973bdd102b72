"""What a new block must leave alone: what operators never block, or allow, inside what the block would cover."""

from __future__ import annotations

from egressd.intel.allowances import ALLOW_DESTINATION, NEVER_BLOCK, Allowance, Allowances
from egressd.intel.networks import carried_ipv4, first_address, parse_network
from egressd.model import Target


class Kept:
    """The allowances that stand in the way of a block, by what they lie under. Immutable."""

    def __init__(self, allowances: Allowances) -> None:
        self._allowances = allowances
        self._under: dict[str, list[Allowance]] = {}
        self._networks: list[tuple[bytes, int, Allowance]] = []
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
                self._networks.append((*network, one))
                continue
            name = one.value if one.kind == NEVER_BLOCK else ""  # what is allowed by name is passed by name
            while name:
                self._under.setdefault(name, []).append(one)
                name = name.partition(".")[2]

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
            for other, other_length, one in self._networks:
                common = min(length, other_length)
                if len(other) == len(addr) and first_address(other, common) == first_address(addr, common):
                    if _in_force(one, now_s):
                        return one
        return None

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
