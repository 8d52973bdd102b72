"""What commands that change list files share: who does it, checking the result, writing it, telling the daemon."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from egressd.cli import list_where
from egressd.cli.client import ClientError, add_socket_argument, ask
from egressd.cli.exit_codes import RUNTIME, UNREACHABLE
from egressd.cli.list_where import Place, Site
from egressd.cli.operate import RELOAD_TIMEOUT_S, outcome
from egressd.cli.screen import show
from egressd.cli.terminal import printable
from egressd.cli.typed import MAX_REASON, reason
from egressd.errors import ConfigError, Problem
from egressd.intel.list_edit import Note
from egressd.plural import count
from egressd.store.list_files import Edit, FileRefused, edit_list, read_list

_NO_WORD: Final = re.compile(r"[^A-Za-z0-9._@-]+")
_SOON: Final = "the daemon takes the file by itself, within two seconds of running"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what every change needs."""
    parser.add_argument(
        "--reason", metavar="TEXT", required=True, type=reason, help="why, for the file, the audit log and the next one"
    )
    list_where.add_arguments(parser)
    add_socket_argument(parser)


def author() -> str:
    """The name of who runs this: the login name, behind sudo that of who called it. One word."""
    from pwd import getpwuid

    name = os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    if not name:
        try:
            name = getpwuid(os.getuid()).pw_name
        except KeyError:
            name = f"uid-{os.getuid()}"
    return _NO_WORD.sub("-", name)[:64] or "unknown"


def note(why: str) -> Note:
    """Who changes something today, and why."""
    return Note(f"{datetime.now(UTC):%Y-%m-%d}", author(), why)


def read(place: Place) -> str:
    """The text of a file, "" when it is not there and need not be. Raises ClientError."""
    if place.may_be_new and not os.path.lexists(place.path):
        return ""
    try:
        return read_list(place.path)
    except FileRefused as error:
        raise ClientError(str(error), RUNTIME) from None


def check(site: Site, place: Place, before: str, after: str, *, mends: bool = False) -> list[Problem]:
    """Raises ConfigError when the text would have mistakes: then nothing in it would come into force. One that `mends`
    may leave some, if it leaves less; they are returned."""
    problems = site.problems(after, place.name)
    if problems and not (mends and len(problems) < len(site.problems(before, place.name))):
        raise ConfigError(problems)
    return problems


def write(place: Place, before: str, change: Callable[[str], str]) -> Edit:
    """Change the file under its lock; `before` is what was read of it. Raises ClientError."""
    try:
        # One that has vanished since is on its way out, or an editor is about to write it.
        return edit_list(place.path, change, may_be_new=place.may_be_new and not before)
    except FileRefused as error:
        raise ClientError(str(error), RUNTIME) from None


def tell(args: Namespace, site: Site, place: Place, what: str) -> None:
    """Say how a change comes into force: at once when the daemon answers, and then audited with who did it."""
    if not place.known:
        named = f"no {site.option}: of the configuration names {place.name}"
        print(f"egressd: {printable(named)}: the daemon does not read it", file=sys.stderr)
        return
    why = f"list {printable(what)}: {args.reason}"[:MAX_REASON]
    try:
        answer = ask(args, "reload", {"only": "lists", "reason": why}, RELOAD_TIMEOUT_S)
    except ClientError as error:
        said = str(error).split("\n")[: 1 if error.code == UNREACHABLE else 8]
        for line in (*said, _SOON):
            print(f"egressd: {printable(line)}", file=sys.stderr)
        return
    show(outcome(answer, undo=False))


def line_count(text: str) -> int:
    """How many lines a text has."""
    return text.count("\n") + (not text.endswith("\n") and bool(text.removeprefix("\ufeff")))


def warn_of_rest(place: Place, problems: list[Problem]) -> None:
    """Tell mistakes that were there before and still are."""
    for one in problems[:8]:
        print(printable(str(one)), file=sys.stderr)
    if problems:
        left = f"{count(len(problems), 'mistake is', 'mistakes are')} left in {place.name}"
        print(f"egressd: {left}: until they are mended its last good content stays in force", file=sys.stderr)
