"""A gateway's daily life: interfaces go and come and are renamed, lists change, people ask."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.netns import clients, kernel
from tests.netns.daemon import NOBODY, Daemon, Refused, until
from tests.netns.ground import Ground

pytestmark = [pytest.mark.root, pytest.mark.live, pytest.mark.usefixtures("namespaces")]

EVIL = {
    "*.evil.example": ["203.0.113.66", "2001:db8:f::66"],
    "*.worse.example": ["203.0.113.70"],
    "*.renamed.example": ["203.0.113.71"],
}
LISTED = "listed.evil.example\n"


@pytest.fixture(scope="module")
def ground(namespaces: None) -> Iterator[Ground]:
    with Ground(("april", "may", "office"), EVIL) as ground:
        yield ground


@pytest.fixture
def daemon(ground: Ground) -> Iterator[Daemon]:
    with ground.daemon(LISTED) as daemon:
        yield daemon


def _state(daemon: Daemon, name: str) -> str:
    return next((str(one["state"]) for one in daemon.ask("status")["interfaces"] if one["name"] == name), "")


def test_it_runs_with_two_capabilities_and_no_more(daemon: Daemon) -> None:
    for pid in (daemon.pid, *daemon.packet_pids()):
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert status["Uid"].split() == [str(NOBODY)] * 4
        assert int(status["CapEff"], 16) & ~(1 << 12 | 1 << 13) == 0  # CAP_NET_ADMIN, CAP_NET_RAW
        assert int(status["CapBnd"], 16) & ~(1 << 12 | 1 << 13) == 0
        assert status["NoNewPrivs"].strip() == "1"


def test_an_interface_goes_down_and_comes_up(ground: Ground, daemon: Daemon) -> None:
    assert _state(daemon, "jps0") == "up"
    ground.gateway.run("ip", "link", "set", "jps0", "down")
    try:
        until(lambda: _state(daemon, "jps0") != "up", why="a sensor that sees nothing must be DOWN")
    finally:
        ground.gateway.run("ip", "link", "set", "jps0", "up")
        for family, route in (
            ("-6", "2001:db8:2::1/64"),
            ("-6", "fd00:0:0:2::1/64"),
        ):  # IPv6 addresses go with the link
            ground.gateway.run("ip", family, "address", "replace", route, "dev", "jps0", "nodad")
    until(lambda: _state(daemon, "jps0") == "up")
    until(lambda: ground.resolve("may", "b.evil.example"))
    until(lambda: "203.0.113.66" in kernel.blocked(ground.gateway))


def test_an_interface_is_renamed_and_back(ground: Ground, daemon: Daemon) -> None:
    """The name is configured: under another one it is not captured from, and when it is back, it is again."""
    for command in (("down",), ("name", "other0"), ("up",)):
        ground.gateway.run("ip", "link", "set", "other0" if command == ("up",) else "jps0", *command)
    try:
        until(lambda: _state(daemon, "jps0") != "up")
    finally:
        for command in (("down",), ("name", "jps0"), ("up",)):
            ground.gateway.run("ip", "link", "set", "jps0" if command == ("up",) else "other0", *command)
        for address in ("2001:db8:2::1/64", "fd00:0:0:2::1/64"):
            ground.gateway.run("ip", "-6", "address", "replace", address, "dev", "jps0", "nodad")
    until(lambda: _state(daemon, "jps0") == "up")
    until(lambda: ground.resolve("may", "b.renamed.example"))
    daemon.list_file.write_text(LISTED + "listed.renamed.example\n")
    daemon.ask("reload", timeout_s=60.0, reason="a new list")
    until(lambda: ground.resolve("may", "c.renamed.example") and "203.0.113.71" in kernel.blocked(ground.gateway))


def test_interfaces_are_found_when_none_are_named(ground: Ground) -> None:
    with ground.daemon(LISTED, {"capture": {"interfaces": []}}) as daemon:
        assert {one["name"] for one in daemon.ask("status")["interfaces"]} == {"mhlw0", "jps0"}
        assert ground.kept_out("may", "b.evil.example")


def test_a_list_that_changes_is_taken_by_sighup(ground: Ground, daemon: Daemon) -> None:
    assert ground.visit("may", "b.worse.example") == (clients.ESTABLISHED, True)
    daemon.list_file.write_text(LISTED + "listed.worse.example\n")
    daemon.signal(signal.SIGHUP)
    client = ground["may"].v4  # found from history, which is its own word: it alone is kept out until others ask
    until(lambda: f"{client}>203.0.113.70" in kernel.pairs(ground.gateway), why="the retro-hunt must find the contact")
    assert ground.get("may", "203.0.113.70", "b.worse.example")[0] == clients.REFUSED
    assert ground.kept_out("april", "c.worse.example")
    daemon.list_file.write_text(LISTED)
    daemon.signal(signal.SIGHUP)
    gateway = ground.gateway  # two decisions, one after the other: the one for everybody, and the pair
    until(
        lambda: not kernel.blocked(gateway) | kernel.pairs(gateway), 10, "listed blocks live as long as their indicator"
    )
    assert ground.get("may", "203.0.113.70", "b.worse.example") == (clients.ESTABLISHED, True)


def _saves(file: Path, text: str, how: str) -> None:
    """As editors do."""
    if how == "a new file over the old one":
        fresh = file.with_name("4913")
        fresh.write_text(text)
        fresh.rename(file)
    elif how == "the old file put away":
        file.rename(file.with_name(file.name + "~"))
        file.write_text(text)
    elif how == "behind a link":
        target = file.with_name("target")
        target.write_text(text)
        file.unlink(missing_ok=True)
        file.symlink_to(target.name)
    else:
        with file.open("w") as stream:
            for line in text.splitlines(keepends=True):
                stream.write(line)
                stream.flush()


@pytest.mark.alone
@pytest.mark.parametrize("how", ["in parts", "a new file over the old one", "the old file put away", "behind a link"])
def test_a_list_that_somebody_saves_is_taken_within_two_seconds(ground: Ground, daemon: Daemon, how: str) -> None:
    _saves(daemon.list_file, LISTED + "# another one\nlisted.renamed.example\n", how)
    saved_s = time.monotonic()
    until(lambda: _indicators(daemon) == 2, why="the list was not taken")
    assert time.monotonic() - saved_s <= 2.0
    assert ground.kept_out("may", "b.renamed.example")
    _saves(daemon.list_file, LISTED + "listed.renamed.example colour=red\n", how)
    problem = until(lambda: daemon.ask("status")["list_problems"], why="a mistake must be told")
    assert "block.txt:2:24" in problem[0]
    assert ground.kept_out("april", "c.renamed.example")  # the last good content
    daemon.kill()
    daemon.start()  # also after a restart
    assert "block.txt:2:24" in daemon.ask("status")["list_problems"][0]
    assert ground.kept_out("office", "d.renamed.example")
    _saves(daemon.list_file, LISTED, how)
    until(lambda: not daemon.ask("status")["list_problems"] and _indicators(daemon) == 1)


def _indicators(daemon: Daemon) -> int:
    return sum(one["indicators"] for one in daemon.ask("status")["lists"])


@pytest.mark.parametrize("broken", ["a list", "the configuration"])
def test_what_is_broken_on_disk_leaves_the_last_good_one(ground: Ground, daemon: Daemon, broken: str) -> None:
    if broken == "a list":
        daemon.list_file.write_text("not a name !!\nx_/\\n\n")
    else:
        daemon.config_file.write_text("mode: [")
    with pytest.raises(Refused) as refused:
        daemon.ask("reload", timeout_s=60.0, reason="a slip")
    assert refused.value.code == 3
    assert (daemon.list_file.name if broken == "a list" else daemon.config_file.name) in str(refused.value)
    assert ground.kept_out("may", "b.evil.example")
    assert daemon.ask("status")["mode"] == "enforce"


def test_allow_lets_through_what_was_blocked(ground: Ground, daemon: Daemon) -> None:
    assert ground.kept_out("may", "b.evil.example")
    daemon.ask("allow", what="evil.example", for_s=3600, reason="sinkholed by us")
    until(lambda: not kernel.blocked(ground.gateway))
    assert ground.visit("may", "b.evil.example") == (clients.ESTABLISHED, True)
    told = daemon.ask("list")
    assert any(one["kind"] == "allowance" and "evil.example" in one["text"] for one in told["operator"])


def test_a_stranger_may_not_ask(ground: Ground, daemon: Daemon) -> None:
    """Roles by peer credentials: root is an admin, somebody else is nobody."""

    def as_stranger() -> str:
        os.setgroups([])
        os.setgid(65_000)
        os.setuid(65_000)
        try:
            daemon.ask("status")
        except (Refused, OSError) as error:
            return type(error).__name__
        return "answered"

    daemon.socket.chmod(0o666)  # even if the file's own rights did not keep them out
    daemon.socket.parent.chmod(0o755)
    assert ground.gateway.call(as_stranger) in ("Refused", "ConnectionResetError", "PermissionError")


def test_every_screen_shows_the_block(ground: Ground, daemon: Daemon) -> None:
    ground.visit("may", "b.evil.example")
    ground.get("office", "203.0.113.66", "b.evil.example")
    until(lambda: len(daemon.ask("incidents")["incidents"]) == 2)
    status = daemon.command("status")
    assert "mode ENFORCE" in status
    assert "jps0" in status
    for verb in ("incidents", "watch", "hosts", "decisions"):
        shown = daemon.command(verb)
        assert "evil.example" in shown, verb
        assert max(map(len, shown.splitlines())) <= 100, verb
    assert ground["office"].v4 in daemon.command("hosts")


def test_a_crash_disarms_no_gateway_and_a_restart_that_does_says_so(ground: Ground) -> None:
    """What `egressd mode enforce` armed was lifted by the restart after a crash, and nobody was told."""
    with ground.daemon(LISTED, {"mode": "monitor"}) as daemon:
        daemon.ask("mode", mode="enforce", reason="ticket 4711")
        assert ground.kept_out("may", "b.evil.example")
        daemon.kill()
        daemon.start()
        assert daemon.ask("status")["mode"] == "enforce"
        assert "<4>egressd: the mode is enforce, as a command had set it before a crash" in daemon.tail()
        assert ground.kept_out("april", "c.evil.example")
        daemon.stop()
        daemon.start()
        told = "the mode is monitor since this start, and was enforce before it"
        assert any(line.startswith(f"<4>egressd: {told}") for line in daemon.tail().splitlines())
        assert daemon.ask("status")["warnings"][0].startswith(told)
        daemon.stop()
        daemon.start()
        assert daemon.tail().count(told) == 1


def test_a_start_on_a_full_disk(ground: Ground) -> None:
    """Smaller than what is kept free for that: what is blocked stays so, and is written when there is room."""
    daemon = ground.daemon(LISTED, {"metrics": {"address": ""}})
    state = daemon.folder / "state"
    mounted = f"size=3m,mode=0700,uid={NOBODY},gid={NOBODY}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", mounted, "tmpfs", str(state)], check=True)
    try:
        daemon.start()
        daemon.ask("block", what="203.0.113.50", reason="before")
        assert any("nearly full" in one for one in daemon.ask("status")["warnings"])
        daemon.stop()
        with (state / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4_096)):
                pass
        daemon.start()
        assert "203.0.113.50" in kernel.blocked(ground.gateway)
        assert any("cannot be written (" in one for one in daemon.ask("status")["warnings"])
        (state / "filler").unlink()
        until(lambda: not any("cannot be written (" in one for one in daemon.ask("status")["warnings"]))
        daemon.ask("block", what="203.0.113.51", reason="after")
        assert len(daemon.ask("decisions")["decisions"]) == 2
    finally:
        daemon.stop()
        subprocess.run(["umount", "-l", str(state)], check=True)
        daemon.__exit__()


def test_doctor_proves_detect_push_verify_remove(ground: Ground, daemon: Daemon) -> None:
    told = daemon.ask("doctor", timeout_s=30.0)
    assert told["ok"], told
    assert len(told["checks"]) >= 4


def test_audit_is_whole_and_names_who_did_what(ground: Ground, daemon: Daemon) -> None:
    daemon.ask("block", what="203.0.113.99", reason="a phishing page, ticket 7")
    rows = daemon.ask("audit", limit=50)["rows"]
    row = next(one for one in rows if one["reason"] == "a phishing page, ticket 7")
    assert row["actor"] == "uid:root"
    assert row["act"] == "block"
    assert daemon.ask("audit", verify=True)["ok"]


@pytest.mark.alone
def test_the_canary_sings(ground: Ground, daemon: Daemon) -> None:
    told = until(lambda: _canary(daemon), 75, "no canary within a minute")
    assert told["detect_ms"] < 1_000


def _canary(daemon: Daemon) -> dict[str, float] | None:
    told = daemon.ask("status")["canary"]
    return told if told["state"] == "ok" else None


def test_people_who_block_at_once(ground: Ground, daemon: Daemon) -> None:
    """What each was told is so, whoever else was being served at that moment."""
    addresses = [f"203.0.113.{number}" for number in range(120, 132)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda address: daemon.ask("block", what=address, reason="all at once"), addresses))
    until(lambda: kernel.holds(ground.gateway, addresses), why="a block that was acknowledged is not in force")
    active = daemon.ask("decisions", state="active")["decisions"]
    assert set(addresses) <= {target["value"] for row in active for target in row["targets"]}
