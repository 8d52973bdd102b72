"""Campaigns that meet at an address: a name of one lived where a name of the other does (Campaigns.meet).

An address that several registered domains share ties nobody (hosting), nor does a protected one (an attacker may answer
with any address). The packet path asks its passive DNS at the time of the contact (detect/resolutions.py); the core,
which sees what all packet processes learn and what was known before a restart, keeps `AddressHistory`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from egressd.detect.campaigns import Campaigns
from egressd.detect.resolutions import TENANT_WITHIN_US, place_of
from egressd.intel.networks import render_address
from egressd.wire.table import RecentTable

SHARED: Final = 3  # as many registered domains on an address make it shared
MAX_PLACES: Final = 65_536
MAX_OF_DOMAIN: Final = 16  # addresses remembered of one registered domain


def tie_by_address(campaigns: Campaigns, campaign: str, domain: str, address: bytes, others: Sequence[str]) -> None:
    """Tie the campaign of `domain` with those of the `others` seen on `address`, unless these make it a shared one."""
    if len(others) + 1 >= SHARED:
        return
    for other in others:
        known = campaigns.about(other)
        if known and campaigns.current(known) != campaigns.current(campaign):
            campaigns.meet(campaign, known, f"{domain} and {other} both lived on {render_address(address)}")


class AddressHistory:
    """Which registered domains were seen where, of the last day, by address and by domain. Bounded."""

    def __init__(self, limit: int = MAX_PLACES) -> None:
        self._tenants: RecentTable[bytes, dict[str, int]] = RecentTable(limit)
        self._places: RecentTable[str, dict[bytes, int]] = RecentTable(limit)

    def lives_at(self, domain: str, address: bytes, ts_us: int) -> None:
        """`domain` was seen on `address`."""
        place = place_of(address)
        tenants = self._tenants.get(place)
        if tenants is None:
            tenants = {}
            self._tenants.add(place, tenants)
        if domain in tenants or len(tenants) < SHARED:
            tenants[domain] = ts_us
        else:
            oldest = min(tenants, key=tenants.__getitem__)
            if ts_us - tenants[oldest] > TENANT_WITHIN_US:
                del tenants[oldest]
                tenants[domain] = ts_us
        places = self._places.get(domain)
        if places is None:
            places = {}
            self._places.add(domain, places)
        if place in places or len(places) < MAX_OF_DOMAIN:
            places[place] = ts_us

    def tie(self, campaigns: Campaigns, domain: str, ts_us: int, is_protected: Callable[[bytes], bool]) -> None:
        """Tie the campaign of `domain`, if it is part of one, by each address where it was seen."""
        campaign = campaigns.about(domain)
        for address in self._places.peek(domain) or () if campaign else ():
            tenants = self._tenants.peek(address)
            if tenants is None or is_protected(address):
                continue
            others = [one for one, last_us in tenants.items() if one != domain and ts_us - last_us <= TENANT_WITHIN_US]
            tie_by_address(campaigns, campaign, domain, address, others)
