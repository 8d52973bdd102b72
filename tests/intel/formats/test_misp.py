"""misp: manifests of feeds, and where events may stand in an answer."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.errors import Problem
from egressd.intel.formats.judgement import Ignored
from egressd.intel.formats.misp import ManifestEntry, parse_manifest
from egressd.model import Indicator
from tests.intel.formats.scene import found_in

UUID = "5a1e0000-0000-4000-8000-000000000001"
EVENT = {
    "Event": {"Attribute": [{"type": "domain", "to_ids": True, "value": "bad.example"}], "uuid": UUID, "info": "i"}
}


def test_a_manifest() -> None:
    text = json.dumps({UUID.upper(): {"info": "An\tevent", "timestamp": "1767323045", "date": "2026-01-02"}})
    assert parse_manifest(text) == ([ManifestEntry(UUID, 1_767_323_045, "An event")], [])
    assert parse_manifest("{}") == ([], [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"../../etc/passwd": {"timestamp": "1"}}', "not a uuid"),
        (f'{{"{UUID}": {{"timestamp": "late"}}}}', "not a timestamp"),
        (f'{{"{UUID}": 7}}', "not a timestamp"),
        ("[]", "not JSON: { expected"),
        ("", "not JSON: { expected"),
        (f'{{"{UUID}": {{"timestamp": "1"', "not JSON"),
        ("{} {}", "something follows"),
    ],
)
def test_what_is_wrong_with_a_manifest(text: str, says: str) -> None:
    entries, problems = parse_manifest(text, "m.json")
    assert entries == []
    assert len(problems) == 1
    assert says in problems[0].what
    assert (problems[0].file, problems[0].line) == ("m.json", 1)


@pytest.mark.parametrize("wrapped", [EVENT, [EVENT], {"response": [EVENT]}, {"response": EVENT}])
def test_where_events_stand(wrapped: object) -> None:
    (found,) = found_in(json.dumps(wrapped), "misp")
    assert isinstance(found, Indicator)
    assert (found.value, found.ref) == ("bad.example", f"MISP event {UUID}, i")


@pytest.mark.parametrize(
    "text", ["{}", '{"Event": 7}', '{"Event": {"Attribute": {}}}', '{"a": 1}', "7", "[[[[[[]]]]]]"]
)
def test_what_is_no_event(text: str) -> None:
    assert [type(one) for one in found_in(text, "misp")] == [Problem]


def test_several_documents_of_which_some_are_broken() -> None:
    good = json.dumps({"uuid": UUID, "timestamp": 1, "response": EVENT})
    broken = ['{"response":{"Event":{}', '{"response":}', '{"response":{"Event":"}', '{"response":}}}]}', "{"]
    for one in broken:
        found = found_in("\n".join([good, one, good, one, good]), "misp")
        assert [type(each) for each in found] == [Indicator, Problem, Ignored, Problem, Ignored]  # said before
        assert [each.line for each in found] == [1, each_line(one, 2), 3, each_line(one, 4), 5]
    found = found_in(f"{good} {good}\n{good}\n", "misp")
    assert [type(each) for each in found] == [Indicator, Problem, Ignored]


def each_line(text: str, line: int) -> int:
    """Where it is told: what is open at a line's end is missed at the beginning of the next."""
    return line + (text in ('{"response":{"Event":{}', "{"))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(['{"Event":', "{", "}", "[", "]", "\n", "\n{", '"', ",", '"a":', " ", "7"]), max_size=40)
)
def test_whatever_is_broken_it_comes_to_an_end(parts: list[str]) -> None:
    text = "".join(parts)
    found = found_in(text, "misp")
    assert len(found) <= text.count("\n{") + 2
    assert all(isinstance(one, Problem) and 1 <= one.line <= text.count("\n") + 1 for one in found)


@pytest.mark.parametrize("line", ['{"a":}\n', '{"Event":{"Attribute":[{]}\n'])
def test_broken_events_cost_what_they_are_long(line: str) -> None:
    """A megabyte of them took 11 s, and 64 MB hours."""
    began_s = time.process_time()
    found = found_in(line * 60_000, "misp")
    assert time.process_time() - began_s < 4
    assert len(found) == 60_000 and all(isinstance(one, Problem) for one in found)
    assert [one.line for one in found[-2:]] == [59_999, 60_000]
