"""Feeds of a folder as the daemon follows them, with a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from egressd.config.feed_options import FeedOptions
from egressd.intel.allowances import Allowances, parse_allowances
from egressd.intel.feeds.fetch import Times
from egressd.intel.feeds.follow import Feeds
from egressd.intel.feeds.judging import Rules
from egressd.intel.feeds.state import FeedState
from egressd.intel.guard import Guard
from egressd.intel.poison import Poison
from egressd.intel.protected import Protected
from egressd.names import Suffixes
from egressd.runtime.feed_build import judge_in
from tests.intel.feed_server import Server

SUFFIXES = Suffixes.parse("com\nexample\nco.example\n*.ck.example\n")
GUARD, _ = Guard.parse("shared.com category=hosting # anyone\n", SUFFIXES, popular="1,popular.com")
PROTECTED, _ = Protected.parse("10.0.0.0/8 # private use\n127.0.0.0/8 # loopback\n")
ALLOWED, _ = parse_allowances("never-block partner.com owner=o reason=vpn", "allow.txt", SUFFIXES)
NOW_US = 1_700_000_000_000_000
GOOD = "".join(f"c2.bad{number}.example\n" for number in range(200)).encode()
QUICK = Times(connect_s=2.0, stall_s=0.2, total_s=2.0)
SECRET = "cAnArY-7c1f0e5b9d"


class Now:
    """A clock with hands."""

    def __init__(self) -> None:
        self.us = NOW_US

    def now_us(self) -> int:
        return self.us


class Desk:
    """Feeds of a folder, and what was told of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Now()
        self.allowances = Allowances(ALLOWED)
        self.context = "the texts of now"
        self.versions: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.happened = asyncio.Event()
        judge = judge_in(folder / "feeds" / "indexes")
        self.feeds = Feeds(
            folder / "feeds", folder, self.clock, self.rules, judge, self.version, self.tell, times=QUICK
        )

    def rules(self) -> Rules:
        poison = Poison(SUFFIXES, GUARD, PROTECTED, self.allowances, NOW_US // 1_000_000)
        return Rules(SUFFIXES, GUARD, poison, self.context, NOW_US // 1_000_000)

    async def version(self, state: FeedState) -> None:
        self.versions.append(state.name)

    def tell(self, state: FeedState, before: str) -> None:
        self.told.append((state.name, state.told()))
        self.happened.set()

    def values(self, name: str = "c2") -> list[str]:
        index = self.feeds.states[name].index
        return [one.value for one in sorted(index.listed(), key=lambda one: one.line)] if index is not None else []

    async def ask(self, name: str = "c2", *, force: bool = False) -> FeedState:
        """Ask as somebody at the command line does, and wait for what comes of it."""
        self.happened.clear()
        self.feeds.ask(name, force=force)
        await self.happened.wait()
        return self.feeds.states[name]


@asynccontextmanager
async def desk_at(folder: Path, **feeds: FeedOptions) -> AsyncIterator[Desk]:
    desk = Desk(folder)
    await desk.feeds.configure(feeds)
    task = asyncio.get_running_loop().create_task(desk.feeds.run())
    try:
        yield desk
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def options(server: Server, **more: Any) -> FeedOptions:
    return FeedOptions(url=server.url, **more)
