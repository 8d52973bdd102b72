"""The ends of allowances: told a day before and when they are over, once each, and shown for a day."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from egressd.intel.allowances import Allowance, Allowances
from egressd.runtime import alarms
from egressd.runtime.lapsing import Lapsing
from egressd.units import DAY_S
from tests.loops import in_loop
from tests.runtime.core_scene import WHY, site_at
from tests.runtime.scene import SECOND, T0, Hands
from tests.runtime.test_allowing import ALLOW, write

NOW_S = T0 // SECOND
END = NOW_S + 3 * DAY_S


def allowance(value: str = "good.example", expires_s: int = END, client: str = "") -> Allowance:
    return Allowance("allow-destination", value, client, "noc", "a partner", expires_s, "allow.txt", 1)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


def counts(lapsing: Lapsing, now_s: int) -> tuple[int, ...]:
    return tuple(lapsing.counts(now_s * SECOND).values())


def test_before_and_after_once_each(caplog: pytest.LogCaptureFixture) -> None:
    lapsing = Lapsing()
    allowances = Allowances([allowance(), allowance("for-good.example", 0)])
    lapsing.follow(allowances, (END - DAY_S - 1) * SECOND)
    assert (said(caplog), lapsing.warnings((END - DAY_S - 1) * SECOND)) == ([], [])
    assert counts(lapsing, END - DAY_S - 1) == (2, 0, 0)
    for late_s in (0, 1, 3_600):
        lapsing.follow(allowances, (END - DAY_S + late_s) * SECOND)
    what = "allow-destination good.example of noc (a partner)"
    at = "2023-11-17 22:13 UTC"
    assert said(caplog) == [f"an allowance ends at {at}: {what}"]
    assert lapsing.warnings((END - 1) * SECOND) == [f"ALLOWANCE ends at {at}: {what}"]
    assert counts(lapsing, END - 1) == (1, 1, 0)
    for late_s in (0, 1, 3_600):
        lapsing.follow(allowances, (END + late_s) * SECOND)
    assert said(caplog) == [f"an allowance has ended at {at}, what it let be is blocked again: {what}"]
    assert lapsing.warnings((END + DAY_S) * SECOND) == [f"ALLOWANCE ended at {at}: {what}"]
    assert counts(lapsing, END + DAY_S) == (1, 0, 1)
    assert lapsing.warnings((END + DAY_S + 1) * SECOND) == []
    assert counts(lapsing, END + DAY_S + 1) == (1, 0, 0)


def test_the_same_lines_read_anew_are_told_of_no_second_time(caplog: pytest.LogCaptureFixture) -> None:
    lapsing = Lapsing()
    for line in range(1, 4):
        lapsing.follow(Allowances([allowance()._replace(line=line)]), (END - 5) * SECOND)
    assert len(said(caplog)) == 1
    lapsing.follow(Allowances([allowance(expires_s=END + 60)]), (END - 4) * SECOND)
    assert len(said(caplog)) == 1  # somebody gave it more time, which is short too
    for line in range(1, 4):
        lapsing.follow(Allowances([allowance(expires_s=END + 60)._replace(line=line)]), (END + 61) * SECOND)
    assert len(said(caplog)) == 1


def test_what_is_taken_out_before_its_end_has_not_ended(caplog: pytest.LogCaptureFixture) -> None:
    lapsing = Lapsing()
    lapsing.follow(Allowances([allowance()]), (END - 5) * SECOND)
    lapsing.follow(Allowances([]), END * SECOND)
    assert len(said(caplog)) == 1
    assert (lapsing.warnings(END * SECOND), counts(lapsing, END)) == ([], (0, 0, 0))


def test_what_ended_long_ago_is_nobodys_alarm(caplog: pytest.LogCaptureFixture) -> None:
    lapsing = Lapsing()
    lapsing.follow(Allowances([allowance(expires_s=NOW_S - DAY_S - 1)]), T0)
    assert (said(caplog), lapsing.warnings(T0), counts(lapsing, NOW_S)) == ([], [], (0, 0, 0))


def test_of_many_the_soonest_and_how_many_more() -> None:
    lapsing = Lapsing()
    lapsing.follow(Allowances([allowance(f"n{number}.example", NOW_S + 90 - number) for number in range(9)]), T0)
    first, more = lapsing.warnings(T0)
    assert "n8.example" in first
    assert more == "8 more ALLOWANCES end within a day: egressd list"


def test_what_people_wrote_reaches_no_terminal_as_it_was() -> None:
    lapsing = Lapsing()
    hostile = allowance(client="192.0.2.7")._replace(reason="\x1b[31m\n", owner="\u202eevil", expires_s=NOW_S + 1)
    lapsing.follow(Allowances([hostile]), T0)
    (line,) = lapsing.warnings(T0)
    assert line.isascii() and line.isprintable()
    assert "client=192.0.2.7" in line


@pytest.mark.parametrize("restarted", [False, True])
@in_loop
async def test_an_operators_allowance_for_an_hour(tmp_path: Path, restarted: bool) -> None:
    hands = Hands()
    async with site_at(tmp_path, hands=hands) as site:
        await site.do("allow", what="good.example", for_s=3_600)
        await site.core.tick()
        assert site.core.lapsing.counts(site.core.clock.now_us()) == {"active": 0, "ending": 1, "ended": 0}
        (line,) = [one for one in alarms.warnings(site.core) if "ALLOWANCE" in one]
        assert line.endswith(f"allow-destination good.example of uid:anna ({WHY})")
        assert line.startswith("ALLOWANCE ends at 2023-11-14 23:13 UTC:")
        hands.pass_s(3_600)
        if not restarted:
            await site.core.tick()
            assert site.core.entries == []
            assert site.core.lapsing.counts(site.core.clock.now_us()) == {"active": 0, "ending": 0, "ended": 1}
            assert any(one.startswith("ALLOWANCE ended") for one in alarms.warnings(site.core))
            return
        await site.core.scribe.settled()
    async with site_at(tmp_path, hands=hands) as site:
        assert any(one.startswith("ALLOWANCE ended") for one in alarms.warnings(site.core))


@in_loop
async def test_a_line_of_a_file(tmp_path: Path) -> None:
    write(tmp_path, "never-block good.example expires=2023-11-15")
    async with site_at(tmp_path, config=ALLOW) as site:
        await site.core.tick()
        assert site.core.lapsing.counts(T0)["ending"] == 1
        site.hands.pass_s(DAY_S)
        await site.core.tick()
        assert site.core.lapsing.counts(site.core.clock.now_us()) == {"active": 0, "ending": 0, "ended": 1}
