"""Whom a block would cut off: sites that share an address with a listed name. Each test tells the harm it prevents."""

from __future__ import annotations

import pytest

from egressd.detect import budgets
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.networks import render_address
from egressd.model import UDP, DnsMessage, DnsQuestion, DnsRecord
from tests.detect.live_scene import LiveScene
from tests.detect.scene import RESOLVER, A, B, C, Scene, X, Y, flow, listed, packed, record

C2 = "c2.bad.example"
BLOCK = ("block", "level-host", "registered_domain bad.example")
SITES = ("www.florist.example", "www.library.example", "www.school.example", "www.clinic.example")
CDN = "198.51.100.0/24 operator=CDN\n"
QUESTION = flow(A, RESOLVER, 50000, 53, UDP)
NO_TIME = DnsRecord(C2, C2, 1, 0, packed(X), "", "", (), False)


def held(scene: Scene) -> tuple[list[str], list[tuple[str, str]]]:
    """(addresses, pairs) that blocks cover now."""
    blocks = scene.engine.blocks.by_id.values()
    addresses = [render_address(address) for block in blocks for address in block.addresses]
    pairs = [(render_address(one), render_address(address)) for block in blocks for one, address in block.pairs]
    return addresses, pairs


# -- who was seen there


@pytest.mark.parametrize("tenants", [1, 2])
def test_one_or_two_other_sites_live_on_the_address(tenants: int) -> None:
    """Everybody would lose the innocent site that lives beside the listed one.

    The name is blocked, and the way there of the host that named it; nobody else's."""
    scene = Scene()
    for number, site in enumerate(SITES[:tenants]):
        scene.resolve(number, B, site, X)
    scene.resolve(10, A, C2, X)
    assert scene.said() == [BLOCK, ("extend", "pair", f"pair {A}>{X}")]
    shown = " and ".join(site.removeprefix("www.") for site in SITES[:tenants])
    how = "blocked by name and for the hosts that named it, not by address"
    assert scene.decisions[-1].reason == f"{how}: shared with {shown}"
    assert held(scene) == ([], [(A, X)])


@pytest.mark.parametrize("tenants", [3, 4])
def test_three_or_more_other_sites_live_on_the_address(tenants: int) -> None:
    """One host's way to a content delivery network would be closed, and with it every innocent site there.

    The name is blocked and nothing else, neither for everybody nor for the host that named it."""
    scene = Scene()
    for number, site in enumerate(SITES[:tenants]):
        scene.resolve(number, B, site, X)
    scene.resolve(10, A, C2, X)
    scene.tls(11, A, X, C2)
    assert scene.said() == [BLOCK, ("refuse", "shared", f"address {X}")]
    assert scene.decisions[-1].reason == (
        f"blocked by name, not by address: shared with {tenants} other registered domains, among them florist.example"
    )
    assert held(scene) == ([], [])
    assert scene.counts(A) == (2, 1)  # and the watch goes on


def test_other_sites_appear_after_the_block() -> None:
    """A block that was right in the morning cuts off a site that moves in at noon.

    With the first innocent name the address is given free, with the third the pairs are; the name stays blocked."""
    scene = Scene()
    scene.resolve(0, A, C2, X)
    assert held(scene) == ([X], [])
    scene.resolve(10, B, SITES[0], X)
    assert held(scene) == ([], [])
    scene.tls(20, A, X, C2)
    assert held(scene) == ([], [(A, X)])
    scene.resolve(30, B, SITES[1], X)
    assert held(scene) == ([], [(A, X)])
    scene.resolve(40, C, SITES[2], X)
    assert held(scene) == ([], [])
    assert scene.said("withdraw") == [("withdraw", "shared", f"address {X}"), ("withdraw", "shared", f"pair {A}>{X}")]
    assert [one.value for one in scene.engine.blocks.by_target] == ["bad.example"]


def test_a_tenant_is_seen_only_by_its_server_name() -> None:
    """A site whose DNS answer nobody saw (a resolver's cache, DoH) would be cut off.

    Its server name in a handshake shows that it lives there: the address is given free."""
    scene = Scene()
    scene.resolve(0, A, C2, X)
    scene.tls(5, B, X, SITES[0])
    assert scene.said() == [BLOCK, ("extend", "address", f"address {X}"), ("withdraw", "shared", f"address {X}")]
    assert held(scene) == ([], [])


def test_many_listed_names_and_an_innocent_one_on_an_address() -> None:
    """A web host holds so many listed names that there is no room left to remember the innocent one beside them.

    Listed names take half of what is remembered of an address at most: the innocent one is known, and given free."""
    names = [f"c2.bad{number}.example" for number in range(40)]
    scene = Scene("\n".join(names))
    for number, name in enumerate(names):
        scene.resolve(number, A, name, X)
    assert set(held(scene)[0]) == {X}
    scene.resolve(100, B, SITES[0], X)
    assert held(scene) == ([], [])


def test_a_tenant_is_seen_only_in_an_answer() -> None:
    """A site that a host has only looked up so far would be cut off before its first visit.

    The answer alone shows that it lives there: the address is not blocked for everybody."""
    scene = Scene()
    scene.resolve(0, B, SITES[0], X)
    scene.resolve(5, A, C2, X)
    assert held(scene) == ([], [(A, X)])


def test_a_parked_domain() -> None:
    """A domain that nobody pays for any more points at a parking host, with thousands of others.

    They are seen there, as far as anybody here asked for them: the name is blocked, the parking host is not."""
    scene = Scene()
    for number in range(1_000):
        scene.resolve(number, B, f"parked{number}.example", X)
    scene.resolve(2_000, A, C2, X)
    assert scene.said() == [BLOCK, ("refuse", "shared", f"address {X}")]
    assert scene.decisions[-1].reason.endswith("shared with 32 other registered domains, among them parked0.example")


def test_a_mail_server_for_many() -> None:
    """A listed domain is the customer of a mail provider: blocking the mail server's address stops everybody's mail.

    What an MX record names, and addresses beyond the answer section, tie nothing to the listed name."""
    scene = Scene()
    scene.question(0, A, C2, txid=7)
    mail = record("mail.provider.example", X)
    exchange = record(C2, "mail.provider.example", 15)
    message = DnsMessage(7, True, 0, 0, False, (DnsQuestion(C2, C2, 15),), (exchange, mail), 1, False, "")
    scene.see("dns_answer", 0.01, QUESTION, C2, message)
    assert scene.said() == [BLOCK]
    assert held(scene) == ([], [])


def test_a_captive_portal_answers_for_every_name() -> None:
    """A portal that answers every name with its own address would be cut off by the first listed name.

    The next innocent name there gives the address free; after the third not even pairs are blocked."""
    scene = Scene()
    scene.resolve(0, A, C2, X)
    for number, site in enumerate(SITES[:3]):
        scene.resolve(1 + number, B, site, X)
    scene.resolve(10, C, C2, X)
    assert scene.said() == [
        BLOCK, ("extend", "address", f"address {X}"), ("withdraw", "shared", f"address {X}"),
        ("refuse", "shared", f"address {X}"),
    ]  # fmt: skip
    assert held(scene) == ([], [])


def test_a_time_server_of_a_pool() -> None:
    """Whoever lists himself in a pool, or answers with one of its servers, has its address blocked and clocks drift.

    The pool's own name lives there too: nobody but the host that asked for the listed name is kept from it."""
    scene = Scene()
    scene.resolve(0, B, "2.pool.ntp-example.example", X)
    scene.resolve(5, A, C2, X)
    assert held(scene) == ([], [(A, X)])


# -- shared ranges


def test_an_address_in_a_shared_range_where_nobody_was_seen_yet() -> None:
    """The listed name is the first that anybody here visits on a content delivery network's address.

    The range says that it is shared, whatever was seen: the name is blocked and nothing else."""
    scene = Scene(ranges=CDN)
    scene.resolve(0, A, C2, X)
    scene.tls(1, A, X, C2)
    assert scene.said() == [BLOCK, ("refuse", "shared", f"address {X}")]
    assert scene.decisions[-1].reason == (
        "blocked by name, not by address: in 198.51.100.0/24, a shared range of CDN (cdn.txt:1)"
    )
    assert held(scene) == ([], [])


@pytest.mark.parametrize("address", [f"::ffff:{X}", "64:ff9b::c633:6407", "2002:c633:6407::1"])
def test_a_shared_address_in_other_clothes(address: str) -> None:
    """A shared IPv4 address would be blocked where it is written inside an IPv6 address.

    Ranges are asked about the address inside: mapped, behind NAT64, in 6to4."""
    scene = Scene(ranges=CDN)
    scene.resolve(0, A, C2, address)
    assert scene.rules("refuse") == ["shared"]
    assert held(scene) == ([], [])


def test_a_range_is_added_to_the_file_while_its_addresses_are_blocked() -> None:
    """Somebody notices that a blocked address is a content delivery network's: it must be free at once.

    With the file the blocks are looked at again; addresses and pairs there are given free, the name stays blocked."""
    scene = LiveScene()
    scene.resolve(0, A, C2, X, "203.0.113.9")
    scene.tls(1, B, Y, C2)
    assert held(scene) == ([X, "203.0.113.9"], [(B, Y)])
    scene.swap(10, C2, ranges=CDN)
    assert held(scene) == (["203.0.113.9"], [])
    assert scene.said("withdraw") == [("withdraw", "shared", f"address {X}"), ("withdraw", "shared", f"pair {B}>{Y}")]
    assert scene.blocks == ["registered_domain bad.example"]


def test_a_range_is_taken_out_of_the_file() -> None:
    """An address that an operator gave up belongs to the attacker now, and would never be blocked again.

    What was refused for the range alone is asked about again: the next answer blocks the address."""
    scene = LiveScene(C2, ranges=CDN)
    scene.resolve(0, A, C2, X)
    scene.swap(10, C2)
    scene.resolve(20, A, C2, X)
    assert scene.said("refuse", "extend") == [
        ("refuse", "shared", f"address {X}"),
        ("extend", "address", f"address {X}"),
    ]


# -- addresses that lists name


def test_a_listed_address_in_a_shared_range() -> None:
    """A feed lists an address of a content delivery network (Austria 2022: eleven of them cut off thousands of sites).

    Sightings alert, with the range and its operator; a person must decide."""
    scene = Scene(f"{X}\n", ranges=CDN)
    scene.flow(0, A, X)
    scene.flow(5, B, X, 41000)
    assert scene.said() == [("alert", "shared", f"address {X}")]
    assert scene.decisions[0].reason == (
        "not blocked by address: in 198.51.100.0/24, a shared range of CDN (cdn.txt:1); a person must decide"
    )
    assert len(scene.incidents) == 2  # both are still told


@pytest.mark.parametrize("line", [X, f"{X} force=yes", "198.51.100.0/25", "198.0.0.0/8 force=yes"])
def test_a_feed_says_that_it_decides(line: str) -> None:
    """A feed's line says force=yes, by which a person may list what many share.

    A feed has no say in that: it is read as if the words were not there, and sightings alert."""
    scene = Scene("", ranges=CDN, feed=line)
    scene.flow(0, A, X)
    assert [(action, rule) for action, rule, _ in scene.said()] == [("alert", "shared")]


def test_a_listed_address_where_other_sites_were_seen() -> None:
    """A feed lists the address of a web host with many customers.

    With three innocent sites on it sightings alert only; with fewer the list is believed."""
    scene = Scene(f"{X}\n{Y}\n")
    for number, site in enumerate(SITES[:3]):
        scene.resolve(number, B, site, X)
    for number, site in enumerate(SITES[:2]):
        scene.resolve(number, B, site, Y)
    scene.flow(10, A, X)
    scene.flow(20, A, Y)
    assert scene.said() == [("alert", "shared", f"address {X}"), ("block", "level-address", f"address {Y}")]


def test_a_listed_address_turns_out_to_be_shared() -> None:
    """A feed lists the address of a web host before anybody here has visited its customers.

    When the third innocent site is seen there the block ends, and says so; what follows alerts."""
    scene = Scene(f"{X}\n")
    scene.flow(0, A, X)
    for number, site in enumerate(SITES[:3]):
        scene.resolve(1 + number, B, site, X)
    scene.flow(10, A, X, 41000)
    assert scene.said() == [
        ("block", "level-address", f"address {X}"), ("withdraw", "shared", f"address {X}"),
        ("alert", "shared", f"address {X}"),
    ]  # fmt: skip
    assert held(scene) == ([], [])


def test_a_person_lists_a_shared_address_with_force() -> None:
    """A guard that nobody can overrule leaves an address open that the incident team must close now.

    `force=yes` on the line says that a person has decided: it is blocked, and stays so."""
    scene = LiveScene(f"{X} force=yes\n", ranges=CDN)
    scene.flow(0, A, X)
    for number, site in enumerate(SITES):
        scene.resolve(1 + number, B, site, X)
    scene.swap(10, f"{X} force=yes\n", ranges=CDN)
    assert scene.said() == [("block", "level-address", f"address {X}")]
    assert held(scene) == ([X], [])
    assert scene.decisions[0].reason == f"matches the listed address {X} (l.txt:1)"


@pytest.mark.parametrize("line", ["198.0.0.0/8", "198.51.0.0/15", "2001:db8::/31"])
def test_a_listed_network_is_too_wide(line: str) -> None:
    """A line with a slip in its length would cut off whole providers.

    Networks wider than /16 (IPv4, also behind NAT64) or /32 (IPv6) alert; a person must decide."""
    address = "2001:db8::5" if ":" in line else X
    scene = Scene(line.replace("198.51.0.0/15", "198.50.0.0/15"))
    scene.flow(0, A, address)
    assert [(action, rule) for action, rule, _ in scene.said()] == [("alert", "too-wide")]
    assert "person must decide" in scene.decisions[0].reason


def test_a_network_of_a_few_addresses_and_one_that_a_person_forces() -> None:
    """The bound on the width of networks must not stop the lists that are right.

    A /24 is blocked as listed; a wide one that says force=yes is too."""
    scene = Scene("198.51.100.0/24\n203.0.0.0/8 force=yes")
    scene.flow(0, A, X)
    scene.flow(1, A, "203.0.113.7")
    assert [(action, target) for action, _, target in scene.said()] == [
        ("block", "network 198.51.100.0/24"), ("block", "network 203.0.0.0/8"),
    ]  # fmt: skip


@pytest.mark.parametrize(("network", "address"), [("198.51.100.0/24", X), ("64:ff9b::c633:6400/120", f"64:ff9b::{X}")])
def test_a_listed_network_holds_a_shared_range(network: str, address: str) -> None:
    """A listed network reaches into a content delivery network, as IPv4 or behind NAT64.

    It is blocked neither whole nor in part: sightings alert."""
    scene = Scene(network, ranges="198.51.100.128/25 operator=CDN")
    scene.flow(0, A, address)
    assert scene.said() == [("alert", "shared", f"network {network}")]


@pytest.mark.parametrize(("network", "address"), [("198.51.100.0/24", X), ("64:ff9b::c633:6400/120", f"64:ff9b::{X}")])
def test_a_listed_network_holds_what_is_never_blocked(network: str, address: str) -> None:
    """A listed network holds an address that an operator never wants blocked, as IPv4 or behind NAT64.

    The network is not blocked whole: sightings alert, with the operator's line."""
    scene = Scene(network, allow="never-block 198.51.100.200 owner=noc reason=partner")
    scene.flow(0, A, address)
    assert [(action, rule) for action, rule, _ in scene.said()] == [("alert", "never-block")]


# -- flux and budgets


def test_fast_flux() -> None:
    """A name that answers with ever new addresses fills the firewall, and may name innocent addresses one by one.

    Sixteen addresses an hour are added, then one refusal is told; the name stays blocked throughout."""
    scene = Scene()
    for number in range(600):
        scene.resolve(number / 10, A, C2, f"203.0.113.{number % 250 + 1}", f"198.51.100.{number % 250 + 1}")
    assert scene.said("block", "refuse") == [BLOCK, ("refuse", "budget", "address 203.0.113.9")]
    assert len(held(scene)[0]) == 16 and held(scene)[1] == []
    assert len(scene.incidents) == 1
    assert scene.rules("extend") == ["address"] * 16


def test_double_flux() -> None:
    """Name servers that change as fast as addresses: their addresses, in every answer, may be anybody's.

    Only the answer section counts; what stands in the sections after it is neither blocked nor anybody's address."""
    scene = Scene()
    glue = [record(f"ns{number}.bad.example", f"203.0.113.{number}") for number in range(1, 9)]
    scene.question(0, A, C2, txid=7)
    question = (DnsQuestion(C2, C2, 1),)
    message = DnsMessage(7, True, 0, 0, False, question, (record(C2, X), *glue), 1, False, "")
    scene.see("dns_answer", 0.01, QUESTION, C2, message)
    assert held(scene) == ([X], [])
    assert scene.engine.resolutions.co_tenants(packed("203.0.113.1"), frozenset(), 0) == []


def test_a_life_of_no_time() -> None:
    """An answer with TTL 0 would be followed with a block a second, or with none.

    The TTL decides nothing: the address is blocked once and stays blocked."""
    scene = Scene()
    for second in range(30):
        scene.question(second, A, C2, txid=second)
        scene.answer(second + 0.01, A, C2, NO_TIME, txid=second)
    assert scene.said() == [BLOCK, ("extend", "address", f"address {X}")]


def test_a_thousand_listed_names_within_an_hour() -> None:
    """A bad list would cut off half the web within minutes.

    Two hundred blocks an hour; then one alert says so, and sightings and incidents tell the rest."""
    names = [f"c2.bad{number}.example" for number in range(1_000)]
    scene = Scene("\n".join(names))
    for number, name in enumerate(names):
        scene.resolve(number, f"10.0.1.{number % 100}", name, f"203.0.113.{number % 250}")
    assert scene.rules("block") == ["level-host"] * 200
    assert scene.rules("alert") == ["budget"]
    assert scene.decisions[-1].reason == "over 200 blocks in an hour"
    assert len(scene.engine.blocks) == 200


def fill(scene: Scene, bound: str, second: int, name: str) -> None:
    address = f"203.0.113.{second % 250 + 1}"
    if bound == "MAX_ADDRESSES":
        scene.resolve(second, A, name, address)
    else:
        scene.tls(second, A, address, name)


@pytest.mark.parametrize(("bound", "what"), [("MAX_ADDRESSES", "addresses"), ("MAX_PAIRS", "pairs")])
def test_the_firewall_is_full(monkeypatch: pytest.MonkeyPatch, bound: str, what: str) -> None:
    """Many names in flux fill the firewall together, and each of them sends an alert every hour.

    The bound over all blocks is told once an hour in all, as what it is; names stay blocked."""
    monkeypatch.setattr(budgets, bound, 5)
    names = [f"c2.bad{number}.example" for number in range(50)]
    scene = Scene("\n".join(names))
    for number, name in enumerate(names):
        fill(scene, bound, number, name)
    assert len(scene.said("extend")) == 5 and len(scene.said("block")) == 50
    assert scene.rules("refuse") == ["budget"]
    (refused,) = [one for one in scene.decisions if one.action == "refuse"]
    assert refused.reason == f"over 5 {what} in all"
    fill(scene, bound, 4_000, names[9])
    assert scene.rules("refuse") == ["budget"] * 2


def test_one_host_names_many_addresses() -> None:
    """A host that says a listed name to thousands of addresses fills the firewall with its pairs.

    Sixteen an hour of one host and one block, and one refusal that says whose they are."""
    scene = Scene()
    for number in range(100):
        scene.tls(number, A, f"203.0.113.{number + 1}", C2)
    assert len(held(scene)[1]) == 16 and held(scene)[0] == []
    assert scene.said("refuse") == [("refuse", "budget", f"pair {A}>203.0.113.17")]
    assert scene.decisions[-1].reason == f"over 16 addresses of {A} in an hour"


def test_a_low_settings_budget_of_none() -> None:
    """An operator who wants no automatic block of addresses must be able to say so.

    With a budget of 0 the name is blocked, and every address is refused with one event."""
    scene = Scene(settings=PolicySettings(addresses_per_indicator_hour=0))
    scene.resolve(0, A, C2, X)
    scene.resolve(1, B, C2, Y)
    assert scene.said() == [BLOCK, ("refuse", "budget", f"address {X}")]


def test_a_line_with_force_says_so() -> None:
    """A decision of a person must be told from a list's.

    The line's force=yes stands in the indicator, for `egressd explain` and the events."""
    (forced,) = listed(f"{X} force=yes")
    (plain,) = listed(X)
    assert (forced.narrowed, plain.narrowed) == ("the line says force=yes", "")
