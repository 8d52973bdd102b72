"""Netlink's grammar: what is built is read back, what is broken is Malformed and nothing else."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce import netlink
from egressd.enforce.adapter import AdapterError
from egressd.enforce.netlink import (
    HEADER,
    NetfilterSocket,
    NetlinkError,
    Overrun,
    Step,
    attribute,
    be32,
    be64,
    message,
    nested,
    parse_attributes,
    parse_error,
    parse_list,
    parse_messages,
)
from egressd.errors import Malformed


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40)))
def test_attributes_come_back(fields: dict[int, bytes]) -> None:
    body = b"".join(attribute(kind, payload) for kind, payload in fields.items())
    assert parse_attributes(body) == fields
    assert parse_attributes(b"head" + body, 4) == fields


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=40))))
def test_messages_come_back(drawn: list[tuple[int, int, bytes]]) -> None:
    datagram = b"".join(message(kind, flags, seq, body) for seq, (kind, flags, body) in enumerate(drawn))
    assert [(one.kind, one.flags, one.seq, one.body) for one in parse_messages(datagram)] == [
        (kind, flags, seq, body) for seq, (kind, flags, body) in enumerate(drawn)
    ]


def test_lists_keep_their_order_and_nesting_is_marked() -> None:
    assert parse_list(attribute(1, b"a") + attribute(2, b"b") + attribute(1, b"c"), 1) == [b"a", b"c"]
    assert nested(3, attribute(1, b"abcd")) == struct.pack("=HHHH", 12, 0x8003, 8, 1) + b"abcd"


@given(st.binary(max_size=200))
def test_only_malformed_escapes(noise: bytes) -> None:
    readers: tuple[Callable[[bytes], object], ...] = (
        parse_attributes,
        parse_messages,
        parse_error,
        be32,
        be64,
        lambda body: parse_list(body, 1),
    )
    for read in readers:
        try:
            read(noise)
        except Malformed:
            continue


@pytest.mark.parametrize("broken", ["0300", "03000100", "08000100aa", "0400010000"])
def test_lengths_that_lie(broken: str) -> None:
    with pytest.raises(Malformed):
        parse_attributes(bytes.fromhex(broken))


class Wire:
    """A socket that answers what a test says."""

    def __init__(self, *answers: bytes | int) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []

    def send(self, payload: bytes) -> int:
        self.sent.append(payload)
        return len(payload)

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self.answers:
            raise BlockingIOError
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer


def on(wire: Wire) -> NetfilterSocket:
    link = NetfilterSocket.__new__(NetfilterSocket)
    link._seq = 0
    link.sock = wire  # type: ignore[assignment]
    return link


def answer(number: int, seq: int) -> bytes:
    return message(netlink.ERROR, 0, seq, struct.pack("=i", -number) + HEADER.pack(16, 0, 0, seq, 0))


STEPS = [Step(10, 0, b"aaaa"), Step(11, 0, b"bbbb")]


def test_a_transaction_waits_for_the_acknowledgement_of_its_last_step() -> None:
    wire = Wire(answer(0, 99), answer(0, 3))
    on(wire).transact(STEPS)
    kinds = [(one.kind, bool(one.flags & netlink.ACK)) for one in parse_messages(wire.sent[0])]
    assert kinds == [(netlink.BATCH_BEGIN, False), (10, False), (11, True), (netlink.BATCH_END, False)]


def test_a_refused_transaction_tells_why() -> None:
    with pytest.raises(NetlinkError) as caught:
        on(Wire(answer(errno.ENOENT, 2))).transact(STEPS)
    assert caught.value.number == errno.ENOENT


def test_no_permission_says_what_is_missing() -> None:
    with pytest.raises(NetlinkError, match="CAP_NET_ADMIN"):
        on(Wire(answer(errno.EPERM, 1))).transact(STEPS)


def test_a_lost_answer_is_no_success() -> None:
    with pytest.raises(Overrun):
        on(Wire(errno.ENOBUFS, answer(0, 3))).transact(STEPS)
    with pytest.raises(AdapterError, match="in time"):
        on(Wire()).transact(STEPS)


def test_an_answer_that_makes_no_sense() -> None:
    with pytest.raises(Malformed):
        on(Wire(b"\x20\0\0\0" + bytes(20))).transact(STEPS)


def test_an_empty_transaction_is_not_sent() -> None:
    wire = Wire()
    on(wire).transact([])
    assert not wire.sent


def test_a_dump_that_a_change_ran_through_is_taken_anew() -> None:
    def piece(seq: int, body: bytes, flags: int = 0) -> bytes:
        return message(40, flags, seq, body)

    done = [message(netlink.DONE, 0, seq, bytes(4)) for seq in range(6)]
    wire = Wire(piece(1, b"old!", netlink.DUMP_INTR), done[1], piece(2, b"new!"), done[2])
    assert [one.body for one in on(wire).dump(40, b"")] == [b"new!"]
    assert len(wire.sent) == 2


def test_a_dump_that_is_always_interrupted_ends_all_the_same() -> None:
    pieces = [
        message(40, netlink.DUMP_INTR, seq, b"some") + message(netlink.DONE, 0, seq, bytes(4)) for seq in range(1, 9)
    ]
    wire = Wire(*pieces)
    assert [one.body for one in on(wire).dump(40, b"")] == [b"some"]
    assert len(wire.sent) == 5


def test_requests_are_pipelined_and_each_keeps_its_answer() -> None:
    link = on(
        Wire(
            message(40, 0, 1, b"one!") + answer(0, 1) + answer(errno.ENOENT, 2),
            message(40, 0, 3, b"tri!") + answer(0, 3),
        )
    )
    answers = link.ask_many(40, 0, [b"", b"", b""])
    assert [one if isinstance(one, int) else [part.body for part in one] for one in answers] == [
        [b"one!"],
        errno.ENOENT,
        [b"tri!"],
    ]


def test_draining_goes_on_past_an_overrun() -> None:
    wire = Wire(b"x", errno.ENOBUFS, b"y")
    on(wire).drain()
    assert not wire.answers


def test_sequence_numbers_are_never_zero() -> None:
    link = on(Wire())
    link._seq = 0xFFFF_FFF0
    assert link.next_seq(3) == 1


def test_no_netlink_to_netfilter(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(AdapterError, match="no netlink to netfilter"):
        NetfilterSocket()
