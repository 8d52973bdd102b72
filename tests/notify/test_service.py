"""What systemd is told, over real sockets."""

from __future__ import annotations

import os
import socket
import time

import pytest

from egressd.notify.service import Service


def test_everything_that_systemd_is_told(listener: tuple[socket.socket, str]) -> None:
    heard, path = listener
    service = Service(path)
    before_us = time.monotonic_ns() // 1_000
    assert service.ready("42 indicators")
    assert heard.recv(4096) == b"READY=1\nSTATUS=42 indicators"
    assert service.status("x") and heard.recv(4096) == b"STATUS=x"
    assert service.watchdog() and heard.recv(4096) == b"WATCHDOG=1"
    assert service.extend(2.5) and heard.recv(4096) == b"EXTEND_TIMEOUT_USEC=2500000"
    assert service.reloading()
    first, _, second = heard.recv(4096).partition(b"\nMONOTONIC_USEC=")
    assert first == b"RELOADING=1" and before_us <= int(second) <= time.monotonic_ns() // 1_000
    assert service.stopping("bye") and heard.recv(4096) == b"STOPPING=1\nSTATUS=bye"
    service.close()


def test_a_status_cannot_say_more_than_a_status(listener: tuple[socket.socket, str]) -> None:
    heard, path = listener
    Service(path).status("x\nMAINPID=1\nWATCHDOG=trigger")
    assert heard.recv(4096) == b"STATUS=x\\nMAINPID=1\\nWATCHDOG=trigger"


def test_abstract_sockets() -> None:
    name = f"egressd-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        assert Service(f"@{name}").ready()
        assert heard.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("pid", "told", "pause_s"),
    [
        ("77", "30000000", 15.0),
        ("78", "30000000", 20.0),
        ("", "30000000", 15.0),
        ("77", "x", 20.0),
        ("77", "60000000", 20.0),
        ("77", "1", 0.1),
    ],
)
def test_the_environment_is_read_and_taken_away(pid: str, told: str, pause_s: float) -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": told, "WATCHDOG_PID": pid, "PATH": "/bin"}
    service = Service.from_environment(environ, 77)
    assert service.pause_s(20.0) == pause_s
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "/nonexistent/notify"])
def test_without_systemd_nothing_happens(address: str) -> None:
    service = Service(address, 30_000_000)
    assert not service.ready() and not service.watchdog()
    assert service.failed == (2 if address.startswith("/") else 0)
    if not address.startswith("/"):
        assert service.pause_s(20.0) == 20.0


def test_a_full_socket_is_not_waited_for(listener: tuple[socket.socket, str]) -> None:
    service = Service(listener[1])
    while service.watchdog():  # nobody reads
        pass
    assert service.failed == 1
