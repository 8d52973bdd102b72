"""Python's cyclic garbage collector, held still while very many values are made.

A hundred thousand tuples make it walk everything that lives again and again, with every thread waiting: a third of the
time of a large repair. None of these values is part of a cycle; all are freed by their reference counts.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_holders = 0


@contextlib.contextmanager
def held_still() -> Iterator[None]:
    """Within it nothing is collected; several threads may be within at the same time. Leaves a collector that somebody
    has switched off as it is."""
    global _holders
    with _lock:
        was_on = gc.isenabled() or _holders > 0
        _holders += was_on
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _holders -= was_on
            if was_on and not _holders:
                gc.enable()
