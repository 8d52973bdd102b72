"""Incidents (one per client and campaign) and campaigns (incidents tied by registered domain, indicator or address)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from egressd.model import Campaign, Incident, Sighting

MAX_INCIDENTS: Final = 65_536
MAX_NAMES: Final = 64  # names kept per incident; a DGA would fill memory


class Campaigns:
    """Assigns each sighting to its incident and campaign. Ids count up in order of discovery."""

    def __init__(self, limit: int = MAX_INCIDENTS) -> None:
        """`limit` bounds the incidents; `untold` counts what comes beyond. Campaigns are bounded by the lists."""
        self.campaigns: dict[str, Campaign] = {}
        self.incidents: dict[str, Incident] = {}
        self.untold = 0  # sightings of clients beyond the bound
        self.on_merge: Callable[[str, str], None] | None = None  # told (older, younger) when campaigns become one
        self._limit = limit
        self._by_key: dict[str, str] = {}
        self._by_place: dict[tuple[bytes, str], str] = {}
        self._merged: dict[str, str] = {}  # campaign or incident -> the older one that took it over
        self._numbered = 0
        self._last = 0

    def restore(self, campaigns: Iterable[Campaign], incidents: Iterable[Incident]) -> None:
        """What was known before a restart; the next ids come after these. An incident's campaign must be among them."""
        for campaign in campaigns:
            self.campaigns[campaign.id] = campaign
            self._by_key.update(dict.fromkeys(campaign.keys, campaign.id))
            self._numbered = max(self._numbered, _number(campaign.id))
        for incident in incidents:
            self.incidents[incident.id] = incident
            self._by_place[(incident.client, incident.campaign)] = incident.id
            self._last = max(self._last, _number(incident.id))
            kept = self.campaigns[incident.campaign].incidents
            if incident.id not in kept:
                kept.append(incident.id)

    def number_after(self, incident: int, campaign: int) -> None:
        """The last numbers that were ever given, whether what had them is still known or not."""
        self._last = max(self._last, incident)
        self._numbered = max(self._numbered, campaign)

    def close(self, incident_id: str) -> Incident | None:
        """A person is done with an incident: what its client does next opens another one. None when it is not known."""
        incident = self.incidents.pop(self.current(incident_id), None)
        if incident is not None:
            self._by_place.pop((incident.client, incident.campaign), None)
            self.campaigns[incident.campaign].incidents.remove(incident.id)
        return incident

    def assign(self, sighting: Sighting) -> tuple[Incident, bool]:
        """The incident this sighting belongs to, and whether it was opened by it. Sets the sighting's ids. Beyond the
        bound the incident has no id, and is kept nowhere."""
        campaign = self._campaign_of(sighting)
        client = sighting.flow.client
        place = (client, campaign.id)
        known = self._by_place.get(place)
        opened = known is None
        if known is None:
            incident = Incident(
                id="",
                campaign=campaign.id,
                client=client,
                match=sighting.match,
                opened_us=sighting.ts_us,
                first_us=sighting.first_us,
                last_us=sighting.last_us,
                retro=sighting.retro,
                number=sighting.number,
            )
            if len(self.incidents) < self._limit:
                self._last += 1
                incident.id = f"I{self._last}"
                self.incidents[incident.id] = incident
                self._by_place[place] = incident.id
                campaign.incidents.append(incident.id)
            else:
                self.untold += 1
                opened = False
        else:
            incident = self.incidents[known]
        incident.first_us = min(incident.first_us, sighting.first_us)
        incident.last_us = max(incident.last_us, sighting.last_us)
        campaign.first_us = min(campaign.first_us, sighting.first_us)
        campaign.last_us = max(campaign.last_us, sighting.last_us)
        sighting.incident = incident.id
        sighting.campaign = campaign.id
        return incident, opened

    def see(self, incident: Incident, sighting: Sighting) -> None:
        """How the contact showed itself, new or not."""
        incident.via[sighting.via] = incident.via.get(sighting.via, 0) + sighting.count

    def tell(self, incident: Incident, sighting: Sighting) -> None:
        """A sensor tells of a contact that is new to it."""
        source = sighting.source
        incident.sources[source] = incident.sources.get(source, 0) + sighting.count

    def count(self, incident: Incident, sighting: Sighting) -> None:
        """A new contact of this incident."""
        incident.contacts += sighting.count
        _add_name(incident, sighting.name or sighting.match.indicator.value, sighting.count)

    def tie(self, one: str, other: str) -> None:
        """Two campaigns turned out to be one: the older takes over the younger's incidents. Of a client that has an
        incident in both, the older incident takes over the younger."""
        ids = sorted({self.current(one), self.current(other)} & self.campaigns.keys(), key=_number)
        for younger in ids[1:]:
            self._merge(self.campaigns[ids[0]], self.campaigns.pop(younger))

    def current(self, id_: str) -> str:
        """The id of the campaign, or incident, that one with this id is part of by now."""
        while id_ in self._merged:
            id_ = self._merged[id_]
        return id_

    def _campaign_of(self, sighting: Sighting) -> Campaign:
        match = sighting.match
        keys = [f"indicator {match.indicator.value}"]
        if match.registered_domain:
            keys.insert(0, f"registered domain {match.registered_domain}")
        ids = sorted({self._by_key[key] for key in keys if key in self._by_key}, key=_number)
        if ids:
            campaign = self.campaigns[ids[0]]
            for other in ids[1:]:
                self._merge(campaign, self.campaigns.pop(other))
        else:
            self._numbered += 1
            campaign = Campaign(f"C{self._numbered}", [], [], sighting.first_us, sighting.last_us)
            self.campaigns[campaign.id] = campaign
        for key in keys:
            if key not in self._by_key:
                self._by_key[key] = campaign.id
                campaign.keys.append(key)
        return campaign

    def _merge(self, into: Campaign, other: Campaign) -> None:
        self._merged[other.id] = into.id
        if self.on_merge is not None:
            self.on_merge(into.id, other.id)
        for key in other.keys:
            self._by_key[key] = into.id
            into.keys.append(key)
        for incident_id in other.incidents:
            incident = self.incidents[incident_id]
            del self._by_place[(incident.client, other.id)]
            place = (incident.client, into.id)
            twin = self._by_place.get(place)
            incident.campaign = into.id
            if twin is None:
                self._by_place[place] = incident_id
                into.incidents.append(incident_id)
            else:
                self._fold(twin, incident_id, place)
        into.incidents = sorted({self.current(one) for one in into.incidents}, key=_number)
        into.first_us = min(into.first_us, other.first_us)
        into.last_us = max(into.last_us, other.last_us)

    def _fold(self, one: str, other: str, place: tuple[bytes, str]) -> None:
        """Of two incidents of a client the older takes over the younger."""
        kept_id, gone_id = sorted((one, other), key=_number)
        kept = self.incidents[kept_id]
        gone = self.incidents.pop(gone_id)
        self._merged[gone_id] = kept_id
        self._by_place[place] = kept_id
        kept.first_us = min(kept.first_us, gone.first_us)
        kept.last_us = max(kept.last_us, gone.last_us)
        kept.contacts += gone.contacts
        kept.attempts += gone.attempts
        kept.answered += gone.answered
        for name, count in gone.names.items():
            _add_name(kept, name, count)
        for via, count in gone.via.items():
            kept.via[via] = kept.via.get(via, 0) + count
        for source, count in gone.sources.items():
            kept.sources[source] = kept.sources.get(source, 0) + count


def _add_name(incident: Incident, name: str, count: int) -> None:
    if name in incident.names or len(incident.names) < MAX_NAMES:
        incident.names[name] = incident.names.get(name, 0) + count


def _number(id_: str) -> int:
    return int(id_[1:])
