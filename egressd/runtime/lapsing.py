"""Allowances whose time is nearly over, and those whose time is over: somebody should know before and after.

An allowance that ends unnoticed cuts off what somebody relies on; one that everybody has forgotten is a hole.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Final

from egressd.intel.allowances import Allowance, Allowances
from egressd.intel.lines import show
from egressd.notify.eve import spoken_time
from egressd.units import DAY_S, SECOND_US

ENDING_S: Final = DAY_S  # so long before its end it is told of
ENDED_S: Final = DAY_S  # so long after its end it is shown
MAX_ENDED: Final = 1_000
NAMED: Final = 2  # on one screen; of more only the number is

log = logging.getLogger("egressd")

_Key = tuple[str, str, str, int]


class Lapsing:
    """Follows the ends of allowances. Each is told of once before and once after in a run of the daemon."""

    def __init__(self) -> None:
        self._allowances: Allowances | None = None
        self._dated: list[Allowance] = []  # those that end
        self._told: dict[_Key, bool] = {}  # whether its end was told of too
        self._ended: deque[Allowance] = deque(maxlen=MAX_ENDED)

    def restore(self, ended: Iterable[Allowance], now_us: int) -> None:
        """Those that ended while nothing ran, or shortly before."""
        for one in ended:
            self._end(one, now_us // SECOND_US)

    def follow(self, allowances: Allowances, now_us: int) -> None:
        """Once a second, before what has ended is taken out of `allowances`."""
        now_s = now_us // SECOND_US
        if allowances is not self._allowances:
            self._allowances = allowances
            self._dated = [one for one in allowances.allowances if one.expires_s]
            kept = {_key(one) for one in (*self._dated, *self._ended)}
            self._told = {key: told for key, told in self._told.items() if key in kept}
        for one in self._dated:
            if one.expires_s <= now_s:
                self._end(one, now_s)
            elif one.expires_s - now_s <= ENDING_S and _key(one) not in self._told:
                self._told[_key(one)] = False
                log.warning("an allowance ends at %s: %s", _when(one), _said(one))

    def _end(self, one: Allowance, now_s: int) -> None:
        if now_s - one.expires_s > ENDED_S or self._told.get(_key(one), False):
            return
        self._told[_key(one)] = True
        self._ended.append(one)
        log.warning("an allowance has ended at %s, what it let be is blocked again: %s", _when(one), _said(one))

    def counts(self, now_us: int) -> dict[str, int]:
        """How many are in force, how many of them end within a day, how many ended within the last day."""
        every = self._allowances.allowances if self._allowances is not None else ()
        now_s = now_us // SECOND_US
        ending = len(self._ending(now_s))
        in_force = sum(not one.expires_s or one.expires_s > now_s for one in every)
        return {"active": in_force - ending, "ending": ending, "ended": len(self._over(now_s))}

    def warnings(self, now_us: int) -> list[str]:
        """What somebody should know."""
        now_s = now_us // SECOND_US
        return [
            *_shortened([f"ALLOWANCE ends at {_when(one)}: {_said(one)}" for one in self._ending(now_s)], "end"),
            *_shortened([f"ALLOWANCE ended at {_when(one)}: {_said(one)}" for one in self._over(now_s)], "ended"),
        ]

    def _ending(self, now_s: int) -> list[Allowance]:
        found = [one for one in self._dated if 0 < one.expires_s - now_s <= ENDING_S]
        return sorted(found, key=lambda one: one.expires_s)

    def _over(self, now_s: int) -> list[Allowance]:
        return [one for one in self._ended if 0 <= now_s - one.expires_s <= ENDED_S]


def _key(one: Allowance) -> _Key:
    return one.kind, one.value, one.client, one.expires_s


def _when(one: Allowance) -> str:
    return spoken_time(one.expires_s * SECOND_US)


def _said(one: Allowance) -> str:
    client = f" client={one.client}" if one.client else ""
    return f"{one.kind} {show(one.value)}{client} of {show(one.owner)} ({show(one.reason)})"


def _shortened(lines: list[str], verb: str) -> list[str]:
    if len(lines) <= NAMED:
        return lines
    return [*lines[: NAMED - 1], f"{len(lines) - NAMED + 1} more ALLOWANCES {verb} within a day: egressd list"]
