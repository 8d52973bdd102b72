"""Since when proposals wait for a person, where that is not since they were made, kept over a restart: a row of `meta`
each.

Versions that do not know these rows leave them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from sqlite3 import Connection
from typing import Final

from egressd.store import meta
from egressd.store.records import parse_count
from egressd.store.unread import Unread

_WORD: Final = "waits"


def keep(connection: Connection, since_us: Mapping[str, int]) -> None:
    """By decision, since when it waits."""
    for id_, one_us in since_us.items():
        meta.put(connection, f"{_WORD} {id_}", str(one_us))


def forget(connection: Connection, decision_id: str) -> None:
    """The decision has ended."""
    meta.forget(connection, f"{_WORD} {decision_id}")


def load(connection: Connection, unread: Unread) -> dict[str, int]:
    """As they were kept, also of what ended under a version that knows nothing of it."""
    found: dict[str, int] = {}
    for id_, text in meta.under(connection, _WORD).items():
        since_us = parse_count(text)
        if since_us is not None:
            found[id_] = since_us
        else:
            unread.tell(f"decision {id_}", "since when it waits cannot be read; it counts from when it was made")
    return found
