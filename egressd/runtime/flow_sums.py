"""From counters of flows that only grow to what went since the last look, by client and server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from egressd.enforce.accounting import Counted

MAX_FLOWS: Final = 262_144  # followed at once: the kernel's own bound on most machines (nf_conntrack_max)

# Counters are kept in so many tables: one of a hundred thousand takes ten milliseconds to grow, and as long to free,
# during which no other thread gets the interpreter.
SHARDS: Final = 64

Sums = dict[tuple[bytes, bytes], list[int]]


class FlowSums:
    """Follows flows by their key. Those that were there at the first look count from then on: when they carried what
    they had is not known. `uncounted` are those that the kernel does not count, or that are more than can be followed,
    at the last look."""

    def __init__(self, is_client: Callable[[bytes, bytes], bool], limit: int = MAX_FLOWS) -> None:
        """`is_client` says whether a flow with these ends is one that a host of ours opened to the outside."""
        self.flows = 0
        self.uncounted = 0
        self._is_client = is_client
        self._limit = limit
        self._known: list[dict[int, int]] = [{} for _ in range(SHARDS)]
        self._met: list[dict[int, int]] = [{} for _ in range(SHARDS)]
        self._followed = 0
        self._sums: Sums = {}
        self._first = True
        self._flows_now = 0
        self._uncounted_now = 0
        self._beyond = False  # there are more than can be followed

    def begin(self) -> None:
        """A look at all flows begins."""
        for known, met in zip(self._known, self._met, strict=True):
            known.update(met)  # of a look that was given up: it has been counted
            met.clear()
        self._followed = 0
        self._flows_now = self._uncounted_now = 0
        self._beyond = False

    def look(self, piece: Iterable[Counted]) -> None:
        """Flows that are there."""
        for one in piece:
            self._flows_now += 1
            if one.out_bytes < 0 or one.in_bytes < 0:
                self._uncounted_now += 1
                continue
            if not self._is_client(one.source, one.destination):
                continue
            if self._followed >= self._limit:
                self._uncounted_now += 1
                self._beyond = True
                continue
            shard = one.key % SHARDS
            before = self._known[shard].get(one.key)
            now = one.out_bytes << 64 | one.in_bytes
            self._met[shard][one.key] = now
            self._followed += 1
            if now != before and (before is not None or not self._first):
                self._grew(one, before)

    def end(self) -> None:
        """The look is over. `ended` may still tell the last counters of what was not met, until `forget`."""
        self.flows, self.uncounted = self._flows_now, self._uncounted_now
        self._first = self._beyond  # what is followed from the next look on may be old

    def ended(self, piece: Iterable[Counted]) -> None:
        """Flows that are gone, with their last counters."""
        for one in piece:
            before = self._met[one.key % SHARDS].pop(one.key, None)
            earlier = self._known[one.key % SHARDS].pop(one.key, None)
            if one.out_bytes < 0 or one.in_bytes < 0 or not self._is_client(one.source, one.destination):
                continue
            if before is None:
                before = earlier
            if before is not None or not self._first:
                self._grew(one, before)

    def forget(self) -> Iterator[None]:
        """Let go of what was not met at the last look, in small steps."""
        for shard in range(SHARDS):
            self._known[shard] = self._met[shard]
            self._met[shard] = {}
            yield

    def take(self) -> Sums:
        """Bytes out and in by (client, server) since this was taken last."""
        sums, self._sums = self._sums, {}
        return sums

    def _grew(self, one: Counted, before: int | None) -> None:
        out_bytes, in_bytes = one.out_bytes, one.in_bytes
        if before is not None:
            out_before, in_before = before >> 64, before & (1 << 64) - 1
            if out_before <= out_bytes and in_before <= in_bytes:  # else somebody set the counters to zero
                out_bytes -= out_before
                in_bytes -= in_before
        if out_bytes or in_bytes:
            row = self._sums.get((one.source, one.destination))
            if row is None:
                self._sums[(one.source, one.destination)] = [out_bytes, in_bytes]
            else:
                row[0] += out_bytes
                row[1] += in_bytes
