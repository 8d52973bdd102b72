"""Network namespaces that a test owns: made, entered, and taken away again even when the test is killed.

Each namespace's name holds the process id of its maker, so that whoever comes next removes what a dead process left. A
guardian, a shell that waits for the end of a pipe, does so at once when its maker dies without a word.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Final

CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
NAMES: Final = Path("/run/netns")
OURS: Final = re.compile(r"egt(\d+)x[0-9a-f]{6}-")
TOOLS: Final = {"ip": "iproute2", "nft": "nftables"}
CALL_S: Final = 60.0

_GUARDIAN: Final = """
cat >/dev/null
for name in $(ip netns list | awk '{print $1}' | grep "^$1"); do
    for pid in $(ip netns pids "$name"); do kill -9 "$pid" 2>/dev/null; done
    ip netns del "$name"
done
"""
_libc: Final = ctypes.CDLL(None, use_errno=True)


def missing(tools: Mapping[str, str] = TOOLS) -> str:
    """Why namespaces cannot be made here, and what to install; "" when they can. `tools` are programs and packages."""
    if os.geteuid() != 0:
        return "needs root (network namespaces)"
    absent = [package for tool, package in tools.items() if shutil.which(tool) is None]
    if absent:
        return f"needs {' and '.join(sorted(set(absent)))}: apt-get install {' '.join(sorted(set(absent)))}"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        return "needs network namespaces (unshare --net fails here)"
    return ""


def enter(name: str) -> None:
    """Move the calling thread into a namespace of /run/netns."""
    handle = os.open(NAMES / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
    finally:
        os.close(handle)


class Failed(AssertionError):
    """What ran in a namespace raised; the message is its traceback."""


class Running:
    """A function that runs in a namespace, in a process of its own. `channel` leads to it, and back."""

    def __init__(self, pid: int, channel: Connection) -> None:
        self.pid = pid
        self.channel = channel
        self._ended = False

    def receive(self, timeout_s: float = CALL_S) -> Any:
        """What it sends next. Raises Failed when it raised, or sent nothing in time."""
        if not self.channel.poll(timeout_s):
            raise Failed(f"nothing from process {self.pid} within {timeout_s} s")
        try:
            kind, value = self.channel.recv()
        except EOFError as error:
            raise Failed(f"process {self.pid} ended without a word") from error
        if kind == "raised":
            raise Failed(value)
        return value

    def ask(self, *message: Any, timeout_s: float = CALL_S) -> Any:
        """Send it a message and return its answer."""
        self.channel.send(message)
        return self.receive(timeout_s)

    def result(self, timeout_s: float = CALL_S) -> Any:
        """What the function returns; the process is gone then."""
        try:
            return self.receive(timeout_s)
        finally:
            self.stop()

    def stop(self) -> None:
        """End it. Ending it twice does nothing."""
        if self._ended:
            return
        self._ended = True
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Channel:
    """The inner end of a Running's channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, value: Any) -> None:
        """To the test."""
        self._connection.send(("said", value))

    def recv(self) -> tuple[Any, ...]:
        """What the test sent; waits for it."""
        message: tuple[Any, ...] = self._connection.recv()
        return message

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Whether the test sent something."""
        return self._connection.poll(timeout_s)

    def fileno(self) -> int:
        """For select."""
        return self._connection.fileno()


class Namespace:
    """One network namespace."""

    def __init__(self, name: str, guard: int) -> None:
        self.name = name
        self._guard = guard

    def run(self, *argv: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to the end. `text` is its input."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *argv], input=text, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise Failed(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(self, argv: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command in it."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *argv], **options)

    def start(self, function: Callable[..., Any], *args: Any) -> Running:
        """Start `function(channel, *args)` in a child process in it."""
        outer, inner = Pipe()
        maker = os.getpid()
        pid = os.fork()
        if pid:
            inner.close()
            return Running(pid, outer)
        code = 1
        try:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != maker:
                os._exit(1)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            outer.close()
            os.close(self._guard)  # else the guardian would wait for this process too
            enter(self.name)
            inner.send(("returned", function(Channel(inner), *args)))
            code = 0
        except BaseException:  # noqa: BLE001 - a child must not go on as a second pytest
            inner.send(("raised", traceback.format_exc()))
        finally:
            os._exit(code)

    def call(self, function: Callable[..., Any], *args: Any, timeout_s: float = CALL_S) -> Any:
        """`function(*args)` in a child process in it; returns what it returns."""
        return self.start(_without_channel, function, args).result(timeout_s)


def _without_channel(_: Channel, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return function(*args)


class Spaces:
    """Namespaces with a common beginning of their names, and the guardian that removes them."""

    def __init__(self) -> None:
        sweep()
        self.prefix = f"egt{os.getpid()}x{secrets.token_hex(3)}-"
        read_end, self._guard = os.pipe()
        self._guardian = subprocess.Popen(
            ["sh", "-c", _GUARDIAN, "guardian", self.prefix],
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt from the keyboard is not for it
        )
        os.close(read_end)

    def make(self, name: str) -> Namespace:
        """A new namespace, its loopback up."""
        made = Namespace(self.prefix + name, self._guard)
        _ip("netns", "add", made.name)
        _ip("-n", made.name, "link", "set", "lo", "up")
        return made

    def close(self) -> None:
        """Take away all of them, and whatever runs in them."""
        if self._guard < 0:
            return
        os.close(self._guard)
        self._guard = -1
        self._guardian.wait(60)


def sweep() -> None:
    """Remove what makers that no longer live have left."""
    if not NAMES.is_dir():
        return
    for path in NAMES.iterdir():
        found = OURS.match(path.name)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            pids = subprocess.run(["ip", "netns", "pids", path.name], capture_output=True, text=True, check=False)
            for pid in pids.stdout.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


def _ip(*argv: str) -> None:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"ip {' '.join(argv)}: {done.stderr}")


def ip_batch(lines: list[str]) -> None:
    """Many `ip` commands, each "NAMESPACE: command", in as few processes as their order allows; all must work."""
    for name, row in itertools.groupby(lines, lambda line: line.partition(": ")[0]):
        text = "".join(line.partition(": ")[2] + "\n" for line in row)
        done = subprocess.run(
            ["ip", "-n", name, "-batch", "-"], input=text, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"ip -n {name} -batch: {done.stderr}\n{text}")


def set_sysctls(values: Mapping[str, str]) -> None:
    """Write settings under /proc/sys; those under net/ are the calling process's namespace's."""
    for key, value in values.items():
        Path("/proc/sys", key).write_text(value)
