"""Campaigns as the ledger is given them: each key once, however often a campaign changes and however many it has."""

from __future__ import annotations

from egressd.model import Campaign
from egressd.runtime.scribe import Scribe


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
