"""`egressd list diff`: what one list has and another has not, whatever their order, comments and formats."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final, NamedTuple

from egressd.cli import list_reading, list_where
from egressd.cli.client import ClientError
from egressd.cli.exit_codes import INVALID, OK, USAGE
from egressd.cli.list_where import Site, load_site
from egressd.cli.paths import path_given
from egressd.cli.terminal import print_json, printable
from egressd.config.texts import escape_path
from egressd.errors import Problem
from egressd.intel.allowances import Allowance, parse_allowances
from egressd.intel.formats.feed import read_feed
from egressd.intel.formats.ours import render_indicator
from egressd.intel.lines import render_option, render_time
from egressd.intel.networks import parse_network
from egressd.model import Indicator
from egressd.plural import count

WHAT: Final = "show what a list has and another has not"


class Said(NamedTuple):
    """One thing that a list says: its line, and in full what it says, the same for every spelling."""

    line: int
    text: str
    indicator: Indicator | None


class Difference(NamedTuple):
    """What only the one and only the other list says, in order of lines."""

    removed: list[Said]
    added: list[Said]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", type=path_given, help="a list; what only it has is told with +")
    parser.add_argument(
        "against",
        metavar="AGAINST",
        type=path_given,
        nargs="?",
        help="what only this has is told with -: a path, or the name of a file of the configuration (default: that of"
        " FILE's name)",
    )
    parser.add_argument("--json", action="store_true", help="one object")
    list_where.add_arguments(parser, allow="the files are allowances")


def run(args: Namespace) -> int:
    """Compare them."""
    site = load_site(args)
    against = _against(site, args.against) if args.against else namesake(site, Path(args.file))
    if against is None:
        raise ClientError(
            f"the configuration names no other file called {Path(args.file).name}, or several; say AGAINST what", USAGE
        )
    old, problems = said_in(site, against)
    new, more = said_in(site, Path(args.file))
    found = difference(old, new)
    shown = escape_path(against), escape_path(args.file)
    if args.json:
        record = {"against": shown[0], "file": shown[1], **{key: _told(getattr(found, key)) for key in found._fields}}
        print_json(record)
    elif found.removed or found.added:
        print(f"--- {shown[0]}\n+++ {shown[1]}")
        for sign, said in (("-", found.removed), ("+", found.added)):
            sys.stdout.writelines(f"{sign}{one.line}: {printable(one.text)}\n" for one in said)
    for problem in (*problems, *more):
        print(printable(str(problem)), file=sys.stderr)
    gone, came = len(found.removed), len(found.added)
    print(f"egressd: {count(gone, 'line')} only in {shown[0]}, {came:,} only in {shown[1]}", file=sys.stderr)
    return INVALID if problems or more else OK


def _against(site: Site, named: str) -> Path:
    """The file of that path; a name alone that is no file here may be one of the configuration's."""
    path = Path(named)
    return path if "/" in named or os.path.lexists(path) else namesake(site, path) or path


def namesake(site: Site, path: Path) -> Path | None:
    """The configuration's file of the same name, when there is one that is another file."""
    alike = [one.path for one in site.files() if one.path.name == path.name and one.path.is_file()]
    other = [one for one in alike if os.path.realpath(one) != os.path.realpath(path)]
    return other[0] if len(other) == 1 else None


def said_in(site: Site, path: Path) -> tuple[list[Said], list[Problem]]:
    """What a list of any format says, or allowances, and what is wrong in it. Raises ConfigError."""
    found = list_reading.load_list(str(path), "egressd" if site.allow else None)
    return say(site, found.text, found.source, found.format)


def say(site: Site, text: str, name: str, format_: str = "egressd") -> tuple[list[Said], list[Problem]]:
    """As `said_in`, of a text."""
    if site.allow:
        allowances, problems = parse_allowances(text, name, site.rules.suffixes)
        return [Said(one.line, _allowance(one), None) for one in allowances], problems
    said: list[Said] = []
    problems = []
    for one in read_feed(text, format_, name, site.rules):
        if type(one) is Indicator:
            said.append(Said(one.line, render_indicator(one), one))
        elif type(one) is Problem:
            problems.append(one)
    return said, problems


def difference(old: list[Said], new: list[Said]) -> Difference:
    """What must be taken out of `old` and added to it to say what `new` says."""
    before, after = {one.text for one in old}, {one.text for one in new}
    return Difference([one for one in old if one.text not in after], [one for one in new if one.text not in before])


def _told(said: list[Said]) -> list[dict[str, Any]]:
    return [{"line": one.line, "text": one.text} for one in said]


def _allowance(one: Allowance) -> str:
    url = "http://" if "/" in one.value and parse_network(one.value) is None else ""
    words = [one.kind, url + one.value, *([f"client={one.client}"] if one.client else [])]
    words += [render_option("owner", one.owner), render_option("reason", one.reason)]
    return " ".join([*words, *([f"expires={render_time(one.expires_s)}"] if one.expires_s else [])])
