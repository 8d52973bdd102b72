"""Times of decisions that have no column of their own, kept over a restart: a row of `meta` each.

Versions that do not know these rows leave them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from sqlite3 import Connection
from typing import Final, NamedTuple

from egressd.store import meta
from egressd.store.records import parse_count
from egressd.store.unread import Unread


class Moments(NamedTuple):
    """One such time. `word` begins its keys; `lost` is what is told of one that is damaged."""

    word: str
    lost: str

    def keep(self, connection: Connection, times_us: Mapping[str, int]) -> None:
        """By decision."""
        for id_, time_us in times_us.items():
            meta.put(connection, f"{self.word} {id_}", str(time_us))

    def forget(self, connection: Connection, decision_id: str) -> None:
        """The decision has ended."""
        meta.forget(connection, f"{self.word} {decision_id}")

    def load(self, connection: Connection, unread: Unread) -> dict[str, int]:
        """As they were kept, also of what ended under a version that knows nothing of them."""
        found: dict[str, int] = {}
        for id_, text in meta.under(connection, self.word).items():
            time_us = parse_count(text)
            if time_us is not None:
                found[id_] = time_us
            else:
                unread.tell(f"decision {id_}", self.lost)
        return found


# Since when proposals wait for a person, where that is not since they were made.
WAITS: Final = Moments("waits", "since when it waits cannot be read; it counts from when it was made")
# When decisions stood first that stand again under a new number.
BEGAN: Final = Moments("began", "when it stood first cannot be read; it counts from when it was made")
