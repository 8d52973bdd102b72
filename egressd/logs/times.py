"""Times as logs write them, to microseconds of epoch. A time without a zone is taken for UTC; what its clock is off by
is found out by those who follow the log (offset.py)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from egressd.errors import Malformed
from egressd.units import SECOND_US

MAX_US: Final = 253_402_300_799 * SECOND_US  # the last second of the year 9999
_NAMES: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS: Final = {name: number for number, name in enumerate(_NAMES, 1)}

_EPOCH: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?")
_ISO: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,9}))?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
_SYSLOG: Final = re.compile(r"([A-Z][a-z]{2}) {1,2}([0-9]{1,2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?")
_NAMED: Final = re.compile(r"([0-9]{2})-([A-Z][a-z]{2})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?")
_CLF: Final = re.compile(
    r"([0-9]{2})/([A-Z][a-z]{2})/([0-9]{4}):([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-][0-9]{4})"
)  # fmt: skip


def parse_epoch(text: str) -> int:
    """Seconds of epoch with a fraction, `1700000000.123456`. Raises Malformed."""
    found = _EPOCH.fullmatch(text)
    if found is None:
        raise Malformed("a time in seconds was expected")
    return _bounded(int(found[1]) * SECOND_US + _fraction(found[2]))


def epoch_of(value: object) -> int:
    """A number of JSON that is a time in seconds, or in milliseconds where it is too large for that. Raises
    Malformed."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        raise Malformed("a time was expected")
    if value >= 1e11:  # seconds of the year 5138
        return round(value * 1_000)
    return round(value * SECOND_US)


def parse_iso(text: str) -> int:
    """ISO 8601 as loggers write it, `2026-11-25T10:00:00.123456+0100`. Raises Malformed."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise Malformed("a time was expected")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    when_us = _civil(int(year), int(month), int(day), hour, minute, second)
    return _bounded(when_us + _fraction(fraction) - _zone_us(zone))


def parse_syslog(text: str, now_us: int) -> int:
    """RFC 3164 section 4.1.2, `Nov 25 10:00:00`: of the years that it leaves open, that which is nearest to `now_us`.
    Raises Malformed."""
    found = _SYSLOG.fullmatch(text)
    if found is None:
        raise Malformed("a time was expected")
    month, day, hour, minute, second, fraction = found.groups()
    this_year = datetime.fromtimestamp(min(MAX_US, max(0, now_us)) // SECOND_US, UTC).year
    best: int | None = None
    for year in (this_year - 1, this_year, this_year + 1):
        try:
            when_us = _civil(year, _month(month), int(day), hour, minute, second)
        except Malformed:
            continue  # 29 February of a year that has none
        if best is None or abs(when_us - now_us) < abs(best - now_us):
            best = when_us
    if best is None:
        raise Malformed("a day that no year has")
    return _bounded(best + _fraction(fraction))


def parse_named(text: str) -> int:
    """BIND's `print-time yes`, `25-Nov-2026 10:00:00.123`. Raises Malformed."""
    found = _NAMED.fullmatch(text)
    if found is None:
        raise Malformed("a time was expected")
    day, month, year, hour, minute, second, fraction = found.groups()
    return _bounded(_civil(int(year), _month(month), int(day), hour, minute, second) + _fraction(fraction))


def parse_clf(text: str) -> int:
    """The Common Log Format's `25/Nov/2026:10:00:00 +0100`. Raises Malformed."""
    found = _CLF.fullmatch(text)
    if found is None:
        raise Malformed("a time was expected")
    day, month, year, hour, minute, second, zone = found.groups()
    return _bounded(_civil(int(year), _month(month), int(day), hour, minute, second) - _zone_us(zone))


def _month(name: str) -> int:
    number = _MONTHS.get(name)
    if number is None:
        raise Malformed("a month that there is not")
    return number


def _civil(year: int, month: int, day: int, hour: str, minute: str, second: str) -> int:
    try:
        when = datetime(year, month, day, int(hour), int(minute), min(59, int(second)), tzinfo=UTC)  # a leap second
    except ValueError:
        raise Malformed("a time that there is not") from None
    return int(when.timestamp()) * SECOND_US


def _fraction(digits: str | None) -> int:
    return int(digits[:6].ljust(6, "0")) if digits else 0


def _zone_us(zone: str | None) -> int:
    if not zone or zone == "Z":
        return 0
    ahead_us = (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * SECOND_US
    return -ahead_us if zone[0] == "-" else ahead_us


def _bounded(ts_us: int) -> int:
    if not 0 <= ts_us <= MAX_US:
        raise Malformed("a time out of all bounds")
    return ts_us
