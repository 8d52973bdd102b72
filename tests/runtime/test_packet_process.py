"""A packet process that cannot have its lists says so and ends, one whose clock is set goes on telling, and what it
heard of is told before the past is searched."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from egressd.config.schema import Config
from egressd.detect.gathering import MAX_GATHERED
from egressd.detect.policy_settings import PolicySettings
from egressd.intel.index import Index
from egressd.intel.index_format import suffix_digest
from egressd.intel.layered import LayeredIndex
from egressd.intel.mapped_build import IndexBuilder
from egressd.intel.networks import parse_address
from egressd.model import FLOW, FlowKey
from egressd.runtime import orders
from egressd.runtime.hunting import SETTLE_S
from egressd.runtime.inbox import Inbox
from egressd.runtime.messages import DOWN_OBJECT, MAX_UP_BYTES, Frames, parse_batch, render_frame
from egressd.runtime.packet_process import BULK_US, NO_INDEX, PacketProcess
from egressd.runtime.reporting import FLUSH_US
from egressd.runtime.sensing import start_order
from egressd.store.index_files import IndexFolder, ScratchFile, open_index
from tests.detect.live_scene import intel
from tests.intel.index_scene import SALT, SUFFIXES
from tests.loops import HANG_S
from tests.runtime.scene import SECOND, Hands


def test_an_index_that_is_gone(tmp_path: Path) -> None:
    builder = IndexBuilder(SALT, suffix_digest("test"), 0, partial(ScratchFile, tmp_path))
    path = IndexFolder(tmp_path).write(builder.write, {})
    order = pickle.dumps(LayeredIndex(Index.build([], SUFFIXES), (open_index(str(path), b"", SUFFIXES),), SUFFIXES))
    path.unlink()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(render_frame(DOWN_OBJECT, order))
        done = subprocess.run(
            [sys.executable, "-m", "egressd.runtime.packet_process", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True, check=False, timeout=HANG_S,
        )  # fmt: skip
    assert done.returncode == NO_INDEX
    assert "index-1.idx: No such file or directory; reload the lists" in done.stderr


def test_a_clock_that_is_set_back_makes_it_no_less_talkative() -> None:
    """It said nothing until the clock had come to where it was, and was ended for that after ten seconds."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        start = start_order(
            Config(), 0, (), 1, (), 1, 0, intel=intel("bad.example\n"), settings=PolicySettings(), enforced=False,
            fast_lane=False,
        )  # fmt: skip
        process = PacketProcess(Inbox(theirs), start)
        hands = Hands()
        process._clock = hands.clock(0)
        process._tell(process._clock.now_us())
        process.obey(orders.Step(-600 * SECOND))
        now_us = process._clock.now_us()
        assert process._report.due(now_us)
        process._tell(now_us)
        batches = [parse_batch(body) for _, body in Frames(MAX_UP_BYTES).feed(ours.recv(1 << 20))]
        assert [one["t"] for one in batches if "stats" in one] == [now_us + 600 * SECOND, now_us]
        assert process._bulk_due_us == now_us + BULK_US
        assert process._report._window_us == now_us + FLUSH_US


def test_what_was_heard_of_before_lists_change_is_told_at_once() -> None:
    """The core searches the disk a second later, once: what was still gathered, and allowed until then, was found by
    nobody before the next restart."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        told = intel("bad.example\n", 'allow-destination bad.example owner=o reason="r"\n')
        settings = PolicySettings()
        start = start_order(
            Config(), 0, (), 1, (), 1, 0, intel=told, settings=settings, enforced=False, fast_lane=False
        )
        process = PacketProcess(Inbox(theirs), start)
        hands = Hands()
        process._clock = hands.clock(0)
        client, server = parse_address("10.0.0.5"), parse_address("198.51.100.7")

        def hear(name: str) -> None:
            process._engine.gathering.record(
                FlowKey(6, client, 40_000, server, 443), name, process._clock.now_us(), 1, FLOW, server=server
            )
            hands.pass_s(BULK_US / 1e6)

        def names() -> list[str]:
            process._tell(process._clock.now_us())
            try:
                data = ours.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return []
            batches = [parse_batch(body) for _, body in Frames(MAX_UP_BYTES).feed(data)]
            return [row[2] for one in batches for row in one.get("history", [])]

        hear("www.bad.example")
        assert names() == []
        process.obey(orders.Swap(intel("bad.example\n"), settings, False, False))
        hear("fine.example")
        assert names() == ["www.bad.example"]
        hands.pass_s(6)
        assert names() == ["fine.example"]


def test_much_that_was_heard_of_before_lists_change_is_told_until_the_core_searches() -> None:
    """Of 4,000 contacts the later half was on disk after the search: a batch has a hundred, 20 times a second."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        settings = PolicySettings()
        start = start_order(
            Config(),
            0,
            (),
            1,
            (),
            1,
            0,
            intel=intel("fine.example\n"),
            settings=settings,
            enforced=False,
            fast_lane=False,
        )
        process = PacketProcess(Inbox(theirs), start)
        hands = Hands()
        process._clock = hands.clock(0)
        client, server = parse_address("10.0.0.5"), parse_address("198.51.100.7")
        gathering = process._engine.gathering
        for number in range(MAX_GATHERED // 2 - 1):
            at_us = process._clock.now_us()
            gathering.record(
                FlowKey(6, client, 40_000, server, 443), f"w{number}.example", at_us, 1, FLOW, server=server
            )
        hands.pass_s(0.001)
        process.obey(orders.Swap(intel("bad.example\n"), settings, False, False))
        for _ in range(int(SETTLE_S * 1e6 / BULK_US)):
            process._tell(process._clock.now_us())
            hands.pass_s(BULK_US / 1e6)
            with suppress(BlockingIOError):
                ours.recv(1 << 20, socket.MSG_DONTWAIT)
        assert gathering.take() == []
