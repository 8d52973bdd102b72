"""What the packet process sums up for the core: every contact, attempt and leak counts, however many there are.

Events are told one by one only up to a rate; these sums are always told, so no count is ever lost to a flood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from egressd.errors import Malformed
from egressd.model import DNS_ANSWER, DNS_QUERY, Attempt, Incident, Match, Sighting
from egressd.runtime.messages import MAX_SOURCES, VIAS, Values, is_sensor, pack_match

MAX_NAMES: Final = 16  # told of one incident at a time
MAX_PLACES: Final = 64  # addresses told of one client's tries; those at others count without one
TAKEN_BYTES: Final = 1 << 20  # about so much at a time; the rest comes with the next batch
ROW_BYTES: Final = 700  # of a row without names: the indicator's texts make most of it
MAX_ROWS: Final = 20_000  # between two batches; a flood of forged clients is told in part, and what is left counted


Key = TypeVar("Key")
Row = TypeVar("Row")


class Contacts:
    """One client's contacts with what one indicator covers."""

    __slots__ = (
        "answered", "attempts", "contacts", "first_us", "last_us", "leaks", "match", "names", "retro", "sources", "via",
    )  # fmt: skip

    def __init__(self, match: Match, first_us: int, retro: bool) -> None:
        self.match = match
        self.contacts = 0
        self.attempts = 0
        self.leaks = 0
        self.answered = 0
        self.first_us = first_us
        self.last_us = first_us
        self.retro = retro
        self.names: dict[str, int] = {}
        self.via: dict[str, int] = {}
        self.sources: dict[str, int] = {}


class Tried:
    """One client's attempts at one blocked target; `where` are the addresses tried and how often they were."""

    __slots__ = ("count", "first_us", "last_us", "leaks", "where")

    def __init__(self, first_us: int) -> None:
        self.count = 0
        self.leaks = 0
        self.first_us = first_us
        self.last_us = first_us
        self.where: dict[bytes, int] = {}


def key_of(match: Match) -> str:
    """What ties contacts: the registered domain, or what is listed where there is none."""
    return match.registered_domain or match.indicator.value


class Tally:
    """Sums since they were taken last, by (client, what it reached) and by (decision, client)."""

    def __init__(self) -> None:
        self.contacts: dict[tuple[bytes, str, str], Contacts] = {}
        self.tried: dict[tuple[str, bytes], Tried] = {}
        self.uncounted = 0

    def __len__(self) -> int:
        return len(self.contacts) + len(self.tried)

    def sighting(self, sighting: Sighting) -> None:
        """Count a sighting; contacts only when it is a new one."""
        row = self._row(sighting.flow.client, sighting.match, sighting.first_us, sighting.retro)
        if row is None:
            return
        row.first_us = min(row.first_us, sighting.first_us)
        row.last_us = max(row.last_us, sighting.last_us)
        row.via[sighting.via] = row.via.get(sighting.via, 0) + sighting.count
        if sighting.own:
            row.sources[sighting.source] = row.sources.get(sighting.source, 0) + sighting.count
        if sighting.new:
            row.contacts += sighting.count
            name = sighting.name or sighting.match.indicator.value
            if name in row.names or len(row.names) < MAX_NAMES:
                row.names[name] = row.names.get(name, 0) + sighting.count

    def attempt(self, attempt: Attempt) -> None:
        """Count an attempt, or the leak that it turned out to be."""
        client = attempt.flow.client
        row = self._row(client, attempt.match, attempt.ts_us, False)
        tried = self.tried.get((attempt.decision_id, client))
        if tried is None:
            if len(self.tried) >= MAX_ROWS:
                self.uncounted += 1
                return
            tried = self.tried[(attempt.decision_id, client)] = Tried(attempt.ts_us)
        tried.last_us = max(tried.last_us, attempt.ts_us)
        if attempt.leak:
            tried.leaks += 1
            if row is not None:
                row.leaks += 1
            return
        tried.count += 1
        if row is not None:
            row.attempts += 1
        if attempt.via not in (DNS_QUERY, DNS_ANSWER):
            server = attempt.flow.server
            if server in tried.where or len(tried.where) < MAX_PLACES:
                tried.where[server] = tried.where.get(server, 0) + 1

    def answered(self, incident: Incident) -> None:
        """A destination answered one contact of an incident."""
        row = self._row(incident.client, incident.match, incident.last_us, False)
        if row is not None:
            row.answered += 1

    def take(self) -> dict[str, Any]:
        """What there is, or as much of it as one batch should hold, as plain values; it begins anew."""
        told, self.contacts, room = _part(
            self.contacts, lambda row: sum(len(name) + 16 for name in row.names), TAKEN_BYTES
        )
        tries, self.tried, _ = _part(self.tried, lambda row: 48 * len(row.where), room)
        contacts = [
            [
                client.hex(), pack_match(row.match), row.contacts, row.attempts, row.leaks, row.answered, row.first_us,
                row.last_us, row.retro, row.names, row.via, row.sources,
            ]
            for (client, _, _), row in told.items()
        ]  # fmt: skip
        tried_rows = [
            [
                decision, client.hex(), row.count, row.leaks, row.first_us, row.last_us,
                {address.hex(): count for address, count in row.where.items()},
            ]
            for (decision, client), row in tries.items()
        ]  # fmt: skip
        return {"contacts": contacts, "tried": tried_rows}

    def _row(self, client: bytes, match: Match, first_us: int, retro: bool) -> Contacts | None:
        key = (client, key_of(match), match.level)
        row = self.contacts.get(key)
        if row is None:
            if len(self.contacts) >= MAX_ROWS:
                self.uncounted += 1
                return None
            row = self.contacts[key] = Contacts(match, first_us, retro)
        return row


def _part(
    rows: dict[Key, Row], more_bytes: Callable[[Row], int], room_bytes: int
) -> tuple[dict[Key, Row], dict[Key, Row], int]:
    """As many of the first rows as fit in, the others, and the room that is left."""
    count = 0
    for row in rows.values():
        if room_bytes <= 0:
            break
        room_bytes -= ROW_BYTES + more_bytes(row)
        count += 1
    if count == len(rows):
        return rows, {}, room_bytes
    pairs = list(rows.items())
    return dict(pairs[:count]), dict(pairs[count:]), room_bytes


def unpack_contacts(packed: object) -> list[tuple[bytes, Contacts]]:
    """(client, sums) of a batch. Raises Malformed."""
    rows: list[tuple[bytes, Contacts]] = []
    values = Values(packed)
    for _ in range(len(values)):
        one = Values(values.next())
        client, match = one.host(), one.match()
        contacts, attempts, leaks, answered = one.count(), one.count(), one.count(), one.count()
        row = Contacts(match, one.number(), False)
        row.last_us = one.number()
        row.retro = one.flag()
        row.names, row.via = one.counts(), one.counts()
        row.sources = one.counts()
        if not row.via.keys() <= VIAS or len(row.sources) > MAX_SOURCES or not all(map(is_sensor, row.sources)):
            raise Malformed("sums of contacts are not right")
        row.contacts, row.attempts, row.leaks, row.answered = contacts, attempts, leaks, answered
        rows.append((client, row))
    return rows


def unpack_tried(packed: object) -> list[tuple[str, bytes, Tried]]:
    """(decision, client, sums) of a batch. Raises Malformed."""
    rows: list[tuple[str, bytes, Tried]] = []
    values = Values(packed)
    for _ in range(len(values)):
        one = Values(values.next())
        decision, client = one.decision_id(), one.host()
        count, leaks = one.count(), one.count()
        row = Tried(one.number())
        row.count, row.leaks, row.last_us = count, leaks, one.number()
        places = one.counts()
        row.where = {Values([text]).host(): number for text, number in places.items()}
        rows.append((decision, client, row))
    return rows
