"""Which contacts several sensors have told of: one contact, whoever tells of it and in whatever order.

Our tap sees a packet; a proxy, a resolver or another sensor writes a line about the same a moment, or half a minute,
later. Each contact that a sensor tells of is kept for a while with who told of it. Another sensor's word meets the
nearest in time that this sensor has not told of yet: same client, same registered domain (or listed address), question
with question and connection with connection. Where both know the ports of a connection these must be the same;
then it may be longer ago, for some sensors write of a connection when it is over. So two sensors that both tell of ten
contacts tell of ten together, and not of twenty.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from egressd.model import DNS_ANSWER, DNS_QUERY, TAP, FlowKey
from egressd.units import MINUTE_US

SAME_SIGHTING_US: Final = 10_000_000  # clocks of a network differ by less (NTP), and estimates of their offset do too
SAME_PORTS_US: Final = MINUTE_US  # a port is not used again so soon (RFC 9293 section 3.4.1: 2 MSL)
MAX_TOLD: Final = 65_536  # contacts that are remembered; 300 bytes each
MAX_TOLD_OF_ONE: Final = 64  # of one client with one destination; a flood is told in part
MAX_DIFFERENCES: Final = 64  # of a sensor's clock from ours, the latest


class Told:
    """A contact and who told of it, each with the time by its own clock."""

    __slots__ = ("flow", "question", "sensors", "ts_us")

    def __init__(self, ts_us: int, question: bool, flow: FlowKey, sensor: str) -> None:
        self.ts_us = ts_us
        self.question = question
        self.flow = flow
        self.sensors = {sensor: ts_us}


class Agreement:
    """Contacts lately told of, bounded. `agreed` counts, by sensor, what another one had told of already; `evicted`
    contacts that were forgotten while another sensor might still have told of them, because there were too many."""

    def __init__(self, limit: int = MAX_TOLD) -> None:
        """`limit` bounds the contacts that are remembered."""
        self.agreed: dict[str, int] = {}
        self.evicted = 0
        self._limit = limit
        self._last_us = 0
        self._told: dict[tuple[bytes, str], deque[Told]] = {}
        self._order: deque[tuple[bytes, str]] = deque()  # a key for each contact held, the oldest first
        self._differences: dict[str, deque[int]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def tell(self, sensor: str, via: str, flow: FlowKey, reached: str, ts_us: int) -> bool:
        """`sensor` tells of a contact that is new to it; whether another one told of that contact before."""
        question = via in (DNS_QUERY, DNS_ANSWER)
        self._last_us = max(self._last_us, ts_us)
        key = (flow.client, reached)
        held = self._told.get(key)
        if held is not None:
            found = _nearest(held, sensor, question, flow, ts_us)
            if found is not None:
                found.sensors[sensor] = ts_us
                if found.flow.client_port == 0:
                    found.flow = flow  # now the ports are known
                self._agree(sensor, found)
                return True
        self._keep(key, Told(ts_us, question, flow, sensor))
        return False

    def told_by(self, client: bytes, reached: str, ts_us: int) -> tuple[str, ...]:
        """The sensors that told of a contact of `client` with `reached` at about `ts_us`, by name. Questions count for
        connections here: a resolver that was asked and a tap that sees the connection speak for one another."""
        held = self._told.get((client, reached))
        if held is None:
            return ()
        found: set[str] = set()
        for one in held:
            if abs(one.ts_us - ts_us) <= SAME_SIGHTING_US:
                found.update(one.sensors)
        return tuple(sorted(found))

    def difference_us(self, sensor: str) -> int:
        """By how much the clock of `sensor` is ahead of ours, the middle of what was measured on the same contacts."""
        measured = sorted(self._differences.get(sensor, ()))
        return measured[len(measured) // 2] if measured else 0

    def _agree(self, sensor: str, found: Told) -> None:
        self.agreed[sensor] = self.agreed.get(sensor, 0) + 1
        ours = found.sensors.get(TAP)
        if ours is None:
            return
        for other, ts_us in found.sensors.items():
            if other != TAP and (sensor in (TAP, other)):
                measured = self._differences.get(other)
                if measured is None:
                    measured = self._differences[other] = deque(maxlen=MAX_DIFFERENCES)
                measured.append(ts_us - ours)

    def _keep(self, key: tuple[bytes, str], told: Told) -> None:
        while len(self._order) >= self._limit:
            self._forget(self._order.popleft())
        held = self._told.get(key)
        if held is None:
            held = self._told[key] = deque()
        elif len(held) >= MAX_TOLD_OF_ONE:
            self._let_go(held.popleft())
            held.append(told)  # takes the place in `_order` of the one that went
            return
        held.append(told)
        self._order.append(key)

    def _forget(self, key: tuple[bytes, str]) -> None:
        held = self._told.get(key)
        if held is None:
            return
        self._let_go(held.popleft())
        if not held:
            del self._told[key]

    def _let_go(self, told: Told) -> None:
        if self._last_us - told.ts_us <= SAME_SIGHTING_US:
            self.evicted += 1


def _nearest(held: deque[Told], sensor: str, question: bool, flow: FlowKey, ts_us: int) -> Told | None:
    """The contact among `held` that this can be the same as: one with the same ports, else the nearest in time; of two
    alike the older."""
    best: Told | None = None
    best_us = 0
    for one in held:
        if one.question != question or sensor in one.sensors:
            continue
        away_us = abs(one.ts_us - ts_us)
        if not question and flow.client_port and one.flow.client_port:
            if one.flow != flow or away_us > SAME_PORTS_US:
                continue
            away_us -= SAME_PORTS_US  # before all those whose ports are not known
        elif away_us > SAME_SIGHTING_US:
            continue
        if best is None or away_us < best_us:
            best = one
            best_us = away_us
    return best
