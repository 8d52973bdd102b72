"""Bounded tables for state that traffic creates.

Every table that traffic can fill must be bounded without pauses, or whoever sends the traffic decides how
much memory and time we take. Deleting the oldest key of a dict
one by one rescans the hole it leaves, and `OrderedDict` costs twice the memory, so these keep two generations:
what is used moves to the young one; when that is half of the bound the old one is forgotten as a whole, a few entries
at each insertion. A key is thus kept for at least half of the bound's worth of newer keys (approximate LRU, O(1)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from egressd.model import FlowKey
from egressd.native import mypyc_attr
from egressd.wire.direction import flow_of, pair_key, reverse_key

K = TypeVar("K")
V = TypeVar("V")

# One client may open 1/SHARE of a table in a generation; what it opens beyond that stands in the crowd, a part of the
# table of which all such clients share 1/CROWD_PART. A flood from one machine thus pushes out nobody else.
SHARE: Final = 10
# An IPv6 host takes its address freely in its network of 64 bits (RFC 4291, 8981), so these have a share too: half of a
# generation, for hosts that do no harm are in there with it.
NETWORK_SHARE: Final = 5
CROWD_PART: Final = 4
_MIN_SHARE: Final = 16  # conversations: what a browser opens for one page


class RecentTable(Generic[K, V]):
    """Mapping of at most `limit` keys that forgets what was not used recently; `evicted` counts what it forgot."""

    def __init__(self, limit: int, on_leave: Callable[[K, V], None] | None = None) -> None:
        """`on_leave` is given each pair that was forgotten, some time after that, when its memory is freed."""
        self.limit = limit
        self.evicted = 0
        self.generation = 0
        self._half = max(1, limit // 2)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._leaving: list[dict[K, V]] = []
        self._on_leave = on_leave

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, key: K) -> bool:
        return key in self._young or key in self._old

    def get(self, key: K) -> V | None:
        """The value of `key`, or None; using it keeps it."""
        value = self._young.get(key)
        if value is None:
            old = self._old
            if old and key in old:  # seldom; to ask costs less than to take out what is not there
                value = old[key]
                del old[key]
                self.add(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Set `key`; may forget others."""
        old = self._old
        if old and key in old:
            del old[key]
        self.add(key, value)

    def add(self, key: K, value: V) -> None:
        """`put` for a key that is not held, as `get` has just told, or was used just now: spares a look-up."""
        young = self._young
        if len(young) >= self._half and key not in young:
            self.rotate()
            young = self._young
        young[key] = value
        if self._leaving:
            # Two at a time: a generation of `limit / 2` is freed before the next is full.
            leaving = self._leaving[0]
            if self._on_leave is not None or len(leaving) < 3:
                self._free(2)
            else:
                leaving.popitem()
                leaving.popitem()

    def pop(self, key: K) -> V | None:
        """Remove `key` and return its value, or None."""
        value = self._young.pop(key, None)
        if value is None and self._old:
            value = self._old.pop(key, None)
        return value

    def rotate(self) -> None:
        """Forget the old generation; the young one becomes old."""
        if self._old:
            self.evicted += len(self._old)
            self._leaving.append(self._old)
        self._old = self._young
        self._young = {}
        self.generation += 1

    def values(self) -> list[V]:
        """Every value held, oldest generation first, in order of insertion."""
        return [*self._old.values(), *self._young.values()]

    def keys(self) -> list[K]:
        """Every key held, oldest generation first, in order of insertion."""
        return [*self._old, *self._young]

    def peek(self, key: K) -> V | None:
        """The value of `key`, or None; looking at it does not keep it."""
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def items(self) -> list[tuple[K, V]]:
        """Every pair held, oldest generation first, in order of insertion."""
        return [*self._old.items(), *self._young.items()]

    def free_all(self) -> None:
        """Free all that was forgotten, at once."""
        while self._leaving:
            self._free(len(self._leaving[0]))

    def _free(self, count: int) -> None:
        leaving = self._leaving[0]
        for _ in range(min(count, len(leaving))):
            key, value = leaving.popitem()
            if self._on_leave is not None:
                self._on_leave(key, value)
        if not leaving:
            del self._leaving[0]


@mypyc_attr(acyclic=True)
class Pair:
    """A conversation as its table sees it: packets of both directions lead to it. `forward` is the key of packets from
    the client, `flow` says the same in model's words."""

    __slots__ = ("flow", "forward")

    def __init__(self, proto: int, forward: bytes, flow: FlowKey | None = None) -> None:
        """`flow` is that of `forward` where the caller knows it."""
        self.forward = forward
        self.flow: FlowKey = flow_of(proto, forward) if flow is None else flow

    @property
    def backward(self) -> bytes:
        """The key of packets from the server: made anew each time, for few packets ask."""
        return reverse_key(self.forward)

    def swap(self) -> None:
        """The guess was wrong: the other side is the client."""
        self.forward = reverse_key(self.forward)
        self.flow = flow_of(self.flow[0], self.forward)


P = TypeVar("P", bound=Pair)


class PairTable(Generic[P]):
    """At most `limit` conversations, each under one key that packets of both directions lead to (`pair_key`)."""

    def __init__(self, limit: int, idle_us: int, on_leave: Callable[[P], None] | None = None) -> None:
        """Conversations idle for one to two of `idle_us` are forgotten. `on_leave` is given each conversation that was
        forgotten and not met again, before its memory is freed."""
        crowd = max(2, limit // CROWD_PART)
        self._main: RecentTable[bytes, P] = RecentTable(max(2, limit - crowd), self._left)
        self._crowd: RecentTable[bytes, P] = RecentTable(crowd, self._left)
        self._on_leave = on_leave
        self._share = max(_MIN_SHARE, limit // SHARE)
        self._network_share = max(_MIN_SHARE, limit // NETWORK_SHARE)
        self._opened: dict[bytes, int] = {}  # by client, and by the first 8 bytes of IPv6 ones
        self._opened_limit = max(_MIN_SHARE, limit)
        self._generation = 0
        self._idle_us = idle_us
        self._rotated_us = 0
        self.over_share = 0

    def __len__(self) -> int:
        return len(self._main) + len(self._crowd)

    @property
    def evicted(self) -> int:
        """Conversations forgotten because the table was full or they were idle."""
        return self._main.evicted + self._crowd.evicted

    def get(self, key: bytes) -> P | None:
        """The conversation of a packet with this `key`, or None; using it keeps it."""
        key = pair_key(key)
        table = self._main
        pair = table._young.get(key)
        if pair is None and key in table._old:
            pair = table.get(key)
        if pair is None and self.over_share:  # else there is no crowd
            pair = self._crowd.get(key)
        return pair

    def keep(self, pair: P, ts_us: int) -> None:
        """Remember a conversation whose key is not held; may forget others."""
        if ts_us - self._rotated_us > self._idle_us:
            self._main.rotate()
            self._crowd.rotate()
            self._rotated_us = ts_us
        if self._main.generation != self._generation or len(self._opened) >= self._opened_limit:
            self._generation = self._main.generation
            self._opened.clear()
        client = pair.flow[1]
        opened = self._opened.get(client, 0)
        table = self._main
        network = client[:8] if len(client) == 16 else b""
        if opened >= self._share or (network and self._opened.get(network, 0) >= self._network_share):
            self.over_share += 1
            table = self._crowd
        else:
            self._opened[client] = opened + 1
            if network:
                self._opened[network] = self._opened.get(network, 0) + 1
        table.add(pair_key(pair.forward), pair)

    def forget(self, pair: P) -> None:
        """Drop a conversation that is over."""
        key = pair_key(pair.forward)
        if self.over_share:
            self._crowd.pop(key)
        if self._main.pop(key) is None:
            return
        client = pair.flow.client
        self._closed(client)
        if len(client) == 16:
            self._closed(client[:8])

    def _closed(self, source: bytes) -> None:
        opened = self._opened.get(source, 0)
        if opened > 1:
            self._opened[source] = opened - 1
        elif opened:
            del self._opened[source]

    def all(self) -> list[P]:
        """Every conversation held, the oldest first."""
        for table in (self._main, self._crowd):
            table.free_all()
        return [*self._main.values(), *self._crowd.values()]

    def _left(self, key: bytes, pair: P) -> None:
        if self._on_leave is not None and key not in self._main and key not in self._crowd:
            self._on_leave(pair)
