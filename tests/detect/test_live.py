"""What packets of a running gateway tell beside what they say: here canaries. (Ways: test_live_ways.py.)"""

from __future__ import annotations

from egressd.detect.live import CANARY_ZONE, MAX_CANARIES
from tests.detect.live_scene import LiveScene
from tests.detect.scene import A, X


def canary(scene: LiveScene, second: float, name: str, client: str = "192.0.2.53", server: str = "192.0.2.54") -> None:
    scene.question(second, client, f"{name}{CANARY_ZONE}", server=server)


def test_what_asks_somebody_for_a_canarys_name_is_no_canary() -> None:
    """A host spoke with a listed server by DNS, in names of the canaries' zone, and nobody saw it."""
    scene = LiveScene(f"{X}\nbad.example")
    heard: list[str] = []
    scene.engine.canary = lambda name, _: heard.append(name)
    canary(scene, 0, "c6336407", A, X)
    assert heard == [] and [one.match.level for one in scene.sightings] == ["address"]
    scene.question(1, A, f"c6336407{CANARY_ZONE}", more=["c2.bad.example"])
    assert [one.name for one in scene.sightings[1:]] == ["c2.bad.example"]
    canary(scene, 2, "c6336407")
    assert heard == [f"c6336407{CANARY_ZONE}"] and len(scene.sightings) == 2


def test_a_flood_of_canaries_does_not_reach_the_kernel() -> None:
    """Each was pushed there: ten thousand a second took the time of all other packets."""
    scene = LiveScene()
    heard: list[str] = []
    scene.engine.canary = lambda name, _: heard.append(name)
    for number in range(1_000):
        canary(scene, number / 1_000, f"{number:08x}")
    assert len(heard) == MAX_CANARIES
    canary(scene, 1.5, "c6336407")
    assert len(heard) == MAX_CANARIES + 1 and scene.engine.counts() == {}
