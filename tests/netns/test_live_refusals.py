"""An attacker aims answers at what must never be blocked: the name stays blocked, the address does not become one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from tests.netns import clients, kernel
from tests.netns.clients import AAAA
from tests.netns.daemon import Daemon, until
from tests.netns.ground import Ground
from tests.netns.topology import GATEWAY4, JPS, WAN4

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

CDN = "192.0.2.80"
INNOCENTS = ("static.shop.example", "img.photos.example", "media.school.example", "files.library.example")
# Name under evil.example, what it answers with, and a word of the reason that must be told.
AIMED = (
    ("public", "8.8.8.8", "protected"),
    ("resolver", GATEWAY4[JPS], "protected"),
    ("gateway", WAN4[0], "protected"),
    ("loopback", "127.0.0.1", "protected"),
    ("private", "10.1.3.24", "protected"),
    ("cdn", CDN, "shared"),
    ("mapped", "::ffff:8.8.8.8", "protected"),
    ("mapped-private", "::ffff:10.2.0.1", "protected"),
    ("nat64", "64:ff9b::808:808", "protected"),
    ("nat64-loopback", "64:ff9b::7f00:1", "protected"),
    ("6to4", "2002:808:808::1", "protected"),
    ("link-local", "fe80::1", "protected"),
    ("ula", "fd00:0:0:2::1", "protected"),
    ("own-host", "2001:db8:2::24", "protected"),  # a machine of another segment, under a public address
)


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    zone = {f"{label}.evil.example": [address] for label, address, _ in AIMED}
    zone |= {name: [CDN] for name in INNOCENTS} | {"b.evil.example": ["203.0.113.66"]}
    with Ground(("april", "may", "office"), zone) as ground:
        yield ground


@pytest.fixture(scope="module")
def daemon(ground: Ground) -> Iterator[Daemon]:
    with ground.daemon("listed.evil.example\n") as daemon:
        for name in INNOCENTS:
            assert ground.resolve("office", name) == [CDN]
        yield daemon


@pytest.mark.parametrize(("label", "address", "rule"), AIMED, ids=[label for label, _, _ in AIMED])
def test_no_block_of_the_address_and_an_event_that_says_why(
    ground: Ground, daemon: Daemon, label: str, address: str, rule: str
) -> None:
    rrtype = AAAA if ":" in address else clients.A
    assert ground.resolve("may", f"{label}.evil.example", rrtype=rrtype)
    refusal = until(lambda: _refusal(daemon, f"{label}.evil.example"), why=f"no event about {address}")
    assert refusal["rule"] == rule
    assert refusal["reason"]
    assert ip_address(refusal["targets"][0]["value"]) == ip_address(address)
    assert not kernel.blocked(ground.gateway).keys() - {"203.0.113.66"}
    assert not any(pair.endswith(f">{address}") for pair in kernel.pairs(ground.gateway))


def _refusal(daemon: Daemon, name: str) -> dict[str, Any] | None:
    found = [one["egressd"] for one in daemon.events("decision", action="refuse") if one["egressd"]["name"] == name]
    return found[-1] if found else None


def test_the_name_is_decided_about_all_the_same(ground: Ground, daemon: Daemon) -> None:
    ground.resolve("may", "public.evil.example")
    rows = until(lambda: daemon.ask("decisions", state="active")["decisions"])
    assert any(
        target["kind"] == "registered_domain" and target["value"] == "evil.example"
        for row in rows
        for target in row["targets"]
    )
    ground.resolve("may", "b.evil.example")
    until(lambda: "203.0.113.66" in kernel.blocked(ground.gateway))


def test_everything_that_was_aimed_at_still_works(ground: Ground, daemon: Daemon) -> None:
    for host in ("may", "office", "april"):
        assert ground.resolve(host, "b.evil.example") == ["203.0.113.66"]  # its resolver answers
        assert ground.get(host, CDN, "img.photos.example") == (clients.ESTABLISHED, True)
        assert ground.get(host, "8.8.8.8", "dns.innocent.example") == (clients.ESTABLISHED, True)
        assert ground.get(host, "64:ff9b::808:808", "dns.innocent.example") == (clients.ESTABLISHED, True)


def test_a_person_cannot_block_them_either(ground: Ground, daemon: Daemon) -> None:
    """Checked at each door: the commands, and in the kernel behind everything."""
    for address in ("8.8.8.8", GATEWAY4[JPS], "127.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "::ffff:8.8.8.8", "::/0"):
        with pytest.raises(AssertionError):
            daemon.ask("block", what=address, reason="must be refused")
    ground.gateway.run("nft", "add element inet egressd blocked4 { 8.8.8.8 timeout 5s }")
    assert ground.get("may", "8.8.8.8", "dns.innocent.example") == (clients.ESTABLISHED, True)
