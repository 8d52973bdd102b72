"""The options of section `policy`: where its rules are, and the bounds that no rule can lift (docs/policy.md)."""

from __future__ import annotations

from dataclasses import dataclass

from egressd.config.kinds import NUMBER, PATH, option


@dataclass(frozen=True)
class PolicyOptions:
    """Section `policy`."""

    file: str = option(
        PATH,
        "",
        "The policy: rules in order that say what is done about a sighting (docs/policy.md). Empty: the shipped one, "
        "which is config/policy.yaml.",
        example="policy.yaml",
    )
    block_confidence: int = option(
        NUMBER, 50, "A sighting by an indicator of less confidence than this alerts and does not block.", high=100
    )
    shared_after: int = option(
        NUMBER,
        3,
        "An address on which this many other registered domains were seen is shared: it is not blocked, neither for "
        "everybody nor for one client; the name still is. A listed address alerts and waits for a person.",
        low=1,
        high=1_000,
    )
    addresses_per_indicator_hour: int = option(
        NUMBER,
        16,
        "The most addresses that are added to one block within an hour. Beyond it the name stays blocked and each "
        "further address is refused with that reason.",
        high=4_096,
    )
    blocks_per_hour: int = option(
        NUMBER,
        200,
        "The most automatic blocks within an hour. Beyond it a sighting alerts only, so that a bad list cannot cut "
        "off a whole network. One machine causes a quarter of them at most; what it meets beyond that is blocked for "
        "it alone, until a second machine meets it too.",
        high=100_000,
    )
    isolations_per_hour: int = option(
        NUMBER,
        5,
        "The most clients that a rule of the policy isolates within an hour. Beyond it, it alerts only. One machine, "
        "whatever its addresses, causes a quarter of them at most, and at least one.",
        high=10_000,
    )
    lapse_h: int = option(
        NUMBER,
        72,
        "How long a proposed block waits for a person, in hours. Then it lapses: that is told and written down, and "
        "the next sighting proposes it anew.",
        low=1,
        high=8_760,
    )
    rollback_clients: int = option(
        NUMBER,
        50,
        "An automatic block that more clients than this run into within its first hour is taken back and waits for a "
        "person: so many are hardly infected at once. 0: never for their number.",
        high=1_000_000,
    )
    rollback_share: int = option(
        NUMBER,
        25,
        "The same for more than this percentage of the known clients within its first day, where that is at least "
        "twenty clients. 0: never for their share.",
        high=100,
    )
