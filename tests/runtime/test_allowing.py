"""Allowances against what stands: each kind lifts at once and says so, and what it lifted stands again when it goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressd.detect.rules import ASK
from egressd.intel.allowances import KINDS
from egressd.model import Target
from egressd.runtime import screens
from egressd.runtime.allowing import UNLISTED_US
from egressd.runtime.orders import Adopt, End, Swap
from egressd.store.decision_rows import UNLISTED
from egressd.store.decisions import ACTIVE, PROPOSED
from egressd.store.ledger import LIFTED_US
from egressd.units import DAY_US
from tests.detect.scene import packed
from tests.loops import in_loop
from tests.runtime.core_scene import BERT, CONFIG, WHY, Site, site_at
from tests.runtime.scene import SECOND, T0, A, B, Hands, X, Y, address, match, pair, sighting, verdict
from tests.runtime.test_core import OURS

_MADE = match("c2.listed.example")
LISTED = _MADE._replace(indicator=_MADE.indicator._replace(source="csirt.txt", threat="", confidence=100))
ALLOW = CONFIG + "allow: [allow.txt]\n"
WHO = 'owner=noc reason="a partner"'
LINES = {
    "ignore-indicator": "ignore-indicator c2.listed.example",
    "allow-destination": "allow-destination listed.example",
    "ignore-client": "ignore-client 10.0.0.5",
    "never-block": "never-block listed.example",
}
COVERED = ["address 198.51.100.7", "pair 10.0.0.5>198.51.100.8", "registered_domain listed.example"]
ENDED: dict[str, list[str]] = {"never-block": []}  # whose contacts were told of all the same
LEFT = {"ignore-client": ["address 198.51.100.7", "registered_domain listed.example"]}  # of the other kinds: nothing


@asynccontextmanager
async def allowing(
    folder: Path, *lines: str, mode: str = "enforce", hands: Hands | None = None, lists: str = "c2.listed.example\n"
) -> AsyncIterator[Site]:
    """A site with an allowances file of `lines`."""
    write(folder, *lines)
    async with site_at(folder, mode, ALLOW, lists, hands) as site:
        yield site


def when(second: int) -> str:
    """An `expires=` time, after the clock's first second."""
    return f"{datetime.fromtimestamp(T0 // SECOND + second, UTC):%Y-%m-%dT%H:%M:%SZ}"


def write(folder: Path, *lines: str) -> None:
    (folder / "allow.txt").write_text("".join(f"{line} {WHO}\n" for line in lines))


def blocks(site: Site, mode: str = "enforce") -> None:
    """Policy has blocked a name, an address and a pair; two hosts are infected."""
    site.sees(
        sighting(found=LISTED), sighting(B, found=LISTED), verdict("D1", "block", OURS, found=LISTED, mode=mode),
        verdict("D1", "extend", address(X), pair(A, Y), found=LISTED, mode=mode),
    )  # fmt: skip


async def notes(site: Site) -> dict[str, list[str]]:
    await site.core.scribe.settled()
    told = await screens.incidents(site.core, None, None)
    return {one["client"]: [note["text"] for note in one["notes"]] for one in told["incidents"]}


def events(site: Site) -> list[dict[str, Any]]:
    found = [one["egressd"] for one in site.ears.records if one["event_type"] == "decision"]
    return [one for one in found if one["decision_id"] != "D1"]


def newest(site: Site) -> str:
    return max(site.core.register.by_id, key=lambda id_: int(id_[1:]))


# -- each kind, by file


@pytest.mark.parametrize("restarts", ["never", "while it is allowed", "while the line goes"])
@pytest.mark.parametrize("kind", KINDS)
@in_loop
async def test_a_line_lifts_and_its_end_brings_back(tmp_path: Path, kind: str, restarts: str) -> None:
    hands = Hands()
    async with allowing(tmp_path, hands=hands) as site:
        blocks(site)
        assert sorted(site.rules()) == COVERED
        write(tmp_path, LINES[kind])
        await site.do("reload")
        assert sorted(site.rules()) == LEFT.get(kind, [])
        if kind not in LEFT:
            row = await site.row("D1")
            assert (row.state, row.ended_by, row.ended_from) == ("withdrawn", f"rule:{kind}", "active")
            assert row.ended_reason == f"{LINES[kind]} (allow.txt:1: a partner)"
        await site.core.scribe.settled()
        if restarts == "never":
            write(tmp_path)
            await site.do("reload")
            await says_again(site, kind)
            return
    hands.pass_s(3_600)
    async with allowing(tmp_path, *([LINES[kind]] if restarts == "while it is allowed" else []), hands=hands) as site:
        if restarts == "while it is allowed":
            assert sorted(site.rules()) == LEFT.get(kind, [])
            write(tmp_path)
            await site.do("reload")
        await says_again(site, kind)


@in_loop
async def test_what_is_never_blocked_below_a_blocked_name_lifts_the_block_of_the_whole(tmp_path: Path) -> None:
    """As a new block of the whole would not be made (`never_block_inside_what_would_be_blocked`)."""
    line = "never-block www.listed.example"
    async with allowing(tmp_path) as site:
        blocks(site)
        write(tmp_path, line)
        await site.do("reload")
        row = await site.row("D1")
        assert (site.rules(), row.state, row.ended_by) == ([], "withdrawn", "rule:never-block")
        lifted = f"D1 lifted ({line} (allow.txt:1: a partner) lies in listed.example)"
        assert await notes(site) == {"10.0.0.5": [lifted], "10.0.0.6": [lifted]}
        await site.core.scribe.settled()
    async with allowing(tmp_path, line) as site:
        assert site.rules() == []
        write(tmp_path)
        await site.do("reload")
        assert sorted(site.rules()) == COVERED
        why = f"this has ended: {line} (allow.txt:1: a partner) lies in listed.example"
        assert (await site.row(newest(site))).reason == f"D1 stands again, for {why}"
        assert (await notes(site))["10.0.0.5"] == [lifted, f"{newest(site)} blocks again (it was D1) ({why})"]


async def says_again(site: Site, kind: str) -> None:
    """Everything is covered as it was, and whoever asks is told."""
    assert sorted(site.rules()) == COVERED
    said = await notes(site)
    since = "allowed since 2023-11-14 22:13 UTC by noc (a partner), "
    name = f"{LINES[kind]} of noc: a partner"
    if kind == "ignore-client":
        assert newest(site) == "D1"
        assert said["10.0.0.5"] == [
            f"{since}{LINES[kind]}: D1 lets 198.51.100.8 be reached",
            f"no longer allowed ({name}): D1 blocks 198.51.100.8 again",
        ]
        assert said["10.0.0.6"] == []
        return
    again = newest(site)
    lines = [f"{since}{LINES[kind]}: D1 lifted", f"no longer allowed ({name}): {again} blocks again (it was D1)"]
    assert said == {"10.0.0.5": lines, "10.0.0.6": lines}
    row = await site.row(again)
    assert (row.author, row.state, row.rule, row.evidence) == ("policy", "active", "level-host", "E1")
    assert row.reason == f"D1 stands again, for this has ended: {LINES[kind]} (allow.txt:1: a partner)"
    (event,) = [one for one in events(site) if one["action"] == "block"]
    assert (event["decision_id"], event["reason"], event["targets"]) == (
        again,
        row.reason,
        [{"kind": "registered_domain", "value": "listed.example"}],
    )
    told = await screens.watch(site.core, None)  # that of before has ended, that of now has begun
    assert [(one["decision_id"], len(one["addresses"])) for one in told["watches"]] == [(again, 2)]


@pytest.mark.parametrize("kind", KINDS)
@in_loop
async def test_in_the_second_in_which_a_line_is_over_nobody_edits_anything(tmp_path: Path, kind: str) -> None:
    hands = Hands()
    async with allowing(tmp_path, hands=hands) as site:
        blocks(site)
        write(tmp_path, f"{LINES[kind]} expires={when(60)}")
        await site.do("reload")
        asked: list[Any] = []
        site.core.on_news = asked.append
        hands.pass_s(59)
        await site.core.tick()
        assert sorted(site.rules()) == LEFT.get(kind, [])
        assert asked == []
        hands.pass_s(1)
        await site.core.tick()
        assert sorted(site.rules()) == COVERED
        (found,) = asked  # who went there meanwhile is searched for, and nobody else
        assert [f"{one.kind} {one.value}" for one in found.ended] == ENDED.get(kind, [LINES[kind]])
        await site.core.tick()
        assert asked == [found]


@pytest.mark.parametrize("kind", KINDS)
@in_loop
async def test_a_line_that_was_over_when_the_daemon_was_down(tmp_path: Path, kind: str) -> None:
    hands = Hands()
    line = f"{LINES[kind]} expires={when(60)}"
    async with allowing(tmp_path, hands=hands) as site:
        blocks(site)
        write(tmp_path, line)
        await site.do("reload")
        await site.core.scribe.settled()
    hands.pass_s(120)
    async with allowing(tmp_path, line, hands=hands) as site:
        assert sorted(site.rules()) == COVERED


# -- by command


@pytest.mark.parametrize("restarted", [False, True])
@in_loop
async def test_an_operators_allowance_lifts_says_so_and_ends(tmp_path: Path, restarted: bool) -> None:
    hands = Hands()
    async with site_at(tmp_path, hands=hands) as site:
        blocks(site)
        site.told.clear()
        answer = await site.do("allow", what="listed.example", for_s=60)
        assert answer["lines"][-1] == "D1 is lifted: registered_domain listed.example"
        assert [type(one) for one in site.told] == [Swap, End]
        assert site.rules() == []
        await site.core.scribe.settled()
        if not restarted:
            hands.pass_s(60)
            site.told.clear()
            await site.core.tick()
            assert [type(one) for one in site.told] == [Swap, Adopt, Adopt]
            assert site.told[-1].standing[0].addresses == (X,)  # type: ignore[union-attr]
            assert sorted(site.rules()) == COVERED
            return
    async with site_at(tmp_path, hands=hands) as site:
        assert site.rules() == []
        hands.pass_s(60)
        await site.core.tick()
        assert sorted(site.rules()) == COVERED
        assert [len(one) for one in (await notes(site)).values()] == [2, 2]


@in_loop
async def test_undo_of_an_allowance_blocks_again(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        blocks(site)
        await site.do("allow", what="listed.example")
        answer = await site.do("undo")
        assert answer["lines"] == [
            f'E1 is taken back: allow-destination listed.example owner="uid:anna" reason="{WHY}"',
            f"{newest(site)} stands again: registered_domain listed.example",
        ]
        assert sorted(site.rules()) == COVERED
        assert site.core.register.by_id[newest(site)].held[address(X)].expires_us == T0 + 600 * SECOND


@in_loop
async def test_an_allowance_for_one_client_frees_what_it_must_and_all_comes_back(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        blocks(site)
        await site.do("allow", what="listed.example", client="10.0.0.5")
        assert site.rules() == ["registered_domain listed.example"]
        said = await notes(site)
        assert said["10.0.0.5"][0].endswith("D1 lets 198.51.100.7 be reached; D1 lets 198.51.100.8 be reached")
        assert len(said["10.0.0.6"]) == 1 and said["10.0.0.6"][0].startswith("D1 lets 198.51.100.7 be reached (")
        await site.do("undo")
        assert sorted(site.rules()) == COVERED
        assert newest(site) == "D1"
        assert (await notes(site))["10.0.0.6"][1].startswith("D1 blocks 198.51.100.7 again (")


@in_loop
async def test_what_a_person_blocked_and_another_allowed(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="203.0.113.9", for_s=3_600)
        await site.do("block", what="203.0.113.8", client="10.0.0.5")
        before = site.rules()
        for what in ("203.0.113.9", "203.0.113.8"):
            await site.do("allow", BERT, what=what)
        assert site.rules() == []
        for _ in range(2):
            await site.do("undo", BERT)
        assert sorted(site.rules()) == sorted(before)
        (listed,) = [d for d in site.core.register.by_id.values() if d.target.kind == "address"]
        assert listed.held[listed.target].expires_us == T0 + 3_600 * SECOND


@in_loop
async def test_traffic_that_is_quicker_than_the_clock(tmp_path: Path) -> None:
    """A packet process decides anew in the second in which an allowance ends: what was known of it is not lost."""
    async with site_at(tmp_path) as site:
        blocks(site)
        await site.do("allow", what="listed.example", for_s=60)
        site.hands.pass_s(60)
        site.sees(verdict("D3", "block", OURS, found=LISTED, second=60))
        await site.core.tick()
        assert list(site.core.register.by_id) == ["D3"]
        assert sorted(site.rules()) == COVERED


@in_loop
async def test_an_incident_that_opens_under_an_allowance_is_not_told_since_when(tmp_path: Path) -> None:
    async with allowing(tmp_path, LINES["never-block"]) as site:
        site.sees(sighting(found=LISTED))
        await site.core.renew()
        assert (await notes(site)) == {"10.0.0.5": []}
        write(tmp_path, LINES["never-block"], "never-block other.example")
        await site.do("reload")
        assert (await notes(site)) == {"10.0.0.5": ["allowed by noc (a partner), never-block listed.example"]}


# -- what does not come back


@in_loop
async def test_what_a_person_lifted_stays_lifted(tmp_path: Path) -> None:
    """By its allowance for an hour it would be held off; after that traffic may bring it back, and nothing else."""
    hands = Hands()
    async with site_at(tmp_path, hands=hands) as site:
        blocks(site)
        await site.do("allow", what="listed.example", for_s=60)
        hands.pass_s(60)
        await site.core.tick()
        again = newest(site)
        await site.do("unblock", what=again, for_s=60)
        hands.pass_s(60)
        await site.core.tick()
        assert site.rules() == []
        await site.core.scribe.settled()
    async with site_at(tmp_path, hands=hands) as site:
        assert site.rules() == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("how", ["unlisted", "protected", "too old", "over"])
@in_loop
async def test_what_may_not_stand_again_does_not(tmp_path: Path, how: str, restarted: bool) -> None:
    hands = Hands()
    mine = "203.0.113.9"
    async with allowing(tmp_path, hands=hands) as site:
        await site.do("block", what=mine, for_s=3_600 if how == "over" else 100 * 86_400)
        write(tmp_path, f"never-block {mine}")
        await site.do("reload")
        assert site.rules() == []
        if how == "unlisted":
            await site.do("undo")
        if how == "protected":
            (tmp_path / "egressd.yaml").write_text(ALLOW + f"protected: [{mine}]\n")
        hands.pass_s({"too old": LIFTED_US // SECOND + 1, "over": 3_600}.get(how, 1))
        write(tmp_path)
        if not restarted:
            await site.do("reload")
            assert site.rules() == []
            return
        await site.core.scribe.settled()
    config = ALLOW + (f"protected: [{mine}]\n" if how == "protected" else "")
    async with site_at(tmp_path, "enforce", config, "c2.listed.example\n", hands) as site:
        assert site.rules() == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("how", ["at once", "a person lifted it", "narrower", "too late"])
@in_loop
async def test_a_list_that_was_away_brings_back_what_stood(tmp_path: Path, how: str, restarted: bool) -> None:
    """A file was deleted by mistake and put back a minute later: incidents stood open, and every address that had been
    found out was open too, until somebody asked for the name again; a connection by address never does."""
    hands = Hands()
    lists = tmp_path / "csirt.txt"
    listed = "c2.listed.example scope=host\n" if how == "narrower" else "c2.listed.example\n"
    async with site_at(tmp_path, hands=hands) as site:
        blocks(site)
        if how == "a person lifted it":
            await site.do("undo", id="D1")
        lists.write_text("other.example\n")
        await site.do("reload")
        assert site.rules() == []
        if how != "a person lifted it":
            row = await site.row("D1")
            assert (row.state, row.ended_by, row.ended_from) == ("withdrawn", UNLISTED, "active")
        hands.pass_s(UNLISTED_US // SECOND + 1 if how == "too late" else 60)
        if not restarted:
            lists.write_text(listed)
            await site.do("reload")
            await stands(site, how == "at once")
            return
        await site.core.scribe.settled()
    async with site_at(tmp_path, lists=listed, hands=hands) as site:
        await stands(site, how == "at once")


@pytest.mark.parametrize("restarted", [False, True])
@in_loop
async def test_a_list_that_comes_and_goes_is_one_note_and_all_of_it_in_the_audit(
    tmp_path: Path, restarted: bool
) -> None:
    """Fifty times in a day, and nothing was left of what people had written."""
    hands = Hands()
    lists = tmp_path / "csirt.txt"
    async with site_at(tmp_path, hands=hands) as site:
        blocks(site)
        await flaps(site, lists, hands, 3)
        said = {one: ["blocks again (it is listed again); 3 times within a day"] for one in ("10.0.0.5", "10.0.0.6")}
        assert await notes(site) == said
        rows = [(actor, act) for actor, act, *_ in await site.audit()]
        assert (rows.count(("rule:unlisted", "end")), rows.count(("policy", "block"))) == (3, 4)
    if restarted:
        async with site_at(tmp_path, lists="c2.listed.example\n", hands=hands) as site:
            await flaps(site, lists, hands, 1)
            assert (await notes(site))["10.0.0.5"] == ["blocks again (it is listed again); 4 times within a day"]
            hands.pass_s(DAY_US // SECOND)
            await flaps(site, lists, hands, 1)
            assert (await notes(site))["10.0.0.5"][1:] == ["blocks again (it is listed again)"]


async def flaps(site: Site, lists: Path, hands: Hands, times: int) -> None:
    """A list is gone and back."""
    for _ in range(times):
        for text in ("other.example\n", "c2.listed.example\n"):
            hands.pass_s(60)
            rewrite(lists, text)
            await site.do("reload")


def rewrite(lists: Path, text: str) -> None:
    lists.write_text(text)


@pytest.mark.parametrize(
    ("csirt", "other"),
    [("other.example\n", "c2.listed.example\n"), ("c2.listed.example confidence=30\n", "")],
    ids=["another list", "with less confidence"],
)
@in_loop
async def test_what_is_listed_otherwise_than_it_was_is_for_the_policy_to_judge(
    tmp_path: Path, csirt: str, other: str
) -> None:
    """A wrong line was taken out; that a weak source named the site within the day blocked it for everybody again,
    though the policy only alerts on what that says."""
    (tmp_path / "weak.txt").write_text("")
    async with site_at(tmp_path, config=CONFIG.replace("[csirt.txt]", "[csirt.txt, weak.txt]")) as site:
        blocks(site)
        for lists in (("other.example\n", ""), (csirt, other)):
            for name, text in zip(("csirt.txt", "weak.txt"), lists, strict=True):
                (tmp_path / name).write_text(text)
            await site.do("reload")
        assert site.core.knowledge.intel.index.match_name("c2.listed.example", T0 // SECOND) is not None
        assert site.rules() == []
        (tmp_path / "csirt.txt").write_text("c2.listed.example\n")
        await site.do("reload")
        await stands(site, True)


@in_loop
async def test_what_a_person_blocks_while_a_list_is_away_covers_what_they_said(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        blocks(site)
        (tmp_path / "csirt.txt").write_text("other.example\n")
        await site.do("reload")
        await site.do("block", what="listed.example")
        await site.do("reload")
        assert site.rules() == ["registered_domain listed.example"]


async def stands(site: Site, again: bool) -> None:
    assert sorted(site.rules()) == (COVERED if again else [])
    if again:
        id_ = newest(site)
        assert id_ != "D1" and (await site.row(id_)).reason == "D1 stands again, for it is listed again"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("approved", [False, True])
@in_loop
async def test_what_a_rule_leaves_to_a_person_is_left_to_one_however_often_its_list_was_away(
    tmp_path: Path, approved: bool, restarted: bool
) -> None:
    """It came back as a block that waits, and the next time as one that does not: nobody had said yes."""
    hands = Hands()
    lists = tmp_path / "csirt.txt"
    async with site_at(tmp_path, hands=hands) as site:
        site.sees(sighting(found=LISTED), verdict("D1", ASK, OURS, found=LISTED))
        if approved:
            await site.do("approve", id="D1")
        for _ in range(3):
            lists.write_text("other.example\n")
            await site.do("reload")
            assert not site.core.register.by_id
            lists.write_text("c2.listed.example\n")
            await site.do("reload")
            (again,) = site.core.register.by_id.values()
            assert (again.state, again.action) == (ACTIVE if approved else PROPOSED, ASK)
            assert events(site)[-1]["action"] == ("block" if approved else ASK)
            if restarted:
                break
        await site.core.scribe.settled()
    async with site_at(tmp_path, lists="c2.listed.example\n", hands=hands) as site:
        (again,) = site.core.register.by_id.values()
        assert (again.state, again.action) == (ACTIVE if approved else PROPOSED, ASK)


@in_loop
async def test_what_was_shared_stays_free(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        blocks(site)
        site.sees(verdict("D1", "withdraw", address(X), found=LISTED, rule="shared", reason="an innocent site"))
        await site.do("allow", what="listed.example")
        await site.do("undo")
        assert sorted(site.rules()) == COVERED[1:]


@in_loop
async def test_another_allowance_still_holds(tmp_path: Path) -> None:
    async with allowing(tmp_path) as site:
        blocks(site)
        write(tmp_path, "allow-destination listed.example", f"never-block {address(X).value}")
        await site.do("reload")
        write(tmp_path, f"never-block {address(X).value}")
        await site.do("reload")
        assert sorted(site.rules()) == COVERED[1:]
        write(tmp_path)
        await site.do("reload")
        assert sorted(site.rules()) == COVERED


# -- modes


@pytest.mark.parametrize("state", [PROPOSED, ACTIVE])
@pytest.mark.parametrize("restarted", [False, True])
@in_loop
async def test_in_approve_a_decision_comes_back_as_it_was(tmp_path: Path, state: str, restarted: bool) -> None:
    hands = Hands()
    async with allowing(tmp_path, mode="approve", hands=hands) as site:
        blocks(site, "approve")
        if state == ACTIVE:
            await site.do("approve", id="D1")
        write(tmp_path, LINES["allow-destination"])
        await site.do("reload")
        await site.core.scribe.settled()
        if not restarted:
            write(tmp_path)
            await site.do("reload")
            assert site.core.register.by_id[newest(site)].state == state
            assert sorted(site.rules()) == (COVERED if state == ACTIVE else [])
            how = "waits for a person again" if state == PROPOSED else "blocks again"
            assert how in (await notes(site))["10.0.0.5"][-1]
    async with allowing(tmp_path, mode="approve", hands=hands) as site:
        assert site.core.register.by_id[newest(site)].state == state


@in_loop
async def test_what_only_would_have_blocked_waits_for_a_person_in_approve(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        blocks(site, "monitor")
        await site.do("allow", what="listed.example")
        await site.do("mode", BERT, mode="approve")
        await site.do("undo")
        assert site.core.register.by_id[newest(site)].state == PROPOSED


# -- what incidents say where nothing is lifted


@pytest.mark.parametrize(
    "line", ["ignore-client 10.0.0.0/24", "allow-destination bad.example", "ignore-indicator c2.listed.example"]
)
@in_loop
async def test_an_open_incident_says_that_it_is_let_be_and_stays_open(tmp_path: Path, line: str) -> None:
    async with allowing(tmp_path, mode="monitor") as site:
        site.sees(sighting(found=LISTED))  # asked for a name under bad.example
        write(tmp_path, line)
        for _ in range(2):  # is said once
            await site.do("reload")
        (said,) = (await notes(site)).values()
        assert len(said) == 1 and said[0].endswith(f"by noc (a partner), {line}")
        write(tmp_path)
        await site.do("reload")
        (said,) = (await notes(site)).values()
        assert said[1:] == [f"no longer allowed ({line} of noc: a partner)"]
        told = await screens.incidents(site.core, None, None)
        assert [one["state"] for one in told["incidents"]] == ["open"]


# -- any


TARGETS = st.sampled_from(
    ["listed.example", "c2.listed.example", "example.example", "198.51.100.7", "198.51.100.0/24", "203.0.113.9"]
)
CLIENTS = st.sampled_from(["10.0.0.5", "10.0.0.6", "10.0.0.0/24", "192.0.2.0/24"])


@st.composite
def allowance_lines(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(KINDS))
    if kind == "ignore-client":
        return f"{kind} {draw(CLIENTS)}"
    line = f"{kind} {draw(TARGETS)}"
    if kind == "allow-destination" and draw(st.booleans()):
        line += f" client={draw(CLIENTS)}"
    return line


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(allowance_lines(), min_size=1, max_size=3), steps=st.data())
def test_an_allowance_that_comes_and_goes_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], steps: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("site")

    @in_loop
    async def comes_and_goes() -> None:
        async with allowing(folder, lists="c2.listed.example\n203.0.113.9\n") as site:
            blocks(site)
            await site.do("block", what="198.51.100.9", client="10.0.0.6")
            site.sees(
                verdict(
                    "D5", "block", Target("address", "203.0.113.9"), client=packed("10.0.0.6"),
                    found=LISTED._replace(indicator=LISTED.indicator._replace(kind="address", value="203.0.113.9")),
                )
            )  # fmt: skip
            before = sorted(site.rules())
            in_file: list[str] = []
            for line in lines:
                in_file.append(line)
                write(folder, *in_file)
                await site.do("reload")
            while in_file:
                in_file.pop(steps.draw(st.integers(0, len(in_file) - 1)))
                write(folder, *in_file)
                await site.do("reload")
            assert sorted(site.rules()) == before

    comes_and_goes()
