"""Each key of a campaign is given to the ledger once, unless it may have been lost."""

from __future__ import annotations

from egressd.model import Campaign
from egressd.store import incidents
from tests.runtime.scene import T0, Desk


def test_a_key_is_put_once(desk: Desk) -> None:
    copies = desk.intake.copies
    one = Campaign("C1", ["a", "b"], ["I1"], T0, T0 + 1, ["tie"], {"C9": "why"})
    other = Campaign("C2", ["z"], [], T0, T0)
    first = copies.copy(one)
    assert first == Campaign("C1", ["a", "b"], [], T0, T0 + 1, ["tie"], {"C9": "why"})
    assert copies.copy(other).keys == ["z"]
    one.keys.append("c")
    one.ties.append("another")
    assert (copies.copy(one).keys, copies.copy(one).keys) == (["c"], [])
    assert first.keys == ["a", "b"] and first.ties == ["tie"]
    desk.scribe.given_up = 1
    assert (copies.copy(one).keys, copies.copy(one).keys, copies.copy(other).keys) == (["a", "b", "c"], [], ["z"])


def test_names_of_a_campaign_are_all_in_the_ledger(desk: Desk) -> None:
    for number in range(3):
        one = desk.campaigns.campaigns.setdefault("C7", Campaign("C7", [], [], T0, T0))
        one.keys.append(f"indicator {number}.bad.example")
        desk.scribe.put(incidents.put_campaign, desk.intake.copies.copy(one))
    desk.settle()
    assert desk.ledger.call(incidents.load_campaigns)[0].keys == one.keys
