"""What behaviour finds in a packet process crosses to the core: an incident, its parts, a question to a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressd.errors import Malformed
from egressd.model import Decision, Event, Part, Sighting
from egressd.runtime.messages import MAX_PARTS, pack_event, unpack_event
from egressd.store.decisions import PROPOSED
from tests.detect.behaviour.test_watching import Office, opaque
from tests.detect.scene import A, X
from tests.loops import in_loop
from tests.runtime.core_scene import site_at
from tests.runtime.scene import match, sighting


def found() -> list[Event]:
    """What an engine tells of GETs with opaque tails."""
    office = Office()
    for number, second in enumerate(office.every(300, 6, 0.3)):
        office.http(second, A, X, "cdn.odd.example", opaque(number), sport=40_000 + number)
    return [event for event in office.events if isinstance(event, Sighting | Decision)]


def test_parts_and_questions_arrive_as_they_were() -> None:
    told = found()
    assert [event.parts for event in told if isinstance(event, Sighting)]
    for event in told:
        arrived = unpack_event(pack_event(event))
        if isinstance(event, Sighting):
            assert isinstance(arrived, Sighting)
            assert (arrived.parts, arrived.match) == (event.parts, event.match)
        else:
            assert isinstance(arrived, Decision)
            assert (arrived.action, arrived.id, arrived.reason) == (event.action, event.id, event.reason)


def test_no_more_parts_than_there_are_detectors() -> None:
    many = sighting()
    many.parts = tuple(Part("beacon", 50, "x") for _ in range(MAX_PARTS + 1))
    with pytest.raises(Malformed):
        unpack_event(pack_event(many))


@in_loop
async def test_an_incident_is_opened_a_person_asked_and_nothing_blocked(tmp_path: Path) -> None:
    async with site_at(tmp_path, mode="enforce") as site:
        site.sees(*found())
        assert site.rules() == []
        (question,) = site.core.register.by_id.values()
        assert (question.state, question.target.value) == (PROPOSED, "odd.example")
        (incident,) = site.core.campaigns.incidents.values()
        assert (incident.match.level, incident.match.registered_domain) == ("behaviour", "odd.example")
        assert "another opaque string appended" in incident.match.indicator.ref
        assert site.core.rulings.counts == {"alert": 1, "ask": 1}
        assert [act for _, act, _, _ in await site.audit() if act in ("alert", "ask")] == ["alert", "ask"]
        site.sees(sighting(client=incident.client, name="odd.example", found=match("odd.example")))
        assert incident.match.level == "host", "a list says more"
