"""Automatic blocks that too many clients run into: taken back, told, and left to a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from egressd.detect.budgets import why_rolled_back
from egressd.detect.policy_settings import PolicySettings
from egressd.model import Decision
from egressd.notify.eve import render_event
from egressd.runtime.in_force import ACTIVE, BLOCK, POLICY, Register
from egressd.runtime.rulings import Rulings


class Tellers(Protocol):
    """Who is told: the event log, and people."""

    def event(self, record: dict[str, Any]) -> None:
        """A rendered event."""

    def decision(self, decision: Decision) -> None:
        """Policy decided."""


class Rollback:
    """Counts over all packet processes; a replay does the same in its engine (detect/engine.py). `known_clients` is how
    many clients are known; `wake` makes the kernel follow."""

    def __init__(
        self,
        register: Register,
        rulings: Rulings,
        tellers: Tellers,
        settings: Callable[[], PolicySettings],
        known_clients: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        self._register = register
        self._rulings = rulings
        self._tellers = tellers
        self._settings = settings
        self._known_clients = known_clients
        self._wake = wake

    def met(self, decision_id: str, watched: Mapping[bytes, object], ts_us: int) -> None:
        """A client that was not among those `watched` for a decision before ran into it."""
        decision = self._register.by_id.get(decision_id)
        if decision is None or decision.author != POLICY or (decision.state, decision.action) != (ACTIVE, BLOCK):
            return
        clients = len(watched) + (bool(decision.client) and decision.client not in watched)
        settings = self._settings()
        age_us = ts_us - decision.created_us
        reason = why_rolled_back(
            clients, self._known_clients(), age_us, settings.rollback_clients, settings.rollback_share
        )
        if reason:
            told = self._rulings.roll_back(decision, reason)
            self._wake()
            tell(self._tellers, told)


def tell(tellers: Tellers, decision: Decision) -> None:
    """To the event log, and to people."""
    tellers.event(render_event(decision))
    tellers.decision(decision)
