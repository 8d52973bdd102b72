"""A policy file's YAML text to rules and named examples, with every problem at its line and column (docs/policy.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import yaml

from egressd.config.document import Reader
from egressd.config.policy_conditions import ConditionReader, Known
from egressd.config.yaml_text import called, compose, is_null
from egressd.detect.rule_order import dead_rules
from egressd.detect.rules import (
    ADDRESS,
    ALERT,
    BLOCK,
    CLIENT,
    HOST,
    IGNORE,
    ISOLATE,
    LEVELS,
    LISTED,
    NAMES,
    OUTCOMES,
    PAIR,
    REGISTERED_DOMAIN,
    SCOPES,
    Condition,
    Facts,
    Rule,
    Rules,
)
from egressd.errors import ConfigError, Problem
from egressd.intel.lines import show
from egressd.model import BEHAVIOUR
from egressd.units import DAY_S

MAX_RULES: Final = 500  # each sighting asks them in order: a tenth of a millisecond
MAX_LADDER: Final = 8
MAX_TTL_S: Final = 366 * DAY_S
ONE_RULE: Final = "write rules: and at least one rule"

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_RULE_KEYS: Final = ("name", "why", "when", "then", "scope", "ttl", "escalation")
# Names of the checks that no rule can turn off, and of what the daemon itself decides.
_TAKEN: Final = frozenset(
    (
        *("protected", "never-block", "allow-destination", "budget", "shared", "guarded", "expired", "address", "pair"),
        *("unlisted", "kept", "no-rule", "rollback", "lapsed", "person", "share"),
    )
)


class Example(NamedTuple):
    """A named example kept beside a policy: facts in, expected outcome and (unless "") rule out."""

    name: str
    facts: Facts
    expect: str
    rule: str
    line: int
    column: int


class PolicyFile(NamedTuple):
    """A policy as it was read."""

    rules: Rules
    examples: tuple[Example, ...]


def parse_policy(text: str, source: str, known: Known) -> tuple[PolicyFile, list[Problem]]:
    """The policy, and all that is wrong with it in order of place. With problems it is not to be used. `source` is the
    file's name as shown."""
    reading = _Reading(Reader(source), known)
    root = compose(text, reading.reader.add)
    rules: tuple[Rule, ...] = ()
    if root is not None:
        rules = reading.policy(root)
    elif not reading.reader.problems:
        reading.reader.add(1, 1, "the policy is empty", ONE_RULE)
    reader = reading.reader
    if not reader.problems:
        for dead in dead_rules(rules):
            where = dead.rule.line, dead.rule.column
            reader.add(*where, f"rule {dead.rule.name} never decides: {dead.reason}", "take it out, or put it earlier")
    found = PolicyFile(Rules(rules, tuple(reading.scores), source), tuple(reading.examples))
    return found, sorted(reader.problems, key=lambda one: (one.line, one.column)) + reader.more


class _Reading:
    """Turns nodes into rules."""

    def __init__(self, reader: Reader, known: Known) -> None:
        self.reader = reader
        self.conditions = ConditionReader(reader, known)
        self.scores: list[tuple[str, int]] = []
        self.examples: list[Example] = []
        self._names: dict[str, int] = {}

    def policy(self, root: yaml.Node) -> tuple[Rule, ...]:
        """The whole file."""
        rules: list[Rule] = []
        had_rules = False
        for name, key_node, node in self.reader.entries(root, ""):
            if name == "rules":
                had_rules = True
                nodes = self._sequence(node, name, MAX_RULES)
                rules = [one for one in map(self._rule, nodes) if one is not None]
                if is_null(node) or (isinstance(node, yaml.SequenceNode) and not node.value):
                    self.reader.wrong(node, name, "there are no rules, and nothing would be blocked", ONE_RULE)
            elif name == "scores":
                self._scores(node)
            elif name == "examples":
                for item in self._sequence(node, name, MAX_RULES):
                    self._example(item)
            else:
                self.reader.wrong(key_node, show(name), "unknown key", "known keys are rules, scores, examples")
        if not had_rules:
            self.reader.wrong(root, "", "there are no rules", ONE_RULE)
        for one in self.examples:
            if one.rule and one.rule not in self._names and one.rule != "no-rule":
                what = f"example {one.name}: there is no rule {show(one.rule)}"
                self.reader.add(one.line, one.column, what, "rules are " + ", ".join(self._names))
        return tuple(rules)

    def _sequence(self, node: yaml.Node, key: str, most: int) -> Sequence[yaml.Node]:
        if is_null(node):
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self.reader.wrong(node, key, f"needs a list, not {called(node)}", "write a line with - for each")
            return ()
        if len(node.value) > most:
            self.reader.wrong(node, key, f"has more than {most} entries", "write fewer")
            return ()
        return list(node.value)

    def _scores(self, node: yaml.Node) -> None:
        for pattern, _, value in self.reader.entries(node, "scores"):
            score = self.reader.number(value, f"scores.{show(pattern)}", 0, 100)
            if score is not None:
                self.scores.append((pattern, score))

    # -- a rule

    def _rule(self, node: yaml.Node) -> Rule | None:
        before = len(self.reader.problems)
        parts = self.conditions.parts(node, "rule", _RULE_KEYS)
        name = self._name(parts.get("name"), node)
        path = f"rule {name}"
        conditions = self.conditions.read(parts["when"], f"{path}: when") if "when" in parts else ()
        outcome = ""
        if "then" in parts:
            outcome = self.reader.choice(parts["then"], f"{path}: then", OUTCOMES) or ""
        else:
            self.reader.wrong(node, path, "does not say what to do", "add then: and one of " + ", ".join(OUTCOMES))
        scope = (self.reader.choice(parts["scope"], f"{path}: scope", SCOPES) or "") if "scope" in parts else ""
        ttl_s = (self._duration(parts["ttl"], f"{path}: ttl") or 0) if "ttl" in parts else 0
        ladder = self._ladder(parts["escalation"], f"{path}: escalation") if "escalation" in parts else ()
        why = (self.reader.text(parts["why"], f"{path}: why") or "") if "why" in parts else ""
        if outcome:
            self._fits(parts, path, outcome, scope, conditions)
        if len(self.reader.problems) > before:
            return None
        mark = node.start_mark
        return Rule(name, conditions, outcome, scope, ttl_s, ladder, why, mark.line + 1, mark.column + 1)

    def _fits(
        self, parts: dict[str, yaml.Node], path: str, outcome: str, scope: str, conditions: tuple[Condition, ...]
    ) -> None:
        """What a rule may do with what it is about."""
        levels = next((one.words for one in conditions if one.fact == "match"), LEVELS)
        wrong = self.reader.wrong
        if outcome == BLOCK and BEHAVIOUR in levels:
            what = "would block for everybody by behaviour alone, which may alert, ask or isolate its client"
            advice = f"write match: [{', '.join(LISTED)}] under when:, or another outcome"
            wrong(parts["then"], path, what, advice)
        if outcome in (IGNORE, ALERT):
            for key in ("scope", "ttl", "escalation"):
                if key in parts:
                    wrong(parts[key], path, f"{key} has no meaning with then: {outcome}", "take it out")
            return
        if outcome == ISOLATE and scope not in ("", CLIENT):
            wrong(parts["scope"], path, f"isolate is about the client, not {scope}", "take scope out")
        if outcome == BLOCK and scope == CLIENT:
            wrong(parts["scope"], path, "to block everything of a client is isolate", "write then: isolate")
        if scope in (HOST, PAIR) and not set(levels) <= set(NAMES):
            wrong(parts["scope"], path, f"scope {scope} is of names", f"write match: [{', '.join(NAMES)}] under when:")
        if scope == ADDRESS and set(levels) != {"address"}:
            wrong(parts["scope"], path, "scope address is of listed addresses", "write match: address under when:")
        if scope == REGISTERED_DOMAIN and not set(levels) <= {*NAMES, BEHAVIOUR}:
            wrong(parts["scope"], path, "scope registered_domain is of names", "take scope out")
        if "escalation" in parts and (outcome == ISOLATE or scope == CLIENT):
            wrong(parts["escalation"], path, "escalation is of addresses that are found out", "take it out")

    def _name(self, node: yaml.Node | None, rule: yaml.Node) -> str:
        if node is None:
            self.reader.wrong(rule, "rule", "has no name", "add name: with a to z, 0 to 9 and hyphens")
            return "?"
        name = self.reader.text(node, "name")
        if name is None:
            return "?"
        if _NAME.fullmatch(name) is None:
            advice = "a to z, 0 to 9 and hyphens, at most 40, a letter first"
            self.reader.wrong(node, f"rule {show(name)}", "cannot be a rule's name", advice)
        elif name in _TAKEN:
            self.reader.wrong(node, f"rule {name}", "is a name of egressd's own", "choose another one")
        elif name in self._names:
            what = f"is the name of another rule, on line {self._names[name]}"
            self.reader.wrong(node, f"rule {name}", what, "choose another one")
        self._names.setdefault(name, rule.start_mark.line + 1)
        return show(name)

    def _ladder(self, node: yaml.Node, path: str) -> tuple[int, ...]:
        steps = [self._duration(one, path) for one in self._sequence(node, path, MAX_LADDER)]
        found = tuple(one for one in steps if one is not None)
        if list(found) != sorted(found):
            self.reader.wrong(node, path, "its steps get shorter", "write them from short to long")
        return found

    def _duration(self, node: yaml.Node, path: str) -> int | None:
        text = self.reader.text(node, path)
        if text is None:
            return None
        found = _DURATION.fullmatch(text)
        seconds = int(found[1]) * _UNITS[found[2]] if found is not None else 0
        if not 60 <= seconds <= MAX_TTL_S:
            self.reader.wrong(node, path, f'not a time from a minute to a year: "{show(text)}"', "write 10m, 2h or 7d")
            return None
        return seconds

    # -- examples

    def _example(self, node: yaml.Node) -> None:
        before = len(self.reader.problems)
        parts = self.conditions.parts(node, "example", ("name", "given", "expect", "rule"))
        name = (self.reader.text(parts["name"], "example: name") or "?") if "name" in parts else ""
        if not name:
            self.reader.wrong(node, "example", "has no name", "add name: and what it shows")
        path = f"example {show(name)}"
        facts = (
            self.conditions.given(parts["given"], f"{path}: given", tuple(self.scores)) if "given" in parts else Facts()
        )
        expect = self.reader.choice(parts["expect"], f"{path}: expect", OUTCOMES) if "expect" in parts else None
        if "expect" not in parts:
            self.reader.wrong(node, path, "expects nothing", "add expect: and an outcome")
        rule = (self.reader.text(parts["rule"], f"{path}: rule") or "") if "rule" in parts else ""
        if len(self.reader.problems) == before:
            mark = node.start_mark
            self.examples.append(Example(name, facts, expect or "", rule, mark.line + 1, mark.column + 1))


def check_examples(policy: PolicyFile) -> list[Problem]:
    """Every example that does not come out as it says."""
    problems: list[Problem] = []
    for one in policy.examples:
        rule = policy.rules.choose(one.facts)
        if rule.outcome != one.expect or one.rule not in ("", rule.name):
            wanted = one.expect + (f" by {one.rule}" if one.rule else "")
            what = f"example {one.name}: {rule.outcome} by {rule.name}, expected {wanted}"
            problems.append(
                Problem(policy.rules.origin, one.line, one.column, what, "correct the rules or the example")
            )
    return problems


def check_policy(text: str, source: str, known: Known) -> PolicyFile:
    """The policy in a text. Raises ConfigError with every problem."""
    found, problems = parse_policy(text, source, known)
    if problems:
        raise ConfigError(problems)
    return found
