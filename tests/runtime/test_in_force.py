"""What stands: terms that escalate with attempts and lapse without, holders, rules per mode, steps of the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.coverage import E1, E2
from egressd.detect.probation import FORGET_US, TERMS_US
from egressd.model import Target
from egressd.runtime.in_force import MAX_RELEASED, RESTING, Held, InForce, Register
from egressd.store.decisions import ACTIVE, PROPOSED, WITHDRAWN
from tests.runtime.scene import HOUR, SECOND, T0, A, B, X, Y, about, address, in_force, match, pair

MIN = 60 * SECOND


def register_of(*found: InForce) -> Register:
    register = Register()
    for one in found:
        register.add(one)
    return register


def due(register: Register, now_us: int) -> list[tuple[str, str, bool]]:
    """(decision, target's value, whether it goes on)."""
    return [(decision.id, held.target.value, goes_on) for decision, held, goes_on in register.due(now_us)]


def tried(register: Register, decision: InForce, now_us: int, count: int = 1) -> Held | None:
    return register.tried(decision, pair(), address(), count, now_us)


# -- terms


def test_terms_escalate_while_somebody_tries() -> None:
    decision = in_force()
    register = register_of(decision)
    held = register.hold(decision, address(), T0)
    now_us = T0
    for level, term_us in enumerate((10 * MIN, HOUR, 24 * HOUR, 7 * 24 * HOUR, 7 * 24 * HOUR)):
        assert held.expires_us - now_us == term_us
        assert held.level == min(level, 3)
        assert due(register, held.expires_us - 1) == []
        assert tried(register, decision, now_us + 1) is held
        now_us = held.expires_us
        assert due(register, now_us) == [("D1", "198.51.100.7", True)]
        assert due(register, now_us) == []  # never twice
        assert held.state == ACTIVE and not held.tried
    assert held.attempts == 5


def test_without_a_try_it_rests_and_a_try_after_that_brings_it_back_for_longer() -> None:
    decision = in_force()
    register = register_of(decision)
    held = register.hold(decision, address(), T0)
    end_us = T0 + 10 * MIN
    assert due(register, end_us) == [("D1", "198.51.100.7", False)]
    assert (held.state, held.ended_us) == (RESTING, end_us)
    assert register.holders(address()) == []
    assert decision.standing(True).resting == ((X, E2),)
    back = register.hold(decision, address(), end_us + HOUR)
    assert (back.level, back.expires_us, back.state) == (1, end_us + 2 * HOUR, ACTIVE)
    assert register.holders(address()) == [decision]
    assert decision.standing(True).addresses == (X,)


@pytest.mark.parametrize(("rest_us", "level"), [(0, 2), (FORGET_US, 2), (FORGET_US + 1, 0), (50 * FORGET_US, 0)])
def test_after_a_week_at_rest_it_is_forgotten(rest_us: int, level: int) -> None:
    decision = in_force()
    register = register_of(decision)
    held = register.hold(decision, address(), T0)
    tried(register, decision, T0)
    due(register, held.expires_us)  # level 1
    due(register, held.expires_us)  # rests
    assert (held.state, held.level) == (RESTING, 1)
    back = register.hold(decision, address(), held.ended_us + rest_us)
    assert back.level == level
    assert back.expires_us - back.added_us == TERMS_US[level]


def test_attempts_are_remembered_over_a_rest() -> None:
    decision = in_force()
    register = register_of(decision)
    held = register.hold(decision, address(), T0)
    tried(register, decision, T0 + 5, 7)
    due(register, held.expires_us)
    due(register, held.expires_us)
    back = register.hold(decision, address(), held.ended_us + 1)
    assert (back.attempts, back.last_attempt_us, back.tried) == (7, T0 + 5, False)


def test_what_was_withdrawn_begins_anew() -> None:
    decision = in_force()
    register = register_of(decision)
    held = register.hold(decision, address(), T0)
    held.level = 3
    assert register.release(decision, address(), WITHDRAWN, T0 + 1) is held
    assert register.release(decision, address(), WITHDRAWN, T0 + 2) is None
    assert decision.standing(True).resting == ()
    assert register.hold(decision, address(), T0 + 3).level == 0


@pytest.mark.parametrize("state", [RESTING, WITHDRAWN])
def test_of_what_is_held_no_more_the_last_are_remembered(state: str) -> None:
    """A name in flux, or a host that says it to ever new servers: 270 more an hour and decision, for ever."""
    decision = in_force()
    register = register_of(decision)
    first = address("203.0.113.1")
    register.hold(decision, first, T0)
    register.release(decision, first, state, T0)
    others = [address(f"10.{number >> 8}.{number & 255}.1") for number in range(MAX_RELEASED[state])]
    for number, one in enumerate(others):
        register.hold(decision, one, T0 + number)
        register.release(decision, one, state, T0 + number)
    assert first not in decision.held and len(decision.held) == 1 + len(others)
    assert register.hold(decision, others[0], T0).state == ACTIVE
    register.hold(decision, first, T0)
    register.release(decision, first, state, T0)
    assert {others[0], first} <= decision.held.keys(), "what is held again is not forgotten"
    assert sum(map(len, decision.released.values())) == len(others)


def test_what_is_held_already_keeps_its_term() -> None:
    """Two packet processes see the same try of a resting address: both extend, and the second must not shorten it."""
    decision = in_force()
    register = register_of(decision)
    register.hold(decision, address(), T0)
    due(register, T0 + 10 * MIN)  # rests
    back = register.hold(decision, address(), T0 + HOUR)
    register.tried(decision, pair(), address(), 1, T0 + HOUR)
    again = register.hold(decision, address(), T0 + HOUR + 1)
    assert (again.level, again.tried) == (back.level, True) == (1, True)
    assert again.expires_us >= T0 + 2 * HOUR


@pytest.mark.parametrize(
    ("main", "more"),
    [
        (about(), Target("host", "x.bad.example")),
        (address(), Target("network", "203.0.113.0/24")),
        (Target("client", "10.0.0.5"), Target("client", "10.0.0.6")),
    ],
)
def test_what_a_list_or_a_person_names_has_no_term(main: Target, more: Target) -> None:
    decision = in_force(main=main)
    register = register_of(decision)
    if more.kind not in ("address", "pair"):
        register.hold(decision, more, T0)
    assert due(register, T0 + 100 * 365 * 24 * HOUR) == []


def test_what_a_person_set_a_time_for_ends_whether_it_was_tried_or_not() -> None:
    decision = in_force(main=address(), ends_us=T0 + HOUR)
    register = register_of(decision)
    tried(register, decision, T0 + 1)
    assert due(register, T0 + HOUR - 1) == []
    assert due(register, T0 + HOUR) == [("D1", "198.51.100.7", False)]
    assert due(register, T0 + 2 * HOUR) == []


def test_nothing_is_due_of_what_has_ended() -> None:
    decision, other = in_force(), in_force("D2", main=about("worse.example"))
    register = register_of(decision, other)
    register.hold(decision, address(), T0)
    register.hold(other, address(Y), T0)
    register.release(other, address(Y), WITHDRAWN, T0 + 1)
    register.end(decision)
    assert due(register, T0 + 365 * 24 * HOUR) == []


def test_what_is_due_comes_soonest_first() -> None:
    decision = in_force()
    register = register_of(decision)
    for number in (3, 1, 2):
        register.hold(decision, address(bytes((198, 51, 100, number))), T0 + number)
    assert [value for _, value, _ in due(register, T0 + HOUR)] == [f"198.51.100.{number}" for number in (1, 2, 3)]


# -- attempts and holders


def test_an_attempt_counts_for_the_address_before_the_pair() -> None:
    decision = in_force()
    register = register_of(decision)
    assert tried(register, decision, T0) is None
    of_pair = register.hold(decision, pair(), T0)
    assert tried(register, decision, T0 + 1) is of_pair
    of_all = register.hold(decision, address(), T0)
    assert tried(register, decision, T0 + 2, 4) is of_all
    assert (of_pair.attempts, of_all.attempts, of_all.last_attempt_us) == (1, 4, T0 + 2)
    register.release(decision, address(), RESTING, T0 + 3)
    assert tried(register, decision, T0 + 4) is of_pair


def test_an_attempt_that_is_told_late_does_not_go_back() -> None:
    decision = in_force()
    register = register_of(decision)
    held = register.hold(decision, address(), T0)
    tried(register, decision, T0 + 9)
    tried(register, decision, T0 + 3)
    assert (held.last_attempt_us, held.attempts) == (T0 + 9, 2)


def test_holders_oldest_first_and_only_those_that_hold_now() -> None:
    one, two = in_force(), in_force("D2", main=about("worse.example"))
    register = register_of(one, two)
    for decision in (two, one):
        register.hold(decision, address(), T0)
    assert register.holders(address()) == [two, one]
    register.hold(two, address(), T0 + 1)
    assert register.holders(address()) == [two, one]
    register.release(two, address(), WITHDRAWN, T0 + 2)
    assert register.holders(address()) == [one]
    register.end(one)
    assert register.holders(address()) == [] and register._holders == {}


def test_found_by_id_and_by_what_it_is_about() -> None:
    one = in_force()
    register = register_of(one)
    assert (len(register), register.by_id["D1"], register.by_target[about()]) == (1, one, one)
    register.end(one)
    register.end(one)
    assert (len(register), register.by_target) == (0, {})


def test_the_version_counts_up_with_every_change_and_with_nothing_else() -> None:
    one = in_force()
    register = register_of(one)
    seen = [register.version]
    for change in (
        lambda: register.hold(one, address(), T0),
        lambda: list(register.due(T0 + HOUR)),
        lambda: register.hold(one, address(), T0 + HOUR),
        lambda: register.release(one, address(), WITHDRAWN, T0 + HOUR),
        lambda: register.shift(5),
        lambda: register.end(one),
    ):
        change()
        seen.append(register.version)
    assert seen == sorted(set(seen))
    register.release(one, address(), WITHDRAWN, T0)
    assert list(register.due(T0)) == []
    assert register.version == seen[-1]


# -- rules


def test_rules_by_mode_and_state() -> None:
    one = in_force()
    waits = in_force("D2", main=about("worse.example"), state=PROPOSED)
    register = register_of(one, waits)
    register.hold(one, address(), T0)
    register.hold(waits, address(Y), T0)
    assert register.rules("monitor") == []
    for mode in ("approve", "enforce"):
        assert [(rule.target, rule.decision_id, rule.expires_us) for rule in register.rules(mode)] == [
            (about(), "D1", 0),
            (address(), "D1", T0 + 10 * MIN),
        ]
    register.release(one, address(), RESTING, T0)
    assert [rule.target for rule in register.rules("enforce")] == [about()]


def test_a_target_of_several_is_held_for_as_long_as_the_longest() -> None:
    short, long, forever = (in_force(f"D{n}", main=about(f"d{n}.example")) for n in (1, 2, 3))
    register = register_of(short, long, forever)
    register.hold(short, address(), T0)
    register.hold(long, address(), T0 + HOUR)
    assert [(r.decision_id, r.expires_us) for r in register.rules("enforce") if r.target == address()] == [
        ("D2", T0 + HOUR + 10 * MIN)
    ]
    forever.held[address()] = Held(address(), ACTIVE, T0, 0, 0)
    for order in ((short, long, forever), (forever, long, short)):
        again = register_of(*order)
        assert [(r.decision_id, r.expires_us) for r in again.rules("enforce") if r.target == address()] == [("D3", 0)]


def test_counts_and_census() -> None:
    one = in_force()
    isolated = in_force("D2", main=Target("client", "10.0.0.9"))
    cut = in_force("D3", Target("segment", "10.2.0.0/24"), main=Target("segment", "10.1.0.0/24"))
    waits = in_force("D4", main=Target("client", "10.0.0.8"), state=PROPOSED)
    register = register_of(one, isolated, cut, waits)
    register.hold(one, address(), T0)
    register.hold(one, pair(B, Y), T0)
    register.hold(one, pair(A, Y), T0)
    register.release(one, pair(A, Y), RESTING, T0)
    assert [register.count(kind) for kind in ("address", "pair", "client", "segment")] == [1, 1, 1, 2]
    assert register.isolated() == {"10.0.0.9": "D2"}
    assert register.cut() == {"D3": ["10.1.0.0/24", "10.2.0.0/24"]}


def test_as_a_packet_process_is_told_of_it() -> None:
    one = in_force()
    one.campaign = "C3"
    register = register_of(one)
    register.hold(one, address(), T0)
    register.hold(one, pair(B, Y), T0)
    register.hold(one, pair(A, Y), T0)
    register.release(one, pair(A, Y), RESTING, T0)
    standing = one.standing(True)
    assert (standing.id, standing.target, standing.match, standing.created_us) == ("D1", about(), match(), T0)
    assert (standing.campaign, standing.enforced) == ("C3", True)
    assert (standing.addresses, standing.pairs, standing.resting) == ((X,), ((B, Y),), ((Y, E1),))


# -- the clock is set


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, HOUR)), min_size=1, max_size=12),
    st.integers(-(10**12), 10**12),
)
def test_a_step_of_the_clock_leaves_what_remains_as_it_was(targets: list[tuple[int, int]], delta_us: int) -> None:
    """The same register, once with and once without the step in between: the same things happen, `delta_us` later."""
    found = []
    for step_us in (0, delta_us):
        decision = in_force()
        register = register_of(decision)
        for number, at_us in targets:
            register.hold(decision, address(bytes((198, 51, 100, number))), T0 + at_us)
        some = address(bytes((198, 51, 100, targets[0][0])))
        register.tried(decision, some, some, 1, T0 + HOUR)
        register.release(decision, address(bytes((198, 51, 100, 9))), RESTING, T0 + HOUR)
        register.shift(step_us)
        happened = []
        for later_us in range(0, 3 * HOUR, 10 * MIN):
            now_us = T0 + HOUR + step_us + later_us
            happened.append(due(register, now_us))
            happened.append([(r.target.value, "", bool(r.expires_us - now_us > 0)) for r in register.rules("enforce")])
        back = register.hold(decision, address(bytes((198, 51, 100, 9))), T0 + 4 * HOUR + step_us)
        remaining = [held.expires_us and held.expires_us - step_us for held in decision.held.values()]
        found.append((happened, back.level, remaining))
    assert found[0] == found[1]


def test_what_lasts_as_long_as_the_decision_is_not_shifted_into_having_an_end() -> None:
    decision = in_force()
    register = register_of(decision)
    register.shift(-HOUR)
    assert decision.held[about()].expires_us == 0
    assert due(register, T0 + 365 * 24 * HOUR) == []


# -- anything at all

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.integers(1, 3), st.integers(1, 4)),
        st.tuples(st.just("tried"), st.integers(1, 3), st.integers(1, 4)),
        st.tuples(st.just("release"), st.integers(1, 3), st.integers(1, 4)),
        st.tuples(st.just("end"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 2 * 86_400), st.just(0)),
        st.tuples(st.just("shift"), st.integers(-86_400, 86_400), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_nothing_is_held_beyond_its_time_and_nothing_is_due_twice(
    steps: list[tuple[str, int, int]],
) -> None:
    decisions = {number: in_force(f"D{number}", main=about(f"d{number}.example")) for number in (1, 2, 3)}
    register = register_of(*decisions.values())
    now_us = T0
    for what, one, other in steps:
        if what == "wait":
            now_us += one * SECOND
        elif what == "shift":
            now_us += one * SECOND
            register.shift(one * SECOND)
        elif decisions[one].id in register.by_id:
            target = address(bytes((198, 51, 100, other)))
            if what == "hold":
                register.hold(decisions[one], target, now_us)
            elif what == "tried":
                register.tried(decisions[one], target, target, 1, now_us)
            elif what == "release":
                register.release(decisions[one], target, WITHDRAWN, now_us)
            else:
                register.end(decisions[one])
        seen = due(register, now_us)
        assert len(seen) == len({(id_, value) for id_, value, _ in seen})
        assert due(register, now_us) == []
        rules = register.rules("enforce")
        assert all(not rule.expires_us or now_us < rule.expires_us <= now_us + TERMS_US[-1] for rule in rules)
        for rule in rules:
            if rule.target.kind == "address":
                assert rule.decision_id in [holder.id for holder in register.holders(rule.target)]
        held = {
            t for d in register.by_id.values() for t, h in d.held.items() if t.kind == "address" and h.state == ACTIVE
        }
        assert held == set(register._holders)
