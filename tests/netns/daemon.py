"""Runs the real daemon in the gateway's namespace, as a user of its own with the two capabilities that it needs.

What is checked here is what an operator would use: its readiness as systemd hears it, its control socket, its events,
its metrics, and the kernel's own tables.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.loops import HANG_S
from tests.netns.spaces import Failed, Namespace
from tests.netns.topology import GATEWAY4, GATEWAY6, JPS, MHLW, NETWORKS

ROOT: Final = Path(__file__).resolve().parents[2]
# Where the package lies that is run: set EGRESSD_TREE to a compiled copy (scripts/compile.py --into) to test that one.
TREE: Final = Path(os.environ.get("EGRESSD_TREE", ROOT)).resolve()
NOBODY: Final = 65534
CAPABILITIES: Final = ("net_raw", "net_admin")
READY_S: Final = 60.0
SOON_S: Final = 30.0  # what comes at once, on a machine that compiles beside it; what comes with a full check is later
POLL_S: Final = 0.02

# Python may lie in a folder that only root enters. In a mount namespace of its own (`ip netns exec` makes one) that
# folder is replaced by an empty one with what is needed in it, so that the daemon runs without any more rights.
_SHOW: Final = """
set -e
closed=$1; shift
if [ -n "$closed" ]; then
    held=""
    for kept in $1; do
        hold=$(mktemp -d); mount --bind "$kept" "$hold"; held="$held $hold=$kept"
    done
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    for pair in $held; do
        mkdir -p "${pair#*=}"; mount --bind "${pair%%=*}" "${pair#*=}"; umount "${pair%%=*}"; rmdir "${pair%%=*}"
    done
fi
shift
exec "$@"
"""


class Refused(AssertionError):
    """The daemon said no; `code` is the exit code that the command would end with."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def until(what: Callable[[], Any], timeout_s: float = SOON_S, why: str = "") -> Any:
    """Ask again and again until the answer is true, and return it. Raises Failed with `why` when time is up."""
    end_s = time.monotonic() + timeout_s
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > end_s:
            raise Failed(why or f"not within {timeout_s} s")
        time.sleep(POLL_S)


class Daemon:
    """One daemon, its folder, and everything that can be asked about it. A context that starts and stops it."""

    def __init__(
        self,
        gateway: Namespace,
        listed: str,
        options: Mapping[str, Any] | None = None,
        *,
        realtime: bool = False,
        code: Path = TREE,
        wait_s: float = READY_S,
    ) -> None:
        """`listed` is the block list; `options` go over the configuration, sections key by key. `realtime` lets it run
        as SCHED_FIFO, as the unit's LimitRTPRIO does, or by CAP_SYS_NICE where limits cannot be raised. `code` is the
        folder that has the package."""
        self.gateway = gateway
        self.realtime = realtime
        self.folder = Path(tempfile.mkdtemp(prefix="egressd-"))
        self.log = self.folder / "daemon.log"
        self.socket = self.folder / "run" / "control.sock"
        self.events_file = self.folder / "log" / "eve.json"
        self.wait_s = wait_s
        self.ready_s = 0.0  # how long the last start took
        self._code = code
        self._child: subprocess.Popen[Any] | None = None
        for name in ("state", "run", "log"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, NOBODY, NOBODY)
        self.folder.chmod(0o755)
        self.list_file = self.folder / "block.txt"
        self.list_file.write_text(listed)
        self.allow_file = self.folder / "allow.txt"
        self.allow_file.write_text("")
        self.configure(options or {})

    # -- configuration

    def configure(self, options: Mapping[str, Any]) -> None:
        """Write the configuration anew."""
        config: dict[str, Any] = {
            "mode": "enforce",
            "lists": ["block.txt"],
            "allow": ["allow.txt"],
            "segments": {segment: list(networks) for segment, networks in NETWORKS.items()},
            "resolvers": [*GATEWAY4.values(), *GATEWAY6.values()],
            "capture": {"interfaces": [f"{MHLW}0", f"{JPS}0"]},
            "control": {"socket": str(self.socket)},
            "metrics": {"port": 9469},
            "state": {
                "directory": str(self.folder / "state"),
                "events": str(self.events_file),
                "heads": str(self.folder / "log" / "audit-heads"),
            },
        }
        for key, value in options.items():
            if isinstance(value, Mapping) and isinstance(config.get(key), dict) and key != "segments":
                config[key] = {**config[key], **value}
            else:
                config[key] = value
        self.config_file = self.folder / "egressd.yaml"
        self.config_file.write_text(yaml.safe_dump(config))

    # -- life

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._child is not None:
                self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The core's process."""
        assert self._child is not None
        return self._child.pid

    def start(self, wait: bool = True) -> None:
        """Start it, and wait until it says that it is ready."""
        notify_path = self.folder / "run" / f"notify-{secrets.token_hex(4)}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening.bind(str(notify_path))
        notify_path.chmod(0o666)
        self._notify = listening
        environment = {
            **os.environ, "NOTIFY_SOCKET": str(notify_path), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        began_s = time.monotonic()
        with self.log.open("ab") as log:
            self._child = self.gateway.popen(
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=self._code,
                start_new_session=True,
            )  # fmt: skip
        if wait:
            self.wait_ready()
            self.ready_s = time.monotonic() - began_s

    def _command(self) -> list[str]:
        limit: list[str] = []
        names = [*CAPABILITIES]
        if self.realtime and _may_raise_limit():
            limit = ["prlimit", "--rtprio=10"]
        elif self.realtime:
            names.append("sys_nice")
        caps = "-all," + ",".join(f"+{name}" for name in names)
        closed, kept = _closed_folder((Path(sys.base_prefix), Path(sys.prefix), ROOT, self._code))
        return [
            "sh", "-c", _SHOW, "show", closed, kept, *limit,
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", f"--inh-caps={caps}",
            f"--ambient-caps={caps}", f"--bounding-set={caps}", "--no-new-privs",
            sys.executable, "-m", "egressd", "run", "--config", str(self.config_file),
        ]  # fmt: skip

    def wait_ready(self, timeout_s: float = 0.0) -> None:
        """Wait for READY=1 (sd_notify(3))."""
        end_s = time.monotonic() + (timeout_s or self.wait_s)
        while True:
            try:
                self._notify.settimeout(0.2)
                if b"READY=1" in self._notify.recv(4096).split(b"\n"):
                    return
            except TimeoutError:
                pass
            assert self._child is not None
            if self._child.poll() is not None:
                raise Failed(f"the daemon ended with {self._child.returncode}:\n{self.tail()}")
            if time.monotonic() > end_s:
                raise Failed(f"the daemon was not ready in time:\n{self.tail()}")

    def notified(self) -> list[str]:
        """What it told systemd since the last look, line by line."""
        told: list[str] = []
        self._notify.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                told += self._notify.recv(4096).decode().split("\n")
        return told

    def tail(self, lines: int = 40) -> str:
        """The end of what it said on its standard output and error."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, timeout_s: float = HANG_S) -> int:
        """End it politely; returns its exit code."""
        assert self._child is not None
        if self._child.poll() is None:
            self._child.terminate()
        try:
            code = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"the daemon did not stop within {timeout_s} s:\n{self.tail()}") from None
        self._end()
        return code

    def kill(self, everything: bool = True) -> None:
        """kill -9: the core, and at the same moment its packet processes unless they shall find out by themselves."""
        assert self._child is not None
        if everything:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
        else:
            self._child.kill()
        self._child.wait()
        self._end()

    def _end(self) -> None:
        self._child = None
        self._notify.close()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def running(self) -> bool:
        """Whether the core lives."""
        return self._child is not None and self._child.poll() is None

    # -- what it says

    def ask(self, verb: str, timeout_s: float = HANG_S, **args: Any) -> dict[str, Any]:
        """One request on the control socket. Raises Refused, and OSError when nobody answers."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.settimeout(timeout_s)
            one.connect(str(self.socket))
            one.sendall(json.dumps({"v": 1, "verb": verb, "args": args}).encode() + b"\n")
            with one.makefile("rb") as lines:
                line = lines.readline()
        if not line:
            raise ConnectionResetError(f"{verb}: closed without an answer\n{self.tail()}")
        told = json.loads(line)
        if not told["ok"]:
            raise Refused(told["error"], told["code"])
        result: dict[str, Any] = told["result"]
        return result

    def command(self, *argv: str, check: bool = True) -> str:
        """What `egressd VERB` prints for an operator."""
        environment = {**os.environ, "EGRESSD_SOCKET": str(self.socket), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "egressd", *argv], capture_output=True, text=True, env=environment, cwd=ROOT,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            raise Failed(f"egressd {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + ("" if check else done.stderr)

    def events(self, event_type: str = "", **fields: Any) -> list[dict[str, Any]]:
        """Its events so far, of one type, with these fields of their object `egressd`."""
        return list(self._events(event_type, fields))

    def _events(self, event_type: str, fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if not self.events_file.exists():
            return
        for line in self.events_file.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the last line may be half written
            ours = event.get("egressd", {})
            if event_type in ("", event["event_type"]) and all(ours.get(key) == want for key, want in fields.items()):
                yield event

    def metrics(self) -> dict[str, float]:
        """Its metrics, by series."""
        text = self.gateway.call(_fetch, 9469, "/metrics")
        rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    def memory_bytes(self) -> dict[int, int]:
        """Resident memory of each of its processes."""
        found = {}
        for pid in [self.pid, *self.packet_pids()]:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                row = next((line for line in status.splitlines() if line.startswith("VmRSS:")), "VmRSS: 0")
                found[pid] = int(row.split()[1]) * 1024
        return found

    def packet_pids(self) -> list[int]:
        """Its packet processes, as it tells."""
        return [one["pid"] for one in self.ask("status")["packet_processes"] if one["pid"]]


def _may_raise_limit() -> bool:
    return subprocess.run(["prlimit", "--rtprio=10", "true"], capture_output=True, check=False).returncode == 0


def _closed_folder(needed: tuple[Path, ...]) -> tuple[str, str]:
    """The outermost folder above something that is needed which other users may not enter, and what is needed in it."""
    for path in needed:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & 0o001:
                kept = {str(one) for one in needed if one.is_relative_to(parent)}
                return str(parent), " ".join(sorted(kept, key=len))
    return "", ""


def _fetch(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as one:
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        with one.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Failed(head.decode("latin-1"))
    return body.decode()
