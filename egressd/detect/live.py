"""The engine of a packet process: what packets of a running gateway tell beside what they say.

Which way they came, who sent their frames, what the kernel stopped and logged of them, which are canaries of ours; and
what another sensor tells of late.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from egressd.detect.blocks import Block
from egressd.detect.changing import ChangingEngine
from egressd.detect.contacts import SAME_CONNECTION_US
from egressd.detect.coverage import E1
from egressd.detect.gathering import GatheringHistory
from egressd.detect.intel import Intel
from egressd.detect.policy_settings import PolicySettings
from egressd.model import (
    DNS_ANSWER,
    DNS_QUERY,
    EARLIER,
    FLOW,
    REPLY,
    TAP,
    TCP,
    UDP,
    Event,
    FlowKey,
    Observation,
    Sighting,
)
from egressd.units import SECOND_US
from egressd.wire.dissector import Dissector
from egressd.wire.table import RecentTable

DNS_PORT: Final = 53
MAX_SPOKEN: Final = 4_096  # samples that wait to be told
TOLD_BY_KERNEL: Final = 16_384  # conversations that only the kernel's log told of
CANARY_ZONE: Final = ".canary.egressd.invalid"  # RFC 6761 section 6.4: never a real name
CANARY_SOURCE: Final = bytes((192, 0, 2, 53))  # TEST-NET-1, RFC 5737: nobody's
CANARY_TARGET: Final = bytes((192, 0, 2, 54))
ASKED_FROM_OUTSIDE: Final = 4_096  # questions to servers of ours, which they answer at once
MAX_CANARIES: Final = 64  # in a second, an interface each: anybody can send their like, and each goes to the kernel
BY_KERNEL: Final = "kernel"  # the note of a connection that the kernel's log told of


class LiveEngine(ChangingEngine):
    """Of packets and of what other sensors say."""

    def __init__(
        self,
        intel: Intel,
        settings: PolicySettings,
        on_event: Callable[[Event], None],
        *,
        enforced: bool,
        first_number: int = 1,
        stride: int = 1,
        sensors: bool = False,
    ) -> None:
        """Decisions are numbered `first_number`, then every `stride`-th, so that no two packet processes give out the
        same; the rest is the engine's."""
        super().__init__(intel, settings, on_event, enforced=enforced, sensors=sensors)
        self.blocks.number_from(first_number, stride)
        self.gathering = GatheringHistory()
        self.history = self.gathering
        self.packets: Dissector | None = None  # where observations come from, if they come from packets
        self.knows_ways = True  # whether `packets.incoming` tells; of what a mirror port copies it does not
        self.spoken: dict[tuple[bytes, bytes, bool], int] = {}  # (MAC, client, attached) -> when, for the core
        self.spoken_beyond = 0
        self._told_by_kernel: RecentTable[FlowKey, int] = RecentTable(TOLD_BY_KERNEL)
        self._asked_from_outside: RecentTable[FlowKey, int] = RecentTable(ASKED_FROM_OUTSIDE)
        self.canary: Callable[[str, int], None] | None = None  # told of our own canaries: (name, when)
        self._canary_second = 0
        self._canaries = 0  # within it
        self.arrived_us = 0  # when what another sensor tells of came here, while that is judged

    def _is_from_outside(self, seen: Observation) -> bool:
        """Of what a client sends: whether it went to the hosts' side, from no address of theirs to one of theirs."""
        packets = self.packets
        if packets is None or seen.note == BY_KERNEL:
            return False
        proto = seen.flow.proto
        if self.knows_ways and (seen.kind in (DNS_ANSWER, REPLY) or packets.came_in(proto)):
            return False
        if packets.is_carried(proto) and self.policy.site.comes_in(packets.carrier()):
            return True  # whoever sent it wrote what is in it: whose words these are is not known
        if not self.knows_ways:
            return super()._is_from_outside(seen)
        is_outsiders = self.policy.site.comes_in(seen.flow)
        if is_outsiders and seen.kind == DNS_QUERY:
            self._asked_from_outside.put(seen.flow, seen.ts_us)
        return is_outsiders

    def _answer(self, seen: Observation) -> None:
        """A host may speak with its server in what looks like answers, to nobody's question."""
        flow = seen.flow
        packets = self.packets
        if flow.proto == UDP and self.knows_ways and packets is not None and packets.came_in(UDP):
            if self.policy.site.comes_in(flow) and flow not in self._asked_from_outside:
                sent = FlowKey(UDP, flow.server, flow.server_port, flow.client, flow.client_port)
                self._speaks(seen, sent)
        super()._answer(seen)

    def _spoke(self, mac: bytes, client: bytes, ts_us: int, is_attached: bool) -> None:
        """The core knows all devices; a sample that finds no room comes again within SAMPLE_US."""
        super()._spoke(mac, client, ts_us, is_attached)
        key = (mac, client, is_attached)
        if key in self.spoken or len(self.spoken) < MAX_SPOKEN:
            self.spoken[key] = ts_us
        else:
            self.spoken_beyond += 1

    def take_spoken(self, limit: int) -> list[tuple[bytes, bytes, bool, int]]:
        """At most `limit` of who sent whose frames since this was asked last, oldest first."""
        spoken = self.spoken
        keys = list(islice(spoken, limit))
        return [(*key, spoken.pop(key)) for key in keys]

    def _question(self, seen: Observation) -> None:
        """Canaries are nobody's traffic. What asks a server for such a name, or for others beside it, is no canary."""
        if seen.name.endswith(CANARY_ZONE) and seen.flow.client == CANARY_SOURCE and seen.flow.server == CANARY_TARGET:
            second = seen.ts_us // SECOND_US
            if second != self._canary_second:
                self._canary_second = second
                self._canaries = 0
            self._canaries += 1
            if self.canary is not None and self._canaries <= MAX_CANARIES:
                self.canary(seen.name, seen.ts_us)
            return
        super()._question(seen)

    def _is_evidence(self, answer: Observation) -> bool:
        """Not what a host of ours sends under the resolver's address, or a part of it: on the hosts' side of a gateway
        every answer to them goes out. Nor what comes inside another packet, which whoever sends that writes as he likes
        (on a mirror port all may come so: VXLAN, ERSPAN). Nor what comes from another port than the resolver's."""
        packets = self.packets
        proto = answer.flow.proto
        if answer.flow.server_port != DNS_PORT or (packets is not None and packets.came_in(proto)):
            return False
        if packets is not None and self.knows_ways and packets.is_carried(proto):
            return False
        return super()._is_evidence(answer)

    def dropped(self, flow: FlowKey, ts_us: int) -> None:
        """The kernel's log says that it stopped the first packet of a conversation. What the tap has seen is known;
        what it has not (a lost packet, the gateway's own) is a try all the same."""
        if self.contacts.knows(flow, ts_us):
            return
        self._told_by_kernel.put(flow, ts_us)
        seen = Observation(FLOW, ts_us, 0, flow, "", "", None, 0, BY_KERNEL)
        if flow.proto in (TCP, UDP):
            self.observe(seen)
        else:
            self.goes_there(seen)

    def _reply(self, seen: Observation) -> None:
        """A host may send the answer of a blocked server itself, so that the block seems not to hold: on a gateway what
        answers from outside goes to the hosts."""
        packets = self.packets
        if packets is None or not self.knows_ways or seen.note == EARLIER or not packets.came_in(seen.flow.proto):
            super()._reply(seen)

    def _begins(self, seen: Observation) -> None:
        if len(self._told_by_kernel) and seen.note != BY_KERNEL:
            told_us = self._told_by_kernel.pop(seen.flow)
            if told_us is not None and abs(seen.ts_us - told_us) <= SAME_CONNECTION_US:
                return  # the kernel was quicker than the ring: one and the same packet
        super()._begins(seen)

    def _met(self, client: bytes, ts_us: int, mac: bytes = b"") -> None:
        """Remembered where all packet processes come together (runtime/core.py)."""

    def _decide(self, sighting: Sighting) -> None:
        seen_us = self._now(sighting)
        super()._decide(sighting)
        sighting.ts_us = seen_us

    def _meet_alone(self, block: Block, sighting: Sighting) -> None:
        seen_us = self._now(sighting)
        super()._meet_alone(block, sighting)
        sighting.ts_us = seen_us

    def _extend(self, sighting: Sighting, address: bytes, evidence: str) -> None:
        """What a client says inside another packet closes no way: anybody may write it, and the kernel, which sees the
        packet around it, would stop everything else on that way and not this."""
        packets = self.packets
        if evidence == E1 and packets is not None and self.knows_ways and packets.is_carried(sighting.flow.proto):
            if not sighting.retro and sighting.source in ("", TAP):  # of the packet at hand
                return
        seen_us = self._now(sighting)
        super()._extend(sighting, address, evidence)
        sighting.ts_us = seen_us

    def _now(self, sighting: Sighting) -> int:
        """It is decided on now, whenever a log says that it was seen: lines of many hours would have the budgets of as
        many. Returns when it was seen."""
        seen_us = sighting.ts_us
        sighting.ts_us = max(seen_us, self.arrived_us)
        return seen_us

    def _ran_into(self, block: Block, sighting: Sighting) -> None:
        """Counted where all packet processes come together (runtime/rulings.py)."""
