"""What people type for arguments of the live verbs: numbers, times, reasons, ids."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Final

from egressd.units import DAY_S

# As web.requests has them, which a command need not load.
MAX_REASON: Final = 500
MAX_FOR_S: Final = 366 * DAY_S
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def whole_number(typed: str, least: int, most: int, what: str) -> int:
    """A number of `least` to `most`, in digits alone and no more of them than `most` has. Raises ArgumentTypeError,
    which says `what` is one."""
    if len(typed) > len(str(most)) or not re.fullmatch("[0-9]+", typed) or not least <= int(typed) <= most:
        raise ArgumentTypeError(what)
    return int(typed)


def duration(typed: str) -> int:
    """`10m`, `2h`, `1d12h` in seconds. Raises ArgumentTypeError."""
    parts = re.findall(r"([0-9]{1,9})([smhdw])", typed)
    seconds = sum(int(size) * _UNITS[unit] for size, unit in parts)
    if "".join(size + unit for size, unit in parts) != typed or not 0 < seconds <= MAX_FOR_S:
        raise ArgumentTypeError(f"{typed!a} is no time: write 10m, 2h, 1d or 1d12h, at most 366d")
    return seconds


def reason(typed: str) -> str:
    """A reason as the audit log keeps it. Raises ArgumentTypeError."""
    why = typed.strip()
    if not 0 < len(why) <= MAX_REASON or not why.isprintable():
        raise ArgumentTypeError(f"a reason is 1 to {MAX_REASON} printable characters; the audit log keeps it")
    return why


def decision_id(typed: str) -> str:
    """`D12`, also as `d12` or `12`. Raises ArgumentTypeError."""
    return _id(typed, "D", "a decision")


def incident_id(typed: str) -> str:
    """`I3`, also as `i3` or `3`. Raises ArgumentTypeError."""
    return _id(typed, "I", "an incident")


def campaign_id(typed: str) -> str:
    """`C3`, also as `c3` or `3`. Raises ArgumentTypeError."""
    return _id(typed, "C", "a campaign")


def _id(typed: str, letter: str, what: str) -> str:
    digits = typed.upper().removeprefix(letter)
    if not re.fullmatch("[0-9]{1,18}", digits):
        raise ArgumentTypeError(f"{typed!a} is not the id of {what}, such as {letter}12")
    return letter + digits
