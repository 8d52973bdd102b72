"""What a host says of itself, and the choice of interfaces on made-up hosts; real kernels in tests/netns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture.rtnetlink import Address, Link, Route
from egressd.capture.surroundings import (
    MAX_BEHIND,
    MAX_RESOLVERS,
    Surroundings,
    lan_interfaces,
    parse_resolvers,
    read_resolvers,
)
from tests.detect.scene import packed


def link(ifindex: int, name: str, **more) -> Link:
    told = {"is_up": True, "is_loopback": False, "kind": "", "master": 0, "parent": 0} | more
    return Link(ifindex, name, 1, b"", told["is_up"], told["is_loopback"], told["kind"], told["master"], told["parent"])


def address(ifindex: int, text: str, length: int = 24) -> Address:
    return Address(ifindex, packed(text), packed(text), length)


def default(ifindex: int, gateway: str = "203.0.113.1", length: int = 0) -> Route:
    return Route(bytes(len(packed(gateway))), length, packed(gateway), ifindex, 0, 254)


LO, WAN = link(1, "lo", is_loopback=True), link(2, "wan")
OUT = [address(1, "127.0.0.1", 8), address(2, "203.0.113.2")]
HOSTS = {
    "a plain gateway": ([LO, WAN, link(3, "lan")], [*OUT, address(3, "10.0.0.1")], [default(2)], ("lan",)),
    "two segments": (
        [LO, WAN, link(3, "a"), link(4, "b")],
        [*OUT, address(3, "192.168.1.1"), address(4, "fd00::1", 64)],
        [default(2), default(2, "fe80::1")],
        ("a", "b"),
    ),
    "a double NAT": (
        [LO, WAN, link(3, "lan")],
        [address(2, "192.168.0.2"), address(3, "10.0.0.1")],
        [default(2, "192.168.0.1")],
        ("lan",),
    ),
    "two uplinks": (
        [LO, WAN, link(5, "lte"), link(3, "lan")],
        [*OUT, address(5, "100.64.3.4"), address(3, "10.0.0.1")],
        [default(2), default(5, "100.64.0.1")],
        ("lan",),
    ),
    "a VPN that takes everything in two halves": (
        [LO, WAN, link(3, "lan"), link(6, "tun0")],
        [*OUT, address(3, "10.0.0.1"), address(6, "10.8.0.2")],
        [default(2), default(6, "10.8.0.1", 1)],
        ("lan",),
    ),
    "a VPN of clients": (
        [LO, WAN, link(3, "lan"), link(6, "wg0", kind="wireguard")],
        [*OUT, address(3, "10.0.0.1"), address(6, "10.9.0.1")],
        [default(2)],
        ("lan", "wg0"),
    ),
    "a bridge": (
        [LO, WAN, link(3, "br0", kind="bridge"), link(4, "port", master=3)],
        [*OUT, address(3, "10.0.0.1"), address(4, "10.0.9.1")],
        [default(2)],
        ("br0",),
    ),
    "VLANs on an interface without address": (
        [LO, WAN, link(3, "trunk"), link(4, "v10", kind="vlan", parent=3), link(5, "v20", kind="vlan", parent=3)],
        [*OUT, address(4, "10.0.10.1"), address(5, "10.0.20.1")],
        [default(2)],
        ("v10", "v20"),
    ),
    "VLANs on one that is captured too": (
        [LO, WAN, link(3, "trunk"), link(4, "v10", kind="vlan", parent=3)],
        [*OUT, address(3, "10.0.0.1"), address(4, "10.0.10.1")],
        [default(2)],
        ("trunk",),
    ),
    "a VRF": (
        [LO, WAN, link(3, "blue", kind="vrf"), link(4, "lan", master=3)],
        [*OUT, address(4, "10.0.0.1")],
        [default(2)],
        ("lan",),
    ),
    "down, without address, only link-local": (
        [LO, WAN, link(3, "off", is_up=False), link(4, "bare"), link(5, "local")],
        [*OUT, address(3, "10.0.0.1"), address(5, "fe80::1", 64), address(5, "169.254.1.1", 16)],
        [default(2)],
        (),
    ),
    "one interface only": ([LO, link(2, "eth0")], [address(2, "10.0.0.2")], [default(2, "10.0.0.1")], ()),
    "nothing": ([], [], [], ()),
}


@pytest.mark.parametrize("name", HOSTS)
def test_interfaces_that_face_clients(name):
    links, addresses, routes, want = HOSTS[name]
    choice = lan_interfaces(links, addresses, routes)
    assert choice.names == want
    assert [one.name for one in choice.judged] == [one.name for one in links]
    assert all(one.reason for one in choice.judged)


def test_the_choice_explains_itself():
    links, addresses, routes, _ = HOSTS["VLANs on one that is captured too"]
    assert lan_interfaces(links, addresses, routes).explain() == [
        "lo: no, it is the loopback",
        "wan: no, a default route leads out through it",
        "trunk: yes, it has the private address 10.0.0.1 and no default route",
        "v10: no, its packets are seen on trunk, which it stands on",
    ]


def test_what_is_protected():
    routes = [default(2), default(2), Route(packed("10.9.0.0"), 16, packed("10.0.0.9"), 3, 0, 254)]
    own = [address(3, "10.0.0.1"), address(3, "10.0.0.1")]
    people = [packed("10.0.0.9"), packed("192.0.2.7")]
    seen = Surroundings(
        [], own, routes, [packed("10.0.0.53")], people, [], [packed("192.0.2.9")], [packed("192.0.2.8")]
    )
    assert seen.protected() == [
        (packed("10.0.0.1"), "own address of this machine"),
        (packed("203.0.113.1"), "gateway of this machine"),
        (packed("10.0.0.9"), "gateway of this machine"),
        (packed("10.0.0.53"), "resolver of this machine"),
        (packed("192.0.2.7"), "somebody is logged in from there"),
        (packed("192.0.2.9"), "far end of a tunnel of this machine"),
        (packed("192.0.2.8"), "asked by a resolver on this machine"),
    ]


def routed(target: str, length: int, ifindex: int, gateway: str) -> Route:
    return Route(packed(target), length, packed(gateway) if gateway else b"", ifindex, 0, 254)


def test_networks_of_hosts_lie_on_interfaces_and_behind_routers_of_ours():
    links = [LO, WAN, link(3, "lan"), link(4, "other")]
    own = [*OUT, address(3, "10.0.0.1"), Address(3, packed("2001:db8:5::1"), packed("2001:db8:5::"), 64)]
    routes = [
        default(2),
        routed("2001:db8:6::", 48, 3, "fe80::9"),  # a switch that routes
        routed("198.51.100.0", 25, 3, "10.0.0.9"),
        routed("198.51.100.128", 25, 2, "203.0.113.1"),  # leads out
        routed("192.0.2.0", 24, 3, ""),
        routed("2000::", 3, 3, "fe80::9"),
        routed("2001:db8:bad::", 48, 3, "fe80::bad")._replace(is_told=True),  # anybody on the link announces one
    ]
    seen = Surroundings(links, own, routes, [], [], [])
    want = [("10.0.0.1", 24), ("198.51.100.0", 25), ("2001:db8:5::", 64), ("2001:db8:6::", 48)]
    assert seen.networks_of(["lan"]) == sorted((packed(one), length) for one, length in want)
    assert seen.networks_of(["wan"]) == [(packed("203.0.113.2"), 24)], "a default route leads there"
    assert seen.networks_of([]) == []


def test_whoever_has_a_table_of_everybody_on_that_side_has_no_networks_behind():
    routes = [routed(f"198.{number >> 8}.{number & 255}.0", 24, 3, "10.0.0.9") for number in range(MAX_BEHIND + 1)]
    seen = Surroundings([link(3, "lan")], [address(3, "10.0.0.1")], routes, [], [], [])
    assert seen.networks_of(["lan"]) == [(packed("10.0.0.1"), 24)]


# -- resolvers


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("nameserver 192.0.2.53\nnameserver\t2001:db8::53 # ours\n", ["192.0.2.53", "2001:db8::53"]),
        ("nameserver fe80::1%eth0\n  nameserver 192.0.2.1\n", ["fe80::1", "192.0.2.1"]),
        ("# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nsearch nameserver\noptions edns0\n", []),
        ("nameserver\nnameserver x\nnameserver 1.2.3\nnameservers 192.0.2.1\n", []),
        ("nameserver 192.0.2.1\r\nnameserver 127.0.0.53", ["192.0.2.1", "127.0.0.53"]),
    ],
)
def test_resolvers(text, want):
    assert parse_resolvers(text.encode()) == [packed(one) for one in want]


@given(st.binary(max_size=300))
def test_resolver_files_of_any_bytes(octets):
    assert all(len(one) in (4, 16) for one in parse_resolvers(octets))


def test_resolver_files_are_read_once_each_and_bounded(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("nameserver 127.0.0.53\n")
    second.write_text("nameserver 192.0.2.1\nnameserver 127.0.0.53\n")
    files = [str(first), str(second), str(tmp_path / "missing"), str(tmp_path)]
    assert read_resolvers(files) == [packed("127.0.0.53"), packed("192.0.2.1")]
    second.write_text("".join(f"nameserver 10.0.{n >> 8}.{n & 255}\n" for n in range(3000)))
    assert len(read_resolvers([str(second)])) == MAX_RESOLVERS
