"""The kernel's log of stopped packets: what it tells, how it is limited, and how losses are counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from egressd.clock import SteadyClock
from egressd.enforce.netlink import NetlinkError
from egressd.enforce.nflog import Dropped, Nflog
from egressd.enforce.nftables import NftablesAdapter, NftablesSettings
from egressd.enforce.plan import make_plan
from egressd.enforce.ruleset import RulesetSettings
from egressd.runtime.kernel_log import KernelLog
from tests.enforce.rules import ground, protected, rule
from tests.enforce.traffic import now_us

pytestmark = pytest.mark.root


def line(settings: RulesetSettings | None = None) -> None:
    """A line to the outside, and blocks on it."""
    for command in (
        "ip link add out type veth peer name far",
        "ip link set far up",
        "ip link set out up",
        "ip addr add 10.0.0.9/24 dev out",
        "ip -6 addr add fd00::9/64 dev out nodad",
        "ip route add default dev out",
        "ip -6 route add default dev out",
    ):
        subprocess.run(command.split(), check=True)
    adapter = NftablesAdapter(protected(), ground(), now_us, NftablesSettings(settings or RulesetSettings()))
    adapter.install()
    rules = [
        rule("address", "192.0.2.1"),
        rule("address", "2001:db8:f::1"),
        rule("network", "198.51.100.0/24"),
        rule("pair", "10.0.0.9>203.0.113.1"),
    ]
    assert adapter.apply(make_plan(rules, [], adapter.capabilities, now_us()), now_us()) == []


def send(addr: str, count: int = 1) -> None:
    with socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            with contextlib.suppress(PermissionError, ConnectionRefusedError, OSError):
                sender.sendto(b"x" * 300, (addr, 9))


def heard(log: Nflog, count: int, limit_s: float = 5.0) -> list[Dropped]:
    """At least so many records, or what came within the limit."""
    found: list[Dropped] = []
    deadline = time.monotonic() + limit_s
    while len(found) < count and time.monotonic() < deadline:
        found += log.read(now_us())
    return found


def test_each_reason_has_its_prefix(inside: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        line()
        log = Nflog()
        began_us = now_us()
        for addr, prefix in (
            ("192.0.2.1", "egressd:b4"),
            ("2001:db8:f::1", "egressd:b6"),
            ("198.51.100.7", "egressd:n4"),
            ("203.0.113.1", "egressd:p4"),
        ):
            send(addr)
            records = heard(log, 1)
            assert [record.prefix for record in records] == [prefix]
            packet = records[0].packet
            assert len(packet) == 128
            assert socket.inet_pton(socket.AF_INET6 if ":" in addr else socket.AF_INET, addr) in packet
            assert began_us <= records[0].ts_us <= now_us()
            assert records[0].iif == 0  # made here
        assert (log.stats.records, log.stats.lost) == (4, 0)
        assert log.read(now_us()) == []

    inside(body)


def test_a_storm_toward_one_address_is_limited_in_the_kernel_and_counted_there(
    inside: Callable[[Callable[[], Any]], Any],
) -> None:
    def body() -> None:
        line(RulesetSettings(log_per_minute=6, log_burst=10))
        log = Nflog()
        send("192.0.2.1", 4000)
        send("198.51.100.1", 3)
        records = heard(log, 1000, 1.0)
        prefixes = [record.prefix for record in records]
        assert 10 <= prefixes.count("egressd:b4") <= 12
        assert prefixes.count("egressd:n4") == 3
        shown = subprocess.run(["nft", "list", "set", "inet", "egressd", "blocked4"], capture_output=True, text=True)
        assert "packets 4000" in shown.stdout

    inside(body)


def test_what_is_lost_is_counted_exactly(inside: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        line(RulesetSettings(log_per_minute=6000, log_burst=100_000))
        log = Nflog(receive_bytes=1)  # the kernel's least: it overflows soon
        send("192.0.2.1")
        assert len(heard(log, 1)) == 1
        send("192.0.2.1", 3000)
        time_to_flush = time.monotonic() + 0.2
        while time.monotonic() < time_to_flush:
            pass
        found = len(heard(log, 3000, 0.5))
        send("192.0.2.1", 20)  # the next records show the gap
        found += len(heard(log, 20, 1.0))
        assert log.stats.overruns > 0
        assert log.stats.lost > 0
        assert 1 + found + log.stats.lost == 3021

    inside(body)


def test_two_readers_of_one_group(inside: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        first = Nflog((7, 8))
        with pytest.raises(NetlinkError, match="another program's"):
            Nflog((9, 8))
        first.close()
        Nflog((8,)).close()

    inside(body)


def test_a_group_that_its_reader_gives_free_is_read(inside: Callable[[Callable[[], Any]], Any]) -> None:
    """It was asked for when egressd began to enforce, and then not before the mode changed."""

    async def listens() -> None:
        told: list[str] = []
        log = KernelLog(SteadyClock(), lambda flows: None, told.append)
        other = Nflog((7,))
        log.listen(7)
        log.look()
        assert len(told) == 1 and told[0].startswith("log group 7 is another program's")
        other.close()
        log._due_s = 0.0
        log.look()
        assert told[1:] == [""]
        with pytest.raises(NetlinkError, match="another program's"):
            Nflog((7,))
        log.let_go()
        Nflog((7,)).close()

    inside(lambda: asyncio.run(listens()))
