"""Names that disagree: what a connection says it is for, and where it goes or what else it says.

Origin: domain fronting (Fifield et al., "Blocking-resistant communication through domain fronting", PoPETs 2015; MITRE
ATT&CK T1090.004) and overlapping segments (Ptacek and Newsham, "Insertion, evasion, and denial of service", 1998).
A part of a score, seldom a score: names share addresses, and caches know names from before we looked.
"""

from __future__ import annotations

from typing import Final

from egressd.detect.behaviour.ground import Client, Domain
from egressd.model import HttpRequest, Observation

AMBIGUOUS: Final = 45
TWO_HOSTS: Final = 40
NEVER_ASKED: Final = 15
LEAST_ASKED: Final = 30  # questions of a client that asks our resolvers for what it contacts


def disagreement(seen: Observation, client: Client, domain: Domain, resolved: str, learning: bool) -> tuple[int, str]:
    """(score, reason) of one observation with a name, 0 when nothing is odd. `resolved` is what the client resolved
    last to reach this server, "" when nothing is known."""
    if seen.note == "ambiguous":
        return AMBIGUOUS, f"overlapping segments disagree on the name {seen.name}"
    detail = seen.detail
    if isinstance(detail, HttpRequest):
        if detail.header_host:
            return TWO_HOSTS, f"one request names both {seen.name} and {detail.header_host}"
        return 0, ""
    if learning or resolved or domain.asked or client.asked < LEAST_ASKED or seen.note == "proxied":
        return 0, ""
    return NEVER_ASKED, f"nobody here asked DNS for {domain.name}, though this client asks for all else"
