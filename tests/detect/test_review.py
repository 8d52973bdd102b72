"""Does a decision still stand? By its list line, by allowances, by what is protected; and what it must give free."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from egressd.detect.blocks import main_target
from egressd.detect.review import Review, kept_reason, kept_targets, match_target, review
from egressd.intel.index import Index
from egressd.model import Match, Target
from tests.detect.live_scene import protecting
from tests.detect.scene import SUFFIXES, T0, A, B, X, Y, allowed, listed, packed, when

CASES = [
    ("c2.bad.example", Target("registered_domain", "bad.example")),
    ("c2.bad.example scope=host", Target("host", "c2.bad.example")),
    ("c2.bad.example scope=exact", Target("exact", "c2.bad.example")),
    ("www.platform.example", Target("host", "www.platform.example")),
    ("hosted.example force=yes", Target("exact", "hosted.example")),
    (X, Target("address", X)),
    ("2001:db8::7", Target("address", "2001:db8::7")),
    ("198.51.100.0/24", Target("network", "198.51.100.0/24")),
    ("2001:db8:5::/48", Target("network", "2001:db8:5::/48")),
    ("http://bad.example/x", Target("url", "bad.example/x")),
    ("http://198.51.100.7/x/y", Target("url", "198.51.100.7/x/y")),
]


def index(text: str) -> Index:
    return Index.build(listed(text), SUFFIXES)


def match(line: str) -> Match:
    (indicator,) = listed(line)
    return Match("host", indicator, indicator.registered_domain, indicator.suffix_rule)


def look(
    line: str, lists: str, allow: str = "", addresses: Sequence[str] = (), pairs: Sequence[tuple[str, str]] = (),
    protected: tuple[tuple[str, str], ...] = (), now_s: int = T0,
) -> Review:  # fmt: skip
    before = match(line)
    target = main_target(before)
    return review(
        target, before, [packed(one) for one in addresses], [(packed(a), packed(b)) for a, b in pairs],
        match_target(index(lists), target, now_s, allowed(allow)), allowed(allow), protecting(*protected), now_s,
    )  # fmt: skip


@pytest.mark.parametrize(("line", "target"), CASES)
def test_every_sort_of_target_finds_its_own_line(line: str, target: Target) -> None:
    assert main_target(match(line)) == target
    found = match_target(index(f"other.example\n{line}"), target, T0)
    assert found is not None and main_target(found) == target
    assert found.indicator.line == 2
    assert match_target(index("other.example"), target, T0) is None


@pytest.mark.parametrize(("line", "target"), CASES)
def test_it_stands_while_it_is_listed_and_no_longer(line: str, target: Target) -> None:
    stands = look(line, f"# moved\n{line} threat=new" if "force" not in line else f"# moved\n{line}")
    assert stands.match is not None
    assert (stands.match.indicator.line, stands.reason, stands.rule, stands.free) == (2, "", "", ())
    gone = look(line, "other.example")
    assert (gone.match, gone.rule) == (None, "unlisted")
    assert gone.reason == f"{match(line).indicator.value} is no longer listed"


@pytest.mark.parametrize(
    ("line", "closer"),
    [
        ("198.51.100.0/24", "198.51.100.0/28"), ("198.51.100.0/24", "198.51.100.0"),
        ("2001:db8:5::/48", "2001:db8:5::/64"),
        ("c2.bad.example", "bad.example scope=exact"), ("c2.bad.example", "bad.example scope=host"),
        ("c2.bad.example scope=host", "c2.bad.example scope=exact confidence=100"),
    ],
)  # fmt: skip
def test_another_line_that_covers_it_more_closely_takes_nothing_away(line: str, closer: str) -> None:
    """The first address of a network, and a registered domain itself, may be listed for themselves."""
    line += " confidence=90"
    for lists in (f"{line}\n{closer}", f"{closer}\n{line}"):
        stands = look(line, lists)
        assert stands.match is not None and main_target(stands.match) == main_target(match(line)), stands.reason
    ignore = f"ignore-indicator {line.partition(' ')[0]} owner=o reason=r"
    gone = look(line, f"{line}\n{closer}", ignore)
    assert (gone.match, gone.rule) == (None, "ignore-indicator")


@pytest.mark.parametrize(("seconds", "stands"), [(59, True), (60, False), (61, False)])
def test_an_expired_line_is_none(seconds: int, stands: bool) -> None:
    line = f"c2.bad.example expires={when(60)}"
    assert (look(line, line, now_s=T0 + seconds).match is not None) == stands


def test_a_line_of_another_scope_is_another_decision() -> None:
    assert look("c2.bad.example", "c2.bad.example scope=host").rule == "unlisted"
    assert look("c2.bad.example scope=host", "c2.bad.example").rule == "unlisted"
    assert look("c2.bad.example", "elsewhere.bad.example").rule == ""
    assert look(X, "198.51.100.0/24").rule == "unlisted"


@pytest.mark.parametrize(
    ("line", "allow", "rule"),
    [
        ("c2.bad.example", "allow-destination bad.example", "allow-destination"),
        ("c2.bad.example", "never-block bad.example", "never-block"),
        ("c2.bad.example scope=host", "allow-destination bad.example", "allow-destination"),
        ("c2.bad.example", "never-block www.bad.example", "never-block"),
        ("c2.bad.example scope=host", "never-block a.c2.bad.example", "never-block"),
        ("c2.bad.example scope=host", "never-block www.bad.example", ""),
        ("c2.bad.example scope=exact", "never-block a.c2.bad.example", ""),
        ("c2.bad.example", "allow-destination www.bad.example", ""),
        (X, f"allow-destination {X}", "allow-destination"),
        (X, "never-block 198.51.100.0/24", "never-block"),
        ("198.51.100.0/24", "never-block 198.51.100.200", "never-block"),
        ("198.51.100.0/24", "allow-destination 198.51.100.192/28", "allow-destination"),
        ("198.51.100.0/24", f"allow-destination 198.51.100.200 client={A}", ""),
        ("198.51.100.0/24", "never-block 198.51.101.0/28", ""),
        ("64:ff9b::c633:6400/120", "never-block 198.51.100.200", "never-block"),
        ("http://bad.example/x", "allow-destination bad.example", "allow-destination"),
        ("c2.bad.example", f"allow-destination bad.example client={A}", ""),
        ("c2.bad.example", "allow-destination fine.example", ""),
        ("c2.bad.example", f"allow-destination {X}", ""),
        ("c2.bad.example", f"ignore-client {A}", ""),
    ],
)
def test_allowances(line: str, allow: str, rule: str) -> None:
    verdict = look(line, line, f'{allow} owner=ops reason="a partner"')
    assert verdict.rule == rule
    assert (verdict.match is None) == bool(rule)
    if rule:
        assert "a partner" in verdict.reason and "allow.txt:1" in verdict.reason


def test_an_allowance_that_is_over_lifts_nothing() -> None:
    allow = f"allow-destination bad.example expires={when(60)} owner=ops reason=x"
    assert look("c2.bad.example", "c2.bad.example", allow, now_s=T0 + 59).rule == "allow-destination"
    assert look("c2.bad.example", "c2.bad.example", allow, now_s=T0 + 60).rule == ""


@pytest.mark.parametrize(
    ("line", "protected", "rule"),
    [
        (X, X, "protected"), ("198.51.100.0/24", X, "protected"), ("c2.bad.example", X, ""), (X, Y, ""),
        ("198.51.100.0/30", X, ""), ("2001:db8::/32", "2001:db8:9::9", "protected"),
    ],
)  # fmt: skip
def test_what_is_protected(line: str, protected: str, rule: str) -> None:
    verdict = look(line, line, protected=((protected, "gateway of this machine"),))
    assert verdict.rule == rule
    assert verdict.reason == ("" if not rule else verdict.reason) and ("gateway" in verdict.reason) == bool(rule)


def test_what_it_must_give_free() -> None:
    verdict = look(
        "c2.bad.example", "c2.bad.example",
        f"allow-destination 203.0.113.80 client={A} owner=ops reason=lab\n"
        "never-block 203.0.113.9 owner=ops reason=shop",
        addresses=(X, Y, "203.0.113.9", "203.0.113.80"), pairs=((A, "203.0.113.80"), (B, "203.0.113.80"), (A, X)),
        protected=((X, "resolver of this machine"),),
    )  # fmt: skip
    assert verdict.match is not None
    assert [f"{target.kind} {target.value}" for target, _, _ in verdict.free] == [
        f"address {X}",
        "address 203.0.113.9",
        "address 203.0.113.80",
        f"pair {A}>203.0.113.80",
        f"pair {A}>{X}",
    ]
    reasons = {target: reason for target, reason, _ in verdict.free}
    rules = ["kept", "never-block", "allow-destination", "allow-destination", "kept"]
    assert [one.rule for one in verdict.free] == rules
    assert "resolver of this machine" in reasons[Target("address", X)]
    assert "shop" in reasons[Target("address", "203.0.113.9")]
    assert "lab" in reasons[Target("pair", f"{A}>203.0.113.80")]
    assert reasons[Target("address", "203.0.113.80")].endswith(f"lab) is for {A}")


def test_nothing_is_kept_from_nobody() -> None:
    none, protected = allowed(""), protecting((X, "gateway of this machine"))
    assert kept_targets("bad.example", [], [], none, protected, T0) == []
    assert kept_reason(b"", packed(Y), none, protected, T0) == ("", "")
    assert "gateway" in kept_reason(packed(A), packed(X), none, protected, T0)[0]
    mapped = packed(f"::ffff:{X}")  # whatever form it is written in
    assert kept_reason(b"", mapped, none, protected, T0) == (protected.why(mapped), "kept")


def test_an_ignored_line_is_as_if_it_were_not_there_and_says_so() -> None:
    ignored = 'ignore-indicator c2.bad.example owner=ops reason="sinkholed by us"'
    verdict = look("c2.bad.example", "c2.bad.example", ignored)
    assert (verdict.match, verdict.rule) == (None, "ignore-indicator")
    assert "sinkholed by us" in verdict.reason
    verdict = look("c2.bad.example", "c2.bad.example\nd3.bad.example", ignored)
    assert verdict.match is not None and verdict.match.indicator.value == "d3.bad.example"
    assert look("c2.bad.example", "c2.bad.example", ignored.replace("c2", "d3")).rule == ""


def test_an_ignored_client_is_kept_from_nothing_that_only_it_is_kept_from() -> None:
    allow = f'ignore-client {A} owner=ops reason="malware lab"'
    verdict = look("c2.bad.example", "c2.bad.example", allow, addresses=(X,), pairs=((A, X), (B, X)))
    assert [(one.target, one.rule) for one in verdict.free] == [(Target("pair", f"{A}>{X}"), "ignore-client")]


@pytest.mark.parametrize("allow", [f"allow-destination {X} client={A}", f"allow-destination bad.example client={A}"])
def test_an_allowance_for_one_client_frees_an_address_that_is_held_for_everybody(allow: str) -> None:
    """`egressd allow` says that this client may go there; a block for everybody would go on stopping it."""
    verdict = look("c2.bad.example", "c2.bad.example", f"{allow} owner=ops reason=lab", addresses=(X, Y))
    by_name = "bad.example" in allow
    assert [target for target, _, _ in verdict.free] == [
        Target("address", one) for one in ((X, Y) if by_name else (X,))
    ]


@pytest.mark.parametrize("allow", [f"allow-destination {X} client={A}", f"allow-destination fine.example client={A}"])
def test_an_allowance_for_one_client_is_no_longer_one_when_it_is_over(allow: str) -> None:
    allow += f" expires={when(60)} owner=ops reason=lab"
    verdict = look("c2.bad.example", "c2.bad.example", allow, addresses=(X,), now_s=T0 + 60)
    assert (verdict.match is not None, verdict.free) == (True, ())
