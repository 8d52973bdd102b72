"""YAML text as a tree of nodes with marks, and what YAML makes of a scalar, in words.

Nodes are never constructed into objects, so no tag can make one. What a file can cost is bounded: depth, nodes and
aliases here, its size where it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import yaml

from egressd.intel.lines import show

MAX_DEPTH: Final = 16  # the schema needs four levels
MAX_NODES: Final = 50_000  # a hundred times a large site's; a second of reading
MAX_ALIASES: Final = 64  # some lists said twice; expansion stays under MAX_NODES each

TAG: Final = "tag:yaml.org,2002:"
DECIMAL: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30})")

Add = Callable[[int, int, str, str], None]  # takes line, column, what is wrong, what to do


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


def compose(text: str, add: Add) -> yaml.Node | None:
    """The document's root; None when it is empty or no YAML, which is then a problem."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        code = f"U+{ord(text[error.position]):04X}"
        add(line, column, f"not YAML: the character {code} is not allowed", "take it out")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        add(line, column, f"not YAML: {show(what)}", _advice_on_syntax(what))
    except (yaml.YAMLError, ValueError, OverflowError):  # an escape or a version number that no character or int can be
        mark = loader.get_mark() if loader is not None else None
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        add(line, column, "not YAML: an escape or a directive cannot be read", "write the text without escapes")
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


# -- what YAML makes of a scalar, in words


def is_null(node: yaml.Node) -> bool:
    """`null`, `~` or nothing at all."""
    return isinstance(node, yaml.ScalarNode) and node.tag == TAG + "null"


def called(node: yaml.Node) -> str:
    """What a node is, in words that explain why YAML took it for that."""
    if not node.tag.startswith(TAG):
        return f"something with the tag {show(node.tag)}"
    tag = node.tag.removeprefix(TAG)
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
        plain = DECIMAL.fullmatch(node.value) is not None
        return f"the number {shown}" if plain else f"{shown}, which YAML reads as {number_read(node)}"
    if tag == "float":
        return f"the fraction {shown}"
    if tag == "timestamp":
        return f"{shown}, which YAML reads as a date"
    return f"something with the tag !!{show(tag)}"


def number_read(node: yaml.ScalarNode) -> str:
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
