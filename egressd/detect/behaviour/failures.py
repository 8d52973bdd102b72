"""Failed look-ups: a generator of domains (DGA) hunting for its server, and bursts of NXDOMAIN.

Origin: Antonakakis et al., "From throw-away traffic to bots: detecting the rise of DGA-based malware" (USENIX Security
2012): most names that a DGA draws do not exist, so an infected host stands out by names that fail and look alike; the
letters are judged as in behaviour/letters.py.

What is alike and innocent: Chrome's probes (single labels, or under one search domain), DNS block lists and antivirus
look-ups (one registered domain), typing errors (words), a mail server (words, mostly).
"""

from __future__ import annotations

from typing import Final

from egressd.detect.behaviour.letters import is_strange
from egressd.units import HOUR_US

WINDOW_US: Final = HOUR_US
MAX_NAMES: Final = 160  # different registered domains kept of a client's window
LEAST_STRANGE: Final = 8
STRANGE_SHARE: Final = 0.6
LEAST_BURST: Final = 40


class Failures:
    """Registered domains of one client that do not exist, within an hour."""

    __slots__ = ("first_us", "lead", "names", "strange")

    def __init__(self, ts_us: int) -> None:
        self.first_us = ts_us
        self.lead = ""  # the first strange one, else the first: stands for all of them
        self.names: dict[str, bool] = {}
        self.strange = 0

    def take(self, domain: str, ts_us: int) -> bool:
        """A registered domain failed; True when it is another one."""
        if not 0 <= ts_us - self.first_us < WINDOW_US:
            self.first_us = ts_us
            self.lead = ""
            self.names.clear()
            self.strange = 0
        if domain in self.names or len(self.names) >= MAX_NAMES:
            return False
        strange = is_strange(domain.partition(".")[0])
        if not self.lead or (strange and not self.strange):
            self.lead = domain
        self.names[domain] = strange
        self.strange += strange
        return True

    def generated(self) -> int:
        """The score of a generator of names."""
        if self.strange < LEAST_STRANGE or self.strange < STRANGE_SHARE * len(self.names):
            return 0
        return min(90, 54 + 2 * self.strange)

    def generated_reason(self) -> str:
        """In words."""
        return f"{self.strange} of {len(self.names)} registered domains that do not exist look drawn by a generator"

    def burst(self) -> int:
        """The score of the mere number: whatever they look like."""
        if len(self.names) < LEAST_BURST:
            return 0
        return min(60, 20 + len(self.names) // 3)

    def burst_reason(self) -> str:
        """In words."""
        return f"asked for {len(self.names)} registered domains that do not exist within an hour"
