"""The fast lane: one provisional block into the kernel at once, from the packet process that saw the reason for it.

The element lapses by itself within a minute unless the reconciler, once the ledger has the decision, gives it its full
time. Nothing here waits for anything but the kernel's acknowledgement, about 60 us.
"""

from __future__ import annotations

import errno
import time
from typing import Final

from egressd.enforce.adapter import AdapterError
from egressd.enforce.elements import (
    CANARY_SETS,
    LIST_ELEM,
    NFTA_LIST_ELEMENTS,
    TIMEOUT,
    Place,
    Refused,
    comment,
    key_attribute,
    pack,
    place_of,
    render_list,
)
from egressd.enforce.netlink import (
    ACK,
    BATCH_BEGIN,
    BATCH_END,
    CREATE,
    ERROR,
    EXCL,
    NESTED,
    NFTABLES,
    REQUEST,
    NetfilterSocket,
    NetlinkError,
    Overrun,
    attribute,
    generic,
    message,
    nested,
    parse_error,
    parse_messages,
)
from egressd.enforce.sets import NEWSETELEM
from egressd.enforce.shield import Protects, Shield
from egressd.model import Target

PROVISIONAL_S: Final = 60
CANARY_S: Final = 10
_KINDS: Final = ("address", "pair")


class FastLane:
    """A netlink socket and the one message that it sends. `port` is the socket's netlink port, by which the watch over
    our table tells our own changes from everybody else's."""

    def __init__(self, protected: Protects, *, timeout_s: int = PROVISIONAL_S, answer_s: float = 1.0) -> None:
        """Raises AdapterError when there is no netlink to netfilter."""
        self.set_protected(protected)
        self._limit = attribute(TIMEOUT, (timeout_s * 1000).to_bytes(8, "big"))
        self._canary_limit = attribute(TIMEOUT, (CANARY_S * 1000).to_bytes(8, "big"))
        self._link = NetfilterSocket(receive_bytes=1 << 16, send_bytes=1 << 16, timeout_s=answer_s)
        self.port = self._link.port
        self._begin = generic(0, NFTABLES >> 8)
        self._heads: dict[bytes, bytes] = {}  # set name -> the body's fixed part

    def set_protected(self, protected: Protects) -> None:
        """From now on ask this one."""
        self._shield = Shield(protected)

    def push(self, target: Target, decision_id: str) -> int:
        """Block an address or a pair provisionally; returns how long it took, in nanoseconds. A target that is blocked
        already is left as it is. Raises AdapterError when it is protected, cannot be held, or the kernel refuses."""
        began_ns = time.perf_counter_ns()
        if target.kind not in _KINDS:
            raise AdapterError(f"the fast lane blocks addresses and pairs, not {target.kind} targets")
        try:
            place = place_of(target)
            written = comment(decision_id)
        except Refused as refused:
            raise AdapterError(str(refused)) from refused
        why = self._shield.refusal_at(target, place)
        if why:
            raise AdapterError(f"not blocked: {why}")
        self._add(place, self._limit + written, CREATE | EXCL)
        return time.perf_counter_ns() - began_ns

    def canary(self, value: str, mark: str = "canary") -> int:
        """Put an address into the scratch set that no rule asks about; returns how long it took, in nanoseconds. It
        lapses by itself after ten seconds. Raises AdapterError."""
        began_ns = time.perf_counter_ns()
        addr = pack(value)
        if not addr:
            raise AdapterError("not an address in canonical form")
        self._add(Place(CANARY_SETS[len(addr) == 16], addr, None), self._canary_limit + comment(mark), CREATE)
        return time.perf_counter_ns() - began_ns

    def close(self) -> None:
        """Let go of the socket; what was pushed lapses in its own time."""
        self._link.close()

    def _add(self, place: Place, rest: bytes, flags: int) -> None:
        head = self._heads.get(place.set_name)
        if head is None:
            head = self._heads[place.set_name] = render_list(place.set_name)
        element = attribute(LIST_ELEM | NESTED, key_attribute(place.key) + rest)
        body = head + nested(NFTA_LIST_ELEMENTS, element)
        seq = self._link.next_seq(3)
        self._link.send(
            message(BATCH_BEGIN, REQUEST, seq, self._begin)
            + message(NEWSETELEM, REQUEST | ACK | flags, seq + 1, body)
            + message(BATCH_END, REQUEST, seq + 2, self._begin)
        )
        self._settle(seq)

    def _settle(self, first: int) -> None:
        while True:
            try:
                datagram = self._link.receive()
            except Overrun:
                continue  # ours is small and alone; what was lost is older than it
            if not datagram:
                raise AdapterError("the kernel did not answer in time")
            for answer in parse_messages(datagram):
                if answer.kind != ERROR:
                    continue
                number, seq = parse_error(answer.body)
                if not first <= seq <= first + 2:
                    continue  # the late answer to a push that was given up
                if number and number != errno.EEXIST:
                    raise NetlinkError(number, "fast lane push")
                return
