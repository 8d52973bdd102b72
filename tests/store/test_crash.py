"""Killed at any moment: what was acknowledged is there, nothing is there by halves, the chain is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from sqlite3 import Connection

import pytest

from egressd.store import audit, decision_rows
from egressd.store.ledger import open_ledger
from tests.loops import HANG_S
from tests.store.scene import T0, verify

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS = 50

# Four at once, so that commits are grouped; an id is written only after `run` has returned.
CHILD = """
import asyncio, os, sys
from pathlib import Path
from egressd.store import attempts, decisions, targets
from egressd.store.attempts import AttemptCount, Batch
from egressd.store.decisions import NewTarget
from egressd.store.ledger import open_ledger
from tests.store.scene import A, T0, about, address, verdict

async def work(ledger, worker):
    number = 0
    while True:
        number += 1
        domain = f"x{number}.y{worker}.r{sys.argv[2]}.example"
        made = await ledger.run(
            decisions.commit, verdict(domain), [NewTarget(about(domain)), NewTarget(address("203.0.113.1"))], "x")
        os.write(1, f"{made}\\n".encode())
        count = AttemptCount(made, A, address("203.0.113.1"), T0, T0, 1)
        await ledger.run(attempts.record_batch, Batch(f"{sys.argv[2]}-{worker}", number, (count,)), T0)
        if number % 20 == 0:
            await ledger.checkpoint()

async def main():
    ledger = open_ledger(Path(sys.argv[1]), T0, 0)
    os.write(1, b"ready\\n")
    await asyncio.gather(*(work(ledger, worker) for worker in range(4)))

asyncio.run(main())
"""


def counts(connection: Connection) -> tuple[int, ...]:
    return tuple(
        connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0]
        for what in (
            "decisions",
            "targets",
            "audit",
            "(SELECT decision FROM targets GROUP BY decision HAVING count(*)=2)",
        )
    )


def kill_one(path: Path, round_: int, rng: random.Random) -> set[str]:
    """Run a child, kill it after some acknowledgements and a little more; the ids that it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(round_)], stdout=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None
    wanted = rng.randrange(60)
    said = b""
    with child.stdout as out:
        while said.count(b"\n") <= wanted:
            more = os.read(out.fileno(), rng.randrange(1, 64))
            assert more, "the child ended by itself"
            said += more
        child.send_signal(signal.SIGKILL)
        child.wait(HANG_S)
        while more := os.read(out.fileno(), 65_536):
            said += more
    lines = said.decode().split("\n")
    assert lines[0] == "ready"
    return set(lines[1:-1])  # one line is one write: none is torn


@pytest.mark.slow
def test_killed_fifty_times(tmp_path: Path) -> None:
    """About fifteen seconds: each child is a Python of its own."""
    path = tmp_path / "ledger.db"
    rng = random.Random(20_150_508)
    acknowledged: set[str] = set()
    head = None
    for round_ in range(ROUNDS):
        fresh = kill_one(path, round_, rng)
        assert not fresh & acknowledged, "an id was given out twice"
        acknowledged |= fresh
        ledger = open_ledger(path, T0, 0)
        there = {row.id for row in ledger.call(decision_rows.load_open)}
        assert acknowledged <= there
        made, targets, rows, whole = ledger.call(counts)
        assert made == rows == whole == len(there) and targets == 2 * made
        verdict = ledger.call(verify, [head] if head else [])
        assert verdict.ok, verdict.problem
        head = ledger.call(audit.head)
        attempted = ledger.call(lambda one: one.execute("SELECT coalesce(sum(count), 0) FROM watches").fetchone()[0])
        by_target = ledger.call(lambda one: one.execute("SELECT coalesce(sum(attempts), 0) FROM targets").fetchone()[0])
        assert attempted == by_target <= made
        ledger.close()
    assert len(acknowledged) > ROUNDS


def test_killed_a_few_times(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    acknowledged = kill_one(path, 0, random.Random(1)) | kill_one(path, 1, random.Random(2))
    ledger = open_ledger(path, T0, 0)
    made, targets, rows, whole = ledger.call(counts)
    assert acknowledged <= {row.id for row in ledger.call(decision_rows.load_open)}
    assert made == rows == whole and targets == 2 * made and ledger.call(verify).ok
    ledger.close()
