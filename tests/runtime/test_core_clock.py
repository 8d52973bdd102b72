"""The clock is set under a running core: terms stay as long as they were, lines stay in force, processes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressd.detect.devices import Lease
from egressd.model import Target
from egressd.runtime.orders import Step, Stop
from egressd.store.decisions import ACTIVE
from tests.loops import in_loop
from tests.runtime.core_scene import site_at
from tests.runtime.scene import SECOND, T0, A, B, X, address, attempt
from tests.runtime.test_core import LISTED, policy_block


@pytest.mark.parametrize("step_s", [7_200, -7_200])
@in_loop
async def test_what_was_to_last_an_hour_lasts_an_hour_when_the_clock_is_set(tmp_path: Path, step_s: int) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(X)))
        await site.do("isolate", client="10.0.0.5", for_s=3_600)
        site.hands.set_by_s(step_s)
        await site.core.tick()
        assert any(isinstance(one, Step) and one.offset_us == site.core.clock.offset_us for one in site.told)
        assert site.rules() == ["registered_domain listed.example", "address 198.51.100.7", "client 10.0.0.5"]
        assert site.kernel.clocks_set == 1
        assert (await site.row("D1")).targets[1].expires_us == T0 + (600 + step_s) * SECOND
        site.hands.pass_s(599)
        await site.core.tick()
        assert len(site.rules()) == 3
        site.hands.pass_s(3_000)
        await site.core.tick()
        assert site.rules() == ["registered_domain listed.example", "client 10.0.0.5"]
        site.hands.pass_s(2)
        await site.core.tick()
        assert site.rules() == ["registered_domain listed.example"]


@pytest.mark.parametrize("verb", ["block", "allow"])
@in_loop
async def test_a_persons_line_for_an_hour_lasts_an_hour_when_the_clock_is_set(tmp_path: Path, verb: str) -> None:
    async with site_at(tmp_path) as site:
        await site.do(verb, what="bad.example", for_s=3_600)
        site.hands.set_by_s(7_200)
        await site.core.tick()
        await site.core.tick()
        assert len(site.core.entries) == 1
        assert len(site.rules()) == (verb == "block")


@pytest.mark.parametrize("step_s", [7_200, -7_200])
@in_loop
async def test_a_persons_line_for_good_stays_when_the_clock_is_set(tmp_path: Path, step_s: int) -> None:
    """A line counts from when it was added: that must not lie ahead all of a sudden, now or after a restart."""
    async with site_at(tmp_path) as site:
        await site.do("block", what="bad.example")
        await site.do("allow", what="fine.example")
        site.hands.set_by_s(step_s)
        await site.core.tick()
        assert site.rules() == ["registered_domain bad.example"]
        assert [one.text.split()[-1].count("bad.example") for one in site.core.entries] == [1, 0]
        await site.core.scribe.settled()
        hands = site.hands
    hands.pass_s(1)
    async with site_at(tmp_path, hands=hands) as again:
        await again.core.tick()
        assert again.rules() == ["registered_domain bad.example"]
        now_s = again.core.clock.now_us() // SECOND
        assert again.core.knowledge.intel.index.match_name("www.bad.example", now_s) is not None


@in_loop
async def test_drift_moves_no_deadline_and_is_told_when_it_adds_up(tmp_path: Path) -> None:
    """A time server slews by 500 ppm; packets are stamped with the wall clock, blocks with ours."""
    async with site_at(tmp_path) as site:
        await site.do("isolate", client="10.0.0.5", for_s=3_600)
        before = site.core.register.by_target[Target("client", "10.0.0.5")].held.copy()
        site.told.clear()
        for _ in range(60):
            site.hands.pass_s(1)
            site.hands.wall_us += 500
            await site.core.tick()
        offset_us = T0 - 5_000 * SECOND
        steps = [one.offset_us - offset_us for one in site.told if isinstance(one, Step)]
        assert steps == [10_500, 21_000]  # more than 10 ms since it was told last
        assert site.core.register.by_target[Target("client", "10.0.0.5")].held == before
        assert (site.rules(), site.core.stale) == (["client 10.0.0.5"], False)


@pytest.mark.parametrize(
    ("step_s", "begins_anew"), [(-3_599, False), (-7_200, True), (7_200, False), (90_000, True), (-(10**8), True)]
)
@in_loop
async def test_packet_processes_begin_anew_when_nothing_there_would_become_old(
    tmp_path: Path, step_s: int, begins_anew: bool
) -> None:
    """Of a clock that had been years ahead their tables kept times that nothing reached: no evidence became old, and
    budgets stayed used up."""
    async with site_at(tmp_path) as site:
        site.hands.set_by_s(step_s)
        await site.core.tick()
        assert (Stop() in site.told) == begins_anew


@in_loop
async def test_who_is_who_and_the_isolations_of_an_hour_stand_when_the_clock_is_set_back_by_years(
    tmp_path: Path,
) -> None:
    mac = bytes.fromhex("020000000005")
    years_s = 5 * 365 * 86_400
    async with site_at(tmp_path) as site:
        core = site.core
        core.devices.spoke(mac, A, T0, is_attached=True, is_asked=True)
        core.devices.leased(Lease(B, mac, 0, T0 - (years_s - 3_600) * SECOND, "lap"))
        core.acquaintances.met(A, T0, mac)
        core.rulings.leave._isolated_us = [T0 - 2 * SECOND] * 5
        site.hands.set_by_s(-years_s)
        await core.tick()
        now_us = core.clock.now_us()
        assert core.devices.now_us == now_us
        assert core.devices.device_of(A, now_us) == mac
        assert set(core.devices.addresses_of(mac, now_us - SECOND)) == {A, B}
        assert core.acquaintances.macs_since_us == now_us
        site.hands.pass_s(3_600)
        assert core.rulings.leave._isolated_us[0] <= core.clock.now_us() - 3_600 * SECOND


@in_loop
async def test_a_try_after_the_clock_was_set_back_counts_after_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(X)))
        site.hands.set_by_s(-7_200)
        await site.core.tick()
        site.hands.pass_s(60)
        site.sees(attempt(A, 60 - 7_200, found=LISTED))
        assert site.core.register.by_id["D1"].held[address(X)].tried
        await site.core.scribe.settled()
        hands = site.hands
    async with site_at(tmp_path, hands=hands) as again:
        hands.pass_s(600)
        await again.core.tick()
        assert again.core.register.by_id["D1"].held[address(X)].state == ACTIVE


@pytest.mark.parametrize("wrong_s", [60 - T0 // SECOND, 70 * 365 * 86_400])
@in_loop
async def test_a_start_before_the_time_server_has_set_the_clock_keeps_terms_as_long(
    tmp_path: Path, wrong_s: int
) -> None:
    """A gateway without a battery boots in 1970, or in 2099, and egressd starts before the network."""
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(X)))
        await site.do("isolate", client="10.0.0.5", for_s=3_600)
        await site.do("allow", what="fine.example", for_s=3_600)
        site.hands.pass_s(60)
        await site.core.tick()
        await site.core.scribe.settled()
        hands = site.hands
    hands.set_by_s(wrong_s)
    async with site_at(tmp_path, hands=hands) as again:
        await again.core.tick()
        assert len(again.rules()) == 3
        hands.pass_s(30)
        hands.set_by_s(-wrong_s)
        await again.core.tick()
        await again.core.scribe.settled()
    async with site_at(tmp_path, hands=hands) as third:  # and so it was written
        await third.core.tick()
        assert (len(third.rules()), len(third.core.entries)) == (3, 1)
        hands.pass_s(540)
        await third.core.tick()
        assert third.rules() == ["registered_domain listed.example", "client 10.0.0.5"]
        hands.pass_s(3_000)
        await third.core.tick()
        assert (third.rules(), third.core.entries) == (["registered_domain listed.example"], [])


@pytest.mark.parametrize("step_s", [-7_200, 7_200])
@in_loop
async def test_a_step_of_the_clock_counts_once_over_a_restart(tmp_path: Path, step_s: int) -> None:
    async with site_at(tmp_path) as site:
        await site.do("isolate", client="10.0.0.5", for_s=3_600)
        site.hands.set_by_s(step_s)
        await site.core.tick()
        await site.core.scribe.settled()
        hands = site.hands
    hands.pass_s(10)
    async with site_at(tmp_path, hands=hands) as again:
        await again.core.tick()
        hands.pass_s(3_580)
        await again.core.tick()
        assert again.rules() == ["client 10.0.0.5"]
        hands.pass_s(20)
        await again.core.tick()
        assert again.rules() == []


@pytest.mark.parametrize("step_s", [0, 40 * 86_400, -40 * 86_400])
@in_loop
async def test_what_an_allowance_lifted_stands_again_when_the_clock_was_set(tmp_path: Path, step_s: int) -> None:
    """What was lifted a minute ago counted as lifted more than thirty days ago, and was forgotten."""
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(X)))
        await site.do("allow", what="listed.example")
        assert site.rules() == []
        site.hands.set_by_s(step_s)
        await site.core.tick()
        site.hands.pass_s(31 * 86_400 if step_s < 0 else 0)
        await site.do("undo")
        stands = ["registered_domain listed.example", "address 198.51.100.7"]
        assert site.rules() == ([] if step_s < 0 else stands)
