"""A client that went dark: it showed names before, and shows none now (DoH, ECH, connections without names).

Origin: MITRE ATT&CK T1573 (encrypted channel) and T1572 (DNS over HTTPS as a tunnel); the blind spots themselves are
counted anyway (egressd/detect/blind.py). A change of one client against its own past, and a part of a score only: a
browser's update does that too.
"""

from __future__ import annotations

from typing import Final

from egressd.units import HOUR_US

LEAST_NAMED: Final = 60  # contacts with names in the past
LEAST_HOURS: Final = 3
LEAST_BLIND: Final = 20  # contacts without in the hour at hand
SCORE: Final = 35


class Light:
    """Contacts of one client with and without names."""

    __slots__ = ("blind", "blind_before", "hour_us", "hours", "named", "named_before", "told")

    def __init__(self, ts_us: int) -> None:
        self.hour_us = ts_us
        self.hours = 0
        self.named = 0
        self.blind = 0
        self.named_before = 0
        self.blind_before = 0
        self.told = False

    def take(self, blind: bool, ts_us: int) -> bool:
        """A contact; True when with it the client has gone dark, once until it is light again."""
        if not 0 <= ts_us - self.hour_us < HOUR_US:
            self.hour_us = ts_us
            if not self._is_dark():
                self.hours += 1
                self.named_before += self.named
                self.blind_before += self.blind
                self.told = False
            self.named = self.blind = 0
        if not blind:
            self.named += 1
            return False
        self.blind += 1
        if self.told or not self._is_dark():
            return False
        self.told = True
        return True

    def _is_dark(self) -> bool:
        return (
            self.hours >= LEAST_HOURS
            and self.named_before >= LEAST_NAMED
            and self.blind_before * 10 <= self.named_before
            and self.blind >= LEAST_BLIND
            and self.named * 4 <= self.blind
        )

    def reason(self) -> str:
        """In words."""
        return (
            f"{self.blind} contacts without a readable name within an hour and {self.named} with one, "
            f"the other way round in {self.hours} hours before"
        )
