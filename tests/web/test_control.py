"""The control socket: roles as declared for every verb, bounds that hostile peers meet, and a socket that is ours."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egressd.errors import EgressdError
from egressd.web.connection import CHUNK, render_answer, render_refusal
from egressd.web.control import Bounds, ControlError, ControlServer, Peer, Refused, Roles, Standing
from egressd.web.peers import Account, Credentials, peer_credentials
from egressd.web.requests import VERB_ARGS, VERB_ROLES, Role
from tests.loops import HANG_S
from tests.web.test_requests import GOOD

ROOT = Path(__file__).resolve().parent.parent.parent
STANDING = Standing("enforce", 1_000, "2026-11-25T17:14:44.000000+0000", ("lan1",))
GROUPS = {1001: "viewers", 1002: "operators", 1003: "admins", 1004: "others"}
BY_UID: dict[int, Role | None] = {0: Role.ADMIN, 1001: Role.VIEWER, 1002: Role.OPERATOR, 1003: Role.ADMIN, 1004: None}


def account(uid: int) -> Account:
    return Account(f"user{uid}", frozenset({GROUPS.get(uid, "")}))


def roles() -> Roles:
    return Roles(["viewers"], ["operators"], ["admins"], own_uid=990, account=account)


async def echo(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"verb": verb, "actor": peer.actor, "role": peer.role.name, "args": args}


Handler = Callable[[Peer, str, dict[str, Any]], Awaitable[dict[str, Any]]]


class Peers:
    """Gives each connection the uid that was asked for, in the order of connecting; root without a word."""

    def __init__(self) -> None:
        self.uids: list[int] = []

    def __call__(self, connection: socket.socket) -> Credentials:
        return Credentials(7, self.uids.pop(0) if self.uids else 0)


@asynccontextmanager
async def serving(path: Path, handler: Handler = echo, **options: Any) -> AsyncIterator[ControlServer]:
    options.setdefault("credentials", Peers())
    server = ControlServer(path, handler, roles(), lambda: STANDING, **options)
    await server.open()
    task = asyncio.ensure_future(server.serve())
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await server.close()  # a task that is cancelled before it began has closed nothing
        assert not os.path.exists(path)  # noqa: ASYNC240, PTH110


def line(verb: str, **args: Any) -> bytes:
    return json.dumps({"v": 1, "verb": verb, "args": args}).encode() + b"\n"


async def exchange(path: Path, request: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
    try:
        writer.write(request)
        return await receive(reader)
    finally:
        writer.close()


async def receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """One answer; {} when the connection was closed without one."""
    try:
        async with asyncio.timeout(HANG_S):
            answer = await reader.readline()
    except ConnectionError:
        answer = b""
    record: dict[str, Any] = json.loads(answer) if answer else {}
    return record


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


# -- roles


@pytest.mark.parametrize(("verb", "uid"), list(product(VERB_ROLES, BY_UID)))
def test_the_matrix_of_verbs_and_roles(path: Path, verb: str, uid: int) -> None:
    """Made from the table: each verb for each role, and nobody in between."""
    told: list[tuple[str, str]] = []

    async def main() -> dict[str, Any]:
        peers = Peers()
        peers.uids = [uid]
        async with serving(path, credentials=peers, refused=lambda peer, what: told.append((peer.actor, what))):
            return await exchange(path, line(verb, **{name: GOOD[name] for name in VERB_ARGS[verb]}))

    answer = asyncio.run(main())
    role = BY_UID[uid]
    if role is not None and role >= VERB_ROLES[verb]:
        assert answer["ok"] is True
        assert answer["result"]["verb"] == verb
        assert answer["result"]["role"] == role.name
        assert told == []
    else:
        assert (answer["ok"], answer["code"]) == (False, 1)
        assert answer.keys() == {"ok", "error", "code"}
        assert ("in no group" if role is None else f"needs the role {VERB_ROLES[verb].name.lower()}") in answer["error"]
        assert told == ([] if role is None else [(f"uid:user{uid}", verb)])


def test_somebody_without_a_role_learns_nothing_more(path: Path) -> None:
    async def main() -> list[dict[str, Any]]:
        peers = Peers()
        peers.uids = [1004] * 3
        async with serving(path, credentials=peers):
            return [await exchange(path, text) for text in (b"{\n", line("nonsense"), line("panic"))]

    assert len({answer["error"] for answer in asyncio.run(main())}) == 1


def let_anybody_reach(path: Path) -> None:
    path.chmod(0o666)
    for folder in path.parents:
        if folder.owner() == "root" and folder.parent != Path("/") and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to connect as another user")
def test_the_kernel_says_who_connects(path: Path) -> None:
    """A real peer of another user: let through by the file's mode, refused by its credentials."""
    script = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1])\n"
        "one.sendall(sys.argv[2].encode() + b'\\n'); print(one.makefile().readline())"
    )

    async def main() -> str:
        async with serving(path, credentials=peer_credentials):
            let_anybody_reach(path)
            request = line("status").decode().strip()
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-c", script, str(path), request, stdout=subprocess.PIPE
            )
            out, _ = await child.communicate()
            return out.decode()

    assert "user 65534 (user65534) is in no group" in json.loads(asyncio.run(main()))["error"]


# -- answers


def test_an_answer_says_how_the_daemon_stands(path: Path) -> None:
    async def main() -> dict[str, Any]:
        async with serving(path):
            return await exchange(path, line("watch"))

    answer = asyncio.run(main())
    assert list(answer) == ["ok", "mode", "packets", "since", "down", "failing", "unwritten", "modes", "result"]
    assert (answer["mode"], answer["packets"], answer["down"]) == ("enforce", 1_000, ["lan1"])
    assert answer["result"]["args"] == {"id": None}


def test_several_requests_on_one_connection_in_order(path: Path) -> None:
    async def main() -> list[dict[str, Any]]:
        async with serving(path) as server:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(line("status") + line("hosts") + b"{\n" + line("list")[:10])
            answers = [await receive(reader) for _ in range(3)]
            writer.write(line("list")[10:])
            answers.append(await receive(reader))
            writer.close()
            assert (server.stats.connections, server.stats.requests, server.stats.malformed) == (1, 4, 1)
            return answers

    answers = asyncio.run(main())
    assert [answer.get("result", {}).get("verb") for answer in answers] == ["status", "hosts", None, "list"]
    assert answers[2]["code"] == 2


def test_a_peer_may_send_no_more_and_still_read(path: Path) -> None:
    """`nc -N` does so."""

    async def main() -> bytes:
        async with serving(path):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(line("status") + line("hosts"))
            writer.write_eof()
            return await reader.read()

    assert asyncio.run(main()).count(b"\n") == 2


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (Refused("10.0.0.1 is protected"), "10.0.0.1 is protected", 1),
        (Refused("lists/a.txt:3:1: no name\nsecond line", 3), "lists/a.txt:3:1: no name\nsecond line", 3),
        (EgressdError("the kernel refused\x1b"), "the kernel refused\x1b", 1),
        (RuntimeError("secret detail"), "internal error; the daemon's log has it (journalctl -u egressd)", 1),
    ],
)
def test_what_a_handler_raises(
    path: Path, caplog: pytest.LogCaptureFixture, error: Exception, text: str, code: int
) -> None:
    async def handler(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        raise error

    async def main() -> dict[str, Any]:
        async with serving(path, handler) as server:
            answer = await exchange(path, line("status"))
            assert server.stats.failed == isinstance(error, RuntimeError)
            return answer

    answer = asyncio.run(main())
    assert answer == {"ok": False, "error": text, "code": code}
    assert ("secret detail" in caplog.text) is isinstance(error, RuntimeError), "the log has all, the peer nothing"


def test_a_result_that_is_no_json_is_our_mistake(path: Path) -> None:
    async def handler(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        return {"rows": [b"bytes"]}

    async def main() -> dict[str, Any]:
        async with serving(path, handler):
            return await exchange(path, line("status"))

    assert "internal error" in asyncio.run(main())["error"]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7])
def test_long_lists_are_rendered_in_parts(size: int) -> None:
    record = {
        "ok": True,
        "mode": "monitor",
        "result": {"a": 1, "rows": [{"n": n, "name": "\x1b\u00e9"} for n in range(size)], "z": None},
    }
    parts = list(render_answer(record))
    text = b"".join(parts)
    assert json.loads(text) == record
    assert text.count(b"\n") == 1 and text.endswith(b"\n") and text.isascii()
    assert len(parts) >= size / CHUNK
    assert json.loads(b"".join(render_answer({"ok": True, "result": {}}))) == {"ok": True, "result": {}}


def test_a_long_answer_does_not_hold_up_others(path: Path) -> None:
    async def handler(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        return {"rows": [{"n": n, "text": "x" * 50} for n in range(60_000)] if verb == "hosts" else []}

    async def main() -> tuple[list[str], int]:
        async with serving(path, handler):
            order: list[str] = []

            async def ask(verb: str) -> int:
                answer = await exchange(path, line(verb))
                order.append(verb)
                return len(answer["result"]["rows"])

            long = asyncio.ensure_future(ask("hosts"))
            await asyncio.sleep(0)
            await ask("status")
            return order, await long

    order, size = asyncio.run(main())
    assert order == ["status"] or order == ["status", "hosts"]
    assert size == 60_000


# -- bounds


def test_a_request_of_the_size_of_the_bound_is_read(path: Path) -> None:
    async def main() -> tuple[dict[str, Any], dict[str, Any], bytes]:
        async with serving(path) as server:
            padded = line("status")[:-1].ljust(server.bounds.request_bytes)
            most = await exchange(path, padded + b"\n")
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(padded + b" ")  # no end of line needed to be too long
            answer, rest = await receive(reader), await reader.read()
            writer.close()
            return most, answer, rest

    most, answer, rest = asyncio.run(main())
    assert most["ok"] is True
    assert answer == {"ok": False, "error": "a request is at most 262144 bytes", "code": 1}
    assert rest == b"", "and closed"


def test_a_flood_without_an_end_of_line_is_not_collected(path: Path) -> None:
    async def main() -> None:
        async with serving(path) as server:
            _, writer = await asyncio.open_unix_connection(str(path))
            with pytest.raises(ConnectionError):
                for _ in range(100):
                    writer.write(b"x" * 1_000_000)
                    await writer.drain()
            assert server.stats.malformed == 1
            assert (await exchange(path, line("status")))["ok"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "why"),
    [(b"", "an idle connection is closed within 0.1 s"), (b"{", "a request has to be finished within 0.05 s")],
)
def test_time_runs_out(path: Path, sent: bytes, why: str) -> None:
    async def main() -> tuple[dict[str, Any], bytes]:
        async with serving(path, bounds=Bounds(line_s=0.05, idle_s=0.1)) as server:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(sent)
            answer, rest = await receive(reader), await reader.read()
            writer.close()
            assert server.stats.expired == 1
            return answer, rest

    assert asyncio.run(main()) == ({"ok": False, "error": why, "code": 1}, b"")


def test_a_byte_now_and_then_wins_no_time(path: Path) -> None:
    """Slow loris: each byte is in time, the line is not."""

    async def main() -> float:
        async with serving(path, bounds=Bounds(line_s=0.15)) as server:
            reader, writer = await asyncio.open_unix_connection(str(path))
            began = monotonic()
            ended = asyncio.ensure_future(receive(reader))
            while not ended.done():
                writer.write(b" ")
                await asyncio.wait([ended], timeout=0.02)
            writer.close()
            # A byte that nobody has read when the server closes takes the answer with it (ECONNRESET).
            assert "finished within" in ended.result().get("error", "finished within")
            assert server.stats.expired == 1
            return monotonic() - began

    assert asyncio.run(main()) < 2


def test_a_peer_that_does_not_read_is_dropped(path: Path) -> None:
    async def handler(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        return {"text": "x" * 8_000_000}

    async def main() -> None:
        async with serving(path, handler, bounds=Bounds(send_s=0.05)) as server:
            _, writer = await asyncio.open_unix_connection(str(path), limit=1)
            writer.write(line("status"))
            await until(lambda: server.stats.expired == 1)
            assert not server._connections
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("trickle", [False, True])
def test_a_thousand_slow_connections_keep_nobody_waiting(path: Path, trickle: bool) -> None:
    """THREATS promise 28, for one more of the very same user, who is the hardest to tell from them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2_500:
        pytest.skip("needs 2,500 file descriptors: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_500), hard))

    async def main() -> list[float]:
        async with serving(path) as server:
            slow = []
            try:
                for number in range(1_000):
                    _, writer = await asyncio.open_unix_connection(str(path))
                    writer.write(b'{"v":1,' if trickle else b"")
                    slow.append(writer)
                    if number % 100 == 50:
                        assert (await exchange(path, line("status")))["ok"]
                took = []
                for _ in range(20):
                    began = monotonic()
                    assert (await exchange(path, line("status")))["ok"]
                    took.append(monotonic() - began)
                assert len(server._connections) <= server.bounds.connections
                assert server.stats.evicted >= 1_000 - server.bounds.connections
                return took
            finally:
                for writer in slow:
                    writer.close()

    try:
        assert sorted(asyncio.run(main()))[10] < 0.2  # the middle: one turn that the machine is late with is not ours
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_holds_most_connections_loses_the_one_that_idled_longest(path: Path) -> None:
    async def main() -> None:
        peers = Peers()
        peers.uids = [1001, 1002, 1002, 1002, 1003]
        async with serving(path, credentials=peers, bounds=Bounds(connections=4)) as server:
            connections = [await asyncio.open_unix_connection(str(path)) for _ in range(4)]
            alone, first = connections[0], connections[1]
            new = await asyncio.open_unix_connection(str(path))
            answer = await receive(first[0])
            assert answer["again"] is True and "idled for longest" in answer["error"]
            assert await first[0].read() == b""
            for reader, writer in (alone, *connections[2:], new):
                writer.write(line("status"))
                assert (await receive(reader))["ok"]
            for _, writer in (*connections, new):
                writer.close()
            assert server.stats.evicted == 1

    asyncio.run(main())


def test_running_requests_are_never_evicted_and_are_bounded_for_each_user(path: Path) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def handler(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
            await gate.wait()
            return {}

        peers = Peers()
        peers.uids = [1001, 1001, 1001, 1002, 1003]
        async with serving(path, handler, credentials=peers, bounds=Bounds(connections=3, running_per_uid=2)) as server:
            running = [asyncio.ensure_future(exchange(path, line("status"))) for _ in range(2)]
            await until(lambda: server._running[1001] == 2)
            third = await exchange(path, line("status"))
            assert third["again"] is True and "too many requests" in third["error"]
            running.append(asyncio.ensure_future(exchange(path, line("status"))))
            await until(lambda: server._running[1002] == 1)
            turned_away = await exchange(path, line("status"))
            assert turned_away["again"] is True and "every connection is busy" in turned_away["error"]
            assert server.stats.busy == 2
            gate.set()
            assert all(answer["ok"] for answer in await asyncio.gather(*running))
            assert not server._running

    asyncio.run(main())


def test_a_request_goes_on_when_its_peer_leaves(path: Path) -> None:
    """What changes something is not broken off half way, and still counts as running."""

    async def main() -> None:
        gate, done = asyncio.Event(), asyncio.Event()

        async def handler(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
            await gate.wait()
            done.set()
            return {}

        async with serving(path, handler) as server:
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.write(line("block", what="evil.example", reason="x"))
            await until(lambda: bool(server._running))
            writer.close()
            await asyncio.sleep(0)
            assert server._running[0] == 1
            gate.set()
            await asyncio.wait_for(done.wait(), HANG_S)
            await until(lambda: not server._connections and not server._running)

    asyncio.run(main())


# -- hostile input


LINES = st.binary(max_size=300) | st.sampled_from(
    [b"", b"\0", b"\xff", b"[" * 5_000, b'{"v":1,"verb":"status"}', b'{"v":1,"verb":"block","args":{"what":"\\u0000"}}',
     b'{"v":' + b"9" * 4_000 + b"}", b'{"v":1,"v":1}', line("status").strip(), line("panic", reason="x").strip()]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=12), cuts=st.lists(st.integers(1, 400), max_size=8), ends=st.booleans())
def test_any_bytes_get_answers_or_a_closed_connection(
    path: Path, caplog: pytest.LogCaptureFixture, lines: list[bytes], cuts: list[int], ends: bool
) -> None:
    """In any pieces; an answer for each line, nothing of ours in the log, and the server is there for the next."""
    text = b"\n".join(lines) + (b"\n" if ends else b"")

    async def main() -> bytes:
        async with serving(path) as server:
            reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 22)
            rest = text
            for cut in cuts:
                writer.write(rest[:cut])
                rest = rest[cut:]
                await asyncio.sleep(0)
            writer.write(rest)
            writer.write_eof()
            async with asyncio.timeout(HANG_S):
                got = await reader.read()
            writer.close()
            assert (await exchange(path, line("status")))["ok"]
            assert server.stats.failed == 0
            return got

    answers = [json.loads(one) for one in asyncio.run(main()).splitlines()]
    assert len(answers) == text.count(b"\n")
    assert all(answer["ok"] or answer["code"] in (1, 2) for answer in answers)
    assert caplog.records == []


def test_a_refusal_is_one_line_of_ascii() -> None:
    text = render_refusal("a\nb\x1b\u202e\ud800", 3)
    assert text.isascii() and text.count(b"\n") == 1
    assert json.loads(text) == {"ok": False, "error": "a\nb\x1b\u202e\ud800", "code": 3}


# -- the socket


def test_mode_and_group_are_right_from_the_first_moment(path: Path) -> None:
    import grp

    group = grp.getgrgid(os.getegid()).gr_name

    async def main() -> None:
        async with serving(path, group=group):
            check(path)

    def check(path: Path) -> None:
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == os.getegid()
        assert {one.name for one in path.parent.iterdir()} == {path.name, path.name + ".lock"}

    before = os.umask(0o077)
    try:
        asyncio.run(main())
    finally:
        os.umask(before)


def test_a_dead_daemons_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    Path(f"{path}.new").touch()

    async def main() -> dict[str, Any]:
        async with serving(path):
            return await exchange(path, line("status"))

    assert asyncio.run(main())["ok"]


def test_a_living_daemon_is_refused_and_unharmed(path: Path) -> None:
    async def main() -> None:
        async with serving(path):
            second = ControlServer(path, echo, roles(), lambda: STANDING)
            with pytest.raises(ControlError, match="another egressd runs here"):
                await second.open()
            await second.close()
            assert (await exchange(path, line("status")))["ok"]

    asyncio.run(main())


def test_another_programs_socket_and_a_file_are_not_touched(path: Path) -> None:
    async def fails(why: str) -> None:
        server = ControlServer(path, echo, roles(), lambda: STANDING)
        with pytest.raises(ControlError, match=why):
            await server.open()

    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        asyncio.run(fails("another program answers there"))
    path.unlink()
    path.write_text("notes")
    asyncio.run(fails("is no socket; it was not touched"))
    assert path.read_text() == "notes"
    path.unlink()
    path.symlink_to("/nonexistent")
    asyncio.run(fails("is no socket"))


@pytest.mark.parametrize(
    ("folder", "group", "why"),
    [("absent", "", "No such file"), ("x" * 120, "", "too long"), ("", "no-such-group\x1b", "no group 'no-such-group")],
)
def test_a_socket_that_cannot_be_made(tmp_path: Path, folder: str, group: str, why: str) -> None:
    if folder.startswith("x"):
        (tmp_path / folder).mkdir()

    async def main() -> str:
        server = ControlServer(tmp_path / folder / "control.sock", echo, roles(), lambda: STANDING, group=group)
        with pytest.raises(ControlError, match=why) as caught:
            await server.open()
        await server.close()
        return str(caught.value)

    assert asyncio.run(main()).isprintable()
    assert not list(tmp_path.glob("**/*.new"))


def test_it_opens_again_after_it_was_closed(path: Path) -> None:
    async def main() -> None:
        server = ControlServer(path, echo, roles(), lambda: STANDING, credentials=Peers())
        for _ in range(2):
            await server.open()
            assert (await exchange(path, line("status")))["ok"]
            await server.close()

    asyncio.run(main())


def test_closing_lets_running_requests_end(path: Path) -> None:
    async def main() -> dict[str, Any]:
        gate = asyncio.Event()

        async def handler(peer: Peer, verb: str, args: dict[str, Any]) -> dict[str, Any]:
            await gate.wait()
            return {"done": True}

        async with serving(path, handler) as server:
            asked = asyncio.ensure_future(exchange(path, line("status")))
            await until(lambda: bool(server._running))
            asyncio.get_running_loop().call_soon(gate.set)
        return await asked

    assert asyncio.run(main())["result"] == {"done": True}
