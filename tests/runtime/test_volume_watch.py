"""The thread that counts volume: what it tells, what it says when nothing can be seen, and how the loop stays free."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from egressd.clock import SteadyClock
from egressd.detect.behaviour.volume import VolumeSettings
from egressd.detect.evidence import Evidence
from egressd.detect.resolutions import own_prefixes
from egressd.enforce.accounting import TURN_ON, Counted, parse_counted
from egressd.enforce.adapter import AdapterError
from egressd.enforce.netlink import Overrun
from egressd.intel.networks import NetworkTable, parse_network
from egressd.runtime import doctor
from egressd.runtime.volume_watch import MAX_TOLD, VolumeWatch
from egressd.runtime.whose import Whose
from tests.detect.scene import SUFFIXES, packed
from tests.enforce.test_accounting import flow
from tests.loops import HANG_S, in_loop

A, X, Y = "10.0.0.5", "203.0.113.9", "198.51.100.7"
MIB = 1 << 20
DEFAULT = VolumeSettings()


class Table:
    """Stands for the kernel's: what each look finds, in order; the last one stays."""

    def __init__(self, *looks: list[Counted]) -> None:
        self.looks = list(looks)
        self.gone: list[Counted] = []
        self.on: bool | None = True
        self.malformed = 0
        self.closed = 0
        self.overruns = 0
        self.refuses = ""
        self.breaks = ""
        self.turns = threading.Event()

    def open(self) -> Table:
        if self.refuses:
            raise AdapterError(self.refuses)
        return self

    def flows(self) -> Iterator[list[Counted]]:
        if self.breaks:
            why, self.breaks = self.breaks, ""
            raise AdapterError(why)
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        for at in range(0, len(found), 100):
            yield found[at : at + 100]

    def ended(self) -> list[Counted]:
        if self.overruns:
            self.overruns -= 1
            raise Overrun("lost")
        gone, self.gone = self.gone, []
        self.turns.set()
        if not gone:
            time.sleep(0.001)  # as long as a socket would wait
        return gone

    def close(self) -> None:
        self.closed += 1


def counted(key: int, sent: int, got: int = 0, server: str = X, client: str = A) -> Counted:
    return Counted(key, 6, packed(client), packed(server), sent, got)


class Scene:
    def __init__(self, table: Table, settings: VolumeSettings) -> None:
        self.told: list[Evidence] = []
        self.threads: set[int] = set()
        self.turns = table.turns
        self.watch = VolumeWatch(
            settings, SUFFIXES, SteadyClock(), Whose(frozenset((packed("10.0.0.1"),))).leads_out, self._hear,
            counting=table.open, is_on=lambda: table.on, look_s=0.02,
        )  # fmt: skip

    def _hear(self, evidence: Evidence) -> None:
        self.told.append(evidence)
        self.threads.add(threading.get_ident())

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what the thread does."""
        async with asyncio.timeout(HANG_S):
            while not condition():
                await asyncio.to_thread(self.turns.wait, 0.02)
                self.turns.clear()


@asynccontextmanager
async def watching(table: Table, settings: VolumeSettings = DEFAULT) -> AsyncIterator[Scene]:
    scene = Scene(table, settings)
    task = asyncio.get_running_loop().create_task(scene.watch.run())
    try:
        yield scene
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@in_loop
async def test_sums_come_from_the_kernels_counters() -> None:
    table = Table([counted(1, 100)], [counted(1, 150, 7), counted(2, 30, 1)])
    async with watching(table) as scene:
        await scene.until(lambda: scene.watch.looks >= 3)
        carried = scene.watch.of(packed(A), X)
        assert carried is not None and (carried.out_bytes, carried.in_bytes) == (80, 8)
        assert scene.watch.screen() == {
            "observed": True, "problem": "", "flows": 2, "flows_uncounted": 0, "bytes_out": 80, "bytes_in": 8,
            "alerts": 0, "alerts_untold": 0,
        }  # fmt: skip
        assert scene.watch.warnings() == []
    assert table.closed == 1


@in_loop
async def test_what_goes_through_nat64_of_our_own_is_named_by_who_lives_there() -> None:
    inside = "2001:db8:64::cb00:7109"  # X behind the prefix
    table = Table([], [counted(1, 150, 7, inside, "fd00::5")])
    async with watching(table) as scene:
        scene.watch.swap(DEFAULT, own_prefixes((parse_network("2001:db8:64::/96") or (b"", 0),)))
        scene.watch.learn([(b"", "there.example", packed(X), scene.watch._clock.now_us())])
        await scene.until(lambda: scene.watch.looks >= 3)
        assert scene.watch.of(packed("fd00::5"), "there.example") is not None


@in_loop
async def test_a_flow_that_ends_between_two_looks_counts() -> None:
    table = Table([], [])
    async with watching(table) as scene:
        await scene.until(lambda: scene.watch.looks >= 1)
        table.overruns = 1
        table.gone = [counted(3, 500, 20)]
        await scene.until(lambda: scene.watch.of(packed(A), X) is not None)
        assert [row.out_bytes for _, _, row in scene.watch.volume.rows()] == [500]
        assert scene.watch.lost == 1


@in_loop
async def test_destinations_have_the_names_that_clients_used() -> None:
    table = Table([], [counted(1, 10), counted(2, 20, server=Y), counted(3, 30, client="10.0.0.6")])
    async with watching(table) as scene:
        now_us = SteadyClock().now_us()
        scene.watch.learn(
            [
                (packed(A), "said.example", packed(X), now_us),
                (b"", "one.example", packed(Y), now_us),
                (b"", "other.example", packed(X), now_us),
            ]
        )
        await scene.until(lambda: scene.watch.looks >= 3)
        rows = {(client, where): row.out_bytes for client, where, row in scene.watch.volume.rows()}
        assert rows == {
            (packed(A), "said.example"): 10,  # in its own words
            (packed(A), "one.example"): 20,  # who lives there alone
            (packed("10.0.0.6"), X): 30,  # two live there: nobody knows which
        }


@in_loop
async def test_a_set_quantity_is_told_on_the_loop() -> None:
    table = Table([], [counted(1, 2 * MIB)])
    async with watching(table, VolumeSettings(out_hour=MIB)) as scene:
        await scene.until(lambda: scene.told)
        await scene.until(lambda: scene.watch.looks >= 4)
        (told,) = scene.told
        assert (told.client, told.destination, told.score) == (packed(A), X, 100)
        assert scene.threads == {threading.get_ident()}


@in_loop
async def test_new_settings_hold_from_the_next_look() -> None:
    table = Table([], [counted(1, 2 * MIB)], [counted(1, 3 * MIB)])
    async with watching(table) as scene:
        await scene.until(lambda: scene.watch.looks >= 2)
        scene.watch.swap(VolumeSettings(out_hour=MIB))
        table.looks = [[counted(1, 9 * MIB)]]
        await scene.until(lambda: scene.told)


@in_loop
async def test_a_quantity_set_far_too_low_does_not_flood_the_core() -> None:
    many = [counted(number, 10, server=f"203.0.{number >> 8}.{number & 255}") for number in range(MAX_TOLD + 300)]
    table = Table([], many)
    async with watching(table, VolumeSettings(out_hour=1)) as scene:
        await scene.until(lambda: scene.watch.looks >= 3)
        await scene.until(lambda: len(scene.told) == MAX_TOLD)
        assert scene.watch.untold == 300


@pytest.mark.parametrize("on", [False, None])
@in_loop
async def test_it_says_so_when_the_kernel_does_not_count_and_turns_nothing_on(on: bool | None) -> None:
    table = Table([])
    table.on = on
    async with watching(table) as scene:
        await scene.until(lambda: scene.watch.unobserved >= 2)
        (warning,) = scene.watch.warnings()
        assert warning == "VOLUME is not counted: sysctl -w net.netfilter.nf_conntrack_acct=1"
        assert scene.watch.of(packed(A), X) is None
        table.on = True  # somebody did
        await scene.until(lambda: not scene.watch.problem)
        table.on = False
        await scene.until(lambda: scene.watch.problem)


@in_loop
async def test_whoever_asks_for_nothing_of_it_hears_no_alarm() -> None:
    """The alarm stayed for ever on a gateway that is not meant to count."""
    table = Table([])
    table.on = False
    nothing = DEFAULT._replace(baseline=False)
    async with watching(table, nothing) as scene:
        await scene.until(lambda: scene.watch.unobserved)
        assert scene.watch.warnings() == [] and scene.watch.screen()["observed"] is False
        scene.watch.swap(nothing._replace(out_day=1))
        assert "not counted" in scene.watch.warnings()[0]
        table.on = True
        await scene.until(lambda: not scene.watch.warnings())


@in_loop
async def test_trouble_with_the_kernel_is_told_and_tried_again() -> None:
    table = Table([counted(1, 5)], [counted(1, 9)])
    table.refuses = "netlink socket to netfilter: Operation not permitted"
    async with watching(table) as scene:
        await scene.until(lambda: scene.watch.unobserved)
        assert "not permitted" in scene.watch.warnings()[0]
        table.refuses = ""
        await scene.until(lambda: scene.watch.looks >= 4 and not scene.watch.problem)
        table.breaks = "the kernel did not finish a dump of its connections in time"
        before = scene.watch.unobserved
        await scene.until(lambda: scene.watch.unobserved > before)
        await scene.until(lambda: not scene.watch.problem)
        assert [row.out_bytes for _, _, row in scene.watch.volume.rows()] == [4]


@in_loop
async def test_a_fault_of_the_thread_ends_the_run() -> None:
    table = Table([counted(1, 1)])
    scene = Scene(table, VolumeSettings())
    table.looks = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        await scene.watch.run()


@in_loop
async def test_names_that_wait_are_bounded() -> None:
    table = Table([])
    table.on = False
    async with watching(table) as scene:
        scene.watch.learn((b"", "one.example", packed(Y), number) for number in range(100_010))
        assert scene.watch.names_lost == 10


@in_loop
async def test_a_table_of_100_000_flows_holds_the_interpreter_for_moments_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured in the thread's own processor time between two pauses: the machine may be busy with anything else."""
    bodies = [
        flow(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"203.0.113.{number & 127}", number, id_=number)
        for number in range(20_000)
    ]

    class Large(Table):
        def flows(self) -> Iterator[list[Counted]]:
            for turn in range(5):
                for at in range(0, len(bodies), 100):
                    piece = [parse_counted(body) for body in bodies[at : at + 100]]
                    yield [one._replace(key=turn << 32 | at + number) for number, one in enumerate(piece)]

    held_s: list[float] = []
    before_s: dict[int, float] = {}
    honest = time.sleep

    def pause(seconds: float) -> None:
        thread, now_s = threading.get_ident(), time.thread_time()
        held_s.append(now_s - before_s.get(thread, now_s))
        honest(seconds)
        before_s[thread] = time.thread_time()

    monkeypatch.setattr(time, "sleep", pause)
    async with watching(Large([])) as scene:
        await scene.until(lambda: scene.watch.looks >= 2)
        assert scene.watch.screen()["flows"] == 100_000
    held_s.sort()
    assert len(held_s) > 2_000
    assert held_s[-len(held_s) // 1_000 - 1] < 0.005, held_s[-20:]


@pytest.mark.parametrize(
    ("source", "destination", "out"),
    [
        (A, X, True), ("fd00::5", "2001:db8::9", True), ("2001:db8:1::5", "2001:db8:9::9", True),
        ("10.9.0.1", X, True), (X, A, False), ("10.0.0.1", X, False), (A, "10.0.0.6", False),
        ("2001:db8:1::5", "2001:db8:1::6", False), (A, "203.0.113.1", False), (A, "224.0.0.251", False),
        ("198.51.100.9", "203.0.113.7", True),
    ],
)  # fmt: skip
def test_which_flows_are_hosts_of_ours_to_the_outside(source: str, destination: str, out: bool) -> None:
    lan = NetworkTable([(packed("2001:db8:1::"), 64, "")])
    segments = NetworkTable([(packed("198.51.100.0"), 24, "lab")])
    whose = Whose(frozenset((packed("10.0.0.1"), packed("203.0.113.1"))), lan, segments)
    assert whose.leads_out(packed(source), packed(destination)) is out


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"observed": True, "flows": 1_200, "flows_uncounted": 3}, "1,200 flows, 3 of them from before"),
        ({"observed": False, "problem": f"why; to turn it on: {TURN_ON}"}, f"off: {TURN_ON}"),
        ({"observed": False, "problem": "no netlink"}, "not observed: no netlink"),
    ],
)
def test_what_doctor_says(seen: dict[str, object], said: str) -> None:
    assert doctor._volume(seen).startswith(said)
