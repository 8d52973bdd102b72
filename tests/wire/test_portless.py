"""Packets that are neither TCP nor UDP, and those that carry others: where they go is told, once, and nothing else."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from egressd.model import BARE, FLOW, REPLY
from egressd.wire.portless import IDLE_ROTATE_US
from tests.wire.frames_made import CLIENT, EPOCH_US, SERVER, Tap, frame, udp

CLIENT6, SERVER6 = "fd00::5", "2001:db8::1"
INNER = udp(("10.9.9.9", 4_000), ("10.9.9.1", 4_001), b"abc")


def icmp(kind: int, identifier: int = 7) -> bytes:
    return struct.pack(">BBHHH", kind, 0, 0, identifier, 1) + bytes(32)


def ends(tap: Tap) -> list[tuple[str, int, str, int, str, int]]:
    """Kind, protocol, client, its port, server, its port of what was told without a segment."""
    return [
        (seen.kind, seen.flow.proto, str(ip_address(seen.flow.client)), seen.flow.client_port,
         str(ip_address(seen.flow.server)), seen.flow.server_port)
        for seen in tap.seen if seen.note == BARE
    ]  # fmt: skip


def told(*frames: bytes) -> list[tuple[str, int, str, int, str, int]]:
    tap = Tap()
    for one in frames:
        tap.put(one)
    return ends(tap)


@pytest.mark.parametrize(("asked", "answer"), [(8, 0), (13, 14), (15, 16), (17, 18)])
def test_a_request_of_icmp_is_a_conversation_and_its_answer_the_reply(asked: int, answer: int) -> None:
    request, reply = frame(CLIENT, SERVER, 1, icmp(asked)), frame(SERVER, CLIENT, 1, icmp(answer))
    flow = (1, CLIENT, 7, SERVER, asked)
    assert told(request, reply, request, reply) == [(FLOW, *flow), (REPLY, *flow)]


def test_icmpv6_likewise() -> None:
    request, reply = frame(CLIENT6, SERVER6, 58, icmp(128)), frame(SERVER6, CLIENT6, 58, icmp(129))
    flow = (58, CLIENT6, 7, SERVER6, 128)
    assert told(request, reply) == [(FLOW, *flow), (REPLY, *flow)]


@pytest.mark.parametrize("kind", [0, 3, 4, 5, 9, 10, 11, 12, 14, 30, 41])
def test_errors_and_answers_to_nothing_are_no_conversation(kind: int) -> None:
    assert told(frame(CLIENT, SERVER, 1, icmp(kind))) == []


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143])
def test_what_icmpv6_needs_of_itself_is_none(kind: int) -> None:
    assert told(frame(CLIENT6, SERVER6, 58, icmp(kind))) == []


def test_each_identifier_is_one_conversation() -> None:
    found = told(*(frame(CLIENT, SERVER, 1, icmp(8, identifier)) for identifier in (1, 2, 1, 2, 3)))
    assert [one[3] for one in found] == [1, 2, 3]


def test_after_a_pause_it_is_another() -> None:
    tap = Tap()
    tap.put(frame(CLIENT, SERVER, 50, bytes(40)))
    tap.wait(2 * IDLE_ROTATE_US / 1_000_000 + 1)
    for other in range(3):  # the table turns when something new comes
        tap.put(frame(CLIENT, f"192.0.2.{other + 20}", 50, bytes(40)))
        tap.wait(IDLE_ROTATE_US / 1_000_000 + 1)
    tap.put(frame(CLIENT, SERVER, 50, bytes(40)))
    assert [one[4] for one in ends(tap)].count(SERVER) == 2


@pytest.mark.parametrize("proto", [50, 2, 89, 115, 253])
def test_other_protocols_are_told_by_their_ends(proto: int) -> None:
    flow = (proto, CLIENT, 0, SERVER, 0)
    there, back = frame(CLIENT, SERVER, proto, bytes(40)), frame(SERVER, CLIENT, proto, bytes(40))
    assert told(there, back, there, back) == [(FLOW, *flow), (REPLY, *flow)]
    assert told(back, back) == [], "somebody sends that to a host, which has gone nowhere"
    assert told(back, there, back) == [(FLOW, *flow), (REPLY, *flow)]


def test_protocols_with_ports_at_the_place_of_tcps() -> None:
    body = struct.pack(">HH", 4_000, 5_000) + bytes(40)
    for proto in (33, 132, 136):
        assert told(frame(CLIENT, SERVER, proto, body)) == [(FLOW, proto, CLIENT, 4_000, SERVER, 5_000)]


def test_two_protocols_between_the_same_ends_are_two() -> None:
    assert [one[1] for one in told(*(frame(CLIENT, SERVER, proto, bytes(40)) for proto in (50, 108, 50, 108)))] == [
        50, 108,
    ]  # fmt: skip


def test_groups_are_no_destinations() -> None:
    assert told(
        frame(CLIENT, "224.0.0.22", 2, bytes(8)),
        frame(CLIENT, "255.255.255.255", 1, icmp(8)),
        frame(CLIENT6, "ff02::1", 58, icmp(128)),
    ) == []  # fmt: skip


def test_a_first_fragment_is_enough() -> None:
    whole = frame(CLIENT, SERVER, 1, icmp(8))
    assert told(whole[:20] + b"\x20\0" + whole[22:]) == [(FLOW, 1, CLIENT, 7, SERVER, 8)]
    assert told(whole[:20] + b"\0\5" + whole[22:]) == []


CARRIERS = {
    "gre": (47, frame(CLIENT, SERVER, 47, b"\0\0\x08\0" + INNER[14:]), 0, 0),
    "gre of pptp without a packet": (47, frame(CLIENT, SERVER, 47, b"\x30\x01\x88\x0b" + bytes(8)), 0, 0),
    "ipip": (4, frame(CLIENT, SERVER, 4, INNER[14:]), 0, 0),
    "6in4": (41, frame(CLIENT, SERVER, 41, udp((CLIENT6, 1), (SERVER6, 2), b"a")[14:]), 0, 0),
    "vxlan": (17, udp((CLIENT, 4_789), (SERVER, 4_789), b"\x08" + bytes(7) + INNER), 4_789, 4_789),
    "gtp-u": (17, udp((CLIENT, 5), (SERVER, 2_152), b"\x30\xff\0\x20\0\0\0\1" + INNER[14:]), 5, 2_152),
}


@pytest.mark.parametrize("name", CARRIERS)
def test_what_a_packet_is_carried_in_goes_somewhere_too(name: str) -> None:
    proto, packet, client_port, server_port = CARRIERS[name]
    assert told(packet, packet) == [(FLOW, proto, CLIENT, client_port, SERVER, server_port)]


def test_what_it_carries_is_told_behind_it_as_ever() -> None:
    tap = Tap()
    tap.put(CARRIERS["vxlan"][1])
    assert [(seen.flow.server_port, seen.note) for seen in tap.seen] == [(4_789, BARE), (4_001, "")]


def test_icmp_inside_a_tunnel_has_two_ends_of_its_own() -> None:
    inner = frame("10.9.9.9", "198.51.100.9", 1, icmp(8))
    assert [one[4] for one in told(frame(CLIENT, SERVER, 47, b"\0\0\x08\0" + inner[14:]))] == [SERVER, "198.51.100.9"]


def test_on_a_tunnels_port_what_is_no_packet_is_an_ordinary_datagram() -> None:
    ping = frame("10.9.9.9", "198.51.100.9", 1, icmp(8))[14:-4]  # claims more than its carrier has
    tap = Tap()
    tap.put(udp((CLIENT, 5), (SERVER, 2_152), b"\x30\xff\0\x20\0\0\0\1" + ping))
    assert [(seen.flow.server_port, seen.note) for seen in tap.seen] == [(2_152, "")]


def test_a_segment_leaves_nothing_behind() -> None:
    tap = Tap()
    tap.put(udp((CLIENT, 40_000), (SERVER, 5_000), b"abc"))
    tap.put(b"")
    assert ends(tap) == [] and tap.dissector.frames.outer == []


def test_many_conversations_are_bounded() -> None:
    tap = Tap(conversations=40)
    for number in range(2_000):
        tap.put(frame(f"10.0.{number >> 8}.{number & 255}", SERVER, 1, icmp(8, number)))
    assert len(tap.dissector.portless._table) <= 20
    assert len(ends(tap)) == 2_000
    assert tap.seen[0].ts_us == EPOCH_US
