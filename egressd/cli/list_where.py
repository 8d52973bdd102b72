"""Which file a command that edits lists means, and what its lines are judged by."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from fnmatch import fnmatch
from glob import glob
from pathlib import Path
from typing import Final, NamedTuple

from egressd.cli.client import ClientError
from egressd.cli.exit_codes import USAGE
from egressd.cli.paths import path_given
from egressd.config.large_lists import ListFile
from egressd.config.load import default_config, load_config, load_ground, named_files
from egressd.config.schema import Config
from egressd.config.texts import escape_path
from egressd.errors import ConfigError, Problem
from egressd.intel.allowances import parse_allowances
from egressd.intel.formats.judgement import Rules
from egressd.intel.formats.ours import parse_list
from egressd.intel.list_edit import Found, Wanted, find_lines
from egressd.intel.networks import parse_network
from egressd.model import Indicator
from egressd.store.list_files import read_list

CONFIG: Final = "/etc/egressd/egressd.yaml"
LOCAL: Final = "local.txt"  # where lines go when no file is named
_SHOWN: Final = 8


class Place(NamedTuple):
    """A file. `known` when the configuration names it, so that the daemon reads it; `may_be_new` when it need not be
    there; `name` is printable."""

    path: Path
    name: str
    known: bool
    may_be_new: bool = False


class Site(NamedTuple):
    """The configuration, or the default when there is none, and the rules for lists. `allow` when allowances are
    meant."""

    config: Config
    base_dir: Path
    rules: Rules
    allow: bool

    @property
    def option(self) -> str:
        """The option that names the files."""
        return "allow" if self.allow else "lists"

    def problems(self, text: str, name: str) -> list[Problem]:
        """All that is wrong with a text that is to stand in a file."""
        if self.allow:
            return parse_allowances(text, name, self.rules.suffixes)[1]
        return self.listed(text, name)[1]

    def listed(self, text: str, name: str) -> tuple[list[Indicator], list[Problem]]:
        """What a block list's text comes to."""
        rules = self.rules
        return parse_list(text, name, rules.suffixes, rules.guard, protected=rules.protected)

    def reasons(self, indicators: list[Indicator]) -> list[str]:
        """Why these are no ordinary destinations: guarded or own domains, public suffixes, protected addresses."""
        found: dict[str, None] = {}
        for one in indicators:
            network = parse_network(one.value) if one.kind in ("address", "network") else None
            if network is not None and self.rules.protected is not None:
                found[self.rules.protected.why_network(*network)] = None
            elif one.registered_domain:
                found[self.rules.guard.why(one.registered_domain)] = None
            elif one.kind == "domain":
                found[one.narrowed] = None  # what is no registered domain is a public suffix
        return [why for why in found if why]

    def files(self) -> list[ListFile]:
        """The files that the configuration names now, and those it names that are not there."""
        return named_files(self.config, self.base_dir)[self.allow]

    def patterns(self) -> list[tuple[Path, str]]:
        """(folder, pattern of names) of every entry."""
        found = []
        for entry in self.config.allow if self.allow else self.config.lists:
            parent, name = os.path.split(entry)
            folders = glob(parent, root_dir=self.base_dir) if set("*?[") & set(parent) else [parent]  # noqa: PTH207
            found += [(self.base_dir / folder, name) for folder in folders]
        return found

    def named(self, given: str) -> Place:
        """The file that a person names: by its path, or by its name alone when the configuration names one of that
        name. Raises ClientError."""
        files = self.files()
        if "/" not in given:
            alike = [one for one in files if one.path.name == given]
            if len(alike) == 1:
                return Place(alike[0].path, escape_path(alike[0].path), known=True, may_be_new=True)
            if alike:
                raise ClientError(f"several files have that name: {_names(alike)}; write the whole path", USAGE)
        path = Path(given)
        if path.exists():
            real = os.path.realpath(path)
            return Place(path, escape_path(path), any(os.path.realpath(one.path) == real for one in files))
        fitting = self._fitting(path)
        if len(fitting) == 1:
            return Place(fitting[0], escape_path(fitting[0]), known=True, may_be_new=True)
        choices = f"; the configuration names {_names(files)}" if files else ""
        raise ClientError(f"{escape_path(path)} is not there, and in no folder of {self.option}:{choices}", USAGE)

    def _fitting(self, path: Path) -> list[Path]:
        """Where a file that is not there may be made so that the daemon reads it."""
        found: list[Path] = []
        for folder, pattern in self.patterns():
            here = str(path.parent) == "." or os.path.realpath(path.parent) == os.path.realpath(folder)
            if here and fnmatch(path.name, pattern) and not path.name.startswith(".") and folder.is_dir():
                found.append(folder / path.name)
        return list(dict.fromkeys(found))

    def default(self) -> Place:
        """Where a new line goes when nobody says where. Raises ClientError."""
        files = self.files()
        if len(files) == 1:
            return Place(files[0].path, escape_path(files[0].path), known=True, may_be_new=True)
        local = self._fitting(Path(LOCAL))
        if len(local) == 1:
            return Place(local[0], escape_path(local[0]), known=True, may_be_new=True)
        if files:
            raise ClientError(f"which file? Say --to one of {_names(files)}", USAGE)
        raise ClientError(f"which file? The configuration names none under {self.option}:; say --to FILE", USAGE)

    def holding(self, wanted: Wanted) -> list[tuple[Place, list[Found]]]:
        """The files of the configuration that hold lines of that value, and the lines. Raises FileRefused."""
        held = []
        for one in self.files():
            found = find_lines(read_list(one.path), wanted) if one.path.is_file() else []
            if found:
                held.append((Place(one.path, escape_path(one.path), known=True), found))
        return held


def add_arguments(parser: ArgumentParser, *, allow: str = "edit allowances (allow:) instead of block lists") -> None:
    """Declare what commands that edit have in common."""
    parser.add_argument("--allow", action="store_true", help=allow)
    parser.add_argument(
        "--config", metavar="FILE", type=path_given, help=f"the daemon's configuration (default: {CONFIG})"
    )


def load_site(args: Namespace) -> Site:
    """The configuration of --config or of the machine, and what lists are judged by. Raises ConfigError."""
    path = Path(args.config or CONFIG)
    given = args.config is not None or os.path.exists(path)  # noqa: PTH110  False where we may not look
    config = load_config(path) if given else default_config()
    base_dir = path.parent if given else Path()
    ground = load_ground(config, base_dir=base_dir)
    if ground.problems:
        raise ConfigError(ground.problems)
    rules = Rules(ground.suffixes, ground.guard, ground.protected)
    return Site(config, base_dir, rules, args.allow)


def _names(files: list[ListFile]) -> str:
    more = f" and {len(files) - _SHOWN:,} more" if len(files) > _SHOWN else ""
    return ", ".join(escape_path(one.path) for one in files[:_SHOWN]) + more
