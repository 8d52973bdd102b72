"""What must be protected changes, and the kernel refuses for a while: both while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.changes import NEWLY, newly_protected, outage, own_resolver_file
from tests.netns.daemon import Daemon
from tests.netns.ground import Ground

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

EVIL = {"*.evil.example": ["203.0.113.66"]}


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may"), EVIL) as ground:
        yield ground


@pytest.fixture(scope="module")
def resolver_file(ground: Ground) -> Iterator[Path]:
    with own_resolver_file(ground.gateway) as file:
        yield file


@pytest.fixture
def daemon(ground: Ground, resolver_file: Path) -> Iterator[Daemon]:
    with ground.daemon("listed.evil.example\n") as daemon:
        yield daemon


@pytest.mark.alone
def test_a_blocked_address_that_becomes_ours_is_free_within_five_seconds(
    ground: Ground, daemon: Daemon, resolver_file: Path
) -> None:
    took = newly_protected(ground, daemon, resolver_file)
    assert took.keys() == NEWLY.keys() | {"feed"}
    assert max(took.values()) <= 5.0, took
    rows = daemon.ask("decisions", state="all")["decisions"]
    reasons = {target["value"]: target["state"] for row in rows for target in row["targets"]}
    assert {reasons[address] for address, _ in NEWLY.values()} == {"withdrawn"}


def test_what_is_decided_while_the_kernel_refuses_is_done_later(ground: Ground, daemon: Daemon) -> None:
    found = outage(ground, daemon, 12.0, ["203.0.113.81", "2001:db8:f::81"], "during.evil.example")
    assert found.alarm_s <= 30.0
    assert found.drained_s <= 60.0
    assert found.alarm_ended
