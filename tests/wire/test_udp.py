"""Datagrams through the whole dissector: DNS anywhere, mDNS and LLMNR kept apart, QUIC, quiet, multicast, floods."""

from __future__ import annotations

import itertools
import struct
from ipaddress import ip_address

import pytest

from egressd.model import DNS_ANSWER, DNS_QUERY, FLOW, QUIC_SNI, REPLY
from egressd.wire.udp import IDLE_ROTATE_US, QUIET_US, TRIES
from pcaps.hellos import QUIC_V1, QUIC_V2, client_hello, crypto, handshake, initial
from pcaps.packets import answer, question
from tests.wire.frames_made import CLIENT, SERVER, Tap, frame, udp

RESOLVER = ("10.0.0.53", 53)
STUB = (CLIENT, 50_000)
WEB = (SERVER, 443)
DCID = bytes(range(8))
SHORT_HEADER = b"\x40" + bytes(40)
ASK = question("www.shop.example", 7)
TELL = answer("www.shop.example", 7, "www.shop.example A 192.0.2.1")


def quic(name: str, dcid: bytes = DCID, version: int = QUIC_V1) -> bytes:
    return initial(version, dcid, 0, crypto(0, client_hello(name.encode())))


def quic_in_two(name: str) -> tuple[bytes, bytes]:
    message = client_hello(name.encode(), post_quantum=True)
    return initial(QUIC_V1, DCID, 0, crypto(0, message[:900])), initial(QUIC_V1, DCID, 1, crypto(900, message[900:]))


# -- DNS


def test_a_question_and_its_answer_have_one_flow_and_are_no_flow_of_their_own() -> None:
    tap = Tap()
    tap.put(udp(STUB, RESOLVER, ASK))
    tap.put(udp(RESOLVER, STUB, TELL))
    assert tap.told() == [(DNS_QUERY, "www.shop.example", ""), (DNS_ANSWER, "www.shop.example", "")]
    assert tap.kinds() == [DNS_QUERY, DNS_ANSWER]
    assert tap.seen[0].flow == tap.seen[1].flow
    flow = tap.seen[0].flow
    assert (flow.proto, flow.client, flow.client_port, flow.server_port) == (17, bytes((10, 0, 0, 5)), 50_000, 53)


def test_every_question_is_told_and_dns_never_falls_quiet() -> None:
    tap = Tap()
    for number in range(100):
        tap.put(udp(STUB, RESOLVER, question(f"n{number}.example", number)))
    assert tap.names() == [f"n{number}.example" for number in range(100)]
    assert tap.dissector.quiet_udp == {}


def test_what_is_no_dns_does_not_hide_the_question_behind_it() -> None:
    tap = Tap()
    for _ in range(20):
        tap.put(udp(STUB, RESOLVER, b"no question"))
        tap.put(udp(RESOLVER, STUB, b"no answer"))
    tap.put(udp(STUB, RESOLVER, ASK))
    tap.put(udp(RESOLVER, STUB, TELL))
    assert tap.kinds() == [FLOW, REPLY, DNS_QUERY, DNS_ANSWER]


@pytest.mark.parametrize("port", [5_300, 1, 443, 40_000])
def test_dns_is_told_by_content_on_any_port(port: int) -> None:
    tap = Tap()
    tap.put(udp(STUB, (SERVER, port), ASK))
    tap.put(udp((SERVER, port), STUB, TELL))
    assert tap.kinds() == [DNS_QUERY, DNS_ANSWER]
    assert tap.seen[1].flow.server_port == port


def test_what_is_no_dns_on_its_port_is_a_flow() -> None:
    tap = Tap()
    tap.put(udp(STUB, RESOLVER, b"tunnel"))
    tap.put(udp(STUB, RESOLVER, b"\xff" * 60))
    tap.put(udp(RESOLVER, STUB, b"\xff" * 60))
    assert tap.kinds() == [FLOW, REPLY]
    assert tap.dissector.counts()["udp_malformed"] == 3


def test_what_only_comes_to_a_host_is_told_once_the_host_sends() -> None:
    """Anybody can send it, under any address."""
    tap = Tap()
    for _ in range(2):
        tap.put(udp(WEB, STUB, SHORT_HEADER))
    assert tap.kinds() == []
    for _ in range(2):
        tap.put(udp(STUB, WEB, SHORT_HEADER))
        tap.put(udp(WEB, STUB, SHORT_HEADER))
    assert tap.kinds() == [FLOW, REPLY]
    assert {seen.flow.client_port for seen in tap.seen} == {50_000}


def test_a_hello_behind_what_only_came_has_its_sender_as_client() -> None:
    tap = Tap()
    tap.put(udp(STUB, (SERVER, 50_001), b"data"))
    tap.put(udp((SERVER, 50_001), STUB, quic("www.shop.example")))
    tap.put(udp(STUB, (SERVER, 50_001), SHORT_HEADER))
    assert tap.kinds() == [FLOW, QUIC_SNI, REPLY]
    assert [seen.flow.client_port for seen in tap.seen] == [50_000, 50_001, 50_001]


def test_what_a_client_sent_while_it_passed_for_a_server_is_no_answer() -> None:
    tap = Tap()
    tap.put(udp(WEB, ("198.51.100.7", 50_001), b"data"))
    tap.put(udp(WEB, ("198.51.100.7", 50_001), quic("www.shop.example")))
    assert tap.kinds() == [FLOW, QUIC_SNI]
    tap.put(udp(("198.51.100.7", 50_001), WEB, SHORT_HEADER))
    assert tap.kinds() == [FLOW, QUIC_SNI, REPLY]
    assert {seen.flow.client_port for seen in tap.seen} == {WEB[1]}


def test_an_answer_that_nobody_was_seen_asking_for_still_has_the_asker_as_client() -> None:
    tap = Tap()
    tap.put(udp(RESOLVER, STUB, TELL))
    assert tap.seen[0].flow.client_port == 50_000


def fragment(place: int, more: bool, body: bytes, six: bool = False, back: bool = False) -> bytes:
    if back:
        made = bytearray(frame("192.0.2.53", CLIENT, 17, body))
        made[20:22] = struct.pack(">H", more << 13 | place >> 3)
        return bytes(made)
    if six:
        header = struct.pack(">BBHI", 17, 0, place | more, 7)
        return frame("fd00::5", "2001:db8::53", 44, header + body)
    made = bytearray(frame(CLIENT, "192.0.2.53", 17, body))
    made[20:22] = struct.pack(">H", more << 13 | place >> 3)
    return bytes(made)


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_decoy_among_fragments_hides_no_question(order: tuple[int, ...], six: bool) -> None:
    """It does not reach the resolver, or the resolver's host takes the other one."""
    good, bad = question("www.good.example", 7), question("www.evil.example", 7)
    head = struct.pack(">HHHH", 50_000, 53, 8 + len(good), 0)
    parts = [
        fragment(0, True, (head + good)[:24], six),
        fragment(0, True, (head + bad)[:24], six),
        fragment(24, True, good[16:24], six),
        fragment(24, True, bad[16:24], six),
        fragment(32, False, good[24:], six),
    ]
    assert good[24:] == bad[24:] and good[:16] == bad[:16]
    tap = Tap()
    tap.put(parts[0])
    for at in order:
        tap.put(parts[2 + at])
    assert sorted(tap.names()) == ["www.evil.example", "www.good.example"]


def test_only_the_first_reading_of_an_answer_is_believed() -> None:
    """Whoever guesses an identification could have any address blocked."""
    told = struct.pack(">HHHH", 53, 50_000, 8 + len(TELL), 0) + TELL
    forged = told[:-4] + bytes((203, 0, 113, 1))
    cut = len(told) & ~7
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2)):
        parts = [(0, True, told[:cut]), (cut, False, told[cut:]), (cut, False, forged[cut:])]
        tap = Tap()
        for at in order:
            tap.put(fragment(*parts[at], back=True))
        assert tap.kinds() == [DNS_ANSWER]


# -- mDNS and LLMNR


@pytest.mark.parametrize(
    ("source", "target", "counter"),
    [
        (("10.0.0.5", 5353), ("224.0.0.251", 5353), "mdns"),
        (("10.0.0.5", 40_000), ("224.0.0.251", 5353), "mdns"),
        (("10.0.0.6", 5353), ("10.0.0.5", 40_000), "mdns"),
        (("fe80::5", 5353), ("ff02::fb", 5353), "mdns"),
        (("10.0.0.5", 40_000), ("224.0.0.252", 5355), "llmnr"),
        (("10.0.0.6", 5355), ("10.0.0.5", 40_000), "llmnr"),
        (("198.51.100.5", 5353), ("198.51.100.5", 5353), "mdns"),
    ],
)
def test_link_local_questions_are_counted_and_kept_apart(
    source: tuple[str, int], target: tuple[str, int], counter: str
) -> None:
    tap = Tap()
    tap.put(udp(source, target, question("printer.local", 0)))
    tap.put(udp(source, target, b"anything"))
    assert tap.seen == []
    assert tap.dissector.counts() == {counter: 2}


@pytest.mark.parametrize("port", [5353, 5355])
def test_a_public_server_on_their_ports_is_egress(port: int) -> None:
    tap = Tap()
    tap.put(udp(STUB, (SERVER, port), ASK))
    tap.put(udp((SERVER, port), STUB, TELL))
    assert tap.kinds() == [DNS_QUERY, DNS_ANSWER]
    tap = Tap()
    tap.put(udp(STUB, (SERVER, port), b"no DNS at all"))
    assert tap.kinds() == [FLOW]


# -- QUIC


@pytest.mark.parametrize("version", [QUIC_V1, QUIC_V2])
def test_quic_tells_flow_then_name_then_reply_and_is_quiet(version: int) -> None:
    tap = Tap()
    tap.put(udp(STUB, WEB, quic("www.shop.example", version=version)))
    assert tap.kinds() == [FLOW, QUIC_SNI]
    assert tap.seen[1].version == version and tap.seen[1].name == "www.shop.example"
    tap.put(udp(WEB, STUB, handshake(version, DCID)))
    assert tap.kinds() == [FLOW, QUIC_SNI, REPLY]
    assert len(tap.dissector.quiet_udp) == 2
    tap.put(udp(WEB, STUB, handshake(version, DCID)))
    tap.put(udp(STUB, WEB, quic("www.shop.example", version=version)))
    tap.put(udp(WEB, STUB, SHORT_HEADER))
    tap.put(udp(STUB, WEB, SHORT_HEADER))
    assert tap.kinds() == [FLOW, QUIC_SNI, REPLY]
    assert tap.dissector.udp.skipped_quiet == 2
    assert tap.dissector.counts() == {}


def test_a_hello_in_two_initials_in_any_order() -> None:
    for order in ((0, 1), (1, 0), (0, 0, 1), (1, 1, 0)):
        tap = Tap()
        parts = quic_in_two("www.shop.example")
        for number in order:
            tap.put(udp(STUB, WEB, parts[number]))
        assert tap.told() == [(QUIC_SNI, "www.shop.example", "")], order


def test_a_clients_initial_decides_who_is_the_client() -> None:
    """All rules but content would have it the other way round."""
    tap = Tap()
    tap.put(udp(("192.0.2.10", 443), ("10.0.0.5", 50_000), quic("www.shop.example")))
    assert tap.kinds() == [FLOW, QUIC_SNI]
    assert {seen.flow.client_port for seen in tap.seen} == {443}


def test_a_guess_that_an_initial_corrects() -> None:
    tap = Tap()
    source, target = ("192.0.2.10", 443), ("10.0.0.5", 50_000)
    for part in quic_in_two("www.shop.example"):
        tap.put(udp(source, target, part))
    assert tap.seen[-1].kind == QUIC_SNI and tap.seen[-1].flow.client_port == 443


def test_half_a_hello_is_told_at_the_end_or_when_it_is_pushed_out() -> None:
    tap = Tap()
    tap.put(udp(STUB, WEB, quic_in_two("www.shop.example")[0]))
    assert tap.told() == []
    assert tap.flush().told() == [(QUIC_SNI, "www.shop.example", "partial")]
    tap = Tap(32)
    tap.put(udp(STUB, WEB, quic_in_two("www.shop.example")[0]))
    for number in range(200):
        tap.put(udp((f"10.0.1.{number}", 40_000), WEB, b"other"))
    assert tap.told() == [(QUIC_SNI, "www.shop.example", "partial")]


def test_the_next_connection_from_the_same_port_is_read_at_once() -> None:
    """A client may open it with another connection id (RFC 9000 section 5.2)."""
    tap = Tap()
    tap.put(udp(STUB, WEB, quic("www.shop.example")))
    tap.put(udp(WEB, STUB, handshake(QUIC_V1, DCID)))
    tap.put(udp(STUB, WEB, SHORT_HEADER))
    tap.put(udp(STUB, WEB, quic("www.bad.example", b"another!")))
    assert tap.names() == ["www.shop.example", "www.bad.example"]
    assert tap.count(FLOW) == tap.count(REPLY) == 1


@pytest.mark.parametrize("junk", [b"junk", b"\xc0" + bytes(30), b"\xc0\0\0\0\1" + bytes(1200), SHORT_HEADER])
def test_junk_before_an_initial_hides_nothing(junk: bytes) -> None:
    tap = Tap()
    for _ in range(40):
        tap.put(udp(STUB, WEB, junk))
        tap.put(udp(WEB, STUB, junk))
    tap.put(udp(STUB, WEB, quic("www.bad.example")))
    assert tap.names() == ["www.bad.example"]


def test_an_initial_behind_a_packet_of_another_kind_is_read() -> None:
    """Packets of one datagram may come in any order (RFC 9000 section 12.2)."""
    tap = Tap()
    tap.put(udp(STUB, WEB, handshake(QUIC_V1, DCID) + quic("www.bad.example")))
    assert tap.names() == ["www.bad.example"]


def test_a_server_that_opens_a_connection_itself_is_read() -> None:
    tap = Tap()
    tap.put(udp(STUB, WEB, quic("www.shop.example")))
    tap.put(udp(WEB, STUB, quic("www.bad.example", b"another!")))
    assert tap.names() == ["www.shop.example", "www.bad.example"]
    assert tap.seen[-1].flow.client_port == 443


def test_a_servers_initials_cost_no_keys() -> None:
    tap = Tap()
    tap.put(udp(STUB, WEB, quic("www.shop.example")))
    for number in range(3):
        tap.put(udp(WEB, STUB, initial(QUIC_V1, DCID[::-1][:5], number, b"\x01")))
    assert tap.dissector.counts() == {}
    assert len(tap.dissector.udp.quic) == 1


def test_quiet_ends_with_time_and_a_new_connection_from_the_same_port_is_read() -> None:
    tap = Tap()
    tap.put(udp(STUB, WEB, quic("www.shop.example")))
    tap.wait(QUIET_US / 1e6)
    tap.put(udp(STUB, WEB, quic("next.shop.example", b"another!")))
    assert tap.names() == ["www.shop.example", "next.shop.example"]
    assert tap.count(FLOW) == 1


# -- everything else


def test_flow_and_reply_are_told_once_and_each_direction_becomes_quiet() -> None:
    tap = Tap()
    for _ in range(TRIES + 5):
        tap.put(udp(STUB, (SERVER, 9_999), b"question"))
        tap.put(udp((SERVER, 9_999), STUB, b"answer"))
    assert tap.kinds() == [FLOW, REPLY]
    assert len(tap.dissector.quiet_udp) == 2
    assert tap.dissector.udp.skipped_quiet == 10


def test_a_name_in_the_last_datagram_before_quiet_is_read() -> None:
    tap = Tap()
    for _ in range(TRIES - 1):
        tap.put(udp(STUB, WEB, b"noise"))
    tap.put(udp(STUB, WEB, quic("www.shop.example")))
    assert tap.names() == ["www.shop.example"]


def test_a_server_that_is_heard_first() -> None:
    tap = Tap()
    tap.put(udp((SERVER, 123), (CLIENT, 40_123), b"time"))
    tap.put(udp((CLIENT, 40_123), (SERVER, 123), b"time?"))
    assert tap.kinds() == [FLOW, REPLY]
    assert tap.seen[0].flow.client_port == 40_123


@pytest.mark.parametrize(("client", "server"), [(CLIENT, SERVER), ("2001:db8:1::5", "2001:db8:2::7")])
def test_who_sends_out_of_the_network_is_the_client_whatever_port_it_takes(client: str, server: str) -> None:
    """From the port of a service, to one that is none, a host was the server of its controller, which no list met."""
    tap = Tap()
    tap.dissector.incoming = ":" in client  # on a gateway that tells; in a capture the kinds of addresses do
    tap.put(udp((client, 8_080), (server, 40_000), b"here I am"))
    assert tap.kinds() == [FLOW]
    assert tap.seen[0].flow.client == ip_address(client).packed


def test_who_is_asked_from_outside_is_the_server() -> None:
    tap = Tap()
    tap.put(udp((SERVER, 40_000), (CLIENT, 8_080), b"anybody there?"))
    tap.put(udp((CLIENT, 8_080), (SERVER, 40_000), b"yes"))
    assert tap.kinds() == [FLOW, REPLY]
    assert tap.seen[0].flow.client == ip_address(SERVER).packed


def test_an_idle_conversation_is_forgotten() -> None:
    tap = Tap()
    tap.put(udp(STUB, (SERVER, 9_999), b"x"))
    for number in range(3):
        tap.wait(IDLE_ROTATE_US / 1e6)
        tap.put(udp(("10.0.0.6", number), (SERVER, 9_999), b"x"))
    tap.put(udp(STUB, (SERVER, 9_999), b"x"))
    assert sum(seen.flow.client_port == 50_000 for seen in tap.seen) == 2
    assert tap.dissector.counts()["udp_evicted"] >= 1


@pytest.mark.parametrize("target", ["239.255.255.250", "255.255.255.255", "ff02::c"])
def test_multicast_is_counted_and_is_no_destination(target: str) -> None:
    tap = Tap()
    source = "fe80::5" if ":" in target else CLIENT
    for _ in range(3):
        tap.put(udp((source, 40_000), (target, 1900), b"M-SEARCH * HTTP/1.1\r\n\r\n"))
    assert tap.seen == []
    assert tap.dissector.counts() == {"multicast": 1}
    assert tap.dissector.udp.skipped_quiet == 2


def test_an_empty_datagram_is_a_contact() -> None:
    tap = Tap()
    tap.put(udp(STUB, (SERVER, 9_999), b""))
    assert tap.kinds() == [FLOW]


def test_ipv6() -> None:
    tap = Tap()
    here, there = ("fd00::5", 50_000), ("2001:db8::10", 443)
    tap.put(udp(here, there, quic("www.shop.example")))
    tap.put(udp(there, here, handshake(QUIC_V1, DCID)))
    assert tap.kinds() == [FLOW, QUIC_SNI, REPLY]
    assert tap.seen[0].flow.server == ip_address("2001:db8::10").packed


# -- floods


def test_a_flood_of_one_client_harms_nobody_else() -> None:
    tap = Tap(200)
    victim = ("10.0.0.77", 1_234)
    first, second = quic_in_two("www.shop.example")
    tap.put(udp(victim, WEB, first))
    for port in range(1, 10_000):
        tap.put(udp((CLIENT, port), (SERVER, 123), b"x"))
    tap.put(udp(victim, WEB, second))
    assert tap.told() == [(QUIC_SNI, "www.shop.example", "")]
    assert tap.count(FLOW) == 10_000
    assert len(tap.dissector.udp._table) <= 200
    assert tap.dissector.counts()["client_over_share"] == 9_999 - 20


def test_a_client_over_its_share_is_told_once_a_conversation() -> None:
    tap = Tap(200)
    for port in range(1, 500):
        for _ in range(3):
            tap.put(udp((CLIENT, port), (SERVER, 9_999), b"x"))
            tap.put(udp((SERVER, 9_999), (CLIENT, port), b"x"))
    assert tap.kinds() == [FLOW, REPLY] * 499


def test_floods_keep_every_table_in_its_bound() -> None:
    tap = Tap(200)
    for number in range(10_000):
        source = f"10.1.{number // 256}.{number % 256}"
        tap.put(udp((source, 40_000), (f"239.0.{number // 256}.{number % 256}", 9), b"x"))
        tap.put(udp((source, 40_000), (SERVER, 9_999), b"x"))
    assert len(tap.dissector.udp._table) <= 200
    assert len(tap.dissector.quiet_udp) <= 200
    assert len(tap.dissector.udp.quiet._ring) <= 200
