"""An AF_PACKET socket with its ring of packets, filtered before the first one.

The order of setting up lets no packet through that was not asked for: a socket of protocol 0 receives nothing, then
comes the filter (livefilter.py), the ring, and only then is the socket bound to its interface. With a fan-out group
the filter drops everything until the socket has joined, or it would see for a moment what belongs to the others.

The ring is TPACKET_V2 (Documentation/networking/packet_mmap.rst): each packet wakes the reader at once, while version
3 waits for a block to fill or time out. A packet longer than a slot of the ring (offloading joins segments up to
64 KB and more) is taken whole from the socket's queue (PACKET_COPY_THRESH); only where that is full is it cut, with
its true length told. Packets that found the ring full are counted by the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE, mmap
from struct import Struct
from typing import Final, Literal

from egressd.capture.bpf import Instruction, pack
from egressd.capture.fanout import client_fanout
from egressd.capture.livefilter import ETHERNET, IP, FilterSettings, drop_all, live_filter

CLIENT: Final = "client"
FLOW: Final = "flow"

# linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h, linux/sockios.h, linux/if.h, linux/if_arp.h
_SOL_PACKET: Final = 263
_ADD_MEMBERSHIP: Final = 1
_RX_RING: Final = 5
_STATISTICS: Final = 6
_COPY_THRESH: Final = 7
_VERSION: Final = 10
_FANOUT: Final = 18
_FANOUT_DATA: Final = 22
_FANOUT_HASH: Final = 0
_FANOUT_CBPF: Final = 6
_FANOUT_FLAG_DEFRAG: Final = 0x8000
_TPACKET_V2: Final = 1
_MR_PROMISC: Final = 1
_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_ETH_P_ALL: Final = 3
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP: Final = 1
_ARPHRD_ETHER: Final = 1
_ARPHRD_LOOPBACK: Final = 772
_ARPHRD_WITHOUT_IP: Final = (801, 802, 803, 804, 805, 824)  # 802.11 frames, IEEE 802.15.4, netlink
TYPE_AT: Final = 42  # sll_pkttype, of the sockaddr_ll behind tpacket2_hdr
PACKET_OTHERHOST: Final = 3  # linux/if_packet.h: for us, broadcast and multicast are below, outgoing is above
STATUS_USER: Final = 1
STATUS_COPY: Final = 2
STATUS_LOSING: Final = 4

_REQUEST: Final = Struct("=IIII")  # tpacket_req
SLOT: Final = Struct("@4xIIHHII")  # tpacket2_hdr behind the status: length, captured, link, network, s, ns
_MEMBERSHIP: Final = Struct("=iHH8x")  # packet_mreq
_FANOUT_WORD: Final = Struct("=I")
_NAMED: Final = Struct("16s24x")  # ifreq
_NUMBER_IN_IFREQ: Final = Struct("@16xH")
_ORDER: Final[Literal["little", "big"]] = "little" if sys.byteorder == "little" else "big"
_STATISTICS_BYTES: Final = 8
_LEAST_SLOT_BYTES: Final = 512
_BLOCK_BYTES: Final = 65_536
_COPY_QUEUE_BYTES: Final = 4 << 20
_NAME_BYTES: Final = 15  # IFNAMSIZ without its NUL
_LARGEST_BYTES: Final = 1 << 20  # above Linux's largest joined packet (512 KB)


@dataclass(frozen=True)
class CaptureSettings:
    """How to capture. Raises ValueError for numbers that cannot be.

    `ring_bytes` is memory that is never swapped, for one interface and process; `slot_bytes`, a power of two between
    512 and 65536, is one packet's part of it. `promiscuous`: also frames for other stations, for mirror ports.
    `fanout_group` (1 to 65535; 0 is none) shares the packets between all processes of that number, on each interface
    apart; `fanout_by` is CLIENT (the interface faces the clients: all packets of one go to one process) or FLOW (both
    directions of a connection, for mirror ports). The kernel then also puts IPv4 fragments together.
    """

    ring_bytes: int = 16 << 20
    slot_bytes: int = 2048
    promiscuous: bool = False
    fanout_group: int = 0
    fanout_by: str = CLIENT
    filter: FilterSettings = field(default_factory=FilterSettings)

    def __post_init__(self) -> None:
        slot = self.slot_bytes
        if not _LEAST_SLOT_BYTES <= slot <= _BLOCK_BYTES or slot & (slot - 1):
            raise ValueError(f"slot_bytes: a power of two between {_LEAST_SLOT_BYTES} and {_BLOCK_BYTES}")
        if not _BLOCK_BYTES <= self.ring_bytes <= 1 << 30:
            raise ValueError(f"ring_bytes lies between {_BLOCK_BYTES} and {1 << 30}")
        if not 0 <= self.fanout_group < 65536 or self.fanout_by not in (CLIENT, FLOW):
            raise ValueError("fanout_group lies between 0 and 65535, fanout_by is client or flow")


class PacketRing:
    """A bound AF_PACKET socket and its mapped ring. The constructor raises OSError where the kernel refuses."""

    def __init__(self, name: str, settings: CaptureSettings) -> None:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._kept: list[ctypes.Array[ctypes.c_char]] = []
        self._map: mmap | None = None
        self._status: memoryview | None = None
        try:
            hardware = _ask(self._sock, _SIOCGIFHWADDR, name)
            self.ethernet = hardware in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)
            if hardware in _ARPHRD_WITHOUT_IP:
                raise OSError(errno.EOPNOTSUPP, f"{name}: an interface of hardware type {hardware} carries no IP")
            if not self.ethernet:
                # Link headers of tunnels and PPP differ from driver to driver: let the kernel leave them out.
                self._sock.close()
                self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._set_up(name, settings, hardware == _ARPHRD_LOOPBACK)
        except OSError:
            self.close()
            raise
        self.received = 0  # packets that passed the filter, those dropped for want of room left out
        self.dropped = 0

    def _set_up(self, name: str, settings: CaptureSettings, loopback: bool) -> None:
        sock = self._sock
        begins_with = ETHERNET if self.ethernet else IP
        wanted = live_filter(settings.filter, begins_with, loopback=loopback)
        self._attach(drop_all() if settings.fanout_group else wanted)
        sock.setblocking(False)
        sock.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
        with suppress(OSError):  # needs CAP_NET_ADMIN; without it the queue has its usual size
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _COPY_QUEUE_BYTES)
        sock.setsockopt(_SOL_PACKET, _COPY_THRESH, 1)
        slot = settings.slot_bytes
        blocks = settings.ring_bytes // _BLOCK_BYTES
        slots = blocks * (_BLOCK_BYTES // slot)
        sock.setsockopt(_SOL_PACKET, _RX_RING, _REQUEST.pack(_BLOCK_BYTES, blocks, slot, slots))
        self._map = mmap(sock.fileno(), blocks * _BLOCK_BYTES, MAP_SHARED, PROT_READ | PROT_WRITE)
        self._status = memoryview(self._map).cast("I")
        self.slot_bytes = slot
        self.size_bytes = blocks * _BLOCK_BYTES
        self.place = 0
        sock.bind((name, _ETH_P_ALL))
        self.index = socket.if_nametoindex(sock.getsockname()[0])
        if settings.promiscuous:
            sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, _MEMBERSHIP.pack(self.index, _MR_PROMISC, 0))
        if settings.fanout_group:
            self._join(settings, begins_with)
            self._attach(wanted)

    def _join(self, settings: CaptureSettings, begins_with: str) -> None:
        """Groups belong to one interface. The numbers of a daemon's interfaces must differ: its own number is turned
        by the interface's."""
        kind = _FANOUT_HASH if settings.fanout_by == FLOW else _FANOUT_CBPF
        group = (settings.fanout_group + self.index * 40_503) & 0xFFFF  # odd, so different for 65536 interfaces
        self._sock.setsockopt(_SOL_PACKET, _FANOUT, _FANOUT_WORD.pack(group | (kind | _FANOUT_FLAG_DEFRAG) << 16))
        if kind == _FANOUT_CBPF:
            self._sock.setsockopt(_SOL_PACKET, _FANOUT_DATA, self._as_program(client_fanout(begins_with)))

    def _attach(self, program: list[Instruction]) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, self._as_program(program))

    def _as_program(self, program: list[Instruction]) -> bytes:
        """struct sock_fprog: the kernel copies what its pointer points to during the call."""
        code = ctypes.create_string_buffer(pack(program), len(program) * 8)
        self._kept = [code]
        return Struct("@HP").pack(len(program), ctypes.addressof(code))

    def fileno(self) -> int:
        """The descriptor that becomes readable when there are packets."""
        return self._sock.fileno()

    def ring(self) -> mmap:
        """The mapped slots."""
        assert self._map is not None
        return self._map

    def status(self) -> memoryview:
        """The mapped slots as numbers of 32 bits, of which each slot's first is its status: 0 while it is the
        kernel's, and to be set to 0 to give it back."""
        assert self._status is not None
        return self._status

    def take_copy(self) -> bytes:
        """The packet that the kernel put into the queue because it is longer than a slot; b"" if there is none."""
        try:
            return self._sock.recv(_LARGEST_BYTES)
        except OSError:
            return b""

    def error(self) -> int:
        """The socket's pending error, which asking for it takes away."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def bound_name(self) -> str:
        """The present name of the interface, "" when it is gone."""
        try:
            name: str = self._sock.getsockname()[0]
        except OSError:
            return ""
        return name

    def is_up(self) -> bool:
        """Whether the interface is there and up."""
        name = self.bound_name()
        try:
            return name != "" and _ask(self._sock, _SIOCGIFFLAGS, name) & _IFF_UP != 0
        except OSError:
            return False

    def read_statistics(self) -> None:
        """Add the kernel's counts, which asking for them sets to zero, to `received` and `dropped`."""
        both = self._sock.getsockopt(_SOL_PACKET, _STATISTICS, _STATISTICS_BYTES)
        packets = int.from_bytes(both[:4], _ORDER)
        drops = int.from_bytes(both[4:8], _ORDER)
        self.received += packets - drops
        self.dropped += drops

    def close(self) -> None:
        """Leave the interface; harmless when done already."""
        if self._status is not None:
            self._status.release()
            self._status = None
        if self._map is not None:
            self._map.close()
            self._map = None
        self._sock.close()


def interface_is_up(name: str) -> bool:
    """Whether there is an interface of this name and it is up. Raises OSError when nobody may ask."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        try:
            return _ask(sock, _SIOCGIFFLAGS, name) & _IFF_UP != 0
        except OSError:
            return False


def _ask(sock: socket.socket, request: int, name: str) -> int:
    """The 16 bits that an ioctl on the interface `name` answers. Raises OSError (ENODEV: no such interface)."""
    packed = os.fsencode(name)
    if len(packed) > _NAME_BYTES or b"\0" in packed:
        raise OSError(errno.ENODEV, f"{name}: no interface has such a name")
    answer = fcntl.ioctl(sock.fileno(), request, _NAMED.pack(packed))
    number: int = _NUMBER_IN_IFREQ.unpack_from(answer)[0]
    return number
