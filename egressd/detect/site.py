"""What the configuration says of clients - segment, tags, mode - and the facts about a sighting that rest on it."""

from __future__ import annotations

from typing import Final

from egressd.detect.rules import Facts, Rules
from egressd.intel.networks import NetworkTable
from egressd.model import BEHAVIOUR, DNS_ANSWER, FlowKey, Match, Sighting
from egressd.units import SECOND_US
from egressd.wire.direction import is_private

Network = tuple[bytes, int, str]  # first address, prefix length, name

MONITOR: Final = "monitor"
APPROVE: Final = "approve"
ENFORCE: Final = "enforce"
RANKS: Final[dict[str, int]] = {MONITOR: 0, APPROVE: 1, ENFORCE: 2}
_CHOSEN: Final = ("the line ", "the list ")  # how intel says that a person narrowed a line
_FORCED: Final = "the line says force=yes; "
_SUFFIX: Final = " is a public suffix "


class Site:
    """Segments, tags and modes. Immutable."""

    def __init__(
        self,
        mode: str,
        segments: tuple[Network, ...] = (),
        tags: tuple[Network, ...] = (),
        modes: tuple[tuple[str, str], ...] = (),
        lan: tuple[Network, ...] = (),
    ) -> None:
        """`mode` is that of clients whose segment has none in `modes`; `lan` are the networks of the interfaces that
        face hosts."""
        self.mode = mode
        self.modes = dict(modes)
        self.strongest = max((mode, *self.modes.values()), key=lambda one: RANKS[one])
        self._segments: NetworkTable[str] = NetworkTable(segments)
        self._lan: NetworkTable[str] = NetworkTable(lan)
        self._tags: dict[tuple[bytes, int], list[str]] = {}
        for addr, length, name in tags:
            self._tags.setdefault((addr, length), []).append(name)
        self._tagged: NetworkTable[list[str]] = NetworkTable((*key, names) for key, names in self._tags.items())

    def segment_of(self, client: bytes) -> str:
        """The segment that a client is in, "" for none; the most specific network decides."""
        return self._segments.longest(client) or "" if client else ""

    def comes_in(self, flow: FlowKey) -> bool:
        """Whether a machine elsewhere turns to one of ours, as far as addresses tell."""
        return not self._is_inside(flow.client) and self._is_inside(flow.server)

    def _is_inside(self, address: bytes) -> bool:
        return (
            is_private(address) or self._lan.longest(address) is not None or self._segments.longest(address) is not None
        )

    def tags_of(self, client: bytes) -> tuple[str, ...]:
        """Every tag of a client."""
        found = [name for names in self._tagged.covering(client) for name in names] if client else []
        return tuple(dict.fromkeys(found))

    def mode_of(self, client: bytes) -> str:
        """What is done about what a client contacts."""
        if not self.modes:
            return self.mode
        return self.modes.get(self.segment_of(client), self.mode) if client else self.strongest

    def is_armed(self, client: bytes) -> bool:
        """Whether blocks for everybody hold for this client: it is under the strongest mode of the site."""
        return not self.modes or self.mode_of(client) == self.strongest

    def is_narrow(self, client: bytes) -> bool:
        """Whether nothing but a pair can keep this client from an address: a person decides in its segment, and blocks
        for everybody are those that enforcing segments made by themselves."""
        return bool(self.modes) and self.strongest == ENFORCE and self.mode_of(client) == APPROVE

    def facts(self, sighting: Sighting, rules: Rules, clients: int, known: int, trusted: bool) -> Facts:
        """What rules know of a sighting. `clients` hit the same of `known`; `trusted`: an answer of a configured
        resolver to a question that was asked."""
        match = sighting.match
        indicator = match.indicator
        behaves = match.level == BEHAVIOUR
        client = sighting.flow.client
        evidence = "E1"
        if match.level == "address":
            evidence = "E0"
        elif sighting.via == DNS_ANSWER and trusted:
            evidence = "E2"
        return Facts(
            match=match.level,
            confidence=indicator.confidence,
            threat=indicator.threat,
            source=indicator.source,
            source_score=rules.score_of(indicator.source),
            evidence=evidence,
            sources=sighting.sources,
            segment=self.segment_of(client),
            tags=self.tags_of(client),
            popular=is_popular(match),
            clients=max(1, clients),
            share=min(100, 100 * clients // known) if known else 0,
            score=indicator.confidence if behaves else 0,
            detectors=detectors_of(indicator.source) if behaves else (),
            ts_s=sighting.ts_us // SECOND_US,
        )


def detectors_of(source: str) -> tuple[str, ...]:
    """The detectors that a behaviour's source names: `behaviour:beacon`, `behaviour:beacon+dga`."""
    return tuple(source.partition(":")[2].split("+"))


def is_popular(match: Match) -> bool:
    """Whether the guard keeps the registered domain: it is among the most popular names, many share it, or it is one of
    the operator's own. A line that says its scope itself is not told apart: there the guard was not asked."""
    why = match.indicator.narrowed
    return bool(why) and (why.startswith(_FORCED) or not why.startswith(_CHOSEN)) and _SUFFIX not in why


def lists_guarded_site(match: Match) -> bool:
    """Whether a list names a whole site that the guard keeps, and no person narrowed that very line."""
    indicator = match.indicator
    if not indicator.narrowed or indicator.value != match.registered_domain:
        return False
    return not indicator.narrowed.startswith(_CHOSEN[0])
