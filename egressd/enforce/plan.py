"""What to change in an adapter: the difference between what should be held and what is, as values.

Pure: no clock, no I/O, the same plan for the same input. What a plan may change unasked is bounded by `limit_plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from egressd.enforce.adapter import CLIENT, SEGMENT, Capabilities, Existing, Plan, Rule
from egressd.model import Target
from egressd.units import SECOND_US

RENEW_BELOW_S: Final = 12 * 3600.0  # half of the longest time-out that an adapter is given
SLACK_S: Final = 2.0  # differences below this are the time that reading and writing took
LAPSING_S: Final = 5.0  # what ends by itself this soon is no change that anybody needs to be asked about
FOREVER_US: Final = 1 << 62

# When not everything fits, what contains an infected machine of ours comes first, then what protects everybody.
_ORDER: Final = {SEGMENT: 0, CLIENT: 1, "address": 2, "network": 3, "registered_domain": 4, "host": 5, "exact": 6}
_LAST: Final = 9


class PlanLimits(NamedTuple):
    """How much one plan may change without being asked about: removals over both `remove_most` and `remove_share` of
    what is held, or more than `add_most` additions."""

    remove_most: int = 64
    remove_share: float = 0.3
    add_most: int = 20_000


def make_plan(
    desired: Iterable[Rule],
    existing: Iterable[Existing],
    capabilities: Capabilities,
    now_us: int,
    *,
    renew_below_s: float = RENEW_BELOW_S,
    aged_s: float = 0.0,
) -> Plan:
    """The plan that makes `existing` into `desired`.

    One target is held once, for the decision that wants it longest. `aged_s` is how long ago `existing` was read.
    """
    wanted, unsupported = _wanted(desired, capabilities, now_us)
    held: dict[Target, Existing] = {}
    for element in existing:
        if not _lapsed(element, aged_s):
            held[element.target] = element
    no_room: list[Rule] = []
    if len(wanted) > capabilities.max_entries:
        ranked = sorted(wanted.values(), key=lambda rules: _rank(rules[0], held))
        no_room = [rules[0] for rules in ranked[capabilities.max_entries :]]
        for rule in no_room:
            del wanted[rule.target]
    add: list[Rule] = []
    refresh: list[Rule] = []
    for target, rules in wanted.items():
        there = held.pop(target, None)
        if there is None:
            add.append(rules[0])
        elif _is_stale(rules, there, now_us, renew_below_s, aged_s):
            refresh.append(rules[0])
    remove = sorted(held.values(), key=lambda element: element.target)
    return Plan(
        tuple(sorted(add, key=_order)),
        tuple(remove),
        tuple(sorted(refresh, key=_order)),
        tuple(sorted(unsupported, key=_order)),
        tuple(no_room),
        len(wanted) - len(add) + len(remove),
    )


def limit_plan(plan: Plan, limits: PlanLimits, fresh: int | None = None) -> tuple[Plan, str]:
    """What of a plan may be made unasked, and why the rest may not, "" when all may. `fresh` is how many of its
    additions were never in force before (all, when not told): putting back what somebody else took away needs no
    permission. Too many removals do not hold up additions, nor the other way round: enforcement goes on while a person
    thinks."""
    reasons: list[str] = []
    removals = sum(1 for element in plan.remove if not 0 < element.remaining_s <= LAPSING_S)
    allowed = max(limits.remove_most, int(limits.remove_share * plan.held))
    if removals > allowed:
        reasons.append(f"would lift {removals} of {plan.held} blocks at once; {allowed} may go unasked")
        plan = plan._replace(remove=())
    additions = len(plan.add) if fresh is None else fresh
    if additions > limits.add_most:
        reasons.append(f"would add {additions} blocks at once; {limits.add_most} may be added unasked")
        plan = plan._replace(add=())
    return plan, "; ".join(reasons)


def _wanted(
    desired: Iterable[Rule], capabilities: Capabilities, now_us: int
) -> tuple[dict[Target, list[Rule]], list[Rule]]:
    """Rules in force by target, the longest first, and those of kinds that the adapter cannot hold."""
    wanted: dict[Target, list[Rule]] = {}
    unsupported: list[Rule] = []
    for rule in desired:
        if rule.expires_us and rule.expires_us <= now_us:
            continue
        if rule.target.kind not in capabilities.kinds:
            unsupported.append(rule)
            continue
        rules = wanted.setdefault(rule.target, [])
        rules.append(rule)
        if len(rules) > 1:
            rules.sort(key=lambda rule: (-(rule.expires_us or FOREVER_US), _number(rule.decision_id)))
    return wanted, unsupported


def _lapsed(element: Existing, aged_s: float) -> bool:
    return 0 < element.remaining_s <= aged_s


def _is_stale(rules: list[Rule], there: Existing, now_us: int, renew_below_s: float, aged_s: float) -> bool:
    """Whether what is held must be written again: for another decision, or for too short or too long a time."""
    if all(rule.decision_id != there.decision_id for rule in rules):
        return True
    expires_us = rules[0].expires_us
    wanted_s = (expires_us - now_us) / SECOND_US if expires_us else float("inf")
    if not there.remaining_s:
        return expires_us != 0  # it would never lapse, but should
    remaining_s = there.remaining_s - aged_s
    if remaining_s > wanted_s + SLACK_S:
        return True
    return remaining_s < renew_below_s and wanted_s > remaining_s + SLACK_S


def _number(decision_id: str) -> tuple[int, str]:
    """Ids count up: D9 stands before D10."""
    return len(decision_id), decision_id


def _order(rule: Rule) -> tuple[int, tuple[int, str], Target]:
    return _ORDER.get(rule.target.kind, _LAST), _number(rule.decision_id), rule.target


def _rank(rule: Rule, held: dict[Target, Existing]) -> tuple[int, bool, int, tuple[int, str], Target]:
    """Who gets a place when there are too few: by kind, what is in force before what is new, what lasts longest."""
    order, number, target = _order(rule)
    return order, target not in held, -(rule.expires_us or FOREVER_US), number, target
