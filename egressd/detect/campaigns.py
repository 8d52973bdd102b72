"""Incidents (one per client and campaign) and campaigns (incidents tied by registered domain or indicator)."""

from __future__ import annotations

from typing import Final

from egressd.model import Campaign, Incident, Sighting

MAX_INCIDENTS: Final = 65_536
MAX_NAMES: Final = 64  # names kept per incident; a DGA would fill memory


class Campaigns:
    """Assigns each sighting to its incident and campaign. Ids count up in order of discovery."""

    def __init__(self) -> None:
        self.campaigns: dict[str, Campaign] = {}
        self.incidents: dict[str, Incident] = {}
        self._by_key: dict[str, str] = {}
        self._by_place: dict[tuple[bytes, str], str] = {}
        self._numbered = 0

    def assign(self, sighting: Sighting) -> tuple[Incident, bool]:
        """The incident this sighting belongs to, and whether it was opened by it. Sets the sighting's ids."""
        campaign = self._campaign_of(sighting)
        client = sighting.flow.client
        place = (client, campaign.id)
        known = self._by_place.get(place)
        opened = known is None
        if known is None:
            incident = Incident(
                id=f"I{len(self.incidents) + 1}",
                campaign=campaign.id,
                client=client,
                match=sighting.match,
                opened_us=sighting.ts_us,
                first_us=sighting.first_us,
                last_us=sighting.last_us,
                retro=sighting.retro,
                number=sighting.number,
            )
            if len(self.incidents) < MAX_INCIDENTS:
                self.incidents[incident.id] = incident
                self._by_place[place] = incident.id
                campaign.incidents.append(incident.id)
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

    def count(self, incident: Incident, sighting: Sighting) -> None:
        """A new contact of this incident."""
        incident.contacts += sighting.count
        name = sighting.name or sighting.match.indicator.value
        if name in incident.names or len(incident.names) < MAX_NAMES:
            incident.names[name] = incident.names.get(name, 0) + sighting.count

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
        """A sighting ties two campaigns: the older takes over the younger's incidents."""
        for key in other.keys:
            self._by_key[key] = into.id
            into.keys.append(key)
        for incident_id in other.incidents:
            incident = self.incidents[incident_id]
            incident.campaign = into.id
            into.incidents.append(incident_id)
            self._by_place.setdefault((incident.client, into.id), incident_id)
        into.first_us = min(into.first_us, other.first_us)
        into.last_us = max(into.last_us, other.last_us)


def _number(id_: str) -> int:
    return int(id_[1:])
