"""allowances: the four kinds, what each covers, and what a line must say."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.config.document import parse_config
from egressd.config.load import load_intel
from egressd.intel.allowances import Allowance, Allowances, parse_allowances
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.intel.networks import parse_address
from egressd.names import Suffixes

SUFFIXES = Suffixes.parse("com\nco.jp\njp\n// ===BEGIN PRIVATE DOMAINS===\ngithub.io\n")
WHY = ' owner=alice reason="as agreed"'
NOW_S = 1_800_000_000


def allowances(*lines: str) -> Allowances:
    found, problems = parse_allowances("\n".join(line + WHY for line in lines), "a.txt", SUFFIXES)
    assert problems == []
    return Allowances(found)


def packed(text: str) -> bytes:
    return parse_address(text)


def line_of(found: Allowance | None) -> int:
    return found.line if found else 0


def test_every_field() -> None:
    line = 'allow-destination Good.Example client=192.0.2.0/28 owner=bob reason="the lab" expires=2030-01-31 # x'
    text = f"\ufeff# c\r\n{line}\r\n"
    found, problems = parse_allowances(text, "a.txt", SUFFIXES)
    assert problems == []
    assert found == [
        Allowance("allow-destination", "good.example", "192.0.2.0/28", "bob", "the lab", 1896048000, "a.txt", 2)
    ]


@pytest.mark.parametrize(
    ("value", "listed", "ignored"),
    [
        ("bad.example", "bad.example", True), ("bad.example", "www.bad.example", False),
        ("www.bad.example", "bad.example", False), ("BAD[.]example", "bad.example threat=x", True),
        ("198.51.100.7", "198.51.100.7", True), ("198.51.100.0/24", "198.51.100.7", False),
        ("198.51.100.0/24", "198.51.100.0/24", True), ("http://bad.example/x", "bad.example/x", True),
        ("http://bad.example/x", "bad.example", False), ("com", "com force=yes", True),
    ],
)  # fmt: skip
def test_ignore_indicator(value: str, listed: str, ignored: bool) -> None:
    indicator = parse_list(listed, "l.txt", SUFFIXES, Guard({}, {}))[0][0]
    assert (allowances("ignore-indicator " + value).ignores_indicator(indicator, NOW_S) is not None) is ignored


@pytest.mark.parametrize(
    ("lines", "name", "server", "client", "line"),
    [
        (["allow-destination good.example"], "good.example", "", "10.0.0.1", 1),
        (["allow-destination good.example"], "a.b.good.example", "", "10.0.0.1", 1),
        (["allow-destination good.example"], "notgood.example", "", "10.0.0.1", 0),
        (["allow-destination a.good.example"], "good.example", "", "10.0.0.1", 0),
        (["allow-destination *.good.example"], "a.good.example", "", "10.0.0.1", 1),
        (["allow-destination 198.51.100.0/24"], "bad.example", "198.51.100.7", "10.0.0.1", 1),
        (["allow-destination 198.51.100.0/24"], "", "64:ff9b::198.51.100.7", "10.0.0.1", 1),
        (["allow-destination 198.51.100.7"], "", "198.51.100.8", "10.0.0.1", 0),
        (["allow-destination 2001:db8::/64"], "", "2001:db8::9", "10.0.0.1", 1),
        (["allow-destination good.example client=10.0.0.0/24"], "good.example", "", "10.0.0.1", 1),
        (["allow-destination good.example client=10.0.0.0/24"], "good.example", "", "10.0.1.1", 0),
        (["allow-destination good.example client=10.0.0.1"], "good.example", "", "fd00::1", 0),
        (["allow-destination good.example client=::/64"], "good.example", "", "", 0),
        (["allow-destination n.example client=10.0.0.1", "allow-destination n.example"], "n.example", "", "fd00::1", 2),
        (["allow-destination github.io"], "x.github.io", "", "10.0.0.1", 1),
        (["never-block good.example", "ignore-client 10.0.0.1"], "good.example", "", "10.0.0.1", 0),
    ],
)  # fmt: skip
def test_allow_destination(lines: list[str], name: str, server: str, client: str, line: int) -> None:
    assert line_of(allowances(*lines).allows(name, packed(server), packed(client), NOW_S)) == line


def test_mapped_addresses_are_what_packets_carry() -> None:
    found, _ = parse_allowances(
        'never-block ::ffff:198.51.100.0/120 owner=a reason="as a sensor wrote it"\n', "allow.txt", SUFFIXES
    )
    assert Allowances(found).never_blocks("", parse_address("198.51.100.7"), 0) is not None


def test_what_is_allowed_is_allowed_behind_the_networks_own_nat64(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"never-block 198.51.100.7{WHY}\n")
    config, _ = parse_config('allow: [a.txt]\nnat64_prefixes: ["2001:db8:64::/96"]\n', "e.yaml")
    allowances = load_intel(config, base_dir=tmp_path).intel.allowances
    for again in (allowances, pickle.loads(pickle.dumps(allowances))):  # as a packet process is told
        for address, kept in (("2001:db8:64::c633:6407", True), ("64:ff9b::c633:6407", True), ("2001:db8::7", False)):
            assert (again.never_blocks("", parse_address(address), 0) is not None) is kept


def test_the_widest_that_people_use_are_taken() -> None:
    text = "".join(f"ignore-client {one}{WHY}\n" for one in ("10.0.0.0/8", "fc00::/7"))
    assert [one.value for one in parse_allowances(text, "a.txt", SUFFIXES)[0]] == ["10.0.0.0/8", "fc00::/7"]


def test_ignore_client() -> None:
    found = allowances("ignore-client 10.0.0.0/24", "ignore-client 2001:db8::5")
    assert line_of(found.ignores_client(packed("10.0.0.9"), NOW_S)) == 1
    assert line_of(found.ignores_client(packed("2001:db8::5"), NOW_S)) == 2
    assert found.ignores_client(packed("10.0.1.9"), NOW_S) is None
    assert found.ignores_client(b"", NOW_S) is None


def test_never_block() -> None:
    found = allowances("never-block good.example", "never-block 198.51.100.0/24")
    assert line_of(found.never_blocks("www.good.example", b"", NOW_S)) == 1
    assert line_of(found.never_blocks("bad.example", packed("198.51.100.1"), NOW_S)) == 2
    assert found.never_blocks("bad.example", packed("192.0.2.1"), NOW_S) is None
    assert found.never_blocks("", b"", NOW_S) is None


def test_the_kinds_do_not_stand_for_each_other() -> None:
    found = allowances("ignore-indicator good.example", "allow-destination good.example")
    assert found.never_blocks("good.example", b"", NOW_S) is None
    assert found.ignores_client(packed("10.0.0.1"), NOW_S) is None


def test_expiry_uncovers_what_lasts() -> None:
    found = allowances(
        "allow-destination good.example expires=1970-01-01T00:01:00Z",
        "never-block good.example expires=1970-01-01T00:01:00Z",
        "ignore-client 10.0.0.1 expires=1970-01-01T00:01:00Z",
        "ignore-indicator bad.example expires=1970-01-01T00:01:00Z",
        "never-block example.com",
    )
    indicator = parse_list("bad.example", "l.txt", SUFFIXES, Guard({}, {}))[0][0]
    for now_s, applies in ((59, True), (60, False)):
        assert (found.allows("good.example", b"", packed("10.0.0.1"), now_s) is not None) is applies
        assert (found.never_blocks("good.example", b"", now_s) is not None) is applies
        assert (found.ignores_client(packed("10.0.0.1"), now_s) is not None) is applies
        assert (found.ignores_indicator(indicator, now_s) is not None) is applies
    assert found.never_blocks("example.com", b"", NOW_S) is not None


@pytest.mark.parametrize(
    ("line", "column", "says"),
    [
        ("allow good.example" + WHY, 1, 'unknown allowance "allow"'),
        ("good.example" + WHY, 1, "unknown allowance"),
        ("never-block", 1, "names nothing"),
        ("never-block good.example owner=x", 1, "no reason="),
        ("never-block good.example reason=x", 1, "no owner="),
        ("never-block good.example client=10.0.0.1" + WHY, 26, 'unknown option "client"'),
        ("never-block http://good.example/x" + WHY, 13, "takes no URL"),
        ("never-block co.jp" + WHY, 13, "would cover every site under co.jp"),
        ("allow-destination com" + WHY, 19, "would cover every site under com"),
        ("allow-destination intranet" + WHY, 19, "would cover every site"),
        ("allow-destination 0.0.0.0/0" + WHY, 19, "switch everything off"),
        ("ignore-client ::/0" + WHY, 15, "switch everything off"),
        ("ignore-client 128.0.0.0/1" + WHY, 15, "switch most of it off"),
        ("never-block 2000::/3" + WHY, 13, "switch most of it off"),
        ("allow-destination ::ffff:0:0/96" + WHY, 19, "switch everything off"),
        ("ignore-client good.example" + WHY, 15, "not a client's address"),
        ("ignore-client 10.0.0.1/24" + WHY, 15, "address bits beyond"),
        ("allow-destination good.example client=x.example" + WHY, 32, "not a client's address"),
        ("allow-destination good.example expires=soon" + WHY, 32, "not a date"),
        ("allow-destination a!.example" + WHY, 19, "not a legal name"),
        ("never-block good.example other.example" + WHY, 26, "unexpected word"),
    ],
)
def test_problems(line: str, column: int, says: str) -> None:
    found, problems = parse_allowances("# c\n" + line, "a.txt", SUFFIXES)
    assert found == []
    assert [(problem.file, problem.line, problem.column) for problem in problems] == [("a.txt", 2, column)]
    assert says in problems[0].what
    assert problems[0].advice


WORDS = st.sampled_from(
    ["ignore-indicator", "allow-destination", "ignore-client", "never-block", "good.example", "10.0.0.1", "::/0", "#",
     '"', "owner=x", "reason=y", "client=10.0.0.1", "client=", "expires=2030-01-01", "\t"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=8).map(" ".join)))
def test_any_text_gives_one_answer_a_line_at_most(text: str) -> None:
    found, problems = parse_allowances(text, "a.txt", SUFFIXES)
    assert len(found) + len(problems) <= text.count("\n") + 1
    Allowances(found).allows("good.example", packed("10.0.0.1"), packed("10.0.0.1"), NOW_S)
