"""Configuration files good and bad, each error at its place; the text files they name; arbitrary bytes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressd.config import document, load, yaml_text
from egressd.config.document import parse_config
from egressd.config.guard_options import GuardOptions
from egressd.config.load import (
    LoadedIntel,
    default_config,
    load_config,
    load_intel,
    rank_names,
)
from egressd.config.schema import Config, every_option
from egressd.config.settings import policy_settings, volume_settings
from egressd.errors import ConfigError, Problem
from egressd.intel.networks import parse_address

ROOT = Path(__file__).resolve().parent.parent.parent
NOW_S = 1_700_000_000


def _problems(text: str) -> list[str]:
    return [str(problem) for problem in parse_config(text, "e.yaml")[1]]


GOOD = """\
mode: enforce
lists: [a.txt, "b/*.txt"]
allow:
  - allow.txt
segments:
  office: [10.1.0.0/16, 2001:db8:1::/48]
  lab: [10.2.0.7]
resolvers: [10.0.0.53, "2001:DB8::53", "::ffff:10.0.0.54"]
protected: [192.0.2.1, 198.51.100.0/24]
own_domains: [Ours.Example., bücher.example]
guard: {popular_file: top.csv, popular_top: 5_000, file: guard.txt}
suffix_list: psl.dat
nat64_prefixes: ["2001:db8:64::/96"]
policy:
  block_confidence: 70
  shared_after: 5
limits:
  conversations: 131072
"""


def test_every_kind_of_value() -> None:
    config, problems = parse_config(GOOD, "e.yaml")
    assert problems == []
    assert config.mode == "enforce" and config.lists == ("a.txt", "b/*.txt") and config.allow == ("allow.txt",)
    assert config.segments == {"office": ("10.1.0.0/16", "2001:db8:1::/48"), "lab": ("10.2.0.7",)}
    assert config.resolvers == ("10.0.0.53", "2001:db8::53", "10.0.0.54")
    assert config.protected == ("192.0.2.1", "198.51.100.0/24")
    assert config.own_domains == ("ours.example", "xn--bcher-kva.example")
    assert config.guard == GuardOptions("top.csv", 5000, "guard.txt")
    assert config.nat64_prefixes == ("2001:db8:64::/96",) and config.suffix_list == "psl.dat"
    assert config.policy.block_confidence == 70 and config.policy.blocks_per_hour == 200
    assert config.limits.conversations == 131072 and config.limits.history == 131072
    assert policy_settings(config)[:3] == ("enforce", 70, 5)
    assert config.places["lists[1]"] == (2, 16) and config.places["allow[0]"] == (4, 5)


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "~", "{}", "lists:\n", "policy:\n", "segments:\nallow: []\n"]
)
def test_nothing_is_the_default(text: str) -> None:
    assert parse_config(text, "e.yaml") == (default_config(), [])


# One bad file per kind of error: text, and what is said, from the line on.
BAD: list[tuple[str, str, str]] = [
    ("unknown key", "mod: monitor\n", '1:1: mod: unknown key; did you mean "mode"? known keys are mode, modes, lists'),
    ("hyphen", "a: 1\nown-domains: []\n", '2:1: own-domains: unknown key; did you mean "own_domains"?'),
    ("other section", "blocks_per_hour: 1\n", '1:1: blocks_per_hour: unknown key; did you mean "policy.blocks_per_h'),
    ("key far off", "policy:\n  zzz: 1\n", "2:3: policy.zzz: unknown key; known keys are file, block_confidence, sh"),
    ("key twice", "mode: monitor\nlists: []\nmode: enforce\n", "3:1: mode: is given twice, first on line 1; keep one"),
    ("key twice inside", "limits: {history: 2048, history: 4096}\n", "1:25: limits.history: is given twice, first on"),
    ("key no", "no: 1\n", '1:1: key: needs text, not no, which YAML reads as false; quote it: "no"'),
    ("merge key", "<<: {mode: enforce}\n", '1:1: key: needs text, not something with the tag !!merge; quote it: "<<"'),
    ("list as root", "- mode\n", "1:1: needs keys with values, not a list; write key: value, such as mode: monitor"),
    ("text as root", "monitor\n", '1:1: needs keys with values, not text ("monitor"); write key: value'),
    ("text as section", "policy: strict\n", '1:9: policy: needs keys with values, not text ("strict"); write key: v'),
    ("choice", "mode: enforced\n", '1:7: mode: cannot be "enforced"; did you mean "enforce"? It is one of monitor, '),
    ("choice far off", "mode: 'x'\n", '1:7: mode: cannot be "x"; it is one of monitor, approve, enforce'),
    ("no as text", "mode: no\n", '1:7: mode: needs text, not no, which YAML reads as false; quote it: "no"'),
    ("truth as text", "mode: true\n", '1:7: mode: needs text, not the truth value true; quote it: "true"'),
    ("octal as text", "lists: [010]\n", '1:9: lists[0]: needs text, not 010, which YAML reads as the number 8 (in oct'),
    ("time as text", "lists:\n  - 12:30:00\n", "2:5: lists[0]: needs text, not 12:30:00, which YAML reads as the num"),
    ("address in base 60", "resolvers:\n- 1:2:3:4:5:6:7:8\n", "2:3: resolvers[0]: needs text, not 1:2:3:4:5:6:7:8, "),
    ("number as text", "mode: 7\n", '1:7: mode: needs text, not the number 7; quote it: "7"'),
    ("hex as text", "mode: 0x_\n", '1:7: mode: needs text, not 0x_, which YAML reads as a number; quote it: "0x_"'),
    ("no number", "mode: !!int ''\n", "1:7: mode: needs text, not '', which YAML reads as a number; write text"),
    ("fraction as text", "own_domains: [1.5]\n", '1:15: own_domains[0]: needs text, not the fraction 1.5; quote it'),
    ("date as text", "lists: [2030-01-31]\n", "1:9: lists[0]: needs text, not 2030-01-31, which YAML reads as a d"),
    ("nothing as text", "mode:\n", "1:6: mode: needs text, not nothing; write text, or take the line out"),
    ("colon at end", "protected:\n- 2001:db8::\n", "2:3: protected[0]: needs text, not keys with values; quote text"),
    ("list as text", "suffix_list: [a]\n", "1:14: suffix_list: needs text, not a list; write text, or take the line"),
    ("text as list", "lists: a.txt\n", '1:8: lists: needs a list, not text ("a.txt"); write [one, two], or a line wit'),
    ("mapping as list", "allow: {a: b}\n", "1:8: allow: needs a list, not keys with values; write [one, two], or a"),
    ("no as number", "policy: {shared_after: no}\n", "1:24: policy.shared_after: needs a whole number, not no, whi"),
    ("quoted number", 'limits:\n  history: "4096"\n', '2:12: limits.history: needs a whole number, not text ("4096"'),
    ("fraction as number", "policy:\n  shared_after: 3.5\n", "2:17: policy.shared_after: needs a whole number, not t"),
    ("octal", "policy:\n  shared_after: 010\n", "2:17: policy.shared_after: 010 is read by YAML as the number 8 (in "),
    ("base 60", "policy:\n  shared_after: 1:30\n", "2:17: policy.shared_after: 1:30 is read by YAML as the number 90 "),
    ("hexadecimal", "policy:\n  shared_after: 0x10\n", "2:17: policy.shared_after: 0x10 is read by YAML as the numbe"),
    ("list as number", "limits:\n  history: [1]\n", "2:12: limits.history: needs a whole number, not a list; write a"),
    ("too small", "limits:\n  history: 12\n", "2:12: limits.history: 12 is out of bounds; write a whole number of 1"),
    ("too large", "policy: {block_confidence: 101}\n", "1:28: policy.block_confidence: 101 is out of bounds; write a"),
    ("negative", "policy: {blocks_per_hour: -1}\n", "1:27: policy.blocks_per_hour: -1 is out of bounds; write a who"),
    ("address", "resolvers: [10.0.0.53, 10.0.0.256]\n", '1:24: resolvers[1]: not an address: "10.0.0.256"; write an '),
    ("network as address", "resolvers: [10.0.0.0/8]\n", '1:13: resolvers[0]: not an address: "10.0.0.0/8"; write a'),
    ("network", "protected:\n- 10.0.0.0/33\n", '2:3: protected[0]: not an address or network: "10.0.0.0/33"; write '),
    ("host bits", "protected: [10.0.0.1/8]\n", '1:13: protected[0]: "10.0.0.1/8" has address bits beyond its length;'),
    ("protects all", 'protected: ["::/0"]\n', "1:13: protected[0]: ::/0 is everything; name networks of /8 (IPv4) or "),
    ("remedy for all", "enforce: {remedies: [128.0.0.0/1]}\n", "1:22: enforce.remedies[0]: 128.0.0.0/1 is most of wh"),
    ("no volume", "volume: {except_networks: [0.0.0.0/0]}\n", "1:28: volume.except_networks[0]: 0.0.0.0/0 is every"),
    ("listening", 'metrics: {address: "[::1]"}\n', '1:20: metrics.address: not an address: "[::1]"; write an IPv4 '),
    ("listening port", 'metrics: {address: "::1:9/1"}\n', '1:20: metrics.address: not an address: "::1:9/1"; write a'),
    ("interface", "capture: {interfaces: [eth0, a/b]}\n", '1:30: capture.interfaces[1]: not the name of an interfac'),
    ("interface blank", "capture: {interfaces: [lan 1]}\n", '1:24: capture.interfaces[0]: not the name of an interfac'),
    ("interface colon", 'capture: {interfaces: ["eth0:1"]}\n', "1:24: capture.interfaces[0]: not the name of an inter"),
    ("interface dots", "capture: {interfaces: [..]}\n", '1:24: capture.interfaces[0]: not the name of an interface: "'),
    ("long interface", f"capture: {{interfaces: [{'e' * 16}]}}\n", '1:24: capture.interfaces[0]: "eeeeeeeeeeeeeee'),
    ("name", "own_domains: [a..b]\n", '1:15: own_domains[0]: not a legal name: "a..b"; labels are 1 to 63 letters, '),
    ("wildcard", 'own_domains: ["*.a.example"]\n', '1:15: own_domains[0]: a wildcard cannot stand here: "*.a.example'),
    ("single label", "own_domains: [com]\n", '1:15: own_domains[0]: "com" is a single label; write the name in full'),
    ("NAT64", "nat64_prefixes: [10.0.0.0/8]\n", '1:18: nat64_prefixes[0]: not a NAT64 prefix: "10.0.0.0/8"; write '),
    ("empty path", 'lists: [""]\n', "1:9: lists[0]: is empty; write a path or take it out"),
    ("control", 'lists: ["a\\0b"]\n', '1:9: lists[0]: holds characters that cannot be printed: "a\\000b"; take t'),
    ("surrogate", 'lists: ["\\ud800"]\n', "1:9: lists[0]: holds characters that cannot be printed: "),
    ("long text", f"suffix_list: {'a' * 1025}\n", "1:14: suffix_list: is longer than 1024 characters; shorten it"),
    ("segment twice", "segments:\n  a: [10.0.0.0/8]\n  b: [10.0.0.0/8]\n", "3:6: segments.b[0]: 10.0.0.0/8 is in seg"),
    ("segment's name", f"segments:\n  {'x' * 65}: []\n", f"2:3: segments.{'x' * 65}: a segment's name has 1 to 64 ch"),
    ("segment no", "segments:\n  no: [10.0.0.0/8]\n", "2:3: segments: key: needs text, not no, which YAML reads as"),
    ("segment as list", "segments: [10.0.0.0/8]\n", "1:11: segments: needs keys with values, not a list; write key"),
    ("segment as text", "segments: {a: 10.0.0.0/8}\n", '1:15: segments.a: needs a list, not text ("10.0.0.0/8"); wr'),
    ("segment's network", "segments: {a: [10.0.0.0/8, x]}\n", '1:28: segments.a[1]: not an address or network: "x"; w'),
    ("segment of all", "segments: {all: [0.0.0.0/0]}\n", "1:18: segments.all[0]: 0.0.0.0/0 is everybody; outsiders wo"),
    ("segment of half", "segments: {a: [128.0.0.0/1]}\n", "1:16: segments.a[0]: 128.0.0.0/1 is far more than yours; "),
    ("segment of IPv6", 'segments: {a: ["2000::/3"]}\n', "1:16: segments.a[0]: 2000::/3 is far more than yours; outs"),
    ("segment around", 'segments: {a: ["fc00::/6"]}\n', "1:16: segments.a[0]: fc00::/6 is far more than yours; outs"),
    ("tag", "mode: !mine monitor\n", "1:7: mode: needs text, not something with the tag !mine; write text, or ta"),
    ("Python tag", "lists: !!python/tuple [a]\n", "1:8: lists: needs a list, not something with the tag !!python/tu"),
    ("binary", "mode: !!binary aGk=\n", '1:7: mode: needs text, not something with the tag !!binary; quote it: "aGk'),
    ("set", "policy: !!set {shared_after}\n", "1:9: policy: needs keys with values, not something with the tag !!se"),
    ("bracket", "lists: [a\nmode: monitor\n", "2:5: not YAML: while parsing a flow sequence, expected ',' or ']'"),
    ("tab", "policy:\n\tshared_after: 3\n", "2:1: not YAML: while scanning for the next token, found character "),
    ("quote", 'lists: ["a\n', "2:1: not YAML: while scanning a quoted scalar, found unexpected end of stream; check i"),
    ("indentation", "mode: monitor\n lists: []\n", "2:7: not YAML: mapping values are not allowed here; check the i"),
    ("asterisk", "lists:\n- *.txt\n", "2:4: not YAML: while scanning an alias, expected alphabetic or numeric char"),
    ("at sign", "lists: [@a]\n", "1:9: not YAML: while scanning for the next token, found character '@' that canno"),
    ("unknown alias", "lists: *a\n", "1:8: not YAML: found undefined alias 'a'; quote text that begins with a sign"),
    ("two documents", "mode: monitor\n---\nmode: enforce\n", "2:1: not YAML: expected a single document in the stre"),
    ("escape", 'mode: "\\UFFFFFFFF"\n', "1:10: not YAML: an escape or a directive cannot be read; write the text wit"),
    ("control character", "mode: monitor\n# \x07\n", "2:3: not YAML: the character U+0007 is not allowed; take it out"),
    ("deep", "lists: " + "[" * 20 + "]" * 20, "1:23: not YAML: nested deeper than 16 levels; no option needs that"),
    ("many aliases", "lists: [&a x" + ", *a" * 65 + "]", "1:271: not YAML: more than 64 aliases (*name); write less"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_error_and_its_place(text: str, said: str) -> None:
    assert any(problem.startswith("e.yaml:" + said) for problem in _problems(text)), _problems(text)


def test_segments_as_wide_as_one_owner_has() -> None:
    text = 'segments: {a: [10.0.0.0/8, 100.64.0.0/10, "fc00::/7", "fe80::/10", 44.0.0.0/8, "2630::/16"]}\n'
    assert _problems(text) == []
    assert _problems("tags: {anyone: [0.0.0.0/0]}\n") == []  # makes nobody a host of ours


def test_every_problem_is_told_in_order() -> None:
    text = (
        "limits: {history: 1}\nmode: no\nlists: x\nbogus: 1\npolicy:\n  shared_after: '3'\n"
        "resolvers: [x, 10.0.0.1, y]\n"
    )
    assert [problem.split(": ")[0] for problem in _problems(text)] == [
        "e.yaml:1:19", "e.yaml:2:7", "e.yaml:3:8", "e.yaml:4:1", "e.yaml:6:17", "e.yaml:7:13", "e.yaml:7:26",
    ]  # fmt: skip


def test_what_is_wrong_has_its_default() -> None:
    config, problems = parse_config("mode: x\nlists: [a.txt]\nlimits: {history: 1, conversations: 2048}\n", "e.yaml")
    assert len(problems) == 2
    assert (config.mode, config.lists, config.limits.history, config.limits.conversations) == (
        "monitor", ("a.txt",), 131072, 2048,
    )  # fmt: skip


def test_aliases_within_bounds_are_read() -> None:
    config, problems = parse_config("protected: &mine [10.0.0.1]\nresolvers: *mine\n", "e.yaml")
    assert problems == [] and config.resolvers == ("10.0.0.1",)


def test_alias_bomb_and_recursion_end() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghi"))
    assert all("unknown key" in problem for problem in _problems(bomb))
    assert _problems("lists: &a [*a]\n") == [
        "e.yaml:1:8: lists[0]: needs text, not a list; write text, or take the line out"
    ]


def test_problems_and_nodes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _problems("resolvers: [" + "x," * 1200 + "]")
    assert len(told) == document.MAX_PROBLEMS + 1 and "more than 1000 problems" in told[-1]
    monkeypatch.setattr(yaml_text, "MAX_NODES", 1000)
    told = _problems("resolvers: [" + "x," * 1200 + "]")
    assert len(told) == 1 and "more than 1000 values" in told[0]


# -- files


def _write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _refused(path: Path) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return caught.value.problems


def test_file_with_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    config = load_config(_write(tmp_path / "e.yaml", b"\xef\xbb\xbfmode: enforce\r\nlists: [a]\r\n"))
    assert config.mode == "enforce" and config.origin == str(tmp_path / "e.yaml")


@pytest.mark.parametrize(
    ("content", "place", "said"),
    [
        (b"mode: monitor\n# caf\xe9\n", (2, 6), "the byte 0xE9 is not UTF-8"),
        (b"# caf\xc3\xa9 \xff\n", (1, 8), "the byte 0xFF is not UTF-8"),
        (b"\xef\xbb\xbf# caf\xc3\xa9 \xff\n", (1, 8), "the byte 0xFF is not UTF-8"),
        (b"\xef\xbb\xbf# caf\xc3\xa9\r\n\xfe\xff\n", (2, 1), "the byte 0xFE is not UTF-8"),
        (b"mode: monitor\nx\0\n", (2, 2), "a zero byte"),
        ("mode: monitor\n".encode("utf-16"), (0, 0), "is UTF-16 text"),
        (b"\x1f\x8b\x08\0", (0, 0), "is compressed"),
        (b"#" * ((1 << 20) + 1), (0, 0), "is larger than 1 MB"),
    ],
)
def test_file_that_is_no_text(tmp_path: Path, content: bytes, place: tuple[int, int], said: str) -> None:
    problems = _refused(_write(tmp_path / "e.yaml", content))
    assert [(one.file, one.line, one.column) for one in problems] == [(str(tmp_path / "e.yaml"), *place)]
    assert said in problems[0].what and problems[0].advice


def test_file_that_is_not_there(tmp_path: Path) -> None:
    (missing,) = _refused(tmp_path / "none.yaml")
    assert missing.what == "does not exist" and missing.line == 0
    (folder,) = _refused(tmp_path)
    assert folder.what == "is not a file"
    os.mkfifo(tmp_path / "pipe")
    assert _refused(tmp_path / "pipe")[0].what == "is not a file"  # and does not wait for a writer
    assert "cannot be read" in _refused(Path("a\0b"))[0].what


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_arbitrary_bytes_raise_only_config_errors(tmp_path: Path, content: bytes) -> None:
    with contextlib.suppress(ConfigError):
        load_config(_write(tmp_path / "e.yaml", content))


KEYS = st.sampled_from([option.name for option in every_option()] + ["no", "x", "<<", "010"])
SCALARS = st.one_of(
    st.sampled_from(
        ["no", "010", "1:2:3", "0x_", "2030-01-31", "~", "10.0.0.1", "a.example", '"', "&a", "*a", "!!int x"]
    ),
    st.text(alphabet="abc:#[]{}&*!|>'\"%@`\\-, \t\n0x19.~é\u2028", max_size=12),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(KEYS, inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=5))
def test_text_near_yaml_gives_a_config_and_problems(entries: list[tuple[str, str]]) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in entries)
    config, problems = parse_config(text, "e.yaml")
    lines = text.count("\n") + text.count("\u2028") + 2
    assert all(problem.file == "e.yaml" and 0 <= problem.line <= lines for problem in problems)
    assert all(str(problem).isprintable() for problem in problems)
    if not problems:
        assert parse_config(text, "e.yaml") == (config, [])


# -- the text files that a configuration names


def _load(folder: Path, text: str = "", extra: tuple[Path, ...] = ()) -> LoadedIntel:
    config, problems = parse_config(text, "e.yaml")
    assert problems == []
    return load_intel(config, extra, base_dir=folder)


def _told(loaded: LoadedIntel) -> list[str]:
    return [str(problem) for problem in loaded.problems]


def test_without_any_list_the_demonstration_list(tmp_path: Path) -> None:
    loaded = _load(tmp_path)
    loaded.check()
    assert loaded.demo and [one.name for one in loaded.lists] == ["demo.txt"] and loaded.lists[0].indicators > 0
    invented = {"tools-update-2015.github.io"}  # a tenant of a real shared suffix: there is none among reserved names
    for one in loaded.intel.index.indicators:
        assert one.value.endswith(".example") or one.value in invented
    assert loaded.intel.suffixes.size > 5_000 and loaded.guard.size > 100
    assert loaded.intel.resolvers.operator(parse_address("8.8.8.8"))
    assert loaded.intel.protected.why(parse_address("127.0.0.1"))


def test_lists_in_order_each_once(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.txt", "b/skip.csv", "a.txt"):
        _write(tmp_path / name, f"{name[:-4].replace('/', '-')}.example\n")
    extra = _write(tmp_path / "extra.txt", "x.bad.example\ny.bad.example\n")
    loaded = _load(tmp_path, 'lists: [a.txt, "b/*.txt", b/1.txt]', (extra, extra))
    loaded.check()
    assert loaded.lists == (("a.txt", 1, 0), ("b/1.txt", 1, 0), ("b/2.txt", 1, 0), (str(extra), 2, 0))
    assert not loaded.demo
    match = loaded.intel.index.match_name("z.bad.example", NOW_S)
    assert match is not None and match.level == "sibling" and match.indicator.source == str(extra)
    assert load_intel(default_config(), (extra,), base_dir=tmp_path).demo is False


def test_every_problem_of_every_file(tmp_path: Path) -> None:
    _write(tmp_path / "a.txt", "good.example\nbad..example\ncom\n10.0.0.1\n")
    _write(tmp_path / "allow.txt", "never-block good.example owner=me\n")
    _write(tmp_path / "latin.txt", b"x.example # \xe9\n")
    loaded = _load(
        tmp_path,
        'lists: [a.txt, none.txt, latin.txt]\nallow: [allow.txt, "no/*.txt"]\nsuffix_list: none.dat\n'
        "own_domains: [co.uk]\nguard: {file: none.txt, popular_file: none.csv}\n",
        (tmp_path / "extra.txt",),
    )
    told = _told(loaded)
    for start in (
        'e.yaml:3:14: suffix_list: "none.dat" does not exist; looked for ',
        "e.yaml:4:15: own_domains[0]: co.uk is a public suffix",
        'e.yaml:5:15: guard.file: "none.txt" does not exist',
        'e.yaml:5:39: guard.popular_file: "none.csv" does not exist',
        'a.txt:2:1: not a legal name: "bad..example"',
        'a.txt:3:1: "com" is a ',
        "a.txt:4:1: 10.0.0.1 may not be listed: ",
        'e.yaml:1:16: lists[1]: "none.txt" does not exist',
        "latin.txt:1:13: the byte 0xE9 is not UTF-8",
        f"{tmp_path}/extra.txt: does not exist",
        "allow.txt:1:1: never-block good.example has no reason=",
        'e.yaml:2:20: allow[1]: no file matches "no/*.txt"',
    ):
        assert sum(line.startswith(start) for line in told) == 1, (start, told)
    assert len(told) == 12
    assert loaded.lists == (("a.txt", 1, 3),)
    with pytest.raises(ConfigError) as caught:
        loaded.check()
    assert caught.value.problems == loaded.problems
    assert loaded.intel.suffixes.is_suffix("co.uk") and loaded.guard.size > 100  # the shipped ones stand in


def test_a_folder_that_is_closed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lists would be given free; and the daemon, which looks twice a second, must not end of it."""
    (tmp_path / "d").mkdir()
    assert _told(_load(tmp_path, 'lists: ["d/*.txt"]\n')) == []

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "stat", refuse)
    config = Config(lists=("d/*.txt",))
    assert load.list_paths(config, tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(os, "scandir", refuse)
    told = _told(_load(tmp_path, 'lists: ["d/*.txt"]\n'))
    what = 'the folder of "d/*.txt" cannot be read: Permission denied; check its permissions'
    assert told == [f"e.yaml:1:9: lists[0]: {what}"]


@pytest.mark.parametrize("address", ["https://lists.example/c2.txt", "HTTP://lists.example/?list=c2"])
def test_a_list_on_the_web_is_a_feed(tmp_path: Path, address: str) -> None:
    """As Pi-hole has it; it was looked for as a file in a folder `https:`."""
    what = f'"{address}" is an address on the web, no file; fetch it first, or name it under feeds: (docs/feeds.md)'
    assert _told(_load(tmp_path, f"lists: ['{address}']\n")) == [f"e.yaml:1:9: lists[0]: {what}"]


SECTIONS = (
    "// ===BEGIN ICANN DOMAINS===\n{}// ===END ICANN DOMAINS===\n"
    "// ===BEGIN PRIVATE DOMAINS===\n{}// ===END PRIVATE DOMAINS===\n"
)


def test_replaced_suffix_list_and_guard(tmp_path: Path) -> None:
    _write(tmp_path / "psl.dat", SECTIONS.format("example\n", "tenants.example\n"))
    _write(tmp_path / "guard.txt", "shared.example category=hosting # by test\n")
    _write(tmp_path / "l.txt", "a.b.tenants.example\nbad.shared.example\nbad.top.example\nbad.our.example\n")
    _write(tmp_path / "top.txt", "# names\nfirst.example\n\nx.top.example\nlate.example\n")
    loaded = _load(
        tmp_path,
        "lists: [l.txt]\nsuffix_list: psl.dat\nown_domains: [our.example]\n"
        "guard: {file: guard.txt, popular_file: top.txt, popular_top: 2}\n",
    )
    loaded.check()
    assert loaded.guard.size == 4
    assert loaded.guard.why("top.example") == ("top.example is among the 2 most popular names (top.txt:4: rank 2)")
    assert [(one.registered_domain, one.scope) for one in loaded.intel.index.indicators] == [
        ("b.tenants.example", "registered"), ("shared.example", "host"), ("top.example", "host"),
        ("our.example", "host"),
    ]  # fmt: skip


def test_suffix_list_that_is_none(tmp_path: Path) -> None:
    _write(tmp_path / "psl.dat", SECTIONS.format("ok.example\na..b\n", ""))
    (told,) = _told(_load(tmp_path, "suffix_list: psl.dat"))
    assert told.startswith("psl.dat:3:1: not a rule of the Public Suffix List")


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        ("evil.example\n", "===BEGIN ICANN DOMAINS==="),
        ("// ===BEGIN ICANN DOMAINS===\ncom\nco.j", "===END ICANN DOMAINS==="),
        ("// ===BEGIN ICANN DOMAINS===\ncom\n// ===END ICANN DOMAINS===\n", "===BEGIN PRIVATE DOMAINS==="),
        (SECTIONS.format("com\n", "github.io\n")[:-29], "===END PRIVATE DOMAINS==="),
    ],
)
def test_a_suffix_list_that_is_cut_off_is_refused(tmp_path: Path, kept: str, missing: str) -> None:
    """Without the rule co.uk a listed bbc.co.uk stands for all of co.uk: half of a download, or a wrong file, would
    have blocked countries."""
    _write(tmp_path / "psl.dat", kept)
    loaded = _load(tmp_path, "suffix_list: psl.dat")
    what = (
        f'psl.dat: is no whole Public Suffix List: it has no line "// {missing}"; fetch it again from publicsuffix.org'
    )
    assert _told(loaded) == [what]
    assert loaded.intel.suffixes.registered_domain("www.bbc.co.uk") == "bbc.co.uk"


def test_popular_names_with_and_without_rank(tmp_path: Path) -> None:
    assert rank_names("1,a.example\r\n2,b.example\r\n") == "1,a.example\r\n2,b.example\r\n"
    assert rank_names("# top\n\na.example\nb.example\n") == "# top\n\n1,a.example\n2,b.example\n"
    assert rank_names("") == ""
    _write(tmp_path / "top.txt", "a.example\nb..example\n")
    (told,) = _told(_load(tmp_path, "guard: {popular_file: top.txt}"))
    assert told.startswith('top.txt:2:1: not a legal name: "b..example"')


def test_own_resolvers_and_protected_are_protected(tmp_path: Path) -> None:
    protected = _load(
        tmp_path, "resolvers: [192.0.2.53]\nprotected: [198.51.100.0/24]\nnat64_prefixes: ['2001:db8:64::/96']\n"
    ).intel.protected
    assert "own resolver, e.yaml:1: resolvers[0]" in protected.why(parse_address("192.0.2.53"))
    assert "e.yaml:2: protected[0]" in protected.why(parse_address("198.51.100.9"))
    assert "protected[0]" in protected.why(parse_address("2001:db8:64::198.51.100.9"))


def test_allowances_reach_detection(tmp_path: Path) -> None:
    _write(tmp_path / "allow.txt", "never-block partner.example owner=me reason=test\n")
    loaded = _load(tmp_path, "allow: [allow.txt]")
    loaded.check()
    assert loaded.allowances == 1
    kept = loaded.intel.allowances.never_blocks("www.partner.example", b"", NOW_S)
    assert kept is not None and kept.source == "allow.txt"


def test_list_over_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MAX_LIST_BYTES", 1 << 20)
    _write(tmp_path / "l.txt", b"a" * ((1 << 20) + 1))
    assert _told(_load(tmp_path, "lists: [l.txt]")) == [
        'e.yaml:1:9: lists[0]: "l.txt" is larger than 1 MB; split it or take a shorter one'
    ]


def test_names_of_files_are_shown_safely(tmp_path: Path) -> None:
    _write(tmp_path / "a\x1b[31m.txt", "bad..example\n")
    _write(tmp_path / "b[1].txt", "good.example\n")
    loaded = _load(tmp_path, 'lists: ["a*.txt", "b[1].txt"]')
    assert [one.name for one in loaded.lists] == ["a\\027[31m.txt", "b[1].txt"]
    assert all(line.isprintable() for line in _told(loaded))


def test_list_from_a_pipe(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"bad.example\n")
    os.close(writer)
    try:
        loaded = load_intel(Config(), (Path(f"/dev/fd/{reader}"),), base_dir=tmp_path)
    finally:
        os.close(reader)
    assert loaded.problems == [] and loaded.lists == ((f"/dev/fd/{reader}", 1, 0),)


def test_yaml_is_imported_only_for_a_file() -> None:
    code = "import sys, egressd.config.load; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


SOCKETS = "control:\n  socket: {}\nsensors:\n  own: {{format: dnstap, path: {}}}\n"


def test_a_socket_whose_path_the_kernel_does_not_take(tmp_path: Path) -> None:
    """The daemon started for that, and then ended."""
    path = tmp_path / "egressd.yaml"
    longest = 107 - len(str(tmp_path)) - 1
    path.write_text(SOCKETS.format("c" * (longest - 4), "d" * longest))
    config = load_config(path)
    with socket.socket(socket.AF_UNIX) as control, socket.socket(socket.AF_UNIX) as dnstap:
        control.bind(f"{tmp_path / config.control.socket}.new")  # as web.control has it
        dnstap.bind(str(tmp_path / config.sensors["own"].path))
    path.write_text(SOCKETS.format("c" * (longest - 3), "d" * (longest + 1)))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    control_too, dnstap_too = caught.value.problems
    assert (control_too.line, control_too.column) == (2, 11)
    assert control_too.what == "control.socket: is 104 bytes long with its folder, and a socket's path has 103 at most"
    assert (dnstap_too.line, "sensors.own.path: is 108 bytes" in dnstap_too.what) == (4, True)
    path.write_text('control: {socket: ""}\n')
    with pytest.raises(ConfigError, match=r":1:19: control\.socket: is empty"):
        load_config(path)


def test_an_exception_for_a_segment_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "egressd.yaml"
    path.write_text("segments: {lab: [10.1.0.0/24]}\nvolume:\n  except_segments: [lab, office]\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (problem,) = caught.value.problems
    assert (problem.line, "there is no segment office" in problem.what) == (3, True)


@pytest.mark.parametrize("name", ["server room", "Halle 3/4"])
def test_an_exception_takes_every_name_that_a_segment_may_have(tmp_path: Path, name: str) -> None:
    """Those with spaces or slashes were taken under `segments:` and refused here."""
    path = tmp_path / "egressd.yaml"
    path.write_text(f'segments: {{"{name}": [10.1.0.0/24]}}\nvolume:\n  except_segments: ["{name}"]\n')
    config = load_config(path)
    assert config.volume.except_segments == (name,)
    assert volume_settings(config).except_clients.longest(parse_address("10.1.0.7")) == ""


# -- shared ranges

CLOUDFLARE = "104.16.1.1"


def _shared(loaded: LoadedIntel, address: str) -> str:
    return loaded.intel.shared.why(parse_address(address))


def test_shared_ranges_are_the_shipped_ones_and_those_that_are_named(tmp_path: Path) -> None:
    _write(tmp_path / "ranges" / "a.txt", "192.0.2.0/25 operator=Ours # hosting\n")
    _write(tmp_path / "plain.txt", "104.16.0.0/16\n")
    both = _load(tmp_path, 'guard: {shared_ranges: [shipped, "ranges/*.txt", plain.txt]}\n')
    assert _told(both) == []
    assert _shared(both, "192.0.2.7") == "in 192.0.2.0/25, a shared range of Ours (ranges/a.txt:1)"
    assert _shared(both, CLOUDFLARE) == "in 104.16.0.0/16, a shared range (plain.txt:1)"
    assert "of Fastly" in _shared(both, "151.101.1.1")
    assert [one.name for one in both.files] == ["ranges/a.txt", "plain.txt"]
    assert _shared(_load(tmp_path), CLOUDFLARE).endswith("(shared_ranges.txt:20)")
    only = _load(tmp_path, "guard: {shared_ranges: [plain.txt]}\n")
    assert _shared(only, "151.101.1.1") == "" and _shared(only, CLOUDFLARE)
    assert _shared(_load(tmp_path, "guard: {shared_ranges: []}\n"), CLOUDFLARE) == ""


def test_mistakes_in_shared_ranges_and_files_that_are_not_there(tmp_path: Path) -> None:
    _write(tmp_path / "plain.txt", "104.16.0.0/16\n0.0.0.0/0\ncdn.example\n")
    loaded = _load(tmp_path, "guard:\n  shared_ranges: [plain.txt, none.txt]\n")
    assert [line.partition(";")[0] for line in _told(loaded)] == [
        "plain.txt:2:1: 0.0.0.0/0 is too wide: no address in it would ever be blocked",
        'plain.txt:3:1: not an address or network: "cdn.example"',
        'e.yaml:2:30: guard.shared_ranges[1]: "none.txt" does not exist',
    ]
    assert loaded.broken == {"plain.txt", "none.txt"}


def test_shared_ranges_are_looked_at_for_changes(tmp_path: Path) -> None:
    _write(tmp_path / "plain.txt", "")
    config = Config(guard=GuardOptions(shared_ranges=("shipped", "plain.txt")))
    assert load.list_paths(config, tmp_path) == [tmp_path / "plain.txt"]
