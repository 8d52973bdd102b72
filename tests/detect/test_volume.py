"""How much is too much: tables, bounds, and an office whose backups, calls and updates are nobody's exfiltration."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.behaviour.usual import DAY_HOURS, Hours
from egressd.detect.behaviour.volume import ALERT_SCORE, SET_SCORE, Carried, Volume, VolumeSettings, size_text
from egressd.detect.evidence import Evidence
from egressd.intel.networks import NetworkTable
from egressd.units import HOUR_US, MINUTE_US

T0 = 19_675 * DAY_HOURS * HOUR_US  # midnight
MIB = 1 << 20
GIB = 1 << 30


def packed(address: str) -> bytes:
    return ip_address(address).packed


A, B = packed("10.0.0.5"), packed("10.0.0.6")
X, Y = packed("203.0.113.9"), packed("198.51.100.7")
SOON = VolumeSettings(learn_hours=24)


def hours(volume: Volume, amounts: list[int], client: bytes = A, start_us: int = T0) -> list[Evidence]:
    """An amount an hour to one destination."""
    found: list[Evidence] = []
    for number, amount in enumerate(amounts):
        found += volume.add(client, Y, "cloud.example", start_us + number * HOUR_US, amount, amount // 20)
    return found


# -- sums


def test_sums_are_exact_and_by_client_and_destination() -> None:
    volume = Volume(SOON)
    volume.add(A, X, "203.0.113.9", T0, 1_000, 50)
    volume.add(A, X, "203.0.113.9", T0 + 30 * DAY_HOURS * HOUR_US, 1, 2)
    volume.add(B, X, "203.0.113.9", T0, 7, 0)
    assert volume.of(A, "203.0.113.9") == Carried(1_001, 52, T0, T0 + 30 * DAY_HOURS * HOUR_US)
    assert volume.of(B, "203.0.113.9") == Carried(7, 0, T0, T0)
    assert volume.of(B, "cloud.example") is None
    assert (volume.out_bytes, volume.in_bytes) == (1_008, 52)
    assert [(client, row.out_bytes) for client, _, row in volume.rows()] == [(A, 1_001), (B, 7)]


@pytest.mark.parametrize("server", ["10.9.9.9", "192.168.1.1", "fd00::7", "fe80::1", "224.0.0.5", "ff02::1"])
def test_what_stays_inside_is_not_counted(server: str) -> None:
    volume = Volume(VolumeSettings(out_hour=1))
    assert volume.add(A, packed(server), server, T0, GIB, 0) == []
    assert volume.of(A, server) is None and volume.out_bytes == 0


# -- set quantities


def test_a_set_quantity_is_told_once_an_hour_and_a_day() -> None:
    volume = Volume(VolumeSettings(out_hour=100 * MIB, out_day=150 * MIB))
    found = volume.add(A, X, "203.0.113.9", T0 + MINUTE_US, 100 * MIB, 0)
    assert found == []  # the quantity itself is allowed
    (hour,) = volume.add(A, X, "203.0.113.9", T0 + 2 * MINUTE_US, 1, 0)
    assert hour == Evidence(
        "volume", A, "203.0.113.9", SET_SCORE,
        "sent 100 MiB to 203.0.113.9 in this hour (UTC); the set quantity is 100 MiB an hour",
        T0 + MINUTE_US, T0 + 2 * MINUTE_US,
    )  # fmt: skip
    (day,) = volume.add(A, X, "203.0.113.9", T0 + 3 * MINUTE_US, 50 * MIB, 0)
    assert "in this day" in day.reason and "150 MiB a day" in day.reason
    assert volume.add(A, X, "203.0.113.9", T0 + 4 * MINUTE_US, GIB, 0) == []
    (again,) = volume.add(A, X, "203.0.113.9", T0 + HOUR_US, 101 * MIB, 0)
    assert "in this hour" in again.reason
    assert len(volume.add(A, X, "203.0.113.9", T0 + DAY_HOURS * HOUR_US, 151 * MIB, 0)) == 2


def test_a_set_quantity_of_a_client_counts_all_destinations() -> None:
    volume = Volume(VolumeSettings(client_hour=100 * MIB, client_day=300 * MIB))
    assert volume.add(A, X, "203.0.113.9", T0, 60 * MIB, 0) == []
    (found,) = volume.add(A, Y, "cloud.example", T0 + 1, 60 * MIB, 0)
    assert found.destination == "cloud.example" and "to all destinations together" in found.reason
    assert volume.add(B, Y, "cloud.example", T0 + 2, 60 * MIB, 0) == []
    volume.add(A, X, "203.0.113.9", T0 + HOUR_US, 100 * MIB, 0)
    (day,) = volume.add(A, X, "203.0.113.9", T0 + 2 * HOUR_US, 90 * MIB, 0)
    assert "in this day" in day.reason


EXCEPTIONS = [
    VolumeSettings(out_hour=1, except_domains=frozenset(("cloud.example",))),
    VolumeSettings(out_hour=1, except_networks=NetworkTable([(packed("198.51.100.0"), 24, "")])),
    VolumeSettings(out_hour=1, except_clients=NetworkTable([(packed("10.0.0.0"), 29, "")])),
]


@pytest.mark.parametrize("settings", EXCEPTIONS)
def test_exceptions_are_counted_and_never_told(settings: VolumeSettings) -> None:
    volume = Volume(settings)
    assert volume.add(A, Y, "cloud.example", T0, GIB, 0) == []
    assert volume.of(A, "cloud.example") == Carried(GIB, 0, T0, T0)
    assert volume.add(packed("10.0.0.9"), X, "203.0.113.9", T0, GIB, 0) != []
    volume.swap(VolumeSettings(out_hour=1))
    assert volume.add(A, Y, "cloud.example", T0 + 1, 1, 0) != []


# -- the usual


def test_nothing_is_unusual_while_a_client_is_learnt() -> None:
    volume = Volume(VolumeSettings(learn_hours=72))
    assert hours(volume, [MIB] * 71 + [50 * GIB]) == []
    volume = Volume(VolumeSettings(learn_hours=72))
    assert len(hours(volume, [MIB] * 72 + [50 * GIB])) == 1


def test_the_reason_has_its_figures() -> None:
    volume = Volume(SOON)
    for hour in range(48):
        volume.add(A, Y, "cloud.example", T0 + hour * HOUR_US, 3 * MIB, MIB)
    start_us = T0 + 48 * HOUR_US
    found = []
    for minute in range(40):
        found += volume.add(A, X, "203.0.113.9", start_us + minute * MINUTE_US, 30 * MIB, MIB)
    assert [one.score for one in found] == [80, 90, 100]  # as it grows
    assert found[0].reason == (
        "sent 90 MiB in 2 min to 203.0.113.9 (no name); usual for it: nothing; of others there: nobody"
    )
    assert (found[0].first_us, found[0].last_us) == (start_us, start_us + 2 * MINUTE_US)


@pytest.mark.parametrize(
    ("name", "before", "amount", "told"),
    [
        ("as every hour", [500 * MIB] * 48, 600 * MIB, False),
        ("twice the greatest hour", [MIB] * 47 + [200 * MIB], 400 * MIB, False),
        ("over twice the greatest hour", [MIB] * 47 + [200 * MIB], 500 * MIB, True),
        ("much but under the floor", [MIB] * 48, 63 * MIB, False),
        ("from nothing", [0] * 48, 65 * MIB, True),
        ("a backup of a week ago", [20 * GIB] + [0] * 167, 21 * GIB, False),
        ("what was long ago", [200 * MIB] + [0] * (24 * 60), 400 * MIB, True),
        ("slowly more", [(100 + 10 * hour) * MIB for hour in range(48)], 600 * MIB, False),
    ],
)
def test_what_is_unusual_for_a_pair(name: str, before: list[int], amount: int, told: bool) -> None:
    volume = Volume(SOON)
    assert hours(volume, before[:24]) == []
    hours(volume, before[24:], start_us=T0 + 24 * HOUR_US)
    found = volume.add(A, Y, "cloud.example", T0 + len(before) * HOUR_US, amount, amount // 30)
    assert bool(found) is told, name


def test_what_goes_both_ways_is_no_exfiltration() -> None:
    volume = Volume(SOON)
    hours(volume, [MIB] * 30)
    assert volume.add(A, X, "call.example", T0 + 30 * HOUR_US, 2 * GIB, GIB) == []
    assert volume.add(A, X, "mirror.example", T0 + 30 * HOUR_US, 65 * MIB, 9 * GIB) == []
    assert volume.add(A, X, "upload.example", T0 + 30 * HOUR_US, 2 * GIB, GIB // 20) != []


def test_where_others_send_as_much_it_is_usual_to_send() -> None:
    volume = Volume(SOON)
    hours(volume, [MIB] * 30)
    hours(volume, [2 * GIB] * 30, client=B)
    assert volume.add(A, Y, "cloud.example", T0 + 30 * HOUR_US, 3 * GIB, MIB) == []
    (found,) = volume.add(A, Y, "cloud.example", T0 + 30 * HOUR_US + 1, 2 * GIB, MIB)
    assert "of others there: at most 2.0 GiB an hour" in found.reason
    assert found.score < ALERT_SCORE  # known here, named, and little over the usual


def test_it_is_told_again_only_when_it_is_surer() -> None:
    volume = Volume(SOON)
    hours(volume, [MIB] * 30)
    scores = []
    for minute in range(59):
        for found in volume.add(A, X, "203.0.113.9", T0 + 30 * HOUR_US + minute * MINUTE_US, 100 * MIB, 0):
            scores.append(found.score)
    assert scores == [80, 90, 100]
    assert volume.add(A, X, "203.0.113.9", T0 + 31 * HOUR_US, 20 * GIB, 0) == []
    assert volume.add(A, X, "203.0.113.9", T0 + 72 * HOUR_US, 90 * GIB, 0) != []


def test_the_baseline_can_be_left_out() -> None:
    volume = Volume(SOON._replace(baseline=False))
    assert hours(volume, [MIB] * 30 + [90 * GIB]) == []


@pytest.mark.parametrize("ahead_h", [3, 8_760])
def test_a_clock_that_was_ahead_makes_no_hours_one(ahead_h: int) -> None:
    """All that was sent until the time came was that hour's: usual traffic was told as unusual, or over a sum."""
    volume = Volume(SOON._replace(out_hour=90 * MIB, out_day=1_500 * MIB, client_hour=90 * MIB))
    for hour in range(100):
        assert volume.add(A, X, "203.0.113.9", T0 + hour * HOUR_US, 30 * MIB, 0) == []
    assert volume.add(A, X, "203.0.113.9", T0 + (100 + ahead_h) * HOUR_US, 30 * MIB, 0) == []
    for hour in range(101, 160):
        assert volume.add(A, X, "203.0.113.9", T0 + hour * HOUR_US, 30 * MIB, 0) == []
    assert volume.add(A, X, "203.0.113.9", T0 + 160 * HOUR_US, 2 * GIB, 0) != []


# -- hours


def test_hours_forget_slowly_and_silence_in_bounded_time() -> None:
    one = Hours(100)
    one.now = 1_600
    one.turn(101)
    assert (one.peak, one.now, one.mean, one.spread) == (1_600, 0, 200, 400)
    one.turn(101)
    one.now = 7
    one.turn(100)
    assert (one.hour, one.peak, one.now) == (101, 1_600, 7), "what is told late counts as of now"
    one.turn(50)
    assert (one.hour, one.peak, one.now) == (50, 1_600, 0), "the clock was set back"
    one.turn(1 << 40)
    assert one.hour == 1 << 40 and one.peak < 20 and one.mean == 0


@given(st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(0, 10_000)), max_size=60))
def test_hours_stay_in_their_range(steps: list[tuple[int, int]]) -> None:
    one = Hours(0)
    for amount, silent in steps:
        one.now = amount
        one.turn(one.hour + 1 + silent)
        highest = max(step[0] for step in steps)
        assert -8 <= one.mean <= highest and -8 <= one.spread <= highest and 0 <= one.peak <= highest
        assert one.bound() >= 2 * one.peak


# -- bounds


def test_a_flood_of_destinations_stays_within_the_bounds_and_hurts_nobody_else() -> None:
    volume = Volume(VolumeSettings(pairs=1_024))
    volume.add(B, X, "kept.example", T0, 5, 5)
    for number in range(5_000):
        volume.add(A, X, f"{number}.example", T0 + number, 1, 1)
    assert len(volume.rows()) <= 1_024
    assert volume.uncounted == 5_000 - 128
    assert volume.of(B, "kept.example") is not None
    volume.add(A, X, "later.example", T0 + HOUR_US, 1, 1)  # in the next hour it has its share again
    assert volume.of(A, "later.example") is not None


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 1 << 40), st.integers(0, 50)), max_size=300
    )
)
def test_any_traffic_stays_within_the_bounds(rows: list[tuple[int, int, int, int]]) -> None:
    volume = Volume(VolumeSettings(pairs=64, learn_hours=1, out_hour=1 << 30))
    now_us = T0
    told: list[tuple[bytes, str, int]] = []
    for client, place, amount, later in rows:
        now_us += later * MINUTE_US
        found = volume.add(b"\x0a\0" + client.to_bytes(2, "big"), X, f"{place}.example", now_us, amount, 0)
        told += [(one.client, one.destination, now_us // HOUR_US) for one in found if one.score == SET_SCORE]
    assert len(volume.rows()) <= 64
    if not volume.uncounted:
        assert volume.out_bytes == sum(amount for _, _, amount, _ in rows)
    if not volume.evicted:
        assert all(told.count(one) <= 2 for one in told)  # the quantity, and surer by its size


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0 bytes"), (1_023, "1023 bytes"), (1_024, "1 KiB"), (3 * MIB, "3 MiB"), (1_288_490_189, "1.2 GiB")],
)
def test_size_text(octets: int, text: str) -> None:
    assert size_text(octets) == text


# -- an office


class Row(NamedTuple):
    """A minute's bytes of one client at one destination."""

    minute: int
    client: bytes
    server: bytes
    destination: str
    out_bytes: int
    in_bytes: int


STAFF = [b"\x0a\x01\0" + bytes((number,)) for number in range(1, 21)]
CALLS, UPDATES, BACKUPS, CLOUD, WEB = (bytes((198, 51, 100, number)) for number in range(1, 6))


def office_day(day: int) -> Iterator[Row]:
    """What 20 machines send and get on a day, by the minute: mail and pages, a call each with its picture, files put
    into the cloud, updates, telemetry, and at night the backup, on Sundays a full one."""
    at = day * 24 * 60
    weekend = day % 7 >= 5
    for number, client in enumerate(STAFF):
        for minute in range(8 * 60, 18 * 60, 3) if not weekend else ():
            wave = (minute * 7 + number * 13 + day * 3) % 11
            yield Row(at + minute, client, WEB, f"site{wave}.example", 30_000 + wave * 9_000, 900_000 + wave * 300_000)
            yield Row(at + minute, client, CLOUD, "cloud.example", 400_000 + wave * 500_000, 200_000)
        if not weekend:
            call = 9 * 60 + (number * 17 + day * 5) % 400
            for minute in range(call, call + 45):  # 1.5 Mbit/s out, 2 in
                yield Row(at + minute, client, CALLS, "call.example", 11_000_000, 15_000_000)
            for minute in range(12 * 60, 12 * 60 + 6):
                yield Row(at + minute, client, UPDATES, "updates.example", 2_000_000, 180_000_000)
            big = 10 * 60 + (number * 29) % 300
            if (number + day) % 4 == 0:  # a large file for everybody
                yield Row(at + big, client, CLOUD, "cloud.example", 250_000_000, 2_000_000)
        for minute in range(0, 24 * 60, 60):
            yield Row(at + minute, client, UPDATES, "telemetry.example", 50_000, 5_000)
        size = (9 if day % 7 == 6 else 1) * GIB // 30
        for minute in range(60, 90):
            yield Row(at + minute, client, BACKUPS, "backup.example", size + number * MIB, size // 40)


def work(volume: Volume, day: int, more: list[Row]) -> list[Evidence]:
    found: list[Evidence] = []
    rows = sorted([*office_day(day), *more], key=lambda row: row.minute)
    for row in rows:
        ts_us = T0 + row.minute * MINUTE_US
        found += volume.add(row.client, row.server, row.destination, ts_us, row.out_bytes, row.in_bytes)
    return found


def test_an_office_works_for_three_weeks_and_one_machine_sends_its_files_away() -> None:
    volume = Volume(VolumeSettings(learn_hours=168))
    thief, drop = STAFF[7], packed("203.0.113.9")
    for day in range(21):
        assert work(volume, day, []) == [], f"day {day}"
    at = 21 * 24 * 60 + 14 * 60
    more = [Row(at + minute, thief, drop, "203.0.113.9", 30_000_000, 700_000) for minute in range(40)]
    found = work(volume, 21, more)
    assert {(one.client, one.destination) for one in found} == {(thief, "203.0.113.9")}
    assert max(one.score for one in found) >= ALERT_SCORE
    alerts = [one for one in found if one.score >= ALERT_SCORE]
    assert alerts[0].last_us - alerts[0].first_us <= 10 * MINUTE_US
    assert volume.of(thief, "203.0.113.9") == Carried(
        40 * 30_000_000, 40 * 700_000, T0 + at * MINUTE_US, T0 + (at + 39) * MINUTE_US
    )


def test_three_days_of_learning_take_only_the_first_full_backup_for_news() -> None:
    volume = Volume(VolumeSettings())
    told = {day: work(volume, day, []) for day in range(21)}
    assert {day for day, found in told.items() if found} == {6}
    assert {one.destination for one in told[6]} == {"backup.example"}
    assert all(one.score < ALERT_SCORE for one in told[6])  # others send as much there, and it has a name
