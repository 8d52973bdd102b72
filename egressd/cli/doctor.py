"""`egressd doctor`: proves that a listed name is found, blocked, seen in the kernel, and let go again."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from egressd.cli.client import Answer
from egressd.cli.exit_codes import OK, RUNTIME
from egressd.cli.screen import Row, add_read_arguments, read, rows, text, wrap_short
from egressd.plural import count

TIMEOUT_S: Final = 120.0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_read_arguments(parser)


def run(args: Namespace) -> int:
    """Show it; exit 1 when a check failed."""
    answer = read(args, "doctor", {}, render_doctor, TIMEOUT_S)
    return OK if answer.result.get("ok") is True else RUNTIME


def render_doctor(answer: Answer, now_us: int) -> list[str]:
    """The lines under the head."""
    checks = rows(answer.result, "checks")
    wide = min(24, max((len(text(one, "name")) for one in checks), default=0))
    lines = [line for one in checks for line in _lines(one, wide)]
    failed = sum(1 for one in checks if one.get("ok") is not True)
    if failed or answer.result.get("ok") is not True:
        return [
            *lines,
            "",
            f"{count(failed, 'check')} FAILED of {len(checks)}. Until that is mended do not rely on blocks.",
        ]
    did = "found, blocked, read back and removed on a scratch set."
    if answer.blocks_nothing:
        did = "a question was found. That blocks hold was not tried."
    return [*lines, "", f"{count(len(checks), 'check')} passed: {did}"]


def _lines(one: Row, wide: int) -> list[str]:
    ok = one.get("ok") is True
    took = f"{text(one, 'ms', 8)} ms"
    head = f"{'ok' if ok else '!!'} {text(one, 'name', wide):<{wide}} {took:>9}  "
    return wrap_short(text(one, "detail") if ok else f"FAILED: {text(one, 'detail')}", head)
