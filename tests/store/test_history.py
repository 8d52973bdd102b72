"""The past: counted per hour, found by name, address and client, bounded, begun anew when damaged."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from egressd.store.db import Database
from egressd.store.errors import LOCKED, StoreError
from egressd.store.history import Bounds, Contact, History, Tenant
from egressd.store.migrations import HISTORY
from egressd.store.past import Hit, hits_of_addresses, hits_of_domains, untold_of_domains
from tests.loops import in_loop
from tests.store.scene import DAY, HOUR, T0, V6, A, B

X = bytes([203, 0, 113, 1])
Y = bytes([203, 0, 113, 200])
Z6 = bytes.fromhex("20010db8000000000000000000000099")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    opened = History(tmp_path / "history.db", reserve_bytes=0)
    assert opened.open(T0) == []
    yield opened
    opened.close()


def contact(client: bytes = A, name: str = "a.x.example", at: bytes = X, ts_us: int = T0, count: int = 1) -> Contact:
    return Contact(client, name.partition(".")[2], name, at, ts_us, ts_us + 5, count)


async def hits(history: History, *domains: str, since_us: int = 0) -> list[Hit]:
    return await history.ask(hits_of_domains, domains, since_us, 100_000)


@in_loop
async def test_who_contacted_it_when_first_when_last_how_often(history: History) -> None:
    await history.record([contact(), contact(count=2), contact(B, "b.x.example", b"", T0 - HOUR)])
    await history.record([contact(ts_us=T0 + 5 * HOUR), contact(ts_us=T0 - 9), contact(A, "a.y.example")])
    assert sorted(await hits(history, "x.example")) == [
        Hit(A, "a.x.example", X, 5, T0 - 9, T0 + 5 * HOUR + 5),
        Hit(B, "b.x.example", b"", 1, T0 - HOUR, T0 - HOUR + 5),
    ]
    assert [one.contacts for one in await hits(history, "x.example", since_us=T0 + HOUR)] == [1]
    assert [one.name for one in await hits(history, "no.example", "y.example")] == ["a.y.example"]
    assert history.stats.recorded == 6


@in_loop
async def test_by_address_and_network_of_one_family(history: History) -> None:
    await history.record([contact(), contact(A, "", Y), contact(B, "", Z6), contact(V6, "", bytes([203, 0, 114, 1]))])
    for low, high, found in (
        (X, X, []),  # by a name, which is what it is found by
        (bytes([203, 0, 113, 0]), bytes([203, 0, 113, 255]), [Y]),
        (bytes(16), b"\xff" * 16, [Z6]),
    ):
        assert [one.address for one in await history.ask(hits_of_addresses, low, high, 0, 9)] == found


@in_loop
async def test_who_lived_where_after_a_restart(history: History, tmp_path: Path) -> None:
    await history.record([], [Tenant("a.example", X, T0, T0, 1), Tenant("b.example", X, T0, T0 + HOUR, 2)])
    await history.record([], [Tenant("a.example", X, T0 - 5, T0 + 2 * HOUR, 3), Tenant("c.example", Z6, T0, T0, 1)])
    history.close()
    again = History(tmp_path / "history.db", reserve_bytes=0)
    assert again.open(T0) == []
    a = Tenant("a.example", X, T0 - 5, T0 + 2 * HOUR, 4)
    b = Tenant("b.example", X, T0, T0 + HOUR, 2)
    assert await again.tenants_since(T0 + 1) == [a, b]
    assert await again.tenants_since(0, 1) == [a]
    again.close()


@in_loop
async def test_a_name_that_moved_in_the_suffix_list(history: History) -> None:
    await history.record([Contact(A, "github.example", "a.github.example", X, T0, T0, 1)])
    await history.record([Contact(A, "a.github.example", "a.github.example", X, T0, T0, 1)])
    assert await hits(history, "github.example") == []
    assert [one.contacts for one in await hits(history, "a.github.example")] == [2]


@in_loop
async def test_forgotten_by_age_with_names_nobody_contacted_since(history: History) -> None:
    await history.record(
        [contact(ts_us=T0), contact(A, "old.y.example", X, T0), contact(ts_us=T0 + 89 * DAY)],
        [Tenant("a.example", X, T0, T0, 1), Tenant("b.example", X, T0, T0 + 89 * DAY, 1)],
    )
    assert await history.trim(T0 + 91 * DAY) == {"contacts": 2, "tenants": 1, "names": 1}
    assert await history.trim(T0 + 91 * DAY) == {"contacts": 0, "tenants": 0, "names": 0}
    assert [one.first_us for one in await hits(history, "x.example", "y.example")] == [T0 + 89 * DAY]
    assert [one.registered_domain for one in await history.tenants_since(0)] == ["b.example"]


@in_loop
async def test_forgotten_by_rows_oldest_hour_first(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db", Bounds(contacts=100, tenants=50), reserve_bytes=0)
    history.open(T0)
    for hour in range(30):
        await history.record(
            [contact(A, f"n{number}.x.example", X, T0 + hour * HOUR) for number in range(10)],
            [Tenant(f"{hour}-{number}.example", X, T0, T0 + hour, 1) for number in range(10)],
        )
    assert await history.trim(T0 + DAY) == {"contacts": 200, "tenants": 250, "names": 0}
    kept = await hits(history, "x.example")
    assert len(kept) == 10 and {one.first_us for one in kept} == {T0 + 20 * HOUR}
    assert len(await history.tenants_since(0)) == 50
    history.close()


@in_loop
async def test_of_an_hour_no_more_goes_than_must_nor_much_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of millions of rows went whole when there was one row too many, in one statement of half a minute."""
    monkeypatch.setattr("egressd.store.history.ROWS_AT_ONCE", 30)
    history = History(tmp_path / "history.db", Bounds(contacts=100, age_us=30 * DAY), reserve_bytes=0)
    history.open(T0)
    await history.record([contact(A, f"n{number}.x.example", X, T0) for number in range(120)])
    assert (await history.trim(T0 + HOUR))["contacts"] == 20
    assert (await history.trim(T0 + HOUR))["contacts"] == 0
    assert len(await hits(history, "x.example")) == 100
    assert [(await history.trim(T0 + 31 * DAY))["contacts"] for _ in range(5)] == [30, 30, 30, 10, 0]
    history.close()


@pytest.mark.parametrize("damage", ["start", "not a database", "newer"])
def test_a_file_that_cannot_be_used_is_moved_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "history.db"
    old = History(path, reserve_bytes=0)
    old.open(T0)
    old.close()
    if damage == "newer":
        newer = Database(path, "NORMAL", steps=(*HISTORY, lambda connection: None), ballast_bytes=0)
        newer.open(T0)
        newer.close()
    else:
        raw = path.read_bytes()
        path.write_bytes(os.urandom(200) + raw[200:] if damage == "start" else b"no database at all\n" * 1000)
    again = History(path, reserve_bytes=0)
    (warning,) = again.open(T0)
    assert "begins anew" in warning and "history.db.damaged" in warning
    assert (tmp_path / "history.db.damaged").exists() and again.stats.begun_anew == 1
    again.close()
    assert History(path, reserve_bytes=0).open(T0) == []


@in_loop
async def test_damage_that_shows_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    history = History(path, reserve_bytes=0)
    history.open(T0)
    rows = [contact(A, f"n{number}.x.example", os.urandom(4)) for number in range(20_000)]
    await history.record(rows)
    history.close()
    raw = bytearray(path.read_bytes())
    raw[8192 : len(raw)] = os.urandom(len(raw) - 8192)
    path.write_bytes(raw)
    history._database.open(T0, check=False)  # as a file too large to be read whole at start
    (warning,) = await history.record(rows)
    assert "begins anew" in warning
    assert (history.stats.dropped, history.stats.begun_anew) == (20_000, 1)
    assert await history.record(rows) == []
    assert len(await hits(history, "x.example")) == 20_000
    history.close()


def test_another_owner_is_no_damage(history: History, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        History(tmp_path / "history.db").open(T0)
    assert caught.value.kind == LOCKED


@in_loop
async def test_closed(history: History) -> None:
    """The daemon ends while a batch comes: dropped and counted, nothing raised."""
    history.close()
    assert await history.record([contact()]) == []
    assert history.stats.dropped == 1


@pytest.mark.parametrize("value", [(1 << 63) - 1, -(1 << 63)])
@pytest.mark.parametrize("column", ["count", "first_us", "last_us", "told"])
@in_loop
async def test_a_damaged_number_hides_no_other_contact(history: History, column: str, value: int) -> None:
    """The sum ran over: nobody was found who had been there, and what came along with a further contact was lost."""
    await history.record([contact(), contact(ts_us=T0 + HOUR), contact(B)], [Tenant("x.example", X, T0, T0, 1)])
    history.close()
    with closing(sqlite3.connect(history.path, isolation_level=None)) as damaged:
        damaged.execute(f"UPDATE contacts SET {column} = ? WHERE client = ?", (value, A))
    history.open(T0)
    await history.record([contact(), contact(B)])
    assert history.stats.dropped == 0
    found = {one.client: one for one in await history.ask(hits_of_domains, ("x.example",), -HOUR, 10)}
    assert found[B].contacts == 2
    told = {one.mark[1]: one for one in await history.ask(untold_of_domains, ("x.example",))}
    assert told[B].contacts == 2
    for one in (*found.values(), *told.values()):
        assert all(0 <= number < 1 << 62 for number in (one.contacts, one.first_us, one.last_us))
    await history.mark_told(told.values())
    await history.trim(T0 + HOUR)
