"""`egressd list lint`: every mistake in lists of any format, quickly enough for a pre-commit hook."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Final, NamedTuple

from egressd.cli import list_reading
from egressd.cli.exit_codes import INVALID, OK
from egressd.cli.paths import path_given
from egressd.cli.terminal import print_json, printable
from egressd.errors import ConfigError, Problem
from egressd.intel.formats.feed import read_feed
from egressd.intel.formats.judgement import Ignored, Rules
from egressd.model import Indicator
from egressd.plural import count

WHAT: Final = "find every mistake in lists of any format"


class Verdict(NamedTuple):
    """What a file came to."""

    file: str
    format: str
    indicators: int
    left_out: int
    problems: list[Problem]
    urls: int = 0  # the first of them is on `url_line`
    url_line: int = 0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", type=path_given, help="lists; - is standard input")
    parser.add_argument("--json", action="store_true", help="one object for each file, one a line")
    list_reading.add_arguments(parser)


def run(args: Namespace) -> int:
    """Check everything; problems go to standard output, the verdict to standard error."""
    rules = list_reading.load_rules(args)
    verdicts = [_judge(file, args.format, rules) for file in args.files]
    for one in verdicts:
        if args.json:
            print_json(_as_record(one))
            continue
        for problem in one.problems:
            print(printable(str(problem)))
        if not one.problems:
            left_out = f", {one.left_out:,} left out" if one.left_out else ""
            print(f"{printable(one.file)}: {one.format}, {count(one.indicators, 'indicator')}{left_out}")
            list_reading.warn_of_urls(f"{one.file}:{one.url_line}", one.urls)
    problems = sum(len(one.problems) for one in verdicts)
    if problems:
        print(f"egressd: {count(problems, 'problem')}", file=sys.stderr)
    return INVALID if problems else OK


def _judge(file: str, format_: str | None, rules: Rules) -> Verdict:
    try:
        found = list_reading.load_list(file, format_)
    except ConfigError as error:
        return Verdict(file, "", 0, 0, error.problems)
    indicators = left_out = urls = url_line = 0
    problems: list[Problem] = []
    for one in read_feed(found.text, found.format, found.source, rules):
        if type(one) is Indicator:
            indicators += 1
            urls += one.kind == "url"
            url_line = url_line or (one.line if one.kind == "url" else 0)
        elif type(one) is Ignored:
            left_out += 1
        elif type(one) is Problem:
            problems.append(one)
    return Verdict(found.source, found.format, indicators, left_out, problems, urls, url_line)


def _as_record(verdict: Verdict) -> dict[str, object]:
    problems = [
        {"line": one.line, "column": one.column, "what": one.what, "advice": one.advice} for one in verdict.problems
    ]
    found = verdict._asdict()
    return {**{name: found[name] for name in ("file", "format", "indicators", "left_out")}, "problems": problems}
