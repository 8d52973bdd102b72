"""Captures to observations, in this process: what a replay does before anything is judged."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from egressd.capture.merge import FileResult, Replay
from egressd.model import Observation
from egressd.wire.meter import OnVolume
from egressd.wire.sender import Sender
from egressd.wire.shards import Shards

# Packets make objects by the hundred thousand and next to no cycles: at Python's own thresholds the collector takes a
# fifth of the time on a capture full of names (a third when compiled), walking lists and tables that do not change.
# This many are a tenth of a second's work for it, and seldom come together: what tables forget is freed without it.
_ALLOCATIONS_PER_COLLECTION: Final = 1_000_000


class Reading(Protocol):
    """Reads captures. `files` has a result for each path, complete after `run`."""

    @property
    def current_file(self) -> int:
        """The file whose packet is being told of, while `run` lasts."""

    @property
    def files(self) -> list[FileResult]:
        """What reading each file came to, in the order given."""

    def sender(self, client: bytes) -> Sender | None:
        """Who sent the frame that is told of, while `run` lasts: see wire.dissector.Dissector.sender."""

    def run(self) -> None:
        """Read everything, then tell what unfinished messages still tell."""

    def counts(self) -> dict[str, int]:
        """What was left out, by reason; zero counts are left out."""


class OneProcess:
    """A `Reading` in this process. `emit` and `on_volume` are called in packet order."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        emit: Callable[[Observation], None],
        on_volume: OnVolume,
        conversations: int,
        prefilter: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._shards = Shards(emit, conversations, on_volume=on_volume)
        self._replay = Replay(paths, self._shards, prefilter=prefilter, progress=progress)

    @property
    def current_file(self) -> int:
        """See `Reading`."""
        return self._replay.current_file

    @property
    def files(self) -> list[FileResult]:
        """See `Reading`."""
        return self._replay.files

    def sender(self, client: bytes) -> Sender | None:
        """See `Reading`."""
        return self._shards.sender(client)

    def run(self) -> None:
        """See `Reading`. Raises CaptureError, before any packet, when a file cannot be opened or is no capture."""
        self._replay.run()
        self._shards.flush()

    def counts(self) -> dict[str, int]:
        """See `Reading`."""
        return self._shards.counts()


@contextmanager
def rare_collections() -> Iterator[None]:
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
