"""Whether policy may isolate a client by itself: within an hour's budget, and not soon after a person released it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.model import Target
from egressd.units import DAY_US, HOUR_US

RELEASED_US: Final = DAY_US  # so long policy leaves alone a client that a person released
MAX_RELEASED: Final = 4_096
NO_MACHINE: Final = "that is no machine that policy may isolate"


class IsolationLeave:
    """Nothing may be isolated before `per_hour` and `is_ours` are set."""

    def __init__(self) -> None:
        self.per_hour: Callable[[], int] = _none  # clients that policy isolates within an hour, at most
        self.is_ours: Callable[[str], bool] = _never  # of an address: a host's of ours, and not this gateway's
        self._isolated_us: list[int] = []
        self._released: dict[Target, int] = {}

    def why_not(self, target: Target, now_us: int) -> str:
        """Why policy may not isolate a client now, for people; "" when it may."""
        self._isolated_us = [t for t in self._isolated_us if now_us - t < HOUR_US]
        if not self.is_ours(target.value):
            return NO_MACHINE
        if now_us - self._released.get(target, -RELEASED_US) < RELEASED_US:
            return "a person released it within the last day"
        if len(self._isolated_us) >= self.per_hour():
            return f"over {self.per_hour()} isolated clients in an hour"
        return ""

    def isolated(self, now_us: int) -> None:
        """Policy isolated a client."""
        self._isolated_us.append(now_us)

    def released(self, target: Target, now_us: int) -> None:
        """A person released a client."""
        self._released = {one: at for one, at in self._released.items() if now_us - at < RELEASED_US}
        if len(self._released) < MAX_RELEASED:
            self._released[target] = now_us

    def shift(self, delta_us: int) -> None:
        """The clock was set."""
        self._isolated_us = [one + delta_us for one in self._isolated_us]
        self._released = {target: one + delta_us for target, one in self._released.items()}


def _none() -> int:
    """No budget is known."""
    return 0


def _never(address: str) -> bool:
    """Nothing is known to be ours."""
    return False
