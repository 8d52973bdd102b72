"""What the audit chain says of a row that a failing disk damaged, and that was taken out at the start."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from egressd.store import audit
from egressd.store.audit import Act, Verdict
from egressd.store.heads import Head
from egressd.store.ledger import open_ledger
from tests.store.scene import ANNA, T0, ledger_at, verify


def chain(path: Path, rows: int = 4) -> list[Head]:
    with ledger_at(path) as made:
        return [made.call(audit.append, ANNA, T0 + number) for number in range(rows)]


def lose(path: Path, *numbers: int) -> None:
    """The hashes of these rows become text."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (shape,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'audit'").fetchone()
        for sql in (shape.replace("STRICT", ""), shape):
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'audit'", (sql,))
            connection.execute("PRAGMA writable_schema = RESET")
            if sql != shape:
                connection.executemany("UPDATE audit SET hash = 'x' WHERE seq = ?", [(one,) for one in numbers])


def goes_on(path: Path, heads: list[Head]) -> tuple[Verdict, list[Head]]:
    """The next start, with a row more; what a verification says with the heads that were written outside."""
    opened = open_ledger(path, T0 + 99, ballast_bytes=0)
    try:
        assert all(one.startswith("table audit, seq ") for one in opened.aside)
        more = [opened.call(audit.append, Act("uid:bert", "socket", "allow", "x", "why"), T0 + 100)]
        return opened.call(verify, [*heads, *more]), more
    finally:
        opened.close()


@pytest.mark.parametrize("is_written_outside", [True, False])
@pytest.mark.parametrize("numbers", [(4,), (3, 4), (2, 4)])
def test_nobody_gets_the_number_of_the_last_row(
    tmp_path: Path, numbers: tuple[int, ...], is_written_outside: bool
) -> None:
    """The next row got it: a head of it that was written outside said that the chain was made anew, and where there was
    none, nothing said that a row was gone."""
    heads = chain(tmp_path / "ledger.db")
    lose(tmp_path / "ledger.db", *numbers)
    found, more = goes_on(tmp_path / "ledger.db", heads if is_written_outside else heads[:1])
    assert (found.ok, found.put_back) == (False, False)
    gap = f"row {numbers[0]} is missing: row {numbers[0] - 1} is followed by row "
    if numbers == (2, 4):
        more_of_it = "row 4 is missing: row 3 is followed by row 5, which says that it was damaged"
        assert found.problem == f"{gap}3; {more_of_it}"
    else:
        assert found.problem == f"{gap}5, which says that it was damaged"
    assert more[0].seq == 6
    with ledger_at(tmp_path / "ledger.db") as again:
        assert again.aside == []
        (row,) = [one for one in again.call(audit.rows, 9) if one["seq"] == 5]
        assert (row["actor"], row["act"], row["object"], row["after"]) == (
            "egressd", "audit-set-aside", "", {"rows": list(numbers)},
        )  # fmt: skip
    kept = [json.loads(line)["row"]["seq"] for line in (tmp_path / "ledger.db.set-aside").read_text().splitlines()]
    assert kept == list(numbers)


def test_a_row_between_others_is_missing_and_that_is_all(tmp_path: Path) -> None:
    heads = chain(tmp_path / "ledger.db")
    lose(tmp_path / "ledger.db", 2)
    found, more = goes_on(tmp_path / "ledger.db", heads)
    assert (found.problem, more[0].seq) == ("row 2 is missing: row 1 is followed by row 3", 6)


def test_the_only_row(tmp_path: Path) -> None:
    chain(tmp_path / "ledger.db", 1)
    lose(tmp_path / "ledger.db", 1)
    found, more = goes_on(tmp_path / "ledger.db", [])
    assert (found.problem, more[0].seq) == ("rows up to 1 are missing and no row of the chain answers for it", 3)
