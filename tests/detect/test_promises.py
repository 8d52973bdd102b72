"""Promises of the threat model (THREATS section 3) in the size that they name, or near it, on the engine alone.

tests/netns/test_live_promises.py and bench/live.py have them with packets and a kernel.
"""

from __future__ import annotations

from pathlib import Path

from egressd.detect.blocks import MAX_ADDRESSES
from egressd.model import Event
from egressd.wire.dissector import DEFAULT_CONVERSATIONS, Dissector
from egressd.wire.table import SHARE
from tests.detect.live_scene import LiveScene
from tests.detect.scene import A, B, X, packed, record
from tests.detect.test_harm_shared import BLOCK, C2, held
from tests.wire.frames_made import SYN, Tap, tcp, udp

PAGE_BYTES = 4_096


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def test_3_a_range_or_three_innocent_sites() -> None:
    """0 blocks of an address, 1 of the name; in a range whoever asks, outside with three sites."""
    for ranges, sites in (("198.51.100.0/24 operator=CDN", 0), ("", 3)):
        scene = LiveScene(ranges=ranges)
        for number in range(sites):
            scene.resolve(number, B, f"www.site{number}.example", X)
        for second in range(10, 20):
            scene.resolve(second, A, C2, X)
            scene.tls(second + 0.1, A, X, C2, 40_000 + second)
            scene.flow(second + 0.2, B, X, 40_000 + second)
        assert scene.said("block", "extend") == [BLOCK]
        assert held(scene) == ([], [])
        assert scene.counts(B) == (0, 0)


def test_4_ten_thousand_answers_in_flux() -> None:
    """At most 16 addresses of an indicator in an hour, one incident."""
    scene = LiveScene()
    for number in range(10_000):
        scene.resolve(number * 0.006, A, f"f{number}.bad.example", f"45.9.{number >> 8}.{number & 255}")
    assert len(held(scene)[0]) == 16
    assert scene.rules("refuse") == ["budget"]
    assert len(scene.incidents) == 1


def test_4_two_hundred_blocks_an_hour_and_twenty_thousand_addresses_in_all() -> None:
    """Two thousand listed names in flux within ten hours: what is over a bound is told once an hour."""
    names = [f"c2.bad{number}.example" for number in range(2_000)]
    scene = LiveScene("\n".join(names))
    most = 0
    for number, name in enumerate(names):
        second = number * 18.1  # 199 names an hour
        addresses = [f"45.{number >> 8}.{number & 255}.{low}" for low in range(20)]
        scene.resolve(second, f"10.0.1.{number % 100}", name, *addresses)
        most = max(most, scene.engine.blocks.addresses)
    assert len(scene.said("block")) == 2_000 and scene.said("alert") == []
    assert most == scene.engine.blocks.addresses == MAX_ADDRESSES
    told = [one.reason for one in scene.decisions if one.reason == f"over {MAX_ADDRESSES} addresses in all"]
    assert 1 <= len(told) <= 4  # of the hours that were left


def test_5_ten_thousand_forged_names() -> None:
    """0 blocks for everybody, whatever hosts inside say and whoever answers them; nobody but their sender is kept from
    anywhere, and an innocent site's address in a shared range not even for him."""
    scene = LiveScene(ranges="203.0.113.0/24 operator=CDN")
    for number in range(2_500):
        second = number / 10
        name = f"f{number}.bad.example"
        scene.tls(second, A, X, name, 20_000 + number)
        scene.http(second + 0.01, A, "203.0.113.9", name, sport=30_000 + number)
        scene.answer(second + 0.02, A, name, record(name, X), txid=number)
        scene.resolve(second + 0.03, A, name, "203.0.113.9", X, server="203.0.113.53")
    assert held(scene) == ([], [(A, X)])
    assert [rule for _, rule, _ in scene.said()] == ["level-sibling", "pair", "shared"]
    assert scene.engine.blocks.covering(packed(B), packed(X)) is None


def test_11_random_subdomains_in_bounded_memory() -> None:
    """One host asks for names without end, below a listed domain and below others. Memory ends growing, and another
    host's contact with a listed name is blocked all the same."""
    scene = LiveScene("bad.example\nworse.example")
    told: list[Event] = []

    def forget(event: Event) -> None:
        told.append(event)
        if len(told) > 1_000:
            told.clear()  # as who writes them down does

    scene.engine._on_event = forget
    txid = 0

    def flood(start: int, count: int) -> None:
        nonlocal txid
        for number in range(start, start + count):
            txid = (txid + 1) & 0xFFFF
            second = number / 5_000
            name = f"x{number}.bad.example" if number % 4 == 0 else f"x{number}.flood{number % 1_000}.example"
            scene.question(second, A, name, txid=txid, sport=1_024 + number % 60_000)
            if number % 4 == 1:
                address = f"45.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
                records = record(name, address)
                scene.answer(second + 0.00001, A, name, records, txid=txid, sport=1_024 + number % 60_000)
            if number % 1_000 == 0:
                scene.engine.gathering.take()
                scene.engine.take_learned()

    flood(0, 80_000)
    before = resident_bytes()
    flood(80_000, 40_000)
    grown = resident_bytes() - before
    assert grown < 16 << 20, f"grew by {grown >> 20} MiB"
    scene.resolve(25, B, "c2.worse.example", X)
    assert scene.engine.blocks.covering(packed(B), packed(X)) is not None
    assert len(scene.incidents) == 2


def test_12_one_source_holds_a_tenth_of_what_is_remembered() -> None:
    """Of outstanding questions and of who lives where, one host's share is a tenth; what is more stands in a part
    of the table that all such hosts have together, and others' entries stay."""
    scene = LiveScene()
    resolutions = scene.engine.resolutions
    others = [f"10.1.{number >> 8}.{number & 255}" for number in range(2_000)]
    for number, client in enumerate(others):
        scene.question(0, client, f"www.site{number}.example", txid=number)
    for number in range(100_000):
        scene.question(1 + number / 1e5, A, f"x{number}.flood.example", txid=number & 0xFFFF, sport=number % 60_000)
    asked = resolutions._asked
    mine = sum(client == packed(A) for (client, _, _), _ in asked.items())
    limit = asked.limit + asked.crowd.limit
    assert mine == limit // SHARE // 2  # of two generations, the second of which has not begun
    assert len(asked) + len(asked.crowd) <= limit
    for number, client in enumerate(others):
        scene.answer(2, client, f"www.site{number}.example", record(f"www.site{number}.example", X), txid=number)
    assert scene.engine.unasked_answers == 0
    assert scene.engine.counts()["resolutions_over_share"] == 100_000 - mine


def test_12_conversations_at_their_default_bounds() -> None:
    """Twice as many conversations as the default bounds hold: at most 65,536 of TCP and UDP, of one source a tenth in
    a generation, beside the part that all who have more than that share."""
    tap = Tap()
    tap.dissector = Dissector(lambda seen: None)
    for number in range(60_000):
        other = f"10.1.{number >> 8 & 255}.{number & 255}"
        client = (A, 1 + number) if number % 2 else (other, 40_000)
        tap.put(tcp(client, (X, 443), number, SYN))
        tap.put(udp(client, (X, 443), b"\x40\x00\x00\x00"))
    tables = (tap.dissector.tcp._table, tap.dissector.udp._table)
    assert sum(map(len, tables)) <= 2 * DEFAULT_CONVERSATIONS == 65_536
    for table in tables:
        mine = {one.flow for one in table._main.values() if one.flow.client == packed(A)}
        assert len(mine) <= 2 * DEFAULT_CONVERSATIONS // 10
    assert tap.dissector.counts()["client_over_share"] > 30_000
