"""What is poison in a feed, when a version is refused whole, and that nothing poisoned ever comes through."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.config.feed_options import FeedOptions
from egressd.config.load import SHIPPED
from egressd.errors import Problem
from egressd.intel.allowances import Allowances, parse_allowances
from egressd.intel.feeds.reading import read
from egressd.intel.guard import Guard
from egressd.intel.index import Index
from egressd.intel.networks import parse_network
from egressd.intel.poison import (
    ALLOWED,
    BAD_LINE,
    EMPTY,
    GROWN,
    MAX_SHOWN,
    PAGE,
    POISONED,
    PROTECTED,
    SHARED,
    SHRUNK,
    SUFFIX,
    TRUNCATED,
    UNREADABLE,
    Bounds,
    Counts,
    Poison,
    Verdict,
    judge,
    sift,
    sniff,
)
from egressd.intel.protected import Protected
from egressd.names import Suffixes

LIST = (SHIPPED / "public_suffix_list.dat").read_text(encoding="utf-8")
SUFFIXES = Suffixes.parse(LIST)
GUARD, _ = Guard.parse(
    (SHIPPED / "guard.txt").read_text(encoding="utf-8"), SUFFIXES, popular="1,popular.com\n2,far.com", popular_limit=1,
    own=["ours.com"],
)  # fmt: skip
PROTECTED_NETWORKS, _ = Protected.parse((SHIPPED / "special_purpose.txt").read_text(encoding="utf-8"))
NOW_S = 1_700_000_000
ALLOWANCES = """\
never-block partner.com owner=o reason=vpn
allow-destination files.vendor.com owner=o reason=updates
allow-destination 203.0.112.0/28 owner=o reason=mail
allow-destination lab.com owner=o reason=analysis client=192.0.2.7
never-block gone.com owner=o reason=past expires=2020-01-01
ignore-indicator known.com owner=o reason=sinkhole
"""
ALLOWED_BY_US, PROBLEMS = parse_allowances(ALLOWANCES, "allow.txt", SUFFIXES)
POISON = Poison(SUFFIXES, GUARD, PROTECTED_NETWORKS, Allowances(ALLOWED_BY_US), NOW_S)
DEFAULT = Bounds()
GOOD = "".join(f"c2.bad{number}.com\n" for number in range(100))


def verdict(text: str, before: Counts | None = None, bounds: Bounds = DEFAULT) -> Verdict:
    return judge(text, read(text, "f", FeedOptions(), SUFFIXES, GUARD), POISON, before, bounds)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("com", SUFFIX), ("co.uk", SUFFIX), ("github.io", SUFFIX), ("*.github.io", SUFFIX), ("co.uk force=yes", SUFFIX),
        ("kawasaki.jp", SUFFIX), ("*.kawasaki.jp", SUFFIX), ("http://co.uk/x", ""), ("kawasaki.jp scope=exact", ""),
        ("popular.com", SHARED), ("www.popular.com", SHARED), ("popular.com scope=exact", SHARED), ("far.com", ""),
        ("popular.com force=yes", SHARED), ("*.popular.com", SHARED), ("http://popular.com/", SHARED),
        ("http://www.popular.com", SHARED), ("http://popular.com/evil.exe", ""), ("evil.popular.com", ""),
        ("github.com", SHARED), ("ours.com", SHARED), ("host.ours.com", ""),
        ("partner.com", ALLOWED), ("vpn.partner.com", ALLOWED), ("http://vpn.partner.com/x", ALLOWED),
        ("vendor.com", ALLOWED), ("vendor.com scope=exact", ""), ("c2.vendor.com", ""), ("files.vendor.com", ALLOWED),
        ("203.0.112.7", ALLOWED), ("203.0.112.0/24", ALLOWED), ("203.0.112.16", ""),
        ("64:ff9b::cb00:7000/120", ALLOWED), ("64:ff9b::cb00:7010/124", ""), ("http://203.0.112.7/", ALLOWED),
        ("lab.com", ""), ("gone.com", ""),
        ("127.0.0.1", PROTECTED), ("10.0.0.0/8", PROTECTED), ("192.168.1.1", PROTECTED), ("::1", PROTECTED),
        ("::ffff:127.0.0.1", PROTECTED), ("64:ff9b::a00:1", PROTECTED), ("http://127.0.0.1/x", PROTECTED),
        ("10.0.0.1 force=yes", PROTECTED), ("93.184.216.34", ""), ("c2.evil.com", ""),
    ],
)  # fmt: skip
def test_lines(line: str, kind: str) -> None:
    assert PROBLEMS == []
    found = verdict(GOOD + line + "\n")
    assert not found.refused
    if kind:
        (one,) = found.quarantined
        assert (one.line, one.kind, found.poisoned, len(found.indicators)) == (101, kind, 1, 100), one
        assert one.reason and one.reason.isprintable()
    else:
        assert found.quarantined == () and len(found.indicators) == 101


def test_a_line_that_a_person_ignores_is_left_out_without_a_word() -> None:
    found = verdict(GOOD + "known.com\n")
    assert (len(found.indicators), found.ignored, found.poisoned) == (100, 1, 0)


def test_every_public_suffix_is_refused_with_its_line() -> None:
    """THREATS promise 6. Rules with ! are no suffixes: they are exceptions from one."""
    rules = [line.split()[0] for line in LIST.splitlines() if line.strip() and not line.startswith("//")]
    rules = [rule for rule in rules if not rule.startswith("!")]
    assert len(rules) > 9_000
    text = "\n".join(rules) + "\n"
    found = sift(text, read(text, "f", FeedOptions(), SUFFIXES, GUARD), POISON)
    assert found.indicators == ()
    assert {one.line for one in found.quarantined} == set(range(1, len(rules) + 1)) and len(rules) < MAX_SHOWN
    whole = verdict(text)
    assert whole.refused == POISONED or whole.refused == UNREADABLE
    assert whole.indicators == ()


# -- the whole version


@pytest.mark.parametrize(
    ("text", "before", "bounds", "refused"),
    [
        ("", None, Bounds(), EMPTY),
        ("", Counts(100, True), Bounds(), EMPTY),
        ("", Counts(1, True), Bounds(allow_empty=True), ""),
        ("", Counts(100, True), Bounds(allow_empty=True), SHRUNK),
        ("# only\n\n", None, Bounds(), EMPTY),
        ("\ufeff <!doctype html><p>x", None, Bounds(), PAGE),
        ("<?xml version='1.0'?>", None, Bounds(), PAGE),
        ('{"error": 1}', None, Bounds(), PAGE),
        ('[{"a": 1}]', None, Bounds(), PAGE),
        ("[Adblock Plus 2.0]\n||c2.bad.com^\n", None, Bounds(), ""),
        (GOOD[:-1], None, Bounds(), ""),  # many lists have no last line end
        (GOOD[:-1], Counts(100, False), Bounds(), ""),
        (GOOD[:-1], Counts(100, True), Bounds(), TRUNCATED),
        (GOOD + "c2.bad.c-", None, Bounds(), ""),
        (GOOD + "c2..", None, Bounds(), TRUNCATED),
        (GOOD + "no name!\n", None, Bounds(), ""),
        (GOOD + "no name!\nnor this!\n", None, Bounds(), UNREADABLE),
        ("no name!\n" * 10, None, Bounds(), UNREADABLE),
        (GOOD, Counts(200, True), Bounds(), SHRUNK),
        (GOOD, Counts(199, True), Bounds(), ""),
        (GOOD, Counts(199, True), Bounds(shrink_percent=40), SHRUNK),
        (GOOD, Counts(10, True), Bounds(), GROWN),
        (GOOD, Counts(11, True), Bounds(), ""),
        (GOOD, Counts(11, True), Bounds(grow_times=9), GROWN),
        (GOOD, Counts(0, True), Bounds(), ""),
        ("c2.bad.com\n", Counts(20, True), Bounds(), ""),  # 19 fewer is little
        ("c2.bad.com\n", Counts(21, True), Bounds(), SHRUNK),
        (GOOD + "popular.com\n", None, Bounds(quarantine_most=0), POISONED),
        (GOOD + "".join(f"10.0.0.{n}\n" for n in range(11)), None, Bounds(), ""),
        (GOOD + "".join(f"10.0.0.{n}\n" for n in range(12)), None, Bounds(), POISONED),  # over one in ten
        (GOOD + "".join(f"10.0.0.{n}\n" for n in range(6)), None, Bounds(quarantine_most=5), POISONED),
        ("popular.com\n", None, Bounds(), POISONED),
        ("partner.com\n", None, Bounds(allow_empty=True), POISONED),
    ],
)
def test_versions(text: str, before: Counts | None, bounds: Bounds, refused: str) -> None:
    found = verdict(text, before, bounds)
    assert found.refused == refused, found.reason
    assert bool(found.reason) == bool(refused)
    if refused:
        assert found.indicators == ()


def test_one_in_a_thousand_is_borne_in_a_large_feed() -> None:
    many = "".join(f"h.x{number}.com\n" for number in range(30_000))
    assert verdict(many + "".join(f"10.0.1.{n}\n" for n in range(30))).refused == ""
    assert verdict(many + "".join(f"10.0.1.{n}\n" for n in range(31))).refused == POISONED


def test_networks_that_hold_half_the_internet_are_no_list_of_it() -> None:
    """As many lines as before, each a provider: every server that anybody turns to would be listed."""
    wide = [f"{high}.{low}.0.0/16\n" for high in range(20, 37) for low in range(256)]
    assert verdict("".join(wide[:4_096])).refused == ""
    found = verdict("".join(wide))
    assert (found.refused, found.indicators) == (POISONED, ())
    assert found.reason == "its networks hold 285,212,672 addresses, more than a sixteenth of all there are"
    translated = [f"64:ff9b::{high:x}{low:02x}:0/112\n" for high in range(20, 37) for low in range(256)]
    assert verdict("".join(translated)).reason == found.reason
    wider = "".join(f"{high}.0.0.0/8\n" for high in range(20, 60))
    assert verdict(wider).refused == "", "which alert, and are never blocked without a person"


def test_reading_ends_when_it_is_hopeless() -> None:
    read_so_far = 0

    def endless() -> object:
        nonlocal read_so_far
        while True:
            read_so_far += 1
            yield Problem("f", read_so_far, 1, "not a name")

    found = judge("x\n" * 1_000, endless(), POISON)  # type: ignore[arg-type]
    assert (found.refused, found.bad_lines, read_so_far) == (UNREADABLE, 12, 12)
    assert {one.kind for one in found.quarantined} == {BAD_LINE}


def test_what_a_reader_says_beside_is_counted() -> None:
    text = GOOD
    found = judge(text, [*read(text, "f", FeedOptions(), SUFFIXES, GUARD), object()], POISON)
    assert (found.ignored, len(found.indicators), found.refused) == (1, 100, "")


def test_json_is_expected_of_json_formats_only() -> None:
    assert sniff('{"a": 1}') and not sniff('{"a": 1}', json_expected=True)
    assert sniff("a.com\n", json_expected=True) and not sniff("a.com\n") and not sniff("")
    assert sniff("<html>", json_expected=True)


def _threatfox(number: int) -> str:
    return f'"{number}":[{{"ioc_value":"c2.bad{number}.com","ioc_type":"domain","threat_type":"botnet_cc"}}]'


@pytest.mark.parametrize("glue", [",", ",\n"])
@pytest.mark.parametrize("broken", ['"x":[{"ioc_value":"c2.', '"x":[{"reference":"\\x"}]', '"x" [],'])
@pytest.mark.parametrize("ending", ["", "}", "\n}\n"])
def test_json_that_breaks_off_is_refused_whole(glue: str, broken: str, ending: str) -> None:
    """What stood behind it would be taken for withdrawn."""
    records = [_threatfox(number) for number in range(200)]
    before = Counts(250, True)
    feed = FeedOptions(format="threatfox")
    for known in (None, before):
        text = "{" + glue.join([*records, broken, *records[:50]]) + ending
        found = judge(text, read(text, "f", feed, SUFFIXES, GUARD), POISON, known, json_expected=True)
        assert (found.refused, found.counts.indicators) == (TRUNCATED, 200), found.reason
        assert "nothing behind that is read" in found.reason
    whole = "{" + glue.join(records) + "}"
    assert judge(whole, read(whole, "f", feed, SUFFIXES, GUARD), POISON, before, json_expected=True).refused == ""


def test_a_broken_event_among_others_spoils_itself() -> None:
    events = [
        f'{{"Event":{{"Attribute":[{{"type":"domain","to_ids":true,"value":"c2.bad{number}.com"}}]}}}}\n'
        for number in range(200)
    ]
    for at in (100, 200):
        text = "".join([*events[:at], '{"Event":{"Attribute":[}}\n', *events[at:]])
        found = judge(text, read(text, "f", FeedOptions(format="misp"), SUFFIXES, GUARD), POISON, json_expected=True)
        assert (found.refused, len(found.indicators), found.bad_lines) == ("", 200, 1)
    alone = '{"response":[' + ",".join(events).replace("\n", "")[:-4]
    found = judge(alone, read(alone, "f", FeedOptions(format="misp"), SUFFIXES, GUARD), POISON, json_expected=True)
    assert found.refused == TRUNCATED


@pytest.mark.parametrize("form", ["misp", "suricata"])
def test_json_that_is_cut_off_is_refused_though_each_line_stands_for_itself(form: str) -> None:
    """What stood behind it would be taken for withdrawn: of 200 events 80 were missing, and one was told as broken."""
    events = [
        f'{{"Event":{{"Attribute":[{{"type":"domain","to_ids":true,"value":"c2.bad{number}.com"}}]}}}}'
        if form == "misp"
        else f'{{"value":"c2.bad{number}.com"}}'
        for number in range(200)
    ]
    head = '{"response":[\n' if form == "misp" else '{"data":[\n'
    for text in ("\n".join(events) + "\n", "[\n" + ",\n".join(events) + "\n]", head + ",\n".join(events) + "\n]}\n"):
        whole = judge(text, read(text, "f", FeedOptions(format=form), SUFFIXES, GUARD), POISON, json_expected=True)
        assert (whole.refused, whole.counts.indicators) == ("", 200)
        at = text.index("bad120")
        for cut in (text[:at], text[: text.index("\n", at)], text[: text.index("\n", at) + 1]):
            if cut[-2:] == "}\n" or cut[-1] == "}":
                continue  # whole lines, which nothing tells from a text that ends there
            found = judge(cut, read(cut, "f", FeedOptions(format=form), SUFFIXES, GUARD), POISON, json_expected=True)
            assert found.refused == TRUNCATED, (found.reason, cut[-40:])


@pytest.mark.parametrize(
    "broken",
    [
        '{"value":"c2."x"}',
        '{"value":"c2',
        '{"value":[' + "[" * 5_000,
        '{"value"',
        '{"value":"x.bad.com"}}',
        "{",
        '{"a":1,}',
    ],
)
def test_a_broken_line_among_others_spoils_itself(broken: str) -> None:
    """Of 2,000 lines of JSON one that was broken kept a feed from all new versions."""
    lines = [f'{{"value":"c2.bad{number}.com"}}\n' for number in range(2_000)]
    for at in (0, 1, 1_000, 2_000):
        text = "".join([*lines[:at], broken + "\n", *lines[at:]])
        found = judge(
            text, read(text, "f", FeedOptions(format="suricata"), SUFFIXES, GUARD), POISON, json_expected=True
        )
        assert (found.refused, found.counts.indicators - ("x.bad" in broken)) == ("", 2_000), found.reason
        assert 1 <= found.bad_lines <= 2 and {one.line - at for one in found.quarantined} <= {1, 2}


NAMES = st.sampled_from(
    ["popular.com", "co.uk", "partner.com", "vpn.partner.com", "vendor.com", "10.0.0.1", "127.0.0.0/8", "c2.bad.com",
     "*.com", "www.popular.com", "kawasaki.jp", "2002:7f00:1::", "http://127.0.0.1/", "github.io", "ours.com", "x y"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES | st.text(max_size=30) | st.ip_addresses().map(str), max_size=30), st.booleans())
def test_nothing_poisoned_comes_through(lines: list[str], sifted: bool) -> None:
    text = "\n".join(lines)
    read_so_far = read(text, "f", FeedOptions(), SUFFIXES, GUARD)
    found = sift(text, read_so_far, POISON) if sifted else judge(text, read_so_far, POISON)
    index = Index.build(found.indicators, SUFFIXES)
    for name in ("popular.com", "www.popular.com", "good.co.uk", "partner.com", "vpn.partner.com", "files.vendor.com"):
        assert index.match_name(name, NOW_S) is None
    assert index.match_name("city.kawasaki.jp", NOW_S) is None
    for one in found.indicators:
        network = parse_network(one.value)
        assert network is None or not PROTECTED_NETWORKS.why_network(*network)
    for one in found.quarantined:
        assert one.reason.isprintable() and 1 <= one.line <= text.count("\n") + 1
