"""An allowance lifts a block in the kernel and says so in the incident; when it goes, the block is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.netns import clients, kernel
from tests.netns.daemon import Daemon, until
from tests.netns.ground import Ground

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

EVIL = {"*.evil.example": ["203.0.113.66", "2001:db8:f::66"]}
ADDRESS = "203.0.113.66"
WITHIN_S = 1.0  # the acceptance: in the kernel within a second


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may"), EVIL) as ground:
        yield ground


@pytest.fixture
def daemon(ground: Ground) -> Iterator[Daemon]:
    with ground.daemon("listed.evil.example\n") as daemon:
        yield daemon


def _notes(daemon: Daemon, client: str) -> list[str]:
    found = daemon.ask("incidents", client=client)["incidents"]
    return [str(note["text"]) for one in found for note in one["notes"]]


def _change(ground: Ground, what: Callable[[], Any], holds: bool) -> float:
    """Make a change of what is allowed; how many seconds after its beginning the kernel was as it should be."""
    began_s = time.monotonic()
    what()
    until(lambda: kernel.holds(ground.gateway, [ADDRESS]) == holds, why=f"held must be {holds}")
    took_s = time.monotonic() - began_s
    print(f"{'back' if holds else 'lifted'} in the kernel after {took_s * 1000:.0f} ms")
    return took_s


def _by_command(daemon: Daemon) -> tuple[Callable[[], Any], Callable[[], Any]]:
    return (
        lambda: daemon.ask("allow", what="evil.example", reason="sinkholed by us"),
        lambda: daemon.ask("undo", reason="not any more"),
    )


def _by_file(daemon: Daemon) -> tuple[Callable[[], Any], Callable[[], Any]]:
    def write(text: str) -> None:
        daemon.allow_file.write_text(text)
        daemon.ask("reload", timeout_s=60.0, reason="an edit")

    line = 'never-block evil.example owner=noc reason="sinkholed by us"\n'
    return lambda: write(line), lambda: write("")


@pytest.mark.parametrize("way", [_by_command, _by_file])
def test_an_allowance_lifts_at_once_and_its_end_blocks_again(
    ground: Ground, daemon: Daemon, way: Callable[[Daemon], tuple[Callable[[], Any], Callable[[], Any]]]
) -> None:
    allow, end = way(daemon)
    may = ground["may"].v4
    assert ground.kept_out("may", "b.evil.example")
    until(lambda: kernel.holds(ground.gateway, [ADDRESS]))
    assert _change(ground, allow, False) < WITHIN_S
    assert ground.get("may", ADDRESS, "b.evil.example") == (clients.ESTABLISHED, True)
    said = until(lambda: _notes(daemon, may))
    assert len(said) == 1 and said[0].startswith("allowed since ") and said[0].endswith(" lifted")
    assert "sinkholed by us" in said[0]
    assert _change(ground, end, True) < WITHIN_S
    assert ground.get("may", ADDRESS, "b.evil.example")[0] == clients.REFUSED
    said = until(lambda: _notes(daemon, may)[1:])
    (again,) = daemon.ask("decisions", state="active")["decisions"]
    assert said[0].endswith(f": {again['id']} blocks again (it was D1)")
    assert "no longer allowed" in daemon.command("incidents", daemon.ask("incidents", client=may)["incidents"][0]["id"])
    watch = daemon.ask("watch")["watches"]
    assert [one["decision_id"] for one in watch] == [again["id"]]
    told = daemon.events("decision")
    lifted = [one["egressd"] for one in told if one["egressd"]["action"] == "withdraw"]
    assert any("sinkholed by us" in one["reason"] for one in lifted)
    blocked = [one["egressd"] for one in told if one["egressd"]["decision_id"] == again["id"]]
    assert "sinkholed by us" in blocked[0]["reason"] and "has ended" in blocked[0]["reason"]


def test_undo_of_an_unblock_holds_what_was_asked_for_meanwhile(ground: Ground, daemon: Daemon) -> None:
    """While it is let be, the listed name is an innocent one on its address, and none from the undo on."""
    assert ground.kept_out("may", "b.evil.example")
    daemon.ask("unblock", what="evil.example", reason="sinkholed by us")
    assert ground.visit("may", "b.evil.example") == (clients.ESTABLISHED, True)
    daemon.ask("undo", reason="not any more")
    until(lambda: kernel.holds(ground.gateway, [ADDRESS]), 2, "the address of before is blocked again, for everybody")
    assert ground.get("may", ADDRESS, "b.evil.example")[0] == clients.REFUSED
    (again,) = daemon.ask("decisions", state="active")["decisions"]
    assert daemon.events("decision", decision_id=again["id"], action="withdraw") == []


def test_an_allowance_that_goes_while_the_daemon_is_down(ground: Ground, daemon: Daemon) -> None:
    assert ground.kept_out("may", "b.evil.example")
    daemon.allow_file.write_text('allow-destination evil.example owner=noc reason="sinkholed by us"\n')
    assert _change(ground, lambda: daemon.ask("reload", timeout_s=60.0, reason="an edit"), False) < WITHIN_S
    daemon.stop()
    daemon.allow_file.write_text("")
    daemon.start()
    until(lambda: kernel.holds(ground.gateway, [ADDRESS]), why="what was lifted must stand again")
    assert ground.get("may", ADDRESS, "b.evil.example")[0] == clients.REFUSED


def test_a_line_of_a_file_ends_by_itself(ground: Ground, daemon: Daemon) -> None:
    assert ground.kept_out("may", "b.evil.example")
    ends_s = int(time.time()) + 4
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends_s))
    daemon.allow_file.write_text(f'allow-destination evil.example owner=noc reason="an hour" expires={end}\n')
    assert _change(ground, lambda: daemon.ask("reload", timeout_s=60.0, reason="an edit"), False) < WITHIN_S
    until(lambda: any("ALLOWANCE ends" in one for one in daemon.ask("status")["warnings"]), 2)
    assert daemon.metrics()['egressd_allowances{state="ending"}'] == 1
    until(lambda: kernel.holds(ground.gateway, [ADDRESS]), why="nobody edits anything, and it is blocked again")
    print(f"back in the kernel {time.time() - ends_s:.2f} s after the end")
    assert 0 <= time.time() - ends_s < 2.5  # the clock ticks once a second
    assert any("ALLOWANCE ended" in one for one in daemon.ask("status")["warnings"])
    assert "an allowance has ended" in daemon.tail(200)
