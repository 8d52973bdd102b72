"""The past is searched for what was listed just now: everything that is to be told is told, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from egressd.detect.history import PastContact
from egressd.intel.networks import last_address
from egressd.model import FLOW, Indicator
from egressd.runtime import hunting
from egressd.runtime.hunting import Hunts
from egressd.runtime.news import News, news
from egressd.runtime.orders import Recall
from egressd.store.errors import StoreError
from egressd.store.history import Contact, History
from tests.detect.live_scene import LiveScene, intel
from tests.detect.scene import SUFFIXES, packed
from tests.loops import in_loop
from tests.runtime.scene import HOUR, T0, A, B, C, Hands, X, Y

NOTHING = "unlisted.example"
Z = packed("203.0.113.9")


class Process:
    """Stands for a packet process: hears orders, and may die while it does."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.restarts = 0
        self.rows: list[PastContact] = []
        self.largest = 0
        self.dies = 0

    def tell(self, order: Recall) -> None:
        if self.dies:
            self.dies -= 1
            self.restarts += 1
            return
        self.rows += order.rows
        self.largest = max(self.largest, len(order.rows))


class Site:
    """A history, lists, packet processes, and who hunts."""

    def __init__(self, history: History, processes: int) -> None:
        self.history = history
        self.lists = NOTHING
        self.allow = ""
        self.processes = [Process() for _ in range(processes)]
        self.waiting: list[Contact] = []
        given: Any = self.processes
        self.hunts = Hunts(
            history, self.flush, lambda: intel(self.lists, self.allow), lambda: given, Hands().clock(),
            settle_s=0, rest_s=0,
        )  # fmt: skip

    async def flush(self) -> None:
        rows, self.waiting = self.waiting, []
        await self.history.record(rows)

    async def contacts(self, *rows: tuple[bytes, str, bytes, int]) -> None:
        """(client, name, address, count) of some hour."""
        for number, (client, name, address, count) in enumerate(rows):
            domain = SUFFIXES.registered_domain(name) if name else ""
            at = T0 - number * HOUR
            self.waiting.append(Contact(client, domain, name, address, at, at + 5, count))

    async def list(self, lists: str, allow: str = "") -> list[tuple[bytes, str, bytes, int]]:
        """Other lists; what a hunt for what is new in them tells."""
        before = {one._replace(line=0) for one in intel(self.lists).index.indicators}
        self.lists, self.allow = lists, allow
        after = intel(lists).index.indicators
        return await self.hunt(one for one in after if one._replace(line=0) not in before)

    async def hunt(self, arrived: Iterable[Indicator] | None) -> list[tuple[bytes, str, bytes, int]]:
        await self.hunts.search(None if arrived is None else News(tuple(arrived)))
        return self.told()

    async def end(self, line: str) -> list[tuple[bytes, str, bytes, int]]:
        """An allowance ends; what a hunt for what it let be tells."""
        before = intel(self.lists, f"{line}\n{self.allow}")
        after = intel(self.lists, self.allow)
        found = news(before, after, (), T0 // 1_000_000)
        assert found is not None and len(found.ended) == 1 and not found.arrived
        await self.hunts.search(found)
        return self.told()

    def told(self) -> list[tuple[bytes, str, bytes, int]]:
        rows = [row for process in self.processes for row in process.rows]
        for process in self.processes:
            process.rows.clear()
        return sorted((row.flow.client, row.name, row.address, row.contacts) for row in rows)


@asynccontextmanager
async def site_at(folder: Path, processes: int = 1) -> AsyncIterator[Site]:
    history = History(folder / "history.db", reserve_bytes=0)
    assert history.open(T0) == []
    try:
        yield Site(history, processes)
    finally:
        history.close()


@in_loop
async def test_who_contacted_what_is_listed_now(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.contacts(
            (A, "a.bad.example", X, 2), (B, "bad.example", b"", 1), (C, "notbad.example", Y, 1), (C, "", Y, 4)
        )
        assert await site.list("c2.bad.example") == [(A, "a.bad.example", X, 2), (B, "bad.example", b"", 1)]
        done = site.hunts.running
        assert done is not None
        assert (done.indicators, done.contacts, done.hosts) == (1, 3, 2)
        assert await site.list(f"c2.bad.example\n{last_text(Y)}") == [(C, "", Y, 4)]


def last_text(address: bytes) -> str:
    return ".".join(map(str, last_address(address, 32)))


@in_loop
async def test_a_line_that_moves_or_comes_back_tells_nothing_twice(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.contacts((A, "a.bad.example", X, 2))
        assert len(await site.list("bad.example")) == 1
        assert await site.list("# moved\nbad.example") == []
        assert await site.list(NOTHING) == []
        await site.contacts((A, "a.bad.example", X, 3))
        assert [row[3] for row in await site.list("bad.example")] == [3]


@in_loop
async def test_scopes_and_allowances_hold_for_the_past_too(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.contacts((A, "a.bad.example", X, 1), (A, "b.bad.example", X, 1), (B, "a.bad.example", X, 1))
        client = ".".join(map(str, B))
        allow = f'ignore-client {client} owner=o reason="laboratory"'
        assert await site.list("a.bad.example scope=host", allow) == [(A, "a.bad.example", X, 1)]
        site.allow = ""  # what was allowed was not marked as told
        assert await site.hunt(None) == [(B, "a.bad.example", X, 1)]


@in_loop
async def test_a_network_finds_connections_without_a_name(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.contacts((A, "", X, 1), (B, "", Y, 2), (C, "", Z, 1), (C, "x.example", Y, 1))
        assert await site.list("198.51.100.0/24 force=yes") == [(A, "", X, 1), (B, "", Y, 2)]


@in_loop
async def test_an_address_is_found_by_whatever_way_it_was_reached(tmp_path: Path) -> None:
    """Behind NAT64, 6to4 and Teredo packets go to an IPv6 address, and history has that."""
    ways = [
        packed(text)
        for text in ("64:ff9b::198.51.100.9", "2002:c633:6409::1", "2001:0:c000:201:0:0:39cc:9bf6", "198.51.100.9")
    ]
    async with site_at(tmp_path) as site:
        await site.contacts(*((A, "", way, 1) for way in ways), (B, "", packed("64:ff9b::198.51.100.8"), 1),
                            (B, "", packed("2001:0:c000:201:0:0:39cc:9bf7"), 1))  # fmt: skip
        assert await site.list("198.51.100.9") == sorted((A, "", way, 1) for way in ways)


ENDED = {
    "ignore-indicator bad.example": [(A, "a.bad.example", X, 1), (B, "a.bad.example", Y, 1)],
    "allow-destination bad.example": [(A, "a.bad.example", X, 1), (B, "a.bad.example", Y, 1)],
    "allow-destination bad.example client=10.0.0.6": [(A, "a.bad.example", X, 1), (B, "a.bad.example", Y, 1)],
    "ignore-client 10.0.0.6": [(B, "a.bad.example", Y, 1), (B, "t.dyn.example.com", Y, 1)],
    "allow-destination 198.51.100.8": [(B, "a.bad.example", Y, 1), (B, "t.dyn.example.com", Y, 1)],
    "ignore-indicator 203.0.113.9": [(C, "", Z, 3)],
    "allow-destination 203.0.113.0/24": [(C, "", Z, 3)],
}  # fmt: skip


@pytest.mark.parametrize("line", ENDED)
@in_loop
async def test_where_an_allowance_ended_the_past_is_searched_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """A quarter of a core for half a minute was what every line cost that ended, where history had a million rows."""
    async with site_at(tmp_path) as site:
        monkeypatch.setattr(site.hunts, "_all_of_history", None)
        site.lists = "bad.example\nt.dyn.example.com\n203.0.113.9"
        await site.contacts(
            (A, "a.bad.example", X, 1), (B, "a.bad.example", Y, 1), (B, "t.dyn.example.com", Y, 1), (C, "", Z, 3),
            (B, "fine.example", Y, 1), (C, "fine.example", b"", 1),
        )  # fmt: skip
        assert await site.end(f'{line} owner=o reason="laboratory"') == ENDED[line]


@in_loop
async def test_what_another_allowance_lets_be_stays_untold(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.lists = "bad.example"
        site.allow = f'ignore-client {".".join(map(str, A))} owner=o reason="laboratory"'
        await site.contacts((A, "a.bad.example", X, 1), (B, "a.bad.example", Y, 1))
        assert await site.end('allow-destination bad.example owner=o reason="x"') == [(B, "a.bad.example", Y, 1)]


@in_loop
async def test_an_allowance_for_a_whole_suffix_ends(tmp_path: Path) -> None:
    """Tenants of a private suffix have registered domains of their own."""
    async with site_at(tmp_path) as site:
        site.lists = "one.hosted.example"
        await site.contacts((A, "a.one.hosted.example", X, 1), (B, "two.hosted.example", X, 1))
        told = await site.end('allow-destination hosted.example owner=o reason="x"')
        assert told == [(A, "a.one.hosted.example", X, 1)]


@pytest.mark.parametrize("many", [hunting.MANY, 1])
@in_loop
async def test_many_indicators_are_found_the_other_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(hunting, "MANY", many)
    async with site_at(tmp_path) as site:
        await site.contacts(*[(A, f"h.n{number}.example", X, 1) for number in range(60)], (B, "", Y, 1), (B, "", X, 1))
        lists = "".join(f"n{number}.example\n" for number in range(0, 60, 2)) + last_text(Y)
        told = await site.list(lists)
        assert len(told) == 31
        assert (B, "", Y, 1) in told


@in_loop
async def test_at_a_start_everything_that_was_not_told_is(tmp_path: Path) -> None:
    """Lists that changed while nothing ran, and hunts that were cut short."""
    async with site_at(tmp_path) as site:
        await site.contacts((A, "a.bad.example", X, 2), (B, "", Y, 1), (B, "fine.example", X, 1))
        site.lists = f"bad.example\n{last_text(Y)}"
        assert await site.hunt(None) == [(A, "a.bad.example", X, 2), (B, "", Y, 1)]
        assert await site.hunt(None) == []


@in_loop
async def test_a_packet_process_that_dies_meanwhile_is_told_again(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.contacts((A, "a.bad.example", X, 2))
        site.processes[0].dies = 2
        assert await site.list("bad.example") == [(A, "a.bad.example", X, 2)]
        assert site.processes[0].restarts == 2


@in_loop
async def test_what_kills_packet_processes_is_not_told_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site_at(tmp_path) as site:
        await site.contacts((A, "a.bad.example", X, 2), (B, "a.worse.example", X, 2))
        site.processes[0].dies = hunting.LIVES
        assert await site.list("bad.example\nworse.example") == []
        assert "2 contacts of the past" in caplog.text


@in_loop
async def test_large_finds_come_in_small_orders_and_each_client_to_one_process(tmp_path: Path) -> None:
    async with site_at(tmp_path, processes=2) as site:
        clients = [packed(f"10.0.{number >> 8}.{number & 255}") for number in range(600)]
        await site.contacts(*[(client, name, X, 1) for client in clients for name in ("a.bad.example", "bad.example")])
        site.lists = "bad.example"
        await site.hunts.search(None)
        parts = [{row.flow.client for row in process.rows} for process in site.processes]
        assert not parts[0] & parts[1]
        assert sorted(parts[0] | parts[1]) == clients
        assert max(process.largest for process in site.processes) <= hunting.ROWS_AT_ONCE
        assert len(site.told()) == 1_200


@in_loop
async def test_hunts_run_one_after_the_other_and_survive_trouble(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.contacts((A, "a.bad.example", X, 2))
        site.lists = "bad.example"
        running = asyncio.get_running_loop().create_task(site.hunts.run())
        site.hunts.hunt(News())
        assert site.hunts.waiting == 0
        site.hunts.hunt(None)
        await site.hunts.idle.wait()
        assert site.hunts.last is not None
        assert (site.hunts.last.contacts, site.hunts.running) == (2, None)

        async def fails() -> None:
            raise StoreError("the disk is full", "full")

        site.hunts._flush = fails
        site.hunts.hunt(None)
        await site.hunts.idle.wait()
        assert site.hunts.failures == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_what_is_found_is_judged_as_traffic_is() -> None:
    scene = LiveScene("bad.example")
    flow = hunting._contact(
        hunting.Untold(hunting.past.Mark(1, packed("10.0.0.5"), X), "a.bad.example", 4, T0 - HOUR, T0 - 5)
    )
    scene.engine.recall([flow], T0)
    (one,) = scene.incidents
    assert (one.contacts, one.first_us, one.retro) == (4, T0 - HOUR, True)
    assert scene.sightings[0].via == FLOW
    assert scene.said("block") == [("block", "level-host", "registered_domain bad.example")]
