"""What the tests of the runtime share: a clock with hands, a ledger in a folder, events made by hand, stand-ins for the
kernel and for those who are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egressd.clock import SteadyClock
from egressd.detect.campaigns import Campaigns
from egressd.model import (
    FLOW,
    TCP,
    TLS_SNI,
    Attempt,
    Decision,
    FlowKey,
    Incident,
    Indicator,
    Match,
    Sighting,
    Target,
)
from egressd.runtime.bulk_rows import HistoryRow
from egressd.runtime.casebook import Casebook
from egressd.runtime.in_force import Held, InForce, Register
from egressd.runtime.intake import Intake
from egressd.runtime.orders import Order
from egressd.runtime.rulings import Rulings
from egressd.runtime.scribe import Scribe
from egressd.store import audit, decision_rows
from egressd.store.db import Database
from egressd.store.decision_rows import DecisionRow
from egressd.store.decisions import ACTIVE
from egressd.store.history import History
from egressd.store.ledger import open_ledger
from tests.detect.scene import packed

T0 = 1_700_000_000_000_000
SECOND = 1_000_000
HOUR = 3_600 * SECOND
A, B, C = packed("10.0.0.5"), packed("10.0.0.6"), packed("10.0.0.7")  # clients
X, Y = packed("198.51.100.7"), packed("198.51.100.8")  # servers
NO_HISTORY = History(Path("history.db"))  # nobody opens it


class Hands:
    """What a SteadyClock reads: both clocks of a machine, in microseconds, set by the test."""

    def __init__(self, wall_us: int = T0, monotonic_us: int = 5_000 * SECOND) -> None:
        self.wall_us = wall_us
        self.monotonic_us = monotonic_us

    def clock(self, offset_us: int | None = None) -> SteadyClock:
        return SteadyClock(
            offset_us, wall_ns=lambda: self.wall_us * 1_000, monotonic_ns=lambda: self.monotonic_us * 1_000
        )

    def pass_s(self, seconds: float) -> None:
        """Time goes by, on both."""
        self.wall_us += round(seconds * SECOND)
        self.monotonic_us += round(seconds * SECOND)

    def set_by_s(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall_us += round(seconds * SECOND)


@contextmanager
def ledger_at(folder: Path) -> Iterator[Database]:
    ledger = open_ledger(folder / "ledger.db", T0, ballast_bytes=0)
    try:
        yield ledger
    finally:
        ledger.close()


# -- events


def indicator(
    value: str = "bad.example", kind: str = "domain", scope: str = "registered", expires_s: int = 0
) -> Indicator:
    domain = ".".join(value.split(".")[-2:]) if kind == "domain" else ""
    return Indicator(
        kind, value, scope if kind == "domain" else "exact", "", domain, "example" if domain else "", "l.txt", 7, "c2",
        90, 0, expires_s, "", "",
    )  # fmt: skip


def match(value: str = "bad.example", level: str = "host", kind: str = "domain", **more: Any) -> Match:
    found = indicator(value, kind, **more)
    return Match(level, found, found.registered_domain, found.suffix_rule)


def flow(client: bytes = A, server: bytes = X, sport: int = 40_000, dport: int = 443) -> FlowKey:
    return FlowKey(TCP, client, sport, server, dport)


def sighting(
    client: bytes = A, name: str = "bad.example", second: float = 0, *, new: bool = True, count: int = 1,
    retro: bool = False, via: str = TLS_SNI, found: Match | None = None,
) -> Sighting:  # fmt: skip
    ts_us = T0 + round(second * SECOND)
    return Sighting(
        ts_us, 0, flow(client), name, found or match(), via, "", retro, count, ts_us, ts_us, new=new
    )  # fmt: skip


def attempt(
    client: bytes = A, second: float = 0, *, id_: str = "D1", count: int = 1, first: bool = False, leak: bool = False,
    via: str = FLOW, server: bytes = X, found: Match | None = None,
) -> Attempt:  # fmt: skip
    ts_us = T0 + round(second * SECOND)
    target = Target("registered_domain", "bad.example")
    return Attempt(
        ts_us, 0, flow(client, server), "bad.example", via, id_, target, found or match(), first, count, leak, "", "",
        True,
    )  # fmt: skip


def about(domain: str = "bad.example") -> Target:
    return Target("registered_domain", domain)


def address(value: bytes | str = X) -> Target:
    from egressd.intel.networks import render_address

    return Target("address", value if isinstance(value, str) else render_address(value))


def pair(client: bytes = A, server: bytes = X) -> Target:
    from egressd.detect.coverage import pair as made

    return made(client, server)


def verdict(
    id_: str = "D1", action: str = "block", *targets: Target, found: Match | None = None, second: float = 0,
    mode: str = "enforce", rule: str = "level-host", client: bytes = A, reason: str = "at or below the listed name",
) -> Decision:  # fmt: skip
    return Decision(
        id_, T0 + round(second * SECOND), 0, action, targets or (about(),), reason, rule, "E1", mode, found or match(),
        client, "bad.example", "",
    )  # fmt: skip


def in_force(
    id_: str = "D1", *more: Target, main: Target | None = None, state: str = ACTIVE, author: str = "policy",
    ends_us: int = 0, found: Match | None = None,
) -> InForce:  # fmt: skip
    """A decision with its main target; `more` are held by `Register.hold` where a test wants their terms."""
    main = main or about()
    made = InForce(
        id_, main, found or match(), state, "enforce", author, T0, "why", "level-host", "E1", A, "bad.example", ""
    )
    for target in (main, *more):
        made.held[target] = Held(target, ACTIVE, T0, ends_us, 0)
    return made


# -- stand-ins


class Ears:
    """Hears everything that is told."""

    def __init__(self) -> None:
        self.events: Any = None  # the event log, which there is none of
        self.records: list[dict[str, Any]] = []
        self.incidents: list[tuple[str, str, str, int]] = []
        self.attempts: list[Attempt] = []
        self.decisions: list[Decision] = []

    def event(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def incident(self, incident: Incident, outcome: str, segment: str, hosts: int) -> None:
        self.incidents.append((incident.id, outcome, segment, hosts))

    def attempt(self, attempt: Attempt, segment: str) -> None:
        self.attempts.append(attempt)

    def decision(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def tick(self) -> None: ...

    def finish(self) -> None: ...


def segment_of(client: bytes) -> str:
    return "lab" if client == A else ""


class Desk:
    """Register, rulings and intake over a real ledger, without packet processes and without a kernel."""

    def __init__(self, ledger: Database, mode: str = "enforce") -> None:
        self.ledger = ledger
        self.hands = Hands()
        self.mode = mode
        self.clock = self.hands.clock()
        self.register = Register()
        self.campaigns = Campaigns()
        self.scribe = Scribe(ledger, lambda: None)
        self.told: list[tuple[Order, int]] = []
        self.rulings = Rulings(
            self.register, self.campaigns, self.scribe, self.clock,
            lambda order, but: self.told.append((order, but)), lambda: self.mode != "monitor",
        )  # fmt: skip
        self.register.on_end = lambda id_: self.intake.watched.forget(id_)
        self.ears = Ears()
        self.history: list[HistoryRow] = []
        self.tenants: list[tuple[int, tuple[tuple[str, bytes, int], ...]]] = []
        self.pushed: list[tuple[Target, str]] = []
        self.intake = self.new_intake("1-1")

    def new_intake(self, run_id: str) -> Intake:
        made = Intake(
            self.register, self.rulings, self.campaigns, self.scribe, self.clock, self.ears, segment_of,
            self.history.extend, lambda number, rows: self.tenants.append((number, rows)),
            lambda target, id_: self.pushed.append((target, id_)), run_id,
        )  # fmt: skip
        self.casebook = Casebook(self.campaigns, self.campaigns.devices, made, self.scribe, self.ears, segment_of)
        return made

    def settle(self) -> None:
        """Everything that was put is on disk, or refused."""
        asyncio.run(self.scribe.drain())
        assert self.scribe.waiting == 0

    def row(self, id_: str) -> DecisionRow:
        """A decision as the ledger has it."""
        self.settle()
        found = self.ledger.call(decision_rows.load, id_)
        assert found is not None
        return found

    def audit(self) -> list[dict[str, Any]]:
        """The audit rows, oldest first."""
        self.settle()
        found = self.ledger.call(audit.rows, 1_000, "")
        return sorted(found, key=lambda row: int(row["seq"]))


@contextmanager
def desk_at(folder: Path, mode: str = "enforce") -> Iterator[Desk]:
    with ledger_at(folder) as ledger:
        yield Desk(ledger, mode)
