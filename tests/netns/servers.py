"""The servers of the proving ground. Each is a function that `Namespace.start` runs; it says "ready" and then obeys.

`serve_names` answers for zones that the test writes, from precomputed answers: a few dozen microseconds each, so that
what is measured is the gateway. `serve_wan` is everything else beyond it: HTTP, TLS, echoes and a pulse, on every
address of its namespace; it remembers each byte that reached it, which is the truth about what was let through.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from tests.netns.spaces import Channel, Failed, Namespace

TTL_S: Final = 60
A, AAAA, CNAME, HTTPS = 1, 28, 5, 65
IP_PKTINFO: Final = 8  # linux/in.h
IPV6_RECVPKTINFO: Final = 49  # linux/in6.h
IPV6_FREEBIND: Final = 78  # linux/in6.h
PULSE_S: Final = 0.02
HTTP_PORT, TLS_PORT, ECHO_PORT, PULSE_PORT = 80, 443, 7, 7000

# A zone: names, each with its records as text ("203.0.113.66", "2001:db8:f::66", "CNAME other.example"). "*.rest"
# stands for every name below that has no entry of its own.
Zone = dict[str, list[str]]


# -- names


def wire_name(name: str) -> bytes:
    """RFC 1035 section 3.1."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def question(name: str, rrtype: int, txid: int) -> bytes:
    """A question as stub resolvers send it."""
    return struct.pack(">HHHHHH", txid, 0x0100, 1, 0, 0, 0) + wire_name(name) + struct.pack(">HH", rrtype, 1)


def answered_addresses(message: bytes) -> list[str]:
    """The A and AAAA records of an answer of ours: every owner is a pointer, or a name in full after a CNAME."""
    at = _skip_name(message, 12) + 4
    found = []
    for _ in range(struct.unpack_from(">H", message, 6)[0]):
        at = _skip_name(message, at)
        rrtype, _, _, size = struct.unpack_from(">HHIH", message, at)
        at += 10
        if rrtype in (A, AAAA):
            found.append(str(ip_address(message[at : at + size])))
        at += size
    return found


def _skip_name(message: bytes, at: int) -> int:
    while True:
        size = message[at]
        if size >= 0xC0:
            return at + 2
        at += 1 + size
        if not size:
            return at


class Answers:
    """Answers of a zone, made once each."""

    def __init__(self, zone: Zone) -> None:
        self.zone = dict(zone)
        self._made: dict[bytes, bytes] = {}

    def change(self, zone: Zone) -> None:
        """Add names, or give them other records."""
        self.zone.update(zone)
        self._made.clear()

    def answer(self, message: bytes) -> bytes:
        """The answer to a question (one question, no compression in it, as stub resolvers send)."""
        end = message.index(b"\0", 12) + 5
        asked = message[12:end]
        made = self._made.get(asked)
        if made is None:
            if len(self._made) > 100_000:
                self._made.clear()
            made = self._made[asked] = self._make(asked)
        return message[:2] + made

    def _make(self, asked: bytes) -> bytes:
        labels, at = [], 0
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode("ascii", "replace").lower())
            at += 1 + asked[at]
        rrtype = struct.unpack_from(">H", asked, at + 1)[0]
        records = self._records(".".join(labels))
        if records is None:
            return struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + asked  # NXDOMAIN
        rows = _rows(records, rrtype, self._records)
        return struct.pack(">HHHHH", 0x8180, 1, len(rows), 0, 0) + asked + b"".join(rows)

    def _records(self, name: str) -> list[str] | None:
        found = self.zone.get(name)
        rest = name
        while found is None and "." in rest:
            rest = rest.partition(".")[2]
            found = self.zone.get("*." + rest)
        return found


def _rows(records: list[str], rrtype: int, look_up: Any) -> list[bytes]:
    rows, owner = [], b"\xc0\x0c"
    for _ in range(8):  # a chain of aliases has an end
        alias = next((record.partition(" ")[2] for record in records if record.startswith("CNAME ")), "")
        if not alias:
            break
        target = wire_name(alias)
        rows.append(owner + struct.pack(">HHIH", CNAME, 1, TTL_S, len(target)) + target)
        owner, records = target, look_up(alias) or []
    for record in records:
        address = ip_address(record).packed
        if rrtype == (A if len(address) == 4 else AAAA):
            rows.append(owner + struct.pack(">HHIH", rrtype, 1, TTL_S, len(address)) + address)
    return rows


def serve_names(channel: Channel, addresses: list[str], zone: Zone) -> None:
    """A name server on UDP port 53 of each address. Obeys ("change", zone) and ("count",)."""
    answers = Answers(zone)
    sockets = {}
    for address in addresses:
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((address, 53))
        one.setblocking(False)
        sockets[one.fileno()] = one
    poll = select.epoll()
    for number in (*sockets, channel.fileno()):
        poll.register(number, select.EPOLLIN)
    channel.send("ready")
    count = 0
    while True:
        for number, _ in poll.poll():
            listening = sockets.get(number)
            if listening is None:
                verb, *args = channel.recv()
                if verb == "change":
                    answers.change(args[0])
                channel.send(count)
                continue
            message, peer = listening.recvfrom(4096)
            try:
                listening.sendto(answers.answer(message), peer)
            except (ValueError, IndexError, struct.error):
                continue  # not a question
            count += 1


# -- what is beyond the gateway


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for anything under .example; returns its file and its key's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "*.example")])
    start = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(
        issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1, not_valid_before=start,
        not_valid_after=start + datetime.timedelta(days=36_500),
    ).sign(key, hashes.SHA256())  # fmt: skip
    encoding = serialization.Encoding.PEM
    paths = (folder / "certificate.pem", folder / "key.pem")
    paths[0].write_bytes(made.public_bytes(encoding))
    paths[1].write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return paths


class Hit(dict[str, Any]):
    """Something that reached a server: `t_us`, `peer`, `address`, `port`, `what` (first bytes as text), `bytes`."""


class Wan:
    """State of `serve_wan`."""

    def __init__(self) -> None:
        self.hits: list[Hit] = []
        self.open = 0

    def hit(self, peer: Any, address: Any, what: bytes, size: int) -> Hit:
        made = Hit(
            t_us=time.time_ns() // 1000,
            peer=_plain(peer[0]),
            address=_plain(address[0]),
            port=address[1],
            what=what[:200].decode("latin-1"),
            bytes=size,
        )
        self.hits.append(made)
        return made

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers requests one after the other, by TLS too."""
        ends = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        told = writer.get_extra_info("ssl_object")
        while head := await reader.readuntil(b"\r\n\r\n"):
            made = self.hit(*ends, head, len(head))
            made["tls"] = told is not None
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends back what comes."""
        made = self.hit(writer.get_extra_info("peername"), writer.get_extra_info("sockname"), b"", 0)
        while piece := await reader.read(65_536):
            made["bytes"] += len(piece)
            made["last_us"] = time.time_ns() // 1000
            writer.write(piece)
            await writer.drain()

    async def pulse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends a tick every PULSE_S by itself, and notes when it last heard the client."""
        made = self.hit(writer.get_extra_info("peername"), writer.get_extra_info("sockname"), b"pulse", 0)
        hearing = asyncio.create_task(self._hear(reader, made))
        try:
            while not hearing.done():
                writer.write(b"tick\n")
                await writer.drain()
                await asyncio.sleep(PULSE_S)
        finally:
            hearing.cancel()

    async def _hear(self, reader: asyncio.StreamReader, made: Hit) -> None:
        while piece := await reader.read(65_536):
            made["bytes"] += len(piece)
            made["last_us"] = time.time_ns() // 1000

    def datagram(self, listening: socket.socket) -> None:
        """Echo by UDP, from the address that was asked (RFC 1122 section 4.1.3.5)."""
        piece, control, _, peer = listening.recvmsg(4096, 256)
        address = "?"
        for level, kind, octets in control:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                address = str(ip_address(octets[8:12]))
                control = [(level, kind, struct.pack("=I4s4s", 0, octets[8:12], b"\0\0\0\0"))]
            elif level == socket.IPPROTO_IPV6:
                address = str(ip_address(octets[:16]))
                control = [(level, kind, octets[:16] + struct.pack("=I", 0))]
        self.hit(peer, (address, listening.getsockname()[1]), piece, len(piece))
        listening.sendmsg([piece], control, 0, peer)


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")


async def _closing(handler: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await handler(reader, writer)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the other side has gone: what the test wants
    finally:
        writer.close()


def serve_wan(channel: Channel, certificate: tuple[Path, Path]) -> None:
    """Every server beyond the gateway. Obeys ("hits", n), which gives those after the first n, and ("clear",)."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asyncio.run(_serve_wan(channel, certificate))


async def _serve_wan(channel: Channel, certificate: tuple[Path, Path]) -> None:
    wan = Wan()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    rows = ((HTTP_PORT, wan.http, None), (8080, wan.http, None), (TLS_PORT, wan.http, tls))
    servers = []
    for host in ("0.0.0.0", "::"):
        for port, handler, context in (
            *rows,
            (25, wan.echo, None),
            (ECHO_PORT, wan.echo, None),
            (PULSE_PORT, wan.pulse, None),
        ):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            servers.append(
                await asyncio.start_server(
                    functools.partial(_closing, handler),
                    host, port, family=family, ssl=context, backlog=1024, reuse_address=True,
                )
            )  # fmt: skip
        listening = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
            listening.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)  # answer from any address of the range
        else:
            listening.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        listening.bind((host, ECHO_PORT))
        listening.setblocking(False)
        asyncio.get_running_loop().add_reader(listening, wan.datagram, listening)
    ended = asyncio.Event()

    def obey() -> None:
        try:
            verb, *args = channel.recv()
        except EOFError:
            ended.set()
            return
        if verb == "clear":
            wan.hits.clear()
        channel.send([dict(hit) for hit in wan.hits[args[0] if args else 0 :]])

    asyncio.get_running_loop().add_reader(channel.fileno(), obey)
    channel.send("ready")
    await ended.wait()


# -- a resolver as gateways have it

UNBOUND: Final = """server:
 directory: "{folder}"
 pidfile: ""
 username: ""
 chroot: ""
 use-syslog: no
 logfile: ""
 do-daemonize: no
 num-threads: 1
 module-config: "iterator"
 access-control: 0.0.0.0/0 allow
 access-control: ::/0 allow
 do-not-query-localhost: no
 local-zone: "example." nodefault
 cache-min-ttl: 0
{interfaces}
remote-control:
 control-enable: no
forward-zone:
 name: "."
 forward-addr: {forward}
"""


def start_unbound(gateway: Namespace, addresses: list[str], forward: str, folder: Path) -> subprocess.Popen[Any]:
    """Unbound as the LAN's resolver on the gateway, asking the server at `forward`. Its log is in `folder`."""
    interfaces = "\n".join(f" interface: {address}" for address in addresses)
    path = folder / "unbound.conf"
    path.write_text(UNBOUND.format(folder=folder, interfaces=interfaces, forward=forward))
    with (folder / "unbound.log").open("wb") as log:
        started = gateway.popen(["unbound", "-d", "-c", str(path)], stdout=log, stderr=log)
    until_s = time.monotonic() + 10
    while started.poll() is None and time.monotonic() < until_s:
        if "start of service" in (folder / "unbound.log").read_text():
            return started
        os.sched_yield()
        time.sleep(0.02)
    started.kill()
    raise Failed("unbound did not start:\n" + (folder / "unbound.log").read_text())
