"""First contact straight to an address: a connection without a name to where no DNS answer led anybody.

Origin: MITRE ATT&CK T1071 notes and Zeek's practice of "connections without DNS"; programs of people use names. A part
of a score: IoT devices, calls and games do so too.
"""

from __future__ import annotations

from typing import Final

from egressd.detect.behaviour.ground import Track

LEAST: Final = 2  # connections in which no name was seen: the first may only be early
SCORE: Final = 25


def direct(track: Track) -> tuple[int, str]:
    """(score, reason) of a pair of client and address."""
    if track.named or track.unnamed < LEAST:
        return 0, ""
    return SCORE, "goes straight to an address that no DNS answer here has named"
