"""The schema against itself, against the code that has the same defaults, and against the files made from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from egressd.config.document import parse_config
from egressd.config.feed_options import FeedOptions
from egressd.config.forms import READERS
from egressd.config.kinds import CHOICE, FLAG, MAPPINGS, NAMED, NUMBER, SECTION, Option, named_options
from egressd.config.load import default_config, load_config, load_intel
from egressd.config.schema import Config, every_option, options
from egressd.config.settings import policy_settings
from egressd.detect.history import DEFAULT_HISTORY
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.guard import POPULAR_LIMIT
from egressd.runtime.reloading import AT_START, PAIRS
from egressd.wire.dissector import DEFAULT_CONVERSATIONS

ROOT = Path(__file__).resolve().parent.parent.parent
OPTIONS = list(every_option())
FEED = [one for option in OPTIONS if option.kind == NAMED for one in named_options(option)]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "scripts" / "generate_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_keys_are_unique_and_read_by_something() -> None:
    keys = [option.key for option in OPTIONS]
    assert len(keys) == len(set(keys))
    assert {option.kind for option in OPTIONS + FEED} <= {SECTION, CHOICE, NUMBER, FLAG, NAMED, *MAPPINGS, *READERS}


@pytest.mark.parametrize("option", OPTIONS + FEED, ids=lambda option: option.key)
def test_every_option_is_documented_and_bounded(option: Option) -> None:
    assert option.doc[0].isupper() and option.doc.endswith(".") and "\n" not in option.doc
    if option.kind == NUMBER:
        assert option.low <= option.default <= option.high
    if option.kind == CHOICE:
        assert option.default in option.choices


@pytest.mark.parametrize("option", [one for one in OPTIONS + FEED if one.example], ids=lambda option: option.key)
def test_every_example_loads(option: Option) -> None:
    *sections, name = option.key.split(".")
    text = "".join("  " * depth + section + ":\n" for depth, section in enumerate(sections))
    text += f"{'  ' * len(sections)}{name}: {option.example}\n"
    if sections and sections[0] == "feeds" and name != "url":
        text += "    url: https://feeds.example/c2.txt\n"
    if option.key == "modes" or name == "except_segments":  # of segments that there are
        text += "segments: {laboratory: [10.2.0.0/16]}\n"
    if sections and sections[0] == "sensors" and name != "path":
        text += "    path: /var/log/a.log\n"
    config, problems = parse_config(text.replace("NAME:", "name:"), "example.yaml")
    assert problems == []
    assert config != default_config() and (not config.feeds or config.feeds != {"name": FeedOptions()})


def test_defaults_are_those_of_the_code() -> None:
    config = default_config()
    assert policy_settings(config) == PolicySettings()
    assert config.limits.conversations == DEFAULT_CONVERSATIONS
    assert config.limits.history == DEFAULT_HISTORY
    assert config.guard.popular_top == POPULAR_LIMIT


def test_options_of_a_section_are_its_own() -> None:
    names = [option.key for option in options()]
    assert names[0] == "mode" and "policy" in names and "policy.block_confidence" not in names
    assert "origin" not in names and "places" not in names
    limits = next(option for option in options() if option.key == "limits")
    assert limits.section is not None
    assert [option.name for option in options(limits.section, "limits.")] == ["conversations", "history"]


def test_reference_is_up_to_date() -> None:
    current = (ROOT / "config" / "egressd.reference.yaml").read_text(encoding="utf-8")
    assert current == _script().render_reference(), "run scripts/generate_reference.py"


def test_reference_holds_every_option_within_its_width() -> None:
    text = _script().render_reference()
    assert max(map(len, text.splitlines())) <= 78
    tree = yaml.safe_load(text)
    for option in OPTIONS:
        value = tree
        for part in option.key.split("."):
            value = value[part]


def test_the_reference_says_what_takes_a_restart() -> None:
    head = " ".join((ROOT / "config" / "egressd.reference.yaml").read_text(encoding="utf-8")[:800].split("\n# "))
    sections = f"{', '.join(AT_START)} and {PAIRS}"
    assert f"What stands under {sections} comes into force with a restart, all else with egressd reload." in head


@pytest.mark.parametrize("name", ["egressd.yaml", "egressd.reference.yaml"])
def test_shipped_configurations_are_the_defaults(name: str) -> None:
    assert load_config(ROOT / "config" / name) == default_config()


def test_short_configuration_is_right_when_uncommented() -> None:
    lines = (ROOT / "config" / "egressd.yaml").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line.replace("#  ", "  ", 1) if line.startswith("#  -") else line for line in lines)
    text = text.replace("lists: []", "lists:").replace("allow: []", "allow:")
    text = text.replace("segments: {}\n#  ", "segments:\n  ").replace("\n#  laboratory", "\n  laboratory")
    config, problems = parse_config(text, "egressd.yaml")
    assert problems == []
    assert config.lists == ("lists/*.txt",) and config.allow == ("lists/allow.txt",)
    assert config.segments == {"office": ("10.1.0.0/16",), "laboratory": ("10.2.0.0/16",)}


def test_shipped_examples_load_without_problems() -> None:
    config = Config(lists=("lists/blocklist.example.txt",), allow=("lists/allow.example.txt",))
    loaded = load_intel(config, base_dir=ROOT / "config")
    assert loaded.problems == []
    assert [(one.name, one.problems) for one in loaded.lists] == [("lists/blocklist.example.txt", 0)]
    assert loaded.lists[0].indicators == 6 and loaded.allowances == 4 and not loaded.demo
