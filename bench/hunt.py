"""Retro-hunt over a large history: `python bench/hunt.py [--rows 20000000]`. Needs no root, and 4 GB of disk.

A month of 5,000 hosts is made, then 1,000 indicators arrive that name what some of them contacted. What answers is the
daemon's own search over its own file; a packet process is stood for by its engine, which judges what it is told, and
whose time is measured: that is what packets wait.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.measure import machine
from egressd.clock import SteadyClock
from egressd.runtime.hunting import Hunts
from egressd.runtime.news import News
from egressd.runtime.orders import Recall
from egressd.store.history import Bounds, History
from egressd.units import HOUR_US
from tests.detect.live_scene import LiveScene, intel
from tests.detect.scene import allowed

HOSTS: Final = 5_000
DAYS: Final = 30
INDICATORS: Final = 1_000
NAMES: Final = 100_000
ENDED: Final = """\
allow-destination n100.example owner=bench reason="a name"
allow-destination 203.0.0.99   owner=bench reason="an address"
ignore-client 10.0.0.99        owner=bench reason="a client"
"""
_INDEXES: Final = ("contacts_by_hour", "contacts_by_client", "contacts_by_address")


def contacts(rows: int, first_hour: int) -> Iterator[tuple[Any, ...]]:
    """In order of the table's key: every name by so many hosts, each in some hours of the month. Every hundredth name
    is one that will be listed; those are contacted by five hosts each, the others by as many as it takes."""
    left = rows - NAMES // 100 * 5 * 4
    clients = max(1, left // (NAMES - NAMES // 100) // 10)
    for name in range(NAMES):
        few = name % 100 == 0
        hosts = sorted((name * 7919 + step * 613) % HOSTS for step in range(5 if few else clients))
        for host in hosts:
            client = bytes((10, host >> 16 & 255, host >> 8 & 255, host & 255))
            address = bytes((203, 0, name >> 8 & 255, name & 255))
            for hour in range(4 if few else 10):
                at = first_hour + (name + host + hour * 71) % (24 * DAYS)
                yield name + 1, client, address, at, 3, at * HOUR_US, at * HOUR_US + 60_000_000


def fill(path: Path, rows: int, now_us: int) -> int:
    """A history file with so many rows; returns how many there are."""
    first_hour = now_us // HOUR_US - 24 * DAYS
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        made = [
            row[0]
            for row in connection.execute(
                f"SELECT sql FROM sqlite_master WHERE name IN ({','.join('?' * len(_INDEXES))})", _INDEXES
            )
        ]
        for name in _INDEXES:
            connection.execute(f"DROP INDEX {name}")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO names VALUES(?, ?, ?)",
            ((number + 1, f"www.n{number}.example", f"n{number}.example") for number in range(NAMES)),
        )
        connection.executemany(
            "INSERT OR IGNORE INTO contacts(name, client, address, hour, count, first_us, last_us)"
            " VALUES(?, ?, ?, ?, ?, ?, ?)",
            contacts(rows, first_hour),
        )
        connection.execute("COMMIT")
        for sql in made:
            connection.execute(sql)
        return int(connection.execute("SELECT count(*) FROM contacts").fetchone()[0])


class PacketProcess:
    """Its engine, which judges what it is told, and how long that took."""

    def __init__(self, lists: str) -> None:
        self.scene = LiveScene(lists)
        self.ready = asyncio.Event()
        self.ready.set()
        self.restarts = 0
        self.took_s: list[float] = []

    def tell(self, order: Recall) -> None:
        began_s = time.perf_counter()
        self.scene.engine.recall(order.rows, time.time_ns() // 1000)
        self.took_s.append(time.perf_counter() - began_s)


async def hunt(history: History, lists: str, wanted: News | None) -> tuple[Any, PacketProcess, float]:
    """Search for what is wanted of `lists`, None: for all of it; also the longest hold of the event loop."""
    process = PacketProcess(lists)
    found = intel(lists)
    processes: Any = [process]

    async def nothing() -> None: ...

    hunts = Hunts(history, nothing, lambda: found, lambda: processes, SteadyClock(), settle_s=0)
    held_s = 0.0

    async def beat() -> None:
        nonlocal held_s
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(0.001)
            held_s = max(held_s, time.perf_counter() - began_s - 0.001)

    beating = asyncio.get_running_loop().create_task(beat())
    try:
        done = await hunts.search(wanted)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    return done, process, held_s


async def run(rows: int, folder: Path) -> None:
    """The table."""
    now_us = time.time_ns() // 1000
    path = folder / "history.db"
    bounds = Bounds(age_us=10 * DAYS * 24 * HOUR_US, contacts=10 * rows)
    history = History(path, bounds, reserve_bytes=0)
    history.open(now_us)
    history.close()
    began_s = time.perf_counter()
    count = fill(path, rows, now_us)
    made_s = time.perf_counter() - began_s
    size_mb = path.stat().st_size / 1e6
    print(f"  history: {count:,} rows of {HOSTS:,} hosts in {DAYS} days, {size_mb:,.0f} MB, made in {made_s:.0f} s")
    history.open(now_us)
    lists = "".join(f"n{number * 100}.example\n" for number in range(INDICATORS))
    arrived = tuple(intel(lists).index.indicators)
    searches = (
        ("indicator by indicator", News(arrived)),
        ("nothing new: all of history", None),
        ("three allowances that ended", News((), allowed(ENDED).allowances)),
    )
    for what, wanted in searches:
        done, process, held_s = await hunt(history, lists, wanted)
        told_ms = 1000 * max(process.took_s, default=0.0)
        print(
            f"  {INDICATORS:,} indicators, {what}: {done.took_s:.1f} s; {done.contacts:,} contacts of {done.hosts:,}"
            f" hosts, {len(process.scene.incidents):,} incidents; a packet process held for {told_ms:.1f} ms at most,"
            f" the core for {1000 * held_s:.0f} ms"
        )
    history.close()


def main(argv: list[str]) -> int:
    """One run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000, help="rows of history (default 20,000,000)")
    args = parser.parse_args(argv)
    print(machine())
    with tempfile.TemporaryDirectory(prefix="egressd-hunt-") as folder:
        asyncio.run(run(args.rows, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
