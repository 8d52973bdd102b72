"""The conditions of a policy's rules, and the facts of its examples, from YAML nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import yaml

from egressd.config.document import Reader
from egressd.detect.rules import (
    DAY_MINUTES,
    DAYS,
    FACTS,
    FLAG,
    NUMBER,
    TIME,
    UNKNOWN,
    UTC_NAME,
    Condition,
    Facts,
    Rules,
)
from egressd.intel.lines import Word, Wrong, parse_time, show

MAX_WORDS: Final = 200
BELOW_CONFIDENCE: Final = "block_confidence"  # as a number: the option policy.block_confidence
NONE: Final = "none"  # as a segment: outside every one

_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_DAY: Final = re.compile(f"({'|'.join(DAYS)})(?:-({'|'.join(DAYS)}))?")


class Known(NamedTuple):
    """What a policy can speak of: the site's segments and tags, and the option `policy.block_confidence`."""

    segments: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    block_confidence: int = 50


class ConditionReader:
    """Reads what a policy says of facts."""

    def __init__(self, reader: Reader, known: Known) -> None:
        self.reader = reader
        self.known = known

    def parts(self, node: yaml.Node, key: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        """The values of a mapping, by key, of those that are known."""
        parts: dict[str, yaml.Node] = {}
        for name, key_node, value in self.reader.entries(node, key):
            if name in known:
                parts[name] = value
            else:
                self.reader.wrong(key_node, f"{key}: {show(name)}", "unknown key", "known are " + ", ".join(known))
        return parts

    def read(self, node: yaml.Node, path: str) -> tuple[Condition, ...]:
        """The conditions of a rule, in order."""
        found: list[Condition] = []
        for fact, key_node, value in self.reader.entries(node, path):
            if fact not in FACTS:
                self.reader.wrong(key_node, f"{path}: {show(fact)}", "unknown condition", "known are " + _listed(FACTS))
                continue
            condition = self._condition(fact, value, f"{path}.{fact}")
            if condition is not None:
                found.append(condition)
        return tuple(found)

    def _condition(self, fact: str, node: yaml.Node, path: str) -> Condition | None:
        kind = FACTS[fact].kind
        if kind == NUMBER:
            span = self._span(fact, node, path)
            return Condition(fact, (span,)) if span is not None else None
        if kind == FLAG:
            flag = self.reader.flag(node, path)
            return Condition(fact, ((int(flag), int(flag)),)) if flag is not None else None
        if kind == TIME:
            return self._time(node, path)
        words = self._words(fact, node, path)
        return Condition(fact, words=words) if words else None

    def _words(self, fact: str, node: yaml.Node, path: str) -> tuple[str, ...]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes or len(nodes) > MAX_WORDS:
            self.reader.wrong(node, path, f"needs 1 to {MAX_WORDS} words", "write one, or [one, two]")
            return ()
        found: list[str] = []
        known = FACTS[fact].known
        for one in nodes:
            word = self.reader.choice(one, path, known) if known else self.reader.text(one, path)
            if word is None:
                continue
            if fact == "segment":
                word = "" if word == NONE else self._of_site(one, path, word, "segment", self.known.segments)
            elif fact == "tag":
                word = self._of_site(one, path, word, "tag", self.known.tags)
            elif fact == "threat":
                word = word.lower()
            if word is not None:
                found.append(word)
        return tuple(found)

    def _of_site(self, node: yaml.Node, path: str, word: str, what: str, known: tuple[str, ...]) -> str | None:
        if word in known:
            return word
        advice = f"{what}s are {', '.join(known)}" if known else f"name it under {what}s: in the configuration"
        self.reader.wrong(node, path, f"there is no {what} {show(word)}", advice)
        return None

    def _span(self, fact: str, node: yaml.Node, path: str) -> tuple[int, int] | None:
        """`70`, or min, max, above and below."""
        low, high = FACTS[fact].low, FACTS[fact].high
        if not isinstance(node, yaml.MappingNode):
            number = self._bound(node, path, low, high)
            return (number, number) if number is not None else None
        first, last = low, high
        wrong = False
        for name, bound in self.parts(node, path, ("min", "max", "above", "below")).items():
            number = self._bound(bound, f"{path}.{name}", low, high)
            if number is None:
                wrong = True
            elif name in ("min", "above"):
                first = max(first, number + (name == "above"))
            else:
                last = min(last, number - (name == "below"))
        if wrong:
            return None
        if first > last and self.known.block_confidence == 0 and _names_option(node):
            return UNKNOWN, UNKNOWN  # the option is off: the rule rests, and that is no mistake of the file
        if first > last:
            self.reader.wrong(node, path, "no number satisfies it", "write a smaller min or a larger max")
            return None
        return first, last

    def _bound(self, node: yaml.Node, path: str, low: int, high: int) -> int | None:
        if path.partition(".")[2].startswith("confidence") and isinstance(node, yaml.ScalarNode):
            if node.value == BELOW_CONFIDENCE:
                return self.known.block_confidence
        return self.reader.number(node, path, low, high)

    def _time(self, node: yaml.Node, path: str) -> Condition | None:
        """Hours and days of the week, in a zone."""
        before = len(self.reader.problems)
        parts = self.parts(node, path, ("hours", "days", "zone"))
        zone = (self.reader.text(parts["zone"], f"{path}.zone") or UTC_NAME) if "zone" in parts else UTC_NAME
        if zone != UTC_NAME and not _is_zone(zone):
            self.reader.wrong(parts["zone"], f"{path}.zone", f"unknown time zone {show(zone)}", "write Europe/Berlin")
        days = self._days(parts["days"], f"{path}.days") if "days" in parts else list(range(7))
        first, last = 0, DAY_MINUTES
        if "hours" in parts:
            text = self.reader.text(parts["hours"], f"{path}.hours") or ""
            found = _HOURS.fullmatch(text)
            if found is None:
                self.reader.wrong(parts["hours"], f"{path}.hours", f'not hours: "{show(text)}"', "write 08:00-18:00")
            else:
                first, last = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
                if last > DAY_MINUTES or first == last:
                    self.reader.wrong(parts["hours"], f"{path}.hours", "holds no time", "write 08:00-18:00")
        if len(self.reader.problems) > before:
            return None
        spans: list[tuple[int, int]] = []
        for day in days:
            at = day * DAY_MINUTES
            if first < last:
                spans.append((at + first, at + last - 1))
            else:  # over midnight: the night belongs to the day on which it begins
                spans.append((at + first, at + DAY_MINUTES - 1))
                after = (day + 1) % 7 * DAY_MINUTES
                if last:
                    spans.append((after, after + last - 1))
        return Condition("time", tuple(sorted(spans)), (zone,))

    def _days(self, node: yaml.Node, path: str) -> list[int]:
        found: set[int] = set()
        for one in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            text = self.reader.text(one, path) or ""
            named = _DAY.fullmatch(text)
            if named is None:
                self.reader.wrong(one, path, f'not a day: "{show(text)}"', "write mon, or mon-fri")
                continue
            first, last = DAYS.index(named[1]), DAYS.index(named[2] or named[1])
            found.update((first + n) % 7 for n in range((last - first) % 7 + 1))
        return sorted(found)

    # -- facts

    def given(self, node: yaml.Node, path: str, scores: tuple[tuple[str, int], ...]) -> Facts:
        """The facts of an example; what is not said is as it usually is."""
        values: dict[str, Any] = {}
        for fact, key_node, value in self.reader.entries(node, path):
            key = f"{path}.{show(fact)}"
            if fact == "time":
                values["ts_s"] = self._moment(value, key)
            elif fact not in FACTS:
                self.reader.wrong(key_node, key, "unknown fact", "known are " + _listed(FACTS))
            elif FACTS[fact].kind == NUMBER:
                values[fact] = self.reader.number(value, key, FACTS[fact].low, FACTS[fact].high)
            elif FACTS[fact].kind == FLAG:
                values[fact] = self.reader.flag(value, key)
            else:
                words = self._words(fact, value, key)
                if fact in ("tag", "detector"):
                    values[fact + "s"] = words
                elif len(words) == 1:
                    values[fact] = words[0]
                elif words:
                    self.reader.wrong(value, key, "is one word", "write one")
        if "evidence" not in values and values.get("match") == "address":
            values["evidence"] = "E0"
        if "source_score" not in values and values.get("source"):
            values["source_score"] = Rules((), scores).score_of(values["source"])
        return Facts(**{name: value for name, value in values.items() if value is not None})

    def _moment(self, node: yaml.Node, path: str) -> int | None:
        if isinstance(node, yaml.ScalarNode):
            try:
                return parse_time("time", Word(node.value, 1))
            except Wrong:
                pass
        self.reader.wrong(node, path, "not a time", "write 2030-01-31T08:30Z")
        return None


def _names_option(node: yaml.MappingNode) -> bool:
    return any(isinstance(one, yaml.ScalarNode) and one.value == BELOW_CONFIDENCE for _, one in node.value)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # none such, no name of one, or a folder of them
        return False
    return True


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
