"""The benchmark's traffic is the same every time and says what it claims; bench/run.py runs. No times are judged."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench import floor, peers, soak
from bench.captures import WORK
from bench.report import compare
from bench.traffic import KINDS, PLANTED_DOMAINS, write
from egressd.capture.merge import iter_packets
from egressd.model import FLOW, REPLY, Observation
from egressd.wire.dissector import Dissector
from tests.loops import HANG_S

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes(tmp_path: Path, kind: str) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / name, kind, 3000, seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_a_longer_capture_begins_like_a_shorter_one(tmp_path: Path) -> None:
    write(tmp_path / "short", "bulk", 1000)
    write(tmp_path / "long", "bulk", 2000)
    short = (tmp_path / "short").read_bytes()
    assert (tmp_path / "long").read_bytes().startswith(short)


def seen_in(path: Path) -> list[Observation]:
    """What the dissector sees in a capture without a gate."""
    found: list[Observation] = []
    dissector = Dissector(found.append)
    for ts_us, number, link, octets, wire in iter_packets(path):
        dissector.packet(ts_us, number, link, octets, 0, len(octets), wire)
    dissector.flush()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_planted_names_are_where_the_description_says(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "input.pcap"
    told = write(file, kind, 20_000)
    planted = json.loads((tmp_path / "input.pcap.json").read_text(encoding="ascii"))["planted"]
    assert len(planted) >= 4
    first: dict[str, int] = {}
    for seen in seen_in(file):
        if seen.name:
            first.setdefault(seen.name, seen.number)
    assert {name: number for name, (_, number) in planted.items()} == {
        name: number for name, number in first.items() if name.split(".")[-2].startswith("planted")
    }
    assert told["packets"] == 20_000
    listed = (tmp_path / "input.pcap.list").read_text(encoding="ascii").split()
    assert len(listed) == PLANTED_DOMAINS
    assert all(name.split(".", 1)[1] in listed for name in planted)


def test_kinds_of_traffic(tmp_path: Path) -> None:
    write(tmp_path / "bulk", "bulk", 60_000)
    found = seen_in(tmp_path / "bulk")
    kinds = {seen.kind for seen in found}
    assert kinds == {"dns_query", "dns_answer", "http_host", "tls_sni", "quic_sni", FLOW, REPLY}
    assert {len(seen.flow.client) for seen in found} == {4, 16}
    assert {seen.note for seen in found} == {""}  # nothing is broken or contradicts itself
    named = sum(1 for seen in found if seen.name)
    assert 0.008 < named / 60_000 < 0.03


def test_records_fill_the_file(tmp_path: Path) -> None:
    told = write(tmp_path / "bulk", "bulk", 5000)
    octets = (tmp_path / "bulk").read_bytes()
    assert len(octets) == told["octets"]
    at, last = 24, 0
    for _ in range(5000):
        second, micro, size, wire = struct.unpack_from("<IIII", octets, at)
        assert size == wire >= 60
        assert second * 1_000_000 + micro > last
        last = second * 1_000_000 + micro
        at += 16 + size
    assert at == len(octets)


def run_bench(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program of the benchmark."""
    command = [sys.executable, str(ROOT / "bench" / script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_S)


def test_quick_run_writes_a_result(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    without = [word for peer in ("tshark", "ndpiReader", "nfstream", "suricata") for word in ("--without", peer)]
    done = run_bench("run.py", "--quick", "--kinds", "bulk", "syn", *without, "--out", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["builds"] == ["pure"] and set(result["commands"]["pure"]) == {"--help", "version"}
    for kind, told in result["captures"].items():
        names = {row["name"] for row in told["rows"]} - {"tcpdump, filter"}
        assert names == {"egressd pure"} | ({"egressd pure, --no-prefilter"} if kind != "syn" else set())
        assert all(row["code"] == 0 and row["cpu_s"] > 0 and row["peak_bytes"] > 0 for row in told["rows"])
        own = next(row for row in told["rows"] if row["name"] == "egressd pure")
        assert own["found"] == own["planted"] and (own["planted"] > 0 or kind == "syn")
        assert set(told["digests"]) == {"pure", "pure, --no-prefilter", "pure, --jobs 2"}
        assert len(set(told["digests"].values())) == 1
        assert told["stages"]["pure"]["packets"] == told["packets"]
        assert all(cost > 0 for cost in told["floor"].values())
        assert ("parallel" in told) == (kind != "syn")
    assert "planted names all found" in done.stdout
    text, slower = compare(out, out)
    assert "egressd pure" in text and "+0%" in text and slower == 0


def test_compare_judges_by_the_fixed_loop_and_by_recall(tmp_path: Path) -> None:
    def result(path: Path, turns: float, found: int) -> Path:
        row = {"name": "egressd pure", "turns": turns, "found": found}
        path.write_text(json.dumps({"loop_ns": [20.0, 30.0], "captures": {"bulk": {"rows": [row]}}}))
        return path

    before = result(tmp_path / "a", 100.0, 40)
    for turns, found, marks, count in ((105, 40, "", 0), (120, 40, "SLOWER", 1), (60, 39, "FINDS LESS", 1)):
        text, slower = compare(before, result(tmp_path / "b", turns, found))
        assert slower == count and (not marks or marks in text)
        assert run_bench("run.py", "--compare", str(before), str(tmp_path / "b")).returncode == count


def test_peers_write_names_where_they_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b'1,"dns50.planted28.example"\n{"sni":"TLS"}xquic9.planted01.example.org')
    assert peers.names_in(tmp_path / "out") == {"dns50.planted28.example", "xquic9.planted01.example"}
    assert peers.names_in(tmp_path / "missing") == set()
    for peer in peers.PEERS:
        command = peer.command(tmp_path / "x.pcap", tmp_path)
        assert command[0] == peer.version[0] and str(tmp_path / "x.pcap") in command
    config = yaml.safe_load((tmp_path / "suricata.yaml").read_text().partition("---")[2])
    assert {"tls", "http", "quic"} == {one for one in config["outputs"][0]["eve-log"]["types"] if isinstance(one, str)}


def test_floors_are_measured(tmp_path: Path) -> None:
    write(tmp_path / "x.pcap", "bulk", 2000)
    assert floor.count_packets(tmp_path / "x.pcap") == 2000
    told = json.loads(run_bench("floor.py", str(tmp_path / "x.pcap")).stdout)
    assert set(told) == {"kernel_read", "memory_copy", "touch", "call"} and all(cost > 0 for cost in told.values())


def test_a_short_soak_tells_tables_memory_and_pauses(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    done = run_bench("soak.py", "--minutes", "0.05", "--out", str(out))
    assert "largest tables" in done.stdout and "memory, MB" in done.stdout, done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["packets"] > 100 and result["events"] > 0 and len(result["samples"]) > 2
    last = result["samples"][-1]["tables"]
    assert any(name.startswith("dissector.tcp._table") and size > 100 for name, size in last.items())
    assert any(name.startswith("engine.") and size > 100 for name, size in last.items())


@pytest.mark.pure
def test_a_copy_that_was_put_before_this_tree_is_what_is_measured(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "egressd", tmp_path / "egressd", ignore=shutil.ignore_patterns("__pycache__"))
    program = "import bench.packet_path, bench.office, egressd.wire.dissector as one; print(one.__file__)"
    where = {**os.environ, "EGRESSD_TREE": "1", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=where, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_what_grows_is_told() -> None:
    flat = [{"bytes": 100 << 20, "tables": {"a": 1000, "b": 10}} for _ in range(20)]
    assert soak.growing(flat) == []
    flat[-1] = {"bytes": 110 << 20, "tables": {"a": 2000, "b": 20}}
    assert [text.partition(":")[0] for text in soak.growing(flat)] == ["memory", "a"]


def test_work_is_not_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert f"{WORK.relative_to(ROOT)}/" in ignored


def test_the_index_bench_builds_asks_and_swaps() -> None:
    command = [sys.executable, str(ROOT / "bench" / "index.py"), "--names", "30000", "--misses", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert rows[1].startswith("30,000 names") and rows[1].endswith("pure")
    assert len(rows) > 20 and all(float(row[-12:].replace(",", "")) > -50 for row in rows[2:])
