"""All that people say: configuration, lists, allowances, what operators added; and what the machine says of itself.

Loaded whole, or not at all: what cannot be used leaves the last good state in force, with every problem told.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from egressd.config.large_lists import Build
from egressd.config.load import LoadedIntel, LoadedList, list_paths, load_config, load_intel, named_files
from egressd.config.schema import Config
from egressd.config.settings import policy_settings, segment_table
from egressd.config.texts import escape_path
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.sharing import BY_COMMAND
from egressd.errors import ConfigError, Problem
from egressd.intel.allowances import Allowance, Allowances, parse_allowances
from egressd.intel.formats import parse_list
from egressd.intel.layered import AnyIndex, LayeredIndex, over
from egressd.intel.mapped import MappedIndex, is_gone
from egressd.intel.networks import NetworkTable
from egressd.intel.protected import Protected
from egressd.model import Indicator
from egressd.runtime.index_build import builder_in, index_folder
from egressd.runtime.list_watch import Signs, read_signs
from egressd.store.entries import ALLOWANCE, INDICATOR, Entry
from egressd.store.last_good import LastGood
from egressd.units import SECOND_US

SMALL_FEED: Final = 2_000  # indicators; so few lie in memory with the lists, and cost no look at a filter of their own
LAST_GOOD: Final = "last-good"  # where the last good content of lists lies, in the directory of the state
OPERATOR: Final = BY_COMMAND  # the source of what people add by commands; the line is the entry's number


class Surroundings(NamedTuple):
    """What the machine says of itself: networks that must never be blocked, as (first address, length, reason), the
    resolvers whose answers are evidence, packed, and the networks of its interfaces that face hosts (first address,
    length, "")."""

    networks: tuple[tuple[bytes, int, str], ...]
    resolvers: frozenset[bytes]
    lan: tuple[tuple[bytes, int, str], ...] = ()


class Fed(NamedTuple):
    """What a feed says, and when it was fetched or confirmed last."""

    built: MappedIndex
    confirmed_us: int


class Loaded(NamedTuple):
    """Configuration and text files as they were read. `kept` are the problems of files for which their last good
    content stands in, or nothing when they never were good; `signs` are how the files were when they were read;
    `unkept` is where and why the content of a file could not be kept as its last good one, or ""."""

    config: Config
    texts: LoadedIntel
    base_dir: Path
    kept: tuple[Problem, ...] = ()
    signs: Signs = MappingProxyType({})
    unkept: str = ""


class Knowledge(NamedTuple):
    """What the packet path is given, and what screens show of where it comes from."""

    config: Config
    texts: LoadedIntel
    intel: Intel
    settings: PolicySettings
    segments: NetworkTable[str]
    problems: tuple[Problem, ...]  # of operators' entries: a list changed under them


NOTHING_FED: Final[Mapping[str, Fed]] = MappingProxyType({})


def load_own_config(path: Path) -> Config:
    """The daemon's configuration. Raises ConfigError, also for a file that says nothing: what a full disk leaves of one
    would be the mode monitor and no list, and every block lifted."""
    config = load_config(path)
    if config == Config(origin=config.origin) and not config.places:
        what = "leaves every option as it is by default, and names no list"
        raise ConfigError([Problem(config.origin, 0, 0, what, "if that is meant, write mode: monitor")])
    return config


def load_texts(
    path: Path, config: Config | None = None, *, scratch: Path | None = None, in_force: Set[str] = frozenset()
) -> Loaded:
    """Read everything, with `config` only what it names. A list with a mistake in it is left out whole, and its last
    good content, if there is one, stands in for it. Raises ConfigError with every problem when one of the others is
    wrong, or a list is when nothing was ever good here, or one of those `in_force` (by name) whose last good content
    is not to be had; nothing is taken then. Who only looks names a folder `scratch` for an index of long lists, and
    nothing in the state's directory is changed."""
    config = config or load_own_config(path)
    state = path.parent / config.state.directory
    build = builder_in(scratch or index_folder(state))
    last_good = LastGood(state / LAST_GOOD)
    files = list_paths(config, path.parent)
    before = read_signs(files)

    def was_list(name: str) -> bool:
        return name in in_force or last_good.find(name) is not None

    texts = load_intel(config, base_dir=path.parent, build=build, was_list=was_list)
    kept: tuple[Problem, ...] = ()
    if texts.problems:
        texts, kept = _with_last_good(config, path.parent, build, texts, last_good, in_force)
    if texts.demo and config.mode != "monitor":
        line, column = config.places.get("mode", (0, 0))
        what = f"mode: {config.mode} needs lists; without any only the built-in demonstration list is there"
        raise ConfigError([Problem(config.origin, line, column, what, "name your lists under lists:")])
    unchanged = read_signs(files) == before  # else it is not known what was read; whoever watches reads it again
    if unchanged and scratch is None:
        for one in texts.files:
            if one.path.parent != last_good.folder:
                last_good.keep(one.name, one.path)
        last_good.forget_others(one.name for one in texts.files)
    unkept = f"{escape_path(last_good.folder)}: {last_good.trouble}" if last_good.trouble else ""
    return Loaded(config, texts, path.parent, kept, before, unkept)


def _with_last_good(
    config: Config, base_dir: Path, build: Build, texts: LoadedIntel, last_good: LastGood, in_force: Set[str]
) -> tuple[LoadedIntel, tuple[Problem, ...]]:
    """Read again, with the last good content of the files in which something is wrong; and what is wrong in them.
    Files that never were good are left out, so that they hold up no other and no restart; but the first start is when
    somebody looks, and what is `in_force` was good. Raises ConfigError with every problem when that does not help."""
    instead = {name: found for name in texts.broken if (found := last_good.find(name)) is not None}
    there = {one.name for one in texts.files if os.path.lexists(one.path)}
    without = (texts.broken & there) - instead.keys() if last_good.has_begun() else frozenset()
    if (not instead and not without) or without & in_force:
        raise ConfigError(texts.problems)
    again = load_intel(
        config, base_dir=base_dir, build=build, instead=instead, without=without, was_list=last_good.find
    )
    if again.problems:
        raise ConfigError(texts.problems)
    wrong = {one.name: one.problems for one in texts.lists}
    lists = [one._replace(problems=wrong.get(one.name, 1)) if one.name in instead else one for one in again.lists]
    named = {one.name for one in named_files(config, base_dir)[0]}
    lists += [LoadedList(name, 0, wrong.get(name, 1)) for name in sorted(without & named)]
    return again._replace(lists=tuple(lists)), tuple(texts.problems)


def combine(
    loaded: Loaded,
    entries: Sequence[Entry],
    around: Surroundings,
    mode: str,
    fed: Mapping[str, Fed] = NOTHING_FED,
    modes: Mapping[str, str] | None = None,
) -> Knowledge:
    """Text files, operators' entries, surroundings and what feeds say as one. `modes` are those of segments, None for
    the configuration's."""
    texts = loaded.texts
    intel = texts.intel
    protected = intel.protected.plus(around.networks)
    indicators, allowances, problems = parse_entries(entries, texts, protected)
    index = intel.index
    said = list(indicators)
    for one in fed.values():
        if one.built.size <= SMALL_FEED:
            said += one.built.listed()
    if said:
        index = index.plus(said)
    large = tuple(one.built for one in fed.values() if one.built.size > SMALL_FEED)
    index = over(index, large, intel.suffixes)
    allowed = intel.allowances
    if allowances:
        allowed = Allowances([*intel.allowances.allowances, *allowances], intel.allowances.nat64)
    settings = policy_settings(loaded.config, texts.policy)
    if modes is not None:
        settings = settings._replace(modes=tuple(modes.items()))
    settings = settings._replace(mode=mode, resolvers=settings.resolvers or around.resolvers, lan=around.lan)
    return Knowledge(
        replace(loaded.config, mode=mode),
        texts,
        Intel(
            index,
            intel.suffixes,
            allowed,
            protected.plus(settings.of_our_hosts()),
            intel.resolvers,
            intel.shared,
            intel.guard,
            intel.behaviour,
        ),
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


def files_lost(index: AnyIndex) -> list[str]:
    """Names of the files of an index that are not there any more."""
    if not isinstance(index, LayeredIndex):
        return []
    return [Path(str(one.reopen[1][0])).name for one in index.lowers if one.reopen is not None and is_gone(one)]
