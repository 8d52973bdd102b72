"""After the block: three hosts keep trying. Three incidents, one campaign, counts that are exactly the kernel's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.netns import clients, kernel
from tests.netns.attackers import three_hosts_trying
from tests.netns.daemon import Daemon, until
from tests.netns.ground import Ground

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

LATER = ("later1", "later2", "later3")
ADDRESS = "203.0.113.67"
ZONE = {"*.evil.example": [ADDRESS, "2001:db8:f::67"]}


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("may", *LATER), ZONE) as ground:
        yield ground


@pytest.fixture
def daemon(ground: Ground) -> Iterator[Daemon]:
    with ground.daemon("listed.evil.example\n") as daemon:
        yield daemon


def test_three_hosts_trying(ground: Ground, daemon: Daemon) -> None:
    found = three_hosts_trying(ground, daemon, LATER, ADDRESS, 60, 0.02)
    assert found.got_through == 0
    assert len(found.incidents) == 3
    assert len({one["campaign"] for one in found.incidents}) == 1
    for host in LATER:
        row = next(one for one in found.incidents if one["client"] == ground[host].v4)
        assert row["attempts"] == found.tries[host], (host, row)
        assert row["leaks"] == 0
    assert found.kernel_packets == sum(found.tries.values())
    watched = found.watch["clients"]
    assert {one["client"] for one in watched} == {ground[host].v4 for host in LATER}
    assert found.alerts <= 6, "an alert storm"


BARE = {
    "later1": (1, b"\x08\0\0\0\0\7\0\1" + bytes(32)),  # an echo request
    "later2": (50, bytes(7) + b"\1" + bytes(32)),  # ESP
    "later3": (47, b"\0\0\x08\0E\0\0\x20\0\1\0\0@\x11\0\0\x0a\1\1\1\x0a\1\1\2\x0f\xa0\x0f\xa1\0\x0c\0\0abcd"),  # GRE
}


def test_who_tries_by_neither_tcp_nor_udp_is_found(ground: Ground, daemon: Daemon) -> None:
    ground.resolve("may", "b.evil.example")
    until(lambda: ADDRESS in kernel.blocked(ground.gateway))
    for host, (proto, body) in BARE.items():
        for _ in range(3):
            ground[host].space.call(clients.send_bare, ADDRESS, proto, body)
        until(partial(_incident, daemon, ground[host].v4))
    until(lambda: kernel.blocked(ground.gateway)[ADDRESS].packets == 9)
    assert [_attempts(daemon, ground[host].v4) for host in BARE] == [1, 1, 1]
    hosts = [ground[host].v4 for host in BARE]
    told = until(lambda: _protocols(daemon, hosts))
    assert [told[host] for host in hosts] == ["ICMP", "ESP", "GRE"]


def test_an_address_that_a_list_has_is_blocked_at_the_first_echo_request(ground: Ground) -> None:
    with ground.daemon("203.0.113.99\n2001:db8:f::99\n") as daemon:
        ground["later1"].space.call(clients.send_bare, "203.0.113.99", *BARE["later1"])
        until(lambda: "203.0.113.99" in kernel.blocked(ground.gateway))
        ground["later2"].space.call(clients.send_bare, "2001:db8:f::99", 58, b"\x80" + BARE["later1"][1][1:])
        until(lambda: "2001:db8:f::99" in kernel.blocked(ground.gateway))
        until(partial(_incident, daemon, ground["later1"].v4))


@pytest.mark.alone
def test_each_host_is_reported_within_seconds_of_its_first_attempt(ground: Ground, daemon: Daemon) -> None:
    ground.resolve("may", "b.evil.example")
    until(lambda: ADDRESS in kernel.blocked(ground.gateway))
    for host in LATER:
        before_s = time.monotonic()
        assert ground.get(host, ADDRESS, "b.evil.example")[0] == clients.REFUSED
        until(partial(_incident, daemon, ground[host].v4))
        assert time.monotonic() - before_s < 3.0


def _incident(daemon: Daemon, client: str) -> bool:
    return any(one["client"] == client for one in daemon.ask("incidents")["incidents"])


def test_watches_counts_and_incidents_survive_a_restart(ground: Ground, daemon: Daemon) -> None:
    first = three_hosts_trying(ground, daemon, LATER, ADDRESS, 10, 0.02)
    assert len(first.incidents) == 3
    assert daemon.stop() == 0
    # What is tried while nobody looks is stopped all the same, by the kernel alone.
    assert ground.get("later1", ADDRESS, "b.evil.example")[0] == clients.REFUSED
    daemon.start()
    rows = {one["client"]: one for one in daemon.ask("incidents")["incidents"]}
    for one in first.incidents:
        assert rows[one["client"]]["id"] == one["id"]
        assert rows[one["client"]]["attempts"] >= one["attempts"]
        assert rows[one["client"]]["campaign"] == one["campaign"]
    assert ground.get("later2", ADDRESS, "b.evil.example")[0] == clients.REFUSED
    before = rows[ground["later2"].v4]["attempts"]
    until(lambda: _attempts(daemon, ground["later2"].v4) > before)
    assert len(daemon.ask("incidents")["incidents"]) == 3


def _protocols(daemon: Daemon, hosts: list[str]) -> dict[str, str] | None:
    """By host, what it tried by, once an event tells of each."""
    told = {one["src_ip"]: one["proto"] for one in daemon.events("attempt")}
    return told if told.keys() >= set(hosts) else None


def _attempts(daemon: Daemon, client: str) -> int:
    return int(next(one["attempts"] for one in daemon.ask("incidents")["incidents"] if one["client"] == client))


def test_new_addresses_of_a_blocked_name_are_followed(ground: Ground, daemon: Daemon) -> None:
    ground.resolve("may", "b.evil.example")
    for number in range(3):
        address = f"203.0.113.{80 + number}"
        ground.zone({"moving.evil.example": [address]})
        assert ground.resolve("later1", "moving.evil.example") == [address]
        until(partial(_is_blocked, ground, address))
        assert ground.get("may", address, "moving.evil.example")[0] == clients.REFUSED


def _is_blocked(ground: Ground, address: str) -> bool:
    return address in kernel.blocked(ground.gateway)


def test_a_later_indicator_finds_earlier_contacts(ground: Ground) -> None:
    """Beat a: the host that was there before the list said so is named, with how often."""
    ground.zone({"a.late.example": ["203.0.113.90"]})
    with ground.daemon("listed.evil.example\n") as daemon:
        for _ in range(3):
            assert ground.visit("may", "a.late.example", "?id=x")[1]
        daemon.list_file.write_text("listed.evil.example\na.late.example\n")
        daemon.ask("reload", timeout_s=60.0, reason="a notice came")
        row = until(lambda: _of_domain(daemon, "late.example"))
        assert row["client"] == ground["may"].v4
        assert row["retro"]
        assert row["contacts"] >= 3
        until(lambda: ground.get("may", "203.0.113.90", "a.late.example")[0] == clients.REFUSED)


def test_what_was_listed_while_nothing_ran_is_searched_for_at_the_start(ground: Ground) -> None:
    ground.zone({"a.sleep.example": ["203.0.113.91"]})
    with ground.daemon("listed.evil.example\n") as daemon:
        for _ in range(3):
            assert ground.visit("may", "a.sleep.example")[1]
        daemon.stop()
        daemon.list_file.write_text("listed.evil.example\nlisted.sleep.example\n")
        daemon.start()
        row = until(lambda: _of_domain(daemon, "sleep.example"))
        assert (row["client"], row["retro"]) == (ground["may"].v4, True)
        assert row["contacts"] >= 3
        daemon.ask("reload", timeout_s=60.0, reason="nothing new")
        daemon.stop()
        daemon.start()
        daemon.ask("reload", timeout_s=60.0, reason="nothing new")
        assert _of_domain(daemon, "sleep.example")["contacts"] == row["contacts"]  # told once


def _of_domain(daemon: Daemon, domain: str) -> Any:
    found = [one for one in daemon.ask("incidents")["incidents"] if one["registered_domain"] == domain]
    return found[0] if found else None
