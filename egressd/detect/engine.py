"""Observations in, events out: the one way from what was seen to what is decided, watched and handled.

Replay and live run this same object; only who calls it and what is done with the events differs. Time is packet time.
"""

from __future__ import annotations

from typing import Final

from egressd.detect.behaviour.sighting import sighting_of
from egressd.detect.calendar import NEVER_US
from egressd.detect.casework import Casework
from egressd.detect.correlator import Hit
from egressd.detect.coverage import E0, E1, E2
from egressd.detect.devices import SAMPLE_US
from egressd.detect.evidence import Verdict
from egressd.detect.hearing import hear
from egressd.detect.resolutions import place_of, read_answer
from egressd.model import (
    BARE,
    BEHAVIOUR,
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    REPLY,
    UDP,
    DnsMessage,
    FlowKey,
    Match,
    Observation,
    Sighting,
)

LOOK_US: Final = 10_000_000


class Engine(Casework):
    """Correlator, campaigns, policy and watch, in that order: an attempt belongs to an incident."""

    def observe(self, seen: Observation) -> None:
        """Take one observation; emits whatever follows from it."""
        kind = seen.kind
        if seen.sensor:
            self._tell(seen)
            return
        if seen.note == BARE:
            self.goes_there(seen)
            return
        if self._is_from_outside(seen):
            self.from_outside += 1
            return
        self.observations[kind] = self.observations.get(kind, 0) + 1
        if seen.ts_us >= self._calendar.next_us:
            self._indicators_change(seen.ts_us)
        elif seen.ts_us < self._calendar.back_us:
            self._calendar.go_back(seen.ts_us)
        if seen.ts_us >= self.behaviour.openings.due_us:
            self.judge_nameless(seen.ts_us)
        if kind == REPLY:
            self._reply(seen)
            return
        client = seen.flow.client
        looked_us = self.clients.get(client)
        if looked_us is None or seen.ts_us - looked_us >= SAMPLE_US:
            self._look(client, seen.ts_us)
        if self._fresh:
            self._fresh.clear()
        if self._counted:
            self._counted.clear()
        if kind == DNS_QUERY:
            self._question(seen)
        elif kind == DNS_ANSWER:
            self._answer(seen)
        else:
            self._contact(seen)

    def _is_from_outside(self, seen: Observation) -> bool:
        """Whether somebody elsewhere turns to a server of ours: that leads nowhere out, and whoever can reach it could
        have his own machines, as many as he likes, taken for infected hosts of ours - until a block that so many ran
        into was taken back. By addresses alone a host of ours with a public address that no configuration names looks
        the same: what it asks a resolver or a proxy inside does lead out, and counts."""
        flow = seen.flow
        kind = seen.kind
        if kind == REPLY or not self.policy.site.comes_in(flow):
            return False
        if kind in (DNS_QUERY, DNS_ANSWER):
            resolvers = self.policy.settings.resolvers
            return bool(resolvers) and flow.server not in resolvers
        return self._proxied.is_direct(seen)

    def judge_nameless(self, ts_us: int) -> None:
        """Connections that could have shown a name until `ts_us`."""
        for seen, verdict in self.behaviour.nameless(ts_us):
            self._fresh.clear()
            self._counted.clear()
            if not self.correlator.match(seen):
                self._behave(seen, "", verdict)

    def finish(self) -> None:
        """The source has ended: what is left is judged, and each incident's totals are told."""
        while self.behaviour.openings.due_us < NEVER_US:
            self.judge_nameless(NEVER_US)
        super().finish()

    def _tell(self, seen: Observation) -> None:
        """Another sensor tells of something."""
        if seen.ts_us >= self._calendar.next_us:
            self._indicators_change(seen.ts_us)
        self._fresh.clear()
        self._counted.clear()
        hear(self, seen)

    def counts(self) -> dict[str, int]:
        """What was not used, or did not fit a bound, by reason; zero counts are left out."""
        counts = {
            "answers_unasked": self.unasked_answers,
            "blocks_over_share": self.policy.over_share,
            "clients_beyond_bound": self.clients.evicted + self.blind.uncounted,
            "clients_ignored": self.correlator.clients_ignored,
            "contacts_from_outside": self.from_outside,
            "incidents_beyond_bound": self.campaigns.untold,
            "devices_evicted": self.devices.evicted,
            "alerts_beyond_bound": self.policy.untold,
            "attempts_beyond_bound": self.watch.uncounted,
            "agreement_evicted": self.agreement.evicted if self.agreement is not None else 0,
            "history_evicted": self.history.evicted,
            "resolutions_evicted": self.resolutions.evicted,
            "resolutions_over_share": self.resolutions.over_share,
            **self.behaviour.counts(),
        }
        return {name: count for name, count in counts.items() if count}

    # -- what was seen

    def _look(self, client: bytes, ts_us: int) -> None:
        """Who sends a client's frames: asked when it is new and once in SAMPLE_US, not for each observation."""
        self.clients.put(client, ts_us)
        self._met(client, ts_us)
        self._sender(client, ts_us)
        self.machines.put(self.devices.machine_of(client), ts_us)

    def _question(self, seen: Observation) -> None:
        message = seen.detail
        again = False
        names = [seen.name]
        if isinstance(message, DnsMessage):
            again = not self.resolutions.asked(seen, message.txid)
            if len(message.questions) > 1:
                names += [question.name for question in message.questions[1:]]
        hits = self.correlator.match(seen)
        for name in names:
            if name and name not in self._fresh:
                self._fresh[name] = self.contacts.is_new_question(seen.flow.client, name, seen.ts_us, again)
        for hit in hits:
            self.sight(seen, hit, self._fresh[hit.name])
        for name, new in self._fresh.items():
            if not hits or all(hit.name != name for hit in hits):
                self.history.record(seen.flow, name, seen.ts_us, seen.number, DNS_QUERY, new)
        if not hits:
            self._behave(seen, seen.name, self.behaviour.question(seen))
        self._speaks(seen, seen.flow)

    def _speaks(self, seen: Observation, flow: FlowKey) -> None:
        """A datagram that looks like DNS stands for the beginning of a conversation, where the server is watched."""
        if self._is_watched(flow, seen.ts_us) and not self.contacts.knows(flow, seen.ts_us):
            self._contact(Observation(FLOW, seen.ts_us, seen.number, flow, "", "", None, 0, ""))

    def _is_watched(self, flow: FlowKey, ts_us: int) -> bool:
        """Whether a question, or answer, is exchanged with a listed or blocked server. By UDP there is no other sign of
        that, and any program may speak with its server in what looks like DNS, on any port."""
        if flow.proto != UDP or flow.server in self.policy.settings.resolvers:
            return False
        return self.blocks.is_held(flow.server) or self.correlator.match_address(flow.server, ts_us) is not None

    def _answer(self, seen: Observation) -> None:
        """Learn who is where; a listed name's addresses are added to its block."""
        message = seen.detail
        if self._is_watched(seen.flow, seen.ts_us):
            self._reply(seen)
        if not isinstance(message, DnsMessage) or not self.resolutions.was_asked(seen, message.txid):
            self.unasked_answers += 1
            return
        self._behave(seen, seen.name, self.behaviour.answer(seen, message))
        client = seen.flow.client
        ts_us = seen.ts_us
        for hit in self.correlator.match(seen):
            self.sight(seen, hit, self.contacts.is_new_question(client, hit.name, ts_us, False))
        answer = read_answer(seen.name or seen.raw_name.lower(), message)
        if not answer.addresses:
            return
        at, listed = self._first_listed(answer.names, client, ts_us)
        trusted = self._is_evidence(seen)
        # What leads to a listed name is no tenant of its address; what the listed name leads to is.
        resolutions = self.resolutions
        tenants = [
            name if self.correlator.is_exempt(name, ts_us) else resolutions.domain_of(name)
            for name in (answer.names[at:] if listed is not None else answer.names)
        ]
        for address in answer.addresses:
            resolutions.reached(client, answer.names[at], address, ts_us)
            if trusted:
                for tenant in tenants:
                    resolutions.settles(tenant, address, ts_us, client, listed is not None and tenant is tenants[0])
                self._give_free(seen, address)
        if listed is None:
            return
        sighting = Sighting(
            ts_us, seen.number, seen.flow, answer.names[at], listed, DNS_ANSWER, "", False, 1, ts_us, ts_us
        )
        block = self.policy.block_of(sighting)
        if block is not None:
            sighting.campaign = self.campaigns.current(block.campaign)
            for address in answer.addresses:
                self._extend(sighting, address, E2 if trusted else E1)

    def _is_evidence(self, answer: Observation) -> bool:
        """Whether an answer can tie an address to a name for everybody."""
        return self.policy.trusts(answer.flow.server)

    def _first_listed(self, names: tuple[str, ...], client: bytes, ts_us: int) -> tuple[int, Match | None]:
        for at, name in enumerate(names):
            match = self.correlator.match_name(name, ts_us)
            if match is not None and not self.correlator.is_allowed(name, b"", client, ts_us):
                return at, match
        return 0, None

    def _contact(self, seen: Observation) -> None:
        """A connection, or a name in one."""
        sort = self.blind.observe(seen)
        if seen.kind == FLOW:
            self._begins(seen)
        direct = self._proxied.is_direct(seen)
        name = self.correlator.attributed(seen) if seen.kind == FLOW else seen.name
        resolved = name
        if seen.kind != FLOW and direct:
            resolved = self.resolutions.name_for(seen.flow.client, seen.flow.server, seen.ts_us)
        verdict = self.behaviour.contact(seen, name, resolved, sort)
        if direct and seen.name:
            self._tenant(seen, resolved)
        hits = self.correlator.match(seen, direct, name)
        for hit in hits:
            reached = hit.match.registered_domain or hit.name
            if hit.url and len(hits) == 1:  # nobody listed the name, which the connection was counted for
                reached = hit.match.indicator.value
            self.sight(seen, hit, self.is_new(seen, reached), direct and seen.kind != FLOW)
        if seen.kind == FLOW and not hits:
            self.blocked_flow(seen)
        self._remember(seen, name, hits, direct)
        if not hits:
            self._behave(seen, name, verdict)

    def goes_there(self, seen: Observation) -> None:
        """Packets that are neither TCP nor UDP, or that carry others, go somewhere, and that is all they tell: no name
        is shown or hidden, nobody is known by it, and how regular they are says nothing, for monitoring is made of
        them. So it is of interest only where a list or a block has the address, or comes to have it."""
        if self._is_from_outside(seen):
            self.from_outside += 1
            return
        if seen.ts_us >= self._calendar.next_us:
            self._indicators_change(seen.ts_us)
        if seen.kind == REPLY:
            self._reply(seen)
            return
        flow = seen.flow
        self._fresh.clear()
        self._counted.clear()
        self._begins(seen)
        name = self.correlator.attributed(seen)
        hits = self.correlator.match(seen, True, name)
        if hits or self.blocks.covering(flow.client, flow.server) is not None:
            self._look(flow.client, seen.ts_us)
        for hit in hits:
            self.sight(seen, hit, self.is_new(seen, hit.match.registered_domain or hit.name))
        if not hits:
            self.blocked_flow(seen)
        self._remember(seen, name, hits, True)

    def _begins(self, seen: Observation) -> None:
        """The first packet of a conversation."""
        self.contacts.begins(seen.flow, seen.ts_us)

    def _remember(self, seen: Observation, name: str, hits: list[Hit], direct: bool) -> None:
        """Keep for later what matched nothing now."""
        flow = seen.flow
        if seen.kind == FLOW:
            if not hits or not any(hit.address for hit in hits):
                self.history.record(flow, flow.server, seen.ts_us, seen.number, FLOW, True, flow.server)
            if name and self.correlator.match_name(name, seen.ts_us) is not None:
                return  # that is listed, and no contact for later
        if name and (not hits or all(hit.name != name for hit in hits)):
            new = self.is_new(seen, self.resolutions.domain_of(name))
            server = flow.server if direct else b""
            self.history.record(flow, name, seen.ts_us, seen.number, seen.kind, new, server)

    # -- sightings

    def sight(self, seen: Observation, hit: Hit, new: bool, direct: bool = False) -> None:
        """An observation met an indicator. `new` when it is the first sign of a contact; `direct` when its server is
        the name's own, and no proxy."""
        sighting = Sighting(
            seen.ts_us, seen.number, seen.flow, hit.name, hit.match, seen.kind, seen.note, False, 1,
            seen.ts_us, seen.ts_us, hit.url, hit.address,
        )  # fmt: skip
        self._handle(sighting, new, seen)
        if direct and hit.name and not hit.url:
            self._extend(sighting, seen.flow.server, E1)
        elif seen.kind == FLOW and len(seen.flow.server) == 16:
            self._inside_ipv6(sighting)

    def _inside_ipv6(self, sighting: Sighting) -> None:
        """A connection goes to a blocked IPv4 address inside an IPv6 one (NAT64, 6to4): the kernel's element for the
        former stops no such packet, so the block has to cover what packets carry."""
        client, server = sighting.flow.client, sighting.flow.server
        block = self.policy.block_of(sighting)
        if block is None:
            return
        place, indicator = place_of(server, self.blocks.nat64), sighting.match.indicator
        if indicator.kind in ("address", "network") and ":" not in indicator.value:
            self._extend(sighting, server, E0)
        elif place != server and (place in block.addresses or (client, place) in block.pairs):
            self._extend(sighting, server, E0 if place in block.addresses else E1)

    def _behave(self, seen: Observation, name: str, verdict: Verdict | None) -> None:
        """What no list names behaves like C&C traffic."""
        if verdict is None:
            return
        sighting = sighting_of(verdict, seen, name, self._suffixes)
        if not self.correlator.is_allowed(verdict.destination, sighting.address, verdict.client, seen.ts_us):
            self._handle(sighting, True, seen)

    def blocked_flow(self, seen: Observation) -> None:
        """A connection without a name to an address that a block covers."""
        flow = seen.flow
        block = self.blocks.covering(flow.client, flow.server)
        if block is None or (block.waits and block.match.level == BEHAVIOUR):
            return  # of what behaviour asks about, behaviour goes on to tell
        if self.correlator.is_allowed("", flow.server, flow.client, seen.ts_us):
            return
        name = self.resolutions.name_for(flow.client, flow.server, seen.ts_us)
        if name and self.correlator.is_innocent(name, seen.ts_us):
            return  # an innocent tenant; `_tenant` gives the address free
        if name and self.correlator.is_allowed(name, flow.server, flow.client, seen.ts_us):
            return
        if self.correlator.co_tenants(flow.server, block.match.registered_domain, seen.ts_us):
            return  # it may be for another site there: its own SNI or Host will tell
        match = Match("address", block.match.indicator, block.match.registered_domain, block.match.suffix_rule)
        sighting = Sighting(
            seen.ts_us, seen.number, flow, "", match, FLOW, "blocked address", False, 1, seen.ts_us, seen.ts_us,
            address=flow.server,
        )  # fmt: skip
        self._handle(sighting, self.is_new(seen, match.registered_domain), seen)
        if len(flow.server) == 16:
            self._inside_ipv6(sighting)

    # -- who lives where

    def _tenant(self, seen: Observation, resolved: str) -> None:
        """A client's own SNI or Host shows which name lives on an address. A client that resolved a listed name to get
        there may say any other when it connects (domain fronting, a false SNI): that proves no tenant."""
        client = seen.flow.client
        server = seen.flow.server
        ts_us = seen.ts_us
        innocent = self.correlator.is_innocent(seen.name, ts_us)
        if innocent:
            if resolved and resolved != seen.name and not self.correlator.is_innocent(resolved, ts_us):
                return
        self.resolutions.reached(client, seen.name, server, ts_us)
        exempt = self.correlator.is_exempt(seen.name, ts_us)
        self.resolutions.lives_at(seen.name, server, ts_us, exempt, client, not innocent)
        if innocent:
            self._give_free(seen, server)

    def _give_free(self, seen: Observation, address: bytes) -> None:
        """Nobody is kept from an address where an innocent name lives."""
        if not self.blocks.is_held(address):
            return
        innocent = self.correlator.co_tenants(address, "", seen.ts_us)
        if not innocent:
            return
        blocks = self.blocks.holders(address)
        if self._may_free_pairs(address, len(innocent), seen.ts_us):
            blocks += dict.fromkeys(block for block, _ in self.blocks.pairs_at(address))
        others = {block.id: [name for name in innocent if name != block.match.registered_domain] for block in blocks}
        if not any(others.values()):
            return
        why = Sighting(
            seen.ts_us, seen.number, seen.flow, seen.name, blocks[0].match, seen.kind, "", False, 1,
            seen.ts_us, seen.ts_us,
        )  # fmt: skip
        for decision in self.policy.reconsider(why, address, others):
            self._on_event(decision)

    def _may_free_pairs(self, address: bytes, innocent: int, ts_us: int) -> bool:
        """Whether to look at who is kept from `address`, where so many innocent names live: they may be thousands, and
        innocent visits as many a second. Where nothing has changed a look in LOOK_US does."""
        if innocent < self.policy.settings.shared_after:
            return False
        looked = self._looked.get(address)
        if looked is not None and looked[0] == innocent and 0 <= ts_us - looked[1] < LOOK_US:
            return False
        self._looked.put(address, (innocent, ts_us))
        return True
