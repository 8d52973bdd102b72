"""Undo: what a person did last stands as it did before, and a decision is taken back by its number."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressd.model import Target
from egressd.runtime.orders import Adopt, Swap
from egressd.store import meta, queries
from egressd.store.decisions import ACTIVE, PROPOSED
from egressd.units import DAY_S
from tests.detect.scene import packed
from tests.loops import in_loop
from tests.runtime.core_scene import BERT, WHY, site_at
from tests.runtime.scene import HOUR, A, address, pair, sighting, verdict
from tests.runtime.test_verbs_back import LISTED, OURS, X, allowed, policy_block

AGAIN = f"{WHY} (D2: {WHY})"  # why it was undone is no reason to block: that of before is kept


@in_loop
async def test_undo_takes_back_what_this_person_did_last(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="one.example")
        await site.do("block", BERT, what="two.example")
        await site.do("block", what="three.example")
        for left in (["one.example", "two.example"], ["two.example"]):
            answer = await site.do("undo")
            assert answer["text"] == "undone"
            assert [rule.partition(" ")[2] for rule in site.rules()] == left
        assert [one.text for one in site.core.entries] == ["two.example"]
        error = await site.refused("undo")
        assert "nothing that you did" in error.text
        await site.do("undo", BERT)
        assert (site.rules(), site.core.entries) == ([], [])
        ends = [(actor, reason) for actor, act, _, reason in await site.audit() if act == "end"]
        assert ends == [("uid:anna", WHY), ("uid:anna", WHY), ("uid:bert", WHY)]


@pytest.mark.parametrize(
    ("verb", "args", "told"),
    [
        ("mode", {"mode": "monitor"}, "egressd mode enforce --reason TEXT"),
        ("mode", {"mode": "monitor", "segment": "lab"}, "egressd mode enforce --segment lab --reason TEXT"),
    ],
)
@in_loop
async def test_undo_after_what_it_does_not_take_back_takes_back_nothing_else(
    tmp_path: Path, verb: str, args: dict[str, str], told: str
) -> None:
    """`undo` after `mode` lifted the block that the person had made before."""
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address()))
        await site.do("block", BERT, what="bad.example")
        await site.do(verb, BERT, **args)
        error = (await site.refused("undo", BERT)).text
        assert error.startswith("nothing was undone: ") and told in error
        assert [one.text for one in site.core.entries] == ["bad.example"]
        assert (await site.do("undo", BERT))["text"] == "undone"
        assert site.core.entries == []


@in_loop
async def test_undo_of_ack_gives_the_incident_out_of_hand_and_takes_back_nothing_else(tmp_path: Path) -> None:
    """It was refused once, and the block that was made before was lifted by the next."""
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address()))
        await site.do("block", BERT, what="bad.example")
        await site.do("ack", BERT, incident="I1")
        answer = await site.do("undo", BERT)
        assert answer["lines"] == ["I1 is in nobody's hand again"]
        (incident,) = await site.core.ledger.read(queries.incidents)
        assert (incident["state"], incident["acked_by"], incident["acked_us"]) == ("open", None, None)
        assert [one.text for one in site.core.entries] == ["bad.example"]
        assert (await site.audit())[-1][:3] == ("uid:bert", "undo-ack", "I1")


@in_loop
async def test_undo_of_ack_leaves_what_others_made_of_it_since(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address()))
        await site.do("ack", BERT, incident="I1")
        await site.do("close", incident="I1")
        assert (await site.do("undo", BERT))["lines"] == ["I1 is not acknowledged any more"]
        await site.do("undo")  # opened again, in hand as it was
        assert [one["state"] for one in await site.core.ledger.read(queries.incidents)] == ["acknowledged"]
        await site.do("ack", incident="I1")
        assert "acknowledged before" in (await site.refused("undo")).text


@in_loop
async def test_undo_after_panic_says_that_it_brings_nothing_back(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", BERT, what="bad.example")
        await site.do("panic", BERT)
        assert "comes back by no command; egressd mode arms again" in (await site.refused("undo", BERT)).text


@in_loop
async def test_undo_by_id(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        done = await site.do("block", BERT, what="bad.example")
        answer = await site.do("undo", id=done["decision_id"])
        assert answer["text"] == f"{done['decision_id']} is undone"
        assert (site.rules(), site.core.entries) == ([], [])
        assert "no open decision" in (await site.refused("undo", id=done["decision_id"])).text


@in_loop
async def test_undo_of_a_decision_of_policy_holds_for_a_day(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block())
        answer = await site.do("undo", id="D1")
        assert "not decide it again for a day" in answer["lines"][-1]
        assert site.rules() == []
        assert allowed(site, "listed.example", later_s=DAY_S - 1) and not allowed(site, "listed.example", later_s=DAY_S)


@in_loop
async def test_undo_of_an_isolation_takes_its_remedies(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("isolate", client="10.0.0.5", remedy=["10.9.0.1"])
        await site.do("undo")
        assert (site.rules(), site.core.isolation.remedies, site.kernel.remedies) == ([], {}, ())


@in_loop
async def test_undo_of_what_has_ended_already(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what=X, client="10.0.0.5", for_s=60)
        site.hands.pass_s(61)
        await site.core.tick()
        assert (await site.do("undo"))["lines"] == ["it had ended already"]


@in_loop
async def test_undo_of_an_unblock_blocks_again(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what="bad.example")
        assert site.rules() == ["registered_domain bad.example"]
        await site.do("unblock", what="bad.example")
        assert (site.rules(), site.core.entries) == ([], [])
        answer = await site.do("undo")
        assert answer["lines"] == [
            "E2 is listed again: bad.example",
            "D4 blocks bad.example again (it was D2)",
        ]
        assert (site.rules(), [one.text for one in site.core.entries]) == (
            ["registered_domain bad.example"],
            ["bad.example"],
        )
        assert (await site.row("D2")).state == "undone"
        assert (await site.audit())[-2:] == [("uid:anna", "add-line", "E2", WHY), ("uid:anna", "block", "D4", AGAIN)]
        await site.do("unblock", what="bad.example")  # and the line goes with it again
        assert (site.rules(), site.core.entries) == ([], [])


@in_loop
async def test_undo_of_an_unblock_covers_what_was_covered(tmp_path: Path) -> None:
    """What was given free before, for whatever reason, stays free."""
    async with site_at(tmp_path) as site:
        other = address("198.51.100.9")
        site.sees(*policy_block(address(), other, pair(A, packed("198.51.100.8"))))
        site.core.rulings.withdraw(site.core.register.by_id["D1"], (other,), "rule:kept", "policy", "shared")
        before = site.rules()
        await site.do("unblock", what="D1")
        assert (site.rules(), allowed(site, "listed.example")) == ([], True)
        await site.do("undo")
        assert (site.rules(), allowed(site, "listed.example")) == (before, False)
        assert len(before) == 3


@in_loop
async def test_undo_of_an_unblock_ends_the_allowance_before_it_blocks_again(tmp_path: Path) -> None:
    """A packet process that adopts a block while the allowance still holds takes the listed name, which was resolved
    meanwhile, for an innocent one, and gives its address free."""
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address()))
        await site.do("unblock", what="D1")
        site.told.clear()
        await site.do("undo")
        (again,) = site.core.register.by_id.values()
        orders = [one for one in site.told if isinstance(one, Swap | Adopt)]
        first = next(at for at, one in enumerate(orders) if isinstance(one, Adopt))
        swaps = [one for one in orders[:first] if isinstance(one, Swap)]
        assert swaps, [type(one).__name__ for one in orders]
        assert not swaps[-1].intel.allowances.allowances
        assert again.held[address()].state == ACTIVE


@in_loop
async def test_undo_of_an_unblock_when_traffic_was_quicker(tmp_path: Path) -> None:
    """Between the end of the allowance and the block that stands again somebody may ask for the name."""
    async with site_at(tmp_path) as site:
        other = address("198.51.100.9")
        site.sees(*policy_block(address(), other))
        await site.do("unblock", what="D1")
        renew = site.core.renew

        async def asked_meanwhile() -> None:
            await renew()
            site.core.renew = renew  # type: ignore[method-assign]
            block, extend = verdict("D9", "block", OURS, found=LISTED), verdict("D9", "extend", address(), found=LISTED)
            site.sees(sighting(found=LISTED), block, extend)

        site.core.renew = asked_meanwhile  # type: ignore[method-assign]
        answer = await site.do("undo")
        (again,) = site.core.register.by_id.values()
        assert [one for one in (address(), other) if one in again.held] == [address(), other]
        assert answer["lines"][-1] == f"{again.id} blocks listed.example again (it was D1)"


@in_loop
async def test_undo_of_a_rejection_waits_for_a_person_again(tmp_path: Path) -> None:
    async with site_at(tmp_path, "approve") as site:
        site.sees(*policy_block(address(), mode="approve"))
        await site.do("reject", id="D1")
        answer = await site.do("undo")
        (again,) = site.core.register.by_id.values()
        assert answer["lines"][-1] == f"{again.id} is proposed again: listed.example (it was D1)"
        assert (again.state, site.rules(), allowed(site, "listed.example")) == (PROPOSED, [], False)
        assert (await site.row(again.id)).state == PROPOSED
        await site.do("approve", id=again.id)
        assert site.rules() == ["registered_domain listed.example", f"address {X}"]


@in_loop
async def test_undo_of_a_rejection_in_enforce_blocks(tmp_path: Path) -> None:
    async with site_at(tmp_path, "approve") as site:
        site.sees(*policy_block(mode="approve"))
        await site.do("reject", id="D1")
        await site.do("mode", BERT, mode="enforce")
        await site.do("undo")
        (again,) = site.core.register.by_id.values()
        assert (again.state, site.rules()) == (ACTIVE, ["registered_domain listed.example"])


@in_loop
async def test_undo_of_an_approval_waits_for_a_person_again(tmp_path: Path) -> None:
    async with site_at(tmp_path, "approve") as site:
        site.sees(*policy_block(address(), mode="approve"))
        await site.do("approve", id="D1")
        assert site.rules() == ["registered_domain listed.example", f"address {X}"]
        answer = await site.do("undo")
        (decision,) = site.core.register.by_id.values()
        assert answer["lines"] == ["D1 waits for a person again: registered_domain listed.example"]
        assert (decision.state, site.rules(), (await site.row("D1")).state) == (PROPOSED, [], PROPOSED)
        assert (await site.audit())[-1] == ("uid:anna", "undo-approve", "D1", WHY)
        assert [one for one in site.told if isinstance(one, Adopt)][-1].standing[0].enforced is False
        await site.do("approve", id="D1")
        assert site.rules() == ["registered_domain listed.example", f"address {X}"]


@in_loop
async def test_undo_of_an_approval_in_enforce_lifts(tmp_path: Path) -> None:
    async with site_at(tmp_path, "approve") as site:
        site.sees(*policy_block(mode="approve"))
        await site.do("approve", id="D1")
        await site.do("mode", BERT, mode="enforce")
        assert (await site.do("undo"))["lines"] == ["D1 is undone: registered_domain listed.example"]
        assert (site.rules(), dict(site.core.register.by_id)) == ([], {})


@pytest.mark.parametrize("verb", ["release", "unblock"])
@in_loop
async def test_undo_of_a_release_isolates_with_its_remedies(tmp_path: Path, verb: str) -> None:
    async with site_at(tmp_path) as site:
        done = await site.do("isolate", client="10.0.0.5", remedy=["10.9.0.1"], for_s=3_600)
        before = site.kernel.remedies
        if verb == "release":
            await site.do("release", client="10.0.0.5")
        else:
            await site.do("unblock", what=done["decision_id"])
        assert (site.rules(), site.kernel.remedies) == ([], ())
        await site.do("undo")
        (again,) = site.core.register.by_id.values()
        assert (site.rules(), site.kernel.remedies) == (["client 10.0.0.5"], before)
        assert again.held[again.target].expires_us == site.core.clock.now_us() + HOUR
        assert ("uid:anna", "isolate", again.id, AGAIN) == (await site.audit())[-1]
        assert await site.ledger.read(meta.under, "remedies") == {again.id: "10.9.0.1"}


@in_loop
async def test_undo_of_an_uncut_cuts_all_its_networks(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("cut", segment="both", for_s=3_600, confirm="both")
        before = site.rules()
        await site.do("uncut", segment="both")
        site.told.clear()
        await site.do("undo")
        assert site.rules() == before == ["segment 10.2.0.0/24", "segment 2001:db8:2::/64"]
        (again,) = site.core.register.by_id.values()
        ends_us = site.core.clock.now_us() + HOUR
        assert [one.expires_us for one in again.held.values()] == [ends_us] * 2
        assert (await site.audit())[-1] == ("uid:anna", "cut", again.id, AGAIN)
        assert [one for one in site.told if isinstance(one, Adopt)] == []  # no business of packet processes
        site.hands.pass_s(3_601)
        await site.core.tick()
        assert site.rules() == []


@in_loop
async def test_undo_of_a_release_whose_time_is_over(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("isolate", client="10.0.0.5", for_s=60)
        await site.do("release", client="10.0.0.5")
        site.hands.pass_s(61)
        await site.core.tick()
        assert (await site.do("undo"))["lines"] == ["it had ended already"]
        assert site.rules() == []


@in_loop
async def test_undo_of_an_unblock_of_what_is_protected_now(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(*policy_block(address()))
        await site.do("unblock", what="D1")
        site.core.station.around = site.core.station.around._replace(
            networks=((packed(X), 32, "gateway of this machine"),)
        )
        await site.core.renew()
        await site.do("undo")
        assert site.rules() == ["registered_domain listed.example"]


@in_loop
async def test_undo_of_an_unblock_of_a_pair(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.do("block", what=X, client="10.0.0.5", for_s=3_600)
        await site.do("unblock", what=f"10.0.0.5>{X}")
        await site.do("undo")
        assert (site.rules(), site.core.entries) == ([f"pair 10.0.0.5>{X}"], [])
        assert Target("pair", f"10.0.0.5>{X}") in site.core.register.by_target
