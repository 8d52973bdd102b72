"""The command line: finds the verb and imports its file only, so that `--help` stays fast."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from argparse import ArgumentParser, HelpFormatter, Namespace
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final, Protocol

from egressd import __version__
from egressd.cli.client import ClientError
from egressd.cli.exit_codes import EPILOG, INVALID, OK, RUNTIME
from egressd.cli.parser import Parser
from egressd.cli.terminal import columns_of, printable
from egressd.errors import CaptureError, ConfigError
from egressd.plural import count

# What a command loads is needed until its end: to look for garbage in it again and again took 6 of 100 ms.
OBJECTS_PER_LOOK: Final = 100_000

# verb -> one line of what it does; each lives in the file of its name, or in the one that FILES has.
VERBS: Final = {
    "run": "run the daemon",
    "status": "show on one screen whether egressd sees, blocks and keeps watching",
    "hosts": "show the machines that reached or tried listed destinations",
    "incidents": "show what a person has to handle",
    "watch": "show what is blocked and who still tries",
    "decisions": "show what was decided, by whom and why",
    "block": "block a name or an address",
    "allow": "let a name or an address be reached whatever lists say",
    "unblock": "take a block back, or suspend it for a time",
    "approve": "let a proposed block come into force",
    "reject": "turn a proposed block down",
    "isolate": "keep one client from everything outside",
    "release": "end the isolation of a client",
    "cut": "cut a whole segment off from the outside",
    "uncut": "end the cut of a segment",
    "undo": "take back a decision of a person",
    "ack": "say that you have an incident in hand",
    "close": "take an incident off the list, such as of a machine that was cleaned",
    "tie": "say that two campaigns are one",
    "untie": "say that a candidate is no part of a campaign",
    "list": "show what is listed and allowed; change it, and say before what that hits",
    "feeds": "show where feeds stand and what they are worth; update and judge them",
    "reload": "read configuration and lists anew",
    "plan": "show what enforcing now would do, told from history",
    "policy": "show the policy, and prove it by its examples",
    "mode": "show the mode in force, or choose between monitor, approve and enforce",
    "panic": "lift every block at once",
    "audit": "show who did what and why; verify that record",
    "doctor": "prove that detecting and blocking work, on a scratch set",
    "replay": "read captures and report which hosts reached listed domains",
    "check": "say whether a name, address or URL is listed, and why",
    "explain": "show how a verdict came about, over a list or a replay",
    "check-config": "find every mistake in configuration and lists",
    "decode": "explain one packet of a capture",
    "version": "print versions and the dates of shipped files",
}

# These differ only in what they ask the daemon for: one file has them all.
OPERATIONS: Final = (
    *("block", "allow", "unblock", "approve", "reject", "isolate", "release", "cut", "uncut", "undo", "ack", "close"),
    *("reload", "tie", "untie", "panic"),
)
FILES: Final = {"list": "lists", **dict.fromkeys(OPERATIONS, "operate")}

_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Help(HelpFormatter):
    """Help as wide as the screen. For every argument that is declared one of these is made, to look at its name, and
    when it is not told how wide it is it loads shutil, which takes 3 ms with all the compression that comes along."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """As `shutil.get_terminal_size` has it."""
    with suppress(ValueError):
        given = int(os.environ.get("COLUMNS", "0"))
        if given > 0:
            return given
    return columns_of(sys.stdout)


class Verb(Protocol):
    """What a verb's file offers."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def run(self, args: Namespace) -> int:
        """Do it; returns the exit code."""


def build_parser(verb: str | None, offered: Iterable[str] = VERBS) -> ArgumentParser:
    """The parser of the verbs `offered`, with the arguments of `verb` filled in, or of every verb when None (for the
    generated reference)."""
    parser = Parser(
        prog="egressd",
        description="Finds command-and-control destinations by registered domain.",
        epilog=EPILOG,
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"egressd {__version__}")
    # With `prog` given it is not taken from a usage text that nobody sees.
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog=parser.prog)
    for name in offered:
        what = VERBS[name]
        described = what[0].upper() + what[1:] + "."
        sub = verbs.add_parser(name, help=what, description=described, epilog=EPILOG, formatter_class=_Help)
        if verb is None or verb == name:
            module = _load(name)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (exit_codes.py)."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # while it loads what it needs, too
        print("egressd: interrupted", file=sys.stderr)
        return 130


def _main(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in words if word in VERBS), "")
    if verb != "run":  # which stays, and has its own rules (runtime/young.py, enforce/collector.py)
        gc.set_threshold(OBJECTS_PER_LOOK)
    # A parser takes a tenth of a millisecond to make, and with the verb in its place nobody sees those of the others.
    offered = words[:1] if words[:1] == [verb] else VERBS
    if not _stand_in_for_closed(verb):
        return RUNTIME
    parser = build_parser(verb, offered)
    try:
        args, rest = parser.parse_known_args(words)
    except OSError as error:  # of --help and --version
        return _unwritten(error)
    if rest and not _take_files(args, rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    run: Callable[[Namespace], int] = args.run
    try:
        code = run(args)
        sys.stdout.flush()
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        print(f"egressd: {count(len(error.problems), 'problem')}; nothing was done", file=sys.stderr)
        return INVALID
    except CaptureError as error:
        print(f"egressd: {error}", file=sys.stderr)
        return RUNTIME
    except ClientError as error:
        for line in str(error).split("\n"):
            print(f"egressd: {printable(line)}", file=sys.stderr)
        return error.code
    except OSError as error:
        if args.verb == "run" and not isinstance(error, BrokenPipeError):
            raise
        return _unwritten(error)
    return code


def _unwritten(error: OSError) -> int:
    """What to end with where the output could not be written. Raises what is something else."""
    if isinstance(error, BrokenPipeError):
        _forget_output()  # its reader has gone (`| head`)
        return OK
    if error.errno not in _UNWRITABLE:
        raise error
    _forget_output()
    where = "the output" if error.filename is None else printable(os.fsdecode(error.filename))
    print(f"egressd: {where} cannot be written: {os.strerror(error.errno)}; it is cut short", file=sys.stderr)
    return RUNTIME


def _take_files(args: Namespace, rest: list[str]) -> bool:
    """argparse takes arguments of any number where the first of them stands, so that it leaves over FILE in `explain
    NAME --list LIST FILE`. Whether all that it left over are files of a verb that takes any number of them."""
    files = getattr(args, "files", None)
    if not isinstance(files, list) or any(word.startswith("-") and word != "-" for word in rest):
        return False
    files += rest
    return True


def _stand_in_for_closed(verb: str) -> bool:
    """Open /dev/null in place of what the caller closed (`2>&-`), for Python has None there, and the next file or
    socket would get its number. False: the output is closed, and nobody would see what was done."""
    missing = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in missing:
        fd = ("stdin", "stdout", "stderr").index(name)
        null = os.open(os.devnull, os.O_RDWR)
        if null != fd:
            os.dup2(null, fd, inheritable=True)
            os.close(null)
        setattr(sys, name, open(fd, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if "stdout" in missing and verb != "run":
        print("egressd: the standard output is closed; nothing was done", file=sys.stderr)
        return False
    return True


def _forget_output() -> None:
    """Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# At its end Python looks for garbage in all that is still there, which after a large capture takes a tenth as long as
# the reading did, to free what the system frees anyway.
atexit.register(gc.freeze)


def _load(verb: str) -> Verb:
    module = import_module(f"egressd.cli.{FILES.get(verb, verb).replace('-', '_')}")
    loaded: Verb = module.verb(verb) if verb in OPERATIONS else module
    return loaded


if __name__ == "__main__":
    sys.exit(main())
