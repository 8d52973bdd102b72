"""What people take back: unblock, allow, undo; each audited, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressd.model import Target
from egressd.store import entries
from egressd.units import DAY_S
from egressd.web.requests import INVALID, REFUSED, WRONG
from tests.detect.scene import packed
from tests.loops import in_loop
from tests.runtime.core_scene import BERT, WHY, site_at
from tests.runtime.scene import A, about, address, match, pair, sighting, verdict

LISTED = match("c2.listed.example")
OURS = about("listed.example")
X = "198.51.100.7"


def policy_block(*more: Target, mode: str = "enforce") -> list[Any]:
    """What a packet process tells of a listed name, and of where it led."""
    told = [sighting(found=LISTED), verdict("D1", "block", OURS, found=LISTED, mode=mode)]
    return [*told, verdict("D1", "extend", *more, found=LISTED)] if more else told


def allowed(site: Any, name: str = "", addr: str = "", client: bytes = b"", later_s: int = 0) -> bool:
    now_s = site.core.clock.now_us() // 1_000_000 + later_s
    found = site.core.knowledge.intel.allowances.allows(name, packed(addr) if addr else b"", client, now_s)
    return found is not None


# -- unblock


@pytest.mark.parametrize(
    "what", ["D1", "listed.example", "c2.listed.example", "www.listed.example.", X, f"10.0.0.5>{X[:-1]}8"]
)
@in_loop
async def test_unblock_by_whatever_people_know_of_it(tmp_path: Path, what: str) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(), pair(A, packed("198.51.100.8"))))
        answer = await site.do("unblock", what=what, for_s=3_600)
        assert answer["text"] == f"{what} is not blocked any more for 1h"
        assert answer["lines"] == [
            "D1 is lifted: registered_domain listed.example",
            "E1: listed.example may be reached for 1h",
            "take it back with: egressd undo",
        ]
        assert site.rules() == []
        row = await site.row("D1")
        assert (row.state, row.ended_by, row.ended_reason) == ("undone", "uid:anna", WHY)
        assert allowed(site, "www.listed.example") and not allowed(site, "www.listed.example", later_s=3_600)
        assert {(actor, act, reason) for actor, act, _, reason in await site.audit()} >= {
            ("uid:anna", "end", WHY),
            ("uid:anna", "allow", WHY),
        }
        event = [one["egressd"] for one in site.ears.records if one["event_type"] == "decision"][-1]
        assert (event["action"], event["author"], event["decision_id"]) == ("withdraw", "uid:anna", "D1")


@in_loop
async def test_unblock_what_nothing_blocks(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block())
        for what in ("fine.example", "203.0.113.9", "D9", "?", "10.0.0.0/8"):
            error = await site.refused("unblock", what=what)
            assert (error.code, error.text) == (REFUSED, f"nothing blocks {what} (egressd decisions)")
        assert site.rules() == ["registered_domain listed.example"]
        assert site.core.entries == []


@in_loop
async def test_unblock_takes_a_persons_line_with_it(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="bad.example")
        await site.do("unblock", BERT, what="bad.example")
        assert (site.rules(), site.core.entries) == ([], [])  # nothing else lists it: nothing to allow
        in_force = await site.ledger.read(entries.in_force, site.core.clock.now_us())
        assert in_force == site.core.entries
        assert ("uid:bert", "drop-line", "E1", WHY) in await site.audit()
        assert site.core.knowledge.intel.index.match_name("bad.example", 0) is None


@in_loop
async def test_unblock_for_an_hour_leaves_a_persons_line(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="bad.example")
        await site.do("unblock", what="bad.example", for_s=3_600)
        assert [one.kind for one in site.core.entries] == ["indicator", "allowance"]
        assert (site.rules(), allowed(site, "bad.example")) == ([], True)
        assert not allowed(site, "bad.example", later_s=3_600)


@in_loop
async def test_unblock_what_a_list_names_too_allows_it(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="listed.example")
        await site.do("unblock", what="listed.example")
        assert ([one.kind for one in site.core.entries], site.rules()) == (["allowance"], [])
        assert allowed(site, "www.listed.example")


@in_loop
async def test_unblock_what_cannot_be_allowed_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block())
        monkeypatch.setattr("egressd.runtime.acts.parse_allowances", lambda *_: ([], []))
        before = await site.audit()
        assert (await site.refused("unblock", what="D1")).code == INVALID
        assert site.rules() == ["registered_domain listed.example"]
        assert (await site.audit(), site.core.entries) == (before, [])


@in_loop
async def test_unblock_works_in_monitor_too(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        site.sees(*policy_block())
        await site.do("unblock", what="listed.example")
        assert len(site.core.register) == 0


@in_loop
async def test_unblock_an_isolation_or_a_cut_allows_nothing(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        one = await site.do("isolate", client="10.0.0.5", remedy=["10.9.0.1"])
        other = await site.do("cut", segment="lab", for_s=60, confirm="lab")
        for done in (one, other):
            await site.do("unblock", what=done["decision_id"])
        assert (site.rules(), site.core.entries, site.kernel.remedies) == ([], [], ())


@pytest.mark.parametrize(
    ("line", "found", "target", "value"),
    [
        (X, match(X, "address", "address"), address(), X),
        ("198.51.100.0/24", match("198.51.100.0/24", "address", "network"), Target("network", "198.51.100.0/24"), X),
        (
            "c2.bad.example scope=host",
            match("c2.bad.example", scope="host"),
            Target("host", "c2.bad.example"),
            "c2.bad.example",
        ),
        (
            "c2.bad.example scope=exact",
            match("c2.bad.example", scope="exact"),
            Target("exact", "c2.bad.example"),
            "c2.bad.example",
        ),
    ],
)
@in_loop
async def test_unblock_every_sort(tmp_path: Path, line: str, found: Any, target: Target, value: str) -> None:
    async with site_at(tmp_path, lists=f"{line}\n") as site:
        site.sees(sighting(found=found), verdict("D1", "block", target, found=found))
        await site.do("unblock", what=target.value)
        assert (site.rules(), len(site.core.entries)) == ([], 1)
        assert allowed(site, "" if value == X else value, X if value == X else "")
        assert site.core.knowledge.problems == ()


@in_loop
async def test_unblock_a_url(tmp_path: Path) -> None:
    async with site_at(tmp_path, lists="http://bad.example/x\n") as site:
        found = match("bad.example/x", "url", "url")
        site.sees(sighting(found=found), verdict("D1", "block", Target("url", "bad.example/x"), found=found))
        await site.do("unblock", what="D1")
        assert (site.rules(), len(site.core.entries)) == ([], 1)
        assert allowed(site, "bad.example")  # of a whole host: there are no allowances of urls
        assert site.core.knowledge.problems == ()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reason=st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable() and text.strip()))
def test_any_reason_that_can_be_given_is_kept(tmp_path_factory: pytest.TempPathFactory, reason: str) -> None:
    @in_loop
    async def go(folder: Path) -> None:
        async with site_at(folder) as site:
            await site.do("allow", what="listed.example", reason=reason)
            assert allowed(site, "www.listed.example")
            assert (await site.audit())[-1][3] == reason.strip()
            assert site.core.entries[0].reason == reason.strip()

    go(tmp_path_factory.mktemp("reason"))


@pytest.mark.parametrize("reason", ["x" * 500, '"' * 500, "#" * 500, "owner=" * 80, "é" * 500])
@in_loop
async def test_a_reason_of_any_length_fits_into_the_line(tmp_path: Path, reason: str) -> None:
    async with site_at(tmp_path) as site:
        await site.do("allow", what="listed.example", reason=reason)
        assert allowed(site, "www.listed.example")
        assert site.core.knowledge.problems == ()


# -- allow


@in_loop
async def test_allow_lifts_what_stands_and_undo_lets_it_come_back(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address()))
        answer = await site.do("allow", what="listed.example", for_s=2 * DAY_S)
        assert answer["text"] == "listed.example may be reached for 2d, whatever lists say"
        assert site.rules() == []
        row = await site.row("D1")
        assert (row.state, row.ended_by) == ("withdrawn", "rule:allow-destination")
        assert WHY in row.ended_reason
        undone = await site.do("undo")
        assert undone["lines"][0].startswith("E1 is taken back: allow-destination listed.example")
        assert (site.core.entries, allowed(site, "listed.example")) == ([], False)


@in_loop
async def test_allow_for_one_client(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(pair(A)))
        await site.do("allow", what=X, client="10.0.0.5")
        assert site.rules() == ["registered_domain listed.example"]
        assert allowed(site, addr=X, client=A) and not allowed(site, addr=X)


@in_loop
async def test_allow_for_one_client_frees_what_is_held_for_everybody(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address(), address("198.51.100.8")))
        answer = await site.do("allow", what=X, client="10.0.0.5")
        assert site.rules() == ["registered_domain listed.example", "address 198.51.100.8"]
        assert answer["lines"] == ["E1: take it back with: egressd undo"]


@pytest.mark.parametrize("line", [X, "198.51.100.0/24"])
@in_loop
async def test_allow_for_one_client_says_what_still_stands_in_its_way(tmp_path: Path, line: str) -> None:
    """A block of the address itself is for everybody: the kernel makes no exceptions."""
    async with site_at(tmp_path) as site:
        done = await site.do("block", what=line)
        answer = await site.do("allow", what=X, client="10.0.0.5")
        assert len(site.rules()) == 1
        told = f"{done['decision_id']} blocks {line} itself, for 10.0.0.5 too, until it is lifted"
        assert answer["lines"][1:] == [told]


@pytest.mark.parametrize(
    ("what", "client"),
    [("no name here", None), ("256.1.1.1", None), ("*", None), ("fine.example", "lab"), ("com", None)],
)
@in_loop
async def test_what_cannot_be_allowed_says_why(tmp_path: Path, what: str, client: str | None) -> None:
    async with site_at(tmp_path) as site:
        error = await site.refused("allow", what=what, client=client)
        assert error.code in (INVALID, WRONG) and error.text
        assert (site.core.entries, await site.audit()) == ([], [])


@in_loop
async def test_the_same_line_again_has_the_new_time(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("allow", what="listed.example", for_s=60)
        await site.do("allow", what="listed.example", for_s=DAY_S)
        assert [one.id for one in site.core.entries] == ["E2"]
        assert allowed(site, "listed.example", later_s=3_600)


@in_loop
async def test_a_line_ends_in_its_time(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("allow", what="listed.example", for_s=60)
        await site.do("block", what="bad.example", for_s=60)
        site.hands.pass_s(59)
        await site.core.tick()
        assert len(site.core.entries) == 2
        site.hands.pass_s(2)
        await site.core.tick()
        assert (site.core.entries, site.rules()) == ([], [])
        assert (await site.row("D2")).state == "expired"
