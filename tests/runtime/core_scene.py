"""A core with a real ledger, without packet processes and without a kernel, and somebody at its control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from egressd.detect.intel import Intel
from egressd.detect.probation import FORGET_US
from egressd.enforce.adapter import AdapterError
from egressd.runtime.core import Core
from egressd.runtime.knowledge import load_texts
from egressd.runtime.orders import Order
from egressd.runtime.preview import Preview
from egressd.runtime.verbs import Verbs
from egressd.store import audit, decision_rows, ledger, meta
from egressd.store.db import Database
from egressd.store.decision_rows import DecisionRow
from egressd.web.peers import Peer
from egressd.web.requests import Refused, Request, Role, check_args
from tests.detect.scene import packed
from tests.runtime.scene import NO_HISTORY, Ears, Hands, ledger_at

ANNA = Peer(1, 1000, "anna", Role.OPERATOR)
BERT = Peer(2, 1001, "bert", Role.ADMIN)
WHY = "ticket 4711"

CONFIG = """\
lists: [csirt.txt]
resolvers: [192.0.2.53]
state: {directory: state}
segments: {lab: [10.1.0.0/24], both: [10.2.0.0/24, "2001:db8:2::/64"]}
"""


class Kernel:
    """Stands for `Enforcement`."""

    def __init__(self) -> None:
        self.modes: list[str] = []
        self.woken = 0
        self.forced = 0
        self.clocks_set = 0
        self.waited = 0
        self.remedies: tuple[Any, ...] = ()
        self.intel: Intel | None = None
        self.problems: dict[str, str] = {}
        self.refuses = ""  # why modes that need it cannot be used
        self.blind = ""  # why flows cannot be told
        self.open: list[Any] = []

    async def change_mode(self, mode: str) -> None:
        self.modes.append(mode)
        if self.refuses and mode != "monitor":
            raise AdapterError(self.refuses)

    def wake(self) -> None:
        self.woken += 1

    def written(self) -> None:
        self.woken += 1

    def look(self) -> None: ...

    def clock_was_set(self) -> None:
        self.clocks_set += 1

    def force(self) -> None:
        self.forced += 1

    async def settled(self) -> None:
        self.waited += 1

    async def protect(self, intel: Intel, own: tuple[Any, ...], remedies: tuple[Any, ...] = ()) -> None:
        self.intel = intel
        self.remedies = remedies

    async def flows(self, networks: list[Any]) -> list[Any]:
        if self.blind:
            raise AdapterError(self.blind)
        return self.open

    async def counters(self, targets: list[Any]) -> dict[Any, Any]:
        return {}

    def disregard(self, ports: list[int]) -> None: ...

    def own(self, pids: list[int]) -> None: ...


def flow(source: str, destination: str, *, is_open: bool = True) -> Any:
    return SimpleNamespace(
        source=packed(source), source_port=50_000, destination=packed(destination), destination_port=443,
        is_open=is_open,
    )  # fmt: skip


class Site:
    """A core and those who use it."""

    def __init__(self, folder: Path, database: Database, mode: str, hands: Hands) -> None:
        self.path = folder / "egressd.yaml"
        self.hands = hands
        self.ledger = database
        self.ears = Ears()
        tellers: Any = self.ears
        self.core = Core(self.path, load_texts(self.path), hands.clock(), database, tellers)
        self.core.arming.mode = mode
        self.kernel = Kernel()
        self.core.enforcement = self.core.arming.enforcement = self.kernel  # type: ignore[assignment]
        self.told: list[Order] = []
        for process in self.core.sensing.processes:
            process.tell = self.told.append  # type: ignore[method-assign]
        self.verbs = Verbs(self.core, Preview(self.core, NO_HISTORY))

    async def lose_mode(self) -> None:
        """The file says enforce, and the kernel refuses that."""
        self.kernel.refuses = "another egressd has the table"
        self.path.write_text(f"mode: enforce\n{CONFIG}")
        with pytest.raises(AdapterError, match="another egressd"):
            await self.core.reload()

    async def do(self, verb: str, peer: Peer = ANNA, /, **args: Any) -> dict[str, Any]:
        """Ask, as the control socket does after it has checked the arguments."""
        if verb not in ("doctor",):
            args = {"reason": WHY} | args
        return await self.verbs.table()[verb](peer, check_args(Request(verb, args)).args)

    async def refused(self, verb: str, peer: Peer = ANNA, /, **args: Any) -> Refused:
        """Ask for something that is not done; returns why."""
        try:
            answer = await self.do(verb, peer, **args)
        except Refused as error:
            return error
        raise AssertionError(f"it was done: {answer}")

    def sees(self, *events: Any, number: int = 0) -> None:
        """A packet process tells."""
        from tests.runtime.process import Process

        self.core.intake.take(number, Process().say(*events).batch())

    async def audit(self) -> list[tuple[str, str, str, str]]:
        """(actor, act, object, reason) of every row, oldest first."""
        await self.core.scribe.settled()
        rows = await self.ledger.read(audit.rows, 1_000, "")
        return [(row["actor"], row["act"], row["object"], row["reason"]) for row in reversed(rows)]

    async def row(self, id_: str) -> DecisionRow:
        await self.core.scribe.settled()
        found = await self.ledger.read(decision_rows.load, id_)
        assert found is not None
        return found

    async def restore(self) -> None:
        """Carry on with what the ledger knows, as at a start."""
        now_us = self.core.clock.now_us()
        set_us = meta.set_by_us(await self.ledger.read(meta.last_run), now_us)
        found = await self.ledger.read(ledger.load_all, now_us - set_us, FORGET_US)
        await self.ledger.run(meta.clock_was_set, set_us, now_us)
        remedies = await self.ledger.read(meta.under, "remedies")
        self.core.restore(found, {id_: text.split(",") for id_, text in remedies.items()})
        if set_us:
            self.core.shift(set_us)
        await self.core.renew()

    def rules(self) -> list[str]:
        """What the kernel should hold, as `kind value`."""
        return [f"{rule.target.kind} {rule.target.value}" for rule in self.core.register.rules(self.core.arming.mode)]


@asynccontextmanager
async def site_at(
    folder: Path,
    mode: str = "enforce",
    config: str = CONFIG,
    lists: str = "c2.listed.example\n",
    hands: Hands | None = None,
) -> AsyncIterator[Site]:
    """A core whose ledger is written."""
    (folder / "csirt.txt").write_text(lists)
    (folder / "egressd.yaml").write_text(config)
    with ledger_at(folder) as database:
        site = Site(folder, database, mode, hands or Hands())
        await site.restore()
        writes = asyncio.get_running_loop().create_task(site.core.scribe.run())
        try:
            yield site
        finally:
            writes.cancel()
            await asyncio.gather(writes, return_exceptions=True)
