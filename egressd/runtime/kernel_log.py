"""The kernel's log of what it drops (NFLOG): read while we enforce, tried again while another program has our group.

A group has one reader (nfulnl_recv_config of nfnetlink_log.c: EPERM for one of another's): whoever was first keeps it
until it ends: a capture of that group, another daemon.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Final

from egressd.clock import Clock
from egressd.enforce.adapter import AdapterError
from egressd.enforce.netlink import NetlinkError
from egressd.enforce.nflog import Nflog
from egressd.model import TCP, FlowKey
from egressd.wire.direction import flow_of
from egressd.wire.frame import Frames
from egressd.wire.portless import portless_flow

RAW_IP: Final = 101  # LINKTYPE_RAW: the log gives packets from their IP header on
RETRY_FIRST_S: Final = 1.0
RETRY_MOST_S: Final = 60.0
SYN: Final = 2
ACK: Final = 16


class KernelLog:
    """On the event loop. `on_dropped` takes (when, conversation) of connections that the kernel says it stopped; `told`
    hears why the log cannot be read, and "" when that is over."""

    def __init__(
        self, clock: Clock, on_dropped: Callable[[list[tuple[int, FlowKey]]], None], told: Callable[[str], None]
    ) -> None:
        self._clock = clock
        self._on_dropped = on_dropped
        self._told = told
        self._frames = Frames()
        self._nflog: Nflog | None = None
        self._group = -1  # that is wanted, -1: none
        self._problem = ""
        self._wait_s = RETRY_FIRST_S
        self._due_s = 0.0

    def listen(self, group: int) -> None:
        """Read what the kernel drops; where that cannot be, `look` tries again."""
        self._group = group
        self._wait_s = RETRY_FIRST_S
        self._try()

    def look(self) -> None:
        """Once a second."""
        if self._group >= 0 and self._nflog is None and asyncio.get_running_loop().time() >= self._due_s:
            self._try()

    def let_go(self) -> None:
        """Read no more: others may have the group."""
        if self._nflog is not None:
            asyncio.get_running_loop().remove_reader(self._nflog.fileno())
            self._nflog.close()
            self._nflog = None
        self._group = -1
        self._problem = ""

    def _try(self) -> None:
        loop = asyncio.get_running_loop()
        problem = ""
        try:
            self._nflog = Nflog((self._group,))
        except AdapterError as error:
            problem = self._why(error)
            self._due_s = loop.time() + self._wait_s
            self._wait_s = min(2 * self._wait_s, RETRY_MOST_S)
        else:
            loop.add_reader(self._nflog.fileno(), self._read)
        if problem != self._problem:
            self._problem = problem
            self._told(problem)

    def _why(self, error: AdapterError) -> str:
        if isinstance(error, NetlinkError) and error.number == errno.EBUSY:
            return (
                f"log group {self._group} is another program's: what the kernel drops is not counted; end that program,"
                " or set another enforce.nflog_group and restart"
            )
        return f"log group {self._group} cannot be read: what the kernel drops is not counted; {error}"

    def _read(self) -> None:
        if self._nflog is None:
            return
        flows: list[tuple[int, FlowKey]] = []
        for dropped in self._nflog.read(self._clock.now_us()):
            packet = dropped.packet
            frames = self._frames
            proto = frames.decode(RAW_IP, packet, 0, len(packet), dropped.ts_us)
            if frames.outer:  # it is what the kernel judged, whatever it carries
                proto, key, is_answer = frames.outer[0]
                if not is_answer:
                    flows.append((dropped.ts_us, portless_flow(proto, key)))
                continue
            if not proto or (proto == TCP and frames.flags & (SYN | ACK) != SYN):
                continue  # the rest of an established flow: no new try
            flows.append((dropped.ts_us, flow_of(proto, frames.key)))
        if flows:
            self._on_dropped(flows)
