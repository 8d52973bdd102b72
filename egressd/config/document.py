"""A configuration's YAML text to a Config, with every problem at its line and column.

The text is read as a tree of nodes with marks and never constructed into objects, so no tag can make one. What a file
can cost is bounded: its size (load.py), depth, nodes and aliases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import yaml

from egressd.config import feed_options, sensor_options
from egressd.config.feed_options import MAX_FEEDS, FeedOptions
from egressd.config.forms import READERS, read_network
from egressd.config.kinds import (
    CHOICE,
    FLAG,
    NAMED,
    NUMBER,
    PATH,
    PATHS,
    SEGMENTS,
    TEXT,
    URL,
    Option,
)
from egressd.config.schema import Config, every_option, options
from egressd.config.sensor_options import MAX_SENSORS, SensorOptions
from egressd.errors import Problem
from egressd.intel.lines import Wrong, show
from egressd.model import TAP

MAX_DEPTH: Final = 16  # the schema needs four levels
MAX_NODES: Final = 50_000  # a hundred times a large site's; a second of reading
MAX_ALIASES: Final = 64  # some lists said twice; expansion stays under MAX_NODES each
MAX_PROBLEMS: Final = 1_000  # more than anyone corrects at one go
MAX_TEXT: Final = 1_024  # characters of a value: a long path
MAX_SEGMENT_NAME: Final = 64  # characters; it stands in a column of reports

_TAG: Final = "tag:yaml.org,2002:"
_GIVEN_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")  # a label of metrics, a file's name, a source
RESERVED: Final = ("operator", "demo", "other", TAP)
_DECIMAL: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30})")


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
    reader = _Reader(source)
    root = _compose(text, reader)
    config = Config(origin=source)
    if root is not None:
        values = reader.section(root, Config, "")
        config = Config(**values, origin=source, places=reader.places)
        reader.check_segments(config)
    return config, sorted(reader.problems, key=lambda problem: (problem.line, problem.column)) + reader.more


class _Loader(yaml.SafeLoader):
    """Composes nodes within bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        self._nodes += 1
        what = ""
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                what = f"more than {MAX_ALIASES} aliases (*name)"
        if self._depth > MAX_DEPTH:
            what = f"nested deeper than {MAX_DEPTH} levels"
        if self._nodes > MAX_NODES:
            what = f"more than {MAX_NODES} values"
        if what:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, what, mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(text: str, reader: _Reader) -> yaml.Node | None:
    """The document's root; None when it is empty or no YAML, which is then a problem."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        code = f"U+{ord(text[error.position]):04X}"
        reader.add(line, column, f"not YAML: the character {code} is not allowed", "take it out")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        reader.add(line, column, f"not YAML: {show(what)}", _advice_on_syntax(what))
    except (yaml.YAMLError, ValueError, OverflowError):  # an escape or a version number that no character or int can be
        mark = loader.get_mark() if loader is not None else None
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        reader.add(line, column, "not YAML: an escape or a directive cannot be read", "write the text without escapes")
    return None


def _advice_on_syntax(what: str) -> str:
    if r"'\t'" in what:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in what:
        return "check the indentation, and quote text that holds a colon"
    if "expected a single document" in what:
        return "keep one document: take the --- line out"
    if what.startswith("more than"):
        return "write less, and what is repeated in full"
    if what.startswith("nested"):
        return "no option needs that"
    if "alias" in what or "cannot start any token" in what:
        return "quote text that begins with a sign"
    return "check indentation, quotes and brackets before this place"


class _Reader:
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
        for name, key_node, value_node in self._entries(node, prefix.rstrip(".")):
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
        for name, key_node, value_node in self._entries(node, option.key):
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

    def _entries(self, node: yaml.Node, key: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """(key, its node, value's node) of a mapping, each key once. Nothing at all is an empty mapping."""
        if _is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode) or node.tag != _TAG + "map":
            example = "" if key else ", such as mode: monitor"
            self.wrong(node, key, f"needs keys with values, not {_called(node)}", f"write key: value{example}")
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
            return self._number(node, option)
        if kind == CHOICE:
            return self._choice(node, option)
        if kind == FLAG:
            return self._flag(node, key)
        if kind in (PATH, TEXT, URL):
            return self._item(node, key, READERS[kind])
        if kind == SEGMENTS:
            return self._segments(node, key)
        return self._items(node, key, READERS[kind], empty_is_wrong=kind == PATHS)

    def _items(
        self, node: yaml.Node, key: str, read: Callable[[str], str], empty_is_wrong: bool = False
    ) -> tuple[str, ...] | None:
        if _is_null(node):
            return ()
        if not isinstance(node, yaml.SequenceNode) or node.tag != _TAG + "seq":
            self.wrong(node, key, f"needs a list, not {_called(node)}", "write [one, two], or a line with - for each")
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

    def _segments(self, node: yaml.Node, key: str) -> dict[str, tuple[str, ...]]:
        segments: dict[str, tuple[str, ...]] = {}
        owner: dict[str, str] = {}
        for name, key_node, value_node in self._entries(node, key):
            if not name.strip() or len(name) > MAX_SEGMENT_NAME:
                what = f"a segment's name has 1 to {MAX_SEGMENT_NAME} characters"
                self.wrong(key_node, f"{key}.{show(name)}", what, "write a short name")
                continue
            path = f"{key}.{name}"
            networks = self._items(value_node, path, read_network) or ()
            for number, network in enumerate(networks):
                if owner.setdefault(network, name) != name:
                    what = f"{network} is in segment {owner[network]} already"
                    self.wrong(value_node, f"{path}[{number}]", what, "keep it in one of them")
            segments[name] = networks
        return segments

    def _choice(self, node: yaml.Node, option: Option) -> str | None:
        text = self.text(node, option.key)
        self.places[option.key] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if text is None or text in option.choices:
            return text
        near = get_close_matches(text[:MAX_SEGMENT_NAME].lower(), option.choices, 1, 0.5)
        advice = f'did you mean "{near[0]}"? It is ' if near else "it is "
        self.wrong(node, option.key, f'cannot be "{show(text)}"', advice + "one of " + ", ".join(option.choices))
        return None

    def _flag(self, node: yaml.Node, key: str) -> bool | None:
        if not isinstance(node, yaml.ScalarNode) or node.tag != _TAG + "bool":
            self.wrong(node, key, f"needs true or false, not {_called(node)}", "write true or false, without quotes")
            return None
        return node.value.lower() in ("yes", "true", "on")

    def _number(self, node: yaml.Node, option: Option) -> int | None:
        key = option.key
        bounds = f"a whole number of {option.low} to {option.high}"
        if not isinstance(node, yaml.ScalarNode) or node.tag != _TAG + "int":
            advice = f"write {bounds}"
            if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') and _DECIMAL.fullmatch(node.value):
                advice = "take the quotes off"
            self.wrong(node, key, f"needs a whole number, not {_called(node)}", advice)
            return None
        if _DECIMAL.fullmatch(node.value) is None:
            self.wrong(node, key, f"{show(node.value)} is read by YAML as {_number_read(node)}", "write it in decimal")
            return None
        number = int(node.value.replace("_", ""))
        if not option.low <= number <= option.high:
            self.wrong(node, key, f"{number} is out of bounds", f"write {bounds}")
            return None
        return number

    def text(self, node: yaml.Node, key: str) -> str | None:
        """The text of a scalar that YAML reads as text; None, and a problem, for any other."""
        if not isinstance(node, yaml.ScalarNode) or node.tag != _TAG + "str":
            advice = "write text, or take the line out"
            if isinstance(node, yaml.MappingNode):
                advice = "quote text that holds a colon and a space, or ends in a colon"
            elif isinstance(node, yaml.ScalarNode) and node.tag.startswith(_TAG) and node.value:
                advice = f'quote it: "{show(node.value)}"'
            self.wrong(node, key, f"needs text, not {_called(node)}", advice)
            return None
        text: str = node.value
        if len(text) > MAX_TEXT:
            self.wrong(node, key, f"is longer than {MAX_TEXT} characters", "shorten it")
            return None
        if not text.isprintable():
            self.wrong(node, key, f'holds characters that cannot be printed: "{show(text)}"', "take them out")
            return None
        return text


# -- what YAML makes of a scalar, in words


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"


def _called(node: yaml.Node) -> str:
    """What a node is, in words that explain why YAML took it for that."""
    if not node.tag.startswith(_TAG):
        return f"something with the tag {show(node.tag)}"
    tag = node.tag.removeprefix(_TAG)
    if not isinstance(node, yaml.ScalarNode):
        return {"map": "keys with values", "seq": "a list"}.get(tag, f"something with the tag !!{show(tag)}")
    shown = show(node.value) or "''"
    if tag == "str":
        return f'text ("{shown}")'
    if tag == "null":
        return "nothing"
    if tag == "bool":
        truth = "true" if node.value.lower() in ("yes", "true", "on") else "false"
        return f"{shown}, which YAML reads as {truth}" if shown.lower() != truth else f"the truth value {truth}"
    if tag == "int":
        plain = _DECIMAL.fullmatch(node.value) is not None
        return f"the number {shown}" if plain else f"{shown}, which YAML reads as {_number_read(node)}"
    if tag == "float":
        return f"the fraction {shown}"
    if tag == "timestamp":
        return f"{shown}, which YAML reads as a date"
    return f"something with the tag !!{show(tag)}"


def _number_read(node: yaml.ScalarNode) -> str:
    """The number that YAML 1.1 makes of an unusual spelling (010 is octal, 12:30:00 is in base 60)."""
    text = node.value
    form = "in base 60" if ":" in text else "in octal" if text.lstrip("+-")[1:2] not in ("b", "x") else ""
    if len(text) > 40:
        return "a number"
    try:
        number = int(yaml.constructor.SafeConstructor().construct_yaml_int(node))
    except (ValueError, IndexError):  # "0x_", !!int ""
        return "a number"
    return f"the number {number} ({form})" if form else f"the number {number}"
