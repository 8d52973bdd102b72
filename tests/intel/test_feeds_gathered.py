"""The text of several answers: what goes in comes out, whatever is in it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.feeds.gathered import (
    BundleHead,
    merge_objects,
    parse_bundle_head,
    parse_events,
    render_bundle,
    render_event,
)
from egressd.intel.formats.stix import StixObject, parse_page

UUIDS = ("5a1e0000-0000-4000-8000-000000000001", "5a1e0000-0000-4000-8000-000000000002")


@given(st.binary(max_size=80) | st.sampled_from([b'"}\n{"uuid":', b"\r\n\r", b"}\n", b"\x0b\x0c\x1c\x85"]), st.binary())
def test_no_event_leaves_its_line(first: bytes, second: bytes) -> None:
    lines = [render_event(uuid, number, body) for number, (uuid, body) in enumerate(zip(UUIDS, (first, second)))]  # noqa: B905
    events = parse_events(b"".join(lines))
    assert list(events) == list(UUIDS)
    assert [(one.timestamp_s, one.line) for one in events.values()] == list(enumerate(lines))


@given(st.binary(max_size=200))
def test_another_text_holds_no_events(text: bytes) -> None:
    assert parse_events(text) == {} and parse_bundle_head(text) is None


def test_a_bundle_grows() -> None:
    def made(key: str, modified: str, **more: object) -> StixObject:
        return StixObject(key, modified, json.dumps({"id": key, "modified": modified, **more}))

    objects: dict[str, StixObject] = {}
    merge_objects(objects, [made("a", "1"), made("b", "2", is_new=False), made("c", "1")])
    first = render_bundle(BundleHead(7, "2026-01-01T00:00:00Z"), objects)
    assert parse_bundle_head(first) == (7, "2026-01-01T00:00:00Z")
    more = {one.key: one for one in (made("b", "2", is_new=True), made("c", "0"), made("d", ""))}
    second = render_bundle(BundleHead(7, ""), more, first)
    assert [(one["id"], one["modified"], one.get("is_new")) for one in json.loads(second)["objects"]] == [
        ("a", "1", None), ("b", "2", True), ("c", "1", None), ("d", "", None),
    ]  # fmt: skip
    assert render_bundle(BundleHead(7, ""), more, second) == second
    assert json.loads(render_bundle(BundleHead(0, ""), {}))["objects"] == []


@given(st.text())
def test_a_page_taken_apart_says_the_same(name: str) -> None:
    objects = [{"id": "a", "name": name}, {"name": name}, 7, [name]]
    for text in (json.dumps({"objects": objects}, indent=1), json.dumps({"objects": objects}, ensure_ascii=False)):
        page = parse_page(text)
        assert page.is_whole and [json.loads(one.text) for one in page.objects] == objects
        assert not any("\n" in one.text for one in page.objects) and len({one.key for one in page.objects}) == 4
