"""Which files the paths and patterns of a configuration name, as its folder is now."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Final

from egressd.config.folders import ABSENT, may_be_file, why_closed
from egressd.config.large_lists import ListFile
from egressd.config.texts import ON_THE_WEB, escape_path

MAX_FILES: Final = 1_000  # that one pattern may name

_MAGIC: Final = frozenset("*?[")


def none_was(_: str) -> bool:
    """Nothing is known of files as they were."""
    return False


class NamedFiles:
    """Relative paths start at `base_dir`. `wrong` hears (key, what, advice) of an entry that names no file. `instead`
    names other files for some, by name; those `without` are left out. A pattern also means what is no file, if it
    `was_list`, by name: reading it tells what is wrong."""

    def __init__(
        self,
        base_dir: Path,
        wrong: Callable[[str, str, str], None],
        instead: Mapping[str, Path],
        without: Set[str],
        was_list: Callable[[str], object] = none_was,
    ) -> None:
        self._base_dir = base_dir
        self._wrong = wrong
        self._instead = instead
        self._without = without
        self._was_list = was_list

    def lists(self, entries: Sequence[str], extra: Sequence[Path]) -> list[ListFile]:
        """Block lists of the configuration and of the command line, each file once, in the order given."""
        files: list[ListFile] = []
        seen: set[str] = set()
        named = self.of("lists", entries)
        named += [ListFile("", escape_path(path), path) for path in extra]
        for one in named:
            real = os.path.realpath(one.path)
            if real in seen:
                continue
            seen.add(real)
            files.append(one)
        return files

    def of(self, option: str, entries: Sequence[str], but: str = "") -> list[ListFile]:
        """The files that a list of paths and patterns names. A folder may be empty. The entry `but` is no path."""
        files: list[ListFile] = []
        for number, entry in enumerate(entries):
            if entry == but:
                continue
            key = f"{option}[{number}]"
            if not _MAGIC.intersection(entry) or os.path.lexists(self._base_dir / entry):
                files += self._files(key, [entry])
            else:
                files += self._files(key, self._matching(key, entry))
        return files

    def _matching(self, key: str, pattern: str) -> list[str]:
        names = sorted(glob(pattern, root_dir=self._base_dir))  # noqa: PTH207  Path.glob takes no absolute pattern
        names = list(
            islice(filter(self._is_meant, names), MAX_FILES + 1)
        )  # no more are looked at, however many there are
        if not names and "*" not in pattern and "?" not in pattern:  # a bracket in a file's name that is misspelt
            return [pattern]
        if not names and ON_THE_WEB.search(pattern):  # its ? makes it no pattern
            return [pattern]
        closed = "" if names else why_closed((self._base_dir / pattern).parent)
        if closed == ABSENT:
            self._wrong(key, f'no file matches "{pattern}"', "put one there, or take the pattern out")
        elif closed:  # not the same as an empty folder: what it lists would be given free
            self._wrong(key, f'the folder of "{pattern}" cannot be read: {closed}', "check its permissions")
        elif len(names) > MAX_FILES:
            self._wrong(key, f'"{pattern}" matches over {MAX_FILES} files', "narrow the pattern")
        else:
            return names
        return []

    def _is_meant(self, name: str) -> bool:
        return may_be_file(self._base_dir / name) or bool(self._was_list(escape_path(name)))

    def _files(self, key: str, names: list[str]) -> list[ListFile]:
        shown = [(escape_path(name), name) for name in names]
        return [
            ListFile(key, safe, self._instead.get(safe, self._base_dir / name))
            for safe, name in shown
            if safe not in self._without
        ]
