"""DNS messages, in datagrams and in TCP streams (RFC 1035 section 4, RFC 7766), and telling them from other bytes.

A message gives what can be read of it: its question always (or it is Malformed), then the records that can be read.
mDNS (RFC 6762) and LLMNR (RFC 4795) have the same form.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from egressd.errors import Malformed
from egressd.model import DnsMessage, DnsQuestion
from egressd.native import mypyc_attr
from egressd.wire.dns_records import CLASS_BITS, IN, OPT, RRTYPE_NAMES, NameReader, RecordReader
from egressd.wire.octets import COMPILED, read_u16

__all__ = ["RRTYPE_NAMES", "DnsStream", "looks_like_dns", "looks_like_dns_stream", "parse_message"]

HEADER_BYTES: Final = 12  # RFC 1035 section 4.1.1
MAX_QUESTIONS: Final = 16  # servers take one (RFC 9619); a host that looks around by mDNS asks some ten at once
MAX_STREAM_BYTES: Final = 65_537  # a message of the greatest length and its prefix

_HEADER: Final = struct.Struct(">HHHHHH")
_PAIR: Final = struct.Struct(">HH")
_FIXED: Final = struct.Struct(">HHIH")

_RESPONSE: Final = 0x8000
_TRUNCATED: Final = 0x0200


def parse_message(buf: bytes, start: int, end: int) -> DnsMessage:
    """The DNS message `buf[start:end]` (0 <= start <= end <= len(buf)); bytes after its last record are left alone.

    Raises Malformed when the header or the question section cannot be read, or there are over 16 questions. A record
    that breaks is left out, and those behind it when nothing tells where they begin; `error` says why.
    """
    if end - start < HEADER_BYTES:
        raise Malformed("DNS header is cut")
    if COMPILED:
        txid, flags, asked = read_u16(buf, start), read_u16(buf, start + 2), read_u16(buf, start + 4)
        answers, authorities = read_u16(buf, start + 6), read_u16(buf, start + 8)
        additional = read_u16(buf, start + 10)
    else:
        txid, flags, asked, answers, authorities, additional = _HEADER.unpack_from(buf, start)
    if asked > MAX_QUESTIONS:
        raise Malformed("too many DNS questions")
    names = NameReader(buf, start, end)
    pos = start + HEADER_BYTES
    questions: list[DnsQuestion] = []
    for _ in range(asked):
        name = names.read(pos)
        pos = names.after + 4
        if pos > end:
            raise Malformed("DNS question is cut")
        questions.append(DnsQuestion(name.name, name.raw_name, buf[pos - 4] << 8 | buf[pos - 3]))
    is_response = flags & _RESPONSE != 0
    opcode = flags >> 11 & 15
    truncated = flags & _TRUNCATED != 0
    others = authorities + additional
    if not answers and not others:  # most queries
        return DnsMessage(txid, is_response, opcode, flags & 15, truncated, tuple(questions), (), 0, False, "")
    if not answers and others == 1 and pos + 11 <= end and buf[pos + 2] == OPT and not buf[pos] and not buf[pos + 1]:
        # Its owner is the root (RFC 6891 section 6.1.2). Nearly all the others.
        if pos + 11 + (buf[pos + 9] << 8 | buf[pos + 10]) <= end:
            rcode = flags & 15 | buf[pos + 5] << 4
            return DnsMessage(txid, is_response, opcode, rcode, truncated, tuple(questions), (), 0, True, "")
    records = RecordReader(buf, end, names)
    records.read(pos, answers, others)
    return DnsMessage(
        txid,
        is_response,
        opcode,
        flags & 15 | records.rcode_high,
        truncated,
        tuple(questions),
        tuple(records.records),
        records.answer_count,
        records.edns,
        records.error,
    )


@mypyc_attr(acyclic=True)
class DnsStream:
    """One direction of a DNS connection over TCP: messages behind two octets of length (RFC 7766 section 8).

    A message that cannot be read does not end the stream, nor does one too short for a header, which BIND, dnsmasq and
    CoreDNS step over: it is left out and counted in `bad`. A stream of which nothing but such short ones has come yet
    may be anything: it is `done`, and what stands behind them is in `rest`.
    """

    __slots__ = ("_begun", "_held", "bad", "done", "rest")

    def __init__(self) -> None:
        self._held = bytearray()  # less than one message with its length: under MAX_STREAM_BYTES
        self._begun = False  # a message that has a header has come
        self.bad = 0
        self.done = False
        self.rest: bytes | None = None

    def buffered(self) -> int:
        """Bytes kept of what is not complete."""
        return len(self._held)

    def feed(self, data: bytes) -> list[DnsMessage]:
        """The messages that `data` completes. Not to be called once it is done."""
        held = self._held
        if held:
            held += data
            size = held[0] << 8 | held[1] if len(held) > 1 else HEADER_BYTES
            if len(held) < 2 + size:
                return []
            data = bytes(held)
            held.clear()
        messages: list[DnsMessage] = []
        at = 0
        while len(data) - at >= 2:
            size = data[at] << 8 | data[at + 1]
            after = at + 2 + size
            if after > len(data):
                break
            if size < HEADER_BYTES:
                self.bad += 1
            elif at and not self._begun:
                break
            else:
                self._begun = True
                try:
                    messages.append(parse_message(data, at + 2, after))
                except Malformed:
                    self.bad += 1
            at = after
        if at and not self._begun:
            self.done = True
            self.rest = data[at:]
        else:
            held += data[at:]
        return messages


def looks_like_dns(buf: bytes, start: int, end: int) -> bool:
    """Whether the datagram payload `buf[start:end]` is a DNS message by content alone: for ports that promise nothing.

    Strict: header bits, counts, every label of the first name, type and class must be such as resolvers send, and a
    query must end where it says. NetBIOS name queries (RFC 1002), of the same form, are refused; mDNS, LLMNR are not.
    """
    return _judge(buf, start, end, end) == 1


def looks_like_dns_stream(head: bytes) -> int:
    """Whether a TCP direction that begins with `head` is DNS: 1 yes, 0 no, -1 cannot say yet. Strict, as above."""
    if len(head) < 2:
        return -1
    size = head[0] << 8 | head[1]
    if size < HEADER_BYTES + 5:
        return 0
    whole = 2 + size
    return _judge(head, 2, min(len(head), whole), whole)


# Z (RFC 1035 section 4.1.1) is zero always; AA, RA and a response code are only set in responses.
_NEVER_SET: Final = 0x0040
_NOT_IN_QUERY: Final = 0x048F
_OPCODES: Final = (0, 1, 2, 4, 5)  # RFC 1035, 1996, 2136
_MAX_RCODE: Final = 11  # RFC 8490; greater ones need EDNS
_MAX_COUNT: Final = 100  # records a section of one datagram; thirteen root servers make 26
_CLASSES: Final = (IN, 3, 255)  # 3 is Chaos: version.bind
_ROOT_TYPES: Final = (2, 6, 43, 46, 48, 255)  # what is asked of the root itself: NS, SOA, DS, RRSIG, DNSKEY, ANY
_LABEL: Final = re.compile(rb"[!-~]{1,63}")
_NETBIOS_LABEL: Final = re.compile(rb"[A-P]{32}")  # RFC 1001 section 14.1
_CUT: Final = -1
_NO: Final = -2


def _judge(buf: bytes, start: int, have: int, end: int) -> int:
    """1, 0 or -1 for the message `buf[start:end]`, of which only the bytes before `have` are there."""
    if have - start < HEADER_BYTES:
        return 0 if have == end else -1
    _, flags, asked, answers, authorities, additional = _HEADER.unpack_from(buf, start)
    others = authorities + additional
    if flags & _NEVER_SET or asked > 1 or flags >> 11 & 15 not in _OPCODES:
        return 0
    if flags & _RESPONSE:
        if flags & 15 > _MAX_RCODE or max(answers, authorities, additional) > _MAX_COUNT or not asked + answers:
            return 0
    elif flags & _NOT_IN_QUERY or not asked or answers or authorities or additional > 2:
        return 0
    pos = start + HEADER_BYTES
    if asked:
        pos = _pass_question(buf, pos, have)
        if pos >= 0 and (flags & _RESPONSE or not additional):
            # A query without more ends here; a response goes on when it has records (or is cut), and only then.
            return 1 if (pos < end if answers + others else pos == end) else 0
    for _ in range(additional or 1):
        if pos >= 0:
            pos = _pass_record(buf, pos, have, end)
    if pos == _CUT:
        return 0 if have == end else -1
    return 1 if pos == end or (pos >= 0 and flags & _RESPONSE) else 0


def _pass_name(buf: bytes, pos: int, end: int) -> int:
    """The place behind the name at `pos`, or _CUT, or _NO when it is none that hosts use."""
    stop = pos + 255
    while pos < end:
        size = buf[pos]
        if size == 0:
            return pos + 1
        if size > 63:
            return _NO
        after = pos + 1 + size
        if after >= stop or _LABEL.fullmatch(buf, pos + 1, min(after, end)) is None:
            return _NO if pos + 1 < end or after >= stop else _CUT
        pos = after
    return _CUT


def _pass_question(buf: bytes, pos: int, end: int) -> int:
    after = _pass_name(buf, pos, end)
    if after < 0:
        return after
    if after + 4 > end:
        return _CUT
    rrtype, rrclass = _PAIR.unpack_from(buf, after)
    if rrtype not in RRTYPE_NAMES or rrtype == OPT or rrclass & CLASS_BITS not in _CLASSES:
        return _NO
    if buf[pos] == 0 and rrtype not in _ROOT_TYPES:
        return _NO  # too few bytes speak for it
    if _is_netbios(buf, pos, rrtype):
        return _NO
    return after + 4


def _is_netbios(buf: bytes, pos: int, rrtype: int) -> bool:
    """RFC 1002 section 4.2 has numbers of its own for the types that DNS calls NIMLOC and SRV."""
    return 32 <= rrtype <= 33 and buf[pos] == 32 and _NETBIOS_LABEL.match(buf, pos + 1) is not None


def _pass_record(buf: bytes, pos: int, have: int, end: int) -> int:
    if pos + 1 < have and buf[pos] == 0xC0 and buf[pos + 1] == HEADER_BYTES:
        after = pos + 2
    else:
        after = _pass_name(buf, pos, have)
    if after < 0:
        return after
    if after + 10 > have:
        return _CUT
    rrtype, rrclass, _, size = _FIXED.unpack_from(buf, after)
    if rrtype not in RRTYPE_NAMES or (rrtype != OPT and rrclass & CLASS_BITS not in _CLASSES):
        return _NO
    if rrtype == OPT and after != pos + 1:
        return _NO  # its owner is the root: RFC 6891 section 6.1.2
    if _is_netbios(buf, pos, rrtype):
        return _NO
    after += 10 + size
    if after > end:
        return _NO
    return after if after <= have else _CUT
