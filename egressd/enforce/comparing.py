"""A reconciler's part in the adapter's thread: read what is there, compare it with what should be, make the difference.

What was read is remembered, with what was done to it since, so that a new block does not wait for a whole reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from egressd.enforce.adapter import Adapter, EnforcementState, Existing, Failure, Plan, Rule
from egressd.enforce.collector import held_still
from egressd.enforce.mirror import Mirror
from egressd.enforce.plan import PlanLimits, limit_plan, make_plan
from egressd.enforce.reports import Reports
from egressd.model import Target

Pushed = tuple[Target, str, float]  # target, decision and for how many seconds: written by the fast lane


class Done(NamedTuple):
    """What one step did."""

    made: Plan
    failures: list[Failure]
    states: list[EnforcementState]
    question: str
    lost: int  # rules that were in force and had to be put back
    full: bool
    generation: int
    expiry_us: int
    took_s: float


class Comparing:
    """`step` is called in the adapter's thread, one at a time."""

    def __init__(
        self,
        adapter: Adapter,
        now_us: Callable[[], int],
        is_known: Callable[[str], bool],
        reported: Iterable[EnforcementState],
        limits: PlanLimits,
        *,
        renew_below_s: float,
        provisional_s: float,
    ) -> None:
        """See `Reconciler` and its settings."""
        self._adapter = adapter
        self._now_us = now_us
        self._is_known = is_known
        self._limits = limits
        self._renew_below_s = renew_below_s
        self._provisional_s = provisional_s
        self._reports = Reports(adapter.name, reported)
        self._mirror = Mirror()

    @property
    def counts(self) -> dict[str, int]:
        """How many rules are in each state."""
        return self._reports.counts

    def step(self, rules: list[Rule], pushed: Iterable[Pushed], *, full: bool, forced: bool) -> Done:
        """Read (`full`, or when it must be), compare, check the size of the change unless it is `forced`, make it.
        Raises what the adapter raises."""
        with held_still():
            return self._step(rules, pushed, full=full, forced=forced)

    def _step(self, rules: list[Rule], pushed: Iterable[Pushed], *, full: bool, forced: bool) -> Done:
        began = time.monotonic()
        now_us = self._now_us()
        full = self._mirror.intervals_changed(rules, now_us) or full
        if full:
            self._adapter.install()
            self._mirror.take(self._adapter.populate(), now_us)
        for target, decision_id, remaining_s in pushed:
            self._mirror.note(target, decision_id, remaining_s, now_us)
        plan = make_plan(
            rules,
            self._mirror.held(),
            self._adapter.capabilities,
            now_us,
            renew_below_s=self._renew_below_s,
            aged_s=self._mirror.age_s(now_us),
        )
        plan = self._mirror.spare(plan, self._is_ordered, self._provisional_s, now_us)
        lost = sum(map(self._reports.is_active, plan.add))
        made, question = (plan, "") if forced else limit_plan(plan, self._limits, len(plan.add) - lost)
        failures = [] if made.is_empty() else self._adapter.apply(made, now_us)
        self._mirror.applied(made, failures, now_us)
        states = self._reports.changes(rules, plan, made, failures, now_us)
        expiry_us = min((rule.expires_us for rule in rules if rule.expires_us > now_us), default=0)
        generation = self._adapter.generation()
        return Done(made, failures, states, question, lost, full, generation, expiry_us, time.monotonic() - began)

    def _is_ordered(self, element: Existing) -> bool:
        """Whether an element that is wished for no more was once: by us, or by a decision that the ledger knows."""
        return self._reports.knows(element.target, element.decision_id) or self._is_known(element.decision_id)
