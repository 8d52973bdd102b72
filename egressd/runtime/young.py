"""Python's garbage collector in a packet process: never on its own, always after so many packets.

Reference counts free nearly everything; the collector is for cycles, of which packets make none that live for long. At
its own times it would walk all tables, tens of milliseconds. So it is off, what was looked at once is never looked at
again (`gc.freeze`), and the look itself is at what few packets have left behind.

By packets, not by `gc.get_count`: that counts what was made less what was freed, and once tables are full they free as
much as they take in. The count then stays near nothing while young objects heap up, and the look that comes at last
takes 100 ms (bench/soak.py found it).
"""

from __future__ import annotations

import gc
from typing import Final

PACKETS_PER_LOOK: Final = 256  # each leaves some five objects behind: the look takes 0.1 ms


class YoungObjects:
    """Takes over the collector. `look` is for after every turn."""

    def __init__(self) -> None:
        gc.disable()
        gc.collect()
        gc.freeze()
        self._looked = 0

    def look(self, packets: int) -> bool:
        """Look for cycles when enough packets were dissected since the last look; `packets` is their total."""
        if packets - self._looked < PACKETS_PER_LOOK:
            return False
        self._looked = packets
        gc.collect(0)
        gc.freeze()
        return True

    def keep(self) -> None:
        """What was made until now is here to stay: an order brought it, perhaps a million objects at once."""
        gc.freeze()
