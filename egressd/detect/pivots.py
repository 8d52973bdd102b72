"""The re-homing pivot: a client whose destination was blocked begins the same behaviour elsewhere within the hour.

That is a candidate for the campaign of what was blocked, with the reason; a person decides. Behaviour is told by
detectors as sightings of level `behaviour` whose indicator's source is `behaviour:` and the detector's name.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from egressd.intel.networks import render_address
from egressd.model import BEHAVIOUR, Sighting
from egressd.units import HOUR_US
from egressd.wire.table import RecentTable

WITHIN_US: Final = HOUR_US
MAX_TRIED: Final = 65_536  # devices or clients whose last attempt is remembered
VOLUME: Final = f"{BEHAVIOUR}:volume"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Candidate(NamedTuple):
    """The campaign that a behaviour may belong to, and why, for people."""

    campaign: str
    reason: str


class _Tried(NamedTuple):
    campaign: str
    what: str
    client: bytes
    first_us: int
    last_us: int


class Pivots:
    """Remembers the last attempt of each device or client (`holder`) at something blocked."""

    def __init__(self) -> None:
        self._tried: RecentTable[bytes, _Tried] = RecentTable(MAX_TRIED)

    def tried(self, holder: bytes, sighting: Sighting) -> None:
        """An attempt; the sighting is assigned."""
        before = self._tried.get(holder)
        first_us = before.first_us if before is not None and before.campaign == sighting.campaign else sighting.first_us
        what = sighting.match.registered_domain or sighting.match.indicator.value
        self._tried.put(holder, _Tried(sighting.campaign, what, sighting.flow.client, first_us, sighting.last_us))

    def candidate(self, holder: bytes, sighting: Sighting) -> Candidate | None:
        """What a behaviour may be the continuation of."""
        tried = self._tried.get(holder)
        if tried is None or not 0 <= sighting.ts_us - tried.last_us <= WITHIN_US:
            return None
        destination = sighting.match.registered_domain or sighting.match.indicator.value
        if destination == tried.what:
            return None
        detector = sighting.match.indicator.source.rpartition(":")[2].replace("_", " ") or BEHAVIOUR
        now = sighting.flow.client
        under = f", now {render_address(now)}," if now != tried.client else ""
        return Candidate(
            tried.campaign,
            f"{render_address(tried.client)}{under} tried {tried.what}, blocked, at {_minute(tried.last_us)};"
            f" since {_minute(max(sighting.first_us, tried.first_us))} {detector} to {destination}",
        )


def _minute(ts_us: int) -> str:
    """When, for people, to the minute in UTC."""
    try:
        return f"{_EPOCH + timedelta(microseconds=ts_us):%Y-%m-%d %H:%M}"
    except OverflowError:  # a capture may claim any time
        return "an unknown time"
