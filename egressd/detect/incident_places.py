"""Where an incident is found: its *places* are its holders within its campaign.

A holder is the device's MAC where the device is known (devices.py), and each address that the incident's client used:
of an address that several had, the last incident is found.
"""

from __future__ import annotations

from typing import Final

from egressd.detect.mac import parse_mac
from egressd.model import Incident

MAX_ADDRESSES: Final = 16  # addresses kept per incident; more only count


class IncidentPlaces:
    """Finds the id of an incident by holder and campaign."""

    def __init__(self) -> None:
        self._ids: dict[tuple[bytes, str], str] = {}

    def at(self, holder: bytes, campaign: str) -> str:
        """The incident there, "" for none."""
        return self._ids.get((holder, campaign), "")

    def put(self, holder: bytes, incident: Incident) -> None:
        """From now on it is found there."""
        self._ids[(holder, incident.campaign)] = incident.id

    def take(self, incident: Incident) -> None:
        """It is found at all its holders, whoever was before."""
        for holder in holders_of(incident):
            self.put(holder, incident)

    def share(self, incident: Incident) -> None:
        """It is found at those of its holders where none is."""
        for holder in holders_of(incident):
            self._ids.setdefault((holder, incident.campaign), incident.id)

    def drop(self, holder: bytes, incident: Incident) -> None:
        """It is found there no more, if it was."""
        if self.at(holder, incident.campaign) == incident.id:
            del self._ids[(holder, incident.campaign)]

    def leave(self, incident: Incident) -> None:
        """It is found nowhere."""
        for holder in holders_of(incident):
            self.drop(holder, incident)

    def enter(self, incident: Incident, client: bytes) -> None:
        """The incident's device, or client, uses this address now."""
        addresses = incident.addresses
        if not addresses or addresses[-1] != client:
            if client in addresses:
                addresses.remove(client)
            elif len(addresses) >= MAX_ADDRESSES:
                gone = addresses.pop(0)
                if gone != incident.client:
                    self.drop(gone, incident)
            addresses.append(client)
        self.put(client, incident)
        if incident.device:
            self.put(parse_mac(incident.device), incident)


def holders_of(incident: Incident) -> list[bytes]:
    """Everything that an incident is found by."""
    found = dict.fromkeys((incident.client, *incident.addresses))
    if incident.device:
        found[parse_mac(incident.device)] = None
    return list(found)


def owner_of(incident: Incident) -> bytes:
    """Whose incident it is: in one campaign there is one for each."""
    return parse_mac(incident.device) if incident.device else incident.client
