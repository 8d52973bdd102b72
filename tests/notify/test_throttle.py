"""Never too many lines, never a count lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.notify.throttle import COUNTED, FULL, SHORT, Digest, Throttle
from egressd.units import HOUR_US, MINUTE_US

A, B = bytes((10, 2, 7, 52)), bytes((10, 2, 7, 53))


def client(number: int) -> bytes:
    return number.to_bytes(4, "big")


def test_first_in_full_then_short_then_counted() -> None:
    throttle = Throttle(lines_per_campaign=3)
    said = [throttle.note("C1", client(number), 0) for number in (1, 1, 2, 3, 4, 4, 5)]
    assert said == [FULL, COUNTED, SHORT, SHORT, COUNTED, COUNTED, COUNTED]
    assert throttle.due(14 * MINUTE_US) == []
    assert throttle.due(15 * MINUTE_US) == [Digest("C1", 1, 4, 2, 5, 15 * MINUTE_US)]
    assert throttle.due(16 * MINUTE_US) == []


def test_digests_become_rarer_and_start_anew_after_a_quiet_day() -> None:
    throttle = Throttle()
    throttle.note("C1", A, 0)
    now_us, intervals = 0, []
    for _ in range(6):
        throttle.note("C1", A, now_us)
        began_us = now_us
        while not throttle.due(now_us):
            now_us += 15 * MINUTE_US
        intervals.append((now_us - began_us) // MINUTE_US)
    assert intervals == [15, 60, 360, 1440, 1440, 1440]
    now_us += 48 * HOUR_US
    throttle.note("C1", A, now_us)
    assert throttle.due(now_us + 15 * MINUTE_US)


def test_a_campaign_is_news_again_after_a_quiet_week() -> None:
    throttle = Throttle()
    assert throttle.note("C1", A, 0) == FULL
    throttle.due(6 * 24 * HOUR_US)
    assert throttle.note("C1", A, 6 * 24 * HOUR_US) == COUNTED
    throttle.due(7 * 24 * HOUR_US)
    throttle.due(15 * 24 * HOUR_US)
    assert throttle.note("C1", A, 15 * 24 * HOUR_US) == FULL


def test_one_client_cannot_use_up_the_lines_of_others() -> None:
    throttle = Throttle(lines_per_hour=100, lines_per_client_hour=8)
    said = Counter(throttle.note(f"C{number}", A, 0) for number in range(1_000))
    assert said == {FULL: 8, COUNTED: 992}
    assert throttle.note("C5000", B, 1) == FULL
    assert throttle.note("C999", A, HOUR_US) == FULL  # not said yet, and there is room again


def test_lines_in_an_hour_are_bounded() -> None:
    throttle = Throttle(lines_per_hour=100)
    said = Counter(throttle.note(f"C{number}", client(number), 0) for number in range(1_000))
    assert said == {FULL: 100, COUNTED: 900}
    digests = throttle.due(HOUR_US)
    assert len(digests) == 9
    assert digests[-1] == Digest("", 892, 892, 892, 0, HOUR_US)


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    throttle = Throttle(lines_per_hour=2)
    later_us = 365 * 24 * HOUR_US
    for number in range(5):
        throttle.note("C1", client(number), later_us)
    assert throttle.note("C2", A, 0) == FULL
    assert [(one.campaign, one.events, one.over_us) for one in throttle.due(0)] == [("C1", 3, 0)]


def test_a_day_of_the_third_beat_is_few_lines() -> None:
    """INCIDENT beat c: three hosts try for days; three reports and a few digests, not three times N alerts."""
    throttle = Throttle()
    lines = 0
    for minute in range(3 * 24 * 60):
        now_us = minute * MINUTE_US
        lines += sum(throttle.note("C1", client(host), now_us) != COUNTED for host in (1, 2, 3))
        lines += len(throttle.due(now_us))
    assert lines <= 3 + 3 + 3


NOTES = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 20), st.integers(1, 5), st.booleans())


@settings(max_examples=200)
@given(st.lists(NOTES, max_size=150))
def test_no_count_is_lost(notes: list[tuple[int, int, int, int, bool]]) -> None:
    throttle = Throttle(
        lines_per_campaign=2, lines_per_hour=6, lines_per_client_hour=2, max_campaigns=4, max_clients=3,
        digests_at_once=2,
    )  # fmt: skip
    now_us = total = told = 0
    for campaign, number, minutes, events, look in notes:
        now_us += minutes * MINUTE_US
        total += events
        if throttle.note(f"C{campaign}", client(number), now_us, events) != COUNTED:
            told += events
        if look:
            told += sum(one.events for one in throttle.due(now_us))
        assert len(throttle._told) <= 4 and all(len(one.clients) <= 3 for one in throttle._told.values())
    told += sum(one.events for one in throttle.flush(now_us))
    assert told == total
    assert throttle.flush(now_us) == []
