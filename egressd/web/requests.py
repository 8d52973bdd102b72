"""What may be asked of the daemon over its control socket: the verbs, the least role of each, and their arguments.

Sans-io: bytes of one line in, a checked request out, or `Refused`. Whoever may open the socket can send anything, so
this parser is total: bounded by the line's length, it lets nothing else out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple, NoReturn

from egressd.errors import EgressdError
from egressd.units import DAY_S

VERSION: Final = 1
MAX_FOR_S: Final = 366 * DAY_S  # the longest that a person can decide for at once
MAX_REASON: Final = 500
MAX_DAYS: Final = 3_650  # of history
MAX_TEXT: Final = 512  # names have at most 253 characters, addresses 49; a URL's host and path may be longer
MAX_REMEDIES: Final = 16
MAX_ROWS: Final = 10_000
MAX_CHANGES: Final = 5_000  # lines of a change of lists
MODES: Final = ("monitor", "approve", "enforce")
VERDICTS: Final = ("false-positive", "confirmed")

REFUSED: Final = 1
WRONG: Final = 2  # the request itself is wrong
INVALID: Final = 3  # configuration or a list is invalid


class Refused(EgressdError):
    """A request that is not done, and why, in words for the person who asked. `code` is the exit code of the command
    line: REFUSED, WRONG or INVALID."""

    def __init__(self, text: str, code: int = REFUSED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Role(IntEnum):
    """What somebody may do; each may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


# verb -> least role. This table is the whole truth: what is not in it does not exist.
VERB_ROLES: Final[Mapping[str, Role]] = {
    "status": Role.VIEWER,
    "hosts": Role.VIEWER,
    "incidents": Role.VIEWER,
    "watch": Role.VIEWER,
    "decisions": Role.VIEWER,
    "list": Role.VIEWER,
    "list-preview": Role.VIEWER,
    "explain": Role.VIEWER,
    "plan": Role.VIEWER,
    "audit": Role.VIEWER,
    "version": Role.VIEWER,
    "feeds": Role.VIEWER,
    "block": Role.OPERATOR,
    "allow": Role.OPERATOR,
    "unblock": Role.OPERATOR,
    "approve": Role.OPERATOR,
    "reject": Role.OPERATOR,
    "isolate": Role.OPERATOR,
    "release": Role.OPERATOR,
    "cut": Role.OPERATOR,
    "uncut": Role.OPERATOR,
    "undo": Role.OPERATOR,
    "ack": Role.OPERATOR,
    "close": Role.OPERATOR,
    "tie": Role.OPERATOR,
    "untie": Role.OPERATOR,
    "reload": Role.OPERATOR,
    "doctor": Role.OPERATOR,
    "feeds-update": Role.OPERATOR,
    "feeds-judge": Role.OPERATOR,
    "mode": Role.ADMIN,
    "panic": Role.ADMIN,
}


class Argument(NamedTuple):
    """One argument of a verb. `check` returns the value as handlers get it, or raises ValueError with what is wanted;
    `default` is what handlers get when it is absent."""

    check: Callable[[Any], Any]
    required: bool = False
    default: Any = None


class Request(NamedTuple):
    """One checked request. `args` has every argument of the verb, absent ones with their default."""

    verb: str
    args: dict[str, Any]


def _text(value: Any) -> str:
    # isprintable: no control characters, no line ends, no changes of direction, no lone surrogates.
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= MAX_TEXT
        or not value.isprintable()
        or value != value.strip()
    ):
        raise ValueError(f"printable text of 1 to {MAX_TEXT} characters")
    return value


def _reason(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value.strip()) <= MAX_REASON or not value.isprintable():
        raise ValueError(f"printable text of 1 to {MAX_REASON} characters")
    return value.strip()


def _seconds(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MAX_FOR_S:  # bool is an int, and no time
        raise ValueError(f"whole seconds, 1 to {MAX_FOR_S}")
    return value


def _rows(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MAX_ROWS:
        raise ValueError(f"a whole number, 1 to {MAX_ROWS}")
    return value


def _days(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MAX_DAYS:
        raise ValueError(f"whole days, 1 to {MAX_DAYS}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > MAX_REMEDIES:
        raise ValueError(f"a list of at most {MAX_REMEDIES} texts")
    return [_text(one) for one in value]


def _changes(value: Any) -> list[str]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CHANGES:
        raise ValueError(f"a list of 1 to {MAX_CHANGES} lines")
    if not all(isinstance(one, str) and one[:1] in ("+", "-") and len(one) <= MAX_TEXT + 1 for one in value):
        raise ValueError(f"lines of at most {MAX_TEXT} characters after + or -")
    return value


def _pattern(pattern: str, wanted: str) -> Callable[[Any], str]:
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(wanted)
        return value

    return check


_DECISION = Argument(_pattern("D[0-9]{1,18}", "a decision's id, such as D12"), required=True)
_INCIDENT = Argument(_pattern("I[0-9]{1,18}", "an incident's id, such as I3"), required=True)
_CAMPAIGN = Argument(_pattern("C[0-9]{1,18}", "a campaign's id, such as C3"), required=True)
_WHAT = Argument(_text, required=True)
_MAYBE = Argument(_text)
_FOR = Argument(_seconds)
_REASON = Argument(_reason, required=True)
# Of what takes something back or confirms it, and must not be held up. What `undo` and `reject` leave, an allowance and
# the end of a block, would not say by itself that it is their doing.
_WHY = Argument(_reason, default="no reason given")

# verb -> its arguments; another one is refused, so that a misspelt `client` never widens a block to everybody.
VERB_ARGS: Final[Mapping[str, Mapping[str, Argument]]] = {
    "status": {},
    "hosts": {},
    "incidents": {"state": _MAYBE, "client": _MAYBE},
    "watch": {"id": _DECISION._replace(required=False)},
    "decisions": {
        "state": _MAYBE,
        "id": _DECISION._replace(required=False),
        "limit": Argument(_rows, default=MAX_ROWS),
    },
    "list": {},
    "explain": {"what": _WHAT},
    "list-preview": {"lines": Argument(_changes, required=True)},
    "audit": {
        "limit": Argument(_rows, default=100),
        "actor": _MAYBE,
        "verify": Argument(_flag, default=False),
        "head": Argument(_pattern("[0-9]{1,18}:[0-9a-f]{64}", "SEQ:HASH as `egressd audit` shows it")),
    },
    "version": {},
    "feeds": {"feed": _MAYBE},
    "block": {"what": _WHAT, "client": _MAYBE, "for_s": _FOR, "reason": _REASON},
    "allow": {"what": _WHAT, "client": _MAYBE, "for_s": _FOR, "reason": _REASON},
    "unblock": {"what": _WHAT, "for_s": _FOR, "reason": _REASON},
    "approve": {"id": _DECISION, "reason": _WHY},
    "reject": {"id": _DECISION, "reason": _WHY._replace(default="rejected, no reason given")},
    "isolate": {"client": _WHAT, "for_s": _FOR, "remedy": Argument(_texts, default=()), "reason": _REASON},
    "release": {"client": _WHAT, "reason": _WHY},
    # Without `confirm` nothing is cut: the answer says what would be.
    "cut": {"segment": _WHAT, "for_s": _FOR._replace(required=True), "confirm": _MAYBE, "reason": _REASON},
    "uncut": {"segment": _WHAT, "reason": _WHY},
    "undo": {"id": _DECISION._replace(required=False), "reason": _WHY._replace(default="undone, no reason given")},
    "ack": {"incident": _INCIDENT, "reason": _WHY},
    "close": {"incident": _INCIDENT, "reason": _REASON},
    "tie": {"campaign": _CAMPAIGN, "candidate": _CAMPAIGN, "reason": _REASON},
    "untie": {"campaign": _CAMPAIGN, "candidate": _CAMPAIGN, "reason": _WHY},
    # `only` lists: the configuration stays as it was read, whatever somebody is writing into it. `force` makes a change
    # that waits because it is large.
    "reload": {
        "only": Argument(_pattern("lists", "lists")),
        "force": Argument(_flag, default=False),
        "reason": _WHY,
    },
    "doctor": {"reason": _WHY},
    # `force` takes the next version whatever its size.
    "feeds-update": {"feed": _MAYBE, "force": Argument(_flag, default=False), "reason": _WHY},
    "feeds-judge": {
        "incident": _INCIDENT,
        "verdict": Argument(_pattern("|".join(VERDICTS), " or ".join(VERDICTS)), required=True),
        "reason": _REASON,
    },
    "mode": {
        "mode": Argument(_pattern("|".join(MODES), " or ".join(MODES)), required=True),
        "segment": _MAYBE,
        "reason": _REASON,
    },
    "plan": {"days": Argument(_days, default=7), "segment": _MAYBE},
    "panic": {"reason": _REASON},
}


def parse_request(line: bytes) -> Request:
    """One line without its end. Raises Refused (code WRONG) with what is wrong."""
    record = _parse_json(line)
    if not isinstance(record, dict):
        raise Refused("a request is a JSON object", WRONG)
    unknown = record.keys() - {"v", "verb", "args"}
    if unknown:
        raise Refused(f"unknown key {_quoted(min(unknown))}; a request has v, verb and args", WRONG)
    version, verb, args = record.get("v"), record.get("verb"), record.get("args", {})
    if type(version) is not int or version != VERSION:
        raise Refused(f"this daemon speaks version {VERSION} of the control protocol", WRONG)
    if not isinstance(verb, str) or verb not in VERB_ROLES:
        raise Refused(f"unknown verb {_quoted(verb)}", WRONG)
    if not isinstance(args, dict):
        raise Refused("args is a JSON object", WRONG)
    return Request(verb, args)


def check_args(request: Request) -> Request:
    """The request with every argument of its verb, checked. Raises Refused (code WRONG) with what is wrong."""
    known = VERB_ARGS[request.verb]
    unknown = request.args.keys() - known.keys()
    if unknown:
        raise Refused(f"{request.verb}: unknown argument {_quoted(min(unknown))}", WRONG)
    checked = {}
    for name, argument in known.items():
        value = request.args.get(name)
        if value is None:
            if argument.required:
                raise Refused(f"{request.verb}: {name} is missing", WRONG)
            checked[name] = argument.default
            continue
        try:
            checked[name] = argument.check(value)
        except ValueError as error:
            raise Refused(f"{request.verb}: {name} must be {error}", WRONG) from None
    return Request(request.verb, checked)


def _parse_json(line: bytes) -> Any:
    try:
        return json.loads(
            line.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_small,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except (ValueError, RecursionError):  # ValueError: of decoding and of JSON too
        raise Refused("not a line of JSON in UTF-8 with unique keys and small whole numbers", WRONG) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key occurs twice")  # which one counts would be the parser's choice
    return record


def _small(text: str) -> int:
    if len(text) > 18:
        raise ValueError("a number beyond 64 bits")
    return int(text)


def _no_float(text: str) -> NoReturn:
    raise ValueError("no argument is a fraction")


def _quoted(value: Any) -> str:
    """What the peer wrote, safe in any sink and short."""
    return ascii(value[:60])[:60] if isinstance(value, str) else "of a wrong type"
