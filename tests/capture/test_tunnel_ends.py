"""The far ends of own tunnels, from made-up messages; a real kernel's in tests/netns/test_live_promises.py."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture import tunnel_ends
from egressd.capture.rtnetlink import Link, Route, parse_link
from egressd.capture.tunnel_ends import parse_policy, parse_wireguard, read_tunnel_ends, vpn_servers
from tests.detect.scene import packed

PEER, PEER6 = "203.0.113.44", "2001:db8:f::44"


def attribute(kind: int, octets: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(octets), kind) + octets + bytes(-len(octets) & 3)


def route(target: str, length: int, gateway: str = "") -> Route:
    return Route(packed(target), length, packed(gateway) if gateway else b"", 2, 0, 254)


@pytest.mark.parametrize(
    ("kind", "number", "remote"),
    [
        ("gre", 7, PEER), ("ip6gre", 7, PEER6), ("ipip", 3, PEER), ("sit", 3, PEER), ("ip6tnl", 3, PEER6),
        ("vti", 5, PEER), ("vxlan", 2, PEER), ("vxlan", 16, PEER6), ("geneve", 2, PEER), ("geneve", 7, PEER6),
    ],
)  # fmt: skip
def test_an_interface_tells_its_other_end(kind: str, number: int, remote: str) -> None:
    settings = attribute(1, bytes(4)) + attribute(number, packed(remote))
    told = attribute(1, kind.encode() + b"\0") + attribute(2, settings)
    body = struct.pack("=BxHiII", 0, 1, 7, 1, 0) + attribute(3, b"hq0\0") + attribute(18, told)
    link = parse_link(body)
    assert link is not None and link.remote == packed(remote)
    assert read_tunnel_ends([link], []) == [packed(remote)]


@pytest.mark.parametrize("remote", ["0.0.0.0", "239.1.1.1", "::", "ff05::1"])
def test_a_tunnel_to_nobody_or_to_a_group_has_no_end(remote: str) -> None:
    assert read_tunnel_ends([Link(7, "v", 1, b"", True, False, "vxlan", 0, 0, packed(remote))], []) == []


def policy(target: str, length: int, *ends: str, direction: int = 1) -> bytes:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    selector = packed(target).ljust(16, b"\0") + bytes(24) + struct.pack("=HBB", family, length, 0) + bytes(12)
    body = (selector + bytes(104) + bytes((direction, 0, 0, 0))).ljust(168, b"\0")
    templates = b""
    for end in ends:
        family = socket.AF_INET6 if ":" in end else socket.AF_INET
        templates += (packed(end).ljust(16, b"\0") + bytes(8) + struct.pack("=H", family)).ljust(64, b"\0")
    return body + attribute(5, templates)


@pytest.mark.parametrize(
    ("told", "ends"),
    [
        (policy("10.20.0.0", 16, PEER), [PEER]),
        (policy("0.0.0.0", 0, PEER6), [PEER6]),
        (policy("fd20::", 64, PEER, PEER6), [PEER, PEER6]),
        (policy(PEER, 32, PEER), [PEER]),  # GRE over IPsec
        (policy(PEER, 32, "0.0.0.0"), [PEER]),  # transport mode
        (policy("10.20.0.0", 16, "0.0.0.0"), []),
        (policy("10.9.0.7", 32, PEER), []),  # somebody who dialled in
        (policy("10.20.0.0", 16, PEER, direction=0), []),
        (policy("10.20.0.0", 16), []),
        (policy("10.20.0.0", 16, PEER)[:160], []),
    ],
)
def test_a_policy_tells_where_a_network_is_reached(told: bytes, ends: list[str]) -> None:
    assert parse_policy(told) == [packed(end) for end in ends]


def peer(endpoint: str, *allowed: tuple[str, int]) -> bytes:
    address = packed(endpoint)
    if len(address) == 4:
        socket_address = struct.pack("=H", socket.AF_INET) + b"\xca\x6c" + address + bytes(8)
    else:
        socket_address = struct.pack("=H", socket.AF_INET6) + b"\xca\x6c" + bytes(4) + address + bytes(4)
    networks = b"".join(
        attribute(0x8000, attribute(1, b"\2\0") + attribute(2, packed(one)) + attribute(3, bytes((length,))))
        for one, length in allowed
    )
    return attribute(0x8000, attribute(1, bytes(32)) + attribute(4, socket_address) + attribute(0x8009, networks))


def device(*peers: bytes) -> bytes:
    return struct.pack("=BBH", 0, 1, 0) + attribute(2, b"wg0\0") + attribute(0x8008, b"".join(peers))


def test_a_peer_with_a_network_behind_it_is_an_end_and_one_who_dialled_in_is_none() -> None:
    told = device(
        peer(PEER, ("10.20.0.0", 16)),
        peer("198.51.100.1", ("10.9.0.7", 32), ("fd09::7", 128)),
        peer(PEER6, ("10.9.0.8", 32), ("::", 0)),
        peer("198.51.100.2"),
    )
    assert parse_wireguard(told) == [packed(PEER), packed(PEER6)]


def test_a_vpn_that_takes_everything_has_a_host_route_to_its_server() -> None:
    server = route(PEER, 32, "192.0.2.1")
    halves = [route("0.0.0.0", 1, "10.8.0.1"), route("128.0.0.0", 1, "10.8.0.1")]
    others = [route("10.20.0.0", 16, "10.8.0.1"), route("192.0.2.1", 32)]
    assert vpn_servers([server, *halves, *others]) == {packed(PEER)}
    assert vpn_servers([server, *others]) == set(), "a host route alone may lead to a honeypot"


def test_a_relay_of_6rd_is_a_next_hop() -> None:
    assert read_tunnel_ends([], [route("::", 0, "::203.0.113.44"), route("::", 0, "fe80::1")]) == [packed(PEER)]


@given(st.binary(max_size=400))
def test_any_bytes_do_no_harm(octets: bytes) -> None:
    for body in (octets, policy("10.20.0.0", 16, PEER)[:168] + octets, device(octets)):
        assert all(len(one) in (4, 16) for one in (*parse_policy(body), *parse_wireguard(body)))


def test_the_kernel_is_asked_and_what_it_lacks_counts_as_none() -> None:
    assert tunnel_ends._family_of(b"nlctrl\0") == 16
    assert tunnel_ends._family_of(b"no such\0") == 0
    read_tunnel_ends([Link(1, "lo", 772, b"", True, True, "wireguard", 0, 0)], [])


def test_no_module_is_loaded_for_a_protocol_that_nobody_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds later the kernel would look for it again, in a process of its own."""
    sockets = tmp_path / "netlink"
    sockets.write_text("sk               Eth Pid        Groups\n00000000af8dbd2e 0   0          00000000\n")
    assert tunnel_ends.is_spoken(0, str(sockets)) and not tunnel_ends.is_spoken(6, str(sockets))
    assert tunnel_ends.is_spoken(0) and tunnel_ends.is_spoken(16)
    asked: list[int] = []
    monkeypatch.setattr(tunnel_ends, "is_spoken", lambda protocol: False)
    monkeypatch.setattr(tunnel_ends, "dump", lambda *told: asked.append(told[-1]) or [])
    read_tunnel_ends([], [])
    assert asked == []
