"""Contacts on their way to disk: what a packet process saw that matched nothing, until it has told the core."""

from __future__ import annotations

from itertools import islice
from typing import Final

from egressd.detect.history import History, PastContact
from egressd.model import FlowKey
from egressd.native import mypyc_attr

GATHER_US: Final = 5_000_000  # contacts of so long make one row
# Rows that wait to be told. What comes beyond is counted: a flood of names that were never asked for before must not
# become a flood of rows.
MAX_GATHERED: Final = 8_192


@mypyc_attr(acyclic=True)
class Gathered:
    """Contacts of one client with one name at one address, since they were written down last; `flow` and `via` are of
    the last of them."""

    __slots__ = ("count", "first_us", "flow", "last_us", "via")

    def __init__(self, ts_us: int, flow: FlowKey, via: str) -> None:
        self.first_us = ts_us
        self.last_us = ts_us
        self.count = 0
        self.flow = flow
        self.via = via


GatheredRow = tuple[tuple[bytes, str, bytes], Gathered]


class GatheringHistory(History):
    """The history of an engine that runs for months: `take` hands over what is to be written to disk, and what was
    handed over is found there, not here."""

    def __init__(self) -> None:
        super().__init__(0)
        self.ungathered = 0
        self._gathered: dict[tuple[bytes, str, bytes], Gathered] = {}

    def record(
        self, flow: FlowKey, what: str | bytes, ts_us: int, number: int, via: str, new: bool = True,
        server: bytes = b"", sensor: str = "",
    ) -> None:  # fmt: skip
        """See `History.record`."""
        key = (flow.client, what, server) if isinstance(what, str) else (flow.client, "", what)
        row = self._gathered.get(key)
        if row is None:
            if len(self._gathered) >= MAX_GATHERED:
                self.ungathered += 1
                return
            row = self._gathered[key] = Gathered(ts_us, flow, via)
        row.first_us = min(row.first_us, ts_us)
        row.last_us = max(row.last_us, ts_us)  # the kernel's log tells later of what was earlier
        row.flow = flow
        row.via = via
        row.count += new

    def rows(self) -> list[PastContact]:
        """See `History.rows`: what was not handed over yet."""
        rows = [
            PastContact(row.flow, name, address, row.via, row.count, row.first_us, row.last_us)
            for (_, name, address), row in self._gathered.items()
        ]
        rows.sort(key=lambda row: (row.first_us, row.flow, row.name, row.address))
        return rows

    def holds(self, row: PastContact) -> bool:
        """See `History.holds`: what was handed over is found on disk."""
        return (row.flow.client, row.name, row.address) in self._gathered

    def forget(self, row: PastContact) -> None:
        """See `History.forget`."""
        self._gathered.pop((row.flow.client, row.name, row.address), None)

    def take(self, most: int = MAX_GATHERED, begun_before_us: int = 1 << 62) -> list[GatheredRow]:
        """The oldest of what was gathered, by (client, name, address), handed over: what began before a time, and more
        when so much waits."""
        taken = list(islice(self._gathered.items(), most))
        if len(self._gathered) < MAX_GATHERED // 2:
            taken = [row for row in taken if row[1].first_us < begun_before_us]
        if len(taken) == len(self._gathered):
            self._gathered = {}
        else:
            for key, _ in taken:
                del self._gathered[key]
        return taken
