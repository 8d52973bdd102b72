"""Policy: each verdict with its reason and rule, the budgets, and what stands in the way of a block."""

from __future__ import annotations

import pytest

from egressd.detect import budgets
from egressd.detect import coverage as coverage_module
from egressd.detect import policy as policy_module
from egressd.detect.blocks import Block, Blocks
from egressd.detect.coverage import E0, E1, E2
from egressd.detect.policy import Policy
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.index import Index
from egressd.intel.networks import parse_address
from egressd.model import FLOW, TLS_SNI, Decision, Sighting, Target
from tests.detect.scene import PROTECTED, SUFFIXES, A, B, X, Y, allowed, at, flow, listed, packed, when


class Desk:
    """A policy, and sightings by what is listed."""

    def __init__(self, lists: str = "c2.bad.example", allow: str = "", settings: PolicySettings | None = None) -> None:
        self.index = Index.build(listed(lists), SUFFIXES)
        self.blocks = Blocks()
        self.policy = Policy(settings or PolicySettings(), self.blocks, PROTECTED, allowed(allow))

    def sighting(self, what: str, second: float = 0, client: str = A) -> Sighting:
        address = parse_address(what)
        now_s = at(second) // 1_000_000
        host, slash, path = what.partition("/")
        if slash:
            match = self.index.match_url(host, slash + path, now_s)
        else:
            match = self.index.match_address(address, now_s) if address else self.index.match_name(what, now_s)
        assert match is not None
        key = flow(client, what if address else X)
        return Sighting(
            at(second), 1, key, "" if address else host, match, FLOW if address else TLS_SNI, "", False, 1,
            at(second), at(second), address=address, campaign="C1",
        )  # fmt: skip

    def decide(self, what: str, second: float = 0, client: str = A) -> Decision | None:
        return self.policy.decide(self.sighting(what, second, client))

    def block(self, what: str = "c2.bad.example") -> Block:
        decision = self.decide(what)
        assert decision is not None and decision.action == "block"
        return self.blocks.by_id[decision.id]

    def extend(
        self, block: Block, address: str, evidence: str = E2, others: int = 0, second: float = 0, client: str = A,
        name: str = "c2.bad.example",
    ) -> Decision | None:  # fmt: skip
        names = [f"good{number}.example" for number in range(others)]
        return self.policy.extend(block, self.sighting(name, second, client), packed(address), evidence, names)


# -- the first verdict


def test_a_block_says_why_by_whom_and_on_what_evidence() -> None:
    desk = Desk()
    decision = desk.decide("www.bad.example")
    assert decision is not None
    assert decision.targets == (Target("registered_domain", "bad.example"),)
    assert (decision.id, decision.action, decision.rule, decision.evidence) == ("D1", "block", "level-sibling", E1)
    assert (decision.mode, decision.campaign, decision.client) == ("monitor", "C1", packed(A))
    assert decision.reason == "a sibling under bad.example of c2.bad.example (l.txt:1)"
    assert desk.blocks.by_id["D1"].campaign == "C1"


@pytest.mark.parametrize(
    ("line", "seen", "target", "reason"),
    [
        (
            "bad.example",
            "x.bad.example",
            "registered_domain bad.example",
            "at or below the listed bad.example (l.txt:1)",
        ),
        (
            "c2.platform.example",
            "c2.platform.example",
            "host c2.platform.example",
            "at or below the listed c2.platform.example (l.txt:1); narrowed: platform.example is a platform",
        ),
        ("bad.example scope=host", "x.bad.example", "host bad.example", "narrowed: the line says scope=host"),
        ("*.bad.example", "x.bad.example", "host bad.example", "narrowed: the line names a subtree"),
        ("hosted.example force=yes", "hosted.example", "exact hosted.example", "narrowed: hosted.example is a public"),
        (X, X, f"address {X}", f"matches the listed address {X} (l.txt:1)"),
        ("198.51.100.0/24", X, "network 198.51.100.0/24", "matches the listed network"),
        ("http://good.example/x", "good.example/x", "url good.example/x", "matches the listed url"),
    ],
)
def test_targets_of_blocks(line: str, seen: str, target: str, reason: str) -> None:
    decision = Desk(line).decide(seen)
    assert decision is not None and decision.action == "block"
    assert " ".join(decision.targets[0]) == target
    assert reason in decision.reason
    assert decision.evidence == (E0 if parse_address(seen) else E1)


@pytest.mark.parametrize(
    ("line", "allow", "seen", "rule", "reason"),
    [
        ("bad.example confidence=49", "", "bad.example", "confidence", "l.txt:1 has confidence 49, under 50"),
        ("platform.example", "", "www.platform.example", "guarded", "lists a guarded site whole"),
        ("10.0.0.9 force=yes", "", "10.0.0.9", "protected", "private use"),
        ("192.0.2.0/24 force=yes", "", "192.0.2.200", "protected", "our gateway"),  # the network holds 192.0.2.1
        ("bad.example", "never-block bad.example owner=o reason=r", "x.bad.example", "never-block", "allow.txt:1: r"),
        ("bad.example", "never-block x.bad.example owner=o reason=r", "y.bad.example", "never-block", "lies in bad.ex"),
        (X, f"never-block {X} owner=o reason=r", X, "never-block", "allow.txt:1: r"),
        ("198.51.100.0/24", f"never-block {Y} owner=o reason=r", X, "never-block", "lies in 198.51.100.0/24"),
        ("198.51.100.0/28", "never-block 198.51.0.0/16 owner=o reason=r", X, "never-block", "allow.txt:1"),
        ("198.51.100.0/24", f"allow-destination {Y} owner=o reason=r", X, "allow-destination", "lies in"),
    ],
)
def test_alerts_instead_of_blocks_once_each(line: str, allow: str, seen: str, rule: str, reason: str) -> None:
    desk = Desk(line, allow)
    decision = desk.decide(seen)
    assert decision is not None
    assert (decision.id, decision.action, decision.rule) == ("", "alert", rule)
    assert reason in decision.reason
    assert desk.decide(seen, 5000) is None
    assert len(desk.blocks) == 0


@pytest.mark.parametrize(
    ("line", "allow", "seen"),
    [
        ("bad.example", "never-block worse.example owner=o reason=r", "x.bad.example"),
        ("c2.bad.example scope=host", "never-block x.bad.example owner=o reason=r", "c2.bad.example"),
        ("bad.example", "allow-destination x.bad.example owner=o reason=r", "y.bad.example"),  # passed by name
        ("198.51.100.0/24", "never-block 203.0.113.0/24 owner=o reason=r", X),
        ("198.51.100.0/24", f"allow-destination {Y} client=10.0.0.9 owner=o reason=r", X),  # passed by client
        ("bad.example", f"never-block bad.example owner=o reason=r expires={when(0)}", "bad.example"),
        (X, f"never-block {X} owner=o reason=r expires={when(0)}", X),
        ("bad.example", f"never-block x.bad.example owner=o reason=r expires={when(0)}", "bad.example"),
    ],
)
def test_allowances_for_something_else_or_past_stop_no_block(line: str, allow: str, seen: str) -> None:
    decision = Desk(line, allow).decide(seen)
    assert decision is not None and decision.action == "block"


def test_blocks_an_hour_have_a_budget_with_one_alert_an_hour() -> None:
    desk = Desk("\n".join(f"bad{n}.example" for n in range(9)), settings=PolicySettings(blocks_per_hour=3))
    said = [desk.decide(f"bad{number}.example", number, f"10.0.1.{number}") for number in range(6)]
    assert [one.action if one is not None else "" for one in said] == ["block", "block", "block", "alert", "", ""]
    again = desk.decide("bad4.example", 3600)
    assert again is not None and again.action == "block"
    assert desk.decide("bad5.example", 3600.5, B) is None  # the alert of second 3 is not an hour old
    last = desk.decide("bad5.example", 3601, B)
    assert last is not None and last.action == "block"


def test_one_client_causes_no_more_than_its_share_of_blocks_for_everybody() -> None:
    desk = Desk("\n".join(f"bad{n}.example" for n in range(60)), settings=PolicySettings(blocks_per_hour=8))
    said = [desk.decide(f"bad{number}.example", number) for number in range(45)]
    rules = [one.rule if one is not None else "" for one in said]
    assert rules == ["level-host"] * 2 + ["share:level-host"] * 40 + ["budget"] + [""] * 2
    assert said[2] is not None and said[2].reason == (
        "at or below the listed bad2.example (l.txt:3); "
        "for this client alone, which caused 2 of the 8 blocks of an hour"
    )
    assert said[42] is not None and said[42].reason == f"over 40 blocks for {A} alone in an hour"
    assert desk.policy.over_share == desk.blocks.alone == 40
    others = [desk.decide(f"bad{50 + number}.example", 50, f"10.0.1.{number}") for number in range(7)]
    assert [one.rule for one in others if one is not None] == ["level-host"] * 6 + ["budget"]
    later = desk.decide("bad49.example", 3_700)
    assert later is not None and later.rule == "level-host"


def test_a_resolver_asks_for_everybody_and_has_no_share() -> None:
    settings = PolicySettings(blocks_per_hour=8, resolvers=frozenset((packed(A),)))
    desk = Desk("\n".join(f"bad{n}.example" for n in range(9)), settings=settings)
    said = [desk.decide(f"bad{number}.example", number) for number in range(9)]
    assert [one.rule for one in said if one is not None] == ["level-host"] * 8 + ["budget"]


def test_blocks_for_one_client_alone_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "MAX_ALONE", 1)
    desk = Desk("bad1.example\nbad2.example\nbad3.example", settings=PolicySettings(blocks_per_hour=4))
    said = [desk.decide(f"bad{number}.example") for number in (1, 2, 3)]
    assert [one.rule for one in said if one is not None] == ["level-host", "share:level-host", "budget"]
    assert said[2] is not None and said[2].reason == "over 1 blocks for one client alone in all"
    desk.blocks.remove(desk.blocks.by_id["D2"])
    assert desk.blocks.alone == 0


def test_a_listed_address_beyond_the_share_is_kept_from_that_client_alone() -> None:
    desk = Desk(f"bad.example\n{X}\n198.51.100.8/30", settings=PolicySettings(blocks_per_hour=4))
    desk.decide("bad.example")
    said = [desk.decide(X), desk.decide(Y)]
    assert [one.targets for one in said if one is not None] == [
        (Target("pair", f"{A}>{X}"),),
        (Target("pair", f"{A}>{Y}"),),
    ]
    block = desk.policy.block_of(desk.sighting(X))
    assert block is not None and block.id == "D2"
    assert desk.blocks.covering(packed(A), packed(X)) is block
    assert desk.blocks.covering(packed(B), packed(X)) is None
    wide = desk.decide(X, client=B)
    assert wide is not None and wide.targets == (Target("address", X),)


def test_alerts_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "MAX_BLOCKS", 2)
    desk = Desk("\n".join(f"bad{n}.example confidence=1" for n in range(5)))
    said = [desk.decide(f"bad{number}.example") for number in (0, 1, 2, 3, 3, 0)]
    assert [one is not None for one in said] == [True, True, False, False, False, False]
    assert desk.policy.untold == 3


# -- further addresses


def test_an_answer_adds_an_address_once() -> None:
    desk = Desk()
    block = desk.block()
    decision = desk.extend(block, X)
    assert decision is not None
    assert (decision.action, decision.rule, decision.evidence) == ("extend", "address", E2)
    assert decision.targets == (Target("address", X),)
    assert decision.reason == "c2.bad.example resolved to it, asked and answered"
    assert desk.extend(block, X) is None
    assert desk.extend(block, X, E1, client=B) is None  # covered already


def test_a_mapped_address_is_blocked_as_what_packets_carry() -> None:
    desk = Desk()
    decision = desk.extend(desk.block(), f"::ffff:{X}")
    assert decision is not None and decision.targets == (Target("address", X),)


@pytest.mark.parametrize(("evidence", "others"), [(E1, 0), (E2, 1), (E2, 2)])
def test_weaker_evidence_is_for_one_client(evidence: str, others: int) -> None:
    desk = Desk()
    block = desk.block()
    decision = desk.extend(block, X, evidence, others)
    assert decision is not None
    assert (decision.rule, decision.targets) == ("pair", (Target("pair", f"{A}>{X}"),))
    assert desk.extend(block, X, evidence, others) is None
    assert desk.extend(block, X, evidence, others, client=B) is not None


def test_a_pair_becomes_an_address_when_an_answer_comes() -> None:
    desk = Desk()
    block = desk.block()
    desk.extend(block, X, E1)
    decision = desk.extend(block, X)
    assert decision is not None and decision.rule == "address"


@pytest.mark.parametrize(
    ("address", "others", "allow", "rule"),
    [
        ("10.0.0.1", 0, "", "protected"),
        ("::ffff:127.0.0.1", 0, "", "protected"),
        ("64:ff9b::c000:201", 0, "", "protected"),
        (X, 3, "", "shared"),
        (X, 0, f"never-block {X} owner=o reason=r", "never-block"),
        (X, 0, "never-block 198.51.100.0/24 owner=o reason=r", "never-block"),
        (f"::ffff:{X}", 0, f"never-block {X} owner=o reason=r", "never-block"),
        (X, 0, f"allow-destination {X} owner=o reason=r", "allow-destination"),
    ],
)
def test_refused_once_for_everybody(address: str, others: int, allow: str, rule: str) -> None:
    desk = Desk(allow=allow)
    block = desk.block()
    for evidence in (E2, E1):
        decision = desk.extend(block, address, evidence, others)
        if evidence == E2:
            assert decision is not None
            assert (decision.action, decision.rule, decision.evidence) == ("refuse", rule, E2)
        else:
            assert decision is None
    assert not block.addresses and not block.pairs


def test_a_client_that_may_go_there_settles_nothing_for_others() -> None:
    desk = Desk(allow=f"allow-destination {X} client={A} owner=o reason=analyst")
    block = desk.block()
    assert desk.extend(block, X) is None
    decision = desk.extend(block, X, client=B)
    assert decision is not None
    assert (decision.rule, decision.targets) == ("pair", (Target("pair", f"{B}>{X}"),))
    assert f"is for {A}; so this client only" in decision.reason


def test_addresses_an_hour_have_a_budget_with_one_refusal_an_hour() -> None:
    desk = Desk(settings=PolicySettings(addresses_per_indicator_hour=2))
    block = desk.block()
    said = [desk.extend(block, f"198.51.100.{number}", second=number) for number in range(1, 6)]
    assert [one.action if one is not None else "" for one in said] == ["extend", "extend", "refuse", "", ""]
    assert said[2] is not None and said[2].rule == "budget"
    later = desk.extend(block, "198.51.100.3", second=3602)
    assert later is not None and later.action == "extend"
    pair = desk.extend(block, "198.51.100.9", E1, second=5)
    assert pair is not None and pair.action == "extend"  # their own budget


def test_pairs_have_a_budget_by_client_and_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "PAIRS_PER_HOUR", 5)
    desk = Desk(settings=PolicySettings(addresses_per_indicator_hour=3))
    block = desk.block()
    actions = []
    for start, client in ((0, A), (10, B)):
        for number in range(4):
            decision = desk.extend(block, f"198.51.100.{number + 1}", E1, second=start + number, client=client)
            actions.append(decision.action if decision is not None else "")
    assert actions == ["extend"] * 3 + ["refuse"] + ["extend"] * 2 + ["", ""]
    assert len(block.pairs) == 5


def test_one_machine_has_a_part_of_a_blocks_pairs_whatever_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "PAIRS_PER_HOUR", 12)
    desk = Desk()
    block = desk.block()
    mac = b"\x02\0\0\0\0\5"
    said = [
        desk.policy.extend(block, desk.sighting("c2.bad.example", n, f"10.0.1.{n}"), packed(X), E1, (), mac)
        for n in range(1, 6)
    ]
    assert [one.action for one in said if one is not None] == ["extend"] * 3 + ["refuse"]
    assert said[3] is not None and said[3].reason == "over 3 pairs of one machine in an hour"
    extended = desk.extend(block, X, E1, second=10, client=B)
    assert extended is not None and extended.action == "extend", "others have theirs"


@pytest.mark.parametrize(("bound", "evidence"), [("MAX_ADDRESSES", E2), ("MAX_PAIRS", E1)])
def test_addresses_and_pairs_have_a_bound_over_all_blocks(
    monkeypatch: pytest.MonkeyPatch, bound: str, evidence: str
) -> None:
    monkeypatch.setattr(budgets, bound, 3)
    desk = Desk("bad.example\nworse.example")
    made = 0
    for name in ("bad.example", "worse.example"):
        block = desk.block(name)
        for number in range(4):
            decision = desk.extend(block, f"198.51.100.{number + 1}", evidence, second=number * 4000, name=name)
            made += decision is not None and decision.action == "extend"
    assert made == 3


def test_the_memory_of_a_budget_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "PAIRS_PER_HOUR", 10)
    desk = Desk()
    block = desk.block()
    for number in range(500):
        desk.extend(block, X, E1, second=number * 400, client=f"10.0.{number >> 8}.{number & 255}")
    assert len(block.recent_us) <= 22


def test_refusals_are_bounded_and_stay_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage_module, "MAX_REFUSED", 3)
    desk = Desk()
    block = desk.block()
    said = [desk.extend(block, f"10.0.0.{number}") for number in range(6)]
    assert [one is not None for one in said] == [True] * 3 + [False] * 3
    assert len(block.refused) == 3 and not block.addresses


# -- second thoughts


def test_an_innocent_name_gives_the_address_free_and_it_stays_so() -> None:
    desk = Desk()
    block = desk.block()
    desk.extend(block, X)
    why = desk.sighting("c2.bad.example", 5, B)
    why.name = "www.good.example"
    (decision,) = desk.policy.reconsider(why, packed(X), {block.id: ["good.example"]})
    assert (decision.action, decision.rule, decision.targets) == ("withdraw", "shared", (Target("address", X),))
    assert decision.reason == "good.example was seen on it too: an innocent site would be cut off"
    again = desk.extend(block, X)
    assert again is not None and (again.rule, again.reason) == ("pair", "given back before; so this client only")


def test_no_innocent_name_no_withdrawal() -> None:
    desk = Desk()
    block = desk.block()
    desk.extend(block, X)
    desk.extend(block, Y, E1)
    why = desk.sighting("c2.bad.example", 5, B)
    assert desk.policy.reconsider(why, packed(X), {block.id: []}) == []
    assert desk.policy.reconsider(why, packed(Y), {block.id: ["a.example", "b.example"]}) == []


def test_a_listed_address_is_not_given_free() -> None:
    desk = Desk(f"{X}\nc2.bad.example")
    listed_block = desk.block(X)
    named = desk.block()
    desk.extend(named, X)
    why = desk.sighting("c2.bad.example", 5, B)
    others = {listed_block.id: ["good.example"], named.id: ["good.example"]}
    assert [one.id for one in desk.policy.reconsider(why, packed(X), others)] == [named.id]
    assert desk.blocks.covering(packed(B), packed(X)) is listed_block


def test_an_indicator_that_expired_takes_everything_with_it() -> None:
    desk = Desk()
    block = desk.block()
    desk.extend(block, X)
    desk.extend(block, Y, E1)
    decision = desk.policy.lapse(block, desk.sighting("c2.bad.example", 9))
    assert (decision.action, decision.rule, decision.evidence) == ("withdraw", "expired", E0)
    assert decision.targets == (Target("registered_domain", "bad.example"),)
    assert len(desk.blocks) == desk.blocks.addresses == desk.blocks.pairs == 0
    again = desk.decide("c2.bad.example", 10)
    assert again is not None and again.id == "D2"


# -- whose answers count


@pytest.mark.parametrize(
    ("mode", "resolvers", "server", "trusted"),
    [
        ("monitor", [], "203.0.113.1", True),
        ("approve", [], "203.0.113.1", True),
        ("enforce", [], "203.0.113.1", False),
        ("monitor", ["10.0.0.53"], "203.0.113.1", False),
        ("enforce", ["10.0.0.53"], "10.0.0.53", True),
    ],
)
def test_trusted_resolvers(mode: str, resolvers: list[str], server: str, trusted: bool) -> None:
    known = frozenset(packed(one) for one in resolvers)
    desk = Desk(settings=PolicySettings(mode=mode, resolvers=known))
    assert desk.policy.trusts(packed(server)) is trusted
