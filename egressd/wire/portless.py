"""What is neither TCP nor UDP: ICMP requests, ESP, SCTP and the like; and what carries packets (GRE, IP in IP, VXLAN).

Nothing in them is a name, but they go somewhere, and a program may speak with its server in nothing else. So the first
packet each way between two ends is told as FLOW and REPLY, noted BARE: it is matched with lists and blocks, and kept as
history. Of ICMP only requests count, those with which the kernel's own tracking begins a
conversation too (valid_new in net/netfilter/nf_conntrack_proto_icmp.c): errors and answers are sent to whoever has
sent something, whether one likes it or not.

In the place of ports a flow of ICMP has the identifier and the type of the request; what has none has 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.model import BARE, FLOW, ICMP, ICMP6, REPLY, TCP, UDP, FlowKey, Observation
from egressd.native import mypyc_attr
from egressd.wire.direction import flow_of, goes_out, is_group, sender_is_client
from egressd.wire.table import Pair, PairTable

# (protocol, key as of TCP, whether it is an answer). The key of an answer is that of the request, turned round; of what
# has no ports the protocol stands in the place of both, so that one table holds all.
Portless = tuple[int, bytes, bool]

# Requests and their answers that bear an identifier: RFC 792, 950, 4443.
REQUESTS: Final[dict[int, dict[int, int]]] = {ICMP: {8: 0, 13: 14, 15: 16, 17: 18}, ICMP6: {128: 129}}
_ANSWERS: Final = {proto: {answer: asked for asked, answer in types.items()} for proto, types in REQUESTS.items()}
# Protocols whose header begins with the ports: DCCP, SCTP and UDP-Lite beside TCP and UDP (RFC 4340, 9260, 3828).
PORTED: Final = frozenset((TCP, UDP, 33, 132, 136))
IDLE_ROTATE_US: Final = 120_000_000  # as of UDP
_IN_PLACE_OF_PORTS: Final = [bytes((0, proto, 0, proto)) for proto in range(256)]
QUIET_US: Final = 10_000_000  # well under the time that a conversation is remembered without a packet
MAX_QUIET: Final = 4_096
PART: Final = 4  # of the bound on conversations: few hosts speak so at all


def ends_of(proto: int, addresses: bytes, buf: bytes, start: int, end: int) -> Portless | None:
    """Whose conversation an IP packet is part of that carries no TCP or UDP; None where it is none's."""
    if proto not in REQUESTS:
        if proto not in PORTED:
            return proto, addresses + _IN_PLACE_OF_PORTS[proto], False
        return (proto, addresses + buf[start : start + 4], False) if start + 4 <= end else None
    requests = REQUESTS[proto]
    if start + 6 > end:
        return None
    kind = buf[start]
    if kind in requests:
        return proto, addresses + buf[start + 4 : start + 6] + bytes((0, kind)), False
    asked = _ANSWERS[proto].get(kind)
    if asked is None:
        return None
    return proto, addresses + bytes((0, asked)) + buf[start + 4 : start + 6], True


def portless_flow(proto: int, key: bytes) -> FlowKey:
    """The conversation whose client sent what has this `key`."""
    flow = flow_of(proto, key)
    if proto in PORTED or proto in REQUESTS:
        return flow
    return FlowKey(proto, flow.client, 0, flow.server, 0)


@mypyc_attr(acyclic=True)
class _Ends(Pair):
    """Two ends, and whether the server has sent anything."""

    __slots__ = ("replied",)

    def __init__(self, proto: int, forward: bytes, flow: FlowKey) -> None:
        super().__init__(proto, forward, flow)
        self.replied = False


class PortlessTracker:
    """Emits FLOW and REPLY, the first packet each way."""

    def __init__(self, emit: Callable[[Observation], None], limit: int) -> None:
        """`limit` bounds the conversations of other kinds; of these there are a part as many."""
        self._emit = emit
        self._quiet: dict[Portless, int] = {}  # until when: what a tunnel carries comes fast, and tells nothing new
        self._table: PairTable[_Ends] = PairTable(max(2, limit // PART), IDLE_ROTATE_US)

    def packets(self, found: list[Portless], incoming: bool, ts_us: int, number: int) -> None:
        """Take what a frame was found to have, and empty `found`; `incoming` when it came in from the hosts."""
        quiet = self._quiet
        for one in found:
            if quiet.get(one, 0) <= ts_us and self._packet(one[0], one[1], one[2], incoming, ts_us, number):
                if len(quiet) >= MAX_QUIET:
                    quiet.clear()
                quiet[one] = ts_us + QUIET_US
        found.clear()

    def _packet(self, proto: int, key: bytes, is_answer: bool, incoming: bool, ts_us: int, number: int) -> bool:
        """Take one packet; whether it is of a conversation."""
        width = len(key) - 4 >> 1
        if is_group(key[width : 2 * width]):
            return False
        ends = self._table.get(key)
        if ends is None:
            if is_answer:
                return False  # to what was not seen
            flow = portless_flow(proto, key)
            if not (incoming or proto in REQUESTS or goes_out(flow) or sender_is_client(flow)):
                return False  # anybody can send that to a host, which goes nowhere by it: its own packet will tell
            ends = _Ends(proto, key, flow)
            self._table.keep(ends, ts_us)
            self._emit(Observation(FLOW, ts_us, number, ends.flow, "", "", None, 0, BARE))
        if not ends.replied and key != ends.forward:
            ends.replied = True
            self._emit(Observation(REPLY, ts_us, number, ends.flow, "", "", None, 0, BARE))
        return True
