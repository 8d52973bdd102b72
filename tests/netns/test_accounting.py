"""Bytes that the kernel counted of flows through a gateway: a known number is sent, and found again."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from egressd.clock import SteadyClock
from egressd.detect.behaviour.volume import VolumeSettings
from egressd.detect.evidence import Evidence
from egressd.enforce.accounting import Accounting, accounting_is_on
from egressd.names import Suffixes
from egressd.runtime.volume_watch import VolumeWatch
from egressd.runtime.whose import Whose
from tests.detect.scene import packed
from tests.enforce.namespace import CLIENT4, CLIENT6, GATEWAY4, OTHER4, SERVER4, SERVER6, Lab, lab, need_namespaces
from tests.enforce.traffic import PORT, echo
from tests.netns.spaces import Channel, Running, set_sysctls

pytestmark = pytest.mark.root

DEFAULT = VolumeSettings()
SWITCH = "net/netfilter/nf_conntrack_acct"


@pytest.fixture
def ground() -> Iterator[Lab]:
    need_namespaces()
    with lab() as made, made.wan.start(echo) as server:
        assert server.receive() == "ready"
        yield made


def upload(address: str, size: int) -> int:
    """Send `size` bytes by TCP and take them back; returns how many came."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.connect((address, PORT))
        back = 0
        for at in range(0, size, 4_096):
            one.sendall(b"\xab" * min(4_096, size - at))
            while back < at:
                back += len(one.recv(65_536))
        while back < size:
            back += len(one.recv(65_536))
        return back


def datagrams(address: str, count: int, size: int) -> int:
    """Send datagrams and wait for each to come back; returns their source port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.connect((address, PORT))
        for _ in range(count):
            one.send(b"\xab" * size)
            one.recv(2_000)
        return int(one.getsockname()[1])


def after(one: VolumeWatch, looks: int) -> None:
    """Waits until it has looked so often."""
    while one.looks < looks:
        threading.Event().wait(0.01)


def watch(channel: Channel, settings: VolumeSettings) -> None:
    """Counts in the gateway until told to stop; answers ("of", client, destination) and ("screen",)."""
    told: list[Evidence] = []

    async def run() -> None:
        whose = Whose(frozenset((packed(GATEWAY4),)))
        one = VolumeWatch(
            settings, Suffixes.parse("example\n"), SteadyClock(), whose.leads_out, told.append, look_s=0.2
        )
        task = asyncio.get_running_loop().create_task(one.run())
        await asyncio.to_thread(after, one, 1)
        channel.send("ready")
        try:
            while True:
                message = await asyncio.to_thread(channel.recv)
                await asyncio.to_thread(after, one, one.looks + 2)
                if message[0] == "stop":
                    return
                channel.send(one.of(*message[1:]) if message[0] == "of" else (one.screen(), one.warnings(), told))
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())


def started(made: Lab, settings: VolumeSettings = DEFAULT) -> Running:
    running = made.gateway.start(watch, settings)
    assert running.receive() == "ready"
    return running


def test_known_numbers_of_bytes_are_found_to_the_byte(ground: Lab) -> None:
    ground.gateway.call(set_sysctls, {SWITCH: "1"})
    with started(ground, VolumeSettings(out_hour=1 << 20)) as counting:
        port = ground.lan.call(datagrams, OTHER4, 50, 1_000)
        carried: Any = counting.ask("of", packed(CLIENT4), OTHER4)
        assert (carried.out_bytes, carried.in_bytes) == (50 * 1_028, 50 * 1_028)  # IP and UDP headers are 28
        # UDP flows end by a time-out; a command makes this one end now, and its last bytes are told by that.
        ground.lan.call(datagrams, OTHER4, 7, 100)
        ground.gateway.run("conntrack", "-D", "-p", "udp", "--sport", str(port))
        carried = counting.ask("of", packed(CLIENT4), OTHER4)
        assert carried.out_bytes == 50 * 1_028 + 7 * 128

        assert ground.lan.call(upload, SERVER4, 3 << 20) == 3 << 20
        carried = counting.ask("of", packed(CLIENT4), SERVER4)
        assert 3 << 20 < carried.out_bytes < (3 << 20) * 1.1
        assert 3 << 20 < carried.in_bytes < (3 << 20) * 1.1
        assert ground.lan.call(upload, SERVER6, 100_000) == 100_000
        carried = counting.ask("of", packed(CLIENT6), SERVER6)
        assert 100_000 < carried.out_bytes < 120_000

        screen, warnings, told = counting.ask("screen")
        assert screen["observed"] and warnings == []
        assert [(one.client, one.destination) for one in told] == [(packed(CLIENT4), SERVER4)]
        assert "the set quantity is 1 MiB an hour" in told[0].reason


def test_without_accounting_it_says_what_to_do_and_changes_nothing(ground: Lab) -> None:
    ground.gateway.call(set_sysctls, {SWITCH: "0"})
    with started(ground) as counting:
        ground.lan.call(datagrams, OTHER4, 3, 100)
        screen, warnings, _ = counting.ask("screen")
        assert not screen["observed"] and "sysctl -w net.netfilter.nf_conntrack_acct=1" in warnings[0]
        assert counting.ask("of", packed(CLIENT4), OTHER4) is None
    assert ground.gateway.call(accounting_is_on) is False


def test_flows_are_read_as_another_tool_reads_them(ground: Lab) -> None:
    ground.gateway.call(set_sysctls, {SWITCH: "1"})
    ground.lan.call(datagrams, OTHER4, 5, 500)
    ground.lan.call(upload, SERVER4, 200_000)

    def read() -> tuple[set[tuple[str, int, int]], set[tuple[str, int, int]]]:
        link = Accounting()
        ours = set()
        for piece in link.flows():
            for one in piece:
                ours.add((socket.inet_ntoa(one.destination), one.out_bytes, one.in_bytes))
        link.close()
        theirs = set()
        listed = subprocess.run(["conntrack", "-L", "-f", "ipv4"], check=True, capture_output=True, text=True).stdout
        for line in listed.splitlines():
            words = [word.split("=", 1) for word in line.split() if "=" in word]
            octets = [int(value) for key, value in words if key == "bytes"]
            destination = next(value for key, value in words if key == "dst")
            theirs.add((destination, octets[0], octets[1]))
        return ours, theirs

    ours, theirs = ground.gateway.call(read)
    assert ours == theirs
    assert {row[0] for row in ours} == {OTHER4, SERVER4}
