"""`egressd decisions [ID]`: what was decided, by whom and why; what waits for a person first."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final

from egressd.cli.client import Answer, ClientError
from egressd.cli.exit_codes import OK, RUNTIME
from egressd.cli.screen import (
    Column,
    Row,
    add_read_arguments,
    date,
    fields,
    first,
    listed,
    number,
    observed,
    part,
    read,
    rows,
    table,
    text,
    texts,
    time_us,
)
from egressd.cli.terminal import cut
from egressd.cli.typed import decision_id
from egressd.plural import count

STATES: Final = ("open", "proposed", "active", "withdrawn", "expired", "undone", "all")
_COLUMNS: Final = (
    Column("ID"),
    Column("STATE"),
    Column("ACTION"),
    Column("MADE (UTC)"),
    Column("BY", least=12),
    Column("TARGET", least=20),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", nargs="?", metavar="ID", type=decision_id, help="all about one, such as D12")
    parser.add_argument(
        "--state",
        metavar="STATE",
        choices=STATES,
        help="those that are " + ", ".join(STATES[:-1]) + ", or all; open is proposed or active (default: open)",
    )
    add_read_arguments(parser, long=True)


def run(args: Namespace) -> int:
    """Show them."""

    def render(answer: Answer, now_us: int) -> list[str]:
        if args.id:
            return _one(args.id, rows(answer.result, "decisions"))
        return render_decisions(answer, now_us, args.rows)

    read(args, "decisions", {"state": args.state, "id": args.id}, render)
    return OK


def render_decisions(answer: Answer, now_us: int, limit: int) -> list[str]:
    """The lines under the head."""
    found = rows(answer.result, "decisions")
    if not found:
        return observed(answer, "No such decision")
    found.sort(key=lambda one: (text(one, "state") != "proposed", -time_us(one.get("created"))))
    waiting = sum(1 for one in found if text(one, "state") == "proposed")
    newest = "the newest " if answer.result.get("more") is True else ""
    lines = [newest + count(len(found), "decision") + (f"; {waiting:,} WAITING for a person" if waiting else "")]
    broken = sum(1 for one in found for state in _states(one) if state == "failed")
    if broken:
        lines.append(f"!! {count(broken, 'target')} FAILED: not in force where it should be; egressd decisions ID")
    shown, more = first(found, limit)
    lines += ["", *table(_COLUMNS, [_cells(one) for one in shown], [text(one, "reason") for one in shown])]
    lines += [*more, ""]
    top = text(found[0], "id", 20)
    if waiting:
        lines.append(cut(f"Next: egressd decisions {top}; then egressd approve {top}, or egressd reject {top}"))
    else:
        lines.append(cut(f"Next: egressd decisions {top}   (all about one); egressd undo ID"))
    return lines


def _waiting(one: Row) -> list[str]:
    """What a person needs who says yes or no."""
    clients = texts(one, "clients")
    more = f" and {number(one, 'hosts') - len(clients)} more" if number(one, "hosts") > len(clients) else ""
    return fields(
        ("taken back", text(one, "taken_back")),
        ("met by", f"{count(number(one, 'hosts'), 'host')}: {', '.join(clients)}{more}"),
        ("contacts", f"{number(one, 'contacts'):,}"),
        ("approving", text(one, "approving")),
        ("lapses", f"{date(one.get('lapses'))} UTC, if nobody decides"),
    )


def _ended(one: Row) -> str:
    """Since when, by whom and why it stands no more; "" while it does."""
    if not one.get("ended"):
        return ""
    return f"{date(one.get('ended'))} UTC by {text(one, 'ended_by')}: {text(one, 'ended_reason') or 'no reason given'}"


def _states(one: Row) -> list[str]:
    return [text(place, "state") for target in rows(one, "targets") for place in rows(target, "enforcements")]


def _action(one: Row) -> str:
    """What people call it: a machine is isolated, a segment cut."""
    kind = next((text(target, "kind") for target in rows(one, "targets")), "")
    action = text(one, "action", 8)
    return {"client": "isolate", "segment": "cut"}.get(kind, action) if action == "block" else action


def _cells(one: Row) -> list[str]:
    targets = rows(one, "targets")
    shown = text(targets[0], "value") if targets else text(one, "registered_domain")
    return [
        text(one, "id", 20),
        text(one, "state", 9),
        _action(one),
        date(one.get("created")),
        text(one, "author"),
        shown + (f" +{len(targets) - 1}" if len(targets) > 1 else "") or "-",
    ]


def _one(wanted: str, found: Sequence[Row]) -> list[str]:
    one = next((row for row in found if row.get("id") == wanted), None)
    if one is None:
        raise ClientError(f"there is no decision {wanted}; egressd decisions lists them", RUNTIME)
    lines = [cut(f"Decision {wanted}: {_action(one)}, {text(one, 'state', 20)}")]
    lines += fields(
        ("why", text(one, "reason")),
        ("made", f"{date(one.get('created'))} UTC in mode {text(one, 'mode', 10)} by {text(one, 'author')}"),
        ("rule", f"{text(one, 'rule')}, evidence {text(one, 'evidence', 10) or '-'}"),
        ("name", text(one, "name")),
        ("under", text(one, "registered_domain")),
        ("listed as", listed(part(one, "indicator"))),
        ("first seen", text(one, "client")),
        ("campaign", text(one, "campaign")),
        ("ended", _ended(one)),
    )
    targets = rows(one, "targets")
    lines += [""] if targets else []
    waits = text(one, "state") == "proposed"
    for target in targets:
        expires = date(target.get("expires"))
        until = f" until {expires}" if expires != "-" and not waits and text(target, "state") == "active" else ""
        state = "not blocked, waits" if waits and text(target, "state") == "active" else text(target, "state", 12)
        lines.append(cut(f"{text(target, 'kind', 17)} {text(target, 'value', 45)}: {state}{until}"))
        for place in rows(target, "enforcements"):
            state, detail = text(place, "state", 12), text(place, "detail")
            loud = "!! " if state == "failed" else "   "
            shown = state.upper() if state == "failed" else state
            lines.append(cut(f"{loud}{text(place, 'adapter', 20)}: {shown}{', ' + detail if detail else ''}"))
    waiting = one.get("waiting")
    if isinstance(waiting, dict):
        lines += ["", *_waiting(waiting)]
    if waits:
        return [*lines, "", f"Next: egressd approve {wanted}, or egressd reject {wanted}"]
    undo = "" if one.get("ended") else f"; egressd undo {wanted}"
    return [*lines, "", f"Next: egressd watch {wanted}{undo}"]
