"""The options of `enforce`: how the daemon blocks (docs/operating.md)."""

from __future__ import annotations

from dataclasses import dataclass

from egressd.config.kinds import CHOICE, NETWORKS, NUMBER, option


@dataclass(frozen=True)
class EnforceOptions:
    """Section `enforce`."""

    refuse: str = option(
        CHOICE,
        "reset",
        "What a blocked connection gets. reset: a TCP reset or an ICMP error, so that programs give up at once. drop: "
        "nothing.",
        choices=("reset", "drop"),
    )
    nflog_group: int = option(
        NUMBER,
        7,
        "The kernel's log group in which dropped packets are told to egressd; any that nobody else uses.",
        low=1,
        high=65_535,
    )
    provisional_s: int = option(
        NUMBER,
        60,
        "How long a block lives that a packet process put into the kernel by itself, unless the ledger confirms it.",
        low=5,
        high=3_600,
    )
    remedies: tuple[str, ...] = option(
        NETWORKS,
        (),
        "Servers that isolated hosts and cut segments may still reach, such as one for updates and forensics.",
        example="[10.0.0.80]",
    )
    largest_change: int = option(
        NUMBER,
        1_000,
        "The most blocks that are added or removed in one step without asking. A larger change stops and waits for "
        "egressd reload --force; a restart that finds what it left is none.",
        low=16,
        high=10_000_000,
    )
