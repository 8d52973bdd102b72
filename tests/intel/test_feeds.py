"""Feeds from a real server on loopback that misbehaves in every way that THREATS promise 27 names, and some more."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.config.feed_options import FeedOptions
from egressd.intel.allowances import Allowances, parse_allowances
from egressd.intel.feeds import fetch
from egressd.intel.feeds.fetch import FeedError, Source, Validators, fetch_feed, open_session, redact, unpack
from egressd.intel.feeds.follow import load_credential
from egressd.intel.feeds.kept import KeptError, load_kept
from egressd.intel.feeds.schedule import SPREAD_S, first_delay_s, next_delay_s, spread
from egressd.intel.feeds.state import FAILING, OK, REFUSED
from tests.intel.feed_scene import GOOD, QUICK, SECRET, SUFFIXES, desk_at, options
from tests.intel.feed_server import (
    Handler,
    certificate,
    endless,
    head,
    respond,
    serving,
    silent,
    stall,
    versioned,
)
from tests.loops import in_loop


def bomb() -> bytes:
    return gzip.compress(b"a.bad.example\n" * 6_000_000, 9)


def zipped(*members: tuple[str, bytes], by: int = zipfile.ZIP_DEFLATED) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", by) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return raw.getvalue()


# -- the twelve kinds

BAD: Mapping[str, tuple[Handler, str, str]] = {
    "empty": (respond(b""), REFUSED, "empty"),
    "comments only": (respond(b"# nothing today\n"), REFUSED, "empty"),
    "404": (respond(b"c2.other.example\n", 404), FAILING, "status"),
    "HTML": (respond(b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"), REFUSED, "page"),
    "JSON error": (respond(b'{"error": "no such key"}\n'), REFUSED, "page"),
    "truncated by length": (respond(GOOD[:2_000], length=len(GOOD)), FAILING, "cut-off"),
    "truncated by text": (respond(GOOD[:-30]), REFUSED, "truncated"),
    "truncated gzip": (respond(gzip.compress(GOOD)[:-20]), FAILING, "cut-off"),
    "-50%": (respond(b"".join(GOOD.splitlines(True)[:100])), REFUSED, "shrunk"),
    "10x": (respond(b"".join(b"c2.new%d.example\n" % n for n in range(2_000))), REFUSED, "grown"),
    "allowlist hits": (respond(GOOD + b"".join(b"h%d.partner.com\n" % n for n in range(21))), REFUSED, "poisoned"),
    "top-N and shared hits": (
        respond(GOOD + b"".join(b"%s\n" % one for one in (b"popular.com", b"www.popular.com", b"shared.com"))
                + b"".join(b"10.0.0.%d\n" % n for n in range(20))), REFUSED, "poisoned",
    ),
    ">64 MB": (respond(b"", length=(64 << 20) + 1), FAILING, "too-large"),
    ">64 MB without saying so": (endless, FAILING, "too-large"),
    "gzip bomb": (respond(bomb()), FAILING, "bomb"),
    "gzip bomb on the way": (respond(bomb(), Content_Encoding="gzip"), FAILING, "bomb"),
    "stalled": (stall, FAILING, "stalled"),
    "silent": (silent, FAILING, "stalled"),
    "bad lines": (respond(GOOD + b"not a name!\n" * 3), REFUSED, "unreadable"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
@in_loop
async def test_a_bad_version_is_refused_and_the_last_good_one_outlives_a_restart(tmp_path: Path, kind: str) -> None:
    handler, state, word = BAD[kind]
    async with serving() as server:
        feed = options(server)
        server.answer = versioned(GOOD, '"1"')
        async with desk_at(tmp_path, c2=feed) as desk:
            await desk.ask()
            good = desk.values()
            assert len(good) == 200 and desk.versions == ["c2"]
            server.answer = handler
            found = await desk.ask()
            assert (found.state, found.kind) == (state, word), found.problem
            assert desk.values() == good and desk.versions == ["c2"]
            assert found.is_alarming and "200 indicators of before stay in force" in found.told()
            assert desk.told[-1] == ("c2", found.told())
        async with desk_at(tmp_path, c2=feed) as again:
            assert again.values() == good
            found = await again.ask()
            assert (found.state, found.kind) == (state, word)
            assert again.values() == good
            server.answer = versioned(GOOD, '"1"')
            found = await again.ask()
            assert (found.state, found.told(), found.failures) == (OK, "", 0)
            assert server.requests[-1].headers["if-none-match"] == '"1"'


@in_loop
async def test_bad_tls_is_refused_and_a_named_authority_is_trusted(tmp_path: Path) -> None:
    async with serving(certificate(tmp_path)) as server:
        server.answer = respond(GOOD)
        async with desk_at(tmp_path, c2=options(server), ours=options(server, ca_file="cert.pem")) as desk:
            found = await desk.ask()
            assert (found.state, found.kind) == (FAILING, "tls") and "certificate" in found.problem
            assert server.requests == [] and desk.values() == []
            assert (await desk.ask("ours")).state == OK
            assert len(desk.values("ours")) == 200


@in_loop
async def test_one_hit_is_quarantined_told_and_out_of_force(tmp_path: Path) -> None:
    """The line is refused, not the feed; with quarantine_most 0 the feed is."""
    async with serving() as server:
        lines = [b"partner.com", b"popular.com", b"10.1.2.3", b"co.example", b"127.0.0.0/8", b"vpn.partner.com"]
        server.answer = respond(GOOD + b"\n".join(lines) + b"\n")
        async with desk_at(tmp_path, c2=options(server), strict=options(server, quarantine_most=0)) as desk:
            found = await desk.ask()
            assert (found.state, found.poisoned, found.size) == (OK, 6, 200)
            assert [(one.line, one.value, one.kind) for one in found.quarantined] == [
                (201, "partner.com", "allowed"), (202, "popular.com", "shared"), (203, "10.1.2.3", "protected"),
                (204, "co.example", "suffix"), (205, "127.0.0.0/8", "protected"), (206, "vpn.partner.com", "allowed"),
            ]  # fmt: skip
            assert "allow.txt:1" in found.quarantined[0].reason
            assert found.is_alarming and "6 lines are quarantined" in found.told()
            strict = await desk.ask("strict")
            assert (strict.state, strict.kind, strict.size) == (REFUSED, "poisoned", 0)
            assert len(strict.quarantined) == 6  # shown, so that somebody can see why


@in_loop
async def test_what_is_told_of_lines_adds_up(tmp_path: Path) -> None:
    """The alarm had 11 lines and the screen under it 12: one was kept out for nobody can read it."""
    async with serving() as server, desk_at(tmp_path, c2=options(server)) as desk:
        lines = b"".join(b"10.1.2.%d\n" % number for number in range(11))
        server.answer = respond(GOOD + lines + b"bad..name\nc2.last.example\n")
        found = await desk.ask()
        assert (found.poisoned, found.bad_lines, len(found.quarantined)) == (11, 1, 12)
        assert found.told() == "11 lines are quarantined and 1 cannot be read (egressd feeds quarantine c2)"


@in_loop
async def test_what_was_refused_can_be_forced_but_its_poison_is_kept_out(tmp_path: Path) -> None:
    async with serving() as server, desk_at(tmp_path, c2=options(server)) as desk:
        server.answer = respond(GOOD)
        await desk.ask()
        server.answer = respond(
            b"".join(GOOD.splitlines(True)[:10]) + b"c2.only.example\nc2.two.example\npopular.com\n"
        )
        assert (await desk.ask()).kind == "shrunk"
        found = await desk.ask(force=True)
        assert (found.state, found.poisoned) == (OK, 1)
        assert "popular.com" not in desk.values() and "c2.only.example" in desk.values()
        assert (found.added, found.removed) == (2, 190)


# -- asking


@in_loop
async def test_conditional_requests(tmp_path: Path) -> None:
    async with serving() as server:
        server.answer = versioned(GOOD, '"v1"')
        async with desk_at(tmp_path, c2=options(server)) as desk:
            first = await desk.ask()
            fetched_us = first.changed_us
            desk.clock.us += 60_000_000
            again = await desk.ask()
            assert (again.changed_us, again.last_ok_us) == (fetched_us, fetched_us + 60_000_000)
            assert desk.versions == ["c2"]
        kept = load_kept(tmp_path / "feeds", "c2")
        assert kept is not None and (kept.fetched_us, kept.confirmed_us) == (fetched_us, fetched_us + 60_000_000)
        moved = FeedOptions(url=server.url + "?other")
        async with desk_at(tmp_path, c2=moved) as other:
            assert len(other.values()) == 200  # blocking goes on
            await other.ask()
            assert "if-none-match" not in server.requests[-1].headers  # another address: its ETags say nothing
        async with desk_at(tmp_path, c2=options(server, format="hosts")) as strange:
            assert strange.values() == []


@in_loop
async def test_packed_versions_are_unpacked(tmp_path: Path) -> None:
    async with serving() as server, desk_at(tmp_path, c2=options(server)) as desk:
        for body, more in (
            (gzip.compress(GOOD), {}),
            (gzip.compress(GOOD[:1_000]) + gzip.compress(GOOD[1_000:]), {}),
            (gzip.compress(gzip.compress(GOOD)), {"Content_Encoding": "gzip"}),
            (zipped(("list.txt", GOOD)), {}),
            (zipped(("README.md", b"hello"), ("list.csv", GOOD)), {}),
        ):
            server.answer = respond(b"c2.x.example\n" + GOOD)
            await desk.ask()
            server.answer = respond(body, **more)
            assert (await desk.ask()).state == OK
            assert len(desk.values()) == 200


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (zipped(("a.txt", b"a"), ("b.txt", b"b")), "packed"),
        (zipped(), "not-text"),
        (zipped(("a.txt", GOOD))[:-30], "packed"),
        (b"PK\x03\x04" + b"\xff" * 100, "packed"),
        (zipped(("a.txt", GOOD), by=zipfile.ZIP_LZMA).replace(b"\x5d\0\0\x80\0\0", b"\x5d\0\0\x80\0\xff"), "packed"),
        (zipped(("a.txt", GOOD), by=zipfile.ZIP_BZIP2).replace(b"BZh91AY", b"BZh91AX"), "packed"),
        (zipped(("a.txt", b"\n" * 3_000_000)), "bomb"),
        (gzip.compress(b"\n" * 3_000_000), "bomb"),
        (gzip.compress(gzip.compress(gzip.compress(GOOD))), "packed"),
        (gzip.compress(GOOD) + b"<html>", "packed"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 50, "packed"),
        (b"\x1f\x8b", "cut-off"),
        (b"\xff\xfea\0", "not-text"),
        (b"a\0b", "not-text"),
    ],
)
def test_what_cannot_be_unpacked(raw: bytes, kind: str) -> None:
    with pytest.raises(FeedError) as error:
        unpack(raw, 2_000_000)
    assert error.value.kind == kind


def test_a_zip_file_of_very_many_files_is_not_listed() -> None:
    """A directory of 64 MB made 1.4 million objects, which took ten seconds and half a gigabyte of the daemon's."""
    members = [(f"{number}.md", b"") for number in range(1_000)]
    with pytest.raises(FeedError, match="more than 1,000 files"):
        unpack(zipped(*members, ("list.txt", GOOD)), 1 << 20)
    assert unpack(zipped(*members[:900], ("list.txt", GOOD)), 1 << 20) == GOOD


def test_a_gzip_file_of_many_members_costs_what_it_is_long() -> None:
    """4 MB of members with nothing in them took 11 s, and 64 MB most of an hour."""
    raw = gzip.compress(b"", mtime=0) * 200_000 + gzip.compress(GOOD)
    began_s = time.process_time()
    assert unpack(raw, 10_000) == GOOD
    assert time.process_time() - began_s < 3


STARTS = [b"", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"PK\x03\x04"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(STARTS), st.integers(0, 200))
def test_whatever_comes_only_the_declared_error_leaves(raw: bytes, start: bytes, cut: int) -> None:
    for one in (start + raw, gzip.compress(raw, mtime=0)[:cut], zipped(("a.txt", raw))[:cut], zipped(("a", raw)) + raw):
        try:
            assert len(unpack(one, 10_000)) <= 10_000
        except FeedError as error:
            assert error.kind in fetch.KINDS and error.text.isprintable()


@in_loop
async def test_redirects(tmp_path: Path) -> None:
    async with serving() as server, serving() as other:
        other.answer = respond(GOOD)
        places = {
            "/feed.txt": f"http://127.0.0.1:{other.port}/x", "/loop": "/loop", "/nowhere": "", "/odd": "ftp://h/x",
        }  # fmt: skip

        async def answer(request: Any, writer: asyncio.StreamWriter) -> None:
            writer.write(head(302, 0, Location=places[request.target]))
            await writer.drain()

        server.answer = answer
        source = Source(server.url, "X-Key", SECRET, 1 << 20, QUICK)
        async with open_session() as session:
            found = await fetch_feed(session, source)
            assert found is not None and found.body == GOOD
            assert server.requests[0].headers["x-key"] == SECRET
            assert SECRET not in str(other.requests[0].headers)  # it is for the first host only
            for path in ("/loop", "/nowhere", "/odd"):
                with pytest.raises(FeedError) as error:
                    await fetch_feed(session, source._replace(url=server.url.replace("/feed.txt", path)))
                assert error.value.kind == "redirect"
    async with serving(certificate(tmp_path)) as safe:
        safe.answer = respond(b"", 301, Location="http://127.0.0.1/x")
        source = Source(safe.url, "X-Key", "", 1 << 20, QUICK, fetch.trust(str(tmp_path / "cert.pem")))
        async with open_session() as session:
            with pytest.raises(FeedError, match="from https to http"):
                await fetch_feed(session, source)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"220 mail.example ESMTP\r\n", "protocol"), (b"", "cut-off"), (head(304, 0), "status"),
        (head(200, 3, Content_Encoding="br") + b"abc", "packed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde", "cut-off"),
    ],
)  # fmt: skip
@in_loop
async def test_what_is_no_answer(raw: bytes, kind: str) -> None:
    async with serving() as server:

        async def answer(request: Any, writer: asyncio.StreamWriter) -> None:
            writer.write(raw)
            await writer.drain()

        server.answer = answer
        async with open_session() as session:
            with pytest.raises(FeedError) as error:
                await fetch_feed(session, Source(server.url, "X-Key", "", 1 << 20, QUICK))
            assert error.value.kind == kind


@in_loop
async def test_nobody_there_and_retry_after(tmp_path: Path) -> None:
    async with serving() as server:
        gone = options(server)
        server.answer = respond(b"", 429, Retry_After="7200")
        async with desk_at(tmp_path, c2=gone) as desk:
            found = await desk.ask()
            assert (found.kind, found.retry_after_s) == ("status", 7_200)
    async with desk_at(tmp_path, c2=gone) as desk:
        found = await desk.ask()
        assert (found.kind, found.failures, found.failures_total) == ("unreachable", 1, 1)
        await desk.ask()
        assert (found.failures, found.failures_total, desk.feeds.states["c2"].last_ok_us) == (2, 2, 0)


# -- secrets


@in_loop
async def test_a_credential_is_told_to_the_server_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """THREATS promise 31, for every way that a version can fail."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    key = tmp_path / "key"
    key.write_text(SECRET + "\n")
    key.chmod(0o600)
    seen: list[str] = []
    async with serving() as server:
        header = options(server, credential="key", header="Auth-Key")
        placed = FeedOptions(url=server.url + "?auth-key={credential}", credential="key")
        async with desk_at(tmp_path, c2=header, placed=placed) as desk:
            for handler in (respond(GOOD), *(one for one, _, _ in BAD.values())):
                server.answer = handler
                for name in ("c2", "placed"):
                    state = await desk.ask(name)
                    seen += [repr(vars(state)), state.told()]
            server.answer = respond(GOOD + SECRET.encode() + b"\n")  # it may even say it to us
            for name in ("c2", "placed"):
                state = await desk.ask(name)
                assert state.kind == "credential"
                seen += [repr(vars(state)), state.told()]
            seen += [repr(one) for one in desk.told]
        assert all(
            one.headers.get("auth-key") == SECRET or one.target.endswith(f"?auth-key={SECRET}")
            for one in server.requests
        )
    async with desk_at(tmp_path, placed=placed) as desk:  # nobody there: messages of the library name the address
        seen.append((await desk.ask("placed")).told())
    seen += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    seen += [repr(Source(placed.url, "Auth-Key", SECRET, 1)), str(Source(placed.url, "Auth-Key", SECRET, 1))]
    seen += [path.read_bytes().decode("latin-1") for path in (tmp_path / "feeds").rglob("*") if path.is_file()]
    assert len(seen) > 80
    assert [one for one in seen if SECRET in one] == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://feeds.example/a.txt?key=s3cret", "https://feeds.example/a.txt?..."),
        ("https://u:p@feeds.example:8443/a", "https://feeds.example:8443/a"),
        ("https://feeds.example/{credential}/a", "https://feeds.example/{credential}/a"),
    ],
)
def test_addresses_are_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0o600, "cannot be read"), (b"", 0o600, "one line"), (b"a\nb", 0o600, "one line"),
        (b"a" * 5_000, 0o600, "one line"), ("schlüssel".encode(), 0o600, "one line"), (b"key", 0o604, "everybody"),
    ],
)  # fmt: skip
def test_a_credential_that_cannot_be_used(tmp_path: Path, content: bytes | None, mode: int, why: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
        (tmp_path / "key").chmod(mode)
    with pytest.raises(FeedError, match=why) as error:
        load_credential("key", tmp_path)
    assert error.value.kind == "credential"


def test_credentials_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(b"abc\n")
    (tmp_path / "key").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_credential("${CREDENTIALS_DIRECTORY}/key", Path("/nowhere")) == "abc"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(FeedError, match="LoadCredential"):
        load_credential("${CREDENTIALS_DIRECTORY}/key", tmp_path)


# -- on disk


@pytest.mark.parametrize("damage", ["", "junk", "cut", "flip", "version", "head"])
@in_loop
async def test_a_damaged_copy_is_told_and_fetched_anew(tmp_path: Path, damage: str) -> None:
    async with serving() as server:
        server.answer = versioned(GOOD, '"1"')
        async with desk_at(tmp_path, c2=options(server)) as desk:
            await desk.ask()
        path = tmp_path / "feeds" / "c2.feed"
        raw = path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_bytes(
            {
                "": b"", "junk": b"\xff\x00", "cut": raw[:-1], "flip": raw[:-2] + b"X\n",
                "version": raw.replace(b'"version":2', b'"version":9'), "head": raw.replace(b'"bytes":', b'"byte":'),
            }[damage]
        )  # fmt: skip
        with pytest.raises(KeptError):
            load_kept(tmp_path / "feeds", "c2")
        async with desk_at(tmp_path, c2=options(server)) as again:
            state = again.feeds.states["c2"]
            assert again.values() == [] and "kept version" in state.told()
            await again.ask()
            assert len(again.values()) == 200 and state.told() == ""
        assert load_kept(tmp_path / "feeds", "c2") is not None


@in_loop
async def test_a_version_that_cannot_be_kept_leaves_the_one_before_in_force(tmp_path: Path) -> None:
    async with serving() as server:
        server.answer = respond(GOOD)
        async with desk_at(tmp_path, c2=options(server)) as desk:
            assert (await desk.ask()).size == 200
            (tmp_path / "feeds").rename(tmp_path / "away")
            (tmp_path / "feeds").write_text("no folder")
            server.answer = respond(GOOD + b"c2.more.example\n")
            found = await desk.ask()
            assert (found.state, found.kind, len(desk.values())) == (FAILING, "disk", 200)
            assert found.is_alarming and "cannot be kept on disk" in found.told()
            await desk.feeds.configure({"c2": options(server)})  # a reload does not take it out of force
            assert len(desk.values()) == 200
            (tmp_path / "feeds").unlink()
            (tmp_path / "away").rename(tmp_path / "feeds")
            found = await desk.ask()
            assert (found.state, found.trouble, found.size) == (OK, "", 201)


@in_loop
async def test_other_options_take_nothing_out_of_force_while_the_disk_fails(tmp_path: Path) -> None:
    """Who set another interval then had all that the feed blocks given free until it answered again."""
    async with serving() as server:
        server.answer = respond(GOOD + b"partner.com\n")
        async with desk_at(tmp_path, c2=options(server)) as desk:
            assert (await desk.ask()).size == 200
            (tmp_path / "feeds" / "c2.feed").write_bytes(b"junk")
            await desk.feeds.configure({"c2": options(server, every_s=86_400)})
            state = desk.feeds.states["c2"]
            assert (len(desk.values()), state.poisoned, state.options.every_s) == (200, 1, 86_400)
            assert "kept version is damaged" in state.told()
            await desk.feeds.configure({"c2": options(server, every_s=86_400)})
            assert len(desk.values()) == 200
            server.answer = respond(b"".join(GOOD.splitlines(keepends=True)[:50]))
            found = await desk.ask()
            assert (found.kind, len(desk.values())) == ("shrunk", 200), "it is what a new version is measured by"
            await desk.feeds.configure({"c2": options(server, format="hosts")})
            assert desk.values() == [], "of another format it says nothing"


@in_loop
async def test_a_fault_of_ours_stops_one_attempt_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError(SECRET)

    async with serving() as server:
        server.answer = respond(GOOD)
        async with desk_at(tmp_path, c2=options(server)) as desk:
            with monkeypatch.context() as patch:
                patch.setattr(desk.feeds, "_judge", broken)
                found = await desk.ask()
                assert (found.state, found.kind, found.failures) == (FAILING, "fault", 1)
            assert "IndexError at test_feeds.py" in caplog.text and SECRET not in caplog.text
            assert (await desk.ask()).state == OK


@in_loop
async def test_other_rules_sift_what_is_in_force_and_other_feeds_come_and_go(tmp_path: Path) -> None:
    async with serving() as server:
        server.answer = respond(GOOD)
        feed = options(server)
        async with desk_at(tmp_path, c2=feed) as desk:
            await desk.ask()
            more, _ = parse_allowances("never-block bad7.example owner=o reason=ours", "allow.txt", SUFFIXES)
            desk.allowances = Allowances(more)
            await desk.feeds.configure({"c2": feed, "new": options(server)})
            state = desk.feeds.states["c2"]
            assert (len(desk.values()), state.poisoned, state.quarantined[0].kind) == (199, 1, "allowed")
            ignored, _ = parse_allowances("ignore-indicator c2.bad7.example owner=o reason=known", "a", SUFFIXES)
            desk.allowances = Allowances([*more, *ignored])
            await desk.feeds.configure({"c2": feed, "new": options(server)})
            assert (len(desk.values()), state.poisoned, state.ignored) == (199, 0, 1)
            assert (await desk.ask("new")).state == OK
            await desk.feeds.configure({"new": options(server, enabled=False)})
            assert desk.feeds.states == {}
            await desk.feeds.configure({"new": options(server)})
            assert len(desk.values("new")) == 199  # from disk


# -- time


@pytest.mark.parametrize("name", ["a", "urlhaus", "c2"])
def test_schedule(name: str) -> None:
    assert 0 <= spread(name) < 1 and spread(name) == spread(name)
    assert 0 <= first_delay_s(name, 3_600, None) < SPREAD_S  # an alarm comes within 60 s of a start
    assert first_delay_s(name, 3_600, 600) == 3_000
    assert 0 <= first_delay_s(name, 3_600, 1e9) < SPREAD_S
    assert first_delay_s(name, 3_600, -1e9) == 3_600  # kept in the future: the clock was set back
    assert 3_600 <= next_delay_s(name, 3_600, 0) <= 3_960
    delays = [next_delay_s(name, 3_600, failures) for failures in range(1, 12)]
    assert delays == sorted(delays) and 60 <= delays[0] <= 66 and delays[-1] <= 3_960
    assert next_delay_s(name, 3_600, 1, 7_200) == 7_200
    assert next_delay_s(name, 0.0, 0) >= 5


def test_names_are_spread() -> None:
    assert len({round(spread(f"feed-{number}"), 2) for number in range(100)}) > 50


def test_validators_are_bounded() -> None:
    assert fetch._printable("x" * 600) == fetch._printable("a\x1b") == ""
    assert Validators() == ("", "")
