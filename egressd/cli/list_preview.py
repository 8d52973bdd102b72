"""`egressd list preview`: what a change of lists would hit and lift, from the daemon's history. Nothing is changed."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final

from egressd.cli import list_effect, list_where
from egressd.cli.client import add_socket_argument
from egressd.cli.exit_codes import OK
from egressd.cli.list_diff import Difference, difference, namesake, said_in
from egressd.cli.list_where import Site, load_site
from egressd.cli.parser import Parser
from egressd.cli.screen import show
from egressd.cli.terminal import print_json
from egressd.config.texts import escape_path
from egressd.errors import ConfigError, Problem
from egressd.intel.lines import Wrong, problem_at
from egressd.intel.list_edit import parse_wanted

WHAT: Final = "say what a change of lists would hit and lift, before it is made"
SOURCE: Final = "change"  # what problems call a change that was typed
# As files of lists end. None is a top-level domain, so nobody lists names below them.
FILE_ENDINGS: Final = frozenset(
    ("txt", "list", "lst", "csv", "tsv", "json", "jsonl", "conf", "cfg", "yaml", "yml", "hosts", "rpz", "rules", "gz",
     "bak", "tmp")
)  # fmt: skip
_COVER: Final = "\0"


class ChangeParser(Parser):
    """One for which `-bad.example` is a change and no option, before options, between and behind them."""

    _reading = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it."""
        words = list(sys.argv[1:] if args is None else args)
        if self._reading or self.get_default("run") is not run:
            return super().parse_known_args(words, namespace)
        if "--" in words:
            end = words.index("--")
            words = [*map(_covered, words[:end]), *(_COVER + word for word in words[end + 1 :])]
        else:
            words = [*map(_covered, words)]
        self._reading = True  # the next line asks this method again
        try:
            return self.parse_known_intermixed_args(words, namespace)
        finally:
            self._reading = False


def _covered(word: str) -> str:
    """A change that would look like an option gets a first character that no argument can have."""
    is_change = word[:1] == "-" and word[1:2] not in ("-", "") and word != "-h"
    return _COVER + word if is_change else word


def _uncovered(word: str) -> str:
    return word.removeprefix(_COVER)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "changes",
        metavar="CHANGE",
        nargs="+",
        type=_uncovered,
        help="+LINE or LINE: would be added; -VALUE: would be taken out; a FILE: what in it differs from the "
        "configuration's file of that name, or all of it",
    )
    parser.add_argument("--json", action="store_true", help="the daemon's result, one object")
    list_where.add_arguments(parser, allow="the changes are allowances")
    add_socket_argument(parser)


def run(args: Namespace) -> int:
    """Ask and show."""
    site = load_site(args)
    asked: list[str] = []
    reasons: list[str] = []
    for number, word in enumerate(args.changes, 1):
        changes, why = _of_word(site, word, number)
        asked += changes
        reasons += why
    effect = list_effect.ask_effect(args, asked, list(dict.fromkeys(reasons)))
    if args.json and effect.answer is not None:
        more = {"reasons": list(effect.reasons), "uncounted": effect.uncounted}
        print_json({**effect.answer.result, **more})
    elif not args.json:
        show(list_effect.effect_lines(effect, allow=site.allow))
    list_effect.require_answer(effect)
    if not args.json:
        print("Nothing was changed." if asked else "Nothing differs.")
    return OK


def _of_word(site: Site, word: str, number: int) -> tuple[list[str], list[str]]:
    """What to ask for one change, and our own reasons against it. Raises ConfigError."""
    sign, rest = (word[0], word[1:].strip()) if word[:1] in ("+", "-") else ("", word)
    if not sign and os.path.isfile(word):  # noqa: PTH113  False for what no file can be called
        return _of_file(site, Path(word))
    if not sign and looks_like_path(word):
        what = f"there is no file {escape_path(word)}"
        raise ConfigError([Problem(SOURCE, number, 1, what, f"if it is a line to add, write +{escape_path(word)}")])
    try:
        if sign == "-":
            wanted = parse_wanted(rest, allow=site.allow)
            return ([] if site.allow else [list_effect.removal(wanted)]), []
    except Wrong as wrong:
        raise ConfigError([problem_at(SOURCE, number, wrong)]) from None
    if site.allow:
        return list_effect.allowance_change(rest), []
    indicators, problems = site.listed("\n" * (number - 1) + rest, SOURCE)
    if problems or not indicators:
        raise ConfigError(problems or [Problem(SOURCE, number, 1, "lists nothing", "name what would be listed")])
    return [list_effect.change("+", rest)], site.reasons(indicators)


def looks_like_path(word: str) -> bool:
    """Whether a person who wrote this meant a file: it stands for a folder, or ends as lists do and no name does."""
    if word.startswith(("/", "./", "../", "~")):
        return True
    return "://" not in word and " " not in word and word.rpartition(".")[2].lower() in FILE_ENDINGS


def _of_file(site: Site, path: Path) -> tuple[list[str], list[str]]:
    new, problems = said_in(site, path)
    if problems:
        raise ConfigError(problems)
    other = namesake(site, path)
    return changes_of(site, difference(said_in(site, other)[0] if other is not None else [], new))


def changes_of(site: Site, found: Difference) -> tuple[list[str], list[str]]:
    """What to ask of a difference, and our own reasons against what it adds. A value that stays listed, with other
    words, is not taken out."""
    if site.allow:
        return [change for one in found.added for change in list_effect.allowance_change(one.text)], []
    added = [one.indicator for one in found.added if one.indicator is not None]
    removed = [one.indicator for one in found.removed if one.indicator is not None]
    stays = {(one.kind, one.value) for one in added}
    asked = [list_effect.indicator_change("+", one, site) for one in added]
    asked += [list_effect.indicator_change("-", one, site) for one in removed if (one.kind, one.value) not in stays]
    return asked, site.reasons(added)
