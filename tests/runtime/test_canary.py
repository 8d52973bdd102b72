"""The canary: a frame that our own dissector reads as exactly that question, names that carry addresses, verdicts."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.enforce.adapter import AdapterError
from egressd.model import DNS_QUERY, UDP, DnsMessage, Observation
from egressd.runtime import canary as canary_module
from egressd.runtime import screens
from egressd.runtime.canary import Canary, send_question
from egressd.runtime.canary_names import CANARY_ZONE, canary_address, canary_name
from egressd.runtime.core import Core
from egressd.wire.dissector import Dissector
from tests.detect.scene import packed
from tests.loops import in_loop
from tests.runtime.core_scene import CONFIG, site_at
from tests.runtime.scene import T0, Hands

ETHERNET = 1
MAC = bytes.fromhex("020000000099")


class Wire:
    """Stands for a packet socket: what was sent, and the hardware address."""

    sent: list[bytes]
    bound: list[tuple[str, int]]

    def __init__(self, mac: bytes = MAC, error: OSError | None = None) -> None:
        self.sent, self.bound = [], []
        self._mac = mac
        self._error = error

    def __call__(self, *args: int) -> Wire:
        return self

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *args: object) -> None: ...

    def bind(self, where: tuple[str, int]) -> None:
        if self._error is not None:
            raise self._error
        self.bound.append(where)

    def getsockname(self) -> tuple[Any, ...]:
        return ("eth1", 0x0800, 0, 1, self._mac)

    def send(self, frame: bytes) -> int:
        self.sent.append(frame)
        return len(frame)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    made = Wire()
    monkeypatch.setattr(canary_module.socket, "socket", made)
    return made


def seen_in(frame: bytes) -> list[Observation]:
    found: list[Observation] = []
    dissector = Dissector(found.append)
    dissector.packet(T0, 1, ETHERNET, frame, 0, len(frame), len(frame))
    dissector.flush()
    return found


@given(st.binary(min_size=4, max_size=4), st.integers(0, 0xFFFF))
def test_the_frame_is_exactly_that_question(address: bytes, txid: int) -> None:
    name = canary_name(address)
    wire = Wire()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", wire)
        send_question("eth1", name, txid)
    (frame,) = wire.sent
    assert wire.bound == [("eth1", 0x0800)]
    assert frame[:6] == MAC and frame[6] & 2  # to the interface itself, from an address that is nobody's
    (seen,) = seen_in(frame)
    assert (seen.kind, seen.name, seen.flow.proto, seen.flow.server_port) == (DNS_QUERY, name, UDP, 53)
    assert isinstance(seen.detail, DnsMessage) and seen.detail.txid == txid
    assert (seen.flow.client, seen.flow.server) == (packed("192.0.2.53"), packed("192.0.2.54"))
    head = frame[14:34]
    total = sum(int.from_bytes(head[at : at + 2], "big") for at in range(0, 20, 2))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF  # RFC 1071: over a right header all ones
    assert head[8] == 1  # no router hands it on


def test_an_interface_without_hardware_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_module.socket, "socket", Wire(mac=b""))
    with pytest.raises(OSError, match="hardware addresses"):
        send_question("wg0", canary_name(b"abcd"), 1)


# -- names


@given(st.binary(min_size=4, max_size=4))
def test_names_carry_addresses(address: bytes) -> None:
    assert packed(canary_address(canary_name(address))) == address


@pytest.mark.parametrize(
    "label", ["", "x", "c6336407c6", "c63364", "c633640", "..", "xn--zz", "c6336407.c6336407", "ff" * 16, "-1", "é"]
)
def test_hostile_names_give_an_address_of_no_use(label: str) -> None:
    assert canary_address(label + CANARY_ZONE) == "0.0.0.0"


@given(st.text(max_size=80))
def test_any_name_gives_an_address(name: str) -> None:
    for asked in (name, name + CANARY_ZONE):
        assert len(packed(canary_address(asked))) == 4


# -- verdicts


class Kernel:
    """Stands for the enforcement: what stands in the scratch set."""

    def __init__(self, there: bool = True, error: str = "") -> None:
        self.there = there
        self.error = error
        self.asked: list[str] = []

    async def take_canary(self, address: str) -> bool:
        self.asked.append(address)
        if self.error:
            raise AdapterError(self.error)
        return self.there


class Nest:
    """A canary whose questions are seen as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kernel: Kernel, pushed: bool = True) -> None:
        self.hands = Hands()
        self.kernel = kernel
        self.asked: list[str] = []
        self.deaf: set[str] = set()
        self.sent: dict[str, int] = {}
        enforcement: Any = kernel
        self.canary = Canary(self.hands.clock(), enforcement, self.sent)
        self._pushed = pushed
        monkeypatch.setattr(canary_module, "send_question", self.send)
        monkeypatch.setattr(canary_module, "WAIT_S", 0.0)

    def send(self, interface: str, name: str, txid: int) -> None:
        if interface == "gone0":
            raise OSError(19, "No such device")
        self.asked.append(name)
        self.hands.pass_s(0.0015)
        if interface not in self.deaf:
            now_us = self.hands.wall_us
            self.canary.seen(name, now_us, now_us if self._pushed else -1)


@in_loop
async def test_seen_pushed_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    nest = Nest(monkeypatch, kernel)
    steps = await nest.canary.prove(["eth1", "eth2"])
    assert [(what, ok) for what, ok, _, _ in steps] == [
        ("detect eth1", True), ("push eth1", True), ("detect eth2", True), ("push eth2", True),
    ]  # fmt: skip
    assert kernel.asked == [canary_address(name) for name in nest.asked]
    assert len(set(nest.asked)) == 2
    told = nest.canary.told()
    assert (told["state"], told["problem"], told["detect_ms"], nest.canary.failures) == ("ok", None, 1.5, 0)
    assert told["last_ok"].endswith("+0000")
    assert nest.sent == {"eth1": 1, "eth2": 1}


@in_loop
async def test_in_monitor_nothing_is_pushed_and_that_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(there=False)
    nest = Nest(monkeypatch, kernel, pushed=False)
    assert [(what, ok) for what, ok, _, _ in await nest.canary.prove(["eth1"])] == [("detect eth1", True)]
    assert (nest.canary.state, kernel.asked) == ("ok", [])


@pytest.mark.parametrize(
    ("interface", "kernel", "problem"),
    [
        ("deaf0", Kernel(), "detect deaf0: the canary's question was not seen"),
        ("gone0", Kernel(), "detect gone0: the canary could not be sent: No such device"),
        ("eth1", Kernel(there=False), "push eth1: pushed, but not in the kernel's scratch set"),
        ("eth1", Kernel(error="nft is gone"), "push eth1: nft is gone"),
    ],
)
@in_loop
async def test_what_fails_says_why_and_recovers(
    monkeypatch: pytest.MonkeyPatch, interface: str, kernel: Kernel, problem: str
) -> None:
    nest = Nest(monkeypatch, kernel)
    nest.deaf.add("deaf0")
    steps = await nest.canary.prove([interface])
    assert not all(ok for _, ok, _, _ in steps)
    assert (nest.canary.state, nest.canary.told()["problem"], nest.canary.failures) == ("failing", problem, 1)
    nest.deaf.clear()
    kernel.there, kernel.error = True, ""
    await nest.canary.prove(["eth1"])
    assert (nest.canary.state, nest.canary.told()["problem"], nest.canary.failures) == ("ok", None, 1)


@in_loop
async def test_one_lost_packet_is_no_alarm_and_two_are(monkeypatch: pytest.MonkeyPatch) -> None:
    nest = Nest(monkeypatch, Kernel())
    await nest.canary.prove(["eth1"])
    nest.deaf.add("eth1")
    await nest.canary.prove(["eth1"])
    assert nest.canary.state == "ok"
    await nest.canary.prove(["eth1"])
    assert nest.canary.state == "failing"


@in_loop
async def test_without_an_interface_nothing_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    nest = Nest(monkeypatch, Kernel())
    assert await nest.canary.prove([]) == []
    assert nest.canary.state == "failing"


@in_loop
async def test_a_canary_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nest = Nest(monkeypatch, Kernel())
    nest.canary.seen(canary_name(b"abcd"), T0, T0)  # anybody may ask for such a name
    await nest.canary.prove(["eth1"])
    nest.canary.seen(nest.asked[0], T0, T0)  # late, or twice
    assert (nest.canary.state, nest.canary._waiting) == ("ok", {})


def test_off() -> None:
    enforcement: Any = SimpleNamespace()
    canary = Canary(Hands().clock(), enforcement, {})
    assert canary.told()["state"] == "starting"
    canary.enabled = False
    assert canary.told() == {"state": "off", "last_ok": None, "detect_ms": None, "push_ms": None, "problem": None}


# -- interfaces where hosts are quiet


@pytest.mark.parametrize(
    ("packets", "proved_s", "state"),
    [
        ("ours", 250, "up"),  # at night nobody sends: the canary shows that the interface sees
        ("ours", 0, "silent"),  # it does not come back any more
        ("ours", None, "silent"),
        ("all", 250, "silent"),  # of a mirror port it shows nothing: a cable may be pulled
    ],
)
@in_loop
async def test_an_interface_is_silent_when_no_canary_comes_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packets: str, proved_s: int | None, state: str
) -> None:
    config = CONFIG + f"capture: {{packets: {packets}}}\n"
    async with site_at(tmp_path, "monitor", config) as site:
        row = {"name": "eth1", "state": "up", "problem": "", "last_us": 0, "packets": 4, "kernel_drops": 0}
        monkeypatch.setattr(site.core.sensing, "interfaces", lambda: [{**row, "abandoned": 0}])
        enforcement: Any = Kernel()
        canary = Canary(site.core.clock, enforcement, {})
        monkeypatch.setattr(canary_module, "send_question", lambda _, name, __: canary.seen(name, 1, -1))
        for second in range(0, 301, 10):
            if second == proved_s:
                await canary.prove(["eth1"])
            site.hands.pass_s(10)
        (interface,) = await interfaces_of(site.core, canary)
        assert (interface["state"], interface["last_packet"]) == (state, None)


async def interfaces_of(core: Core, canary: Canary) -> list[dict[str, Any]]:
    core.enforcement.adapters = list  # type: ignore[method-assign]
    shown = await screens.status(core, canary, 0.0, False, 0.0)
    found: list[dict[str, Any]] = shown["interfaces"]
    return found
