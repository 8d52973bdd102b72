"""The commands as people run them: output, exit codes, escaping, speed of start by what is imported."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import threading
from argparse import Action, ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from egressd.cli.main import VERBS, build_parser, main
from egressd.cli.terminal import Progress, cut, fit, printable, span
from egressd.plural import count
from tests.cli.commands import HEAVY, loaded, of, run, write
from tests.loops import HANG_S

ROOT = Path(__file__).resolve().parent.parent.parent
JPS = sorted(str(path) for path in (ROOT / "pcaps" / "jps-2015").glob("*.pcap"))
EVIL = "news-portal.example"


# -- replay


def test_replay_report_fits_and_tells_the_incident(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "replay", *JPS)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80
    assert out.isascii()
    rows = {line.split()[0]: line.split() for line in lines if line.startswith("10.")}
    assert rows["10.1.3.23"][1:4] == [EVIL, "host*", "http,dns"], "the April host, from history"
    assert rows["10.2.5.41"][2] == "sibling", "the May host, on a subdomain never listed"
    assert {host: row[-2:] for host, row in rows.items() if host in ("10.2.7.11", "10.2.7.52", "10.2.9.30")} == {
        "10.2.7.11": ["48", "48"],
        "10.2.7.52": ["48", "48"],
        "10.2.9.30": ["52", "52"],
    }, "each of 24 tries is a question and a connection, and the last host asked four more names"
    assert rows["10.2.9.77"][2] == "behaves", "no list knows where it reports to"
    assert len(rows) == 6, "no innocent host"
    assert "monitor" in out
    assert "nothing was changed" in out


def test_the_next_step_asks_the_same_lists(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left `--list` out, and what had just been found was not listed."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own list.txt", "b.news-portal.example\n")
    shutil.copyfile(JPS[1], "may.pcap")
    _, out, _ = run(capsys, "replay", "--list", "own list.txt", "may.pcap")
    step = out.splitlines()[-1]
    assert step == "Next: egressd explain --list 'own list.txt' news-portal.example may.pcap"
    code, told, _ = run(capsys, *shlex.split(step)[2:])
    assert code == 0 and "from               own list.txt:1" in told
    _, out, _ = run(
        capsys, "replay", "--list", "own list.txt", str(Path("may.pcap").absolute()), "may.pcap", "may.pcap"
    )
    assert out.splitlines()[-1] == "Next: egressd explain news-portal.example FILE...   (with the same --list)"


def test_options_may_stand_between_a_name_and_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`explain NAME --list L FILE` was `unrecognized arguments: FILE`."""
    lists = write(tmp_path / "l.txt", "b.news-portal.example\n")
    straight = run(capsys, "explain", "--list", lists, EVIL, *JPS)
    assert run(capsys, "explain", EVIL, "--list", lists, *JPS) == straight
    assert run(capsys, "explain", EVIL, JPS[0], "--list", lists, *JPS[1:]) == straight
    assert run(capsys, "replay", JPS[0], "--list", lists, "--json", *JPS[1:])[1].count('"event_type":"summary"') == 1
    for wrong in (["status", "--json", "x"], ["replay", JPS[0], "--jbos", "4"], ["check", EVIL, "--json", JPS[0]]):
        with pytest.raises(SystemExit) as end:
            main(wrong)
        assert end.value.code == 2
        assert "unrecognized arguments" in capsys.readouterr().err


def test_a_listed_page_is_not_said_to_be_blocked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nothing on a gateway stops one page of a site (docs/lists.md); the verdict was `block url ...`."""
    lists = write(tmp_path / "l.txt", "http://files.example/drop/\n")
    _, out, _ = run(capsys, "check", "http://files.example/drop/x", "--list", lists)
    assert "would              tell of it and count it: one page cannot be blocked, list the host" in out


def test_replay_blocks_nothing_innocent(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "replay", "--json", *JPS)
    records = [json.loads(line) for line in out.splitlines()]
    decisions = [record["egressd"] for record in records if record["event_type"] == "decision"]
    blocked = {
        (target["kind"], target["value"])
        for decision in decisions
        if decision["action"] in ("block", "extend")
        for target in decision["targets"]
    }
    assert blocked == {
        ("registered_domain", EVIL),
        ("pair", "10.1.3.23>203.0.113.66"),
        ("address", "203.0.113.66"),
        ("address", "203.0.113.67"),
    }
    refused = {
        decision["targets"][0]["value"]: decision["rule"] for decision in decisions if decision["action"] == "refuse"
    }
    assert refused == {
        "10.2.0.53": "protected",
        "10.2.0.1": "protected",
        "8.8.8.8": "protected",
        "192.0.2.80": "shared",
    }
    unlisted = [decision for decision in decisions if decision["registered_domain"] == "weather-sync.example"]
    assert {decision["action"] for decision in unlisted} == {"alert", "ask"}, "behaviour alone blocks nothing"
    campaigns = records[-1]["egressd"]["campaigns"]
    assert [campaign["incidents"] for campaign in campaigns] == [["I1", "I2", "I3", "I4", "I5"], ["I6"]]


def test_replay_is_the_same_twice_and_without_prefilter(capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, "replay", "--json", "--observations", *JPS)
    assert run(capsys, "replay", "--json", "--observations", *JPS) == first
    assert run(capsys, "replay", "--json", "--observations", "--no-prefilter", *JPS) == first


def test_replay_without_findings_says_what_was_read(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "replay", "--exit-code", "pcaps/name-forms/input.pcap")
    assert code == 0
    assert "No listed domain observed in" in out
    assert "bad.example" in out, "what was reached instead"


def test_exit_code_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "replay", *JPS)[0] == 0
    assert run(capsys, "replay", "--exit-code", *JPS)[0] == 10


def test_replay_of_what_is_no_capture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "notes.txt", "these are not packets\n")
    code, out, err = run(capsys, "replay", path)
    assert (code, out) == (1, "")
    assert path in err
    assert "pcapng" in err
    assert run(capsys, "replay", str(tmp_path / "absent.pcap"))[0] == 1


def test_replay_names_a_damaged_tail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(Path(JPS[0]).read_bytes()[:-7])
    code, out, _ = run(capsys, "replay", str(path))
    assert code == 0
    assert "! " in out.splitlines()[1]


def test_replay_with_segments_and_allowances(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = write(tmp_path / "e.yaml", "segments:\n  JPS: [10.2.0.0/16]\nlists: [l.txt]\n")
    write(tmp_path / "l.txt", f"a.{EVIL}\n")
    allow = write(tmp_path / "allow.txt", 'ignore-client 10.2.9.30 owner=soc reason="analyst box"\n')
    _, out, _ = run(capsys, "replay", "--json", "--config", config, "--allow", allow, *JPS)
    incidents = [json.loads(line)["egressd"] for line in out.splitlines() if '"incident","' in line]
    seen = {incident["client"]: incident.get("segment", "") for incident in incidents}
    assert seen == {"10.1.3.23": "", "10.2.5.41": "JPS", "10.2.7.11": "JPS", "10.2.7.52": "JPS", "10.2.9.77": "JPS"}


def test_packets_of_no_host_tell_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames of a link type that is not read, or of ARP alone: "no listed domain observed" sounded like all is well."""
    head = struct.pack("<IHHiIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 189, 1_700_000_000)
    (tmp_path / "usb.pcap").write_bytes(head + struct.pack("<III", 0, 60, 60) + bytes(60))
    code, out, _ = run(capsys, "replay", str(tmp_path / "usb.pcap"))
    assert code == 0 and "No listed domain" not in out
    assert "!! No host was seen in 1 packet:\nwhether a listed domain was reached is not known." in out
    assert "link type 189 is not read" in out


def test_of_nothing_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.pcap").touch()
    code, out, _ = run(capsys, "replay", str(tmp_path / "empty.pcap"))
    assert code == 0 and "Nothing was seen in there" in out
    assert "1970" not in out and "No listed domain" not in out


@pytest.mark.parametrize(("columns", "width"), [(40, 38), (60, 58), (80, 78), (200, 78), (0, 78)])
def test_the_bar_fits_the_terminal(
    columns: int, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a narrow one each step of it was another line."""
    monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    monkeypatch.setattr("sys.stderr.fileno", lambda: 2, raising=False)
    bar = Progress()
    bar(123_000_000, 456_000_000)
    bar.close()
    steps = capsys.readouterr().err.split("\r")
    assert {len(one) for one in steps if one} == {width}
    assert steps[1].startswith("[##########")


def test_standard_input(tmp_path: Path) -> None:
    with Path(JPS[1]).open("rb") as capture:
        done = subprocess.run(
            [sys.executable, "-m", "egressd", "replay", "-"], stdin=capture, capture_output=True, cwd=ROOT, check=False
        )
    assert done.returncode == 0, done.stderr
    assert b"364 packets" in done.stdout


@pytest.mark.parametrize("most", ["16", "hard"])
def test_more_captures_side_by_side_than_files_may_be_open(tmp_path: Path, most: str) -> None:
    record = struct.pack("<II", 60, 60) + bytes(60)
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)
    for number in range(40):
        packets = b"".join(struct.pack("<II", second, number) + record for second in (1, 1_000))
        (tmp_path / f"{number}.pcap").write_bytes(head + packets)
    limits = "-Sn 16" if most == "hard" else f"-n {most}"
    command = f"ulimit {limits}; exec {sys.executable} -m egressd replay {tmp_path}/*.pcap"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    if most == "hard":
        assert (done.returncode, done.stderr) == (0, "")
        assert "40 files, 80 packets" in done.stdout
    else:
        assert done.returncode == 1
        assert "captures that overlap in time are read side by side: allow more open files (ulimit -n)" in done.stderr


def test_files_beyond_what_the_system_has_for_one_process(tmp_path: Path) -> None:
    """A hard limit above fs.nr_open cannot be taken (setrlimit(2): EPERM): containers get one of a thousand million."""
    (tmp_path / "empty.pcap").write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1))
    refused = (
        "import resource, sys; from egressd.cli.main import main\n"
        "def refuse(*_): raise ValueError('not allowed to raise maximum limit')\n"
        "resource.setrlimit = refuse\n"
        f"sys.exit(main(['replay', {str(tmp_path / 'empty.pcap')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", refused], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_reader_of_the_output_may_leave() -> None:
    command = f"{sys.executable} -m egressd replay --json --observations {' '.join(JPS)} | head -1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, cwd=ROOT, check=False)
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "verb",
    [
        "version", f"check {EVIL}", f"replay {JPS[1]}", f"replay --json --observations {JPS[1]}", "--help", "--version",
        "replay --help", "list add --help", "run --help",
    ],
)  # fmt: skip
def test_an_output_that_is_full_is_told(verb: str, unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "egressd", *verb.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    told = b"egressd: the output cannot be written: No space left on device; it is cut short\n"
    assert (done.returncode, done.stderr) == (1, told)


@pytest.mark.parametrize("verb", ["version", f"replay {JPS[1]}", f"replay --json {JPS[1]}"])
def test_an_error_output_that_is_closed_stops_nothing(verb: str) -> None:
    command = f"{sys.executable} -m egressd {verb} "
    done = subprocess.run(["/bin/sh", "-c", command + "2>&-"], capture_output=True, cwd=ROOT, check=False)
    plain = subprocess.run(["/bin/sh", "-c", command], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(plain.stdout.splitlines()) > 1


def test_a_closed_output_is_told_before_anything_is_done() -> None:
    for verb in ("version", f"replay {JPS[1]}", f"list lint {JPS[1]}"):
        command = f"{sys.executable} -m egressd {verb} >&-"
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, cwd=ROOT, check=False)
        told = b"egressd: the standard output is closed; nothing was done\n"
        assert (done.returncode, done.stderr) == (1, told), verb


def test_a_closed_standard_input_is_an_empty_one() -> None:
    command = f"{sys.executable} -m egressd replay - <&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Nothing was seen in there" in done.stdout


# -- explain, of saved events


SEEN = {
    "timestamp": "2015-04-22T00:12:00.000000+0000", "event_type": "sighting", "src_ip": "10.1.3.23",
    "egressd": {
        "registered_domain": EVIL, "name": f"a.{EVIL}", "match_level": "host", "via": "dns", "client": "10.1.3.23",
        "indicator": {"value": EVIL}, "retro": False, "count": 1, "incident": "I1", "campaign": "C1",
    },
}  # fmt: skip
TOTALS = {
    "state": "totals",
    "incident": "I1",
    "attempts": 1,
    "answered": 0,
    "last_seen": "2015-04-22T00:12:00.000000+0000",
}
DECIDED = {"decision_id": "D1", "action": "block", "reason": "x", "evidence": "E0"}


def test_saved_events_that_are_damaged_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A field that was not there, or of another type, was a traceback."""
    ours: dict[str, Any] = SEEN["egressd"]  # type: ignore[assignment]
    target = {"kind": "address", "value": "192.0.2.1"}
    whole: list[dict[str, Any]] = [
        SEEN,
        {**SEEN, "event_type": "incident", "egressd": {**ours, **TOTALS}},
        {**SEEN, "event_type": "decision", "egressd": {**ours, **DECIDED, "targets": [target]}},
    ]
    saved = tmp_path / "saved.json"
    saved.write_text("".join(json.dumps(one) + "\n" for one in whole) + '{"event_type": "dns", "dns": 1}\n')
    code, out, _ = run(capsys, "explain", EVIL, str(saved))
    assert code == 0 and "First sighting of each of 1 host" in out and "Incidents (1)" in out
    for event in whole:
        broken: list[dict[str, Any]] = [
            {**event, "timestamp": 5},
            {**event, "egressd": []},
            {**event, "event_type": []},
        ]
        broken += [{**event, "egressd": {**event["egressd"], "indicator": 1}}]
        for field in ("client", "retro", "last_seen", "attempts", "targets", "reason"):
            if field in event["egressd"] and not (field == "client" and event["event_type"] == "decision"):
                if not (field == "retro" and event["event_type"] != "sighting"):
                    broken.append({**event, "egressd": {**event["egressd"], field: None}})
        for one in broken:
            saved.write_text('{"event_type": "summary"}\n' + json.dumps(one) + "\n")
            code, _, err = run(capsys, "explain", EVIL, str(saved))
            assert code == 3 and "saved.json:2:1: is not an event of egressd" in err, one
    saved.write_text('{"a":' * 100_000 + "\n")
    assert run(capsys, "explain", EVIL, str(saved))[0] == 3


# -- check and check-config


@pytest.mark.parametrize(
    ("subject", "listed", "would"),
    [
        (f"a.{EVIL}", True, f"block registered domain {EVIL}"),
        (f"never.seen.{EVIL}", True, f"block registered domain {EVIL}"),
        (f"HXXP://b.{EVIL}:8080/x?y", True, f"block registered domain {EVIL}"),
        ("other-tenant.github.io", False, "nothing: not listed"),
        ("8.8.8.8", False, "nothing: not listed"),
        ("[2001:db8::1]", False, "nothing: not listed"),
    ],
)
def test_check(capsys: pytest.CaptureFixture[str], subject: str, listed: bool, would: str) -> None:
    code, out, _ = run(capsys, "check", "--json", "--exit-code", subject)
    verdict = json.loads(out)
    assert (verdict["listed"], verdict["would"], code) == (listed, would, 10 if listed else 0)
    text = run(capsys, "check", subject)[1]
    assert ("LISTED" in text) is listed
    assert "mode               monitor" in text


def test_check_refuses_what_is_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "check", "not a name\x1b[31m")
    assert code == 3
    assert "\x1b" not in err


def test_check_config_reports_every_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = ["-bad..name-", "nodots", "evil.example scope=wide", "300.1.1.1/99", "evil.example confidence=900"]
    path = write(tmp_path / "list.txt", "".join(f"{bad[n % len(bad)]} # {n}\n" for n in range(1000)))
    code, out, err = run(capsys, "check-config", path)
    lines = out.splitlines()
    assert code == 3
    assert len(lines) == 1000
    assert err == "egressd: 1,000 problems\n", "of a loose file nothing is in force anywhere"
    config = write(tmp_path / "egressd.yaml", "lists: [list.txt]\n")
    _, _, err = run(capsys, "check-config", config)
    assert err == "egressd: 1,000 problems; a daemon that reads this goes on with the last good state\n"
    for number, line in enumerate(lines, 1):
        head = line.removeprefix(path).split(":")
        assert head[1] == str(number)
        assert int(head[2]) >= 1


@pytest.mark.parametrize("suffix", ["com", "co.jp", "github.io"])
def test_check_config_refuses_a_public_suffix(capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / "list.txt", f"{suffix}\n")
    code, out, _ = run(capsys, "check-config", path)
    assert code == 3
    assert out.startswith(f"{path}:1:1: ")
    assert "public suffix" in out
    assert f"every site under {suffix}" in out


def test_check_config_warns_that_urls_are_not_blocked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`https://bad.example` went through as one indicator in force, and nothing was ever blocked for it."""
    path = write(tmp_path / "a.txt", "good.example\nhttps://bad.example\nhttp://bad.example/x\n")
    code, out, err = run(capsys, "check-config", path)
    assert (code, out.splitlines()[-1]) == (0, "ok: 3 indicators in force, mode monitor")
    assert "a.txt:2: 2 URLs listed, told of where requests can be read and never blocked; to block, list" in err


def test_check_config_of_the_shipped_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "check-config", str(ROOT / "config" / "egressd.yaml"))
    assert code == 0
    assert "ok" in out
    assert err.count("\n") == 1 and "names no list: only the built-in demonstration list" in err


@pytest.mark.parametrize("mine", [True, False])
def test_check_config_of_long_lists(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: bool
) -> None:
    """What the daemon's user checks before a start, the daemon finds; others leave nothing behind."""
    monkeypatch.setattr("egressd.config.large_lists.SMALL_BYTES", 100)
    (tmp_path / "state").mkdir()
    if not mine:
        monkeypatch.setattr("os.geteuid", lambda: 12_345)
    write(tmp_path / "feed.txt", "".join(f"n{number}.example\n" for number in range(50)))
    config = write(tmp_path / "e.yaml", "lists: [feed.txt]\nstate:\n  directory: state\n")
    code, out, err = run(capsys, "check-config", config)
    assert (code, err) == (0, "")
    assert "feed.txt: 50 indicators" in out and "50 indicators in force" in out
    assert len(list((tmp_path / "state").rglob("*.idx"))) == mine
    write(tmp_path / "feed.txt", "".join(f"n{number}.example\n" for number in range(50)) + "com\n")
    code, out, err = run(capsys, "check-config", config)
    assert code == 3 and out.startswith("feed.txt:51:1: ")


def test_invalid_list_stops_replay(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "com\n")
    code, out, err = run(capsys, "replay", "--list", path, *JPS)
    assert (code, out) == (3, "")
    assert f"{path}:1:1" in err


# -- explain, decode, version


def test_explain_over_captures_and_over_saved_events(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, over_captures, _ = run(capsys, "explain", EVIL, *JPS)
    saved = write(tmp_path / "events.jsonl", run(capsys, "replay", "--json", *JPS)[1])
    _, over_events, _ = run(capsys, "explain", EVIL, saved)
    assert over_events == over_captures.replace("in 4 files", "in 1 file")
    assert "demo.txt:6" in over_captures
    assert "refuse address 10.2.0.53" in over_captures
    assert "I5 10.2.9.30 sibling: 52 contacts, 52 after the block" in over_captures
    assert max(map(len, over_captures.splitlines())) <= 80


def test_explain_of_one_host(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "explain", "--json", "10.2.7.11", *JPS)
    assert {json.loads(line)["src_ip"] for line in out.splitlines()} == {"10.2.7.11"}


def test_explain_names_the_line_that_is_no_event(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", '{"event_type":"summary","egressd":{}}\n{"x":\n')
    code, _, err = run(capsys, "explain", EVIL, path)
    assert code == 3
    assert f"{path}:2:1" in err


def test_decode_shows_both_views(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "replay", "--json", "--observations", JPS[1])
    requests = [record for record in map(json.loads, out.splitlines()) if record["event_type"] == "http"]
    wanted = next(request for request in requests if request["http"]["hostname"] == f"b.{EVIL}")
    code, out, _ = run(capsys, "decode", JPS[1], str(wanted["pcap_cnt"]))
    assert code == 0
    assert "###[ TCP ]###" in out
    assert f'"hostname":"b.{EVIL}"' in out
    assert run(capsys, "decode", JPS[1], "99999")[0] == 1
    assert run(capsys, "decode", JPS[1], "0")[0] == 2


def test_decode_of_a_packet_that_scapy_breaks_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One byte of a frame of IEEE 802.11 was a traceback."""
    path = tmp_path / "short.pcap"
    head = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 105)
    path.write_bytes(head + struct.pack("<IIII", 1_700_000_000, 0, 1, 1) + b"\x08")
    code, out, err = run(capsys, "decode", str(path), "1")
    assert (code, err) == (0, "") and "scapy cannot read it: error" in out
    assert "egressd sees no destination complete in this packet." in out


def test_decode_escapes_hostile_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = ROOT / "pcaps" / "hostile-names" / "input.pcap"
    for number in range(1, 12):
        _, out, _ = run(capsys, "decode", str(hostile), str(number))
        assert all(char == "\n" or " " <= char <= "~" for char in out), number


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = json.loads(run(capsys, "version", "--json")[1])
    assert shipped["suffix_list"] >= "2026-10-22"
    assert shipped["packet_path"] in ("pure Python", "compiled")


# -- the frame of it all


def test_help_imports_nothing_heavy() -> None:
    """What makes `--help` fast is that it loads no verb; a second of imports would show here, not a timing."""
    modules, out = loaded("--help")
    assert of(modules, *HEAVY, "egressd.wire") == []
    assert all(verb in out for verb in VERBS)


def test_check_imports_nothing_heavy() -> None:
    modules, out = loaded("check", "a.example")
    assert of(modules, *HEAVY, "idna") == []
    assert out.startswith("a.example: ")


@pytest.mark.parametrize("argv", [[], ["replay"], ["nonsense"], ["check"], ["decode", "x", "one"]])
def test_usage_is_exit_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2


def paths_of(parser: ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Action]]:
    """Every argument that names a file, behind the words of its verb."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for name, sub in action.choices.items():
                yield from paths_of(sub, (*words, name))
        elif isinstance(action.metavar, str) and re.search("FILE|PATH|AGAINST", action.metavar):
            yield words, action


def test_an_empty_path_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """`--config "$CONFIG"` with nothing in it was taken for no configuration at all."""
    found = list(paths_of(build_parser(None)))
    assert len(found) > 30
    for words, action in found:
        assert callable(action.type), (words, action)
        with pytest.raises(ArgumentTypeError):
            action.type("")
    with pytest.raises(SystemExit) as stopped:
        main(["check", "bad.example", "--config", ""])
    assert stopped.value.code == 2
    assert "argument --config: the path is empty; name a file" in capsys.readouterr().err


def test_text_for_people() -> None:
    assert printable("a\x1b[31m\n\u202eb\udc80") == "a\\x1b[31m\\n\\u202eb\\udc80"
    assert fit("0123456789", 7) == "012..89"
    assert cut("0123456789", 7) == "01234.."
    assert [span(s * 1_000_000) for s in (0, 59, 60, 3_599, 3_600, 86_400, 90_000)] == [
        "0s",
        "59s",
        "1m",
        "59m59s",
        "1h",
        "1d",
        "1d1h",
    ]
    assert (count(1, "host"), count(2_000, "host"), count(0, "address", "addresses")) == (
        "1 host",
        "2,000 hosts",
        "0 addresses",
    )


def test_replay_reads_the_leases_that_the_configuration_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = ROOT / "pcaps" / "device-behind-router"
    write(
        tmp_path / "dnsmasq.leases",
        "0 02:aa:bb:cc:dd:01 10.0.8.7 pc-\x1b[7m *\n0 02:aa:bb:cc:dd:01 10.0.8.9 pc-\x1b[7m *\n",
    )
    config = write(tmp_path / "egressd.yaml", "devices: {leases: [dnsmasq.leases]}\n")
    argv = ["replay", "--config", config, "--list", str(case / "list.txt"), "--json", str(case / "input.pcap")]
    code, out, _ = run(capsys, *argv)
    records = [json.loads(line) for line in out.splitlines()]
    totals = [one["egressd"] for one in records if one["egressd"].get("state") == "totals"]
    assert [(one["device"], one["device_name"], one["addresses"]) for one in totals] == [
        ("02:aa:bb:cc:dd:01", "pc-?[7m", ["10.0.8.7", "10.0.8.9"])
    ]
    assert code == 0
    write(tmp_path / "dnsmasq.leases", "address=/c2.example/192.0.2.1\n")
    code, _, err = run(capsys, *argv)
    assert code == 3
    assert "dnsmasq.leases: is no lease file of dnsmasq, ISC dhcpd or Kea; name the file that the DHCP server" in err
    (tmp_path / "dnsmasq.leases").unlink()
    code, _, err = run(capsys, *argv)
    assert (code, "does not exist" in err) == (3, True)


def test_an_interrupt_while_it_loads_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control-C within the first tenths of a second showed where Python was."""

    def load(verb: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("egressd.cli.main._load", load)
    assert run(capsys, "replay", "-") == (130, "", "egressd: interrupted\n")


def test_what_came_from_standard_input_is_not_asked_for_again() -> None:
    case = ROOT / "pcaps/shared-cdn-address"
    argv = [sys.executable, "-m", "egressd", "replay", "--list", str(case / "list.txt"), "-"]
    packets = (case / "input.pcap").read_bytes()
    done = subprocess.run(argv, input=packets, capture_output=True, cwd=ROOT, check=True)
    assert done.stdout.endswith(b"\nNext: egressd explain bad.example EVENTS   (saved output of this with --json)\n")


@contextmanager
def ended_after(process: subprocess.Popen[bytes], timeout_s: float) -> Iterator[None]:
    """Reading from it ends in any case."""
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize("again", [False, True])
def test_what_a_pipe_still_holds_is_read_after_an_interrupt(again: bool) -> None:
    """Who ended `tcpdump -w - | egressd replay -` by Control-C was told nothing of what had been seen."""
    whole = (ROOT / "pcaps/shared-cdn-address/input.pcap").read_bytes()
    argv = [sys.executable, "-m", "egressd", "replay", "--json", "--observations", "-"]
    # Tests in the background of a shell have it ignored, and would hand that on to their children (POSIX, sh, 2.11).
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        pipe = subprocess.PIPE
        reading = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT)
    finally:
        signal.signal(signal.SIGINT, before)
    with reading as reader, ended_after(reader, 60):
        assert reader.stdin and reader.stdout and reader.stderr
        reader.stdin.write(whole[:2_000])
        reader.stdin.flush()
        assert reader.stdout.readline(), "it is reading"
        reader.send_signal(signal.SIGINT)
        assert reader.stderr.readline() == b"egressd: reads to the end of the input; interrupt again to stop at once\n"
        if again:
            reader.send_signal(signal.SIGINT)
            assert (reader.wait(HANG_S), reader.stderr.read()) == (130, b"egressd: interrupted\n")
            return
        out, err = reader.communicate(whole[2_000:], 20)
    assert (reader.returncode, err) == (0, b"")
    assert json.loads(out.splitlines()[-1])["egressd"]["packets"] == 66


def test_lint_warns_that_urls_are_not_blocked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "good.example\nhttps://bad.example\nhttp://bad.example/x\n")
    code, out, err = run(capsys, "list", "lint", path)
    assert (code, out) == (0, f"{path}: egressd, 3 indicators\n")
    assert "a.txt:2: 2 URLs listed, told of where requests can be read and never blocked; to block, list" in err
