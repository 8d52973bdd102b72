"""Rows of a damaged database that hold what no column of theirs may: taken out of their tables, kept in a file beside.

A failing disk changes a byte, SQLite's own look through the file finds NULL or a value of another type, and everything
else is whole: that must not leave a gateway without its watch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

from egressd.store import audit
from egressd.store.syncing import append

MAX_FAULTS: Final = 100  # that SQLite is asked to name; beyond them it is more than a few rows
NOT_OURS: Final = "migrations"  # says what shape the database has: without a row of it nothing is known of the others
# What PRAGMA quick_check says of such rows (https://www.sqlite.org/pragma.html#pragma_integrity_check).
_FAULT: Final = re.compile(r"(?:[\w-]+ value|CHECK constraint failed) in (\w+)(?:\.\w+)?")


class _Taken(NamedTuple):
    """A row that is gone, and what was wrong with it."""

    table: str
    row: dict[str, Any]
    told: str


def aside_of(path: Path) -> Path:
    """Where the rows that were taken out of a database are kept, a JSON object each."""
    return path.with_name(path.name + ".set-aside")


def set_aside(connection: Connection, path: Path, faults: Sequence[str], now_us: int) -> list[str]:
    """Take out the rows that `faults` of quick_check are about; what was done, in words, or nothing when there is
    another fault among them. Rows that hang on one that goes stay: each says itself what it can. Raises sqlite3.Error;
    nothing was changed then."""
    places = [found[1] for found in map(_FAULT.fullmatch, faults) if found is not None]
    tables = list(dict.fromkeys(places))
    if len(places) < len(faults) or len(faults) >= MAX_FAULTS or NOT_OURS in tables:
        return []
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.text_factory = _escaped
    connection.execute("BEGIN IMMEDIATE")
    try:
        taken = [one for table in tables for one in _take_out(connection, table)]
        where = _keep(aside_of(path), [json.dumps({"table": one.table, "row": one.row}) for one in taken])
        lost = [int(one.row["seq"]) for one in taken if one.table == "audit"]
        if lost:
            connection.text_factory = str
            audit.rows_lost(connection, lost, now_us)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.text_factory = str
        connection.execute("PRAGMA foreign_keys = ON")
    return [f"{one.told}; the row is set aside{where}" for one in taken]


def _take_out(connection: Connection, table: str) -> list[_Taken]:
    """A table's rows that are gone from it."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    keys = [name for _, name, _, _, _, place in columns if place]
    wrong: list[tuple[str, str]] = []  # (SQL that is true of a wrong row, SQL of what to say of that)
    for _, name, type_, is_given, _, place in columns:
        types = (type_.lower(),) if is_given or place else (type_.lower(), "null")
        said = f"'{name} is of type ' || typeof({name})"
        wrong.append((f"typeof({name}) NOT IN ({', '.join(map(repr, types))})", said))
    wrong += [(f"NOT ({one})", "'a value is none that it can have'") for one in _checks(connection, table)]
    taken: list[_Taken] = []
    for where, said in wrong:
        for what, *values in connection.execute(f"SELECT {said}, * FROM {table} WHERE {where}").fetchall():
            row = {column[1]: _plain(value) for column, value in zip(columns, values, strict=True)}
            which = ", ".join(f"{key} {row[key]}" for key in keys)
            taken.append(_Taken(table, row, f"table {table}, {which}: {what}"))
        connection.execute(f"DELETE FROM {table} WHERE {where}")
    return taken


def _checks(connection: Connection, table: str) -> list[str]:
    """The conditions that a table was made with."""
    (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    found: list[str] = []
    for part in sql.split("CHECK(")[1:]:
        depth = 1
        for end, sign in enumerate(part):
            depth += (sign == "(") - (sign == ")")
            if not depth:
                found.append(part[:end])
                break
    return found


def _keep(path: Path, lines: Sequence[str]) -> str:
    """Add lines to a file; where they are, in words."""
    try:
        append(path, "".join(f"{line}\n" for line in lines).encode("ascii"))
    except OSError as error:
        return f" and NOT KEPT ({path.name}: {error.strerror})"
    return f" in {path.name}"


def _plain(value: object) -> object:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value


def _escaped(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")
