"""Decisions made, extended, narrowed and ended, by policy or by people: the one place where the register changes.

Each change goes to the register, the ledger, the packet processes that do not know of it, and wakes the reconcilers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from sqlite3 import Connection
from typing import Final, TypeVar

from egressd.clock import Clock
from egressd.detect.campaigns import Campaigns
from egressd.detect.rules import ASK, ISOLATE, is_share
from egressd.detect.site import RANKS
from egressd.enforce.adapter import CLIENT, SEGMENT
from egressd.model import Decision, Match, Target
from egressd.runtime.in_force import FOUND_OUT, POLICY, ROLLBACK, Held, InForce, Register
from egressd.runtime.isolation_leave import NO_MACHINE, IsolationLeave
from egressd.runtime.orders import Adopt, End, Order, Rest
from egressd.runtime.scribe import Scribe
from egressd.store import audit, decisions, spared, targets
from egressd.store.audit import Act
from egressd.store.decisions import ACTIVE, PROPOSED, WITHDRAWN, NewTarget
from egressd.store.moments import BEGAN, WAITS
from egressd.units import HOUR_US, SECOND_US

Value = TypeVar("Value")

# Decisions about machines of ours are no destinations: packet processes need them not.
OF_OURS: Final = (CLIENT, SEGMENT)
# An alias is needed until the packet process that gave the younger id has heard of the older one, which is a batch or
# two: of so many the oldest make room.
MAX_ALIASES: Final = 4_096


class Rulings:
    """Applies decisions. `tell(order, but)` sends an order to every packet process except number `but`."""

    def __init__(
        self,
        register: Register,
        campaigns: Campaigns,
        scribe: Scribe,
        clock: Clock,
        tell: Callable[[Order, int], None],
        is_enforcing: Callable[[], bool],
    ) -> None:
        self.register = register
        self.counts: dict[str, int] = {}  # of policy's verdicts, by action
        self.refusals: dict[str, int] = {}  # by rule
        self._campaigns = campaigns
        self._scribe = scribe
        self._clock = clock
        self._tell = tell
        self._is_enforcing = is_enforcing
        self.on_end: Callable[[InForce, str, str], None] = _nothing  # (decision, actor, reason)
        self.leave = IsolationLeave()
        self._aliases: dict[str, str] = {}  # of decisions that two packet processes made: the younger's id

    # -- by policy

    def of_policy(self, origin: int, decision: Decision) -> None:
        """A verdict of packet process `origin`; its id becomes the one that it is known under."""
        self.counts[decision.action] = self.counts.get(decision.action, 0) + 1
        if decision.targets[0].kind == CLIENT:
            self._isolate(decision)
            return
        if decision.action in ("block", ASK):
            self._block(origin, decision)
            return
        decision.id = self.known_as(decision.id)
        known = self.register.by_id.get(decision.id)
        if decision.action in ("refuse", "alert", "ask"):
            self.refusals[decision.rule] = self.refusals.get(decision.rule, 0) + 1
            what = f"{decision.targets[0].kind} {decision.targets[0].value}" if decision.targets else ""
            act = Act(
                f"rule:{decision.rule}", POLICY, decision.action, decision.id or what, decision.reason, None, what
            )
            self._scribe.put(audit.append, act, decision.ts_us)
            if known is not None:
                self._spare(known, decision)
        elif known is None:
            return  # it ended in between
        elif decision.action == "extend":
            self.extend(known, decision.targets, f"rule:{decision.rule}", POLICY, decision.reason, but=origin)
            for target in decision.targets:
                for holder in self.register.holders(target):
                    if target.kind == "address":
                        self._campaigns.meet(known.campaign, holder.campaign, f"both used {target.value}")
        elif known.target in decision.targets:
            state = "expired" if decision.rule == "expired" else "withdrawn"
            self.end(known, state, f"rule:{decision.rule}", POLICY, decision.reason, but=origin)
        else:
            self.withdraw(known, decision.targets, f"rule:{decision.rule}", POLICY, decision.reason, but=origin)
            self._spare(known, decision)

    def _spare(self, known: InForce, decision: Decision) -> None:
        if known.spare(decision.targets, decision.reason):
            self._scribe.put(spared.keep, known.id, dict(known.spared))

    def spare(self, decision: InForce, why: Mapping[Target, str]) -> None:
        """A decision that stands again spares what it did, until more is known."""
        if why:
            decision.spared = dict(why)
            self._scribe.put(spared.keep, decision.id, dict(why))

    def restore(
        self, found: Mapping[str, Mapping[Target, str]], waits: Mapping[str, int], began: Mapping[str, int]
    ) -> None:
        """What decisions spare, since when they wait and when they stood first, as the ledger knows it; of those that
        stand no more it is forgotten."""
        for decision, why in self._standing(found, spared.forget):
            decision.spared = dict(why)
        for decision, since_us in self._standing(waits, WAITS.forget):
            decision.waits_since_us = since_us
        for decision, began_us in self._standing(began, BEGAN.forget):
            decision.began_us = began_us

    def _standing(
        self, kept: Mapping[str, Value], forget: Callable[[Connection, str], object]
    ) -> Iterator[tuple[InForce, Value]]:
        """Decisions that stand, each with what was kept of it; of others it is forgotten."""
        for id_, value in kept.items():
            standing = self.register.by_id.get(id_)
            if standing is not None:
                yield standing, value
            else:
                self._scribe.put(forget, id_)

    def keep_waits(self) -> None:
        """The clock was set: proposals wait as long as they would have."""
        since_us = {one.id: one.waits_since_us for one in self.register.by_id.values() if one.state == PROPOSED}
        if since_us:
            self._scribe.put(WAITS.keep, since_us)

    def _waits(self, decision: InForce, now_us: int) -> None:
        """A decision that stood waits for a person from now on."""
        decision.waits_since_us = now_us
        self._scribe.put(WAITS.keep, {decision.id: now_us})

    def _block(self, origin: int, decision: Decision) -> None:
        main = decision.targets[0]
        self.register.note(decision.id)
        known = self.register.by_target.get(main)
        if known is not None:
            if known.id != decision.id:
                self._aliases[decision.id] = known.id
                if len(self._aliases) > MAX_ALIASES:
                    del self._aliases[next(iter(self._aliases))]
                decision.id = known.id
                self._tell(Adopt((known.standing(self.enforces(known)),)), -1)
            self._promote(known, decision)
            return
        self.make(decision, _state_of(decision), POLICY, self._ends_us(decision), None, but=origin)

    def _ends_us(self, decision: Decision) -> int:
        """When what policy blocks ends by itself, 0: it does not."""
        is_address = decision.targets[0].kind in ("address", "network", "pair")
        ends_us = decision.match.indicator.expires_s * SECOND_US if is_address else 0
        rule = self.register.rule_of(decision.rule)
        if rule is not None and rule.ttl_s:
            ends_us = min(decision.ts_us + rule.ttl_s * SECOND_US, ends_us or 1 << 62)
        return ends_us

    def _promote(self, known: InForce, decision: Decision) -> None:
        """A standing decision of policy's is called for by more: by a segment under a stronger mode, by a rule that
        blocks where another one asked, or by a second machine where it is for one alone."""
        stronger = RANKS[decision.mode] > RANKS[known.mode]
        wider = is_share(known.rule) and not is_share(decision.rule)
        answered = known.action == ASK and known.state == PROPOSED and decision.action != ASK
        if known.author != POLICY or known.rule == ROLLBACK or not (stronger or answered or wider):
            return
        if wider or answered:
            known.rule, known.reason = decision.rule, decision.reason
        if stronger:
            known.mode = decision.mode
        if known.state == PROPOSED or stronger:
            waited = known.state == PROPOSED
            known.action = decision.action if waited else known.action
            known.state = PROPOSED if known.mode == "approve" or known.action == ASK else ACTIVE
            if known.state == PROPOSED and not waited:
                self._waits(known, self._clock.now_us())
        known.client = decision.client
        if answered:
            held = known.held[known.target]
            held.expires_us = self._ends_us(decision)
            renewal = targets.Renewal(known.id, known.target, held.expires_us, held.level)
            self._scribe.put(targets.renew, [renewal], decision.ts_us)
        self.register.reschedule(known)
        act = Act(f"rule:{decision.rule}", POLICY, "promote", known.id, decision.reason)
        change = decisions.Change(known.state, known.mode, known.action, known.rule, known.client)
        self._scribe.put(decisions.change, known.id, change, decision.ts_us, act)
        self._tell(Adopt((known.standing(self.enforces(known)),)), -1)

    def _isolate(self, decision: Decision) -> None:
        """A rule isolates a client, or asks for it, where it has leave to. Any other verdict about a client is none of
        policy's."""
        target = decision.targets[0]
        now_us = self._clock.now_us()
        is_isolation = decision.action in (ISOLATE, ASK) and len(decision.targets) == 1
        why = self.leave.why_not(target, now_us) if is_isolation else NO_MACHINE
        if why:
            reason = f"not isolated: {why}; {decision.reason}"
            act = Act(f"rule:{decision.rule}", POLICY, "refuse", target.value, reason)
            self._scribe.put(audit.append, act, decision.ts_us)
            decision.action, decision.reason, decision.id = "refuse", reason, ""
            return
        self.register.note(decision.id)
        if target in self.register.by_target:
            decision.id = self.register.by_target[target].id
            return
        self.leave.isolated(now_us)
        rule = self.register.rule_of(decision.rule)
        ends_us = decision.ts_us + rule.ttl_s * SECOND_US if rule is not None and rule.ttl_s else 0
        self.make(decision, _state_of(decision), POLICY, ends_us, None)

    def roll_back(self, decision: InForce, reason: str) -> Decision:
        """Too many ran into an automatic block: it waits for a person, and lets them through meanwhile."""
        now_us = self._clock.now_us()
        decision.state, decision.action, decision.rule, decision.reason = PROPOSED, ASK, ROLLBACK, reason
        self._waits(decision, now_us)
        self.register.reschedule(decision)
        act = Act(f"rule:{ROLLBACK}", POLICY, ROLLBACK, decision.id, reason)
        change = decisions.Change(PROPOSED, decision.mode, ASK, ROLLBACK, decision.client)
        self._scribe.put(decisions.change, decision.id, change, now_us, act)
        self._tell(Adopt((decision.standing(False),)), -1)
        return _told(decision, ASK, reason, ROLLBACK, now_us)

    def lapse(self, after_us: int) -> list[Decision]:
        """Proposals that nobody spoke about for so long end; what they were about proposes itself anew when it is seen
        again. Returns what is to be told."""
        now_us = self._clock.now_us()
        waiting = [one for one in self.register.by_id.values() if one.state == PROPOSED]
        told: list[Decision] = []
        for one in waiting:
            if now_us - one.waits_since_us < after_us:
                continue
            reason = f"nobody approved or rejected it within {after_us // HOUR_US} h"
            self.end(one, "expired", "timer", "timer", reason)
            told.append(_told(one, "withdraw", reason, "lapsed", now_us))
        return told

    def known_as(self, id_: str) -> str:
        """The id of a decision that two packet processes made."""
        return self._aliases.get(id_, id_)

    # -- by anybody

    def make(
        self,
        decision: Decision,
        state: str,
        author: str,
        ends_us: int,
        act: Act | None,
        *,
        but: int = -1,
        began_us: int = 0,
    ) -> InForce:
        """A new decision about `decision.targets`, the first its main one, until `ends_us` (0: until it is ended). It
        stood before since `began_us`, if given."""
        made = InForce(
            decision.id, decision.targets[0], decision.match, state, decision.mode, author, decision.ts_us,
            decision.reason, decision.rule, decision.evidence, decision.client, decision.name, decision.campaign,
            action=decision.action, waits_since_us=decision.ts_us,
        )  # fmt: skip
        made.began_us = began_us or made.began_us
        for target in decision.targets:
            made.held[target] = Held(target, ACTIVE, decision.ts_us, ends_us, 0)
        self.register.add(made)
        rows = [NewTarget(target, ends_us) for target in decision.targets]
        self._scribe.put(decisions.commit, decision, rows, author, state, act)
        if began_us:
            self._scribe.put(BEGAN.keep, {made.id: began_us})
        if made.target.kind not in OF_OURS:
            self._tell(Adopt((made.standing(self.enforces(made)),)), but)
        return made

    def extend(
        self, decision: InForce, more: Sequence[Target], actor: str, via: str, reason: str, *, but: int = -1
    ) -> None:
        """More targets for a decision."""
        now_us = self._clock.now_us()
        held = [self.register.hold(decision, target, now_us) for target in more]
        rows = [NewTarget(one.target, one.expires_us, one.level) for one in held]
        self._scribe.put(decisions.extend, decision.id, rows, now_us, Act(actor, via, "extend", decision.id, reason))
        if decision.target.kind not in OF_OURS:
            self._tell(Adopt((decision.standing(self.enforces(decision)),)), but)

    def withdraw(
        self, decision: InForce, fewer: Sequence[Target], actor: str, via: str, reason: str, *, but: int = -1
    ) -> None:
        """Targets that a decision gives free."""
        now_us = self._clock.now_us()
        gone: list[Target] = []
        for target in fewer:
            held = self.register.release(decision, target, WITHDRAWN, now_us)
            if held is not None:
                held.because = actor
                gone.append(target)
        if gone:
            act = Act(actor, via, "withdraw", decision.id, reason)
            self._scribe.put(decisions.withdraw, decision.id, gone, now_us, act)
            self._tell(Rest(tuple((decision.id, target) for target in gone)), but)

    def end(self, decision: InForce, state: str, actor: str, via: str, reason: str, *, but: int = -1) -> None:
        """A decision ends, with all its targets."""
        now_us = self._clock.now_us()
        if decision.target.kind == CLIENT and via == "socket":
            self.leave.released(decision.target, now_us)
        self._ends(decision)
        self.on_end(decision, actor, reason)
        act = Act(actor, via, "end", decision.id, reason)
        self._scribe.put(decisions.end, decision.id, state, now_us, actor, reason, act)
        self._tell(End((decision.id,)), but)

    def _ends(self, decision: InForce) -> None:
        self.register.end(decision)
        if decision.spared:
            self._scribe.put(spared.forget, decision.id)
        if decision.waits_since_us != decision.created_us:
            self._scribe.put(WAITS.forget, decision.id)
        if decision.began_us != decision.created_us:
            self._scribe.put(BEGAN.forget, decision.id)

    def approve(self, decision: InForce, actor: str, reason: str) -> None:
        """A person lets a proposal take effect; terms begin now."""
        now_us = self._clock.now_us()
        decision.state = ACTIVE
        for held in list(decision.held.values()):
            if held.state == ACTIVE and held.expires_us:
                held.expires_us += now_us - held.added_us
                held.added_us = now_us
        self.register.reschedule(decision)
        self._scribe.put(decisions.approve, decision.id, now_us, Act(actor, "socket", "approve", decision.id, reason))
        self._tell(Adopt((decision.standing(self.enforces(decision)),)), -1)

    def propose_again(self, decision: InForce, actor: str, reason: str) -> None:
        """What was approved waits for a person again."""
        decision.state = PROPOSED
        self._waits(decision, self._clock.now_us())
        self.register.reschedule(decision)
        act = Act(actor, "socket", "undo-approve", decision.id, reason)
        self._scribe.put(decisions.propose_again, decision.id, self._clock.now_us(), act)
        self._tell(Adopt((decision.standing(self.enforces(decision)),)), -1)

    def outcome(self, match: Match, client: bytes = b"", names: Iterable[str] = ()) -> str:
        """What was done about what matches so, as a sentence without a full stop. `client` contacted it by `names`."""
        about = (self.register.about(match, name) for name in ("", *names))
        decision = next(filter(None, about), None) or self._narrowed(match, client)
        if decision is None:
            return "NOT blocked: alert only"
        if decision.state == PROPOSED:
            return f"NOT blocked yet: egressd approve {decision.id}"
        if not self._is_enforcing() or decision.mode == "monitor":
            return f"NOT blocked: mode is monitor (would be {decision.id})"
        if decision.target.kind == "url":
            return f"NOT blocked: one page cannot be, list its host ({decision.id})"
        if decision.is_name_only():
            return f"NOT blocked: all that {decision.id} led to is protected or shared"
        return f"BLOCKED by {decision.id}, still watched"

    def _narrowed(self, match: Match, client: bytes) -> InForce | None:
        """The decision that this client's contact with a listed address or network led to, though it is about less: its
        own way there, or one address."""
        if match.level != "address" or not client:
            return None
        its = (one for one in self.register.by_id.values() if one.author == POLICY and one.client == client)
        return next((one for one in its if one.match.indicator == match.indicator), None)

    def enforces(self, decision: InForce) -> bool:
        """Whether the kernel is to hold what this decision covers."""
        return self._is_enforcing() and decision.state == ACTIVE and decision.mode != "monitor"

    def standing(self) -> Adopt:
        """Every decision, for a packet process that begins."""
        return Adopt(
            tuple(
                one.standing(self.enforces(one))
                for one in self.register.by_id.values()
                if one.target.kind not in OF_OURS
            )
        )

    # -- by time

    def expire(self) -> None:
        """Targets whose term is over go on, rest, or end."""
        now_us = self._clock.now_us()
        renewals: list[targets.Renewal] = []
        over: list[tuple[str, Target]] = []
        for decision, held, goes_on in self.register.due(now_us):
            if goes_on:
                renewals.append(targets.Renewal(decision.id, held.target, held.expires_us, held.level))
            else:
                over.append((decision.id, held.target))
        if renewals:
            self._scribe.put(targets.renew, renewals, now_us)
        if not over:
            return
        self._scribe.put(targets.expire, over, now_us, Act("timer", "timer", "expire", "", "its time is over"))
        for id_, target in over:
            standing = self.register.by_id.get(id_)
            if standing is None:
                continue  # ended with its main target
            if target == standing.target:
                self._ends(standing)
                self._tell(End((id_,)), -1)
            elif target.kind in FOUND_OUT:
                self._tell(Rest(((id_, target),)), -1)


def _state_of(decision: Decision) -> str:
    """Whether a new decision of policy's waits for a person."""
    return PROPOSED if decision.mode == "approve" or decision.action == ASK else ACTIVE


def _told(one: InForce, action: str, reason: str, rule: str, now_us: int) -> Decision:
    """What became of a standing decision, as an event that nobody's traffic led to."""
    return Decision(
        one.id, now_us, 0, action, (one.target,), reason, rule, one.evidence, one.mode, one.match, b"", one.name,
        one.campaign,
    )  # fmt: skip


def _nothing(*_: object) -> None:
    """Nobody waits for that."""
