"""DNS tunnels: a domain whose subdomains carry what somebody sends.

Origin: Born and Gustafson, "Detecting DNS tunnels using character frequency analysis" (2010), and Farnham, "Detecting
DNS tunneling" (SANS, 2013): volume of different names under one registered domain, their length and entropy, record
types that carry much (TXT, NULL).

What is alike and innocent: antivirus clouds (one hash a name, of one length, shared by many clients), DNS block lists
(short), CDNs with random subdomains (short, few). A tunnel slower than some names a minute is not told by this; its
regular contacts may be.
"""

from __future__ import annotations

from binascii import crc32
from typing import Final

from egressd.detect.behaviour.letters import entropy_bits
from egressd.detect.behaviour.sketch import marks
from egressd.native import mypyc_attr

WINDOW_US: Final = 600_000_000
BITS: Final = 256
LEAST_NAMES: Final = 40  # different ones within the window
LEAST_LENGTH: Final = 24  # characters below the registered domain, in the mean
LONG: Final = 60  # hashes are shorter
CARRIERS: Final = frozenset((10, 16, 25, 5, 15))  # NULL, TXT, KEY, CNAME, MX: what tunnels let the answer carry
LEAST_BITS: Final = 3.0  # of entropy a character, in the mean


@mypyc_attr(acyclic=True)
class Below:
    """Names asked below one registered domain by one client."""

    __slots__ = ("bits", "carriers", "characters", "first_us", "lengths", "names", "questions")

    def __init__(self, ts_us: int) -> None:
        self._begin(ts_us)

    def _begin(self, ts_us: int) -> None:
        self.first_us = ts_us
        self.names = 0  # sketch of different ones
        self.questions = 0
        self.characters = 0
        self.bits = 0.0
        self.carriers = 0
        self.lengths = 0  # sketch of different lengths

    def take(self, below: str, rrtype: int, ts_us: int) -> None:
        """A question for a name with `below` before the registered domain's dot."""
        if not 0 <= ts_us - self.first_us < WINDOW_US:
            self._begin(ts_us)
        mark = 1 << crc32(below.encode("ascii", "replace")) % BITS
        if self.names & mark:
            return  # asked before, most likely
        self.names |= mark
        self.questions += 1
        self.characters += len(below)
        self.bits += entropy_bits(below)
        self.carriers += rrtype in CARRIERS
        self.lengths |= 1 << len(below) % 60

    def score(self) -> int:
        """How sure it is that this is a tunnel, by itself."""
        count = self.questions
        if count < LEAST_NAMES or self.characters < LEAST_LENGTH * count or self.bits < LEAST_BITS * count:
            return 0
        length = self.characters // count
        score = 45 + min(15, (marks(self.names, BITS) - LEAST_NAMES) // 8)
        if self.carriers * 2 > count:
            score += 20
        if length >= LONG:
            score += 15
        if self.lengths.bit_count() == 1 and length < LONG:
            score -= 25  # one hash a name
        return max(0, min(90, score))

    def reason(self) -> str:
        """In words."""
        length = self.characters // max(1, self.questions)
        odd = f", {100 * self.carriers // max(1, self.questions)} % of them for TXT, NULL or CNAME" * bool(
            self.carriers
        )
        return f"{marks(self.names, BITS)} different names below it in 10 minutes, {length} characters each{odd}"
