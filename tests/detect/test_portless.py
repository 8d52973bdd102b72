"""What is neither TCP nor UDP, in the engine: a contact where a list or a block has the address, and else nothing."""

from __future__ import annotations

from egressd.model import BARE, FLOW, ICMP, REPLY, FlowKey, Observation
from tests.detect.live_scene import LiveScene
from tests.detect.scene import A, B, Scene, X, Y, at, packed

C2 = "c2.bad.example"
ESP = 50


def ping(client: str, server: str, identifier: int = 7, kind: int = 8) -> FlowKey:
    return FlowKey(ICMP, packed(client), identifier, packed(server), kind)


def tell(scene: Scene, second: float, flow: FlowKey, kind: str = FLOW) -> None:
    scene.engine.observe(Observation(kind, at(second), 1, flow, "", "", None, 0, BARE))


def test_to_a_listed_address_it_is_an_incident_and_a_block() -> None:
    scene = Scene(f"{X} threat=case")
    tell(scene, 0, ping(A, X))
    tell(scene, 1, FlowKey(ESP, packed(B), 0, packed(X), 0))
    assert [one.client for one in scene.opened] == [packed(A), packed(B)]
    assert scene.targets("block") == [f"address {X}"]
    assert [one.flow.proto for one in scene.attempts] == [ESP]


def test_to_a_blocked_address_every_conversation_is_an_attempt() -> None:
    scene = Scene(enforced=True)
    scene.resolve(0, A, C2, X)
    tell(scene, 1, ping(B, X, 1))
    tell(scene, 2, ping(B, X, 1))
    tell(scene, 3, ping(B, X, 2))
    assert [(one.flow.client, one.count, one.stopped) for one in scene.attempts] == [
        (packed(B), 1, True), (packed(B), 2, True),
    ]  # fmt: skip
    tell(scene, 4, ping(B, X, 2), REPLY)
    assert [one.flow for one in scene.leaks] == [ping(B, X, 2)]


def test_one_who_looked_the_name_up_reaches_it_by_name() -> None:
    scene = Scene()
    scene.resolve(0, A, C2, X)
    tell(scene, 1, ping(A, X))
    assert [one.name for one in scene.attempts] == [C2]


def test_elsewhere_it_leaves_no_trace_but_history() -> None:
    scene = Scene()
    for minute in range(300):
        tell(scene, 60 * minute, ping(A, Y, minute))
        tell(scene, 60 * minute, ping(A, Y, minute), REPLY)
    scene.engine.finish()
    assert scene.events == []
    assert not len(scene.engine.clients) and not len(scene.engine.machines)
    assert scene.engine.observations == {}


def test_who_sent_it_before_its_address_was_listed_is_found() -> None:
    scene = LiveScene("", enforced=False)
    tell(scene, 0, ping(A, X))
    assert [row.flow for row in scene.engine.gathering.rows()] == [ping(A, X)]


def test_a_scanner_outside_is_no_client() -> None:
    scene = Scene(f"{X} threat=case")
    tell(scene, 0, ping(X, A))
    assert scene.events == [] and scene.engine.from_outside == 1


def test_the_kernels_log_counts_what_the_tap_did_not_see_and_nothing_twice() -> None:
    scene = LiveScene()
    scene.resolve(0, A, C2, X)
    scene.engine.dropped(ping(B, X), at(1))
    tell(scene, 1.1, ping(B, X))  # the log was quicker than the ring
    scene.engine.dropped(ping(B, X), at(2))
    assert [(one.flow.client, one.count) for one in scene.attempts] == [(packed(B), 1)]
    scene.engine.dropped(ping(B, X, 8), at(3))
    assert scene.attempts[-1].count == 2
