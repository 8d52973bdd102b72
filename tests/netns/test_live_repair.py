"""Whatever happens to the ruleset or to the daemon: blocks are repaired, protected addresses come first, nothing that
was acknowledged is lost, and where the kernel kept its table nothing gets through in between."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.netns import clients, kernel, ledgers
from tests.netns.daemon import Daemon, Refused, until
from tests.netns.ground import Ground
from tests.netns.spaces import Failed
from tests.netns.upheaval import FLUSH, RELOAD, foreign_hand, killed_at_random, knocking, never_is_first

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

EVIL = {"*.evil.example": ["203.0.113.66", "2001:db8:f::66"]}
LISTED = "listed.evil.example\n"
BLOCKED = ["203.0.113.50", "2001:db8:f::50", "203.0.113.51"]


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may"), EVIL) as ground:
        yield ground


@pytest.fixture
def daemon(ground: Ground) -> Iterator[Daemon]:
    with ground.daemon(LISTED, {"enforce": {"largest_change": 1_000_000}}) as daemon:
        yield daemon


def _block(ground: Ground, daemon: Daemon, addresses: list[str]) -> None:
    for address in addresses:
        daemon.ask("block", what=address, reason="to be repaired")
    until(lambda: set(addresses) <= set(kernel.blocked(ground.gateway)))


@pytest.mark.parametrize("ruleset", [FLUSH, RELOAD], ids=["flush ruleset", "a firewall's reload"])
def test_a_foreign_flush_is_repaired(ground: Ground, daemon: Daemon, ruleset: str) -> None:
    _block(ground, daemon, BLOCKED)
    repair = foreign_hand(ground, BLOCKED, ruleset, 3.5)
    assert repair.repaired_s <= 3.0
    assert repair.open_s <= 3.0
    assert repair.never_first
    until(lambda: sum(one["drift_repaired"] for one in daemon.ask("status")["adapters"]) > 0)


@pytest.mark.parametrize(
    "hand",
    [
        "delete table inet egressd",
        "delete element inet egressd blocked4 { 203.0.113.50 }",
        "flush set inet egressd blocked6",
        "flush chain inet egressd guard",
        "flush set inet egressd never4",
        "flush chain inet egressd forward",
    ],
)
def test_every_other_foreign_hand_is_repaired_too(ground: Ground, daemon: Daemon, hand: str) -> None:
    _block(ground, daemon, BLOCKED)
    ground.gateway.run("nft", hand)
    until(lambda: _whole(ground), why=f"not repaired: {hand}")


def _whole(ground: Ground) -> bool:
    held = set(BLOCKED) <= set(kernel.blocked(ground.gateway)) and never_is_first(ground)
    return held and all(ground.get("may", address, "x.example")[0] == clients.REFUSED for address in BLOCKED)


def test_a_foreign_element_is_taken_away(ground: Ground, daemon: Daemon) -> None:
    ground.gateway.run("nft", "add element inet egressd blocked4 { 192.0.2.21 timeout 1h }")
    until(lambda: "192.0.2.21" not in kernel.blocked(ground.gateway))
    assert ground.get("may", "192.0.2.21", "www.innocent.example") == (clients.ESTABLISHED, True)


def test_the_hosts_own_rules_are_left_alone(ground: Ground, daemon: Daemon) -> None:
    before = ground.gateway.run("nft", "list", "table", "inet", "host").stdout
    _block(ground, daemon, BLOCKED)
    ground.gateway.run("nft", "delete table inet egressd")
    until(lambda: _whole(ground))
    assert ground.gateway.run("nft", "list", "table", "inet", "host").stdout == before


def test_a_stop_leaves_the_blocks(ground: Ground, daemon: Daemon) -> None:
    _block(ground, daemon, BLOCKED)
    with knocking(ground, BLOCKED) as knocks:
        assert daemon.stop() == 0
        time.sleep(0.3)
        daemon.start()
        time.sleep(0.5)
    assert len(knocks.seen) > 20
    assert not knocks.through()
    assert set(BLOCKED) <= set(kernel.blocked(ground.gateway))


def test_a_second_daemon_leaves_the_table_alone(ground: Ground, daemon: Daemon) -> None:
    """Two with folders of their own repaired each other's rules for ever, and no alarm told."""
    _block(ground, daemon, BLOCKED)
    installed = ground.gateway.run("nft", "-a", "list", "table", "inet", "egressd").stdout.split("chain", 1)[1]
    quiet = {"metrics": {"address": ""}}
    second = Daemon(ground.topology.gateway, LISTED, quiet)
    try:
        with pytest.raises(Failed, match=rf"ended with 1:[^$]*another egressd \(process {daemon.pid}\) has the table"):
            second.start()
    finally:
        second.__exit__()
    with Daemon(ground.topology.gateway, LISTED, {**quiet, "mode": "monitor"}) as other:
        with pytest.raises(Refused, match="has the table inet egressd"):
            other.ask("mode", mode="enforce", reason="to see")
        assert other.ask("status")["mode"] == "monitor"
        assert "the table is left as it is" in other.tail()
    assert set(BLOCKED) <= set(kernel.blocked(ground.gateway))
    assert ground.gateway.run("nft", "-a", "list", "table", "inet", "egressd").stdout.split("chain", 1)[1] == installed
    assert sum(one["drift_repaired"] for one in daemon.ask("status")["adapters"]) == 0
    daemon.ask("mode", mode="monitor", reason="to see")
    with Daemon(ground.topology.gateway, LISTED, quiet) as other:  # it may now
        assert other.ask("status")["mode"] == "enforce"


def test_kill_9_at_random_points(ground: Ground, daemon: Daemon) -> None:
    """20 of the 200 rounds of the full run (bench/live.py kill)."""
    seed = int(os.environ.get("EGRESSD_SEED", "0")) or random.randrange(1 << 30)
    found = killed_at_random(ground, daemon, 20, random.Random(seed))
    assert found.lost == [], f"EGRESSD_SEED={seed}"
    assert found.phantoms == [], f"EGRESSD_SEED={seed}"
    assert found.leaks == [], f"EGRESSD_SEED={seed}"
    assert found.probes > 100
    assert statistics.median(found.reconciled_s) <= 5.0
    assert daemon.ask("audit", verify=True)["ok"]


def test_a_restart_with_many_blocks(ground: Ground) -> None:
    """10,000 of the full run's 100,000: in force before it is ready, and the second start finds them there."""
    count = 10_000
    extra = ("203.0.113.50", "2001:db8:f::50")
    with_past = ground.daemon(ledgers.listed(count + 2), {"enforce": {"largest_change": 1_000_000}, **_BIG}, wait_s=60)
    ledgers.fill(with_past.folder, count, extra)
    with with_past as daemon:
        until(lambda: len(kernel.blocked(ground.gateway)) == count + 2)
        for address in extra:
            assert ground.get("may", address, "x.example")[0] == clients.REFUSED
        with knocking(ground, extra) as knocks:
            daemon.kill()
            time.sleep(0.3)
            began_s = time.monotonic()
            daemon.start()
            assert time.monotonic() - began_s < 15
            ground.gateway.run("nft", "-f", "-", text=RELOAD)
            deed_ns = time.time_ns()
            until(lambda: set(extra) <= set(kernel.blocked(ground.gateway)))
            repaired_s = (time.time_ns() - deed_ns) / 1e9
        assert not [began_ns for began_ns in knocks.through() if began_ns < deed_ns - 100_000_000]
        assert repaired_s <= 3.0
        assert never_is_first(ground)
        assert daemon.ask("status")["blocks"]["addresses"] == count + 2


_BIG = {"policy": {"blocks_per_hour": 100_000}}


def test_a_stopped_packet_process_and_a_killed_one(ground: Ground, daemon: Daemon) -> None:
    """Promise 24: what hangs is replaced, what dies comes again, and blocks stand meanwhile."""
    _block(ground, daemon, BLOCKED)
    pid = daemon.packet_pids()[0]
    os.kill(pid, signal.SIGKILL)
    until(lambda: daemon.packet_pids() not in ([pid], []))
    until(lambda: daemon.ask("status")["packet_processes"][0]["restarts"] >= 1)
    assert ground.get("may", BLOCKED[0], "x.example")[0] == clients.REFUSED
    until(lambda: _asked(ground, clients.A, "203.0.113.66"), 10)  # it is blind while it starts
    os.kill(daemon.packet_pids()[0], signal.SIGSTOP)
    hung = daemon.packet_pids()
    until(lambda: daemon.packet_pids() not in (hung, []), 45)
    until(lambda: _asked(ground, clients.AAAA, "2001:db8:f::66"))


def _asked(ground: Ground, rrtype: int, address: str) -> bool:
    """A host asks once more; whether that was seen."""
    ground.resolve("may", "b.evil.example", rrtype=rrtype)
    return address in kernel.blocked(ground.gateway)


def test_a_hung_core_stops_telling_its_watchdog(ground: Ground, daemon: Daemon) -> None:
    """What systemd needs to restart it: WATCHDOG=1 while it lives, none while it hangs."""
    assert daemon.running()
    until(lambda: "WATCHDOG=1" in daemon.notified(), why="no sign of life for the watchdog")
    daemon.signal(signal.SIGSTOP)
    daemon.notified()
    time.sleep(1.0)
    assert "WATCHDOG=1" not in daemon.notified()
    daemon.signal(signal.SIGCONT)
    until(lambda: daemon.ask("status"))
