"""A packet process: ring, gate, dissector, engine, and the fast lane into the kernel; one blocking loop, nothing else.

It shares its interpreter with nothing: with other work in it nine of ten blocks come within 3 ms instead of 0.3.
The core starts it with a socket as its only argument and tells it everything by orders.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

from egressd.capture.afpacket import LiveSource, wait
from egressd.capture.livefilter import FilterSettings
from egressd.capture.ring import CLIENT, CaptureSettings
from egressd.capture.ring import FLOW as FLOW_SHARE
from egressd.clock import SteadyClock
from egressd.detect.gathering import GATHER_US
from egressd.detect.hearing import keep_in_mind
from egressd.detect.live import LiveEngine
from egressd.enforce.adapter import AdapterError
from egressd.enforce.fastlane import FastLane
from egressd.errors import IndexDamaged
from egressd.model import Decision, Event, Target
from egressd.runtime import orders
from egressd.runtime.canary_names import canary_address
from egressd.runtime.heap import keep_large_apart
from egressd.runtime.inbox import Inbox, inbox_of_process
from egressd.runtime.observed import unpack_observation
from egressd.runtime.reporting import Reporter
from egressd.runtime.young import YoungObjects
from egressd.wire import quic
from egressd.wire.dissector import Dissector

HEARD_PER_TURN: Final = 8  # words of other sensors, then packets: half a millisecond in pure Python
PACKETS_PER_TURN: Final = 64  # of one interface, then the others and orders have their turn: 2 ms in pure Python
# History and passive DNS are told this often and so much at a time: half a millisecond of work, during which no packet
# is read. That makes 2,000 rows a second; what is more is left out and counted.
BULK_US: Final = 50_000
MAX_BULK_ROWS: Final = 100
MAX_WAIT_MS: Final = 250
MAX_FAULTS_TOLD: Final = 10
REALTIME_PRIORITY: Final = 10
NO_INDEX: Final = 3  # exit code: the built index that an order names is not there


class PacketProcess:
    """Everything that one packet process holds."""

    def __init__(self, inbox: Inbox, start: orders.Start) -> None:
        self._inbox = inbox
        self.control = inbox.control
        self.running = True
        self._start = start
        self._clock = SteadyClock(start.offset_us)
        self._report = Reporter(self.control)
        self._refused = 0  # pushes that the fast lane refused or the kernel did not take
        self._bulk_due_us = 0
        self._swapped_us = 0
        self._engine = LiveEngine(
            start.intel,
            start.settings,
            self._event,
            enforced=start.enforced,
            first_number=start.first_number,
            stride=start.stride,
            sensors=start.sensors,
        )
        self._heard: deque[tuple[list[Any], bool]] = deque()  # of other sensors, not judged yet, and whether it counts
        self._engine.on_answered = self._report.answered
        self._engine.canary = self._canary
        self._dissector = Dissector(self._engine.observe, start.conversations)
        self._engine.packets = self._dissector
        self._engine.knows_ways = not start.promiscuous
        self._engine.sender_of = self._dissector.sender
        self._lane: FastLane | None = None
        self._set_lane(start.fast_lane)
        settings = CaptureSettings(
            ring_bytes=start.ring_bytes,
            promiscuous=start.promiscuous,
            fanout_group=start.fanout_group if start.processes > 1 else 0,
            fanout_by=FLOW_SHARE if start.promiscuous else CLIENT,
            filter=FilterSettings(tunnels=start.tunnels),
        )
        self._sources = [LiveSource(name, settings) for name in start.interfaces]
        self.faults = 0  # packets that met a bug of ours, each kept out of the way
        if start.processors:
            with suppress(OSError):
                os.sched_setaffinity(0, start.processors)
        self.realtime = start.realtime and _become_realtime()

    # -- the loop

    def run(self) -> None:
        """Until told to stop, or the core is gone."""
        quic.prepare()
        young = YoungObjects()
        while self.running:
            timeout_ms = min(MAX_WAIT_MS, self._report.wait_ms(self._clock.now_us()))
            if self._engine.is_busy or self._heard:
                timeout_ms = 0
            ready = wait(self._sources, (self.control.fileno(),), timeout_ms)
            for source in self._sources:
                self._read(source)
            young.look(self._dissector.packets)
            if ready:
                self.take_orders()
                young.keep()
            self._engine.carry_on(1)
            if self._heard:
                self._hear()
            now_us = self._clock.now_us()
            if self._report.due(now_us) or now_us >= self._bulk_due_us:
                self._tell(now_us)

    def _read(self, source: LiveSource) -> None:
        """The one guard around packets: a bug that some packet finds in us must not blind us to all others."""
        try:
            source.read(self._dissector, PACKETS_PER_TURN)
        except Exception as error:  # noqa: BLE001
            self.faults += 1
            if self.faults <= MAX_FAULTS_TOLD:
                sys.stderr.write(f"<3>egressd: a packet met a fault of ours: {error!a:.200}\n")

    def _hear(self) -> None:
        """Judge some of what other sensors told of, then packets have their turn. Guarded as packets are."""
        self._engine.arrived_us = self._clock.now_us()
        for _ in range(min(HEARD_PER_TURN, len(self._heard))):
            packed, counts = self._heard.popleft()
            try:
                seen = unpack_observation(packed)
                if counts:
                    self._engine.observe(seen)
                else:
                    keep_in_mind(self._engine, seen)
            except Exception as error:  # noqa: BLE001
                self.faults += 1
                if self.faults <= MAX_FAULTS_TOLD:
                    sys.stderr.write(f"<3>egressd: another sensor's word met a fault of ours: {error!a:.200}\n")
        self._engine.arrived_us = 0

    def finish(self) -> None:
        """Tell what is left."""
        while self._heard:
            self._hear()
        self._dissector.flush()
        now_us = self._clock.now_us()
        self._report.send(now_us, self._stats(), {})
        bulk: dict[str, Any] = {"history": []}
        while (bulk or len(self._report.tally)) and not self._report.is_stuck:
            self._bulk_due_us = 0
            bulk = self._bulk(now_us + GATHER_US + BULK_US)
            self._report.send(now_us, None, bulk)
        self._report.finish()
        for source in self._sources:
            source.close()

    # -- events

    def _event(self, event: Event) -> None:
        if (
            isinstance(event, Decision)
            and self._lane is not None
            and event.action in ("block", "extend")
            and event.mode == "enforce"
        ):
            block = self._engine.blocks.by_id.get(event.id)
            for target in event.targets if block is not None and block.enforced else ():
                if target.kind in ("address", "pair"):
                    self._push(self._lane, target, event.id, event.ts_us)
        self._report.event(event)

    def _push(self, lane: FastLane, target: Target, decision_id: str, ts_us: int) -> None:
        try:
            lane.push(target, decision_id)
        except AdapterError:
            self._refused += 1  # the reconciler tries again, and says why
            return
        self._report.pushed.observe(time.time_ns() / 1e9 - ts_us / 1e6)  # the kernel stamps packets by the wall clock

    def _canary(self, name: str, ts_us: int) -> None:
        pushed_us = -1
        if self._lane is not None:
            try:
                self._lane.canary(canary_address(name))
                pushed_us = self._clock.now_us()
            except AdapterError:
                self._refused += 1
        self._report.canary(name, ts_us, pushed_us)

    def _tell(self, now_us: int) -> None:
        self._engine.tick(now_us)
        stats = self._stats() if self._report.wants_stats(now_us) else None
        bulk = self._bulk(now_us)
        spoken = self._engine.take_spoken(MAX_BULK_ROWS)
        if spoken:  # with each batch: whose an incident is must be known when it opens
            bulk["spoken"] = [[mac.hex(), client.hex(), near, ts_us] for mac, client, near, ts_us in spoken]
        self._report.send(now_us, stats, bulk)

    def _stats(self) -> dict[str, Any]:
        engine = self._engine
        interfaces = [
            {
                "wanted": source.wanted,
                "name": source.name,
                "state": source.state,
                "problem": source.problem,
                "last_us": source.last_us,
                **source.counts(),
            }
            for source in self._sources
        ]
        return {
            "pid": os.getpid(),
            "realtime": self.realtime,
            "compiled": not sys.modules[Dissector.__module__].__file__.endswith(".py"),  # type: ignore[union-attr]
            "interfaces": interfaces,
            "packets": self._dissector.packets,
            "observations": engine.observations,
            "left_out": {
                **self._dissector.counts(),
                **engine.counts(),
                "history_ungathered": engine.gathering.ungathered,
                "devices_untold": engine.spoken_beyond,
            },
            "blind": engine.blind.totals(),
            "clients": len(engine.clients),
            "machines": len(engine.machines),
            "netlink_port": self._lane.port if self._lane is not None else 0,
            "faults": self.faults,
            "pushed": self._report.pushed.cells,
            "push_refused": self._refused,
            "heard": self._agreed(),
            "untold": self._report.untold + self._report.tally.uncounted,
        }

    def _agreed(self) -> dict[str, Any]:
        """By other sensor: contacts that it and others told of, by how much its clock is ahead."""
        agreement = self._engine.agreement
        if agreement is None:
            return {}
        return {name: [count, agreement.difference_us(name)] for name, count in agreement.agreed.items()}

    def _bulk(self, now_us: int) -> dict[str, Any]:
        bulk: dict[str, Any] = {}
        if now_us < self._bulk_due_us:
            return bulk
        self._bulk_due_us = now_us + BULK_US
        rows: list[list[Any]] = []
        begun_before_us = now_us - GATHER_US
        # What was heard of before lists and allowances changed must be on disk when the core searches there, a little
        # later (hunting.SETTLE_S); once the engine has itself looked for what is listed now.
        if not self._engine.is_busy:
            begun_before_us = max(begun_before_us, self._swapped_us)
        for (client, name, address), row in self._engine.gathering.take(MAX_BULK_ROWS, begun_before_us):
            domain = self._engine.resolutions.domain_of(name) if name else ""
            rows.append([client.hex(), domain, name, address.hex(), row.first_us, row.last_us, row.count])
        if rows:
            bulk["history"] = rows
        learned = self._engine.take_learned()
        if learned:
            bulk["tenants"] = [[domain, address.hex(), ts_us] for domain, address, ts_us in learned]
        return bulk

    # -- orders

    def take_orders(self) -> None:
        """Do what the core has said by now."""
        for order in self._inbox.orders():
            self.obey(order)
            if not self.running:
                return
        self.running = self._inbox.is_open  # else the core has gone; blocks stay, and a new core starts new processes

    def obey(self, order: orders.Order) -> None:
        """Do what the core says."""
        engine = self._engine
        now_us = self._clock.now_us()
        match order:
            case orders.Swap():
                engine.swap(order.intel, order.settings, order.enforced, now_us)
                self._swapped_us = now_us
                self._set_lane(order.fast_lane)
            case orders.Protect():
                engine.protect(order.protected, now_us)
                if self._lane is not None:
                    self._lane.set_protected(order.protected)
            case orders.Adopt():
                for standing in order.standing:
                    engine.adopt(standing, now_us)
            case orders.End():
                for decision_id in order.decision_ids:
                    engine.end(decision_id)
            case orders.Rest():
                for decision_id, target in order.targets:
                    engine.rest(decision_id, target)
            case orders.Recall():
                engine.recall(order.rows, now_us)
            case orders.Learn():
                engine.learn(order.tenants)
            case orders.Dropped():
                for ts_us, flow in order.flows:
                    if self._start.processes > 1 and flow.client not in engine.clients:
                        continue
                    engine.dropped(flow, ts_us)
            case orders.Observed():
                self._heard.extend((row, order.counts) for row in order.rows)
            case orders.Step():
                self._clock.offset_us = order.offset_us
                self._report.clock_was_set()
                self._bulk_due_us = self._swapped_us = 0
            case orders.Stop():
                self.running = False

    def _set_lane(self, wanted: bool) -> None:
        if wanted and self._lane is None:
            self._lane = FastLane(self._engine.intel.protected, timeout_s=self._start.provisional_s)
        elif not wanted and self._lane is not None:
            self._lane.close()
            self._lane = None
        if self._lane is not None:
            self._lane.set_protected(self._engine.intel.protected)


def _become_realtime() -> bool:
    """First in line for a processor: by CAP_SYS_NICE, or by the unit's LimitRTPRIO (sched(7))."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
    except OSError:
        return False
    return True


def main(argv: list[str]) -> int:
    """`packet_process FD`: the socket to the core, on which the first frame is the Start."""
    keep_large_apart()
    try:
        return _live(int(argv[0]))
    except IndexDamaged as error:  # it came with an order; without the lists it would watch and see nothing
        sys.stderr.write(f"<3>egressd: {error}; reload the lists, which builds the index anew\n")
        return NO_INDEX


def _live(fd: int) -> int:
    inbox = inbox_of_process(fd)
    start = inbox.first()
    if start is None:
        return 1
    process = PacketProcess(inbox, start)
    process.take_orders()
    process.run()
    process.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
