"""A scene of an engine that lives on: lists, allowances and decisions change under it."""

from __future__ import annotations

from egressd.detect.blocks import main_target
from egressd.detect.changing import Standing
from egressd.detect.intel import Intel
from egressd.detect.live import LiveEngine
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.allowances import Allowances
from egressd.intel.index import Index
from egressd.intel.networks import NAT64_WELL_KNOWN, parse_network
from egressd.intel.protected import Protected
from egressd.model import Match, Target
from egressd.wire.dissector import Dissector
from tests.detect.scene import PROTECTED, RESOLVER, RESOLVERS, SUFFIXES, Scene, allowed, at, listed, packed, shared

ENFORCE = PolicySettings(mode="enforce", resolvers=frozenset((packed(RESOLVER),)))


def intel(lists: str, allow: str = "", protected: Protected = PROTECTED, ranges: str = "", nat64: str = "") -> Intel:
    """What text files say, and a NAT64 prefix of the network's own."""
    own = parse_network(nat64)
    prefixes = (NAT64_WELL_KNOWN, own) if own is not None else (NAT64_WELL_KNOWN,)
    index = Index.build(listed(lists), SUFFIXES, prefixes)
    allowances = Allowances(list(allowed(allow).allowances), prefixes)
    return Intel(index, SUFFIXES, allowances, protected, RESOLVERS, shared(ranges))


def protecting(*entries: tuple[str, str]) -> Protected:
    """What a scene protects, and more."""
    found, problems = Protected.parse(
        "10.0.0.0/8 # private use\n127.0.0.0/8 # loopback\n", extra=[("192.0.2.1", "our gateway"), *entries]
    )
    assert problems == []
    return found


class LiveScene(Scene):
    """A scene whose engine is a packet process's."""

    engine: LiveEngine

    def __init__(
        self,
        lists: str = "c2.bad.example threat=case",
        allow: str = "",
        settings: PolicySettings = ENFORCE,
        *,
        enforced: bool = True,
        first_number: int = 1,
        stride: int = 1,
        ranges: str = "",
    ) -> None:
        super().__init__()
        self.engine = LiveEngine(
            intel(lists, allow, ranges=ranges), settings, self.events.append, enforced=enforced,
            first_number=first_number, stride=stride,
        )  # fmt: skip

    def swap(
        self, second: float, lists: str, allow: str = "", *, protected: Protected = PROTECTED, enforced: bool = True,
        settings: PolicySettings = ENFORCE, ranges: str = "", nat64: str = "",
    ) -> None:  # fmt: skip
        """New text files."""
        self.engine.swap(intel(lists, allow, protected, ranges, nat64), settings, enforced, at(second))

    def from_inside(self, inside: bool) -> None:
        """Packets come from the hosts' side, or go to it, as the dissector tells."""
        if self.engine.packets is None:
            self.engine.packets = Dissector(self.engine.observe)
        self.engine.packets.incoming = inside
        self.engine.packets.tcp._teller.incoming = inside

    @property
    def blocks(self) -> list[str]:
        """What the blocks in force are about."""
        return [f"{one.kind} {one.value}" for one in self.engine.blocks.by_target]


def standing(
    line: str = "c2.bad.example",
    *,
    id_: str = "D9",
    level: str = "host",
    enforced: bool = True,
    campaign: str = "C7",
    addresses: tuple[str, ...] = (),
    pairs: tuple[tuple[str, str], ...] = (),
    resting: tuple[tuple[str, str], ...] = (),
    target: Target | None = None,
    second: float = 0,
) -> Standing:
    """A decision as the core tells it."""
    (indicator,) = listed(line)
    match = Match(level, indicator, indicator.registered_domain, indicator.suffix_rule)
    return Standing(
        id_, target or main_target(match), match, at(second), campaign, enforced,
        tuple(packed(one) for one in addresses), tuple((packed(a), packed(b)) for a, b in pairs),
        tuple((packed(one), evidence) for one, evidence in resting),
    )  # fmt: skip
