"""What enforcing now would do: which blocks, whom they would have hit, and what is shared or guarded.

What machines contacted in the last days - incidents, into which the retro-hunt puts what history knows of what was
listed later - is put before the policy in order of time, as if the mode were enforce and nothing were blocked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from egressd.detect.blocks import Blocks, main_target
from egressd.detect.budgets import why_rolled_back
from egressd.detect.correlator import Correlator
from egressd.detect.policy import Policy
from egressd.detect.resolutions import Resolutions, own_prefixes, place_of
from egressd.intel.networks import parse_address, parse_network, render_address
from egressd.model import BEHAVIOUR, FLOW, FlowKey, Incident, Match, Sighting, Target
from egressd.runtime.acts import no_segment
from egressd.runtime.core import Core
from egressd.store import past
from egressd.store.history import History
from egressd.units import DAY_US, SECOND_US

MOST_ROWS: Final = 500  # of the answer, the largest first
AT_ONCE: Final = 200
SHOWN: Final = 5
_NOTHING: Final = ("ignore", "alert")
_YIELD_EVERY: Final = 500

Record = dict[str, Any]


@dataclass(slots=True)
class Planned:
    """One target and what would be done about it. `action` is block, ask, isolate, alert or ignore; of a block
    `keeps_nobody` when no address is blocked for it, by what was seen until now."""

    target: Target
    action: str
    rule: str
    reason: str
    match: Match
    contacts: int = 0
    first_us: int = 0
    last_us: int = 0
    clients: set[bytes] = field(default_factory=set)
    shared: list[str] = field(default_factory=list)
    keeps_nobody: bool = False


class BlockPlan:
    """Over a core and its history, which may not be open: then none is kept. `flush` writes to disk what history has
    heard of."""

    def __init__(self, core: Core, history: History, flush: Callable[[], Awaitable[None]] | None = None) -> None:
        self._core = core
        self._history = history
        self._flush = flush

    async def plan(self, args: Record) -> Record:
        """What enforcing now would do, by what was contacted in the last `days`; by one segment's machines if one is
        named. Raises Refused when the configuration names none such."""
        core = self._core
        days, segment = args["days"], args["segment"]
        if segment is not None and segment not in core.config.segments:
            raise no_segment(core, segment)
        since_us = max(0, core.clock.now_us() - days * DAY_US)
        judge = _Judge(core)
        if self._flush is not None:
            await self._flush()
        seen = await self._history.ask(past.hosts_seen, since_us) if self._history.is_open else 0
        incidents = [one for one in core.campaigns.incidents.values() if one.last_us >= since_us]
        incidents.sort(key=lambda one: (one.first_us, int(one.id[1:])))
        for number, one in enumerate(incidents):
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            if segment is None or core.segment_of(one.client) == segment:
                judge.take(one, max(seen, 1))
        rows = sorted(judge.planned.values(), key=lambda one: (-len(one.clients), -one.contacts, one.target))
        for row in rows:
            standing = core.register.by_target.get(row.target)
            free = row.target.kind == "url" or (standing is not None and standing.is_all_spared())
            row.keeps_nobody = row.action == "block" and free
        acting = [row for row in rows if row.action in ("block", "isolate") and not row.keeps_nobody]
        for row in rows[:MOST_ROWS]:
            row.shared = await self._neighbours(row, since_us, judge)
        return {
            "days": days, "segment": segment or "", "hosts_seen": seen, "left_out": max(0, len(rows) - MOST_ROWS),
            "rows": [_told(core, row, seen) for row in rows[:MOST_ROWS]], "standing": len(core.arming.rules()),
            "hosts": len({client for row in acting for client in row.clients}),
            "contacts": sum(row.contacts for row in acting),
        }  # fmt: skip

    async def _neighbours(self, row: Planned, since_us: int, judge: _Judge) -> list[str]:
        """Other registered domains at the addresses that the target was found at, whether it covers them or not."""
        found: dict[str, None] = {}
        standing = self._core.register.by_target.get(row.target)
        targets = [*standing.held, *standing.spared] if standing is not None else []
        values = [target.value.rpartition(">")[2] for target in targets]
        places = (place_of(one, judge.nat64) for one in map(parse_address, values) if one)  # as history has them
        addresses = list(dict.fromkeys(places))[: AT_ONCE * SHOWN]
        for at in range(0, len(addresses) if self._history.is_open else 0, AT_ONCE):
            tenants = await self._history.ask(past.tenants_of, addresses[at : at + AT_ONCE], since_us)
            found.update(dict.fromkeys(name for name in tenants if judge.match(name) is None))
        return list(found)


class _Judge:
    """The policy as if in mode enforce, over blocks of its own."""

    def __init__(self, core: Core) -> None:
        intel = core.knowledge.intel
        settings = core.knowledge.settings._replace(mode="enforce", modes=())
        self.planned: dict[Target, Planned] = {}
        self._now_us = core.clock.now_us()
        self._allowances = intel.allowances
        self._machine_of = core.devices.machine_of
        self.nat64 = own_prefixes(intel.allowances.nat64)
        resolutions = Resolutions(intel.suffixes, nat64=self.nat64)
        self._correlator = Correlator(intel.index, intel.allowances, resolutions, intel.suffixes)
        self._policy = Policy(settings, Blocks(self.nat64), intel.protected, intel.allowances, intel.shared)

    def match(self, name: str) -> Match | None:
        """What is listed now."""
        return self._correlator.match_name(name, self._now_us)

    def take(self, incident: Incident, known: int) -> None:
        """What one machine contacted: name by name, or the address that is listed."""
        if self._allowances.ignores_client(incident.client, self._now_us // SECOND_US) is not None:
            return
        named = {name: match for name in incident.names if (match := self.match(name)) is not None}
        if not named:
            self._contact(incident, "", incident.match, incident.contacts, known)
        for name, match in named.items():
            if not self._correlator.is_allowed(name, b"", incident.client, self._now_us):
                self._contact(incident, name, match, incident.names[name], known)

    def _contact(self, incident: Incident, name: str, match: Match, contacts: int, known: int) -> None:
        network = parse_network(match.indicator.value) if match.level == "address" else None
        address = network[0] if network is not None else b""
        if address and self._correlator.match_address(address, self._now_us) is None:
            return  # not listed any more
        if not name and not address and match.level != BEHAVIOUR:
            return
        sighting = Sighting(
            incident.first_us, 0, FlowKey(0, incident.client, 0, b"", 0), name, match, FLOW, "", True, contacts,
            incident.first_us, incident.last_us, address=address,
        )  # fmt: skip
        machine = self._machine_of(incident.client)
        block = self._policy.block_of(sighting)
        target = block.target if block is not None else main_target(match)
        planned = self.planned.get(target)
        if block is None:
            hit = len(planned.clients) + 1 if planned is not None else 1
            decision = self._policy.decide(sighting, (), hit, known, machine)
            if decision is not None:
                target = decision.targets[0]
                said = decision.action, decision.rule, decision.reason
                planned = self.planned.get(target)
                if planned is not None and planned.action in _NOTHING:
                    planned.action, planned.rule, planned.reason = said
            else:
                said = "ignore", "", "a rule ignores it"
        elif planned is not None and block.sole and machine != self._machine_of(block.sole):
            decision = self._policy.widen(block, sighting, (), len(planned.clients) + 1, known, machine)
            if decision is not None:
                planned.rule, planned.reason = decision.rule, decision.reason
        if planned is None:
            planned = self.planned[target] = Planned(target, *said, match)
        planned.contacts += contacts
        planned.clients.add(incident.client)
        planned.first_us = min(planned.first_us or incident.first_us, incident.first_us)
        planned.last_us = max(planned.last_us, incident.last_us)


def _told(core: Core, row: Planned, seen: int) -> Record:
    settings = core.knowledge.settings
    indicator = row.match.indicator
    registered = row.match.registered_domain
    over = ""
    if row.action == "block":
        machines = len({core.devices.machine_of(one) for one in row.clients})
        over = why_rolled_back(machines, seen, 0, settings.rollback_clients, settings.rollback_share)
    clients: Sequence[bytes] = sorted(row.clients)
    return {
        "action": row.action, "kind": row.target.kind, "target": row.target.value, "rule": row.rule,
        "reason": row.reason, "source": f"{indicator.source}:{indicator.line}", "threat": indicator.threat,
        "hosts": len(clients), "clients": [render_address(one) for one in clients[:SHOWN]],
        "segments": sorted({core.segment_of(one) or "-" for one in clients}), "contacts": row.contacts,
        "first_us": row.first_us, "last_us": row.last_us,
        "keeps_nobody": row.keeps_nobody, "shared": row.shared[:SHOWN], "shared_names": len(row.shared),
        "guard": core.loaded.texts.guard.why(registered) if registered else "", "rollback": over,
    }  # fmt: skip
