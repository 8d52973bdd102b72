"""What docs/ says is so: events against their schema and the program's output, lists against their reader."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from jsonschema import Draft202012Validator

from egressd.cli.main import main
from egressd.config.document import parse_config
from egressd.config.feed_options import FeedOptions
from egressd.config.load import default_config, load_intel
from egressd.detect import budgets, sharing
from egressd.detect.blocks import MAX_ADDRESSES, MAX_BLOCKS, MAX_PAIRS
from egressd.intel import poison
from egressd.intel.allowances import KINDS, parse_allowances
from egressd.intel.feeds import collect, fetch, schedule, state
from egressd.intel.formats import FORMATS, OPTIONS, parse_list
from egressd.intel.index import Index
from egressd.intel.shared_ranges import WIDEST_IPV4, WIDEST_IPV6, parse_shared_ranges
from egressd.model import Indicator
from egressd.names import Suffixes
from egressd.notify.eve import render_event
from tests.detect.scene import A, B, Scene, X, Y, when

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CASES = sorted(path.parent for path in (ROOT / "pcaps").glob("*/expect.yaml"))
CAPTURES = (".pcap", ".pcapng", ".gz")

SCHEMA: dict[str, Any] = json.loads((DOCS / "events.schema.json").read_text(encoding="utf-8"))
TYPES: list[str] = SCHEMA["properties"]["event_type"]["enum"]
VALIDATOR = Draft202012Validator(SCHEMA)
EVENTS = (DOCS / "events.md").read_text(encoding="utf-8")
LISTS = (DOCS / "lists.md").read_text(encoding="utf-8")
FEEDS = (DOCS / "feeds.md").read_text(encoding="utf-8")
SENSORS = (DOCS / "sensors.md").read_text(encoding="utf-8")

parse_suffixes = cache(Suffixes.parse)  # most of a small replay


def complaints(record: dict[str, Any]) -> list[str]:
    return [f"{'.'.join(map(str, one.absolute_path))}: {one.message}" for one in VALIDATOR.iter_errors(record)]


@cache
def replayed(case: Path) -> list[dict[str, Any]]:
    """Every record of a replay in a case's folder."""
    words = ["replay", "--json", "--observations"]
    for option, file in (("--list", "list.txt"), ("--allow", "allow.txt"), ("--config", "config.yaml")):
        if (case / file).exists():
            words += [option, file]
    files = sorted(path.name for path in case.iterdir() if path.suffix in CAPTURES)
    out = StringIO()
    before = Path.cwd()
    os.chdir(case)
    try:
        with patch("sys.stdout", out), patch.object(Suffixes, "parse", parse_suffixes):
            assert main([*words, *files]) == 0
    finally:
        os.chdir(before)
    return [json.loads(line) for line in out.getvalue().splitlines()]


# -- harm


def test_the_tables_of_harm_are_those_of_the_tests() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_harm_reference.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run scripts/generate_harm_reference.py"


def test_harm_names_at_least_forty_cases_and_an_example_that_reads() -> None:
    text = (DOCS / "harm.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| `([a-z0-9_]+)` \|$", text, re.MULTILINE)
    assert len(rows) == len(set(rows)) >= 40
    ranges, problems = parse_shared_ranges(text.split("```")[1], "harm.md")
    assert problems == [] and [one.operator for one in ranges] == ["Example CDN", ""]
    for number in (budgets.PAIRS_PER_HOUR, MAX_ADDRESSES, MAX_PAIRS, MAX_BLOCKS):
        assert f"| {number:,} |" in text
    for width in (sharing.WIDEST_IPV4, sharing.WIDEST_IPV6, WIDEST_IPV4, WIDEST_IPV6):
        assert f"/{width}" in text


# -- events: schema


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert set(TYPES) == {
        name for name in SCHEMA["$defs"] if "event_type" in SCHEMA["$defs"][name].get("properties", {})
    }
    assert [one["then"]["$ref"] for one in SCHEMA["allOf"]] == [f"#/$defs/{name}" for name in TYPES]


def objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if schema.get("type") == "object":
        yield schema
    for key in ("properties", "patternProperties", "$defs"):
        for inner in schema.get(key, {}).values():
            yield from objects(inner)
    if "items" in schema:
        yield from objects(schema["items"])


def test_the_schema_lets_nothing_unknown_through() -> None:
    found = [one for name in SCHEMA["$defs"] for one in objects(SCHEMA["$defs"][name])]
    assert len(found) > 30
    assert all(one["additionalProperties"] is False for one in found)
    record = replayed(ROOT / "pcaps" / "sibling-match")[0]
    assert complaints(record) == []
    assert complaints({**record, "new": 1})
    sighting = next(one for one in replayed(ROOT / "pcaps" / "sibling-match") if one["event_type"] == "sighting")
    assert complaints({**sighting, "egressd": {**sighting["egressd"], "new": 1}})
    assert complaints({**sighting, "event_type": "other"})
    assert complaints({key: value for key, value in sighting.items() if key != "flow_id"})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_record_of_every_case_is_valid(case: Path) -> None:
    for record in replayed(case):
        assert complaints(record) == [], json.dumps(record)


def test_the_cases_show_every_type_but_leaks() -> None:
    assert {record["event_type"] for case in CASES for record in replayed(case)} == set(TYPES) - {
        "leak",
        "feed",
        "log_state",
    }  # no replay has either


def test_what_no_case_shows_is_valid_too() -> None:
    scene = Scene(
        f"c2.bad.example expires={when(50)}\n203.0.113.0/24\nworse.example confidence=1",
        "never-block partner.example owner=o reason=r",
        enforced=True,
    )
    scene.resolve(0, A, "c2.bad.example", X, "10.0.0.1")
    scene.flow(1, A, X)
    scene.reply(2, A, X)
    scene.resolve(3, B, "www.good.example", X)
    scene.socks(4, A, Y, "", address="203.0.113.9")
    scene.question(5, B, "worse.example")
    scene.flow(60, B, Y)
    scene.engine.finish()
    rules = set()
    for event in scene.events:
        record = render_event(event, "f.pcap", "office")
        assert complaints(record) == [], json.dumps(record)
        rules.add(record["egressd"].get("rule", record["event_type"]))
    assert {"expired", "confidence", "protected", "shared", "leak"} <= rules


# -- events: reference


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def fields(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Dotted paths of everything that a schema names."""
    schema = resolve(schema)
    for key, inner in schema.get("properties", {}).items():
        here = f"{path}.{key}" if path else key
        inside = resolve(inner)
        if "properties" not in inside or key == "indicator" or here == "egressd.blind":
            yield here
        yield from fields(inner, here)
        if resolve(inner).get("type") == "array":
            yield from fields(resolve(inner)["items"], here + "[]")


def section(heading: str) -> str:
    """The text under a heading of events.md."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", EVENTS, re.M | re.S)
    assert found is not None, f"events.md has no section {heading}"
    return found[1]


def described(heading: str) -> set[str]:
    return set(re.findall(r"^\| `([a-z_.\[\]]+)` \|", section(heading), re.M))


@pytest.mark.parametrize("event_type", TYPES)
def test_reference_and_schema_name_the_same_fields(event_type: str) -> None:
    always, conversation = described("Every record"), described("Records of a conversation")
    own = described("attempt" if event_type == "leak" else event_type)
    wanted = set(fields(SCHEMA["$defs"][event_type]))
    if event_type in ("dns", "http", "tls", "quic", "socks", "flow"):
        assert wanted == always | conversation | own
    elif event_type in ("sighting", "attempt", "leak"):
        assert wanted == always | own | {name for name in conversation if "." not in name}
    else:
        left_out = {"pcap_cnt", "pcap_filename"} if event_type in ("feed", "log_state", "summary") else set()
        assert wanted == (always - left_out) | own


@pytest.mark.parametrize("event_type", TYPES)
def test_the_example_of_each_type_is_a_valid_record(event_type: str) -> None:
    (line,) = re.findall(r"^```json\n(.*)\n```$", section(event_type), re.M)
    record = json.loads(line)
    assert record["event_type"] == event_type
    assert complaints(record) == []


@pytest.mark.parametrize("event_type", TYPES)
def test_every_word_that_a_field_can_hold_is_explained(event_type: str) -> None:
    for one in objects(SCHEMA["$defs"][event_type]):
        for key, inner in one.get("properties", {}).items():
            for word in resolve(inner).get("enum", []):
                known = f"`{word}`" in EVENTS if isinstance(word, str) else f" {word} " in EVENTS
                assert known, f"{event_type}.{key}: {word} is not explained"


# -- lists


@cache
def shipped() -> tuple[Suffixes, Any, Any]:
    loaded = load_intel(default_config(), [], base_dir=ROOT)
    return loaded.intel.suffixes, loaded.guard, loaded.intel.protected


def read(text: str) -> tuple[list[Indicator], list[str]]:
    suffixes, guard, protected = shipped()
    found, problems = parse_list(text, "l.txt", suffixes, guard, protected=protected)
    return found, [str(one) for one in problems]


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```$", LISTS, re.M | re.S)
    assert found
    return found


def rows(after: str, start: int = 0) -> list[list[str]]:
    """The cells of the first table at or after a text."""
    table = re.search(r"^\|.*?(?=^[^|]|^$|\Z)", LISTS[LISTS.index(after, start) :], re.M | re.S)
    assert table is not None
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table[0].strip().splitlines()]
    return [[cell.strip().strip("`").replace("\\|", "|") for cell in line] for line in lines[2:]]


def test_every_example_of_a_list_is_read() -> None:
    first, second = blocks("list")
    found, problems = read(first)
    assert problems == []
    assert [(one.kind, one.value, one.scope) for one in found] == [
        ("domain", "c2.bad.example", "registered"),
        ("domain", "panel.worse.example", "host"),
        ("domain", "gate.worse.example", "host"),
        ("domain", "drop.worse.example", "exact"),
        ("address", "198.51.100.7", "exact"),
        ("network", "203.0.113.0/28", "exact"),
        ("url", "files.worse.example/gate.php", "exact"),
        ("domain", "stage.worse.example", "registered"),
    ]
    found, problems = read(second)
    assert problems == []
    values = ["stage.bad.example", "files.bad.example/gate.php", "mail.bad.example", "ads.bad.example"]
    assert [one.value for one in found] == [*values, "one.bad.example", "two.bad.example"]


def test_every_line_said_to_be_refused_is() -> None:
    refused = rows("### What is refused")
    assert len(refused) > 10
    for line, why in refused:
        found, problems = read(line)
        assert len(problems) == 1 and not found, f"{line}: {why}"
        if "`force=yes` lists" in why:
            assert read(f"{line} force=yes")[0], line
        elif "force" in why:
            assert not read(f"{line} force=yes")[0], line


def test_every_option_is_explained_and_exists() -> None:
    assert [key.rstrip("=") for key, _ in rows("two.bad.example")] == list(OPTIONS)
    kept = LISTS.index("## Allowances")
    assert {key.rstrip("=") for key, _ in rows("| option | meaning |", kept)} == {
        "owner",
        "reason",
        "expires",
        "client",
    }


def test_every_format_is_explained_and_exists() -> None:
    assert [cells[0] for cells in rows("| format | taken")] == list(FORMATS)


def test_what_a_name_covers() -> None:
    suffixes = shipped()[0]
    for listed, scope, itself, below, others in rows("### What a name covers"):
        index = Index.build(read(f"{listed} scope={scope}")[0], suffixes)
        for name, wanted in ((listed, itself), (f"x.{listed}", below), ("www.bad.example", others)):
            match = index.match_name(name, 0)
            assert (match.level if match is not None else "no") == wanted, (name, scope)


def test_narrowing_is_as_described() -> None:
    ((site,), _) = read("github.com")
    assert site.scope == "host" and site.narrowed.startswith("github.com is ")
    ((tenant,), _) = read("tenant.github.io")
    assert (tenant.registered_domain, tenant.scope, tenant.narrowed) == ("tenant.github.io", "registered", "")


def test_every_example_of_allowances_is_read() -> None:
    (text,) = blocks("allowances")
    found, problems = parse_allowances(text, "allow.txt", shipped()[0])
    assert problems == []
    assert {one.kind for one in found} == set(KINDS) == {cells[0] for cells in rows("never-block partner.example")}


def test_every_allowance_said_to_be_refused_is() -> None:
    (text,) = blocks("refused-allowances")
    lines = text.splitlines()
    found, problems = parse_allowances(text, "allow.txt", shipped()[0])
    assert found == []
    assert [one.line for one in problems] == list(range(1, len(lines) + 1))


# -- feeds


def test_every_word_of_feeds_is_explained() -> None:
    whole = {*fetch.KINDS, *poison.REFUSALS, state.FAULT, state.DISK}
    lines = {poison.SUFFIX, poison.PROTECTED, poison.ALLOWED, poison.SHARED, poison.BAD_LINE}
    first, second = FEEDS.split("## Lines that are kept out")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", first, re.M)) == whole
    assert set(re.findall(r"^\| `([a-z-]+)` \|", second, re.M)) == lines


def test_the_example_of_feeds_is_right() -> None:
    first, second = re.findall(r"^```yaml\n(.*?)^```$", FEEDS, re.M | re.S)
    config, problems = parse_config(first, "feeds.md")
    assert problems == [] and [one.enabled for one in config.feeds.values()] == [True, True]
    config, problems = parse_config(second, "feeds.md")
    assert problems == []
    assert [collect.collected_as(one) for one in config.feeds.values()] == [collect.EVENTS, collect.PAGES]


def test_bounds_in_words_are_those_of_the_code() -> None:
    bounds, times = poison.Bounds(), fetch.Times()
    feed = FeedOptions()
    assert (feed.shrink_percent, feed.grow_times, feed.quarantine_most) == bounds[1:] == (50, 10, 20)
    assert (poison.BAD_SHARE, poison.POISON_SHARE, poison.POISON_DENSE, poison.SMALL_CHANGE) == (100, 1_000, 10, 20)
    assert (times.connect_s, times.stall_s, times.total_s) == (10, 30, 120)
    assert (collect.MAX_EVENTS, collect.LIMIT, collect.MAX_PAGES, collect.MAX_PART_BYTES) == (500, 500, 1_000, 16 << 20)
    assert (collect.LONGER * times.total_s, collect.SHARE, collect.MISSING_SHARE, collect.WHOLE_S) == (
        600,
        4,
        10,
        86_400,
    )
    assert (fetch.MAX_REDIRECTS, fetch.MAX_RATIO, schedule.FIRST_RETRY_S, schedule.SPREAD_S) == (5, 1_000, 60, 30)


def test_documents_name_files_that_are_there() -> None:
    for document in (EVENTS, LISTS, FEEDS, SENSORS):
        for target in re.findall(r"\]\(([^)#]+)\)", document):
            assert (DOCS / target).exists(), target
