"""Promises of the threat model with live packets, in the size of CI; bench/live.py has each in full."""

from __future__ import annotations

import signal
import socket
import struct
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from pcaps.hellos import hello
from tests.netns import clients, kernel
from tests.netns.attackers import FORGER, VICTIM, flux, forge
from tests.netns.clients import REFUSED
from tests.netns.daemon import Daemon, Refused, until
from tests.netns.ground import Ground
from tests.netns.servers import question
from tests.netns.spaces import Channel
from tests.netns.topology import GATEWAY6, MHLW, WAN4
from tests.wire.frames_made import ACK, SYN, tcp

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

EVIL = {"*.evil.example": ["203.0.113.66"]}
LISTED = "listed.evil.example\n"
IP_FREEBIND = 15  # linux/in.h


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may", "beacon"), EVIL) as ground:
        yield ground


def test_2_what_becomes_ours_is_protected_and_unblocked(ground: Ground) -> None:
    """An address that the gateway gets, a router that it gets, a resolver that the configuration names."""
    own, router, resolver = "203.0.113.200", "203.0.113.201", "192.0.2.53"
    with ground.daemon(LISTED) as daemon:
        for address in (own, router, resolver):
            daemon.ask("block", what=address, reason="not ours yet")
        until(lambda: {own, router, resolver} <= set(kernel.blocked(ground.gateway)))
        gateway = ground.gateway
        gateway.run("ip", "address", "add", f"{own}/24", "dev", "wan0")
        gateway.run("ip", "route", "add", "198.51.100.0/25", "via", router)
        try:
            until(lambda: not {own, router} & set(kernel.blocked(gateway)), why="what is ours now is still blocked")
            with pytest.raises(Refused):
                daemon.ask("block", what=own, reason="must be refused")
            daemon.configure({"resolvers": ["10.1.0.1", "10.2.0.1", resolver]})
            daemon.signal(signal.SIGHUP)
            until(lambda: resolver not in kernel.blocked(gateway), why="a resolver is still blocked")
        finally:
            gateway.run("ip", "route", "del", "198.51.100.0/25", "via", router)
            gateway.run("ip", "address", "del", f"{own}/24", "dev", "wan0")


def refusals(daemon: Daemon, address: str) -> list[dict[str, Any]]:
    """What is told of blocks that are not made of an address. A packet process may have made others before that."""
    return [one for one in daemon.events("decision", action="refuse") if address in str(one["egressd"]["targets"])]


def test_2_the_far_end_of_a_tunnel_is_protected(ground: Ground) -> None:
    """Whoever owns a listed name answers with the other end of the line to headquarters: the gateway could not send
    through it any more, and the office would be offline."""
    peer, peer_of_ipsec = "203.0.113.44", "203.0.113.46"
    ground.gateway.run("ip", "link", "add", "hq0", "type", "vxlan", "id", "5", "remote", peer, "dstport", "4789")
    policy = ("src", "10.1.0.0/16", "dst", "10.99.0.0/16", "dir", "out")
    template = ("tmpl", "src", WAN4[0], "dst", peer_of_ipsec, "proto", "esp", "mode", "tunnel")
    ground.gateway.run("ip", "xfrm", "policy", "add", *policy, *template)
    try:
        ground.zone({"tunnel.evil.example": [peer, peer_of_ipsec, "203.0.113.45"]})
        with ground.daemon("listed.evil.example\n") as daemon:
            assert ground.resolve("may", "tunnel.evil.example") == [peer, peer_of_ipsec, "203.0.113.45"]
            until(lambda: "203.0.113.45" in kernel.blocked(ground.gateway))
            assert not {peer, peer_of_ipsec} & set(kernel.blocked(ground.gateway))
            why = until(lambda: refusals(daemon, peer))[0]
            assert "far end of a tunnel of this machine" in why["egressd"]["reason"]
    finally:
        ground.gateway.run("ip", "xfrm", "policy", "delete", *policy)
        ground.gateway.run("ip", "link", "del", "hq0")


def test_2_hosts_behind_a_router_of_ours_are_protected(ground: Ground) -> None:
    """Their networks are not the gateway's own: it knows them by a route only."""
    inside = "2001:db8:77::10"
    route = ("2001:db8:77::/48", "via", "2001:db8:2::fe", "dev", "jps0")
    ground.gateway.run("ip", "-6", "route", "add", *route)
    try:
        ground.zone({"inside.evil.example": [inside, "2001:db8:f::45"]})
        with ground.daemon("listed.evil.example\n") as daemon:
            ground.resolve("may", "inside.evil.example", rrtype=clients.AAAA)
            until(lambda: "2001:db8:f::45" in kernel.blocked(ground.gateway))
            assert inside not in kernel.blocked(ground.gateway)
            until(lambda: refusals(daemon, inside))
    finally:
        ground.gateway.run("ip", "-6", "route", "del", *route)


def test_3_a_shared_address_is_not_blocked(ground: Ground) -> None:
    names = ("a.one.example", "b.two.example", "c.three.example")
    ground.zone({name: ["192.0.2.88"] for name in names} | {"cdn.evil.example": ["192.0.2.88"]})
    with ground.daemon(LISTED) as daemon:
        for name in names:
            ground.resolve("april", name)
        ground.resolve("may", "cdn.evil.example")
        refused = until(lambda: daemon.events("decision", action="refuse", rule="shared"))
        assert refused[0]["egressd"]["name"] == "cdn.evil.example"
        assert not kernel.blocked(ground.gateway)
        rows = daemon.ask("decisions", state="active")["decisions"]
        assert [row["registered_domain"] for row in rows] == ["evil.example"]
        assert ground.get("may", "192.0.2.88", "a.one.example") == (clients.ESTABLISHED, True)


def test_3_an_address_in_a_shared_range_is_given_free_when_the_range_is_told(ground: Ground) -> None:
    """The file of ranges is edited while an address there is blocked: free within seconds, and not blocked again."""
    address = "192.0.2.89"
    ground.zone({"cdn.evil.example": [address]})
    with ground.daemon(LISTED) as daemon:
        ranges = daemon.folder / "ranges.txt"
        ranges.write_text("203.0.113.128/25 # somebody else's\n")
        daemon.configure({"guard": {"shared_ranges": ["shipped", "ranges.txt"]}})
        daemon.signal(signal.SIGHUP)
        assert ground.kept_out("may", "cdn.evil.example")
        until(lambda: address in kernel.blocked(ground.gateway))
        ranges.write_text("192.0.2.80/28 operator=CDN\n")
        until(lambda: address not in kernel.blocked(ground.gateway), why="an address in a shared range is blocked")
        freed = until(lambda: daemon.events("decision", action="withdraw", rule="shared"))
        assert freed[-1]["egressd"]["reason"] == (
            "blocked by name, not by address: in 192.0.2.80/28, a shared range of CDN (ranges.txt:1)"
        )
        assert ground.visit("april", "cdn.evil.example") == (clients.ESTABLISHED, True)
        assert address not in kernel.blocked(ground.gateway)
        rows = daemon.ask("decisions", state="active")["decisions"]
        assert [row["registered_domain"] for row in rows] == ["evil.example"]


def test_4_flux_stays_within_its_budget(ground: Ground) -> None:
    """600 of the full run's 10,000 answers."""
    with ground.daemon("listed.flux.example\n") as daemon:
        found = flux(ground, daemon, 600)
        assert found.addresses == 16
        assert len(found.incidents) == 1
        assert found.refused >= 1
        assert daemon.ask("decisions", state="active")["decisions"][0]["registered_domain"] == "flux.example"


def test_4_automatic_blocks_have_a_budget_too(ground: Ground) -> None:
    """One host looks up 230 listed domains within a moment: it causes 50 blocks for everybody, a quarter of an hour's,
    and is kept alone from the rest; another host's contact is blocked for everybody."""
    zone = {f"b.wide{number}.example": [f"45.10.0.{number}"] for number in range(1, 231)}
    ground.zone(zone)
    with ground.daemon("".join(f"listed.wide{number}.example\n" for number in range(1, 231))) as daemon:
        for name in zone:
            ground.resolve("may", name)
        until(lambda: len(kernel.pairs(ground.gateway)) >= 180)
        assert len(kernel.blocked(ground.gateway)) == 50
        assert len(kernel.pairs(ground.gateway)) == 180
        assert not daemon.events("decision", action="alert")
        ground.resolve("april", "b.wide200.example")
        until(lambda: "45.10.0.200" in kernel.blocked(ground.gateway), why="a second host's contact is not blocked")


def test_5_forged_names_block_nobody_but_their_sender(ground: Ground) -> None:
    """400 of the full run's 10,000."""
    with ground.daemon(LISTED):
        found = forge(ground, 400)
        assert found.sent >= 400
        assert VICTIM not in found.blocked
        assert {pair.partition(">")[0] for pair in found.pairs} <= {FORGER}
        assert ground.get("may", VICTIM, "www.innocent.example") == (clients.ESTABLISHED, True)
        assert ground.get("april", VICTIM, "www.innocent.example") == (clients.ESTABLISHED, True)


def test_5_outsiders_are_no_infected_hosts(ground: Ground) -> None:
    """Sixty addresses elsewhere ask a server of ours for a listed name: enough for a roll-back, were they hosts."""
    ground.gateway.run("nft", "add", "rule", "inet", "host", "passing", "iifname wan0 udp dport 53 accept")
    with ground.daemon(LISTED) as daemon:
        assert ground.kept_out("may", "listed.evil.example")
        ground.topology.wan.call(_ask_as_sixty, ground["beacon"].v6, "2001:db8:f::")
        until(lambda: daemon.metrics().get('egressd_left_out_total{reason="contacts_from_outside"}') == 60)
        assert [one["client"] for one in daemon.ask("incidents")["incidents"]] == [ground["may"].v4]
        assert daemon.ask("decisions", id="D1")["decisions"][0]["state"] == "active"
        assert ground.kept_out("may", "listed.evil.example")


def test_5_a_stranger_puts_no_words_into_a_hosts_mouth(ground: Ground) -> None:
    """A host is made to send a datagram to the port of a tunnel; the answer is a packet of another host's, they say."""
    victim, server = (ground["may"].v4, 40_000), ("203.0.113.77", 443)
    said = b"\x08" + bytes(7) + tcp(victim, server, 2, ACK, hello("c2.listed.evil.example"))
    with ground.daemon(LISTED) as daemon, ground.topology.wan.start(_answer_with, said) as stranger:
        assert stranger.receive() == "ready"
        for _ in range(3):
            ground["april"].space.call(clients.ask_udp, "203.0.113.9", 4_789, b"hi")
        until(lambda: daemon.metrics().get('egressd_left_out_total{reason="contacts_from_outside"}', 0) > 0)
        assert daemon.ask("incidents")["incidents"] == []
        assert kernel.pairs(ground.gateway) == {}


def test_5_what_a_listed_server_only_sends_accuses_nobody(ground: Ground) -> None:
    """Datagrams and segments under its address, forged or not. The host's own datagram does, and, when that incident
    was closed, its next one again."""
    host = ground["may"]
    ground.gateway.run("nft", "add", "rule", "inet", "host", "passing", "iifname wan0 ip saddr 203.0.113.9 accept")
    with ground.daemon("203.0.113.9\n") as daemon:
        before = daemon.metrics()["egressd_packets_total"]
        ground.topology.wan.call(_send_to, host.v4)
        until(lambda: daemon.metrics()["egressd_packets_total"] >= before + 9)
        host.space.call(clients.ask_udp, "198.51.100.7", 4_444, b"hi")  # what was seen before that is told by then
        until(lambda: daemon.metrics()["egressd_packets_total"] >= before + 10)
        time.sleep(1)
        assert daemon.ask("incidents")["incidents"] == []
        for id_ in ("I1", "I2"):
            host.space.call(clients.ask_udp, "203.0.113.9", 4_444, b"hi")
            until(partial(_is_open, daemon, id_))
            daemon.ask("close", incident=id_, reason="cleaned")
            assert daemon.ask("incidents")["incidents"] == []


def _is_open(daemon: Daemon, id_: str) -> bool:
    return [one["id"] for one in daemon.ask("incidents")["incidents"]] == [id_]


def _send_to(host: str) -> None:
    """What looks like a listed server's part of conversations."""
    server = ("203.0.113.9", 443)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as segments,
    ):
        datagrams.bind(server)
        segments.bind((server[0], 0))
        for port in range(50_000, 50_003):
            datagrams.sendto(b"\0data", (host, port))  # no short header of QUIC, which is sampled
            for flags in (ACK, SYN | ACK):
                body = bytearray(tcp(server, (host, port), 9_000, flags, b"data" if flags == ACK else b"", 1_001)[34:])
                pseudo = socket.inet_aton(server[0]) + socket.inet_aton(host) + bytes((0, 6)) + len(body).to_bytes(2)
                total = sum(struct.unpack(f">{(len(pseudo) + len(body)) // 2}H", pseudo + body))
                body[16:18] = (0xFFFF - total % 0xFFFF).to_bytes(2)  # RFC 1071
                segments.sendto(body, (host, 0))


def _answer_with(channel: Channel, payload: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("203.0.113.9", 4_789))
        channel.send("ready")
        while True:
            _, asker = listening.recvfrom(2_048)
            listening.sendto(payload, asker)


def test_5_one_host_is_one_machine_whatever_addresses_it_takes(ground: Ground) -> None:
    """Sixty addresses of one host ask for the name whose block it wants taken back."""
    with ground.daemon(LISTED) as daemon:
        assert ground.kept_out("may", "listed.evil.example")
        ground["april"].space.call(_ask_as_sixty, GATEWAY6[MHLW], "2001:db8:1::bad:")
        until(lambda: sum(one["contacts"] for one in daemon.ask("incidents")["incidents"]) > 60)
        assert len(daemon.ask("incidents")["incidents"]) < 20  # of one MAC sixteen stand apart
        assert daemon.ask("decisions", id="D1")["decisions"][0]["state"] == "active"
        assert ground.kept_out("april", "listed.evil.example")


def _ask_as_sixty(server: str, network: str) -> None:
    for number in range(60):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
            asking.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
            asking.bind((f"{network}{number + 256:x}", 0))
            asking.sendto(question("listed.evil.example", clients.A, number), (server, 53))


def test_a_listed_address_is_out_of_reach_behind_nat64_too(ground: Ground) -> None:
    with ground.daemon("203.0.113.70\n") as daemon:
        ground.get("may", "64:ff9b::203.0.113.70", "203.0.113.70")
        until(partial(_is_refused, ground, "64:ff9b::203.0.113.70"), 2)
        assert ground.get("april", "64:ff9b::203.0.113.70", "203.0.113.70")[0] == REFUSED
        assert daemon.events("leak") == []


@pytest.mark.alone
def test_15_a_persons_block_stops_packets_within_a_second(ground: Ground) -> None:
    with ground.daemon(LISTED) as daemon:
        for number in range(20):
            address = f"203.0.113.{100 + number}" if number % 2 else f"2001:db8:f::{100 + number}"
            assert ground.get("may", address, "x.example") == (clients.ESTABLISHED, True)
            began_s = time.monotonic()
            daemon.ask("block", what=address, reason="promise 15")
            until(partial(_is_refused, ground, address), 2)
            assert time.monotonic() - began_s < 1.0


def _is_refused(ground: Ground, address: str) -> bool:
    return bool(ground.get("may", address, "x.example")[0] == REFUSED)
