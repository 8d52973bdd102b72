"""misp: manifests of feeds, and where events may stand in an answer."""

from __future__ import annotations

import json

import pytest

from egressd.errors import Problem
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
