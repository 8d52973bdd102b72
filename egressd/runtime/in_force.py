"""The decisions that stand, in memory: the ledger's mirror, which the reconcilers and the packet processes are told of.

A decision is about one main target (a registered domain, a host, an address ...) and collects further ones: addresses
and pairs that answers and names led to. Each of those has a term (detect/probation.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from egressd.detect.blocks import main_target
from egressd.detect.changing import Standing
from egressd.detect.coverage import E1, E2
from egressd.detect.probation import level_on_return, level_when_due, term_us
from egressd.detect.rules import BLOCK
from egressd.detect.rules import Rule as PolicyRule
from egressd.enforce.adapter import CLIENT, SEGMENT, Rule
from egressd.intel.networks import parse_address, render_address
from egressd.model import Match, Target
from egressd.store.decision_rows import DecisionRow
from egressd.store.decisions import ACTIVE, EXPIRED, PROPOSED, WITHDRAWN

POLICY: Final = "policy"  # as an author
RESTING: Final = EXPIRED  # of a target: its term is over, a try brings it back
MAX_ENDED: Final = 100_000
# Targets of one decision that are remembered though it does not hold them now, the last of them: a packet process takes
# no more at rest (detect/changing.py), and what allowances gave free comes back with their end.
MAX_RELEASED: Final = {RESTING: 256, WITHDRAWN: 4_096}
ROLLBACK: Final = "rollback"  # the rule of what was taken back because too many ran into it
MAX_SPARED: Final = 16  # targets of one decision that were refused or given free, the last of them
DESTINATIONS: Final = frozenset(("address", "network", "pair"))  # kinds that adapters can hold
FOUND_OUT: Final = frozenset(("address", "pair"))  # kinds that have a term when they are not what was decided about


@dataclass(slots=True)
class Held:
    """One target of a decision. `expires_us` 0 = as long as the decision stands."""

    target: Target
    state: str
    added_us: int
    expires_us: int
    level: int
    ended_us: int = 0
    tried: bool = False  # since its term began
    attempts: int = 0
    last_attempt_us: int = 0
    because: str = ""  # who withdrew it


@dataclass(slots=True)
class InForce:
    """One decision. `author` is "policy" or a person as "uid:name"; `held` has the main target first. `action` is ASK
    when it waits for a person, or did, whatever the mode; it lapses so long after `waits_since_us`. `created_us` is for
    people, and stays as it was; `began_us` is the same moment by the clock of now; of what stands again, when it first
    stood."""

    id: str
    target: Target
    match: Match
    state: str
    mode: str
    author: str
    created_us: int
    reason: str
    rule: str
    evidence: str
    client: bytes
    name: str
    campaign: str
    held: dict[Target, Held] = field(default_factory=dict)
    action: str = BLOCK
    waits_since_us: int = 0
    released: dict[str, dict[Target, None]] = field(default_factory=dict)  # by state: what `held` has and is not active
    spared: dict[Target, str] = field(default_factory=dict)  # what it does not cover, and why, as far as is remembered
    began_us: int = field(init=False)

    def __post_init__(self) -> None:
        self.began_us = self.created_us

    def spare(self, targets: Iterable[Target], reason: str) -> bool:
        """Policy refused to cover `targets`, or gave them free; False when that was so before."""
        is_new = False
        for target in targets:
            if len(self.spared) >= MAX_SPARED and target not in self.spared:
                del self.spared[next(iter(self.spared))]
            is_new = is_new or self.spared.get(target) != reason
            self.spared[target] = reason
        return is_new

    def left_open(self) -> dict[Target, str]:
        """What it led to and does not cover now, and why. What was over a budget an hour ago may be covered by now."""
        held = self.held
        return {
            target: why
            for target, why in self.spared.items()
            if target not in held or held[target].state not in (ACTIVE, RESTING)
        }

    def is_all_spared(self) -> bool:
        """Whether all that it led to was refused or given free, so that nobody would be kept from anything."""
        kept = (held.state in (ACTIVE, RESTING) and target.kind in DESTINATIONS for target, held in self.held.items())
        return bool(self.spared) and not any(kept)

    def is_name_only(self) -> bool:
        """Whether it is in force and nobody is kept from anything, as above."""
        return self.state == ACTIVE and self.is_all_spared()

    def keeps_nobody(self) -> bool:
        """Whether it is in force and keeps nobody from anything: it is about one page of a site, or as above."""
        return self.state == ACTIVE and (self.target.kind == "url" or self.is_name_only())

    def take_back(self, target: Target) -> None:
        """A target is held again."""
        for targets in self.released.values():
            targets.pop(target, None)

    def let_go(self, held: Held) -> None:
        """A target is not held now; of many the oldest are forgotten, or a name in flux would fill memory."""
        targets = self.released.setdefault(held.state, {})
        targets[held.target] = None
        while len(targets) > MAX_RELEASED[held.state]:
            oldest = next(iter(targets))
            del targets[oldest]
            if oldest != self.target:
                self.held.pop(oldest, None)

    def standing(self, enforced: bool) -> Standing:
        """As a packet process is told of it."""
        addresses: list[bytes] = []
        pairs: list[tuple[bytes, bytes]] = []
        resting: list[tuple[bytes, str]] = []
        for target, held in self.held.items():
            client, _, address = target.value.rpartition(">")
            if target.kind == "address":
                if held.state == ACTIVE:
                    addresses.append(parse_address(address))
                elif held.state == RESTING:
                    resting.append((parse_address(address), E2))
            elif target.kind == "pair":
                if held.state == ACTIVE:
                    pairs.append((parse_address(client), parse_address(address)))
                elif held.state == RESTING:
                    resting.append((parse_address(address), E1))
        return Standing(
            self.id, self.target, self.match, self.created_us, self.campaign, enforced, tuple(addresses), tuple(pairs),
            tuple(resting), self.mode, self.state == PROPOSED, self.author != POLICY or self.rule == ROLLBACK,
            self.rule, self.client, self.began_us,
        )  # fmt: skip


class Register:
    """Every decision that stands, by id and by main target, and what is due when."""

    def __init__(self) -> None:
        self.by_id: dict[str, InForce] = {}
        self.by_target: dict[Target, InForce] = {}
        self._holders: dict[Target, list[str]] = {}  # which decisions hold an address or pair
        self._due: list[tuple[int, int, str, Target]] = []
        self._order = 0
        self.version = 0  # counts up with every change of what should be in force
        self.earlier = 0  # the last number that was given out before this run
        self.highest = 0  # the last number that anything has now
        self._ended: set[str] = set()  # in this run
        self.on_end: Callable[[str], None] | None = None
        self.rule_of: Callable[[str], PolicyRule | None] = _no_rule  # a rule of the policy, by name

    def __len__(self) -> int:
        return len(self.by_id)

    def add(self, decision: InForce) -> None:
        """A decision that stands from now on, with the targets it has."""
        self.note(decision.id)
        self.by_id[decision.id] = decision
        self.by_target.setdefault(decision.target, decision)
        for held in decision.held.values():
            self._index(decision, held)
        self.version += 1

    def note(self, id_: str) -> None:
        """A number was given out."""
        self.highest = max(self.highest, int(id_[1:]))

    def hold(self, decision: InForce, target: Target, now_us: int, ends_us: int = 0) -> Held:
        """One more target, or one at rest that comes back. `ends_us` is when it ends whatever happens, 0 = by term."""
        before = decision.held.get(target)
        if before is not None and before.state == ACTIVE:
            return before
        level = 0
        if before is not None and before.state == RESTING:
            level = level_on_return(before.level, before.ended_us, now_us, self._ladder(decision))
        expires_us = ends_us
        if not ends_us and target.kind in FOUND_OUT and target != decision.target:
            expires_us = now_us + term_us(level, self._ladder(decision))
        held = Held(target, ACTIVE, now_us, expires_us, level)
        if before is not None:
            held.attempts = before.attempts
            held.last_attempt_us = before.last_attempt_us
        decision.take_back(target)
        decision.held[target] = held
        self._index(decision, held)
        self.version += 1
        return held

    def release(self, decision: InForce, target: Target, state: str, now_us: int) -> Held | None:
        """A target that is not held any more; None when it was not."""
        held = decision.held.get(target)
        if held is None or held.state != ACTIVE:
            return None
        held.state = state
        held.ended_us = now_us
        self._unindex(decision, target)
        decision.let_go(held)
        self.version += 1
        return held

    def end(self, decision: InForce) -> None:
        """A decision that stands no more."""
        self.by_id.pop(decision.id, None)
        if len(self._ended) < MAX_ENDED:
            self._ended.add(decision.id)
        if self.on_end is not None:
            self.on_end(decision.id)
        if self.by_target.get(decision.target) is decision:
            del self.by_target[decision.target]
        for target in decision.held:
            self._unindex(decision, target)
        self.version += 1

    def had(self, id_: str) -> bool:
        """Whether a decision of this id stands, or did."""
        number = id_[1:]
        earlier = number.isascii() and number.isdigit() and len(number) < 19 and int(number) <= self.earlier
        return earlier or id_ in self.by_id or id_ in self._ended

    def about(self, match: Match, name: str = "", address: bytes = b"") -> InForce | None:
        """The decision about what matches so; where a rule narrowed it, about `name` or `address` alone."""
        main = self.by_target.get(main_target(match))
        host = self.by_target.get(Target("host", name)) if name else None
        return main or host or (self.by_target.get(Target("address", render_address(address))) if address else None)

    def holders(self, target: Target) -> list[InForce]:
        """The decisions that hold an address or pair now, oldest first."""
        return [self.by_id[id_] for id_ in self._holders.get(target, ()) if id_ in self.by_id]

    def reached_by(self, address: str) -> tuple[InForce, Target] | None:
        """A decision that holds an address now, and its target that does: for everybody before one client's way."""
        for_all = Target("address", address)
        way = next((one for one in self._holders if one.kind == "pair" and one.value.endswith(f">{address}")), for_all)
        return next(((one, target) for target in (for_all, way) for one in self.holders(target)), None)

    def tried(self, decision: InForce, client: Target, address: Target, count: int, ts_us: int) -> Held | None:
        """Somebody tried an address that a decision holds, as `client` (the pair) or for everybody: its term is
        renewed when it is over."""
        held = decision.held.get(address)
        if held is None or held.state != ACTIVE:
            held = decision.held.get(client)
        if held is None:
            return None
        held.tried = True
        held.attempts += count
        held.last_attempt_us = max(held.last_attempt_us, ts_us)
        return held

    def due(self, now_us: int) -> Iterator[tuple[InForce, Held, bool]]:
        """(decision, target, whether it goes on) of every target whose term is over. Those that go on have their next
        term already; the others are at rest, or, of what a person set a time for, done with."""
        while self._due and self._due[0][0] <= now_us:
            due_us, _, id_, target = heappop(self._due)
            decision = self.by_id.get(id_)
            held = decision.held.get(target) if decision is not None else None
            if decision is None or held is None or held.state != ACTIVE or held.expires_us != due_us:
                continue
            ladder_s = self._ladder(decision)
            level = level_when_due(held.level, held.tried, ladder_s) if self._has_term(decision, held) else None
            if level is None:
                self.release(decision, target, RESTING, now_us)
                yield decision, held, False
                continue
            held.level = level
            held.tried = False
            held.expires_us = now_us + term_us(level, ladder_s)
            self._schedule(decision, held)
            self.version += 1
            yield decision, held, True

    def reschedule(self, decision: InForce) -> None:
        """Deadlines of a decision were changed."""
        for held in decision.held.values():
            if held.state == ACTIVE and held.expires_us:
                self._schedule(decision, held)
        self.version += 1

    def shift(self, delta_us: int) -> None:
        """The clock was set: every deadline moves along."""
        for decision in self.by_id.values():
            decision.waits_since_us += delta_us
            decision.began_us += delta_us
            for held in decision.held.values():
                held.last_attempt_us += delta_us if held.last_attempt_us else 0
                held.added_us += delta_us
                held.expires_us += delta_us if held.expires_us else 0
                held.ended_us += delta_us if held.ended_us else 0
        self._due = [(due_us + delta_us, order, id_, target) for due_us, order, id_, target in self._due]
        self.version += 1

    def rules(self, mode: str, is_apart: Callable[[InForce, Target], bool] | None = None) -> list[Rule]:
        """What every adapter should hold in this mode: nothing in monitor; else what is active, without what is kept
        apart."""
        if mode == "monitor":
            return []
        found: dict[Target, Rule] = {}
        for decision in self.by_id.values():
            if decision.state != ACTIVE:
                continue
            for target, held in decision.held.items():
                if held.state != ACTIVE or (is_apart is not None and is_apart(decision, target)):
                    continue
                other = found.get(target)
                if other is None or (other.expires_us and (not held.expires_us or held.expires_us > other.expires_us)):
                    found[target] = Rule(target, decision.id, held.expires_us)
        return list(found.values())

    def count(self, kind: str) -> int:
        """How many targets of a kind are held now."""
        return sum(
            held.state == ACTIVE and target.kind == kind
            for decision in self.by_id.values()
            if decision.state == ACTIVE
            for target, held in decision.held.items()
        )

    def isolated(self) -> dict[str, str]:
        """Isolated clients, each with its decision: an isolated device has several addresses."""
        return {
            target.value: d.id
            for d in self.by_id.values()
            if d.target.kind == CLIENT and d.state == ACTIVE
            for target, held in d.held.items()
            if target.kind == CLIENT and held.state == ACTIVE
        }

    def cut(self) -> dict[str, list[str]]:
        """Networks that are cut off, by decision."""
        return {
            d.id: [t.value for t, held in d.held.items() if t.kind == SEGMENT and held.state == ACTIVE]
            for d in self.by_id.values()
            if d.state == ACTIVE and d.target.kind == SEGMENT
        }

    def _ladder(self, decision: InForce) -> tuple[int, ...]:
        rule = self.rule_of(decision.rule)
        return rule.ladder_s if rule is not None else ()

    def _has_term(self, decision: InForce, held: Held) -> bool:
        return held.target.kind in FOUND_OUT and held.target != decision.target

    def _index(self, decision: InForce, held: Held) -> None:
        if held.state != ACTIVE:
            return
        if held.target.kind in FOUND_OUT:
            ids = self._holders.setdefault(held.target, [])
            if decision.id not in ids:
                ids.append(decision.id)
        if held.expires_us:
            self._schedule(decision, held)

    def _unindex(self, decision: InForce, target: Target) -> None:
        ids = self._holders.get(target)
        if ids is not None and decision.id in ids:
            ids.remove(decision.id)
            if not ids:
                del self._holders[target]

    def _schedule(self, decision: InForce, held: Held) -> None:
        self._order += 1
        heappush(self._due, (held.expires_us, self._order, decision.id, held.target))


def from_row(row: DecisionRow) -> InForce:
    """A decision as the ledger has it."""
    main = row.targets[0].target
    decision = InForce(
        row.id, main, row.match, row.state, row.mode, row.author, row.created_us, row.reason, row.rule, row.evidence,
        row.client, row.name, row.campaign, action=row.action, waits_since_us=row.created_us,
    )  # fmt: skip
    for one in row.targets:
        ended_us = one.renewed_us if one.state != ACTIVE else 0
        held = decision.held[one.target] = Held(
            one.target, one.state, one.added_us, one.expires_us, one.level, ended_us,
            one.last_attempt_us > one.renewed_us, one.attempts, one.last_attempt_us, one.withdrawn_by,
        )  # fmt: skip
        if held.state in MAX_RELEASED:
            decision.let_go(held)
    return decision


def _no_rule(name: str) -> PolicyRule | None:
    """No policy is known."""
    return None
