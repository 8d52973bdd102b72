"""A long list is saved while packets pass: nothing is missed, nothing is lost (bench/live.py reload has a million)."""

from __future__ import annotations

import os
import signal

import pytest

from tests.netns.clients import AAAA
from tests.netns.daemon import TREE, until
from tests.netns.ground import Ground
from tests.netns.reloads import EVIL, long_list, reload_long, zone

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]


def test_built_indexes_that_somebody_takes_away_leave_nobody_blind() -> None:
    with Ground(("may",)) as ground:
        ground.zone(zone())
        with ground.daemon(EVIL + long_list(50_000), wait_s=60) as daemon:
            assert ground.kept_out("may", "s1.evil.example", rrtype=AAAA)
            for file in (daemon.folder / "state" / "indexes").iterdir():
                file.unlink()
            (pid,) = daemon.packet_pids()
            os.kill(pid, signal.SIGKILL)
            until(lambda: [one for one in daemon.packet_pids() if one != pid], why="no packet process is started")
            assert ground.kept_out("may", "s2.evil.example", rrtype=AAAA, timeout_s=20)
            assert "index-1.idx is gone" in daemon.tail(60)


@pytest.mark.alone
def test_a_long_list_is_taken_and_nothing_is_missed_meanwhile() -> None:
    with Ground(("april", "may")) as ground:
        found = reload_long(ground, 50_000, 2_000, TREE)
    assert found.drops == 0
    assert found.missed == 0
    assert found.in_force_s <= 10
    assert len(found.late_ms) > 20
