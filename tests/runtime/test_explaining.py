"""Everything that the daemon knows about a name, in one answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from egressd.cli.client import Answer
from egressd.cli.explain_live import render_live
from egressd.intel.networks import render_address
from egressd.model import Target
from egressd.runtime.explaining import Explaining
from egressd.runtime.preview import Preview
from egressd.web.requests import Refused
from tests.loops import in_loop
from tests.runtime.core_scene import Site, site_at
from tests.runtime.scene import NO_HISTORY, A, X, about, address, attempt, match, pair, sighting, verdict

LISTED = match("c2.listed.example")
FEED = {"name": "csirt.txt", "state": "ok", "hits": 7}


def explaining(site: Site) -> Explaining:
    async def score_of(name: str) -> dict[str, Any] | None:
        return FEED if name == "csirt.txt" else None

    return Explaining(site.core, Preview(site.core, NO_HISTORY), score_of)


@in_loop
async def test_a_listed_name_with_all_that_came_of_it(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        told = [
            sighting(A, "b.listed.example", found=LISTED),
            verdict("D1", "block", about("listed.example"), found=LISTED),
        ]
        site.sees(*told, verdict("D1", "extend", address(X), found=LISTED), attempt(A, 5, first=True, found=LISTED))
        answer = await explaining(site).explain({"what": "www.listed.example"})
        assert (answer["listed"], answer["match_level"]) == (True, "sibling")
        assert (answer["indicator"]["source"], answer["indicator"]["line"]) == ("csirt.txt", 1)
        assert answer["feed"] == FEED
        assert answer["decision"]["id"] == "D1"
        assert answer["decision"]["targets"] == ["registered_domain listed.example", "address 198.51.100.7"]
        assert [(one["id"], one["client"]) for one in answer["incidents"]] == [("I1", "10.0.0.5")]
        assert answer["would"] == "block registered domain listed.example"


@in_loop
async def test_a_block_that_a_rule_narrowed(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        host = Target("host", "a.listed.example")
        site.sees(verdict("D1", "block", host, found=LISTED))
        assert (await explaining(site).explain({"what": "a.listed.example"}))["decision"]["id"] == "D1"
        assert (await explaining(site).explain({"what": "b.listed.example"}))["decision"] is None


@in_loop
async def test_an_address_that_was_found_out_is_not_said_to_be_free(tmp_path: Path) -> None:
    """It stood in the kernel, and the answer was `not listed; nothing`."""
    async with site_at(tmp_path) as site:
        ways = [address(X), pair()]
        site.sees(
            sighting(A, "b.listed.example", found=LISTED),
            verdict("D1", "block", about("listed.example"), found=LISTED),
            *[verdict("D1", "extend", one, found=LISTED) for one in ways],
        )
        x = render_address(X)
        answer = await explaining(site).explain({"what": x})
        assert (answer["listed"], answer["held"], answer["decision"]["id"]) == (False, "for everybody", "D1")
        assert answer["would"] == "nothing more: not listed itself"
        assert [one["client"] for one in answer["incidents"]] == ["10.0.0.5"]
        assert (
            render_live(x, Answer(answer, "enforce", 1, "", ()))[0] == f"{x}: not listed; BLOCKED for everybody by D1"
        )
        first = render_live(x, Answer({**answer, "enforced": False}, "monitor", 1, "", ()))[0]
        assert first == f"{x}: not listed; would be blocked for everybody by D1"
        site.sees(verdict("D1", "withdraw", address(X), found=LISTED))
        client, _, other = pair().value.partition(">")
        assert (await explaining(site).explain({"what": other}))["held"] == f"for {client}"
        assert "held" not in await explaining(site).explain({"what": "203.0.113.200"})


@in_loop
async def test_what_a_block_does_not_cover_and_why(tmp_path: Path) -> None:
    """Refused, or given free later; of many the last."""
    async with site_at(tmp_path) as site:
        shared = "blocked by name, not by address: shared with 3 other registered domains, among them a.example"
        site.sees(
            sighting(A, "b.listed.example", found=LISTED),
            verdict("D1", "block", about("listed.example"), found=LISTED),
            verdict("D1", "extend", address(X), found=LISTED),
            verdict("D1", "withdraw", address(X), rule="shared", found=LISTED, reason=shared),
        )
        for number in range(20):
            refused = address(f"203.0.113.{number}")
            site.sees(verdict("D1", "refuse", refused, rule="shared", found=LISTED, reason=shared))
        decision = (await explaining(site).explain({"what": "listed.example"}))["decision"]
        assert decision["targets"] == ["registered_domain listed.example"]
        assert decision["spared"] == [f"address 203.0.113.{number}: {shared}" for number in range(4, 20)]


@in_loop
async def test_other_lines_allowances_and_what_is_not_listed(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        (tmp_path / "csirt.txt").write_text("c2.listed.example\nc2.listed.example confidence=60\n")
        await site.do("reload")
        answer = await explaining(site).explain({"what": "c2.listed.example"})
        assert answer["also"] == ["csirt.txt:2"]
        assert answer["decision"] is None
        await site.do("allow", what="c2.listed.example")
        allowed = await explaining(site).explain({"what": "hxxp://c2[.]listed.example/x"})
        assert "allow-destination c2.listed.example" in allowed["allowance"]
        fine = await explaining(site).explain({"what": "fine.example"})
        assert fine["listed"] is False
        assert "incidents" not in fine
        with pytest.raises(Refused, match="is no name"):
            await explaining(site).explain({"what": "no name!"})
