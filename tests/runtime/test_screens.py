"""Screens, where a part that they ask cannot answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from egressd.enforce.adapter import AdapterError
from egressd.runtime import screens
from tests.loops import in_loop
from tests.runtime.core_scene import site_at
from tests.runtime.scene import X, about, address, attempt, match, sighting, verdict

LISTED = match("c2.listed.example")


@in_loop
async def test_who_tries_what_is_shown_without_the_kernels_counters(tmp_path: Path) -> None:
    """With the kernel out of order `egressd watch` told nobody who tries: only that."""

    async def out_of_order(targets: list[Any]) -> dict[Any, Any]:
        raise AdapterError("the kernel did not answer a request in time")

    async with site_at(tmp_path) as site:
        block = verdict("D1", "block", about("listed.example"), address(X), found=LISTED)
        site.sees(sighting(found=LISTED), block, attempt(found=LISTED))
        site.kernel.counters = out_of_order  # type: ignore[method-assign]
        await site.core.scribe.settled()
        (row,) = (await screens.watch(site.core, None))["watches"]
        assert (row["attempts"], [one["packets"] for one in row["addresses"]]) == (1, [0])
