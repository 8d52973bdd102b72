"""Much traffic, a little of the time of the full run (bench/live.py load): nothing dropped, memory flat, every packet
accounted for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns import kernel
from tests.netns.daemon import Daemon, until
from tests.netns.ground import WIDE, Ground
from tests.netns.scenarios import background, sustained

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.alone, pytest.mark.usefixtures("namespaces")]

EVIL = {"*.evil.example": ["203.0.113.66"]}
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may"), EVIL) as ground:
        yield ground


@pytest.fixture
def daemon(ground: Ground) -> Iterator[Daemon]:
    with ground.daemon("listed.evil.example\n", WIDE) as daemon:
        yield daemon


def test_names_at_a_rate_that_ci_can_send(ground: Ground, daemon: Daemon) -> None:
    found = sustained(ground, daemon, 5.0, {"named": 5_000})
    assert found.drops == 0
    assert found.packets >= found.sent[0].packets
    assert found.loss_ratio == 0
    assert found.told_s < 3.0


def test_bulk_beside_it_does_not_reach_the_process(ground: Ground, daemon: Daemon) -> None:
    """The kernel's filter throws away what carries no name."""
    found = sustained(ground, daemon, 4.0, {"named": 2_000, "bulk": 30_000})
    named, bulk = found.sent
    assert found.drops == 0
    assert found.packets < named.packets + bulk.packets / 10
    assert found.loss_ratio == 0


def test_what_was_sent_was_read_or_is_counted_as_dropped(ground: Ground, daemon: Daemon) -> None:
    """Promise 14, by a burst far beyond what one process takes: sent = read + dropped, exactly, but for a canary."""
    before = _interface(daemon, "mhlw0")
    with background(ground, "named", 60_000, 1.0) as sent:
        until(lambda: _interface(daemon, "mhlw0")[0] > before[0])
    total = sent[0].packets
    until(lambda: sum(_interface(daemon, "mhlw0")) - sum(before) >= total, why="packets are missing from the counts")
    assert sum(_interface(daemon, "mhlw0")) - sum(before) - total in (0, 1)


def _interface(daemon: Daemon, name: str) -> tuple[int, int]:
    row = next(one for one in daemon.ask("status")["interfaces"] if one["name"] == name)
    return row["packets"], row["kernel_drops"]


def test_blocking_goes_on_during_a_flood_of_random_subdomains(ground: Ground, daemon: Daemon) -> None:
    """Promise 11: one host's flood does not hide another host's contact."""
    with background(ground, "named", 8_000, 4.0):
        assert ground.kept_out("may", "b.evil.example")
        until(lambda: "203.0.113.66" in kernel.blocked(ground.gateway), 2)


def test_metrics_say_the_same_as_status(ground: Ground, daemon: Daemon) -> None:
    sustained(ground, daemon, 1.0, {"named": 1_000})
    metrics, status = daemon.metrics(), daemon.ask("status")
    assert metrics['egressd_sensor_up{interface="mhlw0"}'] == 1
    assert metrics['egressd_mode{mode="enforce"}'] == 1
    packets = sum(one["packets"] for one in status["interfaces"])
    assert 1_000 <= metrics["egressd_packets_total"] <= packets + 10
    assert len(metrics) < 500  # promise 13
