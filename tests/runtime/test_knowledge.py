"""Text files, operators' lines and surroundings as one: loaded whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressd.errors import ConfigError
from egressd.intel.allowances import ALLOW_DESTINATION
from egressd.runtime.knowledge import (
    Knowledge,
    Loaded,
    Surroundings,
    combine,
    load_texts,
    parse_entries,
)
from egressd.store.entries import ALLOWANCE, INDICATOR, Entry
from tests.detect.scene import packed

NOW_S = 1_700_000_000
NOTHING = Surroundings((), frozenset())


def site(folder: Path, config: str = "", lists: str = "c2.bad.example threat=case\n", allow: str = "") -> Path:
    """A folder as an operator keeps one; returns the configuration's path."""
    (folder / "csirt.txt").write_text(lists)
    (folder / "allow.txt").write_text(allow)
    path = folder / "egressd.yaml"
    path.write_text(f"lists: [csirt.txt]\nallow: [allow.txt]\nstate: {{directory: state}}\n{config}")
    return path


def entry(
    text: str, kind: str = INDICATOR, number: int = 3, expires_us: int = 0, created_us: int = NOW_S * 10**6 + 7
) -> Entry:
    return Entry(f"E{number}", kind, text, "uid:anna", "seen by the CSIRT", created_us, expires_us)


def known(
    folder: Path, *entries: Entry, around: Surroundings = NOTHING, mode: str = "monitor", config: str = ""
) -> Knowledge:
    return combine(load_texts(site(folder, config)), entries, around, mode)


# -- loading


def test_everything_is_read_from_where_the_configuration_lies(tmp_path: Path) -> None:
    loaded = load_texts(site(tmp_path, "mode: enforce\n", allow="allow-destination fine.example owner=a reason=b\n"))
    assert isinstance(loaded, Loaded)
    assert (loaded.base_dir, loaded.config.mode, loaded.texts.demo) == (tmp_path, "enforce", False)
    assert [(one.name, one.indicators) for one in loaded.texts.lists] == [("csirt.txt", 1)]
    assert loaded.texts.allowances == 1


@pytest.mark.parametrize(
    ("config", "lists", "allow", "problem"),
    [
        ("mode: loud\n", "c2.bad.example\n", "", "mode"),
        ("", "c2.bad.example colour=red\n", "", "csirt.txt:1"),
        ("", "c2.bad.example\n", "allow-destination\n", "allow.txt:1"),
        ("resolvers: [resolver]\n", "c2.bad.example\n", "", "resolvers"),
    ],
)
def test_a_mistake_anywhere_and_nothing_is_taken(
    tmp_path: Path, config: str, lists: str, allow: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_texts(site(tmp_path, config, lists, allow))


@pytest.mark.parametrize(
    ("name", "broken"),
    [("csirt.txt", "c2.bad.example\nx colour=red\n"), ("allow.txt", "allow-destination\n"), ("csirt.txt", None)],
)
def test_the_last_good_content_stands_in_for_a_file_with_mistakes(
    tmp_path: Path, name: str, broken: str | None
) -> None:
    path = site(tmp_path, allow="allow-destination fine.example owner=a reason=b\n")
    good = load_texts(path)
    assert good.kept == ()
    if broken is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(broken)
    now = load_texts(path)
    assert len(now.kept) == 1
    assert name in str(now.kept[0])
    assert list(now.texts.intel.index.listed()) == list(good.texts.intel.index.listed())
    assert now.texts.allowances == 1
    assert load_texts(path).kept == now.kept  # what is broken does not become the last good
    (tmp_path / name).write_text("" if name == "allow.txt" else "worse.example\n")
    mended = load_texts(path)
    assert mended.kept == ()
    assert mended.signs != now.signs


def test_one_file_with_mistakes_holds_up_no_other(tmp_path: Path) -> None:
    path = site(tmp_path)
    load_texts(path)
    (tmp_path / "csirt.txt").write_text("not a name !!\n")
    (tmp_path / "allow.txt").write_text("ignore-client 192.0.2.1 owner=a reason=b\n")
    loaded = load_texts(path)
    assert (len(loaded.kept), loaded.texts.allowances) == (1, 1)
    with pytest.raises(ConfigError, match="mode"):
        load_texts(site(tmp_path, "mode: loud\n", "not a name !!\n"))


@pytest.mark.parametrize("wrong", ["not a name !!\n", "bad..example\nworse.example\n", b"\xff\xfeb\0"])
def test_a_new_file_with_mistakes_holds_up_no_other_and_no_restart(tmp_path: Path, wrong: str | bytes) -> None:
    (tmp_path / "lists.d").mkdir()
    (tmp_path / "lists.d" / "old.txt").write_text("bad.example\n")
    path = tmp_path / "egressd.yaml"
    path.write_text("lists: ['lists.d/*.txt']\nallow: ['*.allow']\nmode: enforce\nstate: {directory: state}\n")
    load_texts(path)
    (tmp_path / "lists.d" / "new.txt").write_bytes(wrong if isinstance(wrong, bytes) else wrong.encode())
    (tmp_path / "lists.d" / "other.txt").write_text("other.example\n")
    (tmp_path / "new.allow").write_text("never-block fine.example owner=me\n")
    (tmp_path / "old.allow").write_text("never-block fine.example owner=me reason=partner\n")
    for _ in range(2):  # the second is the restart
        loaded = load_texts(path)
        assert sorted(one.value for one in loaded.texts.intel.index.listed()) == ["bad.example", "other.example"]
        assert loaded.texts.allowances == 1
        assert len(loaded.kept) == 2
        assert loaded.texts.lists == (
            ("lists.d/old.txt", 1, 0), ("lists.d/other.txt", 1, 0), ("lists.d/new.txt", 0, 1),
        )  # fmt: skip
    (tmp_path / "lists.d" / "new.txt").write_text("new.example\n")
    (tmp_path / "lists.d" / "old.txt").write_text("bad..example\nx y\n")
    mended = load_texts(path)
    assert mended.texts.intel.index.size == 3
    assert ("lists.d/old.txt", 1, 2) in mended.texts.lists, "it keeps what it listed, and its mistakes are counted"


def test_what_is_in_force_and_could_not_be_kept_is_not_lost_by_a_mistake(tmp_path: Path) -> None:
    path = site(tmp_path)
    load_texts(path)
    for kept in (tmp_path / "state" / "last-good").iterdir():  # as where the folder is another user's, or the disk full
        kept.unlink()
        kept.mkdir()
    loaded = load_texts(path)
    assert loaded.unkept == f"{tmp_path}/state/last-good: Is a directory"
    in_force = frozenset(one.name for one in loaded.texts.files)
    (tmp_path / "csirt.txt").write_text("c2.bad.example\nnot a name !!\n")
    with pytest.raises(ConfigError, match=r"csirt\.txt:2"):
        load_texts(path, in_force=in_force)
    assert len(load_texts(path).kept) == 1, "a restart goes on with what there is"


def test_a_file_that_is_named_and_not_there_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    path = site(tmp_path)
    load_texts(path)
    path.write_text(path.read_text().replace("csirt.txt", "none.txt"))
    with pytest.raises(ConfigError, match="does not exist"):
        load_texts(path)


def test_a_folder_of_lists_may_be_empty_and_fill(tmp_path: Path) -> None:
    (tmp_path / "lists.d").mkdir()
    path = tmp_path / "egressd.yaml"
    path.write_text("lists: ['lists.d/*.txt']\nmode: enforce\nstate: {directory: state}\n")
    assert load_texts(path).texts.intel.index.size == 0
    (tmp_path / "lists.d" / "one.txt").write_text("bad.example\n")
    assert load_texts(path).texts.intel.index.size == 1
    (tmp_path / "lists.d" / "one.txt").unlink()
    assert load_texts(path).texts.intel.index.size == 0  # taken away is taken away


@pytest.mark.parametrize("mode", ["approve", "enforce"])
def test_the_demonstration_list_is_not_blocked_by(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "egressd.yaml"
    path.write_text(f"# my gateway\nmode: {mode}\n")
    with pytest.raises(ConfigError) as caught:
        load_texts(path)
    (problem,) = caught.value.problems
    assert "demonstration" in problem.what and "lists" in problem.advice


def test_where_the_mode_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "egressd.yaml"
    path.write_text("# my gateway\nmode: enforce\n")
    with pytest.raises(ConfigError) as caught:
        load_texts(path)
    assert caught.value.problems[0][1:3] == (2, 7)


def test_the_demonstration_list_may_be_watched_for(tmp_path: Path) -> None:
    path = tmp_path / "egressd.yaml"
    path.write_text("mode: monitor\n")
    loaded = load_texts(path)
    assert loaded.texts.demo and len(loaded.texts.intel.index.indicators) > 0


# -- together


def test_operators_lines_count_beside_the_lists(tmp_path: Path) -> None:
    knowledge = known(
        tmp_path,
        entry("worse.example", number=3),
        entry('allow-destination c2.bad.example owner="anna" reason="ours"', ALLOWANCE, 4),
        mode="enforce",
    )
    index = knowledge.intel.index
    found = index.match_name("www.worse.example", NOW_S)
    assert found is not None and (found.indicator.source, found.indicator.line) == ("operator", 3)
    assert index.match_name("c2.bad.example", NOW_S) is not None
    allowed = knowledge.intel.allowances.allows("c2.bad.example", b"", b"", NOW_S)
    assert allowed is not None and (allowed.source, allowed.line, allowed.kind) == ("operator", 4, ALLOW_DESTINATION)
    assert knowledge.problems == ()
    assert (knowledge.config.mode, knowledge.settings.mode) == ("enforce", "enforce")


def test_without_operators_lines_what_was_loaded_is_used_as_it_is(tmp_path: Path) -> None:
    loaded = load_texts(site(tmp_path))
    knowledge = combine(loaded, (), NOTHING, "monitor")
    assert knowledge.intel.index is loaded.texts.intel.index
    assert knowledge.intel.allowances is loaded.texts.intel.allowances
    assert loaded.config.mode == "monitor"
    assert combine(loaded, (entry("worse.example"),), NOTHING, "enforce").config.mode == "enforce"
    assert len(loaded.texts.intel.index.indicators) == 1  # untouched


def test_an_indicator_counts_from_when_it_was_added_until_it_expires(tmp_path: Path) -> None:
    ends_us = (NOW_S + 3_600) * 10**6 + 1
    knowledge = known(tmp_path, entry("worse.example", expires_us=ends_us))
    (indicator,) = [one for one in knowledge.intel.index.indicators if one.source == "operator"]
    assert (indicator.added_s, indicator.expires_s) == (NOW_S, NOW_S + 3_601)  # never shorter than promised
    match = knowledge.intel.index.match_name
    assert [match("worse.example", NOW_S + later) is not None for later in (-1, 0, 3_600, 3_601)] == [
        False,
        True,
        True,
        False,
    ]


def test_an_allowance_ends(tmp_path: Path) -> None:
    text = "allow-destination c2.bad.example owner=anna reason=ours"
    knowledge = known(tmp_path, entry(text, ALLOWANCE, expires_us=(NOW_S + 60) * 10**6))
    allows = knowledge.intel.allowances.allows
    assert [allows("c2.bad.example", b"", b"", NOW_S + later) is not None for later in (0, 59, 60)] == [
        True,
        True,
        False,
    ]
    forever = known(tmp_path, entry(text, ALLOWANCE))
    assert forever.intel.allowances.allows("c2.bad.example", b"", b"", NOW_S + 10**9) is not None


def test_a_line_that_is_no_longer_right_is_told_and_left_out(tmp_path: Path) -> None:
    around = Surroundings(((packed("198.51.100.7"), 32, "gateway of this machine"),), frozenset())
    knowledge = known(tmp_path, entry("198.51.100.7", number=9), entry("worse.example", number=10), around=around)
    assert [(one.file, one.line) for one in knowledge.problems] == [("operator", 9)]
    assert "gateway of this machine" in knowledge.problems[0].what
    assert [one.line for one in knowledge.intel.index.indicators if one.source == "operator"] == [10]


def test_lines_of_an_unknown_kind_are_passed_over(tmp_path: Path) -> None:
    texts = load_texts(site(tmp_path)).texts
    assert parse_entries([entry("x", "poem")], texts, texts.intel.protected) == ([], [], [])


# -- surroundings


def test_what_the_machine_says_of_itself_is_protected(tmp_path: Path) -> None:
    around = Surroundings(
        ((packed("203.0.113.1"), 32, "gateway of this machine"), (packed("2001:db8:f::1"), 128, "own address")),
        frozenset((packed("203.0.113.53"),)),
    )
    knowledge = known(tmp_path, around=around)
    protected = knowledge.intel.protected
    assert "gateway of this machine" in protected.why(packed("203.0.113.1"))
    assert "own address" in protected.why(packed("2001:db8:f::1"))
    assert protected.why(packed("::ffff:203.0.113.1"))
    assert protected.why(packed("203.0.113.2")) == ""
    assert protected.why_network(packed("203.0.113.0"), 24)
    assert known(tmp_path).intel.protected.why(packed("203.0.113.1")) == ""


def test_resolvers_are_those_configured_or_else_those_found(tmp_path: Path) -> None:
    found = frozenset((packed("203.0.113.53"),))
    around = Surroundings((), found)
    assert known(tmp_path, around=around).settings.resolvers == found
    told = known(tmp_path, around=around, config="resolvers: [192.0.2.53]\n").settings.resolvers
    assert told == {packed("192.0.2.53")}


def test_segments(tmp_path: Path) -> None:
    knowledge = known(tmp_path, config='segments: {lab: [10.1.0.0/16], "lab two": [10.1.2.0/24]}\n')
    longest = knowledge.segments.longest
    assert [longest(packed(one)) for one in ("10.1.1.1", "10.1.2.1", "10.2.0.1")] == ["lab", "lab two", None]


def test_machines_of_ours_are_protected_wherever_their_addresses_come_from(tmp_path: Path) -> None:
    """Private addresses are nobody's else, public ones of our own networks were anybody's."""
    config = "segments: {lab: [198.51.100.0/25, '2001:db8:5::/64']}\n"
    around = Surroundings((), frozenset(), ((packed("203.0.113.0"), 24, ""),))
    why = known(tmp_path, around=around, config=config).intel.protected.why
    assert "segment lab" in why(packed("198.51.100.7")) and "segment lab" in why(packed("2001:db8:5::7"))
    assert "hosts of ours" in why(packed("203.0.113.7"))
    assert not why(packed("198.51.100.200")) and not why(packed("2001:db8:6::7"))


def test_a_list_may_name_a_machine_of_ours(tmp_path: Path) -> None:
    """It is no error, for a feed may well know it as infected: who contacts it is told, and nobody is cut off."""
    knowledge = known(tmp_path, entry("198.51.100.7"), config="segments: {lab: [198.51.100.0/25]}\n")
    assert knowledge.problems == ()
    assert knowledge.intel.index.match_address(packed("198.51.100.7"), NOW_S + 60) is not None
