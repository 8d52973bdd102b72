"""What people do: in force, audited with who and why, refused with a reason where it must be, and taken back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from egressd.runtime.alarms import warnings
from egressd.runtime.orders import Adopt, End, Swap
from egressd.store.decisions import ACTIVE
from egressd.store.errors import FULL, StoreError
from egressd.web.requests import INVALID, REFUSED, WRONG
from tests.detect.scene import packed
from tests.loops import in_loop
from tests.runtime.core_scene import BERT, CONFIG, WHY, site_at
from tests.runtime.scene import HOUR, SECOND, A, B, about, address, match, pair, sighting, verdict

LISTED = match("c2.listed.example")
OURS = about("listed.example")
X = "198.51.100.7"


def policy_block(mode: str = "enforce") -> Any:
    return verdict("D1", "block", OURS, found=LISTED, mode=mode)


# -- block


@pytest.mark.parametrize("what", ["github.com", "github.com scope=host", "GitHub.com scope=registered"])
@in_loop
async def test_a_site_that_many_use_is_blocked_only_if_that_is_meant(tmp_path: Path, what: str) -> None:
    async with site_at(tmp_path) as site:
        error = await site.refused("block", what=what)
        assert error.code == REFUSED
        assert (
            error.text.startswith("github.com is shared hosting") and f"egressd block '{what} force=yes'" in error.text
        )
        assert (site.rules(), await site.audit()) == ([], [])
        answer = await site.do("block", what=f"{what} force=yes")
        assert "is blocked for everybody" in answer["text"]
        assert len(site.rules()) == 1


@pytest.mark.parametrize(
    ("what", "rule", "covers"),
    [
        ("c2.bad.example", "registered_domain bad.example", "bad.example and every name under it"),
        ("bad.example scope=host", "host bad.example", "bad.example"),
        (X, f"address {X}", X),
        ("2001:db8:9::7", "address 2001:db8:9::7", "2001:db8:9::7"),
        ("198.51.100.0/24", "network 198.51.100.0/24", "198.51.100.0/24"),
    ],
)
@in_loop
async def test_block(tmp_path: Path, what: str, rule: str, covers: str) -> None:
    async with site_at(tmp_path) as site:
        answer = await site.do("block", what=what, for_s=7_200)
        assert answer["text"] == f"{covers} is blocked for everybody for 2h"
        id_ = answer["decision_id"]
        assert site.rules() == [rule]
        row = await site.row(id_)
        assert (row.state, row.author, row.reason, row.rule, row.mode) == (ACTIVE, "uid:anna", WHY, "person", "enforce")
        assert row.targets[0].expires_us == site.core.clock.now_us() + 2 * HOUR
        assert [(actor, act, reason) for actor, act, _, reason in await site.audit()] == [
            ("uid:anna", "add-line", WHY),
            ("uid:anna", "block", WHY),
        ]
        assert [type(one) for one in site.told[-2:]] == [Adopt, Swap]
        assert site.kernel.woken > 0
        (event,) = [one for one in site.ears.records if one["event_type"] == "decision"]
        assert (event["egressd"]["author"], event["egressd"]["decision_id"]) == ("uid:anna", id_)


@in_loop
async def test_of_a_page_it_is_said_that_nothing_stops_it(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        answer = await site.do("block", what="http://files.bad.example/drop/")
        assert answer["text"] == "files.bad.example/drop/ is watched: who asks for it is told"
        assert "block its host" in answer["lines"][0]


@pytest.mark.parametrize("client", [None, "10.0.0.5"])
@in_loop
async def test_who_blocks_an_address_that_many_share_is_told_so(tmp_path: Path, client: str | None) -> None:
    (tmp_path / "cdn.txt").write_text("198.51.100.0/24 operator=CDN\n")
    config = CONFIG + "guard: {shared_ranges: [cdn.txt]}\n"
    async with site_at(tmp_path, config=config) as site:
        answer = await site.do("block", what=X, client=client)
        assert answer["lines"] == [
            f"many sites share it: {X} is in 198.51.100.0/24, a shared range of CDN (cdn.txt:1); "
            "egressd itself would not block it"
        ]
        assert len(site.rules()) == 1


@in_loop
async def test_a_changed_file_of_shared_ranges_reaches_the_packet_processes(tmp_path: Path) -> None:
    (tmp_path / "cdn.txt").write_text("203.0.113.0/24\n")
    async with site_at(tmp_path, config=CONFIG + "guard: {shared_ranges: [cdn.txt]}\n") as site:
        (tmp_path / "cdn.txt").write_text("198.51.100.0/24\n")
        await site.core.reload()
        *_, swap = [one for one in site.told if isinstance(one, Swap)]
        assert swap.intel.shared.why(packed(X)) == "in 198.51.100.0/24, a shared range (cdn.txt:1)"
        (tmp_path / "cdn.txt").write_text("198.51.100.0/24\nnobody\n")
        await site.core.reload()  # the last good content stands in, and what is wrong is told
        assert site.core.knowledge.intel.shared.why(packed(X))
        assert any(str(one).startswith("cdn.txt:2:1") for one in site.core.loaded.kept)


@in_loop
async def test_a_block_outlives_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="bad.example")
        before = site.rules()
        hands = site.hands
    async with site_at(tmp_path, hands=hands) as again:
        assert again.rules() == before
        assert [one.text for one in again.core.entries] == ["bad.example"]
        assert (await again.refused("block", what="x.bad.example")).text.startswith("bad.example is blocked already")


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("no name", ""), ("*", ""), ("256.1.1.1", ""), ("127.0.0.1", "protected"), ("192.0.2.53", "resolver"),
        ("10.0.0.0/8", ""), ("com", "suffix"), ("bad.example colour=red", ""), ("#", ""),
    ],
)  # fmt: skip
@in_loop
async def test_what_cannot_be_blocked_says_why(tmp_path: Path, what: str, told: str) -> None:
    async with site_at(tmp_path) as site:
        error = await site.refused("block", what=what)
        assert error.code == INVALID
        assert error.text and told in error.text
        assert (site.rules(), site.core.entries, await site.audit()) == ([], [], [])


@pytest.mark.parametrize("what", ["192.0.2.53 force=yes", "192.0.2.0/24 force=yes", "10.1.0.7 force=yes"])
@in_loop
async def test_force_blocks_no_protected_address(tmp_path: Path, what: str) -> None:
    """It said `is blocked for everybody` of what was lifted at once."""
    async with site_at(tmp_path) as site:
        error = await site.refused("block", what=what)
        assert (error.code, error.text.startswith(f"{what.split()[0]} is never blocked, ")) == (INVALID, True)
        assert "force=yes)" not in error.text
        assert (site.rules(), site.core.entries, await site.audit()) == ([], [], [])


@in_loop
async def test_a_machine_of_ours_is_isolated_not_blocked(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        error = await site.refused("block", what="10.1.0.7")
        assert error.text.endswith("; to cut a machine of yours off: egressd isolate 10.1.0.7")
        assert "isolate" not in (await site.refused("block", what="9.9.9.9")).text


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("block", "bad.example expires=2020-01-31"), ("block", "198.51.100.9 expires=2035-01-31"),
        ("block", "bad.example added=2035-01-31"), ("allow", "good.example expires=2035-01-31"),
    ],
)  # fmt: skip
@in_loop
async def test_a_time_that_would_not_hold_is_refused(tmp_path: Path, verb: str, what: str) -> None:
    """It was dropped without a word: what a person thought was over at some date never was."""
    async with site_at(tmp_path) as site:
        error = await site.refused(verb, what=what)
        assert (error.code, "--for TIME" in error.text) == (WRONG, True)
        assert (site.rules(), site.core.entries, await site.audit()) == ([], [], [])


@in_loop
async def test_twice_is_refused(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="bad.example")
        error = await site.refused("block", BERT, what="www.bad.example")
        assert (error.code, error.text) == (REFUSED, "bad.example is blocked already by D2")
        assert len(await site.audit()) == 2


@in_loop
async def test_block_an_address_for_one_client(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        answer = await site.do("block", what=X, client="10.0.0.5", for_s=60)
        assert answer["text"] == f"{X} is blocked for 10.0.0.5 for 1m"
        assert site.rules() == [f"pair 10.0.0.5>{X}"]
        assert site.core.entries == []
        assert [(actor, act, object_) for actor, act, object_, _ in await site.audit()] == [
            ("uid:anna", "block", answer["decision_id"])
        ]
        await site.core.renew()  # rests on no list line
        assert site.rules() == [f"pair 10.0.0.5>{X}"]


@pytest.mark.parametrize(
    ("what", "client", "code"),
    [
        ("bad.example", "10.0.0.5", WRONG), (X, "lab", WRONG), (X, "10.0.0", WRONG),
        ("198.51.100.0/24", "10.0.0.5", WRONG), ("192.0.2.53", "10.0.0.5", INVALID),
    ],
)  # fmt: skip
@in_loop
async def test_what_cannot_be_blocked_for_one_client(tmp_path: Path, what: str, client: str, code: int) -> None:
    async with site_at(tmp_path) as site:
        assert (await site.refused("block", what=what, client=client)).code == code
        assert site.rules() == []


@in_loop
async def test_the_same_pair_twice_is_one_decision(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what=X, client="10.0.0.5")
        await site.refused("block", what=X, client="10.0.0.5")
        assert len(site.core.register) == 1


@pytest.mark.parametrize(
    ("allowed", "args"),
    [
        ({"what": "bad.example"}, {"what": "www.bad.example"}),
        ({"what": X}, {"what": X}),
        ({"what": X}, {"what": "198.51.100.0/24"}),
        ({"what": X}, {"what": X, "client": "10.0.0.5"}),
        ({"what": X, "client": "10.0.0.5"}, {"what": X, "client": "10.0.0.5"}),
    ],
)
@in_loop
async def test_what_is_allowed_is_not_blocked(tmp_path: Path, allowed: dict[str, str], args: dict[str, str]) -> None:
    async with site_at(tmp_path) as site:
        await site.do("allow", **allowed)
        error = await site.refused("block", **args)
        assert (error.code, site.rules(), len(await site.audit())) == (REFUSED, [], 1)
        assert f"it is allowed: allow-destination {allowed['what']}" in error.text and WHY in error.text
        if "client" in allowed:
            await site.do("block", what=X, client="10.0.0.6")
            assert site.rules() == [f"pair 10.0.0.6>{X}"]


@in_loop
async def test_a_domain_that_holds_what_is_never_blocked_is_not_blocked_whole(tmp_path: Path) -> None:
    """As a network is not; the next look would lift it."""
    (tmp_path / "allow.txt").write_text("never-block www.bad.example owner=noc reason=shop\n")
    async with site_at(tmp_path, config=CONFIG + "allow: [allow.txt]\n") as site:
        error = await site.refused("block", what="bad.example")
        assert "it is allowed: never-block www.bad.example (allow.txt:1: shop)" in error.text
        await site.do("block", what="c2.bad.example scope=host")
        assert site.rules() == ["host c2.bad.example"]


@in_loop
async def test_who_allows_an_address_reaches_it_though_its_network_is_blocked(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="198.51.100.0/24")
        answer = await site.do("allow", what=X)
        assert site.rules() == []
        assert any(one.endswith(" is lifted: network 198.51.100.0/24") for one in answer["lines"])


# -- modes


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("block", {"what": "bad.example"}), ("block", {"what": X, "client": "10.0.0.5"}),
        ("isolate", {"client": "10.0.0.5"}),
        ("cut", {"segment": "lab", "for_s": 60, "confirm": "lab"}),
    ],
)  # fmt: skip
@in_loop
async def test_in_monitor_nothing_is_blocked_and_it_says_how_to_arm(
    tmp_path: Path, verb: str, args: dict[str, Any]
) -> None:
    async with site_at(tmp_path, "monitor") as site:
        error = await site.refused(verb, **args)
        assert error.code == REFUSED
        assert "monitor" in error.text and "egressd mode enforce --reason" in error.text
        assert (len(site.core.register), await site.audit()) == (0, [])


@in_loop
async def test_mode(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        site.sees(sighting(found=LISTED), policy_block("monitor"))
        assert site.rules() == []
        answer = await site.do("mode", BERT, mode="enforce")
        assert answer["text"] == "the mode is enforce (it was monitor)"
        assert answer["lines"][0] == "0 targets are to be in the kernel now, of 1 decision"
        assert "after a restart it is monitor again" in answer["lines"][1]
        assert (site.core.arming.mode, site.kernel.modes, site.rules()) == (
            "enforce",
            ["enforce"],
            ["registered_domain listed.example"],
        )
        swap = next(one for one in reversed(site.told) if isinstance(one, Swap))
        assert (swap.enforced, swap.fast_lane, swap.settings.mode) == (True, True, "enforce")
        assert isinstance(site.told[-1], Adopt) and site.told[-1].standing[0].enforced
        assert (await site.audit())[-1] == ("uid:bert", "mode", "", WHY)
        assert (await site.do("mode", BERT, mode="enforce"))["text"] == "the mode is enforce already"
        await site.do("mode", BERT, mode="monitor")
        assert site.rules() == []
        assert isinstance(site.told[-1], Adopt) and not site.told[-1].standing[0].enforced


@in_loop
async def test_a_mode_that_the_kernel_refuses_leaves_the_one_before(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor") as site:
        site.kernel.refuses = "nft is not there"
        with pytest.raises(Exception, match="nft is not there"):
            await site.do("mode", BERT, mode="enforce")
        assert (site.core.arming.mode, site.kernel.modes) == ("monitor", ["enforce", "monitor"])


@in_loop
async def test_the_demonstration_list_cannot_be_armed(tmp_path: Path) -> None:
    async with site_at(tmp_path, "monitor", config="mode: monitor\n") as site:
        assert "demonstration" in (await site.refused("mode", BERT, mode="enforce")).text


# -- approve, reject


@in_loop
async def test_approve(tmp_path: Path) -> None:
    async with site_at(tmp_path, "approve") as site:
        site.sees(sighting(found=LISTED), policy_block("approve"), verdict("D1", "extend", address(), found=LISTED))
        assert site.rules() == []
        site.hands.pass_s(300)
        answer = await site.do("approve", id="D1")
        assert answer["text"] == "listed.example is blocked from now on"
        assert site.rules() == ["registered_domain listed.example", f"address {X}"]
        row = await site.row("D1")
        assert (row.state, row.targets[1].expires_us) == (ACTIVE, site.core.clock.now_us() + 600 * SECOND)
        assert (await site.audit())[-1] == ("uid:anna", "approve", "D1", WHY)
        error = await site.refused("approve", id="D1")
        assert "active" in error.text
        assert "no open decision D9" in (await site.refused("approve", id="D9")).text


@in_loop
async def test_block_what_is_proposed_approves_it(tmp_path: Path) -> None:
    async with site_at(tmp_path, "approve") as site:
        site.sees(sighting(found=LISTED), policy_block("approve"))
        answer = await site.do("block", what="listed.example")
        assert (answer["decision_id"], site.core.entries) == ("D1", [])
        assert site.rules() == ["registered_domain listed.example"]


@in_loop
async def test_reject_is_remembered(tmp_path: Path) -> None:
    async with site_at(tmp_path, "approve") as site:
        site.sees(sighting(found=LISTED), policy_block("approve"))
        answer = await site.do("reject", id="D1")
        assert answer["text"] == "D1 is rejected; listed.example may be reached"
        assert (await site.row("D1")).state == "undone"
        allows = site.core.knowledge.intel.allowances.allows
        assert allows("www.listed.example", b"", b"", 0) is not None
        acts = [(actor, act, reason) for actor, act, _, reason in await site.audit()]
        assert {("uid:anna", "end", WHY), ("uid:anna", "allow", WHY)} < set(acts)
        site.sees(sighting(found=LISTED), policy_block("approve"))
        assert "egressd unblock" not in (await site.refused("reject", id="D7")).text


@in_loop
async def test_what_is_in_force_is_not_rejected(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED), policy_block())
        assert "egressd unblock D1" in (await site.refused("reject", id="D1")).text
        assert site.rules() == ["registered_domain listed.example"]


# -- the rest


@in_loop
async def test_ack(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED))
        assert (await site.do("ack", incident="I1"))["text"] == "I1 is yours"
        assert (await site.do("ack", BERT, incident="I1"))["text"] == "I1 is acknowledged already"
        assert await site.audit() == [("uid:anna", "ack", "I1", WHY)]
        with pytest.raises(StoreError, match="no incident I7"):
            await site.do("ack", incident="I7")


@in_loop
async def test_a_mistake_where_no_last_good_copy_can_be_kept_ends_no_block(tmp_path: Path) -> None:
    """As where somebody ran the daemon as root by hand: the folder is there, and closed to the service."""
    async with site_at(tmp_path) as site:
        for kept in (tmp_path / "state" / "last-good").iterdir():
            kept.unlink()
            kept.mkdir()
        await site.do("reload")
        assert any("no last good copy of the lists is kept" in one for one in warnings(site.core))
        site.sees(sighting(found=LISTED), policy_block())
        rules = site.rules()
        (tmp_path / "csirt.txt").write_text((tmp_path / "csirt.txt").read_text() + "other.example colour=red\n")
        error = await site.refused("reload")
        assert "csirt.txt:2" in error.text and "nothing was changed" in error.text
        assert site.core.knowledge.intel.index.size == 1
        assert site.rules() == rules != []


@in_loop
async def test_reload(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED), policy_block())
        (tmp_path / "csirt.txt").write_text("other.example\nthird.example\n")
        answer = await site.do("reload")
        assert answer["lines"][0] == "2 indicators (1 before)"
        assert site.rules() == []
        assert ((await site.row("D1")).state, (await site.row("D1")).ended_by) == ("withdrawn", "rule:unlisted")
        assert (site.core.reloading.counts, site.core.reloading.problems) == ({"ok": 1, "refused": 0}, [])
        assert ("uid:anna", "reload", "", WHY) in await site.audit()
        assert any(isinstance(one, End) for one in site.told)
        assert site.kernel.forced == 0
        await site.do("reload", force=True)
        assert site.kernel.forced == 1 and ("uid:anna", "reload", "force", WHY) in await site.audit()
        (tmp_path / "csirt.txt").write_text("other.example colour=red\n")
        error = await site.refused("reload")
        assert error.code == INVALID
        assert "keep their last good content" in error.text and "csirt.txt:1" in error.text
        assert [one.value for one in site.core.knowledge.intel.index.listed()] == ["other.example", "third.example"]
        assert "csirt.txt:1" in site.core.reloading.problems[0]
        (tmp_path / "egressd.yaml").write_text("mode: loud\n")
        error = await site.refused("reload")
        assert error.code == INVALID
        assert "nothing was changed: 1 problem" in error.text and "mode" in error.text
        assert site.core.knowledge.intel.index.size == 2
        assert site.core.reloading.counts == {"ok": 3, "refused": 1}
        assert len(site.core.reloading.problems) == 1
        (tmp_path / "csirt.txt").write_text("other.example\n")
        (tmp_path / "egressd.yaml").write_text(CONFIG + "capture: {processes: 2}\n")
        (tmp_path / "csirt.txt").write_text("other.example\nthird.example\n")
        answer = await site.do("reload", only="lists")
        assert answer == {"text": "lists are read anew", "lines": ["2 indicators (2 before)"]}, "no word of capture"
        assert (await site.do("reload"))["lines"][1:] == ["in force only after a restart: capture"]


@in_loop
async def test_what_waits_for_a_restart_is_not_gone_by(tmp_path: Path) -> None:
    """Numbers of decisions were given out by the new capture.processes while the old ones ran, two the same; and the
    last good lists were looked for in the new state.directory."""
    async with site_at(tmp_path) as site:
        held = site.core.config
        other = CONFIG.replace("directory: state", "directory: other")
        site.path.write_text(other + "capture: {processes: 4}\n")
        for _ in range(2):
            assert (await site.do("reload"))["lines"][1:] == ["in force only after a restart: capture, state"]
        volume = "volume: {pairs: 2048, floor_mib: 1}\n"
        (tmp_path / "egressd.yaml").write_text(CONFIG + volume)
        assert (await site.do("reload"))["lines"][1:] == ["in force only after a restart: volume.pairs"]
        in_force = site.core.config.volume
        assert (in_force.pairs, in_force.floor_mib) == (32_768, 1), "a bound of tables that are there"
        assert (site.core.config.capture, site.core.config.state) == (held.capture, held.state)
        assert not (tmp_path / "other").exists()
        made = [int(site.core.new_id()[1:]) % (held.capture.processes + 1) for _ in range(3)]
        assert made == [0, 0, 0]
        site.path.write_text(CONFIG)
        assert (await site.do("reload"))["lines"][1:] == []


@pytest.mark.parametrize("text", ["", "\n", "# mode: enforce\n", "---\n", "lists: []\n"])
@in_loop
async def test_a_configuration_of_which_nothing_is_left_changes_nothing(tmp_path: Path, text: str) -> None:
    """A full disk leaves an empty file: that was the mode monitor, and every block was lifted."""
    async with site_at(tmp_path) as site:
        site.path.write_text(text)
        error = await site.refused("reload")
        assert error.code == INVALID and "names no list" in error.text
        assert (site.core.arming.mode, site.core.loaded.config.lists) == ("enforce", ("csirt.txt",))


@in_loop
async def test_events_of_what_people_do_keep_to_the_schema(tmp_path: Path) -> None:
    """Their `campaign` was empty, which no campaign's number is."""
    schema = json.loads((Path(__file__).parents[2] / "docs" / "events.schema.json").read_text(encoding="utf-8"))
    async with site_at(tmp_path) as site:
        await site.do("block", what="bad.example")
        await site.do("block", what="203.0.113.9", for_s=60)
        await site.do("block", what="203.0.113.8", client="10.0.0.5")
        await site.do("block", what="http://bad2.example/x")
        await site.do("isolate", client="10.0.0.5")
        await site.do("cut", segment="both", confirm="both", for_s=60)
        await site.do("unblock", what="bad.example")
        await site.do("uncut", segment="both")
        await site.do("undo")
        await site.do("panic")
        assert len(site.ears.records) > 10
        for event in site.ears.records:
            Draft202012Validator(schema).validate(event)


def fill_disk(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise StoreError("ledger.db: the disk is full", FULL)

    monkeypatch.setattr(site.core.ledger, "run", full)
    monkeypatch.setattr(site.core.ledger, "run_large", full)


@in_loop
async def test_nothing_is_done_off_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the ledger could not be written hosts were isolated, and it was said that they were not; a mode that was
    not changed stood in the audit log as changed."""
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED), policy_block(), verdict("D1", "extend", address(), found=LISTED))
        await site.core.scribe.settled()
        fill_disk(site, monkeypatch)
        with pytest.raises(StoreError):
            await site.do("mode", mode="approve")
        assert (site.core.arming.mode, site.core.scribe.waiting) == ("enforce", 0)
        site.sees(sighting(B, found=LISTED))
        with pytest.raises(StoreError):
            await site.core.scribe.settled()
        before, waiting = site.rules(), site.core.scribe.waiting
        for verb, args in (
            ("isolate", {"client": "10.0.0.5"}), ("mode", {"mode": "approve"}), ("unblock", {"what": "D1"}),
            ("block", {"what": "203.0.113.9"}), ("undo", {"id": "D1"}), ("release", {"client": "10.0.0.5"}),
        ):  # fmt: skip
            error = await site.refused(verb, **args)
            assert error.text == "nothing was done, for it could not be written down: ledger.db: the disk is full"
        assert (site.rules(), site.core.arming.mode, site.core.scribe.waiting) == (before, "enforce", waiting)


@in_loop
async def test_panic_needs_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="203.0.113.9")
        fill_disk(site, monkeypatch)
        with pytest.raises(StoreError, match=r"^it is done, but not written down yet: ledger.db: the disk is full"):
            await site.do("panic", BERT)
        assert (site.rules(), site.core.arming.mode) == ([], "monitor")
        monkeypatch.undo()


@in_loop
async def test_panic(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED), policy_block(), verdict("D1", "extend", address(), pair(A), found=LISTED))
        await site.do("block", what="bad.example")
        await site.do("isolate", client="10.0.0.5", remedy=["10.9.0.1"])
        answer = await site.do("panic", BERT)
        assert answer["text"].startswith("everything is lifted (3) and the mode is monitor")
        assert (site.rules(), len(site.core.register), site.core.arming.mode) == ([], 0, "monitor")
        assert (site.kernel.modes, site.kernel.remedies) == (["monitor"], ())
        rows = await site.audit()
        assert [row[:2] for row in rows if row[0] == "uid:bert"] == [("uid:bert", "panic")] + [("uid:bert", "end")] * 3
        assert {(await site.row(f"D{number}")).state for number in (1, 2)} == {"undone"}
