"""What the gateway's kernel holds and when it came there: the judge of every claim about blocking."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from tests.netns.servers import answered_addresses
from tests.netns.spaces import Channel, Namespace

TABLE: Final = "egressd"
SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h
ETH_P_ALL: Final = 3
NETLINK_NETFILTER: Final = 12
NFNLGRP_NFTABLES: Final = 7  # linux/netfilter/nfnetlink.h
NEWSETELEM: Final = 10 << 8 | 12
GETSETELEM: Final = 10 << 8 | 13
NETLINK_ADD_MEMBERSHIP: Final = 1


class Element(NamedTuple):
    """One element of a set. `packets` have matched it."""

    value: str
    packets: int
    expires_s: float
    comment: str


def elements(gateway: Namespace, *names: str) -> dict[str, Element]:
    """What is in our sets, by value; pairs are written "client>address". Empty when the table is not there."""
    found: dict[str, Element] = {}
    for name in names:
        done = gateway.run("nft", "-j", "list", "set", "inet", TABLE, name, check=False)
        if done.returncode:
            continue
        for entry in json.loads(done.stdout)["nftables"]:
            for one in entry.get("set", {}).get("elem", ()):
                element = _element(one)
                found[element.value] = element
    return found


def blocked(gateway: Namespace) -> dict[str, Element]:
    """Addresses that are blocked for everybody."""
    return elements(gateway, "blocked4", "blocked6")


def holds(gateway: Namespace, addresses: Iterable[str]) -> bool:
    """Whether all of these are blocked for everybody; cheap, however many others are (`nft` would read them all)."""
    return bool(gateway.call(_holds, [ip_address(address).packed for address in addresses]))


def _holds(keys: list[bytes]) -> bool:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        for key in keys:
            name = b"blocked4\0" if len(key) == 4 else b"blocked6\0"
            element = _nested(1, _nested(1, _attribute(1, key)))
            body = struct.pack(">BBH", 1, 0, 0) + _attribute(1, TABLE.encode() + b"\0") + _attribute(2, name)
            body += _nested(3, element)
            netlink.send(struct.pack("=IHHII", 16 + len(body), GETSETELEM, 1, 1, 0) + body)
            if struct.unpack_from("=IH", netlink.recv(1 << 16))[1] != NEWSETELEM:
                return False  # NLMSG_ERROR: there is no such element, set or table
    return True


def _attribute(kind: int, octets: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(octets), kind) + octets + bytes(-len(octets) & 3)


def _nested(kind: int, octets: bytes) -> bytes:
    return _attribute(kind | 0x8000, octets)


def pairs(gateway: Namespace) -> dict[str, Element]:
    """Addresses that are blocked for one client."""
    return elements(gateway, "pair4", "pair6")


def _element(one: Any) -> Element:
    body = one.get("elem", one) if isinstance(one, dict) else {"val": one}
    value = body["val"] if isinstance(body, dict) and "val" in body else body
    if isinstance(value, dict):
        if "concat" in value:
            value = ">".join(map(str, value["concat"]))
        elif "prefix" in value:
            value = f"{value['prefix']['addr']}/{value['prefix']['len']}"
    counter = body.get("counter") or {}
    return Element(str(value), counter.get("packets", 0), float(body.get("expires", 0)), str(body.get("comment", "")))


def has_table(gateway: Namespace) -> bool:
    """Whether our table is there at all."""
    return gateway.run("nft", "list", "table", "inet", TABLE, check=False).returncode == 0


def watch(channel: Channel, interface: str) -> tuple[dict[str, int], dict[str, int]]:
    """When each address was first answered on an interface (the kernel's stamp of the packet), and when its element was
    first told of by the kernel (when this process woke up to hear it: later than it was in force). Both are
    CLOCK_REALTIME in nanoseconds. Says "watching"; ends when told anything. Runs before ordinary processes, where it
    may, and after a real-time daemon."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    tap = _tap(interface)
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    netlink.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
    netlink.bind((0, 0))
    netlink.setsockopt(270, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)  # SOL_NETLINK
    import select

    poll = select.epoll()
    for number in (tap.fileno(), netlink.fileno(), channel.fileno()):
        poll.register(number, select.EPOLLIN)
    answered: dict[str, int] = {}
    told: list[tuple[int, bytes]] = []
    channel.send("watching")
    while True:
        for number, _ in poll.poll():
            if number == netlink.fileno():
                message = netlink.recv(1 << 16)
                told.append((time.time_ns(), message))
            elif number == tap.fileno():
                _note(tap, answered)
            else:
                return answered, _first_elements(told)


def _tap(interface: str) -> socket.socket:
    """A socket that sees the DNS answers on an interface, with the kernel's time stamps."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    _only_answers(tap)
    tap.bind((interface, ETH_P_ALL))
    return tap


def _only_answers(tap: socket.socket) -> None:
    """IPv4 without options, UDP, source port 53 (classic BPF, linux/filter.h)."""
    import ctypes

    program = b"".join(
        struct.pack("=HBBI", *row)
        for row in (
            (0x28, 0, 0, 12), (0x15, 0, 5, 0x0800), (0x30, 0, 0, 23), (0x15, 0, 3, 17),
            (0x28, 0, 0, 34), (0x15, 0, 1, 53), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0),
        )
    )  # fmt: skip
    held = ctypes.create_string_buffer(program, len(program))
    tap.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HxxxxxxP", 8, ctypes.addressof(held)))  # SO_ATTACH_FILTER


def _note(tap: socket.socket, answered: dict[str, int]) -> int:
    frame, control, _, _ = tap.recvmsg(4096, 256)
    stamp_ns = 0
    for level, kind, octets in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, rest = struct.unpack("=qq", octets[:16])
            stamp_ns = seconds * 1_000_000_000 + rest
    for address in answered_addresses(frame[42:]):
        answered.setdefault(address, stamp_ns)
    return stamp_ns


def _first_elements(told: list[tuple[int, bytes]]) -> dict[str, int]:
    """Addresses in messages about new elements. A message is searched for its keys: NFTA_SET_ELEM_KEY (1), in it
    NFTA_DATA_VALUE (1), of 4 or 16 bytes."""
    found: dict[str, int] = {}
    for when_ns, octets in told:
        at = 0
        while at + 16 <= len(octets):
            size, kind = struct.unpack_from("=IH", octets, at)
            if size < 16:
                break
            if kind == NEWSETELEM:
                for length in (4, 16):
                    for flag in (0x8000, 0):  # NLA_F_NESTED, or not
                        head = struct.pack("=HHHH", 8 + length, flag | 1, 4 + length, 1)
                        place = octets.find(head, at, at + size)
                        if place >= 0:
                            key = octets[place + 8 : place + 8 + length]
                            found.setdefault(str(ip_address(key)), when_ns)
            at += (size + 3) & ~3
    return found


def block_by_process(channel: Channel, interface: str) -> list[int]:
    """The plain way to do it, for comparison: see an answer, start `nft`. Says "ready"; returns, when told anything,
    the nanoseconds from each answer's stamp to the end of its `nft`."""
    nft = "add table inet plain; add set inet plain blocked { type ipv4_addr; flags timeout; }; "
    nft += "add chain inet plain forward { type filter hook forward priority -10; policy accept; }; "
    nft += "add rule inet plain forward ip daddr @blocked meta l4proto tcp reject with tcp reset"
    subprocess.run(["nft", nft], check=True)
    tap = _tap(interface)
    tap.settimeout(0.05)
    took: list[int] = []
    seen: dict[str, int] = {}
    channel.send("ready")
    while not channel.poll():
        before = set(seen)
        try:
            stamp_ns = _note(tap, seen)
        except TimeoutError:
            continue
        for address in set(seen) - before:
            element = f"add element inet plain blocked {{ {address} timeout 60s }}"
            subprocess.run(["nft", element], check=True, close_fds=False)
            took.append(time.time_ns() - stamp_ns)
    subprocess.run(["nft", "delete table inet plain"], check=True)
    return took


def cpu_s(pid: int) -> float:
    """Processor time that a process has used (proc(5), stat)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
