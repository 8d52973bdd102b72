"""What other sensors tell of: matched, decided and counted as our own tap's observations are, but learned from less.

A line in a log is somebody's word. It accuses, as a client's own SNI does; it proves neither that an address belongs to
a name, nor who else lives there. So nothing is learned from it about who is where, and blind spots are the tap's alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressd.detect.contacts import SAME_QUESTION_US, Contacts
from egressd.detect.correlator import Correlator, Hit
from egressd.detect.resolutions import ANSWER_WITHIN_US
from egressd.model import DNS_ANSWER, DNS_QUERY, FLOW, DnsMessage, HttpRequest, Observation

if TYPE_CHECKING:
    from egressd.detect.engine import Engine

MAX_SENSORS: Final = 32  # the configuration allows as many
MAX_CONTACTS: Final = 8_192  # conversations, and questions, that are remembered of each sensor
MAX_CLIENTS: Final = 65_536


class Hearing:
    """What is remembered of each other sensor. `observations` counts what each told of; `clients` are those that
    others than our own tap told of, bounded."""

    def __init__(self) -> None:
        self.observations: dict[str, int] = {}
        self.clients: set[bytes] = set()
        self.unasked_answers = 0
        self._contacts: dict[str, Contacts] = {}

    def contacts_of(self, sensor: str) -> Contacts:
        """What one sensor told of: each knows a new contact from one more sign of the same by its own lines."""
        contacts = self._contacts.get(sensor)
        if contacts is None:
            if len(self._contacts) >= MAX_SENSORS:
                self._contacts.clear()
            contacts = self._contacts[sensor] = Contacts(MAX_CONTACTS)
        return contacts

    def count(self, seen: Observation) -> None:
        """Another observation of another sensor."""
        sensor = seen.sensor
        if sensor in self.observations or len(self.observations) < MAX_SENSORS:
            self.observations[sensor] = self.observations.get(sensor, 0) + 1
        if len(self.clients) < MAX_CLIENTS:
            self.clients.add(seen.flow.client)

    def is_asked(self, seen: Observation) -> bool:
        """False for an answer to a question that its sensor did not tell of: anybody can send one to anybody, and what
        sees it on the wire writes it down."""
        if seen.kind != DNS_ANSWER or seen.detail is None:
            return True
        contacts = self.contacts_of(seen.sensor)
        if contacts.was_asked(seen.flow.client, seen.name, seen.ts_us, ANSWER_WITHIN_US):
            return True
        self.unasked_answers += 1
        return False


def names_of(seen: Observation) -> list[str]:
    """The names that are asked about."""
    names = [seen.name] if seen.name else []
    if isinstance(seen.detail, DnsMessage):
        names += [question.name for question in seen.detail.questions if question.name]
    return names


def is_direct(seen: Observation) -> bool:
    """Whether the flow's server is the one that was named, and not a proxy or left out of the log."""
    if not seen.flow.server or seen.note == "proxied":
        return False
    detail = seen.detail  # absolute-form and CONNECT go to proxies, RFC 9112 section 3.2
    return not isinstance(detail, HttpRequest) or detail.target.startswith("/") or detail.target == "*"


def hits_of(correlator: Correlator, seen: Observation, attributed: str = "") -> list[Hit]:
    """Everything that matches in what another sensor tells of. An answer without its message stands for a name that it
    leads to."""
    if seen.kind == DNS_ANSWER and seen.detail is None:
        kind = DNS_QUERY
        return correlator.match(Observation(kind, seen.ts_us, seen.number, seen.flow, seen.name, seen.raw_name, None))
    if seen.kind in (DNS_QUERY, DNS_ANSWER):
        return correlator.match(seen)
    return correlator.match(seen, is_direct(seen), attributed or seen.name)


def hear(engine: Engine, seen: Observation) -> None:
    """Take one observation of another sensor; `engine` emits whatever follows from it."""
    engine.hearing.count(seen)
    if seen.kind in (DNS_QUERY, DNS_ANSWER):
        _question(engine, seen)
    else:
        _contact(engine, seen)


def keep_in_mind(engine: Engine, seen: Observation) -> None:
    """Another engine takes this observation; should this one see the contact itself, it is to know that it is told."""
    agreement = engine.agreement
    if agreement is None:
        return
    contacts = engine.hearing.contacts_of(seen.sensor)
    flow = seen.flow
    for hit in hits_of(engine.correlator, seen):
        reached = hit.match.registered_domain or hit.match.indicator.value
        if seen.kind in (DNS_QUERY, DNS_ANSWER):
            new = contacts.is_new_question(flow.client, hit.name, seen.ts_us, False)
        else:
            new = contacts.is_new(seen.kind, flow, reached, seen.ts_us)
        if new:
            agreement.tell(seen.sensor, seen.kind, flow, reached, seen.ts_us)


def _question(engine: Engine, seen: Observation) -> None:
    contacts = engine.hearing.contacts_of(seen.sensor)
    if not engine.hearing.is_asked(seen):
        return
    hits = hits_of(engine.correlator, seen)
    names = [hit.name for hit in hits]
    if seen.kind == DNS_QUERY or seen.detail is None:
        names += names_of(seen)
    within_us = SAME_QUESTION_US if seen.kind == DNS_QUERY else ANSWER_WITHIN_US
    client = seen.flow.client
    fresh: dict[str, bool] = {}
    for name in names:
        if name not in fresh:
            asked = contacts.was_asked(client, name, seen.ts_us, within_us)
            fresh[name] = not asked and contacts.is_new_question(client, name, seen.ts_us, False)
    for hit in hits:
        engine.sight(seen, hit, fresh[hit.name])
    for name, new in fresh.items():
        if all(hit.name != name for hit in hits):
            engine.history.record(seen.flow, name, seen.ts_us, seen.number, DNS_QUERY, new, b"", seen.sensor)


def _contact(engine: Engine, seen: Observation) -> None:
    flow = seen.flow
    name = seen.name
    if seen.kind == FLOW:
        contacts = engine.hearing.contacts_of(seen.sensor)
        if not contacts.knows(flow, seen.ts_us):
            contacts.begins(flow, seen.ts_us)
        if not flow.server:
            return
        name = engine.correlator.attributed(seen)
    direct = is_direct(seen)
    hits = hits_of(engine.correlator, seen, name)
    for hit in hits:
        reached = hit.match.registered_domain or hit.name
        engine.sight(seen, hit, engine.is_new(seen, reached), direct and seen.kind != FLOW)
    if hits:
        return
    if seen.kind == FLOW:
        engine.blocked_flow(seen)
    if name:
        new = engine.is_new(seen, engine.resolutions.domain_of(name))
        server = flow.server if direct else b""
        engine.history.record(flow, name, seen.ts_us, seen.number, seen.kind, new, server, seen.sensor)
    elif direct:
        new = engine.is_new(seen, "")
        engine.history.record(flow, flow.server, seen.ts_us, seen.number, seen.kind, new, flow.server, seen.sensor)
