"""What an adapter holds, remembered between readings: reading a hundred thousand elements takes a second, and a new
block must not wait for it. Used in the adapter's thread only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from egressd.enforce.adapter import Existing, Failure, Plan, Rule
from egressd.model import Target
from egressd.units import SECOND_US

_INTERVALS: Final = ("network", "segment")


class Mirror:
    """The last reading, kept up to date with what was written since. Times are epoch microseconds."""

    def __init__(self) -> None:
        self._held: dict[Target, Existing] = {}
        self._read_us = 0
        self._unknown_since_us: dict[str, int] = {}  # decision ids that the ledger did not know -> first seen
        self._intervals: frozenset[Target] = frozenset()

    def take(self, existing: Iterable[Existing], now_us: int) -> None:
        """A whole reading."""
        self._held = {element.target: element for element in existing}
        self._read_us = now_us

    def held(self) -> Collection[Existing]:
        """What is there; its remaining times are as of `age_s` ago."""
        return self._held.values()

    def age_s(self, now_us: int) -> float:
        """How long ago the reading was."""
        return (now_us - self._read_us) / SECOND_US

    def note(self, target: Target, decision_id: str, remaining_s: float, now_us: int) -> None:
        """Somebody of ours wrote this beside us."""
        if target not in self._held:
            self._held[target] = Existing(target, decision_id, remaining_s + self.age_s(now_us), 0, 0)

    def applied(self, plan: Plan, failures: Iterable[Failure], now_us: int) -> None:
        """A plan was made, but for its failures."""
        failed = {failure.rule.target for failure in failures}
        for element in plan.remove:
            self._held.pop(element.target, None)
        for rule in (*plan.add, *plan.refresh):
            if rule.target not in failed:
                remaining_s = (rule.expires_us - now_us) / SECOND_US + self.age_s(now_us) if rule.expires_us else 0.0
                self._held[rule.target] = Existing(rule.target, rule.decision_id, remaining_s, 0, 0)

    def intervals_changed(self, rules: Iterable[Rule], now_us: int) -> bool:
        """Whether a network is wanted no more. Networks hide one another (covers.py), so what is there must be read
        again when one goes."""
        intervals = frozenset(
            rule.target for rule in rules if rule.target.kind in _INTERVALS and not 0 < rule.expires_us <= now_us
        )
        changed = not self._intervals <= intervals
        self._intervals = intervals
        return changed

    def spare(self, plan: Plan, is_known: Callable[[Existing], bool], young_s: float, now_us: int) -> Plan:
        """The plan without removals of elements whose decision nobody knows yet: the fast lane was quicker than the
        ledger. Once they have been there for `young_s` they are removed like everything that nobody ordered."""
        remove: list[Existing] = []
        unknown: dict[str, int] = {}
        for element in plan.remove:
            decision_id = element.decision_id
            if decision_id and not is_known(element):
                since_us = unknown.setdefault(decision_id, self._unknown_since_us.get(decision_id, now_us))
                if now_us - since_us < young_s * SECOND_US:
                    continue
            remove.append(element)
        self._unknown_since_us = unknown
        return plan if len(remove) == len(plan.remove) else plan._replace(remove=tuple(remove))
