"""Names and resource records of a DNS message (RFC 1035 sections 3 and 4.1). `wire/dns` reads the message around them.

Names may point backwards (RFC 1035 section 4.1.4), so a few kilobytes can ask for megabytes of reading. Three bounds
keep the work small: a pointer must point before the start of the labels it ends, a name follows at most `MAX_HOPS`
pointers, and all names of a message together take at most `MAX_STEPS` labels and pointers; a place once read is free.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from egressd.errors import Malformed
from egressd.model import DnsRecord
from egressd.names import from_labels
from egressd.wire.octets import COMPILED, read_u16, read_u32

if TYPE_CHECKING:
    from mypy_extensions import i64

MAX_NAME_OCTETS: Final = 255  # RFC 1035 section 3.1; it also holds a name to 127 labels and the root
MAX_HOPS: Final = 32  # servers need one or two; BIND and Unbound write one
MAX_STEPS: Final = 4096  # two names of four labels for each of MAX_RECORDS; a common answer takes ten
MAX_RECORDS: Final = 512  # what a client acts on comes first; only zone transfers (64 KB a message) hold more
MAX_SEEN_NAMES: Final = 8192  # a busy segment's names of some seconds; under 8 MB if all have full length
MAX_HINTS: Final = 64  # addresses of each family in one SVCB record; published ones have fewer than ten

# Assigned types (IANA "DNS Parameters", Resource Record TYPEs), names as there.
_ASSIGNED: Final = """
1=A 2=NS 3=MD 4=MF 5=CNAME 6=SOA 7=MB 8=MG 9=MR 10=NULL 11=WKS 12=PTR 13=HINFO 14=MINFO 15=MX 16=TXT 17=RP
18=AFSDB 19=X25 20=ISDN 21=RT 22=NSAP 23=NSAP-PTR 24=SIG 25=KEY 26=PX 27=GPOS 28=AAAA 29=LOC 30=NXT 31=EID
32=NIMLOC 33=SRV 34=ATMA 35=NAPTR 36=KX 37=CERT 38=A6 39=DNAME 40=SINK 41=OPT 42=APL 43=DS 44=SSHFP
45=IPSECKEY 46=RRSIG 47=NSEC 48=DNSKEY 49=DHCID 50=NSEC3 51=NSEC3PARAM 52=TLSA 53=SMIMEA 55=HIP 56=NINFO
57=RKEY 58=TALINK 59=CDS 60=CDNSKEY 61=OPENPGPKEY 62=CSYNC 63=ZONEMD 64=SVCB 65=HTTPS 66=DSYNC 99=SPF
104=NID 105=L32 106=L64 107=LP 108=EUI48 109=EUI64 249=TKEY 250=TSIG 251=IXFR 252=AXFR 253=MAILB 254=MAILA
255=ANY 256=URI 257=CAA 258=AVC 259=DOA 260=AMTRELAY 261=RESINFO 262=WALLET 32768=TA 32769=DLV
"""
RRTYPE_NAMES: Final[dict[int, str]] = {
    int(number): name for number, _, name in (word.partition("=") for word in _ASSIGNED.split())
}

A: Final = 1
AAAA: Final = 28
OPT: Final = 41
SVCB: Final = 64
HTTPS: Final = 65
# Octets of rdata before the name, for the types whose rdata ends in one: RFC 1035 section 3.3, RFC 2782, RFC 6672.
_TARGET_AT: Final[dict[int, int]] = {2: 0, 5: 0, 12: 0, 15: 2, 33: 6, 39: 0}
_IPV4HINT: Final = 4  # SvcParamKeys, RFC 9460 section 14.3.2
_ECH: Final = 5
_IPV6HINT: Final = 6

IN: Final = 1
CLASS_BITS: Final = 0x7FFF  # mDNS has uses of its own for the top bit: RFC 6762 sections 10.2 and 5.4

_FIXED: Final = struct.Struct(">HHIH").unpack_from  # type, class, ttl, rdlength: RFC 1035 section 4.1.3
_PAIR: Final = struct.Struct(">HH")
_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
_LEAST_PLAIN: Final = ord("-")  # in the wire form of a plain name, what is less is the length of a label
_DOTTED: Final = bytes([octet if octet in _PLAIN else ord(".") for octet in range(256)])


class Name:
    """A name read: normal form or "", presentation form, octets on the wire without compression, pointers followed,
    labels."""

    __slots__ = ("hops", "labels", "name", "octets", "raw_name")

    def __init__(self, name: str, raw_name: str, octets: int, hops: int, labels: int) -> None:
        self.name = name
        self.raw_name = raw_name
        self.octets = octets
        self.hops = hops
        self.labels = labels


_ROOT: Final = Name("", ".", 1, 0, 0)
_NO_TARGET: Final = Name("", "", 0, 0, 0)

# Names by their wire form, which stands whole in every query and comes back in its answer: a third of the work.
_SEEN: Final[dict[bytes, Name]] = {}


class NameReader:
    """Reads the names of the message `buf[start:end]`. `after` is the place behind the name read last."""

    __slots__ = ("_buf", "_end", "_first", "_first_at", "_known", "_start", "after", "steps_left")

    def __init__(self, buf: bytes, start: int, end: int) -> None:
        self._buf = buf
        self._start = start
        self._end = end
        self._first: Name | None = None  # the name read first, which most others point to, and its place
        self._first_at = -1
        self._known: dict[int, Name] = {}  # the others, by place; at most one entry a name or step
        self.after = start
        self.steps_left = MAX_STEPS

    def read(self, pos: int) -> Name:
        """The name at `pos`. Raises Malformed for one that is cut, too long, or points anywhere but back."""
        buf = self._buf
        end = self._end
        if pos + 1 < end and buf[pos] >= 0xC0:  # nothing but a pointer: the owner of most records
            target = self._start + ((buf[pos] & 0x3F) << 8 | buf[pos + 1])
            known = self._first if target == self._first_at else self._known.get(target)
            if known is not None and known.hops < MAX_HOPS:
                self.after = pos + 2
                return known
            return self._read(pos, 0)
        if self.steps_left <= 0:
            raise Malformed("too many DNS labels")
        zero: i64 = pos
        if COMPILED:
            stop: i64 = min(end, pos + MAX_NAME_OCTETS)
            while zero < stop and buf[zero]:
                size: i64 = buf[zero]
                zero += 1 + size  # past the end for a pointer
            if zero >= stop:
                return self._read(pos, 0)
        else:
            zero = buf.find(0, pos, pos + MAX_NAME_OCTETS)
        if zero < 0 or zero >= end:
            return self._read(pos, 0)
        wire = buf[pos : zero + 1]
        name = _SEEN.get(wire)
        if name is None:
            name = _plain_name(wire)
            if name is None:
                name = self._read(pos, 0)
                if self.after == zero + 1 and not name.hops:  # all of it, and nothing else, stands here
                    _remember(wire, name)
                return name
            _remember(wire, name)
        self.after = zero + 1
        self.steps_left -= name.labels + 1  # as if read: what a message gives must not hang on what was met before
        self._keep(pos, name)
        return name

    def _keep(self, pos: int, name: Name) -> None:
        if self._first is None:
            self._first = name
            self._first_at = pos
        else:
            self._known[pos] = name

    def _read(self, pos: int, depth: int) -> Name:
        buf = self._buf
        stop = min(self._end, pos + MAX_NAME_OCTETS)
        labels: list[bytes] = []
        at = pos
        while True:
            if at >= stop:
                raise Malformed("DNS name is cut or over 255 octets")
            size = buf[at]
            if size == 0:
                after = at + 1
                tail = _ROOT
                break
            if size < 0x40:
                following = at + 1 + size
                labels.append(buf[at + 1 : following])
                at = following
            elif size >= 0xC0:
                tail = self._follow(pos, at, depth)
                after = at + 2
                break
            else:
                raise Malformed("DNS label of unknown type")  # RFC 6891 section 5 withdrew the only other one
        self.steps_left -= len(labels) + 1
        name = _joined(labels, at - pos, tail)
        self._keep(pos, name)
        self.after = after
        return name

    def _follow(self, segment: int, at: int, depth: int) -> Name:
        """The name that the pointer at `at`, which ends the labels from `segment` on, stands for; one hop more."""
        if at + 1 >= self._end:
            raise Malformed("DNS name is cut or over 255 octets")
        target = self._start + ((self._buf[at] & 0x3F) << 8 | self._buf[at + 1])
        if target >= segment:
            raise Malformed("DNS pointer does not point back")
        tail = self._first if target == self._first_at else self._known.get(target)
        if tail is None:
            if depth >= MAX_HOPS:
                raise Malformed("too many DNS pointers")
            if self.steps_left <= 0:
                raise Malformed("too many DNS labels")
            tail = self._read(target, depth + 1)
        if tail.hops >= MAX_HOPS:
            raise Malformed("too many DNS pointers")
        return Name(tail.name, tail.raw_name, tail.octets, tail.hops + 1, tail.labels)


def _remember(wire: bytes, name: Name) -> None:
    if len(_SEEN) >= MAX_SEEN_NAMES:
        _SEEN.clear()
    _SEEN[wire] = name


def _plain_name(wire: bytes) -> Name | None:
    """The name that `wire` is from beginning to end, when it is legal as it stands and has no label of over 44 octets:
    most names, at half the work of taking them apart."""
    last: i64 = len(wire) - 1
    at: i64 = 0
    labels = 0
    while at < last:
        size: i64 = wire[at]
        if size >= _LEAST_PLAIN:
            return None
        at += 1 + size
        labels += 1
    if at != last or not labels:
        return None
    text = wire[1:last].translate(_DOTTED)
    if text.count(b".") != labels - 1:  # more than the lengths has become dots
        return None
    name = text.decode("ascii")
    return Name(name, name, len(wire), 0, labels)


def _joined(labels: list[bytes], octets: int, tail: Name) -> Name:
    """Labels (`octets` with their length octets) in front of a name already read."""
    if not labels:
        return tail
    whole = octets + tail.octets
    if whole > MAX_NAME_OCTETS:
        raise Malformed("DNS name is cut or over 255 octets")
    text = b".".join(labels)
    if text.translate(None, _PLAIN) or text.count(b".") != len(labels) - 1:
        name, raw_name = from_labels(labels)
    else:  # legal as it stands: most names, and a third of the work
        name = raw_name = text.decode("ascii")
    if tail.octets > 1:  # whether a name is legal is decided label by label, so the parts can be put together
        name = f"{name}.{tail.name}" if name and tail.name else ""
        raw_name = f"{raw_name}.{tail.raw_name}"
    return Name(name, raw_name, whole, tail.hops, tail.labels + len(labels))


class RecordReader:
    """The record sections of one message. A record whose contents break is left out: its length tells where the next
    one begins. Reading stops at the first that has no such place. `error` says what broke first, or is empty.

    `records` are those of all sections in order, without OPT; the first `answer_count` stand in the answer section.
    """

    __slots__ = ("_buf", "_end", "_left", "_names", "answer_count", "edns", "error", "rcode_high", "records")

    def __init__(self, buf: bytes, end: int, names: NameReader) -> None:
        self._buf = buf
        self._end = end
        self._names = names
        self._left = MAX_RECORDS
        self.records: list[DnsRecord] = []
        self.answer_count = 0
        self.edns = False
        self.rcode_high = 0  # bits 4 to 11 of the response code, in place (RFC 6891 section 6.1.3)
        self.error = ""

    def read(self, pos: int, answers: int, others: int) -> None:
        """Read `answers` records from `pos` on, then `others` more of the authority and additional sections."""
        pos = self._read_section(pos, answers)
        self.answer_count = len(self.records)
        if pos >= 0:
            self._read_section(pos, others)

    def _read_section(self, pos: int, count: int) -> int:
        """The place behind the records, -1 when it cannot be told."""
        try:
            for _ in range(count):
                pos = self._read_record(pos)
        except Malformed as error:
            self.error = self.error or str(error)
            return -1
        return pos

    def _read_record(self, pos: int) -> int:
        if not self._left:
            raise Malformed("too many DNS records")
        self._left -= 1
        names = self._names
        buf = self._buf
        owner = names.read(pos)
        pos = names.after + 10
        if pos > self._end:
            raise Malformed("DNS record is cut")
        if COMPILED:
            rrtype, rrclass = read_u16(buf, pos - 10), read_u16(buf, pos - 8)
            ttl_s, size = read_u32(buf, pos - 6), read_u16(buf, pos - 2)
        else:
            rrtype, rrclass, ttl_s, size = _FIXED(buf, pos - 10)
        after: int = pos + size
        if after > self._end:
            raise Malformed("DNS record is cut")
        if rrtype == OPT:  # its class is a buffer size and its TTL holds flags: RFC 6891 section 6.1.3
            self.edns = True
            self.rcode_high = ttl_s >> 24 << 4
            return after
        if ttl_s > 0x7FFFFFFF:
            ttl_s = 0  # RFC 2181 section 8
        if rrclass & CLASS_BITS != IN:  # rdata of other classes has other forms; in updates it is empty (RFC 2136)
            self._keep(owner, rrtype, ttl_s, _NO_TARGET)
        elif rrtype in (A, AAAA):
            if size == (4 if rrtype == A else 16):
                address = buf[pos:after]
                self.records.append(DnsRecord(owner.name, owner.raw_name, rrtype, ttl_s, address, "", "", (), False))
            else:
                self.error = self.error or "DNS address of wrong length"
        elif rrtype in _TARGET_AT or rrtype in (SVCB, HTTPS):
            try:
                self._read_target(owner, rrtype, ttl_s, pos, after)
            except Malformed as error:
                self.error = self.error or str(error)
        else:
            self._keep(owner, rrtype, ttl_s, _NO_TARGET)
        return after

    def _read_target(self, owner: Name, rrtype: int, ttl_s: int, pos: int, after: int) -> None:
        """A record whose rdata has a name, or more."""
        if rrtype not in _TARGET_AT:
            self._read_service(owner, rrtype, ttl_s, pos, after)
            return
        names = self._names
        target = names.read(pos + _TARGET_AT[rrtype])
        if names.after != after:
            raise Malformed("DNS rdata of wrong length")
        self._keep(owner, rrtype, ttl_s, target)

    def _keep(self, owner: Name, rrtype: int, ttl_s: int, target: Name) -> None:
        self.records.append(
            DnsRecord(owner.name, owner.raw_name, rrtype, ttl_s, b"", target.name, target.raw_name, (), False)
        )

    def _read_service(self, owner: Name, rrtype: int, ttl_s: int, pos: int, after: int) -> None:
        """SVCB or HTTPS rdata: priority, target, then parameters with rising keys (RFC 9460 section 2.2)."""
        buf = self._buf
        target = self._names.read(pos + 2)
        at = self._names.after
        if at > after:
            raise Malformed("DNS rdata of wrong length")
        if buf[pos] == 0 and buf[pos + 1] == 0:  # AliasMode has no parameters: section 2.4.1
            self._keep(owner, rrtype, ttl_s, target)
            return
        if target.octets == 1:  # "." in ServiceMode is the owner: section 2.5.2
            target = owner
        hints: list[bytes] = []
        has_ech = False
        last_key = -1
        while at < after:
            if at + 4 > after:
                raise Malformed("DNS service parameter is cut")
            key, size = _PAIR.unpack_from(buf, at)
            at += 4
            if at + size > after:
                raise Malformed("DNS service parameter is cut")
            if key <= last_key:
                raise Malformed("DNS service parameters out of order")
            last_key = key
            if key in (_IPV4HINT, _IPV6HINT):
                width = 4 if key == _IPV4HINT else 16
                if not size or size % width:
                    raise Malformed("DNS address of wrong length")
                hints += [buf[i : i + width] for i in range(at, min(at + size, at + width * MAX_HINTS), width)]
            elif key == _ECH:
                has_ech = True
            at += size
        self.records.append(
            DnsRecord(
                owner.name, owner.raw_name, rrtype, ttl_s, b"", target.name, target.raw_name, tuple(hints), has_ech
            )
        )
