"""A block that keeps nobody from anything, because its addresses are protected or shared, is said to be one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from egressd.cli.client import Answer
from egressd.cli.hosts import render_hosts
from egressd.cli.incidents import _one, render_incidents
from egressd.cli.watch import render_watch, render_watches
from egressd.model import Target
from egressd.runtime import alarms, screens
from egressd.store import ledger, meta, spared
from egressd.store.unread import Unread
from tests.loops import in_loop
from tests.runtime.core_scene import Site, site_at
from tests.runtime.scene import A, X, about, address, attempt, match, sighting, verdict

LISTED = match("c2.listed.example")
OURS = about("listed.example")
WHY = "198.51.100.7 is protected (resolvers.txt:6: public resolver)"
WARNING = "D1 keeps nobody from listed.example: protected or shared; egressd explain --live listed.example"


async def blocked(site: Site) -> bool | None:
    await site.core.scribe.settled()
    (host,) = (await screens.hosts(site.core))["hosts"]
    told: bool | None = host["blocked"]
    return told


@in_loop
async def test_what_no_list_names_any_more_is_not_said_to_be_in_contact(tmp_path: Path) -> None:
    """A wrong line was taken out, and the hosts that had gone there stayed `in contact`, with what to isolate."""
    async with site_at(tmp_path) as site:
        site.sees(sighting(A, "c2.listed.example", found=LISTED), verdict("D1", "block", OURS, found=LISTED))
        await site.core.scribe.settled()
        assert "1 blocked" in "\n".join(await hosts_screen(site))
        (tmp_path / "csirt.txt").write_text("c2.listed.example scope=host\n")
        await site.core.reload()
        await site.core.scribe.settled()
        assert "1 in contact" in "\n".join(await hosts_screen(site)), "its name is listed still"
        (tmp_path / "csirt.txt").write_text("other.example\n")
        await site.core.reload()
        await site.core.scribe.settled()
        lines = await hosts_screen(site)
        assert lines[1] == "  1 not listed" and "not listed: no list names any more what it reached." in lines
        assert not any("isolate" in line for line in lines)
        got = Answer(await screens.incidents(site.core, None, None), "enforce", 1, "", ())
        assert any("(host, not listed any more)" in line for line in render_incidents(got, 0, 40))
        assert any("no list names it any more" in line for line in _one("I1", got, 0))


async def hosts_screen(site: Site) -> list[str]:
    got = Answer(await screens.hosts(site.core), "enforce", 1, "", ())
    return render_hosts(got, site.core.clock.now_us(), 40)


@in_loop
async def test_of_a_listed_page_nobody_is_told_that_it_is_blocked(tmp_path: Path) -> None:
    """The journal said BLOCKED of a request that was answered, and `watch` active."""
    async with site_at(tmp_path, lists="http://c2.listed.example/gate\n") as site:
        page = match("c2.listed.example/gate", level="url", kind="url")
        site.sees(sighting(A, "c2.listed.example", found=page))
        site.sees(verdict("D1", "block", Target("url", "c2.listed.example/gate"), found=page))
        assert await blocked(site) is False
        assert site.core.rulings.outcome(page) == "NOT blocked: one page cannot be, list its host (D1)"
        got = Answer(await screens.watch(site.core, "D1"), "enforce", 1, "", ())
        assert render_watch(got, site.core.clock.now_us(), 40)[0] == "D1 name only: url c2.listed.example/gate"
        assert "Nobody is kept from it: one page of a site cannot be blocked; list its host." in render_watch(
            got, 0, 40
        )
        assert not any("keeps nobody" in one for one in alarms.warnings(site.core)), "who lists a page was told"


@in_loop
async def test_what_kept_nobody_from_anything_does_not_when_its_list_is_back(tmp_path: Path) -> None:
    """It stood again, and was said to be BLOCKED until its host asked again and was answered."""
    async with site_at(tmp_path) as site:
        site.sees(
            sighting(A, "b.listed.example", found=LISTED), verdict("D1", "block", OURS, found=LISTED),
            verdict("D1", "refuse", address(X), rule="protected", found=LISTED, reason=WHY),
        )  # fmt: skip
        for listed in ("c2.listed.example\n", "other.example\n", "c2.listed.example\n"):
            (tmp_path / "csirt.txt").write_text(listed)
            await site.core.reload()
        (again,) = site.core.register.by_id
        assert site.core.rulings.outcome(LISTED) == f"NOT blocked: all that {again} led to is protected or shared"
        assert again != "D1" and await blocked(site) is False
        await site.core.scribe.settled()
        kept = await site.core.ledger.read(spared.load, Unread())
        assert kept == {again: {address(X): WHY}}


@in_loop
async def test_what_reaches_a_protected_address_is_not_said_to_be_kept_out(tmp_path: Path) -> None:
    """`hosts` said STILL TRYING, `watch` active, and `status` nothing, while every connection was answered."""
    async with site_at(tmp_path) as site:
        site.sees(
            sighting(A, "b.listed.example", found=LISTED),
            verdict("D1", "block", about("listed.example"), found=LISTED),
        )
        assert await blocked(site) is True  # no address is known yet
        assert WARNING not in alarms.warnings(site.core)
        site.sees(verdict("D1", "refuse", address(X), rule="protected", found=LISTED, reason=WHY))
        site.sees(attempt(A, 5, first=True, found=LISTED))
        assert await blocked(site) is False
        assert WARNING in alarms.warnings(site.core)
        assert site.core.rulings.outcome(LISTED) == "NOT blocked: all that D1 led to is protected or shared"
        now_us = site.core.clock.now_us()
        hosts = render_hosts(Answer(await screens.hosts(site.core), "enforce", 1, "", ()), now_us, 40)
        assert "  1 NOT BLOCKED" in hosts
        watches = render_watches(Answer(await screens.watch(site.core, None), "enforce", 1, "", ()), now_us, 40)
        (incident,) = (await screens.incidents(site.core, None, None))["incidents"]
        assert "!! NOT BLOCKED: nothing keeps this host from it; egressd decisions D1 says why" in _one(
            "I1", Answer({"incidents": [incident]}, "enforce", 1, "", ()), 0
        )
        assert any(line.startswith("D1 name only listed.example") for line in watches)
        site.sees(verdict("D1", "extend", address("203.0.113.9"), found=LISTED))  # another address may be blocked
        assert await blocked(site) is True
        assert WARNING not in alarms.warnings(site.core)
        (incident,) = (await screens.incidents(site.core, None, None))["incidents"]
        assert (
            incident["blocked"],
            [one for one in _one("I1", Answer({"incidents": [incident]}, "enforce", 1, "", ()), 0) if "BLOCKED" in one],
        ) == (True, [])


@in_loop
async def test_a_watch_says_which_addresses_stay_open(tmp_path: Path) -> None:
    """`watch` said `blocked` and listed sixteen addresses of an answer with twenty-four; the others answered."""
    why = "over 16 addresses in an hour"
    over = [f"203.0.113.{number}" for number in range(1, 6)]
    async with site_at(tmp_path) as site:
        site.sees(
            sighting(A, "b.listed.example", found=LISTED),
            verdict("D1", "block", about("listed.example"), found=LISTED),
            verdict("D1", "extend", address(X), found=LISTED),
            *(verdict("D1", "refuse", address(one), rule="budget", found=LISTED, reason=why) for one in over),
        )
        await site.core.scribe.settled()

        async def lines() -> list[str]:
            got = Answer(await screens.watch(site.core, "D1"), "enforce", 1, "", ())
            return [one for one in render_watch(got, site.core.clock.now_us(), 40) if "more" in one or "!!" in one]

        assert await lines() == [
            *(f"!! not blocked: address {one}: {why}" for one in over[2:]),
            "   and 2 more: egressd explain --live listed.example",
        ]
        # An hour later there is room for it.
        site.sees(*(verdict("D1", "extend", address(one), found=LISTED) for one in over[1:]))
        await site.core.scribe.settled()
        assert await lines() == [f"!! not blocked: address {over[0]}: {why}"]


@in_loop
async def test_a_host_of_which_one_way_is_open_is_not_blocked(tmp_path: Path) -> None:
    """`hosts` said STILL TRYING of a host that ran into one block and reached what waits for a person."""
    async with site_at(tmp_path, lists="c2.listed.example\nother.example\n") as site:
        found = match("other.example")
        site.sees(
            sighting(A, "b.listed.example", found=LISTED),
            verdict("D1", "block", about("listed.example"), found=LISTED),
            verdict("D1", "extend", address(X), found=LISTED),
            sighting(A, "other.example", found=found),
            verdict("D2", "ask", about("other.example"), found=found),
        )
        assert await blocked(site) is False
        told = {one["id"]: one["blocked"] for one in (await screens.incidents(site.core, None, None))["incidents"]}
        assert told == {"I1": True, "I2": False}
        await site.do("approve", id="D2")
        assert await blocked(site) is True
        site.sees(sighting(A, "other.example", 9, found=found))
        await site.do("unblock", what="D2")
        await site.do("isolate", client="10.0.0.5")
        told = {one["id"]: one["blocked"] for one in (await screens.incidents(site.core, None, None))["incidents"]}
        assert told == {"I1": True, "I2": True}


@in_loop
async def test_a_restart_does_not_make_it_hold(tmp_path: Path) -> None:
    """`hosts` said STILL TRYING of what was answered, until the next sighting of the address."""
    async with site_at(tmp_path) as site:
        site.sees(
            sighting(A, "b.listed.example", found=LISTED),
            verdict("D1", "block", about("listed.example"), found=LISTED),
            *[verdict("D1", "refuse", address(X), rule="protected", found=LISTED, reason=WHY)] * 2,
        )
        assert await blocked(site) is False
    async with site_at(tmp_path) as again:
        assert again.core.register.by_id["D1"].spared == {address(X): WHY}
        assert await blocked(again) is False
        assert WARNING in alarms.warnings(again.core)
        again.core.rulings.end(again.core.register.by_id["D1"], "undone", "uid:anna", "socket", "")
        await again.core.scribe.settled()
        assert await again.ledger.read(meta.under, "spared") == {}


@in_loop
async def test_why_some_are_spared_may_be_damaged_or_of_what_has_ended(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(verdict("D1", "block", about("listed.example"), found=LISTED))
        for key, value in (("D1", '[["address"]]'), ("D9", "[]")):
            site.core.scribe.put(meta.put, f"spared {key}", value)
        await site.core.scribe.settled()
    async with site_at(tmp_path) as again:
        assert again.core.register.by_id["D1"].spared == {}
        await again.core.scribe.settled()
        assert set(await again.ledger.read(meta.under, "spared")) == {"D1"}
        found = await again.ledger.read(ledger.load_all, again.core.clock.now_us())
        assert [one for one in found.unread if one.startswith("decision D1: why it spares")] == list(found.unread)


def test_the_journal_says_whose_address_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    """It named the address alone, after a line that said BLOCKED."""
    from types import SimpleNamespace
    from typing import Any

    from egressd.notify.journal import Journal
    from egressd.runtime.tellers import Watchers

    caplog.set_level(logging.WARNING, "egressd")
    clock: Any = SimpleNamespace(now_us=lambda: 0)
    told = verdict("D1", "refuse", address(X), rule="protected", found=LISTED, reason="it is protected")
    Watchers(None, Journal(2), clock).decision(told)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("not blocked (protected): address 198[.]51[.]100[.]7, of ")
    assert line.endswith(" (D1): it is protected")
