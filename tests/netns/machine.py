"""A machine that a real systemd boots, with egressd installed as `make install` installs it, as the gateway.

Its files are those of this machine under a layer of its own, its network is a namespace of the ground; systemd-nspawn
keeps everything else apart. The layers are mounted where only it sees them, so nothing is left when it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import yaml

from tests.netns.daemon import ROOT, until
from tests.netns.spaces import TOOLS, Failed, Namespace, missing

PYTHON: Final = Path(f"/usr/bin/python3.{sys.version_info.minor}")
DEPENDENCIES: Final = "/opt/dependencies"
SOURCE: Final = "/srv/source"
CONFIG: Final = Path("etc/egressd")
BOOT_S: Final = 60.0
END_S: Final = 10.0
# Only what the service is to come before and after: no resolver or database of this machine.
_TARGET: Final = """[Unit]
Requires=basic.target
After=basic.target
Wants=egressd.service egressd-check.path
"""
_BOOT: Final = """
set -e
stage=$1; shift
mkdir "$stage/root" "$stage/upper"
mount -t tmpfs tmpfs "$stage/upper"
mkdir "$stage/upper/work"
cp --archive "$stage/files" "$stage/upper/files"
mount -t overlay overlay -o "lowerdir=/,upperdir=$stage/upper/files,workdir=$stage/upper/work" "$stage/root"
exec "$@"
"""


def no_machine() -> str:
    """Why none can be booted here, and what to install; "" when one can."""
    reason = missing({**TOOLS, "systemd-nspawn": "systemd-container", "setpriv": "util-linux"})
    if not reason and not PYTHON.exists():
        reason = f"needs the system's own Python 3.{sys.version_info.minor}: apt-get install python3 python3-venv"
    return reason


class Unbootable(Exception):
    """No machine comes up here, whatever is installed: its message is what systemd-nspawn said last."""


class Machine:
    """One machine. A context that ends it."""

    def __init__(self, network: Namespace, config: dict[str, Any], listed: str) -> None:
        """`config` is its /etc/egressd/egressd.yaml; `listed` what it finds in lists.d/local.txt."""
        self._network = network
        self._config = config
        self._listed = listed
        self._stage = Path(tempfile.mkdtemp(prefix="egressd-machine-"))
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0  # its first process, as this machine counts

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._nspawn is not None:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # the second does not wait for its services
                self._nspawn.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._nspawn.wait(END_S if number == signal.SIGKILL else 2.0)
                    break
        shutil.rmtree(self._stage, ignore_errors=True)

    def boot(self) -> None:
        """Install, and start it. Raises Unbootable."""
        self._install()
        self._start()
        self.wait_active()

    def _install(self) -> None:
        files = self._stage / "files"
        environment = {
            **os.environ, "DESTDIR": str(files), "PYTHON": str(PYTHON), "COMPILE": "no", "DEPENDENCIES": "none",
        }  # fmt: skip
        _run("sh", str(ROOT / "scripts" / "install.sh"), "install", env=environment)
        packages = next((files / "opt/egressd/lib").glob("python3.*/site-packages"))
        (packages / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")
        (files / CONFIG / "egressd.yaml").write_text(yaml.safe_dump(self._config))
        (files / CONFIG / "lists.d" / "local.txt").write_text(self._listed)
        units = files / "etc/systemd/system"
        units.mkdir(parents=True)
        (units / "gateway.target").write_text(_TARGET)
        (files / "etc/machine-id").write_text("")
        for path in (CONFIG, "var/lib/egressd", "var/log/egressd"):  # nothing of what this machine may have there
            (files / path).mkdir(parents=True, exist_ok=True)
            os.setxattr(files / path, "trusted.overlay.opaque", b"y")  # Documentation/filesystems/overlayfs.rst

    def _start(self) -> None:
        log = (self._stage / "log").open("wb")
        with log:
            self._nspawn = subprocess.Popen(
                [
                    "unshare", "--mount", "sh", "-c", _BOOT, "boot", str(self._stage),
                    "setpriv", "--pdeathsig=TERM",
                    "systemd-nspawn", f"--directory={self._stage}/root", f"--machine=egressd-test-{os.getpid()}",
                    f"--network-namespace-path=/run/netns/{self._network.name}", "--register=no", "--keep-unit",
                    "--link-journal=no", "--console=pipe", "--capability=CAP_NET_ADMIN", f"--bind-ro={ROOT}:{SOURCE}",
                    f"--bind-ro={sysconfig.get_path('platlib')}:{DEPENDENCIES}",
                    "--boot", "systemd.unit=gateway.target",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end_s = time.monotonic() + BOOT_S
        while self.command("systemctl", "is-active", "gateway.target", check=False).strip() != "active":
            said = (self._stage / "log").read_text(errors="replace")
            if self._nspawn.poll() is not None and not self._leader:
                raise Unbootable(said.strip().rpartition("\n")[2])
            if self._nspawn.poll() is not None or time.monotonic() > end_s:
                raise Failed("it did not boot:\n" + said[-2_000:])
            time.sleep(0.1)

    def _first(self) -> int:
        """The process id of its systemd, 0 before there is one."""
        if not self._leader and self._nspawn is not None:
            pid = self._nspawn.pid
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                names = {int(child): Path(f"/proc/{child}/comm").read_text().strip() for child in children}
                self._leader = next((child for child, name in names.items() if name == "systemd"), 0)
        return self._leader

    def command(self, *argv: str, check: bool = True) -> str:
        """What a command prints that root runs on it."""
        first = self._first()
        if not first:
            return ""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
        return _run("nsenter", "--target", str(first), "--all", "--root", *argv, env=environment, check=check)

    def service(self, key: str) -> str:
        """A property of the service (systemctl(1), show)."""
        return self.command("systemctl", "show", "egressd.service", "--value", f"--property={key}").strip()

    def processes(self) -> dict[int, dict[str, str]]:
        """Each process of the service, as /proc/PID/status tells."""
        found = {}
        for pid in self.command("pgrep", "--uid", "egressd", check=False).split():
            rows = (line.partition(":") for line in self.command("cat", f"/proc/{pid}/status").splitlines())
            found[int(pid)] = {key: value.strip() for key, _, value in rows}
        return found

    def journal(self, unit: str) -> str:
        """All that a unit said."""
        return self.command("journalctl", "--unit", unit, "--output=cat", "--no-pager", "--quiet", check=False)

    def write(self, path: str, text: str) -> None:
        """Write a file, as an editor that root uses there."""
        self.command("sh", "-c", 'printf %s "$2" >"$1"', "write", path, text)

    def is_active(self) -> bool:
        """Whether the service runs and has said that it is ready."""
        return self.command("systemctl", "is-active", "egressd.service", check=False).strip() == "active"

    def wait_active(self, timeout_s: float = 20.0) -> None:
        """Wait for that."""
        try:
            until(self.is_active, timeout_s)
        except Failed as error:
            raise Failed("the service did not become active:\n" + self.journal("egressd")[-2_000:]) from error


def _run(*argv: str, env: dict[str, str], check: bool = True) -> str:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise Failed(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
