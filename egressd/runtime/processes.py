"""Packet processes as the core sees them: started, told, listened to, and started again when they die.

A packet process that dies takes nothing with it: blocks are in the kernel and in the ledger. It is started again after
a pause that grows while it keeps dying, so that a crash that traffic can cause does not eat the machine.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from egressd.errors import Malformed
from egressd.runtime.messages import (
    DOWN_FILE,
    DOWN_OBJECT,
    HEAD,
    MAX_UP_BYTES,
    UP_BATCH,
    Frames,
    parse_batch,
    render_frame,
)
from egressd.runtime.orders import Order, Stop

LARGE_BYTES: Final = 256 << 10  # from here on an order goes by a memory file
SILENT_S: Final = 10.0  # a process says something every second; after so long it is killed
FIRST_PAUSE_S: Final = 0.2
LAST_PAUSE_S: Final = 30.0
CALM_S: Final = 60.0  # a process that lived so long begins with the first pause again
STOP_S: Final = 5.0
READ_BYTES: Final = 1 << 18

log = logging.getLogger("egressd.processes")


class PacketProcessHandle:
    """One packet process: a child on the other end of a stream socket, whoever it is at the moment."""

    def __init__(
        self,
        number: int,
        make_start: Callable[[int], tuple[Order, list[Order]]],
        on_batch: Callable[[int, dict[str, Any]], Awaitable[None]],
        *,
        module: str = "egressd.runtime.packet_process",
        called: str = "packet process",
    ) -> None:
        """`make_start` gives the first order and those that follow it; `on_batch` takes (number, batch) in order. The
        process that reads logs is another `module`, and treated alike."""
        self.number = number
        self._module = module
        self._called = f"{called} {number}"
        self.restarts = -1  # the first start is none
        self.pid = 0
        self.malformed = 0
        self.stats: dict[str, Any] = {}
        self.last_batch_s = 0.0
        self._make_start = make_start
        self._on_batch = on_batch
        self._socket: socket.socket | None = None
        self._outgoing: asyncio.Queue[Order] = asyncio.Queue()
        self._stopping = False
        self._renewing = False
        self.ready = asyncio.Event()  # it has told its first numbers: sockets are open

    def tell(self, order: Order) -> None:
        """Send an order, after those that wait. What is told while no process lives is in the next one's start."""
        if self._socket is not None:
            self._outgoing.put_nowait(order)

    async def run(self) -> None:
        """Keep a process alive until `stop`."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while not self._stopping:
            self.restarts += 1
            began_s = loop.time()
            try:
                code = await self._live()
            except OSError as error:  # no memory, no process number: later, perhaps
                code = f"could not be started: {error.strerror}"
            if self._stopping:
                return
            if self._renewing:
                self._renewing = False
                self.restarts -= 1
                continue
            pause_s = FIRST_PAUSE_S if loop.time() - began_s > CALM_S else min(LAST_PAUSE_S, pause_s * 2)
            log.error("%s ended (%s); started again in %.1f s", self._called, code, pause_s)
            await asyncio.sleep(pause_s)

    async def stop(self) -> None:
        """Let it tell what is left, and end."""
        self._stopping = True
        self.tell(Stop())

    def renew(self) -> None:
        """Let it end, and start another one with what is known now. What it is told from now on it does not hear."""
        self._renewing = self._socket is not None  # where none lives the next one begins with what is known then
        self.ready.clear()
        self.tell(Stop())

    def kill(self) -> None:
        """End it at once: for one that does not answer."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    async def _live(self) -> str:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        self.pid = process.pid
        self._socket = ours
        self._outgoing = asyncio.Queue()
        start, following = self._make_start(self.number)
        self._outgoing.put_nowait(start)
        for order in following:
            self._outgoing.put_nowait(order)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(ours))
                watcher = group.create_task(self._watch())
                await self._read(ours)
                writer.cancel()
                watcher.cancel()
        except* (OSError, Malformed) as errors:
            self.malformed += 1
            log.error("%s: %s", self._called, errors.exceptions[0])
        finally:
            self._socket = None
            self.ready.clear()
            ours.close()
            code = await self._reap(process)
            self.pid = 0
        return code

    async def _reap(self, process: asyncio.subprocess.Process) -> str:
        try:
            async with asyncio.timeout(STOP_S if self._stopping else 1.0):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code = await process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    async def _read(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        frames = Frames(MAX_UP_BYTES)
        self.last_batch_s = loop.time()
        while True:
            try:
                received = await loop.sock_recv(ours, READ_BYTES)
            except ConnectionResetError:  # ended with orders unread, told behind what it sent (unix_release_sock)
                return
            if not received:
                return
            for kind, body in frames.feed(received):
                if kind != UP_BATCH:
                    raise Malformed("a frame of an unknown kind")
                batch = parse_batch(body)
                self.last_batch_s = loop.time()
                stats = batch.get("stats")
                if isinstance(stats, dict):
                    self.stats = stats
                await self._on_batch(self.number, batch)
                if stats is not None and not self._renewing:
                    self.ready.set()

    async def _write(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(BrokenPipeError):  # it has ended: `_read` takes its last words, and comes to its end
            while True:
                order = await self._outgoing.get()
                body = pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
                if len(body) < LARGE_BYTES:
                    await loop.sock_sendall(ours, render_frame(DOWN_OBJECT, body))
                else:
                    await self._send_file(ours, body)

    async def _send_file(self, ours: socket.socket, body: bytes) -> None:
        """A large order: its head comes with the descriptor of a memory file that holds it."""
        fd = os.memfd_create("egressd-order", os.MFD_CLOEXEC)
        try:
            await asyncio.to_thread(_write_all, fd, body)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            head = HEAD.pack(0, DOWN_FILE)
            loop = asyncio.get_running_loop()
            while True:
                try:
                    sent = ours.sendmsg([head], rights)
                    break
                except BlockingIOError:
                    writable = loop.create_future()
                    loop.add_writer(ours, _set_done, writable)
                    try:
                        await writable
                    finally:
                        loop.remove_writer(ours)
            if sent < len(head):
                await loop.sock_sendall(ours, head[sent:])
        finally:
            os.close(fd)

    async def _watch(self) -> None:
        """A process that says nothing is stuck, or stopped: it is killed, and another one started."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            if loop.time() - self.last_batch_s > SILENT_S:
                log.error("%s says nothing for %.0f s; it is ended", self._called, SILENT_S)
                self.kill()
                return


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _write_all(fd: int, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
