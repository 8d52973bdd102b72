"""What a change of lists would do, before it is made: told from history, and from what stands now.

Of an indicator that would be added: who contacted what it covers, how often, since when; who else lives at the
addresses; whether many people go there. Of one that would go: which blocks would end, and how many tries they stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from egressd.detect.blocks import is_carried
from egressd.detect.review import match_target
from egressd.errors import Problem
from egressd.intel.formats import parse_list
from egressd.intel.index import Index
from egressd.intel.layered import AnyIndex
from egressd.intel.networks import parse_network, render_address, ways_to
from egressd.model import Indicator
from egressd.notify.eve import render_time
from egressd.plural import count
from egressd.runtime.core import Core
from egressd.store import past
from egressd.store.history import History
from egressd.store.past import Hit
from egressd.units import DAY_US, SECOND_US

DAYS: Final = 30
MOST_HITS: Final = 100_000  # rows of history that are looked at; with more the numbers are lower bounds
AT_ONCE: Final = 200
MOST_ADDRESSES: Final = 1_000
SHOWN: Final = 5
SOURCE: Final = "preview"
# From here on a change asks for a second thought: so large a part of the hosts is hardly infected.
MANY_HOSTS: Final = 5
LARGE_SHARE: Final = 0.1

Record = dict[str, Any]


@dataclass(slots=True)
class Effect:
    """What a change would do. Times are microseconds of epoch, 0 when there is none. `more` when history has more than
    was looked at; `guards` are reasons why what is listed is no ordinary site."""

    added: int = 0
    removed: int = 0
    already: list[str] = field(default_factory=list)
    hosts: int = 0
    hosts_seen: int = 0
    contacts: int = 0
    first_us: int = 0
    last_us: int = 0
    days: int = DAYS  # 0: no history is kept
    more: bool = False
    shared: list[str] = field(default_factory=list)
    guards: list[str] = field(default_factory=list)
    top: list[tuple[str, str, int]] = field(default_factory=list)  # client, name, contacts
    lifted: list[tuple[str, str, int, int]] = field(default_factory=list)  # decision, target, tries, clients

    @property
    def is_large(self) -> bool:
        """Whether this asks for a second thought."""
        share = self.hosts / self.hosts_seen if self.hosts_seen else 0.0
        return bool(self.guards) or (self.hosts >= MANY_HOSTS and share >= LARGE_SHARE)

    def sentence(self) -> str:
        """The numbers in words, for people."""
        if not self.added:
            return "nothing would be added"
        if not self.days:
            return "; ".join(["what it would hit is not known: no history is kept", *self.guards[:SHOWN]])
        least = "at least " if self.more else ""
        if not self.hosts_seen:
            text = f"what it would hit is not known: no host was seen in {count(self.days, 'day')}"
        elif not self.contacts:
            text = f"nobody of {count(self.hosts_seen, 'host')} contacted it in {count(self.days, 'day')}"
            if self.already:  # what was told of when it happened is in incidents, not in history
                text += ", beside those that incidents tell of"
        else:
            contacts = count(self.contacts, "contact")
            text = (
                f"{least}{self.hosts:,} of {count(self.hosts_seen, 'host')}, {least}{contacts} in"
                f" {count(self.days, 'day')}, first {_day(self.first_us)}"
            )
        if self.shared:
            text += f"; shared with {count(len(self.shared), 'name')}"
        return "; ".join([text, *self.guards[:SHOWN]])


class Preview:
    """Over a core and its history, which may not be open: then none is kept."""

    def __init__(self, core: Core, history: History, flush: Callable[[], Awaitable[None]] | None = None) -> None:
        """`flush` writes to disk what history has heard of: what was contacted a moment ago counts too."""
        self._core = core
        self._history = history
        self._flush = flush

    async def of_lines(self, lines: Sequence[str]) -> tuple[Effect, list[Problem]]:
        """`+LINE` and `-LINE`, each a line of a list; what is wrong in them is told with the number of the change."""
        added, wrong = self._parse(lines, "+")
        removed, more = self._parse(lines, "-")
        effect = await self.of(added, removed)
        return effect, sorted(wrong + more, key=lambda one: one.line)

    def _parse(self, lines: Sequence[str], sign: str) -> tuple[list[Indicator], list[Problem]]:
        texts = self._core.loaded.texts
        protected = self._core.knowledge.intel.protected
        text = "\n".join(line[1:] if line[:1] == sign else "" for line in lines)
        return parse_list(text, SOURCE, texts.intel.suffixes, texts.guard, protected=protected)

    async def of(self, added: Sequence[Indicator], removed: Sequence[Indicator] = ()) -> Effect:
        """What adding and removing indicators would do."""
        effect = Effect(len(added), len(removed))
        index = self._core.knowledge.intel.index
        now_s = self._core.clock.now_us() // SECOND_US
        for one in added:
            listed = _listed(index, one)
            if listed is not None:
                effect.already.append(f"{one.value} ({listed.source}:{listed.line})")
            elif one.kind == "domain" and (match := index.match_name(one.value, now_s)) is not None:
                by = match.indicator
                effect.already.append(f"{one.value} by {by.value} ({by.source}:{by.line})")
            why = self._core.loaded.texts.guard.why(one.registered_domain) if one.registered_domain else ""
            if why and why not in effect.guards:
                effect.guards.append(why)
        await self._look_back(effect, added)
        self._would_lift(effect, removed)
        return effect

    # -- what would be hit

    async def _look_back(self, effect: Effect, added: Sequence[Indicator]) -> None:
        history = self._history
        if not history.is_open:
            effect.days = 0
        if not history.is_open or not added:
            return
        if self._flush is not None:
            await self._flush()
        now_us = self._core.clock.now_us()
        effect.days = min(DAYS, self._core.config.state.history_days)
        since_us = max(0, now_us - effect.days * DAY_US)
        effect.hosts_seen = await history.ask(past.hosts_seen, since_us)
        intel = self._core.loaded.texts.intel
        listed = [one._replace(added_s=0, expires_s=0) for one in added]
        index = Index.build(listed, intel.suffixes, intel.allowances.nat64)
        hits = await self._hits(history, added, since_us, index, now_us // SECOND_US)
        effect.more = len(hits) >= MOST_HITS
        effect.hosts = len({one.client for one in hits})
        effect.contacts = sum(one.contacts for one in hits)
        effect.first_us = min((one.first_us for one in hits), default=0)
        effect.last_us = max((one.last_us for one in hits), default=0)
        effect.top = _top(hits)
        effect.shared = await self._neighbours(history, hits, since_us, index, now_us // SECOND_US)

    async def _hits(
        self, history: History, added: Sequence[Indicator], since_us: int, index: Index, now_s: int
    ) -> list[Hit]:
        hits: list[Hit] = []
        domains = list(dict.fromkeys(one.registered_domain or one.value for one in added if one.kind == "domain"))
        for at in range(0, len(domains), AT_ONCE):
            rows = await history.ask(past.hits_of_domains, domains[at : at + AT_ONCE], since_us, MOST_HITS - len(hits))
            hits += [row for row in rows if index.match_name(row.name, now_s) is not None]
        for one in added:
            network = parse_network(one.value) if one.kind in ("address", "network") else None
            for ends in ways_to(*network, index.nat64) if network is not None else ():
                rows = await history.ask(past.hits_of_addresses, *ends, since_us, max(0, MOST_HITS - len(hits)))
                hits += [row for row in rows if index.match_address(row.address, now_s) is not None]
        return hits

    async def _neighbours(
        self, history: History, hits: Sequence[Hit], since_us: int, index: Index, now_s: int
    ) -> list[str]:
        """Other registered domains at the addresses that were contacted."""
        addresses = list(islice(dict.fromkeys(one.address for one in hits if one.address), MOST_ADDRESSES))
        found: dict[str, None] = {}
        for at in range(0, len(addresses), AT_ONCE):
            tenants = await history.ask(past.tenants_of, addresses[at : at + AT_ONCE], since_us)
            found.update(dict.fromkeys(name for name in tenants if index.match_name(name, now_s) is None))
        listed = {index_domain for hit in hits if (index_domain := _domain(self._core, hit.name))}
        return [name for name in found if name not in listed]

    # -- what would end

    def _would_lift(self, effect: Effect, removed: Sequence[Indicator]) -> None:
        core = self._core
        gone = {(one.kind, one.value) for one in removed}
        if not gone:
            return
        now_s = core.clock.now_us() // SECOND_US

        def is_gone(one: Indicator) -> bool:
            return (one.kind, one.value) in gone

        for decision in core.register.by_id.values():
            if not is_gone(decision.match.indicator):
                continue
            left = match_target(core.knowledge.intel.index, decision.target, now_s, skip=is_gone)
            if left is not None and is_carried(decision.target, decision.match, left):
                continue  # another line covers the same
            watched = core.intake.watched.of(decision.id)
            tries = sum(one.count for one in watched.values())
            effect.lifted.append((decision.id, decision.target.value, tries, len(watched)))


def told(effect: Effect, problems: Sequence[Problem] = ()) -> Record:
    """As the control socket answers."""
    return {
        "text": effect.sentence(),
        "added": effect.added,
        "removed": effect.removed,
        "already": effect.already,
        "problems": [str(one) for one in problems],
        "hosts": effect.hosts,
        "hosts_seen": effect.hosts_seen,
        "contacts": effect.contacts,
        "first_us": effect.first_us,
        "last_us": effect.last_us,
        "days": effect.days,
        "more": effect.more,
        "shared": effect.shared,
        "guards": effect.guards,
        "large": effect.is_large,
        "top": [{"client": client, "name": name, "contacts": contacts} for client, name, contacts in effect.top],
        "lifted": [
            {"decision_id": id_, "target": target, "tries": tries, "clients": clients}
            for id_, target, tries, clients in effect.lifted
        ],
    }


def _listed(index: AnyIndex, one: Indicator) -> Indicator | None:
    """An indicator of the same value that is in force or will be."""
    return next((other for other in index.alike(one) if (other.kind, other.value) == (one.kind, one.value)), None)


def _domain(core: Core, name: str) -> str:
    return core.loaded.texts.intel.suffixes.registered_domain(name) if name else ""


def _top(hits: Sequence[Hit]) -> list[tuple[str, str, int]]:
    """The clients with most contacts, each with what it contacted most."""
    by_client: dict[bytes, tuple[int, str]] = {}
    for one in sorted(hits, key=lambda hit: (-hit.contacts, hit.name)):
        count, name = by_client.get(one.client, (0, ""))
        by_client[one.client] = (count + one.contacts, name or one.name or render_address(one.address))
    ordered = sorted(by_client.items(), key=lambda row: (-row[1][0], row[0]))
    return [(render_address(client), name, count) for client, (count, name) in ordered[:SHOWN]]


def _day(ts_us: int) -> str:
    return render_time(ts_us)[:10]
