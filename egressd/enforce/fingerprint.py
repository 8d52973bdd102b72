"""Whether our rules are still the ones that we loaded: the kernel's own description of them, byte for byte.

Handles are part of it, so a rule that was deleted and added again by somebody else shows too. Elements of blocks are
not: they come and go. The few elements of the protected sets are.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from egressd.enforce.elements import FAMILY_INET, TABLE
from egressd.enforce.netlink import NFTABLES, NetlinkError, generic, parse_attributes, text
from egressd.enforce.ruleset import GROUND_SETS
from egressd.enforce.sets import KernelSets

_GETCHAIN: Final = NFTABLES | 4
_GETRULE: Final = NFTABLES | 7
_GETSET: Final = NFTABLES | 10
_SET_NAME: Final = 2
_SET_FLAGS: Final = 3
_SET_KEY_TYPE: Final = 4
_SET_KEY_LENGTH: Final = 5
_SET_HANDLE: Final = 16
_OURS: Final = text(1, TABLE)  # NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE: 1 in each


class Fingerprint(NamedTuple):
    """What makes our table ours."""

    chains: tuple[bytes, ...]
    rules: tuple[bytes, ...]
    sets: tuple[tuple[bytes, ...], ...]
    ground: tuple[tuple[bytes, ...], ...]


def read_fingerprint(sets: KernelSets) -> Fingerprint:
    """The table as it is now; empty when it is gone. Costs about a millisecond. Raises AdapterError."""
    described = tuple(
        tuple(fields.get(kind, b"") for kind in (_SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LENGTH, _SET_HANDLE))
        for fields in (parse_attributes(body) for body in _dump(sets, _GETSET))
    )
    names = {fields[0].rstrip(b"\0") for fields in described}
    ground = tuple(
        tuple(sorted(element.key + bytes([element.is_end]) for element in sets.elements(name)))
        for name in (f"{kind}{version}".encode("ascii") for kind in GROUND_SETS for version in "46")
        if name in names
    )
    return Fingerprint(tuple(_dump(sets, _GETCHAIN)), tuple(_dump(sets, _GETRULE)), described, ground)


def _dump(sets: KernelSets, kind: int) -> list[bytes]:
    """Attributes of every thing of one sort in our table; not every kernel filters by table, so it is done again."""
    try:
        bodies = sets.dump(kind, generic(FAMILY_INET) + _OURS)
    except NetlinkError as error:
        if error.number == errno.ENOENT:
            return []  # no table
        raise
    return [body[4:] for body in bodies if body[:1] == generic(FAMILY_INET)[:1] and body.startswith(_OURS, 4)]
