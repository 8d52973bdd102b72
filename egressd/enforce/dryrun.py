"""The dry-run adapter: holds rules in memory, by the same contract as the kernel's. For the modes that only watch, for
replay, and for tests of everything above it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from egressd.enforce.adapter import Capabilities, Existing, Failure, Plan, Rule
from egressd.enforce.elements import SETS, Refused, check_id
from egressd.enforce.shield import Protects, Shield
from egressd.model import Target
from egressd.units import DAY_S, SECOND_US

_NAMES: Final = ("registered_domain", "host", "exact", "url")


class DryRunAdapter:
    """Rules in memory; what has a time-out lapses when it is read after it."""

    name: str = "dryrun"

    def __init__(
        self,
        protected: Protects,
        now_us: Callable[[], int],
        *,
        spare: Iterable[tuple[bytes, int]] = (),
        max_entries: int = 1_000_000,
        max_ttl_s: int = DAY_S,
        kinds: Iterable[str] = (*SETS, *_NAMES),
    ) -> None:
        """`kinds` are the kinds of target that it plays to support."""
        self.capabilities: Capabilities = Capabilities(frozenset(kinds), True, max_entries)
        self._shield = Shield(protected, spare)
        self._spare = tuple(spare)
        self._now_us = now_us
        self._max_ttl_us = max_ttl_s * SECOND_US
        self._held: dict[Target, tuple[str, int]] = {}  # decision and when it lapses
        self._generation = 1

    def install(self) -> None:
        """There is nothing to make."""

    def generation(self) -> int:
        """Counts changes."""
        return self._generation

    def populate(self) -> list[Existing]:
        """What has not lapsed."""
        now_us = self._now_us()
        self._held = {target: held for target, held in self._held.items() if held[1] > now_us}
        return [
            Existing(target, decision_id, (lapses_us - now_us) / SECOND_US, 0, 0)
            for target, (decision_id, lapses_us) in self._held.items()
        ]

    def apply(self, plan: Plan, now_us: int) -> list[Failure]:
        """Make the plan's changes."""
        failures: list[Failure] = []
        for rule in (*plan.add, *plan.refresh):
            reason = self._refusal(rule)
            if reason:
                failures.append(Failure(rule, reason))
                continue
            lapses_us = rule.expires_us or now_us + self._max_ttl_us
            lapses_us = max(now_us + SECOND_US, min(lapses_us, now_us + self._max_ttl_us))
            self._held[rule.target] = (rule.decision_id, lapses_us)
        for element in plan.remove:
            self._held.pop(element.target, None)
        if not plan.is_empty():
            self._generation += 1
        return failures

    def close(self) -> None:
        """Nothing to let go of."""

    def set_protected(self, networks: Iterable[tuple[bytes, int]], protected: Protects) -> list[Existing]:
        """Ask this one from now on; returns what is held no more because it became protected."""
        self._shield = Shield(protected, self._spare)
        wrong = [held for held in self.populate() if held.target.kind in SETS and self._shield.refusal(held.target)]
        for held in wrong:
            del self._held[held.target]
        return wrong

    def _refusal(self, rule: Rule) -> str:
        try:
            check_id(rule.decision_id)
        except Refused as refused:
            return str(refused)
        return self._shield.refusal(rule.target) if rule.target.kind in SETS else ""
