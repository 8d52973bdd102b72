"""The options of `volume` (docs/detection-volume.md)."""

from __future__ import annotations

from dataclasses import dataclass

from egressd.config.kinds import CHOICE, NAMES, NETWORKS, NUMBER, SEGMENT_NAMES, option

MOST_MIB = 1 << 30  # a PiB


@dataclass(frozen=True)
class VolumeOptions:
    """Section `volume`."""

    baseline: str = option(
        CHOICE,
        "alert",
        "What is done when a client sends far more to a destination than is usual for it, for the destination and for "
        "the client. alert: an incident is opened; nothing is ever blocked for it. ignore: nothing.",
        choices=("alert", "ignore"),
    )
    floor_mib: int = option(
        NUMBER,
        64,
        "Less than this within an hour, in MiB (1024 * 1024 bytes), is never unusual.",
        low=1,
        high=MOST_MIB,
    )
    learn_hours: int = option(
        NUMBER,
        72,
        "For so long after a client was first seen its volume is learnt and not judged. A week knows weekly backups.",
        low=1,
        high=2_160,
    )
    out_mib_hour: int = option(
        NUMBER, 0, "A client that sends more MiB than this to one destination in an hour is told. 0: no such quantity.",
        high=MOST_MIB,
    )  # fmt: skip
    out_mib_day: int = option(NUMBER, 0, "The same for a day (UTC).", high=MOST_MIB)
    client_mib_hour: int = option(
        NUMBER, 0, "A client that sends more MiB than this in an hour to all destinations together is told. 0: no such "
        "quantity.",
        high=MOST_MIB,
    )  # fmt: skip
    client_mib_day: int = option(NUMBER, 0, "The same for a day (UTC).", high=MOST_MIB)
    except_domains: tuple[str, ...] = option(
        NAMES,
        (),
        "Registered domains that may be sent any volume, such as that of a backup. They are counted and never told.",
        example="[backup.example]",
    )
    except_networks: tuple[str, ...] = option(
        NETWORKS, (), "The same by address, for destinations.", example="[192.0.2.80, 198.51.100.0/24]"
    )
    except_segments: tuple[str, ...] = option(
        SEGMENT_NAMES, (), "Segments (see segments) whose clients may send any volume.", example="[laboratory]"
    )
    pairs: int = option(
        NUMBER,
        32_768,
        "The most pairs of client and destination whose volume is remembered, up to 1 KiB each. The longest unused are "
        "forgotten first, and counted.",
        low=1_024,
        high=1_048_576,
    )
