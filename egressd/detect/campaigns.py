"""Incidents (one per device, or client, and campaign) and campaigns (incidents tied by registered domain, indicator,
threat tag or address).

An incident is found by its place (detect/incident_places.py): the device's MAC where the device is known, and the
client's address in any case: without a device that is the last incident of that address.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from typing import Final

from egressd.detect.candidates import Candidates
from egressd.detect.devices import Devices
from egressd.detect.incident_places import IncidentPlaces, holders_of, owner_of
from egressd.detect.incident_shares import IncidentShares
from egressd.detect.incident_sums import absorb, add_name
from egressd.detect.mac import parse_mac, render_mac
from egressd.detect.pivots import VOLUME, Pivots
from egressd.detect.succession import Succession
from egressd.detect.tags import family_of
from egressd.model import BEHAVIOUR, Campaign, Incident, Match, Sighting

MAX_INCIDENTS: Final = 65_536
MAX_KEYS: Final = 4_096  # of one campaign: a list has a hundred thousand names of a family, which one host may look up
SOON_US: Final = 2_000_000  # within which the sender of a new address is told: frames are read with the next sighting
MAX_MET: Final = 64  # incidents of the smaller of two campaigns that are looked through for a machine of both
MAX_TIES: Final = 32  # reasons kept per campaign


class Campaigns:
    """Assigns each sighting to its incident and campaign. Ids count up in order of discovery."""

    def __init__(self, devices: Devices | None = None, limit: int = MAX_INCIDENTS) -> None:
        """`limit` bounds the incidents; `untold` counts what comes beyond. Only an incident begins a campaign."""
        self.devices = devices if devices is not None else Devices()
        self.campaigns: dict[str, Campaign] = {}
        self.incidents: dict[str, Incident] = {}
        self.untold = 0  # sightings of clients beyond the bound, or beyond their machine's share
        self.on_merge: Callable[[str, str], None] | None = None  # told (older, younger) when campaigns become one
        # Told (kept, gone) when one device turns out to be behind two incidents of a campaign.
        self.on_fold: Callable[[Incident, Incident], None] | None = None
        self.candidates = Candidates(self.campaigns)
        self._pivots = Pivots()
        self.shares = IncidentShares(self.devices, limit)
        self._by_key: dict[str, str] = {}
        self._places = IncidentPlaces()
        self._succession = Succession()
        self._numbered = 0
        self._last = 0

    def restore(self, campaigns: Iterable[Campaign], incidents: Iterable[Incident]) -> None:
        """What was known before a restart; the next ids come after these. An incident's campaign must be among them."""
        for campaign in campaigns:
            self.campaigns[campaign.id] = campaign
            self._by_key.update(dict.fromkeys(campaign.keys, campaign.id))
            self._numbered = max(self._numbered, _number(campaign.id))
        self.candidates.restore(self.campaigns.values())
        known = {one for campaign in self.campaigns.values() for one in campaign.incidents}
        for incident in incidents:
            self.incidents[incident.id] = incident
            self._reaches(incident)
            self.shares.opened(incident, parse_mac(incident.device))
            self._places.take(incident)
            self._last = max(self._last, _number(incident.id))
            if incident.id not in known:
                self.campaigns[incident.campaign].incidents.append(incident.id)

    def number_after(self, incident: int, campaign: int) -> None:
        """The last numbers that were ever given, whether what had them is still known or not."""
        self._last = max(self._last, incident)
        self._numbered = max(self._numbered, campaign)

    def close(self, incident_id: str) -> Incident | None:
        """A person is done with an incident: what its client does next opens another one. None when it is not known."""
        incident = self.incidents.pop(self.current(incident_id), None)
        if incident is not None:
            self._places.leave(incident)
            campaign = self.campaigns[incident.campaign]
            campaign.incidents.remove(incident.id)
            _forget(campaign, incident)
            self.shares.ended(incident)
        return incident

    def reopen(self, incident: Incident) -> str:
        """It was closed by mistake: it is known again, unless its holder has another one since, whose id this is."""
        campaign = self.campaigns[self.current(incident.campaign)]
        incident.campaign = campaign.id
        for other in filter(None, (self._places.at(one, campaign.id) for one in holders_of(incident))):
            return other
        self.incidents[incident.id] = incident
        insort(campaign.incidents, incident.id, key=_number)
        self._reaches(incident)
        self.shares.opened(incident, parse_mac(incident.device))
        self._places.take(incident)
        return ""

    def assign(self, sighting: Sighting) -> tuple[Incident, bool]:
        """The incident this sighting belongs to, and whether it was opened by it. Sets the sighting's ids. Beyond the
        bound the incident has no id, and is kept nowhere; nor does it begin a campaign: a list has a million names."""
        client = sighting.flow.client
        has_room = self.shares.has_room(client, sighting.ts_us)
        campaign = self._campaign_of(sighting, has_room)
        mac = self.devices.device_of(client, sighting.last_us)
        incident = self._find(client, mac, campaign)
        if incident is None and not mac:
            incident = self.incidents.get(self.shares.joins(client, campaign.id))
        opened = incident is None
        if incident is None:
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
                device=render_mac(mac),
            )
            if has_room:
                self._last += 1
                incident.id = f"I{self._last}"
                self.incidents[incident.id] = incident
                campaign.incidents.append(incident.id)
                self.shares.opened(incident)
            else:
                self.untold += 1
                opened = False
        if not opened and incident.match.level == BEHAVIOUR and _says_more(sighting.match, incident.match):
            incident.match = sighting.match
            incident.retro = incident.retro or sighting.retro
        if incident.id:
            self._places.enter(incident, client)
        incident.first_us = min(incident.first_us, sighting.first_us)
        incident.last_us = max(incident.last_us, sighting.last_us)
        campaign.first_us = min(campaign.first_us, sighting.first_us)
        campaign.last_us = max(campaign.last_us, sighting.last_us)
        sighting.incident = incident.id
        sighting.campaign = campaign.id
        if sighting.match.level == BEHAVIOUR and campaign.id:
            self._behaves(incident, sighting, mac or client)
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
        self.contacted(incident, sighting.count)
        add_name(incident, sighting.name or sighting.match.indicator.value, sighting.count)

    def contacted(self, incident: Incident, contacts: int) -> None:
        """So many new contacts of this incident."""
        incident.contacts += contacts
        self._reaches(incident)

    def tried(self, sighting: Sighting) -> None:
        """This sighting, which is assigned, is an attempt at something blocked."""
        client = sighting.flow.client
        holder = self.devices.device_of(client, sighting.last_us) or client
        self._pivots.tried(holder, sighting)

    def volume(self, client: bytes, destination: str, reason: str, ts_us: int) -> Incident | None:
        """Much data went out from a client to a registered domain, or address as text. The incident that this belongs
        to; None when that destination is part of no campaign of the client's."""
        mac = self.devices.device_of(client, ts_us)
        for key in (f"registered domain {destination}", f"indicator {destination}"):
            campaign = self._by_key.get(key)
            if campaign is not None:
                id_ = self._places.at(mac, campaign) if mac else ""
                incident = self.incidents.get(id_ or self._places.at(client, campaign))
                if incident is not None:
                    incident.volume = reason
                    self._reaches(incident)
                    return incident
        return None

    def tie(self, one: str, other: str, reason: str = "") -> None:
        """Two campaigns turned out to be one: the older takes over the younger's incidents. Of a device, or client,
        that has an incident in both, the older incident takes over the younger."""
        one, other = self.current(one), self.current(other)
        if one == other:
            return
        ids = sorted({one, other} & self.campaigns.keys(), key=_number)
        for younger in ids[1:]:
            self._merge(self.campaigns[ids[0]], self.campaigns.pop(younger), reason)

    def meet(self, one: str, other: str, reason: str) -> None:
        """Names of two campaigns lived on one address. Whoever owns a name may point it at anybody's server, so that
        alone makes the younger a candidate for the older; they are one when a machine has an incident in both."""
        ids = sorted({self.current(one), self.current(other)} & self.campaigns.keys(), key=_number)
        if len(ids) < 2:
            return
        older, younger = self.campaigns[ids[0]], self.campaigns[ids[1]]
        few, many = sorted((older, younger), key=lambda campaign: len(campaign.incidents))
        latest = [self.incidents[id_] for id_ in few.incidents[-MAX_MET:]]
        if any(self._places.at(owner_of(incident), many.id) for incident in latest):
            self.tie(older.id, younger.id, reason)
        else:
            self.candidates.propose(older, younger, reason)

    def reject(self, one: str, candidate: str) -> bool:
        """A person says that a candidate is no part of a campaign, for good. False when it was none."""
        campaign = self.campaigns.get(self.current(one))
        return campaign is not None and self.candidates.reject(campaign, self.current(candidate))

    def about(self, domain: str) -> str:
        """The campaign that a registered domain is part of, "" for none."""
        return self._by_key.get(f"registered domain {domain}", "")

    def current(self, id_: str) -> str:
        """The id of the campaign, or incident, that one with this id is part of by now."""
        return self._succession.current(id_)

    @property
    def merges(self) -> int:
        """How many campaigns and incidents others took over until now."""
        return len(self._succession)

    def recognise(self) -> list[Incident]:
        """Look again whose incidents are: a device that has become known since takes them over, one that has turned
        out to be none gives them back. Returns those that changed and are still there."""
        changed: list[Incident] = []
        for incident in list(self.incidents.values()):
            if incident.id not in self.incidents:
                continue  # folded just now
            if incident.device:
                mac = parse_mac(incident.device)
                if self.devices.why_none(mac):
                    self._places.drop(mac, incident)
                    incident.device = ""
                    changed.append(incident)
                continue
            mac = self._device_at(incident.client, incident.last_us)
            if mac:
                changed.append(self._is_of(incident, mac))
        return changed

    # -- places

    def _find(self, client: bytes, mac: bytes, campaign: Campaign) -> Incident | None:
        by_address = self.incidents.get(self._places.at(client, campaign.id))
        if not mac:
            return by_address
        by_device = self.incidents.get(self._places.at(mac, campaign.id))
        if by_address is None or by_address.device:
            return by_device
        last_us = by_address.last_us
        if self._device_at(client, last_us) == mac:
            return self._is_of(by_address, mac)
        if by_device is None and not self.devices.was_anothers(client, mac, last_us):
            return self._is_of(by_address, mac)
        return by_device

    def _device_at(self, client: bytes, ts_us: int) -> bytes:
        """The device that had an address then, or is the first that is known to have had it, moments later: of a new
        address the sender is told behind the first contact."""
        mac = self.devices.device_of(client, ts_us)
        if mac:
            return mac
        mac = self.devices.device_of(client, ts_us + SOON_US)
        return b"" if mac and self.devices.was_anothers(client, mac, ts_us) else mac

    def _is_of(self, incident: Incident, mac: bytes) -> Incident:
        """An incident without a device turned out to be this device's."""
        twin = self.incidents.get(self._places.at(mac, incident.campaign))
        if twin is None:
            incident.device = render_mac(mac)
            self._places.put(mac, incident)
            return incident
        return self._fold(twin, incident)

    # -- campaigns

    def _campaign_of(self, sighting: Sighting, may_begin: bool) -> Campaign:
        keys = _keys_of(sighting)
        ids = sorted({self._by_key[key] for key in keys if key in self._by_key}, key=_number)
        if ids:
            campaign = self.campaigns[ids[0]]
            for other in ids[1:]:
                held = next(key for key in keys if self._by_key.get(key) == other)
                self._merge(campaign, self.campaigns.pop(other), f"{held} is part of both")
        elif not may_begin:
            return Campaign("", [], [], sighting.first_us, sighting.last_us)
        else:
            self._numbered += 1
            campaign = Campaign(f"C{self._numbered}", [], [], sighting.first_us, sighting.last_us)
            self.campaigns[campaign.id] = campaign
        family = next((key for key in keys if key.startswith("threat ")), "")
        by_key = self._by_key  # a campaign of a family has thousands of keys: no search in the list
        if family and by_key.get(family) == campaign.id and by_key.get(keys[0]) != campaign.id:
            _add_tie(campaign, f"{keys[0]} is listed for {family}, too")
        for key in keys if may_begin and len(campaign.keys) < MAX_KEYS else ():
            if key not in by_key:
                by_key[key] = campaign.id
                campaign.keys.append(key)
        return campaign

    def _merge(self, into: Campaign, other: Campaign, reason: str) -> None:
        self._succession.takes_over(into.id, other.id)
        for key in other.keys:
            self._by_key[key] = into.id
            into.keys.append(key)
        into.repeated |= other.repeated
        into.sent |= other.sent
        for incident_id in other.incidents:
            incident = self.incidents[incident_id]
            twin = self._twin_in(into, incident)
            self._places.leave(incident)
            self.shares.moves(incident, into.id)
            incident.campaign = into.id
            if twin is None:
                insort(into.incidents, incident_id, key=_number)
                self._places.share(incident)
            elif self._take_over(twin, incident) is incident:
                into.incidents.remove(twin.id)
                insort(into.incidents, incident_id, key=_number)
        into.first_us = min(into.first_us, other.first_us)
        into.last_us = max(into.last_us, other.last_us)
        for tie in [reason, *other.ties]:
            _add_tie(into, tie)
        self.candidates.merged(into, other)
        if self.on_merge is not None:
            self.on_merge(into.id, other.id)

    def _twin_in(self, campaign: Campaign, incident: Incident) -> Incident | None:
        """The incident of the same device, or client without one, in a campaign: found by its place, for a campaign may
        have thousands, and they may be joined one by one."""
        owner = owner_of(incident)
        held = self.incidents.get(self._places.at(owner, campaign.id))
        if held is None or owner_of(held) == owner:
            return held
        # A device has used the client's address since.
        its = (self.incidents[one] for one in campaign.incidents)
        return next((one for one in its if owner_of(one) == owner), None)

    def _fold(self, one: Incident, other: Incident) -> Incident:
        """Of two incidents of a device in one campaign the older takes over the younger."""
        kept = self._take_over(one, other)
        gone = other if kept is one else one
        incidents = self.campaigns[kept.campaign].incidents
        if gone.id in incidents:
            incidents.remove(gone.id)
        if self.on_fold is not None:
            self.on_fold(kept, gone)
        return kept

    def _take_over(self, one: Incident, other: Incident) -> Incident:
        kept, gone = sorted((one, other), key=lambda incident: _number(incident.id))
        del self.incidents[gone.id]
        self._succession.takes_over(kept.id, gone.id)
        gone.folded_into = kept.id
        self._places.leave(gone)
        _forget(self.campaigns[kept.campaign], gone)
        self.shares.ended(gone)
        absorb(kept, gone)
        self._places.take(kept)
        self._reaches(kept)
        return kept

    def _reaches(self, incident: Incident) -> None:
        """How far an incident's campaign got by it."""
        if incident.id and incident.contacts > 1:
            self.campaigns[incident.campaign].repeated.add(incident.id)
        if incident.id and incident.volume:
            self.campaigns[incident.campaign].sent.add(incident.id)

    # -- behaviour

    def _behaves(self, incident: Incident, sighting: Sighting, holder: bytes) -> None:
        """A detector's word: about volume it adds to the stage; what begins after a block may be the same attacker."""
        source = sighting.match.indicator.source
        if source == VOLUME:
            incident.volume = sighting.note or "more than usual"
            self._reaches(incident)
        campaign = self.campaigns[sighting.campaign]
        found = self._pivots.candidate(holder, sighting)
        if found is None:
            return
        before = self.campaigns.get(self.current(found.campaign))
        if before is not None and before is not campaign:
            self.candidates.propose(before, campaign, found.reason)


def _keys_of(sighting: Sighting) -> list[str]:
    """What ties a sighting to a campaign, the strongest first."""
    match = sighting.match
    keys = [f"registered domain {match.registered_domain}"] if match.registered_domain else []
    keys.append(f"indicator {match.indicator.value}")
    family = family_of(match.indicator.threat) if match.level != BEHAVIOUR else ""
    if family:
        keys.append(f"threat {family}")
    return keys


def _forget(campaign: Campaign, incident: Incident) -> None:
    """An incident is no longer part of a campaign."""
    campaign.repeated.discard(incident.id)
    campaign.sent.discard(incident.id)


def _add_tie(campaign: Campaign, reason: str) -> None:
    if reason and reason not in campaign.ties and len(campaign.ties) < MAX_TIES:
        campaign.ties.append(reason)


def _says_more(match: Match, than: Match) -> bool:
    """A list's line says more than behaviour, and behaviour with a higher score more than with a lower one."""
    return match.level != BEHAVIOUR or match.indicator.confidence > than.indicator.confidence


def _number(id_: str) -> int:
    return int(id_[1:])
