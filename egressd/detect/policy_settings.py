"""What an operator may set of the policy."""

from __future__ import annotations

from typing import NamedTuple

from egressd.detect.rules import (
    Rules,
    default_rules,
)
from egressd.detect.site import Network, Site


class PolicySettings(NamedTuple):
    """What an operator may set of the default policy. `resolvers` are the packed addresses of the network's own: whose
    answers can be evidence for everybody. While none is known every server's are, except in mode enforce."""

    mode: str = "monitor"
    block_confidence: int = 50  # a sighting by a less certain indicator alerts only
    shared_after: int = 3  # other registered domains on an address: from here on not even a pair is blocked
    addresses_per_indicator_hour: int = 16
    blocks_per_hour: int = 200
    resolvers: frozenset[bytes] = frozenset()
    ask_score: int = 80  # by the shipped rules, behaviour that is at least so sure is put before a person
    alert_only: frozenset[str] = frozenset()  # sources of behaviour that never ask: "behaviour:" and the detector
    rules: Rules | None = None  # None: the shipped ones
    segments: tuple[Network, ...] = ()
    tags: tuple[Network, ...] = ()
    modes: tuple[tuple[str, str], ...] = ()  # (segment, mode) where it is not `mode`
    isolations_per_hour: int = 5
    rollback_clients: int = 50
    rollback_share: int = 25  # percent
    lan: tuple[Network, ...] = ()  # networks of the interfaces that face hosts, as the daemon finds them

    def site(self) -> Site:
        """What it says of clients."""
        return Site(self.mode, self.segments, self.tags, self.modes, self.lan)

    def of_our_hosts(self) -> tuple[Network, ...]:
        """Networks whose addresses are machines of ours, with that as the reason why none is blocked for everybody: an
        answer that names one would cut a server of ours off."""
        lan = [(*one[:2], "where hosts of ours are") for one in self.lan]
        return (*lan, *((*one[:2], f"segment {one[2]}") for one in self.segments))

    def rules_in_force(self) -> Rules:
        """The rules that decide."""
        return self.rules if self.rules is not None else default_rules(self.block_confidence, self.ask_score)
