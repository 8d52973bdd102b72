"""`egressd incidents [ID]`: what a person has to handle, one per client and campaign; with an ID all of one."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from egressd.cli.client import Answer, ClientError
from egressd.cli.exit_codes import OK, RUNTIME
from egressd.cli.screen import (
    Column,
    Row,
    add_read_arguments,
    ago,
    beside,
    counts,
    cut_off,
    date,
    device,
    fields,
    first,
    let_through,
    listed,
    number,
    observed,
    part,
    read,
    rows,
    short,
    table,
    text,
    texts,
    time_us,
    wrap,
)
from egressd.cli.terminal import cut, span
from egressd.cli.typed import incident_id
from egressd.model import TAP
from egressd.plural import count

NOTES: Final = 10  # on the screen; --json has them all
NOTE_LINES: Final = 6
TIES: Final = 5

_COLUMNS: Final = (
    Column("ID"),
    Column("CASE"),
    Column("STATE"),
    Column("HOST", least=15),
    Column("HITS", right=True),
    Column("TRIES", right=True),
    Column("LEAKS", right=True),
    Column("LAST"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", nargs="?", metavar="ID", type=incident_id, help="all about one incident, such as I3")
    parser.add_argument("--all", action="store_true", help="also those that are closed")
    parser.add_argument("--client", metavar="ADDRESS", help="of this client only")
    add_read_arguments(parser, long=True)


def run(args: Namespace) -> int:
    """Show them."""
    state = "all" if args.all or args.id else None  # without a state: those that are not closed

    def render(answer: Answer, now_us: int) -> list[str]:
        if args.id:
            return _one(args.id, answer, now_us)
        return render_incidents(answer, now_us, args.rows, everything=args.all)

    read(args, "incidents", {"state": state, "client": args.client}, render)
    return OK


def render_incidents(answer: Answer, now_us: int, limit: int, *, everything: bool = False) -> list[str]:
    """The lines under the head: leaks first, then the latest."""
    found = rows(answer.result, "incidents")
    if not found:
        return observed(answer, "No incident" if everything else "No open incident")
    found.sort(key=lambda one: (not number(one, "leaks"), -time_us(one.get("last"))))
    campaigns = {text(one, "campaign") for one in found}
    leaking = sum(1 for one in found if number(one, "leaks"))
    lines = [
        f"{count(len(found), 'incident')}{'' if everything else ' not closed'} in {count(len(campaigns), 'campaign')}"
        + (f"; {leaking:,} GOT THROUGH a block" if leaking else "")
    ]
    shown, more = first(found, limit)
    lines += ["", *table(_COLUMNS, [_cells(one, now_us) for one in shown], [_under(one) for one in shown]), *more]
    if any(one.get("retro") is True for one in shown):
        lines.append("* found in history when the indicator arrived later")
    through = let_through([one for one in shown if number(one, "attempts")], "opened")
    lines += [through] if through else []
    lines += ["", cut(f"Next: egressd incidents {text(found[0], 'id', 20)}   (all about one)")]
    ack = ["egressd ack ID (you have it in hand)"] if any(map(_is_untaken, found)) else []
    return [*lines, *wrap("      ", [cut_off(answer, "CLIENT"), *ack], "; ")]


def _is_untaken(one: Row) -> bool:
    """Whether nobody has it in hand yet."""
    return text(one, "state") == "open"


def _cells(one: Row, now_us: int) -> list[str]:
    return [
        text(one, "id", 20),
        text(one, "campaign", 20),
        text(one, "state", 12),
        text(one, "client"),
        short(one, "contacts"),
        short(one, "attempts"),
        short(one, "leaks"),
        f"{ago(one.get('last'), now_us)} ago",
    ]


def _under(one: Row) -> str:
    reached = text(one, "registered_domain", 34) or text(part(one, "indicator"), "value", 34)
    segment = text(one, "segment", 14)
    whose = text(one, "device_name", 20)
    gone = ", not listed any more" if one.get("listed") is False else ""
    parts = [f"{reached} ({text(one, 'match_level', 9)}{'*' if one.get('retro') is True else ''}{gone})"]
    taken = text(one, "acked_by", 20)
    if taken:
        parts.append(f"taken by {taken}")
    if segment:
        parts.append(f"in {segment}")
    if whose:
        parts.append(whose)
    return "; ".join([*parts, f"opened {date(one.get('opened'))}"])


def _one(wanted: str, answer: Answer, now_us: int) -> list[str]:
    one = next((row for row in rows(answer.result, "incidents") if row.get("id") == wanted), None)
    if one is None:
        raise ClientError(f"there is no incident {wanted}; egressd incidents --all lists them", RUNTIME)
    segment = text(one, "segment", 30)
    contacts, attempts, leaks = (number(one, key) for key in ("contacts", "attempts", "leaks"))
    lines = [cut(f"Incident {wanted}, campaign {text(one, 'campaign', 20)}: {text(one, 'state', 20)}")]
    if leaks:
        lines.append(f"!! {count(leaks, 'try', 'tries')} GOT THROUGH after the block: look at egressd watch")
    if one.get("blocked") is False and one.get("listed") is not False:
        why = "".join(f"; egressd decisions {id_} says why" for id_ in texts(one, "decisions")[-1:])
        lines.append(cut(f"!! NOT BLOCKED: nothing keeps this host from it{why}"))
    lasted = span(time_us(one.get("last")) - time_us(one.get("first")))
    lines += fields(
        ("host", text(one, "client", 39) + (f" in segment {segment}" if segment else "")),
        ("device", device(one) or "not known"),
        ("also as", beside(one) or "-"),
        ("reached", f"{text(one, 'registered_domain') or '-'} ({text(one, 'match_level', 20)})"),
        ("listed as", listed(part(one, "indicator"))),
        ("", "no list names it any more" if one.get("listed") is False else ""),
        ("seen", f"{date(one.get('first'))} to {date(one.get('last'))} UTC, for {lasted}"),
        ("opened", f"{date(one.get('opened'))} UTC" + (", from history" if one.get("retro") is True else "")),
        ("taken by", f"{text(one, 'acked_by')}, {date(one.get('acked'))} UTC" if text(one, "acked_by") else ""),
        ("last", f"{ago(one.get('last'), now_us)} ago"),
        ("contacts", f"{contacts:,}: {number(one, 'answered'):,} answered, {attempts:,} tried after the decision"),
        ("", _armed(one)),
        *[("because" if at == 0 else "", said) for at, said in enumerate(_said(part(one, "indicator")))],
        ("names", counts(one, "names")),
        ("seen by", counts(one, "via")),
        *([("told by", counts(one, "sources"))] if part(one, "sources").keys() - {TAP} else []),
        ("decisions", ", ".join(texts(one, "decisions")) or "none"),
    )
    for what, said in [
        ("campaign", text(one, "stage")),
        *(("tied", tie) for tie in texts(one, "ties")[:TIES]),
        *(
            ("candidate", f"{text(found, 'campaign', 20)}: {text(found, 'reason')}")
            for found in rows(one, "candidates")[:TIES]
        ),
    ]:
        if said:
            lines += wrap(f"  {what:<11}", said.split(" "), " ")[:NOTE_LINES]
    for note in rows(one, "notes")[-NOTES:]:
        said = text(note, "text")
        if said:
            lines += wrap(f"  {'note':<11}", [date(note.get("ts")), *said.split(" ")], " ")[:NOTE_LINES]
    client = text(one, "client", 39)
    lines.append(cut(f"Next: {cut_off(answer, client)}"))
    if _is_untaken(one):
        lines.append(f"      egressd ack {wanted}")
    elif text(one, "state") != "closed":
        lines.append(f"      egressd close {wanted} --reason TEXT   (you are done with it)")
    return lines


def _armed(one: Row) -> str:
    """Of tries that were made while nothing was blocked."""
    tries, through = number(one, "attempts"), number(one, "let_through")
    armed = f"{date(one.get('armed'))} UTC"
    is_later = time_us(one.get("opened")) < time_us(one.get("armed")) and tries > 0
    if not through:
        return f"those before {armed} were let through: the mode was monitor" if is_later else ""
    if is_later:
        return f"{through:,} of these let through, in monitor until {armed}"
    return f"{through:,} of these let through, in monitor" if through < tries else ""


def _said(indicator: Row) -> list[str]:
    """What behaviour was seen, a line for each part."""
    said = text(indicator, "said", 1_024)
    return said.split("; ") if said else []
