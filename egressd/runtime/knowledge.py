"""All that people say: configuration, lists, allowances, what operators added; and what the machine says of itself.

Loaded whole, or not at all: what cannot be used leaves the last good state in force, with every problem told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from egressd.config.load import LoadedIntel, load_config, load_intel, policy_settings, segment_table
from egressd.config.schema import Config
from egressd.detect.engine import Intel
from egressd.detect.policy import PolicySettings
from egressd.errors import ConfigError, Problem
from egressd.intel.allowances import Allowance, Allowances, parse_allowances
from egressd.intel.formats import parse_list
from egressd.intel.layered import added_between
from egressd.intel.networks import NetworkTable, parse_address
from egressd.intel.protected import Protected
from egressd.model import Indicator
from egressd.runtime.hunting import MANY
from egressd.runtime.index_build import builder_in
from egressd.store.entries import ALLOWANCE, INDICATOR, Entry

SECOND_US: Final = 1_000_000
INDEXES: Final = "indexes"  # where built indexes lie, in the directory of the state
OPERATOR: Final = "operator"  # the source of what people add by commands; the line is the entry's number


class Surroundings(NamedTuple):
    """What the machine says of itself: networks that must never be blocked, as (first address, length, reason), and the
    resolvers whose answers are evidence, packed."""

    networks: tuple[tuple[bytes, int, str], ...]
    resolvers: frozenset[bytes]


class Loaded(NamedTuple):
    """Configuration and text files as they were read."""

    config: Config
    texts: LoadedIntel
    base_dir: Path


class Knowledge(NamedTuple):
    """What the packet path is given, and what screens show of where it comes from."""

    config: Config
    texts: LoadedIntel
    intel: Intel
    settings: PolicySettings
    segments: NetworkTable[str]
    problems: tuple[Problem, ...]  # of operators' entries: a list changed under them


def load_texts(path: Path) -> Loaded:
    """Read everything. Raises ConfigError with every problem; nothing is taken then."""
    config = load_config(path)
    texts = load_intel(config, base_dir=path.parent, build=builder_in(path.parent / config.state.directory / INDEXES))
    texts.check()
    if texts.demo and config.mode != "monitor":
        line, column = config.places.get("mode", (0, 0))
        what = f"mode: {config.mode} needs lists; without any only the built-in demonstration list is there"
        raise ConfigError([Problem(config.origin, line, column, what, "name your lists under lists:")])
    return Loaded(config, texts, path.parent)


def combine(loaded: Loaded, entries: Sequence[Entry], around: Surroundings, mode: str) -> Knowledge:
    """Text files, operators' entries and surroundings as one."""
    texts = loaded.texts
    intel = texts.intel
    protected = intel.protected.plus(around.networks)
    indicators, allowances, problems = parse_entries(entries, texts, protected)
    index = intel.index
    if indicators:
        index = intel.index.plus(indicators)
    allowed = intel.allowances
    if allowances:
        allowed = Allowances([*intel.allowances.allowances, *allowances])
    settings = policy_settings(loaded.config)
    settings = settings._replace(mode=mode, resolvers=settings.resolvers or around.resolvers)
    return Knowledge(
        replace(loaded.config, mode=mode),
        texts,
        Intel(index, intel.suffixes, allowed, protected, intel.resolvers),
        settings,
        segment_table(loaded.config),
        tuple(problems),
    )


def parse_entries(
    entries: Sequence[Entry], texts: LoadedIntel, protected: Protected
) -> tuple[list[Indicator], list[Allowance], list[Problem]]:
    """What operators' lines say. An indicator is in force from when it was added, so that who contacted it before is
    found from history."""
    indicators: list[Indicator] = []
    allowances: list[Allowance] = []
    problems: list[Problem] = []
    suffixes = texts.intel.suffixes
    for entry in entries:
        number = int(entry.id[1:])
        expires_s = ends_s(entry)
        if entry.kind == INDICATOR:
            found, wrong = parse_list(entry.text, OPERATOR, suffixes, texts.guard, protected=protected)
            added_s = entry.created_us // SECOND_US
            indicators += [one._replace(line=number, added_s=added_s, expires_s=expires_s) for one in found]
        elif entry.kind == ALLOWANCE:
            allowed, wrong = parse_allowances(entry.text, OPERATOR, suffixes)
            allowances += [one._replace(line=number, expires_s=expires_s) for one in allowed]
        else:
            wrong = []
        problems += [one._replace(line=number) for one in wrong]
    return indicators, allowances, problems


def ends_s(entry: Entry) -> int:
    """The second in which a line is over, 0: never. A second that has begun is still its own."""
    return -(-entry.expires_us // SECOND_US)


def arrived(before: Intel, after: Intel, now_s: int) -> tuple[Indicator, ...] | None:
    """The indicators in force that were not before; None when they are very many, or an allowance that stood in the way
    of others may be gone: then everything may be new. A line that only moved is not new."""
    if after.allowances.allowances != before.allowances.allowances and any(
        one not in after.allowances.allowances for one in before.allowances.allowances
    ):
        return None
    found = tuple(added_between(before.index, after.index, MANY + 1))
    return None if len(found) > MANY else tuple(one for one in found if one.added_s <= now_s)


def client_problem(text: str) -> str:
    """Why a text is no client's address, "" when it is one."""
    return "" if parse_address(text) else f"{text} is not an address"
