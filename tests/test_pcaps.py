"""Every folder of pcaps/ that has an expect.yaml: `egressd replay` must tell what it asks for (pcaps/README.md)."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from egressd.capture.merge import iter_packets
from egressd.cli.main import main
from egressd.names import Suffixes
from pcaps.files import pcapng
from pcaps.generate import CASES, readme
from pcaps.packets import Packet

ROOT = Path(__file__).parent.parent / "pcaps"
EXPECTED = sorted(path.parent.name for path in ROOT.glob("*/expect.yaml"))
KEYS = {"args", "must", "must_not", "exit"}
OPERATORS = {"re", "min", "present"}

Pattern = dict[str, Any]
_ABSENT = object()


# -- reading expectations


@cache
def expectation(name: str) -> dict[str, Any]:
    """The expect.yaml of a case, with every mistake in it told at once."""
    text = (ROOT / name / "expect.yaml").read_text(encoding="utf-8")
    return check(yaml.safe_load(text))


def check(loaded: Any) -> dict[str, Any]:
    """What an expect.yaml says, or AssertionError."""
    assert isinstance(loaded, dict), "an expect.yaml is a mapping"
    assert not loaded.keys() - KEYS, f"unknown keys: {sorted(loaded.keys() - KEYS)}"
    assert isinstance(loaded.get("must"), list) and loaded["must"], "must is empty: the case would prove nothing"
    assert isinstance(loaded.get("must_not", []), list), "must_not is a list"
    assert isinstance(loaded.get("exit", 0), int), "exit is a number"
    assert all(isinstance(word, str) for word in loaded.get("args", [])), "args are texts"
    for pattern in loaded["must"] + loaded.get("must_not", []):
        assert isinstance(pattern, dict) and pattern.keys() - {"count"}, f"a pattern maps paths to values: {pattern}"
        for path, wanted in pattern.items():
            if isinstance(wanted, dict):
                assert len(wanted) == 1 and not wanted.keys() - OPERATORS, f"{path}: unknown operator {wanted}"
                assert wanted.get("present", True) is True, f"{path}: present can only be true"
            else:
                assert not isinstance(wanted, list), f"{path}: name an element by its number"
    assert all("count" not in pattern for pattern in loaded.get("must_not", [])), "count has no place in must_not"
    return loaded


def look_up(value: Any, path: list[str]) -> Any:
    """What stands at a dotted path. A key that holds dots itself is found too, the longest one first."""
    if not path:
        return value
    if isinstance(value, list):
        at = int(path[0]) if path[0].isdigit() else len(value)
        return look_up(value[at], path[1:]) if at < len(value) else _ABSENT
    if isinstance(value, dict):
        for size in range(len(path), 0, -1):
            key = ".".join(path[:size])
            if key in value:
                return look_up(value[key], path[size:])
    return _ABSENT


def fits(found: Any, wanted: Any) -> bool:
    """Whether a value is what a pattern asks for."""
    if found is _ABSENT:
        return False
    if isinstance(wanted, dict):
        if "re" in wanted:
            return isinstance(found, str) and re.search(wanted["re"], found) is not None
        return "present" in wanted or (type(found) in (int, float) and found >= wanted["min"])
    return type(found) is type(wanted) and found == wanted


def select(records: list[Pattern], pattern: Pattern) -> list[Pattern]:
    """The records that a pattern matches."""
    paths = [(path.split("."), wanted) for path, wanted in pattern.items() if path != "count"]
    return [record for record in records if all(fits(look_up(record, path), wanted) for path, wanted in paths)]


# -- running


# Reading the Public Suffix List is most of a small replay; what it gives is never changed.
parse_suffixes = cache(Suffixes.parse)


def replay(name: str, files: list[str], *more: str) -> tuple[int, bytes]:
    """Exit code and standard output of a replay in the case's folder."""
    words = ["replay", "--json", "--observations", *expectation(name).get("args", []), *more]
    if (ROOT / name / "list.txt").exists():
        words += ["--list", "list.txt"]
    out = TextIOWrapper(BytesIO(), encoding="utf-8", newline="")
    before = Path.cwd()
    os.chdir(ROOT / name)
    try:
        with patch("sys.stdout", out), patch.object(Suffixes, "parse", parse_suffixes):
            code = main([*words, *files])
    finally:
        os.chdir(before)
    out.flush()
    return code, out.buffer.getvalue()  # type: ignore[attr-defined]


def inputs(name: str) -> list[str]:
    """The captures of a case, in order of their names."""
    return sorted(path.name for path in (ROOT / name).iterdir() if path.suffix in (".pcap", ".pcapng", ".gz"))


@cache
def replayed(name: str) -> tuple[int, bytes]:
    """The replay that a case describes."""
    return replay(name, inputs(name))


def records_of(octets: bytes) -> list[Pattern]:
    """The records of a replay's output."""
    return [json.loads(line) for line in octets.splitlines()]


def sightings(octets: bytes) -> set[tuple[str, str, str, str]]:
    """When, who, which name, by what: what must not depend on how a capture is cut into files."""
    found = select(records_of(octets), {"event_type": "sighting"})
    return {(one["timestamp"], one["src_ip"], one["egressd"]["name"], one["egressd"]["via"]) for one in found}


@pytest.mark.parametrize("name", EXPECTED)
def test_case_shows_what_it_must(name: str) -> None:
    expected = expectation(name)
    assert inputs(name), "a case needs a capture"
    code, octets = replayed(name)
    assert code == expected.get("exit", 0)
    records = records_of(octets)
    failures = []
    for pattern in expected["must"]:
        found = len(select(records, pattern))
        wanted = pattern.get("count")
        if (found == 0 and wanted != 0) or (wanted is not None and found != wanted):
            failures.append(f"must, found {found}: {pattern}")
    for pattern in expected.get("must_not", []):
        failures += [f"must not: {pattern}: {json.dumps(record)}" for record in select(records, pattern)]
    assert not failures, "\n" + "\n".join(failures) + "\nall records:\n" + octets.decode()


@pytest.mark.parametrize("name", EXPECTED)
def test_output_is_printable_ascii(name: str) -> None:
    assert not set(replayed(name)[1]) - set(range(0x20, 0x7F)) - {0x0A}


@pytest.mark.parametrize("name", EXPECTED)
def test_same_bytes_again_and_without_the_prefilter(name: str) -> None:
    assert replay(name, inputs(name)) == replayed(name)
    assert replay(name, inputs(name), "--no-prefilter") == replayed(name)


@pytest.mark.parametrize("name", EXPECTED)
def test_cutting_the_files_changes_no_sighting(name: str, tmp_path: Path) -> None:
    whole = sightings(replayed(name)[1])
    packets = [
        [Packet(one[0], one[3], one[4], one[2]) for one in iter_packets(ROOT / name / file)] for file in inputs(name)
    ]
    longest = max(map(len, packets))
    for cut in sorted({1, longest // 3, longest // 2, longest - 2} & set(range(1, longest))):
        parts = []
        for number, file in enumerate(packets):
            for half, piece in enumerate((file[:cut], file[cut:])):
                path = tmp_path / f"{number}-{half}.pcapng"
                path.write_bytes(pcapng(piece))
                parts.append(str(path))
        assert sightings(replay(name, parts)[1]) == whole, f"cut before packet {cut + 1}"


@pytest.mark.parametrize("name", sorted(CASES))
def test_generator_gives_the_committed_bytes(name: str) -> None:
    made = {**CASES[name].files(), "README.md": readme(CASES[name])}
    for file, octets in made.items():
        committed = (ROOT / name / file).read_bytes()
        if file.endswith(".gz"):  # another zlib may squeeze the same content otherwise
            committed, octets = gzip.decompress(committed), gzip.decompress(octets)
        assert committed == octets, f"{file}: run python -m pcaps.generate {name}"
    assert not set(inputs(name)) - set(made), "captures that nobody makes"


def test_every_case_has_expectations_and_an_origin() -> None:
    assert set(CASES) <= set(EXPECTED)
    for name in EXPECTED:
        assert "Origin:" in (ROOT / name / "README.md").read_text(encoding="utf-8")


def paths_of(value: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of a record, list indices as 0."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, f"{path}.{key}" if path else key)
    elif value and isinstance(value, list):
        for inner in value:
            yield from paths_of(inner, f"{path}.0")


def test_every_path_of_a_must_not_can_occur() -> None:
    """A misspelt path would forbid nothing. Counts of what was left out are left out of records when they are zero."""
    seen = {path for name in EXPECTED for record in records_of(replayed(name)[1]) for path in paths_of(record)}
    for name in EXPECTED:
        for pattern in expectation(name).get("must_not", []):
            for path in pattern:
                known = re.sub(r"\.\d+(?=\.|$)", ".0", path) in seen or path in seen
                assert known or path.startswith(("egressd.left_out.", "egressd.blind.")), f"{name}: {path}"


@pytest.mark.parametrize(
    ("loaded", "why"),
    [
        ({"must": []}, "must is empty"),
        ({"must_not": [{"event_type": "dns"}]}, "must is empty"),
        ({"must": [{"event_type": "dns"}], "mustnot": []}, "unknown keys"),
        ({"must": [{"count": 1}]}, "a pattern maps"),
        ({"must": [{"dns.id": {"max": 3}}]}, "unknown operator"),
        ({"must": [{"dns.id": 1}], "must_not": [{"dns.id": 2, "count": 1}]}, "count has no place"),
    ],
)
def test_expectations_that_prove_nothing_are_refused(loaded: Any, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check(loaded)


def test_patterns() -> None:
    record = {"a": {"b.c": [{"d": 1}, {"d": "two"}]}, "e": True}
    assert select([record], {"a.b.c.1.d": {"re": "^t"}, "a.b.c.0.d": {"min": 1}, "e": {"present": True}})
    for pattern in ({"e": 1}, {"a.b.c.2.d": {"present": True}}, {"a.b.c.0.d": {"min": 2}}, {"a.b": {"present": True}}):
        assert not select([record], pattern)
