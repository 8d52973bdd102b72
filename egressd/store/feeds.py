"""The scorecard of feeds: what each brought, what of it was met, and what people said of that.

A feed that is large and never met costs; one that is met and wrong costs more. `hits` counts contacts that a feed's
lines met, `unique_hits` those that nothing but this feed would have found. Verdicts are by incident and by source, so
that lists are judged too; one incident has one verdict, and who judges again replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

from egressd.store import audit
from egressd.store.audit import Act
from egressd.store.errors import refused
from egressd.store.incidents import load_incident
from egressd.store.records import INCIDENT, number_of, plus

FALSE_POSITIVE: Final = "false-positive"
CONFIRMED: Final = "confirmed"
VERDICTS: Final = (FALSE_POSITIVE, CONFIRMED)


class FeedRow(NamedTuple):
    """How a feed stands, as it was told last. Times are epoch microseconds, 0 = never."""

    name: str
    last_try_us: int
    last_ok_us: int
    error: str
    indicators: int
    added: int
    removed: int
    quarantined: int


class Score(NamedTuple):
    """What a source is worth: contacts that it met, those that only it did, and people's verdicts."""

    hits: int = 0
    unique_hits: int = 0
    false_positives: int = 0
    confirmed: int = 0


def note(connection: Connection, row: FeedRow) -> None:
    """How a feed stands after an attempt. What it hit stays."""
    connection.execute(
        "INSERT INTO feeds(name, last_try_us, last_ok_us, error, indicators, added, removed, quarantined)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(name) DO UPDATE SET last_try_us = excluded.last_try_us,"
        " last_ok_us = excluded.last_ok_us, error = excluded.error, indicators = excluded.indicators,"
        " added = excluded.added, removed = excluded.removed, quarantined = excluded.quarantined",
        row,
    )


def add_hits(connection: Connection, hits: Iterable[tuple[str, int, int]]) -> None:
    """(feed, contacts that it met, those that only it did) since the last time."""
    connection.executemany(
        "INSERT INTO feeds(name, hits, unique_hits) VALUES(?, ?, ?) ON CONFLICT(name) DO UPDATE SET"
        f" hits = {plus('hits', 'excluded.hits')}, unique_hits = {plus('unique_hits', 'excluded.unique_hits')}",
        hits,
    )


def judge(connection: Connection, id_: str, verdict: str, by: str, reason: str, now_us: int, act: Act) -> str:
    """A person's word on what an incident rests on; returns the source that it is about. Raises StoreError when there
    is no such incident or verdict."""
    if verdict not in VERDICTS:
        raise refused(f"no verdict {verdict!a}; choose {' or '.join(VERDICTS)}")
    row = load_incident(connection, id_)
    if row is None:
        raise refused(f"there is no incident {id_}")
    indicator = row.incident.match.indicator
    number = number_of(id_, INCIDENT)
    before = connection.execute("SELECT verdict FROM verdicts WHERE incident = ?", (number,)).fetchone()
    connection.execute(
        "INSERT INTO verdicts VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT(incident) DO UPDATE SET source = excluded.source,"
        " value = excluded.value, verdict = excluded.verdict, by = excluded.by, reason = excluded.reason,"
        " ts_us = excluded.ts_us",
        (number, indicator.source, indicator.value, verdict, by, reason, now_us),
    )
    after = {"verdict": verdict, "source": indicator.source, "value": indicator.value}
    told = act._replace(object=id_, before={"verdict": before[0]} if before else None, after=after)
    audit.append(connection, told, now_us)
    return indicator.source


def scores(connection: Connection) -> dict[str, Score]:
    """By source: every feed, and every list that somebody judged."""
    found = {
        name: Score(hits, unique)
        for name, hits, unique in connection.execute("SELECT name, hits, unique_hits FROM feeds ORDER BY name")
    }
    rows = connection.execute(
        "SELECT source, sum(verdict = 'false-positive'), sum(verdict = 'confirmed') FROM verdicts GROUP BY source"
    )
    for source, wrong, right in rows:
        known = found.get(source, Score())
        found[source] = known._replace(false_positives=wrong, confirmed=right)
    return found


def rows(connection: Connection) -> list[dict[str, Any]]:
    """Every feed as it was told last, also those that are followed no more."""
    names = ("name", "last_try_us", "last_ok_us", "error", "indicators", "added", "removed", "quarantined")
    return [
        dict(zip(names, row, strict=True))
        for row in connection.execute(f"SELECT {', '.join(names)} FROM feeds ORDER BY name")
    ]
