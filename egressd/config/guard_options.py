"""The options of `guard`: what is shared by many innocent people (docs/harm.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from egressd.config.kinds import NUMBER, PATH, PATHS, option

SHIPPED_RANGES: Final = "shipped"  # in guard.shared_ranges: the list that comes with egressd


@dataclass(frozen=True)
class GuardOptions:
    """Section `guard`."""

    popular_file: str = option(
        PATH,
        "",
        "A list of popular names in order of rank: Tranco's CSV (rank,name) or one name a line. A listed name under a "
        "popular registered domain covers that name and below, not its siblings. Empty: no such list.",
        example="top-1m.csv",
    )
    popular_top: int = option(
        NUMBER,
        10_000,
        "How many ranks of popular_file count. Further down, malware has bought its way into such lists.",
        low=0,
        high=1_000_000,
    )
    file: str = option(
        PATH,
        "",
        "A guard file to use instead of the shipped one: lines of `name category=WORD # reason` for hosting, dynamic "
        "DNS and other registered domains that many innocent people share. Empty: the shipped one.",
        example="guard.txt",
    )
    shared_ranges: tuple[str, ...] = option(
        PATHS,
        (SHIPPED_RANGES,),
        "Files of address ranges of content delivery networks and clouds, where many sites live on each address: lines "
        "of `network operator=NAME # comment`, or a network alone. No address there is blocked because of a name. "
        "`shipped` stands for the list that comes with egressd; patterns as in lists; [] for none.",
        example="[shipped, ranges/*.txt]",
    )
