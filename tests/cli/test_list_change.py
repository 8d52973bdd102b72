"""`egressd list add`, `rm`, `edit`, `preview` and `diff` as people run them, with a daemon and without."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from egressd.cli import list_change, list_effect
from egressd.cli.list_preview import FILE_ENDINGS
from egressd.cli.main import main
from egressd.config.folders import SHIPPED
from egressd.errors import Problem
from egressd.runtime.preview import Effect, told
from egressd.web import requests
from egressd.web.control import Refused
from tests.cli.daemon import daemon
from tests.loops import HANG_S

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = Effect(
    added=1, hosts=2, hosts_seen=3, contacts=10, first_us=1_697_400_000_000_000, shared=["a.example", "b.example"],
    top=[("10.0.0.5", "www.bad.example", 8), ("10.0.0.6", "bad.example", 2)],
)  # fmt: skip
LARGE = Effect(added=1, hosts=50, hosts_seen=60, contacts=99, first_us=1)
LIFTS = Effect(removed=1, lifted=[("D3", "listed.example", 41, 2)])
RELOADED = {"text": "lists are read anew", "lines": ["3 indicators (2 before)"]}
NOTE = "2026-11-25 anna"


class Terminal(StringIO):
    """Standard input with a person at it."""

    def isatty(self) -> bool:
        return True


class Site:
    """A configuration with one list, and where its daemon would listen."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.socket = folder / "control.sock"
        self.list = folder / "lists.d" / "csirt.txt"
        self.allow = folder / "allow.d" / "local.txt"
        self._capsys = capsys
        self.list.parent.mkdir()
        self.allow.parent.mkdir()
        self.list.write_text("# ours\nlisted.example threat=x\n")
        self.configure('lists: ["lists.d/*.txt"]\nallow: ["allow.d/*.txt"]\nown_domains: [ours.example]\n')

    def configure(self, text: str) -> None:
        (self.folder / "egressd.yaml").write_text(text)

    def run(self, verb: str, *words: str) -> tuple[int, str, str]:
        config = ["--config", str(self.folder / "egressd.yaml")]
        reason = [] if verb in ("preview", "diff") else ["--reason", "beacons seen"]
        code = main(["list", verb, *config, *reason, *words])
        out, err = self._capsys.readouterr()
        assert (out + err).isascii() and "\x1b" not in out + err
        return code, out, err


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site(tmp_path, capsys)
    monkeypatch.setenv("EGRESSD_SOCKET", str(found.socket))
    monkeypatch.setattr("sys.stdin", StringIO())
    monkeypatch.setattr(list_change, "note", lambda why: list_change.Note("2026-11-25", "anna", why))
    monkeypatch.delenv("VISUAL", raising=False)
    return found


def results(effect: Effect, *problems: Problem) -> dict[str, Any]:
    return {"list-preview": told(effect, problems), "reload": RELOADED}


# -- add


def test_add_shows_what_it_hits_and_says_who_and_why(site: Site) -> None:
    with daemon(site.socket, results(SMALL)) as asked:
        code, out, err = site.run("add", "Bad.example", "ref=case-17")
    assert (code, err) == (0, "")
    line = f"Bad.example ref=case-17 owner=anna # {NOTE}: beacons seen"
    assert site.list.read_text() == f"# ours\nlisted.example threat=x\n{line}\n"
    assert out.splitlines()[1:] == [
        "2 of 3 hosts, 10 contacts in 30 days, first 2023-10-15; shared with 2 names",
        "HOST     NAME            CONTACTS",
        "10.0.0.5 www.bad.example        8",
        "10.0.0.6 bad.example            2",
        "shared with: a.example, b.example",
        f"{site.list}:3: {line}",
        "lists are read anew",
        "  3 indicators (2 before)",
    ]
    assert [(verb, args) for _, verb, args in asked] == [
        ("list-preview", {"lines": ["+Bad.example ref=case-17 owner=anna"]}),
        ("reload", {"only": "lists", "force": False, "reason": "list add csirt.txt: bad.example: beacons seen"}),
    ]


def test_add_without_a_daemon(site: Site) -> None:
    code, out, err = site.run("add", "bad.example")
    assert code == 0
    assert out.splitlines()[0].startswith("What it would have hit is not known: no daemon answers at")
    assert "within two seconds of running" in err
    assert "bad.example owner=anna" in site.list.read_text()


def test_add_when_the_daemon_refuses_to_reload(site: Site) -> None:
    with daemon(site.socket, {**results(SMALL), "reload": Refused("not you\x1b[2J")}):
        code, _, err = site.run("add", "bad.example")
    assert code == 0
    assert "egressd: not you" in err and "by itself" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bad!.example", ":3:1: not a legal name"),
        ("bad.example scop=host", ":3:13: unknown option"),
        ("com", ':3:1: "com" is a public suffix'),
        ("10.0.0.7", ":3:1: 10.0.0.7 may not be listed"),
        ("# nothing", ":3:1: the line lists nothing"),
        ("bad.example\nworse.example", ":3:12: the line holds a character"),
    ],
)
def test_a_mistake_is_told_at_its_place_and_nothing_is_written(site: Site, line: str, said: str) -> None:
    before = site.list.read_bytes()
    with daemon(site.socket, results(SMALL)) as asked:
        code, out, err = site.run("add", line)
    assert (code, out, asked) == (3, "", [])
    assert f"{site.list}{said}" in err
    assert site.list.read_bytes() == before


def test_nothing_is_added_to_a_file_with_a_mistake(site: Site) -> None:
    site.list.write_text("broken line here\n")
    code, _, err = site.run("add", "bad.example")
    assert code == 3 and f"{site.list}:1:8:" in err
    assert site.list.read_text() == "broken line here\n"


@pytest.mark.parametrize(
    ("line", "effect", "why"),
    [
        ("bad.example", LARGE, "50 of 60 hosts"),
        ("ours.example", SMALL, "!! ours.example is one of your own domains"),
        ("www.ours.example", SMALL, "!! ours.example is one of your own domains"),
        ("com force=yes", SMALL, "!! com is a public suffix (rule com)"),
        ("10.0.0.7 force=yes", SMALL, "!! 10.0.0.0/8 is protected"),
    ],
)
def test_what_is_large_or_guarded_must_be_forced(site: Site, line: str, effect: Effect, why: str) -> None:
    with daemon(site.socket, results(effect)) as asked:
        code, out, err = site.run("add", line)
        assert code == 1 and why in out and "Nothing was changed" in err
        assert "owner=" not in site.list.read_text()
        assert site.run("add", line, "--force")[0] == 0
    assert f"{line} owner=anna # {NOTE}" in site.list.read_text()
    assert [verb for _, verb, _ in asked] == ["list-preview", "list-preview", "reload"]


def test_guard_reasons_hold_without_a_daemon(site: Site) -> None:
    code, out, _ = site.run("add", "ours.example")
    assert code == 1 and "your own domains" in out


def test_force_writes_what_lets_it_be_listed(site: Site) -> None:
    assert site.run("add", "com", "--force")[0] == 0
    assert "com owner=anna force=yes #" in site.list.read_text()
    assert site.run("add", "bad!", "--force")[0] == 3


def test_what_is_there_already_is_not_added_again(site: Site) -> None:
    code, _, err = site.run("add", "LISTED[.]example", "ref=2")
    assert code == 1 and f"{site.list}:2 has it already: listed.example threat=x" in err
    assert site.run("add", "*.listed.example")[0] == 0, "says something else"
    assert site.run("add", "listed.example", "ref=2", "--force")[0] == 0


@pytest.mark.parametrize("line", ["listed.example threat=x", "com", "--allow never-block 198.51.100.9"])
def test_force_adds_no_line_twice(site: Site, line: str) -> None:
    """It stood there twice, with the same options, and `rm` had two lines to explain."""
    assert site.run("add", *line.split(), "--force")[0] == (1 if "listed" in line else 0)
    before = site.list.read_text(), site.allow.exists() and site.allow.read_text()
    code, _, err = site.run("add", *line.split(), "--force")
    assert code == 1 and "has it already" in err and "Nothing was changed" in err
    assert (site.list.read_text(), site.allow.exists() and site.allow.read_text()) == before


def test_an_allowance(site: Site) -> None:
    with daemon(site.socket, results(LARGE)) as asked:
        assert site.run("add", "--allow", "never-block 198.51.100.9")[0] == 0, "a person says that it is good"
        code, out, _ = site.run("add", "--allow", "ignore-indicator", "listed.example")
    assert code == 0
    assert site.allow.read_text().splitlines() == [
        f'never-block 198.51.100.9 owner=anna reason="beacons seen" # {NOTE}',
        f'ignore-indicator listed.example owner=anna reason="beacons seen" # {NOTE}',
    ]
    assert [args["lines"] for _, verb, args in asked if verb == "list-preview"] == [
        ["+198.51.100.9 force=yes"],
        ["-listed.example force=yes"],
    ]
    assert f"{site.allow}:2: " in out
    assert site.run("add", "--allow", "never-block 198.51.100.9")[0] == 1
    assert site.run("add", "--allow", "allow everything")[0] == 3
    assert site.run("rm", "--allow", "never-block 198.51.100.9")[0] == 0
    assert site.allow.read_text().startswith(f"# removed {NOTE}: never-block 198.51.100.9: beacons seen\n")


# -- which file


def test_where_a_line_goes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.list.parent / "second.txt").write_text("")
    assert site.run("add", "one.example")[0] == 0
    local = site.list.parent / "local.txt"
    assert local.read_text().startswith("one.example ")
    assert site.run("add", "two.example", "--to", "second.txt")[0] == 0
    assert site.run("add", "three.example", "--to", str(site.list))[0] == 0
    assert site.run("add", "four.example", "--to", "new.txt")[0] == 0
    assert "four.example" in (site.list.parent / "new.txt").read_text()
    for bad in ("new.lst", str(site.folder / "new.txt"), ".hidden.txt", "absent/new.txt"):
        code, _, err = site.run("add", "five.example", "--to", bad)
        assert code == 2 and "is not there" in err
    monkeypatch.chdir(site.folder)
    (site.folder / "elsewhere.txt").write_text("")
    code, _, err = site.run("add", "six.example", "--to", "elsewhere.txt")
    assert code == 0 and "the daemon does not read it" in err


def test_no_file_to_choose(site: Site) -> None:
    site.configure("mode: monitor\n")
    code, _, err = site.run("add", "bad.example")
    assert code == 2 and "say --to FILE" in err
    site.configure("lists: [lists.d/csirt.txt, other.txt]\n")
    code, _, err = site.run("add", "bad.example")
    assert code == 2 and "csirt.txt" in err and "other.txt" in err


def test_a_list_behind_a_link(site: Site) -> None:
    target = site.folder / "git.txt"
    site.list.rename(target)
    site.list.symlink_to(target)
    target.chmod(0o640)
    assert site.run("add", "bad.example")[0] == 0
    assert site.list.is_symlink() and "bad.example" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_names_of_files_reach_no_terminal(site: Site) -> None:
    (site.list.parent / "a\x1b[2Jb.txt").write_text("hostile.example\n")
    assert site.run("add", "hostile.example", "--to", "a\x1b[2Jb.txt")[0] == 1
    assert site.run("rm", "hostile.example")[0] == 0
    assert site.run("add", "x.example", "--to", "absent\x1b[2J.lst")[0] == 2


# -- rm


def test_rm_says_which_blocks_it_lifts(site: Site) -> None:
    with daemon(site.socket, results(LIFTS)) as asked:
        code, out, err = site.run("rm", "LISTED.example.")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:3] == [
        "would be lifted: D3 listed.example (41 tries of 2 hosts)",
        f"{site.list}:2: removed: listed.example threat=x",
    ]
    assert site.list.read_text() == f"# ours\n# removed {NOTE}: listed.example: beacons seen\n"
    assert [args for _, _, args in asked] == [
        {"lines": ["-listed.example force=yes"]},
        {"only": "lists", "force": False, "reason": "list rm csirt.txt: listed.example: beacons seen"},
    ]


def test_rm_without_a_trace(site: Site) -> None:
    assert site.run("rm", "--no-trace", "listed.example")[0] == 0
    assert site.list.read_text() == "# ours\n"


def test_rm_of_what_is_not_there_or_in_several_files(site: Site) -> None:
    assert site.run("rm", "absent.example")[0] == 1
    assert site.run("rm", "listed.example", "--from", "nowhere.txt")[0] == 1
    second = site.list.parent / "second.txt"
    second.write_text("listed.example\n")
    code, _, err = site.run("rm", "listed.example")
    assert code == 2 and f"{site.list}:2" in err and f"{second}:1" in err
    with daemon(site.socket, results(LIFTS)) as asked:
        code, out, _ = site.run("rm", "listed.example", "--from", "second.txt")
    assert code == 0 and "still listed: " in out and "No block would be lifted." in out and "D3" not in out
    assert [verb for _, verb, _ in asked] == ["reload"]
    assert "\nlisted.example" in site.list.read_text()
    assert site.run("rm", "two words")[0] == 3


def test_rm_may_mend_a_file(site: Site) -> None:
    site.list.write_text("a.example scop=host\nb.example x=y\nc.example\n")
    assert site.run("rm", "c.example")[0] == 3, "it would not come into force"
    code, _, err = site.run("rm", "a.example")
    assert code == 0 and "1 mistake is left" in err
    assert site.run("rm", "b.example")[0] == 0


# -- a hundred at once


def test_parallel_commands_lose_nothing(site: Site) -> None:
    config = str(site.folder / "egressd.yaml")
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "egressd", "list", "add", f"n{number}.example", "--reason", "x", "--config", config],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )
        for number in range(8)
    ]
    assert [one.wait(HANG_S) for one in commands] == [0] * 8
    added = {line.split(" ")[0] for line in site.list.read_text().splitlines()[2:]}
    assert added == {f"n{number}.example" for number in range(8)}


# -- preview


def test_preview_changes_nothing(site: Site) -> None:
    before = site.list.read_bytes()
    effect = SMALL.__class__(**{**_fields(SMALL), "removed": 1, "lifted": LIFTS.lifted, "already": ["x (y.txt:1)"]})
    with daemon(site.socket, results(effect)) as asked:
        code, out, err = site.run("preview", "+bad.example", "-host.example", "two.example ref=1", "-listed.example")
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        lines = out.splitlines()
        assert lines[-2:] == ["would be lifted: D3 listed.example (41 tries of 2 hosts)", "Nothing was changed."]
        assert "listed already: x (y.txt:1)" in lines
        code, out, _ = site.run("preview", "--json", "-listed.example")
        assert code == 0 and json.loads(out)["lifted"][0]["decision_id"] == "D3"
    assert asked[0][2] == {
        "lines": ["+bad.example", "-host.example force=yes", "+two.example ref=1", "-listed.example force=yes"]
    }
    assert site.list.read_bytes() == before


def _fields(effect: Effect) -> dict[str, Any]:
    return {name: getattr(effect, name) for name in effect.__dataclass_fields__}


@pytest.mark.parametrize(
    "words",
    [
        ["+bad.example", "-host.example", "--json"],
        ["-host.example", "--json", "+bad.example"],
        ["--json", "-host.example", "+bad.example"],
        ["--json", "--", "+bad.example", "-host.example"],
    ],
)
def test_preview_takes_changes_before_and_behind_options(site: Site, words: list[str]) -> None:
    with daemon(site.socket, results(SMALL)) as asked:
        code, out, err = site.run("preview", *words)
        assert (code, err, out[:1]) == (0, "", "{")
    assert sorted(asked[0][2]["lines"]) == ["+bad.example", "-host.example force=yes"]


def test_preview_of_what_no_file_can_be_called(site: Site) -> None:
    code, out, err = site.run("preview", "a" * 300)
    assert (code, out) == (3, "")
    assert err.startswith("change:1:1: ")


@pytest.mark.parametrize("word", ["nosuch.txt", "./lists", "/etc/egressd/bad", "lists/nosuch.CSV", "hosts", "~/bad"])
def test_preview_of_a_file_that_is_not_there(site: Site, word: str) -> None:
    """It was taken for a name, and said to hit nothing."""
    with daemon(site.socket, results(SMALL)) as asked:
        code, out, err = site.run("preview", "+bad.example", word)
        assert (code, out) == (3, "")
        assert err.startswith(f"change:2:1: there is no file {word}; if it is a line to add, write +{word}")
        assert asked == []
        assert site.run("preview", "+nosuch.txt", "http://bad.example/a.txt", "two.example ref=a.txt")[0] == 0
    assert asked[0][2]["lines"] == ["+nosuch.txt", "+http://bad.example/a.txt", "+two.example ref=a.txt"]


def test_no_name_ends_as_files_of_lists_do() -> None:
    rules = {line.strip() for line in (SHIPPED / "public_suffix_list.dat").read_text("utf-8").splitlines()}
    assert not FILE_ENDINGS & rules


def test_preview_of_a_file(site: Site) -> None:
    new = site.folder / "csirt.txt"
    new.write_text("listed.example threat=y\nbad.example\n10.0.0.7 force=yes\n")
    hosts = site.folder / "hosts"
    hosts.write_text("0.0.0.0 one.example\n0.0.0.0 two.example\n")
    with daemon(site.socket, results(SMALL)) as asked:
        assert site.run("preview", str(new))[0] == 0
        new.write_text("bad.example\n")
        assert site.run("preview", str(new))[0] == 0
        assert site.run("preview", str(hosts))[0] == 0
        assert site.run("preview", str(site.list))[0] == 0
    assert [args["lines"] for _, _, args in asked] == [
        ["+listed.example scope=registered", "+bad.example scope=registered", "+10.0.0.7 force=yes"],
        ["+bad.example scope=registered", "-listed.example scope=registered force=yes"],
        ["+one.example scope=registered", "+two.example scope=registered"],
        ["+listed.example scope=registered"],
    ]
    new.write_text("bad.example\nbroken line here\n")
    code, _, err = site.run("preview", str(new))
    assert code == 3 and f"{new}:2:8" in err


def test_preview_of_nothing_and_of_too_much(site: Site) -> None:
    new = site.folder / "csirt.txt"
    new.write_text("listed.example threat=x\n")
    code, out, _ = site.run("preview", str(new))
    assert (code, out) == (0, "Nothing differs.\n")
    new.write_text("listed.example threat=x\n" + "".join(f"n{n}.example\n" for n in range(5_001)))
    with daemon(site.socket, results(SMALL)) as asked:
        code, out, _ = site.run("preview", str(new))
    assert code == 0 and "!! 1 line is not counted in this" in out
    assert len(asked[0][2]["lines"]) == 5_000


@pytest.mark.parametrize(
    ("change", "where"), [("+bad!", "change:1:1"), ("-", "change:1:1"), ("#", "change:1:1"), ("com", "change:1:1")]
)
def test_preview_of_what_is_no_change(site: Site, change: str, where: str) -> None:
    code, out, err = site.run("preview", change)
    assert (code, out) == (3, "") and where in err


def test_preview_without_a_daemon(site: Site) -> None:
    code, out, err = site.run("preview", "ours.example")
    assert code == 4 and "no daemon answers" in err
    assert "!! ours.example is one of your own domains" in out


def test_hostile_answers_reach_no_terminal(site: Site) -> None:
    bad = "x\x1b]0;t\x07\u202e" + "y" * 300
    effect = Effect(
        added=1, removed=1, hosts=1, contacts=1, already=[bad], shared=[bad] * 20, guards=[bad], top=[(bad, bad, 1)],
        lifted=[(bad, bad, 1, 1)] * 20,
    )  # fmt: skip
    with daemon(site.socket, results(effect, Problem(bad, 1, 1, bad))):
        assert site.run("preview", "bad.example")[0] == 0
        assert site.run("preview", "--json", "bad.example")[0] == 0
        assert site.run("add", "bad.example")[0] == 1
        assert site.run("rm", "listed.example")[0] == 0
    with daemon(site.socket, {"list-preview": {"text": 3, "top": {}, "lifted": [1], "large": "yes", "hosts": []}}):
        assert site.run("preview", "bad.example")[0] == 0


@pytest.mark.parametrize("line", ["a.example threat=" + "x" * 500, "http://a.example/" + "y" * 460 + " scope=exact"])
def test_a_long_line_is_asked_about_without_its_options(line: str) -> None:
    asked = list_effect.change("+", line)
    assert asked.startswith("+" + line.split(" ")[0]) and "threat" not in asked
    assert len(asked) <= requests.MAX_TEXT + 1
    assert list_effect.change("+", "http://a.example/" + "y" * 600) == ""


# -- diff


def test_diff(site: Site) -> None:
    new = site.folder / "new.txt"
    new.write_text("LISTED.example  threat=x # same\n\n*.bad.example\n")
    code, out, err = site.run("diff", str(new), str(site.list))
    assert code == 0
    assert out.splitlines() == [f"--- {site.list}", f"+++ {new}", "+3: bad.example scope=host confidence=100"]
    assert err == f"egressd: 0 lines only in {site.list}, 1 only in {new}\n"
    code, out, _ = site.run("diff", "--json", str(site.list), str(new))
    assert json.loads(out) == {
        "against": str(new), "file": str(site.list), "added": [],
        "removed": [{"line": 3, "text": "bad.example scope=host confidence=100"}],
    }  # fmt: skip
    assert site.run("diff", str(site.list), str(site.list))[1] == ""


def test_diff_against_the_configuration(site: Site) -> None:
    new = site.folder / "csirt.txt"
    new.write_text("listed.example threat=y\nbad!\n")
    code, out, err = site.run("diff", str(new))
    assert code == 3 and f"{new}:2:1" in err
    assert [line[:2] for line in out.splitlines()[2:]] == ["-2", "+1"]
    other = site.folder / "other.txt"
    other.write_text("")
    assert site.run("diff", str(other))[0] == 2
    assert "names no other file called" in site.run("diff", str(site.list))[2]  # the configuration's own file
    assert site.run("diff", str(site.folder / "absent"), str(new))[0] == 3


def test_diff_against_a_name_of_the_configuration(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/lists.md writes it: a name without a slash means the configuration's file of that name."""
    (site.folder / "elsewhere").mkdir()
    monkeypatch.chdir(site.folder / "elsewhere")
    Path("new.txt").write_text("new.example\n")
    code, out, _ = site.run("diff", "new.txt", "csirt.txt")
    assert (code, out.splitlines()[0]) == (0, f"--- {site.list}")
    Path("csirt.txt").write_text("here.example\n")  # one that is here is meant
    assert site.run("diff", "new.txt", "csirt.txt")[1].splitlines()[0] == "--- csirt.txt"
    assert site.run("diff", "new.txt", "absent.txt")[0] == 3


def test_diff_of_allowances(site: Site) -> None:
    site.allow.write_text("never-block 198.51.100.9 owner=a reason=b\n")
    new = site.folder / "local.txt"
    new.write_text("ignore-indicator http://a.example/x owner=a reason='b' expires=2035-01-31\n")
    code, out, _ = site.run("diff", "--allow", str(new))
    assert code == 0
    assert out.splitlines()[2:] == [
        "-1: never-block 198.51.100.9 owner=a reason=b",
        "+1: ignore-indicator http://a.example/x owner=a reason='b' expires=2035-01-31T00:00:00Z",
    ]


# -- edit


def editor(site: Site, monkeypatch: pytest.MonkeyPatch, *texts: str, meanwhile: str | None = None) -> None:
    """An editor that saves one text after the other, each time it is started; `meanwhile` is what another person saves
    into the file at the same time."""
    script = site.folder / "an editor.py"
    script.write_text(
        "import pathlib, sys\n"
        f"texts = {list(texts)!r}; other = {meanwhile!r}; count = pathlib.Path({str(site.folder / 'count')!r})\n"
        "at = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(at + 1))\n"
        "assert sys.argv[1] == '--wait'\n"
        "pathlib.Path(sys.argv[2]).write_text(texts[at], newline='')\n"
        f"if other is not None: pathlib.Path({str(site.list)!r}).write_text(other, newline='')\n"
    )
    (site.folder / "count").unlink(missing_ok=True)
    monkeypatch.setenv("EDITOR", f"{sys.executable} '{script}' --wait")
    monkeypatch.setenv("TMPDIR", str(site.folder))
    monkeypatch.setattr("tempfile.tempdir", None)


def copies(site: Site) -> list[Path]:
    return sorted(site.folder.glob("egressd-list-*/*"))


def test_edit_saves_what_was_edited(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(site, monkeypatch, "# ours\r\nbad.example\r\n")
    with daemon(site.socket, results(SMALL)) as asked:
        code, out, err = site.run("edit", "csirt.txt")
    assert (code, err) == (0, "")
    assert site.list.read_bytes() == b"# ours\r\nbad.example\r\n"
    assert f"{site.list}: +1 -1 saved" in out.splitlines()
    assert [args for _, _, args in asked] == [
        {"lines": ["+bad.example scope=registered", "-listed.example scope=registered force=yes"]},
        {"only": "lists", "force": False, "reason": "list edit csirt.txt: +1 -1: beacons seen"},
    ]
    assert copies(site) == []


def test_edit_without_a_change(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(site, monkeypatch, site.list.read_text())
    assert site.run("edit", "csirt.txt")[:2] == (0, "Nothing was changed.\n")
    assert copies(site) == []


def test_edit_asks_a_person(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.list.read_text()
    editor(site, monkeypatch, before + "bad!\n", before + "bad.example\n")
    monkeypatch.setattr("sys.stdin", Terminal("y\nn\n"))
    code, _, err = site.run("edit", "csirt.txt")
    assert code == 0 and f"{site.list}:3:1: not a legal name" in err and "[y/N]" in err
    assert site.list.read_text() == before
    assert [one.read_text() for one in copies(site)] == [before + "bad.example\n"] and str(copies(site)[0]) in err
    editor(site, monkeypatch, before + "bad.example\n")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert site.run("edit", "csirt.txt")[0] == 0
    assert site.list.read_text() == before + "bad.example\n"


def test_edit_of_what_is_large(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.list.read_text()
    with daemon(site.socket, results(LARGE)):
        for typed, code, saved in (("y\n", 0, False), (None, 1, False), ("force\n", 0, True)):
            editor(site, monkeypatch, before + "bad.example\n")
            monkeypatch.setattr("sys.stdin", StringIO() if typed is None else Terminal(typed))
            assert site.run("edit", "csirt.txt")[0] == code
            assert ("bad.example" in site.list.read_text()) is saved


def test_edit_with_a_mistake_and_nobody_to_ask(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(site, monkeypatch, "bad!\n")
    code, _, err = site.run("edit", "csirt.txt")
    assert code == 3 and "your copy is" in err
    assert err.count("csirt.txt:1:1: ") == 1
    assert site.list.read_text() == "# ours\nlisted.example threat=x\n"


def test_edit_takes_what_others_saved_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.list.read_text()
    editor(site, monkeypatch, before + "mine.example\n", meanwhile="# ours\nlisted.example threat=y\ntheirs.example\n")
    code, out, _ = site.run("edit", "csirt.txt")
    assert code == 0 and "with what others changed meanwhile" in out
    assert site.list.read_text() == "# ours\nlisted.example threat=y\ntheirs.example\nmine.example\n"


def test_edit_of_the_same_line_is_refused_and_the_copy_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine = "# ours\nlisted.example threat=y\n", "# ours\nlisted.example threat=z\n"
    editor(site, monkeypatch, mine, meanwhile=theirs)
    code, _, err = site.run("edit", "csirt.txt")
    assert code == 1 and "changed meanwhile, in the same lines" in err
    assert site.list.read_text() == theirs
    assert [one.read_text() for one in copies(site)] == [mine] and str(copies(site)[0]) in err


@pytest.mark.parametrize(
    ("program", "code"), [("false", 1), ("/nonexistent/editor", 2), ("'", 2), ("sh -c 'echo x > y; exit 3'", 1)]
)
def test_an_editor_that_fails(site: Site, monkeypatch: pytest.MonkeyPatch, program: str, code: int) -> None:
    monkeypatch.chdir(site.folder)
    monkeypatch.setenv("EDITOR", program)
    told, _, err = site.run("edit", "csirt.txt")
    assert told == code and "Errno" not in err
    assert site.list.read_text() == "# ours\nlisted.example threat=x\n"


# -- who


def test_the_author_is_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name, author in (("anna", "anna"), ('a "b" #\n', "a-b-"), ("\x1b" * 200, "-"), ("x" * 200, "x" * 64)):
        monkeypatch.setenv("SUDO_USER", name)
        assert list_change.author() == author
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert list_change.author() == "uid-4000000000"


@pytest.mark.parametrize("line", ["add", "add x.example", "rm x.example", "preview", "diff", "edit", "edit x", "frob"])
def test_usage(line: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["list", *line.split(" ")])
    assert stopped.value.code == 2
