"""Adapters by name."""

from __future__ import annotations

from egressd.enforce import nftables
from egressd.enforce.adapter import Adapter, WatchedAdapter
from egressd.enforce.registry import ADAPTERS, AdapterParts
from egressd.enforce.shield import ProtectingAdapter
from tests.enforce.rules import Clock, ground, protected


def test_every_adapter_bears_its_name_and_keeps_its_contract() -> None:
    parts = AdapterParts(protected(), ground(), Clock().now_us)
    made = ADAPTERS["dryrun"](parts)
    assert made.name == "dryrun"
    assert isinstance(made, ProtectingAdapter) and not isinstance(made, WatchedAdapter)
    assert set(ADAPTERS) == {"nftables", "dryrun"}
    kinds: list[type[Adapter]] = [nftables.NftablesAdapter]
    assert [kind.name for kind in kinds] == ["nftables"]
    for method in ("watch_socket", "drain_events", "set_protected"):
        assert hasattr(nftables.NftablesAdapter, method)
