"""Servers and clients for tests of what the kernel lets through. Each runs in a process in its namespace."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from typing import Any, Final

from egressd.enforce.nftables import NftablesAdapter, NftablesSettings
from egressd.enforce.plan import make_plan
from egressd.enforce.ruleset import RulesetSettings
from tests.enforce.rules import ground, protected
from tests.netns.spaces import Channel, Running

PORT: Final = 7007
_OUTCOMES: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "refused",
    errno.EHOSTUNREACH: "prohibited",
    errno.EACCES: "prohibited",
    errno.ENETUNREACH: "prohibited",
    errno.EPERM: "prohibited",
}


def now_us() -> int:
    return time.time_ns() // 1000


def echo(channel: Channel, port: int = PORT) -> None:
    """Echo TCP and UDP on every address of the namespace until told to stop."""
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
    datagrams = []
    for family, anywhere in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        one = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            one.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: answer from the address that was asked
        one.bind((anywhere, port))
        datagrams.append(one)
    streams: list[socket.socket] = []
    channel.send("ready")
    while True:
        readable, _, _ = select.select([channel, server, *datagrams, *streams], [], [])
        for one in readable:
            if one is channel:
                return
            if one is server:
                streams.append(server.accept()[0])
            elif one in datagrams:
                received, ancillary, _, peer = one.recvmsg(2000, 200)
                with contextlib.suppress(OSError):
                    one.sendmsg([received], [(level, kind, told) for level, kind, told in ancillary], 0, peer)
            else:
                _echo_stream(one, streams)


def _echo_stream(one: socket.socket, streams: list[socket.socket]) -> None:
    try:
        received = one.recv(4096)
        if received:
            one.sendall(received)
            return
    except OSError:
        pass
    streams.remove(one)
    one.close()


def _socket(addr: str, kind: socket.SocketKind) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET, kind)


def connect(addr: str, wait_s: float = 1.0) -> tuple[str, float]:
    """Try to open a TCP connection: open, refused, prohibited or silence; and how long that took, in seconds."""
    began = time.perf_counter()
    with _socket(addr, socket.SOCK_STREAM) as one:
        one.settimeout(wait_s)
        try:
            one.connect((addr, PORT))
            outcome = "open"
        except TimeoutError:
            outcome = "silence"
        except OSError as error:
            outcome = _OUTCOMES.get(error.errno or 0, str(error))
    return outcome, time.perf_counter() - began


def ask(addr: str, wait_s: float = 1.0, port: int = PORT) -> str:
    """Send a datagram and wait for its echo."""
    with _socket(addr, socket.SOCK_DGRAM) as one:
        one.settimeout(wait_s)
        try:
            one.connect((addr, port))
            one.send(b"hello")
            one.recv(100)
        except TimeoutError:
            return "silence"
        except OSError as error:
            return _OUTCOMES.get(error.errno or 0, str(error))
    return "open"


def talk(channel: Channel, addr: str) -> float:
    """Hold a TCP connection and use it every few milliseconds; the time (monotonic) of the last echo that came before
    it died or fell silent for a second."""
    with _socket(addr, socket.SOCK_STREAM) as one:
        one.settimeout(1.0)
        one.connect((addr, PORT))
        heard = 0.0
        told = False
        while True:
            try:
                one.sendall(b"x")
                if not one.recv(100):
                    return heard
            except OSError:
                return heard
            heard = time.monotonic()
            if not told:
                channel.send("talking")
                told = True
            if channel.poll(0.002):
                return -1.0  # the test is over, and it talks yet


def flood(channel: Channel, addr: str) -> tuple[int, int]:
    """Send datagrams without a pause until told to stop: how many went out, and how many echoes came."""
    sent = echoes = 0
    with _socket(addr, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        channel.send("flooding")
        while not (sent % 64 == 0 and channel.poll()):
            with contextlib.suppress(OSError):
                one.sendto(b"x", (addr, PORT))
            sent += 1
            with contextlib.suppress(OSError):
                echoes += len(one.recv(10))
        time_up = time.monotonic() + 0.3
        while time.monotonic() < time_up:
            with contextlib.suppress(OSError):
                echoes += len(one.recv(10))
    return sent, echoes


def operate(channel: Channel, settings: NftablesSettings | None = None, ruleset: RulesetSettings | None = None) -> None:
    """An adapter that does what it is told by name: settle, flows, stats, reload, or one of its own methods."""
    settings = (settings or NftablesSettings())._replace(ruleset=ruleset or RulesetSettings())
    adapter = NftablesAdapter(protected(), ground(), now_us, settings)
    adapter.install()
    channel.send("ready")
    while True:
        verb, *args = channel.recv()
        if verb == "settle":
            plan = make_plan(args[0], adapter.populate(), adapter.capabilities, now_us())
            failures = adapter.apply(plan, now_us())
            channel.send((time.monotonic(), failures))
        elif verb == "flows":
            channel.send(adapter.flows.count_flows(args[0]))
        elif verb == "stats":
            channel.send(vars(adapter.stats))
        elif verb == "reload":
            adapter._print = None  # as after a meddling that was noticed
            adapter.install()
            channel.send(adapter.stats.installs)
        else:
            channel.send(getattr(adapter, verb)(*args))


def settle(operator: Running, *rules: Any) -> float:
    """Let an operator make these rules the ones in force; when it was done (monotonic)."""
    done, failures = operator.ask("settle", list(rules))
    assert failures == []
    return float(done)
