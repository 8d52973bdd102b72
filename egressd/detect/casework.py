"""From a sighting to what is decided, watched and handled: incident, decision, attempt, extension, and their end.

The engine (engine.py) makes sightings of what was seen; all that follows from one is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.detect.acquaintance import Acquaintances
from egressd.detect.address_history import tie_by_address
from egressd.detect.agreement import Agreement
from egressd.detect.behaviour.sighting import sighting_of_evidence
from egressd.detect.behaviour.watching import Behaviour
from egressd.detect.blind import BlindSpots
from egressd.detect.blocks import Block, Blocks, is_carried
from egressd.detect.calendar import Calendar
from egressd.detect.campaigns import Campaigns
from egressd.detect.contacts import Contacts
from egressd.detect.correlator import Correlator
from egressd.detect.coverage import E0
from egressd.detect.devices import Devices
from egressd.detect.evidence import Evidence
from egressd.detect.hearing import Hearing
from egressd.detect.history import DEFAULT_HISTORY, History
from egressd.detect.hunt import hunt, sieve_for
from egressd.detect.intel import Intel
from egressd.detect.policy import Policy
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.proxied import Proxied
from egressd.detect.resolutions import Resolutions, own_prefixes
from egressd.detect.review import match_target
from egressd.detect.watch import Watch
from egressd.intel.networks import render_address
from egressd.model import (
    BEHAVIOUR,
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    QUIC_SNI,
    SOCKS_HOST,
    TAP,
    TCP,
    TLS_SNI,
    Decision,
    Event,
    FlowKey,
    Incident,
    Indicator,
    Match,
    Observation,
    Sighting,
    Target,
)
from egressd.units import DAY_US, SECOND_US
from egressd.wire.sender import Sender
from egressd.wire.table import RecentTable

LOOKED: Final = 4_096  # shared addresses of which it is remembered when the pairs there were looked at
UNANSWERED: Final = 8_192  # contacts whose answer is waited for: seconds, or it never comes
MAX_CLIENTS: Final = 65_536  # addresses remembered as clients; beyond it those that were not seen for longest go
NOBODY: Final = FlowKey(TCP, b"", 0, b"", 0)


class Casework:
    """Policy, blocks, watch and campaigns, over sightings."""

    def __init__(
        self,
        intel: Intel,
        settings: PolicySettings,
        on_event: Callable[[Event], None],
        *,
        enforced: bool = False,
        history: int = DEFAULT_HISTORY,
        sensors: bool = False,
    ) -> None:
        """`enforced`: what is decided is in the kernel too, so that answers from blocked targets are leaks.
        `history` bounds the pairs of client and name that a retro-hunt can find. `sensors`: others than our own tap
        tell of contacts too, so that each is remembered until they have told."""
        self._suffixes = intel.suffixes
        own = own_prefixes(intel.allowances.nat64)
        self.resolutions = Resolutions(intel.suffixes, nat64=own)
        self.correlator = Correlator(intel.index, intel.allowances, self.resolutions, intel.suffixes)
        self.blocks = Blocks(own)
        self.policy = Policy(settings, self.blocks, intel.protected, intel.allowances, intel.shared)
        self.contacts = Contacts()
        self.agreement: Agreement | None = Agreement() if sensors else None
        self.hearing = Hearing()
        self.watch = Watch()
        self.blocks.on_remove = self.watch.forget
        self.measures_volume = False  # whether data out is measured, so that "not observed" of it means something
        self.enforced = enforced  # of the blocks that are decided from now on
        self.on_answered: Callable[[Incident], None] | None = None  # told of each answer that an incident counts
        self.devices = Devices()
        self.resolutions.machine_of = self.devices.machine_of
        self.acquaintances = Acquaintances()
        self.campaigns = Campaigns(self.devices)
        self.campaigns.on_fold = self._folded
        self.campaigns.shares.knew = self.acquaintances.knew
        self.history = History(history)
        self.blind = BlindSpots(intel.resolvers)
        self.behaviour = Behaviour(
            intel.behaviour, intel.suffixes, intel.guard, intel.protected, intel.resolvers, self.resolutions
        )
        self.behaviour.ground.machine_of = self.devices.machine_of
        self.behaviour.may_resolve = self._may_resolve
        self.observations: dict[str, int] = {}
        # Who sent the frame at hand, if observations come from packets: see Dissector.sender.
        self.sender_of: Callable[[bytes], Sender | None] | None = None
        # When each was last looked at: who sent its frame.
        self.clients: RecentTable[bytes, int] = RecentTable(MAX_CLIENTS)
        self.machines: RecentTable[bytes, int] = RecentTable(MAX_CLIENTS)  # as those count where many are needed
        self.from_outside = 0  # observations of others' contacts with servers of ours
        self.unasked_answers = 0  # DNS answers that nobody asked for: they prove nothing about anybody
        self._unanswered: RecentTable[FlowKey, str] = RecentTable(UNANSWERED)
        self._looked: RecentTable[bytes, tuple[int, int]] = RecentTable(LOOKED)
        self._proxied = Proxied()
        self._on_event = on_event
        self._calendar = Calendar(intel.index.pending_after(0))
        # Of the observation at hand: what was found to be a new contact or not, and the incidents that it counted for.
        self._fresh: dict[str, bool] = {}
        self._counted: set[str] = set()

    def suspect(self, evidence: Evidence) -> None:
        """What a client does speaks for harm though no list names the destination: an incident, which is what tells of
        it, and what a rule asks of a person or does to the client; never a block for everybody."""
        self.behaviour.board.note(evidence)  # counts with what the detectors see
        sighting = sighting_of_evidence(evidence)
        incident, opened = self.campaigns.assign(sighting)
        self.campaigns.see(incident, sighting)
        self._on_event(sighting)
        if opened:
            self._on_event(incident)
        if self.policy.block_of(sighting) is None:
            self._decide(sighting)

    def finish(self) -> None:
        """The source has ended: report each incident's totals."""
        self.campaigns.recognise()
        for incident in self.campaigns.incidents.values():
            self._on_event(incident)

    def _sender(self, client: bytes, ts_us: int) -> None:
        sender = self.sender_of(client) if self.sender_of is not None else None
        if sender is not None:
            self._spoke(sender.mac, client, ts_us, sender.is_attached)

    def _spoke(self, mac: bytes, client: bytes, ts_us: int, is_attached: bool) -> None:
        self.devices.spoke(mac, client, ts_us, is_attached=is_attached)
        self._met(client, ts_us, mac if is_attached else b"")

    def _met(self, client: bytes, ts_us: int, mac: bytes = b"") -> None:
        """A client is there."""
        self.acquaintances.met(client, ts_us, mac)

    def _may_resolve(self, address: bytes) -> bool:
        resolvers = self.policy.settings.resolvers
        return not resolvers or address in resolvers

    def is_new(self, seen: Observation, reached: str) -> bool:
        """Whether this observation is the first sign of a contact; asked twice it answers the same."""
        new = self._fresh.get(reached)
        if new is None:
            contacts = self.hearing.contacts_of(seen.sensor) if seen.sensor else self.contacts
            new = self._fresh[reached] = contacts.is_new(seen.kind, seen.flow, reached, seen.ts_us)
        return new

    # -- sightings, decisions, attempts

    def _handle(self, sighting: Sighting, new: bool, seen: Observation | None) -> None:
        """Open or update the incident, decide where nothing was decided yet, count an attempt where it was. `seen` is
        None when the sighting comes from history."""
        if seen is not None:
            self._sender(sighting.flow.client, sighting.ts_us)  # an address that is another device's now
        incident, opened = self.campaigns.assign(sighting)
        self.campaigns.see(incident, sighting)
        via = sighting.via
        if seen is not None:
            if via not in (DNS_QUERY, DNS_ANSWER):
                new = self.is_new(seen, sighting.campaign) and new
            new = new and incident.id not in self._counted
            new = self._agree(incident, sighting, new, seen)
        sighting.new = new
        if new:
            self.campaigns.count(incident, sighting)
            if via in (TLS_SNI, HTTP_HOST, SOCKS_HOST):
                self._answered(incident, sighting.count)  # nothing is sent before the handshake is complete
            elif via in (FLOW, QUIC_SNI):
                self._unanswered.put(sighting.flow, incident.id)
        self._on_event(sighting)
        if opened:
            self._on_event(incident)
        block = self.policy.block_of(sighting)
        if block is None:
            self._decide(sighting)
            return
        if block.sole:
            self._meet_alone(block, sighting)
        if block.waits or block.mode != self.policy.site.strongest:
            decision = self.policy.decide_again(block, sighting, self._others_at(sighting), *self._hit(sighting))
            if decision is not None:
                self._calendar.watch(block)
                self._put_in_force(block, decision)
        self._ran_into(block, sighting)
        if new and seen is not None and not block.waits:  # a question stops nothing
            incident.attempts += 1
            self.campaigns.tried(sighting)
            stopped = block.enforced and self.blocks.stops(sighting.flow.client, sighting.flow.server, sighting.ts_us)
            stopped = stopped and self.policy.site.is_armed(sighting.flow.client)
            self._on_event(self.watch.attempt(block, sighting, stopped))
            if via == FLOW and block.resting:
                rested = block.resting.get(sighting.flow.server)
                if rested is not None:
                    self._extend(sighting, sighting.flow.server, rested)

    def _decide(self, sighting: Sighting) -> None:
        """Nothing was decided about it yet."""
        machine = self.devices.machine_of(sighting.flow.client)
        decision = self.policy.decide(sighting, self._others_at(sighting), *self._hit(sighting), machine)
        if decision is None or (decision.action == "alert" and sighting.via == BEHAVIOUR):
            return
        block = self.blocks.by_id.get(decision.id)
        if block is None:
            self._on_event(decision)
            return
        self._calendar.watch(block)
        self._put_in_force(block, decision)
        self._ran_into(block, sighting)

    def _meet_alone(self, block: Block, sighting: Sighting) -> None:
        """A client meets what is blocked for one client alone."""
        machine = self.devices.machine_of(sighting.flow.client)
        if machine != self.devices.machine_of(block.sole):
            decision = self.policy.widen(block, sighting, self._others_at(sighting), *self._hit(sighting), machine)
            if decision is not None:
                self._on_event(decision)

    def _put_in_force(self, block: Block, decision: Decision) -> None:
        enforced = self.enforced and not block.waits and decision.mode == self.policy.site.strongest
        self.blocks.enforce(block, enforced, decision.ts_us)
        self._on_event(decision)

    def _hit(self, sighting: Sighting) -> tuple[int, int]:
        """How many clients hit the same, of how many known."""
        campaign = self.campaigns.campaigns.get(sighting.campaign)
        return len(campaign.incidents) if campaign is not None else 1, len(self.machines)

    def _ran_into(self, block: Block, sighting: Sighting) -> None:
        """A client met a block: one that too many meet is taken back and waits for a person (detect/budgets.py)."""
        if block.waits or block.final or sighting.ts_us - block.created_us >= DAY_US:
            return
        clients = block.clients
        machine = self.devices.machine_of(sighting.flow.client)
        if machine in clients or len(clients) >= MAX_CLIENTS:
            return
        clients.add(machine, self.acquaintances.knew(machine, sighting.flow.client, block.created_us))
        decision = self.policy.roll_back(block, sighting, clients.weight, len(self.machines))
        if decision is not None:
            clients.clear()
            self._on_event(decision)

    def _others_at(self, sighting: Sighting) -> list[str]:
        """Innocent sites on the address that matched: a block of a listed address would cut them off too."""
        if sighting.match.level != "address":
            return []
        return self.correlator.co_tenants(sighting.address, "", sighting.ts_us)

    def _agree(self, incident: Incident, sighting: Sighting, own: bool, seen: Observation) -> bool:
        """Whether a sighting is a new contact, `own` saying whether it is one to the sensor that tells of it: another
        may have told of it before."""
        source = seen.sensor or TAP
        sighting.source = source
        sighting.own = own
        if own:
            self._counted.add(incident.id)
            self.campaigns.tell(incident, sighting)
        agreement = self.agreement
        if agreement is None:
            return own
        client = sighting.flow.client
        reached = sighting.match.registered_domain or sighting.match.indicator.value
        new = own and not agreement.tell(source, sighting.via, sighting.flow, reached, sighting.ts_us)
        sighting.told_by = agreement.told_by(client, reached, sighting.ts_us)
        sighting.sources = max(1, len(sighting.told_by))
        return new

    def _folded(self, kept: Incident, gone: Incident) -> None:
        """One device is behind two incidents: the younger says where it went."""
        self._on_event(gone)

    def _shared_history(self, sighting: Sighting, address: bytes) -> None:
        """A name of another campaign lived on an address that this one uses."""
        if self.policy.is_everybodys(address, sighting.ts_us):
            return
        domain = sighting.match.registered_domain
        others = self.resolutions.co_tenants(address, frozenset((domain,)), sighting.ts_us)
        tie_by_address(self.campaigns, sighting.campaign, domain, address, others)

    def _extend(self, sighting: Sighting, address: bytes, evidence: str) -> None:
        if sighting.match.registered_domain:
            self._shared_history(sighting, address)
        block = self.policy.block_of(sighting)
        if block is None or block.target.kind == "url":
            return
        if evidence != E0 and block.target.kind in ("address", "network"):
            return
        if self.policy.is_settled(block, address, sighting.flow.client):
            return
        others = self.correlator.co_tenants(address, sighting.match.registered_domain, sighting.ts_us)
        others = [name for name in others if name != sighting.name]
        machine = self.devices.machine_of(sighting.flow.client)
        decision = self.policy.extend(block, sighting, address, evidence, others, machine)
        if decision is None:
            return
        self._on_event(decision)
        if decision.action == "extend" and decision.rule == "address":
            for holder in self.blocks.holders(address):
                self.campaigns.meet(block.campaign, holder.campaign, f"both used {render_address(address)}")

    # -- replies

    def _reply(self, seen: Observation) -> None:
        id_ = self._unanswered.pop(seen.flow)
        incident = self.campaigns.incidents.get(self.campaigns.current(id_)) if id_ else None
        if incident is not None:
            self._answered(incident, 1)
        leak = self.watch.answered(seen.flow, seen.ts_us, seen.number)
        if leak is not None:
            self._on_event(leak)

    def _answered(self, incident: Incident, count: int) -> None:
        incident.answered += count
        if self.on_answered is not None:
            for _ in range(count):
                self.on_answered(incident)

    # -- indicators come and go

    def _indicators_change(self, ts_us: int) -> None:
        """Everything that was due until now, in order of time."""
        calendar = self._calendar
        while calendar.next_us <= ts_us:
            due_us = calendar.next_us
            lapsing = calendar.lapsing()
            if lapsing:
                block = self.blocks.by_id.get(lapsing)
                if block is not None and 0 < block.ends_us <= due_us:
                    why = Sighting(due_us, 0, NOBODY, "", block.match, FLOW, "", False, 0, due_us, due_us)
                    self._on_event(self.policy.lift(block, why, "the time that its rule gives it is over", "expired"))
                elif block is not None and 0 < block.match.indicator.expires_s * SECOND_US <= due_us:
                    self._lapse(block, due_us)
            else:
                self._arrive(calendar.arriving(ts_us), due_us)

    def _arrive(self, arrived: set[Indicator], arrival_us: int) -> None:
        """Retro-hunt: indicators came into force; who contacted them before? Notice comes hours after that."""
        for _ in hunt(self, arrived.__contains__, arrival_us, sieve_for(arrived)):
            pass

    def _lapse(self, block: Block, expires_us: int) -> None:
        """The indicator of a block has expired: another one takes the block over, or it ends."""
        successor = self._match_target(block.target, expires_us)
        if successor is not None and is_carried(block.target, block.match, successor):
            block.match = successor
            self._calendar.watch(block)
            return
        why = Sighting(expires_us, 0, NOBODY, "", block.match, FLOW, "", False, 0, expires_us, expires_us)
        self._on_event(self.policy.lapse(block, why))

    def _match_target(self, target: Target, ts_us: int) -> Match | None:
        correlator = self.correlator
        return match_target(correlator.index, target, ts_us // SECOND_US, correlator.allowances)
