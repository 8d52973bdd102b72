"""Sums of the packet process: what was put in comes out, in any order, within bounds; hostile sums are Malformed."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.errors import Malformed
from egressd.model import DNS_QUERY, FLOW, HTTP_HOST, Attempt, Incident, Match, Sighting
from egressd.runtime import tally as tally_module
from egressd.runtime.messages import MAX_UP_BYTES, Frames, render_batch
from egressd.runtime.tally import MAX_NAMES, MAX_PLACES, Contacts, Tally, Tried, key_of, unpack_contacts, unpack_tried
from tests.runtime.events import ANY_JSON, places, put_at
from tests.runtime.scene import SECOND, T0, A, B, C, X, Y, attempt, match, sighting

ADDRESS = Match("address", match("203.0.113.9", kind="address").indicator, "", "")
MATCHES = [match(), match("worse.example"), ADDRESS]
CLIENTS = [A, B, C]


def taken(tally: Tally) -> tuple[list[tuple[bytes, Contacts]], list[tuple[str, bytes, Tried]]]:
    """As the core gets it."""
    batch = json.loads(json.dumps(tally.take()))
    return unpack_contacts(batch["contacts"]), unpack_tried(batch["tried"])


SIGHTINGS = st.builds(
    sighting, st.sampled_from(CLIENTS), st.sampled_from(["a.example", "b.example", ""]), st.integers(0, 99),
    new=st.booleans(), count=st.integers(1, 9), via=st.sampled_from([DNS_QUERY, HTTP_HOST, FLOW]),
    found=st.sampled_from(MATCHES),
)  # fmt: skip
ATTEMPTS = st.builds(
    attempt, st.sampled_from(CLIENTS), st.integers(0, 99), id_=st.sampled_from(["D1", "D2"]), leak=st.booleans(),
    via=st.sampled_from([DNS_QUERY, FLOW]), server=st.sampled_from([X, Y]), found=st.sampled_from(MATCHES),
)  # fmt: skip
ANSWERED = st.builds(
    lambda client, found: Incident("I1", "C1", client, found, T0, T0, T0),
    st.sampled_from(CLIENTS), st.sampled_from(MATCHES),
)  # fmt: skip


def put(tally: Tally, one: Sighting | Attempt | Incident) -> None:
    if isinstance(one, Sighting):
        tally.sighting(one)
    elif isinstance(one, Attempt):
        tally.attempt(one)
    else:
        tally.answered(one)


def sums(events: list[Sighting | Attempt | Incident]) -> tuple[Any, Any]:
    """What must come out, counted plainly."""
    contacts: Counter[tuple[bytes, str, str]] = Counter()
    tried: Counter[tuple[str, bytes, object]] = Counter()
    for one in events:
        client = one.client if isinstance(one, Incident) else one.flow.client
        place = (client, key_of(one.match))
        if isinstance(one, Sighting):
            contacts[*place, f"via {one.via}"] += one.count
            if one.new:
                contacts[*place, "contacts"] += one.count
                contacts[*place, f"name {one.name or one.match.indicator.value}"] += one.count
        elif isinstance(one, Attempt):
            contacts[*place, "leaks" if one.leak else "attempts"] += 1
            tried[one.decision_id, client, "leaks" if one.leak else "count"] += 1
            if not one.leak and one.via != DNS_QUERY:
                tried[one.decision_id, client, one.flow.server] += 1
        else:
            contacts[*place, "answered"] += 1
    return contacts, tried


def sums_of(rows: list[tuple[bytes, Contacts]], tried: list[tuple[str, bytes, Tried]]) -> tuple[Any, Any]:
    out: Counter[tuple[bytes, str, str]] = Counter()
    for client, row in rows:
        place = (client, key_of(row.match))
        for word in ("contacts", "attempts", "leaks", "answered"):
            out[*place, word] += getattr(row, word)
        for name, count in row.names.items():
            out[*place, f"name {name}"] += count
        for via, count in row.via.items():
            out[*place, f"via {via}"] += count
    tries: Counter[tuple[str, bytes, object]] = Counter()
    for id_, client, one in tried:
        tries[id_, client, "count"] += one.count
        tries[id_, client, "leaks"] += one.leaks
        for server, count in one.where.items():
            tries[id_, client, server] += count
    return out, tries


@given(st.lists(st.one_of(SIGHTINGS, ATTEMPTS, ANSWERED), max_size=40), st.randoms())
def test_what_was_put_in_comes_out_whatever_the_order(
    events: list[Sighting | Attempt | Incident], chance: random.Random
) -> None:
    for _ in range(2):
        tally = Tally()
        for one in events:
            put(tally, one)
        rows, tried = taken(tally)
        assert sums_of(rows, tried) == sums(events)  # a Counter holds what is missing for 0
        assert len(rows) == len({client + key_of(row.match).encode() for client, row in rows})
        assert (len(tally), tally.uncounted) == (0, 0)
        chance.shuffle(events)


@given(st.lists(SIGHTINGS, min_size=1, max_size=20), st.integers(1, 19))
def test_taken_in_parts_it_is_the_same_in_sum(events: list[Sighting], cut: int) -> None:
    tally = Tally()
    out: Counter[Any] = Counter()
    for part in (events[:cut], events[cut:]):
        for one in part:
            tally.sighting(one)
        rows, tried = taken(tally)
        out += sums_of(rows, tried)[0]
    assert out == +sums(list(events))[0]


@given(st.lists(SIGHTINGS, min_size=1, max_size=20))
def test_times_span_what_was_seen(events: list[Sighting]) -> None:
    tally = Tally()
    for one in events:
        tally.sighting(one)
    for client, row in taken(tally)[0]:
        mine = [e for e in events if e.flow.client == client and key_of(e.match) == key_of(row.match)]
        assert (row.first_us, row.last_us) == (min(e.first_us for e in mine), max(e.last_us for e in mine))


def test_a_row_by_hand() -> None:
    tally = Tally()
    tally.sighting(sighting(second=1, count=3, retro=True))
    known = sighting(second=2, new=False, via=HTTP_HOST)
    known.source, known.own = "squid", True  # the tap told of that contact before
    tally.sighting(known)
    tally.attempt(attempt(second=2))
    tally.attempt(attempt(second=3, via=DNS_QUERY))
    tally.attempt(attempt(second=4, leak=True))
    ((client, row),), ((id_, tried_by, tried),) = taken(tally)
    assert (client, row.match, row.retro) == (A, match(), True)
    assert (row.contacts, row.attempts, row.leaks, row.answered) == (3, 2, 1, 0)
    assert (row.names, row.via) == ({"bad.example": 3}, {"tls_sni": 3, HTTP_HOST: 1})
    assert row.sources == {"squid": 1}
    assert (id_, tried_by, tried.count, tried.leaks, tried.where) == ("D1", A, 2, 1, {X: 1})
    assert (tried.first_us, tried.last_us) == (T0 + 2 * SECOND, T0 + 4 * SECOND)


def test_a_registered_domain_is_one_row_and_an_address_its_own() -> None:
    tally = Tally()
    for name in ("a.bad.example", "b.bad.example"):
        tally.sighting(sighting(name=name))
    tally.sighting(sighting(found=ADDRESS, name=""))
    rows, _ = taken(tally)
    assert [key_of(row.match) for _, row in rows] == ["bad.example", "203.0.113.9"]
    assert rows[1][1].names == {"203.0.113.9": 1}


def test_names_are_bounded_but_contacts_are_not() -> None:
    tally = Tally()
    for number in range(MAX_NAMES + 10):
        tally.sighting(sighting(name=f"n{number}.bad.example"))
    ((_, row),), _ = taken(tally)
    assert (len(row.names), row.contacts) == (MAX_NAMES, MAX_NAMES + 10)


def test_rows_are_bounded_and_what_is_left_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "MAX_ROWS", 3)
    tally = Tally()
    clients = [bytes((10, 0, 0, number)) for number in range(5)]
    for client in clients:
        tally.sighting(sighting(client))
    assert (len(tally.contacts), tally.uncounted) == (3, 2)
    tally.sighting(sighting(clients[0]))
    assert tally.uncounted == 2  # those that have a row go on counting
    for client in clients[:3]:
        tally.attempt(attempt(client))
    tally.attempt(attempt(clients[0], id_="D2"))
    assert (len(tally.tried), tally.uncounted) == (3, 3)
    rows, tried = taken(tally)
    assert (sum(row.contacts for _, row in rows), sum(one.count for _, _, one in tried)) == (4, 3)
    tally.sighting(sighting(clients[4]))
    assert (len(tally.contacts), tally.uncounted) == (1, 3)  # there is room again


@pytest.mark.parametrize("name", ["bad.example", ".".join(["x" * 61] * 4)])
def test_a_full_tally_is_told_in_parts_that_fit_into_frames(name: str) -> None:
    """Whoever forges senders fills it within a moment; what a frame does not hold comes with the next."""
    tally = Tally()
    clients = 5_000
    for number in range(clients):
        client = number.to_bytes(4, "big")
        for turn in range(4):
            tally.sighting(sighting(client, f"{turn}{name}"[:253]))
        tally.attempt(attempt(client))
    rows, tries, parts = 0, 0, 0
    while len(tally):
        parts += 1
        ((_, body),) = Frames(MAX_UP_BYTES).feed(render_batch({"n": 1, "t": T0, **tally.take()}))
        batch = json.loads(body)
        rows += sum(row.contacts for _, row in unpack_contacts(batch["contacts"]))
        tries += sum(one.count for _, _, one in unpack_tried(batch["tried"]))
    assert (rows, tries) == (4 * clients, clients)
    assert parts > 1


def test_addresses_of_one_clients_tries_are_bounded_and_its_tries_are_not() -> None:
    tally = Tally()
    for number in range(MAX_PLACES + 20):
        tally.attempt(attempt(server=number.to_bytes(4, "big")))
    tally.attempt(attempt(server=bytes(4)))
    ((_, _, one),) = taken(tally)[1]
    assert (one.count, len(one.where), one.where[bytes(4)]) == (MAX_PLACES + 21, MAX_PLACES, 2)


# -- hostile sums


def good() -> dict[str, Any]:
    tally = Tally()
    tally.sighting(sighting())
    tally.attempt(attempt())
    found: dict[str, Any] = json.loads(json.dumps(tally.take()))
    return found


@given(ANY_JSON)
def test_any_value_is_sums_or_malformed(value: Any) -> None:
    for unpack in (unpack_contacts, unpack_tried):
        with suppress(Malformed):
            unpack(value)
        with suppress(Malformed):
            unpack([value])


@given(st.data())
def test_anything_in_any_place_is_sums_or_malformed(data: st.DataObject) -> None:
    for word, unpack in (("contacts", unpack_contacts), ("tried", unpack_tried)):
        packed = good()[word]
        spoilt = put_at(packed, data.draw(st.sampled_from(places(packed))), data.draw(ANY_JSON))
        with suppress(Malformed):
            unpack(spoilt)


@pytest.mark.parametrize(
    ("word", "place", "value"),
    [
        ("contacts", 2, -1), ("contacts", 3, -1), ("contacts", 4, -1), ("contacts", 5, -1), ("contacts", 8, 0),
        ("contacts", 9, {"a": "b"}), ("contacts", 10, {"smoke": 1}), ("contacts", 0, "0a00"),
        ("tried", 2, -1), ("tried", 3, -1), ("tried", 6, {"zz": 1}), ("tried", 6, []), ("tried", 0, 1),
    ],
)  # fmt: skip
def test_sums_that_are_not_right(word: str, place: int, value: Any) -> None:
    unpack = {"contacts": unpack_contacts, "tried": unpack_tried}[word]
    packed = good()[word]
    assert len(unpack(packed)) == 1
    with pytest.raises(Malformed):
        unpack(put_at(packed, (0, place), value))


@pytest.mark.parametrize(
    ("word", "place", "value"),
    [
        pytest.param("tried", 6, {"0a00": 1}, id="an address of two bytes"),
        pytest.param("tried", 6, {"": 1}, id="no address"),
        pytest.param("tried", 6, {"c6336407": -5}, id="less than no attempt"),
        pytest.param("tried", 1, "", id="a client without an address"),
        pytest.param("contacts", 0, "", id="contacts of nobody"),
        pytest.param("contacts", 9, {"bad.example": -5}, id="less than no contact"),
        pytest.param("contacts", 10, {"flow": -5}, id="less than no sign of one"),
    ],
)  # fmt: skip
def test_sums_that_no_honest_process_sends_are_malformed(word: str, place: int, value: Any) -> None:
    unpack = {"contacts": unpack_contacts, "tried": unpack_tried}[word]
    with pytest.raises(Malformed):
        unpack(put_at(good()[word], (0, place), value))
