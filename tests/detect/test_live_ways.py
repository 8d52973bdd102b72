"""Which way a packet goes on the hosts' side of a gateway: whoever comes in from outside is no host of ours."""

from __future__ import annotations

from typing import Any

import pytest

from tests.detect.live_scene import ENFORCE, LiveScene
from tests.detect.scene import at, flow, packed

GUEST = "2001:db8:9::7"  # in no network that is known to be ours


def _guest(scene: LiveScene, **note: str) -> int:
    """What a client that may be ours asks one of our own servers counts as."""
    scene.tls(0, GUEST, "10.0.0.80", "c2.bad.example", **note)
    return len(scene.sightings)


def test_who_comes_in_from_the_hosts_is_a_host() -> None:
    scene = LiveScene()
    scene.from_inside(True)
    assert _guest(scene) == 1


def test_who_goes_out_is_a_host_whatever_its_address() -> None:
    scene = LiveScene()
    scene.from_inside(False)  # as on an interface that faces the outside
    scene.tls(0, GUEST, "203.0.113.9", "c2.bad.example")
    assert len(scene.sightings) == 1


def test_of_a_mirror_port_nobody_knows_which_way_packets_go() -> None:
    scene = LiveScene()
    scene.from_inside(False)
    scene.engine.knows_ways = False
    assert _guest(scene) == 1


@pytest.mark.parametrize(
    "named", [{"lan": ((packed("2001:db8:9::"), 64, ""),)}, {"segments": ((packed("2001:db8:9::"), 48, "guests"),)}]
)
def test_who_is_in_a_network_of_ours_is_a_host(named: dict[str, Any]) -> None:
    scene = LiveScene(settings=ENFORCE._replace(**named))
    scene.from_inside(False)
    assert _guest(scene) == 1


def test_who_is_in_none_and_goes_out_to_the_hosts_is_none() -> None:
    scene = LiveScene()
    scene.from_inside(False)
    assert _guest(scene) == 0
    assert scene.engine.counts() == {"contacts_from_outside": 1}


def test_what_the_kernel_stopped_on_its_way_to_us_is_told_after_the_packet_at_hand() -> None:
    scene = LiveScene("10.0.0.80 force=yes")
    scene.from_inside(False)
    scene.engine.dropped(flow(GUEST, "10.0.0.80"), at(0))
    assert len(scene.sightings) == 1
