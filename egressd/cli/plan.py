"""`egressd plan`: what enforcing now would do, before anything is armed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from textwrap import wrap
from typing import Final

from egressd.cli.client import Answer
from egressd.cli.exit_codes import OK
from egressd.cli.screen import Column, Row, add_read_arguments, date, first, number, read, rows, table, text, texts
from egressd.cli.terminal import cut, room
from egressd.cli.typed import whole_number
from egressd.plural import count

MAX_DAYS: Final = 3_650
_COLUMNS: Final = (
    Column("WOULD"),
    Column("TARGET", least=20),
    Column("HOSTS", right=True),
    Column("CONTACTS", right=True),
    Column("LAST (UTC)"),
    Column("RULE", least=10),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--days", metavar="N", type=_days, default=7, help="how many days of history (default: 7)")
    parser.add_argument("--segment", metavar="NAME", help="only what machines of this segment contacted")
    add_read_arguments(parser, long=True)


def run(args: Namespace) -> int:
    """Show it."""
    asked = {"days": args.days} | ({"segment": args.segment} if args.segment else {})
    read(args, "plan", asked, lambda answer, now_us: render_plan(answer, args.rows))
    return OK


def render_plan(answer: Answer, limit: int) -> list[str]:
    """The lines under the head."""
    one = answer.result
    days = number(one, "days")
    found = rows(one, "rows")
    acts = [row for row in found if text(row, "action") in ("block", "isolate")]
    asks = sum(text(row, "action") == "ask" for row in found)
    where = f" in segment {text(one, 'segment')}" if one.get("segment") else ""
    lines = [
        *wrap(
            f"Enforcing{where} in the last {count(days, 'day')} would have made {count(len(acts), 'block')}"
            f" and asked {count(asks, 'time')}:",
            room(),
        ),
        cut(f"{_hosts_hit(one)}, {count(number(one, 'contacts'), 'contact')} stopped"),
    ]
    free = [row for row in acts if row.get("keeps_nobody") is True]
    shared = [row for row in acts if number(row, "shared_names") and row not in free]
    guarded = [row for row in found if row.get("guard")]
    back = [row for row in acts if row.get("rollback")]
    if free:
        lines.append(f"!! {count(len(free), 'block')} would keep nobody from anything: by name only")
    if shared:
        lines.append(
            cut(f"{count(len(shared), 'target')} on addresses that other names share: not blocked for everybody")
        )
    if guarded:
        lines.append(f"!! {count(len(guarded), 'target')} under a guarded site")
    if back:
        lines.append(f"!! {count(len(back), 'block')} would be TAKEN BACK: over the budget of clients")
    if not found and not number(one, "hosts_seen"):
        none = f"No host was seen in the last {count(days, 'day')}, so nothing is known of what enforcing would do."
        return [*wrap(none, room()), "History fills while egressd runs: ask again later."]
    if not found:
        return [*lines, "", "Nobody contacted a listed name or address (of listed URLs, egressd incidents)."]
    shown, more = first(found, limit)
    lines += ["", *table(_COLUMNS, [_cells(row) for row in shown], [_under(row) for row in shown]), *more]
    if number(one, "left_out"):
        lines.append(f"... and {number(one, 'left_out'):,} more with fewer hosts")
    return [*lines, "", "Next: egressd mode enforce --segment NAME --reason TEXT   (arm one segment)"]


def _hosts_hit(one: Row) -> str:
    seen = number(one, "hosts_seen")
    if not seen:  # incidents are older than history, or there is none
        return f"{count(number(one, 'hosts'), 'host')} hit, of how many is not known (no history)"
    return f"{number(one, 'hosts'):,} of {count(seen, 'host')} hit"


def _days(typed: str) -> int:
    return whole_number(typed, 1, MAX_DAYS, f"1 to {MAX_DAYS} days")


def _cells(row: Row) -> list[str]:
    return [
        text(row, "action", 8),
        text(row, "target"),
        f"{number(row, 'hosts'):,}",
        f"{number(row, 'contacts'):,}",
        date(row.get("last")),
        text(row, "rule") or "-",
    ]


def _under(row: Row) -> str:
    kind = text(row, "kind", 17).replace("_", " ")
    said = [f"{kind}, {text(row, 'source')}, from {', '.join(texts(row, 'clients'))}"]
    if row.get("keeps_nobody") is True:
        why = "one page of a site" if text(row, "kind") == "url" else "protected or shared"
        said.insert(0, f"keeps nobody from it: {why}")
    if number(row, "shared_names"):
        said.append(f"shared with {', '.join(texts(row, 'shared'))}")
    said += [text(row, key) for key in ("guard", "rollback") if row.get(key)]
    if text(row, "action") not in ("block", "isolate"):
        said.append(text(row, "reason"))
    return "; ".join(said)
