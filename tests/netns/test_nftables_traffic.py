"""What the kernel lets through and what it does not, with our table beside a host's ruleset that accepts what is
established and hides the LAN."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from egressd.enforce.ruleset import DROP, RulesetSettings
from tests.enforce.namespace import (
    CLIENT4,
    CLIENT6,
    GATEWAY4,
    GATEWAY6,
    OTHER4,
    OTHER6,
    REMEDY4,
    REMEDY6,
    SAFE4,
    SAFE6,
    SERVER4,
    SERVER6,
    Lab,
    lab,
    listing,
    need_namespaces,
)
from tests.enforce.rules import PROTECTED, networks, protected, rule
from tests.enforce.rules import ground as configured
from tests.enforce.traffic import ask, connect, echo, flood, operate, settle, talk
from tests.netns.spaces import Running

pytestmark = pytest.mark.root

BLOCKS = [
    ("address", {4: SERVER4, 6: SERVER6}),
    ("network", {4: "192.0.2.8/30", 6: "2001:db8:f::10/127"}),
    ("pair", {4: f"{CLIENT4}>{SERVER4}", 6: f"{CLIENT6}>{SERVER6}"}),
    ("client", {4: CLIENT4, 6: CLIENT6}),
    ("segment", {4: "10.0.0.0/24", 6: "fd00:0:0:1::/64"}),
]
PREFIXES = {"address": "b", "network": "n", "pair": "p", "client": "q", "segment": "c"}


@pytest.fixture(scope="module")
def ground() -> Iterator[Lab]:
    need_namespaces()
    with lab() as made, made.wan.start(echo) as outside, made.gateway.start(echo) as local:
        assert outside.receive() == local.receive() == "ready"
        made.gateway.run("nft", "add rule inet host passing accept")  # the outside may open connections: ours must not
        for server in (SERVER4, SERVER6):
            assert any(made.lan.call(connect, server)[0] == "open" for _ in range(10)), server  # neighbours are found
        yield made


@contextlib.contextmanager
def operator(made: Lab, ruleset: RulesetSettings | None = None) -> Iterator[Running]:
    with made.gateway.start(operate, None, ruleset) as running:
        assert running.receive() == "ready"
        try:
            yield running
        finally:
            made.gateway.run("nft", "delete", "table", "inet", "egressd", check=False)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("kind", "values"), BLOCKS, ids=[kind for kind, _ in BLOCKS])
def test_a_block_refuses_at_once_and_lifting_it_lets_through(
    ground: Lab, kind: str, values: dict[int, str], version: int
) -> None:
    server = {4: SERVER4, 6: SERVER6}[version]
    with operator(ground) as running:
        assert ground.lan.call(connect, server)[0] == ground.lan.call(ask, server) == "open"
        settle(running, rule(kind, values[version]))
        outcome, took_s = ground.lan.call(connect, server)
        assert outcome == "refused"
        assert took_s < 0.5
        assert ground.lan.call(ask, server) in ("prohibited", "refused")
        settle(running)
        assert ground.lan.call(connect, server)[0] == ground.lan.call(ask, server) == "open"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("kind", "values"), BLOCKS, ids=[kind for kind, _ in BLOCKS])
def test_an_established_flow_dies_within_a_second(ground: Lab, kind: str, values: dict[int, str], version: int) -> None:
    server = {4: SERVER4, 6: SERVER6}[version]
    with operator(ground) as running, ground.lan.start(talk, server) as client:
        assert client.receive() == "talking"
        done = settle(running, rule(kind, values[version]))
        heard = client.result()
        print(f"{kind} v{version}: last echo {1000 * (heard - done):+.1f} ms from the end of apply")
        assert 0 < heard < done + 1.0
        assert running.ask("stats")["flows_cut"] >= 1
        here = {4: CLIENT4, 6: CLIENT6}[version]
        assert [flow for flow in running.ask("flows", networks(here)) if flow.proto == socket.IPPROTO_TCP] == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["address", "network"])
def test_a_block_for_everybody_leaves_unarmed_machines_alone_and_a_pair_does_not(
    ground: Lab, kind: str, version: int
) -> None:
    """Segments under a weaker mode: neither new connections nor those that stand are touched."""
    server, client = {4: (SERVER4, CLIENT4), 6: (SERVER6, CLIENT6)}[version]
    blocked = rule(kind, {"address": {4: SERVER4, 6: SERVER6}, "network": BLOCKS[1][1]}[kind][version])
    armed = configured()
    whole = networks("0.0.0.0/0", "::/0")  # all but one segment, of which there is none in this family
    mine = networks("10.0.0.0/24", "fd00:0:0:1::/64")
    with operator(ground) as running:
        for unarmed in (mine, whole):
            running.ask("set_ground", armed._replace(unarmed=unarmed))
            with ground.lan.start(talk, server) as talking:
                assert talking.receive() == "talking"
                before = running.ask("stats")["flows_cut"]
                settle(running, blocked)
                assert ground.lan.call(connect, server)[0] == "open"
                assert running.ask("stats")["flows_cut"] == before
                settle(running, blocked, rule("pair", f"{client}>{server}"))
                assert ground.lan.call(connect, server)[0] == "refused"
                talking.result()
            settle(running)
        running.ask("set_ground", armed)
        settle(running, blocked)
        assert ground.lan.call(connect, server)[0] == "refused"


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_not_blocked_is_not_touched(ground: Lab, version: int) -> None:
    other = {4: OTHER4, 6: OTHER6}[version]
    with operator(ground) as running, ground.lan.start(talk, other) as client:
        assert client.receive() == "talking"
        settle(
            running,
            rule("address", {4: SERVER4, 6: SERVER6}[version]),
            rule("pair", {4: f"10.0.0.8>{OTHER4}", 6: f"fd00:0:0:1::8>{OTHER6}"}[version]),
            rule("client", {4: "10.0.0.8", 6: "fd00:0:0:1::8"}[version]),
        )
        assert ground.lan.call(connect, other)[0] == "open"
        client.channel.send("enough")
        assert client.result() == -1.0


@pytest.mark.parametrize("version", [4, 6])
def test_protected_passes_although_somebody_put_it_into_the_set(ground: Lab, version: int) -> None:
    """The third check: the kernel's first rule."""
    safe = {4: SAFE4, 6: SAFE6}[version]
    client = {4: CLIENT4, 6: CLIENT6}[version]
    with operator(ground):
        for element in (f"blocked{version} {{ {safe} }}", f"pair{version} {{ {client} . {safe} }}"):
            ground.gateway.run("nft", f"add element inet egressd {element}")
        ground.gateway.run("nft", f"add element inet egressd blockednet{version} {{ {safe} }}")
        assert ground.lan.call(connect, safe)[0] == ground.lan.call(ask, safe) == "open"
        assert ground.gateway.call(connect, safe)[0] == "open"


@pytest.mark.parametrize("version", [4, 6])
def test_the_gateways_own_connections_are_stopped_too(ground: Lab, version: int) -> None:
    server = {4: SERVER4, 6: SERVER6}[version]
    with operator(ground) as running:
        assert ground.gateway.call(connect, server)[0] == "open"
        settle(running, rule("address", server))
        outcome, took_s = ground.gateway.call(connect, server)
        assert outcome == "refused"
        assert took_s < 0.5


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["client", "segment"])
def test_the_isolated_reach_remedies_and_the_gateways_names_only(ground: Lab, kind: str, version: int) -> None:
    values = dict(BLOCKS)[kind]
    remedy = {4: REMEDY4, 6: REMEDY6}[version]
    gateway = {4: GATEWAY4, 6: GATEWAY6}[version]
    client = {4: CLIENT4, 6: CLIENT6}[version]
    with operator(ground) as running:
        settle(running, rule(kind, values[version]))
        assert ground.lan.call(connect, remedy)[0] == ground.lan.call(ask, remedy) == "open"
        assert ground.lan.call(connect, gateway)[0] == "refused"  # a proxy on the gateway would be a way out
        with ground.gateway.start(echo, 53) as resolver:
            assert resolver.receive() == "ready"
            assert ground.lan.call(ask, gateway, 1.0, 53) == "open"
        if version == 6:  # the LAN is not hidden: the outside can try
            with ground.lan.start(echo) as inside:
                assert inside.receive() == "ready"
                assert ground.wan.call(connect, client, 0.5)[0] == "silence"
                settle(running)
                assert ground.wan.call(connect, client)[0] == "open"


def test_dropping_instead_of_refusing(ground: Lab) -> None:
    with operator(ground, RulesetSettings(action=DROP)) as running:
        settle(running, rule("address", SERVER4), rule("address", SERVER6))
        assert ground.lan.call(connect, SERVER4, 0.5)[0] == "silence"
        assert ground.lan.call(connect, SERVER6, 0.5)[0] == "silence"


def test_counters_count_attempts_exactly(ground: Lab) -> None:
    with operator(ground) as running:
        one, other = rule("address", SERVER4), rule("pair", f"{CLIENT6}>{SERVER6}")
        settle(running, one, other)
        for _ in range(25):
            assert ground.lan.call(connect, SERVER4)[0] == "refused"
        for _ in range(5):
            ground.lan.call(connect, SERVER6)
        counted = running.ask("read_counters", [one.target, other.target])
        assert counted[one.target].packets == 25
        assert counted[other.target].packets == 5
        shown = listing(ground.gateway)["blocked4"][SERVER4]
        assert (shown["counter"]["packets"], shown["comment"]) == (25, "D1")
        again = one._replace(expires_us=0)
        settle(running, again, other)
        assert running.ask("read_counters", [one.target])[one.target].packets == 25


@pytest.mark.parametrize("version", [4, 6])
def test_nothing_slips_through_while_rules_and_elements_are_replaced(ground: Lab, version: int) -> None:
    server = {4: SERVER4, 6: SERVER6}[version]
    with operator(ground) as running:
        settle(running, rule("address", server, "D0"))
        with ground.lan.start(flood, server) as client:
            assert client.receive() == "flooding"
            for number in range(1, 41):
                running.ask("reload")
                settle(running, rule("address", server, f"D{number}"))  # another decision: taken out and put in
                running.ask("set_protected", networks(*PROTECTED), protected())
            client.channel.send("enough")
            sent, echoes = client.result()
        print(f"v{version}: {sent} datagrams while everything was replaced 40 times, {echoes} came through")
        assert sent > 1000
        assert echoes == 0
