"""What a command costs: processor time, wall time and memory of a child process; and how steady the machine is."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

CALIBRATION_TURNS: Final = 500_000
SAMPLE_S: Final = 0.1


class Cost(NamedTuple):
    """One run of a command. `peak_bytes` is the most memory it had at once, `code` its exit code, `memory` what it had
    in memory at each tenth of a second."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    code: int
    memory: tuple[int, ...] = ()


def run(command: list[str], out: Path, environment: dict[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run a command to its end, with its output in `out` and its errors in `out`.errors.

    The peak is that of the child alone as long as this process is smaller than it: Linux counts the size of the parent
    at the moment of the fork too.
    """
    errors = out.with_name(out.name + ".errors")
    with out.open("wb") as stdout, errors.open("wb") as stderr:
        started_s = time.perf_counter()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment, cwd=cwd
        )
        memory: list[int] = []
        pages = Path(f"/proc/{child.pid}/statm")
        while True:
            ended, status, usage = os.wait4(child.pid, os.WNOHANG)
            if ended:
                break
            with suppress(OSError, IndexError):
                resident = int(pages.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
                if resident:  # 0: it has ended, and waits to be waited for
                    memory.append(resident)
            time.sleep(SAMPLE_S)
        wall_s = time.perf_counter() - started_s
    child.returncode = os.waitstatus_to_exitcode(status)
    return Cost(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss * 1024, child.returncode, tuple(memory))


def calibrate() -> float:
    """Nanoseconds of one turn of a fixed Python loop. It differs only because something else slows the machine."""
    started_s = time.process_time()
    total = 0
    for turn in range(CALIBRATION_TURNS):
        total += turn
    return (time.process_time() - started_s) / CALIBRATION_TURNS * 1e9


def summed(costs: list[Cost]) -> dict[str, Any]:
    """Median and best of several runs."""
    return {
        "cpu_s": round(median(cost.cpu_s for cost in costs), 4),
        "cpu_best_s": round(min(cost.cpu_s for cost in costs), 4),
        "cpu_worst_s": round(max(cost.cpu_s for cost in costs), 4),
        "wall_s": round(median(cost.wall_s for cost in costs), 4),
        "peak_bytes": max(cost.peak_bytes for cost in costs),
        "code": max(cost.code for cost in costs),
        "memory_by_quarters": [costs[-1].memory[at * (len(costs[-1].memory) - 1) // 4] for at in range(5)]
        if costs[-1].memory
        else [],
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        rows = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((row.partition(":")[2].strip() for row in rows if row.startswith("model name")), "")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def version_of(command: list[str]) -> str:
    """First line of what a program says about its version, or "" when it is not there."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return ""
    return (told.stdout or told.stderr).strip().partition("\n")[0]
