"""`egressd mode [MODE]`: another mode, with a reason; without MODE the one in force, and how it came to be."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from egressd.cli.client import Answer, ask
from egressd.cli.exit_codes import OK
from egressd.cli.operate import OPERATIONS
from egressd.cli.screen import Row, ago, date, head_lines, rows, show, text, wrap
from egressd.cli.terminal import cut, print_json


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    OPERATIONS["mode"].add_arguments(parser)
    parser.set_defaults(usage=parser.error)


def run(args: Namespace) -> int:
    """Set it, or show it."""
    if args.mode is not None:
        if args.reason is None:
            args.usage("the following arguments are required: --reason")
        return OPERATIONS["mode"].run(args)
    if args.segment is not None or args.reason is not None:
        args.usage("the following arguments are required: MODE (monitor, approve or enforce)")
    import time

    answer = ask(args, "status", {})
    if args.json:
        print_json({"arming": rows(answer.result, "arming")})
    else:
        show(head_lines(answer) + render_modes(answer, time.time_ns() // 1_000))
    return OK


def render_modes(answer: Answer, now_us: int) -> list[str]:
    """The lines under the head."""
    lines = [line for one in rows(answer.result, "arming") for line in _mode(one, now_us)]
    return [*lines, "Next: egressd mode monitor|approve|enforce [--segment NAME] --reason TEXT"]


def _mode(one: Row, now_us: int) -> list[str]:
    segment, mode, said = text(one, "segment", 30), text(one, "mode", 12), text(one, "configured", 12)
    by, since = text(one, "by"), one.get("since")
    when = f"since {date(since)} UTC, {ago(since, now_us)} ago" if since else "since before this was kept"
    why = f"set by {by}: {text(one, 'reason')}" if by else "as the configuration says"
    lines = wrap(f"segment {segment}: " if segment else "", f"{mode} {when}; {why}".split(" "), " ")
    if by and said != mode:
        lines.append(cut(f"  the configuration says {said}, and a start takes that"))
    return lines
