"""Rules, protected sets and clocks that the tests of this room share."""

from __future__ import annotations

from egressd.enforce.adapter import Existing, Rule
from egressd.enforce.ruleset import Ground
from egressd.intel.networks import parse_network
from egressd.intel.protected import Protected
from egressd.model import Target
from egressd.units import SECOND_US

NOW_US = 1_795_000_000_000_000

PROTECTED = ("10.0.0.0/8", "127.0.0.0/8", "8.8.8.8", "192.0.2.53", "fe80::/10", "2001:db8:53::/48")
SPARE = ("10.1.0.1", "fd00:0:0:1::1")
REMEDY = ("198.51.100.7", "2001:db8:7::7")


class Clock:
    """A clock that a test sets."""

    def __init__(self, now_us: int = NOW_US) -> None:
        self.time_us = now_us

    def now_us(self) -> int:
        return self.time_us

    def pass_s(self, seconds: float) -> None:
        self.time_us += int(seconds * SECOND_US)


def networks(*texts: str) -> tuple[tuple[bytes, int], ...]:
    """Networks from their text."""
    found = [parse_network(text) for text in texts]
    assert None not in found, texts
    return tuple(network for network in found if network is not None)


def ground(*never: str) -> Ground:
    """What configuration would put into the table."""
    return Ground(networks(*(never or PROTECTED)), networks(*SPARE), networks(*REMEDY))


def protected(*texts: str) -> Protected:
    """The same networks as policy knows them."""
    return Protected([(*network, "test") for network in networks(*(texts or PROTECTED))])


def rule(kind: str, value: str, decision_id: str = "D1", lasts_s: float = 0, now_us: int = NOW_US) -> Rule:
    """A rule; `lasts_s` 0 = as long as its decision stands."""
    return Rule(Target(kind, value), decision_id, now_us + int(lasts_s * SECOND_US) if lasts_s else 0)


def held(kind: str, value: str, decision_id: str = "D1", remaining_s: float = 3600.0) -> Existing:
    """An element read back."""
    return Existing(Target(kind, value), decision_id, remaining_s, 0, 0)


def address(number: int) -> str:
    """One of 16 million addresses that are not protected."""
    return f"{100 + number // 65536}.{number // 256 % 256}.{number % 256}.7"


def address6(number: int) -> str:
    """The same for IPv6, in canonical form."""
    return f"2001:db8:a:{number // 65536 + 1:x}:1:1:{number // 256 % 256 + 1:x}:{number % 256 + 1:x}"
