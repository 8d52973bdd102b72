"""Contacts for the history that logs tell of, less those that somebody else has told of already.

Our own tap tells of its contacts some seconds after they were; so what logs tell of waits a little longer, and counts
where neither the tap nor another log told of contacts of that client with that destination at that time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from egressd.detect.agreement import SAME_SIGHTING_US
from egressd.runtime.bulk_rows import HistoryRow
from egressd.wire.table import RecentTable

WAIT_US: Final = 15_000_000  # packet processes gather for 5 s, and tell in parts
MAX_WAITING: Final = 65_536
MAX_KNOWN: Final = 65_536
TAP: Final = ""


class HistoryAgreement:
    """Rows in, rows that count out. `agreed` counts rows that others told of, `lost` those there was no room for."""

    def __init__(self) -> None:
        self.agreed = 0
        self.lost = 0
        self._known: RecentTable[tuple[bytes, str | bytes], dict[str, tuple[int, int]]] = RecentTable(MAX_KNOWN)
        self._waiting: deque[tuple[int, str, HistoryRow]] = deque()

    def note(self, rows: list[HistoryRow]) -> None:
        """Our own tap told of contacts."""
        for row in rows:
            self._keep(TAP, row)

    def put(self, sensor: str, row: HistoryRow, now_us: int) -> None:
        """A log told of contacts."""
        if len(self._waiting) >= MAX_WAITING:
            self.lost += 1
            return
        self._waiting.append((now_us, sensor, row))

    def take(self, now_us: int) -> list[HistoryRow]:
        """Those that have waited and count."""
        rows: list[HistoryRow] = []
        while self._waiting and not 0 <= now_us - self._waiting[0][0] < WAIT_US:
            _, sensor, row = self._waiting.popleft()
            if self._is_known(sensor, row):
                self.agreed += 1
            else:
                self._keep(sensor, row)
                rows.append(row)
        return rows

    def _keep(self, sensor: str, row: HistoryRow) -> None:
        key = _key(row)
        known = self._known.get(key)
        if known is None:
            known = {}
            self._known.add(key, known)
        first_us, last_us = row[4], row[5]
        before = known.get(sensor)
        if before is not None and before[1] >= first_us - 2 * SAME_SIGHTING_US:
            first_us = min(before[0], first_us)
        known[sensor] = (first_us, last_us)

    def _is_known(self, sensor: str, row: HistoryRow) -> bool:
        known = self._known.get(_key(row))
        if known is None:
            return False
        return any(
            other != sensor and first_us - SAME_SIGHTING_US <= row[5] and row[4] <= last_us + SAME_SIGHTING_US
            for other, (first_us, last_us) in known.items()
        )


def _key(row: HistoryRow) -> tuple[bytes, str | bytes]:
    client, domain, name, address = row[:4]
    return client, domain or name or address
