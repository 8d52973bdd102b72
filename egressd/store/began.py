"""When decisions stood first that stand again under a new number, kept over a restart: a row of `meta` each.

Versions that do not know these rows leave them alone.
"""

from __future__ import annotations

from sqlite3 import Connection
from typing import Final

from egressd.store import meta
from egressd.store.records import parse_count
from egressd.store.unread import Unread

_WORD: Final = "began"


def keep(connection: Connection, decision_id: str, began_us: int) -> None:
    """When a decision stood first."""
    meta.put(connection, f"{_WORD} {decision_id}", str(began_us))


def forget(connection: Connection, decision_id: str) -> None:
    """The decision has ended."""
    meta.forget(connection, f"{_WORD} {decision_id}")


def load(connection: Connection, unread: Unread) -> dict[str, int]:
    """As they were kept, also of what ended under a version that knows nothing of it."""
    found: dict[str, int] = {}
    for id_, text in meta.under(connection, _WORD).items():
        began_us = parse_count(text)
        if began_us is not None:
            found[id_] = began_us
        else:
            unread.tell(f"decision {id_}", "when it stood first cannot be read; it counts from when it was made")
    return found
