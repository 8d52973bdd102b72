"""A socket that stands for systemd or the journal."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def listener() -> Iterator[tuple[socket.socket, str]]:
    """A datagram socket and its path (short: sun_path takes 108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="e") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        path = f"{folder}/s"
        one.bind(path)
        one.settimeout(5)
        yield one, path
