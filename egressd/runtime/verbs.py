"""What people may do by the control socket: each verb is audited with who and why, on disk before it is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from egressd.detect.blocks import main_target
from egressd.detect.review import match_target
from egressd.enforce.adapter import CLIENT, SEGMENT, AdapterError
from egressd.errors import ConfigError
from egressd.intel.allowances import parse_allowances
from egressd.intel.formats import parse_list
from egressd.intel.networks import first_address, parse_address, parse_network, render_address, render_network
from egressd.model import Decision, Indicator, Match, Target
from egressd.notify.eve import render_event
from egressd.runtime.core import Core
from egressd.runtime.in_force import ACTIVE, PROPOSED, InForce
from egressd.store import audit, entries, incidents
from egressd.store.audit import Act
from egressd.store.entries import ALLOWANCE, INDICATOR, Entry
from egressd.web.peers import Peer
from egressd.web.requests import INVALID, WRONG, Refused

SECOND_US: Final = 1_000_000
SHOWN_FLOWS: Final = 20
_NOBODY: Final = b""

Record = dict[str, Any]


class Done(NamedTuple):
    """The last thing that a person did, so that it can be undone: decisions made and lines added."""

    decisions: tuple[str, ...]
    lines: tuple[str, ...]


class Verbs:
    """The verbs that change something. Each method takes (peer, args) and returns the answer's result."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._done: dict[int, list[Done]] = {}

    def table(self) -> dict[str, Callable[[Peer, Record], Awaitable[Record]]]:
        """Verb -> what does it."""
        return {
            "block": self.block, "allow": self.allow, "unblock": self.unblock, "approve": self.approve,
            "reject": self.reject, "isolate": self.isolate, "release": self.release, "cut": self.cut,
            "uncut": self.uncut, "undo": self.undo, "ack": self.ack, "reload": self.reload, "mode": self.mode,
            "panic": self.panic,
        }  # fmt: skip

    # -- destinations

    async def block(self, peer: Peer, args: Record) -> Record:
        """Block a name with its registered domain, an address or a network; an address also for one client only."""
        core = self._core
        self._require_armed()
        texts = core.loaded.texts
        protected = core.knowledge.intel.protected
        found, problems = parse_list(args["what"], "operator", texts.intel.suffixes, texts.guard, protected=protected)
        if problems or len(found) != 1:
            raise Refused(_told(problems) or f"{args['what']} is no name, address or network", INVALID)
        indicator = found[0]
        if args["client"] is not None:
            return await self._block_pair(peer, args, indicator)
        match = self._match_of(indicator)
        target = main_target(match)
        standing = core.register.by_target.get(target)
        if standing is not None and standing.state == ACTIVE:
            raise Refused(f"{target.value} is blocked already by {standing.id}")
        if standing is not None:
            return await self.approve(peer, {"id": standing.id, "reason": args["reason"]})
        ends_us = self._until(args["for_s"])
        act = Act(_actor(peer), "socket", "block", target.value, args["reason"])
        entry = await core.add_entry(INDICATOR, args["what"], _actor(peer), args["reason"], ends_us, act)
        made = self._make(peer, target, (target,), match._replace(indicator=_numbered(indicator, entry)), ends_us, args)
        await core.renew()
        await core.scribe.settled()
        await core.enforcement.settled()
        self._remember(peer, (made.id,), (entry.id,))
        what = f"{target.value} and every name under it" if target.kind == "registered_domain" else target.value
        return {"decision_id": made.id, "text": f"{what} is blocked for everybody{_for(args)}", "lines": []}

    async def _block_pair(self, peer: Peer, args: Record, indicator: Indicator) -> Record:
        client = parse_address(args["client"])
        if not client or indicator.kind != "address":
            raise Refused("for one client an address can be blocked, no name: give both as addresses", WRONG)
        target = Target("pair", f"{render_address(client)}>{indicator.value}")
        why = self._core.knowledge.intel.protected.why(parse_address(indicator.value))
        if why:
            raise Refused(why)
        match = _no_match(target)._replace(level="address")
        made = self._make(peer, target, (target,), match, self._until(args["for_s"]), args)
        await self._core.scribe.settled()
        await self._core.enforcement.settled()
        self._remember(peer, (made.id,), ())
        return {
            "decision_id": made.id,
            "text": f"{indicator.value} is blocked for {render_address(client)}{_for(args)}",
        }

    async def allow(self, peer: Peer, args: Record) -> Record:
        """Let a destination be reached, whatever lists say, by everybody or by one client."""
        entry = await self._allow(peer, args["what"], args["client"], args["for_s"], args["reason"])
        self._remember(peer, (), (entry.id,))
        who = f" by {args['client']}" if args["client"] else ""
        return {
            "text": f"{args['what']} may be reached{who}{_for(args)}, whatever lists say",
            "lines": [f"{entry.id}: take it back with: egressd undo"],
        }

    async def _allow(self, peer: Peer, what: str, client: str | None, for_s: int | None, reason: str) -> Entry:
        core = self._core
        words = [f"allow-destination {what}", f'owner="{_quotable(_actor(peer))}"', f'reason="{_quotable(reason)}"']
        if client is not None:
            words.append(f"client={client}")
        text = " ".join(words)
        found, problems = parse_allowances(text, "operator", core.loaded.texts.intel.suffixes)
        if problems or len(found) != 1:
            raise Refused(_told(problems) or f"{what} cannot be allowed", INVALID)
        act = Act(_actor(peer), "socket", "allow", what, reason)
        entry = await core.add_entry(ALLOWANCE, text, _actor(peer), reason, self._until(for_s), act)
        await core.renew()
        await core.scribe.settled()
        await core.enforcement.settled()
        return entry

    async def unblock(self, peer: Peer, args: Record) -> Record:
        """Lift what blocks a name or address, or one decision, and let it be for a while, or for good."""
        core = self._core
        found = self._find(args["what"])
        if not found:
            raise Refused(f"nothing blocks {args['what']} (egressd decisions)")
        lines: list[str] = []
        for decision in found:
            self._lift(peer, decision, args["reason"])
            lines.append(f"{decision.id} is lifted: {decision.target.kind} {decision.target.value}")
            await self._drop_lines_of(peer, decision, args["reason"])
        allowed: list[str] = []
        for decision in found:
            client, _, what = decision.target.value.rpartition(">")
            if decision.target.kind in (CLIENT, SEGMENT):
                self._forget_remedies(decision.id)
                continue
            entry = await self._allow(peer, what, client or None, args["for_s"], args["reason"])
            allowed.append(entry.id)
        await core.renew()
        await core.scribe.settled()
        await core.enforcement.settled()
        self._remember(peer, (), tuple(allowed))
        return {"text": f"{args['what']} is not blocked any more{_for(args)}", "lines": lines}

    # -- proposals

    async def approve(self, peer: Peer, args: Record) -> Record:
        """Let a proposal take effect."""
        decision = self._known(args["id"])
        if decision.state != PROPOSED:
            raise Refused(f"{decision.id} does not wait for anybody: it is {decision.state}")
        self._core.rulings.approve(decision, _actor(peer), args["reason"])
        await self._core.scribe.settled()
        await self._core.enforcement.settled()
        self._core.enforcement.wake()
        self._remember(peer, (decision.id,), ())
        return {"decision_id": decision.id, "text": f"{decision.target.value} is blocked from now on", "lines": []}

    async def reject(self, peer: Peer, args: Record) -> Record:
        """Say no to a proposal; it is not made again while the reason for it stands."""
        decision = self._known(args["id"])
        if decision.state != PROPOSED:
            raise Refused(f"{decision.id} is {decision.state}; to lift it: egressd unblock {decision.id}")
        result = await self.unblock(peer, {"what": decision.id, "for_s": None, "reason": args["reason"]})
        return {**result, "text": f"{decision.id} is rejected; {decision.target.value} may be reached"}

    # -- machines of ours

    async def isolate(self, peer: Peer, args: Record) -> Record:
        """Cut one client off at the gateway, but for remediation servers."""
        core = self._core
        self._require_armed()
        client = parse_address(args["client"])
        if not client:
            raise Refused(f"{args['client']} is not an address", WRONG)
        if (client, 8 * len(client)) in core.own:
            raise Refused(f"{args['client']} is this gateway, its gateway or its resolver: it is never isolated")
        target = Target(CLIENT, render_address(client))
        standing = core.register.by_target.get(target)
        if standing is not None:
            raise Refused(f"{target.value} is isolated already by {standing.id}")
        remedies = tuple(self._remedy(text) for text in args["remedy"])
        made = self._make(peer, target, (target,), _no_match(target), self._until(args["for_s"]), args)
        if remedies:
            core.remedies[made.id] = remedies
            await core.renew()
        await core.scribe.settled()
        await core.enforcement.settled()
        self._remember(peer, (made.id,), ())
        lines = ["it still reaches DHCP, DNS and ping of this gateway, and hosts of its own network segment"]
        left = [*core.config.enforce.remedies, *args["remedy"]]
        lines.append(f"it may reach: {', '.join(left)}" if left else "no remediation server is configured")
        return {"decision_id": made.id, "text": f"{target.value} is isolated{_for(args)}", "lines": lines}

    async def release(self, peer: Peer, args: Record) -> Record:
        """End an isolation."""
        client = parse_address(args["client"])
        decision = self._core.register.by_target.get(Target(CLIENT, render_address(client))) if client else None
        if decision is None:
            raise Refused(f"{args['client']} is not isolated")
        await self._end(peer, decision, args["reason"])
        return {"decision_id": decision.id, "text": f"{decision.target.value} is released", "lines": []}

    async def cut(self, peer: Peer, args: Record) -> Record:
        """Cut a whole segment off; without confirmation only say what that would do."""
        core = self._core
        texts = core.config.segments.get(args["segment"])
        if not texts:
            known = ", ".join(core.config.segments) or "none; name them under segments:"
            raise Refused(f"there is no segment {args['segment']}; there are: {known}", WRONG)
        networks = [(first_address(*one), one[1]) for one in map(parse_network, texts) if one is not None]
        if args["confirm"] is None:
            lines = [f"segment {args['segment']}: {', '.join(texts)}", *await self._flows(networks)]
            return {"text": f"this would cut off {args['segment']}{_for(args)}", "lines": lines}
        self._require_armed()
        if args["confirm"] != args["segment"]:
            raise Refused("the name given to confirm is another one; nothing was cut", WRONG)
        targets = tuple(Target(SEGMENT, render_network(*one)) for one in networks)
        if targets[0] in core.register.by_target:
            raise Refused(f"{args['segment']} is cut already by {core.register.by_target[targets[0]].id}")
        made = self._make(peer, targets[0], targets, _no_match(targets[0]), self._until(args["for_s"]), args)
        await core.scribe.settled()
        await core.enforcement.settled()
        self._remember(peer, (made.id,), ())
        lines = await self._flows(networks)
        return {"decision_id": made.id, "text": f"segment {args['segment']} is cut off{_for(args)}", "lines": lines}

    async def uncut(self, peer: Peer, args: Record) -> Record:
        """End a cut."""
        core = self._core
        texts = core.config.segments.get(args["segment"], ())
        for text in texts:
            network = parse_network(text)
            target = Target(SEGMENT, render_network(first_address(*network), network[1])) if network else None
            decision = core.register.by_target.get(target) if target is not None else None
            if decision is not None:
                await self._end(peer, decision, args["reason"])
                return {
                    "decision_id": decision.id,
                    "text": f"segment {args['segment']} is connected again",
                    "lines": [],
                }
        raise Refused(f"{args['segment']} is not cut")

    async def _flows(self, networks: list[tuple[bytes, int]]) -> list[str]:
        """What still flows, as the kernel's table of connections and the interfaces tell."""
        core = self._core
        try:
            flows = await core.enforcement.flows(networks)
        except AdapterError as error:
            return [f"what still flows cannot be told: {error}"]
        lines = [f"{len(flows)} established flows of it are known to this gateway"]
        for one in flows[:SHOWN_FLOWS]:
            lines.append(
                f"flow {render_address(one.source)}:{one.source_port} > "
                f"{render_address(one.destination)}:{one.destination_port}"
            )
        lines.append("not seen here: lines that do not pass this gateway (a second exit, mobile, mail)")
        return lines

    # -- taking back

    async def undo(self, peer: Peer, args: Record) -> Record:
        """Take back a decision, or the last thing that this person did."""
        core = self._core
        if args["id"] is not None:
            decision = self._known(args["id"])
            if decision.author == "policy":
                day = {"what": decision.id, "for_s": 86_400, "reason": args["reason"]}
                result = await self.unblock(peer, day)
                result["lines"].append("policy decided it; it will not decide it again for a day")
                return result
            await self._end(peer, decision, args["reason"])
            return {"decision_id": decision.id, "text": f"{decision.id} is undone", "lines": []}
        done = self._done.get(peer.uid)
        if not done:
            raise Refused("nothing that you did since the daemon started is left to undo (egressd decisions)")
        last = done.pop()
        lines: list[str] = []
        for id_ in last.decisions:
            standing = core.register.by_id.get(id_)
            if standing is not None:
                self._lift(peer, standing, args["reason"])
                self._forget_remedies(id_)
                lines.append(f"{id_} is undone: {standing.target.kind} {standing.target.value}")
        for id_ in last.lines:
            entry = next((one for one in core.entries if one.id == id_), None)
            if entry is not None:
                await self._drop_line(peer, entry, args["reason"])
                lines.append(f"{id_} is taken back: {entry.text}")
        await core.renew()
        await core.scribe.settled()
        await core.enforcement.settled()
        return {"text": "undone", "lines": lines or ["it had ended already"]}

    async def panic(self, peer: Peer, args: Record) -> Record:
        """Lift everything at once, and decide nothing by itself from now on."""
        core = self._core
        found = list(core.register.by_id.values())
        act = Act(_actor(peer), "socket", "panic", f"{len(found)} decisions", args["reason"])
        core.scribe.put(audit.append, act, core.clock.now_us())
        for decision in found:
            self._lift(peer, decision, args["reason"])
        core.remedies.clear()
        await core.set_mode("monitor")
        await core.scribe.settled()
        await core.enforcement.settled()
        return {
            "text": f"{len(found)} decisions are lifted and the mode is monitor: nothing is blocked",
            "lines": ["what is listed is still seen and told; to arm again: egressd mode enforce --reason TEXT"],
        }

    # -- the rest

    async def ack(self, peer: Peer, args: Record) -> Record:
        """A person has an incident in hand."""
        core = self._core
        act = Act(_actor(peer), "socket", "ack", args["incident"], args["reason"])
        await core.scribe.settled()
        now_us = core.clock.now_us()
        changed = await core.ledger.run(incidents.acknowledge, args["incident"], now_us, _actor(peer), act)
        return {"text": f"{args['incident']} is {'yours' if changed else 'acknowledged already'}", "lines": []}

    async def reload(self, peer: Peer, args: Record) -> Record:
        """Read configuration and lists anew; with a mistake in them everything stays as it is."""
        core = self._core
        act = Act(_actor(peer), "socket", "reload", "", args["reason"])
        core.scribe.put(audit.append, act, core.clock.now_us())
        try:
            lines = await core.reload()
        except ConfigError as error:
            core.reloads["refused"] += 1
            core.reload_problems = [str(one) for one in error.problems[:20]]
            raise Refused(f"nothing was changed: {len(error.problems)} problem(s)\n{error}", INVALID) from None
        core.reloads["ok"] += 1
        core.reload_problems = []
        core.enforcement.force()
        return {"text": "configuration and lists are read anew", "lines": lines}

    async def mode(self, peer: Peer, args: Record) -> Record:
        """Another mode: arming and disarming."""
        core = self._core
        before = core.mode
        if args["mode"] == before:
            return {"text": f"the mode is {before} already", "lines": []}
        if args["mode"] != "monitor" and core.loaded.texts.demo:
            raise Refused("only the demonstration list is loaded: name your lists in the configuration first")
        act = Act(_actor(peer), "socket", "mode", "", args["reason"], before, args["mode"])
        core.scribe.put(audit.append, act, core.clock.now_us())
        await core.scribe.settled()
        await core.set_mode(args["mode"])
        await core.enforcement.settled()
        held = len(core.register.rules(core.mode))
        lines = [f"{held} targets are to be in force now"]
        if core.config.mode != args["mode"]:
            lines.append(f"after a restart it is {core.config.mode} again, unless the configuration says so too")
        return {"text": f"the mode is {args['mode']} (it was {before})", "lines": lines}

    # -- parts

    def _make(
        self, peer: Peer, target: Target, targets: tuple[Target, ...], match: Match, ends_us: int, args: Record
    ) -> InForce:
        core = self._core
        act = Act(_actor(peer), "socket", "block", target.value, args["reason"])
        decision = Decision(
            core.new_id(), core.clock.now_us(), 0, "block", targets, args["reason"], "person", "E0", core.mode, match,
            _NOBODY, "", "",
        )  # fmt: skip
        made = core.rulings.make(decision, ACTIVE, _actor(peer), ends_us, act)
        core.enforcement.wake()
        core.tellers.event(told_by(decision, _actor(peer)))
        return made

    def _lift(self, peer: Peer, decision: InForce, reason: str) -> None:
        """End a decision, and tell of it."""
        core = self._core
        core.rulings.end(decision, "undone", _actor(peer), "socket", reason)
        lifted = Decision(
            decision.id, core.clock.now_us(), 0, "withdraw", (decision.target,), reason, "person", "E0", core.mode,
            decision.match, _NOBODY, "", decision.campaign,
        )  # fmt: skip
        core.tellers.event(told_by(lifted, _actor(peer)))

    def _match_of(self, indicator: Indicator) -> Match:
        suffixes = self._core.loaded.texts.intel.suffixes
        if indicator.kind in ("address", "network"):
            return Match("address", indicator, "", "")
        registered, _, rule = suffixes.split(indicator.value.partition("/")[0])
        return Match("url" if indicator.kind == "url" else "host", indicator, registered, rule)

    def _find(self, what: str) -> list[InForce]:
        """Decisions by id, by what they are about, or by an address that they hold."""
        register = self._core.register
        decision = register.by_id.get(what)
        if decision is not None:
            return [decision]
        found = [one for target, one in register.by_target.items() if target.value == what]
        found += register.holders(Target("address", what)) + register.holders(Target("pair", what))
        match = match_target(self._core.knowledge.intel.index, _as_target(what), self._core.clock.now_us() // SECOND_US)
        standing = register.by_target.get(main_target(match)) if match is not None else None
        if standing is not None:
            found.append(standing)
        return list({one.id: one for one in found}.values())

    def _known(self, id_: str) -> InForce:
        decision = self._core.register.by_id.get(id_)
        if decision is None:
            raise Refused(f"there is no open decision {id_} (egressd decisions)")
        return decision

    async def _end(self, peer: Peer, decision: InForce, reason: str) -> None:
        core = self._core
        self._lift(peer, decision, reason)
        await self._drop_lines_of(peer, decision, reason)
        self._forget_remedies(decision.id)
        await core.renew()
        await core.scribe.settled()
        await core.enforcement.settled()

    async def _drop_lines_of(self, peer: Peer, decision: InForce, reason: str) -> None:
        """The line that a person added for a decision goes with it."""
        indicator = decision.match.indicator
        if indicator.source != "operator":
            return
        entry = next((one for one in self._core.entries if one.id == f"E{indicator.line}"), None)
        if entry is not None:
            await self._drop_line(peer, entry, reason)

    async def _drop_line(self, peer: Peer, entry: Entry, reason: str) -> None:
        core = self._core
        act = Act(_actor(peer), "socket", "drop-line", entry.id, reason)
        await core.ledger.run(entries.remove, entry.id, core.clock.now_us(), _actor(peer), act)
        core.entries = [one for one in core.entries if one.id != entry.id]

    def _remedy(self, text: str) -> tuple[bytes, int]:
        network = parse_network(text)
        if network is None:
            raise Refused(f"{text} is not an address or network", WRONG)
        return first_address(*network), network[1]

    def _forget_remedies(self, id_: str) -> None:
        self._core.remedies.pop(id_, None)

    def _require_armed(self) -> None:
        if self._core.mode == "monitor":
            raise Refused(
                "nothing was done: the mode is monitor, in which nothing is blocked."
                " Arm egressd first: egressd mode enforce --reason TEXT"
            )

    def _until(self, for_s: int | None) -> int:
        return self._core.clock.now_us() + for_s * SECOND_US if for_s is not None else 0

    def _remember(self, peer: Peer, decisions: tuple[str, ...], lines: tuple[str, ...]) -> None:
        done = self._done.setdefault(peer.uid, [])
        done.append(Done(decisions, lines))
        del done[:-100]


def told_by(decision: Decision, author: str) -> Record:
    """The event of a person's decision."""
    record = render_event(decision)
    record["egressd"]["author"] = author
    return record


def _actor(peer: Peer) -> str:
    return peer.actor


def _told(problems: list[Any]) -> str:
    return "; ".join(one.what + (f" ({one.advice})" if one.advice else "") for one in problems[:3])


def _for(args: Record) -> str:
    seconds = args.get("for_s")
    if not seconds:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % size == 0:
            return f" for {seconds // size}{unit}"
    return f" for {seconds}s"


def _quotable(text: str) -> str:
    """A list line's quoted value holds no double quote."""
    return text.replace('"', "'")


def _numbered(indicator: Indicator, entry: Entry) -> Indicator:
    expires_s = -(-entry.expires_us // SECOND_US)
    return indicator._replace(line=int(entry.id[1:]), added_s=entry.created_us // SECOND_US, expires_s=expires_s)


def _no_match(target: Target) -> Match:
    """A decision about a machine of ours rests on no list line."""
    indicator = Indicator(target.kind, target.value, "exact", "", "", "", "operator", 0, "", 100, 0, 0, "", "")
    return Match("person", indicator, "", "")


def _as_target(what: str) -> Target:
    network = parse_network(what)
    if network is None:
        return Target("registered_domain", what.strip(".").lower())
    return Target("address" if network[1] == 8 * len(network[0]) else "network", what)
