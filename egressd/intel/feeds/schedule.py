"""When a feed is asked: spread over time by its name, later and later after failures. Plain arithmetic in seconds."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

SPREAD_S: Final = 30.0  # over which first requests after a start are spread; an alarm must come within 60 s
FIRST_RETRY_S: Final = 60.0
LEAST_S: Final = 5.0  # between two requests for one feed, whatever is asked for
_SHARE: Final = 0.1  # of the interval, by which feeds of the same interval drift apart


def spread(name: str) -> float:
    """A number of 0 to under 1 that is always the same for a name, and another one for another."""
    return int.from_bytes(sha256(name.encode()).digest()[:6], "big") / (1 << 48)


def first_delay_s(name: str, every_s: float, age_s: float | None) -> float:
    """How long to wait after a start. `age_s` is how long ago the kept version was confirmed, None when there is none:
    what is fresh enough is not asked for again only because we were restarted."""
    soon_s = spread(name) * SPREAD_S
    if age_s is None:
        return soon_s
    return max(soon_s, min(every_s, every_s - age_s))


def next_delay_s(name: str, every_s: float, failures: int, retry_after_s: float = 0.0) -> float:
    """How long to wait after an attempt. `failures` in a row: 60 s after the first, then twice as long each time, up to
    `every_s`; not before the server said that it wants to be asked (Retry-After)."""
    if not failures:
        delay_s = every_s
    else:
        delay_s = min(every_s, FIRST_RETRY_S * 2.0 ** min(failures - 1, 20))
    return max(delay_s * (1.0 + _SHARE * spread(name)), retry_after_s, LEAST_S)
