"""What happened to incidents, note by note, and what lets their contacts be since.

Every function runs inside `Database.run`, `read` or `call`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Final, NamedTuple

from egressd.store.records import INCIDENT, number_of
from egressd.store.variables import chunks, marks
from egressd.units import DAY_US

MAX_NOTES: Final = 50  # of an incident; of more the youngest are kept
MAX_NOTE: Final = 1_000  # characters
_TIMES: Final = re.compile(r"(?:; ([0-9]{1,6}) times within a day)?")


class Note(NamedTuple):
    """What happened to an incident. `allowance` is what lets its contacts be from then on, "" when nothing does."""

    incident: str
    ts_us: int
    text: str
    allowance: str


def add_notes(connection: Connection, notes: Sequence[Note]) -> None:
    """Keep notes; of an incident that is not there any more none is."""
    numbers = {number_of(one.incident, INCIDENT) for one in notes}
    connection.executemany(
        "INSERT INTO incident_notes(incident, ts_us, text, allowance) SELECT number, ?, ?, ? FROM incidents"
        " WHERE number = ?",
        [(one.ts_us, one.text[:MAX_NOTE], one.allowance, number_of(one.incident, INCIDENT)) for one in notes],
    )
    connection.executemany(
        "DELETE FROM incident_notes WHERE incident = ?1 AND id NOT IN"
        " (SELECT id FROM incident_notes WHERE incident = ?1 ORDER BY id DESC LIMIT ?2)",
        [(number, MAX_NOTES) for number in numbers],
    )


def count_notes(connection: Connection, notes: Sequence[Note]) -> None:
    """Keep notes; one that says what the last one of its incident says, within a day, is counted there. A list that
    comes and goes all day must not push out what people wrote."""
    new: list[Note] = []
    for one in notes:
        last = connection.execute(
            "SELECT id, text FROM incident_notes WHERE id = (SELECT max(id) FROM incident_notes WHERE incident = ?)"
            " AND allowance = ? AND abs(? - ts_us) < ?",
            (number_of(one.incident, INCIDENT), one.allowance, one.ts_us, DAY_US),
        ).fetchone()
        same = last is not None and last[1].startswith(one.text)
        times = _TIMES.fullmatch(last[1].removeprefix(one.text)) if same else None
        if times is None:
            new.append(one)
            continue
        text = f"{one.text}; {int(times[1] or 1) + 1} times within a day"
        connection.execute("UPDATE incident_notes SET text = ? WHERE id = ?", (text[:MAX_NOTE], last[0]))
    add_notes(connection, new)


def load_notes(connection: Connection, ids: Sequence[str]) -> dict[str, list[Note]]:
    """The notes of incidents, oldest first; of those that have any."""
    found: dict[str, list[Note]] = {}
    for some in chunks([number_of(one, INCIDENT) for one in ids]):
        for number, *rest in connection.execute(
            "SELECT incident, ts_us, text, allowance FROM incident_notes"
            f" WHERE incident IN ({marks(some)}) ORDER BY id",
            some,
        ):
            note = Note(f"{INCIDENT}{number}", *rest)
            found.setdefault(note.incident, []).append(note)
    return found


def load_allowed(connection: Connection) -> dict[str, str]:
    """What lets the contacts of incidents be that are not closed, as their last notes say; of those that are let be."""
    rows = connection.execute(
        "SELECT n.incident, n.allowance FROM incident_notes n JOIN incidents i ON i.number = n.incident"
        " WHERE i.state <> 'closed' AND n.allowance <> ''"
        " AND n.id = (SELECT max(id) FROM incident_notes WHERE incident = n.incident)"
    )
    return {f"{INCIDENT}{number}": allowance for number, allowance in rows}
