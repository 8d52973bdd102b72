"""What the name of a canary says: an address for the scratch set, new each time."""

from __future__ import annotations

from egressd.detect.live import CANARY_ZONE
from egressd.intel.networks import render_address


def canary_name(address: bytes) -> str:
    """The name that carries a packed IPv4 address."""
    return address.hex() + CANARY_ZONE


def canary_address(name: str) -> str:
    """The address in a canary's name, one of no use when it is not right: anybody may ask for such a name."""
    label = name.removesuffix(CANARY_ZONE)
    try:
        address = bytes.fromhex(label)
    except ValueError:
        address = b""
    return render_address(address) if len(address) == 4 else "0.0.0.0"
