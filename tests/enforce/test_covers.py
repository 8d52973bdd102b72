"""Networks inside networks."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce.covers import outermost
from egressd.intel.networks import first_address
from tests.enforce.rules import networks


def test_the_widest_covers_the_rest() -> None:
    wide, inner, within, other = networks("198.51.0.0/16", "198.51.100.0/24", "198.51.100.7", "198.52.0.0/16")
    assert outermost([inner, other, within, wide]) == {wide: wide, inner: wide, within: wide, other: other}


def test_families_do_not_cover_one_another() -> None:
    four, six = networks("32.1.0.0/16", "2001::/16")
    assert outermost([four, six]) == {four: four, six: six}


NETWORKS = st.tuples(st.binary(min_size=4, max_size=4), st.integers(1, 32)).map(
    lambda drawn: (first_address(*drawn), drawn[1])
)


@given(st.lists(NETWORKS))
def test_every_network_stands_in_one_that_stands_in_none(drawn: list[tuple[bytes, int]]) -> None:
    covers = outermost(drawn)
    assert covers.keys() == set(drawn)
    for (addr, length), outer in covers.items():
        assert covers[outer] == outer
        assert outer[1] <= length and first_address(addr, outer[1]) == outer[0]
    standing = sorted(set(covers.values()))
    for one, other in itertools.pairwise(standing):
        assert first_address(other[0], one[1]) != one[0]
