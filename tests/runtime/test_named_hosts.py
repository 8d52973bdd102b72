"""Names that this gateway depends on: where they live is asked again and again, and kept."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from ipaddress import ip_address

import pytest

from egressd.runtime.named_hosts import AGAIN_S, KEPT_S, MAX_ADDRESSES, RETRY_S, NamedHosts, resolve_name
from tests.loops import HANG_S

TIME = "time.ours.example"


def packed(*texts: str) -> list[bytes]:
    return [ip_address(text).packed for text in texts]


class Resolver:
    """Answers what it is told to; `asked` are the names, in order."""

    def __init__(self) -> None:
        self.answers: dict[str, list[bytes]] = {}
        self.asked: list[str] = []
        self.now_s = 1_000.0
        self.changes = 0
        self.named = NamedHosts(self, lambda: self.now_s, self.change)

    def __call__(self, name: str) -> list[bytes]:
        self.asked.append(name)
        if name not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.answers[name]

    def change(self) -> None:
        self.changes += 1

    def ask(self, after_s: float = 0.0) -> list[str]:
        """Let time pass; what is protected then."""
        self.now_s += after_s
        asyncio.run(self.named.resolve_due())
        return [str(ip_address(address)) for address, _ in self.named.addresses()]


def test_a_name_is_asked_at_once_and_again_later() -> None:
    resolver = Resolver()
    resolver.answers[TIME] = packed("192.0.2.1", "2001:db8::1")
    resolver.named.want({TIME: "time server"})
    assert resolver.ask() == ["192.0.2.1", "2001:db8::1"]
    assert resolver.named.addresses()[0][1] == f"time server {TIME}"
    resolver.ask(AGAIN_S - 1)
    assert resolver.asked == [TIME]
    resolver.ask(1)
    assert resolver.asked == [TIME, TIME]
    assert resolver.changes == 1


def test_what_a_pool_answered_stays_for_a_day() -> None:
    resolver = Resolver()
    resolver.named.want({TIME: "time server"})
    resolver.answers[TIME] = packed("192.0.2.1")
    resolver.ask()
    resolver.answers[TIME] = packed("192.0.2.2")
    assert resolver.ask(AGAIN_S) == ["192.0.2.1", "192.0.2.2"]
    assert resolver.ask(KEPT_S) == ["192.0.2.2"]


def test_a_resolver_that_is_out_of_order_exposes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    resolver = Resolver()
    resolver.named.want({TIME: "time server", "gone.example": "time server"})
    resolver.answers[TIME] = packed("192.0.2.1")
    with caplog.at_level(logging.WARNING):
        resolver.ask()
        del resolver.answers[TIME]
        assert resolver.ask(AGAIN_S) == ["192.0.2.1"]
        assert resolver.ask(RETRY_S) == ["192.0.2.1"]
    assert resolver.named.unknown == ["gone.example", TIME]
    assert [one.message.partition(";")[0] for one in caplog.records] == [
        "the time server gone.example cannot be resolved: Name or service not known",
        f"the time server {TIME} cannot be resolved: Name or service not known",
    ]  # once each, not with every try
    resolver.answers[TIME] = packed("192.0.2.3")
    assert resolver.ask(RETRY_S) == ["192.0.2.1", "192.0.2.3"]
    assert resolver.named.unknown == ["gone.example"]


def test_addresses_need_no_question_and_names_that_are_given_up_go() -> None:
    resolver = Resolver()
    resolver.answers[TIME] = packed("192.0.2.1")
    resolver.named.want({"192.0.2.123": "time server", TIME: "time server"})
    assert resolver.ask() == ["192.0.2.123", "192.0.2.1"]
    assert resolver.named.addresses()[0][1] == "time server"
    resolver.named.want({TIME: "time server"})
    assert resolver.ask() == ["192.0.2.1"]
    resolver.named.want({})
    assert resolver.ask(AGAIN_S) == []
    assert resolver.asked == [TIME]


def test_a_hostile_answer_is_bounded() -> None:
    resolver = Resolver()
    resolver.named.want({TIME: "time server"})
    resolver.answers[TIME] = [ip_address(0x0A000000 + number).packed for number in range(1_000)]
    assert len(resolver.ask()) == MAX_ADDRESSES


def test_it_runs_by_itself_and_hears_of_new_names() -> None:
    async def scene() -> list[bytes]:
        resolver = Resolver()
        resolver.answers[TIME] = packed("192.0.2.1")
        known = asyncio.Event()
        named = NamedHosts(resolver, on_change=known.set)
        running = asyncio.get_running_loop().create_task(named.run())
        try:
            await asyncio.sleep(0)
            named.want({TIME: "time server"})
            async with asyncio.timeout(HANG_S):
                await known.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return [address for address, _ in named.addresses()]

    assert asyncio.run(scene()) == packed("192.0.2.1")
    assert not [one for one in threading.enumerate() if one.name.startswith("egressd-names")]


def test_the_machines_resolver_knows_localhost() -> None:
    assert set(resolve_name("localhost")) <= set(packed("127.0.0.1", "::1"))
    with pytest.raises(OSError, match=r"."):
        resolve_name("does-not-exist.invalid")


@pytest.mark.parametrize("name", ["feeds..ours.example", f"{'a' * 64}.ours.example"])
def test_a_name_that_nobody_can_ask_for_is_one_that_cannot_be_resolved(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The host of a feed's URL with two dots ended the daemon, at each start again."""
    named = NamedHosts()
    named.want({name: "feed one"})
    asyncio.run(named.resolve_due())
    assert named.unknown == [name]
    assert "cannot be resolved: no name that can be asked for" in caplog.text
