"""What every adapter keeps to. One suite; each adapter only says how it is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from egressd.enforce.adapter import Adapter, Capabilities, Existing, Failure, Plan, Rule
from egressd.enforce.dryrun import DryRunAdapter
from egressd.enforce.nftables import NftablesAdapter
from egressd.enforce.plan import make_plan
from egressd.enforce.shield import ProtectingAdapter
from egressd.model import Target
from tests.enforce.namespace import bare, need_namespaces
from tests.enforce.rules import SPARE, address, address6, ground, networks, protected, rule
from tests.loops import HANG_S

Make = Callable[[], Adapter]
Body = Callable[[Make], None]


def now_us() -> int:
    return time.time_ns() // 1000


def make_dryrun() -> Adapter:
    return DryRunAdapter(protected(), now_us, spare=networks(*SPARE))


def make_nftables() -> Adapter:
    return NftablesAdapter(protected(), ground(), now_us)


def run_dryrun(body: Body) -> None:
    kept = make_dryrun()
    body(lambda: kept)


def run_nftables(body: Body) -> None:
    """In a namespace of its own, in a process of its own."""
    with bare() as space:
        space.call(body, make_nftables)


@pytest.fixture(params=["dryrun", pytest.param("nftables", marks=pytest.mark.root)])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Body], None]]:
    if request.param == "nftables":
        need_namespaces()
        yield run_nftables
    else:
        yield run_dryrun


def desired() -> list[Rule]:
    """One of everything that nftables holds, in both families."""
    soon_us = now_us()
    return [
        rule("address", "192.0.2.1"),
        rule("address", "2001:db8::1", "D2", 600, soon_us),
        rule("network", "198.51.100.0/24", "D3"),
        rule("network", "2001:db8:7::/48", "D3", 600, soon_us),
        rule("pair", "10.0.0.9>192.0.2.9", "D4", 600, soon_us),
        rule("pair", "fd00::9>2001:db8::9", "D4"),
        rule("client", "10.0.0.9", "D5"),
        rule("client", "fd00::9", "D5", 600, soon_us),
        rule("segment", "10.3.0.0/16", "D6", 600, soon_us),
        rule("segment", "fd00:0:0:3::/64", "D6", 600, soon_us),
    ]


def settle(adapter: Adapter, rules: list[Rule]) -> tuple[Plan, list[Failure]]:
    plan = make_plan(rules, adapter.populate(), adapter.capabilities, now_us())
    return plan, adapter.apply(plan, now_us())


def there(adapter: Adapter) -> dict[Target, Existing]:
    return {element.target: element for element in adapter.populate()}


def test_what_is_applied_is_read_back(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        assert adapter.populate() == []
        rules = desired()
        plan, failures = settle(adapter, rules)
        assert (len(plan.add), failures) == (len(rules), [])
        held = there(adapter)
        assert {target: element.decision_id for target, element in held.items()} == {
            one.target: one.decision_id for one in rules
        }
        for one in rules:
            wanted_s = (one.expires_us - now_us()) / 1e6 if one.expires_us else 86_400
            assert wanted_s - 5 < held[one.target].remaining_s <= wanted_s + 5, one
        assert settle(adapter, rules)[0].is_empty()
        adapter.close()

    run(body)


def test_installing_again_changes_nothing(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        settle(adapter, desired())
        before, generation = there(adapter).keys(), adapter.generation()
        adapter.install()
        assert there(adapter).keys() == before
        assert adapter.generation() == generation

    run(body)


def test_a_new_adapter_finds_what_the_old_one_left(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        old = make()
        old.install()
        settle(old, desired())
        old.close()
        new = make()
        new.install()
        assert settle(new, desired())[0].is_empty()

    run(body)


def test_the_generation_tells_of_changes(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        before = adapter.generation()
        assert adapter.generation() == before
        settle(adapter, [rule("address", "192.0.2.1")])
        assert adapter.generation() != before

    run(body)


def test_removing_one_leaves_the_others(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        rules = desired()
        settle(adapter, rules)
        for gone in list(rules):
            rules.remove(gone)
            plan, failures = settle(adapter, rules)
            assert ([element.target for element in plan.remove], failures) == ([gone.target], [])
            assert there(adapter).keys() == {one.target for one in rules}

    run(body)


def test_a_renewed_block_lasts_longer_and_a_shortened_one_shorter(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        for kind, value in (("address", "192.0.2.1"), ("network", "2001:db8:7::/48"), ("segment", "10.3.0.0/16")):
            for lasts_s in (60, 6000, 300):
                one = rule(kind, value, "D1", lasts_s, now_us())
                assert settle(adapter, [one])[1] == []
                assert lasts_s - 5 < there(adapter)[one.target].remaining_s <= lasts_s

    run(body)


def test_another_decision_takes_over(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        for kind, value in (("address", "192.0.2.1"), ("network", "198.51.100.0/24"), ("client", "fd00::9")):
            for decision_id in ("D1", "D22"):
                one = rule(kind, value, decision_id)
                assert settle(adapter, [one])[1] == []
                assert there(adapter)[one.target].decision_id == decision_id

    run(body)


def test_blocks_lapse_by_themselves(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        one, other = rule("address", "192.0.2.1", "D1", 1, now_us()), rule("pair", "10.0.0.9>192.0.2.9")
        assert settle(adapter, [one, other])[1] == []
        deadline = time.monotonic() + HANG_S
        while one.target in there(adapter):
            assert time.monotonic() < deadline
        assert there(adapter).keys() == {other.target}

    run(body)


def test_networks_inside_networks(run: Callable[[Body], None]) -> None:
    """Each stands for its own decision; when the wider one goes, the narrower ones still do."""

    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        inner = [rule("network", "198.51.100.0/24", "D1"), rule("network", "198.51.100.7", "D2")]
        wide = rule("network", "198.51.0.0/16", "D3")
        other = rule("network", "198.50.0.0/16", "D4")
        for rules in (
            inner,
            [*inner, wide],
            [wide, *inner, other],
            [*inner, other],
            [inner[1]],
            [inner[1], wide],
            [wide],
        ):
            assert settle(adapter, rules)[1] == [], rules
            assert there(adapter).keys() == {one.target for one in rules}
            assert settle(adapter, rules)[0].is_empty()

    run(body)


def test_protected_targets_are_refused_and_all_else_is_done(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        bad = [
            rule("address", "8.8.8.8"),
            rule("address", "64:ff9b::808:808"),
            rule("address", "2002:808:808::1"),
            rule("pair", "10.0.0.9>8.8.8.8"),
            rule("network", "8.8.8.0/24"),
            rule("network", "2001:db8::/32"),
            rule("client", "10.1.0.1"),
            rule("address", "::ffff:c633:6401"),
        ]
        _, failures = settle(adapter, [*bad, *desired()])
        assert {failure.rule for failure in failures} == set(bad)
        assert all(failure.reason for failure in failures)
        assert there(adapter).keys() == {one.target for one in desired()}

    run(body)


def test_what_becomes_protected_is_lifted(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        assert isinstance(adapter, ProtectingAdapter)
        rules = [
            rule("address", "192.0.2.1"),
            rule("address", "203.0.113.1"),
            rule("network", "198.51.100.0/24"),
            rule("pair", "10.0.0.9>192.0.2.1"),
            rule("address", "64:ff9b::c000:201"),
        ]
        settle(adapter, rules)
        texts = ("192.0.2.1", "198.51.100.128/25")
        lifted = adapter.set_protected(networks(*texts), protected(*texts))
        assert {element.target for element in lifted} == {one.target for one in rules} - {rules[1].target}
        assert there(adapter).keys() == {rules[1].target}
        assert {failure.rule for failure in settle(adapter, rules)[1]} == set(rules) - {rules[1]}

    run(body)


def test_nonsense_is_refused_and_all_else_is_done(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        bad = [
            rule("address", "192.0.2.256"),
            rule("address", "2001:DB8::1"),
            rule("pair", "10.0.0.9>2001:db8::1"),
            rule("network", "192.0.2.1/24"),
            rule("address", "192.0.2.7", 'D1" } ; flush ruleset #\n'),
            rule("address", "192.0.2.8", ""),
        ]
        _, failures = settle(adapter, [*bad, *desired()])
        assert {failure.rule for failure in failures} == set(bad)
        assert there(adapter).keys() == {one.target for one in desired()}

    run(body)


def test_many_at_once(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        rules = [rule("address", address(n), f"D{n}") for n in range(2500)]
        rules += [rule("address", address6(n), f"D{n}") for n in range(2500)]
        assert settle(adapter, rules)[1] == []
        assert there(adapter).keys() == {one.target for one in rules}
        assert settle(adapter, rules[:100])[1] == []
        assert there(adapter).keys() == {one.target for one in rules[:100]}

    run(body)


def test_removing_what_is_gone_already_is_no_failure(run: Callable[[Body], None]) -> None:
    def body(make: Make) -> None:
        adapter = make()
        adapter.install()
        rules = desired()
        settle(adapter, rules)
        gone = tuple(adapter.populate())
        for _ in range(2):
            assert adapter.apply(Plan((), gone, (), ()), now_us()) == []
            assert adapter.populate() == []

    run(body)


def test_capabilities_say_what_is_held() -> None:
    for adapter in (make_dryrun(),):
        assert isinstance(adapter.capabilities, Capabilities)
        assert {one.target.kind for one in desired()} <= adapter.capabilities.kinds
