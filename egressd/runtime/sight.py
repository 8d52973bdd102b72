"""Whether we see and prove that we block, told in the journal as it changes: whoever reads nothing else has to know.

`status`, `/healthz` and metrics say how it is now to those who ask; nobody asks at night."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from egressd.runtime.sensing import RESTARTING, UP

BAD_LOOKS: Final = 3  # one a second: a cable that is put in elsewhere is no news
GOOD_LOOKS: Final = 10  # what comes and goes is told six times a minute at most
_NO_NEWS: Final = (RESTARTING, "starting")  # of the process, which tells itself

log = logging.getLogger("egressd")


class _Topic:
    """One thing that is well or not. `trouble` is what was told of it, "" while it is well."""

    __slots__ = ("looks", "trouble")

    def __init__(self) -> None:
        self.trouble = ""
        self.looks = 0

    def is_news(self, trouble: str) -> bool:
        """Whether it has been otherwise than was told for long enough."""
        if bool(trouble) == bool(self.trouble):
            self.looks = 0
            return False
        self.looks += 1
        if self.looks < (BAD_LOOKS if trouble else GOOD_LOOKS):
            return False
        self.trouble, self.looks = trouble, 0
        return True

    def look(self, trouble: str, error: str, mended: str) -> None:
        """What it is now; what the journal is told when that is news, of trouble or of its end."""
        if self.is_news(trouble):
            if trouble:
                log.error("%s", error)
            else:
                log.warning("%s", mended)


class Sight:
    """Looks once a second."""

    def __init__(self) -> None:
        self._interfaces: dict[str, _Topic] = {}
        self._canary = _Topic()
        self._loss = _Topic()
        self._space = _Topic()

    def look(self, states: Mapping[str, str], canary: str, loss_ratio: float, space: str) -> None:
        """`states` of interfaces by name; why the canary fails, "" when it does not; the share of packets lost, 0 when
        it is not worth an alarm; that the disk is nearly full, in words, "" when it is not."""
        for name, state in states.items():
            if state not in _NO_NEWS:
                down = f"SENSOR DOWN: {name} is {state}, what its hosts do is not seen. See: egressd status"
                topic = self._interfaces.setdefault(name, _Topic())
                topic.look("" if state == UP else state, down, f"sensor {name} is up again")
        for name in [name for name in self._interfaces if name not in states]:
            if self._interfaces.pop(name).trouble:
                log.warning("sensor %s is not looked at any more; captured from: %s", name, ", ".join(states) or "none")
        failing = f"THE SELF-TEST FAILS, a listed name may go unseen or unblocked: {canary}. See: egressd doctor"
        self._canary.look(canary, failing, "the self-test works again")
        lost = f"{loss_ratio:.1%}" if loss_ratio else ""
        losing = f"PACKETS ARE LOST, contacts are missed: {lost} in the last minute"
        self._loss.look(lost, losing, "packets are not lost any more")
        self._space.look(space, space, "there is room on the disk of the state again")
