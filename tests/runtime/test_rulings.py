"""Rulings: each change reaches the register, the ledger, the audit chain, and the packet processes that do not know."""

from __future__ import annotations

import pytest

from egressd.model import Target
from egressd.runtime.in_force import RESTING
from egressd.runtime.orders import Adopt, End, Rest
from egressd.runtime.rulings import MAX_ALIASES
from egressd.store.audit import Act
from egressd.store.decisions import ACTIVE, PROPOSED
from tests.runtime.scene import (
    HOUR,
    SECOND,
    T0,
    A,
    B,
    Desk,
    X,
    Y,
    about,
    address,
    in_force,
    match,
    pair,
    sighting,
    verdict,
)

MIN = 60 * SECOND


def states(desk: Desk, id_: str) -> dict[str, str]:
    """Target -> state, as the ledger has them."""
    return {one.target.value: one.state for one in desk.row(id_).targets}


# -- one process


def test_a_block_is_in_the_register_in_the_ledger_and_told_to_the_others(desk: Desk) -> None:
    desk.rulings.of_policy(1, verdict("D3"))
    known = desk.register.by_target[about()]
    assert (known.id, known.state, known.author, known.mode) == ("D3", ACTIVE, "policy", "enforce")
    ((order, but),) = desk.told
    assert but == 1  # whose it is knows it
    assert isinstance(order, Adopt)
    assert [(one.id, one.target, one.enforced) for one in order.standing] == [("D3", about(), True)]
    row = desk.row("D3")
    assert (row.state, row.author, row.match, row.client, row.targets[0].target) == (
        ACTIVE,
        "policy",
        match(),
        A,
        about(),
    )
    assert [(one["act"], one["object"], one["via"]) for one in desk.audit()] == [("block", "D3", "policy")]
    assert desk.rulings.counts == {"block": 1}


def test_extend_withdraw_and_end_reach_everything(desk: Desk) -> None:
    desk.rulings.of_policy(0, verdict())
    desk.told.clear()
    desk.rulings.of_policy(0, verdict("D1", "extend", address(), pair(B, Y), rule="address"))
    assert desk.register.rules("enforce")[1:] == [
        rule for rule in desk.register.rules("enforce") if rule.expires_us == T0 + 10 * MIN
    ]
    assert states(desk, "D1") == {"bad.example": "active", "198.51.100.7": "active", "10.0.0.6>198.51.100.8": "active"}
    assert [one.expires_us for one in desk.row("D1").targets] == [0, T0 + 10 * MIN, T0 + 10 * MIN]
    desk.rulings.of_policy(0, verdict("D1", "withdraw", address(), rule="shared", reason="an innocent site"))
    assert states(desk, "D1")["198.51.100.7"] == "withdrawn"
    assert desk.register.holders(address()) == []
    desk.rulings.of_policy(0, verdict("D1", "withdraw", about(), rule="expired", reason="it has expired"))
    row = desk.row("D1")
    assert (row.state, row.ended_by, row.ended_reason) == ("expired", "rule:expired", "it has expired")
    assert len(desk.register) == 0
    assert [(type(order), but) for order, but in desk.told] == [(Adopt, 0), (Rest, 0), (End, 0)]
    acts = [(one["act"], one["actor"], one["reason"]) for one in desk.audit()]
    assert acts[1:] == [
        ("extend", "rule:address", "at or below the listed name"),
        ("withdraw", "rule:shared", "an innocent site"),
        ("end", "rule:expired", "it has expired"),
    ]


@pytest.mark.parametrize(
    ("rule", "state"), [("expired", "expired"), ("unlisted", "withdrawn"), ("protected", "withdrawn")]
)
def test_why_it_ended(desk: Desk, rule: str, state: str) -> None:
    desk.rulings.of_policy(0, verdict())
    desk.rulings.of_policy(0, verdict("D1", "withdraw", about(), rule=rule))
    assert desk.row("D1").state == state


def test_a_listed_address_ends_with_its_indicator(desk: Desk) -> None:
    found = match("198.51.100.7", "address", "address", expires_s=T0 // SECOND + 3_600)
    desk.rulings.of_policy(0, verdict("D1", "block", address(), found=found))
    assert desk.register.rules("enforce")[0].expires_us == T0 + HOUR
    desk.rulings.of_policy(0, verdict("D2", found=match(expires_s=T0 // SECOND + 3_600)))
    assert desk.register.rules("enforce")[1].expires_us == 0  # of names the packet process tells


@pytest.mark.parametrize(("action", "id_"), [("refuse", "D1"), ("alert", "")])
def test_what_is_not_blocked_is_audited_and_counted(desk: Desk, action: str, id_: str) -> None:
    desk.rulings.of_policy(0, verdict())
    desk.told.clear()
    desk.rulings.of_policy(0, verdict(id_, action, address(), rule="protected", reason="our gateway"))
    assert desk.rulings.counts == {"block": 1, action: 1}
    assert desk.rulings.refusals == {"protected": 1}
    row = desk.audit()[-1]
    assert (row["act"], row["actor"], row["object"], row["reason"], row["after"]) == (
        action, "rule:protected", id_ or "address 198.51.100.7", "our gateway", "address 198.51.100.7",
    )  # fmt: skip
    assert desk.told == [] and len(desk.register.rules("enforce")) == 1


@pytest.mark.parametrize("action", ["extend", "withdraw"])
def test_a_change_to_what_has_ended_is_passed_over(desk: Desk, action: str) -> None:
    desk.rulings.of_policy(0, verdict("D1", action, address()))
    assert (desk.told, len(desk.register), desk.scribe.waiting) == ([], 0, 0)


@pytest.mark.parametrize("is_one_machine", [True, False])
def test_an_address_of_two_decisions_ties_campaigns_that_one_machine_met(desk: Desk, is_one_machine: bool) -> None:
    for number, name in ((1, "bad.example"), (2, "worse.example")):
        one = sighting(A if number == 1 or is_one_machine else B, name, found=match(name))
        desk.campaigns.assign(one)
        made = verdict(f"D{number}", "block", about(name), found=match(name))
        made.campaign = one.campaign
        desk.rulings.of_policy(0, made)
    assert list(desk.campaigns.campaigns) == ["C1", "C2"]
    desk.rulings.of_policy(0, verdict("D1", "extend", pair()))
    desk.rulings.of_policy(0, verdict("D2", "extend", pair()))
    assert list(desk.campaigns.campaigns) == ["C1", "C2"]  # a pair is a client's word
    desk.rulings.of_policy(0, verdict("D1", "extend", address()))
    desk.rulings.of_policy(0, verdict("D2", "extend", address()))
    assert list(desk.campaigns.campaigns) == (["C1"] if is_one_machine else ["C1", "C2"])
    assert list(desk.campaigns.campaigns["C1"].candidates) == ([] if is_one_machine else ["C2"])


# -- two processes


def test_two_that_decide_the_same_make_one_decision(desk: Desk) -> None:
    desk.rulings.of_policy(0, verdict("D1"))
    desk.told.clear()
    second = verdict("D2")
    desk.rulings.of_policy(1, second)
    assert second.id == "D1"  # as it is known from now on
    assert list(desk.register.by_id) == ["D1"]
    ((order, but),) = desk.told
    assert isinstance(order, Adopt) and but == -1  # its own process must learn the name
    assert [one.id for one in order.standing] == ["D1"]
    desk.rulings.of_policy(1, verdict("D2", "extend", address()))
    assert list(desk.register.by_id["D1"].held) == [about(), address()]
    assert states(desk, "D1") == {"bad.example": "active", "198.51.100.7": "active"}
    refuse = verdict("D2", "refuse", address(Y), rule="shared")
    desk.rulings.of_policy(1, refuse)
    assert (refuse.id, desk.audit()[-1]["object"]) == ("D1", "D1")
    desk.rulings.of_policy(1, verdict("D2", "withdraw", about(), rule="expired"))
    assert desk.row("D1").state == "expired"
    assert [one["object"] for one in desk.audit() if one["act"] == "block"] == ["D1"]
    assert desk.scribe.refused == 0


def test_of_the_names_that_a_decision_had_the_oldest_are_forgotten(desk: Desk) -> None:
    """A process has heard of the other name by then; in a year they would be as many as decisions were made twice."""
    desk.rulings.of_policy(0, verdict("D1"))
    for number in range(2, MAX_ALIASES + 3):
        desk.rulings.of_policy(1, verdict(f"D{number}"))
    assert [desk.rulings.known_as(f"D{number}") for number in (2, 3, MAX_ALIASES + 2)] == ["D2", "D1", "D1"]


def test_a_decision_told_twice_is_one(desk: Desk) -> None:
    desk.rulings.of_policy(0, verdict())
    desk.told.clear()
    desk.rulings.of_policy(0, verdict())
    assert (desk.told, list(desk.register.by_id)) == ([], ["D1"])


def test_others_are_told_and_the_origin_is_not(desk: Desk) -> None:
    desk.rulings.of_policy(2, verdict())
    desk.rulings.of_policy(1, verdict("D1", "extend", address()))
    desk.rulings.of_policy(0, verdict("D1", "withdraw", address(), rule="shared"))
    desk.rulings.of_policy(2, verdict("D1", "withdraw", about(), rule="expired"))
    assert [but for _, but in desk.told] == [2, 1, 0, 2]


# -- modes


def test_in_mode_approve_a_decision_waits_for_a_person(desk: Desk) -> None:
    desk.rulings.of_policy(0, verdict(mode="approve"))
    decision = desk.register.by_id["D1"]
    desk.rulings.of_policy(0, verdict("D1", "extend", address(), mode="approve"))
    assert (decision.state, desk.register.rules("approve")) == (PROPOSED, [])
    assert desk.row("D1").state == "proposed"
    assert all(not one.enforced for order, _ in desk.told for one in order.standing)  # type: ignore[union-attr]
    assert desk.rulings.outcome(match()) == "NOT blocked yet: egressd approve D1"
    desk.hands.pass_s(400)
    desk.told.clear()
    desk.rulings.approve(decision, "uid:anna", "I know it")
    now_us = T0 + 400 * SECOND
    assert decision.held[address()].expires_us == now_us + 10 * MIN  # its terms begin now
    assert [(rule.target, rule.expires_us) for rule in desk.register.rules("approve")] == [
        (about(), 0),
        (address(), now_us + 10 * MIN),
    ]
    row = desk.row("D1")
    assert (row.state, row.targets[1].expires_us) == ("active", now_us + 10 * MIN)
    ((order, but),) = desk.told
    assert isinstance(order, Adopt) and but == -1 and order.standing[0].enforced
    last = desk.audit()[-1]
    assert (last["act"], last["actor"], last["via"], last["reason"]) == ("approve", "uid:anna", "socket", "I know it")
    assert [one[1].target for one in desk.register.due(now_us + 10 * MIN - 1)] == []
    assert [one[1].target for one in desk.register.due(now_us + 10 * MIN)] == [address()]


def test_a_step_before_the_approval_leaves_register_and_ledger_alike(desk: Desk) -> None:
    from egressd.store import targets

    desk.rulings.of_policy(0, verdict(mode="approve"))
    desk.rulings.of_policy(0, verdict("D1", "extend", address(), mode="approve"))
    desk.hands.set_by_s(7_200)
    delta_us = desk.clock.follow()
    desk.register.shift(delta_us)
    desk.scribe.put(targets.shift_deadlines, delta_us)
    desk.rulings.approve(desk.register.by_id["D1"], "uid:anna", "I know it")
    held = desk.register.by_id["D1"].held[address()]
    assert held.expires_us == desk.clock.now_us() + 10 * MIN
    assert desk.row("D1").targets[1].expires_us == held.expires_us


@pytest.mark.parametrize(
    ("mode", "state", "outcome"),
    [
        ("enforce", ACTIVE, "BLOCKED by D1, still watched"),
        ("approve", ACTIVE, "BLOCKED by D1, still watched"),
        ("approve", PROPOSED, "NOT blocked yet: egressd approve D1"),
        ("monitor", ACTIVE, "NOT blocked: mode is monitor (would be D1)"),
        ("enforce", "", "NOT blocked: alert only"),
    ],
)
def test_what_was_done_in_a_sentence(desk: Desk, mode: str, state: str, outcome: str) -> None:
    desk.mode = mode
    if state:
        desk.register.add(in_force(state=state))
    assert desk.rulings.outcome(match("c2.bad.example")) == outcome


def test_what_was_done_where_a_rule_narrowed_the_block(desk: Desk) -> None:
    network = match("198.51.100.0/24", "address", "network")
    desk.register.add(in_force("D1", main=Target("host", "a.bad.example")))
    desk.register.add(in_force("D2", main=address(), found=network))
    assert desk.rulings.outcome(match(), B, ["x.bad.example", "a.bad.example"]) == "BLOCKED by D1, still watched"
    assert desk.rulings.outcome(match(), B, ["x.bad.example"]) == "NOT blocked: alert only"
    assert desk.rulings.outcome(network, A, ["198.51.100.0/24"]) == "BLOCKED by D2, still watched"


def test_what_was_done_about_a_listed_address_that_one_client_is_kept_from(desk: Desk) -> None:
    listed = match("198.51.100.7", "address", "address")
    made = in_force(main=pair(A), found=listed)
    made.rule = "share"
    desk.mode = "enforce"
    desk.register.add(made)
    assert desk.rulings.outcome(listed, A) == "BLOCKED by D1, still watched"
    assert desk.rulings.outcome(listed, B) == "NOT blocked: alert only"


@pytest.mark.parametrize(
    ("mode", "state", "enforced"),
    [("enforce", ACTIVE, True), ("monitor", ACTIVE, False), ("approve", PROPOSED, False), ("approve", ACTIVE, True)],
)
def test_whether_the_kernel_is_to_hold_it(desk: Desk, mode: str, state: str, enforced: bool) -> None:
    desk.mode = mode
    desk.register.add(in_force(state=state))
    assert [one.enforced for one in desk.rulings.standing().standing] == [enforced]


# -- people


def test_decisions_about_machines_of_ours_are_no_business_of_packet_processes(desk: Desk) -> None:
    target = Target("client", "10.0.0.5")
    act = Act("uid:anna", "socket", "block", target.value, "infected")
    made = desk.rulings.make(verdict("D2", "block", target, client=b""), ACTIVE, "uid:anna", T0 + HOUR, act)
    assert desk.told == []
    assert desk.rulings.standing() == Adopt(())
    assert desk.register.isolated() == {"10.0.0.5": "D2"}
    assert (made.author, made.held[target].expires_us) == ("uid:anna", T0 + HOUR)
    row = desk.audit()[-1]
    assert (row["actor"], row["via"], row["object"], row["reason"]) == ("uid:anna", "socket", "D2", "infected")
    desk.rulings.end(made, "undone", "uid:anna", "socket", "clean again")
    assert (desk.row("D2").state, desk.row("D2").ended_by) == ("undone", "uid:anna")


# -- by time


def test_a_term_that_is_over_goes_on_or_rests(desk: Desk) -> None:
    desk.rulings.of_policy(0, verdict())
    desk.rulings.of_policy(0, verdict("D1", "extend", address(), address(Y)))
    desk.register.tried(desk.register.by_id["D1"], pair(), address(), 1, T0 + 1)
    desk.told.clear()
    desk.hands.pass_s(599)
    desk.rulings.expire()
    assert desk.told == []
    desk.hands.pass_s(1)
    desk.rulings.expire()
    assert desk.told == [(Rest((("D1", address(Y)),)), -1)]
    rows = {one.target: one for one in desk.row("D1").targets}
    assert (rows[address()].state, rows[address()].level) == ("active", 1)
    assert rows[address()].expires_us == T0 + 10 * MIN + HOUR == desk.register.by_id["D1"].held[address()].expires_us
    assert rows[address(Y)].state == "expired" == RESTING
    assert desk.row("D1").state == "active"
    assert [one["act"] for one in desk.audit()][-1] == "expire"
    desk.rulings.of_policy(0, verdict("D1", "extend", address(Y)))
    assert desk.register.by_id["D1"].held[address(Y)].level == 1
    assert {one.target: one.level for one in desk.row("D1").targets}[address(Y)] == 1


def test_a_persons_time_is_over(desk: Desk) -> None:
    desk.rulings.make(verdict("D2", "block", address(), client=b""), ACTIVE, "uid:anna", T0 + HOUR, None)
    desk.told.clear()
    desk.hands.pass_s(3_600)
    desk.rulings.expire()
    assert desk.told == [(End(("D2",)), -1)]
    assert (len(desk.register), desk.register.rules("enforce")) == (0, [])
    assert desk.row("D2").state == "expired"
    desk.rulings.expire()
    assert len(desk.told) == 1


def test_several_targets_whose_time_is_over_at_once(desk: Desk) -> None:
    """A segment of two networks that is cut off for an hour: the daemon's clock part dies of it, and the daemon too."""
    networks = (Target("segment", "10.1.0.0/24"), Target("segment", "2001:db8:1::/64"))
    desk.rulings.make(verdict("D2", "block", *networks, client=b""), ACTIVE, "uid:anna", T0 + HOUR, None)
    desk.hands.pass_s(3_600)
    desk.rulings.expire()
    assert (len(desk.register), desk.row("D2").state) == (0, "expired")


def test_a_main_target_and_a_term_over_in_the_same_second(desk: Desk) -> None:
    desk.rulings.make(verdict("D2", client=b""), ACTIVE, "uid:anna", T0 + 10 * MIN, None)
    desk.rulings.of_policy(0, verdict("D2", "extend", address()))
    desk.hands.pass_s(601)
    desk.rulings.expire()
    assert len(desk.register) == 0


def test_nothing_is_refused_by_the_ledger_over_a_long_life(desk: Desk) -> None:
    """Made, extended, renewed, rested, come back, ended: the ledger follows each step."""
    desk.rulings.of_policy(0, verdict())
    for _ in range(6):
        desk.rulings.of_policy(0, verdict("D1", "extend", address(X), address(Y)))
        desk.register.tried(desk.register.by_id["D1"], pair(), address(), 1, desk.clock.now_us())
        desk.hands.pass_s(8 * 86_400)
        desk.rulings.expire()
        desk.settle()
        mine = {t: (h.state, h.level) for t, h in desk.register.by_id["D1"].held.items()}
        assert {one.target: (one.state, one.level) for one in desk.row("D1").targets} == mine
    desk.rulings.end(desk.register.by_id["D1"], "undone", "uid:anna", "socket", "enough")
    assert (desk.row("D1").state, desk.scribe.refused) == ("undone", 0)
