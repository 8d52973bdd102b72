"""TCP conversations: who opened them, which protocol they carry, and what names the client sends in them.

Content decides which parser reads a direction, never the port alone. A direction is *quiet* once nothing more can be
learned from it; quiet directions are what the prefilter throws away, and `segment` leaves them out by the same table,
so results do not depend on the prefilter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.model import TCP, Observation
from egressd.wire.content import ContentReader
from egressd.wire.conversation import DNS, OVER, UNKNOWN, Conversation, Side
from egressd.wire.direction import flow_of, reverse_key, sender_is_client
from egressd.wire.frame import Frames
from egressd.wire.memory import Memory
from egressd.wire.meter import TELL_BYTES, OnVolume, begin, sample, tell
from egressd.wire.quiet import Quiet
from egressd.wire.stream import Rival
from egressd.wire.table import PairTable
from egressd.wire.telling import Teller
from egressd.wire.tls_records import asks_again

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
ACK: Final = 16

# After the name was found, client segments are compared with what was sent before (an attacker may send a harmless copy
# first) until the server's answer shows which copy it took; this many when no server is seen. Where nothing was
# recognised many more, if the server has taken the connection and sent nothing: such an upload is rare.
SEGMENTS_AFTER: Final = 3
SEGMENTS_UNANSWERED: Final = 256
# Then a conversation is looked at anew, a packet of each direction; a SYN ends quiet at once. Sequence numbers must not
# wrap twice meanwhile (wire/meter.py).
QUIET_US: Final = 60_000_000
HOLE_US: Final = 3_000_000  # a missing segment that has not come by then was not captured
OVERTAKEN_US: Final = 500_000  # the same once a FIN came: little is so much out of order, and nothing may follow
# Conversations idle for one to two of these are forgotten: longer than quiet, or a busy one would be met as new.
IDLE_ROTATE_US: Final = 600_000_000
# Segments in a row outside any plausible window, after which they are believed: the connection was replaced without
# its SYN being captured, or a SYN that no server took came before.
MAX_STRAYS: Final = 3


class TcpTracker:
    """Reads TCP segments and emits FLOW, REPLY, TLS_SNI, HTTP_HOST, SOCKS_HOST and DNS observations."""

    def __init__(
        self,
        emit: Callable[[Observation], None],
        limit: int,
        quiet: Quiet | None = None,
        memory: Memory | None = None,
    ) -> None:
        """`limit` bounds the conversations held at once."""
        self.quiet = Quiet(limit) if quiet is None else quiet
        self._teller = Teller(emit)
        self._content = ContentReader(self._teller)
        self.memory = Memory() if memory is None else memory
        self._table: PairTable[Conversation] = PairTable(limit, IDLE_ROTATE_US, self._leave)
        self.on_volume: OnVolume | None = None  # where bytes are of interest: told of what connections carried
        self.skipped_quiet = 0
        self.strays = 0
        self.holes = 0
        self.lost_bytes = 0

    @property
    def evicted(self) -> int:
        """Conversations forgotten while they may have had more to say."""
        return self._table.evicted

    @property
    def over_share(self) -> int:
        """Conversations of clients that opened more than their share of the table."""
        return self._table.over_share

    @property
    def incoming(self) -> bool:
        """Of what is told now: whether any of it came in from the hosts."""
        return self._teller.incoming

    @property
    def is_carried(self) -> bool:
        """Of what is told now: whether any of it came inside another packet."""
        return self._teller.is_carried

    @property
    def malformed(self) -> int:
        """Bytes that began like a protocol and went on as nothing of the kind."""
        return self._content.malformed

    @property
    def ambiguous(self) -> int:
        """Segments that disagreed with what was sent before in their place."""
        return self._content.ambiguous

    @property
    def flooded_bytes(self) -> int:
        """Bytes not read: more names at once than can be told."""
        return self._content.dropped_bytes

    def segment(self, frame: Frames, ts_us: int, number: int) -> None:
        """Take the TCP segment that `frame` has just decoded."""
        key = frame.key
        flags = frame.flags
        size = frame.payload_end - frame.payload_start
        quiet_us = 0
        if not flags & (FIN | SYN | RST):
            if size <= 0 or (not flags & ACK and self._was_opened(key)):
                return
            quiet_us = self.quiet.until.get(key, 0)
            if quiet_us > ts_us:
                self.skipped_quiet += 1
                return
        elif flags & (FIN | SYN | RST | ACK) == FIN and self._was_opened(key):
            return
        teller = self._teller
        teller.ts_us = ts_us
        teller.number = number
        teller.told = 0
        self._content.read_bytes = 0
        if self._content.put_off:
            self._content.work_off()
        teller.incoming = frame.incoming
        teller.is_carried = frame.depth > 1
        conversation = self._table.get(key)
        seq = frame.seq
        if flags & SYN and not flags & RST:
            if conversation is not None and not flags & ACK and self._is_refused(conversation, key, seq):
                return
            conversation = self._opening(conversation, key, seq, bool(flags & ACK))
            seq = (seq + 1) & 0xFFFFFFFF
        elif conversation is None:
            if size <= 0:
                return
            conversation = self._midway(key)
        from_client = key == conversation.forward
        side = conversation.client if from_client else conversation.server
        if self.on_volume is not None and (quiet_us or flags & (FIN | SYN | RST) or not side.sent_bytes):
            self._meter(self.on_volume, conversation, side, seq, 0 if flags & RST else size, flags)
        if size > 0 and not flags & RST:
            if frame.incoming:
                side.incoming = True
            if frame.depth > 1:
                side.is_carried = True
            self._payload(conversation, side, seq, frame.buf[frame.payload_start : frame.payload_end])
            if key != conversation.forward:  # content may just have told who is who
                self._teller.replied(conversation)
            if frame.cut:
                self._lose_tail(conversation, side)
            if not self.memory.settle(conversation, side):
                self._give_up(conversation, side)
        if not conversation.announced and key == conversation.forward and (size > 0 or not flags & RST):
            self._teller.announce(conversation)  # a bare RST answers what came to no connection (RFC 9293, 3.5.2)
        if flags & RST:
            self._reset(conversation, side, seq)
        elif flags & FIN:
            side.end_seq = (seq + size) & 0xFFFFFFFF
            if side.held and ts_us - side.stalled_us > OVERTAKEN_US:
                self._give_up_holes(conversation, side)
        if side.end_seq >= 0 and side.next_seq in (side.end_seq, -1):
            self._content.tell_so_far(conversation, side)

    def flush(self) -> None:
        """The capture has ended: tell what half-received messages still reveal."""
        self._content.finish_all()
        for conversation in self._table.all():
            self._finish(conversation)
            self._content.finish_all()

    def _meter(
        self, on_volume: OnVolume, conversation: Conversation, side: Side, seq: int, size: int, flags: int
    ) -> None:
        """A segment of `side` is a sample of how much it has sent. A FIN takes a number and is no byte; a RST may bear
        the number 0 when its sender does not know better (RFC 9293 section 3.10.7.1)."""
        if flags & SYN and not flags & RST:
            begin(side, seq, self._teller.ts_us)
        if size > 0 or (
            flags & (FIN | RST) and side.last_seq >= 0 and side.end_seq < 0 and not (flags & RST and not seq)
        ):
            sample(side, seq, size, self._teller.ts_us)
        least = 1 if flags & (FIN | RST) else TELL_BYTES
        if side.sent_bytes - side.told_bytes >= least:
            tell(conversation, on_volume, least)

    # -- opening and closing

    def _opening(self, known: Conversation | None, key: bytes, seq: int, from_server: bool) -> Conversation:
        """A SYN or SYN-ACK: rule 1 of the direction rule."""
        isn = -1
        if known is not None:
            if from_server and key != known.forward:
                isn = known.next_isn
            if isn < 0 and known.syn_seen and self._belongs(known, key, seq, from_server):
                return known
            self._leave(known)
            self._table.forget(known)
        conversation = Conversation(reverse_key(key) if from_server else key, True)
        conversation.syn_seen = True
        conversation.client.keeps_first = True
        if self.quiet.until:
            self.quiet.end(conversation.forward)
            self.quiet.end(conversation.backward)
        if from_server:
            conversation.isn = isn
            if isn >= 0:
                conversation.client.next_seq = (isn + 1) & 0xFFFFFFFF
                self._teller.announce(conversation)
            conversation.server.next_seq = (seq + 1) & 0xFFFFFFFF
            self._teller.replied(conversation)
        else:
            conversation.isn = seq
            conversation.client.next_seq = (seq + 1) & 0xFFFFFFFF
            self._teller.announce(conversation)
        self._table.keep(conversation, self._teller.ts_us)
        return conversation

    def _was_opened(self, key: bytes) -> bool:
        """Whether a packet belongs to a connection whose beginning was seen. What has no ACK then is sent to mislead
        observers: its receiver drops it (RFC 9293 section 3.10.7.4). Of others, the capture may be a careless one."""
        known = self._table.get(key)
        return known is not None and known.syn_seen

    def _is_refused(self, known: Conversation, key: bytes, seq: int) -> bool:
        """Whether a SYN comes in the middle of a message, after the server has answered another SYN: it answers this
        with no more than an acknowledgement (RFC 5961 section 4) and reads on. If it does send a SYN-ACK, or the client
        goes on from there, this was a new connection all the same."""
        if key != known.forward or not known.replied or seq == known.isn or known.was_reset:
            return False
        if not known.client.is_inside():
            return False
        known.next_isn = seq
        return True

    def _belongs(self, known: Conversation, key: bytes, seq: int, from_server: bool) -> bool:
        """Whether a SYN or SYN-ACK is that of a known conversation, perhaps sent again or captured in the wrong order;
        else ports are used anew."""
        if (key != known.forward) != from_server:
            return False
        if not from_server:
            if known.isn < 0 and known.client.next_seq < 0:
                known.isn = seq
                known.client.next_seq = (seq + 1) & 0xFFFFFFFF
            return known.isn == seq
        # Even with another number: balancers answer a SYN twice, and it must not hide the rest of a hello.
        if known.server.next_seq < 0:
            known.server.next_seq = (seq + 1) & 0xFFFFFFFF
        self._teller.replied(known)
        return True

    def _midway(self, key: bytes) -> Conversation:
        """A conversation whose beginning was not captured: rules 3 to 6, until content says more."""
        flow = flow_of(TCP, key)
        conversation = (
            Conversation(key, False, flow) if sender_is_client(flow) else Conversation(reverse_key(key), False)
        )
        self._table.keep(conversation, self._teller.ts_us)
        return conversation

    def _reset(self, conversation: Conversation, side: Side, seq: int) -> None:
        """A RST of `side`. While a name may be half-way only one that its receiver would take is believed (RFC 9293
        section 3.10.7.4): others are sent to make observers forget. After a FIN it is one further."""
        next_seq = side.next_seq
        if next_seq >= 0 and (seq - next_seq) & 0xFFFFFFFF > 1:
            followed = side is conversation.client or conversation.client.kind in (UNKNOWN, DNS)
            if followed and any(one.is_half_way() for one in conversation.sides()):
                return
        if side is conversation.client and side.is_inside():
            # Its time to live may have ended before the server: when the client goes on, the message is read on.
            conversation.was_reset = True
            self._content.tell_so_far(conversation, side)
            return
        self._leave(conversation)
        self._table.forget(conversation)

    def _leave(self, conversation: Conversation) -> None:
        """Nothing more is expected of a conversation."""
        self._finish(conversation)
        self.memory.release(conversation)

    def _finish(self, conversation: Conversation) -> None:
        if self.on_volume is not None:
            tell(conversation, self.on_volume, 1)
        if not conversation.has_unfinished():
            return
        for side in conversation.sides():
            if side.held:
                self._give_up_holes(conversation, side)
            if side.parser is not None or side.put_off or side.rivals:
                self._content.salvage(conversation, side)

    def _give_up_holes(self, conversation: Conversation, side: Side) -> None:
        while side.held and side.kind != OVER:
            self._give_up_hole(conversation, side)

    # -- payload

    def _payload(self, conversation: Conversation, side: Side, seq: int, data: bytes) -> None:
        from_client = side is conversation.client
        if not from_client and conversation.client.keeps_first:
            conversation.client.answered()
        if not from_client and conversation.sure and conversation.client.kind not in (UNKNOWN, DNS):
            if conversation.client.kind == OVER and asks_again(data):
                self._content.read_again(conversation.client)
            else:
                self._quieten(conversation)
            return
        if side.kind == UNKNOWN and not conversation.syn_seen and side.overtaken_by(seq, data):
            side.head = b""
            side.window = data + side.window
            self._content.consume(conversation, side, side.window)
            return
        ready = side.add(seq, data)
        if side.rivals:
            self._content.other_copies(conversation, side)
        if side.strayed:
            self._stray(conversation, side, seq, data)
        elif side.strays:
            side.strays = 0
        if side.kind == OVER:
            self._after(conversation, side)
            return
        if ready:
            self._content.consume(conversation, side, ready)
        if side.held:
            if side.stalled_us == 0:
                side.stalled_us = self._teller.ts_us
            elif self._teller.ts_us - side.stalled_us > HOLE_US:
                self._give_up_hole(conversation, side)
            while side.over_bound():
                self._give_up_hole(conversation, side)
        else:
            side.stalled_us = 0

    def _after(self, conversation: Conversation, side: Side) -> None:
        """A segment of a direction that has told its name: only other copies of what was sent are of interest."""
        side.held.clear()
        side.held_bytes = 0
        side.since_over += 1
        most = SEGMENTS_AFTER
        if side.keeps_first and conversation.replied:
            most = 0 if side.tries > 0 else SEGMENTS_UNANSWERED
        if most and side.since_over > most:
            key = conversation.forward if side is conversation.client else conversation.backward
            self.quiet.begin(key, self._teller.ts_us + QUIET_US)
            side.let_go()

    def _stray(self, conversation: Conversation, side: Side, seq: int, data: bytes) -> None:
        """A segment outside any plausible window: read by itself, and believed when more of the kind come."""
        self.strays += 1
        side.strays += 1
        if seq == (conversation.next_isn + 1) & 0xFFFFFFFF and conversation.next_isn >= 0:
            side.strays = MAX_STRAYS + 1  # the other SYN was taken, and its answer not captured
        self._content.other_copy(conversation, side, Rival(b"", data, 0))
        if side.strays > MAX_STRAYS and side.kind != OVER:
            self._content.lose(conversation, side, -1)
            side.strays = 0
            side.let_go()
            side.next_seq = (seq + len(data)) & 0xFFFFFFFF

    def _quieten(self, conversation: Conversation) -> None:
        """The client's protocol is known and is none that answers with names: the server's side is of no interest. When
        the client's name was found too, this answer shows that it was taken."""
        until_us = self._teller.ts_us + QUIET_US
        self.quiet.begin(conversation.backward, until_us)
        for side in conversation.sides()[1:]:
            side.let_go()
        if conversation.client.kind == OVER:
            self.quiet.begin(conversation.forward, until_us)
            conversation.client.let_go()
            conversation.client.told = ""
            self.memory.settle(conversation, conversation.client)

    def _give_up_hole(self, conversation: Conversation, side: Side) -> None:
        lost = side.skip_hole()
        self.holes += 1
        self.lost_bytes += lost
        side.stalled_us = 0
        self._content.lose(conversation, side, lost)
        for ready in side.drain():  # one by one: a request may begin at any of them, but not inside
            if side.kind != OVER:
                self._content.consume(conversation, side, ready)
        if side.rivals:
            self._content.other_copies(conversation, side)

    def _give_up(self, conversation: Conversation, side: Side) -> None:
        """More unfinished messages are kept than may be: tell what is whole in this one, and begin anew."""
        self._give_up_holes(conversation, side)
        self._content.lose(conversation, side, -1)
        side.let_go()
        self.memory.settle(conversation, side)

    def _lose_tail(self, conversation: Conversation, side: Side) -> None:
        """The packet was captured in part: what follows in sequence is not what comes next in the buffer."""
        side.lose_place()
        self._content.lose(conversation, side, -1)
