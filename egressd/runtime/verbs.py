"""What people may do by the control socket: each verb is audited with who and why, on disk before it is answered."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from egressd.detect.blocks import main_target
from egressd.detect.kept import Kept, tell
from egressd.detect.review import parts_of
from egressd.detect.rules import ASK
from egressd.detect.site import lists_guarded_site
from egressd.enforce.adapter import CLIENT, SEGMENT
from egressd.enforce.elements import SETS
from egressd.errors import ConfigError
from egressd.intel.formats import parse_list
from egressd.intel.networks import parse_address, parse_network, render_address
from egressd.model import BEHAVIOUR, Indicator, Target
from egressd.plural import count
from egressd.runtime.acts import Acts, Done, Record, how_long, no_line, no_segment, on_record, told
from egressd.runtime.core import Core
from egressd.runtime.handling import Handling, out_of_hand, reopen
from egressd.runtime.in_force import InForce
from egressd.runtime.machines import Machines
from egressd.runtime.preview import Preview
from egressd.runtime.tying import Tying
from egressd.store import audit, incidents
from egressd.store.audit import Act
from egressd.store.decisions import ACTIVE, PROPOSED
from egressd.store.entries import INDICATOR, Entry
from egressd.units import DAY_S, SECOND_US
from egressd.web.peers import Peer
from egressd.web.requests import INVALID, MAX_REASON, WRONG, Refused

log = logging.getLogger("egressd")

TOLD = 20  # decisions in an answer; `egressd decisions` has all


class Verbs:
    """The verbs that change something. Each method takes (peer, args) and returns the answer's result, or
    raises Refused."""

    def __init__(self, core: Core, preview: Preview) -> None:
        """`preview` tells what a refused block would have hit."""
        self._core = core
        self._preview = preview
        self._acts = Acts(core)
        self._machines = Machines(self._acts)
        self._tying = Tying(self._acts)
        self._handling = Handling(self._acts)

    def table(self) -> dict[str, Callable[[Peer, Record], Awaitable[Record]]]:
        """Verb -> what does it."""
        recorded = {
            "block": self.block, "allow": self.allow, "unblock": self.unblock, "approve": self.approve,
            "reject": self.reject, "undo": self.undo, "ack": self.ack, "mode": self.mode,
            **self._machines.table(), **self._tying.table(), **self._handling.table(),
        }  # fmt: skip
        return {
            **{verb: on_record(self._core, does) for verb, does in recorded.items()},
            "reload": self.reload, "panic": self.panic,
        }  # fmt: skip

    # -- destinations

    async def block(self, peer: Peer, args: Record) -> Record:
        """Block a name with its registered domain, an address or a network; an address also for one client only."""
        core = self._core
        self._acts.require_armed()
        texts = core.loaded.texts
        forced, _ = parse_list(args["what"], "operator", texts.intel.suffixes, texts.guard, force=True)
        never = self._never_blocked(forced)
        if never:
            raise Refused(never, INVALID)
        protected = core.knowledge.intel.protected
        found, problems = parse_list(args["what"], "operator", texts.intel.suffixes, texts.guard, protected=protected)
        if problems or len(found) != 1:
            why = told(problems) or f"{args['what']} is no name, address or network"
            raise Refused(why + await self._would_hit(forced, why), INVALID)
        indicator = found[0]
        if indicator.expires_s or indicator.added_s:  # a person's line begins now, and ends as --for says
            raise Refused("expires= and added= are for lists; say how long with --for TIME", WRONG)
        if args["client"] is not None:
            return await self._block_pair(peer, args, indicator)
        match = self._acts.match_of(indicator)
        target = main_target(match)
        standing = core.register.by_target.get(target)
        if standing is not None and standing.state == ACTIVE:
            raise Refused(f"{target.value} is blocked already by {standing.id}")
        if standing is not None:
            return await self.approve(peer, {"id": standing.id, "reason": args["reason"]})
        self._require_blockable(target)
        if lists_guarded_site(match):  # as of a list: what a slip at night would take from everybody
            meant = f"if that is meant: egressd block '{args['what']} force=yes'"
            why = indicator.narrowed
            raise Refused(f"{why}{await self._would_hit(found, why)}; {meant}")
        ends_us = self._acts.until(args["for_s"])
        act = Act(peer.actor, "socket", "add-line", target.value, args["reason"])
        entry = await core.add_entry(INDICATOR, args["what"], peer.actor, args["reason"], ends_us, act)
        match = match._replace(indicator=_numbered(indicator, entry))
        made = self._acts.make(peer, (target,), match, ends_us, args["reason"])
        await self._acts.settle(renew=True)
        self._acts.remember(peer, Done((made.id,), (entry.id,)))
        what = f"{target.value} and every name under it" if target.kind == "registered_domain" else target.value
        text = f"{what} is blocked for everybody{how_long(args)}"
        lines = self._shared_lines(indicator)
        if target.kind == "url":
            text = f"{what} is watched{how_long(args)}: who asks for it is told"
            lines = ["nothing here can stop one page of a site; to stop it, block its host"]
        return {"decision_id": made.id, "text": text, "lines": lines}

    def _never_blocked(self, found: Sequence[Indicator]) -> str:
        """Why nobody blocks an address or network, force=yes or not, and what to do instead; "" when it may be."""
        network = parse_network(found[0].value) if len(found) == 1 and found[0].kind in ("address", "network") else None
        why = self._core.knowledge.intel.protected.why_network(*network) if network is not None else ""
        if network is None or not why:
            return ""
        told = f"{found[0].value} is never blocked, with force=yes neither: {why}"
        if found[0].kind == "address" and self._core.station.whose.is_host(network[0]):
            told += f"; to cut a machine of yours off: egressd isolate {found[0].value}"
        return told

    async def _would_hit(self, found: Sequence[Indicator], why: str) -> str:
        """In a refusal for the reason `why`: what the block would have hit, if it can be blocked at all."""
        if len(found) != 1:
            return ""
        effect = await self._preview.of(found)
        effect.guards = [one for one in effect.guards if one not in why]
        return f" (it would have hit: {effect.sentence()})" if effect.hosts_seen else ""

    def _require_blockable(self, target: Target, client: bytes = b"") -> None:
        """Raises Refused when somebody allows what is to be blocked, for everybody or for `client`: an allowance goes
        before every block."""
        name, address = parts_of(target)
        now_s = self._core.clock.now_us() // SECOND_US
        allowances = self._core.knowledge.intel.allowances
        kept = allowances.allows(name, address, client, now_s) or allowances.never_blocks(name, address, now_s)
        kept = kept or Kept(allowances).inside(target, now_s)
        if kept is not None:
            raise Refused(f"it is allowed: {tell(kept)}; take that back first (egressd list)")

    async def _block_pair(self, peer: Peer, args: Record, indicator: Indicator) -> Record:
        client = parse_address(args["client"])
        if not client or indicator.kind != "address":
            raise Refused("for one client an address can be blocked, no name: give both as addresses", WRONG)
        target = Target("pair", f"{render_address(client)}>{indicator.value}")
        why = self._core.knowledge.intel.protected.why(parse_address(indicator.value))
        if why:
            raise Refused(why)
        standing = self._core.register.by_target.get(target)
        if standing is not None:
            raise Refused(f"{target.value} is blocked already by {standing.id}")
        self._require_blockable(Target("address", indicator.value), client)
        ends_us = self._acts.until(args["for_s"])
        made = self._acts.make(peer, (target,), no_line(target, "address"), ends_us, args["reason"])
        await self._acts.settle()
        self._acts.remember(peer, Done((made.id,)))
        text = f"{indicator.value} is blocked for {render_address(client)}{how_long(args)}"
        return {"decision_id": made.id, "text": text, "lines": self._shared_lines(indicator)}

    def _shared_lines(self, indicator: Indicator) -> list[str]:
        """What a person who blocks an address is told of others that live there: it is done all the same."""
        network = parse_network(indicator.value) if indicator.kind in ("address", "network") else None
        why = self._core.knowledge.intel.shared.why_network(*network) if network is not None else ""
        return [f"many sites share it: {indicator.value} is {why}; egressd itself would not block it"] if why else []

    async def allow(self, peer: Peer, args: Record) -> Record:
        """Let a destination be reached, whatever lists say, by everybody or by one client."""
        text = self._acts.allowance_text(peer, args["what"], args["client"], args["reason"])
        entry = await self._acts.add_allowance(peer, text, args["what"], args["for_s"], args["reason"])
        before = dict(self._core.register.by_id)
        await self._acts.settle(renew=True)
        self._acts.remember(peer, Done(lines=(entry.id,)))
        who = f" by {args['client']}" if args["client"] else ""
        lines = [f"{entry.id}: take it back with: egressd undo"]
        ended = [one for id_, one in before.items() if id_ not in self._core.register.by_id]
        lines += [f"{one.id} is lifted: {one.target.kind} {one.target.value}" for one in ended[:TOLD]]
        for one in self._acts.find(args["what"]) if args["client"] else ():
            if one.target.kind in ("address", "network"):  # a block for everybody knows no exceptions in the kernel
                lines.append(f"{one.id} blocks {one.target.value} itself, for {args['client']} too, until it is lifted")
        return {"text": f"{args['what']} may be reached{who}{how_long(args)}, whatever lists say", "lines": lines}

    async def unblock(self, peer: Peer, args: Record) -> Record:
        """Lift what blocks a name or address, or one decision, and let it be for a while, or for good."""
        found = self._acts.find(args["what"])
        if not found:
            raise Refused(f"nothing blocks {args['what']} (egressd decisions)")
        allowances = {one.id: self._allowance_for(peer, one, args) for one in found}  # may refuse: nothing is done yet
        lines: list[str] = []
        added: list[str] = []
        dropped: list[Entry] = []
        lifted = self._acts.as_they_stand(found)
        for decision in found:
            self._acts.lift(peer, decision, args["reason"])
            lines.append(f"{decision.id} is lifted: {decision.target.kind} {decision.target.value}")
            line = self._acts.line_of(decision)
            if line is not None and args["for_s"] is None:
                await self._acts.drop_line(peer, line, args["reason"])
                dropped.append(line)
            text, what = allowances[decision.id]
            if text:
                entry = await self._acts.add_allowance(peer, text, what, args["for_s"], args["reason"])
                added.append(entry.id)
                lines.append(f"{entry.id}: {what} may be reached{how_long(args)}")
        await self._acts.settle(renew=True)
        self._acts.remember(peer, Done((), tuple(added), lifted, tuple(dropped)))
        lines.append("take it back with: egressd undo")
        return {"text": f"{args['what']} is not blocked any more{how_long(args)}", "lines": lines}

    def _allowance_for(self, peer: Peer, decision: InForce, args: Record) -> tuple[str, str]:
        """(line, what it allows) so that a decision is not made again; nothing for machines of ours, nor where a
        person's own line is all that there is. Raises Refused."""
        if decision.target.kind in (CLIENT, SEGMENT):
            return "", ""
        listed = self._acts.listed_elsewhere(decision.target)
        if self._acts.line_of(decision) is not None and args["for_s"] is None and listed is None:
            return "", ""
        client, _, what = decision.target.value.rpartition(">")
        if decision.target.kind == "url":
            what = what.partition("/")[0]  # allowances are of hosts
        return self._acts.allowance_text(peer, what, client, args["reason"]), what

    # -- proposals

    async def approve(self, peer: Peer, args: Record) -> Record:
        """Let a proposal take effect."""
        decision = self._acts.known(args["id"])
        if decision.state != PROPOSED:
            raise Refused(f"{decision.id} does not wait for anybody: it is {decision.state}")
        if decision.match.level == BEHAVIOUR and decision.target.kind != CLIENT:
            return await self._approve_unlisted(peer, decision, args)
        self._core.rulings.approve(decision, peer.actor, args["reason"])
        self._core.enforcement.wake()
        await self._acts.settle()
        self._acts.remember(peer, Done(approved=(decision.id,)))
        what = "isolated" if decision.target.kind == CLIENT else "blocked"
        text = f"{decision.target.value} is {what} from now on"
        if not self._core.rulings.enforces(decision):
            text = f"{decision.target.value} would be {what}: the mode is monitor there"
        return {"decision_id": decision.id, "text": text, "lines": []}

    async def _approve_unlisted(self, peer: Peer, decision: InForce, args: Record) -> Record:
        """No list knows what a behaviour pointed to: a person who says yes lists it, as `block` does."""
        self._acts.require_armed()
        reason = f"{args['reason']} ({decision.id}: {decision.reason})"[:MAX_REASON]
        self._core.rulings.end(decision, "withdrawn", peer.actor, "socket", reason)
        wanted = {"what": decision.target.value, "client": None, "for_s": None, "reason": reason}
        return await self.block(peer, wanted)

    async def reject(self, peer: Peer, args: Record) -> Record:
        """Say no to a proposal; it is not made again while that allowance stands."""
        decision = self._acts.known(args["id"])
        if decision.state != PROPOSED:
            raise Refused(f"{decision.id} is {decision.state}; to lift it: egressd unblock {decision.id}")
        result = await self.unblock(peer, {"what": decision.id, "for_s": None, "reason": args["reason"]})
        return {**result, "text": f"{decision.id} is rejected; {decision.target.value} may be reached"}

    # -- taking back

    async def undo(self, peer: Peer, args: Record) -> Record:
        """Take back a decision, or the last thing that this person did."""
        if args["id"] is not None:
            decision = self._acts.known(args["id"])
            if decision.author == "policy":
                day = {"what": decision.id, "for_s": DAY_S, "reason": args["reason"]}
                result = await self.unblock(peer, day)
                result["lines"].append("policy decided it; it will not decide it again for a day")
                return result
            await self._acts.end(peer, decision, args["reason"])
            return {"decision_id": decision.id, "text": f"{decision.id} is undone", "lines": []}
        last = self._acts.last_done(peer)
        lines = [
            *self._lift_made(peer, last, args["reason"]),
            *await self._swap_lines(peer, last, args["reason"]),
            *[await reopen(self._core, peer, one, args["reason"]) for one in last.closed],
            *[await out_of_hand(self._core, peer, one, args["reason"]) for one in last.acknowledged],
        ]
        before = set(self._core.register.by_id)
        if last.lifted and last.lines:  # where the allowance still held, the listed name would count as an innocent one
            await self._core.renew()
        lines += self._acts.make_again(peer, last.lifted, args["reason"])
        await self._acts.settle(renew=True)  # what was made again rests on its line of now, and covers what it may
        told = {one.target for one, _ in last.lifted}
        again = [one for id_, one in self._core.register.by_id.items() if id_ not in before and one.target not in told]
        lines += [f"{one.id} stands again: {one.target.kind} {one.target.value}" for one in again[:TOLD]]
        return {"text": "undone", "lines": lines or ["it had ended already"]}

    def _lift_made(self, peer: Peer, last: Done, reason: str) -> list[str]:
        lines: list[str] = []
        for id_ in (*last.approved, *last.decisions):
            standing = self._core.register.by_id.get(id_)
            if standing is None:
                continue
            # Elsewhere nothing waits for a person.
            waits = id_ in last.approved and (standing.mode == "approve" or standing.action == ASK)
            what = f"{standing.target.kind} {standing.target.value}"
            if not waits:
                self._acts.lift(peer, standing, reason)
                lines.append(f"{id_} is undone: {what}")
            elif standing.state == ACTIVE:
                self._core.rulings.propose_again(standing, peer.actor, reason)
                lines.append(f"{id_} waits for a person again: {what}")
        return lines

    async def _swap_lines(self, peer: Peer, last: Done, reason: str) -> list[str]:
        lines: list[str] = []
        for id_ in last.lines:
            entry = next((one for one in self._core.entries if one.id == id_), None)
            if entry is not None:
                await self._acts.drop_line(peer, entry, reason)
                lines.append(f"{id_} is taken back: {entry.text}")
        for entry in last.dropped:
            act = Act(peer.actor, "socket", "add-line", entry.text, reason)
            again = await self._core.add_entry(entry.kind, entry.text, peer.actor, reason, entry.expires_us, act)
            lines.append(f"{again.id} is listed again: {again.text}")
        return lines

    async def panic(self, peer: Peer, args: Record) -> Record:
        """Lift everything at once, and block nothing from now on."""
        core = self._core
        found = list(core.register.by_id.values())
        act = Act(peer.actor, "socket", "panic", count(len(found), "decision"), args["reason"])
        core.scribe.put(audit.append, act, core.clock.now_us())
        for decision in found:
            self._acts.lift(peer, decision, args["reason"])
        log.warning("PANIC by %s, %s lifted, nothing is blocked: %s", peer.actor, act.object, args["reason"])
        core.arming.decided()
        await core.arming.set("monitor", {}, peer.actor, args["reason"])
        await self._acts.settle()
        self._acts.remember(peer, Done(stays="what panic lifted comes back by no command; egressd mode arms again"))
        return {
            "text": f"everything is lifted ({len(found)}) and the mode is monitor: nothing is blocked",
            "lines": ["what is listed is still seen and told; to arm again: egressd mode enforce --reason TEXT"],
        }

    # -- the rest

    async def ack(self, peer: Peer, args: Record) -> Record:
        """A person has an incident in hand."""
        core = self._core
        act = Act(peer.actor, "socket", "ack", args["incident"], args["reason"])
        await core.scribe.settled()
        now_us = core.clock.now_us()
        changed = await core.ledger.run(incidents.acknowledge, args["incident"], now_us, peer.actor, act)
        was_before = Done(stays=f"the last that you asked for, {args['incident']}, was acknowledged before")
        self._acts.remember(peer, Done(acknowledged=(args["incident"],)) if changed else was_before)
        return {"text": f"{args['incident']} is {'yours' if changed else 'acknowledged already'}", "lines": []}

    async def reload(self, peer: Peer, args: Record) -> Record:
        """Read configuration and lists, or lists only, anew; with a mistake in them everything stays as it is. What
        follows from them in the kernel may be more than is made unasked; `force` is the yes to that."""
        core = self._core
        act = Act(peer.actor, "socket", "reload", "force" if args["force"] else "", args["reason"])
        core.scribe.put(audit.append, act, core.clock.now_us())
        try:
            lines = await core.reload(only_lists=args["only"] == "lists")
        except ConfigError as error:
            raise Refused(f"nothing was changed: {count(len(error.problems), 'problem')}\n{error}", INVALID) from None
        if args["force"]:
            core.enforcement.force()
        if core.loaded.kept:
            problems = "\n".join(core.reloading.problems)
            raise Refused(
                f"everything is read anew, but lists with mistakes keep their last good content, if any:\n{problems}",
                INVALID,
            )
        return {"text": f"{args['only'] or 'configuration and lists'} are read anew", "lines": lines}

    async def mode(self, peer: Peer, args: Record) -> Record:
        """Another mode: arming and disarming."""
        core = self._core
        segment = args["segment"]
        if segment is not None and segment not in core.config.segments:
            raise no_segment(core, segment)
        before = core.arming.mode if segment is None else core.arming.modes.get(segment, core.arming.mode)
        where = "the mode" if segment is None else f"the mode of segment {segment}"
        if segment is None and args["mode"] == "monitor":
            core.arming.decided()  # before a reload that is under way arms
        if args["mode"] == before:
            return {"text": f"{where} is {before} already", "lines": []}
        if args["mode"] != "monitor" and core.loaded.texts.demo:
            raise Refused("only the demonstration list is loaded: name your lists in the configuration first")
        act = Act(peer.actor, "socket", "mode", segment or "", args["reason"], before, args["mode"])
        await core.scribe.settled()
        await core.ledger.run(audit.append, act, core.clock.now_us())  # raises before anything is done
        if segment is None:
            await core.arming.set(args["mode"], None, peer.actor, args["reason"])
            core.arming.decided()
        else:
            modes = core.arming.modes | {segment: args["mode"]}
            await core.arming.set(core.arming.mode, modes, peer.actor, args["reason"])
        await core.enforcement.settled()
        rules = core.arming.rules()
        held = sum(rule.target.kind in SETS for rule in rules)  # the kernel knows no names
        of = count(len({rule.decision_id for rule in rules}), "decision")
        lines = [f"{count(held, 'target is', 'targets are')} to be in the kernel now, of {of}"]
        said = core.config.mode if segment is None else core.config.modes.get(segment, core.config.mode)
        if said != args["mode"]:
            lines.append(f"after a restart it is {said} again, unless the configuration says so too")
        others = [(name, mode) for name, mode in core.arming.modes.items() if name != segment]
        lines += [f"segment {name} is under {mode}" for name, mode in others[:TOLD]]
        back = f"egressd mode {before}" + (f" --segment {segment}" if segment is not None else "")
        self._acts.remember(peer, Done(stays=f"last you set the mode, which is taken back by {back} --reason TEXT"))
        return {"text": f"{where} is {args['mode']} (it was {before})", "lines": lines}


def _numbered(indicator: Indicator, entry: Entry) -> Indicator:
    expires_s = -(-entry.expires_us // SECOND_US)
    return indicator._replace(line=int(entry.id[1:]), added_s=entry.created_us // SECOND_US, expires_s=expires_s)
