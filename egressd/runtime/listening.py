"""The logs of other sensors in the daemon: the process that reads them, where what it tells goes, and how each sensor
stands."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from egressd.config.sensor_options import SensorOptions
from egressd.errors import Malformed
from egressd.notify.eve import render_sensor, render_time
from egressd.runtime.bulk_rows import HistoryRow, unpack_history
from egressd.runtime.history_agreement import HistoryAgreement
from egressd.runtime.messages import Values
from egressd.runtime.observed import Whose, unpack_observation
from egressd.runtime.orders import LogSource, LogStart, Observed, Order
from egressd.runtime.processes import PacketProcessHandle
from egressd.units import MINUTE_US, SECOND_US

ALIVE_US: Final = MINUTE_US  # packets as young as this show that the network is alive
TOLD_AT_ONCE: Final = 64  # observations in one order
MARKS_FILE: Final = "sensors.json"

OK: Final = "ok"
STARTING: Final = "starting"
SILENT: Final = "silent"
FAILING: Final = "failing"
ILLEGIBLE: Final = 100  # lines of which none is of the format: the log is another one than was said

log = logging.getLogger("egressd.sensors")

Record = dict[str, Any]


@dataclass
class SensorState:
    """How one sensor stands: counts since the daemon began, times of our clock. `late_us` is how much later its lines
    come than they say, `correction_us` what is added to them for that, `clock_ahead_us` by how much its clock is ahead
    all the same, as contacts show that our tap saw too."""

    options: SensorOptions
    state: str = STARTING
    reason: str = ""
    lines: int = 0
    malformed: int = 0
    observations: int = 0
    gaps: int = 0
    last_line_us: int = 0
    late_us: int = 0
    correction_us: int = 0
    problem: str = ""
    agreed: int = 0
    clock_ahead_us: int = 0
    legible: int = 0  # lines that are of the format
    last_legible_us: int = 0

    def note_legible(self) -> None:
        """Counts have changed."""
        if self.lines - self.malformed > self.legible:
            self.legible, self.last_legible_us = self.lines - self.malformed, self.last_line_us


class Listening:
    """Owns the log process. `last_packet` says when the last packet was seen; `tell` sends an order to one packet
    process, by number."""

    def __init__(
        self,
        sensors: dict[str, SensorOptions],
        processes: int,
        start: Callable[[tuple[LogSource, ...]], LogStart],
        tell: Callable[[int, Order], None],
        last_packet: Callable[[], int],
        on_event: Callable[[Record], None],
        now_us: Callable[[], int],
    ) -> None:
        self.states = {name: SensorState(one) for name, one in sensors.items() if one.enabled}
        self.history = HistoryAgreement()
        self.whose = Whose(processes)
        self.malformed = 0
        self._processes = processes
        self._start = start
        self._tell = tell
        self._last_packet = last_packet
        self._on_event = on_event
        self._now_us = now_us
        self._began_us = now_us()
        self._before: dict[str, dict[str, int]] = {}  # counts of log processes that ended, by sensor
        self._last: dict[str, dict[str, int]] = {}
        self._pid = 0
        self.process = PacketProcessHandle(
            0, self._orders, self._take, module="egressd.runtime.log_process", called="log process"
        )  # fmt: skip

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to listen to."""
        return bool(self.states)

    async def run(self) -> None:
        """Keep a log process alive until `stop`."""
        await self.process.run()

    async def stop(self) -> None:
        """Let it tell what is left, and end."""
        await self.process.stop()

    def tell(self, order: Order) -> None:
        """Lists, allowances or the clock have changed."""
        self.process.tell(order)

    def seen(self, number: int, rows: list[HistoryRow]) -> None:
        """Packet process `number` told of contacts that matched nothing."""
        if self.states:
            for row in rows:
                self.whose.note(number, row[0])
            self.history.note(rows)

    def agreed(self, told: list[dict[str, Any]]) -> None:
        """What packet processes say of each sensor: by name [contacts that others told of too, clock ahead in us]."""
        for name, state in self.states.items():
            found = [one[name] for one in told if isinstance(one.get(name), list) and len(one[name]) == 2]
            counts = [pair for pair in found if all(isinstance(value, int) for value in pair)]
            state.agreed = sum(pair[0] for pair in counts)
            state.clock_ahead_us = max(counts, key=lambda pair: pair[0])[1] if counts else 0

    # -- from the log process

    def _orders(self, number: int) -> tuple[Order, list[Order]]:
        sources = tuple(
            LogSource(name, state.options.path, state.options.format, state.options.clock == "estimate")
            for name, state in self.states.items()
        )
        return self._start(sources), []

    async def _take(self, number: int, batch: Record) -> None:
        observed = batch.get("observed")
        if observed is not None:
            self._forward(observed)
        history = batch.get("history")
        if history is not None:
            values = Values(history)
            for _ in range(len(values)):
                one = Values(values.next())
                sensor = one.sensor()
                for row in unpack_history([one.next()]):
                    self.history.put(sensor, row, self._now_us())
        stats = batch.get("stats")
        if isinstance(stats, dict):
            self._note(stats)

    def _forward(self, packed: object) -> None:
        """To the packet process that sees the client's packets; where that is not known to one of them, and all others
        keep it in mind."""
        values = Values(packed)
        told: dict[tuple[int, bool], list[Any]] = {}
        for _ in range(len(values)):
            one = values.next()
            seen = unpack_observation(one)
            if seen.sensor not in self.states:
                raise Malformed("an observation of an unknown sensor")
            number, sure = self.whose.of(seen.flow.client)
            told.setdefault((number, True), []).append(one)
            for other in range(self._processes) if not sure else ():
                if other != number:
                    told.setdefault((other, False), []).append(one)
        for (number, counts), rows in told.items():
            for at in range(0, len(rows), TOLD_AT_ONCE):
                self._tell(number, Observed(tuple(rows[at : at + TOLD_AT_ONCE]), counts))

    def _note(self, stats: Record) -> None:
        pid = self.process.pid
        if pid != self._pid:  # another one than before
            for name, counts in self._last.items():
                before = self._before.setdefault(name, {})
                for word, count in counts.items():
                    before[word] = before.get(word, 0) + count
            self._last = {}
            self._pid = pid
        sensors = stats.get("sensors")
        for name, state in self.states.items() if isinstance(sensors, dict) else ():
            told = sensors.get(name)  # type: ignore[union-attr]
            if not isinstance(told, dict):
                continue
            counts = {word: _number(told.get(word)) for word in ("lines", "malformed", "observations", "gaps")}
            self._last[name] = counts
            before = self._before.get(name, {})
            state.lines, state.malformed, state.observations, state.gaps = (
                counts[word] + before.get(word, 0) for word in ("lines", "malformed", "observations", "gaps")
            )
            state.last_line_us = max(state.last_line_us, _number(told.get("last_line_us")))
            state.note_legible()
            state.late_us, state.correction_us = _number(told.get("late_us")), _number(told.get("correction_us"))
            state.problem = str(told.get("problem", ""))[:200]

    # -- how they stand

    def tick(self) -> list[HistoryRow]:
        """Once a second: alarms, each once and again when it is over; history that has waited."""
        now_us = self._now_us()
        for name, state in self.states.items():
            found, reason = self._judge(state, now_us)
            if (found, reason) == (state.state, state.reason):
                continue
            news = found != state.state
            first = state.state == STARTING
            state.state, state.reason = found, reason
            if not news or (first and found == OK):
                continue
            if found == OK:
                log.warning("sensor %s: %s", name, "lines come again" if state.lines else "its log can be read again")
            elif found != STARTING:
                log.error("sensor %s is %s: %s", name, found, reason)
            self._on_event(
                render_sensor(now_us, {"sensor": name, "state": found, "reason": reason, "lines": state.lines})
            )
        return self.history.take(now_us)

    def _judge(self, state: SensorState, now_us: int) -> tuple[str, str]:
        if state.problem:
            return FAILING, state.problem
        if not self._pid:
            return STARTING, ""
        if state.lines >= ILLEGIBLE and not state.legible:
            return FAILING, f"none of its lines is of the format {state.options.format}"
        silence_us = state.options.silence_s * SECOND_US
        quiet_us = now_us - max(state.last_legible_us, self._began_us)
        if silence_us and quiet_us > silence_us:
            if state.state == SILENT or now_us - self._last_packet() < ALIVE_US:
                what = "line" if state.last_legible_us == state.last_line_us else f"line of {state.options.format}"
                return SILENT, f"no {what} for {state.options.silence_s} s while packets are seen"
        return OK, ""

    def warnings(self) -> list[str]:
        """What somebody should know."""
        return [
            f"SENSOR {name} {state.state}: {state.reason}"
            for name, state in self.states.items()
            if state.state in (SILENT, FAILING)
        ]

    def screen(self) -> list[Record]:
        """One entry for each sensor."""
        return [
            {
                "name": name,
                "format": state.options.format,
                "path": state.options.path,
                "state": state.state,
                "reason": state.reason,
                "lines": state.lines,
                "malformed": state.malformed,
                "observations": state.observations,
                "gaps": state.gaps,
                "agreed": state.agreed,
                "last_line": render_time(state.last_line_us) if state.last_line_us else None,
                "late_s": round(state.late_us / SECOND_US, 3),
                "corrected_by_s": round(state.correction_us / SECOND_US, 3),
                "clock_ahead_s": round(state.clock_ahead_us / SECOND_US, 3),
            }
            for name, state in self.states.items()
        ]


def marks_path(directory: Path) -> Path:
    """Where it is kept how far logs were read."""
    return directory / MARKS_FILE


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62 else 0
