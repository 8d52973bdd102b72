"""What packet processes tell of contacts with what is not listed, and of who lives where: on its way to disk, and to
all who learn from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from egressd.clock import Clock
from egressd.detect.address_history import AddressHistory
from egressd.detect.campaigns import Campaigns
from egressd.detect.intel import Intel
from egressd.runtime.bulk_rows import HistoryRow, Tenants
from egressd.units import SECOND_US

HISTORY_WAITING: Final = 100_000  # rows; lossy by contract

Reached = tuple[bytes, str, bytes, int]  # client, or nobody in particular; registered domain, address, when


class Learning:
    """`history_waiting` and `tenants_waiting` are taken by who writes them down (runtime/keeping.py)."""

    def __init__(
        self, campaigns: Campaigns, clock: Clock, intel: Callable[[], Intel], learn: Callable[[Iterable[Reached]], None]
    ) -> None:
        """`learn` is told which client reached which domain at which address."""
        self.history_waiting: list[HistoryRow] = []
        self.history_lost = 0
        self.tenants_waiting: list[tuple[str, bytes, int]] = []
        self.tenants: Tenants = ()  # of before the start, for new packet processes
        self._address_history = AddressHistory()
        self._campaigns = campaigns
        self._clock = clock
        self._intel = intel
        self._learn = learn

    def remember(self, tenants: Tenants) -> None:
        """Passive DNS of before the start."""
        self.tenants = tenants
        for domain, address, ts_us in tenants:
            self._address_history.lives_at(domain, address, ts_us)

    def begin_anew(self) -> None:
        """The clock was set by so much that nobody can say what was seen within a day."""
        self._address_history = AddressHistory()
        self.remember(self.tenants)

    def take_history(self, rows: list[HistoryRow]) -> None:
        """Contacts that a packet process saw."""
        self._learn((row[0], row[1], row[3], row[5]) for row in rows if row[1] and row[3])
        self.keep(rows)

    def keep(self, rows: list[HistoryRow]) -> None:
        """Contacts that are history by now, whoever told of them."""
        room = HISTORY_WAITING - len(self.history_waiting)
        self.history_waiting += rows[:room]
        self.history_lost += max(0, len(rows) - room)

    def take_tenants(self, rows: Tenants) -> None:
        """Who lives where, as a packet process saw it."""
        self._learn((b"", *row) for row in rows)
        for domain, address, ts_us in rows:
            self._address_history.lives_at(domain, address, ts_us)
        for domain in dict.fromkeys(domain for domain, _, _ in rows):
            self.tie(domain)
        self.tenants_waiting += rows[: max(0, HISTORY_WAITING - len(self.tenants_waiting))]

    def reached(self, client: bytes, domain: str, address: bytes, ts_us: int) -> None:
        """A listed domain was reached there: history tells only of others."""
        self._learn([(client, domain, address, ts_us)])

    def tie(self, domain: str) -> None:
        """Campaigns whose names lived on one address are one."""
        intel = self._intel()
        now_us = self._clock.now_us()

        def is_everybodys(address: bytes) -> bool:
            if intel.protected.why(address) or intel.shared.why(address):
                return True
            return intel.allowances.never_blocks("", address, now_us // SECOND_US) is not None

        self._address_history.tie(self._campaigns, domain, now_us, is_everybodys)
