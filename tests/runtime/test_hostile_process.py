"""A packet process reads hostile bytes; if somebody takes it over, the core refuses what it says and lives on.

`processes.PacketProcessHandle` takes Malformed for a reason to end it; anything else would end the daemon.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.store import incidents
from tests.runtime.events import ANY_JSON, places, put_at
from tests.runtime.process import Process
from tests.runtime.scene import Desk, address, attempt, desk_at, pair, sighting, verdict

IN_BATCH = ["events", "contacts", "tried", "history", "tenants"]


def batch() -> dict[str, Any]:
    """One of everything. Places: events are sighting, block, extend, attempt, alert."""
    process = Process().say(
        sighting(), verdict(), verdict("D1", "extend", address(), pair()), attempt(first=True),
        verdict("", "alert", address()),
    )  # fmt: skip
    return process.batch(
        history=[["0a000005", "a.example", "a.example", "c6336407", 1, 2, 3]], tenants=[["a.example", "c6336407", 1]]
    )


def take(desk: Desk, spoilt: dict[str, Any]) -> None:
    """The core takes it, writes what there is to write, and time passes."""
    desk.intake.take(0, spoilt)
    desk.settle()
    desk.hands.pass_s(3_600)
    desk.rulings.expire()
    desk.settle()


def test_the_honest_batch_is_taken(desk: Desk) -> None:
    take(desk, batch())
    assert (len(desk.register), len(desk.history), len(desk.tenants), desk.scribe.refused) == (1, 1, 1, 0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("word", IN_BATCH)
@given(value=ANY_JSON)
def test_anything_for_a_part_of_a_batch(tmp_path_factory: pytest.TempPathFactory, word: str, value: Any) -> None:
    with desk_at(tmp_path_factory.mktemp("any")) as desk, suppress(Malformed):
        take(desk, {word: value})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_in_a_row_of_sums_history_or_passive_dns(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    spoilt = batch()
    word = data.draw(st.sampled_from(["history", "tenants"]))
    place = data.draw(st.sampled_from(places(spoilt[word])))
    spoilt[word] = put_at(spoilt[word], place, data.draw(ANY_JSON))
    with desk_at(tmp_path_factory.mktemp("any")) as desk, suppress(Malformed):
        take(desk, spoilt)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("events",), {}), (("events",), "s"), (("events", 0), None), (("events", 0, 0), "x"), (("events", 0, 2), []),
        (("events", 0, 2, 1), "0a00"), (("events", 1, 3), "explode"), (("events", 1, 4, 0), ["host"]),
        (("events", 3, 4), "smoke"), (("contacts",), 1), (("contacts", 0, 2), -1), (("tried",), None),
        (("tried", 0, 2), -1), (("tried", 0, 6), {"zz": 1}), (("history", 0, 0), "0a00"), (("history", 0, 6), "3"),
        (("tenants", 0), "x"), (("tenants", 0, 1), 5),
    ],
)  # fmt: skip
def test_what_is_malformed_says_so(desk: Desk, place: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(Malformed):
        desk.intake.take(0, put_at(batch(), place, value))


def test_what_came_before_the_fault_is_taken(desk: Desk) -> None:
    with pytest.raises(Malformed):
        desk.intake.take(0, put_at(batch(), ("events", 4), None))
    assert list(desk.register.by_id) == ["D1"]
    assert desk.row("D1").state == "active"


OUT_OF_RANGE = [
    pytest.param(("events", 0, 2, 0), 256, id="a protocol of more than a byte"),
    pytest.param(("events", 0, 2, 2), -1, id="a port below 0"),
    pytest.param(("events", 3, 2, 4), 65_536, id="a port above 65535"),
    pytest.param(("events", 1, 4), [], id="a block of nothing"),
    pytest.param(("tried", 0, 6), {"c633": 1}, id="an address of two bytes"),
    pytest.param(("tried", 0, 1), "", id="attempts of nobody at an address"),
]


@pytest.mark.parametrize(("place", "value"), OUT_OF_RANGE)
def test_values_out_of_range_are_malformed(desk: Desk, place: tuple[Any, ...], value: Any) -> None:
    """Of the right type, but nothing that could be rendered or stored."""
    with pytest.raises(Malformed):
        desk.intake.take(0, put_at(batch(), place, value))


@pytest.mark.parametrize(
    ("place", "value"), [(("contacts", 0, 9), {"\ud800.example": 1}), (("contacts", 0, 2), (1 << 62) - 1)]
)
def test_what_no_ledger_holds_is_left_out_of_it(desk: Desk, place: tuple[Any, ...], value: Any) -> None:
    """Half a surrogate pair, and sums beyond 64 bits: the row is refused or escaped, the daemon lives on."""
    for _ in range(3):
        with suppress(Malformed):
            take(desk, put_at(batch(), place, value))
    assert desk.ledger.call(incidents.load_incidents)
    assert desk.scribe.trouble == ""


@pytest.mark.parametrize("id_", ["", "x", "Dx", "D", "I1", "D-1", "D1" + 30 * "0"])
def test_an_id_that_is_none_is_malformed(desk: Desk, id_: str) -> None:
    with pytest.raises(Malformed):
        desk.intake.take(0, put_at(batch(), ("events", 1, 2), id_))
