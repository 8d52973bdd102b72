"""Which state each rule is in, and what of that the ledger has not heard yet. Used in the adapter's thread only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from egressd.enforce.adapter import (
    ACTIVE,
    FAILED,
    PENDING,
    REMOVED,
    UNSUPPORTED,
    EnforcementState,
    Failure,
    Plan,
    Rule,
)
from egressd.model import Target

_HELD_BACK: Final = "waits for a person: the change is too big to be made unasked"
_NO_ROOM: Final = "no room: the adapter holds as many as it can"


class Reports:
    """States by (target, decision)."""

    def __init__(self, adapter: str, reported: Iterable[EnforcementState] = ()) -> None:
        """`reported` are the states that the ledger has."""
        self._adapter = adapter
        self._told: dict[tuple[Target, str], tuple[str, str]] = {
            (state.target, state.decision_id): (state.state, state.detail)
            for state in reported
            if state.state != REMOVED
        }
        self.counts: dict[str, int] = dict(Counter(state for state, _ in self._told.values()))

    def is_active(self, rule: Rule) -> bool:
        """Whether the rule was in force as far as anybody was told."""
        told = self._told.get((rule.target, rule.decision_id))
        return told is not None and told[0] == ACTIVE

    def knows(self, target: Target, decision_id: str) -> bool:
        """Whether this decision wanted this target until now."""
        return (target, decision_id) in self._told

    def changes(
        self, rules: Iterable[Rule], plan: Plan, made: Plan, failures: Iterable[Failure], now_us: int
    ) -> list[EnforcementState]:
        """What changed: `plan` was wanted, `made` is what was tried of it."""
        special = _special(plan, made, failures)
        lingering = {element.target for element in plan.remove} - {element.target for element in made.remove}
        plain = (ACTIVE, "")
        told: dict[tuple[Target, str], tuple[str, str]] = {}
        changed: list[EnforcementState] = []
        before = self._told
        for target, decision_id, expires_us in rules:
            if 0 < expires_us <= now_us:
                continue
            key = (target, decision_id)
            state = special.get(target, plain)
            told[key] = state
            if before.pop(key, None) != state:
                changed.append(EnforcementState(target, decision_id, self._adapter, *state))
        for key, state in before.items():
            if key[0] in lingering:
                told[key] = state
            elif key not in told:
                changed.append(EnforcementState(*key, self._adapter, REMOVED, ""))
        self._told = told
        self.counts = dict(Counter(state for state, _ in told.values()))
        return changed


def _special(plan: Plan, made: Plan, failures: Iterable[Failure]) -> dict[Target, tuple[str, str]]:
    """The targets that are not simply in force."""
    special: dict[Target, tuple[str, str]] = {}
    for rule in plan.unsupported:
        special[rule.target] = (UNSUPPORTED, f"holds no {rule.target.kind} targets")
    for rule in plan.no_room:
        special[rule.target] = (FAILED, _NO_ROOM)
    if len(made.add) < len(plan.add):
        tried = {rule.target for rule in made.add}
        for rule in plan.add:
            if rule.target not in tried:
                special[rule.target] = (PENDING, _HELD_BACK)
    for failure in failures:
        special[failure.rule.target] = (FAILED, failure.reason)
    return special
