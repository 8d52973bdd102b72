"""The incident that the project exists for, beat by beat, with real packets through one daemon; and beside it the
innocent traffic that must never be hurt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns import clients, kernel
from tests.netns.daemon import Daemon, until
from tests.netns.ground import Ground
from tests.netns.topology import GATEWAY4, JPS

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

LATER = ("later1", "later2", "later3")
DOMAIN = "news-portal.example"
CDN = "192.0.2.80"  # serves innocents, and from beat c on a listed name too
ELSEWHERE = "weather-sync.example"
REPORT_S = 6.0  # between two reports: what comes within five seconds is one visit
PROGRAMS_TAKE_NS = 3_000_000  # from an answer to a connection
ZONE = {
    f"a.{DOMAIN}": ["203.0.113.66"],
    f"b.{DOMAIN}": ["203.0.113.67"],
    f"c.{DOMAIN}": ["203.0.113.68"],
    f"cdn.{DOMAIN}": [CDN],
    f"dns.{DOMAIN}": ["8.8.8.8"],
    f"us.{DOMAIN}": [GATEWAY4[JPS]],
    f"i.{ELSEWHERE}": ["203.0.113.77"],
    "static.shop.example": [CDN],
    "img.photos.example": [CDN],
    "media.school.example": [CDN],
    "ours.github.io": ["192.0.2.90"],
    "theirs.github.io": ["203.0.113.90"],
    "www.cityoffice.example": ["192.0.2.21"],
}
INNOCENT = ("static.shop.example", "img.photos.example", "media.school.example", "ours.github.io")
INNOCENT += ("www.cityoffice.example",)


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may", "office", *LATER), ZONE) as ground:
        yield ground


def test_the_five_beats(ground: Ground) -> None:
    with ground.daemon("theirs.github.io\n", {"behaviour": {"learning_h": 0}}, realtime=True) as daemon:
        innocents_browse(ground)
        beat_a(ground, daemon)
        innocents_browse(ground)  # sixteen days go by
        beat_b(ground, daemon)
        beat_c(ground, daemon)
        beat_d(ground, daemon)
        innocents_browse(ground)
        nobody_innocent_is_told_of(ground, daemon)
        beat_e(ground, daemon)


def innocents_browse(ground: Ground) -> None:
    for host in ("april", "may", "office", *LATER):
        for name in INNOCENT:
            assert ground.visit(host, name) == (clients.ESTABLISHED, True), (host, name)
    assert ground.resolve("office", "theirs.github.io")  # a tenant of the same suffix, and listed


def beat_a(ground: Ground, daemon: Daemon) -> None:
    """April: GETs with opaque strings to a name that nobody lists yet; then the notice comes."""
    for number in range(5):
        assert ground.visit("april", f"a.{DOMAIN}", f"?id={number * 7_919_191:x}")[1]
    daemon.list_file.write_text(f"theirs.github.io\na.{DOMAIN}\n")  # taken when it is saved
    row = until(lambda: incident_of(ground, daemon, "april"), why="the host of April is not named")
    assert (row["registered_domain"], row["retro"]) == (DOMAIN, True)
    assert row["contacts"] >= 5
    until(lambda: ground.visit("april", f"a.{DOMAIN}", "?id=1")[0] == clients.REFUSED)


def beat_b(ground: Ground, daemon: Daemon) -> None:
    """May: a subdomain that no list has. The first connection is stopped, and it is the same campaign."""
    before = len(ground.hits())
    assert tries(ground, "may", f"b.{DOMAIN}") == (clients.REFUSED, False)
    row = until(lambda: incident_of(ground, daemon, "may"))
    april = incident_of(ground, daemon, "april")
    assert april is not None
    assert row["campaign"] == april["campaign"]
    assert requests(ground, before) == []


def beat_c(ground: Ground, daemon: Daemon) -> None:
    """Three hosts try for days; the attacker also aims his answers at what others need."""
    before = len(ground.hits())
    for number in range(12):
        for host in LATER:
            name = f"{'bc'[number % 2]}.{DOMAIN}"
            assert tries(ground, host, name) == (clients.REFUSED, False), (host, name)
    assert requests(ground, before) == []
    rows = [until(lambda host=host: incident_of(ground, daemon, host), 5) for host in LATER]
    assert len({row["campaign"] for row in rows}) == 1
    assert all(row["leaks"] == 0 for row in rows)
    opened = daemon.events("incident", state="opened")
    assert len([one for one in opened if one["egressd"]["registered_domain"] == DOMAIN]) == 5  # not 36
    for label in ("cdn", "dns", "us"):
        assert ground.resolve("later1", f"{label}.{DOMAIN}")
    until(lambda: {"shared", "protected"} <= refusals(daemon))


def tries(ground: Ground, host: str, name: str) -> tuple[str, bool]:
    """A host resolves a name and connects as soon as programs do; how soon they might is measured elsewhere
    (tests/netns/test_live_first.py, bench/live.py)."""
    segment = ground[host].segment
    told = ground[host].space.call(clients.tries, [name], GATEWAY4[segment], [PROGRAMS_TAKE_NS])[0]
    return told.outcome, told.delivered


def requests(ground: Ground, after: int) -> list[dict[str, Any]]:
    """What reached a server beyond the gateway: more than a handshake."""
    return [one for one in ground.hits(after) if one["bytes"]]


def refusals(daemon: Daemon) -> set[str]:
    return {one["egressd"]["rule"] for one in daemon.events("decision", action="refuse")}


def beat_d(ground: Ground, daemon: Daemon) -> None:
    """A host sends GETs of the same shape to a domain that nobody lists. Behaviour finds it and asks a person; nothing
    is blocked until one says so. (Half a minute here, 24 in the scenario: it counts how many times, not how long.)"""
    paths = [f"i.php?id={hashlib.sha256(bytes([number])).hexdigest()[:28]}" for number in range(7)]
    told = ground["later3"].space.call(clients.reports, f"i.{ELSEWHERE}", GATEWAY4[JPS], paths, REPORT_S)
    assert told == [(clients.ESTABLISHED, True)] * len(paths), "behaviour alone stopped something"
    question = until(lambda: question_about(daemon, ELSEWHERE), why="behaviour has not found it")
    assert (question["state"], question["rule"]) == ("proposed", "behaviour-strong")
    assert "opaque" in question["reason"]
    assert "203.0.113.77" not in kernel.blocked(ground.gateway)
    rows = [one for one in daemon.ask("incidents")["incidents"] if one["registered_domain"] == ELSEWHERE]
    assert [one["client"] for one in rows] == [ground["later3"].v4]
    daemon.ask("approve", id=question["id"], reason="the host has been imaged, it is a backdoor")
    until(lambda: tries(ground, "later3", f"i.{ELSEWHERE}") == (clients.REFUSED, False))


def question_about(daemon: Daemon, domain: str) -> dict[str, Any] | None:
    rows = daemon.ask("decisions", state="proposed")["decisions"]
    found = [row for row in rows if row["targets"][0]["value"] == domain]
    return found[0] if found else None


def beat_e(ground: Ground, daemon: Daemon) -> None:
    """One confirmed command cuts the segment; the other one goes on."""
    told = daemon.ask("cut", segment=JPS, for_s=600, confirm=JPS, reason="the leak is confirmed")
    assert any("not seen here" in line for line in told["lines"])
    assert ground.get("may", "192.0.2.21", "www.cityoffice.example")[0] != clients.ESTABLISHED
    assert ground.get("april", "192.0.2.21", "www.cityoffice.example") == (clients.ESTABLISHED, True)
    daemon.ask("uncut", segment=JPS, reason="it is over")


def nobody_innocent_is_told_of(ground: Ground, daemon: Daemon) -> None:
    told = {one["client"] for one in daemon.ask("incidents")["incidents"] if one["registered_domain"] == DOMAIN}
    assert told == {ground[host].v4 for host in ("april", "may", *LATER)}
    assert not kernel.blocked(ground.gateway).keys() & {CDN, "192.0.2.90", "192.0.2.21", "8.8.8.8", GATEWAY4[JPS]}
    names = {one["egressd"]["name"] for one in daemon.events("sighting")}
    assert not names & set(INNOCENT)


def incident_of(ground: Ground, daemon: Daemon, host: str) -> dict[str, Any] | None:
    found = [one for one in daemon.ask("incidents")["incidents"] if one["client"] == ground[host].v4]
    found = [one for one in found if one["registered_domain"] == DOMAIN]
    return found[0] if found else None
