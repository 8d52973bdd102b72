"""What else reads captures for names, where it is installed: how each is asked, and which planted names it tells.

None of them is needed. Each gets the same captures; those that match against lists get the same list. `found` is how
many of the planted names stand in what it wrote, so that speed is never told without recall.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench.captures import WORK, Capture
from bench.measure import version_of

_TCP: Final = "tcp[((tcp[12] & 0xf0) >> 2)"
_TCP6: Final = "ip6[40 + ((ip6[52] & 0xf0) >> 2)"
_HEADS: Final = ("2] = 0x1603", "4] = 0x47455420", "4] = 0x504f5354", "4] = 0x48454144", "4] = 0x50555420")
# What a capture filter can ask for to keep the packets that begin with a name: DNS, QUIC's long header toward 443,
# TCP's opening and closing, and payload that begins like TLS, GET, POST, HEAD or PUT. It cannot follow a ClientHello
# into its second segment.
FILTER: Final = " or ".join(
    (
        "port 53",
        "(udp dst port 443 and udp[8] & 0xc0 = 0xc0)",
        "(ip6[6] = 17 and ip6[42:2] = 443 and ip6[48] & 0xc0 = 0xc0)",
        "tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0",
        "(ip6[6] = 6 and ip6[53] & 7 != 0)",
        *(f"{_TCP}:{head}" for head in _HEADS),
        *(f"(ip6[6] = 6 and {_TCP6}:{head})" for head in _HEADS),
    )
)
NAME_FIELDS: Final = ("dns.qry.name", "http.host", "tls.handshake.extensions_server_name")
_NAME: Final = re.compile(rb"[a-z0-9-]+\.planted[0-9]{2}\.example")

NFSTREAM: Final = """
import sys
from nfstream import NFStreamer
for flow in NFStreamer(source=sys.argv[1], n_meters=1, max_nflows=0):
    if flow.requested_server_name:
        print(flow.requested_server_name)
"""
# Suricata's own manual, "Suricata.yaml" and "Eve JSON Output": names of all protocols logged, nothing else.
SURICATA: Final = """%YAML 1.1
---
default-log-dir: {folder}
stats:
  enabled: no
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      types: [{{dns: {{version: 2}}}}, tls, http, quic]
app-layer:
  protocols:
    tls: {{enabled: yes, detection-ports: {{dp: 443}}}}
    http: {{enabled: yes}}
    quic: {{enabled: yes}}
    dns: {{udp: {{enabled: yes, detection-ports: {{dp: 53}}}}, tcp: {{enabled: yes, detection-ports: {{dp: 53}}}}}}
"""


class Peer(NamedTuple):
    """A program. `version` asks for its version; `command` reads a file and writes into standard output, or into the
    files it names. `whole` when it is quick enough for the whole bulk capture. `tells` when it tells names."""

    name: str
    version: list[str]
    command: Callable[[Path, Path], list[str]]
    writes: str = ""  # the file in its folder that holds the names, "" for standard output
    whole: bool = True
    tells: bool = True


def _suricata(file: Path, folder: Path) -> list[str]:
    config = folder / "suricata.yaml"
    config.write_text(SURICATA.format(folder=folder), encoding="ascii")
    rules = folder / "none.rules"
    rules.write_text("", encoding="ascii")
    return ["suricata", "-c", str(config), "-S", str(rules), "-k", "none", "-r", str(file), "-l", str(folder)]


def _tshark(file: Path, folder: Path) -> list[str]:
    fields = [word for field in NAME_FIELDS for word in ("-e", field)]
    return ["tshark", "-n", "-r", str(file), "-T", "fields", *fields]


PEERS: Final = (
    Peer(
        "tcpdump, filter",
        ["tcpdump", "--version"],
        lambda file, folder: ["tcpdump", "-r", str(file), "-w", "/dev/null", FILTER],
        tells=False,
    ),
    Peer("tshark -T fields", ["tshark", "--version"], _tshark, whole=False),
    Peer(
        "ndpiReader -C",
        ["ndpiReader", "-h"],
        lambda file, folder: ["ndpiReader", "-q", "-i", str(file), "-C", str(folder / "flows.csv")],
        writes="flows.csv",
    ),
    Peer("suricata", ["suricata", "-V"], _suricata, writes="eve.json"),
    Peer(
        "nfstream",
        [sys.executable, "-c", "import nfstream; print('nfstream', nfstream.__version__)"],
        lambda file, folder: [sys.executable, "-c", NFSTREAM, str(file)],
        whole=False,
    ),
)


def installed(without: list[str], nfstream_python: str) -> tuple[list[tuple[Peer, str]], list[str]]:
    """The peers there are, each with its version; and the names of those there are not."""
    found: list[tuple[Peer, str]] = []
    lacking: list[str] = []
    for peer in PEERS:
        if peer.name == "nfstream" and nfstream_python:
            peer = with_python(peer, nfstream_python)
        word = peer.name.partition(",")[0].split()[0]
        version = "" if word in without else version_of(peer.version) if shutil.which(peer.version[0]) else ""
        if version and "Error" not in version and "Traceback" not in version:
            found.append((peer, version))
        elif word not in without:
            lacking.append(word)
    return found, [*lacking, "maltrail"]


def with_python(peer: Peer, python: str) -> Peer:
    """A peer that is a Python package, in another interpreter's environment."""
    command = peer.command
    return peer._replace(
        version=[python, *peer.version[1:]], command=lambda file, folder: [python, *command(file, folder)[1:]]
    )


def folder_of(peer: Peer) -> Path:
    """Where a peer may write."""
    folder = WORK / "peers" / peer.name.partition(",")[0].split()[0]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names_in(path: Path) -> set[str]:
    """Every name of the planted kind in what was written."""
    return {name.decode("ascii") for name in _NAME.findall(path.read_bytes())} if path.exists() else set()


def target(peer: Peer, capture: Capture) -> tuple[Path, int, set[str]]:
    """What of a capture a peer reads: file, packets, planted names."""
    if peer.whole:
        return capture.file, capture.packets, set(capture.planted)
    return capture.part, capture.part_packets, capture.early()
