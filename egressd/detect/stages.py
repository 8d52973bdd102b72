"""How far a campaign got, as what was seen and never more: "not observed", never "clean". Of the attack of 2015 that
pcaps/jps-2015 is built after, people were told that nothing had leaked, because nobody had seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from egressd.model import Campaign, Incident
from egressd.plural import count

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
CONTACT: Final = "contact"
REPEATED: Final = "repeated contact"
VOLUME_OUT: Final = "volume out"
SPREAD: Final = "spread"


class Watched(NamedTuple):
    """What was looked at: `packets` from `first_us` to `last_us`, `lost` of them by the capture; `blind` are
    connections whose names cannot be read, by sort (detect/blind.py). `by_volume` when how much data goes out is
    measured at all."""

    packets: int
    first_us: int
    last_us: int
    lost: int
    blind: Mapping[str, int]
    by_volume: bool


def stages_of(campaign: Campaign) -> list[str]:
    """The stages that the incidents of a campaign show, in order. Each incident is told with them, so they are kept as
    they change: looking through all incidents for each took hours where there were many."""
    found = [REPEATED if campaign.repeated else CONTACT]
    if campaign.sent:
        found.append(VOLUME_OUT)
    if len(campaign.incidents) > 1:
        found.append(SPREAD)
    return found


def stage_text(incidents: Sequence[Incident], watched: Watched) -> str:
    """One sentence for people, without a full stop."""
    contacts = max((one.contacts for one in incidents), default=0)
    hosts = count(len(incidents), "host")
    answered = "" if any(one.answered for one in incidents) else ", no answer seen"
    text = f"stage: {REPEATED if contacts > 1 else CONTACT}, {hosts}{answered}; data out: "
    volumes = list(dict.fromkeys(one.volume for one in incidents if one.volume))
    if volumes:
        text += "; ".join(volumes[:3])
        text += f" ({len(volumes) - 3} more)" if len(volumes) > 3 else ""
    else:
        text += "not observed" if watched.by_volume else "not measured; seen"
    text += f" in {count(watched.packets, 'packet')}, {_period(watched.first_us, watched.last_us)}"
    gaps = []
    if watched.lost:
        gaps.append(f"{count(watched.lost, 'packet was', 'packets were')} lost by the capture")
    hidden = ", ".join(f"{sort} {seen:,}" for sort, seen in sorted(watched.blind.items()) if seen)
    if hidden:
        gaps.append(f"names not readable: {hidden}")
    return f"{text}; but {'; '.join(gaps)}" if gaps else text


def _period(first_us: int, last_us: int) -> str:
    first, last = _moment(first_us), _moment(last_us)
    if first.date() == last.date():
        return f"{first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _moment(ts_us: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=ts_us)
    except OverflowError:  # a capture may claim any time
        return datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
