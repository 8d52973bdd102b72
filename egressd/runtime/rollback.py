"""Automatic blocks that too many clients run into: taken back, told, and left to a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from egressd.detect.acquaintance import Acquaintances, Crowd
from egressd.detect.budgets import why_rolled_back
from egressd.detect.policy_settings import PolicySettings
from egressd.detect.rules import BLOCK
from egressd.model import Decision
from egressd.notify.eve import render_event
from egressd.runtime.in_force import POLICY, Register
from egressd.runtime.rulings import Rulings
from egressd.store.decisions import ACTIVE
from egressd.units import DAY_US


class Tellers(Protocol):
    """Who is told: the event log, and people."""

    def event(self, record: dict[str, Any]) -> None:
        """A rendered event."""

    def decision(self, decision: Decision) -> None:
        """Policy decided."""


class Rollback:
    """Counts over all packet processes; a replay does the same in its engine (detect/engine.py). `known_clients` is how
    many clients are known, `machine_of` what an address counts as, `acquaintances` who was there before; `wake` makes
    the kernel follow."""

    def __init__(
        self,
        register: Register,
        rulings: Rulings,
        tellers: Tellers,
        settings: Callable[[], PolicySettings],
        known_clients: Callable[[], int],
        machine_of: Callable[[bytes], bytes],
        acquaintances: Acquaintances,
        wake: Callable[[], None],
    ) -> None:
        self._register = register
        self._rulings = rulings
        self._tellers = tellers
        self._settings = settings
        self._known_clients = known_clients
        self._machine_of = machine_of
        self._acquaintances = acquaintances
        self._wake = wake
        self._machines: dict[str, Crowd] = {}  # that ran into a decision of the last day

    def met(self, decision_id: str, client: bytes, watched: Mapping[bytes, object], ts_us: int) -> None:
        """`client`, the last of those `watched` for a decision, ran into it for the first time."""
        decision = self._register.by_id.get(decision_id)
        if decision is None or decision.author != POLICY or (decision.state, decision.action) != (ACTIVE, BLOCK):
            return
        age_us = ts_us - decision.began_us
        if age_us >= DAY_US:
            self._machines.pop(decision_id, None)
            return
        machines = self._machines.get(decision_id)
        if machines is None:
            self._forget(ts_us)
            machines = self._machines[decision_id] = Crowd()
            for one in filter(None, (*watched, decision.client)):
                self._count(machines, one, decision.began_us)
        self._count(machines, client, decision.began_us)
        settings = self._settings()
        reason = why_rolled_back(
            machines.weight, self._known_clients(), age_us, settings.rollback_clients, settings.rollback_share
        )
        if reason:
            del self._machines[decision_id]
            told = self._rulings.roll_back(decision, reason)
            self._wake()
            tell(self._tellers, told)

    def _count(self, machines: Crowd, client: bytes, began_us: int) -> None:
        machine = self._machine_of(client)
        if machine not in machines:
            machines.add(machine, self._acquaintances.knew(machine, client, began_us))

    def _forget(self, ts_us: int) -> None:
        """Decisions that ended, or are older than a day: when another one is met first, so that few are looked at."""
        by_id = self._register.by_id
        over = [id_ for id_ in self._machines if id_ not in by_id or ts_us - by_id[id_].began_us >= DAY_US]
        for id_ in over:
            del self._machines[id_]


def tell(tellers: Tellers, decision: Decision) -> None:
    """To the event log, and to people."""
    tellers.event(render_event(decision))
    tellers.decision(decision)
