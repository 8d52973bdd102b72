"""What the service says to systemd: that it is ready, how it is, and that it is alive.

By the notification protocol of sd_notify(3) and the standard library alone. Nothing here waits: what systemd does not
take is counted.
"""

from __future__ import annotations

import socket
import time
from collections.abc import MutableMapping
from typing import Final

from egressd.notify.plain import escape

LEAST_PAUSE_S: Final = 0.1  # between two words to the watchdog, whatever is asked of us


class Service:
    """Tells systemd how we are (sd_notify(3)). Every call returns whether systemd was told; without systemd it is
    nothing, and False."""

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        """`address` is a path, or `@name` in the abstract namespace; empty, or of a sort we do not speak: nobody."""
        self.failed = 0  # messages that could not be sent
        self._to = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""
        self._watchdog_us = watchdog_us if self._to else 0
        self._socket: socket.socket | None = None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str], pid: int) -> Service:
        """As systemd started us. The variables are taken out, so that processes we start do not speak for us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = environ.pop("WATCHDOG_USEC", "")
        meant = environ.pop("WATCHDOG_PID", "") or str(pid)
        right = watchdog_us.isascii() and watchdog_us.isdigit() and meant == str(pid)
        return cls(address, int(watchdog_us) if right else 0)

    def pause_s(self, usual_s: float) -> float:
        """How long to wait before `watchdog` is called again: `usual_s`, or less when systemd restarts us after less
        than twice as long."""
        if not self._watchdog_us:
            return usual_s
        return min(usual_s, max(LEAST_PAUSE_S, self._watchdog_us / 2_000_000))

    def ready(self, status: str = "") -> bool:
        """We do our work; also at the end of a reload."""
        return self._send("READY=1", status)

    def status(self, status: str) -> bool:
        """One line that `systemctl status` shows."""
        return self._send("", status)

    def watchdog(self) -> bool:
        """We are alive. To be called by what would stand still if we were not."""
        return self._send("WATCHDOG=1")

    def reloading(self, status: str = "") -> bool:
        """A reload begins; `ready` ends it. The time is CLOCK_MONOTONIC's, which systemd 253 and later asks for."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}", status)

    def stopping(self, status: str = "") -> bool:
        """We are about to end."""
        return self._send("STOPPING=1", status)

    def extend(self, seconds: float) -> bool:
        """Starting or stopping takes up to so long from now (a large list, a large ledger)."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, state: str, status: str = "") -> bool:
        if not self._to:
            return False
        told = [state] if state else []
        if status:
            told.append(f"STATUS={escape(status, 500)}")  # escaped: a line's end would begin another variable
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.sendto("\n".join(told).encode(), self._to)
        except OSError:
            self.failed += 1
            return False
        return True

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
