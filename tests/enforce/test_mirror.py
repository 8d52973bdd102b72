"""What an adapter holds, remembered between readings."""

from __future__ import annotations

from egressd.enforce.adapter import Capabilities, Existing, Failure, Plan
from egressd.enforce.mirror import Mirror
from egressd.enforce.plan import make_plan
from egressd.model import Target
from egressd.units import SECOND_US
from tests.enforce.rules import NOW_US, held, rule

ALL = Capabilities(frozenset({"address", "network"}), True, 1000)
ONE, OTHER = rule("address", "192.0.2.1", "D1", 600), rule("address", "192.0.2.2", "D2")


def plan(mirror: Mirror, rules: list, now_us: int) -> Plan:
    return make_plan(rules, mirror.held(), ALL, now_us, aged_s=mirror.age_s(now_us))


def test_what_was_written_needs_no_reading() -> None:
    mirror = Mirror()
    mirror.take([held("address", "192.0.2.3", "D3", 50)], NOW_US)
    later_us = NOW_US + 20 * SECOND_US
    made = plan(mirror, [ONE, OTHER], later_us)
    mirror.applied(made, [Failure(OTHER, "full")], later_us)
    again = plan(mirror, [ONE, OTHER], later_us)
    assert (again.add, again.remove, again.refresh) == ((OTHER,), (), ())
    assert plan(mirror, [ONE], NOW_US + 599 * SECOND_US).is_empty()


def test_what_lapsed_since_the_reading_is_not_there() -> None:
    mirror = Mirror()
    mirror.take([held("address", "192.0.2.1", "D1", 50)], NOW_US)
    assert plan(mirror, [ONE], NOW_US + 51 * SECOND_US).add == (ONE,)


def test_pushes_are_noted_unless_known_better() -> None:
    mirror = Mirror()
    mirror.take([held("address", "192.0.2.1", "D1", 599)], NOW_US)
    mirror.note(Target("address", "192.0.2.1"), "D1", 60, NOW_US)
    mirror.note(Target("address", "192.0.2.9"), "D9", 60, NOW_US + 30 * SECOND_US)
    made = plan(mirror, [ONE], NOW_US + 40 * SECOND_US)
    assert [element.target.value for element in made.remove] == ["192.0.2.9"]
    assert made.refresh == ()


def test_networks_that_go_need_a_reading() -> None:
    mirror = Mirror()
    wide, inner = rule("network", "198.51.0.0/16"), rule("network", "198.51.100.0/24", "D2", 60)
    for rules, now_us, changed in (
        ([wide], NOW_US, False),
        ([wide, inner, ONE], NOW_US, False),
        ([wide, inner], NOW_US, False),
        ([wide, inner], NOW_US + 61 * SECOND_US, True),
        ([inner], NOW_US, True),
        ([inner], NOW_US, False),
    ):
        assert mirror.intervals_changed(rules, now_us) == changed


def test_the_young_and_unknown_are_spared() -> None:
    mirror = Mirror()

    def known(element: Existing) -> bool:
        return element.decision_id == "D2"

    made = Plan(
        (),
        (held("address", "192.0.2.1", "D1"), held("address", "192.0.2.2", "D2"), held("address", "192.0.2.3", "")),
        (),
        (),
    )
    spared = mirror.spare(made, known, 60, NOW_US)
    assert [element.decision_id for element in spared.remove] == ["D2", ""]
    assert len(mirror.spare(made, known, 60, NOW_US + 59 * SECOND_US).remove) == 2
    assert mirror.spare(made, known, 60, NOW_US + 60 * SECOND_US) == made
