"""hunt: long lists and a full history are gone through in steps, and nobody is found twice or missed."""

from __future__ import annotations

from typing import Any

import pytest

from egressd.detect.history import PastContact
from egressd.detect.hunt import MAX_ENDINGS, SIFTED, Sieve, sieve_for
from egressd.intel.index import Index
from egressd.intel.layered import LayeredIndex
from egressd.model import TLS_SNI, Sighting
from tests.detect.live_scene import ENFORCE, LiveScene, intel
from tests.detect.scene import SUFFIXES, A, X, at, flow, listed, packed
from tests.intel.index_scene import mapped

MANY = 5_000


def past(scene: LiveScene, names: int = MANY) -> None:
    """A client asked for so many names."""
    for number in range(names):
        scene.question(number / 1_000, A, f"www.n{number}.example")


def swapped(scene: LiveScene, index: Any, second: float) -> None:
    made = intel("c2.bad.example")
    made.index = index
    scene.engine.swap(made, ENFORCE, True, at(second))


def layered(upper: str, lower: str) -> LayeredIndex:
    return LayeredIndex(Index.build(listed(upper), SUFFIXES), (mapped(listed(lower), suffixes=SUFFIXES),), SUFFIXES)


def retro(scene: LiveScene) -> list[str]:
    return [one.name for one in scene.events if isinstance(one, Sighting) and one.retro]


def run(scene: LiveScene) -> int:
    """Carry on to the end; how many steps that took."""
    steps = 0
    while scene.engine.is_busy:
        scene.engine.carry_on(1)
        steps += 1
    return steps


def lines(*numbers: int) -> str:
    return "".join(f"n{number}.example\n" for number in numbers)


@pytest.mark.parametrize("in_file", [False, True])
def test_much_is_done_in_steps_and_in_order(in_file: bool) -> None:
    scene = LiveScene()
    past(scene)
    wanted = range(7, MANY, 50)
    text = lines(*reversed(wanted))
    swapped(scene, layered("", text) if in_file else Index.build(listed(text), SUFFIXES), 100)
    assert retro(scene) == []
    assert run(scene) > 50
    assert retro(scene) == [f"www.n{number}.example" for number in wanted]
    scene.engine.carry_on(9)
    assert len(retro(scene)) == len(wanted)


def test_a_swap_during_a_hunt_loses_nothing_and_tells_nothing_twice() -> None:
    scene = LiveScene()
    past(scene)
    first, second = lines(*range(100)), lines(*range(200))
    swapped(scene, layered("", first), 100)
    while not retro(scene):
        scene.engine.carry_on(1)
    assert len(retro(scene)) < 100
    swapped(scene, layered("", second), 101)
    run(scene)
    assert sorted(retro(scene)) == sorted(f"www.n{number}.example" for number in range(200))
    swapped(scene, layered("x.example", second), 102)
    run(scene)
    assert len(retro(scene)) == 200


def test_nothing_new_is_no_hunt() -> None:
    scene = LiveScene()
    below = layered("c2.bad.example", "")
    swapped(scene, below, 1)
    run(scene)
    past(scene)
    swapped(scene, LayeredIndex(Index.build(listed("# moved\nc2.bad.example"), SUFFIXES), below.lowers, SUFFIXES), 100)
    assert not scene.engine.is_busy
    swapped(scene, LayeredIndex(Index.build(listed(lines(4)), SUFFIXES), below.lowers, SUFFIXES), 101)
    assert run(scene) <= MANY // SIFTED + 2
    assert retro(scene) == ["www.n4.example"]


def test_many_that_come_into_force_at_one_time() -> None:
    scene = LiveScene()
    past(scene)
    text = "".join(f"n{number}.example added=2030-01-01\n" for number in range(100))
    due_s = 1_893_456_000
    swapped(scene, layered("", text), 50)
    run(scene)
    assert retro(scene) == []
    scene.engine.tick(due_s * 1_000_000)
    run(scene)
    assert sorted(retro(scene)) == sorted(f"www.n{number}.example" for number in range(100))


def contact(name: str) -> PastContact:
    return PastContact(flow(A, X), name, packed(X), TLS_SNI, 1, at(0), at(0))


def test_sieves() -> None:
    few = listed("www.bad.example\n198.51.100.7\nhttp://worse.example/x")
    assert sieve_for(few) == Sieve(("bad.example",), True)
    sieve = Sieve(("bad.example",), True)
    assert [sieve.keeps(contact(name)) for name in ("a.bad.example", "fine.example", "")] == [True, False, True]
    assert sieve_for(listed("http://worse.example/x")) == Sieve((), False)
    assert not Sieve((), False).keeps(contact("worse.example"))
    assert sieve_for(listed(lines(*range(MAX_ENDINGS)))) is not None
    assert sieve_for(listed(lines(*range(MAX_ENDINGS + 1)))) is None
