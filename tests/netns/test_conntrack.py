"""Flows in the kernel's connection table: which ones a block forgets, and which it leaves."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from egressd.enforce import conntrack
from egressd.enforce.conntrack import Conntrack
from egressd.intel.networks import NetworkTable
from egressd.model import TCP, UDP, Target
from tests.enforce.rules import networks
from tests.netns.spaces import missing

pytestmark = pytest.mark.root

FLOWS = [
    ("tcp", "10.0.0.9", "192.0.2.1"),
    ("udp", "10.0.0.9", "192.0.2.2"),
    ("tcp", "10.0.0.8", "192.0.2.1"),
    ("tcp", "192.0.2.1", "10.0.0.7"),  # opened from outside
    ("tcp", "10.0.0.6", "198.51.100.7"),
    ("tcp", "fd00::9", "2001:db8::1"),
    ("udp", "fd00::8", "2001:db8::1"),
    ("tcp", "fd00::8", "2001:db8::2"),
]


@pytest.fixture
def inside(inside: Callable[[Callable[[], Any]], Any]) -> Callable[[Callable[[], Any]], Any]:
    """As for other tests; and they need another tool than ours."""
    reason = missing({"conntrack": "conntrack"})
    if reason:
        pytest.skip(reason)
    return inside


def insert() -> None:
    """Flows without traffic, by another tool than ours."""
    for number, (proto, source, destination) in enumerate(FLOWS):
        command = ["conntrack", "-I", "-p", proto, "-s", source, "-d", destination, "--sport", str(40_000 + number)]
        command += ["--dport", "443", "-t", "600", *(["--state", "ESTABLISHED"] if proto == "tcp" else [])]
        command += ["-u", "ASSURED"]
        subprocess.run(command, check=True, capture_output=True)


def left() -> set[tuple[str, str, str]]:
    """The flows that are there, as the other tool tells them."""
    found = set()
    for family in ("ipv4", "ipv6"):
        listed = subprocess.run(["conntrack", "-L", "-f", family], check=True, capture_output=True, text=True).stdout
        for line in listed.splitlines():
            fields = dict(reversed([word.split("=", 1) for word in line.split() if "=" in word]))
            found.add((line.split()[0], fields["src"], fields["dst"]))
    return found


GONE = [
    ([Target("address", "192.0.2.1")], {0, 2, 3}),
    ([Target("address", "2001:db8::1")], {5, 6}),
    ([Target("pair", "10.0.0.9>192.0.2.1")], {0}),
    ([Target("pair", "10.0.0.7>192.0.2.1")], {3}),
    ([Target("pair", "fd00::8>2001:db8::2")], {7}),
    ([Target("network", "192.0.2.0/30")], {0, 1, 2, 3}),
    ([Target("network", "2001:db8::/127")], {5, 6}),
    ([Target("client", "10.0.0.9")], {0, 1}),
    ([Target("client", "fd00::8")], {6, 7}),
    ([Target("segment", "10.0.0.0/24")], {0, 1, 2, 3}),  # the flow to the remedy stays
    ([Target("segment", "fd00::/64"), Target("address", "192.0.2.2")], {1, 5, 6, 7}),
    ([Target("address", f"203.0.113.{n}") for n in range(50)] + [Target("address", "192.0.2.2")], {1}),
    ([Target("address", "203.0.113.9")], set()),
    ([Target("host", "evil.example")], set()),
    ([], set()),
]


def test_a_block_forgets_its_flows_and_no_others(inside: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        flows = Conntrack()
        remedy = NetworkTable((*network, "") for network in networks("198.51.100.7"))
        for targets, gone in GONE:
            insert()
            assert left() == set(FLOWS)
            assert flows.kill(targets, remedy) == len(gone), targets
            assert left() == {flow for number, flow in enumerate(FLOWS) if number not in gone}, targets
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)

    inside(body)


def test_without_the_kernels_filter_it_is_the_same(inside: Callable[[Callable[[], Any]], Any]) -> None:
    """A kernel before 5.8 hands out everything."""

    def body() -> None:
        conntrack._FILTER = 0  # type: ignore[misc]
        flows = Conntrack()
        honest = flows._dump
        flows._dump = lambda body: honest(body[:4])  # type: ignore[method-assign]
        insert()
        assert flows.kill([Target("address", "192.0.2.1")]) == 3
        assert left() == {flow for number, flow in enumerate(FLOWS) if number not in {0, 2, 3}}

    inside(body)


def test_a_flow_that_ends_meanwhile_is_no_failure(inside: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        flows = Conntrack()
        insert()
        bodies = flows._everything()
        subprocess.run(["conntrack", "-F"], check=True, capture_output=True)
        flows._everything = lambda: bodies  # type: ignore[method-assign]
        assert flows.kill([Target("client", "10.0.0.9")]) == 0

    inside(body)


def test_flows_are_told(inside: Callable[[Callable[[], Any]], Any]) -> None:
    def body() -> None:
        insert()
        found = Conntrack().count_flows(networks("10.0.0.0/24", "fd00::9"))
        assert len(found) == 6
        one = next(flow for flow in found if flow.source_port == 40_001)
        assert (one.proto, one.destination_port) == (UDP, 443)
        assert {flow.proto for flow in found} == {TCP, UDP}
        assert {flow.is_open for flow in found if flow.proto == TCP} == {True}

    inside(body)


@pytest.mark.parametrize(
    ("proto", "state", "port", "is_open"),
    [
        ("tcp", "ESTABLISHED", 443, True), ("tcp", "SYN_SENT", 443, False), ("tcp", "TIME_WAIT", 443, False),
        ("tcp", "CLOSE", 443, False), ("udp", "", 443, True), ("udp", "", 53, False),
    ],
)  # fmt: skip
def test_what_is_open_is_told_from_what_is_over(
    inside: Callable[[Callable[[], Any]], Any], proto: str, state: str, port: int, is_open: bool
) -> None:
    def body() -> None:
        command = ["conntrack", "-I", "-p", proto, "-s", "10.0.0.9", "-d", "192.0.2.1", "--sport", "40000"]
        command += ["--dport", str(port), "-t", "600", *(["--state", state] if state else []), "-u", "SEEN_REPLY"]
        subprocess.run(command, check=True, capture_output=True)
        (found,) = Conntrack().count_flows(networks("10.0.0.0/24"))
        assert found.is_open is is_open

    inside(body)


def test_killing_among_many_flows(inside: Callable[[Callable[[], Any]], Any]) -> None:
    """20,000 flows: the kernel chooses for one address, we choose for many."""

    def body() -> None:
        text = "".join(
            f"-I -p udp -s 10.1.{n // 250}.{n % 250 + 1} -d 192.0.{m}.9 --sport 1000 --dport 53 -t 600\n"
            for n, m in itertools.product(range(2000), range(10))
        )
        subprocess.run(["conntrack", "-R", "-"], input=text, text=True, check=True, capture_output=True)
        flows = Conntrack()
        for targets in (
            [Target("address", "192.0.3.9")],
            [Target("address", f"192.0.{m}.9") for m in range(4, 10)],
        ):
            began = time.perf_counter()
            killed = flows.kill(targets)
            print(f"{killed} of 20000 flows of {len(targets)} addresses: {1000 * (time.perf_counter() - began):.0f} ms")
            assert killed == 2000 * len(targets)

    inside(body)
