"""The metrics server over loopback: what it answers, whom it refuses, and that nobody holds it up."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession

from egressd.metrics.exposition import render
from egressd.metrics.health import health_of
from egressd.metrics.snapshot import Snapshot
from egressd.web import app as app_module
from egressd.web.app import MAX_REQUEST_BYTES, MetricsServer, _host_of
from tests.loops import HANG_S

Server = MetricsServer[Snapshot]
WELL = Snapshot(packets=42, sensor_up={"lan0": 1}, sensor_shown_s={"lan0": 0.5}, packet_processes=1)


def run(work: Callable[[Server], Awaitable[None]], snapshot: Snapshot = WELL, **options: Any) -> Server:
    """A server on a free port of 127.0.0.1 while `work` is under way."""

    async def go() -> Server:
        settings = {"encode": render, "health": health_of, "snapshot": lambda: snapshot, **options}
        server: Server = MetricsServer("127.0.0.1", 0, **settings)
        await server.start()
        try:
            await asyncio.wait_for(work(server), HANG_S)
        finally:
            await server.close()
        return server

    return asyncio.run(go())


async def ask(server: Server, request: bytes, *, half_close: bool = False) -> bytes:
    """Send raw bytes; everything that comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        if half_close:
            writer.write_eof()
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def get(target: str = "/metrics", *, host: str = "localhost", method: str = "GET", more: str = "") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode("latin-1")


async def until(reached: Callable[[], bool]) -> None:
    """Let the loop go round until something holds."""
    while not reached():  # noqa: ASYNC110  (nothing tells of it)
        await asyncio.sleep(0)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


# -- what it answers


def test_metrics_are_served_with_their_content_type() -> None:
    async def work(server: Server) -> None:
        async with ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{server.port}/metrics?name=x") as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert "egressd_packets_total 42.0" in await answer.text()
            accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
            async with session.get(f"http://127.0.0.1:{server.port}/metrics", headers=accept) as answer:
                assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
                assert (await answer.text()).endswith("# EOF\n")

    assert run(work).stats.answers == {200: 2}


@pytest.mark.parametrize(
    ("snapshot", "code", "status"),
    [
        (WELL, 200, "ok"),
        (Snapshot(), 503, "down"),
        (Snapshot(sensor_up={"lan0": 1}, sensor_shown_s={"lan0": 900.0}, packet_processes=1), 503, "down"),
        (Snapshot(sensor_up={"lan0": 1}, packet_processes=1, degraded=1, loss_ratio=0.1), 200, "degraded"),
    ],
)
def test_health(snapshot: Snapshot, code: int, status: str) -> None:
    async def work(server: Server) -> None:
        async with ClientSession() as session, session.get(f"http://localhost:{server.port}/healthz") as answer:
            assert answer.status == code
            assert answer.content_type == "application/json"
            told = await answer.json()
            assert told["status"] == status
            assert bool(told["reasons"]) == (status != "ok")

    run(work, snapshot)


def test_health_escapes_what_it_is_told() -> None:
    async def work(server: Server) -> None:
        answer = await ask(server, get("/healthz"))
        body = answer.partition(b"\r\n\r\n")[2]
        assert body.isascii() and b"\x1b" not in body
        assert json.loads(body)["reasons"] == ["\x1b[31m<script>é"]

    run(work, health=lambda _: ("degraded", ("\x1b[31m<script>é",)))


def test_head_has_the_headers_alone() -> None:
    async def work(server: Server) -> None:
        for target in ("/metrics", "/healthz"):
            answer = await ask(server, get(target, method="HEAD"))
            assert status_of(answer) == 200
            assert answer.endswith(b"\r\n\r\n") and answer.count(b"\r\n\r\n") == 1

    run(work)


def test_every_answer_has_the_guarding_headers_and_no_version() -> None:
    async def work(server: Server) -> None:
        for request in (
            get(),
            get("/healthz"),
            get("/other"),
            get(host="evil.example"),
            b"<script>\r\n\r\n",
            b"\0\r\n\r\n",
        ):
            head = (await ask(server, request)).partition(b"\r\n\r\n")[0].lower()
            for wanted in (
                b"content-security-policy: default-src 'none'",
                b"nosniff",
                b"no-store",
                b"server: egressd\r",
            ):
                assert wanted in head + b"\r"
            assert b"access-control" not in head and b"aiohttp" not in head and b"python" not in head
            assert (b"connection: close" in head or head.startswith(b"http/1.0")) and b"script" not in head

    run(work)


@pytest.mark.parametrize(
    "target",
    ["/", "/metrics/", "//metrics", "/Metrics", "/%6detrics", "/x/../metrics", "/metrics%00", "/lists/a", "/api/mode",
     "http://localhost/metrics", "*", "/metrics;x"],
)  # fmt: skip
def test_everything_else_is_not_found(target: str) -> None:
    async def work(server: Server) -> None:
        assert status_of(await ask(server, get(target))) in (400, 404)

    assert 200 not in run(work).stats.answers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_no_other_method_is_known(method: str) -> None:
    async def work(server: Server) -> None:
        for target in ("/metrics", "/healthz"):
            assert status_of(await ask(server, get(target, method=method, more="Content-Length: 0\r\n"))) in (400, 404)

    assert 200 not in run(work).stats.answers


def test_a_body_is_refused() -> None:
    async def work(server: Server) -> None:
        assert status_of(await ask(server, get(more="Content-Length: 3\r\n") + b"abc")) == 400
        assert (
            status_of(await ask(server, get(more="Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\n\r\n")) == 400
        )

    run(work)


# -- whom it refuses


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("localhost", True),
        ("localhost:9469", True),
        ("LOCALHOST", True),
        ("127.0.0.1:1", True),
        ("[::1]:9469", True),
        ("gw.ours.example", True),
        ("gw.ours.example:9469", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example:localhost", False),
        ("localhost:80:90", False),
        ("localhost@evil.example", False),
        ("127.0.0.2", False),
        ("0.0.0.0", False),
        ("[::1", False),
        ("::1", False),
        ("", False),
    ],
)
def test_host_must_be_ours(host: str, may: bool) -> None:
    async def work(server: Server) -> None:
        assert (status_of(await ask(server, get(host=host))) == 200) is may

    run(work, hosts=["gw.ours.example"])


def test_a_name_of_ours_may_be_given_with_its_port() -> None:
    """As a Prometheus has it under `targets:`: it was taken, and everybody refused."""

    async def work(server: Server) -> None:
        for host in ("gw.ours.example", "gw.ours.example:9469", "[2001:db8::1]:9469"):
            assert status_of(await ask(server, get(host=host))) == 200
        assert status_of(await ask(server, get(host="other.example"))) == 403

    run(work, hosts=["GW.ours.example:9469", "2001:db8::1"])


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        get(more="Origin: http://evil.example\r\n"),
        get(more="Origin: null\r\n"),
        get(more="Origin: file://localhost\r\n"),
        get(more="Sec-Fetch-Site: cross-site\r\n"),
        get(more="Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
        get(more="Content-Length: 0\r\nContent-Length: 5\r\n"),
        get(more=" folded: x\r\n"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
    ],
)
def test_odd_requests_get_nothing(request_: bytes) -> None:
    async def work(server: Server) -> None:
        answer = await ask(server, request_, half_close=True)
        assert status_of(answer) in (0, 400, 403, 404), answer
        assert b"egressd_" not in answer

    run(work, deadline_s=1.0)


def test_an_origin_of_ours_may_ask() -> None:
    async def work(server: Server) -> None:
        assert (
            status_of(await ask(server, get(more="Origin: http://localhost:9469\r\nSec-Fetch-Site: none\r\n"))) == 200
        )

    run(work)


def test_there_is_no_upgrade() -> None:
    async def work(server: Server) -> None:
        for upgrade in ("h2c", "websocket"):
            more = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
            answer = await ask(server, get(more=more))
            assert status_of(answer) in (200, 400)
            assert b"\r\nupgrade" not in answer.lower()

    run(work)


# -- nobody holds it up


def test_one_request_a_connection() -> None:
    async def work(server: Server) -> None:
        answer = await ask(server, get("/healthz") * 5)
        assert answer.count(b"HTTP/1.1") == 1

    run(work)


@pytest.mark.parametrize("begun", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_slow_senders_are_cut_off(begun: bytes) -> None:
    async def work(server: Server) -> None:
        assert await ask(server, begun) == b""

    assert run(work, deadline_s=0.2).stats.cut_off == 1


def test_slow_readers_are_cut_off() -> None:
    async def work(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        writer.write(get())
        await until(lambda: bool(server.stats.cut_off))
        writer.close()
        assert reader is not None

    huge = (b"x" * 50_000_000, "text/plain")
    assert run(work, deadline_s=0.3, encode=lambda snapshot, accept: huge).stats.cut_off == 1


def test_large_requests_are_cut_off() -> None:
    async def work(server: Server) -> None:
        answer = await ask(server, get(more="X: " + "y" * MAX_REQUEST_BYTES + "\r\n"))
        assert status_of(answer) in (0, 400)
        many = "".join(f"X{number}: {'y' * 100}\r\n" for number in range(100))
        assert status_of(await ask(server, get(more=many))) in (0, 400)

    assert 200 not in run(work).stats.answers


def test_connections_are_bounded_and_given_back() -> None:
    async def work(server: Server) -> None:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        await until(lambda: len(server._open) == 4)
        assert status_of(await ask(server, get())) == 503
        for _, writer in held:
            writer.close()
        await until(lambda: not server._open)
        assert status_of(await ask(server, get())) == 200

    assert run(work, max_connections=4).stats.refused == 1


def test_many_at_once_are_all_answered() -> None:
    async def work(server: Server) -> None:
        answers = await asyncio.gather(*(ask(server, get()) for _ in range(50)))
        assert [status_of(one) for one in answers] == [200] * 50

    run(work)


def test_a_thousand_slow_connections_leave_the_loop_free() -> None:
    """THREATS 28: whoever else the loop serves does not notice."""

    async def work(server: Server) -> None:
        held, turns = [], []

        async def somebody_else() -> None:
            while True:
                turns.append(len(held))
                await asyncio.sleep(0)

        other = asyncio.create_task(somebody_else())
        for _ in range(1_000):
            held.append(await asyncio.open_connection("127.0.0.1", server.port))
            held[-1][1].write(b"GET /metrics HTTP/1.1\r\nX: ")
        assert len(server._open) <= 64
        other.cancel()
        assert len(set(turns)) == 1_000  # it had its turn between any two of them
        for _, writer in held:
            writer.close()

    assert run(work).stats.refused >= 900


# -- mistakes of ours and of others


def test_a_mistake_of_ours_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    def broken(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
        raise KeyError("a bug")

    async def work(server: Server) -> None:
        assert status_of(await ask(server, get())) == 500
        assert status_of(await ask(server, get("/healthz"))) == 200

    with caplog.at_level(logging.DEBUG):
        run(work, encode=broken)
    assert "a bug" in caplog.text


def test_mistakes_of_others_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Server) -> None:
        for request in (b"\x1b[31m evil\r\n\r\n", b"GET\r\n\r\n", get(more="Content-Length: \x1b\r\n")):
            await ask(server, request)

    with caplog.at_level(logging.INFO):
        run(work)
    assert caplog.text == ""


def test_an_address_that_is_taken_is_an_error() -> None:
    async def work(server: Server) -> None:
        other: Server = MetricsServer(
            "127.0.0.1", server.port, snapshot=lambda: WELL, encode=render, health=lambda _: ("ok", ())
        )
        with pytest.raises(OSError, match="in use"):
            await other.start()
        await other.close()

    run(work)


@pytest.mark.parametrize(
    ("authority", "host"),
    [("A.example:80", "a.example"), ("[2001:DB8::1]:80", "2001:db8::1"), ("[::1]", "::1"), ("a:b", ""), ("::1", ""),
     ("[::1]x:80", ""), (":80", ""), ("a:", "a"), ("a:٣", "")],
)  # fmt: skip
def test_host_of(authority: str, host: str) -> None:
    assert _host_of(authority) == host


def test_who_asks_without_end_is_told_the_same_numbers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is on the machine may ask; to put the numbers together took a part of the event loop that grew with what
    is held, for each."""
    taken: list[int] = []
    encoded: list[str] = []

    def snapshot() -> Snapshot:
        taken.append(1)
        return WELL

    def encode(one: Snapshot, accept: str) -> tuple[bytes, str]:
        encoded.append(accept)
        return render(one, accept)

    async def work(server: Server) -> None:
        monkeypatch.setattr(server, "_snapshot", snapshot)
        monkeypatch.setattr(app_module, "FRESH_S", 3_600.0)
        for number in range(40):
            target = "/healthz" if number % 2 else "/metrics"
            assert status_of(await ask(server, get(target))) == 200
        assert (len(taken), encoded) == (1, [""])
        monkeypatch.setattr(app_module, "FRESH_S", 0.0)
        assert status_of(await ask(server, get("/metrics"))) == 200
        assert (len(taken), encoded) == (2, ["", ""])

    run(work, encode=encode)
