"""Every adapter by name: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from egressd.enforce.adapter import Adapter
from egressd.enforce.dryrun import DryRunAdapter
from egressd.enforce.nftables import NftablesAdapter, NftablesSettings
from egressd.enforce.ruleset import Ground
from egressd.enforce.shield import Protects


class AdapterParts(NamedTuple):
    """What adapters are made from."""

    protected: Protects
    ground: Ground
    now_us: Callable[[], int]
    nftables: NftablesSettings = NftablesSettings()


def _nftables(parts: AdapterParts) -> Adapter:
    return NftablesAdapter(parts.protected, parts.ground, parts.now_us, parts.nftables)


def _dryrun(parts: AdapterParts) -> Adapter:
    return DryRunAdapter(parts.protected, parts.now_us, spare=parts.ground.spare)


ADAPTERS: Final[dict[str, Callable[[AdapterParts], Adapter]]] = {
    "nftables": _nftables,
    "dryrun": _dryrun,
}
