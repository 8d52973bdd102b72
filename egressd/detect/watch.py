"""The watch: what still tries to reach a blocked target, per client. Whoever does is infected, and it fails unseen."""

from __future__ import annotations

from typing import Final

from egressd.detect.blocks import Block
from egressd.model import DNS_ANSWER, DNS_QUERY, Attempt, FlowKey, Sighting
from egressd.wire.table import RecentTable

MAX_CLIENTS: Final = 131_072  # pairs of block and client; attempts of more are counted in `uncounted`


class ClientWatch:
    """One client's attempts at one blocked target."""

    __slots__ = ("count", "first_us", "last_us", "leaks")

    def __init__(self, ts_us: int) -> None:
        self.first_us = ts_us
        self.last_us = ts_us
        self.count = 0
        self.leaks = 0


class Watch:
    """Collects the attempts at each block, and the leaks."""

    def __init__(self, limit: int = 65_536, clients: int = MAX_CLIENTS) -> None:
        """`limit` bounds the attempts whose answer would be a leak, `clients` the pairs of block and client."""
        self._clients = clients
        self._watched = 0
        self._tried: RecentTable[FlowKey, Attempt] = RecentTable(limit)
        self.by_block: dict[str, dict[bytes, ClientWatch]] = {}
        self.uncounted = 0

    def attempt(self, block: Block, sighting: Sighting, stopped: bool) -> Attempt:
        """A contact with a blocked target. `stopped`: something in force keeps this client from this very address, so
        that an answer is a leak. Beyond the bound of clients none is new: its count stays 1."""
        clients = self.by_block.setdefault(block.id, {})
        client = sighting.flow.client
        watch = clients.get(client)
        first = watch is None and self._watched < self._clients
        if watch is None:
            watch = ClientWatch(sighting.ts_us)
            if first:
                clients[client] = watch
                self._watched += 1
            else:
                self.uncounted += 1
        watch.count += 1
        watch.last_us = sighting.ts_us
        tried = Attempt(
            ts_us=sighting.ts_us,
            number=sighting.number,
            flow=sighting.flow,
            name=sighting.name,
            via=sighting.via,
            decision_id=block.id,
            target=block.target,
            match=sighting.match,
            first=first,
            count=watch.count,
            leak=False,
            campaign=sighting.campaign,
            incident=sighting.incident,
            stopped=stopped and sighting.via not in (DNS_QUERY, DNS_ANSWER),
        )
        if tried.stopped:
            self._tried.put(sighting.flow, tried)
        return tried

    def rename(self, decision_id: str, known_as: str) -> None:
        """A decision is known under another id from now on."""
        clients = self.by_block.pop(decision_id, None)
        if clients is not None:
            self.forget(known_as)
            self.by_block[known_as] = clients

    def forget(self, decision_id: str) -> None:
        """A block is no more: there is room for the clients of others."""
        self._watched -= len(self.by_block.pop(decision_id, {}))

    def answered(self, flow: FlowKey, ts_us: int, number: int) -> Attempt | None:
        """The server of `flow` answered. If this was an attempt that should have been stopped, that is a leak."""
        tried = self._tried.pop(flow)
        if tried is None:
            return None
        watch = self.by_block.get(tried.decision_id, {}).get(flow.client)
        if watch is not None:
            watch.leaks += 1
        return Attempt(
            ts_us, number, flow, tried.name, tried.via, tried.decision_id, tried.target, tried.match, False,
            tried.count, True, tried.campaign, tried.incident, True,
        )  # fmt: skip
