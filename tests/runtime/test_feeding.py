"""Feeds in the daemon: in force with the lists, alarms once, scorecards, verbs, and no secret anywhere."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from egressd.config.load import load_config
from egressd.intel.feeds.fetch import Times
from egressd.intel.feeds.state import FeedState
from egressd.metrics.exposition import render
from egressd.metrics.snapshot import Snapshot
from egressd.runtime import feeding, screens
from egressd.runtime.feeding import Feeding
from egressd.runtime.orders import Swap
from egressd.store import audit, feeds
from egressd.store.errors import StoreError
from egressd.web.requests import Refused, Request, check_args
from tests.intel.feed_server import Server, respond, serving, versioned
from tests.loops import in_loop
from tests.runtime.core_scene import ANNA, CONFIG, WHY, Site, site_at
from tests.runtime.scene import A, Hands, match, sighting

QUICK = Times(2.0, 0.2, 2.0)
GOOD = b"".join(b"c2.fed%d.example\n" % number for number in range(100))
SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "events.schema.json"
EVENTS = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
SECRET = "cAnArY-0f4e11aa"


class Fed:
    """A site with feeds."""

    def __init__(self, site: Site, feeding: Feeding) -> None:
        self.site = site
        self.feeding = feeding
        self.happened = asyncio.Event()
        told = feeding.feeds._on_told

        def tell(state: FeedState, before: str) -> None:
            told(state, before)
            self.happened.set()

        feeding.feeds._on_told = tell

    async def do(self, verb: str, **args: Any) -> dict[str, Any]:
        checked = check_args(Request(verb, args)).args
        if verb == "feeds":
            return await self.feeding.screen(checked)
        return await self.feeding.table()[verb](ANNA, checked)

    async def update(self, name: str = "c2", **args: Any) -> FeedState:
        self.happened.clear()
        await self.do("feeds-update", feed=name, reason=WHY, **args)
        await self.happened.wait()
        return self.feeding.feeds.states[name]

    def lists(self, name: str) -> bool:
        core = self.site.core
        return core.knowledge.intel.index.match_name(name, core.clock.now_us() // 1_000_000) is not None


@asynccontextmanager
async def fed_at(folder: Path, server: Server, more: str = "", **options: Any) -> AsyncIterator[Fed]:
    config = CONFIG + f"feeds:\n  c2:\n    url: {server.url}\n" + more
    async with site_at(folder, config=config, **options) as site:
        feeding = Feeding(site.core, folder, times=QUICK)
        await feeding.open()
        task = asyncio.get_running_loop().create_task(feeding.run())
        try:
            yield Fed(site, feeding)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@in_loop
async def test_what_a_feed_says_is_in_force_with_the_lists_and_after_a_restart(tmp_path: Path) -> None:
    async with serving() as server:
        server.answer = versioned(GOOD, '"1"')
        async with fed_at(tmp_path, server) as fed:
            assert not fed.lists("www.fed7.example") and fed.lists("c2.listed.example")
            await fed.update()
            assert fed.lists("www.fed7.example") and fed.lists("c2.listed.example")
            assert isinstance(fed.site.told[-1], Swap)
            found = fed.site.core.knowledge.intel.index.match_name("www.fed7.example", 1)
            assert found is not None and (found.indicator.source, found.indicator.line) == ("c2", 8)  # explain says so
            rows = screens.lists(fed.site.core, fed.site.core.clock.now_us())
            assert [(row["source"], row["indicators"]) for row in rows] == [("csirt.txt", 1), ("c2", 100)]
            hands = fed.site.hands
        async with fed_at(tmp_path, server, hands=hands) as again:
            await again.site.core.tick()
            assert again.lists("www.fed7.example")  # before anything was fetched
            assert len(server.requests) == 1


@in_loop
async def test_an_alarm_is_told_once_and_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as server:
        server.answer = respond(GOOD)
        async with fed_at(tmp_path, server) as fed:
            await fed.update()
            assert fed.feeding.warnings() == []
            for _ in range(3):
                server.answer = respond(b"<html>")
                await fed.update()
            (warning,) = fed.feeding.warnings()
            assert warning.startswith("feed c2: its new version is refused: it is a web page")
            assert "100 indicators of before stay in force" in warning and fed.lists("fed1.example")
            errors = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
            assert errors == [warning]
            server.answer = respond(GOOD)
            await fed.update()
            assert fed.feeding.warnings() == []
            assert "feed c2 is well again" in caplog.messages
            told = [one["egressd"] for one in fed.site.ears.records if one["event_type"] == "feed"]
            assert [(one["state"], one["kind"], bool(one["reason"])) for one in told] == [
                ("ok", "", False), ("refused", "page", True), ("ok", "", False),
            ]  # fmt: skip
            assert all(list(EVENTS.iter_errors(one)) == [] for one in fed.site.ears.records)
            await fed.site.core.scribe.settled()
            (row,) = await fed.site.ledger.read(feeds.rows)
            assert (row["name"], row["error"], row["indicators"]) == ("c2", "", 100)


@in_loop
async def test_a_feed_cannot_name_where_feeds_come_from_nor_what_is_allowed(tmp_path: Path) -> None:
    async with serving() as server:
        server.answer = respond(GOOD + b"friend.example\nother.example\n127.0.0.1\n")
        more = "  far:\n    url: https://feeds.other.example/x\n"
        async with fed_at(tmp_path, server, more) as fed:
            await fed.site.do("allow", what="friend.example")
            await fed.update()
            lines = (await fed.do("feeds", feed="c2"))["quarantine"]
            assert [(one["line"], one["value"], one["kind"]) for one in lines] == [
                (101, "friend.example", "allowed"), (102, "other.example", "allowed"), (103, "127.0.0.1", "protected"),
            ]  # fmt: skip
            assert "feed far comes from there" in lines[1]["reason"]


@in_loop
async def test_a_reload_brings_feeds_and_takes_them(tmp_path: Path) -> None:
    async with serving() as server:
        server.answer = respond(GOOD)
        async with fed_at(tmp_path, server) as fed:
            await fed.update()
            (tmp_path / "egressd.yaml").write_text(CONFIG)
            await fed.site.core.reload()
            assert not fed.lists("fed1.example") and fed.feeding.feeds.states == {}
            with pytest.raises(Refused, match="no feed c2 is enabled"):
                await fed.do("feeds", feed="c2")
            with pytest.raises(Refused, match="no feed is enabled"):
                await fed.do("feeds-update", reason=WHY)
            (tmp_path / "egressd.yaml").write_text(CONFIG + f"feeds: {{c2: {{url: '{server.url}'}}}}\n")
            await fed.site.core.reload()
            assert fed.lists("fed1.example")  # from disk


@in_loop
async def test_a_scorecard(tmp_path: Path) -> None:
    async with serving() as server:
        server.answer = respond(GOOD + b"c2.listed.example\n")
        async with fed_at(tmp_path, server) as fed:
            await fed.update()
            index = fed.site.core.knowledge.intel.index
            only, both = index.match_name("c2.fed1.example", 1), index.match_name("c2.listed.example", 1)
            assert only is not None and both is not None
            assert fed.feeding._is_only(only.indicator) and not fed.feeding._is_only(both.indicator)
            fed.site.sees(sighting(A, "c2.fed1.example", found=only, count=3))
            fed.site.sees(sighting(A, "c2.listed.example", found=match("c2.listed.example")))  # a list's, no feed's
            fed.feeding.met(both._replace(indicator=both.indicator._replace(source="c2")), 4)
            (row,) = (await fed.do("feeds"))["feeds"]
            hits, unique = row["hits"], row["unique_hits"]
            assert unique >= 1 and hits == unique + 4
            fed.feeding.flush()
            await fed.site.core.scribe.settled()
            (row,) = (await fed.do("feeds"))["feeds"]
            assert (row["hits"], row["unique_hits"]) == (hits, unique)
            opened = fed.site.core.campaigns.incidents.values()
            (first, *_) = [one for one in opened if one.match.indicator.source == "c2"]
            answer = await fed.do("feeds-judge", incident=first.id, verdict="false-positive", reason=WHY)
            assert answer["text"] == f"{first.id} counts as false-positive for c2"
            (row,) = (await fed.do("feeds"))["feeds"]
            assert (row["false_positives"], row["confirmed"], row["state"]) == (1, 0, "ok")
            with pytest.raises(StoreError, match="no incident I99"):
                await fed.do("feeds-judge", incident="I99", verdict="confirmed", reason=WHY)
            acts = [(row["act"], row["object"]) for row in await fed.site.ledger.read(audit.rows, 9, "")]
            assert acts == [("judge", first.id), ("feeds-update", "c2")]


@in_loop
async def test_a_block_of_a_feeds_name_is_lifted_for_good_by_an_allowance(tmp_path: Path) -> None:
    """A person's own line gone would not do: the feed lists it too."""
    async with serving() as server:
        server.answer = respond(GOOD)
        async with fed_at(tmp_path, server) as fed:
            await fed.site.do("block", what="fed3.example")
            await fed.update()
            answer = await fed.site.do("unblock", what="fed3.example")
            assert any("may be reached" in line for line in answer["lines"]), answer
            assert fed.site.rules() == []


@in_loop
@pytest.mark.parametrize("how", ["its time is over", "taken back"])
async def test_what_an_allowance_kept_out_is_in_force_when_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A reload or a new version while it held leaves the line out: its block would not come back."""
    monkeypatch.setattr(feeding, "LOOK_S", 3_600)  # nobody else looks first, and is not done yet
    async with serving() as server:
        server.answer = respond(GOOD)
        hands = Hands()
        async with fed_at(tmp_path, server, hands=hands) as fed:
            await fed.update()
            await fed.site.do("allow", what="fed3.example", for_s=60)
            await fed.site.core.reload()
            await fed.feeding.look()
            assert not fed.lists("fed3.example") and fed.lists("fed4.example")
            if how == "taken back":
                await fed.site.do("undo")
            else:
                hands.pass_s(61)
                await fed.site.core.tick()
            assert not fed.lists("fed3.example")
            await fed.feeding.look()
            assert fed.lists("fed3.example")
            assert (await fed.do("feeds", feed="c2"))["quarantine"] == []


@in_loop
async def test_force_and_its_limits(tmp_path: Path) -> None:
    async with serving() as server:
        server.answer = respond(GOOD)
        async with fed_at(tmp_path, server) as fed:
            await fed.update()
            server.answer = respond(b"only.example\n")
            assert (await fed.update()).kind == "shrunk"
            with pytest.raises(Refused, match="name the feed"):
                await fed.do("feeds-update", force=True, reason=WHY)
            assert (await fed.update(force=True)).state == "ok"
            assert fed.lists("only.example") and not fed.lists("fed1.example")


def files_but(folder: Path, name: str) -> list[str]:
    return [one.read_bytes().decode("latin-1") for one in folder.rglob("*") if one.is_file() and one.name != name]


@in_loop
async def test_a_credential_is_in_no_answer_metric_log_audit_or_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """THREATS promise 31."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "key").chmod(0o600)
    seen: list[str] = []
    async with serving() as server:
        more = f"    credential: key\n  q:\n    url: '{server.url}?key={{credential}}'\n    credential: key\n"
        async with fed_at(tmp_path, server, more) as fed:
            for handler in (respond(GOOD), respond(b"", 403), respond(GOOD[:50], length=900), respond(b"x y\n" * 9)):
                server.answer = handler
                for name in ("c2", "q"):
                    await fed.update(name)
                    seen.append(json.dumps(await fed.do("feeds", feed=name)))
                seen += [json.dumps(await fed.do("feeds")), *fed.feeding.warnings()]
                states = fed.feeding.feeds.states.values()
                snapshot = Snapshot(
                    feed_failures={one.name: one.failures_total for one in states},
                    feed_last_success_s={one.name: one.last_ok_us / 1e6 for one in states},
                )
                seen.append(render(snapshot)[0].decode())
            await fed.site.core.scribe.settled()
            seen.append(json.dumps(await fed.site.ledger.read(audit.rows, 99, "")))
            seen += [repr(await fed.site.ledger.read(feeds.rows)), *map(repr, fed.site.ears.records)]
            seen.append(repr(load_config(tmp_path / "egressd.yaml")))
        assert any(SECRET in str(one.headers) for one in server.requests)
        assert any(SECRET in one.target for one in server.requests)
    seen += [one.getMessage() + str(one.exc_info) for one in caplog.records]
    seen += files_but(tmp_path, "key")
    assert len(seen) > 30
    assert [one[:200] for one in seen if SECRET in one] == []
