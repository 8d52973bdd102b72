"""stix: TAXII envelopes."""

from __future__ import annotations

import json

import pytest

from egressd.errors import Problem
from egressd.intel.formats.stix import parse_page, read_stix
from egressd.model import Indicator
from tests.intel.formats.scene import rules


def envelope(**members: object) -> str:
    indicator = {
        "type": "indicator",
        "id": "indicator--1",
        "pattern_type": "stix",
        "pattern": "[domain-name:value = 'bad.example']",
    }
    return json.dumps({"objects": [indicator], **members})


def test_pages() -> None:
    first = envelope(more=True, next="abc")
    assert parse_page(first)[1:] == (True, "abc", True)
    found = list(read_stix(first, "taxii", rules()))
    assert [one.value for one in found if isinstance(one, Indicator)] == ["bad.example"]
    assert parse_page(envelope(more=False))[1:] == (False, "", True)
    assert parse_page(envelope())[1:] == (False, "", True)
    for nothing in ("{}", ""):
        assert parse_page(nothing)[:3] == ([], False, "")
        assert list(read_stix(nothing, "taxii", rules())) == []


@pytest.mark.parametrize("following", ["a\nb", "x" * 5000, 7, None, ["a"]])
def test_a_next_that_no_request_could_carry(following: object) -> None:
    assert parse_page(envelope(more=True, next=following))[1:3] == (True, "")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "nonsense",
        '{"more": true, "objects": [',
        '{"objects": 7}',
        '{"objects": []} x',
        '{"title": "Unauthorized", "http_status": "401"}',
    ],
)
def test_what_is_no_envelope_is_told_and_asks_for_no_more(text: str) -> None:
    assert [type(one) for one in read_stix(text, "taxii", rules())] == [Problem]
    assert parse_page(text)[1:3] == (False, "")


def test_a_page_taken_apart() -> None:
    page = parse_page(envelope(more=True, next="abc", type="bundle"))
    assert (page.more, page.next, page.is_whole) == (True, "abc", True)
    assert [one.key for one in page.objects] == ["indicator--1"]
    assert parse_page("") == parse_page("{}") == ([], False, "", True)


@pytest.mark.parametrize(
    "text",
    [
        '{"objects": [' + "[" * 100_000,
        "[]",
        "7",
        '{"more": true, "objects": [{}',
        '{"objects": 7}',
        '{"objects": []} x',
        '{"title": "no"}',
    ],
)
def test_what_is_no_whole_page(text: str) -> None:
    page = parse_page(text)
    assert (page.is_whole, page.more) == (False, False)
