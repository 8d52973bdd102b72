"""What the ledger knows of the daemon's own runs: whether the last one ended well, and when it was last alive."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Final, NamedTuple

from egressd.clock import STEP_US
from egressd.store.records import mend_numbers, parse_count
from egressd.store.targets import shift_deadlines
from egressd.units import DAY_US

YEAR_US: Final = 366 * DAY_US


class LastRun(NamedTuple):
    """How the run before ended. `seen_us` 0: there was none."""

    clean: bool
    seen_us: int


def last_run(connection: Connection) -> LastRun:
    """How the run ended that began last."""
    seen_us = parse_count(get(connection, "seen_us", "0"))
    return LastRun(get(connection, "clean", "1") == "1" and seen_us is not None, seen_us or 0)


def set_by_us(last: LastRun, now_us: int) -> int:
    """By how much the clock was set since the last run, as far as that can be told: a clock that is right is not behind
    the last sign of life, and hardly a year ahead of it. Else 0."""
    ahead_us = now_us - last.seen_us if last.seen_us else 0
    return ahead_us if ahead_us < -STEP_US or ahead_us > YEAR_US else 0


def clock_was_set(connection: Connection, delta_us: int, now_us: int) -> None:
    """Deadlines move along with the clock, and it is written by which clock they are: both or neither."""
    shift_deadlines(connection, delta_us)
    seen(connection, now_us)


def begin_run(connection: Connection, now_us: int) -> LastRun:
    """A run begins: not ended well until `end_run` says so. Returns how the one before ended."""
    last = last_run(connection)
    mend_numbers(connection)
    put(connection, "clean", "0")
    seen(connection, now_us)
    return last


def seen(connection: Connection, now_us: int) -> None:
    """The daemon is alive."""
    put(connection, "seen_us", str(now_us))


def end_run(connection: Connection, now_us: int) -> None:
    """The run ends as it should."""
    put(connection, "clean", "1")
    seen(connection, now_us)


def get(connection: Connection, key: str, default: str = "") -> str:
    """A value kept by name."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row else default


def forget(connection: Connection, key: str) -> None:
    """Keep a value no longer."""
    connection.execute("DELETE FROM meta WHERE key = ?", (key,))


def under(connection: Connection, word: str) -> dict[str, str]:
    """The values whose key begins with a word and a space, by the rest of the key."""
    rows = connection.execute("SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?", (len(word) + 1, f"{word} "))
    return {key[len(word) + 1 :]: value for key, value in rows}


def put(connection: Connection, key: str, value: str) -> None:
    """Keep a value by name."""
    connection.execute(
        "INSERT INTO meta VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value)
    )
