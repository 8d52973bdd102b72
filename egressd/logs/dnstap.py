"""dnstap messages (dnstap.info; dnstap.pb): what clients asked a resolver and what it answered, from its own mouth.

Of the protocol buffer only these fields are read, by hand (protobuf.dev, "Encoding"); all others are passed over:

    Dnstap   14 message, 15 type (1: message)
    Message  1 type (5 CLIENT_QUERY, 6 CLIENT_RESPONSE), 3 socket_protocol (1 UDP, 2 TCP, 3 DoT, 4 DoH),
             4 query_address, 5 response_address, 6 query_port, 7 response_port, 8 query_time_sec, 9 query_time_nsec,
             10 query_message, 12 response_time_sec, 13 response_time_nsec, 14 response_message

What a resolver asks others, and what an authority is asked, are no client's doing and are left out.
"""

from __future__ import annotations

from typing import Final

from egressd.errors import Malformed
from egressd.logs.parser import LogParser
from egressd.logs.telling import asked, portless
from egressd.logs.times import MAX_US
from egressd.model import TCP, UDP, DnsMessage, FlowKey, Observation
from egressd.units import SECOND_US
from egressd.wire.dns import parse_message

MAX_FIELDS: Final = 64  # of one message; it has 15
CLIENT_QUERY: Final = 5
CLIENT_RESPONSE: Final = 6
_MESSAGE: Final = 1
_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5


class DnstapParser(LogParser):
    """Payloads of data frames of one stream. `written_us` is when the last one was made, by the resolver's clock."""

    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one payload tells of; nothing where it is of another sort. Raises Malformed."""
        numbers, texts = read_fields(line)
        if numbers.get(15, _MESSAGE) != _MESSAGE or 14 not in texts:
            return []
        numbers, texts = read_fields(texts[14])
        sort = numbers.get(1, 0)
        asked_us = _time(numbers, 8, 9)
        answered_us = _time(numbers, 12, 13)
        self.written_us = answered_us or asked_us
        if sort not in (CLIENT_QUERY, CLIENT_RESPONSE):
            return []
        flow = _flow(numbers, texts)
        if sort == CLIENT_QUERY:
            return [asked(asked_us, flow, _message(texts.get(10, b""), False), self.sensor)]
        message = _message(texts.get(14, b""), True)
        question = DnsMessage(message.txid, False, 0, 0, False, message.questions, (), 0, False, "")
        # A resolver answers who asked it. Where both are told of this is the same question once more.
        return [
            asked(asked_us or answered_us, flow, question, self.sensor),
            asked(answered_us, flow, message, self.sensor),
        ]


def read_fields(buf: bytes) -> tuple[dict[int, int], dict[int, bytes]]:
    """The fields of a message by number: numbers, and bytes; of one that is given twice the last (protobuf.dev, "Last
    One Wins"). Raises Malformed."""
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    at = 0
    for _ in range(MAX_FIELDS):
        if at >= len(buf):
            return numbers, texts
        key, at = _varint(buf, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            numbers[field], at = _varint(buf, at)
            continue
        if wire_type == _BYTES:
            length, at = _varint(buf, at)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise Malformed("a field of an unknown sort")
        if at + length > len(buf):
            raise Malformed("a field is cut")
        if wire_type == _BYTES:
            texts[field] = buf[at : at + length]
        else:
            numbers[field] = int.from_bytes(buf[at : at + length], "little")
        at += length
    if at < len(buf):
        raise Malformed("too many fields")
    return numbers, texts


def _varint(buf: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(buf):
            raise Malformed("a number is cut")
        byte = buf[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed("a number is too long")


def _time(numbers: dict[int, int], seconds: int, nanoseconds: int) -> int:
    ts_us = numbers.get(seconds, 0) * SECOND_US + numbers.get(nanoseconds, 0) // 1_000
    if ts_us > MAX_US:
        raise Malformed("a time out of all bounds")
    return ts_us


def _flow(numbers: dict[int, int], texts: dict[int, bytes]) -> FlowKey:
    client, server = texts.get(4, b""), texts.get(5, b"")
    if len(client) not in (4, 16):
        raise Malformed("a client's address was expected")
    client_port, server_port = numbers.get(6, 0), numbers.get(7, 0)
    if len(server) != len(client) or not 0 < client_port < 65_536 or not 0 < server_port < 65_536:
        return portless(client)
    return FlowKey(UDP if numbers.get(3, 1) == 1 else TCP, client, client_port, server, server_port)


def _message(buf: bytes, is_response: bool) -> DnsMessage:
    message = parse_message(buf, 0, len(buf))
    if message.is_response != is_response:
        raise Malformed("a question where an answer was expected, or the other way round")
    return message
