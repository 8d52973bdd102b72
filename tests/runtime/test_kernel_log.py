"""What the kernel's log tells of, and how a group that another program has is asked for again."""

from __future__ import annotations

from errno import EBUSY, ENOMEM
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from egressd.enforce.netlink import NetlinkError
from egressd.enforce.nflog import Dropped
from egressd.model import UDP, FlowKey
from egressd.runtime import kernel_log
from egressd.runtime.kernel_log import RETRY_MOST_S, KernelLog
from tests.loops import in_loop
from tests.runtime.scene import Hands
from tests.wire.frames_made import ACK, CLIENT, SERVER, frame, tcp, udp


def test_of_what_the_kernel_stopped_the_outermost_packet_is_the_try() -> None:
    """GRE to a blocked address was told as what it carried, an echo request not at all; answers and the rest of a
    connection are no tries."""
    told: list[FlowKey] = []
    one = KernelLog(Hands().clock(), lambda flows: told.extend(flow for _, flow in flows), lambda text: None)
    inner = udp(("10.9.9.9", 4_000), ("10.9.9.1", 4_001), b"abc")[14:]
    stopped = [
        frame(CLIENT, SERVER, 47, b"\0\0\x08\0" + inner),
        frame(CLIENT, SERVER, 1, b"\x08\0\0\0\0\7\0\1"),
        frame(CLIENT, SERVER, 1, b"\0\0\0\0\0\7\0\1"),
        frame(CLIENT, SERVER, 1, b"\3\1\0\0\0\0\0\0" + inner),
        tcp((CLIENT, 40_000), (SERVER, 443), 1, ACK, b"abc"),
        udp((CLIENT, 40_000), (SERVER, 443), b"abc"),
    ]
    dropped = [Dropped(1, "egressd:b4", packet[14:], 1) for packet in stopped]
    one._nflog = SimpleNamespace(read=lambda now_us: dropped)  # type: ignore[assignment]
    one._read()
    client, server = ip_address(CLIENT).packed, ip_address(SERVER).packed
    assert told == [
        FlowKey(47, client, 0, server, 0), FlowKey(1, client, 7, server, 8), FlowKey(UDP, client, 40_000, server, 443),
    ]  # fmt: skip


@in_loop
async def test_it_is_tried_again_less_and_less_often_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    number = EBUSY

    def refused(groups: tuple[int, ...]) -> None:
        tries.append(groups[0])
        raise NetlinkError(number, "refused")

    told: list[str] = []
    now_s = [1_000.0]
    clock: Any = SimpleNamespace(time=lambda: now_s[0])
    monkeypatch.setattr(kernel_log, "Nflog", refused)
    monkeypatch.setattr(kernel_log.asyncio, "get_running_loop", lambda: clock)
    one = KernelLog(Hands().clock(), lambda flows: None, told.append)
    one.look()
    assert tries == [], "nobody enforces"
    one.listen(9)
    for _ in range(300):
        now_s[0] += 1.0
        one.look()
    assert set(tries) == {9} and 1 + 300 / RETRY_MOST_S < len(tries) < 12
    assert len(told) == 1 and told[0].startswith("log group 9 is another program's")
    number = ENOMEM
    now_s[0] += RETRY_MOST_S
    one.look()
    assert (
        told[1] == "log group 9 cannot be read: what the kernel drops is not counted; refused: Cannot allocate memory"
    )
    one.let_go()
    now_s[0] += RETRY_MOST_S
    one.look()
    assert len(told) == 2
