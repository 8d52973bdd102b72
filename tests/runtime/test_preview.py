"""What a change would do is told before it is made, in numbers that a direct count confirms."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.runtime import screens
from egressd.runtime.preview import Effect, Preview, told
from egressd.runtime.verbs import Verbs
from egressd.store.history import Contact, History, Tenant
from egressd.units import DAY_US
from tests.detect.scene import packed
from tests.loops import in_loop
from tests.runtime.core_scene import CONFIG, Site, site_at
from tests.runtime.scene import HOUR, NO_HISTORY, T0, A, B, C, X, Y, about, attempt, match, sighting, verdict

LISTED = match("c2.listed.example")


def contact(client: bytes, name: str, address: bytes = X, hours_ago: int = 1, count: int = 1) -> Contact:
    domain = ".".join(name.split(".")[-2:]) if name else ""
    at = T0 - hours_ago * HOUR
    return Contact(client, domain, name, address, at, at + 5, count)


@asynccontextmanager
async def previewing(
    folder: Path, *rows: Contact, tenants: tuple[Tenant, ...] = (), config: str = CONFIG
) -> AsyncIterator[tuple[Site, Preview]]:
    async with site_at(folder, config=config) as site:
        history = History(folder / "history.db", reserve_bytes=0)
        assert history.open(T0) == []
        try:
            await history.record(rows, tenants)
            yield site, Preview(site.core, history)
        finally:
            history.close()


@in_loop
async def test_the_numbers_of_a_name(tmp_path: Path) -> None:
    rows = (
        contact(A, "www.bad.example", X, 700, 7), contact(B, "bad.example", b"", 5, 2), contact(A, "x.bad.example", Y),
        contact(C, "fine.example", Y), contact(C, "notbad.example", X), contact(C, "old.bad.example", X, 24 * 40, 9),
    )  # fmt: skip
    tenants = tuple(Tenant(name, X, T0 - HOUR, T0 - HOUR, 1) for name in ("bad.example", "a.example", "b.example"))
    async with previewing(tmp_path, *rows, tenants=tenants) as (_, preview):
        effect, problems = await preview.of_lines(["+c2.bad.example threat=x"])
        assert problems == []
        assert (effect.hosts, effect.hosts_seen, effect.contacts) == (2, 3, 10)
        assert (effect.first_us, effect.last_us) == (T0 - 700 * HOUR, T0 - HOUR + 5)
        assert effect.shared == ["a.example", "b.example"]
        assert effect.top[0] == ("10.0.0.5", "www.bad.example", 8)
        text = effect.sentence()
        assert text == "2 of 3 hosts, 10 contacts in 30 days, first 2023-10-16; shared with 2 names"
        narrow, _ = await preview.of_lines(["+*.bad.example", "+fine.example scope=exact"])
        assert (narrow.hosts, narrow.contacts) == (3, 11)
        assert told(effect, problems)["top"][0]["contacts"] == 8


@in_loop
async def test_what_was_contacted_a_moment_ago_counts(tmp_path: Path) -> None:
    """History goes to disk every few seconds; a person who looks at a log acts faster."""
    async with previewing(tmp_path) as (site, _):
        history = History(tmp_path / "soon.db", reserve_bytes=0)
        assert history.open(T0) == []
        waiting = [contact(A, "www.bad.example", count=3)]

        async def flush() -> None:
            await history.record([waiting.pop() for _ in list(waiting)], ())

        try:
            effect, _ = await Preview(site.core, history, flush).of_lines(["+bad.example"])
        finally:
            history.close()
        assert (effect.hosts, effect.hosts_seen, effect.contacts) == (1, 1, 3)


@in_loop
async def test_addresses_networks_and_nobody(tmp_path: Path) -> None:
    rows = (contact(A, "", X, 2, 3), contact(B, "", Y), contact(B, "x.example", X))
    async with previewing(tmp_path, *rows) as (_, preview):
        one, _ = await preview.of_lines(["+203.0.113.9"])
        assert one.sentence() == "nobody of 2 hosts contacted it in 30 days"
        effect, problems = await preview.of_lines(["+198.51.100.7 force=yes"])
        assert (effect.hosts, effect.contacts, problems) == (1, 3, [])
        network, _ = await preview.of_lines(["+198.51.100.0/24 force=yes"])
        assert (network.hosts, network.contacts) == (2, 4)


@in_loop
async def test_an_address_counts_by_whatever_way_it_was_reached(tmp_path: Path) -> None:
    """Behind NAT64 history has an IPv6 address; of Teredo only those clients that are meant."""
    ways = ("64:ff9b::198.51.100.7", "2002:c633:6407::1", "2001:0:c000:201:0:0:39cc:9bf8")
    others = ("64:ff9b::198.51.100.8", "2001:0:c000:201:0:0:39cc:9bf7")
    rows = [contact(A, "", packed(way), 5, 1) for way in (*ways, *others)]
    async with previewing(tmp_path, *rows) as (_, preview):
        effect, _ = await preview.of_lines(["+198.51.100.7"])
        assert (effect.hosts, effect.contacts) == (1, 3)


@in_loop
async def test_what_is_listed_already_is_in_incidents_not_in_history(tmp_path: Path) -> None:
    """`explain --live` said `nobody contacted it` under two incidents."""
    async with previewing(tmp_path, contact(A, "x.example", X)) as (_, preview):
        effect, _ = await preview.of_lines(["+c2.listed.example"])
        assert effect.sentence() == ("nobody of 1 host contacted it in 30 days, beside those that incidents tell of")


@in_loop
async def test_what_is_listed_already_and_what_is_no_line(tmp_path: Path) -> None:
    async with previewing(tmp_path) as (_, preview):
        effect, problems = await preview.of_lines(["+c2.listed.example", "+com", "-x y z", "+bad.example"])
        assert effect.already == ["c2.listed.example (csirt.txt:1)"]
        assert [one.line for one in problems] == [2, 3]
        assert effect.added == 2


@in_loop
async def test_what_would_be_lifted(tmp_path: Path) -> None:
    async with previewing(tmp_path) as (site, preview):
        site.sees(
            sighting(found=LISTED), verdict("D1", "block", about("listed.example"), found=LISTED),
            attempt(A, 5, first=True, found=LISTED), attempt(A, 6, found=LISTED),
            attempt(B, 7, first=True, found=LISTED),
        )  # fmt: skip
        effect, _ = await preview.of_lines(["-c2.listed.example"])
        assert [one[:2] for one in effect.lifted] == [("D1", "listed.example")]
        assert effect.lifted[0][3] == 2
        other, _ = await preview.of_lines(["-other.listed.example"])
        assert other.lifted == []
        (tmp_path / "csirt.txt").write_text("c2.listed.example\nthird.listed.example\n")
        await site.do("reload")
        still, _ = await preview.of_lines(["-c2.listed.example"])
        assert still.lifted == []  # another line covers the same


@pytest.mark.parametrize(
    ("effect", "large"),
    [
        (Effect(hosts=4, hosts_seen=4), False),
        (Effect(hosts=5, hosts_seen=50), True),
        (Effect(hosts=5, hosts_seen=51), False),
        (Effect(guards=["popular"]), True),
    ],
)
def test_what_asks_for_a_second_thought(effect: Effect, large: bool) -> None:
    assert effect.is_large is large


@in_loop
async def test_a_refused_block_says_what_it_would_have_hit(tmp_path: Path) -> None:
    rows = (contact(A, "one.github.io", X, 2, 3), contact(B, "two.github.io", X, 2, 4))
    async with previewing(tmp_path, *rows) as (site, preview):
        site.verbs = Verbs(site.core, preview)
        refused = await site.refused("block", what="github.io")
        assert "public suffix" in refused.text
        assert "would have hit" in refused.text


@in_loop
async def test_a_refused_block_tells_its_reason_once(tmp_path: Path) -> None:
    async with previewing(tmp_path, contact(A, "www.github.com")) as (site, preview):
        site.verbs = Verbs(site.core, preview)
        refused = await site.refused("block", what="github.com")
        assert "would have hit: 1 of 1 host" in refused.text and refused.text.count("shared hosting") == 1


@in_loop
async def test_guarded_sites_are_told_with_why(tmp_path: Path) -> None:
    async with previewing(
        tmp_path, contact(A, "www.ours.example"), config=CONFIG + "own_domains: [ours.example]\n"
    ) as (
        _,
        preview,
    ):
        effect, _ = await preview.of_lines(["+www.ours.example"])
        assert effect.is_large
        assert "one of your own domains" in effect.sentence()


@in_loop
async def test_the_answer_on_the_socket(tmp_path: Path) -> None:
    async with previewing(tmp_path, contact(A, "bad.example")) as (_, preview):
        answer = await screens.preview(preview, {"lines": ["+bad.example", "+x y"]})
        assert (answer["hosts"], answer["contacts"], answer["first"][:10]) == (1, 1, "2023-11-14")
        assert answer["problems"][0].startswith("preview:2:")


ROWS = st.lists(
    st.tuples(
        st.sampled_from([A, B, C]),
        st.sampled_from(["a.bad.example", "bad.example", "x.fine.example", "notbad.example"]),
        st.sampled_from([b"", X, Y]), st.integers(0, 24 * 45).filter(lambda hours: hours != 24 * 30), st.integers(1, 9),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_a_direct_count_confirms_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[bytes, str, bytes, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("preview")

    @in_loop
    async def look() -> None:
        async with previewing(folder, *[contact(*row) for row in rows]) as (_, preview):
            effect, _ = await preview.of_lines(["+bad.example"])
            counted = [
                row for row in rows if row[1].split(".")[-2:] == ["bad", "example"] and row[3] * HOUR <= 30 * DAY_US
            ]
            assert effect.hosts == len({row[0] for row in counted})
            assert effect.contacts == sum(row[4] for row in counted)
        with sqlite3.connect(folder / "history.db") as connection:
            direct = connection.execute(
                "SELECT count(DISTINCT c.client), total(c.count) FROM contacts c JOIN names n ON n.id = c.name"
                " WHERE n.registered_domain = 'bad.example' AND c.last_us >= ?",
                (T0 - 30 * DAY_US,),
            ).fetchone()
        assert direct == (effect.hosts, effect.contacts)

    look()


@in_loop
async def test_with_an_empty_history_nobody_is_not_the_answer(tmp_path: Path) -> None:
    async with previewing(tmp_path) as (_, preview):
        effect, _ = await preview.of_lines(["+bad.example"])
        assert effect.sentence() == "what it would hit is not known: no host was seen in 30 days"


@in_loop
async def test_without_history_nobody_is_not_the_answer(tmp_path: Path) -> None:
    async with site_at(tmp_path, config=CONFIG) as site:
        effect, _ = await Preview(site.core, NO_HISTORY).of_lines(["+bad.example"])
        assert effect.sentence() == "what it would hit is not known: no history is kept"


@in_loop
async def test_what_another_line_covers_is_listed_already(tmp_path: Path) -> None:
    """Of a list or a feed: this is how to ask the daemon whether a name is known, and from where."""
    async with previewing(tmp_path) as (_, preview):
        effect, _ = await preview.of_lines(["+www.listed.example", "+fine.example"])
        assert effect.already == ["www.listed.example by c2.listed.example (csirt.txt:1)"]
