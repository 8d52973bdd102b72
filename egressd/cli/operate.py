"""The verbs that change something, from `egressd block` to `egressd panic`; `mode` has a file beside (mode.py).

They differ only in what they ask for, so each is a line of a table. The daemon decides, writes the reason to its audit
log, and says what was done; nothing is done here.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from egressd.cli.client import TIMEOUT_S, Answer, ClientError, add_socket_argument, ask
from egressd.cli.exit_codes import OK, RUNTIME, USAGE
from egressd.cli.screen import head_lines, read, show, text, texts
from egressd.cli.terminal import printable, room
from egressd.cli.typed import campaign_id, decision_id, duration, incident_id, reason

RELOAD_TIMEOUT_S: Final = 120.0  # a million names are read anew


class Option(NamedTuple):
    """One argument. `key` is its name in the request; `flag` is "" for a positional one, `metavar`
    for one that takes no value."""

    key: str
    flag: str
    metavar: str
    what: str
    kind: Callable[[str], Any] = str
    required: bool = False
    repeats: bool = False
    choices: tuple[str, ...] = ()


class Operation(NamedTuple):
    """One verb. `undo` is whether its outcome can be taken back by `egressd undo`."""

    name: str
    options: tuple[Option, ...]
    undo: bool = False
    timeout_s: float = TIMEOUT_S

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verb's arguments."""
        for option in self.options:
            if not option.metavar:
                parser.add_argument(option.flag, dest=option.key, action="store_const", const=True, help=option.what)
                continue
            words: dict[str, Any] = {"metavar": option.metavar, "help": option.what, "type": option.kind}
            if option.choices:
                words["choices"] = option.choices
            if not option.flag:
                parser.add_argument(option.key, nargs=None if option.required else "?", **words)
            else:
                words |= {"dest": option.key, "required": option.required}
                if option.repeats:
                    words["action"] = "append"
                parser.add_argument(option.flag, **words)
        add_socket_argument(parser)
        parser.add_argument("--json", action="store_true", help="the daemon's result, one object")

    def run(self, args: Namespace) -> int:
        """Ask for it; returns the exit code. Raises ClientError."""
        arguments = {option.key: getattr(args, option.key) for option in self.options}
        if self.name == "cut":
            _confirm(args, arguments)
        read(args, self.name, arguments, lambda answer, _: outcome(answer, undo=self.undo), self.timeout_s)
        return OK


def outcome(answer: Answer, *, undo: bool) -> list[str]:
    """What was done, in the daemon's words, and how to take it back."""
    decision = text(answer.result, "decision_id", 20)
    said = text(answer.result, "text") or "done"
    lines = _filled((f"{decision}: " if decision else "") + said)
    for one in texts(answer.result, "lines"):
        lines += _filled(one, "  ")
    if undo and decision:
        lines += [f"Take it back: egressd undo {decision}"]
    return lines


def _filled(said: str, indent: str = "") -> list[str]:
    from textwrap import wrap

    return wrap(said, room(), initial_indent=indent, subsequent_indent=indent + "  ") or [indent]


def _confirm(args: Namespace, arguments: dict[str, Any]) -> None:
    """Show what a cut would do, and have the segment's name typed, by --confirm or by hand. Raises ClientError when it
    is not."""
    preview = ask(args, "cut", {**arguments, "confirm": None})
    if not args.json:
        show(head_lines(preview) + outcome(preview, undo=False))
    if arguments["confirm"] is not None:
        if arguments["confirm"] != args.segment:
            raise ClientError(f"--confirm is not {args.segment}; nothing was cut", USAGE)
        return
    if not sys.stdin.isatty():
        raise ClientError(f"nothing was cut; to cut, add --confirm {args.segment}", USAGE)
    segment = printable(args.segment)
    print(f"Type the segment's name to cut it ({segment}): ", end="", file=sys.stderr, flush=True)
    arguments["confirm"] = sys.stdin.readline().rstrip("\n")
    if arguments["confirm"] != args.segment:
        raise ClientError("that is not its name; nothing was cut", RUNTIME)


_WHAT: Final = "WHAT"
_REASON: Final = Option("reason", "--reason", "TEXT", "why, for the audit log and whoever comes next", reason, True)
_WHY: Final = Option("reason", "--reason", "TEXT", "why, for the audit log", reason)
_FOR: Final = Option("for_s", "--for", "TIME", "how long: 10m, 2h, 1d (default: until taken back)", duration)
_CLIENT: Final = Option("client", "--client", "ADDRESS", "for this client only (default: for all)")
_ID: Final = Option("id", "", "ID", "a decision, such as D12 (egressd decisions)", decision_id, True)
_ISOLATED: Final = Option("client", "", "CLIENT", "the client's address", required=True)
_SEGMENT: Final = Option("segment", "", "SEGMENT", "a segment of the configuration", required=True)
_INCIDENT: Final = Option("incident", "", "ID", "an incident, such as I3", incident_id, True)
_CAMPAIGN: Final = Option("campaign", "", "CAMPAIGN", "a campaign, such as C3 (egressd incidents)", campaign_id, True)
_CANDIDATE: Final = Option("candidate", "", "CANDIDATE", "another one that may be part of it", campaign_id, True)

_TABLE: Final = (
    Operation(
        "block",
        (
            Option(
                "what",
                "",
                _WHAT,
                "what nobody may reach: a name with its registered domain, an address, a network",
                required=True,
            ),
            _CLIENT,
            _FOR,
            _REASON,
        ),
        undo=True,
    ),
    Operation(
        "allow",
        (Option("what", "", _WHAT, "what may be reached whatever lists say", required=True), _CLIENT, _FOR, _REASON),
        undo=True,
    ),
    Operation(
        "unblock",
        (
            Option("what", "", _WHAT, "a decision, such as D12, or the name or address that it blocks", required=True),
            _FOR._replace(what="for how long: 10m, 2h, 1d (default: for good)"),
            _REASON,
        ),
        undo=True,
    ),
    Operation("approve", (_ID, _WHY), undo=True),
    Operation("reject", (_ID, _WHY), undo=True),
    Operation(
        "isolate",
        (
            _ISOLATED,
            Option("remedy", "--remedy", "ADDRESS", "a server that it may still reach; repeat", repeats=True),
            _FOR,
            _REASON,
        ),
        undo=True,
    ),
    Operation("release", (_ISOLATED, _WHY)),
    Operation(
        "cut",
        (
            _SEGMENT,
            _FOR._replace(what="how long: 10m, 2h, 1d", required=True),
            Option("confirm", "--confirm", "SEGMENT", "its name again, instead of typing it when asked"),
            _REASON,
        ),
        undo=True,
    ),
    Operation("uncut", (_SEGMENT, _WHY)),
    Operation("undo", (_ID._replace(what="a decision (default: your last one)", required=False), _WHY)),
    Operation("ack", (_INCIDENT, _WHY)),
    Operation("close", (_INCIDENT, _REASON)),
    Operation("tie", (_CAMPAIGN, _CANDIDATE, _REASON)),
    Operation("untie", (_CAMPAIGN, _CANDIDATE, _WHY)),
    Operation(
        "reload",
        (
            Option("only", "--only", "WHAT", "lists: leave the configuration as it is", choices=("lists",)),
            Option(
                "force", "--force", "", "make the change that waits because it is larger than enforce.largest_change"
            ),
            _WHY,
        ),
        timeout_s=RELOAD_TIMEOUT_S,
    ),
    Operation(
        "mode",
        (
            Option(
                "mode",
                "",
                "MODE",
                "monitor, approve or enforce (default: show the one in force, and how it came to be)",
                choices=("monitor", "approve", "enforce"),
            ),
            Option("segment", "--segment", "NAME", "of this segment alone"),
            _REASON._replace(required=False),
        ),
    ),
    Operation("panic", (_REASON,)),
)
OPERATIONS: Final[Mapping[str, Operation]] = {one.name: one for one in _TABLE}


def verb(name: str) -> Operation:
    """The verb of that name, for the loader."""
    return OPERATIONS[name]
