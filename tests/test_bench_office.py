"""The made-up office: the same from the same seed, in order, with reserved addresses only; and what it measures."""

from __future__ import annotations

from itertools import islice

from bench.office import Wire, judge, table
from bench.office_day import DAY_S, START_S, Contact, World, make_day
from egressd.detect.behaviour.settings import BehaviourSettings
from egressd.intel.networks import parse_address


def contacts(seed: int, measured: bool = True) -> list[Contact]:
    world = World(seed, 40)
    return list(islice(make_day(world, seed, START_S, 1, measured, 4).contacts(), 20_000))


def test_same_seed_same_day_in_order() -> None:
    first = contacts(1)
    assert first == contacts(1)
    assert first != contacts(2)
    assert [one.ts_us for one in first] == sorted(one.ts_us for one in first)
    assert all(START_S * 1_000_000 <= one.ts_us < (START_S + DAY_S) * 1_000_000 for one in first)


def test_only_reserved_names_and_addresses() -> None:
    for one in contacts(1):
        assert not one.name or one.name.endswith(".example"), one.name
        assert not one.address or one.address.startswith(
            ("198.18.", "198.19.", "198.51.100.", "203.0.113.", "192.0.2.", "2001:db8:", "127.0.0.")
        ), one.address
        assert parse_address(one.client)[0] == 10


def test_every_contact_becomes_observations_that_carry_its_name() -> None:
    wire = Wire()
    for one in contacts(1)[:3_000]:
        seen = list(wire.observations(one))
        assert seen
        assert not one.name or any(each.name == one.name for each in seen)


def test_a_small_office_is_measured_the_same_twice() -> None:
    settings = BehaviourSettings(learning_s=3_600)
    outcomes = [judge(3, 30, 1, 6, settings) for _ in range(2)]
    lines = [table(one._replace(seconds=0.0), 30, 1) for one in outcomes]
    assert lines[0] == lines[1]
    assert any(line.startswith("beacons found within 24 contacts: ") for line in lines[0])
    assert any(one.plant.startswith("beacon") for one in outcomes[0].first)
