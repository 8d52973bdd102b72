"""Incidents by holder and campaign: a device, its addresses, and who had an address before."""

from __future__ import annotations

from egressd.detect.incident_places import MAX_ADDRESSES, IncidentPlaces, holders_of, owner_of
from egressd.detect.mac import render_mac
from egressd.intel.networks import render_address
from egressd.model import Incident
from tests.detect.scene import packed
from tests.detect.test_campaigns import sighting

MAC = b"\x02\0\0\0\0\x07"


def incident(id_: str, client: bytes) -> Incident:
    return Incident(id_, "C1", client, sighting(render_address(client)).match, 0, 0, 0)


def address(number: int) -> bytes:
    return packed(f"10.0.0.{number}")


def test_the_last_incident_of_an_address_is_found_there() -> None:
    places = IncidentPlaces()
    older, younger = incident("I1", address(1)), incident("I2", address(2))
    places.enter(older, address(1))
    places.enter(younger, address(2))
    places.enter(younger, address(1))
    assert (places.at(address(1), "C1"), places.at(address(2), "C1"), places.at(address(1), "C2")) == ("I2", "I2", "")
    assert younger.addresses == [address(2), address(1)]
    places.leave(older)  # is found nowhere, and takes nothing from who came after it
    assert places.at(address(1), "C1") == "I2"
    places.leave(younger)
    assert (places.at(address(1), "C1"), places.at(address(2), "C1")) == ("", "")


def test_of_many_addresses_the_last_are_kept_and_the_first_is_always_found() -> None:
    places = IncidentPlaces()
    one = incident("I1", address(1))
    for number in range(1, MAX_ADDRESSES + 4):
        places.enter(one, address(number))
    assert one.addresses == [address(number) for number in range(4, MAX_ADDRESSES + 4)]
    assert [number for number in range(1, 8) if places.at(address(number), "C1")] == [1, 4, 5, 6, 7]


def test_a_device_is_a_holder_and_the_owner() -> None:
    places = IncidentPlaces()
    one = incident("I1", address(1))
    assert owner_of(one) == address(1)
    one.device = render_mac(MAC)
    places.enter(one, address(2))
    assert owner_of(one) == MAC
    assert holders_of(one) == [address(1), address(2), MAC]
    assert places.at(MAC, "C1") == "I1"


def test_what_is_shared_takes_no_place() -> None:
    places = IncidentPlaces()
    one, other = incident("I1", address(1)), incident("I2", address(1))
    places.take(one)
    places.share(other)
    assert places.at(address(1), "C1") == "I1"
    places.drop(address(1), other)
    assert places.at(address(1), "C1") == "I1"
    places.take(other)
    assert places.at(address(1), "C1") == "I2"
