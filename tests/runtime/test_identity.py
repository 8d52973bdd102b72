"""Devices in the daemon: what frames, leases and the neighbour table say, incidents and isolations that follow."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from egressd.capture.rtnetlink import Neighbour
from egressd.errors import Malformed
from egressd.runtime import screens
from egressd.runtime.identity import resolve_pointer
from egressd.store import incidents
from egressd.web.requests import WRONG, Refused
from tests.detect.scene import packed
from tests.loops import HANG_S, in_loop
from tests.runtime.core_scene import CONFIG, WHY, Site, site_at
from tests.runtime.process import Process
from tests.runtime.scene import SECOND, T0, attempt, flow, match, sighting

LAPTOP, PRINTER = "021a2b000001", "001a2b000002"
A7, A9, SIX = packed("10.1.0.7"), packed("10.1.0.9"), packed("2001:db8:2::a")
LISTED = match("c2.listed.example")
LEASES = CONFIG + "devices: {leases: [dnsmasq.leases]}\n"


def contact(site: Site, mac: str, client: bytes, second: int, found: Any = LISTED, attached: bool = True) -> None:
    """A client's contact, its frames under `mac`."""
    spoken = [[mac, client.hex(), attached, T0 + second * SECOND]]
    one = sighting(client, second=second, found=found)
    if len(client) == 16:
        one.flow = flow(client, packed("2001:db8:f::66"))
    site.core.intake.take(0, Process().say(one).batch(spoken=spoken))


def lease(folder: Path, *rows: tuple[str, str, str]) -> None:
    """What dnsmasq wrote: (MAC, address, name)."""
    lines = [f"{T0 // SECOND + 86_400} {mac} {address} {name} *\n" for mac, address, name in rows]
    (folder / "dnsmasq.leases").write_text("".join(lines))


def confirmed(mac: str, address: bytes) -> Neighbour:
    return Neighbour(2, address, bytes.fromhex(mac), True)


async def told(site: Site) -> list[dict[str, Any]]:
    await site.core.scribe.settled()
    found: list[dict[str, Any]] = (await screens.incidents(site.core, None, None))["incidents"]
    return found


@in_loop
async def test_incidents_of_what_is_no_address_are_a_wrong_request(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        with pytest.raises(Refused, match="nobody is not an address; egressd hosts has them") as refused:
            await screens.incidents(site.core, None, "nobody")
        assert refused.value.code == WRONG  # as for isolate, release, cut


@in_loop
async def test_an_incident_follows_its_device_over_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        contact(site, LAPTOP, A7, 0)
        contact(site, LAPTOP, SIX, 1)
        contact(site, PRINTER, A7, 60)
        first = await told(site)
        assert [(one["id"], one["device"], one["client"], one["addresses"]) for one in first] == [
            ("I1", "02:1a:2b:00:00:01", "2001:db8:2::a", ["10.1.0.7", "2001:db8:2::a"]),
            ("I2", "00:1a:2b:00:00:02", "10.1.0.7", ["10.1.0.7"]),
        ]
        assert [one["device_random"] for one in first] == [True, False]
        assert first[0]["via"].keys() == {"tls"}  # as in events; it was `tls_sni` here alone
        assert len((await screens.hosts(site.core))["hosts"]) == 2
        hands = site.hands
    hands.pass_s(120)
    async with site_at(tmp_path, hands=hands) as again:
        assert [one["addresses"] for one in await told(again)] == [one["addresses"] for one in first]
        contact(again, LAPTOP, packed("2001:db8:2::b"), 130)
        after = await told(again)
        assert [one["id"] for one in after] == ["I1", "I2"]
        assert after[0]["addresses"][-1] == "2001:db8:2::b"
        assert after[0]["stage"].startswith(
            "stage: repeated contact, 2 hosts, no answer seen; data out: not measured; seen in 0 p"
        )


@in_loop
async def test_what_turns_out_to_be_one_device_is_folded_in_the_ledger(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        contact(site, LAPTOP, A7, 0)
        contact(site, LAPTOP, A9, 10)
        assert len(await told(site)) == 2
        spoken = [[LAPTOP, A9.hex(), True, T0 + 311 * SECOND]]
        site.core.intake.take(0, Process().batch(spoken=spoken))
        site.core.follow_devices()
        (one,) = await told(site)
        assert one["id"] == "I1"
        assert one["addresses"] == ["10.1.0.7", "10.1.0.9"]
        (folded,) = [one for one in site.ears.records if one["egressd"].get("state") == "folded"]
        assert (folded["egressd"]["incident"], folded["egressd"]["folded_into"]) == ("I2", "I1")
        (host,) = (await screens.hosts(site.core))["hosts"]
        assert (host["client"], host["incidents"], host["addresses"]) == ("10.1.0.9", ["I1"], ["10.1.0.7", "10.1.0.9"])


@pytest.mark.parametrize(("late_us", "anothers", "hosts"), [(200, False, 1), (200, True, 2), (3_000_000, False, 2)])
@in_loop
async def test_an_address_whose_sender_is_told_a_moment_later(
    tmp_path: Path, late_us: int, anothers: bool, hosts: int
) -> None:
    """Of a host with IPv4 and IPv6 a second incident stayed for ever, of the same address and without a contact, for
    the frame that told whose address it is came 0.2 ms behind the contact."""
    async with site_at(tmp_path) as site:
        contact(site, LAPTOP, SIX, 0)
        if anothers:
            site.core.intake.take(0, Process().batch(spoken=[[PRINTER, A7.hex(), True, T0 - 400 * SECOND]]))
        site.core.intake.take(0, Process().say(sighting(A7, second=1, found=LISTED)).batch())
        spoken = [[LAPTOP, A7.hex(), True, T0 + SECOND + late_us]]
        site.core.intake.take(0, Process().batch(spoken=spoken))
        site.core.follow_devices()
        assert len(await told(site)) == hosts
        assert len((await screens.hosts(site.core))["hosts"]) == hosts


@in_loop
async def test_a_lease_says_at_once_who_moved_and_what_he_is_called(tmp_path: Path) -> None:
    lease(tmp_path, (_colons(LAPTOP), "10.1.0.7", "pc-kasuga"))
    async with site_at(tmp_path, config=LEASES) as site:
        await site.core.identity.look()
        contact(site, LAPTOP, A7, 0)
        site.hands.pass_s(10)
        lease(tmp_path, (_colons(LAPTOP), "10.1.0.9", "pc-kasuga"), (_colons(PRINTER), "10.1.0.7", "printer"))
        await site.core.identity.look()
        contact(site, LAPTOP, A9, 11)
        contact(site, PRINTER, A7, 12)
        assert [(one["id"], one["device_name"], one["addresses"]) for one in await told(site)] == [
            ("I1", "pc-kasuga", ["10.1.0.7", "10.1.0.9"]),
            ("I2", "printer", ["10.1.0.7"]),
        ]


@in_loop
async def test_names_can_be_left_out(tmp_path: Path) -> None:
    lease(tmp_path, (_colons(LAPTOP), "10.1.0.7", "pc-kasuga"))
    async with site_at(tmp_path, config=CONFIG + "devices: {leases: [dnsmasq.leases], names: false}\n") as site:
        await site.core.identity.look()
        contact(site, LAPTOP, A7, 0)
        (one,) = await told(site)
        assert (one["device"], one["device_name"]) == ("02:1a:2b:00:00:01", None)


@in_loop
async def test_a_lease_file_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with site_at(tmp_path, config=LEASES) as site:
        with caplog.at_level(logging.ERROR):
            await site.core.identity.look()
            await site.core.identity.look()
        assert site.core.identity.problems == {"dnsmasq.leases": "No such file or directory"}
        assert len(caplog.records) == 1
        lease(tmp_path, (_colons(LAPTOP), "10.1.0.7", "*"))
        await site.core.identity.look()
        assert (site.core.identity.problems, site.core.devices.leases) == ({}, 1)


@in_loop
async def test_another_file_under_the_name_of_the_leases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its devices were forgotten without a word; now they stay, and there is an alarm."""
    async with site_at(tmp_path, config=LEASES) as site:
        lease(tmp_path, (_colons(LAPTOP), "10.1.0.7", "*"))
        await site.core.identity.look()
        (tmp_path / "dnsmasq.leases").write_text("address=/c2.example/192.0.2.1\n")
        await site.core.identity.look()
        await site.core.identity.look()
        why = "is no lease file of dnsmasq, ISC dhcpd or Kea"
        assert (site.core.identity.problems, site.core.devices.leases) == ({"dnsmasq.leases": why}, 1)
        assert [one.getMessage() for one in caplog.records] == [f"the lease file dnsmasq.leases cannot be read: {why}"]
        lease(tmp_path, (_colons(LAPTOP), "10.1.0.7", "*"))
        await site.core.identity.look()
        assert (site.core.identity.problems, site.core.devices.leases) == ({}, 1)


@in_loop
async def test_another_file_is_read_once_and_the_alarm_ends_when_the_one_of_before_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved away and back, the file is the one that was read, and the alarm stayed until a lease changed."""
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return path.read_text()

    async with site_at(tmp_path, config=LEASES) as site:
        identity = site.core.identity
        lease(tmp_path, (_colons(LAPTOP), "10.1.0.7", "*"))
        await identity.look()
        monkeypatch.setattr("egressd.runtime.identity._text_of", counted)
        leases = (tmp_path / "dnsmasq.leases").rename(tmp_path / "kept")
        other = tmp_path / "dnsmasq.leases"
        other.write_text("address=/c2.example/192.0.2.1\n")
        for _ in range(3):
            await identity.look()
        assert (len(read), list(identity.problems)) == (1, ["dnsmasq.leases"])
        leases.rename(other)
        await identity.look()
        assert (len(read), identity.problems, site.core.devices.leases) == (1, {}, 1)


@in_loop
async def test_a_lease_file_that_is_none_and_is_not_named_any_more(tmp_path: Path) -> None:
    """A pipe held up everything about devices; and the alarm stayed when the configuration did not name the file."""
    os.mkfifo(tmp_path / "dnsmasq.leases")
    async with site_at(tmp_path, config=LEASES) as site:
        async with asyncio.timeout(HANG_S):
            await site.core.identity.look()
        assert site.core.identity.problems == {"dnsmasq.leases": "is no file"}
        site.path.write_text(CONFIG)
        await site.do("reload")
        await site.core.identity.look()
        assert site.core.identity.problems == {}


@in_loop
async def test_an_isolated_device_is_isolated_under_all_its_addresses_and_new_ones(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        core = site.core
        core.identity.met([confirmed(LAPTOP, A7), confirmed(LAPTOP, SIX)])
        answer = await site.do("isolate", client="10.1.0.7")
        assert answer["lines"][0].startswith("covered: 10.1.0.7, 2001:db8:2::a, of 02:1a:2b:00:00:01;")
        assert set(core.register.isolated()) == {"10.1.0.7", "2001:db8:2::a"}
        assert (await site.refused("isolate", client="2001:db8:2::a")).text.endswith(answer["decision_id"])
        core.identity.met([confirmed(LAPTOP, packed("2001:db8:2::b")), confirmed(PRINTER, A9)])
        core.follow_devices()
        assert set(core.register.isolated()) == {"10.1.0.7", "2001:db8:2::a", "2001:db8:2::b"}
        assert "client 2001:db8:2::b" in site.rules()
        row = await site.row(answer["decision_id"])
        assert len(row.targets) == 3
        assert (
            "egressd",
            "extend",
            answer["decision_id"],
            "the isolated device has this address now",
        ) in await site.audit()
        released = await site.do("release", client="2001:db8:2::b")
        assert (released["text"], core.register.isolated()) == ("10.1.0.7 is released", {})


@in_loop
async def test_what_stood_in_frames_only_is_never_isolated_along(tmp_path: Path) -> None:
    """A host that sends from a neighbour's address must not get him isolated with it."""
    async with site_at(tmp_path) as site:
        contact(site, LAPTOP, SIX, 0)
        contact(site, LAPTOP, A7, 1)
        answer = await site.do("isolate", client="2001:db8:2::a")
        assert set(site.core.register.isolated()) == {"2001:db8:2::a"}
        site.core.follow_devices()
        assert set(site.core.register.isolated()) == {"2001:db8:2::a"}
        assert "10.1.0.7" not in " ".join(answer["lines"])


@in_loop
async def test_without_a_device_isolate_says_what_it_covers(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        answer = await site.do("isolate", client="10.1.0.7")
        assert answer["lines"][0].startswith("covered: 10.1.0.7 only; its device is not known")


@in_loop
async def test_the_reverse_zone_is_asked_once_a_day_for_each_address(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def resolve(address: bytes) -> str:
        asked.append(address)
        return "pc-\x07kasuga.lab.ours.example"

    from concurrent.futures import ThreadPoolExecutor

    async with site_at(tmp_path, config=CONFIG + "devices: {reverse_zone: true}\n") as site:
        identity = site.core.identity
        identity._resolve = resolve
        contact(site, LAPTOP, A7, 0)
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                await identity._ask_names(pool)
        assert asked == [A7]
        (one,) = await told(site)
        assert one["device_name"] == "pc-?kasuga.lab.ours.example"


def test_a_name_of_the_reverse_zone_that_is_no_text_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes /etc/hosts, or answers where the resolver looks at nothing (nss-resolve(8), nss_mdns), would end
    the daemon with a byte."""

    def getnameinfo(*_: object) -> tuple[str, str]:
        return b"ev\xffil.example".decode(), "0"

    monkeypatch.setattr(socket, "getnameinfo", getnameinfo)
    with pytest.raises(OSError, match="is no text"):
        resolve_pointer(A7)


@pytest.mark.parametrize(
    "row",
    [[], ["021a2b00000", "0a000001", True, 1], ["021a2b000001", "", True, 1], ["021a2b000001", "0a000001", 1, 1], 7],
)
@in_loop
async def test_what_a_packet_process_may_not_say(tmp_path: Path, row: Any) -> None:
    async with site_at(tmp_path) as site:
        with pytest.raises(Malformed):
            site.core.intake.take(0, Process().batch(spoken=[row]))


# -- campaigns


def behaves(second: int, destination: str, client: bytes = A7) -> Any:
    found = match(destination, level="behaviour")
    found = found._replace(indicator=found.indicator._replace(source="behaviour:opaque_get"))
    return sighting(client, second=second, found=found)


@in_loop
async def test_a_candidate_is_shown_kept_and_decided_by_a_person(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.sees(sighting(found=LISTED, client=A7), attempt(A7, 5, found=LISTED))
        site.sees(behaves(1_000, "other.example"), behaves(1_100, "third.example"))
        found = await told(site)
        assert [one["campaign"] for one in found[0]["candidates"]] == ["C2", "C3"]
        assert "tried listed.example, blocked" in found[0]["candidates"][0]["reason"]
        opened = [one["egressd"] for one in site.ears.records if one["egressd"].get("state") == "opened"]
        assert [one.get("candidate_of", [{}])[0].get("campaign") for one in opened] == [None, "C1", "C1"]
        kept = await site.ledger.read(incidents.load_campaigns)
        assert list(kept[0].candidates) == ["C2", "C3"]
        assert (await site.do("untie", campaign="C1", candidate="C2"))["text"] == "C2 is no candidate of C1 any more"
        assert "no candidate" in (await site.refused("untie", campaign="C1", candidate="C2")).text
        assert "there is no campaign C9" in (await site.refused("tie", campaign="C1", candidate="C9")).text
        hands = site.hands
    async with site_at(tmp_path, hands=hands) as again:
        (listed, *_) = await told(again)
        assert [one["campaign"] for one in listed["candidates"]] == ["C3"]
        again.sees(attempt(A7, 1_150, found=LISTED), behaves(1_200, "other.example"))
        assert [one["campaign"] for one in (await told(again))[0]["candidates"]] == ["C3"], "it was rejected for good"
        answer = await again.do("tie", campaign="C3", candidate="C1")
        assert answer["text"] == "C3 is part of C1 now, which has 1 incident"
        listed = (await told(again))[0]
        assert (listed["candidates"], listed["ties"]) == ([], [f"uid:anna: {WHY}"])
        assert [act for _, act, _, _ in await again.audit()][-2:] == ["untie", "tie"]


@in_loop
async def test_names_that_lived_on_one_address_are_one_campaign_when_a_machine_met_both(tmp_path: Path) -> None:
    async with site_at(tmp_path, lists="c2.listed.example\nworse.example\n") as site:
        site.core.learning.remember((("worse.example", packed("203.0.113.66"), T0 - SECOND),))
        site.sees(sighting(found=match("worse.example"), client=A9))
        site.sees(sighting(found=LISTED, client=A7))
        assert {one["campaign"] for one in await told(site)} == {"C1", "C2"}
        row = ["listed.example", packed("203.0.113.66").hex(), T0]
        site.core.intake.take(0, Process().batch(tenants=[row]))
        why = "listed.example and worse.example both lived on 203.0.113.66"
        found = {one["campaign"]: one for one in await told(site)}
        assert found["C1"]["candidates"] == [{"campaign": "C2", "reason": why}] and found["C2"]["ties"] == []
        site.sees(sighting(found=LISTED, client=A9))
        found = {one["campaign"]: one for one in await told(site)}
        assert found.keys() == {"C1"} and found["C1"]["ties"] == [why]


def _colons(mac: str) -> str:
    return bytes.fromhex(mac).hex(":")
