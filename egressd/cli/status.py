"""`egressd status`: on one screen whether egressd sees, blocks and keeps watching, and what needs a person."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from egressd.cli.client import Answer
from egressd.cli.exit_codes import OK
from egressd.cli.screen import (
    Row,
    add_read_arguments,
    ago,
    head_lines,
    number,
    part,
    read,
    rows,
    text,
    texts,
    wrap,
    wrap_short,
)
from egressd.cli.terminal import cut, printable, span
from egressd.plural import count

LINES: Final = 23  # of a terminal of 24: the prompt takes one
ALARMS: Final = 6
PLACE: Final = 40  # of a mistake: the end of the file's path, line and column
FIRST_S: Final = 10  # until the first canaries have been seen
ROWS: Final = 3  # interfaces and adapters that are shown; one where alarms need the room


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_read_arguments(parser)


def run(args: Namespace) -> int:
    """Show it."""
    read(args, "status", {}, render_status)
    return OK


def render_status(answer: Answer, now_us: int) -> list[str]:
    """The lines under the head, with what needs a person first; LINES with the head at most."""
    status = answer.result
    alarms = _alarms(status, now_us)
    shown = [cut(f"!! {alarm}") for alarm in alarms[:ALARMS]]
    if len(alarms) > ALARMS:
        shown[-1] = f"!! and {len(alarms) - ALARMS + 1} more: egressd status --json"
    whole = [line for alarm in alarms for line in wrap_short(alarm)]
    if len(whole) <= ALARMS:  # a path often takes a line, and the reason stands behind it
        shown = whole
    head = f"egressd {text(status, 'version', 20)}, up {span(number(status, 'uptime_s') * 1_000_000)}"
    if not alarms:
        head += "; no alarm"
    step = _next(status, answer.blocks_nothing)
    room = LINES - 1 - len(head_lines(answer)) - len(shown) - len(step)
    body = _body(status, answer.blocks_nothing, now_us, ROWS)
    if len(body) > room:
        body = _body(status, answer.blocks_nothing, now_us, 1)
    return [head, *shown, *body[:room], *step]


def _body(status: Row, blocks_nothing: bool, now_us: int, limit: int) -> list[str]:
    """What is calm; `limit` is for the lines of which there may be many."""
    return [
        *_sensors(status, now_us, limit),
        *_logs(status, now_us, limit),
        *_lists(status),
        *_blind(status, limit),
        *_blocks(status),
        *_rules(status, now_us, limit),
        *_watch(status, blocks_nothing, now_us),
        *_life(status, now_us),
    ]


def _alarms(status: Row, now_us: int) -> list[str]:
    alarms = []
    for one in rows(status, "interfaces"):
        if _is_blind(one, status):
            last = ago(one.get("last_packet"), now_us)
            since = "has never seen a packet" if last == "never" else f"last packet {last} ago"
            why = f"{text(one, 'state', 12)}, {text(one, 'problem', 30)}".strip(", ")
            alarms.append(f"SENSOR DOWN {text(one, 'name', 15)} ({why}): {since}: BLIND there")
    leaks = number(part(status, "watch"), "leaks_24h")
    if leaks:
        alarms.append(f"{count(leaks, 'LEAK', 'LEAKS')} in 24h: traffic GOT THROUGH to blocked targets: egressd watch")
    canary = part(status, "canary")
    if canary and text(canary, "state") not in ("ok", "off"):
        alarms.append(
            f"CANARY {text(canary, 'state', 20)}: a test name is not found and pushed; last ok"
            f" {_ago(canary, 'last_ok', now_us)}"
        )
    for one in rows(status, "adapters"):
        state, failed, detail = text(one, "state", 12), number(one, "failed"), text(one, "detail")
        if state == "asks":
            alarms.append(f"RULES {text(one, 'name', 15)} asks before a large change: {detail or 'see the log'}")
        elif state == "failing":
            held = number(one, "active") + number(one, "pending") + failed
            what = f"{count(held, 'block')} may not hold" if held else "nothing can be blocked"
            alarms.append(f"RULES {text(one, 'name', 15)} failing, {what}: {detail or 'see the log'}")
        elif failed or state != "ok":
            alarms.append(
                f"RULES {text(one, 'name', 15)} {state}: {failed:,} FAILED,"
                f" {number(one, 'pending'):,} not in force yet{': ' + detail if detail else ''}"
            )
    if status.get("degraded") is True:
        alarms.append(f"DEGRADED: {_loss(status)} of packets lost; contacts are missed")
    problems = texts(status, "list_problems")
    if problems:
        of = f"(1 of {len(problems)}) " if len(problems) > 1 else ""
        sort = "CONFIG" if problems[0].partition(":")[0].endswith((".yaml", ".yml")) else "LIST"
        alarms.append(f"{sort} {of}{_with_place(problems[0])}")
    told = {f"{text(one, 'name')}: {text(one, 'detail')}" for one in rows(status, "adapters") if one.get("detail")}
    alarms += [warning for warning in texts(status, "warnings") if warning not in told]
    return alarms


def _is_blind(one: Row, status: Row) -> bool:
    """Whether nothing can be seen on an interface. In a quiet network the first canary, some seconds after the start,
    is the first packet."""
    unseen = not number(one, "packets") and number(status, "uptime_s") >= FIRST_S
    return text(one, "state") != "up" or unseen


def _with_place(problem: str) -> str:
    """`file:line:column: what`, a long path without its beginning: where it is, is never cut off."""
    place, colon, what = problem.partition(": ")
    return (place if len(place) <= PLACE else ".." + place[2 - PLACE :]) + colon + what


def _loss(status: Row) -> str:
    ratio = status.get("loss_ratio")
    return f"{ratio:.2%}" if isinstance(ratio, (int, float)) else "unknown share"


def _sensors(status: Row, now_us: int, limit: int) -> list[str]:
    found = sorted(
        rows(status, "interfaces"), key=lambda one: not _is_blind(one, status) and number(one, "packets") > 0
    )
    lines = []
    for one in found[:limit]:
        state = "DOWN" if _is_blind(one, status) else "up"
        lines.append(
            f"{text(one, 'name', 15):<9} {state:<4} {count(number(one, 'packets'), 'packet')},"
            f" {number(one, 'kernel_drops'):,} dropped, last {_ago(one, 'last_packet', now_us)}"
        )
    if len(found) > limit:
        lines[-1] += f"; {len(found) - limit} more"
    if not found:
        lines = ["none: nothing is watched"]
    processes = rows(status, "packet_processes")
    kinds = [
        word
        for word, key in (("compiled", "compiled"), ("real-time", "realtime"))
        if processes and all(one.get(key) is True for one in processes)
    ]
    restarts = sum(number(one, "restarts") for one in processes)
    lines.append(
        f"{count(len(processes), 'packet process', 'packet processes')}"
        f"{' (' + ', '.join(kinds) + ')' if kinds else ''}, {count(restarts, 'restart')}, loss {_loss(status)}"
    )
    return _under("SENSORS", lines)


def _logs(status: Row, now_us: int, limit: int) -> list[str]:
    """Other sensors, those that are not as they should be first; nothing where there are none."""
    found = sorted(rows(status, "sensors"), key=lambda one: text(one, "state") == "ok")
    lines = []
    for one in found[:limit]:
        line = f"{text(one, 'name', 15):<9} {text(one, 'state', 8)}: {count(number(one, 'lines'), 'line')}"
        line += f", last {_ago(one, 'last_line', now_us)}, {number(one, 'agreed'):,} agreed"
        for key, what in (("clock_ahead_s", "clock ahead"), ("corrected_by_s", "corrected by")):
            seconds = one.get(key)
            if isinstance(seconds, int | float) and abs(seconds) >= 0.1:
                line += f", {what} {seconds:+.1f} s"
        lines.append(line)
    if len(found) > limit:
        lines[-1] += f"; {len(found) - limit} more"
    return _under("LOGS", lines)


def _lists(status: Row) -> list[str]:
    found = rows(status, "lists")
    indicators = sum(number(one, "indicators") for one in found)
    line = f"{count(len(found), 'list')}, {count(indicators, 'indicator')}"
    if found:
        oldest = max(found, key=lambda one: number(one, "age_s"))
        line += f"; oldest {span(number(oldest, 'age_s') * 1_000_000)} ({text(oldest, 'source', 36)})"
    if not indicators:
        line = f"NOTHING IS LISTED: {line}"
    return _under("LISTS", [line])


def _blind(status: Row, limit: int) -> list[str]:
    blind = part(status, "blind")
    kinds = [f"{printable(sort, 40)} {number(blind, sort):,}" for sort in sorted(blind) if number(blind, sort)]
    if not kinds:
        return _under("BLIND", ["no connection with an unreadable name was counted"])
    return wrap(f"{'BLIND':<10}", ["names not readable: " + kinds[0], *kinds[1:]])[:limit]


def _blocks(status: Row) -> list[str]:
    blocks = part(status, "blocks")
    lines = [
        f"{number(blocks, 'active'):,} active: {count(number(blocks, 'addresses'), 'address', 'addresses')},"
        f" {count(number(blocks, 'pairs'), 'client+address pair')}"
    ]
    proposed, isolated, cuts = (number(blocks, key) for key in ("proposed", "clients_isolated", "segments_cut"))
    lines.append(
        f"{count(isolated, 'client')} isolated, {count(cuts, 'segment')} cut, {proposed:,} waiting for approval"
    )
    took = part(status, "time_to_block_ms")
    if number(took, "count"):
        lines.append(
            f"time to block p50 {text(took, 'p50', 8)} ms, p99 {text(took, 'p99', 8)} ms"
            f" ({number(took, 'count'):,} measured)"
        )
    return _under("BLOCKS", lines)


def _rules(status: Row, now_us: int, limit: int) -> list[str]:
    lines = []
    for one in rows(status, "adapters")[:limit]:
        held = "were held" if text(one, "state") == "failing" else "in force"
        if text(one, "name") == "dryrun":
            held = "would be in force"
        lines.append(
            f"{text(one, 'name', 12)} {text(one, 'state', 10)}: {number(one, 'active'):,} {held},"
            f" {number(one, 'pending'):,} pending, drift {number(one, 'drift_repaired'):,};"
            f" read {_ago(one, 'last_check', now_us)}"
        )
    return _under("RULES", lines or ["no adapter: nothing can be blocked"])


def _watch(status: Row, blocks_nothing: bool, now_us: int) -> list[str]:
    watch, incidents = part(status, "watch"), part(status, "incidents")
    trying = number(watch, "clients_trying")
    line = f"{count(number(watch, 'blocks_watched'), 'block')} watched; {count(trying, 'client')}"
    if blocks_nothing:
        line += " NOT BLOCKED" if trying else " in contact"
    else:
        line += " STILL TRYING" if trying else " trying"
    lines = [line]
    lines.append(
        f"{count(number(watch, 'attempts_24h'), 'attempt')} and {count(number(watch, 'leaks_24h'), 'leak')} in 24h,"
        f" last attempt {_ago(watch, 'last_attempt', now_us)}"
    )
    tries, through = number(watch, "attempts_24h"), number(watch, "let_through_24h")
    if through and not (blocks_nothing and through == tries):
        lines.append(f"{through:,} of {count(tries, 'attempt')} in 24h were let through, in monitor: egressd mode")
    return [
        *_under("WATCH", lines),
        *_under("INCIDENTS", [f"{number(incidents, 'open'):,} open, {number(incidents, 'new_24h'):,} new in 24h"]),
    ]


def _life(status: Row, now_us: int) -> list[str]:
    canary = part(status, "canary")
    line = f"{text(canary, 'state', 20) or 'off'}, last ok {_ago(canary, 'last_ok', now_us)}"
    if canary.get("detect_ms") is not None:
        line += f": found in {text(canary, 'detect_ms', 8)} ms"
        line += f", pushed in {text(canary, 'push_ms', 8)} ms" if canary.get("push_ms") is not None else ""
    return [
        *_under("CANARY", [line]),
        *_under("PROTECTED", [f"{number(status, 'protected'):,} addresses and networks"]),
    ]


def _next(status: Row, blocks_nothing: bool) -> list[str]:
    watch, blocks = part(status, "watch"), part(status, "blocks")
    if number(watch, "clients_trying") and blocks_nothing:
        return ["Next: egressd hosts   (who; in monitor nobody is isolated: unplug them)"]
    if number(watch, "leaks_24h") or number(watch, "clients_trying"):
        return ["Next: egressd hosts   (who; then egressd isolate CLIENT --reason TEXT)"]
    if number(blocks, "proposed"):
        return ["Next: egressd decisions --state proposed   (then egressd approve ID)"]
    if number(part(status, "incidents"), "open"):
        return ["Next: egressd incidents"]
    return []


def _under(title: str, lines: list[str]) -> list[str]:
    return [cut(f"{title if not i else '':<10}{line}") for i, line in enumerate(lines)]


def _ago(row: Row, key: str, now_us: int) -> str:
    how_long = ago(row.get(key), now_us)
    return how_long if how_long == "never" else f"{how_long} ago"
