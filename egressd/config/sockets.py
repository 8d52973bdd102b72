"""Whether the paths of the daemon's sockets are such that it can listen there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from egressd.config.schema import Config
from egressd.config.sensor_options import SOCKET_FORMAT
from egressd.errors import Problem

MAX_SOCKET_BYTES: Final = 107  # sun_path of sockaddr_un, less the zero at its end (unix(7))
MAX_CONTROL_BYTES: Final = MAX_SOCKET_BYTES - len(".new")  # what its path ends in until it is ready (web.control)


def wrong_sockets(config: Config, base_dir: Path) -> Iterator[Problem]:
    """Problems with paths on which the daemon will listen; relative ones start at `base_dir`."""
    yield from _wrong(config, base_dir, "control.socket", config.control.socket, MAX_CONTROL_BYTES)
    for name, sensor in config.sensors.items():
        if sensor.enabled and sensor.format == SOCKET_FORMAT:
            yield from _wrong(config, base_dir, f"sensors.{name}.path", sensor.path, MAX_SOCKET_BYTES)


def _wrong(config: Config, base_dir: Path, key: str, written: str, most_bytes: int) -> Iterator[Problem]:
    line, column = config.places.get(key, (0, 0))
    long_bytes = len(os.fsencode(base_dir / written))
    if not written:
        yield Problem(config.origin, line, column, f"{key}: is empty", "write a path, or take the line out")
    elif long_bytes > most_bytes:
        what = f"{key}: is {long_bytes} bytes long with its folder, and a socket's path has {most_bytes} at most"
        yield Problem(config.origin, line, column, what, "choose a shorter one, such as one below /run")
