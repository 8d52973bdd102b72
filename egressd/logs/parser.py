"""What every parser of a log is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from egressd.model import Observation


class LogParser(ABC):
    """Reads one log, line by line. `written_us` is when the line that was read last was written, by the clock of its
    sensor; `has_header` when the first lines of a file say how to read all others."""

    has_header = False

    def __init__(self, sensor: str) -> None:
        self.sensor = sensor
        self.written_us = 0

    @abstractmethod
    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one line (or a frame's payload) tells of, without its end; nothing where it is of another sort. `now_us`
        is about now: some logs leave the year out. Raises Malformed."""
