"""`egressd list`: what is listed, from files and by operators, and what is allowed. `convert`, `lint` and `diff` work
on files without a daemon; `add`, `rm` and `edit` change files, after a `preview` when a daemon answers."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from typing import Final

from egressd.cli import list_add, list_convert, list_diff, list_edit, list_lint, list_preview, list_rm
from egressd.cli.client import Answer
from egressd.cli.exit_codes import OK
from egressd.cli.screen import Column, Row, add_read_arguments, date, first, number, read, rows, table, text, texts
from egressd.cli.terminal import cut
from egressd.plural import count

_LISTS: Final = (Column("LIST", least=20), Column("INDICATORS", right=True), Column("PROBLEMS", right=True))
_ENTRIES: Final = (
    Column("ID"),
    Column("KIND"),
    Column("MADE"),
    Column("UNTIL"),
    Column("BY", least=12),
    Column("ENTRY", least=20),
)
# What an allowance's line says of who and why stands in other columns already; it left no room for what is allowed.
_WHOSE: Final = re.compile(r'^allow-destination | owner="[^"]*" reason="[^"]*"')
_VERBS: Final = {
    "add": list_add,
    "rm": list_rm,
    "edit": list_edit,
    "preview": list_preview,
    "diff": list_diff,
    "convert": list_convert,
    "lint": list_lint,
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_read_arguments(parser, long=True)
    verbs = parser.add_subparsers(
        dest="list_verb",
        metavar="WHAT",
        help="without it: show what the daemon has",
        parser_class=list_preview.ChangeParser,
    )
    for name, module in _VERBS.items():
        sub = verbs.add_parser(name, help=module.WHAT, description=module.WHAT[0].upper() + module.WHAT[1:] + ".")
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)


def run(args: Namespace) -> int:
    """Show it."""
    read(args, "list", {}, lambda answer, now_us: render_list(answer, now_us, args.rows))
    return OK


def render_list(answer: Answer, now_us: int, limit: int) -> list[str]:
    """The lines under the head."""
    lists, entries = rows(answer.result, "lists"), rows(answer.result, "operator")
    indicators = sum(number(one, "indicators") for one in lists)
    lines = [
        f"{count(len(lists), 'list')} with {count(indicators, 'indicator')};"
        f" {count(number(answer.result, 'allowances'), 'allowance')} in files"
    ]
    if not indicators:
        lines.append("!! NOTHING IS LISTED in files: what is not listed is not found")
    broken = sum(_problems(one) for one in lists)
    if broken:
        lines.append(cut(f"!! {count(broken, 'problem')}: egressd check-config shows each with its line"))
    shown, more = first(lists, limit)
    if lists:
        lines += ["", *table(_LISTS, [_list(one) for one in shown]), *more]
    if not entries:
        return [*lines, "", "Nothing was added by operators."]
    shown, more = first(entries, limit)
    lines += ["", f"Added by operators: {len(entries):,}"]
    return [*lines, *table(_ENTRIES, [_entry(one) for one in shown], [text(one, "reason") for one in shown]), *more]


def _problems(one: Row) -> int:
    return number(one, "problems") or len(texts(one, "problems"))


def _list(one: Row) -> list[str]:
    return [text(one, "source"), f"{number(one, 'indicators'):,}", f"{_problems(one):,}"]


def _entry(one: Row) -> list[str]:
    expires = date(one.get("expires"))
    return [
        text(one, "id", 20),
        text(one, "kind", 9),
        date(one.get("created")),
        "no end" if expires == "-" else expires,
        text(one, "author"),
        _WHOSE.sub("", text(one, "text")),
    ]
