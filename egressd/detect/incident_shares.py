"""How many incidents one machine may have open: an address costs nothing, and a host can take as many as it likes.

Frames do not tell a host with a thousand addresses from as many hosts behind a bridge that sends under its own MAC, so
such a MAC is no device (devices.py, rule 2) and each address has its own incident - the first MAX_APART in a campaign.
What comes after them joins the last of those. Hosts behind a router are seen under no MAC, and are not joined.

Over all campaigns a machine has at most a third of the places that are left (dynamic thresholds: A. Choudhury and
E. Hahne, 1998): a quarter of the table alone, and however many do so, they never fill it. Where its MAC is not known
(behind a router, in captures without hardware addresses), an IPv6 network of 64 bits stands for it: a host chooses
freely in there (RFC 4291, 8981). The last quarter of the table is for machines that were there a day ago: of MACs and
addresses that nobody has seen before anybody can make up as many as he likes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.detect.devices import Devices
from egressd.model import Incident
from egressd.units import DAY_US

MAX_APART: Final = 16  # incidents of one MAC in one campaign
LEFT_PART: Final = 3  # a machine may open another one while it has less than this part of the places that are left
KEPT_PART: Final = 4  # this part of all places is for machines that were there before


class IncidentShares:
    """Whose the open incidents are; at most `limit` in all."""

    def __init__(self, devices: Devices, limit: int) -> None:
        self._devices = devices
        self._limit = limit
        self.knew: Callable[[bytes, bytes, int], bool] = _knew  # as Acquaintances.knew
        self._machines: dict[str, bytes] = {}  # by incident
        self._open: dict[bytes, int] = {}  # how many a machine has
        self._apart: dict[tuple[bytes, str], list[str]] = {}  # those of a MAC in one campaign, oldest first

    def joins(self, client: bytes, campaign: str) -> str:
        """The incident that another address of a machine belongs to; "" when it may have one of its own."""
        apart = self._apart.get((self._devices.mac_of(client), campaign))
        return apart[-1] if apart is not None and len(apart) >= MAX_APART else ""

    def has_room(self, client: bytes, ts_us: int) -> bool:
        """Whether the machine of `client` may have one more."""
        left = self._limit - len(self._machines)
        if left <= 0 or self._open.get(self._machine_of(client), 0) >= max(1, left // LEFT_PART):
            return False
        if left > self._limit // KEPT_PART:
            return True
        return self.knew(self._devices.machine_of(client), client, ts_us - DAY_US)

    def opened(self, incident: Incident, mac: bytes = b"") -> None:
        """One more. `mac` is that of its device where the address does not tell, after a restart."""
        machine = mac or self._machine_of(incident.client)
        self._machines[incident.id] = machine
        self._open[machine] = self._open.get(machine, 0) + 1
        self._enter(incident.id, machine, incident.campaign)

    def ended(self, incident: Incident) -> None:
        """It was closed, or another one took it over."""
        machine = self._machines.pop(incident.id)
        self._open[machine] -= 1
        if not self._open[machine]:
            del self._open[machine]
        self._leave(incident.id, machine, incident.campaign)

    def moves(self, incident: Incident, campaign: str) -> None:
        """It is about to become part of another campaign."""
        machine = self._machines[incident.id]
        self._leave(incident.id, machine, incident.campaign)
        self._enter(incident.id, machine, campaign)

    def _machine_of(self, client: bytes) -> bytes:
        return self._devices.mac_of(client) or (client[:8] if len(client) == 16 else client)

    def _enter(self, id_: str, machine: bytes, campaign: str) -> None:
        if len(machine) == 6:
            self._apart.setdefault((machine, campaign), []).append(id_)

    def _leave(self, id_: str, machine: bytes, campaign: str) -> None:
        apart = self._apart.get((machine, campaign))
        if apart is not None:
            apart.remove(id_)
            if not apart:
                del self._apart[(machine, campaign)]


def _knew(machine: bytes, address: bytes, ts_us: int) -> bool:
    """Nobody remembers who was there."""
    return True
