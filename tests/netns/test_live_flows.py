"""Flows that stand when their destination is blocked, and what a person does to machines: isolate, cut, undo, panic."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.netns import clients, kernel
from tests.netns.daemon import Daemon, Refused, until
from tests.netns.ground import Ground
from tests.netns.scenarios import cut_flows
from tests.netns.servers import ECHO_PORT, PULSE_PORT
from tests.netns.topology import JPS

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

EVIL = {"*.evil.example": ["203.0.113.66", "2001:db8:f::66"]}
REMEDY = "192.0.2.80"


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may", "office"), EVIL, second_line="office") as ground:
        yield ground


@pytest.fixture
def daemon(ground: Ground) -> Iterator[Daemon]:
    with ground.daemon("listed.evil.example\n", {"enforce": {"remedies": [REMEDY]}}) as daemon:
        yield daemon


def test_established_flows_die_within_a_second(ground: Ground, daemon: Daemon) -> None:
    for cut in cut_flows(ground, daemon, ["203.0.113.30", "2001:db8:f::30", "203.0.113.31", "2001:db8:f::31"]):
        assert cut.end in ("reset", "silent", "closed"), cut
        assert cut.heard_s <= 1.0, cut
        assert cut.reached_s <= 1.0, cut


@pytest.mark.alone
def test_a_flow_dies_also_when_policy_blocks_its_address(ground: Ground, daemon: Daemon) -> None:
    """The host has been connected for a while when an answer ties the address to a listed name."""
    with ground["may"].space.start(clients.hold_flow, "203.0.113.66", PULSE_PORT) as flow:
        assert flow.receive() == "open"
        before_ns = time.time_ns()
        assert ground.resolve("april", "b.evil.example") == ["203.0.113.66"]
        told = flow.result(10)
    assert told["end"] in ("reset", "silent", "closed")
    assert told["heard_ns"] - before_ns < 1_000_000_000
    assert "203.0.113.66" in kernel.blocked(ground.gateway)


def test_other_flows_of_the_same_host_go_on(ground: Ground, daemon: Daemon) -> None:
    with ground["may"].space.start(clients.hold_flow, "192.0.2.21", PULSE_PORT) as innocent:
        assert innocent.receive() == "open"
        cut_flows(ground, daemon, ["203.0.113.32"])
        innocent.channel.send("stop")
        assert innocent.result()["end"] == "stopped"


@pytest.mark.alone
def test_undo_opens_again_within_a_second(ground: Ground, daemon: Daemon) -> None:
    made = daemon.ask("block", what="203.0.113.40", reason="by mistake")
    until(lambda: ground.get("may", "203.0.113.40", "x.example")[0] == clients.REFUSED, 2)
    began_s = time.monotonic()
    daemon.ask("undo", id=made["decision_id"], reason="it was a mistake")
    until(lambda: ground.get("may", "203.0.113.40", "x.example") == (clients.ESTABLISHED, True), 2)
    assert time.monotonic() - began_s < 1.0


def test_isolate_leaves_the_remedy_and_names(ground: Ground, daemon: Daemon) -> None:
    may = ground["may"]
    with may.space.start(clients.hold_flow, "192.0.2.21", PULSE_PORT) as flow:
        assert flow.receive() == "open"
        daemon.ask("isolate", client=may.v4, reason="forensics")
        told = flow.result(10)
    assert told["end"] in ("reset", "silent", "closed")
    assert ground.get("may", "192.0.2.21", "www.innocent.example")[0] != clients.ESTABLISHED
    assert ground.get("may", REMEDY, "remedy.example") == (clients.ESTABLISHED, True)
    assert ground.resolve("may", "b.evil.example") is not None
    assert ground.get("office", "192.0.2.21", "www.innocent.example") == (clients.ESTABLISHED, True)
    hosts = daemon.ask("hosts")["hosts"]
    assert [host["isolated"] for host in hosts if host["client"] == may.v4] == [True]
    daemon.ask("release", client=may.v4, reason="clean disk")
    until(lambda: ground.get("may", "192.0.2.21", "www.innocent.example")[0] == clients.ESTABLISHED, 2)


def test_cut_of_a_segment_and_what_still_flows(ground: Ground, daemon: Daemon) -> None:
    """Beat e: one confirmed command. The other segment is not touched; what has a line of its own is not stopped by a
    gateway that it does not pass, and nobody may think so."""
    with pytest.raises(Refused):
        daemon.ask("cut", segment=JPS, for_s=600, confirm="something else", reason="drill")
    assert ground.get("may", "192.0.2.21", "www.innocent.example")[0] == clients.ESTABLISHED
    with ground["may"].space.start(clients.hold_flow, "192.0.2.21", PULSE_PORT) as flow:
        assert flow.receive() == "open"
        told = daemon.ask("cut", segment=JPS, for_s=600, confirm=JPS, reason="drill")
        assert told["text"]
        assert flow.result(10)["end"] in ("reset", "silent", "closed")
    may, april, office = ground["may"], ground["april"], ground["office"]
    for address in ("192.0.2.21", "2001:db8:f::21"):
        assert ground.get("may", address, "www.innocent.example")[0] != clients.ESTABLISHED
        assert ground.get("april", address, "www.innocent.example") == (clients.ESTABLISHED, True)
    assert may.space.call(clients.ask_udp, "192.0.2.21", ECHO_PORT, b"x") != clients.ESTABLISHED
    assert ground.get("may", REMEDY, "remedy.example") == (clients.ESTABLISHED, True)
    assert april.space.call(clients.ask_udp, "192.0.2.21", ECHO_PORT, b"x") == clients.ESTABLISHED
    assert office.space.call(clients.connect, "192.0.2.25", 81)[0] == clients.REFUSED  # by the mail line, past us
    assert daemon.ask("status")["blocks"]["segments_cut"] == 1
    daemon.ask("uncut", segment=JPS, reason="drill is over")
    until(lambda: ground.get("may", "192.0.2.21", "www.innocent.example")[0] == clients.ESTABLISHED, 2)


@pytest.mark.alone
def test_panic_lifts_everything_at_once(ground: Ground, daemon: Daemon) -> None:
    for address in ("203.0.113.41", "203.0.113.42", "2001:db8:f::42"):
        daemon.ask("block", what=address, reason="soon lifted")
    daemon.ask("isolate", client=ground["april"].v4, reason="soon lifted")
    assert ground.kept_out("may", "b.evil.example")
    began_s = time.monotonic()
    daemon.ask("panic", reason="something is very wrong")
    until(lambda: not kernel.blocked(ground.gateway), 2)
    assert time.monotonic() - began_s < 1.5
    assert ground.get("april", "203.0.113.41", "x.example") == (clients.ESTABLISHED, True)
    assert ground.get("may", "203.0.113.66", "b.evil.example") == (clients.ESTABLISHED, True)
