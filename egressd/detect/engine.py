"""Observations in, events out: the one way from what was seen to what is decided, watched and handled.

Replay and live run this same object; only who calls it and what is done with the events differs. Time is packet time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.detect.blind import BlindSpots
from egressd.detect.blocks import Blocks, main_target
from egressd.detect.campaigns import Campaigns
from egressd.detect.correlator import Correlator, Hit
from egressd.detect.history import DEFAULT_HISTORY, History
from egressd.detect.policy import E1, E2, Policy, PolicySettings
from egressd.detect.resolutions import Resolutions
from egressd.detect.watch import Watch
from egressd.intel.allowances import Allowances
from egressd.intel.index import Index
from egressd.intel.protected import Protected
from egressd.intel.resolvers import Resolvers
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    QUIC_SNI,
    REPLY,
    SOCKS_HOST,
    TLS_SNI,
    DnsMessage,
    Event,
    FlowKey,
    HttpRequest,
    Incident,
    Match,
    Observation,
    Sighting,
)
from egressd.names import Suffixes
from egressd.wire.table import RecentTable

MICROSECONDS: Final = 1_000_000
UNANSWERED: Final = 65_536  # contacts whose answer is waited for
_RRTYPES_WITH_HINTS: Final = (64, 65)  # SVCB, HTTPS


class Intel:
    """Everything that text files say, loaded: swapped whole when any of them changes."""

    def __init__(
        self, index: Index, suffixes: Suffixes, allowances: Allowances, protected: Protected, resolvers: Resolvers
    ) -> None:
        self.index = index
        self.suffixes = suffixes
        self.allowances = allowances
        self.protected = protected
        self.resolvers = resolvers


class Engine:
    """Correlator, policy, watch and campaigns in the order that DESIGN section 4 draws."""

    def __init__(
        self,
        intel: Intel,
        settings: PolicySettings,
        on_event: Callable[[Event], None],
        *,
        enforced: bool = False,
        history: int = DEFAULT_HISTORY,
    ) -> None:
        """`enforced`: what is decided is in the kernel too, so that answers from blocked targets are leaks.
        `history` bounds the pairs of client and name that a retro-hunt can find."""
        self.resolutions = Resolutions(intel.suffixes)
        self.correlator = Correlator(intel.index, intel.allowances, self.resolutions)
        self.blocks = Blocks()
        self.policy = Policy(settings, self.blocks, intel.protected, intel.allowances)
        self.watch = Watch(enforced)
        self.campaigns = Campaigns()
        self.history = History(history)
        self.blind = BlindSpots(intel.resolvers)
        self.observations: dict[str, int] = {}
        self.clients: set[bytes] = set()
        self._unanswered: RecentTable[FlowKey, Incident] = RecentTable(UNANSWERED)
        self._on_event = on_event
        self._pending = list(reversed(intel.index.pending_after(0)))  # soonest last
        self._next_pending_us = self._pending[-1].added_s * MICROSECONDS if self._pending else 1 << 62

    def observe(self, seen: Observation) -> None:
        """Take one observation; emits whatever follows from it."""
        kind = seen.kind
        self.observations[kind] = self.observations.get(kind, 0) + 1
        if seen.ts_us >= self._next_pending_us:
            self._indicators_arrive(seen.ts_us)
        if kind == REPLY:
            self._reply(seen)
            return
        self.clients.add(seen.flow.client)
        if kind == DNS_QUERY:
            if isinstance(seen.detail, DnsMessage):
                self.resolutions.asked(seen, seen.detail.txid)
        elif kind != DNS_ANSWER:
            self.blind.observe(seen)
            self._tenant(seen)
        hits = self.correlator.match(seen)
        for hit in hits:
            self._sight(seen, hit)
        if kind == DNS_ANSWER:
            self._answer(seen)  # after the sightings: a block that one of them made takes the answer's addresses
        elif kind == FLOW and not hits:
            self._blocked_flow(seen)
        self._remember(seen)

    def finish(self) -> None:
        """The source has ended: report each incident's totals."""
        for incident in self.campaigns.incidents.values():
            self._on_event(incident)

    # -- sightings, decisions, attempts

    def _sight(self, seen: Observation, hit: Hit) -> None:
        sighting = Sighting(
            seen.ts_us, seen.number, seen.flow, hit.name, hit.match, seen.kind, seen.note, False, 1,
            seen.ts_us, seen.ts_us, hit.url, hit.address,
        )  # fmt: skip
        self._handle(sighting)
        if _names_its_server(seen):
            self._extend(sighting, seen.flow.server, E1)

    def _handle(self, sighting: Sighting) -> None:
        """Open or update the incident, decide where nothing was decided yet, count an attempt where it was."""
        incident, opened = self.campaigns.assign(sighting)
        self.campaigns.see(incident, sighting)
        new = sighting.retro or self.watch.is_new_contact(sighting)
        if new:
            self.campaigns.count(incident, sighting)
            if sighting.via in (TLS_SNI, HTTP_HOST, SOCKS_HOST):
                incident.answered += sighting.count  # nothing is sent before the handshake is complete
            elif sighting.via in (FLOW, QUIC_SNI):
                self._unanswered.put(sighting.flow, incident)
        self._on_event(sighting)
        if opened:
            self._on_event(incident)
        block = self.blocks.by_target.get(main_target(sighting.match))
        if block is None:
            decision = self.policy.decide(sighting)
            if decision is not None:
                self._on_event(decision)
        elif new and not sighting.retro:
            incident.attempts += 1
            self._on_event(self.watch.attempt(block, sighting))

    def _blocked_flow(self, seen: Observation) -> None:
        """A connection without a name to an address that a block covers."""
        flow = seen.flow
        block = self.blocks.covering(flow.client, flow.server)
        if block is None:
            return
        if self.correlator.is_allowed("", flow.server, flow.client, seen.ts_us):
            return
        name = self.resolutions.name_for(flow.client, flow.server, seen.ts_us)
        if name and self.correlator.match_name(name, seen.ts_us) is None:
            return  # an innocent tenant; `_tenant` gives the address free
        match = Match("address", block.match.indicator, block.match.registered_domain, block.match.suffix_rule)
        sighting = Sighting(
            seen.ts_us, seen.number, flow, "", match, FLOW, "blocked address", False, 1, seen.ts_us, seen.ts_us,
            address=flow.server,
        )  # fmt: skip
        self._handle(sighting)

    def _extend(self, sighting: Sighting, address: bytes, evidence: str) -> None:
        block = self.blocks.by_target.get(main_target(sighting.match))
        if block is None or block.target.kind in ("address", "network"):
            return
        others = self._co_tenants(address, sighting.match.registered_domain, sighting.ts_us)
        decision = self.policy.extend(block, sighting, address, evidence, others)
        if decision is not None:
            self._on_event(decision)

    def _co_tenants(self, address: bytes, domain: str, ts_us: int) -> list[str]:
        """Other registered domains on `address` that no indicator covers: whom a block would harm."""
        others = self.resolutions.co_tenants(address, frozenset((domain,)), ts_us)
        return [name for name in others if self.correlator.match_name(name, ts_us) is None]

    # -- passive DNS

    def _answer(self, seen: Observation) -> None:
        """Learn who is where; a listed name's addresses are added to its block."""
        message = seen.detail
        if not isinstance(message, DnsMessage) or not seen.name:
            return
        asked = self.resolutions.was_asked(seen, message.txid)
        addresses = _addresses(message)
        if not addresses:
            return
        listed = self.correlator.match_name(seen.name, seen.ts_us)
        name = seen.name
        if listed is None:
            for record in message.answers[: message.answer_count]:
                if record.target and listed is None:
                    listed = self.correlator.match_name(record.target, seen.ts_us)
                    name = record.target if listed is not None else seen.name
        for address in addresses:
            if asked:
                self.resolutions.learn(seen.flow.client, name, address, seen.ts_us)
            if listed is None:
                self._give_free(seen, address)
        block = self.blocks.by_target.get(main_target(listed)) if listed is not None else None
        if listed is None or block is None:
            return
        sighting = Sighting(
            seen.ts_us, seen.number, seen.flow, name, listed, DNS_ANSWER, "", False, 1, seen.ts_us, seen.ts_us
        )
        sighting.campaign = block.campaign
        for address in addresses:
            self._extend(sighting, address, E2 if asked else E1)

    def _tenant(self, seen: Observation) -> None:
        """A client's own SNI or Host shows which name lives on an address."""
        if seen.name and _names_its_server(seen):
            self.resolutions.learn(seen.flow.client, seen.name, seen.flow.server, seen.ts_us)
            if seen.flow.server in self.blocks.by_address and self.correlator.match_name(seen.name, seen.ts_us) is None:
                self._give_free(seen, seen.flow.server)

    def _give_free(self, seen: Observation, address: bytes) -> None:
        block = self.blocks.by_address.get(address)
        if block is None:
            return
        others = self._co_tenants(address, block.match.registered_domain, seen.ts_us)
        why = Sighting(
            seen.ts_us, seen.number, seen.flow, seen.name, block.match, seen.kind, "", False, 1, seen.ts_us, seen.ts_us
        )
        decision = self.policy.reconsider(why, address, others)
        if decision is not None:
            self._on_event(decision)

    # -- replies, history, retro-hunt

    def _reply(self, seen: Observation) -> None:
        incident = self._unanswered.pop(seen.flow)
        if incident is not None:
            incident.answered += 1
        leak = self.watch.answered(seen.flow, seen.ts_us, seen.number)
        if leak is not None:
            self._on_event(leak)

    def _remember(self, seen: Observation) -> None:
        if seen.name:
            if seen.kind != DNS_ANSWER:
                self.history.record(seen.flow, seen.name, seen.ts_us, seen.number, seen.kind)
        elif seen.kind == FLOW:
            self.history.record(seen.flow, seen.flow.server, seen.ts_us, seen.number, seen.kind)

    def _indicators_arrive(self, ts_us: int) -> None:
        """Retro-hunt (INCIDENT beat a): indicators came into force; who contacted them before?"""
        while self._pending and self._pending[-1].added_s * MICROSECONDS <= ts_us:
            arrival_us = self._pending[-1].added_s * MICROSECONDS
            arrived = []
            while self._pending and self._pending[-1].added_s * MICROSECONDS == arrival_us:
                arrived.append(self._pending.pop())
            for client, what, contact in self.history.contacts():
                if isinstance(what, str):
                    match = self.correlator.match_name(what, arrival_us)
                else:
                    match = self.correlator.match_address(what, arrival_us)
                if match is None or match.indicator not in arrived:
                    continue
                name = what if isinstance(what, str) else ""
                flow: FlowKey = contact.flow._replace(client=client)
                found = Sighting(
                    arrival_us, 0, flow, name, match, contact.via, "", True, contact.count,
                    contact.first_us, contact.last_us, address=b"" if name else flow.server,
                )  # fmt: skip
                self._handle(found)
                if contact.via not in (DNS_QUERY, DNS_ANSWER):
                    self._extend(found, flow.server, E1)
        self._next_pending_us = self._pending[-1].added_s * MICROSECONDS if self._pending else 1 << 62


def _names_its_server(seen: Observation) -> bool:
    """Whether the name is one of the address that the packet went to. A request to a proxy names somebody else: to
    block the way to the proxy would cut off everything."""
    if seen.note == "proxied":
        return False
    if seen.kind in (TLS_SNI, QUIC_SNI):
        return True
    detail = seen.detail
    return isinstance(detail, HttpRequest) and (detail.target.startswith("/") or detail.target == "*")


def _addresses(message: DnsMessage) -> list[bytes]:
    """Addresses that an answer section gives: A, AAAA, and the hints of HTTPS and SVCB records (RFC 9460)."""
    addresses: list[bytes] = []
    for record in message.answers[: message.answer_count]:
        if record.address:
            addresses.append(record.address)
        elif record.rrtype in _RRTYPES_WITH_HINTS:
            addresses.extend(record.hints)
    return addresses
