"""Writes to the ledger: in order, in groups, kept while the disk fails; whoever waits hears when it is on disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

from egressd.runtime import scribe as scribe_module
from egressd.runtime.scribe import GROUP, Scribe
from egressd.store import audit, meta
from egressd.store.audit import Act
from egressd.store.errors import FULL, IO, StoreError, refused
from tests.loops import HANG_S, in_loop
from tests.runtime.scene import T0, ledger_at

SICK = "the disk is full"


class Paper:
    """Stands for a ledger: a transaction is a list of numbers, that fails as a test says."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.groups: list[list[int]] = []
        self.trouble: StoreError | None = None
        self.refused: set[int] = set()
        self.tries = 0
        self.between: Callable[[], None] = lambda: None

    async def run(self, fn: Callable[..., None], group: list[Any]) -> None:
        self.tries += 1
        page: list[int] = []
        await asyncio.sleep(0)
        self.between()
        if self.trouble is not None:
            raise self.trouble
        fn(page, group)
        self.written += page
        self.groups.append(page)

    run_large = run


def write(page: list[int], number: int, paper: Paper) -> None:
    if number in paper.refused:
        raise refused(f"no place for {number}")
    page.append(number)


def scribe_of(paper: Paper, on_written: Callable[[], None] = lambda: None) -> Scribe:
    return Scribe(paper, on_written)  # type: ignore[arg-type]


def put(scribe: Scribe, paper: Paper, *numbers: int) -> None:
    for number in numbers:
        scribe.put(write, number, paper)


async def running(scribe: Scribe, what: Coroutine[Any, Any, None]) -> None:
    """`what` while the scribe runs. What ends the scribe ends the test."""
    loop = asyncio.get_running_loop()
    writes, uses = loop.create_task(scribe.run()), loop.create_task(what)
    try:
        done, _ = await asyncio.wait((writes, uses), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        writes.cancel()
        uses.cancel()
        await asyncio.gather(writes, uses, return_exceptions=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a disk to get better."""
    monkeypatch.setattr(scribe_module, "RETRY_S", 0.0)


@in_loop
async def test_in_order_and_in_groups() -> None:
    paper, told = Paper(), []
    scribe = scribe_of(paper, lambda: told.append(len(paper.written)))
    put(scribe, paper, *range(2 * GROUP + 5))
    assert scribe.waiting == 2 * GROUP + 5
    await running(scribe, scribe.settled())
    assert paper.written == list(range(2 * GROUP + 5))
    assert [len(group) for group in paper.groups] == [GROUP, GROUP, 5]
    assert told == [GROUP, 2 * GROUP, 2 * GROUP + 5]  # after each commit
    assert (scribe.waiting, scribe.trouble, scribe.given_up, scribe.refused) == (0, "", 0, 0)


@in_loop
async def test_what_comes_while_it_writes_is_written_too() -> None:
    paper = Paper()
    scribe = scribe_of(paper)
    more = iter(range(10, 15))
    paper.between = lambda: put(scribe, paper, *[next(more)] if len(paper.groups) < 5 else [])

    async def use() -> None:
        put(scribe, paper, 1)
        while len(paper.written) < 6:
            await scribe.settled()

    await running(scribe, use())
    assert paper.written == [1, 10, 11, 12, 13, 14]


@in_loop
async def test_settled_waits_for_the_disk_and_not_for_what_comes_later() -> None:
    paper = Paper()
    scribe = scribe_of(paper)
    order: list[str] = []

    async def wait(name: str) -> None:
        await scribe.settled()
        order.append(f"{name} {len(paper.written)}")

    async def use() -> None:
        await scribe.settled()  # nothing waits
        put(scribe, paper, 1, 2)
        first = asyncio.ensure_future(wait("first"))
        await asyncio.sleep(0)
        assert order == []
        put(scribe, paper, 3)
        await asyncio.gather(first, wait("second"))

    await running(scribe, use())
    assert order == ["first 2", "second 3"]


@in_loop
async def test_settled_with_a_real_ledger(tmp_path: Path) -> None:
    with ledger_at(tmp_path) as ledger:
        scribe = Scribe(ledger, lambda: None)

        async def use() -> None:
            scribe.put(meta.seen, T0 + 7)
            await scribe.settled()
            assert await ledger.read(_last_seen) == T0 + 7

        await ledger.run(meta.begin_run, T0)
        await running(scribe, use())


def _last_seen(connection: Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE key = 'seen_us'").fetchone()[0])


@pytest.mark.parametrize("kind", [FULL, IO])
@in_loop
async def test_trouble_keeps_the_rows_and_tells_those_who_wait(kind: str) -> None:
    paper = Paper()
    scribe = scribe_of(paper)

    async def use() -> None:
        paper.trouble = StoreError(SICK, kind)
        put(scribe, paper, 1, 2, 3)
        with pytest.raises(StoreError, match=SICK):
            await scribe.settled()
        assert (scribe.trouble, scribe.waiting, paper.written) == (SICK, 3, [])
        put(scribe, paper, 4)
        with pytest.raises(StoreError, match=SICK):
            await scribe.settled()  # at once: nobody is held up
        paper.trouble = None
        for _ in range(20):  # turns of the loop, no time
            await asyncio.sleep(0)
        assert (scribe.trouble, paper.written) == ("", [1, 2, 3, 4])
        put(scribe, paper, 5)
        await scribe.settled()
        assert paper.written[-1] == 5

    await running(scribe, use())
    assert paper.tries > 2


@in_loop
async def test_a_refused_row_stops_no_other() -> None:
    paper = Paper()
    scribe = scribe_of(paper)
    paper.refused = {2, 5}
    put(scribe, paper, *range(8))
    await running(scribe, scribe.settled())
    assert paper.written == [0, 1, 3, 4, 6, 7]
    assert (scribe.refused, scribe.waiting, scribe.trouble) == (2, 0, "")
    put(scribe, paper, 2)  # alone in its group
    await running_again(scribe)
    assert (scribe.refused, scribe.waiting) == (3, 0)


async def running_again(scribe: Scribe) -> None:
    await running(scribe, scribe.settled())


@in_loop
async def test_the_disk_may_fail_while_a_refused_row_is_looked_for() -> None:
    paper = Paper()
    scribe = scribe_of(paper)
    paper.refused = {1}

    def fail_once() -> None:
        paper.trouble = StoreError(SICK, FULL) if paper.tries == 3 else None

    paper.between = fail_once  # the group is refused, row 0 is written by itself, then the disk is full
    put(scribe, paper, 0, 1, 2)

    async def use() -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    await running(scribe, use())
    assert paper.written == [0, 2]  # each once
    assert (scribe.waiting, scribe.refused) == (0, 1)


@in_loop
async def test_bounded_while_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scribe_module, "MAX_WAITING", 10)
    paper = Paper()
    scribe = scribe_of(paper)
    put(scribe, paper, *range(25))
    assert (scribe.waiting, scribe.given_up) == (10, 15)
    await running(scribe, scribe.settled())
    assert paper.written == list(range(15, 25))
    assert scribe.waiting == 0


@in_loop
async def test_bounded_while_something_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is full and the oldest are in the writer's hands: as many are given up as are counted."""
    monkeypatch.setattr(scribe_module, "MAX_WAITING", 10)
    monkeypatch.setattr(scribe_module, "GROUP", 4)
    paper = Paper()
    scribe = scribe_of(paper)
    put(scribe, paper, *range(10))

    def more() -> None:
        if paper.tries == 1:
            put(scribe, paper, 10, 11)

    paper.between = more
    await running(scribe, scribe.settled())
    assert (scribe.waiting, len(paper.written)) == (0, 12 - scribe.given_up)
    assert paper.written[-1] == 11


@in_loop
async def test_drain_writes_what_waits_if_it_can_be_written() -> None:
    paper = Paper()
    scribe = scribe_of(paper)
    put(scribe, paper, *range(GROUP + 1))
    await scribe.drain()
    assert (len(paper.written), scribe.waiting) == (GROUP + 1, 0)
    paper.trouble = StoreError(SICK, FULL)
    put(scribe, paper, 1)
    await scribe.drain()  # and does not hang
    assert (scribe.waiting, scribe.trouble) == (1, SICK)


@pytest.mark.parametrize("value", ["\ud800", 1 << 70])
@in_loop
async def test_a_row_that_the_ledger_cannot_hold_is_refused_alone(tmp_path: Path, value: object) -> None:
    """A hostile packet process can bring both into a row: half a surrogate pair, and sums beyond 64 bits."""
    with ledger_at(tmp_path) as ledger:
        scribe = Scribe(ledger, lambda: None)
        scribe.put(meta.put, "before", "1")
        scribe.put(_bad, value)
        scribe.put(meta.put, "after", "1")
        await running(scribe, scribe.settled())
        assert (scribe.refused, scribe.waiting) == (1, 0)
        assert [await ledger.read(meta.get, key) for key in ("before", "after")] == ["1", "1"]


def _bad(connection: Connection, value: object) -> None:
    connection.execute("SELECT ?", (value,))


@in_loop
async def test_what_is_being_written_when_the_daemon_ends_is_written_once(tmp_path: Path) -> None:
    """Whoever is cancelled takes no commit back that has begun: audit rows stood twice after every other stop."""
    with ledger_at(tmp_path) as ledger:
        scribe = Scribe(ledger, lambda: None)
        begun, goes_on = threading.Event(), threading.Event()

        def slow(connection: Connection) -> None:
            begun.set()
            assert goes_on.wait(HANG_S)
            audit.append(connection, Act("uid:0", "socket", "block", "x", "because"), T0)

        scribe.put(slow)
        writes = asyncio.get_running_loop().create_task(scribe.run())
        await asyncio.to_thread(begun.wait, 10)
        writes.cancel()
        await asyncio.gather(writes, return_exceptions=True)
        scribe.put(audit.append, Act("uid:0", "socket", "undo", "x", "because"), T0)
        goes_on.set()
        await scribe.drain()
        rows = await ledger.read(audit.rows)
        assert [row["act"] for row in rows] == ["undo", "block"]
        assert scribe.waiting == 0
