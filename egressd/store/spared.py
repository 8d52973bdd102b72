"""Why decisions do not cover what they led to, kept over a restart: a row of `meta` for each that spares anything.

Versions that do not know these rows leave them alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from sqlite3 import Connection
from typing import Final

from egressd.model import Target
from egressd.store import meta
from egressd.store.unread import Unread

_WORD: Final = "spared"

Spared = dict[Target, str]


def keep(connection: Connection, decision_id: str, spared: Mapping[Target, str]) -> None:
    """What a decision spares now, and why, in order."""
    rows = [(target.kind, target.value, reason) for target, reason in spared.items()]
    meta.put(connection, f"{_WORD} {decision_id}", json.dumps(rows, separators=(",", ":")))


def forget(connection: Connection, decision_id: str) -> None:
    """The decision has ended."""
    meta.forget(connection, f"{_WORD} {decision_id}")


def load(connection: Connection, unread: Unread) -> dict[str, Spared]:
    """What every decision spares, also those that ended under a version that knows nothing of it."""
    found: dict[str, Spared] = {}
    for id_, text in meta.under(connection, _WORD).items():
        try:
            found[id_] = {Target(str(kind), str(value)): str(reason) for kind, value, reason in json.loads(text)}
        except (ValueError, TypeError, RecursionError):
            unread.tell(f"decision {id_}", "why it spares some addresses cannot be read, and counts as not known")
    return found
