"""The formats of logs by name, and what reads each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.logs.dnstap import DnstapParser
from egressd.logs.parser import LogParser
from egressd.logs.resolvers import BindParser, DnsmasqParser, UnboundParser
from egressd.logs.squid import SquidParser
from egressd.logs.suricata import SuricataParser
from egressd.logs.zeek import ZeekParser

MAX_LINE_BYTES: Final = 65_536  # an event with a long URL has some kilobytes; what is longer is left out and counted
DNSTAP: Final = "dnstap"
FRAMED: Final = frozenset((DNSTAP, "dnstap-file"))  # come in frames, not in lines


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
