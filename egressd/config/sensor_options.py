"""The options of one other sensor whose log is followed (docs/sensors.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from egressd.config.kinds import CHOICE, FLAG, NUMBER, PATH, option

# logs.formats has the same, and what reads each.
LOG_FORMATS: Final = (
    *("suricata", "zeek", "zeek-json", "squid", "dnsmasq", "unbound", "bind", "dnstap", "dnstap-file"),
)
SOCKET_FORMAT: Final = "dnstap"  # comes over a socket that egressd listens on
MAX_SENSORS: Final = 16  # each is a label's value in metrics, and remembered with every contact


@dataclass(frozen=True)
class SensorOptions:
    """One sensor of the mapping `sensors`."""

    path: str = option(
        PATH,
        "",
        "The log, or a pattern with * or ? for several that one program writes, such as Zeek's. Of format dnstap: the "
        "socket on which egressd listens for the resolver.",
        example="/var/log/suricata/eve.json",
    )
    format: str = option(
        CHOICE,
        "suricata",
        "How it is written. suricata: eve.json. zeek: dns, http, ssl, quic and conn logs, text or JSON (zeek-json is "
        "the same). squid: access.log. dnsmasq, unbound, bind: query logs. dnstap: over a socket; dnstap-file: from a "
        "file.",
        choices=LOG_FORMATS,
    )
    enabled: bool = option(FLAG, True, "Whether it is followed.")
    silence_s: int = option(
        NUMBER,
        3_600,
        "An alarm when no line came for so long, in seconds, while packets were seen. 0: none, for a log in which "
        "little stands.",
        high=604_800,
    )
    clock: str = option(
        CHOICE,
        "estimate",
        "Whether its times are right. estimate: when its lines say other times than they come at, by more than "
        "buffering explains, all are corrected by that: for a clock that is wrong, and for a log in local time without "
        "its zone. right: they are taken as they stand.",
        choices=("estimate", "right"),
    )


def wrong_with(sensor: SensorOptions) -> Iterator[tuple[str, str, str]]:
    """(option, what, advice) for what is wrong with options that are right each by itself."""
    if not sensor.path:
        yield "path", "is missing", "write where the log is: path: /var/log/..."
    elif sensor.format == SOCKET_FORMAT and any(sign in sensor.path for sign in "*?["):
        yield "path", "is a pattern, and a socket has one path", "write the path of the socket"
