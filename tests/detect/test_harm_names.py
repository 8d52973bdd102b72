"""Names that many people share, names that lead to others, and addresses in several forms. Each test tells the harm it
prevents."""

from __future__ import annotations

from dataclasses import replace

import pytest

from egressd.detect.engine import Engine
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.allowances import Allowances
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.intel.index import Index
from egressd.intel.protected import Protected
from egressd.model import Indicator
from tests.detect.live_scene import LiveScene
from tests.detect.scene import PROTECTED, RESOLVERS, SUFFIXES, A, B, Scene, X, Y, packed, record
from tests.detect.test_harm_shared import BLOCK, C2, held

GOOD = "www.good.example"


class Guarded(Scene):
    """A scene whose lists are read under the guard that a test gives."""

    def __init__(self, lists: str, guard: str = "", popular: str = "", own: tuple[str, ...] = ()) -> None:
        super().__init__()
        kept, problems = Guard.parse(guard, SUFFIXES, "guard.txt", popular=popular, popular_source="top.csv", own=own)
        found, more = parse_list(lists, "l.txt", SUFFIXES, kept)
        assert problems == more == []
        index = Index.build(found, SUFFIXES)
        intel = Intel(index, SUFFIXES, Allowances([]), PROTECTED, RESOLVERS)
        self.engine = Engine(intel, PolicySettings(), self.events.append)


def refused(line: str, protected: Protected = PROTECTED) -> tuple[list[Indicator], list[str]]:
    """What a list of one line gives, and what is told of it."""
    found, problems = parse_list(line, "l.txt", SUFFIXES, Guard.parse("", SUFFIXES)[0], protected=protected)
    return found, [str(problem) for problem in problems]


# -- names that many share


def test_a_tenant_of_a_shared_suffix() -> None:
    """One listed page of a host of pages (github.io, blogspot.com) would take the pages of everybody else with it.

    Under a suffix of the private section each tenant has its own registered domain: only the listed one is blocked."""
    scene = Scene("evil.hosted.example")
    scene.resolve(0, B, "other.hosted.example", X)
    scene.resolve(1, A, "x.evil.hosted.example", X)
    assert scene.said() == [
        ("block", "level-host", "registered_domain evil.hosted.example"), ("extend", "pair", f"pair {A}>{X}"),
    ]  # fmt: skip
    assert [one.name for one in scene.sightings] == ["x.evil.hosted.example"]


@pytest.mark.parametrize("suffix", ["com", "hosted.example", "*.hosted.example"])
def test_a_public_suffix_is_listed(suffix: str) -> None:
    """A line with a public suffix would block every site under it.

    It is an error with its place, and nothing of it is in force."""
    found, told = refused(suffix)
    assert found == [] and len(told) == 1
    assert told[0].startswith("l.txt:1:1: ") and "is a public suffix" in told[0]


def test_a_popular_site_is_once_in_a_feed() -> None:
    """A feed holds google.com for an hour (as in 2023), and everybody is cut off from it.

    A site of the popularity list that is listed whole alerts; a person must decide."""
    scene = Guarded("popular.example\n", popular="1,popular.example\n2,next.example\n")
    scene.resolve(0, A, "www.popular.example", X)
    assert scene.said() == [("alert", "guarded", "host popular.example")]
    assert "rank 1" in scene.decisions[0].reason


def test_a_name_of_a_popular_site_is_listed() -> None:
    """A listed file host under a popular site would take the whole site with it, as registered domains go.

    The block narrows to the listed name and below, and says why."""
    scene = Guarded("files.popular.example\n", popular="1,popular.example\n")
    scene.resolve(0, A, "www.popular.example", X)
    scene.resolve(1, A, "files.popular.example", Y)
    assert scene.said() == [
        ("block", "level-host", "host files.popular.example"), ("extend", "address", f"address {Y}"),
    ]  # fmt: skip
    assert "narrowed: popular.example is among the 10000 most popular names" in scene.decisions[0].reason


def test_a_name_of_dynamic_dns_is_listed() -> None:
    """One bad customer of a dynamic DNS service would take all its customers with him, where the suffix list does not
    know the service.

    The guard does: the block narrows to the listed name and below."""
    scene = Guarded("evil.dyn.example\n", guard="dyn.example category=ddns # a name for everybody\n")
    scene.resolve(0, A, "evil.dyn.example", X)
    scene.resolve(1, B, "camera.dyn.example", Y)
    assert scene.said() == [("block", "level-host", "host evil.dyn.example"), ("extend", "address", f"address {X}")]


def test_a_name_of_our_own_is_listed() -> None:
    """Somebody lists a machine of ours: the block of its registered domain would cut us off from ourselves.

    It narrows to the listed name; our domain listed whole only alerts."""
    scene = Guarded("hacked.ours.example\nours2.example\n", own=("ours.example", "ours2.example"))
    scene.resolve(0, A, "www.ours.example", X)
    scene.resolve(1, A, "hacked.ours.example", Y)
    scene.resolve(2, A, "www.ours2.example", X)
    assert scene.said() == [
        ("block", "level-host", "host hacked.ours.example"), ("extend", "address", f"address {Y}"),
        ("alert", "guarded", "host ours2.example"),
    ]  # fmt: skip


def test_an_address_of_our_own_is_listed() -> None:
    """A feed lists the public address of our own web server.

    As a protected address the line is an error; as part of a network it alerts, and nothing of it is blocked."""
    ours, _ = Protected.parse("", extra=[(X, "our web server")])
    found, told = refused(X, ours)
    assert found == [] and "our web server" in told[0]
    scene = LiveScene("198.51.100.0/24")
    scene.engine.protect(ours, 0)
    scene.flow(0, A, Y)
    assert scene.said() == [("alert", "protected", "network 198.51.100.0/24")]


@pytest.mark.parametrize("line", ["0.0.0.0/0", "128.0.0.0/1", "198.0.0.0/7", "2000::/3", "c2.bad.example:443"])
def test_a_line_that_can_only_be_a_slip(line: str) -> None:
    """A line that covers a continent, or a port that no block can tell from the others.

    It is an error with its place, and nothing of it is in force."""
    found, told = refused(line)
    assert found == [] and told[0].startswith("l.txt:1:")


def test_a_feed_that_is_not_sure() -> None:
    """A feed of guesses would block what it guesses.

    Under the confidence that blocks need its lines alert only."""
    scene = Scene("bad.example confidence=30")
    scene.resolve(0, A, C2, X)
    assert scene.said() == [("alert", "confidence", "registered_domain bad.example")]
    assert held(scene) == ([], []) and len(scene.incidents) == 1


def test_a_name_that_only_looks_alike() -> None:
    """A match by the letters at the end would block other people's names.

    Matching goes by labels: notbad.example and bad.example.good.example are others'."""
    scene = Scene()
    scene.resolve(0, A, "notbad.example", X)
    scene.resolve(1, A, "bad.example.good.example", X)
    assert scene.said() == [] and scene.sightings == []


# -- names that lead to others


def test_an_innocent_name_leads_to_a_listed_one() -> None:
    """An innocent site includes a listed one by CNAME, and is blocked for it.

    The listed name is what is blocked, and its address; the site that led there is not, and is no tenant either."""
    scene = Scene()
    scene.question(0, A, "t.good.example", txid=1)
    scene.answer(0.01, A, "t.good.example", record("t.good.example", C2), record(C2, X), txid=1)
    assert scene.said() == [BLOCK, ("extend", "address", f"address {X}")]
    scene.resolve(1, B, GOOD, Y)
    assert held(scene) == ([X], [])
    assert [one.name for one in scene.sightings] == [C2]


def test_a_popular_name_leads_to_a_listed_one_and_both_are_visited() -> None:
    """A popular site's name that leads to a listed one would be taken as an alias of it from then on.

    The popular name matches nothing itself; where it leads to elsewhere later, that address is not blocked."""
    scene = Scene()
    scene.question(0, A, GOOD, txid=1)
    scene.answer(0.01, A, GOOD, record(GOOD, C2), record(C2, X), txid=1)
    scene.resolve(10, B, GOOD, Y)
    assert held(scene) == ([X], [])
    assert [f"{one.kind} {one.value}" for one in scene.engine.blocks.by_target] == ["registered_domain bad.example"]


def test_a_listed_name_leads_to_an_innocent_network() -> None:
    """A listed name points by CNAME into a content delivery network: its servers' addresses would be blocked.

    The network's own name in the chain is a tenant there: only the host that asked is kept from the address."""
    scene = Scene()
    scene.question(0, A, C2, txid=1)
    edge = "e1.cdn-edge.example"
    scene.answer(0.01, A, C2, record(C2, edge), record(edge, X), txid=1)
    assert scene.said() == [BLOCK, ("extend", "pair", f"pair {A}>{X}")]
    assert "shared with cdn-edge.example" in scene.decisions[-1].reason


def test_a_listed_tree_is_renamed_by_dname() -> None:
    """A DNAME moves a whole tree under a listed name (RFC 6672), and what is asked there would slip by.

    The target of the DNAME is matched, and the address at the end of the chain is the listed name's."""
    scene = Scene()
    asked = "x.good.example"
    scene.question(0, A, asked, txid=1)
    moved = "x.bad.example"
    records = (record("good.example", "bad.example", 39), record(asked, moved), record(moved, X))
    scene.answer(0.01, A, asked, *records, txid=1)
    assert scene.said()[0][2] == "registered_domain bad.example"
    assert held(scene) == ([X], [])


def test_addresses_in_hints() -> None:
    """A browser connects to the hints of an HTTPS record (RFC 9460) without ever asking for an address.

    Hints count as addresses of the name; those that are protected are refused like any."""
    scene = Scene()
    scene.question(0, A, C2, txid=1)
    scene.answer(0.01, A, C2, record(C2, X, 65), record(C2, "10.0.0.7", 65), txid=1)
    assert scene.said() == [
        BLOCK, ("extend", "address", f"address {X}"), ("refuse", "protected", "address 10.0.0.7"),
    ]  # fmt: skip


def test_a_chain_in_a_circle() -> None:
    """CNAMEs that lead in a circle, or for ever, hold up the packet path.

    A chain is followed for sixteen names at most, each once."""
    scene = Scene()
    scene.question(0, A, C2, txid=1)
    records = [record(f"n{number}.bad.example", f"n{number + 1}.bad.example") for number in range(40)]
    scene.answer(0.01, A, C2, record(C2, "n0.bad.example"), *records, record("n3.bad.example", C2), txid=1)
    assert scene.said() == [BLOCK]


# -- sinkholes


@pytest.mark.parametrize("sink", ["0.0.0.0", "127.0.0.1", "::", "::1"])
def test_a_sinkholed_domain_of_no_address(sink: str) -> None:
    """A filtering resolver answers listed names with 0.0.0.0 or 127.0.0.1: a block of it hits every machine itself.

    Refused as protected; the host that asked is an incident all the same."""
    entries = [("0.0.0.0/8", "this network"), ("::/128", "nothing"), ("::1/128", "loopback")]
    protected, _ = Protected.parse("127.0.0.0/8 # loopback\n", extra=entries)
    scene = LiveScene()
    scene.engine.protect(protected, 0)
    scene.resolve(0, A, C2, sink)
    assert scene.rules("refuse") == ["protected"] and held(scene) == ([], [])
    assert len(scene.incidents) == 1


def test_a_known_sinkhole() -> None:
    """A domain that was taken over points at a research sinkhole, with the domains of many other campaigns: blocking it
    blinds those who count the infected, and ties the campaigns to one.

    `never-block` for its address keeps it open for all; the names are blocked, the campaigns stay apart."""
    scene = LiveScene("bad.example\nworse.example", f"never-block {X} owner=soc reason=sinkhole\n")
    scene.resolve(0, A, C2, X)
    scene.resolve(1, B, "c2.worse.example", X)
    assert scene.said("refuse") == [("refuse", "never-block", f"address {X}")] * 2
    assert held(scene) == ([], [])
    assert len(scene.engine.campaigns.campaigns) == 2


# -- addresses in several forms


def test_both_families_of_one_name() -> None:
    """A block of the IPv4 address alone sends the host by IPv6.

    Addresses of both families are added, each by its own answer."""
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.resolve(0.1, A, C2, "2001:db8::66")
    assert held(scene) == ([X, "2001:db8::66"], [])


def test_an_innocent_twin_behind_nat64() -> None:
    """A listed name behind NAT64 and an innocent site by IPv4 are one host, written in two ways.

    Who shares an address is known by the host it leads to: the innocent site keeps it from being blocked for all."""
    scene = Scene()
    scene.resolve(0, B, GOOD, X)
    scene.resolve(1, A, C2, "64:ff9b::c633:6407")
    assert held(scene) == ([], [(A, "64:ff9b::c633:6407")])


def test_an_innocent_twin_behind_the_networks_own_nat64() -> None:
    """The network translates under a NAT64 prefix of its own, and the innocent site's host is not known for the same.

    Where the configuration names the prefix (`nat64_prefixes`), the host is known by its IPv4 address."""
    scene = LiveScene()
    scene.swap(0, "c2.bad.example", nat64="2001:db8:64::/96")
    scene.resolve(1, B, "www.florist.example", X)
    scene.resolve(2, A, C2, "2001:db8:64::c633:6407")
    assert held(scene) == ([], [(A, "2001:db8:64::c633:6407")])


def test_a_mapped_address_is_what_packets_carry() -> None:
    """An IPv4-mapped address in an answer would be blocked as IPv6, and nothing stopped.

    It is blocked as the IPv4 address that hosts send to."""
    scene = Scene()
    scene.resolve(0, A, C2, f"::ffff:{X}")
    assert held(scene) == ([X], [])


@pytest.mark.parametrize("address", ["2002:c633:6407::66", "2001:0:c633:6407::34cc:8ef6"])
def test_a_tunnel_address_of_a_listed_name(address: str) -> None:
    """An answer in 6to4 or Teredo form would make us block the IPv4 relay inside it, which is somebody else's.

    The address itself is blocked and nothing inside it."""
    scene = Scene()
    scene.resolve(0, A, C2, address)
    assert held(scene) == ([address], [])
    assert scene.engine.blocks.covering(packed(B), packed(X)) is None


def test_an_answer_of_sixty_addresses() -> None:
    """One answer with as many addresses as fit fills a block's hour at once, and tells of each.

    Sixteen are added and one refusal is told."""
    scene = Scene()
    scene.resolve(0, A, C2, *(f"203.0.113.{number}" for number in range(1, 61)))
    assert scene.rules("extend") == ["address"] * 16 and scene.rules("refuse") == ["budget"]


def test_time_that_goes_back() -> None:
    """A capture whose clock is set back would make budgets endless or shut for ever.

    Blocks and budgets hold on both sides of the step."""
    scene = Scene(settings=PolicySettings(addresses_per_indicator_hour=2))
    scene.resolve(7_200, A, C2, X)
    scene.resolve(0, A, C2, Y)
    scene.resolve(1, A, C2, "203.0.113.9")
    assert held(scene) == ([X, Y], [])
    assert scene.rules("refuse") == ["budget"]
    scene.resolve(7_300 + 3_600, A, C2, "203.0.113.10")
    assert held(scene)[0][-1] == "203.0.113.10"


def test_an_answer_in_other_letters() -> None:
    """An answer whose records name the owner in other letters would tie nothing.

    Names are compared as they are normalised, whatever case a server plays with (RFC 5452 section 9.2)."""
    scene = Scene()
    scene.question(0, A, C2, txid=1)
    scene.answer(0.01, A, C2, replace(record(C2, X), raw_name="C2.bAd.ExAmPlE"), txid=1)
    assert held(scene) == ([X], [])
