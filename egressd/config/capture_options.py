"""The options of `capture`: where the daemon looks at packets, and how."""

from __future__ import annotations

from dataclasses import dataclass

from egressd.config.kinds import CHOICE, INTERFACES, NUMBER, option


@dataclass(frozen=True)
class CaptureOptions:
    """Section `capture`."""

    interfaces: tuple[str, ...] = option(
        INTERFACES,
        (),
        "Interfaces on the side of your hosts, where packets are seen before the firewall drops them and with the "
        "hosts' own addresses. Empty: those that are up, have a private address and hold no default route.",
        example="[eth1, vlan20]",
    )
    processes: int = option(
        NUMBER,
        1,
        "Packet processes. Each takes all packets of its share of the hosts; more than there are cores is of no use.",
        low=1,
        high=64,
    )
    ring_mib: int = option(
        NUMBER,
        16,
        "Memory for packets that wait to be read, for each process and interface, in MiB (1024 * 1024 bytes); 512 "
        "packets find room in each. It counts as memory of the process from the start.",
        low=1,
        high=1_024,
    )
    scheduling: str = option(
        CHOICE,
        "realtime",
        "How packet processes run. realtime: before all others (SCHED_FIFO), where the system allows it, so that a "
        "block is in the kernel within half a millisecond also when the machine is busy. normal: as all others.",
        choices=("realtime", "normal"),
    )
    packets: str = option(
        CHOICE,
        "ours",
        "Which packets are taken. ours: those that this machine receives and sends. all: also those for others "
        "(promiscuous mode), on a mirror port.",
        choices=("ours", "all"),
    )
    tunnels: str = option(
        CHOICE,
        "read",
        "What is done about GRE, IP-in-IP, 6in4, VXLAN and GENEVE that pass through. read: what is inside is read. "
        "skip: it is not.",
        choices=("read", "skip"),
    )
