"""Retro-hunt: who contacted what is listed only now? In steps, so that packets are read between them.

A step is bounded work (some 0.5 ms in pure Python), however long lists and history are: what a contact matches is
looked up for each contact in the history, not for each new indicator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from egressd.detect.history import PastContact
from egressd.detect.policy import E1
from egressd.model import Indicator, Match, Sighting

if TYPE_CHECKING:
    from egressd.detect.engine import Engine

LOOKED_UP: Final = 128  # contacts in one step
TOLD: Final = 4  # sightings in one step


def hunt(
    engine: Engine, rows: list[PastContact], is_new: Callable[[Indicator], bool], arrival_us: int
) -> Iterator[None]:  # fmt: skip
    """Tell of every contact of `rows` that matches an indicator of which `is_new` is true, in order of the rows. Each
    turn of the iterator is a step."""
    found: list[PastContact] = []
    for start in range(0, len(rows), LOOKED_UP):
        for row in rows[start : start + LOOKED_UP]:
            match = _match(engine, row, arrival_us)
            if match is not None and is_new(match.indicator):
                found.append(row)
        yield
    for number, row in enumerate(found):
        if number % TOLD == TOLD - 1:
            yield
        match = _match(engine, row, arrival_us)  # lists may have changed since it was found
        if match is not None and is_new(match.indicator) and recall(engine, row, arrival_us):
            engine.history.forget(row)


def recall(engine: Engine, row: PastContact, arrival_us: int) -> bool:
    """Judge contacts of the past as traffic is judged; False when they match nothing, or may be."""
    match = _match(engine, row, arrival_us)
    if match is None or engine.correlator.is_allowed(row.name, row.address, row.flow.client, row.last_us):
        return False
    found = Sighting(
        arrival_us, 0, row.flow, row.name, match, row.via, "", True, max(1, row.contacts), row.first_us, row.last_us,
        address=b"" if row.name else row.address,
    )  # fmt: skip
    engine._handle(found, True, None)
    if row.name and row.address:
        engine._extend(found, row.address, E1)
    return True


def _match(engine: Engine, row: PastContact, at_us: int) -> Match | None:
    if row.name:
        return engine.correlator.match_name(row.name, at_us)
    return engine.correlator.match_address(row.address, at_us)
