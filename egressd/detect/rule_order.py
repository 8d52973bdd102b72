"""Rules that can never decide anything: found from the rules alone, without facts.

Sound, not complete: what is told here is never chosen, whatever the facts; a rule that only several earlier ones
together leave nothing to is not found.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from egressd.detect.rules import (
    FACTS,
    FLAG,
    LISTED,
    NUMBER,
    TIME,
    WORD,
    Condition,
    Rule,
    told,
)
from egressd.model import BEHAVIOUR

_MAGIC = frozenset("*?[")


class Dead(NamedTuple):
    """A rule that never decides, and why."""

    rule: Rule
    reason: str


def dead_rules(rules: tuple[Rule, ...]) -> list[Dead]:
    """Every rule that can never be chosen, in order."""
    found: list[Dead] = []
    alive: list[Rule] = []
    for rule in rules:
        reason = _contradiction(rule)
        taker = next((one for one in alive if _covers(one, rule)), None) if not reason else None
        if taker is not None:
            reason = f"rule {taker.name} on line {taker.line} takes everything that it could decide"
        if reason:
            found.append(Dead(rule, reason))
        else:
            alive.append(rule)
    return found


def _contradiction(rule: Rule) -> str:
    """Why no facts can satisfy a rule; "" when some may."""
    levels = next((set(one.words) for one in rule.conditions if one.fact == "match"), None)
    for one in rule.conditions:
        if levels is None or not levels:
            continue
        if one.fact == "detector" and BEHAVIOUR not in levels:
            return f"{told(one)} is only of match behaviour"
        if one.fact == "score" and BEHAVIOUR not in levels and not _reaches(one, 0):
            return f"{told(one)} is only of match behaviour"
        if one.fact == "evidence" and levels == {"address"} and "E0" not in one.words:
            return "match address has evidence E0: the list line alone"
        if one.fact == "evidence" and not levels & {"address"} and levels <= set(LISTED) and one.words == ("E0",):
            return "evidence E0 is only of match address"
    for one in rule.conditions:
        if FACTS[one.fact].kind in (NUMBER, FLAG, TIME) and not one.spans:
            return f"nothing satisfies its condition on {one.fact}"
    return ""


def _reaches(condition: Condition, number: int) -> bool:
    return any(low <= number <= high for low, high in condition.spans)


def _covers(earlier: Rule, later: Rule) -> bool:
    """Whether every sighting that `later` applies to, `earlier` applies to as well."""
    return all(_follows(condition, later) for condition in earlier.conditions)


def _follows(wanted: Condition, rule: Rule) -> bool:
    """Whether a condition holds wherever a rule applies."""
    fact = FACTS[wanted.fact]
    if fact.kind in (NUMBER, FLAG) and wanted.fact != "source_score" and _spans_hold(wanted.spans, fact.low, fact.high):
        return True  # it asks for nothing
    return any(_implies(one, wanted) for one in rule.conditions if one.fact == wanted.fact)


def _implies(one: Condition, wanted: Condition) -> bool:
    kind = FACTS[one.fact].kind
    if kind == TIME and one.words != wanted.words:
        return False  # of another zone: not compared
    if kind in (NUMBER, FLAG, TIME):
        return all(_spans_hold(wanted.spans, low, high) for low, high in one.spans)
    if kind == WORD and one.fact == "match" and not one.words:
        return False
    return all(_word_within(word, wanted.words) for word in one.words)


def _spans_hold(spans: tuple[tuple[int, int], ...], low: int, high: int) -> bool:
    """Whether every number from `low` to `high` lies in the spans."""
    at = low
    for first, last in sorted(spans):
        if first > at:
            return False
        at = max(at, last + 1)
        if at > high:
            return True
    return at > high


def _word_within(word: str, words: tuple[str, ...]) -> bool:
    """Whether everything that `word` fits, one of `words` fits too."""
    if word in words or "*" in words:
        return True
    return not _MAGIC.intersection(word) and any(fnmatchcase(word, one) for one in words)
