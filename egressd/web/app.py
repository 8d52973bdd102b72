"""The HTTP side: GET /metrics and GET /healthz, read by Prometheus and load balancers. Nothing here changes anything.

It listens on loopback and believes nobody all the same: a web page in an operator's browser can reach loopback too. So
the Host header must be one of ours (DNS rebinding, CVE-2018-5702 in Transmission), a foreign Origin is refused, no CORS
header is ever sent, and paths are compared as sent, never decoded. A connection carries one request and lives a few
seconds; who sends or reads slowly, or sends much, is cut off, and there are at most so many at once: a
thousand slow readers (slowloris) hold up no scrape.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from aiohttp import web

Snapshot = TypeVar("Snapshot")
Health = tuple[str, tuple[str, ...]]  # ok | degraded | down, and why

DEADLINE_S: Final = 5.0  # of a connection, from its first moment to its last byte
MAX_CONNECTIONS: Final = 64
MAX_REQUEST_BYTES: Final = 8_192
FRESH_S: Final = 0.5  # so long the same numbers are told again
MAX_ENCODED: Final = 4
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_METHODS: Final = ("GET", "HEAD")
_HEADERS: Final = {
    "Server": "egressd",  # no versions
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class WebStats:
    """What the server counted: answers by status, connections refused because there were too many, and connections cut
    off because they took or sent too much."""

    def __init__(self) -> None:
        self.answers: dict[int, int] = {}
        self.refused = 0
        self.cut_off = 0

    @property
    def turned_away(self) -> int:
        """Connections that were not served: too many, too slow, or too large."""
        return self.refused + self.cut_off


class MetricsServer(Generic[Snapshot]):
    """The server. `snapshot`, and `health`, which is given one, are called in the event loop and must be quick;
    `encode` turns one into bytes and content type, for an Accept header, in a thread, one at a time."""

    def __init__(
        self,
        host: str,
        port: int,
        snapshot: Callable[[], Snapshot],
        health: Callable[[Snapshot], Health],
        *,
        encode: Callable[[Snapshot, str], tuple[bytes, str]],
        hosts: Collection[str] = (),
        deadline_s: float = DEADLINE_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """`hosts` are further names that a Host header may carry; loopback's and the address that the
        connection came to always may. `port` 0 takes a free one, see `port` after `start`."""
        self.host = host
        self.port = port
        self.stats = WebStats()
        self._snapshot = snapshot
        self._encode = encode
        self._health = health
        self._hosts = frozenset(_host_of(name) or name.lower() for name in (*LOOPBACK_NAMES, *hosts))
        self._deadline_s = deadline_s
        self._max_connections = max_connections
        self._open: set[_Connection] = set()
        self._encoding: asyncio.Lock | None = None
        self._taken: Snapshot | None = None
        self._taken_s = 0.0
        self._encoded: dict[str, tuple[bytes, str]] = {}  # what was taken last, by Accept header
        self._server: asyncio.Server | None = None
        self._http: web.Server | None = None
        self._protocol: Callable[[], web.RequestHandler]

    async def start(self) -> None:
        """Listen. OSError when the address cannot be had."""
        from aiohttp import web

        self._encoding = asyncio.Lock()
        self._http = web.Server(self._answer)
        self._protocol = _protocol_of(self._http)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, self.host, self.port, backlog=self._max_connections)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        if self._server is not None:
            self._server.close()
        for one in list(self._open):
            one.abort()
        if self._http is not None:
            await self._http.shutdown(1.0)
        if self._server is not None:
            await self._server.wait_closed()
        self._server = self._http = None

    def _connection(self) -> asyncio.Protocol:
        if len(self._open) >= self._max_connections:
            self.stats.refused += 1
            return _Refusal()
        return _Connection(self._protocol(), self._open, self._deadline_s, self.stats)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        status, body, content_type = await self._respond(request)
        self.stats.answers[status] = self.stats.answers.get(status, 0) + 1
        from aiohttp import web

        response = web.Response(status=status, body=body, headers={**_HEADERS, "Content-Type": content_type})
        response.force_close()
        return response

    async def _respond(self, request: web.BaseRequest) -> tuple[int, bytes, str]:
        """Status, body and content type."""
        if not self._may_ask(request):
            return 403, b"unknown Host or foreign Origin\n", "text/plain"
        path = request.raw_path.partition("?")[0]  # as sent: /%6detrics and /x/../metrics are other paths
        if request.method not in _METHODS or path not in ("/metrics", "/healthz"):
            return 404, b"not found\n", "text/plain"
        if request.can_read_body:
            return 400, b"no body is expected\n", "text/plain"
        if path == "/healthz":
            status, reasons = self._health(self._take())
            body = json.dumps({"status": status, "reasons": list(reasons)}).encode() + b"\n"
            return 503 if status == "down" else 200, body, "application/json"
        assert self._encoding is not None
        async with self._encoding:
            taken = self._take()
            accept = request.headers.get("Accept", "")
            encoded = self._encoded.get(accept)
            if encoded is None:
                encoded = await asyncio.to_thread(self._encode, taken, accept)
                if self._taken is taken and len(self._encoded) < MAX_ENCODED:
                    self._encoded[accept] = encoded
        return 200, *encoded

    def _take(self) -> Snapshot:
        """The numbers of now, or of a moment ago: whoever is on this machine may ask without end, and to put them
        together takes a part of the daemon's time that grows with what it holds."""
        now_s = asyncio.get_running_loop().time()
        taken = self._taken
        if taken is None or now_s - self._taken_s >= FRESH_S:
            taken = self._taken = self._snapshot()
            self._taken_s = now_s
            self._encoded.clear()
        return taken

    def _may_ask(self, request: web.BaseRequest) -> bool:
        """Whether the request names us: exactly one Host header with a name of ours, and no Origin but ours."""
        names = request.headers.getall("Host", [])
        if len(names) != 1 or not self._is_ours(names[0], request):
            return False
        for origin in request.headers.getall("Origin", []):
            scheme, separator, authority = origin.partition("://")
            if not separator or scheme not in ("http", "https") or not self._is_ours(authority, request):
                return False
        return request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")

    def _is_ours(self, authority: str, request: web.BaseRequest) -> bool:
        name = _host_of(authority)
        if name in self._hosts:
            return True
        transport = request.transport
        own = transport.get_extra_info("sockname") if transport is not None else None
        return bool(name) and own is not None and name == str(own[0]).partition("%")[0]


def _host_of(authority: str) -> str:
    """The host of `host[:port]`, lower case and without brackets; "" when it is none."""
    name, colon, port = authority.lower(), "", ""
    if not name.endswith("]"):
        name, colon, port = name.rpartition(":")
        if not colon:
            name, port = port, ""
    if port and not (port.isascii() and port.isdigit()):
        return ""
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1]
    return "" if ":" in name else name


class _Connection(asyncio.Protocol):
    """One connection in front of aiohttp's own protocol: counts its bytes and cuts it off at its deadline."""

    def __init__(self, inner: web.RequestHandler, among: set[_Connection], deadline_s: float, stats: WebStats) -> None:
        self._inner = inner
        self._among = among
        self._deadline_s = deadline_s
        self._stats = stats
        self._received_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._among.add(self)
        self._timer = asyncio.get_running_loop().call_later(self._deadline_s, self._cut_off)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > MAX_REQUEST_BYTES:
            self._cut_off()
            return
        self._inner.data_received(data)

    def eof_received(self) -> None:
        self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def abort(self) -> None:
        """End it at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _cut_off(self) -> None:
        self._stats.cut_off += 1
        self.abort()


def _protocol_of(server: web.Server) -> Callable[[], web.RequestHandler]:
    """Makes aiohttp's protocol for a connection, with our bounds; what it answers by itself (to what is no HTTP, or
    when we fail) bears our headers and quotes nothing."""
    from aiohttp import web

    class Handler(web.RequestHandler):
        __slots__ = ()

        def handle_error(
            self,
            request: web.BaseRequest,
            status: int = 500,
            exc: BaseException | None = None,
            message: str | None = None,
        ) -> web.StreamResponse:
            super().handle_error(request, status, exc, message)  # logs
            answer = web.Response(status=status, body=b"", headers=_HEADERS)
            answer.force_close()
            return answer

    loop = asyncio.get_running_loop()
    bounds: dict[str, Any] = {
        "access_log": None,
        "logger": _quiet_logger(),
        "lingering_time": 0,
        "max_line_size": 2_048,
        "max_field_size": 4_096,
        "read_bufsize": MAX_REQUEST_BYTES,
    }
    return lambda: Handler(server, loop=loop, **bounds)


class _Refusal(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_FULL)
        transport.close()


class _OurMistakes(logging.Filter):
    """Lets through what is wrong with us; what is wrong with a request is the sender's affair, and would fill a log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        from aiohttp.http_exceptions import HttpProcessingError

        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("egressd.web")
    if not logger.filters:
        logger.addFilter(_OurMistakes())
    return logger
