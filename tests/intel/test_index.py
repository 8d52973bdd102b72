"""index: what covers what, which of several is told, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.intel.index import Index
from egressd.intel.networks import parse_address
from egressd.model import Indicator
from egressd.names import Suffixes

SUFFIXES = Suffixes.parse("com\njp\nco.jp\n*.ck\n!www.ck\n// ===BEGIN PRIVATE DOMAINS===\ngithub.io\n")
GUARD, _ = Guard.parse("shared.example category=hosting # anyone can put a file there\n", SUFFIXES)
NOW_S = 1_800_000_000


def indicators(text: str) -> list[Indicator]:
    found, problems = parse_list(text, "l.txt", SUFFIXES, GUARD)
    assert problems == []
    return found


def index(text: str) -> Index:
    return Index.build(indicators(text), SUFFIXES)


def level(text: str, name: str, now_s: int = NOW_S) -> str:
    match = index(text).match_name(name, now_s)
    return match.level if match is not None else ""


@pytest.mark.parametrize(
    ("line", "name", "wanted"),
    [
        ("bad.example", "bad.example", "host"),
        ("bad.example", "a.b.bad.example", "host"),
        ("bad.example", "notbad.example", ""),
        ("bad.example", "bad.example.com", ""),
        ("bad.example", "example", ""),
        ("bad.example", "", ""),
        ("www.bad.example", "www.bad.example", "host"),
        ("www.bad.example", "x.www.bad.example", "host"),
        ("www.bad.example", "mail.bad.example", "sibling"),
        ("www.bad.example", "bad.example", "sibling"),
        ("www.bad.example", "xwww.bad.example", "sibling"),
        ("www.bad.co.jp", "x.bad.co.jp", "sibling"),
        ("www.bad.co.jp", "other.co.jp", ""),
        ("a.b.bad.ck", "c.b.bad.ck", "sibling"),
        ("a.b.bad.ck", "c.other.ck", ""),
        ("evil.github.io", "evil.github.io", "host"),
        ("evil.github.io", "x.evil.github.io", "host"),
        ("evil.github.io", "other.github.io", ""),
        ("evil.github.io", "github.io", ""),
        ("x.evil.github.io", "evil.github.io", "sibling"),
        ("github.io force=yes", "github.io", "host"),
        ("github.io force=yes", "evil.github.io", ""),
        ("com force=yes", "bad.com", ""),
        ("com force=yes", "com", "host"),
        ("*.bad.example", "bad.example", "host"),
        ("*.www.bad.example", "x.www.bad.example", "host"),
        ("*.www.bad.example", "mail.bad.example", ""),
        ("www.bad.example scope=host", "mail.bad.example", ""),
        ("www.bad.example scope=host", "bad.example", ""),
        ("www.bad.example scope=host", "x.www.bad.example", "host"),
        ("www.bad.example scope=exact", "www.bad.example", "host"),
        ("www.bad.example scope=exact", "x.www.bad.example", ""),
        ("www.bad.example scope=exact", "mail.bad.example", ""),
        ("evil.shared.example", "evil.shared.example", "host"),
        ("evil.shared.example", "x.evil.shared.example", "host"),
        ("evil.shared.example", "good.shared.example", ""),
        ("evil.shared.example", "shared.example", ""),
    ],
)
def test_levels(line: str, name: str, wanted: str) -> None:
    assert level(line, name) == wanted


def test_a_match_tells_registered_domain_and_rule_of_the_name() -> None:
    match = index("www.bad.co.jp threat=x").match_name("mail.bad.co.jp", NOW_S)
    assert match is not None
    assert (match.level, match.registered_domain, match.suffix_rule) == ("sibling", "bad.co.jp", "co.jp")
    assert (match.indicator.value, match.indicator.line, match.indicator.threat) == ("www.bad.co.jp", 1, "x")


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("a.bad.example\nbad.example", "a.bad.example", 1),  # the longer value
        ("bad.example\na.bad.example", "x.a.bad.example", 2),
        ("bad.example\na.bad.example", "b.bad.example", 1),  # host before sibling
        ("a.bad.example\nlonger.bad.example", "c.bad.example", 2),  # the longer value among siblings
        ("bad.example confidence=5\nbad.example confidence=9", "bad.example", 2),
        ("bad.example threat=a\nbad.example threat=b", "bad.example", 1),
        ("bad.example scope=exact\nbad.example", "x.bad.example", 2),
        ("a.bad.example scope=exact confidence=9\na.bad.example confidence=5", "a.bad.example", 1),
        ("bad.example expires=2001-01-01\nbad.example confidence=1", "bad.example", 2),
        ("a.bad.example expires=2001-01-01\nbad.example", "a.bad.example", 2),
        ("aa.bad.example expires=2001-01-01\nb.bad.example", "c.bad.example", 2),
    ],
)
def test_which_of_several(text: str, name: str, line: int) -> None:
    match = index(text).match_name(name, NOW_S)
    assert match is not None
    assert match.indicator.line == line


def test_source_decides_last() -> None:
    first = indicators("bad.example")[0]
    built = Index.build([first._replace(source="z.txt"), first._replace(source="a.txt", line=9)], SUFFIXES)
    match = built.match_name("bad.example", NOW_S)
    assert match is not None
    assert match.indicator.source == "a.txt"


@pytest.mark.parametrize(
    "line", ["bad.example {}", "198.51.100.7 {}", "198.51.100.0/24 {}", "http://bad.example/x {}", "www.bad.example {}"]
)
def test_in_force_from_added_until_before_expires(line: str) -> None:
    built = index(line.format("added=1970-01-01T00:01:00Z expires=1970-01-01T00:02:00Z"))

    def matched(now_s: int) -> bool:
        found = (
            built.match_name("bad.example", now_s)
            or built.match_address(parse_address("198.51.100.7"), now_s)
            or built.match_url("bad.example", "/x", now_s)
        )
        return found is not None

    assert [matched(now_s) for now_s in (59, 60, 119, 120)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("addr", "line"),
    [
        ("198.51.100.7", 3), ("198.51.100.8", 2), ("198.51.200.1", 1), ("198.52.0.1", 0), ("2001:db8::1", 4),
        ("2001:db8:0:1::1", 0), ("64:ff9b::198.51.100.7", 3), ("::ffff:198.51.100.8", 2), ("2002:c633:6407::1", 3),
    ],
)  # fmt: skip
def test_addresses(addr: str, line: int) -> None:
    built = index("198.51.0.0/16\n198.51.100.0/24\n198.51.100.7\n2001:db8::/64")
    match = built.match_address(parse_address(addr), NOW_S)
    assert (match.indicator.line if match else 0) == line
    if match:
        assert match.level == "address"


def test_an_expired_network_does_not_hide_a_wider_one() -> None:
    built = index("198.51.0.0/16\n198.51.100.0/24 expires=2001-01-01\n198.51.100.7 expires=2001-01-01")
    match = built.match_address(parse_address("198.51.100.7"), NOW_S)
    assert match is not None
    assert match.indicator.line == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/gate.php", 1), ("/gate.php?id=1", 1), ("/gate.php/x", 1), ("/gate.php;x", 1), ("/gate.phpx", 0),
        ("/GATE.php", 0),
        ("/dir/", 2), ("/dir/anything", 2), ("/dir", 0), ("/dir/deep/x", 3), ("/q?id=5", 4), ("/q?id=55", 0),
        ("/q?id=5&x", 4), ("/p?k=anything", 5), ("", 0), ("/", 0),
    ],
)  # fmt: skip
def test_url_paths(path: str, line: int) -> None:
    built = index(
        "http://bad.example/gate.php\nhttp://bad.example/dir/\nbad.example/dir/deep\nbad.example/q?id=5\nbad.example/p?k="
    )
    match = built.match_url("bad.example", path, NOW_S)
    assert (match.indicator.line if match else 0) == line
    assert built.match_url("www.bad.example", path, NOW_S) is None
    assert built.match_url("example", path, NOW_S) is None


@pytest.mark.parametrize("path", ["/drop/x", "/%64rop/x", "//drop/x", "/./drop/x", "/a/../drop//x", "drop/x"])
@pytest.mark.parametrize("line", ["http://bad.example/drop/", "bad.example/%64rop/", "http://bad.example//a/../drop/."])
def test_a_url_is_met_in_every_form_of_its_path(path: str, line: str) -> None:
    assert index(line).match_url("bad.example", path, NOW_S) is not None
    assert index(line).match_url("bad.example", "/drop/../x", NOW_S) is None


def test_a_url_does_not_condemn_its_host() -> None:
    built = index("http://bad.example/gate.php\nhttp://198.51.100.7/x")
    assert built.match_name("bad.example", NOW_S) is None
    assert built.match_address(parse_address("198.51.100.7"), NOW_S) is None
    match = built.match_url("198.51.100.7", "/x", NOW_S)
    assert match is not None
    assert match.level == "url"


def test_url_without_path_and_with_ipv6_host() -> None:
    built = index("http://bad.example\nhttp://[2001:db8::1]:8080/x")
    assert built.match_url("bad.example", "", NOW_S) is not None
    assert built.match_url("bad.example", "/any?thing", NOW_S) is not None
    assert built.match_url("2001:db8::1", "/x", NOW_S) is not None


def test_an_expired_longer_path_does_not_hide_a_shorter_one() -> None:
    built = index("bad.example/a/\nbad.example/a/b expires=2001-01-01")
    match = built.match_url("bad.example", "/a/b", NOW_S)
    assert match is not None
    assert match.indicator.line == 1


def test_pending() -> None:
    built = index("a.example added=2030-01-03\nb.example added=2030-01-01\nc.example\n192.0.2.1 added=2030-01-02")
    at_s = 1893456000  # 2030-01-01
    assert [one.value for one in built.pending_after(at_s - 1)] == ["b.example", "192.0.2.1", "a.example"]
    assert [one.value for one in built.pending_after(at_s)] == ["192.0.2.1", "a.example"]
    assert built.pending_after(at_s * 2) == []
    assert built.size == len(built.indicators) == 4


def test_a_changed_suffix_list_holds_at_build() -> None:
    found = indicators("www.bad.example")
    newer = Suffixes.parse("com\nbad.example\n")
    built = Index.build(found, newer)
    assert built.match_name("mail.bad.example", NOW_S) is None
    assert built.match_name("x.www.bad.example", NOW_S) is not None
    whole = Index.build(indicators("bad.example"), newer)
    assert whole.match_name("bad.example", NOW_S) is not None
    assert whole.match_name("tenant.bad.example", NOW_S) is None


@pytest.mark.parametrize(("kind", "value"), [("address", "x"), ("hash", "192.0.2.1"), ("network", "bad.example")])
def test_what_is_no_indicator(kind: str, value: str) -> None:
    odd = indicators("bad.example")[0]._replace(kind=kind, value=value)
    with pytest.raises(ValueError, match="no indicator"):
        Index.build([odd], SUFFIXES)


LABELS = st.sampled_from(["a", "b", "bad", "example", "github", "io", "com", "co", "jp", "ck", "www"])
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)
LISTED = st.tuples(NAMES, st.sampled_from(["registered", "host", "exact"]), st.integers(0, 3), st.integers(0, 3))


def match_by_the_book(listed: list[tuple[str, str, int, int]], name: str) -> tuple[str, int]:
    """(level, number of the indicator) by going through all of them; now is 2."""
    best: tuple[int, int, int, int] | None = None
    registered = SUFFIXES.registered_domain(name)
    for number, (value, scope, added, expires) in enumerate(listed):
        if added > 2 or 0 < expires <= 2:
            continue
        owner = SUFFIXES.registered_domain(value)
        below = name.endswith("." + value) and registered != "" and owner == registered
        if name == value or (scope != "exact" and below):
            rank = 0
        elif scope == "registered" and registered != "" and owner == registered:
            rank = 1
        else:
            continue
        this = (rank, -len(value), number, number)
        best = this if best is None or this < best else best
    return ("", -1) if best is None else ("sibling" if best[0] else "host", best[3])


@given(st.lists(LISTED, max_size=8), NAMES)
def test_same_as_going_through_all(listed: list[tuple[str, str, int, int]], name: str) -> None:
    template = indicators("bad.example")[0]
    built = Index.build(
        [
            template._replace(value=value, scope=scope, line=number, added_s=added, expires_s=expires)
            for number, (value, scope, added, expires) in enumerate(listed)
        ],
        SUFFIXES,
    )
    match = built.match_name(name, 2)
    assert ((match.level, match.indicator.line) if match else ("", -1)) == match_by_the_book(listed, name)
