"""Plans: what to change, in which order, and when to ask first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce.adapter import Capabilities, Existing, Plan, Rule
from egressd.enforce.plan import PlanLimits, limit_plan, make_plan
from egressd.model import Target
from egressd.units import SECOND_US
from tests.enforce.rules import NOW_US, held, rule

ALL = Capabilities(frozenset({"address", "network", "pair", "client", "segment"}), True, 1000)
HOUR_S = 3600.0


def plan(desired: list[Rule], existing: list[Existing], capabilities: Capabilities = ALL, aged_s: float = 0) -> Plan:
    return make_plan(desired, existing, capabilities, NOW_US, renew_below_s=12 * HOUR_S, aged_s=aged_s)


def values(rules: tuple[Rule, ...] | tuple[Existing, ...]) -> list[str]:
    return [one.target.value for one in rules]


def test_what_is_missing_is_added_and_what_nobody_ordered_is_removed() -> None:
    made = plan([rule("address", "192.0.2.1")], [held("address", "192.0.2.2")])
    assert (values(made.add), values(made.remove), made.refresh) == (["192.0.2.1"], ["192.0.2.2"], ())
    assert made.held == 1


def test_what_is_right_is_left_alone() -> None:
    desired = [rule("address", "192.0.2.1"), rule("pair", "10.0.0.1>192.0.2.1", lasts_s=600)]
    existing = [
        held("address", "192.0.2.1", remaining_s=23 * HOUR_S),
        held("pair", "10.0.0.1>192.0.2.1", remaining_s=599),
    ]
    assert plan(desired, existing).is_empty()


@pytest.mark.parametrize(
    ("lasts_s", "remaining_s", "refreshed"),
    [
        (0, 13 * HOUR_S, False),
        (0, 11 * HOUR_S, True),  # renewed at half of the adapter's longest time
        (0, 0, False),  # never lapses, and shall not
        (600, 0, True),  # never lapses, but shall
        (600, 58, True),  # provisional
        (600, 599, False),
        (600, 700, True),  # shortened by a person: must not outlast its decision
        (30 * HOUR_S, 24 * HOUR_S, False),
        (13 * HOUR_S, 11.9 * HOUR_S, True),
    ],
)
def test_times(lasts_s: float, remaining_s: float, refreshed: bool) -> None:
    made = plan(
        [rule("address", "192.0.2.1", lasts_s=lasts_s)], [held("address", "192.0.2.1", remaining_s=remaining_s)]
    )
    assert bool(made.refresh) == refreshed
    assert not made.add and not made.remove


def test_what_was_read_a_while_ago_is_older_now() -> None:
    desired = [rule("address", "192.0.2.1", lasts_s=500)]
    assert plan(desired, [held("address", "192.0.2.1", remaining_s=599)], aged_s=99).is_empty()
    assert values(plan(desired, [held("address", "192.0.2.1", remaining_s=60)], aged_s=61).add) == ["192.0.2.1"]


def test_an_expired_rule_is_none() -> None:
    made = plan([rule("address", "192.0.2.1", lasts_s=-1)], [held("address", "192.0.2.1")])
    assert (made.add, values(made.remove)) == ((), ["192.0.2.1"])


def test_another_decision_takes_the_element_over() -> None:
    made = plan([rule("address", "192.0.2.1", "D2")], [held("address", "192.0.2.1", "D1", 23 * HOUR_S)])
    assert [one.decision_id for one in made.refresh] == ["D2"]


def test_one_target_of_several_decisions_is_held_once_for_the_longest() -> None:
    desired = [
        rule("address", "192.0.2.1", "D9", 600),
        rule("address", "192.0.2.1", "D10"),
        rule("address", "192.0.2.1", "D2"),
    ]
    made = plan(desired, [])
    assert [one.decision_id for one in made.add] == ["D2"]
    assert plan(desired, [held("address", "192.0.2.1", "D10", 23 * HOUR_S)]).is_empty()


def test_kinds_that_the_adapter_does_not_hold_are_told() -> None:
    made = plan([rule("host", "evil.example"), rule("address", "192.0.2.1")], [])
    assert (values(made.unsupported), values(made.add)) == (["evil.example"], ["192.0.2.1"])


def test_too_many_are_ranked_and_the_rest_told() -> None:
    small = ALL._replace(max_entries=3)
    desired = [
        rule("pair", "10.0.0.1>192.0.2.1", "D1"),
        rule("address", "192.0.2.1", "D2", 600),
        rule("address", "192.0.2.2", "D3"),
        rule("address", "192.0.2.3", "D4", 600),
        rule("client", "10.0.0.9", "D5"),
    ]
    made = plan(desired, [held("address", "192.0.2.3", "D4", 599)], small)
    assert values(made.add) == ["10.0.0.9", "192.0.2.2"]  # the isolated client first; what is in force stays
    assert values(made.no_room) == ["192.0.2.1", "10.0.0.1>192.0.2.1"]
    assert not made.remove


RULES = st.builds(
    lambda n, d, lasts: rule("address", f"192.0.2.{n}", f"D{d}", lasts),
    st.integers(1, 20),
    st.integers(1, 9),
    st.sampled_from([0, 5, 600]),
)
HELD = st.builds(
    lambda n, d, left: held("address", f"192.0.2.{n}", f"D{d}", left),
    st.integers(1, 20),
    st.integers(1, 9),
    st.sampled_from([0, 3, 599, 80_000]),
)


@given(st.lists(RULES), st.lists(HELD, unique_by=lambda one: one.target), st.randoms(use_true_random=False))
def test_the_plan_makes_one_into_the_other_whatever_the_order(
    desired: list[Rule], existing: list[Existing], random: object
) -> None:
    made = plan(desired, existing)
    after = {one.target: one for one in existing}
    for gone in made.remove:
        del after[gone.target]
    for written in (*made.add, *made.refresh):
        lasts_s = (written.expires_us - NOW_US) / SECOND_US if written.expires_us else 86_400.0
        after[written.target] = Existing(written.target, written.decision_id, lasts_s, 0, 0)
    assert set(after) == {one.target for one in desired}
    assert plan(desired, list(after.values())).is_empty()
    shuffled, shuffled_too = desired[:], existing[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(shuffled_too)  # type: ignore[attr-defined]
    again = plan(shuffled, shuffled_too)
    assert {one.target for one in again.refresh} == {one.target for one in made.refresh}
    assert (again.remove, [one.target for one in again.add]) == (made.remove, [one.target for one in made.add])


def many(count: int, remaining_s: float = HOUR_S) -> tuple[Existing, ...]:
    return tuple(held("address", f"192.0.{n // 250}.{n % 250}", remaining_s=remaining_s) for n in range(count))


@pytest.mark.parametrize(
    ("removed", "of", "asks"),
    [(64, 64, False), (65, 100, True), (65, 1000, False), (300, 1000, False), (301, 1000, True), (0, 0, False)],
)
def test_lifting_much_at_once_is_asked_about(removed: int, of: int, asks: bool) -> None:
    made = Plan((), many(removed), (), (), (), of)
    allowed, question = limit_plan(made, PlanLimits())
    assert (question != "", allowed.remove) == (asks, () if asks else made.remove)


def test_what_lapses_by_itself_is_no_change() -> None:
    made = Plan((), many(500, 3.0), (), (), (), 500)
    assert limit_plan(made, PlanLimits()) == (made, "")
    _, question = limit_plan(Plan((), many(500, 0), (), (), (), 500), PlanLimits())
    assert "lift 500 of 500" in question


def test_blocking_much_at_once_is_asked_about_but_putting_back_is_not() -> None:
    made = Plan(tuple(Rule(Target("address", str(n)), "D1", 0) for n in range(101)), (), (), (), (), 0)
    limits = PlanLimits(add_most=100)
    allowed, question = limit_plan(made, limits)
    assert "add 101" in question and allowed.is_empty()
    assert limit_plan(made, limits, fresh=3) == (made, "")
