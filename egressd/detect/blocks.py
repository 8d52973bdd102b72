"""The blocks in force and what each acts on: written by policy, read by the watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.detect.acquaintance import Crowd
from egressd.detect.resolutions import place_of
from egressd.model import Match, Target

MAX_BLOCKS: Final = 100_000  # far over any budget; beyond it nothing new is blocked
# Over all blocks. Pairs rest on what clients say, who may say anything and under any address: their bound is apart, so
# that they cannot use up the one for addresses that answers tied to listed names.
MAX_ADDRESSES: Final = 20_000
MAX_PAIRS: Final = 65_536
ON_ITS_WAY_US: Final = 10_000  # from the answer to the kernel: 0.3 ms, and under load no more than this
# Blocks that hold one address, or one client's way to it: more keep nobody from it who is not kept already, and each of
# them would have to be looked at whenever somebody is seen there.
MAX_ADDRESS_HOLDERS: Final = 256  # that many, for their campaigns are tied by it
MAX_PAIR_HOLDERS: Final = 16
MAX_REFUSED: Final = 256  # addresses per block that are remembered as refused
MAX_REFUSALS: Final = 16  # of them are told, with an event each; the rest is refused in silence


class Block:
    """A decision in force: its main target, and the addresses and pairs that were added to it."""

    __slots__ = (
        "addresses",
        "asked",
        "budget_told_us",
        "campaign",
        "clients",
        "created_us",
        "ends_us",
        "enforced",
        "final",
        "given_back",
        "id",
        "match",
        "mode",
        "narrow",
        "pairs",
        "recent_us",
        "refused",
        "resting",
        "sole",
        "target",
        "waits",
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
        self.enforced = False  # what it covers is kept out by the kernel, so that an answer from there is a leak
        self.given_back: set[bytes] = set()  # addresses withdrawn: not for everybody again
        # Addresses forgotten because nobody tried them, with the evidence there was: a try brings them back.
        self.resting: dict[bytes, str] = {}
        self.budget_told_us: dict[bool, int] = {}  # when "over budget" was said last, of addresses (True) and of pairs
        # The budget: when addresses were added within the last hour (under b""), and pairs, by client and in all.
        self.recent_us: dict[bytes, list[int]] = {}
        self.mode = "monitor"  # the strongest of the segments on whose account it stands
        self.waits = False  # for a person, though the mode may be to block
        self.asked = False  # a rule left it to a person, who may block what many share; stays true when it is approved
        self.final = False  # a person has spoken, or it was taken back: policy does not change it by itself
        self.narrow = False  # never an address for everybody: a rule says scope pair
        self.sole = b""  # the client that it is for alone, which had caused its share of blocks; b"" is everybody
        self.ends_us = 0  # a rule's time to live is over then, 0: none was set
        self.clients = Crowd()  # machines that ran into it, while it can be rolled back


def main_target(match: Match) -> Target:
    """What a block by this match is about: the scope of its indicator, as narrowed by guard, suffix or line."""
    indicator = match.indicator
    if indicator.kind == "domain":
        if indicator.scope == "registered":
            return Target("registered_domain", match.registered_domain)
        return Target("host" if indicator.scope == "host" else "exact", indicator.value)
    if indicator.kind == "behaviour":  # no list names it: what its detector watched
        return Target("registered_domain" if match.registered_domain else "address", indicator.value)
    return Target(indicator.kind, indicator.value)


def is_carried(target: Target, before: Match, match: Match) -> bool:
    """Whether a block about `target`, which `before` made, may rest on `match`, which its target matches now: that has
    the same scope, or a rule had narrowed the block to a host or an address inside."""
    main = main_target(match)
    if main == target or main_target(before) == target:
        return main == target
    if target.kind == "host":
        return main.kind in ("registered_domain", "host")
    return target.kind == "address" and main.kind == "network"


class Blocks:
    """Every block in force, found by main target, by address or by client and address.

    Addresses are looked up by place (resolutions.place_of): what holds an IPv4 address holds it under NAT64 too.
    """

    def __init__(self, nat64: tuple[tuple[bytes, int], ...] = ()) -> None:
        """`nat64` are the network's own prefixes (resolutions.own_prefixes)."""
        self.nat64 = nat64
        self.by_target: dict[Target, Block] = {}
        self.by_id: dict[str, Block] = {}
        self.addresses = 0
        self.pairs = 0
        self.alone = 0  # blocks for one client alone
        self.scoped = False  # whether a rule ever narrowed the target of one
        self._next = 1
        self._stride = 1
        self.on_remove: Callable[[str], None] | None = None  # told which block is no more
        self._by_place: dict[bytes, list[Block]] = {}
        self._pairs: dict[bytes, dict[bytes, list[Block]]] = {}  # by place, then client

    def __len__(self) -> int:
        return len(self.by_target)

    def number_from(self, first: int, stride: int) -> None:
        """The numbers of the next blocks: `first`, then every `stride`-th, so that several who decide never meet."""
        self._next = first
        self._stride = stride

    def add(self, target: Target, match: Match, created_us: int, id_: str = "") -> Block:
        """A new block; its id is its number in order of creation, or the one that it was given elsewhere."""
        block = Block(id_ or self.next_id(), target, match, created_us)
        self.scoped = self.scoped or target != main_target(match)
        self.by_target[target] = block
        self.by_id[block.id] = block
        return block

    def next_id(self) -> str:
        """The next number of this process, given out."""
        id_ = f"D{self._next}"
        self._next += self._stride
        return id_

    def keep_alone(self, block: Block, client: bytes) -> None:
        """`block` is for `client` alone, or (b"") for everybody."""
        self.alone += bool(client) - bool(block.sole)
        block.sole = client

    def rename(self, block: Block, id_: str) -> None:
        """`block` is known elsewhere under an older id."""
        del self.by_id[block.id]
        block.id = id_
        self.by_id[id_] = block

    def remove(self, block: Block) -> None:
        """Nothing is blocked by `block` any more."""
        for address in list(block.addresses):
            self.withdraw_address(block, address)
        for client, address in list(block.pairs):
            self.withdraw_pair(block, client, address)
        self.keep_alone(block, b"")
        del self.by_target[block.target]
        del self.by_id[block.id]
        if self.on_remove is not None:
            self.on_remove(block.id)

    def enforce(self, block: Block, enforced: bool, ts_us: int) -> None:
        """Whether the kernel holds what `block` covers, from `ts_us` on: what it was to cover before that was in no
        kernel, and an answer from there is no leak."""
        if enforced and not block.enforced:
            for address, since_us in block.addresses.items():
                block.addresses[address] = max(since_us, ts_us)
            for way, since_us in block.pairs.items():
                block.pairs[way] = max(since_us, ts_us)
        block.enforced = enforced

    def add_address(self, block: Block, address: bytes, ts_us: int) -> None:
        """`block` now also covers an address for every client."""
        if address not in block.addresses:
            self.addresses += 1
            self._by_place.setdefault(place_of(address, self.nat64), []).append(block)
        block.addresses[address] = ts_us
        block.resting.pop(address, None)

    def add_pair(self, block: Block, client: bytes, address: bytes, ts_us: int) -> None:
        """`block` now also covers an address for one client."""
        if (client, address) not in block.pairs:
            self.pairs += 1
            self._pairs.setdefault(place_of(address, self.nat64), {}).setdefault(client, []).append(block)
        block.pairs[(client, address)] = ts_us
        block.resting.pop(address, None)

    def know_nat64(self, nat64: tuple[tuple[bytes, int], ...]) -> None:
        """The network's own prefixes are others now."""
        if nat64 == self.nat64:
            return
        self.nat64 = nat64
        self._by_place.clear()
        self._pairs.clear()
        for block in self.by_id.values():
            for address in block.addresses:
                self._by_place.setdefault(place_of(address, nat64), []).append(block)
            for client, address in block.pairs:
                self._pairs.setdefault(place_of(address, nat64), {}).setdefault(client, []).append(block)

    def withdraw_address(self, block: Block, address: bytes) -> None:
        """`block` keeps nobody from `address` any more."""
        del block.addresses[address]
        self.addresses -= 1
        place = place_of(address, self.nat64)
        holders = self._by_place[place]
        holders.remove(block)
        if not holders:
            del self._by_place[place]

    def withdraw_pair(self, block: Block, client: bytes, address: bytes) -> None:
        """`block` does not keep `client` from `address` any more."""
        del block.pairs[(client, address)]
        self.pairs -= 1
        place = place_of(address, self.nat64)
        clients = self._pairs[place]
        clients[client].remove(block)
        if not clients[client]:
            del clients[client]
            if not clients:
                del self._pairs[place]

    def is_held(self, address: bytes) -> bool:
        """Whether a block covers `address` for anybody, beyond what lists name themselves."""
        place = address if len(address) == 4 else place_of(address, self.nat64)
        return place in self._by_place or place in self._pairs

    def is_crowded(self, address: bytes, client: bytes = b"") -> bool:
        """Whether as many blocks as may cover this very address, for everybody or for `client`."""
        place = address if len(address) == 4 else place_of(address, self.nat64)
        if client:
            held = self._pairs.get(place, {}).get(client, [])
            return len(held) >= MAX_PAIR_HOLDERS and (
                sum((client, address) in block.pairs for block in held) >= MAX_PAIR_HOLDERS
            )
        held = self._by_place.get(place, [])
        return len(held) >= MAX_ADDRESS_HOLDERS and (
            sum(address in block.addresses for block in held) >= MAX_ADDRESS_HOLDERS
        )

    def holders(self, address: bytes) -> list[Block]:
        """The blocks that cover `address` for everybody, oldest addition first."""
        return list(dict.fromkeys(self._by_place.get(place_of(address, self.nat64), ())))

    def pairs_at(self, address: bytes) -> list[tuple[Block, bytes]]:
        """(block, client) of each pair with `address`."""
        clients = self._pairs.get(place_of(address, self.nat64), {})
        return list(dict.fromkeys((block, client) for client, blocks in clients.items() for block in blocks))

    def stops(self, client: bytes, address: bytes, ts_us: int) -> bool:
        """Whether a connection that began at `ts_us` meets a block in force: one that covers it, and did for as long as
        it takes at most to get into the kernel. What overtakes the block is cut with its next packet, and no leak; nor
        is what goes to the address inside an IPv6 one for the first time, which the kernel does not hold yet."""
        place = address if len(address) == 4 else place_of(address, self.nat64)
        ways = [(block, block.addresses.get(address)) for block in self._by_place.get(place, ())]
        pairs = self._pairs.get(place, {}).get(client, ())
        ways += [(block, block.pairs.get((client, address))) for block in pairs]
        return any(
            block.enforced and since_us is not None and ts_us - since_us >= ON_ITS_WAY_US for block, since_us in ways
        )

    def covering(self, client: bytes, address: bytes) -> Block | None:
        """The block that would stop a packet from `client` to `address`, by address alone."""
        place = address if len(address) == 4 else place_of(address, self.nat64)
        blocks = self._by_place.get(place)
        if blocks is None:
            clients = self._pairs.get(place)
            blocks = clients.get(client) if clients is not None else None
        return blocks[0] if blocks else None
