"""Runs captures through the very pipeline that live traffic takes: dissector, then engine, on packet time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from egressd.capture.merge import FileResult, Replay
from egressd.detect.behaviour.carrying import Carrying
from egressd.detect.behaviour.volume import ALERT_SCORE, Volume, VolumeSettings
from egressd.detect.engine import Engine, Intel
from egressd.detect.evidence import Evidence
from egressd.detect.policy import PolicySettings
from egressd.model import Event, Observation
from egressd.wire.dissector import Dissector

# Packets make objects by the hundred thousand and next to no cycles: at Python's own thresholds the collector takes a
# fifth of the time on a capture full of names (a third when compiled), walking lists and tables that do not change.
# This many are a tenth of a second's work for it, and seldom come together: what tables forget is freed without it.
_ALLOCATIONS_PER_COLLECTION: Final = 1_000_000


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Leave what was loaded out of the garbage collector's rounds, and make these rarer."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION, before[1], before[2])
    try:
        yield
    finally:
        # All that is held joins the oldest generation unsearched: else the first collection would walk all of it, and
        # a command is over then.
        gc.freeze()
        gc.unfreeze()
        gc.set_threshold(*before)


class ReplayRun:
    """One replay. `on_event` and `on_observation` are called in packet order, with the index of the file concerned.

    After `run`: `files` has a result for each path; `engine`, `dissector` and `volume` hold the counts.
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
    ) -> None:
        self._on_event = on_event
        self._on_observation = on_observation
        self.engine = Engine(intel, settings, self._event, history=history)
        observe = self._observe if on_observation is not None else self.engine.observe
        self.dissector = Dissector(observe, conversations)
        self.volume = Volume(volume)
        self.dissector.tcp.on_volume = Carrying(self.engine.resolutions, self.volume, self._evidence).carried
        self._replay = Replay(paths, self.dissector, prefilter=prefilter, progress=progress)

    @property
    def files(self) -> list[FileResult]:
        """What reading each file came to, in the order given."""
        return self._replay.files

    def run(self) -> None:
        """Read everything, then close what is open. Raises CaptureError when a file cannot be opened."""
        with _rare_collections():
            self._replay.run()
            self.dissector.flush()
            self.engine.finish()

    def _evidence(self, evidence: Evidence) -> None:
        if evidence.score >= ALERT_SCORE:
            self.engine.suspect(evidence)

    def _event(self, event: Event) -> None:
        self._on_event(event, self._replay.current_file)

    def _observe(self, seen: Observation) -> None:
        if self._on_observation is not None:
            self._on_observation(seen, self._replay.current_file)
        self.engine.observe(seen)
