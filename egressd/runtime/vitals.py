"""How the daemon itself is: whether it loses packets, and whether its event loop keeps up."""

from __future__ import annotations

import asyncio
from typing import Final

from egressd.clock import Clock
from egressd.metrics.loss import LossWindow
from egressd.runtime.sensing import Sensing

LAG_S: Final = 0.1
LAG_WINDOW_S: Final = 60.0


class Vitals:
    """`lag_s` is by how much the event loop was late at worst within the last minute."""

    def __init__(self, clock: Clock) -> None:
        self.lag_s = 0.0
        self._clock = clock
        self._loss = LossWindow()

    def note(self, sensing: Sensing) -> None:
        """Take what was received and lost until now."""
        interfaces = sensing.interfaces()
        received = sum(one["received"] for one in interfaces)
        lost = sum(one["kernel_drops"] for one in interfaces)
        self._loss.note(received, lost, self._clock.now_us())

    @property
    def loss_ratio(self) -> float:
        """Packets that the kernel dropped before we read them, of those for us."""
        return self._loss.ratio(self._clock.now_us())

    @property
    def is_degraded(self) -> bool:
        """Whether so many are lost that what is not seen may matter."""
        return self._loss.degraded(self._clock.now_us())

    async def measure_lag(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        worst: list[tuple[float, float]] = []
        while True:
            began_s = loop.time()
            await asyncio.sleep(LAG_S)
            now_s = loop.time()
            late_s = now_s - began_s - LAG_S
            worst = [(at_s, other_s) for at_s, other_s in worst if now_s - at_s < LAG_WINDOW_S and other_s > late_s]
            worst.append((now_s, late_s))
            self.lag_s = max(other_s for _, other_s in worst)
