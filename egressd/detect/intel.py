"""What text files say, loaded: what everything that is seen is judged by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from egressd.detect.behaviour.settings import DEFAULTS, BehaviourSettings
from egressd.intel.allowances import Allowances
from egressd.intel.guard import NO_GUARD, Guard
from egressd.intel.layered import AnyIndex
from egressd.intel.protected import Protected
from egressd.intel.resolvers import Resolvers
from egressd.intel.shared_ranges import NO_SHARED_RANGES, SharedRanges
from egressd.names import Suffixes


class Intel:
    """Everything that text files say, loaded: swapped whole when any of them changes."""

    def __init__(
        self,
        index: AnyIndex,
        suffixes: Suffixes,
        allowances: Allowances,
        protected: Protected,
        resolvers: Resolvers,
        shared: SharedRanges = NO_SHARED_RANGES,
        guard: Guard = NO_GUARD,
        behaviour: BehaviourSettings = DEFAULTS,
    ) -> None:
        self.index = index
        self.suffixes = suffixes
        self.allowances = allowances
        self.protected = protected
        self.resolvers = resolvers
        self.shared = shared
        self.guard = guard
        self.behaviour = behaviour

    def protecting(self, networks: Iterable[tuple[bytes, int, str]]) -> Intel:
        """The same with more networks (first address, length, reason) that are never blocked."""
        return Intel(
            self.index, self.suffixes, self.allowances, self.protected.plus(networks), self.resolvers, self.shared,
            self.guard, self.behaviour,
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes; compiled classes are not pickled by themselves."""
        return Intel, (
            self.index, self.suffixes, self.allowances, self.protected, self.resolvers, self.shared,
            self.guard, self.behaviour,
        )  # fmt: skip
