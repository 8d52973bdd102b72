"""How much policy may do within a time: bounds that no rule lifts."""

from __future__ import annotations

from typing import Final

from egressd.detect.blocks import MAX_ADDRESSES, MAX_PAIRS, Block, Blocks
from egressd.intel.networks import render_address
from egressd.plural import count
from egressd.units import DAY_US, HOUR_US

PAIRS_PER_HOUR: Final = 256  # of one block, over all clients: senders' addresses can be forged, so clients can
FEW: Final = 20  # clients: the share of a small network says nothing
ALL_ADDRESSES: Final = b""  # keys of a block's budget beside clients, which are 4 or 16 bytes, and MACs of 6
ALL_PAIRS: Final = b"*"
SHARE_PART: Final = 4  # one machine causes at most this part of what policy does in an hour
ALONE_TIMES: Final = 5  # and then so many times the hour's blocks which keep it alone from where it goes
MAX_ALONE: Final = 25_000  # of the blocks that stand, those that keep one machine alone from somewhere
MAX_CAUSES: Final = 1_024  # machines that are looked through for those that caused nothing within the hour
IN_ALL: Final = " in all"  # how the reason of a bound over all blocks ends


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


class BlockBudget:
    """The automatic blocks of an hour: so many for everybody, of which no machine causes more than its share (200 names
    that one host looks up would leave everybody else's contacts open for the hour). What a machine causes beyond its
    share is for itself alone, within a budget of its own."""

    def __init__(self) -> None:
        self.all = Hourly()
        self._caused: dict[bytes, Hourly] = {}
        self._alone: dict[bytes, Hourly] = {}

    def is_over_share(self, limit: int, machine: bytes, ts_us: int) -> bool:
        """Whether this machine has caused its part of `limit` blocks within the hour; b"" stands for nobody."""
        caused = self._caused.get(machine)
        return caused is not None and limit > 0 and caused.is_over(share_of(limit), ts_us)

    def take(self, machine: bytes, ts_us: int, alone: bool = False) -> None:
        """One more block: for everybody, or for this machine `alone`."""
        if alone:
            self.alone(machine, ts_us).take(ts_us)
            return
        self.all.take(ts_us)
        if machine:
            _hourly_of(self._caused, machine, ts_us).take(ts_us)

    def alone(self, machine: bytes, ts_us: int) -> Hourly:
        """The blocks for this machine alone."""
        return _hourly_of(self._alone, machine, ts_us)


def share_of(limit: int) -> int:
    """How many of `limit` blocks an hour one machine may cause."""
    return max(1, limit // SHARE_PART)


def _hourly_of(machines: dict[bytes, Hourly], machine: bytes, ts_us: int) -> Hourly:
    found = machines.get(machine)
    if found is None:
        if len(machines) >= MAX_CAUSES:  # those of this hour are no more than its blocks
            for one in [key for key, hourly in machines.items() if not hourly.is_over(1, ts_us)]:
                del machines[one]
        found = machines[machine] = Hourly()
    return found


def over_budget(block: Block, blocks: Blocks, client: bytes, machine: bytes, hourly: int, ts_us: int) -> str:
    """Which budget one more address (`client` empty) or pair of `client`, an address of `machine`, would exceed for a
    block, in words; "" when it is within all of them, and then it is counted."""
    if client:
        if blocks.pairs >= MAX_PAIRS:
            return f"over {MAX_PAIRS} pairs{IN_ALL}"
        addresses = count(hourly, "address", "addresses")
        keys = [(client, hourly, f"over {addresses} of {render_address(client)} in an hour")]
        if machine and machine != client:
            share = share_of(PAIRS_PER_HOUR)
            keys.append((machine, share, f"over {share} pairs of one machine in an hour"))
        keys.append((ALL_PAIRS, PAIRS_PER_HOUR, f"over {PAIRS_PER_HOUR} pairs in an hour"))
    else:
        if blocks.addresses >= MAX_ADDRESSES:
            return f"over {MAX_ADDRESSES} addresses{IN_ALL}"
        keys = [(ALL_ADDRESSES, hourly, f"over {count(hourly, 'address', 'addresses')} in an hour")]
    if len(block.recent_us) > 2 * PAIRS_PER_HOUR:
        block.recent_us = {k: times for k, times in block.recent_us.items() if ts_us - times[-1] < HOUR_US}
    for key, limit, reason in keys:
        recent = [t for t in block.recent_us.get(key, ()) if ts_us - t < HOUR_US]
        if recent:
            block.recent_us[key] = recent
        if len(recent) >= limit:
            return reason
    for key, _, _ in keys:
        block.recent_us.setdefault(key, []).append(ts_us)
    return ""


def why_rolled_back(clients: int, known: int, age_us: int, most: int, most_share: int) -> str:
    """Why an automatic block of this age that `clients` of `known` ran into is taken back; "" when it stands. `most`
    clients within the first hour, `most_share` percent within the first day, 0: never."""
    if most and clients > most and age_us < HOUR_US:
        return f"{clients} clients ran into it within its first hour, over {most}: so many are hardly infected at once"
    if most_share and clients >= FEW and age_us < DAY_US and 100 * clients > most_share * known:
        of = max(known, clients)
        return f"{clients} of {of} clients ({100 * clients // of}%) met it within its first day, over {most_share}%"
    return ""
