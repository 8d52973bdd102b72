"""Whom a resolver on this machine asks in its turn, by the files of the programs that are one.

They are protected: where /etc/resolv.conf names nobody but the machine itself, the provider's resolvers stand only
here, and were one of them blocked, nobody behind this gateway could look up a name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Final

from egressd.intel.networks import parse_address

# dnsmasq(8), unbound.conf(5), named.conf(5); and in the form of resolv.conf(5) what DHCP and PPP told.
FILES: Final = (
    "/etc/dnsmasq.conf",
    "/etc/dnsmasq.d/*",
    "/etc/unbound/unbound.conf",
    "/etc/unbound/*.d/*.conf",
    "/etc/bind/named.conf*",
    "/etc/named.conf",
    "/etc/named/*.conf",
    "/run/dnsmasq/resolv.conf",
    "/run/NetworkManager/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/resolvconf/resolv.conf",
    "/run/resolvconf/interface/*",
    "/etc/ppp/resolv.conf",
)
MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 262_144
MAX_FORWARDERS: Final = 64

# A line of dnsmasq, unbound or resolv.conf, and what stands behind the address: port, name for TLS, interface.
_LINE: Final = re.compile(
    r"^[ \t]*(?:server[ \t]*=[ \t]*(?:/[^\n]*/)?|rev-server[ \t]*=[^,\n]*,|(?:forward|stub)-addr[ \t]*:"
    r"|nameserver[ \t])[ \t\"']*([0-9A-Fa-f:.]+)",
    re.MULTILINE,
)
_ELSEWHERE: Final = re.compile(r"^[ \t]*resolv-file[ \t]*=[ \t]*(/[^\s#]+)", re.MULTILINE)  # of dnsmasq
_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*|#[^\n]*", re.DOTALL)  # of BIND
_FORWARDERS: Final = re.compile(r"\bforwarders\b[^{};]{0,200}\{([^{}]*)\}")


def read_forwarders(patterns: Sequence[str] = FILES) -> list[bytes]:
    """The packed addresses in files, each once, at most MAX_FORWARDERS. Files that cannot be read count as empty."""
    names = [name for pattern in patterns for name in sorted(glob(pattern))][:MAX_FILES]  # noqa: PTH207  absolute
    found: list[bytes] = []
    for at in range(2 * MAX_FILES):
        if at >= len(names):
            break
        with suppress(OSError):
            status = Path(names[at]).stat()
            addresses, others = _read(names[at], status.st_mtime_ns, status.st_size)
            found += addresses
            names += [name for name in others if name not in names]
    return list(dict.fromkeys(found))[:MAX_FORWARDERS]


@lru_cache(maxsize=2 * MAX_FILES)
def _read(name: str, mtime_ns: int, size: int) -> tuple[list[bytes], list[str]]:
    """The addresses in a file, and the files that it leads to; anew when it has changed, for it may be a list of
    hundreds of thousands of names. Raises OSError."""
    with Path(name).open("rb") as file:
        text = file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    return parse_forwarders(text), _ELSEWHERE.findall(text)


def parse_forwarders(text: str) -> list[bytes]:
    """The addresses in a file of any of these programs."""
    words = _LINE.findall(text)
    if "forwarders" in text:
        for listed in _FORWARDERS.findall(_COMMENT.sub(" ", text)):
            words += [entry.split()[0] for entry in listed.split(";") if entry.split()]
    return [address for word in words if (address := parse_address(word))]
