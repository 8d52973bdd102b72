"""The audit chain: every attack that THREATS names is found, with a head kept outside, and honest ledgers pass."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from hashlib import sha256
from sqlite3 import Connection
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.store import audit
from egressd.store.audit import GENESIS, Act
from egressd.store.db import Database
from egressd.store.errors import REQUEST, StoreError
from egressd.store.heads import Head
from egressd.store.migrations import decisions_and_audit
from tests.store.scene import DAY, T0, verify

ROWS = 40


def act(number: int) -> Act:
    return Act("uid:anna", "socket", "block", f"D{number}", "seen by the CSIRT", None, {"n": number})


def fill(connection: Connection, rows: int = ROWS, first: int = 1) -> list[Head]:
    return [audit.append(connection, act(number), T0 + number) for number in range(first, first + rows)]


def make_anew(connection: Connection, rows: list[tuple[int, str]]) -> None:
    """What somebody does who can write the file and knows how the chain is made."""
    connection.execute("DELETE FROM audit")
    prev = GENESIS
    for seq, body in rows:
        fields = json.loads(body) | {"seq": seq, "prev": prev.hex()}
        text = json.dumps(fields, ensure_ascii=True, separators=(",", ":"))
        prev = sha256(b"egressd-audit-v1\0" + prev + len(text).to_bytes(8, "big") + text.encode()).digest()
        connection.execute("INSERT INTO audit VALUES(?, ?, ?)", (seq, text, prev))


def bodies(connection: Connection) -> list[tuple[int, str]]:
    return connection.execute("SELECT seq, body FROM audit ORDER BY seq").fetchall()


def test_the_format_is_fixed(ledger: Database) -> None:
    """Rows must verify with any later version, and with a dozen lines of somebody else's code."""
    head = ledger.call(audit.append, Act("uid:jürg\x1b", "socket", "block", "D1", "it's bad", None, [1]), T0)
    ((seq, body, digest),) = ledger.call(lambda one: one.execute("SELECT seq, body, hash FROM audit").fetchall())
    assert body == (
        '{"v":1,"seq":1,"ts_us":1430000000000000,"actor":"uid:j\\u00fcrg\\u001b","via":"socket","act":"block",'
        '"object":"D1","reason":"it\'s bad","before":null,"after":[1],"prev":"' + "00" * 32 + '"}'
    )
    wanted = sha256(b"egressd-audit-v1\0" + b"\0" * 32 + len(body).to_bytes(8, "big") + body.encode()).digest()
    assert digest == wanted and head == Head(1, wanted.hex(), T0) and seq == 1
    assert ledger.call(audit.head) == Head(1, wanted.hex(), 0)


def test_an_honest_chain(ledger: Database) -> None:
    assert ledger.call(verify) == (True, 0, Head(0, GENESIS.hex(), 0), "", 0, 0, False)
    heads = ledger.call(fill)
    verdict = ledger.call(verify, heads[::7])
    assert (verdict.ok, verdict.rows, verdict.problem, verdict.heads_checked) == (True, ROWS, "", 6)
    assert (verdict.head.seq, verdict.head.hash) == heads[-1][:2]


Attack = Callable[[Connection], object]


def sql(*statements: str) -> Attack:
    def run(connection: Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return run


def edit_and_make_anew(connection: Connection) -> None:
    make_anew(connection, [(seq, body.replace("D17", "D18")) for seq, body in bodies(connection)])


def leave_out_and_make_anew(connection: Connection) -> None:
    kept = [body for seq, body in bodies(connection) if seq != 17]
    make_anew(connection, list(enumerate(kept, 1)))


def insert_and_make_anew(connection: Connection) -> None:
    rows = [body for _, body in bodies(connection)]
    make_anew(connection, list(enumerate([*rows[:9], rows[3], *rows[9:]], 1)))


def go_back_and_go_on(connection: Connection) -> None:
    connection.execute("DELETE FROM audit WHERE seq > 20")
    fill(connection, 30, 21)
    connection.execute("DELETE FROM audit WHERE seq > 30")
    fill(connection, 30, 500)


def forge_a_cut(connection: Connection) -> None:
    """Everything is thrown away behind a tombstone of one's own."""
    made_up = Head(60, "ab" * 32, T0)
    kept = {"cut": made_up.seq, "hash": made_up.hash}
    body = {"v": 1, "seq": 61, "ts_us": T0, "act": "audit-cut", "after": kept, "prev": made_up.hash}
    text = json.dumps(body, separators=(",", ":"))
    digest = sha256(
        b"egressd-audit-v1\0" + bytes.fromhex(made_up.hash) + len(text).to_bytes(8, "big") + text.encode()
    ).digest()
    connection.execute("DELETE FROM audit")
    connection.execute("INSERT INTO audit VALUES(61, ?, ?)", (text, digest))


def swap(one: int, other: int) -> Attack:
    return sql(
        f"UPDATE audit SET seq = -1 WHERE seq = {one}",
        f"UPDATE audit SET seq = {one} WHERE seq = {other}",
        f"UPDATE audit SET seq = {other} WHERE seq = -1",
    )


LATER = range(18, ROWS + 1)
ATTACKS: dict[str, tuple[Attack, str, bool]] = {
    # attack, what is said, whether the chain alone shows it
    "edit": (sql("UPDATE audit SET body = replace(body, 'D17', 'D18') WHERE seq = 17"), "row 17 was changed", True),
    "edit the hash": (sql("UPDATE audit SET hash = zeroblob(32) WHERE seq = 17"), "row 17 was changed", True),
    "edit the last": (
        sql(f"UPDATE audit SET body = replace(body, 'CSIRT', 'NSA') WHERE seq = {ROWS}"), f"row {ROWS} was", True,
    ),
    "spoil": (sql("UPDATE audit SET body = '' WHERE seq = 17"), "row 17 was changed", True),
    "delete": (sql("DELETE FROM audit WHERE seq = 17"), "row 17 is missing", True),
    "delete and close the gap": (
        sql("DELETE FROM audit WHERE seq = 17", *(f"UPDATE audit SET seq = {n} - 1 WHERE seq = {n}" for n in LATER)),
        "row 17 was changed", True,
    ),
    "insert": (
        sql("INSERT INTO audit SELECT 41, body, hash FROM audit WHERE seq = 3"), "row 41 was changed", True,
    ),
    "reorder": (swap(10, 30), "row 10 was changed", True),
    "delete the beginning": (sql("DELETE FROM audit WHERE seq < 10"), "rows up to 9 are missing", True),
    "truncate": (sql("DELETE FROM audit WHERE seq > 30"), "rows 31 to 40 are missing", False),
    "truncate the last": (sql(f"DELETE FROM audit WHERE seq = {ROWS}"), "row 40 is missing", False),
    "delete all": (sql("DELETE FROM audit"), "rows 1 to 40 are missing", False),
    "edit and make anew": (edit_and_make_anew, "row 20 is not the one", False),
    "leave out and make anew": (leave_out_and_make_anew, "row 20 is not the one", False),
    "insert and make anew": (insert_and_make_anew, "row 10 is not the one", False),
    "roll back and go on": (go_back_and_go_on, "row 40 is not the one", False),
    "forge a cut": (forge_a_cut, "rows up to 60 were cut where no head was written outside", False),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(ledger: Database, name: str) -> None:
    attack, wanted, shows_alone = ATTACKS[name]
    heads = ledger.call(fill)
    ledger.call(attack)
    verdict = ledger.call(verify, heads[9::10])
    assert not verdict.ok and verdict.problem.startswith(wanted), verdict.problem
    assert ledger.call(verify).ok is not shows_alone


def test_every_gap_is_told_and_what_is_behind_it_is_verified(ledger: Database) -> None:
    """It stopped at the first: whether a disk or a person took one row or half of them was not known."""
    heads = ledger.call(fill)
    ledger.call(sql("DELETE FROM audit WHERE seq IN (5, 17, 18, 39)"))
    found = ledger.call(verify, heads)
    gaps = ["row 5 is missing: row 4 is followed by row 6", "row 17 is missing: row 16 is followed by row 19"]
    gaps.append("row 39 is missing: row 38 is followed by row 40")
    assert (found.ok, found.rows, found.put_back, found.problem) == (False, ROWS - 4, False, "; ".join(gaps))
    assert ledger.call(verify).problem == found.problem
    ledger.call(sql("UPDATE audit SET body = replace(body, 'CSIRT', 'NSA') WHERE seq = 30"))
    assert ledger.call(verify).problem.startswith("; ".join((*gaps[:2], "row 30 was changed")))


def test_of_many_gaps_the_rest_is_a_number(ledger: Database) -> None:
    heads = ledger.call(fill)
    ledger.call(sql("DELETE FROM audit WHERE seq % 2 = 0 AND seq < 40"))
    found = ledger.call(verify, heads[:1])
    assert found.problem.count(" is missing: ") == 8 and found.problem.endswith("; and 11 more gaps")
    ledger.call(sql("DELETE FROM audit WHERE seq = 40"))
    assert ledger.call(verify, heads).problem.endswith(
        "; and 11 more gaps; row 40 is missing: a head was written outside for row 40"
    )


def test_a_copy_of_before_was_put_back(ledger: Database) -> None:
    """The way back to an older version, or a backup: `the chain was made anew`, and no row behind it was read."""
    heads = ledger.call(fill)[9::10]  # up to row 40
    ledger.call(sql("DELETE FROM audit WHERE seq > 15"))
    assert ledger.call(verify, heads).problem.startswith("rows 16 to 40 are missing")
    for more in (10, 20):  # fewer rows than there were, and more
        heads.append(ledger.call(fill, more, 700 + more)[-1])
        verdict = ledger.call(verify, heads)
        assert not verdict.ok and verdict.put_back, verdict
        assert verdict.problem.startswith("rows 11 to 40 are not in it, whose hashes were written outside until 20")
    assert verdict.heads_checked == 3 and verdict.rows == 45
    of_before = [one for one in heads if not 10 < one.seq <= 40 or one == heads[-2]]
    assert ledger.call(verify, of_before).ok  # an operator who knows why took their lines out
    assert ledger.call(audit.cuttable, heads[:4], T0 + DAY, 1_000) == heads[0]  # row 30 is another one now
    kept = [Head(30, heads[2].hash, 0), *heads]  # by a person
    assert ledger.call(verify, kept).problem.startswith("rows 11 to 40 are not in it")
    kept = [Head(30, heads[2].hash, 1 << 62), heads[-1]]
    assert "outside: a copy" in ledger.call(verify, kept).problem
    ledger.call(sql("UPDATE audit SET body = replace(body, 'D7', 'D8') WHERE seq = 43"))
    broken = ledger.call(verify, heads)
    assert (broken.problem[:18], broken.put_back) == ("row 43 was changed", False)


@given(st.data())
def test_any_change_of_any_row_is_found(data: st.DataObject) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    decisions_and_audit(connection)
    heads = fill(connection, 12)
    seq = data.draw(st.integers(1, 12))
    (body,) = connection.execute("SELECT body FROM audit WHERE seq = ?", (seq,)).fetchone()
    at = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda one: one != body[at]))
    connection.execute("UPDATE audit SET body = ? WHERE seq = ?", (body[:at] + other + body[at + 1 :], seq))
    verdict = verify(connection, heads)
    assert not verdict.ok and verdict.rows == seq - 1
    connection.close()


def test_a_cut_leaves_a_chain_that_verifies(ledger: Database) -> None:
    heads = ledger.call(fill)
    retention = Act("egressd", "timer", "", "", "older than three years")
    assert ledger.call(audit.cut, heads[9], retention, T0 + DAY) == 10
    verdict = ledger.call(verify, heads[9::10], 0)
    assert (verdict.ok, verdict.rows, verdict.cut, verdict.heads_checked) == (True, ROWS - 10 + 1, 10, 4)
    tombstone = ledger.call(audit.rows, 1)[0]
    assert tombstone["act"] == "audit-cut" and tombstone["after"] == {"cut": 10, "hash": heads[9].hash}
    assert ledger.call(audit.cut, heads[29], retention, T0 + DAY) == 20
    assert ledger.call(verify, heads).cut == 30
    ledger.call(fill, 5, 900)
    assert ledger.call(verify, heads).ok


def test_more_than_was_cut_is_missing(ledger: Database) -> None:
    heads = ledger.call(fill)
    ledger.call(audit.cut, heads[9], act(0), T0 + DAY)
    ledger.call(sql("DELETE FROM audit WHERE seq < 15"))
    assert "no row of the chain answers for it" in ledger.call(verify, heads).problem


def test_rows_that_were_cut_and_are_there_again(ledger: Database) -> None:
    heads = ledger.call(fill)
    before = ledger.call(lambda one: one.execute("SELECT * FROM audit WHERE seq <= 10").fetchall())
    ledger.call(audit.cut, heads[9], act(0), T0 + DAY)
    ledger.call(lambda one: one.executemany("INSERT INTO audit VALUES(?, ?, ?)", before))
    assert "there again" in ledger.call(verify, heads).problem


def test_a_cut_before_its_time(ledger: Database) -> None:
    """By somebody who can write the ledger, at a true head: its own time, written outside, tells on it."""
    heads = ledger.call(fill)
    ledger.call(audit.cut, heads[38], act(0), T0 + DAY)
    assert ledger.call(verify, heads, 0).ok
    assert ledger.call(verify, heads, 30 * DAY).problem == "rows up to 39 were cut before their time"


def test_no_cut_where_no_head_was_written(ledger: Database) -> None:
    heads = ledger.call(fill)
    for wrong in (heads[3]._replace(seq=5), Head(400, heads[3].hash, T0)):
        with pytest.raises(StoreError, match="not cut") as caught:
            ledger.call(audit.cut, wrong, act(0), T0)
        assert caught.value.kind == REQUEST
    assert ledger.call(verify, heads).rows == ROWS


def test_which_head_is_old_enough(ledger: Database) -> None:
    heads = ledger.call(fill)[9::10]
    cuttable = audit.cuttable
    assert ledger.call(cuttable, heads, T0, 1_000) is None
    assert ledger.call(cuttable, heads, T0 + 21, 1_000) == heads[1]
    assert ledger.call(cuttable, heads, T0, 15) == heads[1]  # 15 newest rows: 26 to 40
    assert ledger.call(cuttable, heads, T0 + DAY, 1_000) == heads[2]  # the newest row stays
    assert ledger.call(cuttable, heads, T0 + DAY, 1_000, 15) == heads[0]
    assert ledger.call(cuttable, heads, T0 + DAY, 1_000, 5) == heads[0]  # at least something
    assert ledger.call(cuttable, [heads[1]._replace(ts_us=0)], T0 + DAY, 1_000) is None  # of unknown age
    assert ledger.call(cuttable, [], T0 + DAY, 0) is None


def test_in_steps_with_rows_added_meanwhile(ledger: Database) -> None:
    heads = ledger.call(fill)
    verifier = audit.Verifier(heads)
    assert ledger.call(verifier.step, 16)
    ledger.call(fill, 4, 300)
    while ledger.call(verifier.step, 16):
        pass
    assert verifier.verdict()[:2] == (True, ROWS + 4)


def test_rows_for_people(ledger: Database) -> None:
    ledger.call(fill)
    ledger.call(audit.append, Act("uid:bert", "socket", "allow", "E1", "why", {"a": 1}, None), T0 + 99)
    assert [row["seq"] for row in ledger.call(audit.rows, 3)] == [41, 40, 39]
    assert [row["seq"] for row in ledger.call(audit.rows, 2, "uid:anna", 20)] == [19, 18]
    (row,) = ledger.call(audit.rows, 5, "uid:bert")
    assert row == {
        "seq": 41, "ts_us": T0 + 99, "actor": "uid:bert", "via": "socket", "act": "allow", "object": "E1",
        "reason": "why", "before": {"a": 1}, "after": None, "hash": ledger.call(audit.head).hash,
    }  # fmt: skip
    ledger.call(sql("UPDATE audit SET body = '{\"seq\"' WHERE seq = 41"))
    assert ledger.call(audit.rows, 1)[0]["actor"] is None
    assert ledger.call(audit.rows, 1, "uid:anna")[0]["seq"] == 40


def test_a_hundred_thousand_rows_are_verified_in_seconds(ledger: Database) -> None:
    heads = ledger.call(fill, 100_000)
    begun = process_time()
    verdict = ledger.call(verify, heads[::1000])
    assert verdict.ok and verdict.rows == 100_000 and verdict.heads_checked == 100
    assert process_time() - begun < 5  # measured 0.5
