"""A configuration's YAML text to a Config, with every problem at its line and column.

What a file can cost is bounded: its size (load.py), depth, nodes and aliases (yaml_text.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import yaml

from egressd.config import feed_options, sensor_options
from egressd.config.feed_options import MAX_FEEDS, FeedOptions
from egressd.config.forms import READERS, read_network, read_own_network
from egressd.config.kinds import (
    CHOICE,
    FLAG,
    LISTENING,
    MODES,
    NAMED,
    NUMBER,
    PATH,
    PATHS,
    SEGMENT_MODES,
    SEGMENTS,
    TAGS,
    TEXT,
    URL,
    Option,
)
from egressd.config.schema import Config, every_option, options
from egressd.config.sensor_options import MAX_SENSORS, SensorOptions
from egressd.config.yaml_text import DECIMAL, TAG, called, compose, is_null, number_read
from egressd.errors import Problem
from egressd.intel.lines import Wrong, show
from egressd.model import TAP

MAX_PROBLEMS: Final = 1_000  # more than anyone corrects at one go
MAX_TEXT: Final = 1_024  # characters of a value: a long path
MAX_SEGMENT_NAME: Final = 64  # characters; it stands in a column of reports

_GIVEN_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")  # a label of metrics, a file's name, a source
RESERVED: Final = ("operator", "demo", "other", TAP)


class _Named(NamedTuple):
    """Sections that an operator names: what one is called, its dataclass, the most there can be, and what finds out
    what is wrong with one as a whole."""

    called: str
    section: type[Any]
    most: int
    wrong_with: Callable[[Any], Iterator[tuple[str, str, str]]]


_NAMED: Final = {
    "feeds": _Named("feed", FeedOptions, MAX_FEEDS, feed_options.wrong_with),
    "sensors": _Named("sensor", SensorOptions, MAX_SENSORS, sensor_options.wrong_with),
}


def parse_config(text: str, source: str) -> tuple[Config, list[Problem]]:
    """The configuration, and all that is wrong with it in order of place. With problems it is not to be used: what was
    wrong has its default. `source` is the file's name as shown."""
    reader = Reader(source)
    root = compose(text, reader.add)
    config = Config(origin=source)
    if root is not None:
        values = reader.section(root, Config, "")
        reader.check_modes(values)
        config = Config(**values, origin=source, places=reader.places)
        reader.check_segments(config)
    return config, sorted(reader.problems, key=lambda problem: (problem.line, problem.column)) + reader.more


class Reader:
    """Turns nodes into values of the schema and collects what is wrong with them."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.places: dict[str, tuple[int, int]] = {}
        self.more: list[Problem] = []  # says that not all are in `problems`

    def add(self, line: int, column: int, what: str, advice: str = "") -> None:
        """Note a problem, or that there are too many."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(self.source, line, column, what, advice))
        elif not self.more:
            self.more.append(
                Problem(self.source, line, column, f"more than {MAX_PROBLEMS} problems", "the rest is not shown")
            )

    def wrong(self, node: yaml.Node, key: str, what: str, advice: str = "") -> None:
        """Note a problem with the value of `key`."""
        mark = node.start_mark
        self.add(mark.line + 1, mark.column + 1, f"{key}: {what}" if key else what, advice)

    def check_segments(self, config: Config) -> None:
        """Segments that are named elsewhere must be there."""
        for number, name in enumerate(config.volume.except_segments):
            if name not in config.segments:
                key = f"volume.except_segments[{number}]"
                line, column = self.places.get(key, (0, 0))
                self.add(line, column, f"{key}: there is no segment {show(name)}", "name it under segments:")

    # -- mappings

    def section(self, node: yaml.Node, cls: type[Any], prefix: str) -> dict[str, Any]:
        """Values by field of a section's dataclass; what is missing or wrong is left to its default."""
        known = {option.name: option for option in options(cls, prefix)}
        values: dict[str, Any] = {}
        for name, key_node, value_node in self.entries(node, prefix.rstrip(".")):
            option = known.get(name)
            if option is None:
                self._unknown(key_node, name, prefix, list(known))
                continue
            if option.kind == NAMED:
                values[name] = self._named(value_node, option)
                continue
            if option.section is not None:
                values[name] = option.section(**self.section(value_node, option.section, option.key + "."))
                continue
            value = self._value(value_node, option)
            if value is not None:
                values[name] = value
        return values

    def _named(self, node: yaml.Node, option: Option) -> dict[str, Any]:
        """Sections by the names that an operator gave them."""
        found: dict[str, Any] = {}
        kind = _NAMED[option.name]
        for name, key_node, value_node in self.entries(node, option.key):
            path = f"{option.key}.{show(name)}"
            if _GIVEN_NAME.fullmatch(name) is None or name in RESERVED:
                what, advice = (
                    f"cannot be a {kind.called}'s name",
                    "a to z, 0 to 9 and hyphens, at most 40, a letter first",
                )
                if name in RESERVED:
                    what, advice = "is a name of egressd's own", "choose another one"
                self.wrong(key_node, path, what, advice)
                continue
            if len(found) >= kind.most:
                self.wrong(key_node, path, f"is one {kind.called} too many; there can be {kind.most}", "take some out")
                break
            mark = key_node.start_mark
            self.places[path] = (mark.line + 1, mark.column + 1)
            before = len(self.problems)
            made = kind.section(**self.section(value_node, kind.section, path + "."))
            if len(self.problems) == before:
                for key, what, advice in kind.wrong_with(made):
                    line, column = self.places.get(f"{path}.{key}", self.places[path])
                    self.add(line, column, f"{path}.{key}: {what}", advice)
            found[name] = made
        return found

    def entries(self, node: yaml.Node, key: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """(key, its node, value's node) of a mapping, each key once. Nothing at all is an empty mapping."""
        if is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode) or node.tag != TAG + "map":
            example = "" if key else ", such as mode: monitor"
            self.wrong(node, key, f"needs keys with values, not {called(node)}", f"write key: value{example}")
            return []
        entries: list[tuple[str, yaml.Node, yaml.Node]] = []
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            name = self.text(key_node, f"{key}: key" if key else "key")
            if name is None:
                continue
            if name in first:
                path = f"{key}.{show(name)}" if key else show(name)
                self.wrong(key_node, path, f"is given twice, first on line {first[name]}", "keep one of them")
                continue
            first[name] = key_node.start_mark.line + 1
            entries.append((name, key_node, value_node))
        return entries

    def _unknown(self, node: yaml.Node, name: str, prefix: str, known: list[str]) -> None:
        near = get_close_matches(name[:MAX_SEGMENT_NAME].lower().replace("-", "_"), known, 1, 0.6)
        elsewhere = [option.key for option in every_option() if option.name == name]
        advice = "known keys are " + ", ".join(known)
        if near:
            advice = f'did you mean "{near[0]}"? {advice}'
        elif elsewhere:
            advice = f'did you mean "{elsewhere[0]}"? {advice}'
        self.wrong(node, prefix + show(name), "unknown key", advice)

    # -- values

    def _value(self, node: yaml.Node, option: Option) -> Any:
        """The option's value, None when it is wrong."""
        key, kind = option.key, option.kind
        if kind == NUMBER:
            return self.number(node, key, option.low, option.high)
        if kind == CHOICE:
            return self.choice(node, option.key, option.choices)
        if kind == FLAG:
            return self.flag(node, key)
        if kind in (PATH, LISTENING, TEXT, URL):
            return self._item(node, key, READERS[kind])
        if kind in (SEGMENTS, TAGS):
            return self._segments(node, key, shared=kind == TAGS)
        if kind == SEGMENT_MODES:
            return self._modes(node, key)
        return self._items(node, key, READERS[kind], empty_is_wrong=kind == PATHS)

    def _items(
        self, node: yaml.Node, key: str, read: Callable[[str], str], empty_is_wrong: bool = False
    ) -> tuple[str, ...] | None:
        if is_null(node):
            return ()
        if not isinstance(node, yaml.SequenceNode) or node.tag != TAG + "seq":
            self.wrong(node, key, f"needs a list, not {called(node)}", "write [one, two], or a line with - for each")
            return None
        found: list[str] = []
        for number, item in enumerate(node.value):
            value = self._item(item, f"{key}[{number}]", read)
            if value is None:
                continue
            if empty_is_wrong and not value:
                self.wrong(item, f"{key}[{number}]", "is empty", "write a path or take it out")
            found.append(value)
        return tuple(found)

    def _item(self, node: yaml.Node, key: str, read: Callable[[str], str]) -> str | None:
        """One text in its normal form; its place is kept."""
        text = self.text(node, key)
        if text is None:
            return None
        self.places[key] = (node.start_mark.line + 1, node.start_mark.column + 1)
        try:
            return read(text)
        except Wrong as wrong:
            self.wrong(node, key, wrong.what, wrong.advice)
            return None

    def _segments(self, node: yaml.Node, key: str, *, shared: bool) -> dict[str, tuple[str, ...]]:
        segments: dict[str, tuple[str, ...]] = {}
        owner: dict[str, str] = {}
        a_segment = "a segment's name"
        for name, key_node, value_node in self.entries(node, key):
            if not name.strip() or len(name) > MAX_SEGMENT_NAME:
                what = f"{'a tag' if shared else a_segment} has 1 to {MAX_SEGMENT_NAME} characters"
                self.wrong(key_node, f"{key}.{show(name)}", what, "write a short name")
                continue
            path = f"{key}.{name}"
            networks = self._items(value_node, path, read_network if shared else read_own_network) or ()
            for number, network in enumerate(networks):
                if not shared and owner.setdefault(network, name) != name:
                    what = f"{network} is in segment {owner[network]} already"
                    self.wrong(value_node, f"{path}[{number}]", what, "keep it in one of them")
            segments[name] = networks
        return segments

    def _modes(self, node: yaml.Node, key: str) -> dict[str, str]:
        """Modes by segment; whether there is such a segment is seen when all is read."""
        modes: dict[str, str] = {}
        for name, _, value_node in self.entries(node, key):
            mode = self.choice(value_node, f"{key}.{show(name)}", MODES)
            if mode is not None:
                modes[name] = mode
        return modes

    def check_modes(self, values: dict[str, Any]) -> None:
        """A mode of a segment that there is not would arm nothing."""
        segments = values.get("segments", {})
        for name in values.get("modes", {}):
            if name not in segments:
                line, column = self.places.get(f"modes.{show(name)}", (0, 0))
                advice = "segments are " + ", ".join(segments) if segments else "name it under segments:"
                self.add(line, column, f"modes.{show(name)}: there is no such segment", advice)

    def choice(self, node: yaml.Node, key: str, choices: tuple[str, ...]) -> str | None:
        """One of a few words; its place is kept."""
        text = self.text(node, key)
        self.places[key] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if text is None or text in choices:
            return text
        near = get_close_matches(text[:MAX_SEGMENT_NAME].lower(), choices, 1, 0.5)
        advice = f'did you mean "{near[0]}"? It is ' if near else "it is "
        self.wrong(node, key, f'cannot be "{show(text)}"', advice + "one of " + ", ".join(choices))
        return None

    def flag(self, node: yaml.Node, key: str) -> bool | None:
        """A truth value."""
        if not isinstance(node, yaml.ScalarNode) or node.tag != TAG + "bool":
            self.wrong(node, key, f"needs true or false, not {called(node)}", "write true or false, without quotes")
            return None
        return node.value.lower() in ("yes", "true", "on")

    def number(self, node: yaml.Node, key: str, low: int, high: int) -> int | None:
        """A whole number within bounds."""
        bounds = f"a whole number of {low} to {high}"
        if not isinstance(node, yaml.ScalarNode) or node.tag != TAG + "int":
            advice = f"write {bounds}"
            if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') and DECIMAL.fullmatch(node.value):
                advice = "take the quotes off"
            self.wrong(node, key, f"needs a whole number, not {called(node)}", advice)
            return None
        if DECIMAL.fullmatch(node.value) is None:
            self.wrong(node, key, f"{show(node.value)} is read by YAML as {number_read(node)}", "write it in decimal")
            return None
        number = int(node.value.replace("_", ""))
        if not low <= number <= high:
            self.wrong(node, key, f"{number} is out of bounds", f"write {bounds}")
            return None
        return number

    def text(self, node: yaml.Node, key: str) -> str | None:
        """The text of a scalar that YAML reads as text; None, and a problem, for any other."""
        if not isinstance(node, yaml.ScalarNode) or node.tag != TAG + "str":
            advice = "write text, or take the line out"
            if isinstance(node, yaml.MappingNode):
                advice = "quote text that holds a colon and a space, or ends in a colon"
            elif isinstance(node, yaml.ScalarNode) and node.tag.startswith(TAG) and node.value:
                advice = f'quote it: "{show(node.value)}"'
            self.wrong(node, key, f"needs text, not {called(node)}", advice)
            return None
        text: str = node.value
        if len(text) > MAX_TEXT:
            self.wrong(node, key, f"is longer than {MAX_TEXT} characters", "shorten it")
            return None
        if not text.isprintable():
            self.wrong(node, key, f'holds characters that cannot be printed: "{show(text)}"', "take them out")
            return None
        return text
