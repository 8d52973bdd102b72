"""Who runs into what is blocked, and how often: sums by decision and client."""

from __future__ import annotations

from typing import Final

from egressd.runtime.tally import Tried

MAX_WATCHES: Final = 262_144  # pairs of decision and client; of more only the sums by incident are kept


class WatchSum:
    """One client's attempts at one decision's targets."""

    __slots__ = ("count", "first_us", "last_us", "leaks")

    def __init__(self, first_us: int, last_us: int = 0, count: int = 0, leaks: int = 0) -> None:
        self.first_us = first_us
        self.last_us = last_us
        self.count = count
        self.leaks = leaks


class Watched:
    """`by_decision` has the clients of each, in the order in which they came."""

    def __init__(self) -> None:
        self.by_decision: dict[str, dict[bytes, WatchSum]] = {}
        self._pairs = 0

    def of(self, decision_id: str) -> dict[bytes, WatchSum]:
        """The clients that ran into a decision, to look at."""
        return self.by_decision.get(decision_id, {})

    def add(self, decision_id: str, client: bytes, row: Tried) -> bool:
        """Count attempts; returns whether the client is new to the decision."""
        known = self.of(decision_id).get(client)
        is_new = known is None
        if known is None:
            if self._pairs >= MAX_WATCHES:
                return False
            known = WatchSum(row.first_us)
            self.restore(decision_id, client, known)
        known.last_us = max(known.last_us, row.last_us)
        known.count += row.count
        known.leaks += row.leaks
        return is_new

    def restore(self, decision_id: str, client: bytes, known: WatchSum) -> None:
        """What was counted before."""
        if self._pairs < MAX_WATCHES:
            self._pairs += 1
            self.by_decision.setdefault(decision_id, {})[client] = known

    def forget(self, decision_id: str) -> None:
        """A decision has ended: nobody is watched for it any more. What was counted is in the ledger."""
        self._pairs -= len(self.by_decision.pop(decision_id, {}))
