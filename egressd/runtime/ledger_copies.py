"""Campaigns and incidents as the ledger is given them: copies of how they are now, for another thread.

Of a campaign each key goes once, however often it changes and however many it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

from egressd.model import Campaign, Incident
from egressd.runtime.scribe import Scribe
from egressd.store import incidents


class CampaignCopies:
    """Knows how many of each campaign's keys, which are only ever added to, went to the scribe."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe
        self._put: dict[str, int] = {}
        self._lost = 0  # rows that the scribe could not write, when all keys were put last

    def copy(self, one: Campaign) -> Campaign:
        """A campaign as it is now, for the ledger's thread, which must not see it change: the keys that were not put
        before, and none of the incidents, which say themselves what they are part of."""
        lost = self._scribe.given_up + self._scribe.refused
        if lost != self._lost:  # keys may have been among them
            self._lost = lost
            self._put.clear()
        keys = one.keys[self._put.get(one.id, 0) :]
        self._put[one.id] = len(one.keys)
        return Campaign(one.id, keys, [], one.first_us, one.last_us, list(one.ties), dict(one.candidates))

    def forget(self, id_: str) -> None:
        """Another campaign took this one over: it is not put any more."""
        self._put.pop(id_, None)


def copy_incident(one: Incident) -> Incident:
    """As it is now: the ledger's thread must not see it change."""
    return Incident(
        one.id, one.campaign, one.client, one.match, one.opened_us, one.first_us, one.last_us, one.contacts,
        one.attempts, one.answered, one.retro, 0, dict(one.names), dict(one.via), dict(one.sources),
        one.device, list(one.addresses), one.volume, let_through=one.let_through,
    )  # fmt: skip


def write_incidents(
    connection: Connection, campaigns: Iterable[Campaign], rows: Iterable[tuple[Incident, str, int]]
) -> None:
    """Campaigns first: incidents refer to them."""
    for campaign in campaigns:
        incidents.put_campaign(connection, campaign)
    for incident, segment, leaks in rows:
        incidents.put_incident(connection, incident, segment, leaks)
