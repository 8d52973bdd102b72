"""Allowances against what stands: what one came for is lifted, what one has gone from stands again, incidents say so.

Looked at with every change of what people say, and in the second in which an allowance's time is over. What an
allowance ended is remembered for LIFTED_US, over restarts too: as long as nobody else decided about that target since,
it stands again as it was when its target is listed and nothing lets it be. So does, for UNLISTED_US, what ended because
a list was away, when that says the same again: a file that was deleted by mistake. What a person lifted never does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from egressd.clock import Clock
from egressd.detect.blocks import main_target
from egressd.detect.campaigns import Campaigns
from egressd.detect.intel import Intel
from egressd.detect.kept import Kept
from egressd.detect.review import Free, kept_reason, kept_targets, match_target, parts_of, review
from egressd.detect.rules import ASK, is_share
from egressd.detect.site import Site
from egressd.intel.allowances import Allowance, Allowances
from egressd.intel.networks import parse_address
from egressd.model import Decision, Incident, Indicator, Match, Target
from egressd.notify.eve import render_event, spoken_time
from egressd.runtime.in_force import FOUND_OUT, POLICY, InForce, Register, from_row
from egressd.runtime.modes import mode_of
from egressd.runtime.rulings import OF_OURS, Rulings
from egressd.runtime.scribe import Scribe
from egressd.store.decision_rows import LIFTING, UNLISTED, DecisionRow
from egressd.store.decisions import ACTIVE, PROPOSED, WITHDRAWN
from egressd.store.ledger import LIFTED_US, MAX_LIFTED
from egressd.store.notes import Note, count_notes
from egressd.units import DAY_US, SECOND_US

UNLISTED_US: Final = DAY_US  # what came back to a list later is judged anew: who lives at its addresses now?
_NAMES: Final = ("registered_domain", "host", "exact")
NAMED: Final = 3  # addresses in a note; of more only the number is


class Lifted(NamedTuple):
    """A decision that an allowance ended, or a list that named it no more, as it stood, why and when."""

    decision: InForce
    why: str
    ended_us: int
    unlisted: bool

    def stands_until_us(self) -> int:
        """Until when it may stand again."""
        return self.ended_us + (UNLISTED_US if self.unlisted else LIFTED_US)

    def is_called_for(self, match: Match) -> bool:
        """Whether what its target matches now is what it rested on. Another list's word, or a weaker one, is for the
        policy to judge, which may not block for it."""
        return not self.unlisted or _said(match.indicator) == _said(self.decision.match.indicator)

    def reason(self) -> str:
        """What it stands again as, and why: for audit and decisions."""
        return f"{self.decision.id} stands again, for {self.how()}"

    def how(self) -> str:
        """Why it stands again. What lifted it is a sentence, perhaps, so that nothing can go on behind it."""
        return "it is listed again" if self.unlisted else f"this has ended: {self.why}"


class Effect(NamedTuple):
    """What a change made of a decision, for the notes of incidents about the same `target`; of one client only if
    given."""

    target: Target
    client: bytes
    text: str
    why: str


class Allowing:
    """On the event loop, without waiting for anything: what it changes goes the way of every ruling."""

    def __init__(
        self,
        register: Register,
        rulings: Rulings,
        campaigns: Campaigns,
        scribe: Scribe,
        clock: Clock,
        on_event: Callable[[dict[str, Any]], None],
        new_id: Callable[[], str],
    ) -> None:
        """`on_event` takes rendered events, `new_id` gives out the next decision's id."""
        self._register = register
        self._rulings = rulings
        self._campaigns = campaigns
        self._scribe = scribe
        self._clock = clock
        self._on_event = on_event
        self._new_id = new_id
        self._lifted: dict[Target, Lifted] = {}
        self._effects: list[Effect] = []
        self._allowed: dict[str, str] = {}  # what lets an incident's contacts be, by incident
        self._seen: tuple[Allowance, ...] | None = None  # what was looked at last
        self._due_s = 0  # when the next allowance ends, 0: none does
        rulings.on_end = self._ended

    def restore(self, lifted: Iterable[DecisionRow], allowed: Mapping[str, str]) -> None:
        """Carry on with what the ledger knows."""
        for row in sorted(lifted, key=lambda one: one.ended_us):
            before, unlisted = _as_it_stood(row), row.ended_by == UNLISTED
            if not unlisted or _is_of_a_list(before):
                self._lifted[before.target] = Lifted(before, row.ended_reason, row.ended_us, unlisted)
        self._allowed = dict(allowed)

    def is_due(self, now_us: int) -> bool:
        """Whether an allowance has ended since the last look."""
        return 0 < self._due_s <= now_us // SECOND_US

    def over(self, now_us: int) -> tuple[Allowance, ...]:
        """The allowances that have ended since the last look."""
        if not self.is_due(now_us):
            return ()
        return tuple(one for one in self._seen or () if self._due_s <= one.expires_s <= now_us // SECOND_US)

    def shift(self, delta_us: int) -> None:
        """The clock was set: what was to last an hour lasts an hour, and what was lifted is as old as it was."""
        for target, lifted in self._lifted.items():
            self._lifted[target] = lifted._replace(ended_us=lifted.ended_us + delta_us)
            lifted.decision.began_us += delta_us
            for held in lifted.decision.held.values():
                held.expires_us += delta_us if held.expires_us else 0

    def look(self, intel: Intel, site: Site) -> None:
        """Does every decision still stand, and may one stand again?"""
        now_us = self._clock.now_us()
        kept = Kept(intel.allowances)
        self._stand_again(intel, kept, site, now_us)
        for decision in list(self._register.by_id.values()):
            if decision.target.kind in OF_OURS:
                continue  # rests on no list line, and is about no destination
            self._cover_again(decision, intel, kept, now_us)
            self._review(decision, intel, kept, now_us // SECOND_US)
        self._note(intel.allowances, now_us)
        ends_s = [one.expires_s for one in intel.allowances.allowances if one.expires_s > now_us // SECOND_US]
        self._due_s = min(ends_s, default=0)

    # -- what an allowance lifts

    def _review(self, decision: InForce, intel: Intel, kept: Kept, now_s: int) -> None:
        held = [target for target, one in decision.held.items() if one.state == ACTIVE]
        match = match_target(intel.index, decision.target, now_s, intel.allowances)
        if decision.target.kind == "pair" and (match is not None or not is_share(decision.rule)):
            free = _freed(decision.target, held, intel, kept, now_s)
            if any(one.target == decision.target for one in free):
                self._rulings.end(decision, "withdrawn", f"rule:{free[0].rule}", POLICY, free[0].reason)
            return
        verdict = review(
            decision.target, decision.match, *_ends(held), match, intel.allowances, intel.protected, now_s, kept
        )
        if verdict.match is None:
            self._rulings.end(decision, "withdrawn", f"rule:{verdict.rule}", POLICY, verdict.reason)
            return
        decision.match = verdict.match
        free = [one for one in verdict.free if one.target != decision.target]
        for one in free:
            self._rulings.withdraw(decision, (one.target,), f"rule:{one.rule}", POLICY, one.reason)
        why = free[0].reason if free else ""
        self._tell_targets(decision, [one.target for one in free], "lets {} be reached", why)

    def _ended(self, decision: InForce, actor: str, reason: str) -> None:
        """A decision has ended, by whomever."""
        self._lifted.pop(decision.target, None)
        unlisted = actor == UNLISTED and _is_of_a_list(decision)
        if actor not in LIFTING and not unlisted:
            return
        if len(self._lifted) >= MAX_LIFTED:
            if unlisted:
                return  # a long list that went must not push out what allowances lifted
            del self._lifted[next(iter(self._lifted))]
        self._lifted[decision.target] = Lifted(decision, reason, self._clock.now_us(), unlisted)
        if unlisted:
            return
        self._effects.append(Effect(decision.target, b"", f"{decision.id} lifted", reason))

    # -- what stands again

    def _stand_again(self, intel: Intel, kept: Kept, site: Site, now_us: int) -> None:
        for target, lifted in list(self._lifted.items()):
            ends_us = lifted.decision.held[target].expires_us
            standing = self._register.by_target.get(target)
            if standing is not None or now_us > lifted.stands_until_us() or 0 < ends_us <= now_us:
                del self._lifted[target]
                if standing is not None and lifted.is_called_for(standing.match):
                    self._extend(standing, lifted)  # traffic was quicker than the clock; it has not led everywhere yet
                continue
            match = _permitted(lifted.decision, intel, kept, now_us // SECOND_US)
            if match is not None and lifted.is_called_for(match):
                del self._lifted[target]
                self._make(lifted, match, mode_of(site, lifted.decision), now_us)

    def _make(self, lifted: Lifted, match: Match, mode: str, now_us: int) -> None:
        """A decision as it was, under a new number. What it may no longer cover is freed by the review that follows."""
        before = lifted.decision
        decided = [before.target, *(target for target in _covered(before) if target.kind not in FOUND_OUT)]
        reason = lifted.reason()
        decision = Decision(
            self._new_id(), now_us, 0, before.action, tuple(decided), reason, before.rule, before.evidence, mode, match,
            before.client, before.name, self._campaigns.current(before.campaign),
        )  # fmt: skip
        state = _state_of(before, mode)
        ends_us = before.held[before.target].expires_us
        made = self._rulings.make(decision, state, POLICY, ends_us, None, began_us=before.began_us)
        self._extend(made, lifted)
        self._rulings.spare(made, before.spared)
        self._on_event(render_event(decision if state == PROPOSED else replace(decision, action="block")))
        how = "waits for a person again" if state == PROPOSED else f"{_blocks(mode)} again"
        # Of a list that comes and goes each note says the same, to be counted: which decisions they were is beside it.
        text = how if lifted.unlisted else f"{made.id} {how} (it was {before.id})"
        self._effects.append(Effect(before.target, b"", text, lifted.how()))

    def _extend(self, decision: InForce, lifted: Lifted) -> None:
        """What one covered that was lifted, another one covers."""
        found_out = [target for target in _covered(lifted.decision) if target.kind in FOUND_OUT]
        found_out = [target for target in found_out if target not in decision.held]
        if found_out:
            self._rulings.extend(decision, found_out, POLICY, POLICY, lifted.reason())

    def _cover_again(self, decision: InForce, intel: Intel, kept: Kept, now_us: int) -> None:
        """What a decision that stands gave free because of an allowance, it covers again."""
        freed = [
            target
            for target, one in decision.held.items()
            if _is_freed(one.state, one.because) and now_us - one.ended_us <= LIFTED_US and target.kind in FOUND_OUT
        ]
        if not freed:
            return
        still = {one.target for one in _freed(decision.target, freed, intel, kept, now_us // SECOND_US)}
        back = [target for target in freed if target not in still]
        if back:
            why = "what let it be reached has ended"
            self._rulings.extend(decision, back, POLICY, POLICY, why)
            self._tell_targets(decision, back, f"{_blocks(decision.mode)} {{}} again", why)

    # -- what incidents say

    def _tell_targets(self, decision: InForce, targets: Sequence[Target], how: str, why: str) -> None:
        by_client: dict[bytes, list[str]] = {}
        for target in targets:
            client, _, address = target.value.rpartition(">")
            by_client.setdefault(parse_address(client) if client else b"", []).append(address)
        for client_addr, values in by_client.items():
            more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
            text = f"{decision.id} {how.format(', '.join(values[:NAMED]) + more)}"
            self._effects.append(Effect(decision.target, client_addr, text, why))

    def _note(self, allowances: Allowances, now_us: int) -> None:
        effects, self._effects = self._effects, []
        if not effects and allowances.allowances == self._seen and not self.is_due(now_us):
            return
        known = {_name(one) for one in self._seen or ()}
        self._seen = allowances.allowances
        allowed, self._allowed = self._allowed, {}
        about: dict[Target, list[Effect]] = {}
        for effect in effects:
            about.setdefault(effect.target, []).append(effect)
        notes: list[Note] = []
        for incident in self._campaigns.incidents.values():
            target = main_target(incident.match)
            mine = [one for one in about.get(target, ()) if one.client in (b"", incident.client)]
            found = _covering(allowances, incident, target, now_us // SECOND_US)
            now = _name(found) if found is not None else ""
            if now:
                self._allowed[incident.id] = now
            text = _noted(allowed.get(incident.id, ""), found, mine, now_us if now not in known else 0)
            if text:
                notes.append(Note(incident.id, now_us, text, now))
        if notes:
            self._scribe.put(count_notes, tuple(notes))


def _noted(before: str, found: Allowance | None, effects: Sequence[Effect], since_us: int) -> str:
    """What an incident is told that `before` let be and `found` does now, since a time if that is known; "" when there
    is nothing new."""
    done = "; ".join(one.text for one in effects)
    if found is not None and _name(found) != before:
        since = f" since {spoken_time(since_us)}" if since_us else ""
        text = f"allowed{since} by {found.owner} ({found.reason}), {found.kind} {found.value}"
    elif before and found is None:
        text = f"no longer allowed ({before})"
    else:
        return f"{done} ({effects[0].why})" if effects else ""
    return f"{text}: {done}" if done else text


def _permitted(before: InForce, intel: Intel, kept: Kept, now_s: int) -> Match | None:
    """What a decision rests on if it may stand again."""
    if before.target.kind == "pair":
        _, ((client, address),) = _ends([before.target])
        reason, _ = kept_reason(client, address, intel.allowances, intel.protected, now_s)
        if reason or not is_share(before.rule):
            return before.match if not reason else None
    match = match_target(intel.index, before.target, now_s, intel.allowances)
    return review(before.target, before.match, (), (), match, intel.allowances, intel.protected, now_s, kept).match


def _freed(main: Target, targets: Sequence[Target], intel: Intel, kept: Kept, now_s: int) -> list[Free]:
    """Which of a decision's targets may not be covered."""
    name = "" if main.kind == "pair" else parts_of(main)[0]
    return kept_targets(name, *_ends(targets), intel.allowances, intel.protected, now_s, kept)


def _ends(targets: Iterable[Target]) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """The addresses, and the pairs as (client, address), of what a decision covers."""
    addresses: list[bytes] = []
    pairs: list[tuple[bytes, bytes]] = []
    for target in targets:
        if target.kind == "address":
            addresses.append(parse_address(target.value))
        elif target.kind == "pair":
            client, _, address = target.value.partition(">")
            pairs.append((parse_address(client), parse_address(address)))
    return addresses, pairs


def _covered(decision: InForce) -> list[Target]:
    """What a decision covered beside its main target, or would have but for an allowance."""
    return [
        target
        for target, one in decision.held.items()
        if target != decision.target and (one.state == ACTIVE or _is_freed(one.state, one.because))
    ]


def _said(one: Indicator) -> tuple[object, ...]:
    """What a line of a list says, wherever it stands."""
    return one.source, one.kind, one.value, one.scope, one.threat, one.confidence


def _is_of_a_list(decision: InForce) -> bool:
    """Whether it rests on a list that names names, and not on a person. What is listed by address needs nobody to
    remember it, and is unlisted too while an administrator sits there: who logs out must be able to come back."""
    return decision.author == POLICY and decision.target.kind in _NAMES


def _is_freed(state: str, because: str) -> bool:
    return state == WITHDRAWN and because in LIFTING


def _state_of(before: InForce, mode: str) -> str:
    """As decisions stand in a mode that were made in another (`modes.stand_in`)."""
    if mode == "enforce":
        return ACTIVE if before.action != ASK else before.state
    if mode == "approve" and before.mode == "monitor" and before.author == POLICY:
        return PROPOSED
    return before.state


def _as_it_stood(row: DecisionRow) -> InForce:
    """A decision of the ledger before its end."""
    decision = from_row(row)
    decision.state = row.ended_from or ACTIVE
    for held in decision.held.values():
        if not held.because:
            held.state = ACTIVE
    return decision


def _blocks(mode: str) -> str:
    return "would block" if mode == "monitor" else "blocks"


def _covering(allowances: Allowances, incident: Incident, target: Target, now_s: int) -> Allowance | None:
    """What lets an incident's contacts be: all of them, or at least every name that was asked for."""
    client = incident.client
    name, address = parts_of(target)
    found = (
        allowances.ignores_client(client, now_s)
        or allowances.ignores_indicator(incident.match.indicator, now_s)
        or allowances.allows(name, address, client, now_s)
        or allowances.never_blocks(name, address, now_s)
    )
    if found is not None or not incident.names:
        return found
    by_name = [allowances.allows(one, b"", client, now_s) for one in incident.names]
    return by_name[0] if all(by_name) else None


def _name(allowance: Allowance) -> str:
    """An allowance in a note, wherever it stands."""
    client = f" client={allowance.client}" if allowance.client else ""
    return f"{allowance.kind} {allowance.value}{client} of {allowance.owner}: {allowance.reason}"
