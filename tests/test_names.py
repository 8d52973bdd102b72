"""names: the normal and the escaped form, and registered domains against published vectors and two other readers."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.errors import ConfigError
from egressd.names import (
    MAX_CACHED_DOMAINS,
    MAX_CACHED_NAMES,
    MAX_ESCAPED_BYTES,
    UNLISTED,
    Suffixes,
    escape,
    from_labels,
    normalise,
    to_a_label,
)

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "egressd" / "intel" / "data" / "public_suffix_list.dat"
VECTORS = ROOT / "tests" / "data" / "test_psl.txt"

LEGAL = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@pytest.fixture(scope="module")
def suffixes() -> Suffixes:
    return Suffixes.parse(LIST.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"www.bad.example", "www.bad.example"),
        (b"WWW.Bad.Example", "www.bad.example"),
        (b"bad.example.", "bad.example"),
        (b"_dmarc.bad.example", "_dmarc.bad.example"),
        (b"-a-.example", "-a-.example"),
        (b"localhost", "localhost"),
        (b"a" * 63 + b".example", "a" * 63 + ".example"),
        (b".".join([b"a" * 49] * 5) + b".bcd", ".".join(["a" * 49] * 5) + ".bcd"),  # 253
        (b".".join([b"a" * 49] * 5) + b".bcd.", ".".join(["a" * 49] * 5) + ".bcd"),
        (b".".join([b"a" * 49] * 5) + b".bcde", ""),
        (b"a" * 64 + b".example", ""),
        (b"", ""),
        (b".", ""),
        (b"bad.example..", ""),
        (b".bad.example", ""),
        (b"bad..example", ""),
        (b"bad example", ""),
        (b"bad.example\n", ""),
        (b"bad.example\x00", ""),
        (b"b\xc3\xbccher.example", ""),
        (b"\xe2\x84\xaa.example", ""),  # the Kelvin sign lower-cases to k
        (b"[2001:db8::1]", ""),
        (b"*.bad.example", ""),
        (b"a." * 5000, ""),
    ],
)
def test_normalise(raw: bytes, name: str) -> None:
    assert normalise(raw) == name


@given(st.binary(max_size=300))
def test_normal_names_are_legal_and_stay_as_they_are(raw: bytes) -> None:
    name = normalise(raw)
    if name:
        assert LEGAL.fullmatch(name)
        assert len(name) <= 253
        assert normalise(name.encode()) == name
        assert raw.lower() in (name.encode(), name.encode() + b".")


@given(st.from_regex(r"\A[a-zA-Z0-9_-]{1,63}(\.[a-zA-Z0-9_-]{1,63}){0,3}\Z"))
def test_every_legal_name_has_a_normal_form(text: str) -> None:
    if len(text) <= 253:
        assert normalise(text.encode()) == text.lower()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain name-1_", "plain name-1_"),
        (b"a\\b", "a\\092b"),
        (b"\x00\x1b[31m\xff", "\\000\\027[31m\\255"),
        (b"\x7f~", "\\127~"),
        (b"", ""),
        (b"a" * 255, "a" * 255),
        (b"a" * 256, "a" * 255 + "..."),
    ],
)
def test_escape(raw: bytes, text: str) -> None:
    assert escape(raw) == text


@given(st.binary(max_size=400))
def test_escape_is_printable_and_can_be_undone(raw: bytes) -> None:
    text = escape(raw)
    assert text.isascii()
    assert text.isprintable()
    kept = raw[:MAX_ESCAPED_BYTES]
    if len(raw) > MAX_ESCAPED_BYTES:
        assert text.endswith("...")
        text = text[:-3]
    assert re.sub(r"\\(\d{3})", lambda found: chr(int(found[1])), text).encode("latin-1") == kept


@pytest.mark.parametrize(
    ("labels", "name", "raw"),
    [
        ([b"WWW", b"bad", b"example"], "www.bad.example", "WWW.bad.example"),
        ([b"bad", b"example", b""], "bad.example", "bad.example"),
        ([b"a.b", b"example"], "", "a\\046b.example"),
        ([b"a.b"], "", "a\\046b"),
        ([b"a", b"b."], "", "a.b\\046"),
        ([b"a\x00b", b"example"], "", "a\\000b.example"),
        ([b"a\\b", b"example"], "", "a\\092b.example"),
        ([], "", "."),
        ([b""], "", "."),
        ([b"a", b"", b"b"], "", "a..b"),
    ],
)
def test_from_labels(labels: list[bytes], name: str, raw: str) -> None:
    assert from_labels(labels) == (name, raw)


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=200))
def test_from_labels_is_bounded_and_never_takes_a_dotted_label_for_two(labels: list[bytes]) -> None:
    name, raw = from_labels(labels)
    assert len(raw) <= 4 * MAX_ESCAPED_BYTES + 3
    if name:
        assert name.split(".") == [label.decode().lower() for label in labels]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.EXAMPLE.", "xn--bcher-kva.example"),
        ("日本語。example", "xn--wgv71a119e.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("bad.example.", "bad.example"),
        ("ü..example", ""),
        ("ü" * 300, ""),
        ("ü" * 63 + ".example", ""),
        ("\ud800.example", ""),
        ("ü b.example", ""),
        ("", ""),
    ],
)
def test_to_a_label(text: str, name: str) -> None:
    assert to_a_label(text) == name


@given(st.text(max_size=80))
def test_to_a_label_takes_any_text(text: str) -> None:
    name = to_a_label(text)
    assert name == "" or normalise(name.encode()) == name


def vectors() -> list[tuple[str, str]]:
    found = re.findall(r"^checkPublicSuffix\('([^']*)', (null|'[^']*')\);", VECTORS.read_text(encoding="utf-8"), re.M)
    return [(name, "" if wanted == "null" else wanted.strip("'")) for name, wanted in found]


def test_vectors_are_read() -> None:
    assert len(vectors()) > 70


@pytest.mark.parametrize(("name", "wanted"), vectors())
def test_published_vectors(suffixes: Suffixes, name: str, wanted: str) -> None:
    normal = to_a_label(name)
    registered = suffixes.registered_domain(normal) if normal else ""  # a leading dot makes a name illegal
    assert registered == to_a_label(wanted)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("www.bad.com", ("bad.com", "com", "com")),
        ("bad.com", ("bad.com", "com", "com")),
        ("com", ("", "com", "com")),
        ("a.b.bad.co.jp", ("bad.co.jp", "co.jp", "co.jp")),
        ("a.tenant.github.io", ("tenant.github.io", "github.io", "github.io (private)")),
        ("github.io", ("", "github.io", "github.io (private)")),
        ("www.bad.ck", ("www.bad.ck", "bad.ck", "*.ck")),
        ("bad.ck", ("", "bad.ck", "*.ck")),
        ("a.www.ck", ("www.ck", "ck", "!www.ck")),
        ("ck", ("", "ck", UNLISTED)),
        ("x.city.kobe.jp", ("city.kobe.jp", "kobe.jp", "!city.kobe.jp")),
        ("x.y.kobe.jp", ("x.y.kobe.jp", "y.kobe.jp", "*.kobe.jp")),
        ("kobe.jp", ("kobe.jp", "jp", "jp")),
        (
            "x.y.compute.amazonaws.com",
            ("x.y.compute.amazonaws.com", "y.compute.amazonaws.com", "*.compute.amazonaws.com (private)"),
        ),
        ("compute.amazonaws.com", ("amazonaws.com", "com", "com")),
        ("www.bad.example", ("bad.example", "example", UNLISTED)),
        ("bad.xn--55qx5d.cn", ("bad.xn--55qx5d.cn", "xn--55qx5d.cn", "xn--55qx5d.cn")),
        ("example", ("", "example", UNLISTED)),
    ],
)
def test_split(suffixes: Suffixes, name: str, split: tuple[str, str, str]) -> None:
    assert suffixes.split(name) == split
    assert suffixes.registered_domain(name) == split[0]
    assert suffixes.is_suffix(name) is (split[0] == "")


def test_the_empty_name_is_nothing(suffixes: Suffixes) -> None:
    assert suffixes.registered_domain("") == ""
    assert not suffixes.is_suffix("")


def test_list_version_and_size(suffixes: Suffixes) -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", suffixes.version)
    assert suffixes.size > 9000


def rules_of_the_list() -> list[str]:
    """Every rule as written, A-label."""
    return [
        ".".join(
            part if part.isascii() else "xn--" + part.encode("punycode").decode() for part in line.split()[0].split(".")
        )
        for line in LIST.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("//")
    ]


RULES = frozenset(rules_of_the_list())
PARENTS = frozenset(rule.split(".", n)[n] for rule in RULES for n in range(1, rule.count(".") + 1))


def names_of_every_rule() -> list[str]:
    """Each rule's own suffix, one and two labels below it, and a name beside it."""
    names: set[str] = set()
    for rule in RULES:
        base = rule.removeprefix("!").removeprefix("*.")
        names.update((base, f"q9.{base}", f"r8.q9.{base}"))
        if "." in base:
            names.add("q9." + base.partition(".")[2])
        if rule[0] in "!*":
            names.add(f"s7.r8.q9.{base}")
    return sorted(names)


def split_by_the_book(name: str) -> tuple[str, str]:
    """publicsuffix.org/list, "Algorithm", step by step."""
    labels = name.split(".")
    longest = 1
    for n in range(1, len(labels) + 1):
        tail = ".".join(labels[-n:])
        if "!" + tail in RULES:
            longest = n - 1
            break
        if tail in RULES or ".".join(["*", *labels[-n:][1:]]) in RULES:
            longest = n
    registered = ".".join(labels[-longest - 1 :]) if longest < len(labels) else ""
    return registered, ".".join(labels[-longest:])


def test_same_as_the_published_algorithm_for_every_rule(suffixes: Suffixes) -> None:
    for name in names_of_every_rule():
        assert suffixes.split(name)[:2] == split_by_the_book(name), name


def test_same_as_tldextract_for_every_rule(suffixes: Suffixes) -> None:
    tldextract = pytest.importorskip("tldextract")
    extract = tldextract.TLDExtract(
        suffix_list_urls=(LIST.as_uri(),), cache_dir=None, include_psl_private_domains=True, fallback_to_snapshot=False
    )
    for name in names_of_every_rule():
        registered, suffix, rule = suffixes.split(name)
        if rule == UNLISTED:
            continue  # tldextract gives no suffix for these, the published algorithm gives the last label
        if rule.startswith("*.") and suffix in PARENTS:
            continue  # tldextract passes over a wildcard where a longer rule goes through the same label
        theirs = extract.extract_str(name)
        theirs_registered = f"{theirs.domain}.{theirs.suffix}" if theirs.domain else ""
        assert (registered, suffix) == (theirs_registered, theirs.suffix), name


def test_same_as_publicsuffixlist_for_every_rule(suffixes: Suffixes) -> None:
    other = pytest.importorskip("publicsuffixlist")
    with LIST.open(encoding="utf-8") as source:
        reader = other.PublicSuffixList(source=source, accept_unknown=True)
    for name in names_of_every_rule():
        if f"*.{name}" in RULES:
            continue  # it takes `*.a.b` to imply `a.b`, the published algorithm does not
        assert suffixes.registered_domain(name) == (reader.privatesuffix(name) or ""), name


def test_rule_text_names_a_rule_of_the_list(suffixes: Suffixes) -> None:
    text = LIST.read_text(encoding="utf-8")
    icann = set(text.partition("===END ICANN")[0].split())
    private = set(text.partition("===BEGIN PRIVATE")[2].split())
    for name in names_of_every_rule():
        rule = suffixes.split(name)[2]
        if rule == UNLISTED or "xn--" in rule:
            continue
        bare = rule.removesuffix(" (private)")
        assert bare in (private if rule != bare else icann), name


@pytest.mark.parametrize("text", ["", "// nothing\n", "com\na..b\n", "com\nx.*.com\n", "!com\n", "<html>\n"])
def test_a_list_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Suffixes.parse(text, "psl.dat")
    assert str(caught.value).startswith("psl.dat:")


@given(st.text(max_size=200))
def test_any_text_as_a_list_gives_rules_or_config_error(text: str) -> None:
    try:
        suffixes = Suffixes.parse(text)
    except ConfigError:
        return
    assert suffixes.size


LABELS = st.sampled_from(
    ["a", "b", "com", "ck", "www", "kobe", "jp", "city", "github", "io", "compute", "amazonaws", "co"]
)


@given(st.lists(LABELS, min_size=1, max_size=7))
def test_split_puts_the_name_back_together(suffixes: Suffixes, labels: list[str]) -> None:
    name = ".".join(labels)
    registered, suffix, rule = suffixes.split(name)
    assert rule
    assert name == suffix or name.endswith("." + suffix)
    if registered:
        assert registered == name or name.endswith("." + registered)
        assert registered.partition(".")[2] == suffix
        assert suffixes.split(registered) == (registered, suffix, rule)
    else:
        assert name == suffix


def test_rules_are_put_in_when_a_name_asks() -> None:
    """Whatever was asked before, and in another process; U-labels of the greatest length not checked at once."""
    hard = "\ud7ff\u00a1\ud7fe\u00a2\ud7fd\u00a3\ud7fc\u00a4\ud7fb"
    rules = ["com", "*.ck", "!www.ck", hard, f"{hard}.com", "*.a.com", "// ===BEGIN PRIVATE DOMAINS===", "hosted.com"]
    text = "\n".join(rules)
    label = "xn--" + hard.encode("punycode").decode()
    assert len(label) <= 63
    names = ["x.y.com", "x.hosted.com", f"x.y.{label}", f"x.y.{label}.com", "b.a.com", "c.b.a.com", "www.ck", "x.y.ck"]
    want = [
        ("y.com", "com", "com"),
        ("x.hosted.com", "hosted.com", "hosted.com (private)"),
        (f"y.{label}", label, label),
        (f"y.{label}.com", f"{label}.com", f"{label}.com"),
        ("", "b.a.com", "*.a.com"),
        ("c.b.a.com", "b.a.com", "*.a.com"),
        ("www.ck", "ck", "!www.ck"),
        ("x.y.ck", "y.ck", "*.ck"),
    ]
    for at in range(len(names)):
        suffixes = Suffixes.parse(text)
        assert suffixes.split(names[at]) == want[at]
        for again in (pickle.loads(pickle.dumps(suffixes)), Suffixes.from_grouped(suffixes.grouped())):
            assert (again.size, again.version) == (suffixes.size, suffixes.version)
            assert [again.split(name) for name in names] == want
        assert suffixes.has_suffixes_below("a.com") and suffixes.has_suffixes_below("ck")
        assert not suffixes.has_suffixes_below("y.com") and not suffixes.has_suffixes_below("unlisted")


def test_what_commands_read_is_the_list(suffixes: Suffixes) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_suffixes.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run scripts/generate_suffixes.py"
    shipped = Suffixes.from_grouped((LIST.parent / "suffixes.txt").read_text(encoding="ascii"))
    assert (shipped.size, shipped.version) == (suffixes.size, suffixes.version)
    for name in names_of_every_rule():
        assert shipped.split(name) == suffixes.split(name)
        assert shipped.has_suffixes_below(name) == suffixes.has_suffixes_below(name)


def test_names_under_one_registered_domain_share_what_is_said_of_them() -> None:
    suffixes = Suffixes.parse("// ===BEGIN ICANN DOMAINS===\nexample\n*.wide.example\n// ===END ICANN DOMAINS===\n")
    one = suffixes.split("www.a.example")
    assert one == ("a.example", "example", "example")
    for name in (
        "x.y.a.example",
        "a.example",
    ):  # compiled code makes a tuple anew of what it is asked, of the same parts
        assert all(said is before for said, before in zip(suffixes.split(name), one, strict=True))
    assert suffixes.split("x.b.c.wide.example")[0] == "b.c.wide.example"
    assert suffixes.split("example") == ("", "example", "example")
    assert suffixes.split("c.wide.example") == ("", "c.wide.example", "*.wide.example")  # "" is nothing to share
    for number in range(3 * MAX_CACHED_DOMAINS):
        assert suffixes.split(f"www.n{number}.example")[0] == f"n{number}.example"
        assert len(suffixes._domains) <= MAX_CACHED_DOMAINS


def test_a_flood_of_names_turns_the_cache_over_within_its_bound() -> None:
    suffixes = Suffixes.parse("// ===BEGIN ICANN DOMAINS===\nexample\n// ===END ICANN DOMAINS===\n")
    most = 0
    for number in range(3 * MAX_CACHED_NAMES):
        assert suffixes.split(f"www.n{number}.example")[0] == f"n{number}.example"
        most = max(most, len(suffixes._known) + len(suffixes._leaving))
    assert most <= MAX_CACHED_NAMES + 1
    assert len(suffixes._leaving) <= 1
