"""Isolated hosts: what each may still reach, and the further addresses that its device takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from egressd.clock import Clock
from egressd.detect.devices import Devices
from egressd.enforce.adapter import CLIENT
from egressd.intel.networks import first_address, parse_address, parse_network, render_address
from egressd.model import Target
from egressd.runtime.enforcement import Network
from egressd.runtime.identity import follow_isolated
from egressd.runtime.in_force import InForce, Register
from egressd.runtime.rulings import Rulings
from egressd.runtime.scribe import Scribe
from egressd.runtime.station import Station
from egressd.store import meta

DEVICE_NOW_US: Final = 600_000_000  # an address that a device used within is still its own


class Isolation:
    """`remedies` are what isolated hosts may reach, by decision."""

    def __init__(
        self, register: Register, rulings: Rulings, scribe: Scribe, devices: Devices, station: Station, clock: Clock
    ) -> None:
        self.remedies: dict[str, tuple[Network, ...]] = {}
        self._register = register
        self._rulings = rulings
        self._scribe = scribe
        self._devices = devices
        self._station = station
        self._clock = clock

    def restore(self, remedies: Mapping[str, Sequence[str]]) -> None:
        """As the ledger knows them, of decisions that stand."""
        self.remedies = {id_: _networks(texts) for id_, texts in remedies.items() if id_ in self._register.by_id}

    def remember(self, decision_id: str, texts: Sequence[str]) -> None:
        """What an isolated host may still reach, for as long as that decision stands. Takes effect with the core's
        `renew`."""
        self.remedies[decision_id] = _networks(texts)
        self._scribe.put(meta.put, f"remedies {decision_id}", ",".join(texts))

    def ended(self, decision_id: str) -> bool:
        """A decision has ended; returns whether it had remedies, which the core's `renew` then takes away."""
        if self.remedies.pop(decision_id, None) is None:
            return False
        self._scribe.put(meta.forget, f"remedies {decision_id}")
        return True

    def reachable(self) -> tuple[Network, ...]:
        """What isolated hosts may reach, all together."""
        return tuple(network for networks in self.remedies.values() for network in networks)

    def uncovered(self, addresses: Sequence[bytes]) -> list[Target]:
        """Those of a device's addresses that can be cut off and are not yet."""
        taken = self._register.isolated()
        targets = [Target(CLIENT, render_address(one)) for one in addresses if not self._station.is_own(one)]
        return [target for target in targets if target.value not in taken]

    def others_of(self, mac: bytes) -> list[Target]:
        """Further addresses that a device has by lease or by the kernel's own asking: what merely stood in frames
        anybody can forge, and would cut off whom he likes."""
        return self.uncovered(self._known_of(mac))

    def is_ours(self, address: bytes, mac: bytes) -> bool:
        """Whether a person may isolate who has an address: a host of ours as far as addresses tell, or a device `mac`
        that has it by lease or by the kernel's own asking. That something came from it, and has an incident, is not
        enough: anybody can send under the address of a server outside."""
        return self._station.whose.is_host(address) or address in self._known_of(mac)

    def follow(self) -> bool:
        """Cut isolated devices off under their new addresses, too; returns whether there are any."""
        isolated = [(id_, parse_address(text)) for text, id_ in self._register.isolated().items()]
        since_us = self._clock.now_us() - DEVICE_NOW_US
        found = follow_isolated(self._devices, isolated, since_us) if isolated else {}
        covered = [self._cover(self._register.by_id[id_], addresses) for id_, addresses in found.items()]
        return any(covered)

    def _known_of(self, mac: bytes) -> list[bytes]:
        return self._devices.addresses_of(mac, self._clock.now_us() - DEVICE_NOW_US) if mac else []

    def _cover(self, decision: InForce, addresses: Sequence[bytes]) -> bool:
        more = self.uncovered(addresses)
        if more:
            self._rulings.extend(decision, more, "egressd", "devices", "the isolated device has this address now")
        return bool(more)


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    found = [network for network in map(parse_network, texts) if network is not None]
    return tuple((first_address(*one), one[1]) for one in found)
