"""A long list is saved while packets pass: nothing is missed, nothing is lost (bench/live.py reload has a million)."""

from __future__ import annotations

import pytest

from tests.netns.daemon import TREE
from tests.netns.ground import Ground
from tests.netns.reloads import reload_long

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("namespaces", "alone")]


def test_a_long_list_is_taken_and_nothing_is_missed_meanwhile() -> None:
    with Ground(("april", "may")) as ground:
        found = reload_long(ground, 50_000, 2_000, TREE)
    assert found.drops == 0
    assert found.missed == 0
    assert found.in_force_s <= 10
    assert len(found.late_ms) > 20
