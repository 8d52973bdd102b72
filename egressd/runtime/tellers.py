"""Who is told what happens: the event log gets everything that is told one by one, people get what needs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from egressd.clock import Clock
from egressd.model import Attempt, Decision, Incident
from egressd.notify.evelog import EveLog
from egressd.notify.journal import Journal
from egressd.notify.plain import defang
from egressd.notify.sentences import digest_line, incident_line, leak_line
from egressd.notify.throttle import COUNTED, SHORT, Throttle
from egressd.plural import count
from egressd.units import HOUR_US

# About verdicts, and as many about leaks: journald drops what comes beyond some thousand, whatever it is.
LINES_PER_HOUR: Final = 128
LEAK_AGAIN_US: Final = HOUR_US  # the same client through the same block: told once an hour
MAX_LEAKS: Final = 4_096
TROUBLE_AGAIN_US: Final = 600_000_000  # an event log that cannot be written is told of once in ten minutes

log = logging.getLogger("egressd")


# What else a person has to know, by action or rule.
TOLD: Final = {
    "ask": "waits for a person (egressd decisions)",
    "isolate": "isolated by the policy",
    "rollback": "TAKEN BACK, waits for a person (egressd decisions)",
    "lapsed": "lapsed, nobody decided",
}


class _Hour:
    """Lines of one sort within an hour. What finds no room is counted, and told when the hour is over."""

    def __init__(self) -> None:
        self._began_us = 0
        self._said = 0
        self.untold = 0

    def is_over(self, now_us: int) -> bool:
        """Whether another hour begins."""
        return not 0 <= now_us - self._began_us < HOUR_US

    def may_say(self, now_us: int) -> bool:
        """Whether there is room for a line; counts it, said or not."""
        if self.is_over(now_us):
            self._began_us = now_us
            self._said = 0
        if self._said >= LINES_PER_HOUR:
            self.untold += 1
            return False
        self._said += 1
        return True

    def take_untold(self) -> int:
        """What was not told until now."""
        untold, self.untold = self.untold, 0
        return untold


class Watchers:
    """The event log, which may be missing, and the journal."""

    def __init__(self, events: EveLog | None, journal: Journal, clock: Clock) -> None:
        self.events = events
        self._journal = journal
        self._clock = clock
        self._throttle = Throttle()
        self._leaks: dict[tuple[str, bytes], int] = {}
        self._trouble = ""  # of the event log, as it was told
        self._trouble_us = -TROUBLE_AGAIN_US  # when
        self._verdicts = _Hour()
        self._leaking = _Hour()
        self.domain_of: Callable[[str], str] = str  # what a campaign is about

    def event(self, record: dict[str, Any]) -> None:
        """A rendered event."""
        if self.events is not None:
            self.events.write(record)

    def incident(self, incident: Incident, outcome: str, segment: str, hosts: int) -> None:
        """An incident was opened: the first of a campaign in full, further hosts in short, many as a digest."""
        how = self._throttle.note(incident.campaign, incident.client, self._clock.now_us())
        if how != COUNTED:
            self._journal.say(incident_line(incident, outcome, segment=segment, hosts=hosts, short=how == SHORT))

    def attempt(self, attempt: Attempt, segment: str) -> None:
        """A leak is loud; a first attempt was told as its incident."""
        if not attempt.leak:
            return
        now_us = self._clock.now_us()
        key = (attempt.decision_id, attempt.flow.client)
        if 0 <= now_us - self._leaks.get(key, -LEAK_AGAIN_US) < LEAK_AGAIN_US:  # else the clock was set back
            return
        if len(self._leaks) >= MAX_LEAKS:
            self._leaks.clear()
        self._leaks[key] = now_us
        if self._leaking.may_say(now_us):
            self._journal.say(leak_line(attempt, segment=segment))

    def decision(self, decision: Decision) -> None:
        """Verdicts that need a person: what was not blocked, and why."""
        if decision.action in ("refuse", "alert"):
            if not self._verdicts.may_say(self._clock.now_us()):
                return
            what = ", ".join(f"{one.kind} {defang(one.value)}" for one in decision.targets[:3])
            whose = f", of {defang(decision.name)} ({decision.id})" if decision.name and decision.id else ""
            log.warning("not blocked (%s): %s%s: %s", decision.rule, what, whose, defang(decision.reason))
        elif decision.action in TOLD or decision.rule in TOLD:
            what = ", ".join(f"{one.kind} {defang(one.value)}" for one in decision.targets[:3])
            text = TOLD.get(decision.rule) or TOLD[decision.action]
            log.warning("%s: %s %s (%s): %s", text, decision.id, what, decision.rule, defang(decision.reason))

    def tick(self) -> None:
        """Digests that are due, and how the event log does."""
        self._tell_of_events()
        now_us = self._clock.now_us()
        for digest in self._throttle.due(now_us):
            self._journal.say(digest_line(digest, self.domain_of(digest.campaign)))
        self._tell_untold(now_us, False)

    def _tell_untold(self, now_us: int, at_once: bool) -> None:
        for hour, one, many in (
            (self._verdicts, "more verdict (egressd audit) was", "more verdicts (egressd audit) were"),
            (self._leaking, "more leak (egressd watch) was", "more leaks (egressd watch) were"),
        ):
            if hour.untold and (at_once or hour.is_over(now_us)):
                log.warning("%s too many to be told one by one", count(hour.take_untold(), one, many))

    def _tell_of_events(self) -> None:
        """Whoever reads the event log alone misses what is not in it: said once, and once when it is over."""
        stats = self.events.stats if self.events is not None else None
        if stats is None or bool(stats.trouble) == bool(self._trouble):
            return
        now_us = self._clock.now_us()
        if stats.trouble and 0 <= now_us - self._trouble_us < TROUBLE_AGAIN_US:
            return  # a disk that is full and not full by turns
        self._trouble = stats.trouble
        if stats.trouble:
            self._trouble_us = now_us
            log.error("the event log cannot be written, events wait in memory: %s", stats.trouble)
        else:
            lost = count(sum(stats.dropped.values()), "event")
            log.warning("the event log is written again; %s since the start did not fit into memory", lost)

    def finish(self) -> None:
        """The daemon ends: what was held back is told."""
        now_us = self._clock.now_us()
        for digest in self._throttle.flush(now_us):
            self._journal.say(digest_line(digest, self.domain_of(digest.campaign)))
        self._tell_untold(now_us, True)
