"""MISP feeds and TAXII collections from a real server on loopback: what is asked for, and what a bad one can do."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

from egressd.config.feed_options import FeedOptions
from egressd.intel.feeds import collect
from egressd.intel.feeds.collect import EVENTS, PAGES, TAXII, collected_as
from egressd.intel.feeds.fetch import FeedError
from egressd.intel.feeds.gathered import parse_events
from egressd.intel.feeds.kept import load_kept
from egressd.intel.feeds.state import FAILING, OK, REFUSED
from egressd.units import DAY_US
from tests.intel.feed_scene import SECRET, desk_at
from tests.intel.feed_server import (
    Handler,
    Request,
    Server,
    endless,
    head,
    respond,
    serving,
    silent,
    site,
    stall,
    versioned,
)
from tests.loops import in_loop

FOLDER = "/misp/"
OBJECTS = "/api1/collections/91a7b528-80eb-42ed-a74d-c6fbd5a26116/objects/"


@pytest.mark.parametrize(
    ("format_", "url", "kind"),
    [
        ("misp", "https://m.example/feed/manifest.json", EVENTS),
        ("misp", "https://m.example/feed/manifest.json?key={credential}", EVENTS),
        ("misp", "https://m.example/feed/", EVENTS),
        ("misp", "https://m.example", EVENTS),
        ("misp", "https://m.example/feed/5a1e0000-0000-4000-8000-000000000001.json", ""),
        ("misp", "https://m.example/events/7?a=/manifest.json", ""),
        ("misp", "https://m.example/my-manifest.json", ""),
        ("hosts", "https://m.example/feed/", ""),
        ("stix", f"https://t.example{OBJECTS}", PAGES),
        ("stix", f"https://t.example{OBJECTS[:-1]}?match[type]=indicator", PAGES),
        ("stix", "https://t.example/collections/", ""),
        ("stix", f"https://t.example{OBJECTS}indicator--1/", ""),
        ("stix", "https://t.example/bundle.json", ""),
        ("misp", f"https://t.example{OBJECTS[:-1]}", ""),
    ],
)
def test_it_is_told_by_format_and_address(format_: str, url: str, kind: str) -> None:
    assert collected_as(FeedOptions(url, format_)) == kind


# -- MISP


def uuid(number: int) -> str:
    return str(UUID(int=number))


def event(number: int, *names: str, info: str = "") -> bytes:
    """As MISP writes it: over many lines."""
    found = [{"type": "domain", "to_ids": True, "value": name} for name in names or [f"c2.bad{number}.example"]]
    return json.dumps({"Event": {"uuid": uuid(number), "info": info, "Attribute": found}}, indent=2).encode()


class Misp:
    """A feed's folder on a server."""

    def __init__(self, server: Server, count: int = 0) -> None:
        self.stamps: dict[str, Any] = {}
        self.places: dict[str, Handler] = {}
        self.server = server
        server.answer = site(self.places)
        for number in range(1, count + 1):
            self.put(number, 1_000 + number, event(number))

    def put(self, number: int, stamp_s: int, answer: bytes | Handler) -> None:
        self.stamps[uuid(number)] = {"timestamp": str(stamp_s), "info": "x"}
        self.places[f"{FOLDER}{uuid(number)}.json"] = respond(answer) if isinstance(answer, bytes) else answer
        self.publish()

    def publish(self) -> None:
        text = json.dumps(self.stamps, indent=1).encode()
        self.places[f"{FOLDER}manifest.json"] = versioned(text, f'"{hash(text)}"')

    def asked(self) -> list[str]:
        """Files that were asked for since the last time."""
        found = [urlsplit(one.target).path.removeprefix(FOLDER) for one in self.server.requests]
        self.server.requests.clear()
        return found

    def feed(self, **more: Any) -> FeedOptions:
        return FeedOptions(self.server.at(FOLDER), "misp", **more)


def events_of(numbers: list[int]) -> list[str]:
    return [f"{uuid(number)}.json" for number in numbers]


@in_loop
async def test_a_misp_feed_and_an_update_of_one_event(tmp_path: Path) -> None:
    async with serving() as server:
        misp = Misp(server, 3)
        async with desk_at(tmp_path, c2=misp.feed()) as desk:
            found = await desk.ask()
            assert (found.state, found.told()) == (OK, "")
            assert desk.values() == ["c2.bad3.example", "c2.bad2.example", "c2.bad1.example"]
            assert misp.asked() == ["manifest.json", *events_of([3, 2, 1])]  # the newest first
            desk.clock.us += 60_000_000
            assert (await desk.ask()).last_ok_us == desk.clock.us
            assert misp.asked() == ["manifest.json"] and desk.versions == ["c2"]  # 304
            misp.put(1, 2_000, event(1, "c2.bad1.example", "c2.more1.example"))
            misp.put(4, 2_001, event(4))
            del misp.stamps[uuid(2)]
            misp.publish()
            assert (await desk.ask()).told() == ""
            assert misp.asked() == ["manifest.json", *events_of([4, 1])]
            assert sorted(desk.values()) == [
                "c2.bad1.example", "c2.bad3.example", "c2.bad4.example", "c2.more1.example",
            ]  # fmt: skip
            assert (found.added, found.removed) == (2, 1)
        async with desk_at(tmp_path, c2=misp.feed()) as again:  # from disk, and on from there
            assert len(again.values()) == 4
            misp.put(5, 3_000, event(5))
            await again.ask()
            assert misp.asked() == ["manifest.json", *events_of([5])] and len(again.values()) == 5


@in_loop
async def test_a_single_event_is_one_request(tmp_path: Path) -> None:
    async with serving() as server:
        misp = Misp(server, 2)
        url = server.at(f"{FOLDER}{uuid(2)}.json")
        async with desk_at(tmp_path, c2=FeedOptions(url, "misp")) as desk:
            assert (await desk.ask()).state == OK and desk.values() == ["c2.bad2.example"]
            assert misp.asked() == events_of([2])
        kept = load_kept(tmp_path / "feeds", "c2")
        assert kept is not None and kept.body == event(2)  # as it came


@in_loop
async def test_an_update_asks_for_so_many_and_goes_on_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "MAX_EVENTS", 4)
    async with serving() as server:
        misp = Misp(server, 9)
        async with desk_at(tmp_path, c2=misp.feed()) as desk:
            found = await desk.ask()
            assert misp.asked() == ["manifest.json", *events_of([9, 8, 7, 6])]
            assert found.state == OK and found.is_alarming and "5 of its events are still to come" in found.told()
            misp.put(2, 9_000, event(2))
            await desk.ask()  # the manifest is asked for whole: there is no ETag of a version that is not all of it
            assert misp.asked() == ["manifest.json", *events_of([2, 5, 4, 3])]
            assert "1 of its events" in found.told()
            await desk.ask()
            assert misp.asked() == ["manifest.json", *events_of([1])]
            assert found.told() == "" and len(desk.values()) == 9
            await desk.ask()
            assert server.requests[-1].headers["if-none-match"]


@in_loop
async def test_a_slow_server_gives_what_it_can_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "LONGER", 2)  # no time is left when the manifest is there
    async with serving() as server:
        misp = Misp(server, 3)
        async with desk_at(tmp_path, c2=misp.feed()) as desk:
            for count in (1, 2, 3):
                found = await desk.ask()
                assert (found.state, found.size) == (OK, count)
            assert found.told() == "" and len(misp.asked()) == 6


@in_loop
async def test_older_events_that_hold_far_more_can_be_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "MAX_EVENTS", 3)
    async with serving() as server:
        misp = Misp(server, 6)
        misp.put(2, 2, event(2, *(f"c2.old{number}.example" for number in range(100))))
        async with desk_at(tmp_path, c2=misp.feed()) as desk:
            assert (await desk.ask()).size == 3
            found = await desk.ask()
            assert (found.state, found.kind, found.size) == (REFUSED, "grown", 3)
            misp.asked()
            found = await desk.ask(force=True)
            assert (found.state, found.told(), found.size) == (OK, "", 105)
            assert misp.asked() == ["manifest.json", *events_of([3, 1, 2])]  # on top of those in force


@in_loop
async def test_events_that_are_gone_or_too_large_are_left_out_and_told(tmp_path: Path) -> None:
    huge = respond(b"", length=200 << 20)
    async with serving() as server:
        misp = Misp(server, 30)
        misp.put(7, 5_000, respond(b"", 404))
        misp.put(8, 5_001, huge)
        misp.put(9, 5_002, endless)
        misp.put(10, 5_003, respond(b"\0\0"))
        misp.put(11, 5_004, respond(b"<html>Come back later</html>"))
        misp.put(12, 5_005, respond(event(12)[:60]))
        async with desk_at(tmp_path, c2=misp.feed(max_mib=8)) as desk:
            found = await desk.ask()
            assert found.state == OK and len(desk.values()) == 24
            assert "1 of its events is not where its manifest says" in found.told()
            assert "5 of its events are left out: each is larger than a fourth of max_mib, or no event" in found.told()
            misp.put(7, 5_000, event(7))
            assert len(misp.asked()) == 31
            await desk.ask()
            assert misp.asked() == ["manifest.json", *events_of([12, 11, 10, 9, 8, 7])] and len(desk.values()) == 25
            misp.put(1, 6_000, huge)  # its last good version stays, as that of a feed does
            await desk.ask()
            assert "c2.bad1.example" in desk.values() and len(desk.values()) == 25
            for number in range(13, 18):
                misp.put(number, 7_000, respond(b"", 410))
            await desk.ask()
            assert (found.state, found.kind) == (FAILING, "status") and "5 of its 30 events" in found.told()
            assert len(desk.values()) == 25


@in_loop
async def test_the_oldest_are_left_out_when_it_is_too_much(tmp_path: Path) -> None:
    async with serving() as server:
        misp = Misp(server)
        for number in range(1, 8):
            misp.put(number, number, event(number, info="x" * 200_000))
        async with desk_at(tmp_path, c2=misp.feed(max_mib=1)) as desk:
            found = await desk.ask()
            assert desk.values() == [f"c2.bad{number}.example" for number in (7, 6, 5, 4, 3)]
            assert "2 of its events are left out, the oldest" in found.told()
            misp.put(8, 8, event(8, info="x" * 200_000))
            await desk.ask()
            assert desk.values() == [f"c2.bad{number}.example" for number in (8, 7, 6, 5, 4)]
            assert "3 of its events are left out, the oldest" in found.told()
        kept = load_kept(tmp_path / "feeds", "c2")
        assert kept is not None and len(kept.body) <= 1 << 20 and len(parse_events(kept.body)) == 5


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (stall, "stalled"), (silent, "stalled"), (respond(b"", 503, Retry_After="7200"), "status"),
        (respond(event(2)[:-9], length=len(event(2))), "cut-off"), (respond(b"", 302, Location="ftp://h/"), "redirect"),
        (respond(b'{"Event": "' + SECRET.encode() + b'"}'), "credential"),
    ],
)  # fmt: skip
@in_loop
async def test_what_fails_in_the_midst_leaves_the_version_before(tmp_path: Path, handler: Handler, kind: str) -> None:
    keep_key(tmp_path)
    async with serving() as server:
        misp = Misp(server, 3)
        async with desk_at(tmp_path, c2=misp.feed(credential="key")) as desk:
            await desk.ask()
            misp.put(4, 9_000, event(4))
            misp.put(2, 8_000, handler)
            found = await desk.ask()
            assert (found.state, found.kind) == (FAILING, kind) and len(desk.values()) == 3
            assert found.retry_after_s == (7_200 if kind == "status" else 0)
            misp.put(2, 8_000, event(2))
            assert (await desk.ask()).told() == "" and len(desk.values()) == 4


@in_loop
async def test_an_event_that_is_broken_spoils_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [
        b"{}",
        b"{{}",
        b'{"Event": {"Attribute": [{}',
        b"{}}}]\n{}",
        b"{<html>\n</html>}",
        b'{"}',
        b"[7\n]",
        b"[[]",
    ]
    monkeypatch.setattr(collect, "MAX_EVENTS", 1_000)
    async with serving() as server:
        misp = Misp(server, 400)
        for number, body in enumerate(broken, 2):
            misp.put(number * 40, 9_000 + number, body)
        async with desk_at(tmp_path, c2=misp.feed()) as desk:
            found = await desk.ask()
            assert (found.state, found.kind) == (REFUSED, "unreadable")  # more than one in a hundred
            for number in range(2, 6):
                misp.put(number * 40, 9_000 + number, event(number * 40))
            found = await desk.ask()
            assert (found.state, found.bad_lines, found.size) == (OK, 4, 396)


@pytest.mark.parametrize(
    "manifest",
    [
        *(b"<html>", b'{"error": "no such key"}', b"[]", b""),
        json.dumps({uuid(1): {"timestamp": "1"}}).encode()[:-1],
        json.dumps({f"../{number}": {"timestamp": "1"} for number in range(3)}).encode(),
    ],
)
@in_loop
async def test_what_is_no_manifest(tmp_path: Path, manifest: bytes) -> None:
    async with serving() as server:
        misp = Misp(server, 3)
        async with desk_at(tmp_path, c2=misp.feed()) as desk:
            await desk.ask()
            misp.places[f"{FOLDER}manifest.json"] = respond(manifest)
            found = await desk.ask()
            assert (found.state, found.kind) == (FAILING, "answer")
            assert len(desk.values()) == 3


@in_loop
async def test_hostile_uuids_ask_for_nothing(tmp_path: Path) -> None:
    async with serving() as server:
        misp = Misp(server, 20)
        misp.stamps["../../../etc/passwd"] = {"timestamp": "99999"}
        misp.stamps[f"http://127.0.0.1:{server.port}/{uuid(1)}"] = {"timestamp": "99999"}
        misp.publish()
        async with desk_at(tmp_path, c2=misp.feed()) as desk:
            found = await desk.ask()
            assert found.state == OK and "2 of its events are without a right uuid" in found.told()
            assert misp.asked() == ["manifest.json", *events_of(list(range(20, 0, -1)))]


@in_loop
async def test_a_manifest_without_events_is_an_empty_feed(tmp_path: Path) -> None:
    async with serving() as server:
        misp = Misp(server)
        misp.publish()
        async with desk_at(tmp_path, c2=misp.feed(), right=misp.feed(allow_empty=True)) as desk:
            assert (await desk.ask()).kind == "empty"
            assert (await desk.ask("right")).state == OK


# -- TAXII


def indicator(number: int, *, modified: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "type": "indicator",
        "id": f"indicator--{uuid(number)}",
        "modified": f"2026-01-01T00:00:{modified:02}.000Z",
        "pattern_type": "stix",
        "pattern": f"[domain-name:value = 'c2.bad{number}.example']",
        **more,
    }


class Taxii:
    """A collection on a server, a few objects a page, as TAXII 2.1 says."""

    def __init__(self, server: Server, count: int = 0, *, page: int = 2, by: str = "next", etag: str = "") -> None:
        self.objects = [indicator(number) for number in range(1, count + 1)]
        self.server = server
        self.page = page
        self.by = by
        self.etag = etag
        self.before_answer: Mapping[int, Handler] = {}  # by how many requests came before
        server.answer = self.answer

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        other = self.before_answer.get(len(self.server.requests) - 1)
        if other is not None:
            await other(request, writer)
            return
        assert request.headers["accept"] == TAXII
        if self.etag and request.headers.get("if-none-match") == self.etag:
            await respond(b"", 304)(request, writer)
            return
        asked = {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}
        at = int(asked.get("next", asked.get("added_after", "0").rpartition(":")[2].removesuffix("Z")))
        found = self.objects[at : at + self.page]
        more = at + self.page < len(self.objects)
        envelope: dict[str, Any] = {"more": more}
        envelope |= {"objects": found} if found else {}
        envelope |= {"next": str(at + self.page)} if more and self.by == "next" else {}
        headers = {"ETag": self.etag} if self.etag else {}
        if found and self.by != "nothing":
            headers["X_TAXII_Date_Added_Last"] = f"2026-01-01T00:00:{at + len(found):02}Z"
        body = json.dumps(envelope, indent=1).encode()
        await respond(body, Content_Type=TAXII, **headers)(request, writer)

    def asked(self) -> list[str]:
        found = [urlsplit(one.target).query.removeprefix("limit=500").strip("&") for one in self.server.requests]
        self.server.requests.clear()
        return found

    def feed(self, **more: Any) -> FeedOptions:
        return FeedOptions(self.server.at(OBJECTS), "stix", **more)


def added(number: int) -> str:
    return f"added_after=2026-01-01T00%3A00%3A{number:02}Z"


@pytest.mark.parametrize("by", ["next", "date"])
@in_loop
async def test_a_collection_page_by_page_and_what_was_added_since(tmp_path: Path, by: str) -> None:
    async with serving() as server:
        taxii = Taxii(server, 5, by=by)
        async with desk_at(tmp_path, c2=taxii.feed()) as desk:
            found = await desk.ask()
            assert (found.state, found.told()) == (OK, "")
            assert desk.values() == [f"c2.bad{number}.example" for number in range(1, 6)]
            pages = {"next": ["next=2", "next=4"], "date": [added(2), added(4)]}
            assert taxii.asked() == ["", *pages[by]]
            desk.clock.us += 3_600_000_000
            assert (await desk.ask()).last_ok_us == desk.clock.us
            assert taxii.asked() == [added(5)] and desk.versions == ["c2"]
            taxii.objects += [
                indicator(6), indicator(2, modified=1, pattern="[ipv4-addr:value = '203.0.113.9']"),
                indicator(3, modified=2, revoked=True), indicator(4, modified=0),
            ]  # fmt: skip
            await desk.ask()
            more = {"next": [f"{added(5)}&next=7"], "date": [added(7)]}
            assert taxii.asked() == [added(5), *more[by]]
            wanted = ["c2.bad1.example", "203.0.113.9", "c2.bad4.example", "c2.bad5.example", "c2.bad6.example"]
            assert desk.values() == wanted and (found.added, found.removed) == (2, 2)
        async with desk_at(tmp_path, c2=taxii.feed()) as again:
            assert again.values() == wanted
            await again.ask()
            assert taxii.asked() == [added(9)]
            del taxii.objects[0]  # nobody tells of that
            again.clock.us += DAY_US
            await again.ask()
            assert taxii.asked()[0] == "" and again.values() == wanted[1:]
            await again.ask(force=True)
            assert taxii.asked()[0] == ""


@in_loop
async def test_a_collection_of_one_page_with_an_etag_is_asked_for_changes_only(tmp_path: Path) -> None:
    async with serving() as server:
        taxii = Taxii(server, 5, page=50, etag='"1"')
        async with desk_at(tmp_path, c2=taxii.feed()) as desk:
            await desk.ask()
            assert (await desk.ask()).state == OK and desk.versions == ["c2"]
            assert server.requests[-1].headers["if-none-match"] == '"1"' and taxii.asked() == ["", ""]
            taxii.objects.append(indicator(6))
            taxii.etag = '"2"'
            assert (await desk.ask()).size == 6 and taxii.asked() == [""]
            taxii.page = 3
            taxii.etag = '"3"'
            assert (await desk.ask()).size == 6
            await desk.ask()
            assert "if-none-match" not in server.requests[-1].headers  # the first of two pages says nothing of all


@in_loop
async def test_a_server_that_gives_no_dates_is_asked_for_all(tmp_path: Path) -> None:
    async with serving() as server:
        taxii = Taxii(server, 5, page=50, by="nothing")
        async with desk_at(tmp_path, c2=taxii.feed()) as desk:
            await desk.ask()
            await desk.ask()
            assert taxii.asked() == ["", ""] and desk.versions == ["c2"]
            taxii.page = 3
            found = await desk.ask()
            assert (found.kind, found.size) == ("answer", 5) and "says that there is more" in found.told()


@in_loop
async def test_a_plain_bundle_is_one_request(tmp_path: Path) -> None:
    bundle = json.dumps({"type": "bundle", "objects": [indicator(1)]}, indent=2).encode()
    async with serving() as server:
        server.answer = versioned(bundle, '"1"')
        async with desk_at(tmp_path, c2=FeedOptions(server.url, "stix")) as desk:
            assert (await desk.ask()).size == 1
            assert server.requests[-1].headers["accept"] == "*/*" and server.requests[-1].target == "/feed.txt"
        kept = load_kept(tmp_path / "feeds", "c2")
        assert kept is not None and kept.body == bundle


def forever(*, following: str = "", number: str = "", objects: int = 1) -> Handler:
    """More, for ever: what says so is the same each time, or another."""
    count = 0

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        body: dict[str, Any] = {"more": True, "objects": [indicator(1)] * objects}
        body |= {"next": following or f"{number}{count}"} if following or number else {}
        raw = json.dumps(body).encode()
        writer.write(head(200, len(raw), X_TAXII_Date_Added_Last="2026-01-01T00:00:09Z") + raw)
        await writer.drain()

    return answer


@pytest.mark.parametrize(
    ("handler", "kind", "most"),
    [
        (forever(following="a"), "answer", 2), (forever(), "answer", 2), (forever(number="n"), "too-large", 20),
        (forever(number="n", objects=2_000), "too-large", 5), (respond(b'{"more": true}'), "answer", 1),
    ],
)  # fmt: skip
@in_loop
async def test_pages_that_never_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Handler, kind: str, most: int
) -> None:
    monkeypatch.setattr(collect, "MAX_PAGES", 20)
    async with serving() as server:
        taxii = Taxii(server, 5)
        async with desk_at(tmp_path, c2=taxii.feed(max_mib=1)) as desk:
            await desk.ask()
            taxii.asked()
            server.answer = handler
            for force in (False, True):
                found = await desk.ask(force=force)
                assert (found.state, found.kind, found.size) == (FAILING, kind, 5)
                assert len(taxii.asked()) <= most


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (stall, "stalled"), (silent, "stalled"), (respond(b"", 503), "status"), (endless, "too-large"),
        (respond(b"", length=200 << 20), "too-large"), (respond(b'{"objects": [{}', length=99), "cut-off"),
        (respond(b'{"more": true, "objects": [{'), "answer"), (respond(b"<html>"), "answer"),
        (respond(b'{"title": "Unauthorized", "http_status": "401"}'), "answer"), (respond(b'{"objects": 7}'), "answer"),
        (respond(b'{"objects": [{"name": "' + SECRET.encode() + b'"}]}'), "credential"),
    ],
)  # fmt: skip
@in_loop
async def test_a_page_that_fails_leaves_the_version_before(tmp_path: Path, handler: Handler, kind: str) -> None:
    keep_key(tmp_path)
    async with serving() as server:
        taxii = Taxii(server, 3, page=1)
        async with desk_at(tmp_path, c2=taxii.feed(max_mib=2, credential="key")) as desk:
            await desk.ask()
            assert len(taxii.asked()) == 3
            taxii.objects += [indicator(number) for number in (4, 5, 6)]
            taxii.before_answer = {1: handler}
            found = await desk.ask()
            assert (found.state, found.kind, found.size) == (FAILING, kind, 3)
            taxii.before_answer = {}
            assert (await desk.ask()).told() == "" and found.size == 6


@in_loop
async def test_all_of_it_takes_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "LONGER", 0)
    async with serving() as server:
        taxii = Taxii(server, 3)
        async with desk_at(tmp_path, c2=taxii.feed()) as desk:
            found = await desk.ask()
            assert (found.state, found.kind) == (FAILING, "stalled") and "not all of it" in found.told()


@in_loop
async def test_a_damaged_copy_is_gathered_anew(tmp_path: Path) -> None:
    async with serving() as server:
        taxii = Taxii(server, 3)
        async with desk_at(tmp_path, c2=taxii.feed()) as desk:
            await desk.ask()
            (tmp_path / "feeds" / "c2.feed").write_bytes(b"junk")
            taxii.objects.append(indicator(4))
            taxii.asked()
            assert (await desk.ask()).size == 4 and taxii.asked() == ["", "next=2"]


@pytest.mark.parametrize(
    ("url", "after", "following", "wanted"),
    [
        ("https://t.example/o/", "", "", "https://t.example/o/?limit=500"),
        ("https://t.example/o/?limit=9&match[type]=indicator", "", "a&b={credential}",
         "https://t.example/o/?limit=9&match[type]=indicator&next=a%26b%3D%7Bcredential%7D"),
        ("https://t.example/o/?added_after=2020&k={credential}", "2026", "",
         "https://t.example/o/?k={credential}&limit=500&added_after=2026"),
        ("https://t.example/o/?added_after=2020", "", "7", "https://t.example/o/?added_after=2020&limit=500&next=7"),
    ],
)  # fmt: skip
def test_how_a_page_is_asked_for(url: str, after: str, following: str, wanted: str) -> None:
    assert collect._page_url(url, after, following) == wanted


# -- secrets


def keep_key(folder: Path) -> None:
    key = folder / "key"
    key.write_text(SECRET + "\n")
    key.chmod(0o600)


@in_loop
async def test_the_credential_goes_with_every_request_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    keep_key(tmp_path)
    seen: list[str] = []
    async with serving() as server, serving() as other:
        other.answer = respond(event(2))
        misp = Misp(server, 2)
        misp.places[f"{FOLDER}{uuid(2)}.json"] = respond(b"", 302, Location=other.at("/x"))
        placed = FeedOptions(server.at(f"{FOLDER}manifest.json?key={{credential}}"), "misp", credential="key")
        async with desk_at(tmp_path, header=misp.feed(credential="key", header="X-Key"), placed=placed) as desk:
            for answer in (None, respond(b"", 403), stall, respond(b"{"), endless, respond(SECRET.encode())):
                if answer is not None:
                    misp.put(1, len(seen) + 9_000, answer)
                for name in ("header", "placed"):
                    state = await desk.ask(name)
                    seen += [repr(vars(state)), state.told()]
            assert len(server.requests) > 20
            assert all(SECRET in (one.headers.get("x-key", ""), one.target[-len(SECRET) :]) for one in server.requests)
            assert len(other.requests) >= 2 and not any(SECRET in str(vars(one)) for one in other.requests)
        taxii = Taxii(server, 5)
        server.requests.clear()
        feeds = {
            "header": taxii.feed(credential="key", header="X-Key"),
            "placed": FeedOptions(f"{server.at(OBJECTS)}?key={{credential}}", "stix", credential="key"),
        }
        async with desk_at(tmp_path, **feeds) as desk:
            for handler in (taxii.answer, forever(following="{credential}"), stall, respond(b"", 403)):
                server.answer = handler
                for name in feeds:
                    state = await desk.ask(name)
                    seen += [repr(vars(state)), state.told()]
            assert len(server.requests) > 10
            assert all(one.headers.get("x-key") == SECRET or f"key={SECRET}" in one.target for one in server.requests)
            assert not any(one.target.count(SECRET) > 1 for one in server.requests)
        seen += [repr(one) for one in desk.told]
    seen += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    seen += [path.read_bytes().decode("latin-1") for path in (tmp_path / "feeds").rglob("*") if path.is_file()]
    assert len(seen) > 40
    assert [one for one in seen if SECRET in one] == []


def test_what_is_wrong_is_told_in_our_words() -> None:
    with pytest.raises(FeedError) as error:
        collect._entries(b'{"\x1b[31m": 1}')
    assert error.value.kind == "answer" and error.value.text.isprintable()
