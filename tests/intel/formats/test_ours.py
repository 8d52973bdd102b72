"""formats: what each line means, what is refused, and where and how the refusal says so."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.config.load import SHIPPED, default_config, load_ground
from egressd.errors import Problem
from egressd.intel.formats import OPTIONS, parse_list, render_indicator
from egressd.intel.guard import Guard
from egressd.intel.protected import Protected
from egressd.model import Indicator
from egressd.names import Suffixes

SUFFIXES = Suffixes.parse(
    "com\njp\nco.jp\n*.ck\n!www.ck\n// ===BEGIN PRIVATE DOMAINS===\ngithub.io\ntenants.example\n*.cloud.example\n"
)
GUARD, _ = Guard.parse(
    "# comment\nshared.example category=hosting # anyone can put a file there\n", SUFFIXES, own=["www.ours.example"]
)
PROTECTED, _ = Protected.parse(
    "10.0.0.0/8 # private use, RFC 1918\nff00::/8 # multicast, RFC 4291\n::1/128 # loopback, RFC 4291\n",
    "special.txt",
    extra=[("192.0.2.53", "resolvers.txt:3: public resolver, Example")],
)


def read(text: str, **options: object) -> tuple[list[Indicator], list[Problem]]:
    return parse_list(text, "l.txt", SUFFIXES, GUARD, protected=PROTECTED, **options)  # type: ignore[arg-type]


def one(line: str, **options: object) -> Indicator:
    indicators, problems = read(line, **options)
    assert problems == []
    assert len(indicators) == 1
    return indicators[0]


@pytest.mark.parametrize(
    ("line", "kind", "value", "scope"),
    [
        ("bad.example", "domain", "bad.example", "registered"),
        ("  bad.example  ", "domain", "bad.example", "registered"),
        ("::ffff:198.51.100.9", "address", "198.51.100.9", "exact"),
        ("::FFFF:c633:6400/120", "network", "198.51.100.0/24", "exact"),
        ("http://[::ffff:198.51.100.9]/x", "url", "198.51.100.9/x", "exact"),
        ("bad.example\r", "domain", "bad.example", "registered"),
        ("BAD.Example.", "domain", "bad.example", "registered"),
        ("www.bad.example # why", "domain", "www.bad.example", "registered"),
        ("bad.example #why", "domain", "bad.example", "registered"),
        ("bad[.]example", "domain", "bad.example", "registered"),
        ("bad(.)example", "domain", "bad.example", "registered"),
        ("bad[dot]example", "domain", "bad.example", "registered"),
        ("bücher.example", "domain", "xn--bcher-kva.example", "registered"),
        ("_x.bad.example", "domain", "_x.bad.example", "registered"),
        ("*.bad.example", "domain", "bad.example", "host"),
        (".bad.example", "domain", "bad.example", "host"),
        ("*.www.bad.example scope=host", "domain", "www.bad.example", "host"),
        ("bad.example scope=exact", "domain", "bad.example", "exact"),
        ("bad.example scope=host", "domain", "bad.example", "host"),
        ("a.github.io", "domain", "a.github.io", "registered"),
        ("||bad.example^", "domain", "bad.example", "registered"),
        ("0.0.0.0 bad.example", "domain", "bad.example", "registered"),
        ("127.0.0.1\tbad.example # x", "domain", "bad.example", "registered"),
        (":: bad.example", "domain", "bad.example", "registered"),
        ("0.0.0.0 localhost bad.example", "domain", "bad.example", "registered"),
        ("198.51.100.7", "address", "198.51.100.7", "exact"),
        ("198[.]51[.]100[.]7", "address", "198.51.100.7", "exact"),
        ("198.51.100.7/32", "address", "198.51.100.7", "exact"),
        ("2001:DB8:0::1", "address", "2001:db8::1", "exact"),
        ("198.51.100.0/24", "network", "198.51.100.0/24", "exact"),
        ("2001:db8::/32", "network", "2001:db8::/32", "exact"),
        ("http://bad.example/gate.php?x=1", "url", "bad.example/gate.php?x=1", "exact"),
        ("hxxps://bad[.]example:8443/A#frag", "url", "bad.example/A", "exact"),
        ("hxxp[://]bad.example", "url", "bad.example/", "exact"),
        ("http://bad.example?x", "url", "bad.example/?x", "exact"),
        ("bad.example/gate", "url", "bad.example/gate", "exact"),
        ("http://bad.example/ü", "url", "bad.example/%C3%BC", "exact"),
        ("http://bad.example//%64rop/./x/..?a=//%2f", "url", "bad.example/drop/?a=//%2F", "exact"),
        ("http://198.51.100.7/a", "url", "198.51.100.7/a", "exact"),
        ("http://[2001:db8::1]:80/a", "url", "[2001:db8::1]/a", "exact"),
    ],
)
def test_entries(line: str, kind: str, value: str, scope: str) -> None:
    indicator = one(line)
    assert (indicator.kind, indicator.value, indicator.scope, indicator.line) == (kind, value, scope, 1)
    assert indicator.source == "l.txt"


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "# only\n   # comments", "\ufeff# bom", "! AdBlock comment", "[Adblock Plus 2.0]",
     "127.0.0.1 localhost",
     "::1 ip6-localhost ip6-loopback", "fe80::1%lo0 localhost", "255.255.255.255 broadcasthost", "0.0.0.0 0.0.0.0"],
)  # fmt: skip
def test_lines_that_say_nothing(text: str) -> None:
    assert read(text) == ([], [])


def test_options() -> None:
    line = (
        'bad.example threat="some family" confidence=7 added=2026-01-02 expires=2026-01-03T00:00:00+09:00 '
        'ref=https://x.example/?a=b#c owner="the team # 5"   # comment'
    )
    found = one(line)
    assert found == Indicator(
        "domain", "bad.example", "registered", "", "bad.example", "* (unlisted)", "l.txt", 1, "some family", 7,
        1767312000, 1767366000, "https://x.example/?a=b#c", "the team # 5",
    )  # fmt: skip
    assert one("bad.example expires=2026-01-02T00:00Z").expires_s == 1767312000
    assert one("bad.example expires=2026-01-02T00:00:00").expires_s == 1767312000
    assert one("bad.example", default_threat="t", default_confidence=9)[8:10] == ("t", 9)


def test_line_numbers_bom_and_crlf() -> None:
    indicators, problems = read("\ufeffa.example\r\n\r\n# c\r\nb!.example\r\n*.c.example owner=x\r\n")
    assert [(one.value, one.line) for one in indicators] == [("a.example", 1), ("c.example", 5)]
    assert [(p.line, p.column) for p in problems] == [(4, 1)]


def test_repeats_are_left_out_and_the_first_is_kept() -> None:
    text = "a.example\na.example\nA.example.\n0.0.0.0 a.example\n" + 2 * "a.example threat=x\n" + 2 * "192.0.2.1\n"
    indicators, problems = read(text)
    assert problems == []
    assert [(one.value, one.threat, one.line) for one in indicators] == [
        ("a.example", "", 1), ("a.example", "x", 5), ("192.0.2.1", "", 7),
    ]  # fmt: skip
    assert [one.line for one in read("A.example\na.example")[0]] == [1]


def test_hosts_line_with_many_names() -> None:
    indicators, problems = read("0.0.0.0 a.example b.example localhost threat=x")
    assert problems == []
    assert [(one.value, one.threat) for one in indicators] == [("a.example", "x"), ("b.example", "x")]


@pytest.mark.parametrize(
    ("line", "scope", "narrowed"),
    [
        ("bad.example", "registered", ""),
        ("x.shared.example", "host", "shared.example is shared hosting (guard.txt:2: anyone can put a file there)"),
        ("shared.example", "host", "shared.example is shared hosting (guard.txt:2: anyone can put a file there)"),
        ("x.shared.example scope=registered force=yes", "host",
         "shared.example is shared hosting (guard.txt:2: anyone can put a file there)"),
        ("x.shared.example scope=exact", "exact", "the line says scope=exact"),
        # A guarded site listed whole keeps the guard's reason, whatever the scope, until the line says force=yes.
        ("shared.example scope=host", "host",
         "shared.example is shared hosting (guard.txt:2: anyone can put a file there)"),
        ("shared.example scope=exact", "exact",
         "shared.example is shared hosting (guard.txt:2: anyone can put a file there)"),
        ("*.shared.example", "host", "shared.example is shared hosting (guard.txt:2: anyone can put a file there)"),
        ("shared.example force=yes", "host",
         "the line says force=yes; shared.example is shared hosting (guard.txt:2: anyone can put a file there)"),
        ("x.ours.example", "host", "ours.example is one of your own domains"),
        ("*.bad.example", "host", "the line names a subtree"),
        ("github.io force=yes", "exact", "github.io is a public suffix (rule github.io (private))"),
        ("*.github.io force=yes", "exact", "github.io is a public suffix (rule github.io (private))"),
        ("com force=yes", "exact", "com is a public suffix (rule com)"),
        ("github.io scope=registered force=yes", "exact", "github.io is a public suffix (rule github.io (private))"),
    ],
)  # fmt: skip
def test_narrowing(line: str, scope: str, narrowed: str) -> None:
    found = one(line)
    assert (found.scope, found.narrowed) == (scope, narrowed)


def test_the_lists_scope() -> None:
    assert one("bad.example", default_scope="host")[2:4] == ("host", "the list says scope=host")
    assert one("bad.example scope=registered", default_scope="host")[2:4] == ("registered", "")
    with pytest.raises(ValueError, match="no such scope"):
        read("", default_scope="wide")


@pytest.mark.parametrize(
    ("line", "registered", "rule"),
    [
        ("a.b.bad.co.jp", "bad.co.jp", "co.jp"),
        ("x.tenant.github.io", "tenant.github.io", "github.io (private)"),
        ("a.b.c.cloud.example", "b.c.cloud.example", "*.cloud.example (private)"),
        ("http://x.tenant.github.io/a", "tenant.github.io", "github.io (private)"),
        ("http://198.51.100.7/a", "", ""),
        ("198.51.100.7", "", ""),
    ],
)
def test_registered_domain_and_rule(line: str, registered: str, rule: str) -> None:
    found = one(line)
    assert (found.registered_domain, found.suffix_rule) == (registered, rule)


@pytest.mark.parametrize(
    ("line", "column", "says", "advises"),
    [
        ("com", 1, "public suffix (rule com); it would block every site under com", "force=yes"),
        ("co.jp", 1, "rule co.jp", "force=yes"),
        ("any.ck", 1, "rule *.ck", "force=yes"),
        ("  github.io", 3, "would block every site under github.io", "force=yes"),
        ("github.io force=no", 1, "would block every site", "force=yes"),
        ("||github.io^", 1, "would block every site", "force=yes"),
        ("0.0.0.0 a.example github.io", 19, "would block every site", "force=yes"),
        ("localhost", 1, "single label", "in full"),
        ("intranet force=yes", 1, "single label", "in full"),
        ("bad!.example", 1, "not a legal name", "labels"),
        ("a..example", 1, "not a legal name", "labels"),
        ("a." * 130 + "example", 1, "not a legal name", "253"),
        ("bad.example,phish,2026", 1, "not a legal name", "the column with the names"),
        ('"bad.example";"phish"', 1, "not a legal name", "the column with the names"),
        ('"bad.example"', 1, "not a legal name", "without quotes"),
        ('alert dns any any -> any any (msg:"x"; sid:1;)', 1, "a rule of Suricata", "names that it looks for"),
        ("server:", 1, "a line of unbound's configuration", "dnsmasq or RPZ"),
        ('local-zone: "bad.example" always_nxdomain', 1, "a line of unbound's configuration", "dnsmasq or RPZ"),
        ("bad.example = phish", 13, "nothing before the =", "no spaces"),
        ("bad.example#case-17", 1, "not a legal name", "a space before the #"),
        ("bad\u2013site.example", 1, "U+2013 of a word processor", "plain -"),
        ("bad\u2011site.example", 1, "U+2011 of a word processor", "plain -"),
        ("\u201cbad.example\u201d", 1, "U+201C of a word processor", "no quotation marks"),
        ("bad.*.example", 1, "wildcard", "*.name"),
        ("*bad.example", 1, "wildcard", "*.name"),
        ("1.2.3", 1, "not an IPv4 address", "four numbers"),
        ("256.1.1.1", 1, "not an IPv4 address", "four numbers"),
        ("010.1.1.1", 1, "not an IPv4 address", "four numbers"),
        ("x.0x7f", 1, "not an IPv4 address", "four numbers"),
        ("2001:db8::g", 1, "not an address", "spelling"),
        ("bad.example:443", 1, "a port cannot be listed", '"bad.example"'),
        ("198.51.100.7:443", 1, "a port cannot be listed", '"198.51.100.7"'),
        ("198.51.100.7/24", 1, "address bits beyond its length", "198.51.100.0/24"),
        ("198.51.100.0/33", 1, "not a network", "192.0.2.0/24"),
        ("198.51.100.0/x", 1, "not a network", "192.0.2.0/24"),
        ("0.0.0.0/0 force=yes", 1, "too wide", "/8"),
        ("64.0.0.0/7", 1, "too wide", "/8"),
        ("2001:db8::/18", 1, "address bits beyond", "2001::/18"),
        ("2000::/18", 1, "too wide", "/19"),
        ("10.1.2.3", 1, "10.0.0.0/8 is protected (special.txt:1: private use, RFC 1918)", "force=yes"),
        ("10.1.0.0/16", 1, "special.txt:1", "force=yes"),
        ("192.0.2.0/24", 1, "resolvers.txt:3: public resolver", "force=yes"),
        ("192.0.2.53", 1, "192.0.2.53 is protected", "force=yes"),
        ("ff02::1", 1, "multicast", "force=yes"),
        ("64:ff9b::a00:1", 1, "private use", "force=yes"),
        ("::ffff:10.0.0.1", 1, "private use", "force=yes"),
        ("http://10.0.0.1/x", 1, "private use", "force=yes"),
        ("ftp://bad.example/x", 1, "only http and https", "host"),
        ("http//bad.example/x", 1, "not a URL", "http://"),
        ("http:/bad.example/x", 1, "not a URL", "http://"),
        ("HXXPS//bad.example", 1, "not a URL", "https://"),
        ("http://user@bad.example/x", 1, "user name", "@"),
        ("http://bad.example:0/x", 1, "not a host and port", "host:port"),
        ("http://bad.example:x/x", 1, "not a host and port", "host:port"),
        ("http:///x", 1, "not a legal name", "labels"),
        ("http://[2001:db8::1/x", 1, "host", "address"),
        ("http://bad.example/" + "a" * 2100, 1, "longer than 2048", "prefix"),
        ("never-block partner.example owner=a reason=b", 1, "never-block is an allowance", "--allow FILE"),
        ("bad.example other.example", 13, 'unexpected word "other.example"', "one indicator on a line"),
        ("198.51.100.1 other.example", 14, "unexpected word", "one indicator on a line"),
        ("bad.example threat=x stray", 22, 'unexpected word "stray"', "key=value"),
        ("bad.example  treat=x", 14, 'unknown option "treat"', 'did you mean "threat"?'),
        ("bad.example zzz=x", 13, 'unknown option "zzz"', "known options are scope"),
        ("bad.example scope=all", 13, 'scope= cannot be "all"', "registered or host or exact"),
        ("198.51.100.1 scope=host", 14, 'scope= cannot be "host"', "exact"),
        ("*.bad.example scope=exact", 15, "contradicts a subtree", "scope="),
        ("bad.example force=maybe", 13, "force= cannot be", "yes or no"),
        ("bad.example confidence=101", 13, "0 to 100", "confidence=75"),
        ("bad.example confidence=-1", 13, "0 to 100", "confidence=75"),
        ("bad.example confidence=٣", 13, "0 to 100", "confidence=75"),
        ("bad.example expires=tomorrow", 13, "not a date", "2030-01-31"),
        ("bad.example expires=2030-02-30", 13, "not a date", "2030-01-31"),
        ("bad.example expires=20300101", 13, "not a date", "2030-01-31"),
        ("bad.example added=2030-01-01T25:00", 13, "not a date", "2030-01-31"),
        ("bad.example added=2030-01-02 expires=2030-01-01", 30, "not after added=", "dates"),
        ("bad.example threat=", 13, "has no value", "leave the option out"),
        ('bad.example threat="a b', 13, "quotes", "threat="),
        ('bad.example threat="a"b', 13, "quotes", "threat="),
        ("bad.example threat=a threat=b", 22, "given twice", "one"),
        ("bad.example threat=a\x1bb", 13, "cannot be printed", "remove"),
        ("bad.example threat=" + "a" * 600, 13, "longer than 512", "shorten"),
        ("@@||bad.example^", 1, "exception", "ignore-indicator"),
        ("||bad.example^$third-party", 1, "AdBlock", "||name^"),
        ("a" * 5000, 4097, "longer than 4096", "one entry"),
    ],
)
def test_problems(line: str, column: int, says: str, advises: str) -> None:
    indicators, problems = read("# first\n" + line)
    assert indicators == []
    assert len(problems) == 1
    assert (problems[0].file, problems[0].line, problems[0].column) == ("l.txt", 2, column)
    assert says in problems[0].what
    assert advises in problems[0].advice
    assert str(problems[0]).isprintable()


def test_force_of_a_whole_list() -> None:
    indicators, problems = read("github.io\n10.1.2.3\nff00::/19\n0.0.0.0/0\ncom force=no\n", force=True)
    assert [one.value for one in indicators] == ["github.io", "10.1.2.3", "ff00::/19"]
    assert [problem.line for problem in problems] == [4, 5]


def test_a_thousand_malformed_lines_are_a_thousand_problems() -> None:
    wrong = [
        "com",
        "a b",
        "x!.example",
        "1.2.3",
        "a.example what=1",
        "a.example confidence=x",
        "10.0.0.0/7",
        "||x",
        "::z",
    ]
    lines = [wrong[number % len(wrong)] for number in range(1000)]
    indicators, problems = read("\n".join(lines))
    assert indicators == []
    assert [problem.line for problem in problems] == list(range(1, 1001))


def test_problems_and_good_lines_mix() -> None:
    indicators, problems = read("a.example\ncom\nb.example\nx!\nc.example\n")
    assert [one.line for one in indicators] == [1, 3, 5]
    assert [problem.line for problem in problems] == [2, 4]


WORDS = st.sampled_from(
    [
        "bad.example",
        "github.io",
        "com",
        "0.0.0.0",
        "192.0.2.1/24",
        "http://a.example/x",
        "||a.example^",
        "#",
        '"',
        "=",
        "*.",
    ]
    + [f"{key}=" for key in OPTIONS]
    + ["yes", "exact", "2030-01-01", "[.]", "ü", "::", "\t", " ", "\r", "\ufeff", "/", "@"]
)


@given(
    st.one_of(
        st.text(max_size=200), st.lists(WORDS, max_size=12).map("".join), st.lists(WORDS, max_size=12).map(" ".join)
    )
)
def test_any_text_gives_indicators_and_problems_in_bounds(text: str) -> None:
    lines = text.split("\n")
    for force in (False, True):
        indicators, problems = read(text, force=force)
        assert len(problems) <= len(lines)
        assert len({problem.line for problem in problems}) == len(problems)
        assert len(indicators) <= sum(max(1, len(line.split())) for line in lines)
        assert not {problem.line for problem in problems} & {one.line for one in indicators}
        for problem in problems:
            line = lines[problem.line - 1]
            assert 1 <= problem.column <= len(line) + 1
            assert problem.what
            assert problem.advice


NAMES = st.sampled_from(
    ["bad.example", "a.bad.example", "a.github.io", "github.io", "x.shared.example", "com", "a.b.c.co.jp"]
)
ENTRIES = st.one_of(
    NAMES,
    NAMES.map(lambda name: "*." + name),
    st.ip_addresses().map(str),
    st.ip_addresses(v=4).map(lambda addr: f"{addr}/32"),
    st.sampled_from(
        ["198.51.100.0/24", "2001:db8::/33", "http://bad.example/x?y=1", "http://[2001:db8::1]/", "http://192.0.2.9/"]
    ),
)
TEXTS = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"], exclude_characters='"'), min_size=1, max_size=20
)


@given(
    ENTRIES,
    st.fixed_dictionaries(
        {},
        optional={
            "threat": TEXTS, "ref": TEXTS, "owner": TEXTS,
            "confidence": st.integers(0, 100).map(str),
            "scope": st.sampled_from(["registered", "host", "exact"]),
            "expires": st.dates(min_value=date(2000, 1, 1)).map(str),
        },
    ),
)  # fmt: skip
def test_render_and_parse_agree(entry: str, options: dict[str, str]) -> None:
    line = " ".join([entry, *(f'{key}="{value}"' for key, value in options.items())])
    indicators, _ = read(line, force=True)
    for found in indicators:
        again, problems = read(render_indicator(found), force=True)
        assert problems == []
        assert len(again) == 1
        assert again[0]._replace(narrowed="") == found._replace(narrowed="")


def test_every_public_suffix_is_refused_with_its_line() -> None:
    """THREATS promise 6, of lists: what a rule with * covers is one too; rules with ! are exceptions."""
    ground = load_ground(default_config(), base_dir=Path())
    text = (SHIPPED / "public_suffix_list.dat").read_text(encoding="utf-8")
    rules = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith(("//", "!"))]
    lines = [rule.replace("*.", "any.") for rule in rules]
    found, problems = parse_list("\n".join(lines), "l.txt", ground.suffixes, ground.guard, protected=ground.protected)
    assert found == []
    assert [(one.file, one.line) for one in problems] == [("l.txt", number) for number in range(1, len(rules) + 1)]
    assert len(rules) > 10_000 and all("public suffix" in one.what or "single label" in one.what for one in problems)
