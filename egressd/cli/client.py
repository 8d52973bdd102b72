"""Asks the daemon over its unix socket: one JSON object a line each way (egressd.web.control is the other end).

What the daemon says is not trusted to be well formed: a foreign program may listen there, and daemon and client may be
of different versions.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from egressd.cli.exit_codes import RUNTIME, UNREACHABLE
from egressd.cli.paths import path_given
from egressd.errors import EgressdError

if TYPE_CHECKING:
    from socket import socket

SOCKET: Final = "/run/egressd/control.sock"
VERSION: Final = 1
TIMEOUT_S: Final = 15.0
TRIES: Final = 5  # a daemon with too many connections says that nothing was done
MAX_ANSWER_BYTES: Final = 1 << 28


class ClientError(EgressdError):
    """The daemon is not reached, or refused. The message is for the person, in one or more lines; `code` is the exit
    code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Answer(NamedTuple):
    """What the daemon said: the verb's result, and how the daemon stands, for the head of each screen."""

    result: dict[str, Any]
    mode: str
    packets: int
    since: str
    down: tuple[str, ...]
    failing: tuple[str, ...] = ()
    unwritten: int = 0
    modes: int = 0

    @property
    def blocks_nothing(self) -> bool:
        """Whether the mode is monitor, and that of no segment another one."""
        return self.mode == "monitor" and not self.modes


def add_socket_argument(parser: ArgumentParser) -> None:
    """Where the daemon listens."""
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=path_given,
        default=None,
        help=f"the daemon's control socket (default: $EGRESSD_SOCKET or {SOCKET})",
    )


def ask(args: Namespace, verb: str, arguments: dict[str, Any], timeout_s: float = TIMEOUT_S) -> Answer:
    """Ask one thing. Raises ClientError when the daemon is not reached (UNREACHABLE) or refuses (1 to 3)."""
    path = args.socket or os.environ.get("EGRESSD_SOCKET") or SOCKET
    given = {name: value for name, value in arguments.items() if value is not None}
    request = json.dumps({"v": VERSION, "verb": verb, "args": given}).encode("ascii") + b"\n"
    record: Any = None
    for _ in range(TRIES):
        line = _exchange(path, request, timeout_s)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not (isinstance(record, dict) and record.get("again") is True):
            break
    if not isinstance(record, dict) or not isinstance(record.get("ok"), bool):
        raise ClientError(f"what answers at {path} is not egressd, or another version of it", RUNTIME)
    if not record["ok"]:
        code = record.get("code")
        raise ClientError(str(record.get("error", "refused")), code if code in (1, 2, 3) else RUNTIME)
    result, packets = record.get("result"), record.get("packets")
    unwritten, modes = record.get("unwritten"), record.get("modes")
    return Answer(
        result if isinstance(result, dict) else {},
        str(record.get("mode", "unknown")),
        packets if isinstance(packets, int) else 0,
        str(record.get("since", "")),
        _words(record.get("down")),
        _words(record.get("failing")),
        unwritten if isinstance(unwritten, int) else 0,
        modes if isinstance(modes, int) else 0,
    )


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _exchange(path: str, request: bytes, timeout_s: float) -> bytes:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        _connect(connection, path, timeout_s)
        try:
            connection.sendall(request)
        except TimeoutError:
            raise ClientError(_silent(path, timeout_s), UNREACHABLE) from None
        except OSError:
            pass  # it may have said why before it closed
        try:
            return _receive(connection)
        except TimeoutError:
            raise ClientError(_silent(path, timeout_s), UNREACHABLE) from None
        except OSError:
            line = b""
    return line or _lost(path)


def _connect(connection: socket, path: str, timeout_s: float) -> None:
    """Wait for our turn when many want to connect: a socket with Python's own time-out would not (EAGAIN, unix(7))."""
    from socket import SO_SNDTIMEO, SOL_SOCKET
    from struct import pack

    connection.setsockopt(SOL_SOCKET, SO_SNDTIMEO, pack("ll", int(timeout_s), int(timeout_s % 1 * 1_000_000)))
    try:
        connection.connect(path)
    except BlockingIOError:
        raise ClientError(_silent(path, timeout_s), UNREACHABLE) from None
    except OSError as error:
        raise ClientError(_unreachable(path, error), UNREACHABLE) from None
    connection.settimeout(timeout_s)


def _receive(connection: socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < MAX_ANSWER_BYTES:
        part = connection.recv(1 << 16)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if b"\n" in part:  # what follows is about the connection, and we are done with that
            return b"".join(parts).partition(b"\n")[0]
    raise ConnectionResetError


def _lost(path: str) -> bytes:
    raise ClientError(
        f"the daemon at {path} closed the connection without an answer.\n"
        "Whether it did what you asked is not known. Look: egressd status; journalctl -u egressd",
        UNREACHABLE,
    )


def _silent(path: str, timeout_s: float) -> str:
    return (
        f"the daemon at {path} does not answer within {timeout_s:g} s.\n"
        "Whether it did what you asked is not known. Blocks in force stay in force.\n"
        "Look: systemctl status egressd; journalctl -u egressd"
    )


def _unreachable(path: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            f"you may not use {path}: only root and the group that owns it may.\n"
            "Ask to be put in a group of control.viewers, operators or admins, or use sudo."
        )
    why = os.strerror(error.errno) if error.errno else str(error)
    return (
        f"no daemon answers at {path} ({why}).\n"
        "Start it: systemctl start egressd   (or, in the foreground: egressd run)\n"
        "Blocks that are in the kernel stay in force until their time runs out."
    )
