"""Feeds in the daemon: what they say goes to the core, how they stand to screens, metrics and the log, what they meet
to their scorecards. The following of them is intel.feeds' affair."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from egressd.config.feed_options import feed_host
from egressd.config.schema import Config
from egressd.detect.review import match_target
from egressd.intel.allowances import NEVER_BLOCK, Allowance, Allowances
from egressd.intel.feeds.fetch import Times
from egressd.intel.feeds.follow import Feeds
from egressd.intel.feeds.judging import Rules
from egressd.intel.feeds.state import FeedState
from egressd.intel.lines import show
from egressd.intel.poison import Poison
from egressd.model import Indicator, Match, Target
from egressd.notify.eve import render_feed, render_time
from egressd.plural import count
from egressd.runtime import knowledge
from egressd.runtime.acts import on_record
from egressd.runtime.core import Core
from egressd.runtime.feed_build import judge_in
from egressd.runtime.knowledge import Fed
from egressd.store import audit, feeds
from egressd.store.audit import Act
from egressd.store.feeds import FeedRow, Score
from egressd.units import SECOND_US
from egressd.web.peers import Peer
from egressd.web.requests import REFUSED, Refused

FLUSH_S: Final = 5.0
LOOK_S: Final = 1.0

log = logging.getLogger("egressd.feeds")

Record = dict[str, Any]


class Feeding:
    """Owns the daemon's feeds."""

    def __init__(self, core: Core, directory: Path, *, times: Times = Times()) -> None:  # noqa: B008  (immutable)
        """`directory` is the daemon's own; what is kept lies in a folder of it."""
        self._core = core
        folder = directory / "feeds"
        self.feeds = Feeds(
            folder, core.loaded.base_dir, core.clock, self._rules, judge_in(folder / "indexes"), self._version,
            self._told, times=times,
        )  # fmt: skip
        self._hits: dict[str, list[int]] = {}  # by feed: contacts, and those that only it met, not yet written
        self._allowed: frozenset[Allowance] = frozenset()  # what held at the last look
        core.on_loaded = self.reload
        core.intake.on_met = self.met

    async def open(self) -> None:
        """What was kept into force, before anything is fetched."""
        await self.reload()
        for state in self.feeds.states.values():
            if state.trouble:
                log.error("feed %s: %s", state.name, state.trouble)
        self._core.stale = bool(self._core.fed)

    async def reload(self) -> None:
        """Configuration and lists were read anew: other feeds, other allowances. The caller renews what rests on it."""
        await self.feeds.configure(self._core.config.feeds)
        self._feed()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feeds.run(), name="feeds")
            group.create_task(self._flush_hits(), name="feeds' hits")
            group.create_task(self._follow_allowances(), name="feeds' allowances")

    async def _follow_allowances(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """A line that was kept out for an allowance is in force again when that is over: by its time, taken back or
        deleted. Without this it would wait for the next reload, and its block with it."""
        now_s = self._now_us() // SECOND_US
        held = self._core.knowledge.intel.allowances.allowances
        now = frozenset(one._replace(line=0) for one in held if not 0 < one.expires_s <= now_s)
        over, self._allowed = self._allowed - now, now
        if over and await self.feeds.judge_anew():
            self._feed()
            await self._core.renew()

    async def _flush_hits(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush()

    def flush(self) -> None:
        """What was met since goes to the ledger."""
        hits, self._hits = self._hits, {}
        if hits:
            self._core.scribe.put(feeds.add_hits, [(name, *counts) for name, counts in sorted(hits.items())])

    # -- between feeds and core

    def _rules(self) -> Rules:
        """By what a version is judged: lists, allowances and surroundings as they are now."""
        core = self._core
        texts = core.loaded.texts
        protected = texts.intel.protected.plus(core.station.around.networks)
        _, added, _ = knowledge.parse_entries(core.entries, texts, protected)
        allowances = Allowances([*texts.intel.allowances.allowances, *added, *_own_hosts(core.config)])
        now_s = core.clock.now_us() // SECOND_US
        suffixes = texts.intel.suffixes
        return Rules(
            suffixes, texts.guard, Poison(suffixes, texts.guard, protected, allowances, now_s), texts.context, now_s
        )

    def _feed(self) -> None:
        """Give the core what is in force. Another mapping each time: the core tells by that whether there is more."""
        self._core.fed = {
            one.name: Fed(one.index, one.last_ok_us) for one in self.feeds.states.values() if one.index is not None
        }

    async def _version(self, state: FeedState) -> None:
        self._feed()
        self._core.tellers.event(_event(state, state.told(), self._now_us()))
        size = count(state.size, "indicator")
        log.info("feed %s: %s (%d came, %d went)", state.name, size, state.added, state.removed)
        await self._core.renew()

    def _told(self, state: FeedState, before: str) -> None:
        """An attempt is over: its alarm, once for each different one, and its row."""
        self._feed()
        now = state.told()
        if now != before:
            self._core.tellers.event(_event(state, now, self._now_us()))
            if now:
                log.error("feed %s: %s", state.name, now)
            else:
                log.info("feed %s is well again", state.name)
        row = FeedRow(
            state.name, state.last_try_us, state.last_ok_us, now, state.size, state.added, state.removed,
            state.poisoned,
        )  # fmt: skip
        self._core.scribe.put(feeds.note, row)

    def met(self, match: Match, contacts: int) -> None:
        """A line met so many contacts."""
        source = match.indicator.source
        if contacts <= 0 or source not in self.feeds.states:
            return
        counts = self._hits.setdefault(source, [0, 0])
        counts[0] += contacts
        if self._is_only(match.indicator):
            counts[1] += contacts

    def _is_only(self, one: Indicator) -> bool:
        """Whether no other source covers what this line names."""
        now_s = self._now_us() // SECOND_US
        index = self._core.knowledge.intel.index
        target = Target(one.kind, one.value)
        return match_target(index, target, now_s, skip=lambda other: other.source == one.source) is None

    # -- what people see

    def warnings(self) -> list[str]:
        """A line for each feed that somebody should look at."""
        return [f"feed {one.name}: {one.told()}" for one in self.feeds.states.values() if one.is_alarming]

    async def screen(self, args: Record) -> Record:
        """Every feed with its scorecard; of one that is named also the lines that are kept out."""
        scores = await self._core.ledger.read(feeds.scores)
        states = self.feeds.states
        if args["feed"] is not None:
            state = self._known(args["feed"])
            return {
                "feeds": [_row(state, self._score(scores, state.name), self._now_us())],
                "quarantine": _lines(state),
            }
        found = [_row(one, self._score(scores, one.name), self._now_us()) for one in states.values()]
        off = [name for name, one in self._core.config.feeds.items() if not one.enabled]
        judged = [
            {"source": source, "false_positives": one.false_positives, "confirmed": one.confirmed}
            for source, one in sorted(scores.items())
            if source not in states and (one.false_positives or one.confirmed)
        ]
        return {"feeds": found, "disabled": off, "lists_judged": judged}

    async def score_of(self, name: str) -> Record | None:
        """How a feed stands, and what it is worth; None when there is none of that name."""
        state = self.feeds.states.get(name)
        if state is None:
            return None
        scores = await self._core.ledger.read(feeds.scores)
        return _row(state, self._score(scores, name), self._now_us())

    def _score(self, scores: dict[str, Score], name: str) -> Score:
        """As written, with what waits to be."""
        score = scores.get(name, Score())
        hits, unique = self._hits.get(name, (0, 0))
        return score._replace(hits=score.hits + hits, unique_hits=score.unique_hits + unique)

    def _now_us(self) -> int:
        return self._core.clock.now_us()

    def _known(self, name: str) -> FeedState:
        state = self.feeds.states.get(name)
        if state is None:
            there = ", ".join(self.feeds.states) or "none"
            raise Refused(f"no feed {show(name)} is enabled; there are: {there}", REFUSED)
        return state

    # -- what people do

    def table(self) -> dict[str, Callable[[Peer, Record], Awaitable[Record]]]:
        """Verb -> what does it."""
        verbs = {"feeds-update": self.update, "feeds-judge": self.judge}
        return {verb: on_record(self._core, does) for verb, does in verbs.items()}

    async def update(self, peer: Peer, args: Record) -> Record:
        """Ask for one feed or all now, without waiting for it. Raises Refused."""
        names = [self._known(args["feed"]).name] if args["feed"] is not None else list(self.feeds.states)
        if not names:
            raise Refused("no feed is enabled: name some under feeds: in the configuration (config/feeds.example.yaml)")
        if args["force"] and args["feed"] is None:
            raise Refused("name the feed whose next version is to be taken whatever its size")
        act = Act(peer.actor, "socket", "feeds-update", ", ".join(names)[:200], args["reason"])
        await self._core.scribe.settled()
        await self._core.ledger.run(audit.append, act._replace(after={"force": args["force"]}), self._now_us())
        for name in names:
            self.feeds.ask(name, force=args["force"])
        lines = ["what comes of it: egressd feeds"]
        if args["force"]:
            lines.insert(0, "it is taken whatever its size; lines that must never act are kept out all the same")
        return {"text": f"asked for {', '.join(names)}", "lines": lines}

    async def judge(self, peer: Peer, args: Record) -> Record:
        """A person's word on an incident: was the list right?"""
        core = self._core
        await core.scribe.settled()
        act = Act(peer.actor, "socket", "judge", args["incident"], args["reason"])
        said = (args["incident"], args["verdict"], peer.actor, args["reason"], self._now_us(), act)
        source = await core.ledger.run(feeds.judge, *said)
        lines = []
        if args["verdict"] == feeds.FALSE_POSITIVE:
            lines.append("nothing is unblocked by that; to let it be reached: egressd allow NAME --reason TEXT")
        return {"text": f"{args['incident']} counts as {args['verdict']} for {source}", "lines": lines}


def _own_hosts(config: Config) -> list[Allowance]:
    """A feed must not talk us into blocking where feeds come from."""
    found = []
    for name, feed in config.feeds.items():
        line, _ = config.places.get(f"feeds.{name}.url", (0, 0))
        if feed.enabled:
            reason = f"feed {name} comes from there"
            found.append(Allowance(NEVER_BLOCK, feed_host(feed), "", "egressd", reason, 0, config.origin, line))
    return found


def _event(state: FeedState, reason: str, now_us: int) -> Record:
    fields = {
        "feed": state.name,
        "state": state.state,
        "kind": state.kind,
        "reason": reason,
        "indicators": state.size,
        "added": state.added,
        "removed": state.removed,
        "quarantined": state.poisoned,
    }
    return render_feed(now_us, fields)


def _row(state: FeedState, score: Score, now_us: int) -> Record:
    return {
        "name": state.name,
        "url": state.url,
        "format": state.options.format,
        "state": state.state,
        "problem": state.told() or None,
        "kind": state.kind or None,
        "failures": state.failures,
        "last_try": _time(state.last_try_us),
        "last_ok": _time(state.last_ok_us),
        "changed": _time(state.changed_us),
        "age_s": max(0, now_us - state.last_ok_us) // SECOND_US if state.last_ok_us else None,
        "indicators": state.size,
        "added": state.added,
        "removed": state.removed,
        "quarantined": state.poisoned,
        "bad_lines": state.bad_lines,
        "ignored": state.ignored,
        **score._asdict(),
    }


def _lines(state: FeedState) -> list[Record]:
    return [
        {"line": one.line, "value": show(one.value), "kind": one.kind, "reason": one.reason}
        for one in state.quarantined
    ]


def _time(us: int) -> str | None:
    return render_time(us) if us else None
