"""A daemon that listens to other sensors: one visit told by its tap, an eve.json and a Squid log, with real packets."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.daemon import NOBODY, Daemon, until
from tests.netns.ground import Ground

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

EVIL = "c2.evil.example"
ADDRESS = "203.0.113.66"


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may"), {"*.evil.example": [ADDRESS]}) as ground:
        yield ground


def squid_line(client: str, host: str) -> str:
    return f"{time.time():.3f}      5 {client} TCP_MISS/200 9 GET http://{host}/ - HIER_DIRECT/{ADDRESS} text/html\n"


def eve_line(client: str, host: str) -> str:
    now_s = time.time() - 7_200  # its clock is two hours behind
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s)) + f".{int(now_s % 1 * 1e6):06}+0000"
    event = {
        "timestamp": stamp, "event_type": "dns", "src_ip": client, "src_port": 50_000, "dest_ip": "10.1.0.1",
        "dest_port": 53, "proto": "UDP",
        "dns": {"version": 3, "type": "request", "id": 1, "queries": [{"rrname": host, "rrtype": "A"}]},
    }  # fmt: skip
    return json.dumps(event) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def one_incident(daemon: Daemon) -> dict[str, Any]:
    found: list[dict[str, Any]] = daemon.ask("incidents")["incidents"]
    return found[0] if len(found) == 1 else {}


def clients_of(daemon: Daemon) -> set[str]:
    return {one["client"] for one in daemon.ask("incidents")["incidents"]}


def test_one_visit_of_three_sources_counts_once_and_outlives_a_restart(ground: Ground, tmp_path: Path) -> None:
    logs = {name: tmp_path / name for name in ("eve.json", "access.log")}
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    for path in logs.values():
        path.write_text("")
        os.chown(path, NOBODY, NOBODY)
    sensors = {
        "eve": {"path": str(logs["eve.json"])},
        "proxy": {"path": str(logs["access.log"]), "format": "squid"},
    }
    with ground.daemon("listed.evil.example\n", {"mode": "monitor", "sensors": sensors}) as daemon:
        until(
            lambda: [one["state"] for one in daemon.ask("status")["sensors"]] == ["ok", "ok"], 30.0, "logs are followed"
        )
        for number in range(8):  # so that the clock is known
            append(logs["eve.json"], eve_line("10.1.0.99", f"www{number}.good.example"))
        until(lambda: daemon.ask("status")["sensors"][0]["corrected_by_s"] > 7_000, 30.0, "the clock is corrected")
        assert ground.visit("april", EVIL)[1]
        until(lambda: one_incident(daemon), why="the tap saw it")
        incident = one_incident(daemon)
        client, contacts = incident["client"], incident["contacts"]
        append(logs["eve.json"], eve_line(client, EVIL))
        append(logs["access.log"], squid_line(client, EVIL))
        until(lambda: one_incident(daemon)["sources"].keys() == {"tap", "eve", "proxy"}, why="three sources")
        incident = one_incident(daemon)
        assert incident["contacts"] == contacts == incident["sources"]["tap"]
        assert (incident["sources"]["eve"], incident["sources"]["proxy"]) == (1, 1)
        assert "told by    tap" in daemon.command("incidents", incident["id"])
        assert daemon.metrics()['egressd_log_up{sensor="proxy"}'] == 1
        logs["access.log"].rename(tmp_path / "access.log.1")
        daemon.stop()
        append(tmp_path / "access.log.1", squid_line("10.1.0.98", EVIL))
        logs["access.log"].write_text(squid_line("10.1.0.97", EVIL))
        os.chown(logs["access.log"], NOBODY, NOBODY)
        daemon.start()
        found = {"10.1.0.97", "10.1.0.98", client}
        until(lambda: clients_of(daemon) == found, 30.0, why="nothing was lost")
        by_client = {one["client"]: one for one in daemon.ask("incidents")["incidents"]}
        assert by_client[client]["sources"] == incident["sources"]
        assert by_client["10.1.0.98"]["sources"] == by_client["10.1.0.97"]["sources"] == {"proxy": 1}
