"""What every verb of a person's is made of: decisions with an author, list lines, and how they are taken back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from egressd.detect.blocks import main_target
from egressd.detect.review import match_target
from egressd.detect.rules import ASK
from egressd.enforce.adapter import CLIENT, SEGMENT
from egressd.intel.allowances import parse_allowances
from egressd.intel.layered import over
from egressd.intel.networks import parse_network, render_network
from egressd.model import Decision, Incident, Indicator, Match, Target
from egressd.notify.eve import render_event
from egressd.runtime.core import Core
from egressd.runtime.in_force import FOUND_OUT, InForce
from egressd.store import entries
from egressd.store.audit import Act
from egressd.store.decisions import ACTIVE, PROPOSED
from egressd.store.entries import ALLOWANCE, Entry
from egressd.store.errors import StoreError
from egressd.units import SECOND_US
from egressd.web.peers import Peer
from egressd.web.requests import INVALID, MAX_REASON, WRONG, Refused

MAX_DONE: Final = 100  # acts of one person that can be undone
_NOBODY: Final = b""
_ACT_OF: Final = {CLIENT: "isolate", SEGMENT: "cut"}  # audit rows of decisions about machines of ours
_CUT_OFF: Final = {CLIENT: "isolated", SEGMENT: "cut off"}  # what the journal tells of, too: people will ask

log = logging.getLogger("egressd")

Record = dict[str, Any]
Does = Callable[[Peer, Record], Awaitable[Record]]  # what a verb does


class Lifted(NamedTuple):
    """A decision as it stood when it was lifted, with the remedies that it left to an isolated host."""

    decision: InForce
    remedies: tuple[str, ...]


class Done(NamedTuple):
    """One thing that a person did, so that it can be undone: decisions made, lines added, decisions lifted (they are
    made anew), lines dropped (they are put back), proposals approved (they wait again), and incidents closed or
    acknowledged. `stays` says what undo does not take back, and what does: else it would take back what was done before
    that."""

    decisions: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    lifted: tuple[Lifted, ...] = ()
    dropped: tuple[Entry, ...] = ()
    approved: tuple[str, ...] = ()
    closed: tuple[Incident, ...] = ()
    acknowledged: tuple[str, ...] = ()
    stays: str = ""


def no_segment(core: Core, name: str) -> Refused:
    """What to say of a segment that the configuration does not name."""
    known = ", ".join(core.config.segments) or "none; name them under segments:"
    return Refused(f"there is no segment {name}; there are: {known}", WRONG)


def on_record(core: Core, does: Does) -> Does:
    """A verb that raises Refused while the ledger cannot be written: who did what, and why, would be on no record."""

    async def checked(peer: Peer, args: Record) -> Record:
        if core.scribe.trouble:
            raise Refused(f"nothing was done, for it could not be written down: {core.scribe.trouble}")
        return await does(peer, args)

    return checked


class Acts:
    """The parts of verbs over a core; what each person did last is remembered until the daemon ends."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._done: dict[int, list[Done]] = {}

    # -- decisions

    def make(
        self, peer: Peer, targets: Sequence[Target], match: Match, ends_us: int, reason: str, act: str = "block",
        state: str = ACTIVE,
    ) -> InForce:  # fmt: skip
        """A person's decision about `targets`, the first its main one, in force at once if not only proposed."""
        core = self.core
        decision = Decision(
            core.new_id(), core.clock.now_us(), 0, "block", tuple(targets), reason, "person", "E0",
            core.arming.site.strongest, match, _NOBODY, "", "",
        )  # fmt: skip
        row = Act(peer.actor, "socket", act, targets[0].value, reason)
        made = core.rulings.make(decision, state, peer.actor, ends_us, row)
        core.enforcement.wake()
        core.tellers.event(told_by(decision, peer.actor))
        if made.target.kind in _CUT_OFF and state == ACTIVE:
            what = made.target.kind, made.target.value, _CUT_OFF[made.target.kind]
            log.warning("%s %s is %s by %s (%s): %s", *what, peer.actor, made.id, reason)
        return made

    def lift(self, peer: Peer, decision: InForce, reason: str) -> None:
        """End a decision, and tell of it."""
        core = self.core
        core.rulings.end(decision, "undone", peer.actor, "socket", reason)
        lifted = Decision(
            decision.id, core.clock.now_us(), 0, "withdraw", (decision.target,), reason, "person", "E0", decision.mode,
            decision.match, _NOBODY, "", decision.campaign,
        )  # fmt: skip
        core.tellers.event(told_by(lifted, peer.actor))
        if decision.target.kind in _CUT_OFF:
            what = decision.target.kind, decision.target.value
            log.warning("%s %s is connected again by %s (%s): %s", *what, peer.actor, decision.id, reason)

    def as_they_stand(self, found: Sequence[InForce]) -> tuple[Lifted, ...]:
        """What `make_again` needs of decisions that are about to be lifted."""
        remedies = self.core.isolation.remedies
        return tuple(
            Lifted(one, tuple(render_network(*network) for network in remedies.get(one.id, ()))) for one in found
        )

    def make_again(self, peer: Peer, lifted: Sequence[Lifted], reason: str) -> list[str]:
        """Decisions that were lifted stand again, each under a new number, with what it covered, until when it would
        have ended; what waited for a person waits again. Returns what was done. Takes effect with
        `settle(renew=True)`."""
        core = self.core
        lines: list[str] = []
        for before, remedies in lifted:
            main = before.held[before.target]
            if 0 < main.expires_us <= core.clock.now_us():
                continue
            standing = core.register.by_target.get(before.target)
            if standing is not None and before.target.kind in (CLIENT, SEGMENT):
                continue
            why = f"{reason} ({before.id}: {before.reason})"[:MAX_REASON]  # for that alone is no reason to block
            state = before.state if core.arming.site.strongest != "enforce" or before.action == ASK else ACTIVE
            act = _ACT_OF.get(before.target.kind, "block")
            held = [target for target, one in before.held.items() if one.state == ACTIVE and target != before.target]
            found_out = [target for target in held if target.kind in FOUND_OUT]  # their terms begin anew
            decided = [before.target, *(target for target in held if target.kind not in FOUND_OUT)]
            if standing is not None:  # traffic was quicker, and has not led everywhere yet
                made, state = standing, standing.state
                found_out = [target for target in found_out if target not in made.held]
            else:
                made = self.make(peer, decided, before.match, main.expires_us, why, act, state)
            if found_out:
                core.rulings.extend(made, found_out, peer.actor, "socket", why)
            if remedies:
                core.isolation.remember(made.id, remedies)
            verb = "blocks" if core.arming.is_enforcing() else "would block"
            what = f"{made.id} {verb} {before.target.value} again"
            if state == PROPOSED:
                what = f"{made.id} is proposed again: {before.target.value}"
            lines.append(f"{what} (it was {before.id})")
        return lines

    async def end(self, peer: Peer, decision: InForce, reason: str) -> None:
        """End a person's decision with the line that was added for it."""
        self.lift(peer, decision, reason)
        line = self.line_of(decision)
        if line is not None:
            await self.drop_line(peer, line, reason)
        await self.settle(renew=True)

    def find(self, what: str) -> list[InForce]:
        """Decisions by id, by what they are about, or by an address that they hold."""
        register = self.core.register
        decision = register.by_id.get(what)
        if decision is not None:
            return [decision]
        found = [one for target, one in register.by_target.items() if target.value == what]
        found += register.holders(Target("address", what)) + register.holders(Target("pair", what))
        now_s = self.core.clock.now_us() // SECOND_US
        match = match_target(self.core.knowledge.intel.index, _as_target(what), now_s)
        standing = register.by_target.get(main_target(match)) if match is not None else None
        if standing is not None:
            found.append(standing)
        return list({one.id: one for one in found}.values())

    def known(self, id_: str) -> InForce:
        """An open decision. Raises Refused."""
        decision = self.core.register.by_id.get(id_)
        if decision is None:
            raise Refused(f"there is no open decision {id_} (egressd decisions)")
        return decision

    def match_of(self, indicator: Indicator) -> Match:
        """What a decision about a line rests on."""
        suffixes = self.core.loaded.texts.intel.suffixes
        if indicator.kind in ("address", "network"):
            return Match("address", indicator, "", "")
        registered, _, rule = suffixes.split(indicator.value.partition("/")[0])
        return Match("url" if indicator.kind == "url" else "host", indicator, registered, rule)

    # -- lines

    def allowance_text(self, peer: Peer, what: str, client: str | None, reason: str) -> str:
        """The line that lets a destination be reached. Raises Refused when there can be none."""
        words = [f"allow-destination {what}", f'owner="{_quotable(peer.actor)}"', f'reason="{_quotable(reason)}"']
        if client:
            words.append(f"client={client}")
        text = " ".join(words)
        found, problems = parse_allowances(text, "operator", self.core.loaded.texts.intel.suffixes)
        if problems or len(found) != 1:
            raise Refused(told(problems) or f"{what} cannot be allowed", INVALID)
        if found[0].expires_s:  # a person's line ends as --for says
            raise Refused("expires= is for files of allowances; say how long with --for TIME", WRONG)
        return text

    async def add_allowance(self, peer: Peer, text: str, what: str, for_s: int | None, reason: str) -> Entry:
        """Put an allowance's line down. Takes effect with `settle`."""
        act = Act(peer.actor, "socket", "allow", what, reason)
        return await self.core.add_entry(ALLOWANCE, text, peer.actor, reason, self.until(for_s), act)

    def listed_elsewhere(self, target: Target) -> Match | None:
        """What covers a target beside operators' own lines: a list, or a feed."""
        core = self.core
        now_s = core.clock.now_us() // SECOND_US
        intel = core.loaded.texts.intel
        index = over(intel.index, tuple(one.built for one in core.fed.values()), intel.suffixes)
        return match_target(index, target, now_s)

    def line_of(self, decision: InForce) -> Entry | None:
        """The line that a person added for a decision."""
        indicator = decision.match.indicator
        if indicator.source != "operator" or not indicator.line:
            return None
        return next((one for one in self.core.entries if one.id == f"E{indicator.line}"), None)

    async def drop_line(self, peer: Peer, entry: Entry, reason: str) -> None:
        """Take a line back. Takes effect with `settle`."""
        core = self.core
        act = Act(peer.actor, "socket", "drop-line", entry.id, reason)
        await core.ledger.run(entries.remove, entry.id, core.clock.now_us(), peer.actor, act)
        core.entries = [one for one in core.entries if one.id != entry.id]

    # -- the rest

    async def settle(self, *, renew: bool = False) -> None:
        """Everything that was done is in the ledger and, if the kernel answers in time, in the kernel. Raises
        StoreError when it cannot be written yet, though it is done."""
        if renew:
            await self.core.renew()
        try:
            await self.core.scribe.settled()
        except StoreError as error:
            await self.core.enforcement.settled()
            raise StoreError(f"it is done, but not written down yet: {error}", error.kind) from None
        await self.core.enforcement.settled()

    def until(self, for_s: int | None) -> int:
        """When something ends that a person wants for so long; 0: never."""
        return self.core.clock.now_us() + for_s * SECOND_US if for_s is not None else 0

    def require_armed(self) -> None:
        """Raises Refused in mode monitor: nobody shall believe that something is blocked that is not."""
        if not self.core.arming.is_enforcing():
            raise Refused(
                "nothing was done: the mode is monitor, in which nothing is blocked."
                " Arm egressd first: egressd mode enforce --reason TEXT"
            )

    def remember(self, peer: Peer, done: Done) -> None:
        """So that this person can undo it."""
        acts = self._done.setdefault(peer.uid, [])
        acts.append(done)
        del acts[:-MAX_DONE]

    def last_done(self, peer: Peer) -> Done:
        """The last thing that a person did, once. Raises Refused."""
        acts = self._done.get(peer.uid)
        if not acts:
            raise Refused("nothing that you did since the daemon started is left to undo (egressd decisions)")
        done = acts.pop()
        if done.stays:
            raise Refused(f"nothing was undone: {done.stays}; another egressd undo is about what you did before that")
        return done


def told_by(decision: Decision, author: str) -> Record:
    """The event of a person's decision."""
    record = render_event(decision)
    record["egressd"]["author"] = author
    return record


def no_line(target: Target, level: str = "person") -> Match:
    """What a decision rests on that no list line stands behind."""
    indicator = Indicator(target.kind, target.value, "exact", "", "", "", "operator", 0, "", 100, 0, 0, "", "")
    return Match(level, indicator, "", "")


def told(problems: list[Any]) -> str:
    """Problems of one line, for the person who typed it."""
    return "; ".join(one.what + (f" ({one.advice})" if one.advice else "") for one in problems[:3])


def how_long(args: Record) -> str:
    """` for 2h`, or nothing."""
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


def _as_target(what: str) -> Target:
    network = parse_network(what)
    if network is None:
        return Target("registered_domain", what.strip(".").lower())
    return Target("address" if network[1] == 8 * len(network[0]) else "network", what)
