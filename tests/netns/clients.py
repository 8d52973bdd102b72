"""What the machines of the LAN do. Plain functions of plain arguments, for `Namespace.call` and `Namespace.start`.

Times are of CLOCK_REALTIME in nanoseconds where they are compared with the daemon's or with those of servers, and of
the monotonic clock where only a difference matters; all namespaces share both.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import time
from typing import Any, Final, NamedTuple

from tests.netns.servers import AAAA, A, answered_addresses, question
from tests.netns.spaces import Channel

# What became of a connection.
ESTABLISHED: Final = "established"
REFUSED: Final = "refused"  # a reset
UNREACHABLE: Final = "unreachable"  # an ICMP error
TIMEOUT: Final = "timeout"
NO_ANSWER: Final = "no answer"  # of the resolver
NO_ADDRESS: Final = "no address"

_UNREACHABLE: Final = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES)
GET: Final = b"GET /%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: proving-ground\r\n\r\n"


class Try(NamedTuple):
    """One name resolved and its address connected to. `answered_ns` (CLOCK_REALTIME) is when the answer came,
    `delay_ns` how long after it the connection was opened, `took_ns` what connecting took, `delivered` whether a
    request that was sent on it was answered."""

    name: str
    address: str
    answered_ns: int
    asked_us: float
    delay_ns: int
    took_ns: int
    outcome: str
    delivered: bool


def resolve(
    name: str, resolver: str, rrtype: int = A, *, source: str = "", port: int = 0, timeout_s: float = 2.0
) -> list[str] | None:
    """Ask for a name; None when no answer came."""
    asking = socket.socket(socket.AF_INET6 if ":" in resolver else socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(timeout_s)
        asking.bind((source, port))
        asking.connect((resolver, 53))
        asking.send(question(name, rrtype, int.from_bytes(os.urandom(2), "big")))
        try:
            return answered_addresses(asking.recv(4096))
        except (TimeoutError, ConnectionRefusedError):
            return None


def connect(address: str, port: int, *, source: str = "", timeout_s: float = 1.0) -> tuple[str, socket.socket | None]:
    """Open a connection; what became of it, and its socket when it stands."""
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    one.setblocking(False)
    try:
        if source:
            one.bind((source, 0))
        code = one.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(one, select.POLLOUT)
            if not poll.poll(timeout_s * 1000):
                one.close()
                return TIMEOUT, None
            code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError as error:
        code = error.errno or errno.EIO
    if code == 0:
        return ESTABLISHED, one
    one.close()
    if code == errno.ECONNREFUSED or code == errno.ECONNRESET:
        return REFUSED, None
    return (UNREACHABLE if code in _UNREACHABLE else TIMEOUT), None


def delivers(one: socket.socket, host: str, path: str = "", timeout_s: float = 1.0) -> bool:
    """Whether a GET on an open connection is answered."""
    one.settimeout(timeout_s)
    try:
        one.sendall(GET % (path.encode("ascii"), host.encode("ascii")))
        return bool(one.recv(4096))
    except OSError:
        return False


def tries(
    names: list[str], resolver: str, delays_ns: list[int], *, rrtype: int = A, port: int = 80, pause_s: float = 0.02
) -> list[Try]:
    """For each name: ask, take the answer, wait busily until `delay` after it, connect, send a request."""
    found = []
    asking = socket.socket(socket.AF_INET6 if ":" in resolver else socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(2.0)
    asking.connect((resolver, 53))
    for number, (name, delay_ns) in enumerate(zip(names, delays_ns, strict=True)):
        message = question(name, rrtype, number)
        asked_ns = time.monotonic_ns()
        asking.send(message)
        try:
            answer = asking.recv(4096)
        except TimeoutError:
            found.append(Try(name, "", 0, 0.0, delay_ns, 0, NO_ANSWER, False))
            continue
        start_ns = time.monotonic_ns()
        answered_ns = time.time_ns()
        addresses = answered_addresses(answer)
        if not addresses:
            found.append(Try(name, "", answered_ns, (start_ns - asked_ns) / 1e3, delay_ns, 0, NO_ADDRESS, False))
            continue
        until_ns = start_ns + delay_ns
        while time.monotonic_ns() < until_ns:
            pass
        opened_ns = time.monotonic_ns()
        outcome, one = connect(addresses[0], port)
        took_ns = time.monotonic_ns() - opened_ns
        delivered = False
        if one is not None:
            with one:
                delivered = delivers(one, name)
        asked_us = (start_ns - asked_ns) / 1e3
        found.append(Try(name, addresses[0], answered_ns, asked_us, opened_ns - start_ns, took_ns, outcome, delivered))
        time.sleep(pause_s)
    return found


def get(address: str, host: str, path: str = "", *, source: str = "", port: int = 80) -> tuple[str, bool]:
    """One GET; what became of the connection, and whether it was answered."""
    outcome, one = connect(address, port, source=source)
    if one is None:
        return outcome, False
    with one:
        return outcome, delivers(one, host, path)


def tls(address: str, sni: str, *, port: int = 443, timeout_s: float = 2.0) -> tuple[str, bool]:
    """A TLS handshake with a server name, and a GET inside."""
    outcome, one = connect(address, port)
    if one is None:
        return outcome, False
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with one:
        one.settimeout(timeout_s)
        try:
            with context.wrap_socket(one, server_hostname=sni) as wrapped:
                return outcome, delivers(wrapped, sni)
        except OSError:
            return outcome, False


def ask_udp(address: str, port: int, payload: bytes, timeout_s: float = 0.5) -> str:
    """A datagram to an echo server: "established" when it comes back."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(timeout_s)
        one.connect((address, port))
        try:
            one.send(payload)
            return ESTABLISHED if one.recv(4096) == payload else TIMEOUT
        except TimeoutError:
            return TIMEOUT
        except ConnectionRefusedError:
            return REFUSED
        except OSError:
            return UNREACHABLE


def send_bare(address: str, proto: int, body: bytes) -> None:
    """One IP packet of a protocol of one's own choice; ICMP's checksum is set."""
    if proto in (1, 58):
        words = sum(int.from_bytes(body[at : at + 2], "big") for at in range(0, len(body), 2))
        words = (words & 0xFFFF) + (words >> 16)
        body = body[:2] + (~((words & 0xFFFF) + (words >> 16)) & 0xFFFF).to_bytes(2, "big") + body[4:]
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_RAW, proto) as one:
        one.sendto(body, (address, 0))


def visit(name: str, resolver: str, path: str = "", *, rrtype: int = A, by_tls: bool = False) -> tuple[str, bool]:
    """What a browser does: resolve, connect, ask for a page."""
    addresses = resolve(name, resolver, rrtype)
    if addresses is None:
        return NO_ANSWER, False
    if not addresses:
        return NO_ADDRESS, False
    return tls(addresses[0], name) if by_tls else get(addresses[0], name, path)


def hold_flow(channel: Channel, address: str, port: int, period_s: float = 0.02) -> dict[str, Any]:
    """A long connection to a pulse server: hears it, and sends a line every period, until told to stop or it dies.

    Says "open" when data has gone both ways. Returns `heard_ns`, `sent_ns` (CLOCK_REALTIME of the last of each) and
    `end`: "stopped", "reset", "closed" or "silent" (half a second without a tick).
    """
    outcome, one = connect(address, port, timeout_s=3.0)
    if one is None:
        channel.send(outcome)
        return {"heard_ns": 0, "sent_ns": 0, "end": outcome}
    told: dict[str, Any] = {"heard_ns": time.time_ns(), "sent_ns": 0, "end": "stopped"}
    opened = False
    one.setblocking(False)
    while not channel.poll():
        readable, _, _ = select.select([one.fileno(), channel.fileno()], [], [], period_s)
        try:
            if one.fileno() in readable:
                if not one.recv(65_536):
                    told["end"] = "closed"
                    break
                told["heard_ns"] = time.time_ns()
                if not opened and told["sent_ns"]:
                    opened = True
                    channel.send("open")
            one.send(b"line\n")
            told["sent_ns"] = time.time_ns()
        except BlockingIOError:
            pass
        except OSError:
            told["end"] = "reset"
            break
        if time.time_ns() - told["heard_ns"] > 500_000_000:
            told["end"] = "silent"
            break
    one.close()
    return told


def probe(channel: Channel, addresses: list[str], port: int = 80, period_s: float = 0.01) -> list[tuple[int, str, str]]:
    """Connect to each address in turn, one try every period, until told to stop. Says "probing" first.

    Returns (CLOCK_REALTIME ns, address, outcome) of every try.
    """
    seen: list[tuple[int, str, str]] = []
    channel.send("probing")
    due_s = time.monotonic()
    while not channel.poll(max(0.0, due_s - time.monotonic())):
        address = addresses[len(seen) % len(addresses)]
        began_ns = time.time_ns()
        outcome, one = connect(address, port, timeout_s=0.25)
        if one is not None:
            one.close()
        seen.append((began_ns, address, outcome))
        due_s = max(due_s + period_s, time.monotonic())
    return seen


def reports(name: str, resolver: str, paths: list[str], period_s: float) -> list[tuple[str, bool]]:
    """What a backdoor does: a name resolved and a GET sent, one every period."""
    told = []
    for number, path in enumerate(paths):
        told.append(visit(name, resolver, path))
        if number + 1 < len(paths):
            time.sleep(period_s)
    return told


def beacon(address: str, host: str, count: int, period_s: float, paths: list[str]) -> list[tuple[str, bool]]:
    """GETs with opaque tails, one every period."""
    told = []
    for number in range(count):
        told.append(get(address, host, paths[number % len(paths)]))
        if number + 1 < count:
            time.sleep(period_s)
    return told


__all__ = [
    "AAAA",
    "A",
    "Try",
    "ask_udp",
    "beacon",
    "connect",
    "get",
    "hold_flow",
    "probe",
    "reports",
    "resolve",
    "send_bare",
    "tls",
    "tries",
    "visit",
]
