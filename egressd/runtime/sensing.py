"""The packet processes together: what each is started with, what all are told, and what their numbers add up to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from egressd.config.schema import Config
from egressd.metrics.histogram import Histogram
from egressd.runtime.orders import Order, Start
from egressd.runtime.processes import PacketProcessHandle

MIB: Final = 1 << 20
UP: Final = "up"
RESTARTING: Final = "restarting"
_COUNTS: Final = ("packets", "kernel_drops", "received", "abandoned", "gated")


class Sensing:
    """`start_of(number)` makes a process's first orders from what is known then; `on_batch` takes (number, batch)."""

    def __init__(
        self,
        processes: int,
        start_of: Callable[[int], tuple[Order, list[Order]]],
        on_batch: Callable[[int, dict[str, Any]], Awaitable[None]],
    ) -> None:
        self.processes = [PacketProcessHandle(number, start_of, self._take) for number in range(processes)]
        self._on_batch = on_batch
        self._ended: list[dict[str, Any]] = [{} for _ in range(processes)]  # sums of those that ended
        self._last: list[dict[str, Any]] = [{} for _ in range(processes)]
        self._pids = [0] * processes
        self.canaries: dict[str, int] = {}  # sent, by interface: they are no sign of life of the network
        self._traffic: dict[str, tuple[int, int]] = {}  # packets that were no canaries, and when the last one came

    def tell(self, order: Order, but: int = -1) -> None:
        """Send an order to every packet process except number `but`."""
        for process in self.processes:
            if process.number != but:
                process.tell(order)

    def tell_one(self, number: int, order: Order) -> None:
        """Send an order to one packet process."""
        self.processes[number].tell(order)

    async def ready(self, timeout_s: float) -> bool:
        """Wait until every process captures; False when that takes longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                for process in self.processes:
                    await process.ready.wait()
        except TimeoutError:
            return False
        return True

    def renew(self) -> None:
        """Let every process end, and others begin with what is known now."""
        for process in self.processes:
            process.renew()

    async def stop(self) -> None:
        """Let all tell what is left, and end."""
        for process in self.processes:
            await process.stop()

    async def _take(self, number: int, batch: dict[str, Any]) -> None:
        process = self.processes[number]
        stats = batch.get("stats")
        if isinstance(stats, dict):
            if process.pid != self._pids[number]:  # another one than before
                self._ended[number] = _add(self._ended[number], self._last[number])
                self._pids[number] = process.pid
            self._last[number] = stats
        await self._on_batch(number, batch)

    # -- numbers

    def total(self, name: str) -> int:
        """A count over all processes, those that ended included."""
        return sum(_number(one.get(name)) for one in (*self._last, *self._ended))

    def totals(self, name: str) -> dict[str, int]:
        """Counts by word over all processes, those that ended included."""
        found: dict[str, int] = {}
        for one in (*self._last, *self._ended):
            counts = one.get(name)
            if isinstance(counts, dict):
                for word, count in counts.items():
                    found[word] = found.get(word, 0) + _number(count)
        return found

    def interfaces(self) -> list[dict[str, Any]]:
        """One entry per interface over all processes: name, state, problem, last_us, and counts since we began."""
        found: dict[str, dict[str, Any]] = {}
        for process, stats in zip(self.processes, self._last, strict=True):
            for one in _rows(stats):
                row = found.setdefault(
                    str(one.get("wanted", "")),
                    {"name": str(one.get("name", "")), "state": UP, "last_us": 0, "problem": ""}
                    | dict.fromkeys(_COUNTS, 0),
                )
                state = str(one.get("state", "")) if process.ready.is_set() else RESTARTING
                if state != UP:  # what one process does not see is not seen
                    row["state"] = state
                row["last_us"] = max(row["last_us"], _number(one.get("last_us")))
                row["problem"] = row["problem"] or str(one.get("problem", ""))
        for stats in (*self._last, *self._ended):
            for one in _rows(stats):
                counted = found.get(str(one.get("wanted", "")))
                for count in _COUNTS if counted is not None else ():
                    counted[count] += _number(one.get(count))  # type: ignore[index]
        for row in found.values():
            row["last_us"] = self._last_traffic(row)
        return list(found.values())

    def _last_traffic(self, row: dict[str, Any]) -> int:
        """When the last packet came that was no canary of ours: those come back whatever the network does."""
        name = str(row["name"])
        real = row["packets"] - self.canaries.get(name, 0)
        known, last_us = self._traffic.get(name, (0, 0))
        if real > known:
            last_us = row["last_us"]
        if real != known:
            self._traffic[name] = (real, last_us)
        return last_us

    def time_to_block(self) -> Histogram:
        """How long blocks took from packet to kernel, over all processes."""
        merged = Histogram()
        for one in (*self._last, *self._ended):
            cells = one.get("pushed")
            if isinstance(cells, list) and len(cells) == len(merged.cells):
                merged.merge([max(0, _number(cell)) for cell in cells])
        return merged

    def netlink_ports(self) -> list[int]:
        """The fast lanes' netlink ports: what comes from them is no foreign change."""
        return [port for one in self._last if (port := _number(one.get("netlink_port")))]

    def told(self, name: str) -> list[dict[str, Any]]:
        """What each process says of something now, of those that say it."""
        return [found for one in self._last if isinstance(found := one.get(name), dict)]

    def alive(self) -> int:
        """How many run and say so."""
        return sum(process.ready.is_set() for process in self.processes)

    def rows(self) -> Iterable[dict[str, Any]]:
        """One entry per process, for a screen."""
        for process, stats in zip(self.processes, self._last, strict=True):
            yield {
                "pid": process.pid,
                "packets": _number(stats.get("packets")),
                "drops": sum(_number(one.get("kernel_drops")) for one in _rows(stats)),
                "restarts": max(0, process.restarts),
                "compiled": stats.get("compiled") is True,
                "realtime": stats.get("realtime") is True,
                "clients": _number(stats.get("clients")),
                "machines": _number(stats.get("machines")),
                "rss_bytes": resident_bytes(process.pid),
            }


def start_order(
    config: Config,
    number: int,
    interfaces: tuple[str, ...],
    group: int,
    processors: tuple[int, ...],
    first_number: int,
    offset_us: int,
    **more: Any,
) -> Start:
    """The Start of packet process `number`. Its decisions are numbered in a class of its own: people's are 0 modulo the
    number of processes plus one."""
    capture = config.capture
    return Start(
        number=number,
        processes=capture.processes,
        fanout_group=group,
        interfaces=interfaces,
        ring_bytes=capture.ring_mib * MIB,
        promiscuous=capture.packets == "all",
        tunnels=capture.tunnels == "read",
        realtime=capture.scheduling == "realtime",
        processors=processors,
        offset_us=offset_us,
        conversations=config.limits.conversations,
        first_number=first_number,
        stride=capture.processes + 1,
        provisional_s=config.enforce.provisional_s,
        **more,
    )


def reserve_processors(config: Config) -> tuple[int, ...]:
    """Keep this process and what it starts off the processors that packet processes get, where there are enough;
    returns those. A kernel without preemption interrupts no system call: on one processor the core's reading of large
    tables holds up a block by up to 10 ms, whatever the priority (measured: 75 of 100 first connections stopped on two
    shared processors, 100 of 100 on one each)."""
    usable = sorted(os.sched_getaffinity(0))
    count = min(config.capture.processes, len(usable) - 1)
    if config.capture.scheduling != "realtime" or count < 1:
        return ()
    reserved = tuple(usable[-count:])
    try:
        os.sched_setaffinity(0, set(usable) - set(reserved))
    except OSError:
        return ()
    return reserved


def resident_bytes(pid: int) -> int:
    """The memory that a process holds now, 0 when that cannot be known (proc(5), statm)."""
    try:
        with open(f"/proc/{pid or 'self'}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _rows(stats: dict[str, Any]) -> list[dict[str, Any]]:
    rows = stats.get("interfaces")
    return [one for one in rows if isinstance(one, dict)] if isinstance(rows, list) else []


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _add(before: dict[str, Any], ended: dict[str, Any]) -> dict[str, Any]:
    """Sums of two processes' numbers; of interfaces only the counts go on."""
    merged: dict[str, Any] = dict(before)
    for name, value in ended.items():
        earlier = before.get(name)
        if name == "interfaces":
            known = {str(one.get("wanted")): one for one in _rows(before)}
            for one in _rows(ended):
                wanted = str(one.get("wanted"))
                counts = {
                    count: _number(one.get(count)) + _number(known.get(wanted, {}).get(count)) for count in _COUNTS
                }
                known[wanted] = {"wanted": wanted} | counts
            merged[name] = list(known.values())
        elif name == "pushed":
            cells = value if isinstance(value, list) else []
            if isinstance(earlier, list) and len(earlier) == len(cells):
                cells = [_number(one) + _number(other) for one, other in zip(earlier, cells, strict=True)]
            merged[name] = cells or earlier
        elif isinstance(value, dict):
            known = earlier if isinstance(earlier, dict) else {}
            merged[name] = {
                word: _number(value.get(word)) + _number(known.get(word)) for word in value.keys() | known.keys()
            }
        elif name not in ("pid", "clients", "machines", "netlink_port", "compiled", "realtime"):
            merged[name] = _number(earlier) + _number(value)
    return merged
