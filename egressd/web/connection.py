"""One connection of the control socket: collects a line, hands it over, sends the answer, collects the next.

A plain asyncio protocol: nothing runs for a connection that has not sent a whole line, and what it may hold, and for
how long, is in `Bounds`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from egressd.web.control import ControlServer

CHUNK: Final = 256  # items of a long list that are rendered between two looks at the loop


class Bounds(NamedTuple):
    """What peers can hold at most."""

    connections: int = 64
    request_bytes: int = 1 << 18  # some thousand lines of a list
    line_s: float = 5.0
    idle_s: float = 30.0
    send_s: float = 30.0  # for a part of the answer to be taken
    running: int = 64
    running_per_uid: int = 8


class Stats:
    """Counted since the start."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.refused = 0  # by role
        self.malformed = 0
        self.evicted = 0
        self.expired = 0  # idle, or slow with a line or with taking an answer
        self.busy = 0  # turned away because too much was running
        self.failed = 0  # a mistake of ours; the log has it

    @property
    def turned_away(self) -> int:
        """Connections and requests that were not served: too many, or too slow."""
        return self.busy + self.evicted + self.expired


class Connection(asyncio.Protocol):
    """One peer's connection. It belongs to a server, which says who may stay."""

    def __init__(self, server: ControlServer) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0
        self.uid = -1
        self.is_running = False  # a handler works for it
        self.idle_since_s = loop.time()
        self._loop = loop
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._is_answering = False
        self._has_ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        try:
            self.pid, self.uid = self._server.credentials(transport.get_extra_info("socket"))
        except OSError:
            transport.abort()
            return
        self._expire_after(self._server.bounds.idle_s)
        self._server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._expire_after(None)
        self._writable.set()
        self._server.release(self)

    def data_received(self, data: bytes) -> None:
        was_empty = not self._buffer
        self._buffer += data
        if not self._is_answering:
            self._take_line(starts=was_empty)

    def eof_received(self) -> bool:
        """The peer will send no more. It may still read its answer (`nc -N`)."""
        self._has_ended = True
        return self._is_answering

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def ready(self) -> None:
        """The answer is out: go on with what came meanwhile."""
        self._is_answering = False
        if self._transport is None or self._transport.is_closing():
            return
        self._take_line(starts=True)
        if self._has_ended and not self._is_answering:
            self._transport.close()
        elif not self._has_ended and not self._is_answering:
            self._transport.resume_reading()

    def leave(self, text: str, *, again: bool = False) -> None:
        """Say why and close; `again` tells the peer that nothing was done and that it may try anew."""
        if self._transport is None:
            return
        if not self._transport.get_write_buffer_size():  # else it is in the midst of an answer that it does not take
            self._transport.write(render_refusal(text, 1, again=again))
        self.drop()

    def drop(self) -> None:
        """Close at once."""
        self._expire_after(None)
        self._server.release(self)
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()

    async def send(self, parts: list[bytes]) -> None:
        """Send an answer; a peer that does not take it is dropped."""
        try:
            for part in parts:
                if self._transport is None or self._transport.is_closing():
                    return
                self._transport.write(part)
                async with asyncio.timeout(self._server.bounds.send_s):
                    await self._writable.wait()
        except TimeoutError:
            self._server.stats.expired += 1
            self.drop()

    def _take_line(self, *, starts: bool) -> None:
        bounds = self._server.bounds
        end = self._buffer.find(b"\n", 0, bounds.request_bytes + 1)
        if end < 0 and len(self._buffer) > bounds.request_bytes:
            self._server.stats.malformed += 1
            self.leave(f"a request is at most {bounds.request_bytes} bytes")
        elif end >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._expire_after(None)
            self._is_answering = True
            assert self._transport is not None
            if not self._has_ended:
                self._transport.pause_reading()
            self._server.start(self, line)
        elif starts:  # a line has its time from its first byte; further bytes win none
            self._expire_after(bounds.line_s if self._buffer else bounds.idle_s)

    def _expire_after(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._server.stats.expired += 1
        what = "a request has to be finished" if self._buffer else "an idle connection is closed"
        seconds = self._server.bounds.line_s if self._buffer else self._server.bounds.idle_s
        self.leave(f"{what} within {seconds:g} s")


def render_refusal(text: str, code: int, *, again: bool = False) -> bytes:
    """The answer to a request that was not done."""
    record: dict[str, Any] = {"ok": False, "error": text, "code": code}
    if again:
        record["again"] = True
    return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


def render_answer(record: Mapping[str, Any]) -> Iterator[bytes]:
    """An answer in parts that each take about a millisecond; ASCII, so that no name can carry control bytes. Only lists
    directly in the result are long."""
    encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
    head = {key: value for key, value in record.items() if key != "result"}
    yield (encode(head)[:-1] + ',"result":{').encode("ascii")
    for number, (key, value) in enumerate(record["result"].items()):
        comma = "," if number else ""
        if not isinstance(value, (list, tuple)) or len(value) <= CHUNK:
            yield f"{comma}{encode(str(key))}:{encode(value)}".encode("ascii")
            continue
        yield f"{comma}{encode(str(key))}:[".encode("ascii")
        for start in range(0, len(value), CHUNK):
            yield (("," if start else "") + encode(value[start : start + CHUNK])[1:-1]).encode("ascii")
        yield b"]"
    yield b"}}\n"
