"""Volume live: once a minute what the kernel counted of each flow, by client and destination, in a thread of its own.

The core's loop must not wait for a table of a hundred thousand flows. All that counts stays in the thread; it takes
small pieces and pauses between them, so that the interpreter is free within a millisecond. The loop hands it names
through a queue, and gets evidence back. Nothing is read while the kernel does not count: that is told, with the command
that turns it on, and never turned on from here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final, Protocol

from egressd.clock import Clock
from egressd.detect.behaviour.carrying import Carrying
from egressd.detect.behaviour.volume import ALERT_SCORE, Carried, Volume, VolumeSettings
from egressd.detect.evidence import Evidence
from egressd.detect.resolutions import Resolutions
from egressd.enforce.accounting import TURN_ON, Accounting, Counted, accounting_is_on
from egressd.enforce.adapter import AdapterError
from egressd.enforce.netlink import Overrun
from egressd.errors import Malformed
from egressd.model import FlowKey
from egressd.names import Suffixes
from egressd.runtime.flow_sums import FlowSums

LOOK_S: Final = 60.0
PAUSE_S: Final = 0.0003  # between two pieces: long enough for another thread to get the interpreter
HEAR_S: Final = 1.0  # after a look, for what ended during it; ends may come without a pause
MAX_TOLD: Final = 500  # alerts of one look; a quantity that is set far too low must not fill the ledger
PIECE: Final = 200  # pairs, or names, at once
MAX_NAMES: Final = 100_000  # that wait to be taken
STOP_S: Final = 5.0

log = logging.getLogger("egressd")

# A name that led somewhere: (client or b"" for everybody, registered domain, address, when).
Naming = tuple[bytes, str, bytes, int]


class Counting(Protocol):
    """What `Accounting` does."""

    malformed: int

    def flows(self) -> Iterable[list[Counted]]:
        """Every flow, in pieces."""

    def ended(self) -> list[Counted]:
        """Flows that ended; waits up to a second for the first."""

    def close(self) -> None:
        """Let go."""


class VolumeWatch:
    """The thread and what the loop may ask of it. `problem` says why nothing is observed, "" when it is."""

    def __init__(
        self,
        settings: VolumeSettings,
        suffixes: Suffixes,
        clock: Clock,
        is_client: Callable[[bytes, bytes], bool],
        on_evidence: Callable[[Evidence], None],
        *,
        counting: Callable[[], Counting] = Accounting,
        is_on: Callable[[], bool | None] = accounting_is_on,
        look_s: float = LOOK_S,
    ) -> None:
        """`on_evidence` is called on the loop that `run` runs on."""
        self.volume = Volume(settings)
        self._is_wanted = settings.judges
        self.problem = "not looked yet"
        self.looks = 0
        self.unobserved = 0  # looks at which nothing could be observed
        self.lost = 0  # times that ends of flows came faster than they were read
        self.told = 0
        self.untold = 0  # alerts beyond MAX_TOLD
        self.names_lost = 0
        self._sums = FlowSums(is_client)
        self._resolutions = Resolutions(suffixes)
        self._carrying = Carrying(self._resolutions, self.volume, self._evidence)
        self._clock = clock
        self._on_evidence = on_evidence
        self._counting = counting
        self._is_on = is_on
        self._look_s = look_s
        self._names: deque[Naming] = deque()
        self._swapped: tuple[VolumeSettings, tuple[tuple[bytes, int], ...]] | None = None
        self._told_now = 0
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- for the loop

    async def run(self) -> None:
        """Until cancelled. Raises what ended the thread."""
        self._loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = self._loop.create_future()
        thread = threading.Thread(target=self._work, args=(done,), name="volume", daemon=True)
        thread.start()
        try:
            await done
        finally:
            self._stop.set()
            await asyncio.to_thread(thread.join, STOP_S)

    def learn(self, names: Iterable[Naming]) -> None:
        """Who lives where, as packet processes tell; lossy by contract."""
        for one in names:
            if len(self._names) >= MAX_NAMES:
                self.names_lost += 1
            else:
                self._names.append(one)

    def swap(self, settings: VolumeSettings, nat64: tuple[tuple[bytes, int], ...] = ()) -> None:
        """Other settings, and NAT64 prefixes of the network's own (resolutions.own_prefixes), from the next look on."""
        self._is_wanted = settings.judges
        self._swapped = settings, nat64

    def of(self, client: bytes, destination: str) -> Carried | None:
        """What went between a client and a destination, up to the last look; None for nothing, or nothing observed."""
        return self.volume.of(client, destination)

    def screen(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "observed": not self.problem,
            "problem": self.problem,
            "flows": self._sums.flows,
            "flows_uncounted": self._sums.uncounted,
            "bytes_out": self.volume.out_bytes,
            "bytes_in": self.volume.in_bytes,
            "alerts": self.told,
            "alerts_untold": self.untold,
        }

    def warnings(self) -> list[str]:
        """What somebody should know, unless the configuration asks for nothing of it; the command that mends it fits a
        line of 80."""
        if not self._is_wanted:
            return []
        if TURN_ON in self.problem:
            return [f"VOLUME is not counted: {TURN_ON}"]
        if self.problem and self.looks:
            return [f"VOLUME is not observed: {self.problem}"]
        return []

    # -- the thread

    def _work(self, done: asyncio.Future[None]) -> None:
        outcome: Exception | None = None
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001  (the daemon ends with it, and says so)
            outcome = error
        if self._loop is not None and not self._stop.is_set():
            self._loop.call_soon_threadsafe(_settle, done, outcome)

    def _watch(self) -> None:
        while not self._stop.is_set():
            counting = self._open()
            if counting is None:
                self._stop.wait(self._look_s)
                continue
            try:
                self._observe(counting)
            except (AdapterError, Malformed) as error:
                self._is_unobserved(str(error))
                self._stop.wait(self._look_s)
            finally:
                counting.close()

    def _open(self) -> Counting | None:
        on = self._is_on()
        if not on:
            what = "the kernel does not count bytes" if on is False else "this kernel tracks no connections"
            self._is_unobserved(f"{what}; to turn it on: {TURN_ON}")
            return None
        try:
            return self._counting()
        except AdapterError as error:
            self._is_unobserved(str(error))
            return None

    def _is_unobserved(self, why: str) -> None:
        if self.problem != why:
            log.warning("volume is not observed: %s", why)
        self.problem = why
        self.looks += 1
        self.unobserved += 1

    def _observe(self, counting: Counting) -> None:
        """Look after look, and what ends meanwhile, as long as the kernel counts."""
        while not self._stop.is_set() and self._is_on():
            due_s = time.monotonic() + self._look_s
            self._look(counting)
            self.looks += 1
            self.problem = ""
            while time.monotonic() < due_s and not self._stop.is_set():
                self._take_names()
                self._hear(counting)

    def _hear(self, counting: Counting) -> bool:
        """Ends of flows, as many as one piece tells; False when there were none."""
        try:
            piece = counting.ended()
        except Overrun:
            self.lost += 1
            return True
        self._sums.ended(piece)
        return bool(piece)

    def _look(self, counting: Counting) -> None:
        if self._swapped is not None:
            settings, self._resolutions.nat64 = self._swapped
            self.volume.swap(settings)
            self._swapped = None
        self._told_now = 0
        self._sums.begin()
        for piece in counting.flows():
            self._sums.look(piece)
            time.sleep(PAUSE_S)
            if self._stop.is_set():
                return
        self._sums.end()
        until_s = time.monotonic() + HEAR_S
        while self._hear(counting) and time.monotonic() < until_s and not self._stop.is_set():
            pass
        for _ in self._sums.forget():
            time.sleep(PAUSE_S)
        self._take_names()
        ts_us = self._clock.now_us()
        rows = iter(self._sums.take().items())
        while piece_of_rows := list(islice(rows, PIECE)):
            for (client, server), (out_bytes, in_bytes) in piece_of_rows:
                self._carrying.carried(FlowKey(0, client, 0, server, 0), ts_us, out_bytes, in_bytes)
            time.sleep(PAUSE_S)

    def _take_names(self) -> None:
        names = self._names
        taken = 0
        while names:
            client, domain, address, ts_us = names.popleft()
            if client:
                self._resolutions.reached(client, domain, address, ts_us)
            self._resolutions.lives_at(domain, address, ts_us, True)
            taken += 1
            if taken % PIECE == 0:
                time.sleep(PAUSE_S)

    def _evidence(self, evidence: Evidence) -> None:
        if evidence.score >= ALERT_SCORE and self._loop is not None:
            if self._told_now >= MAX_TOLD:
                self.untold += 1
                return
            self._told_now += 1
            self.told += 1
            self._loop.call_soon_threadsafe(self._on_evidence, evidence)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(None)
