"""`egressd audit [verify]`: who did what, when and why; and whether anybody changed that record."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from re import fullmatch
from typing import Final

from egressd.cli.client import Answer
from egressd.cli.exit_codes import OK, RUNTIME, USAGE
from egressd.cli.screen import Column, Row, add_read_arguments, number, part, read, rows, table, text, wrap_short
from egressd.cli.terminal import printable
from egressd.cli.typed import whole_number
from egressd.plural import count

VERIFY_TIMEOUT_S: Final = 120.0
MAX_ROWS: Final = 10_000
_COLUMNS: Final = (
    Column("SEQ", right=True),
    Column("TIME (UTC)"),
    Column("ACTOR", least=8),
    Column("ACT"),
    Column("OBJECT", least=12),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", nargs="?", metavar="verify", choices=("verify",), help="check the chain of every row")
    parser.add_argument("--head", metavar="SEQ:HASH", type=_head, help="with verify: a head that you kept elsewhere")
    parser.add_argument("--limit", metavar="N", type=_limit, default=40, help="the last N rows (default: 40)")
    parser.add_argument("--actor", metavar="WHO", help="only what this one did, such as uid:alice")
    add_read_arguments(parser)


def run(args: Namespace) -> int:
    """Show or verify; exit 1 when the record was changed."""
    if args.what is None:
        if args.head:
            print("egressd: --head goes with verify: egressd audit verify --head SEQ:HASH", file=sys.stderr)
            return USAGE
        read(args, "audit", {"limit": args.limit, "actor": args.actor}, render_audit)
        return OK
    asked = {"verify": True, "head": args.head}
    answer = read(args, "audit", asked, lambda got, _: render_verdict(got, args.head or ""), VERIFY_TIMEOUT_S)
    return OK if answer.result.get("ok") is True else RUNTIME


def render_audit(answer: Answer, now_us: int) -> list[str]:
    """The lines under the head, the latest last."""
    found = sorted(rows(answer.result, "rows"), key=lambda row: number(row, "seq"))
    lines = table(_COLUMNS, [_cells(row) for row in found], [text(row, "reason") for row in found])
    if not found:
        lines = ["The audit log has no such row."]
    head = head_of(answer.result)
    if head:
        lines += ["", "Keep this head elsewhere; check later with egressd audit verify --head:", head]
    return lines


def render_verdict(answer: Answer, kept: str) -> list[str]:
    """The lines under the head after a verification."""
    checked = count(number(answer.result, "rows"), "row")
    if answer.result.get("ok") is not True:
        problem = text(answer.result, "problem") or "no reason given"
        if answer.result.get("put_back") is True:
            return [
                *wrap_short(f"The audit log has a GAP: {problem}"),
                f"The chain of {checked} that it holds is whole. If that was nobody of you, ask who had root.",
            ]
        return [
            *wrap_short(f"The audit log is BROKEN: {problem}"),
            f"{checked} read. Keep a copy of the ledger; ask who had root.",
        ]
    lines = [f"The chain of {checked} is whole."]
    if kept:
        lines.append(f"The head that you kept, of row {kept.partition(':')[0]}, is in it.")
    else:
        lines.append("Without a head kept elsewhere this cannot see rows cut off at the end: --head")
    head = head_of(answer.result)
    return [*lines, head] if head else lines


def head_of(result: Row) -> str:
    """SEQ:HASH."""
    head = part(result, "head")
    return f"{number(head, 'seq')}:{text(head, 'hash', 64)}" if head else text(result, "head", 90)


def _cells(row: Row) -> list[str]:
    ts = text(row, "ts")
    return [
        f"{number(row, 'seq')}",
        f"{ts[:10]} {ts[11:19]}",
        text(row, "actor"),
        text(row, "act", 10),
        ": ".join(filter(None, [text(row, "object"), _change(row)])),
    ]


def _change(row: Row) -> str:
    """From what to what, where that is said in a word: of modes."""
    before, after = row.get("before"), row.get("after")
    return (
        f"{text(row, 'before')} to {text(row, 'after')}" if isinstance(before, str) and isinstance(after, str) else ""
    )


def _head(typed: str) -> str:
    if not fullmatch("[0-9]{1,18}:[0-9a-f]{64}", typed):
        raise ArgumentTypeError(f"{printable(typed, 40)!r} is no head: SEQ:HASH, as egressd audit shows it")
    return typed


def _limit(typed: str) -> int:
    return whole_number(typed, 1, MAX_ROWS, f"1 to {MAX_ROWS} rows")
