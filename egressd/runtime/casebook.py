"""Incidents and campaigns that change without a new contact, as the ledger and the event log have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from egressd.detect.campaigns import Campaigns
from egressd.detect.devices import Devices
from egressd.detect.mac import parse_mac
from egressd.model import Campaign, Incident
from egressd.runtime.intake import Intake, Tellers
from egressd.runtime.scribe import Scribe
from egressd.store import incidents


class Casebook:
    """Hears from `campaigns` of what became one, and writes it down."""

    def __init__(
        self,
        campaigns: Campaigns,
        devices: Devices,
        intake: Intake,
        scribe: Scribe,
        tellers: Tellers,
        segment_of: Callable[[bytes], str],
    ) -> None:
        self._campaigns = campaigns
        self._devices = devices
        self._intake = intake
        self._scribe = scribe
        self._tellers = tellers
        self._segment_of = segment_of
        campaigns.on_merge = self._merged
        campaigns.on_fold = self._folded
        campaigns.candidates.on_new = self._write

    def recognise(self) -> None:
        """Incidents whose device is known by now, or is none any more."""
        changed = self._campaigns.recognise()
        if changed:
            self._intake.write(one for one in changed if one.id in self._campaigns.incidents)

    def close(self, id_: str) -> Incident | None:
        """The ledger has an incident as closed. None when it is not known here."""
        incident = self._campaigns.close(id_)
        if incident is not None:
            self._intake.closed(incident.id)
        return incident

    def reopen(self, incident: Incident, leaks: int) -> str:
        """It was closed by mistake, with so many leaks. The id of another that its holder has since; then it stays
        closed."""
        other = self._campaigns.reopen(incident)
        if not other and leaks:
            self._intake.leaks[incident.id] = leaks
        return other

    def tell(self, incident: Incident, state: str, now_us: int, reason: str) -> None:
        """The event log hears what became of an incident without its host's doing."""
        record = self._intake.told(incident, self._segment_of(incident.client), state, now_us)
        record["egressd"]["reason"] = reason
        self._tellers.event(record)

    def nameless(self) -> Iterator[tuple[bytes, bytes]]:
        """Devices with an incident and without a name, each with its address of now."""
        for incident in self._campaigns.incidents.values():
            mac = parse_mac(incident.device)
            if mac and not self._devices.name_of(mac):
                yield mac, (incident.addresses or [incident.client])[-1]

    def _merged(self, older: str, younger: str) -> None:
        self._scribe.put(incidents.merge_campaigns, older, younger)
        self._intake.copies.forget(younger)
        self._write(self._campaigns.campaigns[older])

    def _folded(self, kept: Incident, gone: Incident) -> None:
        """One device is behind two incidents: the ledger keeps the older, and the event log is told."""
        self._scribe.put(incidents.fold_incidents, kept.id, gone.id)
        self._tellers.event(self._intake.told(gone, self._segment_of(gone.client)))

    def _write(self, campaign: Campaign) -> None:
        self._scribe.put(incidents.put_campaign, self._intake.copies.copy(campaign))
