"""`egressd explain --live`: what the daemon knows and would do about a name, an address or a URL, and why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, Final

from egressd.errors import ConfigError
from egressd.intel.networks import render_address
from egressd.model import Match
from egressd.notify.eve import render_time
from egressd.runtime.core import Core
from egressd.runtime.in_force import InForce
from egressd.runtime.preview import Preview
from egressd.runtime.question import Question, judge, parse_question, render_verdict
from egressd.store.decisions import ACTIVE, WITHDRAWN
from egressd.units import SECOND_US
from egressd.web.requests import WRONG, Refused

SHOWN: Final = 20  # incidents, and other lines that say the same

Record = dict[str, Any]


class Explaining:
    """Over a core. `score_of` tells how the feed of a name stands, None when there is none of that name."""

    def __init__(self, core: Core, preview: Preview, score_of: Callable[[str], Awaitable[Record | None]]) -> None:
        self._core = core
        self._preview = preview
        self._score_of = score_of

    async def explain(self, args: Record) -> Record:
        """Everything about one subject. Raises Refused."""
        core = self._core
        try:
            question = parse_question(args["what"])
        except ConfigError as error:
            raise Refused(error.problems[0].what, WRONG) from None
        now_us = core.clock.now_us()
        loaded = core.loaded.texts._replace(intel=core.knowledge.intel)
        settings = core.knowledge.settings
        verdict = judge(question, loaded, settings, now_us // SECOND_US)
        record = render_verdict(verdict, core.arming.mode)
        match = verdict.match
        if match is None:
            return {**record, **self._found_out(question)}
        record["feed"] = await self._score_of(match.indicator.source)
        record["also"] = self._others(match)
        standing = core.register.about(match, question.name, question.address)
        record["decision"] = self._decision(standing) if standing is not None else None
        record["incidents"] = self._incidents(match)
        effect = await self._preview.of([match.indicator])
        record["untold"] = effect.sentence() if effect.hosts_seen else ""
        return record

    def _others(self, match: Match) -> list[str]:
        """Other lines that name the same."""
        one = match.indicator
        index = self._core.knowledge.intel.index
        others = (other for other in index.alike(one) if other.value == one.value and other != one)
        return [f"{other.source}:{other.line}" for other in islice(others, SHOWN)]

    def _found_out(self, question: Question) -> Record:
        """Of an address that no list names, but that a decision covers because a listed name led to it."""
        found = self._core.register.reached_by(render_address(question.address)) if question.address else None
        if found is None:
            return {}
        standing, target = found
        record: Record = {"decision": self._decision(standing), "incidents": self._incidents(standing.match)}
        if standing.state == ACTIVE:
            client, _, _ = target.value.rpartition(">")
            record["held"] = f"for {client}" if client else "for everybody"
            record["enforced"] = self._core.rulings.enforces(standing)
            record["would"] = "nothing more: not listed itself"
        return record

    def _decision(self, standing: InForce) -> Record:
        held = [
            f"{target.kind} {target.value}"
            for target, one in islice(standing.held.items(), SHOWN)
            if one.state != WITHDRAWN
        ]
        spared = [f"{target.kind} {target.value}: {why}" for target, why in standing.left_open().items()]
        return {
            "id": standing.id, "state": standing.state, "author": standing.author, "reason": standing.reason,
            "since": render_time(standing.created_us), "targets": held,
            "spared": spared,
        }  # fmt: skip

    def _incidents(self, match: Match) -> list[Record]:
        found = [
            one
            for one in self._core.campaigns.incidents.values()
            if one.match.indicator.value == match.indicator.value
            or (match.registered_domain and one.match.registered_domain == match.registered_domain)
        ]
        found.sort(key=lambda one: -one.last_us)
        return [
            {
                "id": one.id, "client": render_address(one.client), "contacts": one.contacts, "attempts": one.attempts,
                "first": render_time(one.first_us), "last": render_time(one.last_us),
            }
            for one in found[:SHOWN]
        ]  # fmt: skip
