"""Retro-hunt: who contacted what is listed only now? In steps, so that packets are read between them.

A step is bounded work (a quarter of a millisecond in pure Python), however long lists and history are: what a contact
matches is looked up for each contact in the history, not for each new indicator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from egressd.detect.history import Contact, order_of
from egressd.detect.policy import E1
from egressd.model import Indicator, Match, Sighting

if TYPE_CHECKING:
    from egressd.detect.engine import Engine

LOOKED_UP: Final = 64  # contacts in one step
SIFTED: Final = 1_024  # contacts in one step, where most are none of those that are looked for
TOLD: Final = 4  # sightings in one step
MAX_ENDINGS: Final = 32  # that every contact is compared with


class Sieve(NamedTuple):
    """What a contact must end in, or be, to be looked up. No more than a first sieve: `xbad.example` ends in
    `bad.example` too."""

    endings: tuple[str, ...]
    addresses: bool

    def keeps(self, what: str | bytes) -> bool:
        """Whether a contact with that may be one that is looked for."""
        return what.endswith(self.endings) if isinstance(what, str) else self.addresses


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
    engine: Engine, is_new: Callable[[Indicator], bool], arrival_us: int, sieve: Sieve | None
) -> Iterator[None]:  # fmt: skip
    """Tell of every contact in the history that matches an indicator of which `is_new` is true, in order of first
    contact. Each turn of the iterator is a step."""
    found: list[tuple[bytes, str | bytes, Contact]] = []
    keys = engine.history.keys()
    size = LOOKED_UP if sieve is None else SIFTED
    looked_up = 0
    for start in range(0, len(keys), size):
        for client, what in keys[start : start + size]:
            if sieve is not None and not sieve.keeps(what):
                continue
            looked_up += 1
            if looked_up % LOOKED_UP == 0:
                yield
            match = _match(engine, what, arrival_us)
            if match is not None and is_new(match.indicator):
                contact = engine.history.peek(client, what)
                if contact is not None:
                    found.append((client, what, contact))
        yield
    found.sort(key=order_of)
    for number, (client, what, contact) in enumerate(found, 1):
        _tell(engine, client, what, contact, is_new, arrival_us)
        if number % TOLD == 0:
            yield


def _match(engine: Engine, what: str | bytes, at_us: int) -> Match | None:
    if isinstance(what, str):
        return engine.correlator.match_name(what, at_us)
    return engine.correlator.match_address(what, at_us)


def _tell(
    engine: Engine, client: bytes, what: str | bytes, contact: Contact, is_new: Callable[[Indicator], bool], at_us: int
) -> None:
    name = what if isinstance(what, str) else ""
    address = b"" if isinstance(what, str) else what
    match = _match(engine, what, at_us)  # lists may have changed since it was found
    if match is None or not is_new(match.indicator) or engine.history.peek(client, what) is not contact:
        return
    if engine.correlator.is_allowed(name, contact.server, client, contact.last_us):
        return
    engine.history.forget(client, what)
    found = Sighting(
        at_us, 0, contact.flow, name, match, contact.via, "", True, max(1, contact.count),
        contact.first_us, contact.last_us, address=address,
    )  # fmt: skip
    engine._handle(found, True, None)
    if name and contact.server:
        engine._extend(found, contact.server, E1)
