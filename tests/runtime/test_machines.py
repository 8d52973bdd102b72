"""Machines of ours: isolated with what they may still reach, segments cut when the name is typed twice, both undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressd.detect.devices import Lease
from egressd.runtime import alarms
from egressd.runtime.orders import Adopt
from egressd.web.requests import REFUSED, WRONG
from tests.detect.scene import packed
from tests.loops import in_loop
from tests.runtime.core_scene import CONFIG, WHY, flow, site_at
from tests.runtime.scene import sighting

X = "198.51.100.7"
MAC = bytes.fromhex("020000000001")


@in_loop
async def test_isolate_and_release(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        answer = await site.do("isolate", client="10.0.0.5", remedy=["10.9.0.1", "2001:db8:9::/64"], for_s=3_600)
        assert answer["text"] == "10.0.0.5 is isolated for 1h"
        assert "10.9.0.1" in answer["lines"][-1]
        assert site.core.register.isolated() == {"10.0.0.5": answer["decision_id"]}
        assert site.kernel.remedies == ((packed("10.9.0.1"), 32), (packed("2001:db8:9::"), 64))
        assert all(not order.standing for order in site.told if isinstance(order, Adopt))
        error = await site.refused("isolate", client="10.0.0.5")
        assert error.text == f"10.0.0.5 is isolated already by {answer['decision_id']}"
        released = await site.do("release", client="10.0.0.5")
        assert released["text"] == "10.0.0.5 is released"
        assert (site.rules(), site.kernel.remedies) == ([], ())
        assert [(actor, act) for actor, act, _, _ in await site.audit()] == [
            ("uid:anna", "isolate"),
            ("uid:anna", "end"),
        ]
        assert "not isolated" in (await site.refused("release", client="10.0.0.5")).text


@pytest.mark.parametrize(
    ("client", "remedy", "code"),
    [
        ("lab", [], WRONG), ("10.0.0.0/24", [], WRONG), ("10.0.0.5", ["updates"], WRONG), ("192.0.2.1", [], REFUSED),
        ("10.0.0.5", ["10.9.0.1", "0.0.0.0/0"], WRONG), ("10.0.0.5", ["8000::/1"], WRONG),
        ("10.0.0.5", ["10.9.0.1/8"], WRONG),
    ],
)  # fmt: skip
@in_loop
async def test_who_cannot_be_isolated(tmp_path: Path, client: str, remedy: list[str], code: int) -> None:
    async with site_at(tmp_path) as site:
        site.core.station.own = ((packed("192.0.2.1"), 32),)
        assert (await site.refused("isolate", client=client, remedy=remedy)).code == code
        assert len(site.core.register) == 0


@in_loop
async def test_a_cut_segment_that_the_configuration_does_not_name_any_more(tmp_path: Path) -> None:
    """It was `not cut`, while nobody in it reached anything."""
    async with site_at(tmp_path) as site:
        cut = (await site.do("cut", segment="both", confirm="both", for_s=60))["decision_id"]
        moved = CONFIG.replace("10.2.0.0/24", "10.2.0.0/25").replace("2001:db8:2::/64", "2001:db8:3::/64")
        for text, told in (
            (CONFIG.replace("both:", "half:"), "there is no segment both"),
            (moved, "both is not cut"),
        ):
            site.path.write_text(text)
            await site.do("reload")
            error = await site.refused("uncut", segment="both")
            assert error.text.startswith(told) and error.text.endswith(f"egressd undo {cut}")
        await site.do("undo", id=cut)
        assert (await site.refused("uncut", segment="both")).text == "both is not cut"


@in_loop
async def test_nobody_outside_is_isolated(tmp_path: Path) -> None:
    """An isolated 8.8.8.8 would be a resolver that nobody reaches, though it is protected from every block."""
    async with site_at(tmp_path) as site:
        for client in ("8.8.8.8", X, "2001:db8:8::1"):
            error = await site.refused("isolate", client=client)
            assert (error.code, error.text.partition(" is outside")[0]) == (REFUSED, client)
            assert f"egressd block {client} --reason" in error.text and "segments:" in error.text
        assert site.rules() == []
        await site.do("isolate", client="2001:db8:2::1")  # of a segment
        assert site.rules() == ["client 2001:db8:2::1"]


@in_loop
async def test_packets_that_came_under_it_make_no_server_a_host_of_ours(tmp_path: Path) -> None:
    """Whoever sent one under its address had a person cut it off from everybody: it had an incident, and a MAC."""
    async with site_at(tmp_path) as site:
        site.sees(sighting(packed(X)))
        site.core.devices.spoke(MAC, packed(X), site.core.clock.now_us(), is_attached=True)
        assert X in (await site.refused("isolate", client=X)).text
        site.core.devices.leased(Lease(packed(X), MAC, site.core.clock.now_us(), 0, ""))
        await site.do("isolate", client=X)  # our own DHCP server gave it
        assert site.rules() == [f"client {X}"]


@in_loop
async def test_remedies_end_with_the_isolation(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("isolate", client="10.0.0.5", remedy=["10.9.0.1"], for_s=60)
        site.hands.pass_s(61)
        await site.core.tick()
        await site.core.renew()
        assert (site.rules(), site.core.isolation.remedies, site.kernel.remedies) == ([], {}, ())


@in_loop
async def test_cut_says_what_it_would_do_and_does_it_when_confirmed(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.kernel.open = [flow("10.2.0.9", X)] * 3 + [flow("10.2.0.8", X, is_open=False)]
        shown = await site.do("cut", segment="both", for_s=3_600)
        assert shown["text"] == "this would cut off both for 1h"
        assert shown["lines"][0] == "segment both: 10.2.0.0/24, 2001:db8:2::/64"
        assert f"flow 10.2.0.9:50000 > {X}:443" in shown["lines"]
        assert shown["lines"][1].startswith("3 established flows")  # what is closing is none
        assert (site.rules(), await site.audit()) == ([], [])
        wrong = await site.refused("cut", segment="both", for_s=3_600, confirm="lab")
        assert (wrong.code, site.rules()) == (WRONG, [])
        done = await site.do("cut", segment="both", for_s=3_600, confirm="both")
        assert done["text"] == "segment both is cut off for 1h"
        assert site.rules() == ["segment 10.2.0.0/24", "segment 2001:db8:2::/64"]
        assert site.core.register.cut() == {done["decision_id"]: ["10.2.0.0/24", "2001:db8:2::/64"]}
        assert "cut already" in (await site.refused("cut", segment="both", for_s=60, confirm="both")).text
        assert (await site.do("uncut", segment="both"))["text"] == "segment both is connected again"
        assert (site.rules(), (await site.row(done["decision_id"])).state) == ([], "undone")
        assert [(actor, act, reason) for actor, act, _, reason in await site.audit()] == [
            ("uid:anna", "cut", WHY),
            ("uid:anna", "end", WHY),
        ]
        assert "is not cut" in (await site.refused("uncut", segment="both")).text


@in_loop
async def test_who_comes_on_duty_sees_what_is_cut_off_and_how_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`status` had a 1 in the middle of its screen, and the journal nothing."""
    async with site_at(tmp_path) as site:
        await site.do("cut", segment="both", for_s=3_600, confirm="both")
        await site.do("isolate", client="10.0.0.5")
        alarm = "SEGMENT both is CUT OFF until 2023-11-14 23:13 UTC, by uid:anna: egressd undo D2"
        assert alarm in alarms.warnings(site.core)
        await site.do("uncut", segment="both")
        assert not any("CUT OFF" in one for one in alarms.warnings(site.core))
        await site.do("panic")
        assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"][:5] == [
            f"segment 10.2.0.0/24 is cut off by uid:anna (D2): {WHY}",
            f"client 10.0.0.5 is isolated by uid:anna (D4): {WHY}",
            f"segment 10.2.0.0/24 is connected again by uid:anna (D2): {WHY}",
            f"client 10.0.0.5 is connected again by uid:anna (D4): {WHY}",
            f"PANIC by uid:anna, 1 decision lifted, nothing is blocked: {WHY}",
        ]


@in_loop
async def test_cut_in_monitor_may_be_looked_at(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        site.kernel.blind = "conntrack is not there"
        shown = await site.do("cut", segment="lab", for_s=60)
        assert "what still flows cannot be told: conntrack is not there" in shown["lines"]
        unknown = await site.refused("cut", segment="lib", for_s=60)
        assert (unknown.code, unknown.text) == (WRONG, "there is no segment lib; there are: lab, both")


@in_loop
async def test_a_cut_of_two_networks_ends_by_itself(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("cut", segment="both", for_s=60, confirm="both")
        site.hands.pass_s(61)
        await site.core.tick()
        assert site.rules() == []
