"""The blocks in force and what each acts on: written by policy, read by the watch."""

from __future__ import annotations

from typing import Final

from egressd.model import Match, Target

MAX_BLOCKS: Final = 100_000  # far over any budget; beyond it nothing new is blocked


class Block:
    """A decision in force: its main target, and the addresses and pairs that were added to it."""

    __slots__ = (
        "addresses",
        "budget_told_us",
        "campaign",
        "created_us",
        "id",
        "match",
        "pairs",
        "recent_us",
        "refused",
        "target",
    )

    def __init__(self, id_: str, target: Target, match: Match, created_us: int) -> None:
        self.id = id_
        self.target = target
        self.match = match
        self.campaign = ""
        self.created_us = created_us
        self.addresses: dict[bytes, int] = {}
        self.pairs: dict[tuple[bytes, bytes], int] = {}
        self.refused: dict[bytes, str] = {}
        self.budget_told_us = -1  # when "over budget" was said last: once an hour is enough
        self.recent_us: list[int] = []  # when addresses were added, within the last hour: the budget


def main_target(match: Match) -> Target:
    """What a block by this match is about (DESIGN section 5: scope after narrowing)."""
    indicator = match.indicator
    if indicator.kind == "domain":
        if indicator.scope == "registered":
            return Target("registered_domain", match.registered_domain)
        return Target("host" if indicator.scope == "host" else "exact", indicator.value)
    return Target(indicator.kind, indicator.value)


class Blocks:
    """Every block in force, found by main target, by address or by client and address."""

    def __init__(self) -> None:
        self.by_target: dict[Target, Block] = {}
        self.by_id: dict[str, Block] = {}
        self.by_address: dict[bytes, Block] = {}
        self.by_pair: dict[tuple[bytes, bytes], Block] = {}

    def __len__(self) -> int:
        return len(self.by_target)

    def add(self, target: Target, match: Match, created_us: int) -> Block:
        """A new block; its id is its number in order of creation."""
        block = Block(f"D{len(self.by_id) + 1}", target, match, created_us)
        self.by_target[target] = block
        self.by_id[block.id] = block
        return block

    def add_address(self, block: Block, address: bytes, ts_us: int) -> None:
        """`block` now also covers an address for every client."""
        block.addresses[address] = ts_us
        self.by_address.setdefault(address, block)

    def add_pair(self, block: Block, client: bytes, address: bytes, ts_us: int) -> None:
        """`block` now also covers an address for one client."""
        block.pairs[(client, address)] = ts_us
        self.by_pair.setdefault((client, address), block)

    def withdraw_address(self, address: bytes) -> Block | None:
        """Nobody is kept from `address` any more; returns the block that did."""
        block = self.by_address.pop(address, None)
        if block is not None:
            block.addresses.pop(address, None)
        return block

    def covering(self, client: bytes, address: bytes) -> Block | None:
        """The block that would stop a packet from `client` to `address`, by address alone."""
        return self.by_address.get(address) or self.by_pair.get((client, address))
