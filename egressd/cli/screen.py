"""What the screens of the live verbs share: their head, tables, colour, and careful reading of answers.

Whatever the daemon says goes through `text`, so that no byte of a hostile name reaches the terminal as it was. The
readers never fail: a field that is absent or of another type reads as nothing.
"""

from __future__ import annotations

import os
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from egressd.cli.client import TIMEOUT_S, Answer, add_socket_argument, ask
from egressd.cli.terminal import cut, fit, print_json, printable, room, span
from egressd.cli.typed import whole_number
from egressd.plural import count

Row = Mapping[str, Any]

MODES: Final = {
    "monitor": "mode MONITOR: nothing is blocked",
    "approve": "mode APPROVE: blocks wait for a person",
    "enforce": "mode ENFORCE: listed destinations are blocked",
}
ROWS: Final = 40
_RED, _BOLD, _PLAIN = "\x1b[1;31m", "\x1b[1m", "\x1b[0m"
_LOUD: Final = re.compile(
    r"^!!.*$|\bGOT THROUGH\b|\bDOWN\b|\b[1-9][0-9,]* LEAKS?\b|\bFAILED\b|\bBROKEN\b|\bSTILL TRYING\b|\bmode ENFORCE\b"
)


# -- reading answers


def text(row: Row, key: str, width: int = 0) -> str:
    """A field as printable text, "" when it is absent; fitted to `width` when given."""
    value = row.get(key)
    return printable(value, width) if isinstance(value, str) else str(value) if type(value) in (int, float) else ""


def number(row: Row, key: str) -> int:
    """A whole number, 0 when it is absent."""
    value = row.get(key)
    return int(value) if isinstance(value, (int, float)) and abs(value) < 1e18 else 0


def rows(row: Row, key: str) -> list[Row]:
    """A list of objects."""
    value = row.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def texts(row: Row, key: str) -> list[str]:
    """A list of texts, each printable."""
    value = row.get(key)
    return [printable(str(one)) for one in value] if isinstance(value, list) else []


def part(row: Row, key: str) -> Row:
    """An object inside an object."""
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def time_us(value: object) -> int:
    """ISO 8601 as microseconds of epoch; 0 for what is none."""
    if not isinstance(value, str):
        return 0
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return 0
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def date(value: object) -> str:
    """`11-25 17:14`, in UTC; `-` for none."""
    us = time_us(value)
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%m-%d %H:%M}" if us > 0 else "-"


def ago(value: object, now_us: int) -> str:
    """`3m20s`, how long it is past; `never` for none."""
    us = time_us(value)
    return span(now_us - us) if us else "never"


# -- layout


class Column(NamedTuple):
    """One column of a table. Where the table is too wide, one with a `least` width gives way down to that, and in need
    to that of its title; numbers stand right."""

    title: str
    right: bool = False
    least: int = 0


def table(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], under: Sequence[str] = (), width: int = 0
) -> list[str]:
    """Lines of a table that is at most `width` wide, `room` when not given; texts that do not fit lose their middle.
    `under` has a text to stand under each row, where not empty."""
    widths = [max(len(c.title), *(len(row[i]) for row in cells), 0) for i, c in enumerate(columns)]
    width = width or room()
    left = width - (len(columns) - 1)
    for in_need in (False, True):
        while sum(widths) > left:
            least = [len(c.title) if in_need else max(c.least, len(c.title)) for c in columns]
            wide = [i for i, c in enumerate(columns) if c.least and widths[i] > least[i]]
            if not wide:
                break
            widths[max(wide, key=lambda i: widths[i])] -= 1
    lines = []
    for i, row in enumerate([[column.title for column in columns], *cells]):
        shown = [
            f"{fit(cell, size):>{size}}" if column.right else f"{fit(cell, size):<{size}}"
            for column, cell, size in zip(columns, row, widths, strict=True)
        ]
        lines.append(cut(" ".join(shown).rstrip(), width))
        if i and under and under[i - 1]:
            lines.append(cut(f"   {under[i - 1]}", width))
    return lines


def short(row: Row, key: str) -> str:
    """A count in at most six columns: `99,999`, `123k`, `4.5M`."""
    size = number(row, key)
    for unit, one in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 1_000)):
        if size >= one and size >= 100_000:
            return f"{size / one:.1f}{unit}" if size < 10 * one else f"{size // one}{unit}"
    return f"{size:,}"


def wrap(head: str, parts: Sequence[str], separator: str = ", ", width: int = 0) -> list[str]:
    """`head` and the parts behind it, going on under the first part where a line is full."""
    width = width or room()
    indent = " " * len(head)
    lines = [head]
    for i, one in enumerate(parts):
        more = one + (separator.rstrip() if i < len(parts) - 1 else "")
        joined = lines[-1] + (" " if lines[-1] not in (head, indent) else "") + more
        if len(joined) <= width or lines[-1] in (head, indent):
            lines[-1] = joined
        else:
            lines.append(indent + more)
    return [cut(line.rstrip(), width) for line in lines]


def wrap_short(said: str, head: str = "!! ") -> list[str]:
    """`head` and a text, on three lines at most."""
    filled = wrap(head, said.split(" "), " ")
    return filled if len(filled) <= 3 else [*filled[:2], cut(filled[2] + " ..")]


def fields(*pairs: tuple[str, str]) -> list[str]:
    """Lines of label and text for those that have a text; at most three lines for one."""
    lines = []
    for label, value in pairs:
        if value:
            lines += wrap_short(value, f"  {label:<11}")
    return lines


def counts(row: Row, key: str) -> str:
    """An object of name to count as `b.evil.example 48, c.evil.example 4`, the most first; at most 8 are named."""
    inside = part(row, key)
    ranked = sorted(inside, key=lambda name: (-number(inside, name), name))
    named = [f"{printable(name, 60)} {number(inside, name):,}" for name in ranked[:8]]
    return ", ".join(named) + (f" and {len(ranked) - 8:,} more" if len(ranked) > 8 else "")


def listed(indicator: Row) -> str:
    """An indicator and the line it comes from: `a.evil.example (cnc.txt:6), apt-x`."""
    value = text(indicator, "value", 90)
    if not value:
        return ""
    source = text(indicator, "source").rsplit("/", 1)[-1]
    threat = text(indicator, "threat", 30)
    if source.startswith("behaviour:"):
        return f"on no list: behaviour, score {number(indicator, 'confidence')} of 99"
    return f"{value} ({source}:{number(indicator, 'line')})" + (f", {threat}" if threat else "")


def head_lines(answer: Answer) -> list[str]:
    """The first line of every screen, and loud ones for what makes it untrue: of sensors, rules and the ledger."""
    seen = f"; {count(answer.packets, 'packet')} seen"
    mode = MODES.get(answer.mode, f"mode {printable(answer.mode)}")
    if answer.modes:  # what the mode means does not hold for all
        mode = f"{mode.partition(':')[0]}, {count(answer.modes, 'segment')} under another (egressd status)"
    lines = [cut(mode + seen)]
    if answer.down:
        lines.append(
            cut(f"!! SENSOR DOWN: {', '.join(map(printable, answer.down))}. What follows misses what it did not see.")
        )
    if answer.failing:
        names = ", ".join(printable(one) for one in answer.failing)
        lines.append(cut(f"!! RULES FAIL: {names}. What is blocked may get through. See: egressd status"))
    if answer.unwritten:
        lines.append(
            cut(f"!! LEDGER NOT WRITTEN: {count(answer.unwritten, 'change')} may be missing. See: egressd status")
        )
    return lines


def observed(answer: Answer, what: str) -> list[str]:
    """What to say when there is nothing to show: never "clean", for nobody can know that."""
    said = f"{what} in {count(answer.packets, 'packet')} since {date(answer.since)} UTC."
    return [*wrap("", said.split(" "), " "), "What could not be seen: egressd status, BLIND."]


def paint(line: str) -> str:
    """The line with colour where it has to be seen."""
    return _LOUD.sub(lambda found: (_BOLD if found[0].startswith("mode") else _RED) + found[0] + _PLAIN, line)


def show(lines: Sequence[str]) -> None:
    """Print a screen; colour on a terminal only, and not for who asked for none (no-color.org)."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for line in lines:
        print(paint(line) if colour else line)


def cut_off(answer: Answer, client: str) -> str:
    """What a person does at once about a client; in monitor, where the command is refused, by hand."""
    if answer.blocks_nothing:
        return f"unplug {client}: in monitor nobody is isolated (egressd mode)"
    return f"egressd isolate {client} --reason TEXT"


def let_through(shown: Sequence[Row], tried_since: str) -> str:
    """Of rows whose tries count from the time under `tried_since` on: how many were made while nothing was blocked, or
    that some may be; "" when none."""
    armed = {date(one.get("armed")) for one in shown if time_us(one.get(tried_since)) < time_us(one.get("armed"))}
    through = sum(number(one, "let_through") for one in shown)
    tries = sum(number(one, "attempts") or number(one, "count") for one in shown)
    if not armed and (not through or through == tries):
        return ""
    if not through:
        when = f"before {armed.pop()} UTC" if len(armed) == 1 else "from before a segment was armed"
        return f"TRIES {when} were let through: the mode was monitor."
    when = f"in monitor until {armed.pop()} UTC." if len(armed) == 1 else "in monitor: see egressd mode."
    return f"{through:,} of {tries:,} TRIES were let through, {when}"


def device(row: Row) -> str:
    """A device for people: its name, MAC, and whether it made that up; "" when it is not known."""
    mac, name = text(row, "device", 17), text(row, "device_name", 30)
    if not mac:
        return ""
    random = ", a random MAC" if row.get("device_random") is True else ""
    return f"{name} ({mac}{random})" if name else f"{mac}{random}"


def beside(row: Row) -> str:
    """The addresses of a host beside the one that stands for it."""
    others = [one for one in texts(row, "addresses") if one != text(row, "client")]
    return ", ".join(others[:3]) + (f" and {len(others) - 3:,} more" if len(others) > 3 else "")


# -- verbs


def add_read_arguments(parser: ArgumentParser, *, long: bool = False) -> None:
    """What every verb that reads has; `long` for those whose screen may be long."""
    add_socket_argument(parser)
    parser.add_argument("--json", action="store_true", help="the daemon's result, one object")
    if long:
        parser.add_argument(
            "--rows", metavar="N", type=_row_count, default=ROWS, help=f"show at most N (default: {ROWS}; 0 is all)"
        )


def _row_count(typed: str) -> int:
    return whole_number(typed, 0, 999_999_999, "a whole number; 0 is all")


Render = Callable[[Answer, int], list[str]]


def read(args: Namespace, verb: str, arguments: dict[str, Any], render: Render, timeout_s: float = TIMEOUT_S) -> Answer:
    """Ask, and show the screen or, with --json, the result as it is. `render` gets the answer and the time."""
    answer = ask(args, verb, arguments, timeout_s)
    if args.json:
        print_json(answer.result)
    else:
        show(head_lines(answer) + render(answer, time.time_ns() // 1_000))
    return answer


def first(all_rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], list[str]]:
    """The rows to show, and a line that says how many are not."""
    if limit <= 0 or len(all_rows) <= limit:
        return all_rows, []
    return all_rows[:limit], [f"... and {len(all_rows) - limit:,} more; --rows 0 shows all"]
