"""Runs captures, and logs of other sensors, through the very pipeline that live traffic takes, on packet time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from egressd.capture.merge import FileResult, iter_packets
from egressd.detect.behaviour.carrying import Carrying
from egressd.detect.behaviour.volume import ALERT_SCORE, Volume, VolumeSettings
from egressd.detect.engine import Engine
from egressd.detect.evidence import Evidence
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.model import Event, FlowKey, Observation
from egressd.runtime.reading import OneProcess, Reading, rare_collections
from egressd.units import HOUR_US
from egressd.wire.meter import TELL_BYTES

if TYPE_CHECKING:  # what reads logs takes 6 ms to import, and few replays have any
    from egressd.capture.logfile import LogResult

_AFTER_ALL_US: Final = 1 << 62


class LogGiven(NamedTuple):
    """A log of another sensor: its format, which stands for the sensor too, and where it is."""

    format: str
    path: str


class ReplayRun:
    """One replay. `on_event` and `on_observation` are called in packet order, with the index of the file concerned;
    observations are those of captures.

    After `run`: `files` and `logs` have a result for each; `engine`, `counts` and `volume` have the counts. `jobs` is
    how many processes may read captures, 0 for one a processor; what comes of it is the same (see `processes_for`).
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        intel: Intel,
        settings: PolicySettings,
        *,
        on_event: Callable[[Event, int], None],
        on_observation: Callable[[Observation, int], None] | None = None,
        conversations: int,
        history: int,
        volume: VolumeSettings,
        prefilter: bool = True,
        progress: Callable[[int, int], None] | None = None,
        logs: Sequence[LogGiven] = (),
        jobs: int = 1,
    ) -> None:
        self._on_event = on_event
        self._on_observation = on_observation
        self._paths = [str(path) for path in paths]
        self._given = logs
        self.logs: list[LogResult] = []
        self._heard: Iterator[Observation] = iter(())
        self._next: Observation | None = None  # of the logs, the next one
        self.engine = Engine(intel, settings, self._event, history=history, sensors=bool(logs))
        observe = self.engine.observe
        if on_observation is not None or logs:
            observe = self._observe
        self.volume = Volume(volume)
        self._carrying = Carrying(self.engine.resolutions, self.volume, self._evidence, TELL_BYTES)
        self._carried_us = 0  # the last time of what was carried
        carried = self._carried
        self._reading: Reading = OneProcess(paths, observe, carried, conversations, prefilter, progress)
        if jobs != 1:
            from egressd.runtime.parallel_replay import SeveralProcesses, processes_for

            processes = processes_for(paths, jobs)
            if processes > 1:
                self._reading = SeveralProcesses(paths, observe, carried, conversations, prefilter, progress, processes)
        self.engine.sender_of = self._reading.sender
        self.engine.measures_volume = True

    @property
    def files(self) -> list[FileResult]:
        """What reading each file came to, in the order given."""
        return self._reading.files

    def counts(self) -> dict[str, int]:
        """What was left out on the way from packets to observations, by reason; zero counts are left out."""
        return self._reading.counts()

    def run(self) -> None:
        """Read everything, then close what is open. Raises CaptureError when a file cannot be opened."""
        self._open_logs()
        with rare_collections():
            self._reading.run()
            self._hear(_AFTER_ALL_US)
            self.engine.finish()

    def _carried(self, flow: FlowKey, ts_us: int, out_bytes: int, in_bytes: int) -> None:
        """What a connection carried before a pause of the capture may be told hours later: no clock was set back."""
        if not self.engine.policy.site.comes_in(flow):
            counts_us = 0
            if ts_us > self._carried_us:
                self._carried_us = ts_us
            elif ts_us < self._carried_us - HOUR_US:
                counts_us = self._carried_us
            self._carrying.carried(flow, ts_us, out_bytes, in_bytes, counts_us)

    def _evidence(self, evidence: Evidence) -> None:
        if evidence.score >= ALERT_SCORE:
            self.engine.suspect(evidence)

    def _open_logs(self) -> None:
        """Logs as one stream in order of time. What leaves its year out is of about the first capture's time."""
        if not self._given:
            return
        from egressd.capture.logfile import LogFile

        now_us = _first_time(self._paths[0]) if self._paths else 0
        logs = [LogFile(one.path, one.format, one.format, now_us) for one in self._given]
        self.logs = [one.result for one in logs]
        self._heard = heapq.merge(*(one.observations() for one in logs), key=lambda seen: seen.ts_us)
        self._next = next(self._heard, None)

    def _hear(self, until_us: int) -> None:
        """What logs tell of until a time."""
        while self._next is not None and self._next.ts_us <= until_us:
            self.engine.observe(self._next)
            self._next = next(self._heard, None)

    def _event(self, event: Event) -> None:
        self._on_event(event, self._reading.current_file)

    def _observe(self, seen: Observation) -> None:
        if self._next is not None:
            self._hear(seen.ts_us)
        if self._on_observation is not None:
            self._on_observation(seen, self._reading.current_file)
        self.engine.observe(seen)


def _first_time(path: str) -> int:
    """When the first packet of a capture was seen, 0 when that cannot be told beforehand."""
    if not Path(path).is_file():
        return 0  # a pipe can be read only once
    return next((packet[0] for packet in iter_packets(path)), 0)
