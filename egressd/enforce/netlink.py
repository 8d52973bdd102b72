"""Netlink as netfilter speaks it (linux/netlink.h, linux/netfilter/nfnetlink.h): attributes, messages, one socket.

The kernel is trusted, but a length is a length: the parsers here are total and bounded like those of wire bytes, and
only `Malformed` leaves them. Integers in netfilter's attributes are big-endian, netlink's own headers are native.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from egressd.enforce.adapter import AdapterError
from egressd.errors import Malformed

NETLINK_NETFILTER: Final = 12
HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR: Final = struct.Struct("=i")
_TIMEVAL: Final = struct.Struct("@ll")

REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP_INTR: Final = 0x10
EXCL: Final = 0x200
DUMP: Final = 0x300
CREATE: Final = 0x400

ERROR: Final = 2
DONE: Final = 3
BATCH_BEGIN: Final = 0x10
BATCH_END: Final = 0x11

NESTED: Final = 0x8000
TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

CTNETLINK: Final = 1 << 8
ULOG: Final = 4 << 8
NFTABLES: Final = 10 << 8

SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33

_DATAGRAM_BYTES: Final = 1 << 17  # the kernel's largest dump piece is 32 KiB, an event's a page or two
_DUMP_TRIES: Final = 5
_PIPELINE: Final = 64


class NetlinkError(AdapterError):
    """The kernel refused a request. `number` is its errno."""

    def __init__(self, number: int, what: str) -> None:
        advice = "; egressd needs CAP_NET_ADMIN" if number in (errno.EPERM, errno.EACCES) else ""
        super().__init__(f"{what}: {os.strerror(number)}{advice}")
        self.number = number


class Overrun(AdapterError):
    """Messages were lost because they came faster than they were read (ENOBUFS): what they would have told is unknown,
    so whoever relied on them must look for itself."""


class Message(NamedTuple):
    """One netlink message; `body` starts behind struct nlmsghdr."""

    kind: int
    flags: int
    seq: int
    port: int
    body: bytes


class Step(NamedTuple):
    """One change in a transaction: message type, flags beside REQUEST, body with struct nfgenmsg."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) & 3)


def nested(kind: int, *children: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(children))


def text(kind: int, value: bytes) -> bytes:
    """An attribute that holds a NUL-terminated string."""
    return attribute(kind, value + b"\0")


def generic(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg, the head of every netfilter body."""
    return struct.pack(">BBH", family, 0, resource)


def message(kind: int, flags: int, seq: int, body: bytes) -> bytes:
    """One message, padded to four bytes."""
    return HEADER.pack(16 + len(body), kind, flags, seq, 0) + body + bytes(-len(body) & 3)


def parse_messages(datagram: bytes) -> list[Message]:
    """The messages of one datagram. Raises Malformed, like all that reads here."""
    found: list[Message] = []
    at = 0
    while at + 16 <= len(datagram):
        length, kind, flags, seq, port = HEADER.unpack_from(datagram, at)
        if length < 16 or at + length > len(datagram):
            raise Malformed("netlink message longer than its datagram")
        found.append(Message(kind, flags, seq, port, datagram[at + 16 : at + length]))
        at += (length + 3) & ~3
    if at < len(datagram):
        raise Malformed("netlink datagram with a piece of a message")
    return found


def parse_attributes(body: bytes, start: int = 0) -> dict[int, bytes]:
    """Attributes by type, the last of each; `start` skips a fixed head (4 for struct nfgenmsg). Raises Malformed."""
    return dict(_walk(body, start))


def parse_list(body: bytes, kind: int) -> list[bytes]:
    """The payloads of every attribute of one type, in order."""
    return [payload for found, payload in _walk(body, 0) if found == kind]


def _walk(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    end = len(body)
    while at + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(body, at)
        if length < 4 or at + length > end:
            raise Malformed("netlink attribute longer than what holds it")
        yield kind & TYPE_MASK, body[at + 4 : at + length]
        at += (length + 3) & ~3
    if at < end:
        raise Malformed("netlink attributes with a piece of one")


def parse_error(body: bytes) -> tuple[int, int]:
    """NLMSG_ERROR: (errno as a positive number, 0 = acknowledged; sequence number of what it answers). Raises
    Malformed."""
    if len(body) < 20:
        raise Malformed("netlink error too short")
    number: int = -_ERROR.unpack_from(body)[0]
    return number, HEADER.unpack_from(body, 4)[3]


def be32(payload: bytes) -> int:
    """A 32-bit integer of netfilter's. Raises Malformed."""
    if len(payload) != 4:
        raise Malformed("netlink integer of a wrong size")
    return int.from_bytes(payload, "big")


def be64(payload: bytes) -> int:
    """A 64-bit integer of netfilter's. Raises Malformed."""
    if len(payload) != 8:
        raise Malformed("netlink integer of a wrong size")
    return int.from_bytes(payload, "big")


class NetfilterSocket:
    """A netlink socket to netfilter in the network namespace of the thread that makes it. One caller at a time."""

    def __init__(
        self,
        *,
        groups: Sequence[int] = (),
        receive_bytes: int = 1 << 23,
        send_bytes: int = 1 << 22,
        timeout_s: float = 5.0,
    ) -> None:
        """Raises AdapterError when the kernel has no netfilter netlink or does not let us."""
        self._seq = 0
        try:
            self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        except OSError as error:
            raise AdapterError(f"no netlink to netfilter: {error.strerror}") from error
        try:
            self._size(SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_bytes)
            self._size(SO_SNDBUFFORCE, socket.SO_SNDBUF, send_bytes)
            # Blocking calls with the kernel's own time-out: settimeout() would add a poll() to each.
            whole, part = divmod(timeout_s, 1)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(whole), int(part * 1e6)))
            self.sock.bind((0, 0))
            for group in groups:
                self.sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            self.sock.close()
            raise NetlinkError(error.errno or errno.EIO, "netlink socket to netfilter") from error
        self.port: int = self.sock.getsockname()[0]

    def _size(self, force: int, plain: int, size: int) -> None:
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:  # no CAP_NET_ADMIN: as much as the system lets everybody have
            self.sock.setsockopt(socket.SOL_SOCKET, plain, size)

    def close(self) -> None:
        """Let go of it."""
        self.sock.close()

    def fileno(self) -> int:
        """For selectors."""
        return self.sock.fileno()

    def next_seq(self, count: int = 1) -> int:
        """The first of `count` sequence numbers that nobody else gets. Never 0, which marks events."""
        if self._seq + count > 0xFFFF_FFF0:
            self._seq = 0
        first = self._seq + 1
        self._seq += count
        return first

    def send(self, payload: bytes) -> None:
        """Hand a datagram to the kernel, which works on it before this returns. Raises NetlinkError."""
        try:
            self.sock.send(payload)
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO, "netlink send") from error

    def receive(self, flags: int = 0) -> bytes:
        """One datagram, b"" when none came in time. Raises Overrun when the kernel had to throw some away."""
        try:
            return self.sock.recv(_DATAGRAM_BYTES, flags)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise Overrun("netlink messages were lost: they came faster than they were read") from error
            raise NetlinkError(error.errno or errno.EIO, "netlink receive") from error

    def drain(self) -> None:
        """Throw away whatever waits to be read."""
        while True:
            try:
                if not self.receive(socket.MSG_DONTWAIT):
                    return
            except Overrun:
                continue

    def transact(self, steps: Iterable[Step]) -> None:
        """Make all changes or none (an nfnetlink batch for nftables). Raises NetlinkError with the first refusal, or
        Overrun when the outcome was lost."""
        pending = list(steps)
        if not pending:
            return
        first = self.next_seq(len(pending) + 2)
        last = first + len(pending)
        out = [message(BATCH_BEGIN, REQUEST, first, generic(0, NFTABLES >> 8))]
        for seq, step in enumerate(pending, first + 1):
            out.append(message(step.kind, REQUEST | step.flags | (ACK if seq == last else 0), seq, step.body))
        out.append(message(BATCH_END, REQUEST, last + 1, generic(0, NFTABLES >> 8)))
        self.send(b"".join(out))
        self._settle(first, last)

    def _settle(self, first: int, last: int) -> None:
        while True:
            datagram = self.receive()
            if not datagram:
                raise AdapterError("the kernel did not answer a transaction in time")
            for answer in parse_messages(datagram):
                if answer.kind != ERROR:
                    continue
                number, seq = parse_error(answer.body)
                if number and first <= seq <= last + 1:
                    self.drain()
                    raise NetlinkError(number, "nftables transaction")
                if seq == last:
                    return

    def request(self, kind: int, flags: int, body: bytes) -> list[Message]:
        """One request outside transactions, acknowledged; returns what came before the acknowledgement. Raises
        NetlinkError when the kernel refuses."""
        answer = self.ask_many(kind, flags, [body])[0]
        if isinstance(answer, int):
            raise NetlinkError(answer, "netlink request")
        return answer

    def ask_many(self, kind: int, flags: int, bodies: Sequence[bytes]) -> list[list[Message] | int]:
        """Several requests of one type, pipelined; for each its answers, or the errno of the refusal."""
        answers: list[list[Message] | int] = []
        for start in range(0, len(bodies), _PIPELINE):
            answers += self._ask(kind, flags, bodies[start : start + _PIPELINE])
        return answers

    def _ask(self, kind: int, flags: int, bodies: Sequence[bytes]) -> list[list[Message] | int]:
        first = self.next_seq(len(bodies))
        last = first + len(bodies) - 1
        self.send(b"".join(message(kind, REQUEST | ACK | flags, seq, body) for seq, body in enumerate(bodies, first)))
        answers: list[list[Message] | int] = [[] for _ in bodies]
        while True:
            datagram = self.receive()
            if not datagram:
                raise AdapterError("the kernel did not answer a request in time")
            for answer in parse_messages(datagram):
                if answer.kind == ERROR:
                    number, seq = parse_error(answer.body)
                    if number and first <= seq <= last:
                        answers[seq - first] = number
                    if seq == last:
                        return answers
                elif first <= answer.seq <= last:
                    held = answers[answer.seq - first]
                    if isinstance(held, list):
                        held.append(answer)

    def dump(self, kind: int, body: bytes) -> list[Message]:
        """Everything of one sort. A dump that a change ran through (NLM_F_DUMP_INTR) is taken anew, a few times; a
        last one that was interrupted too is handed out as it is: everything in it exists, something may be missing."""
        for _ in range(_DUMP_TRIES):
            found: list[Message] = []
            if self._dump(kind, body, found):
                break
        return found

    def _dump(self, kind: int, body: bytes, found: list[Message]) -> bool:
        seq = self.next_seq()
        self.send(message(kind, REQUEST | DUMP, seq, body))
        whole = True
        while True:
            datagram = self.receive()
            if not datagram:
                raise AdapterError("the kernel did not finish a dump in time")
            for answer in parse_messages(datagram):
                if answer.seq != seq:
                    continue
                whole = whole and not answer.flags & DUMP_INTR
                if answer.kind == DONE:
                    return whole
                if answer.kind == ERROR:
                    raise NetlinkError(parse_error(answer.body)[0], "netlink dump")
                found.append(answer)
