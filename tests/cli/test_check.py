"""`egressd check` and `explain` say what they did not look at: feeds, which only the daemon has."""

from __future__ import annotations

import grp
import json
import os
from pathlib import Path

import pytest

from egressd.cli.exit_codes import FINDINGS, OK
from egressd.cli.main import main

CONFIG = """\
lists: [csirt.txt]
feeds:
  c2:
    url: https://feeds.partner.example/c2.txt
  partner:
    url: https://feeds.partner.example/off.txt
    enabled: false
"""


@pytest.mark.parametrize("verb", ["check", "explain"])
def test_what_is_not_in_files_may_be_in_a_feed(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "csirt.txt").write_text("bad.example\n")
    config = tmp_path / "egressd.yaml"
    config.write_text(CONFIG)
    said = "  not looked at      1 feed, which the daemon has: egressd explain --live"
    assert main([verb, "www.fine.example", "--config", str(config)]) == OK
    assert said in capsys.readouterr().out.splitlines()
    assert main([verb, "www.bad.example", "--config", str(config)]) == OK
    assert said not in capsys.readouterr().out.splitlines(), "a file says so already"
    config.write_text("lists: [csirt.txt]\n")
    assert main([verb, "www.fine.example", "--config", str(config)]) == OK
    assert "not looked at" not in capsys.readouterr().out


def test_a_listed_address_is_known_behind_the_networks_own_nat64(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "csirt.txt").write_text("198.51.100.9\n")
    config = tmp_path / "egressd.yaml"
    config.write_text("lists: [csirt.txt]\nnat64_prefixes: ['2001:db8:64::/96']\n")
    assert main(["check", "2001:db8:64::c633:6409", "--exit-code", "--config", str(config)]) == FINDINGS
    assert "csirt.txt:1" in capsys.readouterr().out
    assert main(["check", "2001:db8:64::c633:640a", "--exit-code", "--config", str(config)]) == OK


def test_a_machine_of_ours_is_protected_as_the_daemon_protects_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "csirt.txt").write_text("198.51.100.0/24\n")
    config = tmp_path / "egressd.yaml"
    config.write_text("lists: [csirt.txt]\nsegments: {lab: [198.51.100.0/25]}\n")
    assert main(["check", "198.51.100.7", "198.51.100.200", "--config", str(config)]) == OK
    ours, others = capsys.readouterr().out.split("\n\n")
    assert "segment lab" in ours and "the address is protected" in ours
    assert "protected" not in others


def test_what_holds_a_name_that_is_never_blocked_is_not_blocked_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "csirt.txt").write_text("c2.bad.example\n")
    (tmp_path / "allow.txt").write_text("never-block pay.bad.example owner=it reason=payments\n")
    config = tmp_path / "egressd.yaml"
    config.write_text("lists: [csirt.txt]\nallow: [allow.txt]\nstate: {directory: state}\n")
    assert main(["check", "--config", str(config), "--json", "c2.bad.example"]) == OK
    would = json.loads(capsys.readouterr().out)["would"]
    assert would.startswith("alert, not block: never-block pay.bad.example (")
    assert would.endswith("allow.txt:1: payments) lies in bad.example; a person must decide")


@pytest.mark.parametrize("more", [[], ["--for-start"]])
def test_a_group_that_there_is_not_is_warned_of(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No mistake of the file: it may be checked on another machine than the daemon's."""
    (tmp_path / "csirt.txt").write_text("bad.example\n")
    config = tmp_path / "egressd.yaml"
    here = grp.getgrgid(os.getgid()).gr_name
    control = f"control: {{viewers: [no-such-group, {here}], admins: [{here}]}}\n"
    config.write_text("lists: [csirt.txt]\nstate: {directory: state}\n" + control)
    assert main(["check-config", *more, str(config)]) == OK
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("egressd: warning: ")
    assert warning.endswith("egressd.yaml:3:21: control.viewers: no group no-such-group on this machine")


@pytest.mark.parametrize("more", [[], ["--for-start"]])
def test_files_of_feeds_and_interfaces_that_are_not_here_are_warned_of(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "open").write_text("geheim\n")
    (tmp_path / "open").chmod(0o644)
    config = tmp_path / "egressd.yaml"
    config.write_text(
        "state: {directory: state}\ncapture: {interfaces: [lo, nosuch0]}\nfeeds:\n"
        "  a: {url: 'https://feeds.example/a', credential: nosuch}\n"
        "  b: {url: 'https://feeds.example/b', credential: open, ca_file: nosuch.pem}\n"
        "  c: {url: 'https://feeds.example/c', credential: '${CREDENTIALS_DIRECTORY}/c'}\n"
        "  d: {url: 'https://feeds.example/d', credential: nosuch, enabled: false}\n"
    )
    assert main(["check-config", *more, str(config)]) == OK
    told = [line.partition("egressd.yaml:")[2] for line in capsys.readouterr().err.splitlines()]
    assert [line.rpartition(";")[0] for line in told] == [
        "2:28: capture.interfaces[1]: no interface nosuch0 on this machine",
        "4:51: feeds.a.credential: the file cannot be read: No such file or directory",
        "5:51: feeds.b.credential: everybody may read that file; chmod o= it",
        "5:66: feeds.b.ca_file: cannot be read, or holds no certificates in PEM form",
    ]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))  # in the service
    assert main(["check-config", *more, str(config)]) == OK
    assert "feeds.c.credential: the file cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--for-start"]])
def test_patterns_that_match_no_file_are_warned_of(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ending that is misspelt was `ok`, with one list less in force."""
    for folder in ("l", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "l" / "a.txt").write_text("bad.example\n")
    config = tmp_path / "egressd.yaml"
    config.write_text(
        'state: {directory: state}\nlists: ["l/*.txt", "l/*.text"]\nallow: ["empty/*.txt"]\n'
        'guard: {shared_ranges: [shipped, "empty/r*"]}\n'
    )
    assert main(["check-config", *more, str(config)]) == OK
    assert [line.partition("egressd.yaml:")[2] for line in capsys.readouterr().err.splitlines()] == [
        '2:20: lists[1]: no file matches "l/*.text"',
        '3:9: allow[0]: no file matches "empty/*.txt"',
        '4:34: guard.shared_ranges[1]: no file matches "empty/r*"',
    ]


def test_a_configuration_that_the_daemon_does_not_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "egressd.yaml"
    config.write_text("# mode: enforce\n")
    assert main(["check-config", str(config)]) == 0  # it is right for a replay
    assert "egressd run does not take it" in capsys.readouterr().err
    assert main(["check-config", "--for-start", str(config)]) == 3
    config.write_text("mode: monitor\nstate: {directory: state}\n")
    assert main(["check-config", "--for-start", str(config)]) == 0
    assert not (tmp_path / "state").exists(), "who only looks makes nothing that the daemon's user could not change"
    assert capsys.readouterr().err.endswith("nothing was done\n")


@pytest.mark.parametrize("verb", ["check", "explain"])
def test_on_a_gateway_its_own_configuration_is_asked(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check bad.example` said `not listed` of what the gateway's daemon blocked: it asked the demo list."""
    (tmp_path / "csirt.txt").write_text("bad.example\n")
    config = tmp_path / "egressd.yaml"
    config.write_text("lists: [csirt.txt]\nmode: enforce\n")
    monkeypatch.setattr("egressd.cli.options.SYSTEM_CONFIG", str(config))
    assert main([verb, "www.bad.example"]) == OK
    out = capsys.readouterr().out
    assert "www.bad.example: LISTED" in out and "csirt.txt:1" in out and "mode               enforce" in out
    mine = tmp_path / "mine.txt"
    mine.write_text("other.example\n")
    assert main([verb, "www.bad.example", "--list", str(mine)]) == OK
    assert "www.bad.example: not listed" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["check", "explain"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bad.example expires=2020-01-31", "bad.example (a.txt:2) expired 2020-01-31 00:00 UTC"),
        ("bad.example added=2100-01-31T12:00:00Z", "bad.example (a.txt:2) from 2100-01-31 12:00 UTC"),
    ],
)
def test_a_line_that_is_not_in_force_is_named(
    verb: str,
    line: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`not listed`, though the line stood in the file; and `check-config` counted it as in force."""
    monkeypatch.chdir(tmp_path)
    listed = Path("a.txt")
    listed.write_text(f"fine.example\n{line}\n")
    assert main([verb, "www.bad.example", "--list", str(listed)]) == OK
    assert f"  not in force       {said}\n" in capsys.readouterr().out
    assert main([verb, "www.good.example", "--list", str(listed)]) == OK
    assert "not in force" not in capsys.readouterr().out
    assert main(["check-config", str(listed)]) == OK
    rest = "1 expired" if "expired" in said else "1 not yet"
    assert f"ok: 1 indicator in force, {rest}, mode monitor" in capsys.readouterr().out
