"""Not too many lines: which events are said at once, and which are counted and told together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from egressd.units import HOUR_US, MINUTE_US

FULL: Final = "full"
SHORT: Final = "short"
COUNTED: Final = ""
# A digest after a quarter of an hour, then ever later: what is told daily is soon not read. So it was in the attack
# of 2015 that pcaps/jps-2015 is built after: daily warnings had numbed the staff.
DIGEST_AFTER_US: Final = (15 * MINUTE_US, HOUR_US, 6 * HOUR_US, 24 * HOUR_US)


class Digest(NamedTuple):
    """What was counted and not said. `campaign` is "" for several together, then `campaigns` says how many. `hosts` is
    how many hosts of the campaign are known, 0 where that is not told; `new_hosts` those that no line named."""

    campaign: str
    campaigns: int
    events: int
    new_hosts: int
    hosts: int
    over_us: int


@dataclass(slots=True)
class _Told:
    """One campaign: who is known, how many lines it had, and what waits to be told."""

    clients: set[bytes] = field(default_factory=set)
    lines: int = 0
    events: int = 0
    new_hosts: int = 0
    since_us: int = 0
    last_us: int = 0
    digests: int = 0


class Throttle:
    """Decides which events get a line: a campaign's first at once and in full, each new client's after it in short up
    to a bound, all others are counted into digests. Neither a campaign nor a client can use up the lines of all others.
    No count is lost: every event was answered FULL or SHORT, or is in exactly one digest. Times are microseconds; a
    clock that is set back brings digests early, and holds nothing up."""

    def __init__(
        self,
        *,
        lines_per_campaign: int = 16,
        lines_per_hour: int = 128,
        lines_per_client_hour: int = 8,
        max_campaigns: int = 4_096,
        max_clients: int = 4_096,
        digests_at_once: int = 8,
    ) -> None:
        self._lines_per_campaign = lines_per_campaign
        self._lines_per_hour = lines_per_hour
        self._lines_per_client_hour = lines_per_client_hour
        self._max_campaigns = max_campaigns
        self._max_clients = max_clients
        self._digests_at_once = digests_at_once
        self._told: dict[str, _Told] = {}  # the longest quiet first
        self._rest = _Told()  # what was waiting of campaigns that were forgotten to make room
        self._rest_campaigns = 0
        self._hour_us = 0
        self._hour_lines: dict[bytes, int] = {}

    def note(self, campaign: str, client: bytes, now_us: int, events: int = 1) -> str:
        """Count `events` of a client in a campaign; FULL or SHORT when they should be said now, else COUNTED."""
        told = self._told.pop(campaign, None)
        if told is None:
            if len(self._told) >= self._max_campaigns:
                self._forget(next(iter(self._told)))
            told = _Told()
        elif not told.events and now_us - told.last_us >= 2 * DIGEST_AFTER_US[-1]:
            told.digests = 0
        self._told[campaign] = told
        told.last_us = now_us
        new = client not in told.clients and len(told.clients) < self._max_clients
        if new:
            told.clients.add(client)
        if (new or not told.lines) and told.lines < self._lines_per_campaign and self._may_say(client, now_us):
            told.lines += 1
            return FULL if told.lines == 1 else SHORT
        told.new_hosts += new
        if not told.events:
            told.since_us = now_us
        told.events += events
        return COUNTED

    def due(self, now_us: int) -> list[Digest]:
        """The digests whose time has come: the largest by themselves, all others as one."""
        ready = []
        for campaign, told in list(self._told.items()):
            after_us = DIGEST_AFTER_US[min(told.digests, len(DIGEST_AFTER_US) - 1)]
            if told.events and not 0 <= now_us - told.since_us < after_us:
                ready.append(self._digest(campaign, told, now_us))
            elif not told.events and now_us - told.last_us >= 7 * DIGEST_AFTER_US[-1]:
                del self._told[campaign]  # quiet for a week: the next contact is news again
        return self._together(ready, now_us, not 0 <= now_us - self._rest.since_us < DIGEST_AFTER_US[0])

    def flush(self, now_us: int) -> list[Digest]:
        """Everything that was counted and not said, before we end."""
        ready = [self._digest(campaign, told, now_us) for campaign, told in self._told.items() if told.events]
        return self._together(ready, now_us, True)

    def _may_say(self, client: bytes, now_us: int) -> bool:
        if not 0 <= now_us - self._hour_us < HOUR_US or not self._hour_lines:
            self._hour_us = now_us
            self._hour_lines.clear()
        said = self._hour_lines.get(client, 0)
        if said >= self._lines_per_client_hour or sum(self._hour_lines.values()) >= self._lines_per_hour:
            return False
        self._hour_lines[client] = said + 1
        return True

    def _digest(self, campaign: str, told: _Told, now_us: int) -> Digest:
        digest = Digest(campaign, 1, told.events, told.new_hosts, len(told.clients), max(0, now_us - told.since_us))
        told.events = told.new_hosts = 0
        told.digests += 1
        return digest

    def _forget(self, campaign: str) -> None:
        told = self._told.pop(campaign)
        if told.events:
            if not self._rest.events:
                self._rest.since_us = told.since_us
            self._rest.events += told.events
            self._rest.new_hosts += told.new_hosts
            self._rest_campaigns += 1

    def _together(self, ready: list[Digest], now_us: int, with_rest: bool) -> list[Digest]:
        ready.sort(key=lambda one: -one.events)
        shown, others = ready[: self._digests_at_once], ready[self._digests_at_once :]
        if with_rest and self._rest.events:
            rest = self._rest
            over_us = max(0, now_us - rest.since_us)
            others.append(Digest("", self._rest_campaigns, rest.events, rest.new_hosts, 0, over_us))
            self._rest = _Told()
            self._rest_campaigns = 0
        if others:
            campaigns, events, new_hosts = (sum(column) for column in list(zip(*others, strict=True))[1:4])
            shown.append(Digest("", campaigns, events, new_hosts, 0, max(one.over_us for one in others)))
        return shown
