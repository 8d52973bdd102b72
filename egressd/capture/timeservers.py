"""Which time servers this machine asks, by the files of the programs that keep its clock.

They are protected: a gateway whose clock runs away writes wrong incidents, and its certificates and time-outs fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Final

from egressd.intel.networks import parse_address
from egressd.names import to_a_label

# systemd-timesyncd (timesyncd.conf(5)), chrony (chrony.conf(5)), ntpd and ntpsec (ntp.conf(5)), and what DHCP told.
FILES: Final = (
    "/etc/systemd/timesyncd.conf",
    "/etc/systemd/timesyncd.conf.d/*.conf",
    "/run/systemd/timesyncd.conf.d/*.conf",
    "/etc/chrony/chrony.conf",
    "/etc/chrony.conf",
    "/etc/chrony/conf.d/*.conf",
    "/etc/chrony/sources.d/*.sources",
    "/run/chrony-dhcp/*.sources",
    "/etc/ntp.conf",
    "/etc/ntpsec/ntp.conf",
    "/etc/ntpsec/ntp.d/*.conf",
)
MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 65_536
MAX_SERVERS: Final = 64

_ASKED: Final = frozenset({"server", "pool", "peer"})
_KEYS: Final = ("NTP=", "FallbackNTP=")


def read_time_servers(patterns: Sequence[str] = FILES) -> list[str]:
    """The time servers named in files, addresses as text and normal names, each once, at most MAX_SERVERS. Files that
    cannot be read count as empty."""
    found: list[str] = []
    for path in _paths(patterns):
        with suppress(OSError), path.open("rb") as file:
            found += parse_time_servers(file.read(MAX_FILE_BYTES))
    return list(dict.fromkeys(found))[:MAX_SERVERS]


def _paths(patterns: Iterable[str]) -> list[Path]:
    found = [name for pattern in patterns for name in sorted(glob(pattern))]  # noqa: PTH207  absolute patterns
    return [Path(name) for name in found[:MAX_FILES]]


def parse_time_servers(octets: bytes) -> list[str]:
    """The servers in a file of any of these programs: `NTP=` and `FallbackNTP=` of timesyncd, `server`, `pool` and
    `peer` of the others; what is neither an address nor a legal name is left out."""
    found: list[str] = []
    for line in octets.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text.startswith(_KEYS):
            words = text.partition("=")[2].split()
        else:
            words = text.split()
            if not words or words[0].lower() not in _ASKED:
                continue
            words = [word for word in words[1:] if not word.startswith("-")][:1]  # ntp.conf(5): -4 and -6 come first
        found += [name for name in map(_server, words) if name]
    return found


def _server(word: str) -> str:
    text = word.partition("%")[0]
    return text if parse_address(text) else to_a_label(text)
