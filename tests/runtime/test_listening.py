"""Other sensors in the daemon: one contact of several sources in the core and its ledger, alarms, and history."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from egressd.config.sensor_options import SensorOptions
from egressd.detect.hearing import keep_in_mind
from egressd.detect.live import LiveEngine
from egressd.errors import Malformed
from egressd.model import HTTP_HOST, TCP, FlowKey, HttpRequest, Observation, Sighting
from egressd.runtime import screens
from egressd.runtime.bulk_rows import HistoryRow
from egressd.runtime.history_agreement import WAIT_US, HistoryAgreement
from egressd.runtime.listening import ALIVE_US, FAILING, OK, SILENT, Listening
from egressd.runtime.observed import pack_observation, unpack_observation
from egressd.runtime.orders import LogStart, Observed, Order
from egressd.store import incidents
from tests.detect.live_scene import LiveScene
from tests.loops import in_loop
from tests.runtime.core_scene import CONFIG, site_at
from tests.runtime.scene import SECOND, T0, A, B, Hands, X

C2 = "c2.listed.example"
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "events.schema.json").read_text(encoding="utf-8"))


def request(sensor: str, second: float, client: bytes = A, port: int = 0) -> Observation:
    detail = HttpRequest("GET", f"http://{C2}/", C2, C2, 0, "", "", "/")
    flow = FlowKey(TCP, client, port, X, 80) if port else FlowKey(0, client, 0, b"", 0)
    note = "" if port else "proxied"
    return Observation(HTTP_HOST, T0 + round(second * SECOND), 0, flow, C2, C2, detail, 0, note, sensor)


# -- the acceptance: real logs, a real log process, the core and its ledger


def squid_line(now_s: float) -> str:
    return f"{now_s:.3f} 5 10.0.0.5 TCP_MISS/200 9 GET http://{C2}/ - HIER_DIRECT/198.51.100.7 text/html\n"


def eve_line(now_s: float) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s)) + f".{int(now_s % 1 * 1e6):06}+0000"
    event = {
        "timestamp": stamp, "event_type": "http", "src_ip": "10.0.0.5", "src_port": 40_000,
        "dest_ip": "198.51.100.7", "dest_port": 80, "proto": "TCP",
        "http": {"hostname": C2, "url": "/", "http_method": "GET"},
    }  # fmt: skip
    return json.dumps(event) + "\n"


class Batches:
    """Waits for what the log process tells."""

    def __init__(self, listening: Listening) -> None:
        self._came = asyncio.Event()
        self._take = listening.process._on_batch
        listening.process._on_batch = self._hear

    async def _hear(self, number: int, batch: dict[str, Any]) -> None:
        await self._take(number, batch)
        self._came.set()

    async def until(self, what: Callable[[], Any]) -> None:
        while not what():
            self._came.clear()
            await self._came.wait()


@in_loop
async def test_tap_eve_json_and_squid_make_one_sighting_with_three_sources(tmp_path: Path) -> None:
    """The process that reads logs is a real one; the packet process's engine runs here."""
    eve, proxy = tmp_path / "eve.json", tmp_path / "access.log"
    eve.write_text("")
    proxy.write_text("")
    (tmp_path / "state").mkdir()
    config = CONFIG + f"sensors: {{eve: {{path: {eve}}}, proxy: {{path: {proxy}, format: squid}}}}\n"
    now_us = time.time_ns() // 1_000
    hands = Hands(now_us, time.monotonic_ns() // 1_000)  # the process is told by how much the two differ
    async with site_at(tmp_path, "monitor", config, hands=hands) as site:
        core = site.core
        batches = Batches(core.listening)
        running = asyncio.get_running_loop().create_task(core.listening.run())
        await core.listening.process.ready.wait()
        scene = LiveScene(f"{C2} threat=case")
        start, _ = core.start_of(0)
        assert start.sensors, "packet processes are told that others tell, too"
        events: list[Any] = []
        engine = LiveEngine(
            scene.engine.intel, scene.engine.policy.settings, events.append, enforced=False, sensors=True
        )
        with proxy.open("a") as file:
            file.write(squid_line(now_us / 1e6) + squid_line(now_us / 1e6).replace(C2, "www.good.example"))
        with eve.open("a") as file:
            file.write(eve_line(now_us / 1e6))
        told: list[Order] = site.told
        await batches.until(lambda: sum(len(one.rows) for one in told if isinstance(one, Observed)) == 2)
        packet = request("", (now_us - T0) / SECOND + 0.002, port=40_000)
        rows = [row for one in told if isinstance(one, Observed) for row in one.rows]
        for seen in (unpack_observation(rows[0]), packet, unpack_observation(rows[1])):
            engine.observe(seen)
        site.sees(*[event for event in events if isinstance(event, Sighting)])
        (incident,) = core.campaigns.incidents.values()
        assert incident.contacts == 1
        assert incident.sources == {"tap": 1, "eve": 1, "proxy": 1}
        sightings = [one["egressd"] for one in site.ears.records if one["event_type"] == "sighting"]
        assert sightings[-1]["sources"] == ["eve", "proxy", "tap"]
        assert [one["new"] for one in sightings].count(True) == 1
        core.listening.agreed([{"eve": [1, 2_000], "proxy": [1, 250_000]}])
        await batches.until(lambda: core.listening.states["proxy"].lines == 2)
        core.listening.tick()
        shown = {one["name"]: one for one in core.listening.screen()}
        assert (shown["proxy"]["state"], shown["proxy"]["agreed"], shown["proxy"]["clock_ahead_s"]) == (OK, 1, 0.25)
        await core.scribe.settled()
        await core.listening.stop()
        await running
        assert core.learning.history_waiting == []
        site.hands.pass_s(WAIT_US / 1e6 + 1)
        core._listen()
        assert [row[2] for row in core.learning.history_waiting] == ["www.good.example"]
        (row,) = await site.ledger.read(incidents.load_incidents)
        assert row.incident.sources == {"tap": 1, "eve": 1, "proxy": 1}
        found = await screens.incidents(core, None, None)
        assert found["incidents"][0]["sources"] == {"tap": 1, "eve": 1, "proxy": 1}
    hands = Hands(now_us, time.monotonic_ns() // 1_000)  # the process is told by how much the two differ
    async with site_at(tmp_path, "monitor", config, hands=hands) as site:
        assert next(iter(site.core.campaigns.incidents.values())).sources == {"tap": 1, "eve": 1, "proxy": 1}


# -- which packet process


class Desk:
    """A Listening without its process."""

    def __init__(self, processes: int = 1, **options: Any) -> None:
        self.now_us = T0
        self.packet_us = T0
        self.told: list[tuple[int, Order]] = []
        self.events: list[dict[str, Any]] = []
        self.listening = Listening(
            {"proxy": SensorOptions("/a", "squid", **options), "off": SensorOptions("/b", enabled=False)}, processes,
            lambda sources: LogStart(sources, "", 0, None),  # type: ignore[arg-type]
            lambda number, order: self.told.append((number, order)), lambda: self.packet_us, self.events.append,
            lambda: self.now_us,
        )  # fmt: skip
        self.listening.process.pid = 7

    def take(self, **batch: Any) -> None:
        asyncio.run(self.listening._take(0, json.loads(json.dumps(batch))))

    def stats(self, **more: Any) -> None:
        self.take(stats={"sensors": {"proxy": {"lines": 1, "last_line_us": self.now_us, **more}}})


def row(client: bytes = A, second: float = 0, name: str = "www.good.example") -> HistoryRow:
    at_us = T0 + round(second * SECOND)
    return (client, "good.example", name, b"", at_us, at_us, 1)


def test_the_packet_process_that_sees_a_client_judges_what_is_told_of_it() -> None:
    desk = Desk(2)
    desk.listening.seen(1, [row(A)])
    desk.take(observed=[pack_observation(request("proxy", 0)), pack_observation(request("proxy", 0, B))])
    orders = [(number, order.counts, len(order.rows)) for number, order in desk.told if isinstance(order, Observed)]
    assert orders == [(1, True, 1), (0, True, 1), (1, False, 1)]
    with pytest.raises(Malformed):
        desk.take(observed=[pack_observation(request("tap", 0))])
    with pytest.raises(Malformed):
        desk.take(observed=[pack_observation(request("off", 0))])


def test_a_contact_that_another_packet_process_counts_is_none_here() -> None:
    scene = LiveScene(C2)
    events: list[Any] = []
    engine = LiveEngine(scene.engine.intel, scene.engine.policy.settings, events.append, enforced=True, sensors=True)
    keep_in_mind(engine, request("proxy", 0))
    assert events == []
    engine.observe(request("", 0.1, port=40_000))
    (sighting,) = [event for event in events if isinstance(event, Sighting)]
    assert (sighting.new, sighting.own, sighting.told_by) == (False, True, ("proxy", "tap"))
    engine.observe(request("", 0.2, port=40_000))
    assert [event.new for event in events if isinstance(event, Sighting)] == [False, True]


# -- alarms


def test_silence_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(silence_s=600)
    desk.stats()
    desk.listening.tick()
    assert (desk.listening.states["proxy"].state, desk.events) == (OK, [])
    for _ in range(3):
        desk.now_us += 601 * SECOND
        desk.packet_us = desk.now_us - SECOND
        desk.listening.tick()
    assert desk.listening.states["proxy"].state == SILENT
    assert [one["egressd"]["state"] for one in desk.events] == [SILENT]
    assert desk.listening.warnings() == ["SENSOR proxy silent: no line for 600 s while packets are seen"]
    desk.stats(lines=2)
    desk.listening.tick()
    assert [one["egressd"]["state"] for one in desk.events] == [SILENT, OK]
    assert desk.listening.warnings() == []
    assert len([one for one in caplog.messages if "proxy" in one]) == 2
    for event in desk.events:
        Draft202012Validator(SCHEMA).validate(event)


def test_a_network_that_is_dead_itself_is_no_silence() -> None:
    desk = Desk(silence_s=600)
    desk.stats()
    desk.now_us += 700 * SECOND
    desk.packet_us = desk.now_us - ALIVE_US
    desk.listening.tick()
    assert desk.listening.states["proxy"].state == OK


def test_what_cannot_be_read_is_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.stats(problem="/a: permission denied")
    desk.listening.tick()
    assert desk.listening.states["proxy"].state == FAILING
    assert desk.listening.warnings() == ["SENSOR proxy failing: /a: permission denied"]
    desk.stats(lines=0)
    desk.listening.tick()
    assert caplog.messages[-1] == "sensor proxy: its log can be read again"  # it was `lines come again`: none had come


def test_a_log_of_another_format_is_an_alarm() -> None:
    """`format: suricata` for the log of a proxy was `ok` for ever, and nobody was found by it."""
    desk = Desk()
    desk.stats(lines=99, malformed=99)
    desk.listening.tick()
    assert desk.listening.warnings() == []
    desk.stats(lines=100, malformed=100)
    desk.listening.tick()
    assert desk.listening.warnings() == ["SENSOR proxy failing: none of its lines is of the format squid"]
    desk.stats(lines=101, malformed=100)
    desk.listening.tick()
    assert desk.listening.states["proxy"].state == OK
    assert [one["egressd"]["state"] for one in desk.events] == [FAILING, OK]
    for event in desk.events:
        Draft202012Validator(SCHEMA).validate(event)


def test_lines_of_others_are_no_sign_of_life() -> None:
    """A log that several programs write: silent when the one that we listen to is."""
    desk = Desk(silence_s=600)
    desk.stats(lines=2, malformed=1)
    desk.listening.tick()
    desk.now_us += 601 * SECOND
    desk.packet_us = desk.now_us - SECOND
    desk.stats(lines=500, malformed=499)
    desk.listening.tick()
    assert desk.listening.warnings() == ["SENSOR proxy silent: no line of squid for 600 s while packets are seen"]


def test_counts_go_on_when_the_process_is_started_again() -> None:
    desk = Desk()
    desk.stats(lines=5, malformed=1)
    desk.listening.process.pid = 8
    desk.stats(lines=2, malformed="x")
    state = desk.listening.states["proxy"]
    assert (state.lines, state.malformed) == (7, 1)
    for spoilt in ({"stats": {"sensors": {"proxy": 1}}}, {"stats": {"sensors": []}}, {"stats": 1}):
        desk.take(**spoilt)
    for bad in ({"observed": 1}, {"history": [["proxy"]]}, {"history": [["Proxy", row()]]}):
        with pytest.raises((Malformed, TypeError)):
            desk.take(**bad)


# -- history


def test_history_of_logs_counts_what_nobody_else_told_of() -> None:
    history = HistoryAgreement()
    history.note([row(A, 0)])
    history.put("proxy", row(A, 1), T0)
    history.put("proxy", row(A, 100), T0)
    history.put("eve", row(A, 101), T0)
    history.put("proxy", row(A, 130), T0)
    history.put("proxy", row(B, 0), T0)
    assert history.take(T0 + WAIT_US - 1) == []
    assert [(one[0], one[4] - T0) for one in history.take(T0 + WAIT_US)] == [
        (A, 100 * SECOND), (A, 130 * SECOND), (B, 0),
    ]  # fmt: skip
    assert history.agreed == 2


def test_what_the_tap_tells_later_is_known_in_time() -> None:
    history = HistoryAgreement()
    history.put("proxy", row(A, 0), T0)
    history.note([row(A, 0.2)])  # gathered for some seconds
    assert history.take(T0 + WAIT_US) == []
    assert history.agreed == 1
