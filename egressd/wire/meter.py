"""How many bytes each direction of a TCP connection carried, by its sequence numbers (RFC 9293 section 3.4).

The bulk of a long connection is thrown away unread, so nothing can be added up packet by packet. A sequence number
says how much was sent before it, and some packets are always read: SYN, FIN and RST, the first with payload, and one
packet in each further QUIET_US of a direction that is quiet. Each is a sample. Between two the number may have wrapped
once at most: of a direction faster than 4 GiB in QUIET_US (570 Mbit/s) whole multiples of 4 GiB are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.model import FlowKey
from egressd.wire.conversation import Conversation, Side

# Told of a connection as it goes on: (flow, time of the last sample, bytes from the client, bytes from the server)
# since it was told before.
OnVolume = Callable[[FlowKey, int, int, int], None]

TELL_BYTES: Final = 1 << 20  # so much is told while a connection lasts; the rest when it is over
_MODULUS: Final = 1 << 32
_MASK: Final = _MODULUS - 1
# So far behind the last sample a segment was sent again or overtaken; further "behind" is ahead, once around. Receive
# windows of today are 16 MiB (Linux, tcp_rmem), a few of them may be under way.
BEHIND: Final = 64 << 20
# What may have been sent since the last sample: 10 Gbit/s, and what was under way. A number further off belongs to no
# byte that the receiver would take.
BYTES_PER_US: Final = 1_250


def sample(side: Side, seq: int, size: int, ts_us: int) -> None:
    """`side` sent `size` bytes that begin at sequence number `seq` (that of the first byte after a SYN)."""
    end = (seq + size) & _MASK
    last = side.last_seq
    since_us = ts_us - side.sampled_us
    if last < 0:
        side.last_seq = end
        side.sampled_us = ts_us
        side.sent_bytes = size
        return
    ahead = (end - last) & _MASK
    if not 0 < ahead < _MODULUS - BEHIND:
        return
    if ahead > BEHIND and (since_us < 0 or ahead - BEHIND > since_us * BYTES_PER_US):
        if side.sent_bytes:
            return
        ahead = size  # a handshake that was answered twice: the bytes show which answer counts
    side.last_seq = end
    side.sampled_us = ts_us
    side.sent_bytes += ahead


def begin(side: Side, seq: int, ts_us: int) -> None:
    """A SYN or SYN-ACK of `side`; `seq` is that of the first byte after it. The last one before any bytes counts."""
    if not side.sent_bytes:
        side.last_seq = seq
        side.sampled_us = ts_us


def tell(conversation: Conversation, on_volume: OnVolume, least: int) -> None:
    """Tell what was sent since this was told last, when it is `least` bytes or more."""
    client = conversation.client
    out_bytes = client.sent_bytes - client.told_bytes
    in_bytes = 0
    ts_us = client.sampled_us
    server = conversation.answering()
    if server is not None:
        in_bytes = server.sent_bytes - server.told_bytes
        ts_us = max(ts_us, server.sampled_us)
    if out_bytes + in_bytes < least:
        return
    client.told_bytes = client.sent_bytes
    if server is not None:
        server.told_bytes = server.sent_bytes
    on_volume(conversation.flow, ts_us, out_bytes, in_bytes)
