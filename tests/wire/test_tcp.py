"""TCP conversations through the whole dissector: who opened, what was told, what is told once, what is bounded."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from egressd.model import DNS_ANSWER, DNS_QUERY, FLOW, HTTP_HOST, REPLY, SOCKS_HOST, TLS_SNI
from egressd.wire.stream import MAX_HELD_BYTES, MAX_JUMP
from egressd.wire.tcp import HOLE_US, MAX_STRAYS, QUIET_US, SEGMENTS_AFTER
from pcaps.hellos import APPLICATION, SERVER_HELLO, client_hello, hello, records
from pcaps.packets import OK, answer, framed, get, question
from tests.wire.frames_made import ACK, CLIENT, EPOCH_US, FIN, PSH, RST, SERVER, SYN, Line, Tap, frame, tcp

HELLO = hello("www.shop.example")
LONG_HELLO = hello("www.shop.example", post_quantum=True)
SNI = (TLS_SNI, "www.shop.example", "")


def key_of(line: Line, side: int = 0) -> bytes:
    (here, here_port), (there, there_port) = line.ends[side], line.ends[1 - side]
    ports = here_port.to_bytes(2, "big") + there_port.to_bytes(2, "big")
    return ip_address(here).packed + ip_address(there).packed + ports


@pytest.mark.parametrize("sent", [HELLO, get("www.shop.example")], ids=["hello", "request"])
@pytest.mark.parametrize("first", [1, 2, 3, 4, 12])
def test_a_server_that_listens_on_the_port_of_dns_is_named_though_the_name_comes_in_morsels(
    sent: bytes, first: int
) -> None:
    tap = Tap()
    line = Line(tap, server=("192.0.2.10", 53)).open()
    line.send(sent[:first], 0).send(sent[first:], first)
    assert tap.names() == ["www.shop.example"]


# -- opening


def test_a_connection_tells_flow_then_reply_then_its_name() -> None:
    tap = Tap()
    Line(tap).open().send(HELLO).receive(SERVER_HELLO).close()
    assert tap.kinds() == [FLOW, REPLY, TLS_SNI]
    assert [seen.number for seen in tap.seen] == [1, 2, 4]
    flow = tap.seen[0].flow
    assert (flow.proto, flow.client, flow.client_port) == (6, bytes((10, 0, 0, 5)), 40_000)
    assert (flow.server, flow.server_port) == (bytes((192, 0, 2, 10)), 443)
    assert {seen.flow for seen in tap.seen} == {flow}
    assert tap.seen[0].ts_us == EPOCH_US


def test_a_syn_sent_again_counts_once() -> None:
    tap = Tap()
    Line(tap).syn().syn().syn().syn_ack().syn_ack().syn().send(HELLO)
    assert tap.kinds() == [FLOW, REPLY, TLS_SNI]


def test_an_unanswered_syn_is_a_flow_without_reply() -> None:
    tap = Tap()
    Line(tap).syn()
    assert tap.flush().kinds() == [FLOW]


def test_syn_and_syn_ack_in_the_wrong_order_are_one_connection() -> None:
    tap = Tap()
    line = Line(tap).syn_ack().syn()
    line.send(HELLO[100:], 100).send(HELLO[:100], 0)
    assert tap.kinds() == [FLOW, REPLY, TLS_SNI]
    assert tap.seen[0].flow.client_port == 40_000


def test_a_second_answer_to_a_syn_is_no_new_connection() -> None:
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO[:500])
    Line(tap, isn=(1_000, 77_000)).syn_ack()  # a balancer, or a server that wants observers to forget
    line.send(LONG_HELLO[500:])
    assert tap.kinds() == [FLOW, REPLY, TLS_SNI]


def test_ports_used_anew_are_a_new_connection() -> None:
    tap = Tap()
    Line(tap).open().send(HELLO).receive(SERVER_HELLO).receive(APPLICATION)
    Line(tap, isn=(5_000_000, 1)).open().send(hello("second.shop.example")).receive(SERVER_HELLO)
    assert tap.kinds() == [FLOW, REPLY, TLS_SNI] * 2
    assert tap.names() == ["www.shop.example", "second.shop.example"]


def test_ports_used_anew_after_a_half_read_hello_tell_that_first() -> None:
    tap = Tap()
    Line(tap).open().send(LONG_HELLO[:900])
    Line(tap, isn=(5_000_000, 1)).syn().syn_ack().send(hello("second.shop.example"))
    assert tap.told() == [(TLS_SNI, "www.shop.example", "partial"), (TLS_SNI, "second.shop.example", "")]
    assert tap.kinds().count(FLOW) == tap.kinds().count(REPLY) == 2


def test_a_syn_that_the_server_refuses_does_not_make_us_forget() -> None:
    for half in (HELLO[:3], HELLO[:100]):
        tap = Tap()
        line = Line(tap).open().send(half)
        Line(tap, isn=(5_000_000, 1)).syn().syn(HELLO)
        line.send(HELLO[len(half) :])
        assert tap.kinds() == [FLOW, REPLY, TLS_SNI]
        assert tap.told() == [SNI]


def test_a_syn_whose_answer_was_not_captured_counts_when_the_client_goes_on_from_it() -> None:
    tap = Tap()
    Line(tap).open().send(LONG_HELLO[:100])
    Line(tap, isn=(5_000_000, 1)).syn().send(hello("second.shop.example"))
    assert tap.told()[-1][:2] == (TLS_SNI, "second.shop.example")


def test_what_has_no_ack_is_taken_by_nobody() -> None:
    tap = Tap()
    line = Line(tap).open()
    line.send(hello("other.shop.example"), 0, flags=PSH).send(b"x" * 6_000, 0, flags=0)
    line.send(HELLO[:100], 0).send(b"", 100, flags=FIN).send(HELLO[100:], 100)
    assert tap.told() == [SNI]
    assert tap.dissector.counts() == {}


def test_what_has_no_ack_is_read_where_the_beginning_was_not_seen() -> None:
    tap = Tap()
    Line(tap).send(HELLO, 0, flags=PSH)
    assert tap.told() == [SNI]


RETRY = records(
    b"\x02\0\0\x34\x03\x03"
    + bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    + bytes(18)
)
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\0\1\1"


@pytest.mark.parametrize("between", [b"", CHANGE_CIPHER_SPEC])
def test_another_name_in_the_hello_that_the_server_asks_for(between: bytes) -> None:
    for step in (1, 7, 2_000):
        tap = Tap()
        line = Line(tap).open().send(HELLO).receive(RETRY + CHANGE_CIPHER_SPEC)
        second = between + hello("second.shop.example")
        for at in range(0, len(second), step):
            line.send(second[at : at + step])
        line.receive(SERVER_HELLO).send(APPLICATION).receive(APPLICATION)
        assert tap.told() == [SNI, (TLS_SNI, "second.shop.example", "")]
        assert len(tap.dissector.quiet) == 2


def test_a_decoy_of_the_hello_that_the_server_asks_for_hides_nothing() -> None:
    tap = Tap()
    line = Line(tap).open().send(HELLO).receive(RETRY)
    at = line.sent[0]
    line.send(hello("www.good.example"))
    for _ in range(10):
        line.send(APPLICATION * 10)
    line.send(hello("www.evil.example"), at).receive(SERVER_HELLO)
    assert tap.told() == [SNI, *BOTH]
    assert len(tap.dissector.quiet) == 2


def test_the_same_name_in_the_hello_that_the_server_asks_for_is_told_once() -> None:
    tap = Tap()
    Line(tap).open().send(HELLO).receive(RETRY).send(CHANGE_CIPHER_SPEC + HELLO).receive(SERVER_HELLO)
    assert tap.told() == [SNI]
    assert len(tap.dissector.quiet) == 2


def test_data_in_the_syn() -> None:
    tap = Tap()
    Line(tap).syn(HELLO).syn_ack()
    assert tap.told() == [SNI]
    tap = Tap()
    line = Line(tap).syn(LONG_HELLO[:300])
    line.syn_ack().send(LONG_HELLO[300:], 300)
    assert tap.told() == [SNI]


@pytest.mark.parametrize("flags", [RST, RST | ACK, FIN | ACK, ACK, 0])
def test_packets_of_no_known_connection_without_payload_tell_nothing(flags: int) -> None:
    tap = Tap()
    tap.put(tcp((CLIENT, 40_000), (SERVER, 443), 7, flags))
    assert tap.flush().seen == []


# -- midstream


def test_midstream_from_the_client() -> None:
    tap = Tap()
    Line(tap).send(HELLO).receive(SERVER_HELLO)
    assert tap.kinds() == [FLOW, TLS_SNI, REPLY]


def test_midstream_from_the_server() -> None:
    tap = Tap()
    Line(tap, server=(SERVER, 80)).receive(OK).send(get("www.shop.example"))
    assert tap.kinds() == [FLOW, REPLY, HTTP_HOST]
    assert {seen.flow.client_port for seen in tap.seen} == {40_000}


def test_content_corrects_the_guess_before_anything_is_told() -> None:
    """Both ports say nothing, and the sender at the public address is the client."""
    tap = Tap()
    Line(tap, ("198.51.100.7", 5_000), ("10.0.0.9", 6_000)).send(HELLO).receive(SERVER_HELLO)
    assert tap.kinds() == [FLOW, TLS_SNI, REPLY]
    assert {seen.flow.client_port for seen in tap.seen} == {5_000}


def test_a_servers_hello_tells_that_its_receiver_is_the_client() -> None:
    tap = Tap()
    Line(tap, ("198.51.100.7", 5_000), ("10.0.0.9", 6_000)).receive(SERVER_HELLO).send(b"of a kind nobody knows")
    assert tap.kinds() == [FLOW, REPLY]
    assert {seen.flow.client_port for seen in tap.seen} == {5_000}


def test_what_a_client_sent_while_it_passed_for_a_server_is_no_answer() -> None:
    tap = Tap()
    line = Line(tap, ("198.51.100.7", 443), ("203.0.113.9", 50_000)).send(HELLO[:100]).send(HELLO[100:], 100)
    assert tap.kinds() == [FLOW, TLS_SNI]
    line.receive(SERVER_HELLO)
    assert tap.kinds() == [FLOW, TLS_SNI, REPLY]
    assert {seen.flow.client_port for seen in tap.seen} == {443}


def test_what_only_comes_to_a_host_is_told_once_the_host_sends() -> None:
    """Anybody can send it, under any address, and the host's system says RST to it."""
    resolved = framed(answer("www.shop.example", 7, "www.shop.example A 192.0.2.1"))
    for data, flags in ((b"", SYN | ACK), (b"data", ACK), (OK, ACK), (SERVER_HELLO, ACK | PSH), (resolved, ACK)):
        for port in (443, 53):
            tap = Tap()
            line = Line(tap, server=(SERVER, port))
            tap.put(line.made(1, -1 if flags & SYN else 0, data, flags))
            tap.put(line.made(0, 0, b"", RST))
            assert FLOW not in tap.kinds() and REPLY not in tap.kinds(), (data, port)
    tap = Tap()
    Line(tap).syn_ack().send(b"of a kind nobody knows")
    assert tap.kinds() == [FLOW, REPLY], "the SYN was lost"
    tap = Tap()
    line = Line(tap).receive(b"data")
    tap.put(line.made(0, 0, b"", FIN | ACK))
    assert tap.kinds() == [FLOW, REPLY], "nobody ends what he has not begun"


def test_a_request_from_the_side_that_took_the_syn_is_nothing_that_its_receiver_sent() -> None:
    """A SYN-ACK and a segment under any address, which begins as a client's words: nobody here has sent anything."""
    for sent in (HELLO, get("www.shop.example"), framed(question("www.shop.example", 7))):
        tap = Tap()
        line = Line(tap)
        tap.put(line.made(1, -1, b"", SYN | ACK))
        tap.put(line.made(1, 0, sent, ACK))
        tap.put(line.made(0, 0, b"", RST))
        assert FLOW not in tap.kinds() and REPLY not in tap.kinds()
        assert tap.names() == ["www.shop.example"]
        assert tap.seen[0].flow.client == bytes((192, 0, 2, 10))


def test_midstream_with_the_first_segments_in_the_wrong_order() -> None:
    for cut in (1, 40, 200, len(HELLO) - 1):
        tap = Tap()
        Line(tap).send(HELLO[cut:], cut).send(HELLO[:cut], 0)
        assert tap.told() == [SNI], cut


def test_midstream_inside_a_message_finds_the_next_request() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).send(b"...the end of some body...")
    line.receive(OK).send(get("www.shop.example"))
    assert tap.names() == ["www.shop.example"]


# -- content on any port


def test_protocols_inside_one_another() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 1080)).open()
    line.send(b"\x05\x01\x00").receive(b"\x05\x00")
    line.send(b"\x05\x01\x00\x03\x0dproxy.example\x1f\x90").receive(b"\x05\x00\x00\x01" + bytes(6))
    line.send(b"CONNECT www.shop.example:443 HTTP/1.1\r\n\r\n").receive(b"HTTP/1.1 200 OK\r\n\r\n")
    line.send(hello("inner.shop.example"))
    assert tap.told() == [
        (SOCKS_HOST, "proxy.example", ""),
        (HTTP_HOST, "www.shop.example", "proxied"),
        (TLS_SNI, "inner.shop.example", "proxied"),
    ]


def test_a_request_of_socks_behind_what_a_private_method_says() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 1_080)).open().send(b"\x05\x02\x80\x81").receive(b"\x05\x80")
    for part in (b"\x80\x10challenge", b"\x00\x16\x03", b"\x99" * 40):
        line.send(part).receive(b"\x80\x00")
    line.send(b"\x05\x01\x00\x03\x0fwww.evil.example\x01\xbb".replace(b"\x0f", b"\x10")).receive(b"\x05\x00" + bytes(8))
    line.send(HELLO)
    assert tap.told() == [(SOCKS_HOST, "www.evil.example", ""), (TLS_SNI, "www.shop.example", "proxied")]


def test_socks4a_cut_anywhere_then_tls() -> None:
    """A client of SOCKS 4 waits for the answer: what is spoken through the proxy comes in segments of its own."""
    request = b"\x04\x01\x01\xbb\0\0\0\x01user\0proxy.example\0"
    for cut in range(1, len(request)):
        tap = Tap()
        line = Line(tap, server=(SERVER, 9050)).open().send(request[:cut]).send(request[cut:])
        line.receive(b"\0\x5a" + bytes(6)).send(HELLO[:cut]).send(HELLO[cut:])
        assert tap.told() == [(SOCKS_HOST, "proxy.example", ""), (TLS_SNI, "www.shop.example", "proxied")], cut


def test_starttls_after_talk() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 25)).open().receive(b"220 mail.shop.example ESMTP\r\n")
    line.send(b"EHLO a.example\r\n").receive(b"250 STARTTLS\r\n").send(b"STARTTLS\r\n").receive(b"220 go\r\n")
    line.send(HELLO[:200]).send(HELLO[200:])
    assert tap.told() == [SNI]


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 10.0.0.5 192.0.2.1 40000 443\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)]
)
def test_behind_a_proxy_header_cut_anywhere(header: bytes) -> None:
    for cut in range(1, len(header) + 20):
        tap = Tap()
        wire = header + HELLO
        Line(tap, server=(SERVER, 8443)).open().send(wire[:cut]).send(wire[cut:])
        assert tap.told() == [SNI], cut


@pytest.mark.parametrize(
    ("request_", "port"),
    [
        (bytes.fromhex("0000000804d2162f"), 5432),
        (bytes.fromhex("20000001 85aeff19 00000001 2d") + bytes(23), 3306),
        (bytes.fromhex("20000001 05080000 00000001 00") + bytes(23), 3306),
    ],
    ids=["PostgreSQL", "MySQL", "MySQL with little"],
)
def test_behind_the_request_for_tls_of_a_database_cut_anywhere(request_: bytes, port: int) -> None:
    wire = request_ + HELLO
    for cut in range(len(request_) + 20):
        tap = Tap()
        line = Line(tap, server=(SERVER, port)).open()
        (line.send(wire[:cut]) if cut else line).send(wire[cut:])
        assert tap.told() == [SNI], cut
    tap = Tap()
    line = Line(tap, server=(SERVER, port)).open().send(request_).receive(b"S").send(HELLO[:50]).send(HELLO[50:])
    assert tap.told() == [SNI]


def test_a_request_of_the_side_that_took_the_syn_has_that_side_as_client() -> None:
    tap = Tap()
    Line(tap, server=(SERVER, 4444)).open().receive(get("www.shop.example"))
    assert tap.kinds() == [FLOW, REPLY, HTTP_HOST]
    assert tap.seen[2].flow.client == bytes((192, 0, 2, 10))


@pytest.mark.parametrize("short", [b"\0\0", b"\0\1\0", b"\0\0" * 60, b"\0\x0b" + bytes(11) + b"\0\2ab"])
@pytest.mark.parametrize("first", [b"", framed(question("one.shop.example", 6))], ids=["begins", "goes on"])
def test_messages_too_short_for_a_header_are_stepped_over_cut_anywhere(short: bytes, first: bytes) -> None:
    """As BIND, dnsmasq and CoreDNS do."""
    wire = first + short + framed(question("www.shop.example", 7)) + short + framed(question("two.shop.example", 8))
    names = ["www.shop.example", "two.shop.example"]
    for cut in range(1, len(wire)):
        tap = Tap()
        Line(tap, server=("10.0.0.53", 53)).open().send(wire[:cut]).send(wire[cut:])
        assert [name for _, name, _ in tap.told()] == (["one.shop.example"] if first else []) + names, cut


def test_another_protocol_behind_a_short_message_on_the_port_of_dns() -> None:
    for wire in (b"\0\0" + HELLO, b"\0\1x" + HELLO):
        for cut in (1, 2, 3, 4, 60):
            tap = Tap()
            Line(tap, server=(SERVER, 53)).open().send(wire[:cut]).send(wire[cut:])
            assert tap.told() == [SNI], cut


def test_questions_and_answers_over_tcp() -> None:
    tap = Tap()
    line = Line(tap, server=("10.0.0.53", 53)).open()
    asked = framed(question("www.shop.example", 7)) + framed(question("two.shop.example", 8))
    told = framed(answer("www.shop.example", 7, "www.shop.example A 192.0.2.1")) + framed(
        answer("two.shop.example", 8, "two.shop.example A 192.0.2.2")
    )
    for at in range(0, len(asked), 11):
        line.send(asked[at : at + 11])
    for at in range(0, len(told), 13):
        line.receive(told[at : at + 13])
    assert tap.told() == [
        (DNS_QUERY, "www.shop.example", ""),
        (DNS_QUERY, "two.shop.example", ""),
        (DNS_ANSWER, "www.shop.example", ""),
        (DNS_ANSWER, "two.shop.example", ""),
    ]
    assert len({seen.flow for seen in tap.seen}) == 1


# -- loss


def request_with_body(size: int) -> bytes:
    return get("post.shop.example", method="POST", body="b" * size)


def test_a_segment_lost_in_a_body_loses_nothing() -> None:
    head = request_with_body(3_000)
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    line.send(head[:1_000]).send(head[2_000:], 2_000)
    tap.wait(HOLE_US / 1e6)
    line.send(get("next.shop.example")).receive(OK)
    assert tap.names() == ["post.shop.example", "next.shop.example"]
    assert tap.dissector.counts()["tcp_lost_bytes"] == 1_000


def test_a_segment_lost_elsewhere_resumes_at_a_later_request() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    first, lost, third = get("one.example"), get("two.example"), get("three.example")
    line.send(first)
    line.send(third, len(first) + len(lost))
    tap.wait(HOLE_US / 1e6)
    line.send(get("four.example"))
    assert tap.names() == ["one.example", "three.example", "four.example"]


def test_after_a_loss_the_next_request_may_be_a_long_body_away_again_and_again() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    for number in range(6):
        wire = request_with_body(20_000)
        line.send(wire[:50])  # inside the head; the rest of the head is lost
        at = line.sent[0] + 900
        for _ in range(15):
            line.send(b"b" * 1_000, at)
            at += 1_000
        tap.wait(HOLE_US / 1e6)
        line.send(get(f"n{number}.example"), at)
    assert [name for name in tap.names() if name.startswith("n")] == [f"n{number}.example" for number in range(6)]


def test_a_hole_is_given_up_for_bytes_as_well_as_for_time() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    line.send(b"x", 100)
    at = 101
    while at < MAX_HELD_BYTES:
        line.send(b"x" * 9_000, at)
        at += 9_000
    line.send(get("www.shop.example"), at)
    assert tap.names() == ["www.shop.example"]
    assert tap.dissector.counts()["tcp_holes"] == 1


def test_a_hole_in_a_hello_tells_what_came_before_it() -> None:
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO[:700]).send(LONG_HELLO[1_400:], 1_400)
    tap.wait(HOLE_US / 1e6)
    line.send(APPLICATION)
    assert tap.told() == [(TLS_SNI, "www.shop.example", "partial")]


def test_dns_after_a_loss_is_believed_only_where_a_message_begins() -> None:
    tap = Tap()
    line = Line(tap, server=("10.0.0.53", 53)).open()
    message = framed(question("www.shop.example", 7))
    line.send(message)
    line.send(message[20:], len(message) + 20)  # the rest of a message whose beginning is lost
    tap.wait(HOLE_US / 1e6)
    line.send(framed(question("next.shop.example", 8)))
    assert tap.names() == ["www.shop.example", "next.shop.example"]


def test_a_packet_captured_in_part_does_not_hide_the_next_request() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    wire = request_with_body(1_000)
    tap.put(line.made(0, 0, wire), cut=900)
    line.send(get("next.shop.example"), len(wire))
    assert tap.names() == ["post.shop.example", "next.shop.example"]
    assert "tcp_ambiguous" not in tap.dissector.counts()


def test_what_is_out_of_order_in_a_cut_capture_disagrees_with_nothing() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    tap.put(line.made(0, 0, b"a" * 500), cut=400)
    line.send(b"b" * 500, 1_000).send(b"c" * 500, 500).send(get("next.shop.example"), 1_500)
    assert tap.told() == [(HTTP_HOST, "next.shop.example", "")]
    assert "tcp_ambiguous" not in tap.dissector.counts()


# -- ends


@pytest.mark.parametrize("flags", [FIN | ACK, RST, RST | ACK])
def test_the_end_tells_what_a_half_hello_said(flags: int) -> None:
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO[:700])
    assert tap.told() == []
    tap.put(line.made(0, 700, b"", flags))
    assert tap.told() == [(TLS_SNI, "www.shop.example", "partial")]
    assert tap.flush().told() == [(TLS_SNI, "www.shop.example", "partial")]


def test_the_end_of_the_other_side_is_not_the_clients_end() -> None:
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO[:700])
    tap.put(line.made(1, 0, b"", FIN | ACK))
    line.send(LONG_HELLO[700:])
    assert tap.told() == [SNI]


def test_a_reset_by_the_server_ends_both() -> None:
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO[:700])
    tap.put(line.made(1, 0, b"", RST | ACK))
    assert tap.told() == [(TLS_SNI, "www.shop.example", "partial")]


def test_a_fin_that_overtook_the_data_waits_for_it() -> None:
    wire = get("one.example") + get("two.example")
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    tap.put(line.made(0, 50, wire[50:], FIN | PSH | ACK))
    line.send(wire[:50], 0)
    assert tap.told() == [(HTTP_HOST, "one.example", ""), (HTTP_HOST, "two.example", "")]


def test_a_fin_long_after_a_hole_gives_it_up() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(get("www.shop.example"), 100)
    tap.wait(1)
    line.close()
    assert tap.names() == ["www.shop.example"]


def test_a_reset_that_its_receiver_would_not_take_makes_nobody_forget() -> None:
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO[:300])
    for wrong in (-2_000_000, -1, 5, 70_000, 2_000_000):
        tap.put(line.made(0, 300 + wrong, b"", RST))
    line.send(LONG_HELLO[300:])
    assert tap.told() == [SNI]


@pytest.mark.parametrize("flags", [FIN | ACK, RST, RST | ACK])
@pytest.mark.parametrize("cut", [20, 700])
def test_an_end_that_does_not_reach_the_server_hides_nothing(flags: int, cut: int) -> None:
    """Its time to live is short. What was told by then is told once."""
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO[:cut])
    for _ in range(3):
        tap.put(line.made(0, cut, b"", flags))
    line.send(LONG_HELLO[cut:]).receive(SERVER_HELLO)
    assert tap.flush().told() == [SNI if cut == 20 else (TLS_SNI, "www.shop.example", "partial")]
    assert tap.count(FLOW) == 1
    tap = Tap()
    wire = get("www.shop.example")
    line = Line(tap, server=(SERVER, 80)).open().send(wire[:cut])
    tap.put(line.made(0, min(cut, len(wire)), b"", flags))
    line.send(wire[cut:]).receive(OK).send(get("next.example"))
    assert tap.flush().told() == [(HTTP_HOST, "www.shop.example", ""), (HTTP_HOST, "next.example", "")]


def test_a_name_behind_what_a_reset_had_told_is_read() -> None:
    tap = Tap()
    wire = get("www.shop.example", "/x")
    line = Line(tap, server=(SERVER, 80)).open().send(wire[:-2])
    tap.put(line.made(0, len(wire) - 2, b"", RST))
    assert tap.told() == [(HTTP_HOST, "www.shop.example", "partial")]
    line.send(b"X: y\r\n\r\n").receive(OK).send(get("next.example"))
    assert tap.flush().names() == ["www.shop.example", "www.shop.example", "next.example"]


def test_a_connection_after_a_reset_inside_a_hello_is_a_new_one() -> None:
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO[:300])
    tap.put(line.made(0, 300, b"", RST))
    Line(tap, isn=(500_000, 7)).open().send(hello("next.example"))
    assert tap.told()[-1] == (TLS_SNI, "next.example", "")
    assert tap.count(FLOW) == 2


def test_the_end_of_the_capture_tells_what_is_half_read() -> None:
    tap = Tap()
    Line(tap).open().send(LONG_HELLO[:700])
    Line(tap, (CLIENT, 40_001), (SERVER, 80)).open().send(get("www.shop.example")[:-2])
    Line(tap, (CLIENT, 40_002)).open().send(HELLO, 10)  # what came before it was not captured
    assert tap.told() == []
    assert tap.flush().told() == [
        (TLS_SNI, "www.shop.example", "partial"),
        (HTTP_HOST, "www.shop.example", "partial"),
        SNI,
    ]


def test_what_is_pushed_out_of_the_table_tells_what_is_half_read() -> None:
    tap = Tap(32)
    Line(tap).open().send(LONG_HELLO[:700])
    for number in range(200):
        Line(tap, (f"10.0.1.{number}", 40_000)).syn()
    assert tap.told() == [(TLS_SNI, "www.shop.example", "partial")]
    tap = Tap(32)
    Line(tap).open().send(LONG_HELLO[:700])
    tap.wait(1_300)
    Line(tap, ("10.0.1.1", 1)).syn()
    tap.wait(1_300)
    Line(tap, ("10.0.1.1", 2)).syn()
    Line(tap, ("10.0.1.1", 3)).syn()
    assert tap.told() == [(TLS_SNI, "www.shop.example", "partial")]


# -- two copies


def pair_of_hellos() -> tuple[bytes, bytes]:
    return hello("www.good.example", post_quantum=True), hello("www.evil.example", post_quantum=True)


BOTH = [(TLS_SNI, "www.good.example", ""), (TLS_SNI, "www.evil.example", "ambiguous")]


def test_both_copies_of_a_hello_are_read() -> None:
    good, evil = pair_of_hellos()
    tap = Tap()
    Line(tap).open().send(good).send(evil, 0).receive(SERVER_HELLO)
    assert tap.told() == BOTH
    assert tap.dissector.counts()["tcp_ambiguous"] == 1


@pytest.mark.parametrize("split", [20, 90, 300])
def test_both_copies_of_a_part_are_read(split: int) -> None:
    """Only the segment that holds the name, or a part of it, is sent twice."""
    good = hello("www.good.example", post_quantum=True)
    evil = good.replace(b"www.good", b"www.evil")
    first, last = good.index(b"www.good") - 10, good.index(b"www.good") + split
    tap = Tap()
    line = Line(tap).open().send(good[:first]).send(good[first:last]).send(evil[first:last], first).send(good[last:])
    line.receive(SERVER_HELLO)
    assert sorted(tap.told()) == sorted(BOTH)


def test_both_copies_are_read_when_neither_was_in_order() -> None:
    good = hello("www.good.example", post_quantum=True)
    evil = good.replace(b"www.good", b"www.evil")
    tap = Tap()
    Line(tap).open().send(good[100:], 100).send(evil[100:], 100).send(good[:100], 0)
    assert sorted(tap.told()) == sorted(BOTH)


def test_both_copies_of_a_request_are_read() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(get("first.example"))
    line.send(get("www.good.example")).send(get("www.evil.example"), len(get("first.example")))
    assert tap.told() == [
        (HTTP_HOST, "first.example", ""),
        (HTTP_HOST, "www.good.example", ""),
        (HTTP_HOST, "www.evil.example", "ambiguous"),
    ]


def test_the_same_bytes_again_and_the_garbage_of_a_keep_alive_tell_nothing_more() -> None:
    tap = Tap()
    line = Line(tap).open().send(HELLO).send(HELLO, 0)
    line.send(b"\0", len(HELLO) - 1)  # RFC 9293 section 3.8.4 allows an octet of garbage
    assert tap.told() == [SNI]


def test_copies_are_compared_until_the_server_answers() -> None:
    good, evil = pair_of_hellos()
    tap = Tap()
    Line(tap).open().send(good).receive(SERVER_HELLO).send(evil, 0)
    assert tap.told() == BOTH[:1]
    tap = Tap()
    line = Line(tap).open().send(good)
    for _ in range(300):
        line.send(APPLICATION * 10)
    assert tap.dissector.quiet == {}
    line.send(evil, 0).send(evil, 0).send(evil, 0)
    assert tap.told() == BOTH
    line.receive(SERVER_HELLO).send(evil, 0)
    assert len(tap.dissector.quiet) == 2
    assert tap.told() == BOTH


def test_copies_are_compared_a_few_segments_long_where_no_server_is_seen() -> None:
    good, evil = pair_of_hellos()
    for more, told in ((SEGMENTS_AFTER, BOTH), (SEGMENTS_AFTER + 1, BOTH[:1])):
        tap = Tap()
        line = Line(tap).syn().send(good)
        for _ in range(more):
            line.send(APPLICATION)
        line.send(evil, 0).send(evil, 0).send(evil, 0)
        assert tap.told() == told


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("junk", [0, 30, 3_000, 9_000])
def test_a_hello_in_segments_behind_a_decoy_and_junk_is_read(junk: int, order: tuple[int, int]) -> None:
    """Neither the decoy nor the junk reaches the server."""
    evil = pair_of_hellos()[1]
    halves = ((evil[:1_400], 0), (evil[1_400:], 1_400))
    for decoy in (hello("www.good.example"), pair_of_hellos()[0], b"\0" * 40):
        tap = Tap()
        line = Line(tap).open().send(decoy)
        for _ in range(junk // 1_000):
            line.send(b"junk" * 250)
        line.send(b"j" * (junk % 1_000)) if junk % 1_000 else None
        for half in order:
            line.send(*halves[half])
        line.receive(SERVER_HELLO)
        assert "www.evil.example" in tap.names(), len(decoy)
        assert set(tap.names()) <= {"www.evil.example", "www.good.example"}
        assert len(tap.told()) <= 2


def test_a_third_copy_does_not_hide_the_second() -> None:
    good, evil = pair_of_hellos()
    third = hello("www.fine.example", post_quantum=True)
    tap = Tap()
    line = Line(tap).open().send(good).send(evil[:900], 0).send(third[:900], 0).send(evil[900:], 900)
    line.receive(SERVER_HELLO)
    assert (TLS_SNI, "www.evil.example", "ambiguous") in tap.told()


def test_a_request_behind_a_decoy_and_its_body_is_read() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(get("www.good.example", method="POST", body="b" * 20_000)[:1_400])
    for _ in range(12):
        line.send(b"b" * 1_400)
    line.send(get("www.evil.example"), 0)
    assert tap.told() == [(HTTP_HOST, "www.good.example", ""), (HTTP_HOST, "www.evil.example", "ambiguous")]


def test_an_upload_of_nothing_known_becomes_quiet_though_the_server_sends_nothing() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 9_999)).open()
    for _ in range(400):
        line.send(bytes(1_400))
    assert set(tap.dissector.quiet) == {key_of(line)}


def test_a_syn_that_no_server_took_does_not_hide_the_hello() -> None:
    tap = Tap()
    Line(tap).open()
    Line(tap, isn=(1_000 + 2 * MAX_JUMP, 9_000)).syn()  # its time to live ended on the way
    Line(tap).send(HELLO)
    assert tap.told() == [(TLS_SNI, "www.shop.example", "ambiguous")]


def test_segments_far_away_are_believed_when_they_go_on() -> None:
    tap = Tap()
    Line(tap, server=(SERVER, 80)).open().send(get("www.shop.example"))
    replaced = Line(tap, server=(SERVER, 80), isn=(1_000 + 5 * MAX_JUMP, 9_000))
    for _ in range(MAX_STRAYS + 1):
        replaced.send(b"x" * 10)
    wire = get("next.shop.example")
    replaced.send(wire[:20]).send(wire[20:])
    assert tap.told() == [(HTTP_HOST, "www.shop.example", ""), (HTTP_HOST, "next.shop.example", "")]


# -- quiet


def test_after_the_name_and_the_answer_both_directions_are_quiet() -> None:
    tap = Tap()
    line = Line(tap).open().send(HELLO)
    assert tap.dissector.quiet == {}
    line.receive(SERVER_HELLO)
    until = tap.now_us - 1_000 + QUIET_US
    assert tap.dissector.quiet == {key_of(line): until, key_of(line, 1): until}
    line.send(APPLICATION).receive(APPLICATION)
    assert tap.dissector.tcp.skipped_quiet == 2


def test_http_keeps_the_client_awake_and_lets_the_server_sleep() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(get("one.example")).receive(OK)
    assert set(tap.dissector.quiet) == {key_of(line, 1)}
    line.send(get("two.example")).receive(OK).send(get("three.example"))
    assert tap.names() == ["one.example", "two.example", "three.example"]


def test_dns_keeps_both_awake() -> None:
    tap = Tap()
    line = Line(tap, server=("10.0.0.53", 53)).open()
    for number in range(50):
        line.send(framed(question(f"n{number}.example", number)))
        line.receive(framed(answer(f"n{number}.example", number, f"n{number}.example A 192.0.2.1")))
    assert tap.dissector.quiet == {}
    assert len(tap.told()) == 100


def test_an_unknown_protocol_becomes_quiet_in_each_direction() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 9_999)).open()
    for number in range(60):
        line.send(bytes((0, number)) * 30).receive(bytes((1, number)) * 30)
    assert set(tap.dissector.quiet) == {key_of(line), key_of(line, 1)}
    assert tap.told() == []


def test_a_syn_ends_quiet_and_so_does_time() -> None:
    tap = Tap()
    line = Line(tap).open().send(HELLO).receive(SERVER_HELLO)
    Line(tap, isn=(9_000_000, 8)).open().send(hello("second.shop.example"))
    assert tap.names() == ["www.shop.example", "second.shop.example"]
    tap = Tap()
    line = Line(tap, server=(SERVER, 9_999)).open()
    for number in range(60):
        line.send(bytes((0, number)) * 30)
    skipped = tap.dissector.tcp.skipped_quiet
    tap.wait(QUIET_US / 1e6)
    line.send(b"\0\0")
    assert tap.dissector.tcp.skipped_quiet == skipped


def test_a_quiet_conversation_that_goes_on_is_met_as_new_by_nobody() -> None:
    tap = Tap()
    line = Line(tap).open().send(HELLO).receive(SERVER_HELLO)
    for number in range(60):
        tap.wait(60)
        line.send(APPLICATION).receive(APPLICATION)
        Line(tap, ("10.0.0.7", number)).syn()
    assert tap.count(FLOW) == 1 + 60
    assert tap.count(REPLY) == 1


def test_quiet_directions_keep_no_bytes() -> None:
    tap = Tap()
    line = Line(tap).open().send(LONG_HELLO).send(APPLICATION, 9_000).receive(SERVER_HELLO)
    conversation = tap.dissector.tcp._table.get(key_of(line))
    assert conversation is not None
    for side in (conversation.client, conversation.server):
        assert (side.window, side.held, side.parser, side.head) == (b"", [], None, b"")


# -- floods


def test_ten_thousand_syns_of_one_client_harm_nobody_else() -> None:
    tap = Tap(200)
    victim = Line(tap, ("10.0.0.77", 1_234)).open().send(LONG_HELLO[:500])
    for port in range(10_000):
        tap.put(tcp((CLIENT, 1 + port), (SERVER, 443), port * 7, SYN))
    victim.send(LONG_HELLO[500:])
    assert tap.told() == [SNI]
    assert tap.count(FLOW) == 10_001
    assert len(tap.dissector.tcp._table) <= 200
    counts = tap.dissector.counts()
    assert counts["client_over_share"] == 10_000 - 20
    assert counts["tcp_evicted"] > 9_000


def test_ten_thousand_syns_of_ten_thousand_clients_stay_in_the_bound() -> None:
    tap = Tap(200)
    for number in range(10_000):
        source = f"10.{1 + number // 65_536}.{number // 256 % 256}.{number % 256}"
        tap.put(tcp((source, 40_000), (SERVER, 443), number, SYN))
    assert tap.count(FLOW) == 10_000
    assert len(tap.dissector.tcp._table) <= 200
    assert len(tap.dissector.tcp._table._opened) <= 200


def test_a_scan_that_is_refused_leaves_nothing_behind() -> None:
    tap = Tap(200)
    for port in range(1, 5_000):
        line = Line(tap, server=(SERVER, port)).syn()
        tap.put(line.made(1, -1, b"", RST | ACK))
    assert len(tap.dissector.tcp._table) == 0
    assert tap.kinds() == [FLOW] * 4_999


def test_a_client_over_its_share_still_has_its_names_read() -> None:
    tap = Tap(200)
    wanted = []
    for port in range(1_000):
        name = f"n{port}.example"
        wanted.append(name)
        octets = hello(name)
        Line(tap, (CLIENT, 1 + port)).open().send(octets[:100]).send(octets[100:]).receive(SERVER_HELLO)
    assert tap.names() == wanted
    assert tap.count(FLOW) == tap.count(REPLY) == 1_000
    assert tap.dissector.counts()["client_over_share"] > 0


def test_what_one_direction_can_make_us_hold_is_bounded() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open()
    conversation = tap.dissector.tcp._table.get(key_of(line))
    assert conversation is not None
    for number in range(500):
        line.send(b"x" * 9_000, 10 + number * 9_001)  # never contiguous
        held = conversation.client
        assert held.held_bytes <= MAX_HELD_BYTES + 9_000 and len(held.held) <= 65
    assert not conversation.server.held


def test_a_head_without_end_is_bounded() -> None:
    tap = Tap()
    line = Line(tap, server=(SERVER, 80)).open().send(b"GET / HTTP/1.1\r\nHost: www.shop.example\r\n")
    for _ in range(60):
        line.send(b"X-Filler: " + b"x" * 1_380 + b"\r\n")
    assert tap.names() == ["www.shop.example"]


# -- IPv6


def test_ipv6() -> None:
    tap = Tap()
    line = Line(tap, ("fd00::5", 40_000), ("2001:db8::10", 443)).open()
    line.send(LONG_HELLO[600:], 600).send(LONG_HELLO[:600], 0).receive(SERVER_HELLO)
    assert tap.kinds() == [FLOW, REPLY, TLS_SNI]
    assert tap.seen[0].flow.server == ip_address("2001:db8::10").packed
    assert len(tap.dissector.quiet) == 2


def test_a_hello_in_many_records_and_a_segment_with_options() -> None:
    tap = Tap()
    octets = records(client_hello(b"www.shop.example"), 3, 50, 90)
    line = Line(tap).open()
    segment = line.made(0, 0, octets)[34:]
    with_options = segment[:12] + b"\x80" + segment[13:20] + b"\x01" * 12 + segment[20:]
    tap.put(frame(CLIENT, SERVER, 6, with_options))
    assert tap.told() == [SNI]
