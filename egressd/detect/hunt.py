"""Retro-hunt: who contacted what is listed only now? In steps, so that packets are read between them.

A step is bounded work (some 0.5 ms in pure Python), however long lists and history are: what a contact matches is
looked up for each contact in the history, not for each new indicator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from egressd.detect.history import Contact, order_of
from egressd.detect.policy import E1
from egressd.model import Indicator, Match, Sighting

if TYPE_CHECKING:
    from egressd.detect.engine import Engine

Row = tuple[bytes, str | bytes, Contact]  # client, name or packed address, contact

LOOKED_UP: Final = 128  # contacts in one step
TOLD: Final = 4  # sightings in one step


def hunt(
    engine: Engine, rows: list[Row], is_new: Callable[[Indicator], bool], arrival_us: int
) -> Iterator[None]:  # fmt: skip
    """Tell of every contact of `rows` that matches an indicator of which `is_new` is true, in order of first contact.
    Each turn of the iterator is a step."""
    found: list[Row] = []
    for start in range(0, len(rows), LOOKED_UP):
        for row in rows[start : start + LOOKED_UP]:
            match = _match(engine, row[1], arrival_us)
            if match is not None and is_new(match.indicator):
                found.append(row)
        yield
    found.sort(key=order_of)
    for number, row in enumerate(found):
        if number % TOLD == TOLD - 1:
            yield
        _tell(engine, row, is_new, arrival_us)


def _match(engine: Engine, what: str | bytes, at_us: int) -> Match | None:
    if isinstance(what, str):
        return engine.correlator.match_name(what, at_us)
    return engine.correlator.match_address(what, at_us)


def _tell(engine: Engine, row: Row, is_new: Callable[[Indicator], bool], arrival_us: int) -> None:
    client, what, contact = row
    name = what if isinstance(what, str) else ""
    address = b"" if isinstance(what, str) else what
    match = _match(engine, what, arrival_us)  # lists may have changed since it was found
    if match is None or not is_new(match.indicator):
        return
    if engine.correlator.is_allowed(name, contact.server, client, contact.last_us):
        return
    engine.history.forget(client, what)
    found = Sighting(
        arrival_us, 0, contact.flow, name, match, contact.via, "", True, max(1, contact.count),
        contact.first_us, contact.last_us, address=address,
    )  # fmt: skip
    engine._handle(found, True, None)
    if name and contact.server:
        engine._extend(found, contact.server, E1)
