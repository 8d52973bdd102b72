"""Columns: matches and counts go in and come out as they were, ids are read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.model import Indicator, Match
from egressd.store.errors import CORRUPT, REQUEST, StoreError
from egressd.store.records import (
    MAX_GIVEN,
    campaign_id,
    campaign_number,
    number_of,
    parse_count,
    parse_counts,
    parse_match,
    render_counts,
    render_match,
)
from tests.store.scene import match

anything = st.text(st.characters(exclude_categories=()))  # half surrogate pairs too: names come from the wire
number = st.integers(-MAX_GIVEN, MAX_GIVEN)
indicators = st.builds(
    Indicator, anything, anything, anything, anything, anything, anything, anything, number, anything, number, number,
    number, anything, anything, number,
)  # fmt: skip
matches = st.builds(Match, anything, indicators, anything, anything)


@given(matches)
def test_a_match_comes_back_as_it_was(one: Match) -> None:
    text = render_match(one)
    assert text.isascii() and "\n" not in text
    assert parse_match(text) == one


@given(st.dictionaries(anything, st.integers(0, MAX_GIVEN)))
def test_counts_come_back_as_they_were_in_order(counts: dict[str, int]) -> None:
    assert list(parse_counts(render_counts(counts)).items()) == list(counts.items())


def test_a_match_of_another_version_is_read_as_far_as_it_is_known() -> None:
    newer = render_match(match()).replace('{"level"', '{"colour":"red","level"', 1).replace('"line":7,', "")
    assert parse_match(newer) == match()._replace(indicator=match().indicator._replace(line=0))
    assert parse_match('{"level":"host","indicator":{"line":"7","value":3}}').indicator[:2] == ("", "")


@given(st.text())
def test_only_store_errors_leave_the_parsers(text: str) -> None:
    for parse in (parse_match, parse_counts):
        try:
            parse(text)
        except StoreError as error:
            assert error.kind == CORRUPT


@pytest.mark.parametrize("text", ["", "[1]", "null", "{", '{"indicator":[1]}', "[" * 100_000])
def test_what_is_no_match(text: str) -> None:
    with pytest.raises(StoreError):
        parse_match(text)


@pytest.mark.parametrize(("text", "wanted"), [("D1", 1), ("D007", 7), ("D" + "9" * 18, 10**18 - 1)])
def test_ids(text: str, wanted: int) -> None:
    assert number_of(text, "D") == wanted


@pytest.mark.parametrize("text", ["", "D", "d1", "I1", "D-1", "D1 ", "D1.5", "D" + "9" * 19, "D١", "D²", "\x1b[2JD1"])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(StoreError, match="is no decision's id; those look like D12") as caught:
        number_of(text, "D")
    assert caught.value.kind == REQUEST
    assert "\x1b" not in str(caught.value)


def test_no_campaign() -> None:
    assert campaign_number("") == 0 and campaign_id(0) == ""
    assert campaign_id(campaign_number("C5")) == "C5"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", 0), ("007", 7), (str(10**17), 10**17), (str(10**17 + 1), None), ("9" * 19, None), ("", None), ("-1", None),
     ("1.5", None), ("1 ", None), ("١", None), ("²", None)],
)  # fmt: skip
def test_counts_as_text(text: str, wanted: int | None) -> None:
    assert parse_count(text) == wanted
