"""A host changes its address, by lease and by IPv6 privacy: one incident, and one isolation that follows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.netns import clients
from tests.netns.daemon import Daemon, until
from tests.netns.ground import Ground
from tests.netns.spaces import ip_batch
from tests.netns.topology import GATEWAY4, Host

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

ADDRESS, ADDRESS6 = "203.0.113.67", "2001:db8:f::67"
ZONE = {"*.evil.example": [ADDRESS, ADDRESS6]}
MOVED = "10.2.77.99"
PRIVATE = "2001:db8:2::aaaa"


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("later1", "later2"), ZONE) as ground:
        yield ground


def test_one_incident_for_a_host_that_changes_its_address(ground: Ground) -> None:
    host, other = ground["later1"], ground["later2"]
    with ground.daemon("listed.evil.example\n", {"devices": {"leases": ["dnsmasq.leases"]}}) as daemon:
        lease(daemon, (mac_of(host), host.v4, "pc-kasuga"), (mac_of(other), other.v4, "pc-sumire"))
        until(lambda: daemon.ask("status")["devices"]["leased"] == 2)
        ground.get("later1", ADDRESS, "b.evil.example")
        (first,) = until(partial(incidents, daemon, 1))
        assert (first["device"], first["client"], first["device_name"]) == (mac_of(host), host.v4, "pc-kasuga")
        ip_batch([
            f"{host.space.name}: address del {host.v4}/16 dev eth0",
            f"{host.space.name}: address add {MOVED}/16 dev eth0",
            f"{host.space.name}: route replace default via {GATEWAY4[host.segment]} src {MOVED}",
            f"{host.space.name}: address add {PRIVATE}/64 dev eth0 nodad",
        ])  # fmt: skip
        lease(daemon, (mac_of(host), MOVED, "pc-kasuga"), (mac_of(other), other.v4, "pc-sumire"))
        host.space.call(clients.get, ADDRESS, "c.evil.example")
        host.space.call(partial(clients.get, source=PRIVATE), ADDRESS6, "c.evil.example")
        ground.get("later2", ADDRESS, "b.evil.example")
        one = until(partial(under, daemon, {host.v4, MOVED, PRIVATE}))
        assert (one["id"], one["device_name"]) == (first["id"], "pc-kasuga")
        assert len(incidents(daemon, 2)) == 2, "its and the other machine's"
        assert {row["device"] for row in daemon.ask("hosts")["hosts"]} == {mac_of(host), mac_of(other)}
        answer = daemon.ask("isolate", client=MOVED, reason="it moved")
        assert "pc-kasuga" in answer["lines"][0]
        assert daemon.ask("status")["blocks"]["clients_isolated"] == 1
        assert daemon.stop() == 0
        daemon.start()
        kept = until(partial(under, daemon, {host.v4, MOVED, PRIVATE}))
        assert (kept["id"], kept["device"]) == (one["id"], one["device"])


def lease(daemon: Daemon, *rows: tuple[str, str, str]) -> None:
    """What dnsmasq would write: (MAC, address, name)."""
    lines = [f"{int(time.time()) + 3_600} {mac} {address} {name} *\n" for mac, address, name in rows]
    (daemon.folder / "dnsmasq.leases").write_text("".join(lines))


def mac_of(host: Host) -> str:
    """As the topology gave it."""
    return "02:00:" + ":".join(f"{int(octet):02x}" for octet in host.v4.split("."))


def incidents(daemon: Daemon, count: int) -> list[dict[str, Any]]:
    """All of them, when they are so many."""
    found: list[dict[str, Any]] = daemon.ask("incidents")["incidents"]
    return found if len(found) == count else []


def under(daemon: Daemon, addresses: set[str]) -> dict[str, Any] | None:
    """The incident that was seen under just these addresses."""
    found = daemon.ask("incidents")["incidents"]
    return next((one for one in found if set(one["addresses"]) == addresses), None)
