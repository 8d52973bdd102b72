"""What the watches make of what the kernel tells; a kernel's own words in tests/netns."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address

import pytest

from egressd.capture.neighbours import NeighbourWatch
from egressd.capture.rtnetlink import LinkWatch, Listener, Neighbour
from tests.capture.test_rtnetlink import attribute, message

KERNEL, STRANGER = (0, 0), (4711, 0)
REACHABLE, STALE = 0x02, 0x04
MAC = bytes.fromhex("020000000005")


def neighbour(address: str, state: int) -> bytes:
    packed = ip_address(address).packed
    head = struct.pack("=BxHiHBB", socket.AF_INET, 0, 3, state, 0, 1)
    return message(28, head + attribute(1, packed) + attribute(2, MAC))


class Told:
    """A socket that has received these: datagrams with their senders, or errors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *received: tuple[bytes, tuple[int, int]] | int) -> None:
        self._received = list(received)
        monkeypatch.setattr(socket, "socket", lambda *_: self)

    def bind(self, address: tuple[int, int]) -> None:
        pass

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        one = self._received.pop(0) if self._received else errno.EAGAIN
        if isinstance(one, int):
            raise OSError(one, "told by the kernel")
        return one


def test_confirmed_entries_of_the_kernel_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    Told(
        monkeypatch,
        (neighbour("10.0.0.5", REACHABLE) + neighbour("10.0.0.6", STALE), KERNEL),
        (neighbour("10.0.0.7", REACHABLE), STRANGER),
        errno.EAGAIN,
        errno.ENOBUFS,
        (neighbour("10.0.0.8", REACHABLE), KERNEL),
    )
    watch = NeighbourWatch()
    assert watch.drain() == [Neighbour(3, ip_address("10.0.0.5").packed, MAC, True)]
    assert (watch.drain(), watch.lost) == ([], 1)
    assert [one.address[-1] for one in watch.drain()] == [8]
    assert (watch.drain(), watch.lost) == ([], 1)


def test_what_got_lost_may_have_been_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    Told(
        monkeypatch,
        (message(16, bytes(16)), STRANGER),
        (neighbour("10.0.0.5", REACHABLE), KERNEL),
        errno.EAGAIN,
        (message(16, bytes(16)), KERNEL),
        errno.EAGAIN,
        errno.ENOBUFS,
    )
    watch = LinkWatch()
    assert [watch.drain() for _ in range(4)] == [False, True, True, False]


def test_a_flood_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    Told(monkeypatch, *[(message(16, bytes(16)), KERNEL)] * 300)
    watch = Listener(1)
    first, second = watch.take(), watch.take()
    assert (len(first[0]), len(second[0]), first[1], second[1]) == (256, 44, False, False)
