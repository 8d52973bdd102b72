"""`egressd list convert`: a list in any format, in ours."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from typing import Final

from egressd.cli import list_reading
from egressd.cli.exit_codes import INVALID, OK
from egressd.cli.paths import path_given
from egressd.cli.terminal import printable
from egressd.intel.formats.feed import read_feed
from egressd.intel.formats.judgement import Ignored
from egressd.intel.formats.ours import render_indicator
from egressd.model import Indicator
from egressd.plural import count

WHAT: Final = "write a list of any format in ours, and tell what was left out"
SHOWN: Final = 20  # lines left out that are told one by one; the rest is counted


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", type=path_given, help="the list; - is standard input")
    parser.add_argument("--source", metavar="NAME", default="", help="what to call it (default: its file name)")
    list_reading.add_arguments(parser)


def run(args: Namespace) -> int:
    """Convert it: our format to standard output, what was left out to standard error. A mistake is told by the exit
    code too, whatever else was right."""
    rules = list_reading.load_rules(args)
    found = list_reading.load_list(args.file, args.format, args.source)
    lines: list[str] = []
    told: list[str] = []
    reasons: Counter[str] = Counter()
    problems = 0
    for one in read_feed(found.text, found.format, found.source, rules):
        if type(one) is Indicator:
            lines.append(render_indicator(one))
            continue
        if type(one) is Ignored:
            reasons[one.reason] += 1
            text = f"{found.source}:{one.line}: left out: {one.reason}"
        else:
            problems += 1
            text = str(one)
        if len(told) < SHOWN:
            told.append(text)
    left_out = sum(reasons.values())
    counts = f"{count(len(lines), 'indicator')}, {left_out:,} left out, {count(problems, 'problem')}"
    print(f"# From {printable(found.source)}, format {found.format}: {counts}.")
    sys.stdout.writelines(line + "\n" for line in lines)
    for text in told:
        print(printable(text), file=sys.stderr)
    if left_out + problems > SHOWN:
        print(f"... and {left_out + problems - SHOWN:,} more", file=sys.stderr)
    print(f"egressd: {printable(found.source)}, format {found.format}: {counts}", file=sys.stderr)
    for reason, number in reasons.most_common():
        print(f"  {number:>9,} left out: {reason}", file=sys.stderr)
    return INVALID if problems else OK
