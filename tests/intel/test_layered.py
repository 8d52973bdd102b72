"""layered: two layers answer as one index of all would."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.index import Index
from egressd.intel.layered import LayeredIndex, in_memory, over
from egressd.intel.networks import NAT64_WELL_KNOWN, parse_address, parse_network
from egressd.model import Indicator
from tests.detect.scene import listed
from tests.intel.index_scene import SUFFIXES, mapped
from tests.intel.test_mapped import NAMES, PATHS, TIMES, a_domain, a_network, lists, plain_only


def layered(upper: list[Indicator], *lowers: list[Indicator]) -> LayeredIndex:
    return LayeredIndex(Index.build(upper, SUFFIXES), tuple(mapped(one) for one in lowers), SUFFIXES)


@given(lists(), st.tuples(st.integers(0, 14), st.integers(0, 14)), st.lists(NAMES, max_size=4), PATHS, TIMES)
def test_same_as_one_index_of_all(
    listed: list[Indicator], cuts: tuple[int, int], names: list[str], path: str, now_s: int
) -> None:
    plain = Index.build(listed, SUFFIXES)
    first, second = sorted(cuts)
    two = layered(listed[:first], listed[first:second], listed[second:])
    left_out = plain_only(listed)

    def skip(one: Indicator) -> bool:
        return one.value in left_out

    names += [one.value for one in listed if one.kind == "domain"]
    names += ["x." + name for name in names]
    for unwanted in (None, skip):
        for name in names:
            assert two.match_name(name, now_s, unwanted) == plain.match_name(name, now_s, unwanted)
        for text in ("192.0.2.1", "192.0.2.9", "198.51.100.7", "2001:db8::1", "64:ff9b::192.0.2.1", "203.0.113.1"):
            packed = parse_address(text)
            assert two.match_address(packed, now_s, unwanted) == plain.match_address(packed, now_s, unwanted)
        for host in (*names, "192.0.2.1", "2001:db8::1"):
            assert two.match_url(host, path, now_s, unwanted) == plain.match_url(host, path, now_s, unwanted)
    assert two.size == plain.size
    assert sorted(two.listed()) == sorted(listed)
    assert two.changes_around(now_s) == plain.changes_around(now_s)
    assert [one.added_s for one in two.pending_after(now_s)] == [one.added_s for one in plain.pending_after(now_s)]
    assert all(two.holds(one._replace(line=0)) for one in listed)


def test_a_single_address_written_as_a_network_is_as_specific() -> None:
    one = a_network("192.0.2.1", 0)
    upper, lower = one._replace(line=1, confidence=5), one._replace(line=2, kind="network", value="192.0.2.1/32")
    for two in (layered([upper], [lower]), layered([lower], [upper])):
        match = two.match_address(parse_address("192.0.2.1"), 0)
        plain = Index.build([upper, lower], SUFFIXES).match_address(parse_address("192.0.2.1"), 0)
        assert match == plain and match is not None


def test_more_lie_above_and_the_file_stays() -> None:
    two = layered([a_domain("a.com", "host")], [a_domain("b.com", "host")])
    more = two.plus([a_domain("c.com", "host")])
    assert more.lowers is two.lowers
    assert [more.match_name(name, 0) is not None for name in ("a.com", "b.com", "c.com", "d.com")] == [True] * 3 + [
        False
    ]


def test_what_was_added() -> None:
    below = [a_domain(f"n{number}.com", "host") for number in range(20)]
    old = layered([a_domain("a.com", "host")], below)
    moved = [one._replace(line=one.line + 7) for one in below]
    new = layered([a_domain("c.com", "host")], [*moved, a_domain("b.com", "host"), a_domain("a.com", "host")])
    assert in_memory(old, new) is None  # another file: everything may be new
    assert not old.holds(a_domain("c.com", "host")) and new.holds(a_domain("c.com", "host"))
    assert all(new.holds(one) for one in below)  # a line that moved is the same
    shared = LayeredIndex(Index.build([a_domain("d.com", "host")], SUFFIXES), old.lowers, SUFFIXES)
    assert [one.value for one in in_memory(old, shared) or ()] == ["d.com"]
    assert in_memory(new, Index.build(below, SUFFIXES)) == tuple(below)


def test_an_index_in_memory_does_not_travel() -> None:
    try:
        pickle.dumps(layered([], []))
    except TypeError as error:
        assert "does not travel" in str(error)
    else:
        raise AssertionError("it did")


def test_addresses_in_the_networks_own_nat64_prefixes_are_matched_in_every_layer() -> None:
    prefix = parse_network("2001:db8:64::/96")
    assert prefix is not None
    one, other = listed("198.51.100.9\n198.51.100.10")
    upper = Index.build([one], SUFFIXES, (NAT64_WELL_KNOWN, prefix))
    index = over(upper.plus([]), (mapped([other]),), SUFFIXES)
    for text, found in (("2001:db8:64::c633:6409", one), ("2001:db8:64::c633:640a", other)):
        match = index.match_address(parse_address(text), 0)
        assert match is not None and match.indicator == found
    again = pickle.loads(pickle.dumps(upper))
    assert again.match_address(parse_address("2001:db8:64::c633:6409"), 0) is not None
    assert Index.build([one], SUFFIXES).match_address(parse_address("2001:db8:64::c633:6409"), 0) is None
