"""Which of several capture processes gets a packet: the one that has all of its client's.

A client's questions, the answers to them and the connections that follow are understood only together, so the share is
by client and not by connection. A flood of one client then also fills one process alone.
"""

from __future__ import annotations

from typing import Final

from egressd.capture.bpf import PACKET_OUTGOING, PACKET_TYPE, PROTOCOL, Assembler, Instruction
from egressd.capture.livefilter import ETHERNET

_SPREAD: Final = 0x9E3779B1  # the golden ratio of 32 bits: neighbouring addresses part


def client_fanout(begins_with: str) -> list[Instruction]:
    """A program for PACKET_FANOUT_CBPF on an interface that faces the clients: a hash of the client's address, so that
    all its packets reach the same process. An outgoing packet goes to its destination's client, any other comes from
    its source. Packets that came in begin with the IP header here, outgoing ones with the link's (net/packet/
    af_packet.c pushes the link header back only after the choice)."""
    asm = Assembler()
    asm.load_ancillary(PACKET_TYPE)
    asm.when("==", PACKET_OUTGOING, "outgoing")
    asm.load_x_constant(0)
    _client_hash(asm, "in", 12, 8)
    asm.label("outgoing")
    asm.load_x_constant(14 if begins_with == ETHERNET else 0)
    _client_hash(asm, "out", 16, 24)
    return asm.assemble()


def _client_hash(asm: Assembler, name: str, ipv4_at: int, ipv6_at: int) -> None:
    """Return a hash of the address at these places behind the IP header at X, VLAN tags and PPPoE left out."""
    asm.load_ancillary(PROTOCOL)
    for kind, size in ((0x8100, 4), (0x88A8, 4), (0x8864, 8)):
        other = asm.new_label()
        asm.when("==", kind, "", other)
        asm.x_to_a()
        asm.alu("+", size)
        asm.a_to_x()
        asm.go(name)
        asm.label(other)
    asm.label(name)
    asm.load(1, 0, indexed=True)
    asm.alu("&", 0xF0)
    asm.when("==", 0x40, "", f"{name}-ipv6")
    asm.load(4, ipv4_at, indexed=True)
    asm.go(f"{name}-mix")
    asm.label(f"{name}-ipv6")
    asm.when("==", 0x60, "", f"{name}-other")
    asm.load(4, ipv6_at, indexed=True)
    for word in (4, 8, 12):
        asm.alu("*", _SPREAD)
        asm.store(0)
        asm.load(4, ipv6_at + word, indexed=True)
        asm.store_x(1)
        asm.load_x_memory(0)
        asm.alu_x("^")
        asm.load_x_memory(1)
    asm.label(f"{name}-mix")
    asm.alu("*", _SPREAD)
    asm.alu(">>", 16)
    asm.ret_a()
    asm.label(f"{name}-other")
    asm.ret(0)
