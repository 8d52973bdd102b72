"""When policy may isolate a client by itself."""

from __future__ import annotations

from egressd.model import Target
from egressd.runtime.isolation_leave import MAX_RELEASED, NO_MACHINE, RELEASED_US, IsolationLeave
from egressd.units import DAY_US, HOUR_US

T0 = 1_790_000_000_000_000
ONE, OTHER = Target("client", "10.0.0.5"), Target("client", "10.0.0.6")


def leave(per_hour: int = 5) -> IsolationLeave:
    made = IsolationLeave()
    made.per_hour = lambda: per_hour
    made.is_ours = lambda address: address.startswith("10.")
    return made


def test_nothing_is_isolated_before_anybody_says_what_is_ours() -> None:
    assert IsolationLeave().why_not(ONE, T0) == NO_MACHINE


def test_only_machines_of_ours() -> None:
    assert leave().why_not(Target("client", "203.0.113.8"), T0) == NO_MACHINE
    assert leave().why_not(ONE, T0) == ""


def test_so_many_in_an_hour() -> None:
    budget = leave(2)
    for after_us in (0, HOUR_US // 2):
        assert budget.why_not(ONE, T0 + after_us) == ""
        budget.isolated(T0 + after_us)
    assert budget.why_not(ONE, T0 + HOUR_US - 1) == "over 2 isolated clients in an hour"
    assert budget.why_not(ONE, T0 + HOUR_US) == ""


def test_not_within_a_day_of_a_persons_release() -> None:
    policy = leave()
    policy.released(ONE, T0)
    assert policy.why_not(ONE, T0 + DAY_US - 1) == "a person released it within the last day"
    assert policy.why_not(OTHER, T0 + 1) == ""
    assert policy.why_not(ONE, T0 + DAY_US) == ""


def test_releases_that_are_remembered_are_bounded() -> None:
    policy = leave()
    for number in range(MAX_RELEASED + 1):
        policy.released(Target("client", f"10.{number >> 8}.{number & 255}.1"), T0)
    assert len(policy._released) == MAX_RELEASED
    policy.released(ONE, T0 + DAY_US)
    assert policy.why_not(ONE, T0 + DAY_US), "what is a day old makes room"


def test_the_clock_that_was_set_changes_nothing() -> None:
    policy = leave(1)
    policy.released(ONE, T0)
    policy.isolated(T0)
    policy.shift(-365 * DAY_US)
    now_us = T0 - 365 * DAY_US
    assert policy.why_not(OTHER, now_us + HOUR_US - 1) == "over 1 isolated clients in an hour"
    assert policy.why_not(ONE, now_us + RELEASED_US - 1) == "a person released it within the last day"
