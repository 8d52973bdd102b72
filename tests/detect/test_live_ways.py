"""Which way a packet goes on the hosts' side of a gateway: whoever comes in from outside is no host of ours."""

from __future__ import annotations

from typing import Any

import pytest

from egressd.wire.dissector import Dissector
from pcaps.hellos import hello
from tests.detect.live_scene import ENFORCE, LiveScene
from tests.detect.scene import Scene, at, flow, packed
from tests.wire.frames_made import ACK, SYN, tcp, udp

GUEST = "2001:db8:9::7"  # in no network that is known to be ours


def _guest(scene: LiveScene, **note: str) -> int:
    """What a client that may be ours asks one of our own servers counts as."""
    scene.tls(0, GUEST, "10.0.0.80", "c2.bad.example", **note)
    return len(scene.sightings)


def test_who_comes_in_from_the_hosts_is_a_host() -> None:
    scene = LiveScene()
    scene.from_inside(True)
    assert _guest(scene) == 1


def test_who_goes_out_is_a_host_whatever_its_address() -> None:
    scene = LiveScene()
    scene.from_inside(False)  # as on an interface that faces the outside
    scene.tls(0, GUEST, "203.0.113.9", "c2.bad.example")
    assert len(scene.sightings) == 1


def test_of_a_mirror_port_addresses_tell() -> None:
    scene = mirrored(LiveScene())
    assert _guest(scene) == 0
    assert scene.engine.counts() == {"contacts_from_outside": 1}


def mirrored(scene: LiveScene) -> LiveScene:
    scene.from_inside(False)
    scene.engine.knows_ways = False
    return scene


def test_on_a_mirror_port_what_a_proxy_or_resolver_inside_is_asked_counts_whoever_asks() -> None:
    resolvers = frozenset((packed("10.0.0.53"),))
    for scene in (mirrored(LiveScene(settings=ENFORCE._replace(resolvers=resolvers))), Scene()):
        scene.question(0, "203.0.113.5", "c2.bad.example", server="10.0.0.53")
        scene.socks(1, "203.0.113.6", "10.0.0.80", "c2.bad.example")
        scene.http(2, "203.0.113.7", "10.0.0.80", "c2.bad.example", "http://c2.bad.example/", sport=40_001)
        scene.http(3, "203.0.113.8", "10.0.0.80", "fine.example", "fine.example:443", method="CONNECT", dport=8080)
        scene.tls(4, "203.0.113.9", "10.0.0.80", "c2.bad.example", sport=40_002, note="proxied")
        assert len(scene.sightings) == 4


def test_on_a_mirror_port_a_server_of_names_of_ours_is_no_way_out() -> None:
    scene = mirrored(LiveScene())  # whose resolver is another one
    scene.question(0, "203.0.113.5", "c2.bad.example", server="10.0.0.53")
    scene.answer(1, "203.0.113.5", "c2.bad.example", server="10.0.0.53")
    assert scene.sightings == [] and len(scene.engine.clients) == 0
    assert scene.engine.counts() == {"contacts_from_outside": 2}


@pytest.mark.parametrize(
    "named", [{"lan": ((packed("2001:db8:9::"), 64, ""),)}, {"segments": ((packed("2001:db8:9::"), 48, "guests"),)}]
)
def test_who_is_in_a_network_of_ours_is_a_host(named: dict[str, Any]) -> None:
    scene = LiveScene(settings=ENFORCE._replace(**named))
    scene.from_inside(False)
    assert _guest(scene) == 1


def test_who_is_in_none_and_goes_out_to_the_hosts_is_none() -> None:
    scene = LiveScene()
    scene.from_inside(False)
    assert _guest(scene) == 0
    assert scene.engine.counts() == {"contacts_from_outside": 1}


def test_what_the_kernel_stopped_on_its_way_to_us_is_told_after_the_packet_at_hand() -> None:
    scene = LiveScene("10.0.0.80 force=yes")
    scene.from_inside(False)
    scene.engine.dropped(flow(GUEST, "10.0.0.80"), at(0))
    assert len(scene.sightings) == 1


def test_a_host_that_speaks_in_answers_to_nobodys_question_is_heard() -> None:
    """By UDP a host spoke with any listed address in what looked like answers, and nothing was told."""
    scene = LiveScene("203.0.113.9")
    scene.from_inside(True)
    scene.answer(0, "203.0.113.9", "nothing.example", server="10.0.0.5", sport=40_000)
    assert [(one.flow.client, one.flow.server) for one in scene.sightings] == [
        (packed("10.0.0.5"), packed("203.0.113.9"))
    ]


def test_a_server_of_names_of_ours_that_answers_a_listed_scanner_has_no_contact_with_it() -> None:
    scene = LiveScene("203.0.113.9")
    scene.from_inside(False)
    scene.question(0, "203.0.113.9", "www.ours.example", server="10.0.0.53")
    scene.from_inside(True)
    scene.answer(1, "203.0.113.9", "www.ours.example", server="10.0.0.53")
    assert scene.sightings == []
    scene.from_inside(False)
    scene.answer(2, "10.0.0.5", "www.ours.example", server="203.0.113.9")
    assert scene.sightings == [], "whoever is listed may send what he likes"


def carrying(source: str, target: str, incoming: bool, knows_ways: bool = True) -> LiveScene:
    """VXLAN from one end to another, in which a host of ours says a listed name to an innocent server."""
    scene = LiveScene()
    scene.engine.knows_ways = knows_ways
    packets = scene.engine.packets = Dissector(scene.engine.observe)
    packets.incoming = incoming
    host, server = ("10.0.0.6", 40_000), ("198.51.100.77", 443)
    inner = tcp(host, server, 1, SYN), tcp(host, server, 2, ACK, hello("c2.bad.example"))
    for number, one in enumerate(inner):
        outer = udp((source, 4_789), (target, 50_000), b"\x08" + bytes(7) + one)
        packets.packet(at(number), number, 1, outer, 0, len(outer), len(outer))
    return scene


def test_what_comes_to_a_host_inside_another_packet_was_said_by_none_of_ours() -> None:
    """A web page has a browser send one datagram to port 4789 (WebRTC), and what comes back had any host of ours say
    any name to any server: it was infected, and cut off from there."""
    for knows_ways in (True, False):
        scene = carrying("203.0.113.9", "10.0.0.8", False, knows_ways)
        assert scene.events == [] and scene.engine.counts()["contacts_from_outside"] >= 2


def test_what_a_host_says_inside_another_packet_closes_nobodys_way() -> None:
    """It is told, for it may be a host behind a tunnel of ours. But whoever sends it writes its addresses as he likes,
    and a pair would stop everything but that: the kernel sees the packet around it."""
    scene = carrying("10.0.0.8", "203.0.113.9", incoming=True)
    assert {one.client for one in scene.incidents} == {packed("10.0.0.6")}
    assert scene.targets("block", "extend") == ["registered_domain bad.example"]


def test_on_an_interface_that_faces_the_outside_tunnels_are_looked_into_too() -> None:
    scene = carrying("203.0.113.2", "203.0.113.9", incoming=False)
    assert {one.client for one in scene.incidents} == {packed("10.0.0.6")}


def test_what_a_mirror_port_sends_us_in_packets_is_heard() -> None:
    scene = carrying("10.0.0.2", "10.0.0.3", False, knows_ways=False)
    assert {one.client for one in scene.incidents} == {packed("10.0.0.6")}
