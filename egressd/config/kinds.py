"""How an option is told: its kind, default, text and bounds, as metadata of a dataclass's field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, fields
from typing import Any, Final, NamedTuple

SECTION: Final = "section"
CHOICE: Final = "choice"
NUMBER: Final = "number"
PATH: Final = "path"
PATHS: Final = "list of paths"
LISTENING: Final = "address to listen on"
ADDRESSES: Final = "list of addresses"
NETWORKS: Final = "list of networks"
PREFIXES: Final = "list of NAT64 prefixes"
NAMES: Final = "list of names"
WORDS: Final = "list of words"  # names that the machine gives, such as those of groups
INTERFACES: Final = "list of interfaces"
SEGMENT_NAMES: Final = "list of segments"
SEGMENTS: Final = "mapping of name to list of networks"
TAGS: Final = "mapping of name to list of addresses or networks"
SEGMENT_MODES: Final = "mapping of segment to mode"
TEXT: Final = "text"
URL: Final = "address of the web"
FLAG: Final = "true or false"
NAMED: Final = "mapping of name to section"  # sections that an operator names: each has the options of one dataclass

MAPPINGS: Final = (SEGMENTS, TAGS, SEGMENT_MODES)  # of names that an operator gives
MODES: Final = ("monitor", "approve", "enforce")


class Option(NamedTuple):
    """One option as the schema tells it. `key` is its dotted path; `example` is YAML that stands after the key.
    `section` is the dataclass of a section, or of each one in a mapping of kind NAMED."""

    key: str
    kind: str
    default: Any
    doc: str
    low: int
    high: int
    choices: tuple[str, ...]
    example: str
    section: type[Any] | None

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]


def option(
    kind: str,
    default: Any,
    doc: str,
    *,
    low: int = 0,
    high: int = 0,
    choices: tuple[str, ...] = (),
    example: str = "",
) -> Any:
    """A dataclass's field that is an option."""
    known = {"kind": kind, "doc": doc, "low": low, "high": high, "choices": choices, "example": example}
    if kind in MAPPINGS:
        return field(default_factory=dict, metadata=known)
    return field(default=default, metadata=known)


def told(cls: type[Any], doc: str, kind: str = SECTION, example: str = "") -> dict[str, Any]:
    """The metadata of a field that is a section, or a mapping of sections."""
    return {"kind": kind, "doc": doc, "low": 0, "high": 0, "choices": (), "example": example, "section": cls}


def options_of(cls: type[Any], prefix: str = "") -> Iterator[Option]:
    """The options directly in a section, in order; a section is one of kind SECTION."""
    for one in fields(cls):
        known = one.metadata
        if not known:
            continue
        default = () if known["kind"] == SECTION else {} if known["kind"] in (*MAPPINGS, NAMED) else one.default
        yield Option(
            prefix + one.name, known["kind"], default, known["doc"], known["low"], known["high"], known["choices"],
            known["example"], known.get("section"),
        )  # fmt: skip


def named_options(mapping: Option, name: str = "NAME") -> Iterator[Option]:
    """The options of each section in a mapping of kind NAMED, under the name `name`."""
    if mapping.section is not None:
        yield from options_of(mapping.section, f"{mapping.key}.{name}.")
