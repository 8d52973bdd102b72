"""guard, protected, resolvers: what they say and where from, and that the lists which come with egressd are sound."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.intel.guard import CATEGORIES, Guard
from egressd.intel.lines import split_comment
from egressd.intel.networks import parse_address, parse_network
from egressd.intel.protected import Protected
from egressd.intel.resolvers import Resolvers
from egressd.names import UNLISTED, Suffixes, normalise

LISTS = Path(__file__).resolve().parents[2] / "egressd" / "intel" / "data"
SUFFIXES = Suffixes.parse("com\n// ===BEGIN PRIVATE DOMAINS===\ntenants.com\nservers.com\n")


def shipped(name: str) -> str:
    return (LISTS / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def suffixes() -> Suffixes:
    return Suffixes.parse(shipped("public_suffix_list.dat"))


def test_why_names_file_line_and_reason() -> None:
    text = (
        "\n# c\nshared.com category=hosting # anyone can put a file there\nwww.big.com category=platform # all of it\n"
    )
    guard, problems = Guard.parse(text, SUFFIXES, "g.txt", own=["Ours.COM.", "mail.ours2.com"])
    assert problems == []
    assert guard.why("shared.com") == "shared.com is shared hosting (g.txt:3: anyone can put a file there)"
    assert guard.why("big.com") == "big.com is a platform of many services (g.txt:4: all of it)"
    assert guard.why("ours.com") == "ours.com is one of your own domains"
    assert guard.why("ours2.com") == "ours2.com is one of your own domains"
    assert guard.why("bad.com") == ""
    assert guard.why("") == ""
    assert guard.size == 4


def test_a_suffix_of_servers_guards_below_it_and_a_suffix_of_tenants_does_not() -> None:
    text = "servers.com category=cdn # servers\ntenants.com category=hosting # a name for each customer\n"
    guard, _ = Guard.parse(text, SUFFIXES)
    assert "guard.txt:1" in guard.why("e1.servers.com")
    assert guard.why("e1.tenants.com") == ""
    assert "guard.txt:2" in guard.why("tenants.com")


def test_popular() -> None:
    text = "1,big.com\r\n2,www.next.com\r\n3,tenants.com\r\n4,far.com\r\nx\r\n"
    guard, problems = Guard.parse("", SUFFIXES, popular=text, popular_source="top.csv", popular_limit=3)
    assert problems == []  # what stands after the limit is not read
    assert guard.why("next.com") == "next.com is among the 3 most popular names (top.csv:2: rank 2)"
    assert guard.why("far.com") == ""
    assert guard.why("tenants.com") == ""
    assert guard.size == 2


def test_popular_problems() -> None:
    _, problems = Guard.parse(
        "", SUFFIXES, popular="# c\nbig.com\n1;x\nx,a.com\n-1,a.com\n2,a!.com\n9,b.com", popular_source="t"
    )
    assert [(problem.file, problem.line, problem.column) for problem in problems] == [
        ("t", 2, 1), ("t", 3, 1), ("t", 4, 1), ("t", 5, 1), ("t", 6, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "column", "says"),
    [
        ("shared.com # why", 1, "no category"),
        ("shared.com category=hosting", 1, "no reason"),
        ("shared.com category=nice # why", 12, 'unknown category "nice"'),
        ("shared.com kategory=hosting # why", 12, "unknown option"),
        ("shared!.com category=hosting # why", 1, "not a legal name"),
        ("shared.com other.com category=hosting # why", 12, "unexpected word"),
    ],
)
def test_guard_problems(line: str, column: int, says: str) -> None:
    guard, problems = Guard.parse("# x\n" + line, SUFFIXES, "g.txt")
    assert guard.size == 0
    assert [(problem.line, problem.column) for problem in problems] == [(2, column)]
    assert says in problems[0].what


def test_own_domain_that_is_none() -> None:
    _, problems = Guard.parse("", SUFFIXES, own=["good.com", "bad name"])
    assert [(problem.file, problem.line) for problem in problems] == [("own domains", 2)]


@given(st.text(max_size=200))
def test_any_text_gives_a_problem_a_line_at_most(text: str) -> None:
    lines = text.count("\n") + 1
    assert len(Guard.parse(text, SUFFIXES, popular=text)[1]) <= 2 * lines
    assert len(Protected.parse(text)[1]) <= lines
    assert len(Resolvers.parse(text)[1]) <= lines


def test_shipped_guard_is_sound(suffixes: Suffixes) -> None:
    text = shipped("guard.txt")
    guard, problems = Guard.parse(text, suffixes)
    assert problems == []
    seen: set[str] = set()
    group: list[str] = []
    for line in text.splitlines():
        words, reason = split_comment(line)
        if not words:
            assert group == sorted(group)
            group = []
            continue
        name = words[0].text
        registered, _, rule = suffixes.split(name)
        assert name == normalise(name.encode())
        assert name not in seen, name
        assert registered in (name, ""), f"{name} lies below {registered}"
        assert reason.endswith("(public suffix)") is (registered == ""), name
        assert rule != UNLISTED, name
        assert words[1].text.removeprefix("category=") in CATEGORIES
        assert len(reason) < 80
        seen.add(name)
        group.append(name)
    assert 250 <= len(seen) <= 400
    assert guard.size == len(seen)


@pytest.mark.parametrize(
    ("name", "guarded"),
    [
        ("evil.dropbox.com", True), ("raw.githubusercontent.com", False), ("storage.googleapis.com", True),
        ("e1.dscb.akamaiedge.net", True), ("ctldl.windowsupdate.com", True), ("ocsp.digicert.com", True),
        ("0.pool.ntp.org", True), ("evil.duckdns.org", False), ("www.yahoo.co.jp", True), ("bad.example", False),
        ("evil.github.io", False), ("evil.blob.core.windows.net", False), ("evil.s3.amazonaws.com", False),
    ],
)  # fmt: skip
def test_shipped_guard_of_names(suffixes: Suffixes, name: str, guarded: bool) -> None:
    guard, _ = Guard.parse(shipped("guard.txt"), suffixes)
    assert bool(guard.why(suffixes.registered_domain(name))) is guarded


def test_shipped_special_purpose_is_sound() -> None:
    text = shipped("special_purpose.txt")
    protected, problems = Protected.parse(text)
    assert problems == []
    entries = [split_comment(line) for line in text.splitlines()]
    networks = [words[0].text for words, _ in entries if words]
    assert len(networks) == len(set(networks)) > 30
    assert all("RFC " in reason for words, reason in entries if words)
    assert protected.why(parse_address("192.168.1.1")) == (
        "192.168.0.0/16 is protected (special_purpose.txt:22: private use, RFC 1918)"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.1", "private use"), ("127.0.0.1", "loopback"), ("224.0.0.251", "multicast"), ("100.64.0.1", "carrier"),
        ("169.254.169.254", "link local"), ("255.255.255.255", "broadcast"), ("0.0.0.0", "this host"),
        ("::", "unspecified"), ("::1", "loopback"), ("fe80::1", "link local"), ("fd00::1", "unique local"),
        ("ff02::1", "multicast"), ("::ffff:10.0.0.1", "private use"), ("::10.0.0.1", "private use"),
        ("64:ff9b::10.0.0.1", "private use"), ("2002:a00:1::1", "private use"),
        ("2001:0:c633:6401:0:0:f5ff:fffe", "private use"),  # Teredo client 10.0.0.1
        ("2001:0:a00:1:0:0:3fff:fdde", "private use"),  # Teredo server 10.0.0.1
        ("2001:db8:64::10.0.0.1", "private use"),  # under the network's own NAT64 prefix
        ("192.0.2.1", ""), ("198.51.100.1", ""), ("203.0.113.1", ""), ("2001:db8::1", ""), ("64:ff9b::192.0.2.1", ""),
        ("2002:c000:201::1", ""), ("2001:0:c633:6401:0:0:3fff:fdde", ""), ("::ffff:192.0.2.1", ""),
        ("203.0.113.53", "the gateway"), ("64:ff9b::203.0.113.53", "the gateway"), ("2001:db8:ffff::9", "our servers"),
    ],
)  # fmt: skip
def test_protected(text: str, reason: str) -> None:
    protected, problems = Protected.parse(
        shipped("special_purpose.txt"),
        extra=[("203.0.113.53", "the gateway"), ("2001:db8:ffff::/48", "our servers")],
        nat64=["2001:db8:64::/96"],
    )
    assert problems == []
    why = protected.why(parse_address(text))
    assert reason in why
    assert bool(why) is bool(reason)
    assert protected.why_network(parse_address(text), 8 * len(parse_address(text))) == why


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("10.1.0.0/16", True), ("8.0.0.0/6", True), ("203.0.113.0/24", True), ("203.0.113.128/25", False),
        ("2001:db8::/32", True), ("2001:db8:1::/48", False), ("64:ff9b::/96", True), ("64:ff9b::/64", True),
        ("64:ff9b::a00:0/104", True), ("64:ff9b::c000:200/120", False), ("2002::/16", True), ("2002:a00::/24", True),
        ("2002:c000:200::/40", False), ("::ffff:10.0.0.0/104", True), ("2001:db8:1:0::/64", False),
    ],
)  # fmt: skip
def test_protected_networks(text: str, guarded: bool) -> None:
    protected, _ = Protected.parse(
        "10.0.0.0/8 # private use", extra=[("203.0.113.53", "the gateway"), ("2001:db8:ffff::1", "ours")]
    )
    network = parse_network(text)
    assert network is not None
    assert bool(protected.why_network(*network)) is guarded


def test_protected_problems() -> None:
    text = "10.0.0.0/8\nx # why\n10.0.0.0/8 11.0.0.0/8 # why\n"
    _, problems = Protected.parse(text, "p.txt", extra=[("y", "why")], nat64=["192.0.2.0/24", "2001:db8::/33", "z"])
    assert [(problem.file, problem.line, problem.column) for problem in problems] == [
        ("extra protected networks", 1, 1),
        ("NAT64 prefixes", 1, 1), ("NAT64 prefixes", 2, 1), ("NAT64 prefixes", 3, 1),
        ("p.txt", 1, 1), ("p.txt", 2, 1), ("p.txt", 3, 12),
    ]  # fmt: skip


def test_resolvers() -> None:
    text = "192.0.2.53 # One\n2001:db8::53 # Two\nDNS.one.example # One\n192.0.2.53 # Later\n"
    resolvers, problems = Resolvers.parse(text, "r.txt")
    assert problems == []
    assert resolvers.addresses == {parse_address("192.0.2.53"), parse_address("2001:db8::53")}
    assert resolvers.names == {"dns.one.example"}
    assert resolvers.operator(parse_address("192.0.2.53")) == "One"
    assert resolvers.operator("abc.dns.one.example") == "One"
    assert resolvers.operator("one.example") == ""
    assert resolvers.operator(b"") == resolvers.operator("") == ""
    assert resolvers.protected_entries() == [
        ("192.0.2.53", "r.txt:1: public resolver, One"), ("2001:db8::53", "r.txt:2: public resolver, Two"),
    ]  # fmt: skip


def test_resolver_problems() -> None:
    _, problems = Resolvers.parse("192.0.2.53\nlocalhost # x\n192.0.2.1 192.0.2.2 # x\nx! # x\n", "r.txt")
    assert [(problem.line, problem.column) for problem in problems] == [(1, 1), (2, 1), (3, 11), (4, 1)]


def test_shipped_resolvers_are_sound() -> None:
    text = shipped("resolvers.txt")
    resolvers, problems = Resolvers.parse(text)
    assert problems == []
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(resolvers.addresses) + len(resolvers.names) == len(lines) > 150  # so none is there twice
    assert resolvers.operator(parse_address("8.8.8.8")) == "Google"
    assert resolvers.operator("dns.google") == "Google"
    assert resolvers.operator("abc123.dns.nextdns.io").startswith("NextDNS")
    special, _ = Protected.parse(shipped("special_purpose.txt"))
    assert not [addr for addr in resolvers.addresses if special.why(addr)]
    both, problems = Protected.parse(shipped("special_purpose.txt"), extra=resolvers.protected_entries())
    assert problems == []
    assert "public resolver, Google" in both.why(parse_address("8.8.8.8"))
