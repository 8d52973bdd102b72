"""`egressd hosts`: the machines that reached or tried listed destinations, those that need a person first."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from typing import Final

from egressd.cli.client import Answer
from egressd.cli.exit_codes import OK
from egressd.cli.screen import (
    Column,
    Row,
    add_read_arguments,
    ago,
    beside,
    cut_off,
    date,
    first,
    let_through,
    number,
    observed,
    read,
    rows,
    short,
    table,
    text,
    texts,
    time_us,
    wrap,
)
from egressd.cli.terminal import cut, fit
from egressd.plural import count
from egressd.units import DAY_US

RECENT_US: Final = DAY_US  # a day: malware that sleeps over night still counts as trying

GOT_THROUGH: Final = "GOT THROUGH"
NOT_BLOCKED: Final = "NOT BLOCKED"
TRYING: Final = "STILL TRYING"
CONTACT: Final = "in contact"
BLOCKED: Final = "blocked"  # and it has not come again since
ISOLATED: Final = "isolated"
UNLISTED: Final = "not listed"  # any more: a list was wrong, or its time is over
QUIET: Final = "quiet"
URGENCY: Final = (GOT_THROUGH, NOT_BLOCKED, TRYING, CONTACT, BLOCKED, ISOLATED, UNLISTED, QUIET)

_COLUMNS: Final = (
    Column("HOST", least=15),
    Column("STATE"),
    Column("HITS", right=True),
    Column("TRIES", right=True),
    Column("LEAKS", right=True),
    Column("LAST"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_read_arguments(parser, long=True)


def run(args: Namespace) -> int:
    """Show them."""
    read(args, "hosts", {}, lambda answer, now_us: render_hosts(answer, now_us, args.rows))
    return OK


def state(host: Row, blocks_nothing: bool, now_us: int) -> str:
    """What has to be known of a host in one word of URGENCY."""
    if host.get("isolated") is True:
        return ISOLATED
    if host.get("listed") is False:
        return UNLISTED
    if number(host, "leaks"):
        return GOT_THROUGH
    if now_us - time_us(host.get("last")) > RECENT_US:
        return QUIET
    blocked = host.get("blocked", True)
    if blocks_nothing or blocked is False:
        return NOT_BLOCKED
    tried = number(host, "attempts") and time_us(host.get("last")) >= time_us(host.get("armed"))
    if blocked and tried:
        return TRYING
    return BLOCKED if host.get("blocked") is True else CONTACT


def render_hosts(answer: Answer, now_us: int, limit: int) -> list[str]:
    """The lines under the head."""
    hosts = rows(answer.result, "hosts")
    if not hosts:
        return observed(answer, "No contact with a listed destination observed")
    known = [
        (URGENCY.index(state(host, answer.blocks_nothing, now_us)), -time_us(host.get("last")), host) for host in hosts
    ]
    known.sort(key=lambda one: one[:2])
    sorts = Counter(URGENCY[urgency] for urgency, _, _ in known)
    parts = [f"{sorts[word]:,} {word}" for word in URGENCY if sorts[word]]
    lines = [f"{count(len(hosts), 'host')} reached or tried listed destinations:", *wrap("  ", parts)]
    shown, more = first([host for _, _, host in known], limit)
    lines += [
        "",
        *table(
            _COLUMNS, [_cells(host, answer.blocks_nothing, now_us) for host in shown], [_under(host) for host in shown]
        ),
    ]
    lines += [*more, ""]
    lines.append("HITS: all contacts; TRIES: since the decision; LEAKS: answered though blocked.")
    if sorts[UNLISTED]:
        lines.append(f"{UNLISTED}: no list names any more what it reached.")
    through = let_through([one for one in shown if number(one, "attempts")], "opened")
    lines += [through] if through else []
    worst = known[0][2]
    if known[0][0] <= URGENCY.index(BLOCKED):
        client = text(worst, "client", 39)
        lines.append(cut(f"Next: {cut_off(answer, client)}"))
        lines.append(cut(f"      egressd incidents --client {client}"))
    return lines


def _cells(host: Row, blocks_nothing: bool, now_us: int) -> list[str]:
    last = ago(host.get("last"), now_us)
    return [
        text(host, "client"),
        state(host, blocks_nothing, now_us),
        short(host, "contacts"),
        short(host, "attempts"),
        short(host, "leaks"),
        last if last == "never" else f"{last} ago",
    ]


def _under(host: Row) -> str:
    domains, segment = texts(host, "domains"), text(host, "segment", 20)
    reached = fit(domains[0], 34) if domains else "no name known"
    more = f" and {len(domains) - 1:,} more" if len(domains) > 1 else ""
    incidents = ", ".join(texts(host, "incidents"))
    since = f"since {date(host.get('first'))}"
    whose = text(host, "device_name", 20) or text(host, "device", 17)
    others = beside(host)
    parts = [reached + more, whose, f"in {segment}" if segment else "", since, incidents]
    parts.append(f"also {others}" if others else "")
    return "; ".join(one for one in parts if one)
