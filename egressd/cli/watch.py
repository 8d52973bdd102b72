"""`egressd watch [ID]`: what was blocked and who still tries; with an ID every client and address of one block."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from egressd.cli.client import Answer
from egressd.cli.exit_codes import OK
from egressd.cli.screen import (
    Column,
    Row,
    add_read_arguments,
    ago,
    cut_off,
    date,
    device,
    first,
    let_through,
    number,
    observed,
    part,
    read,
    rows,
    table,
    text,
    time_us,
)
from egressd.cli.terminal import cut, span
from egressd.cli.typed import decision_id
from egressd.plural import count

SPARED: Final = 3  # of what stays open that is shown
_BLOCKS: Final = (
    Column("ID"),
    Column("STATE"),
    Column("TARGET", least=16),
    Column("SINCE (UTC)"),
    Column("HOSTS", right=True),
    Column("TRIES", right=True),
    Column("LEAKS", right=True),
    Column("LAST TRY"),
)
_CLIENTS: Final = (
    Column("HOST", least=15),
    Column("FIRST TRY"),
    Column("LAST TRY"),
    Column("TRIES", right=True),
    Column("LEAKS", right=True),
)
_ADDRESSES: Final = (
    Column("KIND"),
    Column("STATE"),
    Column("UNTIL"),
    Column("LEVEL", right=True),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", nargs="?", metavar="ID", type=decision_id, help="all about one block, such as D12")
    add_read_arguments(parser, long=True)


def run(args: Namespace) -> int:
    """Show it."""
    render = render_watch if args.id else render_watches
    read(args, "watch", {"id": args.id}, lambda answer, now_us: render(answer, now_us, args.rows))
    return OK


def render_watches(answer: Answer, now_us: int, limit: int) -> list[str]:
    """The lines under the head for all blocks: leaks first, then the last tried."""
    watches = rows(answer.result, "watches")
    if not watches:
        return ["No block is watched.", *observed(answer, "No try to reach a blocked destination observed")]
    watches.sort(key=lambda one: (not number(one, "leaks"), -time_us(one.get("last"))))
    tries, leaks = (sum(number(one, key) for one in watches) for key in ("attempts", "leaks"))
    lines = [f"{count(len(watches), 'block')} watched, {count(tries, 'try', 'tries')} seen"]
    lines += _leaks(leaks)
    shown, more = first(watches, limit)
    lines += ["", *table(_BLOCKS, [_cells(one, now_us) for one in shown]), *more]
    through = let_through([row for one in shown for row in rows(one, "clients")], "first")
    lines += [through, ""] if through else [""]
    return [
        *lines,
        cut(f"Next: egressd watch {text(watches[0], 'decision_id', 20)}   (who tried, and what is blocked)"),
    ]


def render_watch(answer: Answer, now_us: int, limit: int) -> list[str]:
    """The lines under the head for one block."""
    lines = []
    for one in rows(answer.result, "watches")[:1]:
        target = part(one, "target")
        decision = text(one, "decision_id", 20)
        lines.append(cut(f"{decision} {_kept(one)}: {text(target, 'kind', 20)} {text(target, 'value')}"))
        mode = text(one, "mode") or answer.mode
        lines.append(_since(one, mode, now_us))
        lines += _leaks(number(one, "leaks"))
        clients = sorted(rows(one, "clients"), key=lambda row: (not number(row, "leaks"), -time_us(row.get("last"))))
        quiet = span(number(one, "quiet_s") * 1_000_000)
        if clients:
            tries = count(number(one, "attempts"), "try", "tries")
            lines += ["", f"{tries} by {count(len(clients), 'host')}, the last {quiet} ago:"]
            shown, more = first(clients, limit)
            lines += [*table(_CLIENTS, [_client(row, now_us) for row in shown], [device(row) for row in shown]), *more]
            through = let_through(shown, "first")
            lines += [through] if through else []
        else:
            lines += ["", *observed(answer, "No try to reach it observed")]
        addresses = rows(one, "addresses")
        shown, more = first(addresses, limit)
        if addresses:
            title = _title(text(one, "state"), mode)
            stopped = Column("DROPPED" if title == "BLOCKED" else "TRIES", right=True)
            columns = (Column(title, least=15), *_ADDRESSES, stopped)
            lines += ["", *table(columns, [_address(row, text(one, "state")) for row in shown]), *more]
        else:
            lines += ["", _without(one, mode)]
        lines += _open(one)
        who = f"{cut_off(answer, 'CLIENT')}; " if clients else ""
        lines += ["", cut(f"Next: {who}{_then(decision, text(one, 'state'))}")]
    return lines or ["Nothing is watched under that id."]


def _title(state: str, mode: str) -> str:
    """Over the addresses of a decision."""
    if state != "active":
        return "ADDRESS"
    return "WOULD BLOCK" if mode == "monitor" else "BLOCKED"


def _since(one: Row, mode: str, now_us: int) -> str:
    """Whether it is blocked, and when that was decided: it may have been approved or armed later."""
    state, decided = (
        text(one, "state", 12),
        f"decided {date(one.get('since'))} UTC, {ago(one.get('since'), now_us)} ago",
    )
    if state == "active" and _kept(one) == state:
        return f"would be blocked; {decided}" if mode == "monitor" else f"blocked; {decided}"
    return ("!! NOT BLOCKED: waits for a person; " if state == "proposed" else "") + decided


def _then(decision: str, state: str) -> str:
    """What may be done about it beside."""
    return f"egressd unblock {decision} --reason TEXT" if state == "active" else f"egressd decisions {decision}"


def _leaks(leaks: int) -> list[str]:
    return [f"!! {count(leaks, 'try', 'tries')} GOT THROUGH: a blocked target answered"] if leaks else []


def _kept(one: Row) -> str:
    """The state of a block; where all that it led to is protected or shared `active` would say that somebody is kept
    from something."""
    state = text(one, "state", 9)
    return "name only" if state == "active" and one.get("name_only") is True else state


def _without(one: Row, mode: str) -> str:
    """Why a block has no address."""
    if text(part(one, "target"), "kind") == "url":
        return "Nobody is kept from it: one page of a site cannot be blocked; list its host."
    if one.get("name_only") is True:
        return "No address is blocked for it: all that it led to are protected or shared."
    then = ": the first that is will be blocked" if text(one, "state") == "active" and mode != "monitor" else ""
    return f"No address of it was seen yet{then}."


def _open(one: Row) -> list[str]:
    """What stays open beside: an address over the budget answers, and nothing else on the screen says so."""
    spared = rows(one, "spared") if text(one, "state") == "active" else []
    lines = [
        cut(f"!! not blocked: {text(row, 'kind', 17)} {text(row, 'value')}: {text(row, 'reason')}")
        for row in spared[-SPARED:]
    ]
    if len(spared) > SPARED:
        lines.append(
            f"   and {len(spared) - SPARED:,} more: egressd explain --live {text(part(one, 'target'), 'value')}"
        )
    return ["", *lines] if lines else []


def _cells(one: Row, now_us: int) -> list[str]:
    last = ago(one.get("last"), now_us)
    return [
        text(one, "decision_id", 20),
        _kept(one),
        text(part(one, "target"), "value"),
        date(one.get("since")),
        f"{len(rows(one, 'clients')):,}",
        f"{number(one, 'attempts'):,}",
        f"{number(one, 'leaks'):,}",
        last if last == "never" else f"{last} ago",
    ]


def _client(row: Row, now_us: int) -> list[str]:
    return [
        text(row, "client"),
        date(row.get("first")),
        f"{date(row.get('last'))} ({ago(row.get('last'), now_us)} ago)",
        f"{number(row, 'count'):,}",
        f"{number(row, 'leaks'):,}",
    ]


def _address(row: Row, of: str) -> list[str]:
    """A row of what a decision in state `of` covers: only of an active one it is in force."""
    expires = date(row.get("expires"))
    state = text(row, "state", 12)
    if of != "active" and state == "active":
        state = "waits" if of == "proposed" else of
    if state != "active":
        expires = ""
    return [
        text(row, "value"),
        text(row, "kind", 17),
        cut(state, 12),
        "as listed" if expires == "-" else expires or "-",
        text(row, "level", 6) or "-",
        f"{number(row, 'packets') or number(row, 'attempts'):,}",
    ]
