"""Our claim to the kernel's table while we enforce: taken, answered for, and tried again while another has its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from egressd.enforce.table_lock import TableHeld, TableLock


class TableClaim:
    """On the event loop. `told` hears why another egressd would not be noticed, or who has the table beside us, and ""
    when that is over."""

    def __init__(self, told: Callable[[str], None], lock: TableLock | None = None) -> None:
        self._told = told
        self._lock = lock or TableLock()
        self._problem = ""
        self._wanted = False

    def take(self) -> None:
        """Have the table for ourselves; where it cannot be found out whether another has it, `look` tells so and tries
        again. Raises TableHeld when another egressd has it."""
        self._lock.take()
        self._wanted = True
        if self._lock.is_held:
            self._listen()

    def look(self) -> None:
        """Once a second. Whoever enforces goes on when another was quicker: what it blocks is in force, and is told."""
        if not self._wanted:
            return
        problem = ""
        if self._lock.is_held:
            self._listen()
        else:
            try:
                self.take()
                problem = self._lock.problem
            except TableHeld as held:
                problem = str(held)
        if problem != self._problem:
            self._problem = problem
            self._told(problem)

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._lock.fileno(), self._answer)

    def _answer(self) -> None:
        """Who asks waits until `look` where no file descriptor is left: it would be called again and again."""
        if not self._lock.answer():
            asyncio.get_running_loop().remove_reader(self._lock.fileno())

    def let_go(self) -> None:
        """Others may have the table."""
        if self._lock.is_held:
            asyncio.get_running_loop().remove_reader(self._lock.fileno())
        self._lock.release()
        self._wanted = False
        self._problem = ""
