"""What an incident adds up to: of two that turn out to be one, and the bound on its names."""

from __future__ import annotations

from typing import Final

from egressd.detect.incident_places import MAX_ADDRESSES
from egressd.model import Incident

MAX_NAMES: Final = 64  # names kept per incident; a DGA would fill memory


def add_name(incident: Incident, name: str, count: int) -> None:
    """So many contacts by a name; of those beyond MAX_NAMES nothing is kept."""
    if name in incident.names or len(incident.names) < MAX_NAMES:
        incident.names[name] = incident.names.get(name, 0) + count


def absorb(kept: Incident, gone: Incident) -> None:
    """`kept` counts what `gone` counted, and was seen when and where it was: the latest addresses of both last."""
    by_last = sorted((kept, gone), key=lambda incident: incident.last_us)
    addresses = dict.fromkeys(by_last[1].addresses[::-1] + by_last[0].addresses[::-1])
    kept.addresses = list(addresses)[:MAX_ADDRESSES][::-1]
    kept.device = kept.device or gone.device
    kept.volume = kept.volume or gone.volume
    kept.first_us = min(kept.first_us, gone.first_us)
    kept.last_us = max(kept.last_us, gone.last_us)
    kept.contacts += gone.contacts
    kept.attempts += gone.attempts
    kept.answered += gone.answered
    kept.let_through += gone.let_through
    for name, count in gone.names.items():
        add_name(kept, name, count)
    for via, count in gone.via.items():
        kept.via[via] = kept.via.get(via, 0) + count
    for source, count in gone.sources.items():
        kept.sources[source] = kept.sources.get(source, 0) + count
