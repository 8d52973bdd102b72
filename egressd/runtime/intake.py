"""What packet processes send, taken in: decisions to the rulings, sums to incidents and watches, events to the log.

Sums are the truth of every count; events tell some of it one by one. Ids of incidents and campaigns are given here,
where all packet processes come together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from egressd.clock import Clock
from egressd.detect.behaviour.sighting import sighting_of_evidence
from egressd.detect.campaigns import Campaigns
from egressd.detect.evidence import Evidence
from egressd.detect.incident_sums import add_name
from egressd.detect.mac import parse_mac
from egressd.detect.stages import stages_of
from egressd.errors import Malformed
from egressd.intel.networks import render_address
from egressd.model import (
    BEHAVIOUR,
    DNS_ANSWER,
    DNS_QUERY,
    Attempt,
    Decision,
    FlowKey,
    Incident,
    Match,
    Sighting,
    Target,
)
from egressd.notify.eve import render_event
from egressd.runtime.bulk_rows import HistoryRow, Tenants, unpack_history, unpack_spoken, unpack_tenants
from egressd.runtime.in_force import FOUND_OUT, Register
from egressd.runtime.ledger_copies import CampaignCopies, copy_incident, write_incidents
from egressd.runtime.messages import MAX_SOURCES, unpack_event
from egressd.runtime.rulings import Rulings
from egressd.runtime.scribe import Scribe
from egressd.runtime.tally import Contacts, Tried, unpack_contacts, unpack_tried
from egressd.runtime.watched import Watched, WatchSum
from egressd.store import attempts
from egressd.store.attempts import AttemptCount, Batch


class Tellers(Protocol):
    """Who is told: the event log, and people."""

    def event(self, record: dict[str, Any]) -> None:
        """A rendered event."""

    def incident(self, incident: Incident, outcome: str, segment: str, hosts: int) -> None:
        """An incident was opened; what was done about it, and how many hosts its campaign has now."""

    def attempt(self, attempt: Attempt, segment: str) -> None:
        """A client new to a block tried, or a leak was seen."""

    def decision(self, decision: Decision) -> None:
        """Policy decided."""


class Intake:
    """Takes batches in order. `segment_of` names a client's segment; `on_history` and `on_tenants` take what goes
    elsewhere, `on_pushed` what the fast lane put into the kernel; `run_id` tells this daemon's run from others."""

    def __init__(
        self,
        register: Register,
        rulings: Rulings,
        campaigns: Campaigns,
        scribe: Scribe,
        clock: Clock,
        tellers: Tellers,
        segment_of: Callable[[bytes], str],
        on_history: Callable[[list[HistoryRow]], None],
        on_tenants: Callable[[int, Tenants], None],
        on_pushed: Callable[[Target, str], None],
        run_id: str,
    ) -> None:
        self.watched = Watched()
        self.leaks: dict[str, int] = {}  # by incident
        self._merges = 0  # of campaigns and incidents, when `leaks` was put together last
        self.counts = {"sightings": 0, "attempts": 0, "leaks": 0, "contacts": 0, "malformed": 0}
        self.levels: dict[str, int] = {}
        self.last_attempt_us = 0
        self._register = register
        self._rulings = rulings
        self._campaigns = campaigns
        self._scribe = scribe
        self.copies = CampaignCopies(scribe)
        self._clock = clock
        self._tellers = tellers
        self._segment_of = segment_of
        self._on_history = on_history
        self._on_tenants = on_tenants
        self._on_pushed = on_pushed
        self._run_id = run_id
        self._batches: dict[int, int] = {}
        self.on_met: Callable[[Match, int], None] = _nobody  # told of matches with how many contacts they met
        self.on_reached: Callable[[bytes, str, bytes, int], None] = _nowhere  # a listed domain, by whom and where
        # Told of a decision that a client new to it ran into, of that client, of all that did, and when.
        self.on_client: Callable[[str, bytes, Mapping[bytes, WatchSum], int], None] = _unheard
        self.lets_through: Callable[[bytes, int], bool] = _never  # whether nothing stops a client's tries at a time
        self.on_spoken: Callable[[bytes, int, bytes], None] = _unmet  # told which client was there, when, by which MAC
        self.on_domain: Callable[[str], None] = _nothing  # told of the domains of incidents that were opened
        self._opened: list[str] = []
        self._tried_now: dict[tuple[str, bytes], int] = {}  # told in the batch at hand

    def take(self, number: int, batch: dict[str, Any]) -> None:
        """Take a batch of packet process `number`. Raises Malformed; what came before the fault is taken."""
        self._tried_now.clear()
        for mac, client, is_attached, ts_us in unpack_spoken(batch.get("spoken", [])):
            self._campaigns.devices.spoke(mac, client, ts_us, is_attached=is_attached)
            self.on_spoken(client, ts_us, mac if is_attached else b"")
        for packed in _list(batch.get("events")):
            event = unpack_event(packed)
            if isinstance(event, Decision):
                self._decision(number, event)
            elif isinstance(event, Sighting):
                self._sighting(event)
            else:
                self._attempt(event)
        changed: dict[str, Incident] = {}
        for client, row in unpack_contacts(batch.get("contacts", [])):
            incident = self._contacts(client, row)
            if incident.id:
                changed[incident.id] = incident
        self._write_incidents(changed)
        self._tried(number, unpack_tried(batch.get("tried", [])))
        self._tell_opened()
        history = batch.get("history")
        if history is not None:
            self._on_history(unpack_history(history))
        tenants = batch.get("tenants")
        if tenants is not None:
            self._on_tenants(number, unpack_tenants(tenants))

    # -- events

    def _decision(self, origin: int, decision: Decision) -> None:
        stands = self._sighting_of(decision)
        if stands is not None:
            incident, _ = self._assign(stands)
            decision.campaign = incident.campaign
        if decision.mode == "enforce" and decision.action in ("block", "extend"):
            for target in decision.targets:
                if target.kind in FOUND_OUT:
                    self._on_pushed(target, decision.id)
        self._rulings.of_policy(origin, decision)
        self._tellers.event(
            render_event(decision, segment=self._segment_of(decision.client) if decision.client else "")
        )
        self._tellers.decision(decision)

    def _sighting_of(self, decision: Decision) -> Sighting | None:
        """A sighting for the decision's campaign; None when nobody's traffic led to it, or that of an innocent, for
        whose sake something is given free."""
        if not decision.client or decision.action == "withdraw":
            known = self._register.by_id.get(decision.id)
            decision.campaign = known.campaign if known is not None else ""
            return None
        flow = FlowKey(0, decision.client, 0, b"", 0)
        return _sighting(decision.ts_us, flow, decision.name, decision.match)

    def suspect(self, evidence: Evidence) -> None:
        """What a client does speaks for harm though no list names the destination: an incident, and no block."""
        sighting = sighting_of_evidence(evidence)
        incident, _ = self._assign(sighting)
        self._campaigns.see(incident, sighting)
        self.levels[BEHAVIOUR] = self.levels.get(BEHAVIOUR, 0) + 1
        self.counts["sightings"] += 1
        self._tellers.event(render_event(sighting, segment=self._segment_of(evidence.client)))
        if incident.id:
            self._write_incidents({incident.id: incident})
        self._tell_opened()

    def _sighting(self, sighting: Sighting) -> None:
        domain = sighting.match.registered_domain
        if domain and sighting.via not in (DNS_QUERY, DNS_ANSWER):
            self.on_reached(sighting.flow.client, domain, sighting.flow.server, sighting.ts_us)
        self._assign(sighting)
        self._tellers.event(render_event(sighting, segment=self._segment_of(sighting.flow.client)))

    def _attempt(self, attempt: Attempt) -> None:
        attempt.decision_id = self._rulings.known_as(attempt.decision_id)
        sighting = _sighting(attempt.ts_us, attempt.flow, attempt.name, attempt.match)
        self._assign(sighting)
        attempt.incident = sighting.incident
        attempt.campaign = sighting.campaign
        self._campaigns.tried(sighting)
        key = (attempt.decision_id, attempt.flow.client)
        known = self.watched.of(attempt.decision_id).get(attempt.flow.client)
        attempt.first = attempt.first and known is None
        before = known.count if known is not None else 0
        if not attempt.leak:
            self._tried_now[key] = self._tried_now.get(key, 0) + 1
        attempt.count = before + self._tried_now.get(key, 0)  # of those told one by one; sums are exact
        segment = self._segment_of(attempt.flow.client)
        self._tellers.event(render_event(attempt, segment=segment))
        if attempt.first or attempt.leak:
            self._tellers.attempt(attempt, segment)

    # -- sums

    def _contacts(self, client: bytes, row: Contacts) -> Incident:
        flow = FlowKey(0, client, 0, b"", 0)
        sighting = _sighting(row.first_us, flow, "", row.match)
        sighting.last_us = row.last_us
        sighting.retro = row.retro
        incident, _ = self._assign(sighting)
        if row.attempts:
            self._campaigns.tried(sighting)
        self._campaigns.contacted(incident, row.contacts)
        incident.attempts += row.attempts
        if row.attempts and self.lets_through(client, row.last_us):
            incident.let_through += row.attempts
        incident.answered += row.answered
        for name, count in row.names.items():
            add_name(incident, name, count)
        for via, count in row.via.items():
            incident.via[via] = incident.via.get(via, 0) + count
        for source, count in row.sources.items():
            if source in incident.sources or len(incident.sources) < MAX_SOURCES:
                incident.sources[source] = incident.sources.get(source, 0) + count
        if row.leaks and incident.id:
            self.leaks[incident.id] = self.leaks.get(incident.id, 0) + row.leaks
        level = row.match.level
        self.levels[level] = self.levels.get(level, 0) + sum(row.via.values())
        self.counts["contacts"] += row.contacts
        self.on_met(row.match, row.contacts)
        self.counts["attempts"] += row.attempts
        self.counts["leaks"] += row.leaks
        self.counts["sightings"] += sum(row.via.values())
        return incident

    def _tried(self, number: int, rows: list[tuple[str, bytes, Tried]]) -> None:
        if not rows:
            return
        counts: list[AttemptCount] = []
        for told_id, client, row in rows:
            decision_id = self._rulings.known_as(told_id)
            self._watch(decision_id, client, row)
            self.last_attempt_us = max(self.last_attempt_us, row.last_us)
            decision = self._register.by_id.get(decision_id)
            left, leaks = row.count, row.leaks
            passes = self.lets_through(client, row.last_us)
            for address, count in row.where.items():
                if decision is None:
                    break
                text = render_address(address)
                pair = Target("pair", f"{render_address(client)}>{text}")
                held = self._register.tried(decision, pair, Target("address", text), count, row.last_us)
                if held is not None:
                    through = count if passes else 0
                    counts.append(
                        AttemptCount(decision_id, client, held.target, row.first_us, row.last_us, count, leaks, through)
                    )
                    left, leaks = left - count, 0
            if left > 0 or leaks:
                left = max(0, left)
                through = left if passes else 0
                counts.append(AttemptCount(decision_id, client, None, row.first_us, row.last_us, left, leaks, through))
        batch = self._batches[number] = self._batches.get(number, 0) + 1
        self._scribe.put(
            attempts.record_batch, Batch(f"{self._run_id}-{number}", batch, tuple(counts)), self._clock.now_us()
        )

    def _watch(self, decision_id: str, client: bytes, row: Tried) -> None:
        if decision_id in self._register.by_id and self.watched.add(decision_id, client, row):
            self.on_client(decision_id, client, self.watched.of(decision_id), row.first_us)

    # -- incidents

    def _assign(self, sighting: Sighting) -> tuple[Incident, bool]:
        incident, opened = self._campaigns.assign(sighting)
        if opened:
            segment = self._segment_of(incident.client)
            self._write_incidents({incident.id: incident})
            self._tellers.event(self.told(incident, segment))
            self._opened.append(incident.id)
        return incident, opened

    def told(self, incident: Incident, segment: str, state: str = "opened", at_us: int = 0) -> dict[str, Any]:
        """An incident as an event, with what is known of its device and campaign."""
        campaigns = self._campaigns
        campaign = campaigns.campaigns[campaigns.current(incident.campaign)]
        name = campaigns.devices.name_of(parse_mac(incident.device))
        may_be = campaigns.candidates.of(campaign.id)
        return render_event(incident, "", segment, state, name, stages_of(campaign), may_be, at_us)

    def write(self, changed: Iterable[Incident]) -> None:
        """Keep incidents as they are now."""
        self._write_incidents({one.id: one for one in changed})

    def _tell_opened(self) -> None:
        """When the batch is taken it is known what was done about the incidents that it opened."""
        opened, self._opened = self._opened, []
        for id_ in opened:
            found = self._campaigns.incidents.get(self._campaigns.current(id_))
            if found is not None and found.match.registered_domain:
                self.on_domain(found.match.registered_domain)
        for id_ in dict.fromkeys(self._campaigns.current(one) for one in opened):
            incident = self._campaigns.incidents.get(id_)
            if incident is not None:
                hosts = len(self._campaigns.campaigns[incident.campaign].incidents)
                outcome = self._rulings.outcome(incident.match, incident.client, incident.names)
                self._tellers.incident(incident, outcome, self._segment_of(incident.client), hosts)

    def closed(self, id_: str) -> None:
        """An incident is closed: how many leaks it had is in the ledger."""
        self._leaks_of(id_)  # with those of the incidents that it took over
        self.leaks.pop(id_, None)

    def _leaks_of(self, id_: str) -> int:
        """Leaks of an incident and of those that it took over."""
        if self._merges != self._campaigns.merges:
            self._merges = self._campaigns.merges
            before, self.leaks = self.leaks, {}
            for one, count in before.items():
                current = self._campaigns.current(one)
                self.leaks[current] = self.leaks.get(current, 0) + count
        return self.leaks.get(id_, 0)

    def _write_incidents(self, changed: dict[str, Incident]) -> None:
        if not changed:
            return
        campaigns = {one.campaign: self._campaigns.campaigns[one.campaign] for one in changed.values()}
        self._scribe.put(
            write_incidents,
            tuple(map(self.copies.copy, campaigns.values())),
            tuple(
                (copy_incident(one), self._segment_of(one.client), self._leaks_of(one.id)) for one in changed.values()
            ),
        )


def _unheard(decision_id: str, client: bytes, clients: Mapping[bytes, WatchSum], ts_us: int) -> None:
    """Nobody counts who runs into what."""


def _never(client: bytes, ts_us: int) -> bool:
    """As in a test of nothing but sums: whatever is tried is stopped."""
    return False


def _unmet(client: bytes, ts_us: int, mac: bytes) -> None:
    """Nobody remembers who was there."""


def _nobody(match: Match, contacts: int) -> None:
    """Nobody counts what lines met."""


def _nowhere(client: bytes, domain: str, address: bytes, ts_us: int) -> None:
    """Nobody wants to know where."""


def _nothing(domain: str) -> None:
    """Nobody waits for that."""


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed("events are no list")
    return value


def _sighting(ts_us: int, flow: FlowKey, name: str, match: Match) -> Sighting:
    return Sighting(ts_us, 0, flow, name, match, "flow", "", False, 0, ts_us, ts_us)
