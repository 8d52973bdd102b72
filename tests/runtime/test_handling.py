"""Incidents that a person closes: off the list, on the record, and opened by the next contact."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from egressd.notify.eve import render_time
from egressd.runtime import screens
from egressd.store.errors import StoreError
from tests.loops import in_loop
from tests.runtime.core_scene import BERT, WHY, Site, site_at
from tests.runtime.scene import SECOND, T0, attempt, sighting
from tests.runtime.test_verbs import LISTED, policy_block


async def states(site: Site) -> dict[str, str]:
    """Id -> state of all incidents, as the screen has them."""
    await site.core.scribe.settled()
    return {one["id"]: one["state"] for one in (await screens.incidents(site.core, "all", None))["incidents"]}


@in_loop
async def test_a_closed_incident_is_off_the_list_with_who_and_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "egressd")
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED), policy_block())
        await site.do("ack", incident="I1")
        answer = await site.do("close", BERT, incident="I1")
        assert answer["text"].startswith("I1 of 10.0.0.5 is closed; its last contact was 20")
        assert "opens another incident" in answer["lines"][0]
        assert ("uid:bert", "close", "I1", WHY) in await site.audit()
        assert f"incident I1 of 10.0.0.5 is closed by uid:bert: {WHY}" in caplog.text
        assert (await screens.incidents(site.core, None, None))["incidents"] == []
        assert (await screens.hosts(site.core))["hosts"] == []
        (one,) = (await screens.incidents(site.core, "closed", None))["incidents"]
        assert [note["text"] for note in one["notes"]] == [f"closed by uid:bert: {WHY}"]
        assert site.rules() == ["registered_domain listed.example"], "what is blocked stays blocked"


@in_loop
async def test_the_next_contact_opens_another_in_the_same_campaign(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED))
        await site.do("close", incident="I1")
        site.sees(sighting(found=LISTED))
        assert await states(site) == {"I1": "closed", "I2": "open"}
        assert site.core.campaigns.campaigns["C1"].incidents == ["I2"]
        assert (await site.do("undo"))["lines"] == ["I1 stays closed: its host was met again, which is I2"]
        assert await states(site) == {"I1": "closed", "I2": "open"}


@in_loop
async def test_undo_puts_it_back_as_it_was(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED))
        await site.do("ack", incident="I1")
        await site.do("close", incident="I1")
        assert (await site.do("undo"))["lines"] == ["I1 is not closed any more"]
        assert await states(site) == {"I1": "acknowledged"}
        assert ("uid:anna", "reopen", "I1", WHY) in await site.audit()
        site.sees(sighting(found=LISTED))
        assert await states(site) == {"I1": "acknowledged"}


@in_loop
async def test_undo_goes_on_counting_its_leaks(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED), attempt(found=LISTED, leak=True), attempt(found=LISTED, leak=True))
        await site.do("close", incident="I1")
        assert site.core.intake.leaks == {}
        await site.do("undo")
        site.sees(sighting(found=LISTED), attempt(found=LISTED, leak=True))
        await site.core.scribe.settled()
        (one,) = (await screens.incidents(site.core, None, None))["incidents"]
        assert one["leaks"] == 3


@in_loop
async def test_the_event_log_hears_that_it_is_closed_and_opened_again(tmp_path: Path) -> None:
    """Whoever follows the event log alone saw it open for ever: it heard of those alone that another one took over."""
    schema = json.loads((Path(__file__).parents[2] / "docs" / "events.schema.json").read_text(encoding="utf-8"))
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED), attempt(found=LISTED))
        site.hands.pass_s(60)
        await site.do("close", BERT, incident="I1")
        site.hands.pass_s(60)
        await site.do("undo", BERT)
        told = [one for one in site.ears.records if one["event_type"] == "incident"]
        for one in told:
            Draft202012Validator(schema).validate(one)
        assert [one["egressd"]["state"] for one in told] == ["opened", "closed", "reopened"]
        _, closed, reopened = told
        assert closed["timestamp"] == render_time(T0 + 60 * SECOND)
        assert (closed["egressd"]["reason"], closed["egressd"]["count"], closed["egressd"]["attempts"]) == (
            f"uid:bert: {WHY}", 1, 1,
        )  # fmt: skip
        assert (reopened["egressd"]["reason"], reopened["src_ip"]) == (f"uid:bert: {WHY}", "10.0.0.5")


@in_loop
async def test_what_cannot_be_taken_back_stays_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host's contacts would go to an incident that the ledger has as closed: on no screen, until a restart."""

    def fails(*_: Any) -> bool:
        raise StoreError("the disk is full")

    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED))
        await site.do("close", incident="I1")
        with monkeypatch.context() as patch:
            patch.setattr("egressd.store.incidents.reopen", fails)
            with pytest.raises(StoreError, match="disk is full"):
                await site.do("undo")
        site.sees(sighting(found=LISTED))
        assert await states(site) == {"I1": "closed", "I2": "open"}


@in_loop
async def test_what_is_not_there_or_closed_already_is_refused(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED))
        await site.do("close", incident="I1")
        for id_, why in (("I1", "I1 is closed already"), ("I7", "no incident I7")):
            with pytest.raises(StoreError, match=why):
                await site.do("close", incident=id_)
