"""`egressd feeds`: where each feed stands and what it is worth; `update` asks for new versions, `quarantine` shows the
lines that are kept out, `judge` says of an incident whether the list was right."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any, Final

from egressd.cli.client import Answer
from egressd.cli.exit_codes import OK, USAGE
from egressd.cli.operate import outcome
from egressd.cli.screen import (
    Column,
    Row,
    add_read_arguments,
    ago,
    first,
    number,
    read,
    rows,
    short,
    table,
    text,
    texts,
    wrap,
)
from egressd.cli.terminal import cut, printable
from egressd.cli.typed import MAX_REASON, incident_id
from egressd.plural import count

UPDATE: Final = "update"
QUARANTINE: Final = "quarantine"
JUDGE: Final = "judge"
ACTIONS: Final = (UPDATE, QUARANTINE, JUDGE)
VERDICTS: Final = ("false-positive", "confirmed")
_COLUMNS: Final = (
    Column("FEED", least=12),
    Column("STATE"),
    Column("AGE", right=True),
    Column("LINES", right=True),
    Column("CAME", right=True),
    Column("WENT", right=True),
    Column("KEPT OUT", right=True),
    Column("HITS", right=True),
    Column("ONLY IT", right=True),
    Column("WRONG", right=True),
    Column("RIGHT", right=True),
)
_LINES: Final = (Column("LINE", right=True), Column("KIND"), Column("ENTRY", least=20))


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "action", nargs="?", metavar="ACTION", choices=ACTIONS, help="update, quarantine or judge (default: show all)"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a feed; with judge an incident, such as I3")
    parser.add_argument("verdict", nargs="?", metavar="VERDICT", help="with judge: false-positive or confirmed")
    parser.add_argument("--force", action="store_true", help="with update NAME: take the version whatever its size")
    parser.add_argument("--reason", metavar="TEXT", help="why, for the audit log; judge needs it")
    add_read_arguments(parser, long=True)


def run(args: Namespace) -> int:
    """Show or do it."""
    wrong = _wrong_with(args)
    if wrong:
        print(f"egressd: {wrong}", file=sys.stderr)
        return USAGE
    if args.action == UPDATE:
        return _do(args, "feeds-update", {"feed": args.name, "force": args.force, "reason": args.reason})
    if args.action == JUDGE:
        asked = {"incident": incident_id(args.name), "verdict": args.verdict, "reason": args.reason}
        return _do(args, "feeds-judge", asked)
    if args.action == QUARANTINE:
        read(args, "feeds", {"feed": args.name}, lambda answer, _: render_quarantine(answer, args.rows))
        return OK
    read(args, "feeds", {}, render_feeds)
    return OK


def _wrong_with(args: Namespace) -> str:
    """Why these arguments do not go together, "" when they do."""
    if args.reason is not None and not (0 < len(args.reason.strip()) <= MAX_REASON and args.reason.isprintable()):
        return f"a reason is 1 to {MAX_REASON} printable characters; the audit log keeps it"
    if args.force and not (args.action == UPDATE and args.name):
        return "--force goes with one feed: egressd feeds update NAME --force"
    if args.action == QUARANTINE and not args.name:
        return "name the feed: egressd feeds quarantine NAME"
    if args.action == JUDGE and (args.verdict not in VERDICTS or not args.reason):
        return "write egressd feeds judge I3 false-positive --reason TEXT, or confirmed"
    if args.action == JUDGE:
        try:
            incident_id(args.name)
        except ArgumentTypeError as error:
            return str(error)
    if args.action != JUDGE and args.verdict is not None:
        return f"{printable(args.verdict, 40)} goes with judge only"
    return ""


def _do(args: Namespace, verb: str, asked: dict[str, Any]) -> int:
    read(args, verb, asked, lambda answer, _: outcome(answer, undo=False))
    return OK


def render_feeds(answer: Answer, now_us: int) -> list[str]:
    """The lines under the head."""
    feeds = rows(answer.result, "feeds")
    off = texts(answer.result, "disabled")
    lines = [cut(count(len(feeds), "feed") + (f"; disabled: {', '.join(off)}" if off else ""))]
    for one in feeds:
        lines += _problem(one)
    if not feeds:
        return [*lines, "Name some under feeds: in the configuration (see config/feeds.example.yaml)."]
    lines += ["", *table(_COLUMNS, [_cells(one, now_us) for one in feeds])]
    judged = rows(answer.result, "lists_judged")
    if judged:
        lines += ["", "Lists that somebody judged (wrong, right):"]
        lines += [
            cut(f"  {text(one, 'source')}: {number(one, 'false_positives')}, {number(one, 'confirmed')}")
            for one in judged
        ]
    return lines


def render_quarantine(answer: Answer, limit: int) -> list[str]:
    """The lines under the head: what is kept out of one feed, and why."""
    (feed,) = rows(answer.result, "feeds")[:1] or [{}]
    found = rows(answer.result, "quarantine")
    quarantined, bad = number(feed, "quarantined"), number(feed, "bad_lines")
    total = quarantined + bad
    which = f": {quarantined:,} quarantined, {bad:,} that cannot be read" if quarantined and bad else ""
    lines = [cut(f"{text(feed, 'name')}: {count(total, 'line')} kept out{which}")]
    lines += _problem(feed)
    if not found:
        return lines
    shown, more = first(found, limit)
    cells = [[f"{number(one, 'line')}", text(one, "kind"), text(one, "value")] for one in shown]
    lines += ["", *table(_LINES, cells, [text(one, "reason") for one in shown]), *more]
    if total > len(found):
        lines.append(f"The first {len(found):,} are kept to be shown.")
    return lines


def _problem(feed: Row) -> list[str]:
    """What is wrong with a feed, loud; nothing when nothing is."""
    problem = text(feed, "problem")
    return wrap(f"!! {text(feed, 'name')}: ", problem.split(" "), " ") if problem else []


def _cells(one: Row, now_us: int) -> list[str]:
    counts = ("indicators", "added", "removed")
    worth = ("hits", "unique_hits", "false_positives", "confirmed")
    kept_out = number(one, "quarantined") + number(one, "bad_lines")
    return [
        text(one, "name"),
        text(one, "state", 8).strip(),
        ago(one.get("last_ok"), now_us),
        *(short(one, key) for key in counts),
        f"{kept_out:,}",
        *(short(one, key) for key in worth),
    ]
