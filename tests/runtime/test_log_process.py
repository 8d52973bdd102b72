"""The log process: real logs in, batches out; and what the core makes of them."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture import logfollow
from egressd.capture.dnstap_socket import DnstapSocket
from egressd.capture.logfollow import Mark
from egressd.errors import Malformed
from egressd.intel.index import Index
from egressd.logs.framestream import ACCEPT, DATA, DNSTAP, FINISH, READY, START, STOP, FrameStream, render_control
from egressd.model import DNS_QUERY, HTTP_HOST, Observation
from egressd.runtime import log_process, orders
from egressd.runtime.inbox import Inbox
from egressd.runtime.log_process import LogProcess, load_marks
from egressd.runtime.messages import UP_BATCH, Frames, parse_batch
from egressd.runtime.observed import Whose, pack_observation, unpack_observation
from tests.detect.live_scene import intel
from tests.detect.scene import SUFFIXES, listed, packed
from tests.logs.lines import dns_wire, dnstap, read
from tests.runtime.events import ANY_JSON, places, put_at
from tests.runtime.scene import Hands

C2 = "c2.bad.example"
NOW_US = 1_795_600_800_000_000
SECOND = 1_000_000


def squid(second: float, host: str = C2, client: str = "10.0.0.5") -> str:
    return f"{NOW_US / 1e6 + second:.3f} 0 {client} TCP_TUNNEL/200 39 CONNECT {host}:443 - HIER_DIRECT/198.51.100.7 -\n"


class Reader:
    """A log process in this process, and what it has told."""

    def __init__(self, folder: Path, *sources: orders.LogSource) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.setblocking(False)
        theirs.settimeout(10)
        for one in (self.ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.state = folder / "sensors.json"
        start = orders.LogStart(sources, str(self.state), 0, intel(f"{C2} threat=case", ""))
        self.process = LogProcess(Inbox(theirs), start)
        self.frames = Frames(1 << 24)
        self.observed: list[Observation] = []
        self.history: list[Any] = []
        self.stats: dict[str, Any] = {}

    def turn(self, second: float = 0) -> None:
        while self.process.turn(NOW_US + round(second * SECOND)):
            self.take()
        self.take()

    def take(self) -> None:
        try:
            while data := self.ours.recv(1 << 20):
                for kind, body in self.frames.feed(data):
                    assert kind == UP_BATCH
                    batch = parse_batch(body)
                    self.observed += map(unpack_observation, batch.get("observed", []))
                    self.history += batch.get("history", [])
                    self.stats = batch.get("stats", self.stats)
        except BlockingIOError:
            return

    def close(self) -> None:
        self.process.finish()
        self.take()


def source(folder: Path, format_: str = "squid", name: str = "", estimate: bool = True) -> orders.LogSource:
    return orders.LogSource("proxy", str(folder / (name or "access.log")), format_, estimate)


def test_what_matches_is_told_and_the_rest_is_history(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text(squid(-900))
    reader = Reader(tmp_path, source(tmp_path))
    reader.turn()
    with log.open("a") as file:
        file.write(squid(0) + squid(0, "www.good.example") + "rubbish\n" + squid(1, "www.good.example"))
    reader.turn(1)
    assert [(seen.kind, seen.name, seen.ts_us - NOW_US) for seen in reader.observed] == [(HTTP_HOST, C2, 0)]
    assert (reader.stats["sensors"]["proxy"]["lines"], reader.stats["sensors"]["proxy"]["malformed"]) == (4, 1)
    assert reader.history == []
    reader.turn(8)
    ((sensor, row),) = reader.history
    assert (sensor, row[1:3], row[6]) == ("proxy", ["good.example", "www.good.example"], 2)
    reader.close()


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text(squid(-900))
    reader = Reader(tmp_path, source(tmp_path))
    reader.turn()
    reader.close()
    with log.open("a") as file:
        file.write(squid(0))
    log.rename(tmp_path / "access.log.1")
    log.write_text(squid(1))
    reader = Reader(tmp_path, source(tmp_path))
    reader.turn(2)
    assert [seen.ts_us - NOW_US for seen in reader.observed] == [0, SECOND]
    reader.close()
    reader = Reader(tmp_path, source(tmp_path))
    reader.turn(3)
    assert reader.observed == []
    for spoilt in ("", "[]", '{"proxy": 1}', '{"proxy": {"x": [[1]]}}', "x"):
        reader.state.write_text(spoilt)
        assert load_marks(reader.state) == {}


def test_files_that_fit_a_pattern_and_headers(tmp_path: Path) -> None:
    head = "#separator \\x09\n#path\thttp\n#fields\tts\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tmethod\thost\turi\n"
    row = f"{NOW_US / 1e6}\t10.0.0.5\t40000\t198.51.100.7\t80\tGET\t{C2}\t/\n"
    (tmp_path / "http.log").write_text(head + row)
    reader = Reader(tmp_path, source(tmp_path, "zeek", "*.log"))
    reader.turn()
    with (tmp_path / "http.log").open("a") as file:
        file.write(row)
    reader.turn(1)
    assert len(reader.observed) == 1, "the header is known although reading began behind it"
    (tmp_path / "http2.log").write_text(head + row + row)
    reader.turn(7)
    assert len(reader.observed) == 3, "what comes later is new from its beginning"
    reader.close()


def test_lists_that_change(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("")
    reader = Reader(tmp_path, source(tmp_path))
    reader.turn()
    told = intel("other.example", "")
    reader.process.obey(orders.Swap(told, None, False, False))  # type: ignore[arg-type]
    log.write_text(squid(0) + squid(0, "www.other.example"))
    reader.turn(1)
    assert [seen.name for seen in reader.observed] == ["www.other.example"]
    assert Index.build(listed(C2), SUFFIXES).size == 1
    reader.process.obey(orders.Stop())
    assert not reader.process.running


def test_what_was_read_before_lists_change_is_told_at_once(tmp_path: Path) -> None:
    """The core searches the disk a second later, once, and nobody else looks through what another sensor told of."""
    log = tmp_path / "access.log"
    log.write_text("")
    reader = Reader(tmp_path, source(tmp_path))
    reader.process._clock = Hands(NOW_US + 2 * SECOND).clock()
    reader.turn()
    log.write_text(squid(0, "www.other.example"))
    reader.turn(1)
    assert reader.history == []
    reader.process.obey(orders.Swap(intel("other.example", ""), None, False, False))  # type: ignore[arg-type]
    reader.turn(2.1)
    assert [row[2] for _, row in reader.history] == ["www.other.example"]
    reader.close()


@pytest.mark.parametrize(("estimate", "expected_s"), [(True, 0.25), (False, -3600)])
def test_a_clock_that_is_an_hour_behind_is_corrected_unless_it_is_said_to_be_right(
    tmp_path: Path, estimate: bool, expected_s: float
) -> None:
    log = tmp_path / "access.log"
    log.write_text("")
    reader = Reader(tmp_path, source(tmp_path, estimate=estimate))
    reader.turn()
    for second in range(1, 12):
        with log.open("a") as file:
            file.write(squid(second - 3600))
        reader.turn(second + 0.25)
    assert reader.observed[-1].ts_us - NOW_US == round((11 + expected_s) * SECOND)
    assert reader.stats["sensors"]["proxy"]["late_us"] == round(3600.25 * SECOND)


@pytest.mark.parametrize("estimate", [True, False])
def test_a_line_of_the_future_is_of_now(tmp_path: Path, estimate: bool) -> None:
    """A sensor's clock may be a year ahead. Where it is corrected that takes a few lines; until then a line's time
    would end what is listed."""
    log = tmp_path / "access.log"
    log.write_text("")
    reader = Reader(tmp_path, source(tmp_path, estimate=estimate))
    reader.turn()
    log.write_text(squid(365 * 86_400) + squid(365 * 86_400, "www.innocent.example"))
    reader.turn(1)
    reader.turn(20)
    assert [one.ts_us for one in reader.observed] == [NOW_US + SECOND]
    assert {row[1][5] for row in reader.history} == {NOW_US + SECOND}


def test_a_clock_that_is_set_back_makes_it_no_less_talkative(tmp_path: Path) -> None:
    """It said nothing until the clock had come to where it was, and was ended for that after ten seconds; nor did it
    look for new files."""
    reader = Reader(tmp_path, source(tmp_path, name="*.log"))
    reader.turn(7_200)
    reader.stats.clear()
    (tmp_path / "access.log").write_text(squid(0))
    reader.process.obey(orders.Step(-7_200 * SECOND))
    reader.turn(1)
    assert reader.stats["sensors"]["proxy"]["lines"] == 1


def test_many_that_match_wait_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "access.log"
    log.write_text("")
    reader = Reader(tmp_path, source(tmp_path))
    reader.turn()
    log.write_text("".join(squid(number / 1000) for number in range(9_000)))
    monkeypatch.setattr(log_process, "OBSERVED_PER_S", 100)
    monkeypatch.setattr(logfollow, "READ_BYTES", 20_000)
    told = []
    for second in range(1, 60):
        reader.turn(second)
        told.append(len(reader.observed))
    assert 100 <= told[0] < 400, "the rest waits"
    assert told[-1] == 9_000


# -- dnstap over a socket


@pytest.mark.parametrize("listens", [True, False], ids=["two-way", "one-way"])
def test_dnstap_over_a_socket(tmp_path: Path, listens: bool) -> None:
    reader = Reader(tmp_path, source(tmp_path, "dnstap", "tap.sock"))
    reader.turn()
    stream = FrameStream()
    with socket.socket(socket.AF_UNIX) as resolver:
        resolver.settimeout(5)
        resolver.connect(str(tmp_path / "tap.sock"))
        if listens:
            resolver.sendall(render_control(READY, DNSTAP))
            reader.turn()
            assert [frame.kind for frame in stream.feed(resolver.recv(100))] == [ACCEPT]
        payload = dnstap(5, dns_wire(C2))
        resolver.sendall(render_control(START, DNSTAP) + len(payload).to_bytes(4, "big") + payload)
        reader.turn(1)
        assert [(seen.kind, seen.name) for seen in reader.observed] == [(DNS_QUERY, C2)]
        resolver.sendall(render_control(STOP))
        reader.turn(2)
        assert [frame.kind for frame in stream.feed(resolver.recv(100))] == [FINISH]
    reader.turn(3)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(tmp_path / "tap.sock"))
        other.sendall(b"\xff" * 64)
        reader.turn(4)
        assert reader.process.sources[0].socket is not None
        assert reader.process.sources[0].socket.malformed == 1
    reader.close()
    assert not (tmp_path / "tap.sock").exists()
    assert DATA == 0


def test_a_socket_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("somebody's")
    """With where it was to be: `SENSOR tap failing: No such file or directory` said nothing of a folder."""
    for path, what in (("file", "no socket"), ("none/tap.sock", "no such file"), ("x" * 200, "cannot be")):
        tap = DnstapSocket(str(tmp_path / path))
        assert tap.poll() == []
        assert tap.problem.startswith(f"{tmp_path / path}: ") and what in tap.problem
    assert (tmp_path / "file").read_text() == "somebody's"


# -- on the way to a packet process

OBSERVATIONS = [
    *read("squid", squid(0)),
    *read("dnstap", dnstap(5, dns_wire(C2))),
    *read("unbound", f"[1795600800] unbound[812:0] info: 10.0.0.5 {C2}. A IN"),
]


@pytest.mark.parametrize("seen", OBSERVATIONS, ids=lambda seen: seen.kind)
def test_an_observation_arrives_as_it_was(seen: Observation) -> None:
    arrived = unpack_observation(json.loads(json.dumps(pack_observation(seen))))
    if seen.kind == HTTP_HOST:
        assert arrived == seen
    assert (arrived.kind, arrived.flow, arrived.name, arrived.sensor) == (seen.kind, seen.flow, seen.name, "s")


NUMBERS = st.sampled_from([-1, 0, 1, 65_535, 65_536, 99_999, 1 << 40, 1 << 70, 1e308, True, None, "7", "65536"])


@given(st.fixed_dictionaries({"qtype": NUMBERS, "trans_id": NUMBERS, "id.orig_p": NUMBERS, "rtt": NUMBERS}))
def test_whatever_a_line_says_what_it_tells_of_arrives(numbers: dict[str, Any]) -> None:
    """The core ends a process that tells of what cannot be; it began with the same line again."""
    line = {
        "_path": "dns", "ts": 1795600800.25, "id.orig_h": "10.0.0.5", "id.resp_h": "192.0.2.53", "id.resp_p": 53,
        "proto": "udp", "query": C2,
    }  # fmt: skip
    try:
        told = read("zeek", json.dumps(line | numbers))
    except Malformed:
        return
    for seen in told:
        assert unpack_observation(json.loads(json.dumps(pack_observation(seen)))).name == C2


@given(st.sampled_from(OBSERVATIONS), st.data())
def test_anything_in_any_place_is_an_observation_or_malformed(seen: Observation, data: st.DataObject) -> None:
    sent = pack_observation(seen)
    spoilt = put_at(sent, data.draw(st.sampled_from(places(sent))), data.draw(ANY_JSON))
    with suppress(Malformed):
        assert unpack_observation(spoilt).flow.client


def test_whose_packets() -> None:
    assert Whose(1).of(packed("10.0.0.5")) == (0, True)
    whose = Whose(2)
    assert whose.of(packed("10.0.0.5")) == (0, False)
    whose.note(1, packed("10.0.0.5"))
    assert whose.of(packed("10.0.0.5")) == (1, True)
    assert Mark(1, 2, 3, "x").offset == 2
