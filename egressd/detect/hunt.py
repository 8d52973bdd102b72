"""Retro-hunt: who contacted what is listed only now? In steps, so that packets are read between them.

A step is bounded work (a quarter of a millisecond in pure Python), however long lists and history are: what a contact
matches is looked up for each contact in the history, not for each new indicator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from egressd.detect.coverage import E1
from egressd.detect.history import PastContact
from egressd.model import Indicator, Match, Sighting

if TYPE_CHECKING:
    from egressd.detect.casework import Casework

LOOKED_UP: Final = 64  # contacts in one step
SIFTED: Final = 1_024  # contacts in one step, where most are none of those that are looked for
TOLD: Final = 4  # sightings in one step
MAX_ENDINGS: Final = 32  # that every contact is compared with


class Sieve(NamedTuple):
    """What a contact must end in, or be, to be looked up. No more than a first sieve: `xbad.example` ends in
    `bad.example` too."""

    endings: tuple[str, ...]
    addresses: bool

    def keeps(self, row: PastContact) -> bool:
        """Whether a contact may be one that is looked for."""
        return row.name.endswith(self.endings) if row.name else self.addresses


def sieve_for(arrived: Iterable[Indicator]) -> Sieve | None:
    """The sieve for these indicators; None when there are too many, and every contact is to be looked up."""
    endings: set[str] = set()
    addresses = False
    for one in arrived:
        if one.kind == "domain":
            endings.add(one.registered_domain or one.value)
            if len(endings) > MAX_ENDINGS:
                return None
        addresses = addresses or one.kind in ("address", "network")
    return Sieve(tuple(sorted(endings)), addresses)


def hunt(
    engine: Casework, is_new: Callable[[Indicator], bool], arrival_us: int, sieve: Sieve | None
) -> Iterator[None]:  # fmt: skip
    """Tell of every contact in the history that matches an indicator of which `is_new` is true, in order of first
    contact. Each turn of the iterator is a step."""
    rows = engine.history.rows()
    found: list[PastContact] = []
    size = LOOKED_UP if sieve is None else SIFTED
    looked_up = 0
    for start in range(0, len(rows), size):
        for row in rows[start : start + size]:
            if sieve is not None and not sieve.keeps(row):
                continue
            looked_up += 1
            if looked_up % LOOKED_UP == 0:
                yield
            match = _match(engine, row, arrival_us)
            if match is not None and is_new(match.indicator):
                found.append(row)
        yield
    for number, row in enumerate(found, 1):
        match = _match(engine, row, arrival_us)  # lists may have changed since it was found
        if match is not None and is_new(match.indicator) and engine.history.holds(row):
            if recall(engine, row, arrival_us):
                engine.history.forget(row)
        if number % TOLD == 0:
            yield


def recall(engine: Casework, row: PastContact, arrival_us: int) -> bool:
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


def _match(engine: Casework, row: PastContact, at_us: int) -> Match | None:
    if row.name:
        return engine.correlator.match_name(row.name, at_us)
    return engine.correlator.match_address(row.address, at_us)
