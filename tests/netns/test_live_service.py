"""The service under a real systemd: installed, booted, confined, hung, stopped, taken away again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.netns import clients
from tests.netns.daemon import until
from tests.netns.ground import Ground
from tests.netns.machine import SOURCE, Machine, Unbootable, no_machine
from tests.netns.topology import GATEWAY4, GATEWAY6, JPS, MHLW, NETWORKS

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

EVIL: Final = "198.51.100.66"
NET_ADMIN_AND_RAW: Final = f"{1 << 12 | 1 << 13:016x}"  # linux/capability.h
LIST: Final = "/etc/egressd/lists.d/local.txt"
LISTED: Final = "evil.example\n"
CONFIG: Final = {
    "mode": "enforce",
    "lists": ["lists.d/*.txt"],
    "segments": {segment: list(networks) for segment, networks in NETWORKS.items()},
    "resolvers": [*GATEWAY4.values(), *GATEWAY6.values()],
    "capture": {"interfaces": [f"{MHLW}0", f"{JPS}0"]},
}


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    reason = no_machine()
    if reason:
        pytest.skip(reason)
    with Ground(zone={"*.evil.example": [EVIL], "fine.example": ["203.0.113.80"]}) as ground:
        yield ground


@pytest.fixture(scope="module")
def machine(ground: Ground) -> Iterator[Machine]:
    with Machine(ground.gateway, CONFIG, LISTED) as machine:
        try:
            machine.boot()
        except Unbootable as error:
            pytest.skip(f"no machine can be booted here: {error}")
        yield machine


def test_it_is_there_before_the_network(machine: Machine) -> None:
    network = machine.command(
        "systemctl", "show", "network-pre.target", "--value", "--property=ActiveEnterTimestampMonotonic"
    )
    assert 0 < int(machine.service("ActiveEnterTimestampMonotonic")) <= int(network)
    assert machine.service("StatusText").startswith("mode enforce")


def test_it_has_its_two_capabilities_and_nothing_else(machine: Machine) -> None:
    processes = machine.processes()
    assert len(processes) == 2, "the core and a packet process"
    for status in processes.values():
        held = {status[key] for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert held == {NET_ADMIN_AND_RAW}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_a_listed_name_is_blocked_and_stays_so_while_the_service_is_stopped(ground: Ground, machine: Machine) -> None:
    assert ground.kept_out("may", "a.evil.example")
    assert ground.visit("may", "fine.example") == (clients.ESTABLISHED, True)
    machine.command("systemctl", "stop", "egressd.service")
    assert not machine.processes()
    assert ground.get("may", EVIL, "b.evil.example")[0] != clients.ESTABLISHED
    machine.command("systemctl", "start", "egressd.service")
    assert ground.get("may", EVIL, "c.evil.example")[0] != clients.ESTABLISHED
    assert "1 in force" in machine.command("egressd", "status")


def test_a_mistake_in_a_list_fails_the_check_and_ends_no_block(ground: Ground, machine: Machine) -> None:
    machine.write(LIST, LISTED + "not a name\n")
    until(lambda: "local.txt:2:" in machine.journal("egressd-check"), why="the check must be started by the saved file")
    until(lambda: "local.txt:2:" in machine.command("egressd", "status"), why="status must tell")
    assert ground.kept_out("april", "d.evil.example")
    machine.write(LIST, LISTED)
    until(lambda: "local.txt" not in machine.command("egressd", "status").partition("SENSORS")[0])


def test_what_a_run_as_root_left_is_the_services_own_again(machine: Machine) -> None:
    machine.command("chown", "-R", "root:root", "/var/lib/egressd/last-good", "/var/log/egressd/eve.json")
    machine.command("systemctl", "restart", "egressd.service")
    owners = machine.command("find", "/var/lib/egressd", "/var/log/egressd", "-printf", "%u\n")
    assert set(owners.split()) == {"egressd"}
    assert "!! no last good" not in machine.command("egressd", "status")


def test_a_core_that_hangs_is_started_anew(ground: Ground, machine: Machine) -> None:
    machine.command("mkdir", "-p", "/run/systemd/system/egressd.service.d")
    machine.write("/run/systemd/system/egressd.service.d/soon.conf", "[Service]\nWatchdogSec=2\n")
    machine.command("systemctl", "daemon-reload")
    machine.command("systemctl", "restart", "egressd.service")
    hung = machine.service("MainPID")
    machine.command("kill", "-STOP", hung)
    assert ground.get("may", EVIL, "e.evil.example")[0] != clients.ESTABLISHED, "what is in the kernel holds meanwhile"
    until(lambda: machine.service("MainPID") not in (hung, "0") and machine.is_active(), why="the watchdog must act")
    assert ground.kept_out("office", "f.evil.example")
    assert "Watchdog timeout" in machine.command("journalctl", "--no-pager", "--output=cat")


def test_it_can_be_taken_away_again(machine: Machine) -> None:
    machine.command("sh", f"{SOURCE}/scripts/install.sh", "uninstall")
    assert not machine.is_active()
    left = machine.command(
        "sh", "-c", "ls -d /opt/egressd /usr/bin/egressd /usr/lib/systemd/system/egressd* 2>/dev/null", check=False
    )
    assert left == ""
    assert machine.command("cat", LIST) == LISTED, "what an operator wrote stays"
