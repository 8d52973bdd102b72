"""stix: TAXII envelopes."""

from __future__ import annotations

import json

import pytest

from egressd.errors import Problem
from egressd.intel.formats.stix import parse_envelope, parse_page
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
    first = parse_envelope(envelope(more=True, next="abc"), "taxii", rules())
    assert (first.more, first.next) == (True, "abc")
    assert [one.value for one in first.found if isinstance(one, Indicator)] == ["bad.example"]
    assert parse_envelope(envelope(more=False), "taxii", rules())[1:] == (False, "")
    assert parse_envelope(envelope(), "taxii", rules())[1:] == (False, "")
    assert parse_envelope("{}", "taxii", rules()) == ([], False, "")
    assert parse_envelope("", "taxii", rules()) == ([], False, "")


@pytest.mark.parametrize("following", ["a\nb", "x" * 5000, 7, None, ["a"]])
def test_a_next_that_no_request_could_carry(following: object) -> None:
    assert parse_envelope(envelope(more=True, next=following), "taxii", rules())[1:] == (True, "")


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
    found, more, following = parse_envelope(text, "taxii", rules())
    assert [type(one) for one in found] == [Problem]
    assert (more, following) == (False, "")


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
