"""Interfaces, addresses and routes as a real kernel tells of them, and of their changes."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from egressd.capture.rtnetlink import LinkWatch, read_neighbours
from egressd.capture.surroundings import lan_interfaces, read_surroundings
from egressd.intel.networks import parse_address, render_address, render_network
from tests.netns.spaces import Namespace, Spaces

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("namespaces")]


@pytest.fixture
def space() -> Iterator[Namespace]:
    spaces = Spaces()
    try:
        yield spaces.make("host")
    finally:
        spaces.close()


def ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)


SET_UP = (
    "link add wan type veth peer name far",
    "link add lan type bridge",
    "link add port type veth peer name host",
    "link set port master lan",
    "link add spare type veth peer name spare2",
    "link set wan up",
    "link set far up",
    "link set port up",
    "link set host up",
    "link set lan up",
    "addr add 203.0.113.2/24 dev wan",
    "addr add 10.1.0.1/16 dev lan",
    "addr add fd00:1::1/64 dev lan nodad",
    "addr add 192.168.9.1 peer 192.168.9.2/32 dev spare2",
    "route add default via 203.0.113.1",
    "-6 route add default via fe80::1 dev wan",
    "route add 10.9.0.0/16 nexthop via 10.1.0.7 nexthop via 10.1.0.8",
    "route add 198.51.100.0/24 via inet6 fe80::7 dev wan",
    "route add default via 10.1.0.9 dev lan table 77",
    "route add blackhole 203.0.113.128/25",
    "neigh add 10.1.0.50 lladdr 02:00:00:00:00:50 dev lan nud reachable",
)


def look() -> None:
    for line in SET_UP:
        ip(line)
    seen = read_surroundings([])
    links = {link.name: link for link in seen.links}
    assert links["lo"].is_loopback and links["lan"].kind == "bridge" and links["wan"].kind == "veth"
    assert links["port"].master == links["lan"].ifindex and not links["spare"].is_up and links["wan"].is_up
    assert len(links["wan"].mac) == 6 and links["wan"].parent == links["far"].ifindex
    gateways = {render_address(gateway) for gateway in seen.gateways()}
    assert gateways == {"203.0.113.1", "fe80::1", "10.1.0.7", "10.1.0.8", "fe80::7", "10.1.0.9"}
    own = {render_address(address) for address in seen.own_addresses()}
    assert {"127.0.0.1", "203.0.113.2", "10.1.0.1", "fd00:1::1", "192.168.9.1"} <= own and "192.168.9.2" not in own
    networks = {render_network(one.network, one.length) for one in seen.addresses}
    assert {"203.0.113.0/24", "10.1.0.0/16", "fd00:1::/64", "192.168.9.2", "127.0.0.0/8"} <= networks
    choice = lan_interfaces(seen.links, seen.addresses, seen.routes)
    assert choice.names == (), "a default route, of whatever table, leads out there"
    ip("route del default via 10.1.0.9 dev lan table 77")
    seen = read_surroundings([])
    choice = lan_interfaces(seen.links, seen.addresses, seen.routes)
    assert choice.names == ("lan",)
    assert {
        "lo: no, it is the loopback",
        "wan: no, a default route leads out through it",
        "port: no, it is a part of lan",
        "spare: no, it is not up",
        "lan: yes, it has the private address 10.1.0.1 and no default route",
    } <= set(choice.explain())
    owners = {render_address(one.address): one.mac.hex() for one in read_neighbours()}
    assert owners["10.1.0.50"] == "020000000050" and all(address[:2] != "ff" for address in owners)


CHANGES = (
    "link add lan type bridge",
    "link set lan up",
    "addr add 10.1.0.1/16 dev lan",
    "route add default via 10.1.0.2",
    "route replace default via 10.1.0.3",
    "-6 addr add fd00::1/64 dev lan nodad",
    "-6 route add default via fd00::2",
    "-6 route del default via fd00::2",
    "route del default",
    "addr del 10.1.0.1/16 dev lan",
    "link del lan",
)


def watch() -> None:
    watching = LinkWatch()
    assert not watching.drain()
    for line in CHANGES:
        ip(line)
        assert watching.drain(), line
        while watching.drain():
            pass
        if line.endswith("via 10.1.0.3"):
            assert parse_address("10.1.0.3") in dict(read_surroundings([]).protected())
    watching._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel makes it as small as it can be
    batch = "".join(f"link add b{number} type bridge\n" for number in range(50))
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True, capture_output=True)
    assert watching.drain(), "what was lost may have been a change"
    while watching.drain():
        pass
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as other:
        other.bind((0, 0))
        other.sendto(bytes(16), (watching._sock.getsockname()[0], 0))
        assert not watching.drain(), "not from the kernel"
    watching.close()


def test_what_the_kernel_tells(space: Namespace) -> None:
    space.call(look)


def test_every_change_is_heard_of(space: Namespace) -> None:
    space.call(watch)
