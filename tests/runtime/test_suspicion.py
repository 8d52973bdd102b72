"""Evidence about what no list names becomes an incident that people are told of, and nothing is blocked for it."""

from __future__ import annotations

from pathlib import Path

from egressd.detect.behaviour.volume import VolumeSettings
from egressd.detect.evidence import Evidence
from egressd.notify.sentences import incident_line
from egressd.runtime import alarms, screens
from egressd.runtime.volume_watch import VolumeWatch
from tests.loops import in_loop
from tests.runtime.core_scene import site_at
from tests.runtime.scene import SECOND, T0, A, X, match, sighting

REASON = "sent 1.2 GiB in 40 min to 203.0.113.9 (no name); usual for it: nothing; of others there: nobody"
TO_ADDRESS = Evidence("volume", A, "203.0.113.9", 100, REASON, T0, T0 + 2_400 * SECOND)
TO_NAME = Evidence("volume", A, "drop.example", 80, "sent 90 MiB", T0, T0 + 60 * SECOND)


@in_loop
async def test_evidence_opens_an_incident_and_blocks_nothing(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.core.intake.suspect(TO_ADDRESS)
        site.core.intake.suspect(TO_NAME)
        site.core.intake.suspect(TO_NAME._replace(score=90, last_us=T0 + 90 * SECOND))
        assert site.rules() == [] and len(site.core.register) == 0
        first, second = site.core.campaigns.incidents.values()
        assert (first.match.level, first.match.registered_domain, first.match.indicator.value) == (
            "behaviour", "", "203.0.113.9",
        )  # fmt: skip
        assert (second.match.registered_domain, second.via) == ("drop.example", {"behaviour": 2})
        assert (second.first_us, second.last_us) == (T0, T0 + 90 * SECOND)
        assert site.core.intake.levels == {"behaviour": 3}
        line = incident_line(first, site.core.rulings.outcome(first.match))
        assert "BEHAVES UNUSUALLY: sent 1.2 GiB in 40 min to 203[.]0[.]113[.]9 (no name)" in line.text
        assert "score 100" in line.text and "NOT blocked: alert only" in line.text
        assert "listed" not in line.text
        await site.core.scribe.settled()
        hands = site.hands
    async with site_at(tmp_path, hands=hands) as again:
        found = list(again.core.campaigns.incidents.values())
        assert [one.match.indicator.ref for one in found] == [REASON, "sent 90 MiB"]


@in_loop
async def test_it_joins_the_campaign_of_a_listed_domain(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.core.intake.suspect(TO_NAME._replace(destination="listed.example"))
        before = list(site.core.campaigns.campaigns)
        site.sees(sighting(found=match("c2.listed.example")))
        assert list(site.core.campaigns.campaigns) == before
        assert len(site.core.campaigns.incidents) == 1


@in_loop
async def test_what_packet_processes_tell_names_the_destinations_of_volume(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        core = site.core
        core.volume = volume = VolumeWatch(
            VolumeSettings(),
            core.knowledge.intel.suffixes,
            core.clock,
            core.station.whose.leads_out,
            core.intake.suspect,
        )
        core._take_history([(A, "shop.example", "www.shop.example", X, T0, T0 + SECOND, 1), (A, "", "", X, T0, T0, 1)])
        core._take_tenants(0, (("cloud.example", X, T0),))
        core.learning.reached(A, "listed.example", X, T0)
        assert list(volume._names) == [
            (A, "shop.example", X, T0 + SECOND), (b"", "cloud.example", X, T0), (A, "listed.example", X, T0),
        ]  # fmt: skip


@in_loop
async def test_status_says_when_volume_is_not_observed(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        core = site.core
        core.volume = VolumeWatch(
            VolumeSettings(), core.knowledge.intel.suffixes, core.clock, core.station.whose.leads_out,
            core.intake.suspect, is_on=lambda: False,
        )  # fmt: skip
        assert not any("VOLUME" in one for one in alarms.warnings(core))
        assert core.volume._open() is None
        (said,) = [one for one in alarms.warnings(core) if "VOLUME" in one]
        assert said.endswith("is not counted: sysctl -w net.netfilter.nf_conntrack_acct=1") and len(said) < 77
        # Incidents said `data out: not observed` all the same, which is another thing than not measured.
        assert not screens.watched_of(core).by_volume
        core.volume.problem = ""
        assert screens.watched_of(core).by_volume


@in_loop
async def test_a_reload_takes_new_quantities(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        core = site.core
        core.volume = VolumeWatch(
            VolumeSettings(),
            core.knowledge.intel.suffixes,
            core.clock,
            core.station.whose.leads_out,
            core.intake.suspect,
        )
        text = site.path.read_text() + "volume: {out_mib_hour: 500, except_segments: [lab]}\n"
        site.path.write_text(text)
        await core.reload()
        taken = core.volume._swapped
        assert taken is not None and taken[0].out_hour == 500 << 20
        assert taken[0].except_clients.longest(bytes((10, 1, 0, 9))) is not None
