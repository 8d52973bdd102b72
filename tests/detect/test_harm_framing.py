"""What a host says, or whoever answers it, to have somebody else cut off. Each test tells the harm it prevents."""

from __future__ import annotations

import pytest

from egressd.capture.surroundings import Surroundings
from egressd.detect.policy_settings import PolicySettings
from egressd.model import DNS_ANSWER, DNS_QUERY, UDP
from egressd.wire.sender import Sender
from tests.detect.live_scene import ENFORCE, LiveScene, protecting
from tests.detect.scene import PROTECTED, RESOLVER, A, B, C, Scene, X, Y, flow, message, packed, record
from tests.detect.test_harm_shared import BLOCK, C2, held

GOOD = "www.good.example"
OTHER = "10.0.0.53"  # a resolver inside, which asks for everybody
FORGED = "203.0.113.99"
RESOLVER6 = "2001:db8:53::53"


# -- names that a host sends


def test_a_forged_server_name() -> None:
    """A host says a listed name in its handshake with an innocent server, so that everybody is cut off from there.

    A name is an accusation: only that host's way there closes."""
    scene = Scene(enforced=True)
    scene.tls(0, A, X, C2)
    scene.tls(1, B, X, GOOD)
    assert scene.said() == [BLOCK, ("extend", "pair", f"pair {A}>{X}")]
    assert scene.engine.blocks.covering(packed(B), packed(X)) is None
    assert scene.counts(B) == (0, 0)


def test_a_forged_host_field() -> None:
    """A host sends a request with a listed Host to an innocent server.

    As with a forged server name: only its own way there closes."""
    scene = Scene()
    scene.http(0, A, X, C2)
    scene.flow(1, B, X, dport=80)
    assert scene.said() == [BLOCK, ("extend", "pair", f"pair {A}>{X}")]
    assert scene.attempts == [] and scene.counts(B) == (0, 0)


def test_many_hosts_together_frame_a_server() -> None:
    """A worm makes every host say a listed name to one innocent server: pair by pair everybody would lose it.

    A block has a budget of pairs, and each closes one host's own way only; the address is never blocked."""
    scene = Scene()
    for number in range(1_000):
        scene.tls(number / 10, f"10.0.{number >> 8}.{number & 255}", X, C2)
    assert held(scene)[0] == [] and len(held(scene)[1]) == 256
    assert scene.rules("refuse") == ["budget"]


OURS6 = "2001:db8:2::80"  # a web server of ours that everybody may reach
LAN6 = ENFORCE._replace(lan=((packed("2001:db8:2::"), 64, ""),))


def test_outsiders_say_a_listed_name_to_a_server_of_ours() -> None:
    """Whoever runs the listed site sends requests with its name to a web server of ours, from as many addresses as he
    likes: they would be infected hosts, and the block be taken back because so many ran into it.

    What comes from outside to a server of ours is no way out: it is left aside, and counted. By packets' ways, or, in a
    replay and on a mirror port, by addresses."""
    scene = LiveScene(settings=LAN6)
    scene.from_inside(True)
    scene.tls(0, A, X, C2)
    scene.from_inside(False)
    for number in range(1, 40):
        scene.http(number, f"2001:db8:f::{number}", OURS6, C2)
        scene.http(number, f"203.0.113.{number}", "10.0.0.80", C2)
        scene.question(number, f"203.0.113.{number}", C2, server="192.168.0.53")
    assert scene.said() == [BLOCK, ("extend", "pair", f"pair {A}>{X}")]
    assert len(scene.opened) == 1 and scene.attempts == []
    assert scene.engine.counts()["contacts_from_outside"] == 117


def test_an_innocent_server_name_on_a_listed_connection() -> None:
    """Domain fronting: a host that resolved a listed name says an innocent one in its handshake, and the address would
    be given free for it.

    Its own resolution speaks against it: no tenant is learned, the address stays blocked."""
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.flow(1, A, X)
    scene.tls(1.1, A, X, GOOD)
    assert held(scene) == ([X], [])
    assert scene.said("withdraw") == []
    assert scene.counts(A) == (2, 1)


def test_host_and_server_name_disagree() -> None:
    """The server name is innocent and the Host behind it, where it can be read, is listed; or the other way round.

    Every name is matched: it is a sighting by the listed one, and nobody but that host is kept from the server."""
    scene = Scene()
    scene.tls(0, A, X, GOOD)
    scene.http(1, A, X, C2)
    scene.http(2, B, Y, GOOD, header_host=C2)
    assert [one.name for one in scene.sightings] == [C2, C2]
    assert held(scene)[0] == []
    assert [client for client, _ in held(scene)[1]] == [A, B]
    assert scene.engine.blocks.covering(packed(C), packed(X)) is None


def test_a_listed_address_as_host_of_an_innocent_server() -> None:
    """A host writes a listed address into the Host field of a request to somebody else.

    The server has nothing to do with it: the listed address is blocked, the server is not."""
    scene = Scene(f"{X}\n")
    scene.http(0, A, Y, "", raw_host=X)
    assert scene.said() == [("block", "level-address", f"address {X}")]
    assert held(scene) == ([X], [])


# -- answers


@pytest.mark.parametrize(
    ("txid", "sport", "server", "name"),
    [
        (8, 50_000, RESOLVER, C2),  # another transaction
        (7, 50_001, RESOLVER, C2),  # another port
        (7, 50_000, "203.0.113.53", C2),  # a server that was not asked
        (7, 50_000, RESOLVER, "other.bad.example"),  # another name
    ],
)
def test_an_answer_that_nobody_asked_for(txid: int, sport: int, server: str, name: str) -> None:
    """Somebody sends answers in a resolver's name that tie an innocent address to a listed name.

    Only an answer to an outstanding question counts, by host, port, server, transaction and name."""
    scene = Scene()
    scene.question(0, A, C2, txid=7)
    scene.answer(0.01, A, name, record(name, FORGED), txid=txid, sport=sport, server=server)
    scene.flow(1, A, FORGED)
    assert scene.said() == [BLOCK]
    assert held(scene) == ([], []) and scene.engine.unasked_answers == 1


def test_a_second_answer_after_the_true_one() -> None:
    """A forger who sees the question answers it too, a moment later.

    A question is answered once; what comes after is counted as unasked."""
    scene = Scene()
    scene.question(0, A, C2, txid=7)
    scene.answer(0.01, A, C2, record(C2, X), txid=7)
    scene.answer(0.02, A, C2, record(C2, FORGED), txid=7)
    assert held(scene) == ([X], [])


def test_a_late_answer() -> None:
    """An answer that comes when nobody waits any more may be anybody's.

    Ten seconds after the question it proves nothing."""
    scene = Scene()
    scene.question(0, A, C2, txid=7)
    scene.answer(10.5, A, C2, record(C2, FORGED), txid=7)
    assert held(scene) == ([], [])


def test_records_of_another_owner() -> None:
    """A true answer carries a record of somebody else's name, so that its address is taken for the listed one's.

    Only what the name asked about leads to is said about it."""
    scene = Scene()
    scene.question(0, A, C2, txid=7)
    scene.answer(0.01, A, C2, record(GOOD, FORGED), record(C2, X), txid=7)
    assert held(scene) == ([X], [])
    assert scene.engine.resolutions.co_tenants(packed(FORGED), frozenset(), 0) == []


def test_a_host_asks_a_server_of_its_own() -> None:
    """A host asks its own name server, which ties innocent addresses to a listed name.

    Only the configured resolvers are believed for everybody; what others answer closes that host's way alone."""
    scene = LiveScene()
    scene.resolve(0, A, C2, FORGED, server="203.0.113.53")
    assert scene.said() == [BLOCK, ("extend", "pair", f"pair {A}>{FORGED}")]
    assert scene.engine.blocks.covering(packed(B), packed(FORGED)) is None


def test_a_host_answers_under_the_resolvers_address() -> None:
    """A host on the inside sends packets with the resolver's address as their source, right in every field.

    What comes in from the hosts' side is no resolver's: it ties nothing for everybody."""
    scene = LiveScene()
    scene.from_inside(False)
    scene.question(0, A, C2, txid=7)
    scene.from_inside(True)
    scene.answer(0.01, A, C2, record(C2, FORGED), txid=7)
    assert held(scene)[0] == []


def test_an_answer_from_another_port_of_the_resolver() -> None:
    """A program on the resolver's machine, or a forger who guesses less well, answers from another port than 53.

    It is no resolver: its answer ties nothing for everybody."""
    scene = LiveScene()
    key = flow(A, RESOLVER, 50_000, 5_353, UDP)
    scene.see(DNS_QUERY, 0, key, C2, message(C2, 7, (), False))
    scene.see(DNS_ANSWER, 0.01, key, C2, message(C2, 7, [record(C2, FORGED)]))
    assert held(scene)[0] == []


def test_enforcing_without_known_resolvers() -> None:
    """In mode enforce any server's answer would count where no resolver is configured.

    Then none counts for everybody, until resolvers are known."""
    scene = LiveScene(settings=PolicySettings(mode="enforce"))
    scene.resolve(0, A, C2, X)
    assert held(scene) == ([], [(A, X)])


# -- answers that aim


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.53", "resolver"), ("192.0.2.1", "gateway"), ("10.0.0.7", "private"), ("127.0.0.1", "loopback"),
        ("::ffff:192.0.2.53", "resolver"), ("64:ff9b::c000:235", "resolver"), ("2002:c000:201::1", "gateway"),
        ("2001:0:c000:201::1", "gateway"), ("2001:0:1:1:0:0:3fff:fdca", "resolver"), ("203.0.113.123", "time server"),
        ("203.0.113.25", "our server"),
    ],
)  # fmt: skip
def test_an_answer_points_at_what_everybody_needs(address: str, why: str) -> None:
    """Whoever owns a listed name answers with our resolver, gateway, time server or own server (Russia 2017), also
    wrapped in IPv6: everybody would be cut off from it.

    Protected addresses are refused in every form, with the reason; the name stays blocked."""
    entries = (("192.0.2.53", "own resolver"), ("203.0.113.123", "time server"), ("203.0.113.25", "our server"))
    scene = LiveScene()
    scene.engine.protect(protecting(*entries), 0)
    scene.resolve(0, A, C2, address)
    scene.tls(1, A, address, C2)
    assert scene.rules("refuse") == ["protected"] and why in scene.decisions[-1].reason
    assert held(scene) == ([], [])
    assert scene.blocks == ["registered_domain bad.example"]


def test_an_answer_points_at_what_only_the_gateway_knows() -> None:
    """Whoever owns a listed name answers with the other end of the line to headquarters, or with the provider's
    resolver, which the gateway's own asks: neither stands in any list, and without it the office is offline.

    The gateway's own tunnels, and whom its resolver asks, are read from the kernel and from files, and protected."""
    around = Surroundings([], [], [], [], [], [], [packed("203.0.113.44")], [packed("203.0.113.53")])
    scene = LiveScene()
    known = [(address, 8 * len(address), why) for address, why in around.protected()]
    scene.engine.protect(PROTECTED.plus(known), 0)
    scene.resolve(0, A, C2, "203.0.113.44", "203.0.113.53", X)
    assert scene.rules("refuse") == ["protected"] * 2
    assert held(scene) == ([X], [])


def test_an_answer_points_at_a_machine_inside() -> None:
    """A listed name answers with the public address of a server inside, IPv6 mostly: it would be cut off from every
    other segment, and from outside.

    Networks of our hosts (interfaces that face them, routers behind these, segments) are protected as private ones."""
    settings = ENFORCE._replace(
        segments=((packed("2001:db8:5::"), 64, "servers"),), lan=((packed("2001:db8:6::"), 64, ""),)
    )
    scene = LiveScene(settings=settings)
    scene.engine.protect(PROTECTED.plus(settings.of_our_hosts()), 0)
    scene.resolve(0, A, C2, "2001:db8:5::7", "2001:db8:6::7", "2001:db8:f::7")
    assert scene.rules("refuse") == ["protected"] * 2
    assert held(scene) == (["2001:db8:f::7"], [])


def test_a_listed_name_is_bound_to_an_inside_address() -> None:
    """DNS rebinding: a listed name answers with an address of our own network, then with its own.

    The inside address is refused, the outside one blocked."""
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.resolve(5, A, C2, "10.0.0.7")
    assert scene.said() == [BLOCK, ("extend", "address", f"address {X}"), ("refuse", "protected", "address 10.0.0.7")]
    assert held(scene) == ([X], [])


# -- hosts that stand for others


def test_a_forwarder_inside_asks_for_everybody() -> None:
    """A resolver on the inside asks for a listed name because some host did, and is itself taken for infected: were it
    cut off from an address, all hosts would be; an attacker answers with the name server that it needs.

    It is an incident, for somebody asked; but no pair is made of a resolver, whoever answers it."""
    known = frozenset((packed(RESOLVER), packed(OTHER)))
    scene = LiveScene(settings=ENFORCE._replace(resolvers=known))
    scene.resolve(0, OTHER, C2, "203.0.113.53", server="203.0.113.1")  # an authoritative server, which lies
    scene.tls(1, OTHER, Y, C2)
    assert scene.said() == [BLOCK]
    assert held(scene) == ([], [])
    assert [one.client for one in scene.incidents] == [packed(OTHER)]
    scene.resolve(2, B, C2, X, server=OTHER)  # what it tells hosts is still evidence
    assert held(scene) == ([X], [])


def test_a_proxy_is_asked_for_a_listed_name() -> None:
    """Hosts behind a web proxy name a listed site to it: a pair would cut that host off from the proxy, and so from
    everything.

    Names asked of a proxy say nothing of its address: CONNECT, a whole URL, SOCKS, and what follows in the tunnel."""
    proxy = "203.0.113.80"
    scene = Scene()
    scene.flow(0, A, proxy, 40_000, 3128)
    scene.http(0.1, A, proxy, C2, f"{C2}:443", method="CONNECT", dport=3128)
    scene.see("tls_sni", 0.2, flow(A, proxy, 40_000, 3128), C2, note="proxied")
    scene.http(1, B, proxy, C2, f"http://{C2}/gate", sport=41_000, dport=3128)
    scene.socks(2, C, proxy, C2, 42_000)
    assert scene.said() == [BLOCK]
    assert held(scene) == ([], [])
    assert {one.client for one in scene.incidents} == {packed(A), packed(B), packed(C)}


def test_a_proxy_lives_at_a_public_address_where_others_connect() -> None:
    """Innocent names asked of a proxy would count as tenants of its address, and a listed proxy go free.

    They do not: only names of direct connections are tenants."""
    scene = Scene(f"{X}\n")
    scene.flow(0, A, X, 40_000, 3128)
    for number in range(5):
        site = f"www.site{number}.example"
        scene.http(1 + number, A, X, site, f"http://{site}/", sport=40_000, dport=3128)
    assert scene.said() == [("block", "level-address", f"address {X}")]
    assert held(scene) == ([X], [])


# -- floods that make us forget


def test_a_host_makes_us_forget_who_lives_where() -> None:
    """A host looks up names with thousands of addresses, until nobody knows any more who lives on a shared address, and
    then the listed name that points there.

    One host fills no more than its share of what is remembered: the innocent sites are still known."""
    scene = Scene()
    for number, site in enumerate(("florist", "library", "school")):
        scene.resolve(number, B, f"www.{site}.example", X)
    for number in range(700):
        flood = [f"45.{number >> 8}.{number & 255}.{low}" for low in range(250)]
        scene.resolve(10 + number / 10, A, f"x{number}.flood{number}.example", *flood)
    scene.resolve(100, A, C2, X)
    assert scene.said() == [BLOCK, ("refuse", "shared", f"address {X}")]
    assert held(scene) == ([], [])


def test_a_host_of_many_addresses_makes_us_forget_who_lives_where() -> None:
    """A host takes thousands of IPv6 addresses, which its network lets it do, and has a share of what is remembered for
    each of them.

    They are one host by its MAC, and have one share."""
    scene = LiveScene(settings=ENFORCE._replace(resolvers=frozenset((packed(RESOLVER), packed(RESOLVER6)))))
    mac = bytes.fromhex("020000000001")
    scene.engine.sender_of = lambda client: Sender(mac, is_attached=True) if len(client) == 16 else None
    for number, site in enumerate(("florist", "library", "school")):
        scene.resolve(number, B, f"www.{site}.example", X)
    for number in range(4_000):
        flood = [f"45.{number >> 8}.{number & 255}.{low}" for low in range(14)]
        client = f"2001:db8::{number + 1:x}"
        scene.resolve(10 + number / 100, client, f"x{number}.flood{number}.example", *flood, server=RESOLVER6)
    scene.resolve(100, A, C2, X)
    assert scene.said() == [BLOCK, ("refuse", "shared", f"address {X}")]


def test_a_host_makes_us_forget_what_others_asked() -> None:
    """A host asks faster than anybody answers, until another host's question is forgotten: the answer to it would prove
    nothing, and its listed address stay open.

    One host holds no more than its share of the outstanding questions."""
    scene = Scene()
    scene.question(0, B, C2, txid=7, sport=51_000)
    for number in range(60_000):
        scene.question(0.1 + number / 1e6, A, f"x{number}.flood.example", txid=number & 0xFFFF, sport=number % 50_000)
    scene.answer(0.9, B, C2, record(C2, X), txid=7, sport=51_000)
    assert held(scene) == ([X], [])


# -- decoys that use up what others get


def test_a_host_uses_up_the_blocks_of_the_hour() -> None:
    """A host looks up hundreds of listed names within a moment, and what others contact is open for the rest of the
    hour; so is what it contacts itself.

    It causes a quarter of the hour's blocks at most; what is more keeps that host alone from where it goes."""
    scene = Scene("\n".join(f"bad{number}.example" for number in range(240)), settings=ENFORCE)
    for number in range(230):
        scene.resolve(number / 100, A, f"c2.bad{number}.example", f"45.10.0.{number}")
    addresses, pairs = held(scene)
    assert len(addresses) == 50 and len(pairs) == 180
    assert scene.said("alert") == [] and scene.engine.counts()["blocks_over_share"] == 180
    scene.resolve(10, B, "c2.bad239.example", X)
    assert scene.engine.blocks.covering(packed(C), packed(X)) is not None


def test_another_host_meets_what_one_is_kept_from() -> None:
    """A host asks for a name on purpose once its share is used up, so that it is never blocked for anybody else.

    The second machine that meets it makes it a block for everybody; a resolver, which repeats what it was asked, and
    another address of the same machine do not."""
    scene = Scene("bad.example\nworse.example", settings=ENFORCE._replace(blocks_per_hour=4))
    scene.resolve(0, A, C2, X)
    scene.resolve(1, A, "c2.worse.example", Y)
    assert held(scene) == ([X], [(A, Y)])
    scene.question(2, RESOLVER, "c2.worse.example")
    assert scene.said("block")[-1] == ("block", "share:level-host", "registered_domain worse.example")
    scene.resolve(3, B, "c2.worse.example", Y)
    assert scene.said("block")[-1] == ("block", "level-host", "registered_domain worse.example")
    assert scene.decisions[-2].reason.endswith("; a second machine met it")
    assert held(scene) == ([X, Y], [(A, Y)])


def test_a_host_takes_another_address_to_be_two() -> None:
    """A host has as many addresses as it likes, and a share of the blocks for each.

    Addresses of one MAC have one share, and are no second machine to one another."""
    scene = Scene("bad.example\nworse.example", settings=ENFORCE._replace(blocks_per_hour=4))
    scene.engine.sender_of = lambda _: Sender(b"\x02\x00\x00\x00\x00\x05", True)
    scene.resolve(0, A, C2, X)
    scene.resolve(1, B, "c2.worse.example", Y)
    scene.resolve(2, C, "c2.worse.example", Y)
    assert held(scene) == ([X], [(B, Y), (C, Y)])


def test_a_listed_address_that_one_host_is_kept_from_is_taken_out() -> None:
    """What keeps one host alone from a listed address would outlive the line.

    It ends with the line, or when the address turns out to be in a shared range."""
    lists = f"bad.example\n{X}\n{Y}"
    scene = LiveScene(lists, settings=ENFORCE._replace(blocks_per_hour=4))
    scene.resolve(0, A, C2, "203.0.113.7")
    scene.flow(1, A, X)
    scene.flow(2, A, Y, 40_001)
    assert held(scene)[1] == [(A, X), (A, Y)]
    scene.swap(10, f"bad.example\n{Y}")
    assert scene.said("withdraw") == [("withdraw", "unlisted", f"pair {A}>{X}")] and held(scene)[1] == [(A, Y)]
    scene.swap(20, f"bad.example\n{Y}", ranges=f"{Y}/32 operator=CDN")
    assert scene.said("withdraw")[-1] == ("withdraw", "shared", f"pair {A}>{Y}") and held(scene)[1] == []


def test_a_burst_of_machines_that_nobody_knew_takes_a_block_back() -> None:
    """Whoever can send under others' MACs passes for as many machines as he likes: fifty of them run into the block of
    his controller, so that it is taken back.

    Machines that were not there before the block count only as far as there are as many beside them that were, once
    the hosts have been watched for a week. A mistaken block that known hosts run into, new ones among them, is taken
    back as ever."""
    day_s = 86_400
    for known, new, is_back in ((1, 300, False), (20, 300, False), (51, 0, True), (26, 40, True)):
        scene = Scene(settings=ENFORCE._replace(rollback_clients=50, rollback_share=0))
        scene.flow(0, "10.7.0.1", Y)
        for number in range(known):
            scene.flow(6 * day_s + number, f"10.8.0.{number}", Y)
        for number in range(known):
            scene.question(7 * day_s + number, f"10.8.0.{number}", C2)
        for number in range(new):
            scene.question(7 * day_s + 100 + number / 10, f"10.9.{number >> 7}.{number & 127}", C2)
        assert [one.rule for one in scene.decisions if one.action == "ask"] == ["rollback"] * is_back
