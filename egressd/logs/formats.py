"""The formats of logs by name, and what reads each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from egressd.logs.dnstap import DnstapParser
from egressd.logs.resolvers import BindParser, DnsmasqParser, UnboundParser
from egressd.logs.squid import SquidParser
from egressd.logs.suricata import SuricataParser
from egressd.logs.zeek import ZeekParser
from egressd.model import Observation

MAX_LINE_BYTES: Final = 65_536  # an event with a long URL has some kilobytes; what is longer is left out and counted
DNSTAP: Final = "dnstap"
FRAMED: Final = frozenset((DNSTAP, "dnstap-file"))  # come in frames, not in lines


class LogParser(Protocol):
    """Reads one log, line by line. `written_us` is when the line that was read last was written, by the clock of its
    sensor; `has_header` when the first lines of a file say how to read all others."""

    sensor: str
    written_us: int

    @property
    def has_header(self) -> bool:
        """See the class."""

    def parse(self, line: bytes, now_us: int) -> list[Observation]:
        """What one line (or a frame's payload) tells of, without its end. `now_us` is about now: some logs leave the
        year out. Raises Malformed."""


PARSERS: Final[dict[str, Callable[[str], LogParser]]] = {
    "suricata": SuricataParser,
    "zeek": ZeekParser,
    "zeek-json": ZeekParser,
    "squid": SquidParser,
    "dnsmasq": DnsmasqParser,
    "unbound": UnboundParser,
    "bind": BindParser,
    DNSTAP: DnstapParser,
    "dnstap-file": DnstapParser,
}
