"""`egressd replay --log`: what other sensors told of, beside captures and alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from egressd.capture.logfile import LogFile
from egressd.cli.exit_codes import OK, USAGE
from egressd.cli.main import main
from egressd.errors import CaptureError
from egressd.logs.framestream import DNSTAP, START, STOP, render_control
from pcaps.files import pcap
from pcaps.packets import CLIENT, EPOCH_US, ETHERNET, SERVER, Capture, Tcp
from tests.logs.lines import dns_wire, dnstap

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "events.schema.json").read_text(encoding="utf-8"))
C2 = "c2.bad.example"


class Folder:
    """A list, a capture of one request over plain HTTP, and logs, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("list.txt", f"{C2} threat=case\n")
        capture = Capture()
        tcp = Tcp(capture, (CLIENT, 40_000), (SERVER, 80))
        capture.add(tcp.packet(flags="S"))
        capture.add(tcp.packet(flags="SA", server=True))
        capture.add(tcp.packet())
        capture.add(tcp.packet(f"GET /a HTTP/1.1\r\nHost: {C2}\r\n\r\n".encode(), "PA"))
        (folder / "tap.pcap").write_bytes(pcap(capture.packets, ETHERNET))

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> str:
        assert main(["replay", "--list", str(self.folder / "list.txt"), *words]) == OK
        return capsys.readouterr().out

    def records(self, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
        out = self.run(capsys, "--json", *words)
        records = [json.loads(line) for line in out.splitlines()]
        validator = Draft202012Validator(SCHEMA)
        for record in records:
            validator.validate(record)
        assert self.run(capsys, "--json", *words) == out, "the same bytes again"
        return records


@pytest.mark.parametrize("text", ["", "garbage\n"])
def test_a_log_in_which_nothing_is_read_has_no_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Its summary was of 1970."""
    folder = Folder(tmp_path)
    folder.write("access.log", text)
    (record,) = folder.records(capsys, "--log", f"squid:{tmp_path}/access.log")
    assert record.keys() == {"event_type", "egressd"}
    saved = tmp_path / "events.jsonl"
    saved.write_text(json.dumps(record) + "\n")
    assert main(["explain", C2, str(saved)]) == OK


def squid(second: float, url: str = f"http://{C2}/a", client: str = CLIENT) -> str:
    when = EPOCH_US / 1e6 + second
    return f"{when:.3f}     90 {client} TCP_MISS/200 512 GET {url} - HIER_DIRECT/{SERVER} text/html\n"


def eve(second: float, host: str = C2) -> str:
    assert 0 <= second < 40
    event = {
        "timestamp": f"2023-11-14T22:13:{20 + second:09.6f}+0000", "event_type": "http", "src_ip": CLIENT,
        "src_port": 40_000, "dest_ip": SERVER, "dest_port": 80, "proto": "TCP",
        "http": {"hostname": host, "url": "/a", "http_method": "GET", "protocol": "HTTP/1.1", "status": 200},
    }  # fmt: skip
    return json.dumps(event) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize(("by_eve_s", "by_squid_s"), [(0.003, 0.5), (2.0, 0.1), (0.003, 8.0)])
def test_one_sighting_by_tap_eve_json_and_squid_is_one_with_three_sources(
    folder: Folder, capsys: pytest.CaptureFixture[str], by_eve_s: float, by_squid_s: float
) -> None:
    folder.write("eve.json", eve(by_eve_s))
    folder.write("access.log", squid(by_squid_s))
    tap = str(folder.folder / "tap.pcap")
    logs = ["--log", f"suricata:{folder.folder}/eve.json", "--log", f"squid:{folder.folder}/access.log"]
    records = folder.records(capsys, *logs, tap)
    ours = [record["egressd"] for record in records if record["event_type"] == "sighting"]
    assert sum(one["new"] for one in ours) == 1
    assert ours[-1]["sources"] == ["squid", "suricata", "tap"]
    (totals,) = [record["egressd"] for record in records if record.get("egressd", {}).get("state") == "totals"]
    assert (totals["count"], totals["attempts"]) == (1, 0)
    assert totals["sources"] == {"squid": 1, "suricata": 1, "tap": 1}
    summary = records[-1]["egressd"]
    assert (summary["incidents"], summary["contacts"], summary["clients"]) == (1, 1, 1)
    assert [one["observations"] for one in summary["logs"]] == [1, 1]
    assert [one["sensor"] for one in summary["sensors"]] == ["squid", "suricata"]
    report = folder.run(capsys, *logs, tap)
    assert "Told by: tap 1, squid 1" in report
    assert "3 files, 4 packets, 2 log lines" in report
    assert len(report.splitlines()) <= 25


def test_logs_alone(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [squid(0, "http://www.good.example/"), squid(1), squid(61), squid(62, f"http://{C2}/", "10.0.0.6"), "x\n"]
    with gzip.open(folder.folder / "access.log.gz", "wt") as file:
        file.writelines(lines)
    log = f"squid:{folder.folder}/access.log.gz"
    report = folder.run(capsys, "--log", log)
    assert "1 file, 5 log lines, 1m2s from 2023-11-14" in report
    assert "! lines that are none of their format: 1 of 5" in report
    assert "2 of 2 hosts reached a listed registered domain" in report
    assert "Told by: squid 3" in report
    records = folder.records(capsys, "--log", log)
    assert records[-1]["egressd"]["contacts"] == 3
    assert records[-1]["egressd"]["packets"] == 0
    assert "data out: not measured" in records[-1]["egressd"]["campaigns"][0]["stage"]


def test_a_log_in_which_nothing_is_listed_shows_what_was_contacted(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("eve.json", eve(0, "www.good.example"))
    report = folder.run(capsys, "--log", f"suricata:{folder.folder}/eve.json")
    assert "No listed domain observed in 1 log line of 1 host," in report
    assert "good.example" in report


def test_an_indicator_that_comes_later_finds_what_a_log_told(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("list.txt", f"{C2} added=2023-11-14T22:14:00Z\n")
    folder.write("access.log", squid(0) + squid(100))
    records = folder.records(capsys, "--log", f"squid:{folder.folder}/access.log")
    sightings = [record["egressd"] for record in records if record["event_type"] == "sighting"]
    assert [(one["retro"], one["count"]) for one in sightings] == [(True, 1), (False, 1)]


def test_dnstap_from_a_file(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    payload = dnstap(5, dns_wire(C2))
    data = render_control(START, DNSTAP) + len(payload).to_bytes(4, "big") + payload + render_control(STOP)
    (folder.folder / "dns.tap").write_bytes(data + b"\0\0\0\x05abc")
    report = folder.run(capsys, "--log", f"dnstap:{folder.folder}/dns.tap")
    assert "Told by: dnstap 1" in report


def test_what_cannot_be_read_is_told(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--log", "squid"], ["--log", "snort:x"], ["--log", "squid:"]):
        try:
            assert main(["replay", *words]) == USAGE
        except SystemExit as error:
            assert error.code == USAGE
        assert "FORMAT:FILE" in capsys.readouterr().err
    with pytest.raises(CaptureError, match="cannot be opened"):
        LogFile(folder.folder / "none.log", "squid", "squid")
    folder.write("access.log", squid(0) + "a" * 70_000 + "\n" + squid(1))
    log = LogFile(folder.folder / "access.log", "squid", "squid")
    assert len(list(log.observations())) == 2
    assert (log.result.lines, log.result.malformed) == (3, 1)
    (folder.folder / "cut.gz").write_bytes(gzip.compress(squid(0).encode() * 1_000)[:-20])
    log = LogFile(folder.folder / "cut.gz", "squid", "squid")
    assert list(log.observations()) == [] or log.result.error
    (folder.folder / "broken.tap").write_bytes(b"\xff" * 40)
    log = LogFile(folder.folder / "broken.tap", "dnstap", "dnstap")
    assert list(log.observations()) == []
    assert log.result.error == "a data frame is too long"
