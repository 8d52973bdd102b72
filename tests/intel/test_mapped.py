"""mapped: the same answers as an index in memory, and nothing but the declared error from damaged files."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egressd.errors import IndexDamaged
from egressd.intel.index import Index
from egressd.intel.index_format import HEAD_BYTES, MAX_GROUP
from egressd.intel.networks import first_address, parse_address, render_network
from egressd.model import Indicator, Match
from tests.intel.index_scene import SUFFIXES, built, built_in_lanes, mapped, opened

LABELS = st.sampled_from(["a", "b", "bad", "example", "github", "io", "com", "co", "jp", "ck", "www"])
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)
PATHS = st.sampled_from(["", "/", "/a", "/a/", "/a/b", "/a?b", "/a?b=", "/\xe9", "/ab"])
ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::1", "64:ff9b::192.0.2.1"])
TIMES = st.integers(0, 4)


def a_domain(value: str, scope: str) -> Indicator:
    registered, _, rule = SUFFIXES.split(value)
    return Indicator("domain", value, scope, "", registered, rule, "s", 0, "", 0, 0, 0, "", "")


def a_network(address: str, short: int) -> Indicator:
    packed = parse_address(address)
    length = 8 * len(packed) - short
    value = render_network(first_address(packed, length), length)
    kind = "network" if short else "address"
    return Indicator(kind, value, "exact", "", "", "", "s", 0, "", 0, 0, 0, "", "")


def a_url(host: str, path: str) -> Indicator:
    registered, _, rule = ("", "", "") if ":" in host or host[0].isdigit() else SUFFIXES.split(host)
    shown = f"[{host}]" if ":" in host else host
    return Indicator("url", shown + path, "exact", "", registered, rule, "s", 0, "", 0, 0, 0, "", "")


@st.composite
def lists(draw: st.DrawFn) -> list[Indicator]:
    bare = st.one_of(
        st.builds(a_domain, NAMES, st.sampled_from(["registered", "registered", "host", "exact"])),
        st.builds(a_network, ADDRESSES, st.sampled_from([0, 0, 1, 8, 16])),
        st.builds(a_url, st.one_of(NAMES, ADDRESSES), PATHS),
    )
    found = []
    for number, one in enumerate(draw(st.lists(bare, max_size=14)), 1):
        added_s, expires_s = draw(TIMES), draw(TIMES)
        found.append(
            one._replace(
                source=draw(st.sampled_from(["a.txt", "b.txt"])),
                line=number,
                confidence=draw(st.sampled_from([50, 100])),
                threat=draw(st.sampled_from(["", "x", "\xfc"])),
                narrowed=draw(st.sampled_from(["", "why"])),
                added_s=added_s,
                expires_s=expires_s if expires_s > added_s else 0,
                ref=draw(st.sampled_from(["", "case 1"])),
                owner=draw(st.sampled_from(["", "me"])),
                first_seen_s=draw(st.sampled_from([0, 1_700_000_000])),
            )
        )
    return found


def plain_only(listed: list[Indicator]) -> set[str]:
    return {one.value for one in listed[::3]}


@given(lists(), st.lists(NAMES, max_size=6), PATHS, TIMES, st.sampled_from([1, 2, 64]))
def test_same_as_an_index_in_memory(
    listed: list[Indicator], names: list[str], path: str, now_s: int, inline: int
) -> None:
    plain = Index.build(listed, SUFFIXES)
    other = mapped(listed, max_inline=inline)
    left_out = plain_only(listed)

    def skip(one: Indicator) -> bool:
        return one.value in left_out

    names += [one.value for one in listed if one.kind == "domain"]
    names += ["x." + name for name in names]
    hosts = [*names, "192.0.2.1", "2001:db8::1"]
    for unwanted in (None, skip):
        for name in names:
            assert other.match_name(name, now_s, unwanted) == plain.match_name(name, now_s, unwanted)
        for text in ("192.0.2.1", "192.0.2.9", "198.51.100.7", "2001:db8::1", "64:ff9b::192.0.2.1", "203.0.113.1"):
            packed = parse_address(text)
            assert other.match_packed(packed, now_s, unwanted) == plain.match_packed(packed, now_s, unwanted)
        for host in hosts:
            for tried in (path, path + "/c", path + "=c", "/.//%61/.." + path):
                assert other.match_url(host, tried, now_s, unwanted) == plain.match_url(host, tried, now_s, unwanted)
    assert other.size == plain.size
    assert sorted(other.listed()) == sorted(listed)
    assert [one.added_s for one in other.pending_after(now_s)] == [one.added_s for one in plain.pending_after(now_s)]
    assert set(other.pending_after(now_s)) == set(plain.pending_after(now_s))
    assert other.changes_around(now_s) == plain.changes_around(now_s)
    for one in listed:
        assert other.holds(one._replace(line=99)) and plain.holds(one._replace(line=99))
        for changed in (one._replace(ref="other"), one._replace(source="c.txt"), one._replace(expires_s=77)):
            assert other.holds(changed) == plain.holds(changed) == (changed._replace(line=0) in {
                each._replace(line=0) for each in listed
            })  # fmt: skip


def test_a_scratch_file_is_used_and_nothing_changes() -> None:
    listed = [a_domain(f"n{number}.example", "registered")._replace(line=number) for number in range(500)]
    whole = built(listed)
    assert built(listed, max_waiting=64) == whole
    index = opened(whole)
    for one in listed:
        assert index.match_name("www." + one.value, 0) == Match("host", one, one.value, "* (unlisted)")
    assert sum(index.match_name(f"m{number}.example", 0) is not None for number in range(2_000)) == 0


@pytest.mark.parametrize("count", [0, 1, 7, 300, 2_000])
def test_written_in_stretches_it_is_the_same_file(count: int) -> None:
    listed = [a_domain(f"n{number}.example", "registered")._replace(line=number) for number in range(count)]
    whole = built_in_lanes(listed, 1, 1)
    assert whole == built(listed)
    for stretches in (2, 3, 4):
        assert built_in_lanes(listed, 1, stretches) == whole


@pytest.mark.parametrize("lanes", [2, 3])
def test_builders_side_by_side_make_an_index_of_everything(lanes: int) -> None:
    listed = [
        a_domain(f"h{number}.d{number % 150}.example", "registered" if number % 3 else "host")._replace(
            line=number,
            threat=f"t{number % 5}",
            added_s=number % 7,
            expires_s=50 + number % 11 if number % 2 else 0,
            ref=f"r{number % 13}" if number % 13 < 3 else "",
        )
        for number in range(1_000)
    ]
    one = opened(built(listed))
    several = opened(built_in_lanes(listed, lanes, lanes))
    assert sorted(several.listed()) == sorted(one.listed()) == sorted(listed)
    assert several.changes_around(30) == one.changes_around(30)
    assert sorted(several.pending_after(3)) == sorted(one.pending_after(3))
    for number in range(0, 1_000, 17):
        for name in (f"h{number}.d{number % 150}.example", f"x.d{number % 150}.example", f"h{number}.none.example"):
            for now_s in (0, 5, 55):
                assert several.match_name(name, now_s) == one.match_name(name, now_s)


def test_templates_beyond_the_bound_are_told_in_full() -> None:
    listed = [a_domain(f"n{number}.example", "host")._replace(threat=f"t{number}") for number in range(9)]
    index = mapped(listed, max_templates=2)
    assert index.head.templates == 2
    assert sorted(index.listed()) == sorted(listed)


def test_one_source_with_very_many_dated_lines_for_one_domain_hides_no_other() -> None:
    flood = [
        a_domain(f"a{number:05}.bad.com", "registered")._replace(source="a.txt", line=number, expires_s=10 + number)
        for number in range(1_000)
    ]
    mine = a_domain("www.bad.com", "registered")._replace(source="z.txt", line=1)
    index = mapped([*flood, mine])
    found = index.match_name("mail.bad.com", 5)
    assert found is not None and found.level == "sibling"
    found = index.match_name("mail.bad.com", 10 + 998)
    assert found is not None and (found.level, found.indicator) == ("sibling", flood[999])
    assert index.match_name("mail.bad.com", 5_000) == Match("sibling", mine, "bad.com", "com")
    assert index.match_name("x.a00007.bad.com", 5) == Match("host", flood[7], "bad.com", "com")
    assert index.match_name("x.a00007.bad.com", 17) != Match("host", flood[7], "bad.com", "com")
    again = mapped([mine] * (MAX_GROUP * 3))
    assert again.size == MAX_GROUP * 3 and len(list(again.listed())) == MAX_GROUP


def test_only_what_is_still_to_come_is_pending() -> None:
    listed = [a_domain("a.com", "host")._replace(added_s=5), a_domain("b.com", "host")._replace(added_s=9)]
    assert [one.value for one in mapped(listed, built_s=5).pending_after(0)] == ["b.com"]


def test_when_changes_are_too_many_every_second_is_one() -> None:
    listed = [a_domain("a.com", "host")._replace(expires_s=number) for number in range(1, 9)]
    assert mapped(listed, max_changes=3).changes_around(4) == (4, 5)


def test_what_is_no_indicator() -> None:
    for odd in (a_domain("a.com", "host")._replace(kind="address"), a_domain("a.com", "host")._replace(kind="hash")):
        with pytest.raises(ValueError, match="no indicator"):
            mapped([odd])
    with pytest.raises(ValueError, match="not under"):
        mapped([a_domain("a.com", "host")._replace(registered_domain="b.com")])


WHOLE = built(
    [
        *(a_domain(f"n{n % 7}.x{n}.bad.com", "registered")._replace(line=n, added_s=n % 3) for n in range(30)),
        *(a_network("192.0.2.1", n) for n in (0, 8)),
        *(a_url("bad.com", f"/{n}") for n in range(5)),
        *(a_domain(f"n{n}.com", "exact")._replace(ref="r", owner="o", threat=str(n)) for n in range(5)),
    ],
    max_inline=4,
)


def ask_everything(raw: bytes) -> None:
    index = opened(raw)
    for name in ("n1.x1.bad.com", "other.bad.com", "n3.com", "fine.com"):
        index.match_name(name, 1)
    index.match_packed(parse_address("192.0.2.1"), 1)
    index.match_url("bad.com", "/3", 1)
    index.pending_after(0)
    index.changes_around(1)
    for one in index.listed():
        index.holds(one)


@given(st.lists(st.tuples(st.integers(HEAD_BYTES, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_only_the_declared_error_leaves_a_damaged_file(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(WHOLE)
    for at, byte in changes:
        raw[at] = byte
    with suppress(IndexDamaged):
        ask_everything(bytes(raw))


@given(st.integers(0, HEAD_BYTES - 1), st.integers(1, 255))
@example(0, 1)
def test_a_damaged_head_is_noticed_at_once(at: int, flip: int) -> None:
    raw = bytearray(WHOLE)
    raw[at] ^= flip
    with pytest.raises(IndexDamaged):
        opened(bytes(raw))


@given(st.integers(0, len(WHOLE) - 1))
def test_a_short_file_is_noticed_at_once(size: int) -> None:
    with pytest.raises(IndexDamaged):
        opened(WHOLE[:size])
    with pytest.raises(IndexDamaged):
        opened(WHOLE + b"x")


def test_a_file_that_shrinks_later_is_noticed() -> None:
    raw = bytearray(WHOLE)
    index = opened(WHOLE)
    index._read = lambda at, size: bytes(raw[at : at + size])  # type: ignore[method-assign]
    assert index.match_name("other.bad.com", 1) is not None
    del raw[HEAD_BYTES:]
    with pytest.raises(IndexDamaged):
        index.match_name("other.bad.com", 1)
