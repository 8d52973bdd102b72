"""How long an address stays blocked by itself: 10 minutes, then an hour, a day, a week, as long as somebody tries it.

What a list names is blocked as long as it is listed. What was only found out (an address that a listed name led to
today) is somebody else's tomorrow: it is forgotten when nobody tries it, and comes back longer when somebody does
(the idea is that of Zeek's catch-and-release).
"""

from __future__ import annotations

from typing import Final

from egressd.units import DAY_US, HOUR_US, MINUTE_US, SECOND_US

TERMS_US: Final = (10 * MINUTE_US, HOUR_US, DAY_US, 7 * DAY_US)
FORGET_US: Final = 7 * DAY_US  # after that long at rest a target begins anew


def term_us(level: int, ladder_s: tuple[int, ...] = ()) -> int:
    """How long a target of this level stays, in microseconds; `ladder_s` are other terms than the usual ones."""
    if ladder_s:
        return ladder_s[min(level, len(ladder_s) - 1)] * SECOND_US
    return TERMS_US[min(level, len(TERMS_US) - 1)]


def level_on_return(level: int, ended_us: int, now_us: int, ladder_s: tuple[int, ...] = ()) -> int:
    """The level of a target that was at rest since `ended_us` and is tried again."""
    return _next(level, ladder_s) if now_us - ended_us <= FORGET_US else 0


def level_when_due(level: int, tried: bool, ladder_s: tuple[int, ...] = ()) -> int | None:
    """What becomes of a target whose term is over: its next level when somebody tried it meanwhile, else None: it is
    given free."""
    return _next(level, ladder_s) if tried else None


def _next(level: int, ladder_s: tuple[int, ...]) -> int:
    return min(level + 1, len(ladder_s or TERMS_US) - 1)
