"""What travels between a packet process and the core: frames over a stream socket, and events as plain JSON.

The packet process reads hostile bytes, so the core believes nothing of what it sends but values of the expected types
within bounds: `unpack_*` let only Malformed out. The other way the core sends Python objects as it made them.

    frame:  length of the body (4 bytes, big endian), kind (1 byte), body
"""

from __future__ import annotations

import json
import re
from struct import Struct
from typing import Any, Final

from egressd.errors import Malformed
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    FLOW,
    HTTP_HOST,
    QUIC_SNI,
    SOCKS_HOST,
    TLS_SNI,
    Attempt,
    Decision,
    Event,
    FlowKey,
    Indicator,
    Match,
    Part,
    Sighting,
    Target,
)

MAX_UP_BYTES: Final = 4 << 20  # what a packet process may send at once; a batch is some kilobytes
MAX_TEXT: Final = 4_096
MAX_ITEMS: Final = 65_536
MAX_NUMBER: Final = 1 << 62
VIAS: Final = frozenset((DNS_QUERY, DNS_ANSWER, HTTP_HOST, TLS_SNI, QUIC_SNI, SOCKS_HOST, FLOW))
EVIDENCE: Final = frozenset(("E0", "E1", "E2"))
MODES: Final = frozenset(("monitor", "approve", "enforce"))
_ID: Final = re.compile(r"D[1-9][0-9]{0,17}")
_SENSOR: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")  # as the configuration names them
MAX_SOURCES: Final = 33  # the configuration has at most 32, and there is our own tap
ACTIONS: Final = frozenset(("block", "extend", "withdraw", "refuse", "alert", "ask", "isolate"))
MAX_PARTS: Final = 32

HEAD: Final = Struct("!IB")
UP_BATCH: Final = 1  # packet process to core: a batch of events and sums, JSON
DOWN_OBJECT: Final = 2  # core to packet process: a pickled order
DOWN_FILE: Final = 3  # the same in a memory file whose descriptor comes along; the body is its length


class Frames:
    """Cuts a stream of bytes into frames, in whatever pieces it comes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buf = bytearray()

    def feed(self, piece: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete now, as (kind, body). Raises Malformed when one is longer than the limit."""
        self._buf += piece
        frames: list[tuple[int, bytes]] = []
        at = 0
        while len(self._buf) - at >= HEAD.size:
            length, kind = HEAD.unpack_from(self._buf, at)
            if length > self._limit_bytes:
                raise Malformed("a frame is too long")
            end = at + HEAD.size + length
            if len(self._buf) < end:
                break
            frames.append((kind, bytes(self._buf[at + HEAD.size : end])))
            at = end
        del self._buf[:at]
        return frames


def render_frame(kind: int, body: bytes) -> bytes:
    """One frame."""
    return HEAD.pack(len(body), kind) + body


def render_batch(batch: dict[str, Any]) -> bytes:
    """A batch as a frame."""
    return render_frame(UP_BATCH, json.dumps(batch, ensure_ascii=True, separators=(",", ":")).encode("ascii"))


def parse_batch(body: bytes) -> dict[str, Any]:
    """The batch in a frame's body. Raises Malformed."""
    try:
        batch = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("a batch is no JSON") from error
    if not isinstance(batch, dict):
        raise Malformed("a batch is no object")
    return batch


# -- events


def pack_event(event: Event) -> list[Any]:
    """A sighting, decision or attempt as a list of plain values; its first is the sort."""
    if isinstance(event, Sighting):
        return [
            "s", event.ts_us, _pack_flow(event.flow), event.name, pack_match(event.match), event.via, event.note,
            event.retro, event.count, event.first_us, event.last_us, event.url, event.address.hex(), event.new,
            event.source, event.own, list(event.told_by),
            [list(part) for part in event.parts],
        ]  # fmt: skip
    if isinstance(event, Decision):
        return [
            "d", event.ts_us, event.id, event.action, [list(target) for target in event.targets], event.reason,
            event.rule, event.evidence, event.mode, pack_match(event.match), event.client.hex(), event.name,
        ]  # fmt: skip
    if isinstance(event, Attempt):
        return [
            "a", event.ts_us, _pack_flow(event.flow), event.name, event.via, event.decision_id, list(event.target),
            pack_match(event.match), event.first, event.count, event.leak, event.stopped,
        ]  # fmt: skip
    raise TypeError(f"no event of the packet process: {type(event).__name__}")


def unpack_event(packed: object) -> Sighting | Decision | Attempt:
    """The event that `pack_event` made a list of. Raises Malformed."""
    values = Values(packed)
    sort = values.text()
    if sort == "s":
        sighting = Sighting(
            values.number(), 0, values.flow(), values.text(), values.match(), values.one_of(VIAS), values.text(),
            values.flag(), values.count(), values.number(), values.number(), values.text(), values.address(),
            new=values.flag(),
        )  # fmt: skip
        sighting.source, sighting.own = values.sensor(), values.flag()
        sighting.told_by = values.sensors()
        sighting.sources = max(1, len(sighting.told_by))
        sighting.parts = values.parts()
        return sighting
    if sort == "d":
        ts_us, id_, action = values.number(), values.text(), values.one_of(ACTIONS)
        if _ID.fullmatch(id_) is None and (id_ or action not in ("alert", "ask")):
            raise Malformed("a decision's id was expected")
        targets = values.targets()
        if not targets:
            raise Malformed("a decision about nothing")
        return Decision(
            id_, ts_us, 0, action, targets, values.text(), values.text(), values.one_of(EVIDENCE),
            values.one_of(MODES), values.match(), values.address(), values.text(), "",
        )  # fmt: skip
    if sort == "a":
        ts_us, flow, name, via = values.number(), values.flow(), values.text(), values.one_of(VIAS)
        return Attempt(
            ts_us, 0, flow, name, via, values.decision_id(), values.target(), values.match(), values.flag(),
            values.count(),
            values.flag(), "", "", values.flag(),
        )  # fmt: skip
    raise Malformed("an event of an unknown sort")


def _pack_flow(flow: FlowKey) -> list[Any]:
    return [flow.proto, flow.client.hex(), flow.client_port, flow.server.hex(), flow.server_port]


def pack_match(match: Match) -> list[Any]:
    """A match as plain values."""
    return [match.level, match.registered_domain, match.suffix_rule, list(match.indicator)]


def unpack_match(packed: object) -> Match:
    """The match that `pack_match` made a list of. Raises Malformed."""
    values = Values(packed)
    level, domain, rule = values.text(), values.text(), values.text()
    inner = Values(values.next())
    indicator = Indicator(
        inner.text(), inner.text(), inner.text(), inner.text(), inner.text(), inner.text(), inner.text(),
        inner.number(), inner.text(), inner.number(), inner.number(), inner.number(), inner.text(), inner.text(),
        inner.number(),
    )  # fmt: skip
    return Match(level, indicator, domain, rule)


def is_sensor(text: str) -> bool:
    """Whether a sensor can have that name."""
    return _SENSOR.fullmatch(text) is not None


class Values:
    """Takes the values of a list one by one, each of the type that is expected. Only Malformed leaves it."""

    def __init__(self, packed: object) -> None:
        if not isinstance(packed, list) or len(packed) > MAX_ITEMS:
            raise Malformed("a list was expected")
        self._packed = packed
        self._at = 0

    def __len__(self) -> int:
        return len(self._packed) - self._at

    def next(self) -> object:
        """Whatever comes next."""
        if self._at >= len(self._packed):
            raise Malformed("a list ends early")
        self._at += 1
        return self._packed[self._at - 1]

    def text(self) -> str:
        """A text of bounded length."""
        value = self.next()
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise Malformed("a text was expected")
        return value

    def one_of(self, known: frozenset[str]) -> str:
        """One of a few words."""
        value = self.text()
        if value not in known:
            raise Malformed("an unknown word")
        return value

    def number(self) -> int:
        """A whole number."""
        value = self.next()
        if not isinstance(value, int) or isinstance(value, bool) or not -MAX_NUMBER < value < MAX_NUMBER:
            raise Malformed("a number was expected")
        return value

    def flag(self) -> bool:
        """A truth value."""
        value = self.next()
        if not isinstance(value, bool):
            raise Malformed("a truth value was expected")
        return value

    def address(self) -> bytes:
        """A packed address, or b""."""
        try:
            address = bytes.fromhex(self.text())
        except ValueError as error:
            raise Malformed("an address was expected") from error
        if len(address) not in (0, 4, 16):
            raise Malformed("an address was expected")
        return address

    def host(self) -> bytes:
        """A packed address that is one."""
        address = self.address()
        if not address:
            raise Malformed("an address was expected")
        return address

    def count(self, most: int = MAX_NUMBER) -> int:
        """A whole number of 0 to `most`."""
        number = self.number()
        if not 0 <= number <= most:
            raise Malformed("a number is out of its bounds")
        return number

    def sensor(self) -> str:
        """The name of a sensor, or "" for nobody."""
        name = self.text()
        if name and not is_sensor(name):
            raise Malformed("a sensor's name was expected")
        return name

    def sensors(self) -> tuple[str, ...]:
        """The names of sensors."""
        values = Values(self.next())
        if len(values) > MAX_SOURCES:
            raise Malformed("too many sensors")
        return tuple(values.sensor() for _ in range(len(values)))

    def decision_id(self) -> str:
        """A decision's id."""
        id_ = self.text()
        if _ID.fullmatch(id_) is None:
            raise Malformed("a decision's id was expected")
        return id_

    def flow(self) -> FlowKey:
        """A conversation; one of history, whose protocol is 0, may have no server: its client only asked."""
        values = Values(self.next())
        proto, client, client_port = values.count(255), values.host(), values.count(65_535)
        server = values.host() if proto else values.address()
        if server and len(server) != len(client):
            raise Malformed("a conversation of two families")
        return FlowKey(proto, client, client_port, server, values.count(65_535))

    def match(self) -> Match:
        """A match."""
        return unpack_match(self.next())

    def target(self) -> Target:
        """A target."""
        values = Values(self.next())
        return Target(values.text(), values.text())

    def targets(self) -> tuple[Target, ...]:
        """Targets."""
        values = Values(self.next())
        return tuple(values.target() for _ in range(len(values)))

    def parts(self) -> tuple[Part, ...]:
        """Parts of a sighting by behaviour."""
        values = Values(self.next())
        if len(values) > MAX_PARTS:
            raise Malformed("too many parts")
        rows = [Values(values.next()) for _ in range(len(values))]
        return tuple(Part(row.text(), row.count(100), row.text()) for row in rows)

    def counts(self) -> dict[str, int]:
        """A few words with a number each."""
        value = self.next()
        if not isinstance(value, dict) or len(value) > MAX_ITEMS:
            raise Malformed("counts were expected")
        pairs = Values([part for pair in value.items() for part in pair])
        return {pairs.text(): pairs.count() for _ in range(len(value))}
