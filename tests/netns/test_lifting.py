"""In mode monitor nothing of ours is in the kernel, whatever is in the way of that; and who is, is told."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from egressd.config.schema import Config
from egressd.runtime.enforcement import Enforcement
from egressd.runtime.in_force import Register
from tests.detect.live_scene import intel
from tests.runtime.scene import Hands

pytestmark = pytest.mark.root
Body = Callable[[], Any]
OURS = "add table inet egressd; add chain inet egressd guard { type filter hook forward priority -10; policy drop; }"


def tables() -> str:
    return subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout


async def begun() -> Enforcement:
    one = Enforcement(Register(), Hands().clock(), lambda *_: None, lambda _: None)
    await one.start("monitor", Config(), intel("bad.example\n"), ())
    return one


def test_what_an_earlier_run_left_is_lifted_without_nft(inside: Callable[[Body], Any]) -> None:
    """Where `nft` was away or failed, the blocks stayed, and mode monitor said that nothing is blocked."""

    def body() -> None:
        subprocess.run(["nft", OURS], check=True)

        async def main() -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PATH", "/nonexistent")
                one = await begun()
            left = tables()
            problems = dict(one.problems)
            await one.stop()
            assert (left, problems) == ("", {})

        asyncio.run(main())

    inside(body)


def test_what_cannot_be_lifted_is_told_until_it_is(inside: Callable[[Body], Any]) -> None:
    def body() -> None:
        with subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as owner:
            assert owner.stdin is not None
            owner.stdin.write("add table inet egressd { flags owner; }\n")
            owner.stdin.flush()
            end_s = time.monotonic() + 10
            while "egressd" not in tables() and time.monotonic() < end_s:
                pass

            async def main() -> None:
                one = await begun()
                told = [one.problems.get("nftables", "")]
                one.look()
                told.append(one.problems.get("nftables", ""))
                owner.kill()
                owner.wait()
                while tables() and time.monotonic() < end_s:
                    pass
                one.look()
                problems = dict(one.problems)
                await one.stop()
                assert told[0].startswith("WHAT IS BLOCKED STAYS BLOCKED") and told[0] == told[1]
                assert problems == {}

            asyncio.run(main())

    inside(body)


def test_who_arms_while_something_cannot_be_lifted_keeps_the_table(inside: Callable[[Body], Any]) -> None:
    """A second after `egressd mode enforce` the table was taken away once more, and the claim to it given up."""

    def body() -> None:
        async def main() -> None:
            one = await begun()
            one._unlifted = True  # as the kernel would have refused it
            await one.change_mode("enforce")
            one.look()
            left, has_claim = tables(), one._claim._wanted
            await one.stop()
            assert "egressd" in left and has_claim

        asyncio.run(main())

    inside(body)
