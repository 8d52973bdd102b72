"""What every adapter is: a place that can hold blocks, read back and changed in whole steps.

Adapters are plain synchronous objects; the reconciler calls one of them from a thread of its own, one call at a time.
An adapter touches only what bears our mark, never half-applies in silence, and refuses by `Capabilities` what it cannot
hold. Whatever it is told, it does not block what is protected: that was checked by policy, and is checked here again,
for an answer may aim at our own resolver, and one mistake before it would leave everybody without names.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from egressd.errors import EgressdError
from egressd.model import Target

# Kinds of target beside those of policy (model.Target): what a person decides about machines of ours.
CLIENT = "client"  # an isolated client; the value is its address
SEGMENT = "segment"  # one network of a segment that is cut off


class AdapterError(EgressdError):
    """An adapter cannot be reached, or refused a whole step. The message says what to do; it quotes no wire bytes."""


class Rule(NamedTuple):
    """One target that an adapter should hold, for a decision. `expires_us` is epoch microseconds, 0 = as long as the
    decision stands; an adapter that can expire by itself gets a shorter time that is renewed, so that a block lapses
    if the daemon never comes back."""

    target: Target
    decision_id: str
    expires_us: int


class Existing(NamedTuple):
    """One target that an adapter holds, read back. `remaining_s` is what is left of its own time-out, 0 = none.
    `packets` and `bytes` are its counters, 0 where it has none. `decision_id` is "" for an element without our mark in
    a place that is ours."""

    target: Target
    decision_id: str
    remaining_s: float
    packets: int
    bytes: int


class EnforcementState(NamedTuple):
    """How far one target of a decision is enforced in one adapter. `state` is pending, active, failed, unsupported or
    removed (the constants below); `detail` says why, for people."""

    target: Target
    decision_id: str
    adapter: str
    state: str
    detail: str


PENDING = "pending"
ACTIVE = "active"
FAILED = "failed"
UNSUPPORTED = "unsupported"
REMOVED = "removed"


class Failure(NamedTuple):
    """One rule that could not be applied, and why; every other rule of the plan was."""

    rule: Rule
    reason: str


class Capabilities(NamedTuple):
    """What an adapter can hold: kinds of target, whether it expires entries by itself, and how many at most."""

    kinds: frozenset[str]
    expires: bool
    max_entries: int


class Plan(NamedTuple):
    """The difference between what should be and what is. `refresh` are held already, but for too short a time or under
    another decision; `unsupported` are of kinds that the adapter cannot hold; `no_room` did not fit among the
    adapter's most entries; `held` is how many targets are there now."""

    add: tuple[Rule, ...]
    remove: tuple[Existing, ...]
    refresh: tuple[Rule, ...]
    unsupported: tuple[Rule, ...]
    no_room: tuple[Rule, ...] = ()
    held: int = 0

    def is_empty(self) -> bool:
        """Nothing to do."""
        return not (self.add or self.remove or self.refresh)


class Adapter(Protocol):
    """A place that holds blocks. Every method may raise AdapterError."""

    name: str
    capabilities: Capabilities

    def install(self) -> None:
        """Make sure that the place exists and is as it should be, protected targets first; changes nothing that is
        right already. Elements that are there stay."""

    def generation(self) -> int:
        """A number that changes whenever anybody changes the place; cheap, asked about once a second."""

    def populate(self) -> list[Existing]:
        """Everything of ours that is there."""

    def apply(self, plan: Plan, now_us: int) -> list[Failure]:
        """Make the plan's changes, in bounded steps; returns what could not be done, each with its reason."""

    def close(self) -> None:
        """Let go of sockets; what is in force stays in force."""


@runtime_checkable
class WatchedAdapter(Adapter, Protocol):
    """An adapter that is told when somebody else changes its place."""

    def watch_socket(self) -> int:
        """A file descriptor that is readable when there is news."""

    def drain_events(self) -> set[str]:
        """What happened, at most a bounded amount: "gone" (our place, or a part of it), "foreign" (somebody changed
        it), "overrun" (news was lost). Never blocks; may be called while another thread uses the adapter."""
