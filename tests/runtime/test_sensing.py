"""The packet processes' numbers: sums over the living and the ended, interfaces merged, hostile numbers harmless."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.config.schema import Config
from egressd.metrics.histogram import Histogram
from egressd.runtime.orders import Order, Start, Stop
from egressd.runtime.sensing import Sensing, resident_bytes, start_order
from tests.runtime.events import ANY_JSON

COUNTS = ("packets", "kernel_drops", "received", "abandoned", "gated")


async def _nobody(number: int, batch: dict[str, Any]) -> None: ...


def sensing_of(processes: int = 2) -> Sensing:
    def no_start(number: int) -> tuple[Start, list[Order]]:
        raise AssertionError("nothing is started here")

    return Sensing(processes, no_start, _nobody)


def say(sensing: Sensing, number: int, stats: Any, life: int | None = None) -> None:
    """A batch with numbers, as `processes.PacketProcessHandle` hands it on; it knows which child of its sends them,
    whatever pid they tell. `life` is its real pid; without one that which is told."""
    process = sensing.processes[number]
    told = stats.get("pid") if isinstance(stats, dict) else None
    if life is not None or isinstance(told, int):
        process.pid = life if life is not None else int(told or 0)
    asyncio.run(sensing._take(number, {"n": 1, "stats": stats}))
    process.ready.set()


def interface(name: str = "eth1", packets: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "wanted": name, "name": name, "state": "up", "problem": "", "last_us": 0, **dict.fromkeys(COUNTS, 0),
        "packets": packets, **more,
    }  # fmt: skip


def pushed(*seconds: float) -> list[int]:
    histogram = Histogram()
    for one in seconds:
        histogram.observe(one)
    return histogram.cells


def stats(pid: int, packets: int, **more: Any) -> dict[str, Any]:
    return {
        "pid": pid, "packets": packets, "observations": {"dns_query": packets}, "clients": 3, "netlink_port": pid + 1,
        "interfaces": [interface(packets=packets)], "pushed": pushed(*[0.001] * packets), "compiled": True,
        "realtime": False, **more,
    }  # fmt: skip


def test_the_newest_numbers_of_each_process_count() -> None:
    sensing = sensing_of()
    for packets in (1, 5, 9):
        say(sensing, 0, stats(10, packets))
    say(sensing, 1, stats(20, 2))
    assert sensing.total("packets") == 11
    assert sensing.totals("observations") == {"dns_query": 11}
    assert sensing.time_to_block().count == 11
    assert sensing.netlink_ports() == [11, 21]
    assert [(row["packets"], row["compiled"], row["realtime"]) for row in sensing.rows()] == [
        (9, True, False),
        (2, True, False),
    ]


def test_what_ended_goes_on_counting_and_nothing_else_of_it() -> None:
    sensing = sensing_of(1)
    say(sensing, 0, stats(10, 7))
    say(sensing, 0, stats(11, 1))  # another process in its place
    say(sensing, 0, stats(12, 2))
    assert sensing.total("packets") == 10
    assert sensing.totals("observations") == {"dns_query": 10}
    assert sensing.time_to_block().count == 10
    (row,) = sensing.interfaces()
    assert row["packets"] == 10
    assert sensing.netlink_ports() == [13]
    assert sensing.total("clients") == 3  # a state, not a count


LIVES = st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4), min_size=1, max_size=5)


@given(LIVES, LIVES)
def test_totals_never_go_backwards(one: list[list[int]], two: list[list[int]]) -> None:
    """Each life counts up from 0 and is followed by another."""
    sensing = sensing_of()
    told: list[tuple[int, int, int]] = []
    wanted = 0
    for number, lives in enumerate((one, two)):
        for life, growth in enumerate(lives):
            packets = 0
            for more in growth:
                packets += more
                told.append((number, 100 * number + life + 1, packets))
            wanted += packets
    before = 0
    for number, pid, packets in told:
        say(sensing, number, stats(pid, packets))
        now = sensing.total("packets")
        assert now >= before
        assert sensing.totals("observations") == {"dns_query": now}
        assert sensing.time_to_block().count == now
        assert sum(row["packets"] for row in sensing.interfaces()) == now
        before = now
    assert before == wanted


def test_interfaces_of_all_processes_are_one_entry_each() -> None:
    sensing = sensing_of()
    say(sensing, 0, stats(1, 0, interfaces=[interface("eth1", 5, last_us=70, kernel_drops=1), interface("eth2", 1)]))
    say(
        sensing, 1,
        stats(2, 0, interfaces=[interface("eth2", 2, problem="no such device"), interface("eth1", 3, last_us=90)]),
    )  # fmt: skip
    rows = {row["name"]: row for row in sensing.interfaces()}
    assert list(rows) == ["eth1", "eth2"]
    assert (rows["eth1"]["packets"], rows["eth1"]["kernel_drops"], rows["eth1"]["last_us"]) == (8, 1, 90)
    assert (rows["eth2"]["packets"], rows["eth2"]["problem"]) == (3, "no such device")


def test_an_interface_that_one_process_cannot_read_is_not_up() -> None:
    sensing = sensing_of()
    say(sensing, 0, stats(1, 0))
    say(sensing, 1, stats(2, 0, interfaces=[interface("eth1", state="down", problem="network is down")]))
    assert [row["state"] for row in sensing.interfaces()] == ["down"]


def test_an_interface_that_is_captured_no_more_is_not_shown() -> None:
    sensing = sensing_of(1)
    say(sensing, 0, stats(1, 0, interfaces=[interface("eth1", 5)]))
    say(sensing, 0, stats(2, 0, interfaces=[interface("eth2", 1)]))
    assert [(row["name"], row["packets"]) for row in sensing.interfaces()] == [("eth2", 1)]
    say(sensing, 0, stats(3, 0, interfaces=[interface("eth1", 2)]))
    assert [(row["name"], row["packets"]) for row in sensing.interfaces()] == [("eth1", 7)]


def test_an_interface_is_not_up_while_its_process_begins_anew() -> None:
    sensing = sensing_of()
    for number in (0, 1):
        say(sensing, number, stats(number + 1, 5))
    assert [row["state"] for row in sensing.interfaces()] == ["up"]
    sensing.processes[1].ready.clear()
    assert [(row["state"], row["packets"]) for row in sensing.interfaces()] == [("restarting", 10)]
    say(sensing, 1, stats(9, 1))
    assert [(row["state"], row["packets"]) for row in sensing.interfaces()] == [("up", 11)]


def test_another_process_is_known_whatever_pid_it_tells() -> None:
    sensing = sensing_of(1)
    say(sensing, 0, stats(7, 5), life=10)
    say(sensing, 0, stats(8, 6), life=10)
    assert sensing.total("packets") == 6
    say(sensing, 0, stats(8, 1), life=11)
    assert sensing.total("packets") == 7


def test_canaries_are_no_sign_of_life() -> None:
    sensing = sensing_of(1)
    say(sensing, 0, stats(1, 0, interfaces=[interface("eth1", 3, last_us=100)]))
    assert sensing.interfaces()[0]["last_us"] == 100
    sensing.canaries["eth1"] = 1
    say(sensing, 0, stats(1, 0, interfaces=[interface("eth1", 4, last_us=200)]))
    assert sensing.interfaces()[0]["last_us"] == 100
    say(sensing, 0, stats(1, 0, interfaces=[interface("eth1", 5, last_us=300)]))
    assert sensing.interfaces()[0]["last_us"] == 300
    assert sensing.interfaces()[0]["last_us"] == 300


def test_nothing_is_known_before_anything_is_told() -> None:
    sensing = sensing_of()
    assert (sensing.total("packets"), sensing.totals("blind"), sensing.interfaces()) == (0, {}, [])
    assert (sensing.time_to_block().count, sensing.netlink_ports(), sensing.alive()) == (0, [], 0)
    assert [row["packets"] for row in sensing.rows()] == [0, 0]


@given(
    st.lists(
        st.one_of(
            ANY_JSON, st.dictionaries(st.sampled_from(["packets", "interfaces", "blind", "pushed", "pid"]), ANY_JSON)
        ),
        max_size=4,
    )
)
def test_hostile_numbers_are_read_as_none(hostile: list[Any]) -> None:
    sensing = sensing_of(1)
    for life, one in enumerate((*hostile, {}), 101):
        say(sensing, 0, one, life)
        assert isinstance(sensing.total("packets"), int)
        assert all(isinstance(count, int) for count in sensing.totals("blind").values())
        assert all(isinstance(row["packets"], int) for row in (*sensing.interfaces(), *sensing.rows()))
        assert sensing.time_to_block().count >= 0
        assert all(isinstance(port, int) for port in sensing.netlink_ports())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"pid": "x"}, {"pid": 2}, id="a pid that is none"),
        pytest.param({"pid": [1]}, {"pid": 2}, id="a pid that is a list"),
        pytest.param({"pid": 1, "blind": 5}, {"pid": 2, "blind": {"a": 1}}, id="counts that were a number"),
        pytest.param({"pid": 1, "pushed": [1, 2]}, {"pid": 2, "pushed": [1]}, id="cells of another length"),
        pytest.param({"pid": 1, "pushed": [-1] * len(pushed())}, {"pid": 2}, id="cells below 0"),
    ],
)
def test_hostile_numbers_do_not_end_the_daemon(first: dict[str, Any], second: dict[str, Any]) -> None:
    sensing = sensing_of(1)
    for life, one in enumerate((first, second, {"pid": 3}, {"pid": 4}), 101):
        say(sensing, 0, one, life)
        sensing.total("blind")
        sensing.time_to_block()
        sensing.interfaces()
    assert sensing.totals("blind") == second.get("blind", {})


def test_orders_go_to_all_but_one() -> None:
    sensing = sensing_of(3)
    told: list[int] = []
    for process in sensing.processes:
        process.tell = lambda order, number=process.number: told.append(number)  # type: ignore[method-assign,misc]
    sensing.tell(Stop())
    sensing.tell(Stop(), but=1)
    sensing.tell_one(2, Stop())
    assert told == [0, 1, 2, 0, 2, 2]


def test_a_process_that_does_not_live_is_told_nothing() -> None:
    sensing = sensing_of(1)
    sensing.tell(Stop())
    assert sensing.processes[0]._outgoing.empty()


def test_not_ready_in_time() -> None:
    assert not asyncio.run(sensing_of(1).ready(0.0))


def test_the_first_order() -> None:
    config = Config()
    start = start_order(
        config, 1, ("eth1",), 77, (1,), 5, 123, intel=None, settings=None, enforced=True, fast_lane=False
    )  # fmt: skip
    assert (start.number, start.interfaces, start.fanout_group, start.first_number) == (1, ("eth1",), 77, 5)
    assert (start.processes, start.stride) == (config.capture.processes, config.capture.processes + 1)
    assert start.ring_bytes == config.capture.ring_mib << 20
    assert (start.offset_us, start.enforced, start.fast_lane) == (123, True, False)


def test_memory_of_a_process() -> None:
    assert resident_bytes(0) > 1_000_000  # of this one
    assert resident_bytes(2**30) == 0
