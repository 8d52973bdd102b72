"""The names that tshark finds in the cases, egressd finds too; scripts/coverage.py does it over whole corpora."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from egressd.capture.merge import Replay
from egressd.model import DNS_QUERY, DnsMessage, HttpRequest, Observation
from egressd.wire.dissector import Dissector

CASES = Path(__file__).resolve().parent.parent / "pcaps"
# Cases whose names are not names: the two programs write them differently, and test_pcaps.py says what we must write.
# And one with a name in a segment that no server takes, which tshark reads.
NOT_COMPARED = {"dns-compression-bomb", "hostile-names", "tls-misleading-segments"}
CAPTURES = sorted(
    path
    for path in CASES.glob("*/*")
    if path.name.endswith((".pcap", ".pcapng", ".pcap.gz")) and path.parent.name not in NOT_COMPARED
)
FIELDS = ("dns.qry.name", "http.host", "tls.handshake.extensions_server_name")
# Link-local talk is kept apart from egress; quoted packets in ICMP errors were not sent by the host.
FILTER = "(dns.flags.response == 0 or http.host or tls.handshake.extensions_server_name) and not mdns and not llmnr"
FILTER += " and not icmp and not icmpv6"


pytestmark = [
    pytest.mark.tshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed (apt-get install tshark)"),
]


def tshark_names(path: Path) -> set[str]:
    """Names in lower case without port and trailing dot."""
    command = ["tshark", "-n", "-o", "tcp.reassemble_out_of_order:TRUE", "-r", str(path), "-Y", FILTER, "-T", "fields"]
    for field in FIELDS:
        command += ["-e", field]
    done = subprocess.run(
        [*command, "-E", "aggregator=,"], capture_output=True, text=True, errors="replace", check=False
    )
    names = {name for line in done.stdout.split("\n") for cell in line.split("\t") for name in cell.split(",")}
    return {name.lower().rsplit(":", 1)[0].rstrip(".") for name in names if name and name.isprintable()} - {
        "<root>",
        "",
    }


def our_names(path: Path) -> set[str]:
    """Every name of a question, request or hello."""
    names: set[str] = set()

    def take(seen: Observation) -> None:
        names.add(seen.name or seen.raw_name)
        if seen.kind == DNS_QUERY and isinstance(seen.detail, DnsMessage):
            names.update(question.name or question.raw_name for question in seen.detail.questions)
        elif isinstance(seen.detail, HttpRequest):
            names.add(seen.detail.header_host)

    dissector = Dissector(take)
    Replay([path], dissector).run()
    dissector.flush()
    return {name.lower().rstrip(".") for name in names}


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_tshark_sees_we_see(path: Path) -> None:
    missing = tshark_names(path) - our_names(path)
    assert not missing


def test_there_is_something_to_compare() -> None:
    assert len(CAPTURES) > 70
    assert len(tshark_names(CASES / "jps-2015" / "3-may-18.pcap")) > 8
