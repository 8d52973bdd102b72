"""The live verbs against the real control server: what they ask, what they print, how they end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from egressd.cli import client
from egressd.cli.exit_codes import UNREACHABLE
from egressd.cli.main import FILES, OPERATIONS, VERBS, main
from egressd.cli.operate import OPERATIONS as TABLE
from egressd.web.control import Bounds, Refused, Standing
from egressd.web.requests import VERB_ARGS, VERB_ROLES
from tests.cli import results
from tests.cli.commands import HEAVY, loaded, of, run
from tests.cli.daemon import daemon
from tests.loops import HANG_S

ROOT = Path(__file__).resolve().parent.parent.parent
WHY = "no reason given"
READS: dict[str, dict[str, Any]] = {
    "status": results.STATUS,
    "hosts": results.HOSTS,
    "incidents": results.INCIDENTS,
    "watch": results.WATCHES,
    "decisions": results.DECISIONS,
    "list": results.LIST,
    "audit": results.AUDIT,
    "doctor": results.DOCTOR,
}


class Terminal(StringIO):
    """Standard input with a person at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the daemon listens, by the environment."""
    where = tmp_path / "control.sock"
    monkeypatch.setenv("EGRESSD_SOCKET", str(where))
    monkeypatch.setattr("sys.stdin", StringIO())
    return where


# -- reading


@pytest.mark.parametrize("verb", READS)
def test_a_screen_and_the_result_as_it_is(capsys: pytest.CaptureFixture[str], path: Path, verb: str) -> None:
    with daemon(path, READS) as asked:
        code, out, err = run(capsys, verb)
        assert (code, err) == (0, "")
        assert out.startswith("mode ENFORCE: ")
        assert out.isascii() and "\x1b" not in out
        assert max(map(len, out.splitlines())) <= 80
        code, out, err = run(capsys, verb, "--json")
        assert (code, err) == (0, "")
        assert out.count("\n") == 1 and out.isascii() and "\x1b" not in out
        assert json.loads(out) == READS[verb]
    assert [(peer.actor.partition(":")[0], what) for peer, what, _ in asked] == [("uid", verb)] * 2


@pytest.mark.parametrize(
    ("argv", "args"),
    [
        (["status"], {}),
        (["incidents"], {"state": None, "client": None}),
        (["incidents", "--all", "--client", "10.2.7.11"], {"state": "all", "client": "10.2.7.11"}),
        (["incidents", "i3"], {"state": "all", "client": None}),
        (["watch"], {"id": None}),
        (["watch", "1"], {"id": "D1"}),
        (["decisions", "--state", "proposed"], {"state": "proposed", "id": None, "limit": 10_000}),
        (["decisions", "D1"], {"state": None, "id": "D1", "limit": 10_000}),
        (["audit"], {"limit": 40, "actor": None, "verify": False, "head": None}),
        (
            ["audit", "--limit", "7", "--actor", "uid:bob"],
            {"limit": 7, "actor": "uid:bob", "verify": False, "head": None},
        ),
        (["doctor"], {"reason": WHY}),
    ],
)
def test_what_reading_asks(
    capsys: pytest.CaptureFixture[str], path: Path, argv: list[str], args: dict[str, Any]
) -> None:
    with daemon(path, READS) as asked:
        assert run(capsys, *argv)[0] == 0
    assert [(verb, got) for _, verb, got in asked] == [(argv[0], args)]


def test_rows_are_bounded_and_can_be_had(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    many = {"hosts": [{**results.HOSTS["hosts"][0], "client": f"10.9.0.{n}"} for n in range(100)]}
    with daemon(path, {"hosts": many}):
        out = run(capsys, "hosts")[1]
        assert out.count("\n10.9.0.") == 40 and "... and 60 more; --rows 0 shows all" in out
        assert run(capsys, "hosts", "--rows", "0")[1].count("\n10.9.0.") == 100
        assert run(capsys, "hosts", "--rows", "3")[1].count("\n10.9.0.") == 3


@pytest.mark.parametrize(("verb", "wanted"), [("incidents", "I99"), ("decisions", "D99")])
def test_an_id_that_is_not_there(capsys: pytest.CaptureFixture[str], path: Path, verb: str, wanted: str) -> None:
    with daemon(path, READS):
        code, _, err = run(capsys, verb, wanted)
    assert code == 1
    assert f"there is no {verb[:-1]} {wanted}" in err


@pytest.mark.parametrize(
    ("argv", "result", "code"),
    [
        (["audit", "verify"], results.VERIFIED, 0),
        (["audit", "verify"], results.BROKEN, 1),
        (["audit", "verify", "--json"], results.BROKEN, 1),
        (["doctor"], results.SICK, 1),
        (["doctor", "--json"], results.SICK, 1),
        (["doctor"], {}, 1),
        (["audit", "verify"], {"ok": "yes"}, 1),
    ],
)
def test_a_bad_verdict_is_exit_1(
    capsys: pytest.CaptureFixture[str], path: Path, argv: list[str], result: dict[str, Any], code: int
) -> None:
    with daemon(path, {argv[0]: result}):
        assert run(capsys, *argv)[0] == code


def test_verify_with_a_head(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    head = "4000:" + "d4" * 32
    with daemon(path, {"audit": results.VERIFIED}) as asked:
        assert "of row 4000, is in it" in run(capsys, "audit", "verify", "--head", head)[1]
        assert run(capsys, "audit", "--head", head)[0] == 2
    assert [args for _, _, args in asked] == [{"limit": 100, "actor": None, "verify": True, "head": head}]


def test_a_sensor_that_sees_nothing_is_on_every_screen(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    with daemon(path, READS, Standing("monitor", 0, "", ("lan1\x1b[2J",))):
        for verb in READS:
            lines = run(capsys, verb)[1].splitlines()
            assert lines[0] == "mode MONITOR: nothing is blocked; 0 packets seen"
            assert lines[1].startswith("!! SENSOR DOWN: lan1\\x1b[2J.")


# -- changing


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("block evil.example --reason x", {"what": "evil.example", "client": None, "for_s": None, "reason": "x"}),
        (
            "block 203.0.113.7 --client 10.2.7.11 --for 2h --reason x",
            {"what": "203.0.113.7", "client": "10.2.7.11", "for_s": 7_200, "reason": "x"},
        ),
        ("allow a.example --for 1d --reason x", {"what": "a.example", "client": None, "for_s": 86_400, "reason": "x"}),
        ("unblock D12 --for 1h --reason x", {"what": "D12", "for_s": 3_600, "reason": "x"}),
        ("unblock evil.example --reason x", {"what": "evil.example", "for_s": None, "reason": "x"}),
        ("approve d12", {"id": "D12", "reason": WHY}),
        ("reject 12 --reason x", {"id": "D12", "reason": "x"}),
        (
            "isolate 10.2.7.11 --remedy 10.0.0.9 --remedy 10.0.0.8 --for 8h --reason x",
            {"client": "10.2.7.11", "remedy": ["10.0.0.9", "10.0.0.8"], "for_s": 28_800, "reason": "x"},
        ),
        ("isolate 10.2.7.11 --reason x", {"client": "10.2.7.11", "remedy": (), "for_s": None, "reason": "x"}),
        ("release 10.2.7.11", {"client": "10.2.7.11", "reason": WHY}),
        ("uncut JPS", {"segment": "JPS", "reason": WHY}),
        ("undo", {"id": None, "reason": "undone, no reason given"}),
        ("undo D7", {"id": "D7", "reason": "undone, no reason given"}),
        ("reject D7", {"id": "D7", "reason": "rejected, no reason given"}),
        ("ack I3", {"incident": "I3", "reason": WHY}),
        ("reload", {"only": None, "force": False, "reason": WHY}),
        ("reload --only lists --reason x", {"only": "lists", "force": False, "reason": "x"}),
        ("reload --force --reason x", {"only": None, "force": True, "reason": "x"}),
        ("mode enforce --reason x", {"mode": "enforce", "segment": None, "reason": "x"}),
        ("mode enforce --segment lab --reason x", {"mode": "enforce", "segment": "lab", "reason": "x"}),
        ("panic --reason x", {"reason": "x"}),
    ],
)
def test_what_changing_asks(capsys: pytest.CaptureFixture[str], path: Path, line: str, args: dict[str, Any]) -> None:
    verb = line.split()[0]
    with daemon(path, {verb: {"text": "Done so.", "decision_id": "D30"}}) as asked:
        code, out, err = run(capsys, *line.split())
        assert json.loads(run(capsys, *line.split(), "--json")[1]) == {"text": "Done so.", "decision_id": "D30"}
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "D30: Done so."
    assert ("egressd undo D30" in out) is TABLE[verb].undo
    assert [(what, got) for _, what, got in asked] == [(verb, args)] * 2


def test_mode_alone_tells_the_one_in_force(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    """It was a usage error, and `status` does not say who set it."""
    with daemon(path, {"status": results.STATUS}) as asked:
        code, out, _ = run(capsys, "mode")
        assert code == 0 and asked[-1][1:] == ("status", {})
        assert "enforce since 11-25 09:00 UTC" in out and "set by uid:root: a quiet week" in out
        assert out.splitlines()[-1].startswith("Next: egressd mode monitor|approve|enforce ")
        _, out, _ = run(capsys, "mode", "--json")
        assert json.loads(out) == {"arming": results.STATUS["arming"]}


@pytest.mark.parametrize("line", ["mode enforce", "mode --reason x", "mode --segment lab"])
def test_a_mode_is_set_with_a_reason(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(capsys, *line.split())
    assert ended.value.code == 2
    assert "are required: " + ("--reason" if "enforce" in line else "MODE") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "verb", "args"),
    [
        ("feeds", "feeds", {"feed": None}),
        ("feeds quarantine c2", "feeds", {"feed": "c2"}),
        ("feeds update", "feeds-update", {"feed": None, "force": False, "reason": WHY}),
        ("feeds update c2 --force --reason x", "feeds-update", {"feed": "c2", "force": True, "reason": "x"}),
        (
            "feeds judge i3 false-positive --reason x",
            "feeds-judge",
            {"incident": "I3", "verdict": "false-positive", "reason": "x"},
        ),
    ],
)
def test_what_feeds_asks(
    capsys: pytest.CaptureFixture[str], path: Path, line: str, verb: str, args: dict[str, Any]
) -> None:
    with daemon(path, {verb: {"text": "Done so."}}) as asked:
        assert run(capsys, *line.split())[::2] == (0, "")
        assert json.loads(run(capsys, *line.split(), "--json")[1]) == {"text": "Done so."}
    assert [(what, got) for _, what, got in asked] == [(verb, args)] * 2


@pytest.mark.parametrize(
    "line",
    [
        "quarantine", "judge I3 --reason x", "judge I3 confirmed", "judge x confirmed --reason x", "--force",
        "judge I3 maybe --reason x", "update --force", "update c2 confirmed", "update c2 --reason \x1b",
    ],
)  # fmt: skip
def test_words_of_feeds_that_do_not_go_together(capsys: pytest.CaptureFixture[str], path: Path, line: str) -> None:
    code, out, err = run(capsys, "feeds", *line.split(" "))
    assert (code, out) == (2, "") and err.startswith("egressd: ") and err.isascii()


def test_every_verb_of_the_protocol_can_be_typed() -> None:
    assert {verb.partition("-")[0] for verb in VERB_ROLES} <= set(VERBS)  # feeds-update is `feeds update`
    assert set(TABLE) - {"mode"} == set(OPERATIONS) == {verb for verb in VERB_ROLES if FILES.get(verb) == "operate"}
    for verb in OPERATIONS:  # `mode` may be typed without its arguments, to look
        operation = TABLE[verb]
        assert {option.key for option in operation.options} == set(VERB_ARGS[verb]), verb
        for option in operation.options:
            assert option.required == VERB_ARGS[verb][option.key].required, (verb, option.key)


@pytest.mark.parametrize(
    "line",
    [
        "feeds upgrade",
        "block evil.example", "block --reason x", "block evil.example --for 2 --reason x", "cut JPS --reason x",
        "block evil.example --reason", "mode off --reason x", "mode enforce", "panic", "approve x", "undo I3", "ack D3",
        "isolate", "audit nonsense", "audit verify --head 12", "audit --limit 0", "watch I3", "decisions --state x",
        "hosts --rows x", "hosts --rows -1", "plan --days 0", "plan --days 4000",
    ],
)  # fmt: skip
def test_usage_is_exit_2_and_nothing_is_asked(path: Path, line: str) -> None:
    with daemon(path, {}) as asked, pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    assert asked == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("mode enfroce --reason x", "argument MODE: 'enfroce' is none; did you mean 'enforce'?"),
        ("statsu", "argument VERB: 'statsu' is none; did you mean 'status'?"),
        ("list ad x", "argument WHAT: 'ad' is none; did you mean 'add'?"),
        ("frobnicate", "argument VERB: invalid choice: 'frobnicate' (choose from"),
    ],
)
def test_a_slip_of_a_key_is_told_what_was_meant(capsys: pytest.CaptureFixture[str], line: str, told: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "\x1b[2J", "x" * 501])
def test_a_reason_is_words(path: Path, reason: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["panic", "--reason", reason])
    assert stopped.value.code == 2


# -- cutting a segment


def cut(args: dict[str, Any]) -> dict[str, Any]:
    """As the daemon does: without a confirmation it only tells."""
    if args["confirm"] is None:
        return results.PREVIEW
    if args["confirm"] != args["segment"]:
        raise Refused("confirm is not the segment's name")
    return results.CUT


CUT = ["cut", "JPS", "--for", "4h", "--reason", "exfiltration seen"]


def confirms(asked: list[Any]) -> list[Any]:
    return [args["confirm"] for _, _, args in asked]


def test_cut_shows_first_and_has_the_name_typed(
    capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("JPS\n"))
    with daemon(path, {"cut": cut}) as asked:
        code, out, err = run(capsys, *CUT)
    assert code == 0
    assert confirms(asked) == [None, "JPS"]
    assert "Would cut segment JPS" in out and "D26: Segment JPS is cut off for 4h." in out
    assert "still flows" in out
    assert "Type the segment's name to cut it (JPS): " in err


@pytest.mark.parametrize("typed", ["\n", "jps\n", "yes\n", "JPS2\n", ""])
def test_cut_does_nothing_on_another_word(
    capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    with daemon(path, {"cut": cut}) as asked:
        code, _, err = run(capsys, *CUT)
    assert code == 1
    assert confirms(asked) == [None]
    assert "nothing was cut" in err


def test_cut_by_a_script(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    with daemon(path, {"cut": cut}) as asked:
        code, _, err = run(capsys, *CUT)
        assert (code, "add --confirm JPS" in err) == (2, True)
        assert run(capsys, *CUT, "--confirm", "MHLW")[0] == 2
        assert confirms(asked) == [None, None]
        code, out, _ = run(capsys, *CUT, "--confirm", "JPS", "--json")
        assert (code, json.loads(out)) == (0, results.CUT)
    assert confirms(asked) == [None, None, None, "JPS"]


# -- refusals and silence


@pytest.mark.parametrize("code", [1, 2, 3])
def test_refused_says_why(capsys: pytest.CaptureFixture[str], path: Path, code: int) -> None:
    with daemon(path, {"block": Refused("10.0.0.1 is \x1b[31mprotected\nby gateway", code)}):
        got, out, err = run(capsys, "block", "10.0.0.1", "--reason", "x")
    assert (got, out) == (code, "")
    assert err == "egressd: 10.0.0.1 is \\x1b[31mprotected\negressd: by gateway\n"


def test_without_a_role(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    from egressd.web.peers import Credentials

    with daemon(path, READS, credentials=lambda connection: Credentials(1, 2**31 - 7)):
        code, _, err = run(capsys, "status")
    assert (code, "in no group that may use the control socket" in err) == (1, True)


def test_nobody_there(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    code, out, err = run(capsys, "status")
    assert (code, out) == (4, "")
    assert err.startswith(f"egressd: no daemon answers at {path} (No such file or directory).\n")
    assert "systemctl start egressd" in err
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    code, _, err = run(capsys, "block", "evil.example", "--reason", "x")
    assert (code, "(Connection refused)" in err) == (4, True)
    assert run(capsys, "status", "--socket", "x" * 200)[0] == 4


def test_the_argument_goes_before_the_environment(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "other.sock"
    with daemon(other, READS):
        assert run(capsys, "status")[0] == 4
        assert run(capsys, "status", "--socket", str(other))[0] == 0


def test_not_allowed_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "use sudo" in client._unreachable("/run/x", PermissionError(13, "Permission denied"))


@contextmanager
def answering(path: Path, *answers: bytes | None) -> Iterator[None]:
    """Something that listens and answers each connection with bytes; with None it says nothing."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        over = threading.Event()

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    if answer is None:
                        over.wait(HANG_S)
                    else:
                        connection.recv(65_536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(HANG_S)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    "answer",
    [b"hello\n", b"\xff\xfe\n", b"[]\n", b"{}\n", b'{"ok":1}\n', b"[" * 100_000 + b"\n", b"9" * 5_000 + b"\n"],
)
def test_what_is_no_daemon_of_ours(capsys: pytest.CaptureFixture[str], path: Path, answer: bytes) -> None:
    with answering(path, answer):
        code, out, err = run(capsys, "status")
    assert (code, out) == (1, "")
    assert "is not egressd, or another version of it" in err


@pytest.mark.parametrize("answer", [b"", b'{"ok":true'])
def test_a_daemon_that_dies_in_between(capsys: pytest.CaptureFixture[str], path: Path, answer: bytes) -> None:
    with answering(path, answer):
        code, _, err = run(capsys, "block", "evil.example", "--reason", "x")
    assert code == 4
    assert "Whether it did what you asked is not known." in err


def test_a_daemon_that_hangs(path: Path) -> None:
    with answering(path, None), pytest.raises(client.ClientError, match=r"does not answer within 0\.1 s") as caught:
        client.ask(Namespace(socket=str(path)), "status", {}, 0.1)
    assert caught.value.code == UNREACHABLE


def test_many_may_want_to_connect_at_once(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    """With a full backlog we wait for our turn, as long as we would for an answer, instead of failing at once."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(path))
        listening.listen(0)
        first.connect(str(path))
        with pytest.raises(client.ClientError, match=r"does not answer within 0\.1 s"):
            client.ask(Namespace(socket=str(path)), "status", {}, 0.1)

        def serve() -> None:
            listening.accept()[0].close()
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b'{"ok":true,"mode":"monitor","result":{}}\n')

        later = threading.Timer(0.1, serve)
        later.start()
        assert run(capsys, "status")[0] == 0
        later.join(HANG_S)


AGAIN = b'{"ok":false,"error":"too many connections","code":1,"again":true}\n'


def test_who_was_turned_away_tries_again(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    with answering(path, AGAIN, AGAIN, b'{"ok":true,"mode":"enforce","result":{"text":"Done."}}\n'):
        assert run(capsys, "panic", "--reason", "x")[0] == 0
    path.unlink()
    with answering(path, b'{"ok":true,"result":{"text":"Done."}}\n' + AGAIN):
        assert run(capsys, "panic", "--reason", "x")[0] == 0, "turned away after it was answered"
    path.unlink()
    with answering(path, *[AGAIN] * client.TRIES):
        code, _, err = run(capsys, "panic", "--reason", "x")
    assert (code, err) == (1, "egressd: too many connections\n")


def test_what_a_refusal_says_is_read_though_sending_failed(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    with daemon(path, READS, bounds=Bounds(request_bytes=20)):
        code, _, err = run(capsys, "status")
    assert (code, err) == (1, "egressd: a request is at most 20 bytes\n")


# -- fast


@pytest.mark.parametrize("verb", ["status", "block", "watch", "run", "audit"])
def test_help_of_a_live_verb_imports_nothing_heavy(verb: str) -> None:
    modules, out = loaded(verb, "--help")
    assert of(modules, *HEAVY, "sqlite3", "egressd.wire", "egressd.detect", "egressd.runtime", "egressd.web") == []
    assert out.startswith(f"usage: egressd {verb}")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"usage: egressd {verb}" in capsys.readouterr().out


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "scripts/generate_cli_reference.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run scripts/generate_cli_reference.py"
