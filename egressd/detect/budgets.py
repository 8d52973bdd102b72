"""How much policy may do within a time: bounds that no rule lifts."""

from __future__ import annotations

from typing import Final

from egressd.detect.blocks import MAX_ADDRESSES, MAX_PAIRS, Block, Blocks

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
PAIRS_PER_HOUR: Final = 256  # of one block, over all clients: senders' addresses can be forged, so clients can
FEW: Final = 20  # clients: the share of a small network says nothing
_ALL_ADDRESSES: Final = b""  # keys of a block's budget beside the clients, which are 4 or 16 bytes
_ALL_PAIRS: Final = b"*"


class Hourly:
    """At most so many of something within an hour; that it is over is told once an hour."""

    def __init__(self) -> None:
        self._recent_us: list[int] = []
        self._told_us = -HOUR_US

    def is_over(self, limit: int, ts_us: int) -> bool:
        """Whether there may be no more now."""
        self._recent_us = [t for t in self._recent_us if ts_us - t < HOUR_US]
        return len(self._recent_us) >= limit

    def is_told(self, ts_us: int) -> bool:
        """Whether it was said within the last hour that this is over; from now on it was."""
        if 0 <= ts_us - self._told_us < HOUR_US:
            return True
        self._told_us = ts_us
        return False

    def take(self, ts_us: int) -> None:
        """One more."""
        self._recent_us.append(ts_us)


def takes_address(block: Block, blocks: Blocks, client: bytes, limit: int, ts_us: int) -> bool:
    """Count one more address (`client` empty) or pair of `client` for a block, if that is within the hour's budget of
    `limit`."""
    if client:
        keys = [(client, limit), (_ALL_PAIRS, PAIRS_PER_HOUR)]
        full = blocks.pairs >= MAX_PAIRS
    else:
        keys = [(_ALL_ADDRESSES, limit)]
        full = blocks.addresses >= MAX_ADDRESSES
    if len(block.recent_us) > 2 * PAIRS_PER_HOUR:
        block.recent_us = {k: times for k, times in block.recent_us.items() if ts_us - times[-1] < HOUR_US}
    for key, most in keys:
        recent = [t for t in block.recent_us.get(key, ()) if ts_us - t < HOUR_US]
        if recent:
            block.recent_us[key] = recent
        if len(recent) >= most:
            full = True
    if not full:
        for key, _ in keys:
            block.recent_us.setdefault(key, []).append(ts_us)
    return not full


def why_rolled_back(clients: int, known: int, age_us: int, most: int, most_share: int) -> str:
    """Why an automatic block of this age that `clients` of `known` ran into is taken back; "" when it stands. `most`
    clients within the first hour, `most_share` percent within the first day, 0: never."""
    if most and clients > most and age_us < HOUR_US:
        return f"{clients} clients ran into it within its first hour, over {most}: so many are hardly infected at once"
    if most_share and clients >= FEW and age_us < DAY_US and 100 * clients > most_share * known:
        of = max(known, clients)
        return f"{clients} of {of} clients ({100 * clients // of}%) met it within its first day, over {most_share}%"
    return ""
