"""The audit chain: who did what, when, why; nothing can be changed, left out or taken back unseen.

A row is one line of ASCII JSON, `body`. Its hash is SHA-256("egressd-audit-v1" NUL, hash of the row before, length of
body as 8 bytes, body), and the body itself names its number and the hash before. The chain alone shows edits, gaps,
insertions and swaps. Cutting its end off, going back to an older copy, or making the whole anew shows only against a
head kept elsewhere: `append_head` writes them to a file that should live in another place too.

A row that a failing disk damaged is taken out (set_aside.py): nobody gets its number, and a row says so (`rows_lost`).
Whoever can write the file could say that, too, so it is no excuse: the row is missing.

Old rows are cut only up to a head that was written outside, and by a row of the chain that carries it (`cut`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

from egressd.intel.lines import render_time
from egressd.plural import count
from egressd.store.errors import refused
from egressd.store.heads import Head
from egressd.store.records import MAX_GIVEN
from egressd.units import SECOND_US

VERSION: Final = 1
CUT: Final = "audit-cut"
SET_ASIDE: Final = "audit-set-aside"
GENESIS: Final = b"\0" * 32
MAX_BODY_BYTES: Final = 1 << 16
_PREFIX: Final = b"egressd-audit-v1\0"
_YEAR_10000_US: Final = 253_402_300_800_000_000
_GAPS_TOLD: Final = 8  # of more only the number is
_STEP_ROWS: Final = 4_096


class Act(NamedTuple):
    """What somebody did. `actor` is `uid:NAME` or `rule:NAME`; `via` the way it came (socket, policy, timer); `object`
    what it was done to; `before` and `after` are JSON values."""

    actor: str
    via: str
    act: str
    object: str
    reason: str
    before: Any = None
    after: Any = None


class Verdict(NamedTuple):
    """What a verification found. `problem` is "" when all is well; `cut` is the number of rows that retention removed,
    by the row that says so; `heads_checked` of the heads given were found in a row. `put_back`: what there is is one
    whole chain, but not the one that some heads are of: an older ledger was put in its place, or made anew."""

    ok: bool
    rows: int
    head: Head
    problem: str
    cut: int
    heads_checked: int
    put_back: bool = False


def append(connection: Connection, act: Act, ts_us: int) -> Head:
    """Add a row, in the transaction of what it records. Raises StoreError when it is too large."""
    return _append(connection, head(connection), act, ts_us)


def rows_lost(connection: Connection, numbers: Sequence[int], ts_us: int) -> Head:
    """Rows of these numbers were damaged, and are gone: nobody gets a number of theirs again, or what was written
    outside of them would say that the chain was made anew. A row of the chain tells of them."""
    last = head(connection)
    highest = max((one for one in numbers if one <= MAX_GIVEN), default=0)
    act = Act("egressd", "start", SET_ASIDE, "", "damaged, and kept beside the ledger", None, {"rows": list(numbers)})
    return _append(connection, last._replace(seq=max(last.seq, highest)), act, ts_us)


def _append(connection: Connection, last: Head, act: Act, ts_us: int) -> Head:
    prev = bytes.fromhex(last.hash)
    body = json.dumps(
        {
            "v": VERSION,
            "seq": last.seq + 1,
            "ts_us": ts_us,
            "actor": act.actor,
            "via": act.via,
            "act": act.act,
            "object": act.object,
            "reason": act.reason,
            "before": act.before,
            "after": act.after,
            "prev": last.hash,
        },
        ensure_ascii=True,
        separators=(",", ":"),
    )
    if len(body) > MAX_BODY_BYTES:
        raise refused(f"an audit row of {len(body)} bytes; at most {MAX_BODY_BYTES} are kept")
    digest = _hash(prev, body.encode("ascii"))
    connection.execute("INSERT INTO audit VALUES(?, ?, ?)", (last.seq + 1, body, digest))
    return Head(last.seq + 1, digest.hex(), ts_us)


def head(connection: Connection) -> Head:
    """The newest row's number and hash; number 0 before the first. One whose number is damaged is passed over: nothing
    could come after it."""
    newest = f"SELECT seq, hash FROM audit WHERE seq BETWEEN 1 AND {MAX_GIVEN} ORDER BY seq DESC LIMIT 1"
    row = connection.execute(newest).fetchone()
    return Head(row[0], row[1].hex(), 0) if row else Head(0, GENESIS.hex(), 0)


def cut(connection: Connection, up_to: Head, act: Act, ts_us: int) -> int:
    """Remove the rows up to and with `up_to`, a head that was written outside; a row of the chain says so and carries
    it. Returns the number of rows removed. Raises StoreError when the chain does not have that head."""
    if not _fits(connection, up_to):
        raise refused(
            f"audit rows are not cut: the ledger has no row {up_to.seq} with the hash that was written outside"
        )
    kept = {"cut": up_to.seq, "hash": up_to.hash}
    append(connection, act._replace(act=CUT, after=kept), ts_us)
    return connection.execute("DELETE FROM audit WHERE seq <= ?", (up_to.seq,)).rowcount


class Verifier:
    """A verification in steps, so that it does not hold up commits: `step` until it returns False, then `verdict`.

    Rows that are added meanwhile are verified with the rest.
    """

    def __init__(self, heads: Iterable[Head] = (), least_kept_us: int = 0) -> None:
        """`heads` come from outside the ledger, the newest last. `least_kept_us` is how long rows are kept at least: a
        cut of younger ones, by the time of the head that it was made at, is a problem."""
        self._given = list(heads)
        self._heads: dict[int, list[Head]] = {}
        for one in self._given:
            self._heads.setdefault(one.seq, []).append(one)
        self._least_kept_us = least_kept_us
        self._next = 0  # the row expected; 0 before the first is seen
        self._base = Head(0, GENESIS.hex(), 0)  # what the first row rests on
        self._prev = GENESIS
        self._rows = 0
        self._checked = 0
        self._others: set[Head] = set()  # heads that a row is not the one of
        self._put_back = False
        self._tombstone: tuple[int, str, int] = (0, GENESIS.hex(), 0)
        self._problem = ""
        self._gaps: list[str] = []  # the first of them, in words
        self._more_gaps = 0

    def step(self, connection: Connection, rows: int = _STEP_ROWS) -> bool:
        """Verify some more rows; False when there are none left, or something was found."""
        after = self._next - 1 if self._next else -1
        found = connection.execute(
            "SELECT seq, body, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (after, rows)
        ).fetchall()
        for seq, body, digest in found:
            self._problem = self._row(seq, body, digest)
            if self._problem:
                return False
            self._rows += 1
            self._next = seq + 1
        return len(found) == rows

    def verdict(self) -> Verdict:
        """What was found."""
        problem = self._told(self._problem or self._at_the_end())
        last = max(0, self._next - 1)
        cut_rows = self._base.seq if not problem else 0
        head = Head(last, self._prev.hex(), 0)
        return Verdict(
            not problem, self._rows, head, problem, cut_rows, self._checked, self._put_back and not self._gaps
        )

    def _told(self, problem: str) -> str:
        """A problem behind all gaps, if there is one."""
        more = f"and {count(self._more_gaps, 'more gap')}" if self._more_gaps else ""
        return "; ".join(filter(None, (*self._gaps, more, problem)))

    def _row(self, seq: int, body: object, digest: object) -> str:
        if not isinstance(body, str) or not isinstance(digest, bytes):  # the table was made anew without its types
            return f"row {seq} is no audit row"
        if not self._next:
            if seq != 1:
                self._base = Head(seq - 1, _field(body, "prev"), 0)  # a cut must answer for it, later in the chain
                if not _is_hash(self._base.hash):
                    return f"row {seq} does not say what came before it"
                self._prev = bytes.fromhex(self._base.hash)
            self._next = seq
        if seq != self._next:
            before = _field(body, "prev")
            if not _is_hash(before):
                return f"row {seq} does not say what came before it"
            self._gap(seq, body)
            self._prev = bytes.fromhex(before)  # what is behind a gap is a chain, too
        raw = body.encode("utf-8", "surrogatepass")
        if _hash(self._prev, raw) != digest:
            return f"row {seq} was changed, or the row before it: its hash does not fit"
        fields = _object(body)
        if fields.get("seq") != seq or fields.get("prev") != self._prev.hex():
            return f"row {seq} stands in the wrong place"
        if fields.get("act") == CUT:
            self._remember(fields)
        for known in self._heads.get(seq, ()):
            if known.hash != digest.hex():
                self._others.add(known)
            else:
                self._checked += 1
        self._prev = digest
        return ""

    def _gap(self, seq: int, body: str) -> None:
        if len(self._gaps) >= _GAPS_TOLD:
            self._more_gaps += 1
            return
        says = ", which says that it was damaged" if _field(body, "act") == SET_ASIDE else ""
        self._gaps.append(f"row {self._next} is missing: row {self._next - 1} is followed by row {seq}{says}")

    def _remember(self, fields: dict[str, Any]) -> None:
        kept = fields.get("after")
        if isinstance(kept, dict) and isinstance(kept.get("cut"), int):
            ts_us = fields.get("ts_us")
            self._tombstone = kept["cut"], str(kept.get("hash")), ts_us if isinstance(ts_us, int) else 0

    def _at_the_end(self) -> str:
        last = max(0, self._next - 1)
        lost = [one for one in self._given if one.seq > last or one in self._others]
        if lost and self._given[-1] in lost:
            if self._others:
                wrong = min(one.seq for one in self._others)
                return f"row {wrong} is not the one whose hash was written outside: the chain was made anew"
            beyond = max(one.seq for one in lost)
            return f"{_are(last + 1, beyond)} missing: a head was written outside for row {beyond}"
        cut_seq, cut_hash, cut_us = self._tombstone
        base = self._base
        if base.seq < cut_seq:
            return f"rows from {base.seq + 1} on are there again, although they were cut"
        if (base.seq, base.hash) != (cut_seq, cut_hash):
            return f"rows up to {base.seq} are missing and no row of the chain answers for it"
        if base.seq and self._heads:
            known = self._heads.get(base.seq)
            if not known:
                return f"rows up to {base.seq} were cut where no head was written outside"
            if any(one.hash != base.hash for one in known):
                return f"rows up to {base.seq} were cut, and the hash that was written outside for it is another"
            self._checked += len(known)
            if cut_us - known[0].ts_us < self._least_kept_us:
                return f"rows up to {base.seq} were cut before their time"
        return self._of_before(lost) if lost else ""

    def _of_before(self, lost: Sequence[Head]) -> str:
        """What to say of heads that are not of this chain, to which newer ones were written: it goes on, but not from
        where it was. A backup put back does that, and the way back to an older version; so does who makes it anew."""
        self._put_back = True
        last = max(lost, key=lambda one: one.seq)
        first = next(
            (one for one in lost if one.ts_us), lost[0]
        )  # a head that a person kept comes before those in order
        before = self._given[: self._given.index(first)]
        gone = set(lost)
        since = max((one.seq for one in before if one.seq < last.seq and one not in gone), default=0)
        when = f" until {render_time(last.ts_us // SECOND_US)}" if 0 < last.ts_us < _YEAR_10000_US else ""
        return (
            f"{_are(since + 1, last.seq)} not in it, whose hashes were written outside{when}: a copy of before was put"
            " in the ledger's place, or it was made anew from there"
        )


def rows(connection: Connection, limit: int = 100, actor: str = "", before_seq: int = 0) -> list[dict[str, Any]]:
    """The newest rows, newest first: those of `actor` if given, those before a row if given."""
    found: list[dict[str, Any]] = []
    wanted = connection.execute(
        "SELECT seq, body, hash FROM audit WHERE (? = 0 OR seq < ?)"
        " AND (? = '' OR CASE WHEN json_valid(body) THEN json_extract(body, '$.actor') END = ?)"
        " ORDER BY seq DESC LIMIT ?",
        (before_seq, before_seq, actor, actor, limit),
    )
    for seq, body, digest in wanted:
        fields = _object(body)
        found.append(
            {"seq": seq}
            | {name: fields.get(name) for name in ("ts_us", "actor", "via", "act", "object", "reason")}
            | {"before": fields.get("before"), "after": fields.get("after"), "hash": digest.hex()}
        )
    return found


def _fits(connection: Connection, head: Head) -> bool:
    row = connection.execute("SELECT hash FROM audit WHERE seq = ?", (head.seq,)).fetchone()
    return row is not None and row[0].hex() == head.hash


def cuttable(
    connection: Connection, heads: Iterable[Head], before_us: int, most_rows: int, at_once: int = 20_000
) -> Head | None:
    """The head to `cut` at: the newest of `heads` that was written before `before_us`, or that lies beyond the newest
    `most_rows` rows. None when nothing is to be cut. Not much more than `at_once` rows go at a time, so that commits
    are not held up for long: ask again."""
    last = head(connection).seq
    first = connection.execute("SELECT min(seq) FROM audit").fetchone()[0] or 0
    old = [
        one for one in heads if first <= one.seq < last and (0 < one.ts_us < before_us or one.seq <= last - most_rows)
    ]
    if not old:
        return None
    near = [one for one in old if one.seq < first + at_once]
    # Some may be of a ledger that a copy was put in the place of; when all are, `cut` refuses and says so.
    fits = next((one for one in sorted(near, reverse=True) if _fits(connection, one)), None)
    return fits or (max(near) if near else min(old))


def _hash(prev: bytes, body: bytes) -> bytes:
    return sha256(_PREFIX + prev + len(body).to_bytes(8, "big") + body).digest()


def _are(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"


def _object(body: str) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _field(body: str, name: str) -> str:
    return str(_object(body).get(name, ""))


def _is_hash(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)
