"""What nobody was told of yet, page by page, and that it is told once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.store import past
from egressd.store.history import Contact, History
from egressd.store.past import START, Untold
from tests.loops import in_loop
from tests.store.scene import HOUR, T0, A, B

X = bytes([203, 0, 113, 1])
Y = bytes([203, 0, 113, 200])


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    opened = History(tmp_path / "history.db", reserve_bytes=0)
    assert opened.open(T0) == []
    yield opened
    opened.close()


def contact(client: bytes, name: str, at: bytes = X, ts_us: int = T0, count: int = 1) -> Contact:
    domain = ".".join(name.split(".")[-2:]) if name else ""
    return Contact(client, domain, name, at, ts_us, ts_us + 5, count)


def told(rows: list[Untold]) -> list[tuple[bytes, str, bytes, int]]:
    return sorted((row.mark.client, row.name, row.mark.address, row.contacts) for row in rows)


@in_loop
async def test_what_was_told_is_not_found_again_and_what_came_since_is(history: History) -> None:
    await history.record([contact(A, "a.x.example"), contact(A, "a.x.example", ts_us=T0 + 2 * HOUR, count=2)])
    await history.record([contact(B, "b.x.example", b""), contact(B, "x.other.example")])
    rows = await history.ask(past.untold_of_domains, ["x.example"])
    assert told(rows) == [(A, "a.x.example", X, 3), (B, "b.x.example", b"", 1)]
    assert (rows[0].first_us, rows[0].last_us) == (T0, T0 + 2 * HOUR + 5)
    await history.record([contact(A, "a.x.example", ts_us=T0 + 2 * HOUR + 9, count=4)])
    await history.mark_told(rows)
    assert told(await history.ask(past.untold_of_domains, ["x.example"])) == [(A, "a.x.example", X, 4)]
    await history.mark_told(await history.ask(past.untold_of_domains, ["x.example"]))
    assert await history.ask(past.untold_of_domains, ["x.example"]) == []
    known = await history.ask(past.hits_of_domains, ["x.example"], 0, 9)
    assert sum(one.contacts for one in known) == 8  # what is known stays known


@in_loop
async def test_what_comes_late_while_it_is_told_is_told_and_once(history: History) -> None:
    """A log tells of an hour that was told already: it was taken for told, with the whole hour."""
    await history.record([contact(A, "a.x.example", ts_us=T0 + hour * HOUR, count=3) for hour in range(3)])
    rows = await history.ask(past.untold_of_domains, ["x.example"])
    late = [contact(A, "a.x.example", ts_us=T0 + hour * HOUR - 9, count=2) for hour in (0, 1, 2)]
    await history.record([*late, contact(A, "a.x.example", ts_us=T0 + 7 * HOUR)])
    await history.mark_told(rows)
    rows = await history.ask(past.untold_of_domains, ["x.example"])
    assert told(rows) == [(A, "a.x.example", X, 7)]
    await history.mark_told(rows)
    assert await history.ask(past.untold_of_domains, ["x.example"]) == []


@in_loop
async def test_a_count_that_is_damaged_is_told_once(history: History) -> None:
    await history.record([contact(A, "a.x.example", count=1 << 60)])
    await history.mark_told(await history.ask(past.untold_of_domains, ["x.example"]))
    assert await history.ask(past.untold_of_domains, ["x.example"]) == []


@in_loop
async def test_a_contact_whose_time_is_damaged_is_told_once(history: History) -> None:
    """It was found again by each search, for as long as it was kept."""
    await history.record([contact(A, "a.x.example", ts_us=T0, count=3)])
    await history._database.run(lambda connection: connection.execute("UPDATE contacts SET last_us = 1"))
    rows = await history.ask(past.untold_of_domains, ["x.example"])
    assert told(rows) == [(A, "a.x.example", X, 3)]
    await history.mark_told(rows)
    assert await history.ask(past.untold_of_domains, ["x.example"]) == []


@in_loop
async def test_addresses_are_those_of_connections(history: History) -> None:
    await history.record([contact(A, "", X), contact(B, "", Y, count=3), contact(A, "a.x.example", X)])
    first, last = bytes([203, 0, 113, 0]), bytes([203, 0, 113, 255])
    assert told(await history.ask(past.untold_of_addresses, first, last)) == [(A, "", X, 1), (B, "", Y, 3)]
    assert told(await history.ask(past.untold_of_addresses, Y, Y)) == [(B, "", Y, 3)]
    assert await history.ask(past.untold_of_addresses, bytes(16), b"\xff" * 16) == []
    assert await history.ask(past.addresses_after, b"") == [X, Y]
    assert await history.ask(past.addresses_after, X) == [Y]


@in_loop
async def test_names_and_hosts(history: History) -> None:
    assert await history.ask(past.hosts_seen, 0) == 0
    await history.record([contact(A, "a.x.example"), contact(B, "b.y.example", ts_us=T0 - 9 * HOUR), contact(B, "")])
    names = await history.ask(past.domains_after, 0)
    assert sorted(name for _, name, _ in names) == ["", "a.x.example", "b.y.example"]
    assert await history.ask(past.domains_after, names[0][0], 1) == [names[1]]
    assert await history.ask(past.hosts_seen, T0 - HOUR) == 2
    assert await history.ask(past.hosts_seen, T0 + HOUR) == 0


ROWS = st.lists(
    st.tuples(
        st.sampled_from([A, B]), st.sampled_from(["a.x.example", "b.x.example", "c.y.example", ""]),
        st.sampled_from([b"", X, Y]), st.integers(0, 50), st.integers(1, 5),
    ),
    max_size=30,
)  # fmt: skip
Rows = list[tuple[bytes, str, bytes, int, int]]


@settings(max_examples=40)
@given(ROWS, st.integers(1, 5))
def test_pages_of_any_size_are_the_whole(tmp_path_factory: pytest.TempPathFactory, rows: Rows, size: int) -> None:
    history = History(tmp_path_factory.mktemp("past") / "history.db", reserve_bytes=0)
    assert history.open(T0) == []

    @in_loop
    async def read() -> None:
        await history.record([contact(who, name, at, T0 + hour * HOUR, count) for who, name, at, hour, count in rows])
        whole = await history.ask(past.untold_of_domains, ["x.example", "y.example"])
        paged: list[Untold] = []
        after = START
        while page := await history.ask(past.untold_of_domains, ["x.example", "y.example"], after, size):
            paged += page
            after = page[-1].mark
        assert whole == paged
        assert sum(row.contacts for row in whole) == sum(row[4] for row in rows if row[1])

    try:
        read()
    finally:
        history.close()
