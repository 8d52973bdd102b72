"""The log process: follows the logs of other sensors, reads them, and tells the core what matches and what is history.

It has an interpreter of its own, behind everybody else, so that thousands of lines a second delay neither the core nor
packets. It never waits for a line and never drops one: what comes faster than can be told stays in the logs until it is
read. The core starts it with a socket as its only argument, as a packet process.
"""

from __future__ import annotations

import json
import os
import select
import sys
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any, Final

from egressd.capture.dnstap_socket import DnstapSocket
from egressd.capture.logfollow import FollowedLog, Mark
from egressd.clock import SteadyClock
from egressd.detect.gathering import GATHER_US
from egressd.detect.sieving import Sieving
from egressd.errors import Malformed
from egressd.logs.formats import DNSTAP, FRAMED, PARSERS
from egressd.logs.offset import ClockOffset
from egressd.logs.parser import LogParser
from egressd.model import Observation
from egressd.runtime import orders
from egressd.runtime.inbox import Inbox, inbox_of_process
from egressd.runtime.messages import render_batch
from egressd.runtime.observed import pack_observation

POLL_US: Final = 250_000
STATS_US: Final = 1_000_000
LOOK_US: Final = 5_000_000  # how often it is looked for new files that fit a pattern
MAX_FILES: Final = 64  # of one sensor
# What matches is judged in a packet process, at some 50 us each: this many take a twentieth of its time.
OBSERVED_PER_S: Final = 1_000
OBSERVED_AT_ONCE: Final = 200  # in one batch; one with a long URL has five kilobytes
MAX_ROWS: Final = 2_000  # of history in one batch
_MAGIC: Final = frozenset("*?[")


class Source:
    """One sensor: its files or its socket, and what was counted. Times are those of our clock."""

    def __init__(self, told: orders.LogSource, marks: dict[str, list[Mark]] | None) -> None:
        """`marks` are those of an earlier run by path, None when there was none."""
        self.told = told
        self.lines = self.malformed = self.observations = 0
        self.last_line_us = 0
        self.offset = ClockOffset(told.estimate)
        self.socket = DnstapSocket(told.path) if told.format == DNSTAP else None
        self._marks = marks or {}
        self._first = marks is None
        self._logs: dict[str, FollowedLog] = {}
        self._parsers: dict[str, LogParser] = {}
        self._files: dict[str, int] = {}  # the inode whose header the parser has read
        self._due_us = 0

    def poll(self, now_us: int) -> list[Observation]:
        """What was written since."""
        if self.socket is not None:
            return self._read(self._parser(""), self.socket.poll(), now_us, True)
        if now_us >= self._due_us:
            self._look(now_us)
        found: list[Observation] = []
        for path, log in self._logs.items():
            lines = log.poll(now_us)
            if lines:
                parser = self._parser(path)
                self._begin(path, log, parser, now_us)
                found += self._read(parser, lines, now_us, log.caught_up)
        return found

    def clock_was_set(self) -> None:
        """New files are looked for at once."""
        self._due_us = 0

    @property
    def is_behind(self) -> bool:
        """Whether there is more to read at once."""
        return any(log.is_behind for log in self._logs.values())

    def filenos(self) -> list[int]:
        """What to wait for."""
        return self.socket.filenos() if self.socket is not None else []

    def marks(self) -> dict[str, list[Mark]]:
        """How far each file was read."""
        return {path: log.marks() for path, log in self._logs.items()}

    def stats(self) -> dict[str, Any]:
        """For the core: counts since this process began, and how it is now."""
        logs = self._logs.values()
        problem = self.socket.problem if self.socket is not None else self._problem()
        return {
            "lines": self.lines,
            "malformed": self.malformed + sum(log.too_long for log in logs),
            "observations": self.observations,
            "gaps": sum(log.gaps for log in logs),
            "last_line_us": self.last_line_us,
            "late_us": self.offset.late_us,
            "correction_us": self.offset.correction_us,
            "problem": problem[:200],
        }

    def close(self) -> None:
        """Let everything go."""
        for log in self._logs.values():
            log.close()
        if self.socket is not None:
            self.socket.close()

    def _problem(self) -> str:
        if not self._logs:
            return "no file fits the pattern"
        troubled = [(path, log.problem) for path, log in self._logs.items() if log.problem]
        return f"{troubled[0][0]}: {troubled[0][1]}" if troubled else ""

    def _look(self, now_us: int) -> None:
        """Files that fit: of those that come later, all is new."""
        self._due_us = now_us + LOOK_US
        path = self.told.path
        paths = [path]
        if _MAGIC & set(path):
            paths = sorted(glob(path))[:MAX_FILES]  # noqa: PTH207  (Path.glob takes no absolute pattern)
        for one in paths:
            if one not in self._logs and len(self._logs) < MAX_FILES:
                marks = self._marks.pop(one, [])
                frames = self.told.format in FRAMED
                self._logs[one] = FollowedLog(one, marks, frames=frames, new=not self._first and not marks)
        self._first = False

    def _parser(self, path: str) -> LogParser:
        parser = self._parsers.get(path)
        if parser is None:
            parser = self._parsers[path] = PARSERS[self.told.format](self.told.name)
        return parser

    def _begin(self, path: str, log: FollowedLog, parser: LogParser, now_us: int) -> None:
        """Where reading goes on in the middle of a file, its first lines say how to read all others."""
        inode = log.inode
        if parser.has_header and self._files.get(path) != inode:
            self._files[path] = inode
            for line in log.header():
                with suppress(Malformed):
                    parser.parse(line, now_us)

    def _read(self, parser: LogParser, lines: list[bytes], now_us: int, live: bool) -> list[Observation]:
        found: list[Observation] = []
        for line in lines:
            self.lines += 1
            try:
                told = parser.parse(line, now_us)
            except Malformed:
                self.malformed += 1
                continue
            if live and parser.written_us:
                self.offset.note(parser.written_us, now_us)
            for seen in told:
                # Nothing was seen later than now, whatever a log says: what lists end by then would end at once.
                seen.ts_us = min(max(0, seen.ts_us + self.offset.correction_us), now_us)
                found.append(seen)
        if lines:
            self.last_line_us = now_us
        self.observations += len(found)
        return found


class LogProcess:
    """Everything that the log process holds."""

    def __init__(self, inbox: Inbox, start: orders.LogStart) -> None:
        self.running = True
        self._inbox = inbox
        self._control = inbox.control
        self._clock = SteadyClock(start.offset_us)
        self._state = Path(start.state)
        known = load_marks(self._state)
        self.sources = [Source(one, known.get(one.name)) for one in start.sources]
        intel = start.intel
        self.sieving = Sieving(intel.index, intel.allowances, intel.suffixes)
        self._number = 0
        self._stats_due_us = 0
        self._swapped_us = 0
        self._second_us = 0
        self._told = 0  # in this second
        self._saved: dict[str, Any] = {}

    def run(self) -> None:
        """Until told to stop, or the core is gone."""
        behind = False
        while self.running:
            waiting = [self._control.fileno(), *(fd for one in self.sources for fd in one.filenos())]
            timeout_s = 0.0 if behind else POLL_US / 1e6
            ready, _, _ = select.select(waiting, [], [], timeout_s)
            if self._control.fileno() in ready:
                self.take_orders()
            behind = self.turn(self._clock.now_us())

    def turn(self, now_us: int) -> bool:
        """Read what is there and tell it; whether there is more to be read at once."""
        if not 0 <= now_us - self._second_us < 1_000_000:
            self._second_us = now_us
            self._told = 0
        observed: list[Any] = []
        behind = False
        if self._told < OBSERVED_PER_S:
            for source in self.sources:
                for seen in source.poll(now_us):
                    observed += map(pack_observation, self.sieving.sift(seen))
                behind = behind or source.is_behind
        self._told += len(observed)
        for at in range(0, len(observed) - OBSERVED_AT_ONCE, OBSERVED_AT_ONCE):
            self._tell(now_us, {"observed": observed[at : at + OBSERVED_AT_ONCE]})
        last = (len(observed) - 1) // OBSERVED_AT_ONCE * OBSERVED_AT_ONCE
        self._send(now_us, observed[last:] if observed else [])
        return behind

    def finish(self) -> None:
        """Tell what is left, and remember how far everything was read."""
        self._send(self._clock.now_us(), [], everything=True)
        for source in self.sources:
            source.close()

    def _send(self, now_us: int, observed: list[Any], everything: bool = False) -> None:
        batch: dict[str, Any] = {}
        if observed:
            batch["observed"] = observed
        # As of the tap, what was read before a change must be on disk when the core searches there.
        rows = self._history(now_us + GATHER_US if everything else max(now_us - GATHER_US, self._swapped_us))
        if rows:
            batch["history"] = rows
        if now_us >= self._stats_due_us or everything:
            self._stats_due_us = now_us + STATS_US
            batch["stats"] = {
                "pid": os.getpid(),
                "unasked": self.sieving.hearing.unasked_answers,
                "sensors": {one.told.name: one.stats() for one in self.sources},
            }
        if batch:
            self._tell(now_us, batch)
            self._save()

    def _tell(self, now_us: int, batch: dict[str, Any]) -> None:
        """Waits for the core to read, which is right: what was not read yet lies in the logs."""
        self._number += 1
        with suppress(OSError):  # the core has gone: then its end of the socket says so too
            self._control.sendall(render_batch({"n": self._number, "t": now_us, **batch}))

    def _history(self, begun_before_us: int) -> list[Any]:
        rows: list[Any] = []
        for sensor, history in self.sieving.history.items():
            for (client, name, address), row in history.take(MAX_ROWS - len(rows), begun_before_us):
                domain = self.sieving.resolutions.domain_of(name) if name else ""
                told = [client.hex(), domain, name, address.hex(), row.first_us, row.last_us, row.count]
                rows.append([sensor, told])
        return rows

    def _save(self) -> None:
        """Behind what was told, so that an end in between reads lines twice rather than never."""
        found = {one.told.name: one.marks() for one in self.sources if one.socket is None}
        if found != self._saved and save_marks(self._state, found):
            self._saved = found

    def take_orders(self) -> None:
        """Do what the core has said by now."""
        for order in self._inbox.orders():
            self.obey(order)
            if not self.running:
                return
        self.running = self._inbox.is_open

    def obey(self, order: orders.Order) -> None:
        """Do what the core says."""
        match order:
            case orders.Swap():
                self.sieving.swap(order.intel.index, order.intel.allowances, order.intel.suffixes)
                self._swapped_us = self._clock.now_us()
            case orders.Step():
                self._clock.offset_us = order.offset_us
                self._swapped_us = 0
                self._stats_due_us = 0  # by the clock of before it would be told of when it is that late again
                for source in self.sources:
                    source.clock_was_set()
            case orders.Stop():
                self.running = False
            case _:
                pass  # what concerns packets


def load_marks(path: Path) -> dict[str, dict[str, list[Mark]]]:
    """How far everything was read, by sensor and path; nothing when that is not known."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(sensor): {
                str(log): [Mark(int(one[0]), int(one[1]), int(one[2]), str(one[3])) for one in marks]
                for log, marks in logs.items()
            }
            for sensor, logs in told.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, IndexError):
        return {}


def save_marks(path: Path, marks: dict[str, dict[str, list[Mark]]]) -> bool:
    """Keep them; False when that cannot be done now."""
    scratch = path.with_suffix(".new")
    try:
        scratch.write_text(json.dumps(marks), encoding="utf-8")
        scratch.replace(path)
    except OSError:
        return False
    return True


def main(argv: list[str]) -> int:
    """`log_process FD`: the socket to the core, on which the first frame is the LogStart."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    inbox = inbox_of_process(int(argv[0]))
    start = inbox.first()
    if start is None:
        return 1
    process = LogProcess(inbox, start)
    process.take_orders()
    process.run()
    process.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
