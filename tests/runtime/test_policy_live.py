"""What the daemon makes of the policy: proposals that wait and lapse, roll-back, isolation, segments under other modes,
and what enforcing would do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from egressd.cli import decisions as decisions_verb
from egressd.cli import incidents as incidents_verb
from egressd.cli.client import Answer
from egressd.cli.hosts import render_hosts
from egressd.cli.incidents import render_incidents
from egressd.cli.mode import render_modes
from egressd.cli.plan import render_plan
from egressd.cli.watch import render_watch
from egressd.config.document import parse_config
from egressd.detect.changing import Standing
from egressd.detect.rules import is_share
from egressd.intel.networks import NetworkTable, parse_address, render_network
from egressd.model import Indicator, Match, Target
from egressd.runtime import alarms, screens
from egressd.runtime.arming import HOW, LEFT
from egressd.runtime.block_plan import BlockPlan
from egressd.runtime.modes import How, Left, parse_how, parse_left, site_of, unarmed
from egressd.runtime.orders import Adopt
from egressd.runtime.whose import Whose
from egressd.store import meta, queries
from egressd.store.decisions import ACTIVE, PROPOSED
from egressd.store.history import History, Tenant
from egressd.web.requests import Refused
from tests.detect.live_scene import ENFORCE, LiveScene
from tests.detect.scene import at
from tests.loops import in_loop
from tests.runtime.core_scene import BERT, CONFIG, Site, site_at
from tests.runtime.scene import (
    HOUR,
    NO_HISTORY,
    SECOND,
    T0,
    A,
    B,
    Hands,
    about,
    address,
    attempt,
    match,
    pair,
    sighting,
    verdict,
)

LISTED = match("c2.listed.example")
OURS = about("listed.example")
LAB = parse_address("10.1.0.5")
ISOLATING = CONFIG + "policy: {file: p.yaml}\n"
PAIRS = "rules:\n  - {name: pairs, when: {match: host}, then: block, scope: pair}\n"
RULES = """\
rules:
  - {name: cut-off, when: {match: host, threat: worm}, then: isolate, ttl: 2h}
  - {name: short, when: {match: host}, then: block, ttl: 1h, escalation: [5m, 1d]}
"""


def asked(id_: str = "D1", action: str = "ask", **more: Any) -> list[Any]:
    return [sighting(found=LISTED), verdict(id_, action, OURS, found=LISTED, **more)]


def adopted(site: Site) -> Standing:
    return next(one.standing[0] for one in reversed(site.told) if isinstance(one, Adopt))


# -- what waits for a person


@in_loop
async def test_what_a_rule_leaves_to_a_person_waits_in_enforce_and_over_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*asked(), verdict("D1", "extend", address(), found=LISTED, mode="approve"))
        assert site.rules() == []
        row = await site.row("D1")
        assert (row.state, row.action, row.mode) == (PROPOSED, "ask", "enforce")
    async with site_at(tmp_path) as again:
        decision = again.core.register.by_id["D1"]
        assert (decision.state, decision.action) == (PROPOSED, "ask")
        await again.do("approve", BERT, id="D1")
        assert again.rules() == ["registered_domain listed.example", "address 198.51.100.7"]
        assert (adopted(again).enforced, adopted(again).waits) == (True, False)
        await again.do("undo", BERT)
        assert again.core.register.by_id["D1"].state == PROPOSED and again.rules() == []


@in_loop
async def test_a_change_of_mode_answers_no_question(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        site.sees(*asked(mode="monitor"))
        await site.core.arming.set("enforce")
        assert site.core.register.by_id["D1"].state == PROPOSED and site.rules() == []


@in_loop
async def test_a_proposal_shows_what_a_person_needs(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*asked(), verdict("D1", "extend", address(), pair(), found=LISTED, mode="approve"))
        site.sees(attempt(B, 5, found=LISTED), attempt(B, 6, found=LISTED))
        await site.core.scribe.settled()
        told = await screens.decisions(site.core, {"state": "proposed", "id": None, "limit": 10})
        waiting = told["decisions"][0]["waiting"]
        assert (waiting["clients"], waiting["hosts"], waiting["contacts"]) == (["10.0.0.5", "10.0.0.6"], 2, 3)
        assert waiting["approving"].startswith("blocks registered domain listed.example: 1 address for everybody, 1 ")
        assert waiting["lapses"].startswith("2023-11-17")  # 72 hours after it was made
        assert "1 decision waits for a person: egressd decisions --state proposed" in alarms.warnings(site.core)


@in_loop
async def test_a_proposal_lapses_and_the_next_sighting_proposes_it_anew(tmp_path: Path) -> None:
    async with site_at(tmp_path, config=CONFIG + "policy: {lapse_h: 2}\n") as site:
        site.sees(*asked())
        site.hands.pass_s(7_199)
        await site.core.tick()
        assert "D1" in site.core.register.by_id
        site.hands.pass_s(11)
        await site.core.tick()
        assert "D1" not in site.core.register.by_id
        assert (await site.row("D1")).state == "expired"
        assert ("timer", "end", "D1", "nobody approved or rejected it within 2 h") in await site.audit()
        last = site.ears.records[-1]["egressd"]
        assert (last["action"], last["rule"], last["decision_id"]) == ("withdraw", "lapsed", "D1")
        site.sees(*asked("D3"))
        assert site.core.register.by_id["D3"].state == PROPOSED


@pytest.mark.parametrize("again", ["rollback", "undo"])
@in_loop
async def test_what_waits_again_waits_its_time_from_then_on_over_a_restart_too(tmp_path: Path, again: str) -> None:
    """It was decided days ago: taken for as old as that, it lapsed with the first look after a start, and what too many
    had run into was blocked for everybody again."""
    hands = Hands()
    async with site_at(tmp_path, hands=hands) as site:
        site.sees(*asked(action="block" if again == "rollback" else "ask"))
        hands.pass_s(50 * 3_600)
        if again == "rollback":
            site.core.rulings.roll_back(site.core.register.by_id["D1"], "too many")
        else:
            await site.do("approve", BERT, id="D1")
            await site.do("undo", BERT)
        await site.core.scribe.settled()
    hands.pass_s(50 * 3_600)
    async with site_at(tmp_path, hands=hands) as later:
        await later.core.tick()
        assert later.core.register.by_id["D1"].state == PROPOSED
        hands.pass_s(23 * 3_600)
        await later.core.tick()
        assert "D1" not in later.core.register.by_id
        await later.core.scribe.settled()
        assert await later.ledger.read(meta.under, "waits") == {}


@in_loop
async def test_what_another_mode_leaves_to_a_person_waits_from_then_on(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        site.sees(sighting(A, found=LISTED), verdict("D1", "block", OURS, found=LISTED, mode="monitor"))
        site.hands.pass_s(100 * 3_600)
        await site.core.arming.set("approve")
        await site.core.tick()
        assert site.core.register.by_id["D1"].state == PROPOSED
        await site.core.scribe.settled()
        hands = site.hands
    async with site_at(tmp_path, "approve", hands=hands) as later:
        await later.core.tick()
        assert later.core.register.by_id["D1"].state == PROPOSED


@pytest.mark.parametrize("restarts", [False, True])
@in_loop
async def test_no_proposal_lapses_because_the_clock_was_set(tmp_path: Path, restarts: bool) -> None:
    hands = Hands()
    async with site_at(tmp_path, hands=hands) as site:
        site.sees(*asked())
        hands.set_by_s(10 * 86_400)
        await site.core.tick()
        assert site.core.register.by_id["D1"].state == PROPOSED
        await site.core.scribe.settled()
        if not restarts:
            hands.pass_s(73 * 3_600)
            await site.core.tick()
            assert "D1" not in site.core.register.by_id
    if restarts:
        async with site_at(tmp_path, hands=hands) as later:
            await later.core.tick()
            assert later.core.register.by_id["D1"].state == PROPOSED


@in_loop
async def test_a_rule_that_blocks_where_another_one_asked(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*asked())
        site.sees(verdict("D1", "block", OURS, found=LISTED, rule="two-sources"))
        assert site.rules() == ["registered_domain listed.example"]
        row = await site.row("D1")
        assert (row.state, row.action) == (ACTIVE, "block")
        assert ("rule:two-sources", "promote") in [one[:2] for one in await site.audit()]


@in_loop
async def test_what_is_for_one_client_alone_stays_so_over_a_restart_until_another_meets_it(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(A, found=LISTED), verdict("D1", "block", OURS, found=LISTED, rule="share"))
        site.sees(verdict("D1", "extend", pair(A), found=LISTED, rule="pair"))
        assert site.rules() == ["registered_domain listed.example", "pair 10.0.0.5>198.51.100.7"]
        assert (await site.row("D1")).rule == "share"
    async with site_at(tmp_path) as again:
        standing = again.core.register.by_id["D1"].standing(True)
        assert (standing.rule, standing.client) == ("share", A)
        again.sees(sighting(B, found=LISTED), verdict("D1", "block", OURS, found=LISTED, rule="level-host", client=B))
        assert (adopted(again).rule, adopted(again).client) == ("level-host", B)
        row = await again.row("D1")
        assert (row.state, row.rule) == (ACTIVE, "level-host")
        assert ("rule:level-host", "promote") in [one[:2] for one in await again.audit()]


@in_loop
async def test_yes_to_a_behaviour_lists_what_it_pointed_to(tmp_path: Path) -> None:
    odd = Indicator(
        "behaviour", "odd.example", "registered", "", "odd.example", "example", "behaviour:beacon", 0, "", 85, 0, 0, "",
        "",
    )  # fmt: skip
    found = Match("behaviour", odd, "odd.example", "example")
    async with site_at(tmp_path) as site:
        site.sees(verdict("D1", "ask", about("odd.example"), found=found, rule="behaviour-strong"))
        assert site.rules() == []
        await site.do("approve", BERT, id="D1")
        assert site.rules() == ["registered_domain odd.example"]
        assert [one.text for one in site.core.entries] == ["odd.example"]
        assert site.core.knowledge.intel.index.match_name("a.odd.example", 1_800_000_000) is not None


@in_loop
async def test_what_a_rule_narrowed_stands_when_lists_are_read_again(tmp_path: Path) -> None:
    host = Target("host", "a.listed.example")
    async with site_at(tmp_path) as site:
        site.sees(sighting(A, "a.listed.example", found=LISTED), verdict("D1", "block", host, found=LISTED))
        assert site.ears.incidents[0][1] == "BLOCKED by D1, still watched"
        await site.core.scribe.settled()
    async with site_at(tmp_path, lists="other.example\nc2.listed.example\n") as again:
        assert again.rules() == ["host a.listed.example"]
        assert again.core.register.by_id["D1"].match.indicator.line == 2
    async with site_at(tmp_path, lists="other.example\n") as gone:
        assert gone.rules() == []


@in_loop
async def test_scope_pair_holds_over_a_restart(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PAIRS, encoding="utf-8")
    async with site_at(tmp_path, config=ISOLATING) as site:
        site.sees(sighting(A, found=LISTED), verdict("D1", "block", OURS, found=LISTED, rule="pairs"))
        await site.core.scribe.settled()
    async with site_at(tmp_path, config=ISOLATING) as again:
        scene = LiveScene("c2.listed.example", settings=again.core.knowledge.settings, first_number=2, stride=2)
        scene.engine.adopt(again.core.rulings.standing().standing[0], at(0))
        scene.resolve(1, "10.0.0.6", "c2.listed.example", "198.51.100.7")
        assert scene.targets("block", "extend") == ["pair 10.0.0.6>198.51.100.7"]


# -- time to live, escalation, isolation


@in_loop
async def test_a_rule_sets_how_long_a_block_and_what_it_found_lives(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(RULES, encoding="utf-8")
    async with site_at(tmp_path, config=ISOLATING) as site:
        site.sees(*asked(action="block", rule="short"), verdict("D1", "extend", address(), found=LISTED))
        held = site.core.register.by_id["D1"].held
        began_us = held[OURS].added_us
        assert held[OURS].expires_us == began_us + HOUR
        assert held[address()].expires_us == began_us + 300 * SECOND
        site.hands.pass_s(3_601)
        await site.core.tick()
        assert "D1" not in site.core.register.by_id


@in_loop
async def test_what_is_for_one_client_alone_lives_as_its_rule_says(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(RULES, encoding="utf-8")
    engine = LiveScene("a.example\nc2.listed.example", settings=ENFORCE)
    async with site_at(tmp_path, config=ISOLATING) as site:
        engine.swap(
            0, "a.example\nc2.listed.example", settings=site.core.knowledge.settings._replace(blocks_per_hour=1)
        )
        engine.tls(0, "10.0.0.5", "198.51.100.9", "a.example")
        engine.tls(1, "10.0.0.5", "198.51.100.7", "c2.listed.example")
        made = next(one for one in engine.decisions if one.action == "block" and one.targets == (OURS,))
        assert made.reason.endswith("which caused 1 of the 1 blocks of an hour")
        made.id = "D1"
        site.sees(made, verdict("D1", "extend", pair(), found=LISTED, rule="pair"))
        held = site.core.register.by_id["D1"].held
        assert held[OURS].expires_us == held[OURS].added_us + HOUR
        assert held[pair()].expires_us == held[pair()].added_us + 300 * SECOND
        standing = site.core.register.by_id["D1"].standing(True)
        assert standing.client == A and is_share(standing.rule)
        told = [one["egressd"]["rule"] for one in site.ears.records if one["event_type"] == "decision"]
        assert told == ["share", "pair"]
        await site.core.scribe.settled()
    async with site_at(tmp_path, config=ISOLATING) as again:
        again.sees(attempt(found=LISTED))
        again.hands.pass_s(301)
        await again.core.tick()
        held = again.core.register.by_id["D1"].held
        assert held[pair()].expires_us > again.core.clock.now_us() + 3_600 * SECOND, "a day, the second of its terms"


@in_loop
async def test_the_rule_that_blocks_where_another_one_asked_says_how_long(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(RULES, encoding="utf-8")
    async with site_at(tmp_path, config=ISOLATING) as site:
        site.sees(*asked(rule="gone"))
        site.sees(verdict("D1", "block", OURS, found=LISTED, rule="short", second=60))
        row = await site.row("D1")
        assert (row.rule, row.targets[0].expires_us) == ("short", row.created_us + 60 * SECOND + HOUR)
        site.hands.pass_s(3_661)
        await site.core.tick()
        assert "D1" not in site.core.register.by_id


@in_loop
async def test_a_rule_isolates_within_its_budget_and_not_after_a_person_released(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(RULES, encoding="utf-8")

    def isolate(number: int, client: bytes) -> Any:
        text = ".".join(map(str, client))
        return verdict(f"D{number}", "isolate", Target("client", text), found=LISTED, rule="cut-off", client=client)

    async with site_at(tmp_path, config=ISOLATING) as site:
        site.sees(isolate(1, A))
        assert site.rules() == ["client 10.0.0.5"]
        assert site.core.register.by_id["D1"].held[Target("client", "10.0.0.5")].expires_us > 0
        await site.do("release", BERT, client="10.0.0.5")
        site.sees(isolate(3, A))
        assert site.rules() == []
        refused = site.ears.records[-1]["egressd"]
        assert refused["action"] == "refuse" and "a person released it" in refused["reason"]
        for number in range(5, 15, 2):
            site.sees(isolate(number, bytes((10, 0, 1, number))))
        assert len(site.rules()) == 4  # five an hour, and the one that was released counts
        site.core.station.own = ((B, 32),)
        site.hands.pass_s(3_601)
        site.sees(isolate(21, B))
        assert "client 10.0.0.6" not in site.rules()


@in_loop
async def test_no_rule_isolates_a_server_outside_in_whose_name_somebody_asked(tmp_path: Path) -> None:
    """One packet under its address, and the kernel would drop for everybody what goes there and comes from there."""
    (tmp_path / "p.yaml").write_text(RULES, encoding="utf-8")
    outside = parse_address("203.0.113.8")
    async with site_at(tmp_path, config=ISOLATING) as site:
        forged = verdict(
            "D1", "isolate", Target("client", "203.0.113.8"), found=LISTED, rule="cut-off", client=outside
        )  # fmt: skip
        site.sees(forged)
        assert site.rules() == []
        assert "no machine that policy may isolate" in site.ears.records[-1]["egressd"]["reason"]
        lan = NetworkTable(((parse_address("203.0.113.0"), 24, ""),))
        site.core.station.whose = Whose(frozenset(), lan)
        site.sees(
            verdict("D3", "isolate", Target("client", "203.0.113.8"), found=LISTED, rule="cut-off", client=outside)
        )
        assert site.rules() == ["client 203.0.113.8"]


# -- roll-back


@in_loop
async def test_a_block_that_too_many_run_into_waits_for_a_person_from_then_on(tmp_path: Path) -> None:
    config = CONFIG + "policy: {rollback_clients: 3}\n"
    async with site_at(tmp_path, config=config) as site:
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        for number, client in enumerate((A, B, parse_address("10.0.0.8"))):
            site.sees(attempt(client, number, found=LISTED))
        assert "address 198.51.100.7" in site.rules()
        site.sees(attempt(parse_address("10.0.0.9"), 9, found=LISTED))
        assert site.rules() == []
        told = next(one["egressd"] for one in site.ears.records if one["egressd"].get("rule") == "rollback")
        assert (told["action"], told["decision_id"]) == ("ask", "D1")
        assert told["reason"].startswith("4 clients ran into it within its first hour, over 3")
        assert (adopted(site).waits, adopted(site).final, adopted(site).enforced) == (True, True, False)
        row = await site.row("D1")
        assert (row.state, row.action, row.rule) == (PROPOSED, "ask", "rollback")
        site.sees(verdict("D1", "block", OURS, found=LISTED))  # policy does not overrule itself
        assert site.rules() == []
        await site.do("approve", BERT, id="D1")
        site.sees(attempt(parse_address("10.0.0.10"), 20, found=LISTED))
        assert "address 198.51.100.7" in site.rules()  # a person said yes


@pytest.mark.parametrize("step_s", [0, -5 * 86_400])
@in_loop
async def test_a_block_of_days_ago_that_stands_again_with_its_list_is_none_of_this_hour(
    tmp_path: Path, step_s: int
) -> None:
    """Everybody who had caught it since ran into it at once, so it was taken back: C&C was open to them all. Nor does
    it take from the budgets of the hour."""
    async with site_at(tmp_path, config=CONFIG + "policy: {rollback_clients: 3}\n") as site:
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        await site.do("reload")
        site.hands.pass_s(2 * 86_400)
        (tmp_path / "csirt.txt").write_text("other.example\n")
        await site.do("reload")
        site.hands.set_by_s(step_s)
        await site.core.tick()
        (tmp_path / "csirt.txt").write_text("c2.listed.example\n")
        await site.do("reload")
        assert adopted(site).began_us == T0 + step_s * SECOND
        (again,) = site.core.register.by_id.values()
        for number in range(5):
            seen_s = 2 * 86_400 + step_s + number
            site.sees(attempt(parse_address(f"10.0.0.{number + 5}"), seen_s, id_=again.id, found=LISTED))
        assert again.rule != "rollback" and "address 198.51.100.7" in site.rules()


@in_loop
async def test_nor_is_it_after_a_restart(tmp_path: Path) -> None:
    hands = Hands()
    config = CONFIG + "policy: {rollback_clients: 3}\n"
    async with site_at(tmp_path, config=config, hands=hands) as site:
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        await site.do("reload")
        hands.pass_s(2 * 86_400)
        for listed in ("other.example\n", "c2.listed.example\n"):
            (tmp_path / "csirt.txt").write_text(listed)
            await site.do("reload")
        await site.core.scribe.settled()
    async with site_at(tmp_path, config=config, hands=hands) as later:
        (again,) = later.core.register.by_id.values()
        assert (again.began_us, again.created_us) == (T0, T0 + 2 * 86_400 * SECOND)
        for number in range(5):
            client = parse_address(f"10.0.0.{number + 5}")
            later.sees(attempt(client, 2 * 86_400 + number, id_=again.id, found=LISTED))
        assert again.rule != "rollback" and "address 198.51.100.7" in later.rules()
        await later.core.scribe.settled()
        assert await later.ledger.read(meta.under, "began") == {again.id: str(T0)}
        await later.do("undo", BERT, id=again.id)
        await later.core.scribe.settled()
        assert await later.ledger.read(meta.under, "began") == {}


@pytest.mark.parametrize("step_s", [25 * 3_600, -25 * 3_600])
@in_loop
async def test_the_first_hour_of_a_block_is_an_hour_when_the_clock_is_set(tmp_path: Path, step_s: int) -> None:
    """Set ahead by a day, the block was a day old, and stood whoever ran into it."""
    async with site_at(tmp_path, config=CONFIG + "policy: {rollback_clients: 3}\n") as site:
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        site.hands.set_by_s(step_s)
        await site.core.tick()
        decided = site.core.register.by_id["D1"]
        for number in range(5):
            site.sees(attempt(parse_address(f"10.0.0.{number + 5}"), step_s + number, found=LISTED))
        assert (decided.rule, decided.created_us) == ("rollback", T0)


@in_loop
async def test_after_its_first_hour_a_block_stands_also_when_the_clock_is_set_back(tmp_path: Path) -> None:
    async with site_at(tmp_path, config=CONFIG + "policy: {rollback_clients: 3}\n") as site:
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        site.hands.pass_s(3_601)
        site.hands.set_by_s(-3_600)
        await site.core.tick()
        for number in range(5):
            site.sees(attempt(parse_address(f"10.0.0.{number + 5}"), 2 + number, found=LISTED))
        assert site.core.register.by_id["D1"].state == ACTIVE


def shown(site: Site, result: dict[str, Any], render: Callable[[Answer], list[str]]) -> str:
    lines = render(Answer(result, site.core.arming.mode, 1, "", ()))
    assert all(len(line) <= 80 for line in lines)
    return "\n".join(lines)


@in_loop
async def test_no_screen_says_that_what_was_taken_back_is_blocked(tmp_path: Path) -> None:
    """`watch D1` said `blocked`, its addresses were `active`, hosts that got through were STILL TRYING, and why
    it was taken back stood in the journal only."""
    config = CONFIG + "policy: {rollback_clients: 1}\n"
    async with site_at(tmp_path, config=config) as site:
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        site.sees(attempt(A, 1, found=LISTED))
        await site.core.scribe.settled()
        now_us = site.core.clock.now_us()
        assert [one["blocked"] for one in (await screens.hosts(site.core))["hosts"]] == [True]
        before = shown(site, await screens.watch(site.core, "D1"), lambda got: render_watch(got, now_us, 40))
        assert "\nblocked; decided" in before and "\nBLOCKED " in before
        site.sees(attempt(B, 2, found=LISTED))
        await site.core.scribe.settled()

        hosts = await screens.hosts(site.core)
        assert [one["blocked"] for one in hosts["hosts"]] == [False, False]
        assert "2 NOT BLOCKED" in shown(site, hosts, lambda got: render_hosts(got, now_us, 40))
        after = shown(site, await screens.watch(site.core, "D1"), lambda got: render_watch(got, now_us, 40))
        assert "!! NOT BLOCKED: waits for a person; decided" in after
        assert "\nblocked; decided" not in after and "\nADDRESS " in after and " active " not in after
        warning = "TAKEN BACK: listed.example is not blocked, too many hosts ran into it: egressd decisions D1"
        assert warning in alarms.warnings(site.core)
        assert not any("wait" in one for one in alarms.warnings(site.core))
        told = await screens.decisions(site.core, {"state": None, "limit": 10, "id": "D1"})
        one = shown(site, told, lambda got: decisions_verb._one("D1", got.result["decisions"]))
        assert "taken back 2 clients ran into it within its first hour, over 1" in one
        assert "address 198.51.100.7: not blocked, waits" in one and ": active" not in one
    async with site_at(tmp_path, config=config) as site:
        told = await screens.decisions(site.core, {"state": None, "limit": 10, "id": "D1"})
        one = shown(site, told, lambda got: decisions_verb._one("D1", got.result["decisions"]))
        assert "taken back too many hosts ran into it" in one


@in_loop
async def test_one_machine_with_many_addresses_takes_no_block_back(tmp_path: Path) -> None:
    """Each host may take as many addresses as it likes: an infected one would free its own controller."""
    mac = bytes.fromhex("020000000005")
    async with site_at(tmp_path, config=CONFIG + "policy: {rollback_clients: 3}\n") as site:
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        crowd = [parse_address(f"10.0.1.{number}") for number in range(1, 60)]
        for number, client in enumerate(crowd):
            site.core.devices.spoke(mac, client, site.core.clock.now_us(), is_attached=True)
            site.sees(attempt(client, number, found=LISTED))
        assert site.core.devices.why_none(mac)  # so many that it is no device; still it is one machine
        assert "address 198.51.100.7" in site.rules()
        for number in range(3):
            site.sees(attempt(parse_address(f"10.0.0.{number + 10}"), 60 + number, found=LISTED))
        assert "address 198.51.100.7" not in site.rules()


@in_loop
async def test_machines_that_nobody_knew_before_a_block_do_not_take_it_back_alone(tmp_path: Path) -> None:
    """Fifty forged MACs opened the way to a true controller."""
    async with site_at(tmp_path, config=CONFIG + "policy: {rollback_clients: 3}\n") as site:
        known = [parse_address(f"10.0.2.{number}") for number in range(1, 4)]
        site.core.acquaintances.remember([A, *known], T0 - 30 * 24 * HOUR)
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        for number in range(1, 60):
            site.sees(attempt(parse_address(f"10.0.1.{number}"), number, found=LISTED))
        assert "address 198.51.100.7" in site.rules()
        site.sees(attempt(known[0], 70, found=LISTED))
        assert "address 198.51.100.7" not in site.rules()  # with A two that were there, and as many new ones


@in_loop
async def test_under_a_known_address_a_new_mac_is_new_once_macs_were_watched_for_a_week(tmp_path: Path) -> None:
    """A forger takes addresses that somebody had: every one of a pool is known."""
    async with site_at(tmp_path, config=CONFIG + "policy: {rollback_clients: 3}\n") as site:
        core = site.core
        pool = [parse_address(f"10.0.1.{number}") for number in range(1, 60)]
        core.acquaintances.remember([A, *pool], T0 - 30 * 24 * HOUR)
        core.acquaintances.macs_since_us = T0 - 8 * 24 * HOUR  # when it began
        site.sees(*asked(action="block"), verdict("D1", "extend", address(), found=LISTED))
        for number, client in enumerate(pool):
            core.devices.spoke(bytes((2, 0, 0, 0, 0, number)), client, core.clock.now_us(), is_attached=True)
            site.sees(attempt(client, number, found=LISTED))
        assert "address 198.51.100.7" in site.rules()


@in_loop
async def test_what_a_person_blocks_is_not_taken_back(tmp_path: Path) -> None:
    async with site_at(tmp_path, config=CONFIG + "policy: {rollback_clients: 1}\n") as site:
        made = await site.do("block", what="worse.example")
        found = site.core.register.by_id[made["decision_id"]].match
        for number in range(4):
            site.sees(attempt(bytes((10, 0, 0, number + 1)), number, id_=made["decision_id"], found=found))
        assert site.core.register.by_id[made["decision_id"]].state == ACTIVE


# -- segments under other modes

ARMED_LAB = CONFIG + "modes: {lab: enforce}\n"


@in_loop
async def test_a_block_on_account_of_a_monitored_client_is_not_in_force_until_an_enforcing_one_comes(
    tmp_path: Path,
) -> None:
    async with site_at(tmp_path, "monitor", ARMED_LAB) as site:
        core = site.core
        site.sees(*asked(action="block", mode="monitor"), verdict("D1", "extend", address(), found=LISTED))
        assert core.arming.rules() == [] and core.arming.is_enforcing()
        site.sees(verdict("D1", "block", OURS, found=LISTED, mode="enforce", client=LAB))
        site.sees(verdict("D1", "extend", pair(A), pair(LAB), found=LISTED))
        held = [f"{one.target.kind} {one.target.value}" for one in core.arming.rules()]
        assert held == ["registered_domain listed.example", "address 198.51.100.7", "pair 10.1.0.5>198.51.100.7"]
        networks = {render_network(*one) for one in core.enforcement.unarmed}
        assert "10.1.0.0/24" not in networks and "10.1.1.0/24" in networks and "::/0" in networks
        row = await site.row("D1")
        assert (row.mode, row.client) == ("enforce", LAB)
        assert screens.is_blocked(core, "10.1.0.5", ["I1"]) is True
        assert screens.is_blocked(core, "10.0.0.5", ["I1"]) is False  # its segment is under monitor
        await site.restore()
        assert core.register.by_id["D1"].mode == "enforce"


@pytest.mark.parametrize("mode", ["monitor", "approve"])
@in_loop
async def test_what_stands_again_stands_in_the_mode_of_its_clients_segment(tmp_path: Path, mode: str) -> None:
    """One segment was armed: a list that was away put in force there what nobody from there had asked for, and a
    proposal of another segment waited for nobody any more."""
    async with site_at(tmp_path, mode, ARMED_LAB) as site:
        site.sees(*asked(action="block", mode=mode), verdict("D1", "extend", address(), found=LISTED))
        (before,) = site.core.register.by_id.values()
        assert (before.mode, site.core.arming.rules()) == (mode, [])
        for listed in ("c2.listed.example\n", "other.example\n", "c2.listed.example\n"):
            (tmp_path / "csirt.txt").write_text(listed)
            await site.do("reload")
        (again,) = site.core.register.by_id.values()
        assert (again.id != before.id, again.mode, again.state) == (True, mode, before.state)
        assert site.core.arming.rules() == []


@in_loop
async def test_one_segment_is_armed_by_command_and_panic_disarms_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site_at(tmp_path, "monitor") as site:
        assert (
            "there is no segment bar; there are: lab, both"
            in (await site.refused("mode", BERT, mode="enforce", segment="bar")).text
        )
        done = await site.do("mode", BERT, mode="enforce", segment="lab")
        assert done["text"] == "the mode of segment lab is enforce (it was monitor)"
        assert (site.core.arming.mode, site.core.arming.modes, site.kernel.modes) == (
            "monitor",
            {"lab": "enforce"},
            ["enforce"],
        )
        start, _ = site.core.start_of(0)
        assert start.enforced and start.fast_lane and start.settings.modes == (("lab", "enforce"),)
        assert "segment lab is under enforce" in alarms.warnings(site.core)
        await site.do("panic", BERT)
        assert (site.core.arming.modes, site.kernel.modes[-1]) == ({}, "monitor")
        said = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
        assert said[0].startswith("the mode is monitor, lab under enforce now, it was monitor: egressd audit says")
        assert said[-1].startswith("the mode is monitor now, it was monitor, lab under enforce: egressd audit says")


@in_loop
async def test_the_modes_of_a_run_are_known_to_the_next_one(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        arming = site.core.arming
        assert await left_by(site) == Left("monitor", {}, "monitor")
        await site.do("mode", BERT, mode="enforce")
        await site.do("mode", BERT, mode="monitor", segment="lab")
        left = await left_by(site)
        assert left == Left("enforce", {"lab": "monitor"}, "monitor")
        arming.mode, arming.modes = "monitor", {}  # as a start finds it in the configuration
        told = arming.begin(left, clean=True)
        assert told.startswith("the mode is monitor since this start, and was enforce, lab under monitor before it: ")
        assert alarms.warnings(site.core)[0] == told
        site.core.started_us -= 86_400_000_000
        assert told not in alarms.warnings(site.core)
        site.core.started_us += 86_400_000_000
        await site.do("panic", BERT)
        assert await left_by(site) == Left("monitor", {}, "monitor")
        assert told not in alarms.warnings(site.core)
        assert arming.begin(None, clean=True) == arming.begin(await left_by(site), clean=True) == ""


@in_loop
async def test_after_a_crash_a_run_goes_on_under_the_modes_that_commands_had_set(tmp_path: Path) -> None:
    """Else a crash at night disarmed the gateway, and lifted every block."""
    async with site_at(tmp_path, "monitor") as site:
        arming = site.core.arming
        told = arming.begin(Left("enforce", {"lab": "approve", "gone": "enforce"}, "monitor"), clean=False)
        assert told == (
            "the mode is enforce, lab under approve, as a command had set it before a crash; configured is monitor"
        )
        assert (arming.mode, arming.modes, arming.changed) == ("enforce", {"lab": "approve"}, "")
        arming.mode, arming.modes = "monitor", {}
        told = arming.begin(Left("enforce", {}, "approve"), clean=False)
        assert arming.mode == "monitor", "the configuration was edited meanwhile, and decides"
        assert told.startswith("the mode is monitor since this start, and was enforce before it")
        assert arming.begin(Left("monitor", {}, "monitor"), clean=False) == ""


@in_loop
async def test_what_was_tried_before_the_site_was_armed_is_told_apart(tmp_path: Path) -> None:
    """Armed, `hosts` and `status` said STILL TRYING of a host that had been let through and never came again."""
    hands = Hands()
    async with site_at(tmp_path, "monitor", hands=hands) as site:
        core = site.core
        assert core.arming.begin(None, clean=True) == "" and core.arming.armed_us(A) == 0
        site.sees(*asked(action="block", mode="monitor"), verdict("D1", "extend", address(), found=LISTED))
        site.sees(attempt(A, 1, found=LISTED), attempt(B, 1, found=LISTED))
        hands.pass_s(60)
        await site.do("mode", BERT, mode="enforce", reason="a quiet week")
        site.sees(attempt(B, 70, found=LISTED))
        hands.pass_s(60)
        await core.scribe.settled()
        now_us = core.clock.now_us()
        hosts = shown(site, await screens.hosts(core), lambda got: render_hosts(got, now_us, 40))
        assert "1 STILL TRYING, 1 blocked" in hosts
        since = "TRIES were let through, in monitor until 11-14 22:14 UTC."
        assert f"\n2 of 3 {since}\n" in hosts
        watched = await screens.watch(core, "D1")
        assert f"\n2 of 3 {since}\n" in shown(site, watched, lambda got: render_watch(got, now_us, 40))
        assert watched["watches"][0]["let_through"] == 2
        found = await screens.incidents(core, None, None)
        assert f"\n2 of 3 {since}\n" in shown(site, found, lambda got: render_incidents(got, now_us, 40))
        assert [(one["attempts"], one["let_through"]) for one in found["incidents"]] == [(1, 1), (2, 1)]
        one = shown(site, found, lambda got: incidents_verb._one("I2", got, now_us))
        assert "1 of these let through, in monitor until 11-14 22:14 UTC" in one
        site.core.campaigns.incidents["I1"].let_through = 0  # as of an upgrade, when it was not counted
        site.core.intake.write([site.core.campaigns.incidents["I1"]])
        await core.scribe.settled()
        one = shown(site, await screens.incidents(core, None, None), lambda got: incidents_verb._one("I1", got, now_us))
        assert "those before 11-14 22:14 UTC were let through: the mode was monitor" in one
        assert (await core.ledger.read(queries.status, now_us, core.arming.armed_first_us()))["watch"][
            "clients_trying"
        ] == 1


@in_loop
async def test_how_a_mode_came_to_be_is_told_and_outlives_a_crash(tmp_path: Path) -> None:
    hands = Hands()
    async with site_at(tmp_path, "monitor", hands=hands) as site:
        arming = site.core.arming
        arming.begin(None, clean=True)
        hands.pass_s(120)
        await site.do("mode", BERT, mode="enforce", segment="lab", reason="the laboratory first")
        now_us = site.core.clock.now_us()
        told = shown(
            site, {"arming": screens.armed_how(site.core)}, lambda got: render_modes(got, now_us + 60 * SECOND)
        )
        assert "monitor since 11-14 22:13 UTC, 3m ago; as the configuration says" in told
        assert "segment lab: enforce since 11-14 22:15 UTC, 1m ago; set by uid:bert: the" in told
        assert "the configuration says monitor, and a start takes that" in told
        await site.core.scribe.settled()
        left, how = [await site.ledger.read(meta.get, key) for key in (LEFT, HOW)]
        before = dict(arming.how)
        hands.pass_s(60)
        arming.mode, arming.modes = "monitor", {}
        arming.begin(parse_left(left), clean=False, how=how)
        assert arming.how == before, "it goes on as it was"
        arming.mode, arming.modes = "monitor", {}
        arming.begin(parse_left(left), clean=True, how=how)
        assert arming.how == {"": before[""]} and arming.armed_us(LAB) == 0
        arming.begin(parse_left(left), clean=True, how="[")
        assert arming.how == {"": How()}, "of an older version nothing is known"


@pytest.mark.parametrize("text", ["", "[", "[]", '{"": 1}', '{"": [1, 2, 3, 4]}', '{"": [-1, 0, "", ""]}'])
def test_damage_in_how_modes_came_to_be_is_left_out(text: str) -> None:
    assert parse_how(text) == {}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"mode": "loud", "modes": {}, "configured": "monitor"}',
     '{"mode": "enforce", "modes": {"lab": []}, "configured": ""}', '{"mode": [], "modes": {}, "configured": ""}',
     '{"mode": "enforce", "modes": [], "configured": ""}'],
)  # fmt: skip
def test_damaged_modes_are_none(text: str) -> None:
    assert parse_left(text) is None


async def left_by(site: Site) -> Left | None:
    await site.core.scribe.settled()
    return parse_left(await site.ledger.read(meta.get, LEFT))


@in_loop
async def test_the_mode_of_a_segment_goes_with_it(tmp_path: Path) -> None:
    """Set by command, it stayed for whoever might be called so later, and armed the site meanwhile."""
    async with site_at(tmp_path, "monitor") as site:
        core, path = site.core, tmp_path / "egressd.yaml"
        await site.do("mode", BERT, mode="enforce", segment="lab")
        assert (await core.reload())[1:] == [] and core.arming.modes == {"lab": "enforce"}
        path.write_text(CONFIG.replace("lab:", "library:"))
        told = "segment lab is not in the configuration any more: its mode, enforce, is given up"
        assert told in await core.reload()
        assert (core.arming.modes, site.kernel.modes[-1], core.arming.is_enforcing()) == ({}, "monitor", False)
        path.write_text(CONFIG)
        await core.reload()
        assert core.arming.modes == {}
        await site.do("mode", BERT, mode="enforce", segment="lab")
        path.write_text(CONFIG + "modes: {both: approve}\n")
        told = "the mode of segment lab is that of all others, as modes: says; it was enforce by command"
        assert told in await core.reload()
        assert core.arming.modes == {"both": "approve"}


@in_loop
async def test_approve_beside_enforce_holds_a_pair_only_when_a_person_said_yes(tmp_path: Path) -> None:
    async with site_at(tmp_path, "enforce", CONFIG + "modes: {lab: approve}\n") as site:
        site.sees(*asked(action="block", mode="approve", client=LAB))
        site.sees(verdict("D1", "extend", pair(LAB), found=LISTED, mode="approve"))
        assert site.core.arming.rules() == []
        await site.do("approve", BERT, id="D1")
        assert "pair 10.1.0.5>198.51.100.7" in [f"{r.target.kind} {r.target.value}" for r in site.core.arming.rules()]


@pytest.mark.parametrize(
    ("mode", "modes", "expected"),
    [
        ("enforce", {}, set()),
        ("monitor", {"lab": "monitor"}, set()),
        ("enforce", {"lab": "monitor"}, {"10.1.0.0/24"}),
        ("monitor", {"lab": "enforce"}, None),
        ("enforce", {"wide": "monitor"}, None),
        ("enforce", {"wide": "monitor", "lab": "enforce"}, None),
    ],
)
def test_unarmed_sources_are_those_under_a_weaker_mode(mode: str, modes: dict[str, str], expected: set[str]) -> None:
    text = "segments: {wide: [10.1.0.0/16], lab: [10.1.0.0/24]}\n"
    config, problems = parse_config(text, "c.yaml")
    assert problems == []
    site = site_of(config, mode, modes)
    networks = unarmed(config, site)
    for number in (*range(0, 1 << 16, 251), 255, 256):
        client = bytes((10, 1, number >> 8, number & 255))
        covered = any(
            client[: length // 8] == addr[: length // 8] and _within(client, addr, length) for addr, length in networks
        )
        assert covered == (site.mode_of(client) != site.strongest)
    if expected is not None:
        assert {render_network(*one) for one in networks} == expected


def _within(client: bytes, addr: bytes, length: int) -> bool:
    if len(client) != len(addr):
        return False
    shift = 32 - length
    return int.from_bytes(client, "big") >> shift == int.from_bytes(addr, "big") >> shift


# -- the plan


def test_the_plan_of_a_daemon_that_has_seen_nobody_yet() -> None:
    """It said that nobody of unknown hosts contacted anything."""
    nothing = {"days": 7, "segment": "", "hosts_seen": 0, "hosts": 0, "contacts": 0, "left_out": 0, "rows": []}
    lines = render_plan(Answer(nothing, "monitor", 0, "", ()), 10)
    assert lines[0] == "No host was seen in the last 7 days, so nothing is known of what enforcing would"
    assert "unknown" not in "".join(lines)
    seen = "\n".join(render_plan(Answer({**nothing, "hosts_seen": 1}, "monitor", 0, "", ()), 10))
    assert "0 of 1 host hit, 0 contacts stopped" in seen and "Nobody contacted a listed name or address" in seen


@in_loop
async def test_the_plan_shows_blocks_with_hosts_and_contacts_and_what_is_over_the_budget(tmp_path: Path) -> None:
    lists = "c2.listed.example\nweak.example confidence=10\n"
    config = CONFIG + "policy: {rollback_clients: 2}\n"
    async with site_at(tmp_path, "monitor", config, lists) as site:
        weak = match("weak.example")
        for client in (A, B, LAB):
            site.sees(sighting(client, "c2.listed.example", found=LISTED))
        site.sees(sighting(A, "weak.example", found=weak))
        plan = await screens.plan(BlockPlan(site.core, NO_HISTORY), {"days": 7, "segment": None})
        by_target = {one["target"]: one for one in plan["rows"]}
        block = by_target["listed.example"]
        assert (block["action"], block["hosts"], block["contacts"]) == ("block", 3, 3)
        assert block["segments"] == ["-", "lab"] and block["rollback"].startswith("3 clients ran into it")
        assert (by_target["weak.example"]["action"], by_target["weak.example"]["rule"]) == ("alert", "confidence")
        assert (plan["hosts"], plan["contacts"]) == (3, 3)
        lab = await screens.plan(BlockPlan(site.core, NO_HISTORY), {"days": 7, "segment": "lab"})
        assert [(one["target"], one["hosts"]) for one in lab["rows"]] == [("listed.example", 1)]
        with pytest.raises(Refused, match="there is no segment labb; there are: lab, both"):
            await screens.plan(BlockPlan(site.core, NO_HISTORY), {"days": 7, "segment": "labb"})
        assert site.core.register.by_id == {}  # nothing was decided by looking
        long = render_plan(Answer({**plan, "segment": "a-segment-with-a-long-name"}, "monitor", 0, "", ()), 10)
        assert "asked 0 times:" in long[1] and max(map(len, long)) <= 80
        text = "\n".join(render_plan(Answer(plan, "monitor", 0, "", ()), 10))
        assert "would have made 1 block and asked 0 times" in text and "TAKEN BACK" in text
        site.hands.pass_s(8 * 86_400)
        assert (await screens.plan(BlockPlan(site.core, NO_HISTORY), {"days": 7, "segment": None}))["rows"] == []


@in_loop
@pytest.mark.parametrize("prefix", ["2001:db8:64::", "64:ff9b::"])
async def test_the_plan_knows_who_lives_behind_nat64(tmp_path: Path, prefix: str) -> None:
    inside = parse_address(f"{prefix}c633:6407")  # 198.51.100.7
    config = CONFIG + 'nat64_prefixes: ["2001:db8:64::/96"]\n'
    async with site_at(tmp_path, "monitor", config) as site:
        history = History(tmp_path / "history.db", reserve_bytes=0)
        assert history.open(T0) == []
        await history.record((), (Tenant("fine.example", parse_address("198.51.100.7"), T0, T0, 1),))
        site.sees(sighting(name="c2.listed.example", found=LISTED), asked(action="block", mode="monitor")[1])
        site.sees(verdict("D1", "extend", address(inside), found=LISTED, mode="monitor"))
        plan = await screens.plan(BlockPlan(site.core, history), {"days": 7, "segment": None})
        history.close()
        assert [one["shared"] for one in plan["rows"]] == [["fine.example"]]


@in_loop
async def test_the_plan_says_which_blocks_would_keep_nobody_from_anything(tmp_path: Path) -> None:
    """All that the name led to is shared. `2 contacts stopped` was what an administrator read before arming."""
    place = parse_address("198.51.100.7")
    lists = "c2.listed.example\nworse.example\n"
    async with site_at(tmp_path, "monitor", CONFIG, lists) as site:
        history = History(tmp_path / "history.db", reserve_bytes=0)
        assert history.open(T0) == []
        tenants = ("fine.example", "good.example", "nice.example", "listed.example")
        await history.record((), tuple(Tenant(one, place, T0, T0, 1) for one in tenants))
        site.sees(sighting(name="c2.listed.example", found=LISTED), asked(action="block", mode="monitor")[1])
        site.sees(verdict("D1", "refuse", address(place), found=LISTED, mode="monitor", rule="shared"))
        site.sees(sighting(B, "worse.example", found=match("worse.example")))
        plan = await screens.plan(BlockPlan(site.core, history), {"days": 7, "segment": None})
        history.close()
        by_target = {one["target"]: one for one in plan["rows"]}
        free, kept = by_target["listed.example"], by_target["worse.example"]
        assert (free["action"], free["keeps_nobody"], kept["keeps_nobody"]) == ("block", True, False)
        assert free["shared"] == ["fine.example", "good.example", "nice.example"]
        assert (plan["hosts"], plan["contacts"]) == (1, 1)
        lines = render_plan(Answer(plan, "monitor", 0, "", ()), 10)
        assert "!! 1 block would keep nobody from anything: by name only" in lines
        assert any("keeps nobody from it: protected or shared" in one for one in lines)
        assert not any("1 target on addresses" in one for one in lines)


@in_loop
async def test_the_plan_counts_what_one_client_causes(tmp_path: Path) -> None:
    lists = "c2.listed.example\nworse.example\n"
    config = CONFIG + "policy: {blocks_per_hour: 4}\n"
    async with site_at(tmp_path, "monitor", config, lists) as site:
        site.sees(sighting(A, "c2.listed.example", found=LISTED))
        site.sees(sighting(A, "worse.example", found=match("worse.example")))
        args = {"days": 7, "segment": None}
        plan = await screens.plan(BlockPlan(site.core, NO_HISTORY), args)
        assert [(one["target"], one["rule"]) for one in plan["rows"]] == [
            ("listed.example", "level-host"), ("worse.example", "share:level-host"),
        ]  # fmt: skip
        site.sees(sighting(B, "worse.example", found=match("worse.example")))
        plan = await screens.plan(BlockPlan(site.core, NO_HISTORY), args)
        assert {one["target"]: one["rule"] for one in plan["rows"]}["worse.example"] == "level-host"
