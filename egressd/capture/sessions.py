"""Who is logged in on this machine from afar: the peers of administrators' sessions.

They are protected: a block that cuts the administrator off leaves nobody to take it back. Only sessions that were let
in count; whoever merely opens a connection to the SSH port is in no such record.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from egressd.intel.networks import parse_address

UTMP: Final = "/run/utmp"
# Where there is no utmp any more (its times end in 2038), logind's own record says who it is; one file a session.
LOGIND: Final = "/run/systemd/sessions"
MAX_SESSIONS: Final = 256
MAX_SESSION_BYTES: Final = 4_096

# struct utmp of glibc where time_t in it is 32 bits wide, as on all 64-bit machines that keep the old layout
# (bits/utmp.h): type, pid, line, id, user, host, exit status, session, time, address, reserved.
_RECORD: Final = struct.Struct("=hxxi32s4s32s256shhiii16s20x")
_USER_PROCESS: Final = 7  # utmp(5)


def read_sessions(utmp: str = UTMP, logind: str = LOGIND) -> list[bytes]:
    """The packed addresses that sessions of now came from, each once. Records that cannot be read count as empty."""
    found: list[bytes] = []
    with suppress(OSError), Path(utmp).open("rb") as file:
        found += parse_utmp(file.read(MAX_SESSIONS * _RECORD.size))
    with suppress(OSError):
        for path in sorted(Path(logind).iterdir())[:MAX_SESSIONS]:
            with suppress(OSError), path.open("rb") as file:
                found += parse_session(file.read(MAX_SESSION_BYTES))
    return list(dict.fromkeys(found))


def parse_utmp(octets: bytes) -> list[bytes]:
    """The addresses in records of users' sessions (utmp(5)); a record cut short is left out."""
    found: list[bytes] = []
    for at in range(0, len(octets) - _RECORD.size + 1, _RECORD.size):
        fields = _RECORD.unpack_from(octets, at)
        kind, address = fields[0], fields[-1]
        if kind != _USER_PROCESS or not any(address):
            continue
        found.append(address[:4] if not any(address[4:]) else address)
    return found


def parse_session(octets: bytes) -> list[bytes]:
    """The address in a file of logind, none when the session is local or over. Systemd calls these files private; what
    is not understood is left out."""
    fields = dict(_pairs(octets.decode("utf-8", "replace").splitlines()))
    if fields.get("REMOTE") != "1" or fields.get("STATE") == "closing":
        return []
    address = parse_address(fields.get("REMOTE_HOST", "").partition("%")[0])
    return [address] if address else []


def _pairs(lines: Sequence[str]) -> list[tuple[str, str]]:
    found = [line.partition("=") for line in lines]
    return [(key, value) for key, equals, value in found if equals]
