"""Feeds that take several requests: a MISP feed (its manifest, then events) and a TAXII 2.1 collection (page by page).

Every request is one of `fetch`, with all its limits; here is what bounds them together. What they bring becomes one
text, which is judged and kept as that of any other feed. Which feeds these are is told by format and address alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit, urlunsplit

from egressd.config.feed_options import FeedOptions
from egressd.intel.feeds.fetch import (
    ANSWER,
    BOMB,
    NOT_TEXT,
    PACKED,
    STALLED,
    STATUS,
    TOO_LARGE,
    FeedError,
    Fetched,
    Source,
    Validators,
    fetch_feed,
    larger_than,
)
from egressd.intel.feeds.gathered import (
    BundleHead,
    Event,
    is_closed,
    merge_objects,
    parse_bundle_head,
    parse_events,
    render_bundle,
    render_event,
)
from egressd.intel.feeds.reading import decode
from egressd.intel.formats.misp import BAD_ENTRY, ManifestEntry, parse_manifest
from egressd.intel.formats.stix import StixObject, parse_page
from egressd.plural import count

if TYPE_CHECKING:
    from aiohttp import ClientSession

EVENTS: Final = "events"
PAGES: Final = "pages"

MAX_EVENTS: Final = 500  # that one update asks for: of a feed of thousands a day brings a few
MAX_PAGES: Final = 1_000
LONGER: Final = 5  # times what one request may take, for all of an update
SHARE: Final = 4  # one event may take a fourth of max_mib: one alone cannot take the place of all others
MAX_PART_BYTES: Final = 16 << 20  # of what is looked into here, not in the child: a manifest, a page
MISSING_SHARE: Final = 10  # one event in ten may be gone: more, and it is the feed that is broken
WHOLE_S: Final = 86_400  # a collection is asked for whole so often: what was deleted there is never told otherwise
LIMIT: Final = 500  # objects a page; servers hand out fewer if they want
TAXII: Final = "application/taxii+json;version=2.1"

_COLLECTION: Final = re.compile(r".*/collections/[^/]+/objects/?")
_MANIFEST: Final = "manifest.json"
_GONE: Final = (404, 410)
_UNUSABLE: Final = (TOO_LARGE, BOMB, NOT_TEXT, PACKED)

Before = Callable[[], bytes]  # the text of the version in force, b"" when there is none; waits for the disk


def collected_as(feed: FeedOptions) -> str:
    """EVENTS for `misp` whose path is a folder or a manifest, PAGES for `stix` at the objects of a collection, "" for
    what takes one request."""
    path = urlsplit(feed.url).path
    if feed.format == "misp" and (not path or path.endswith(("/", f"/{_MANIFEST}"))):
        return EVENTS
    if feed.format == "stix" and _COLLECTION.fullmatch(path) is not None:
        return PAGES
    return ""


async def collect(
    session: ClientSession, source: Source, kind: str, known: Validators, before: Before, now_s: int
) -> Fetched | None:
    """The version of now, made of what is new and of the version in force; None when there is nothing new. `kind` is
    what `collected_as` says, `known` belongs to the manifest or to a collection of one page. Raises FeedError."""
    limit_s = source.times.total_s * LONGER
    try:
        async with asyncio.timeout(limit_s):
            if kind == EVENTS:
                return await _collect_events(session, source, known, before)
            return await _collect_pages(session, source, known, before, now_s)
    except TimeoutError:
        raise FeedError(STALLED, f"not all of it within {limit_s:g} s") from None


# -- a MISP feed


async def _collect_events(session: ClientSession, source: Source, known: Validators, before: Before) -> Fetched | None:
    manifest = await _fetch_part(session, source._replace(url=_beside(source.url, _MANIFEST)), known, "its manifest")
    if manifest is None:
        return None
    entries, unread = await asyncio.to_thread(_entries, manifest.body)
    standing = await asyncio.to_thread(lambda: parse_events(before()))
    gathering = _Gathering(session, source, standing)
    for entry in entries:
        await gathering.add(entry)
    if gathering.gone > max(1, len(entries) // MISSING_SHARE):
        raise FeedError(
            STATUS, f"{gathering.gone:,} of its {len(entries):,} events are not there, as its manifest says"
        )
    validators = Validators() if gathering.is_worth_asking else manifest.validators
    wire_bytes = manifest.wire_bytes + gathering.wire_bytes
    return Fetched(b"".join(gathering.lines), validators, wire_bytes, short=gathering.told(unread))


async def _fetch_part(session: ClientSession, source: Source, known: Validators, what: str) -> Fetched | None:
    """`fetch_feed` for what is looked into here. Raises FeedError."""
    try:
        return await fetch_feed(session, source._replace(max_bytes=min(source.max_bytes, MAX_PART_BYTES)), known)
    except FeedError as error:
        if error.kind not in (TOO_LARGE, BOMB) or source.max_bytes <= MAX_PART_BYTES:
            raise
        raise FeedError(error.kind, f"{what} is larger than {MAX_PART_BYTES >> 20} MiB") from None


def _beside(url: str, name: str) -> str:
    """The address of a file in the feed's folder. What follows a ? goes along: there may be a key in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rpartition('/')[0]}/{name}"))


def _entries(manifest: bytes) -> tuple[list[ManifestEntry], int]:
    """What the manifest names, the newest first, and how many of its entries cannot be read. Raises FeedError."""
    found, problems = parse_manifest(decode(manifest))
    if any(not one.what.startswith(BAD_ENTRY) for one in problems):
        raise FeedError(ANSWER, "what is at manifest.json is no manifest, or is cut off")
    most = max(1, len(found) // MISSING_SHARE) if found else 0
    if len(problems) > most:
        wrong = count(len(problems), "entry of its manifest is", "entries of its manifest are")
        raise FeedError(ANSWER, f"{wrong} not a uuid with a timestamp")
    latest: dict[str, ManifestEntry] = {}
    for one in found:
        there = latest.get(one.uuid)
        if there is None or one.timestamp_s > there.timestamp_s:
            latest[one.uuid] = one
    return sorted(latest.values(), key=lambda one: (-one.timestamp_s, one.uuid)), len(problems)


class _Gathering:
    """Lines of events, as many as fit, and why others are not among them."""

    def __init__(self, session: ClientSession, source: Source, standing: dict[str, Event]) -> None:
        self.lines: list[bytes] = []
        self.wire_bytes = 0
        self.gone = 0
        self._session = session
        self._source = source
        self._standing = standing
        self._room = source.max_bytes  # for what is kept
        self._allowance = source.max_bytes  # for what comes over the net
        self._asked = 0
        self._late = 0
        self._unusable = 0
        self._left_out: set[str] = set()
        # The manifest before it and the last request after it have their time, too.
        self._until = asyncio.get_running_loop().time() + source.times.total_s * (LONGER - 2)

    @property
    def is_worth_asking(self) -> bool:
        """Whether the same manifest might bring more the next time: in time, or with a larger max_mib."""
        return bool(self.gone or self._late or self._left_out or self._unusable)

    async def add(self, entry: ManifestEntry) -> None:
        """Take the event as it is in force if that is its last version, else ask for it. Raises FeedError."""
        there = self._standing.get(entry.uuid)
        if there is not None and there.timestamp_s == entry.timestamp_s:
            line = there.line
        else:
            line = await self._ask(entry) or (there.line if there is not None else b"")
        if len(line) > self._room:
            self._left_out.add(entry.uuid)
        elif line:
            self.lines.append(line)
            self._room -= len(line)

    async def _ask(self, entry: ManifestEntry) -> bytes:
        """The line of an event, b"" when it is not to be had now. Raises FeedError when none may be asked for."""
        share = self._source.max_bytes // SHARE
        most = min(share, self._room, self._allowance)
        if most <= 0:
            self._left_out.add(entry.uuid)
            return b""
        if self._asked >= MAX_EVENTS or (self._asked and asyncio.get_running_loop().time() > self._until):
            self._late += 1
            return b""
        self._asked += 1
        try:
            url = _beside(self._source.url, f"{entry.uuid}.json")
            got = await fetch_feed(self._session, self._source._replace(url=url, max_bytes=most))
        except FeedError as error:
            if error.status in _GONE:
                self.gone += 1
            elif error.kind in (TOO_LARGE, BOMB) and most < share:
                self._left_out.add(entry.uuid)
                self._allowance = 0
            elif error.kind in _UNUSABLE:
                self._unusable += 1
                self._allowance -= most  # so much may have come
            else:
                raise
            return b""
        if got is None:  # nothing was asked that could be answered so
            raise FeedError(ANSWER, "an event that was not asked for before is not modified")
        self._allowance -= got.wire_bytes
        self.wire_bytes += got.wire_bytes
        if not is_closed(got.body):
            self._unusable += 1
            return b""
        return render_event(entry.uuid, entry.timestamp_s, got.body)

    def told(self, unread: int) -> str:
        """What is not among the lines, for people; "" when all is."""
        parts = (
            (self._late, "still to come: so many are asked for at once, the newest first"),
            (len(self._left_out), "left out, the oldest: with them it is more than max_mib"),
            (self._unusable, "left out: each is larger than a fourth of max_mib, or no event"),
            (self.gone, "not where its manifest says"),
            (unread, "without a right uuid or timestamp in its manifest"),
        )
        return "; ".join(
            f"{count(many, 'of its events is', 'of its events are')} {what}" for many, what in parts if many
        )


# -- a TAXII collection


async def _collect_pages(
    session: ClientSession, source: Source, known: Validators, before: Before, now_s: int
) -> Fetched | None:
    text = await asyncio.to_thread(before)
    head = parse_bundle_head(text)
    is_young = head is not None and 0 <= now_s - head.collected_s < WHOLE_S
    if head is None or not head.added_after or not is_young or known != Validators():
        head = BundleHead(now_s, "")  # all of it
    adds = bool(head.added_after)
    pages = _Pages(session, source, head.added_after)
    if not await pages.ask(Validators() if adds else known):
        return None
    while pages.more:
        await pages.ask(Validators())
    if adds and not pages.objects:
        return None
    head = BundleHead(head.collected_s, pages.added_last)
    body = await asyncio.to_thread(render_bundle, head, pages.objects, text if adds else b"")
    if len(body) > source.max_bytes:
        raise FeedError(TOO_LARGE, larger_than(source.max_bytes))
    # Objects come in the order in which they were added: that a first page of several has not changed says nothing.
    validators = pages.validators if pages.count == 1 and not adds else Validators()
    return Fetched(body, validators, pages.wire_bytes)


class _Pages:
    """Objects of a collection, page by page."""

    def __init__(self, session: ClientSession, source: Source, added_after: str) -> None:
        self.objects: dict[str, StixObject] = {}
        self.validators = Validators()  # of the first one
        self.wire_bytes = 0
        self.count = 0
        self.more = False
        self.added_last = added_after
        self._after = added_after  # what is asked for, and
        self._next = ""  # the server's word for where in it
        self._seen: set[str] = set()
        self._session = session
        self._source = source
        self._room = source.max_bytes

    async def ask(self, known: Validators) -> bool:
        """Ask for the next page; False when it is the one that `known` tells of. Raises FeedError."""
        if self.count == MAX_PAGES:
            raise FeedError(TOO_LARGE, f"more than {MAX_PAGES:,} pages")
        url = _page_url(self._source.url, self._after, self._next)
        if self._room <= 0:
            raise FeedError(TOO_LARGE, larger_than(self._source.max_bytes))
        got = await _fetch_part(self._session, self._source._replace(url=url, accept=TAXII), known, "a page of it")
        if got is None:
            return False
        self._room -= len(got.body)
        page = await asyncio.to_thread(parse_page, decode(got.body))
        if not page.is_whole:
            raise FeedError(ANSWER, "what answers is no page of a TAXII 2.1 collection, or one that is cut off")
        merge_objects(self.objects, page.objects)
        self.count += 1
        self.validators = got.validators
        self.wire_bytes += got.wire_bytes
        self.added_last = max(self.added_last, got.added_last)
        self.more = page.more
        if page.more:
            self._turn(page.next)
        return True

    def _turn(self, following: str) -> None:
        """To the next page: by the server's word for it or, without one, by time (TAXII 2.1 section 3.5). Raises
        FeedError when that leads nowhere."""
        if following and following not in self._seen:
            self._seen.add(following)
            self._next = following
        elif not following and self.added_last > self._after:
            self._after, self._next = self.added_last, ""
        else:
            raise FeedError(ANSWER, "the server says that there is more, and points to what it has given already")


def _page_url(url: str, added_after: str, following: str) -> str:
    """The feed's address with what TAXII asks with; what was written there stays, but for what is ours to say."""
    ours = {"added_after": added_after, "next": following}
    parts = urlsplit(url)
    written = [one for one in parts.query.split("&") if one and not ours.get(one.partition("=")[0])]
    if not any(one.startswith("limit=") for one in written):
        written.append(f"limit={LIMIT}")
    # Quoted, no brace is left: a server cannot have the credential put where it likes.
    written += [f"{name}={quote(value, safe='')}" for name, value in ours.items() if value]
    return urlunsplit(parts._replace(query="&".join(written)))
