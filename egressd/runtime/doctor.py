"""`egressd doctor`: proves from end to end that a question is seen, a block reaches the kernel, and is lifted again, on
a scratch set that stops nobody; and looks at what usually goes wrong around it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from egressd.enforce.accounting import TURN_ON
from egressd.enforce.adapter import AdapterError
from egressd.plural import count
from egressd.runtime.canary import Canary
from egressd.runtime.core import Core
from egressd.runtime.screens import state_of, verified
from egressd.store.errors import StoreError
from egressd.units import SECOND_US

UNREADABLE: Final = -1
_SETTINGS: Final = Path("/proc/sys/net")


class Findings:
    """Checks as they are made."""

    def __init__(self) -> None:
        self.checks: list[dict[str, Any]] = []

    def add(self, name: str, ok: bool, detail: str, began_s: float | None = None, ms: float = 0.0) -> None:
        """One more. Took `ms`, or the time since `began_s` (monotonic)."""
        if began_s is not None:
            ms = (time.monotonic() - began_s) * 1000
        self.checks.append({"name": name, "ok": ok, "detail": detail, "ms": round(ms, 2)})


async def examine(core: Core, canary: Canary) -> dict[str, Any]:
    """Every check, and whether all is well."""
    found = Findings()
    for what, ok, detail, ms in await canary.prove(core.canary_interfaces()):
        found.add(what, ok, detail, ms=ms)
    if not core.arming.is_enforcing():
        found.add("push", True, "not tried: the mode is monitor, the kernel is left alone")
    _sensors(core, canary, found)
    await _rules(core, found)
    await _ledger(core, found)
    _lists(core, found)
    _system(core, found)
    return {"ok": all(one["ok"] for one in found.checks), "checks": found.checks}


def _sensors(core: Core, canary: Canary, found: Findings) -> None:
    now_us = core.clock.now_us()
    for one in core.sensing.interfaces():
        silent_s = max(0, now_us - (one["last_us"] or core.started_us)) // SECOND_US
        ok = state_of(core, canary, one) == "up"
        packets = count(one["packets"], "packet")
        detail = f"{one['state']}, {packets}, {one['kernel_drops']:,} dropped, last {silent_s} s ago"
        found.add(f"interface {one['name']}", ok, one["problem"] or detail)
    if not core.sensing.interfaces():
        found.add("interfaces", False, "no packet process has told anything yet")
    for row in core.sensing.rows():
        speed = "compiled" if row["compiled"] else "pure Python"
        first = "runs before all others" if row["realtime"] else "runs as all others: blocks come later when it is busy"
        found.add(f"process {row['pid']}", row["pid"] > 0, f"{speed}, {first}")


async def _rules(core: Core, found: Findings) -> None:
    began_s = time.monotonic()
    for one in core.enforcement.adapters():
        ok = one["state"] == "ok" and not one["failed"]
        detail = one["detail"] or f"{one['active']:,} in force, {one['pending']:,} pending, {one['failed']:,} failed"
        found.add(f"adapter {one['name']}", ok, detail)
    wanted = [rule.target for rule in core.arming.rules() if rule.target.kind in ("address", "pair")][:1_000]
    try:
        there = await core.enforcement.counters(wanted)
    except AdapterError as error:
        found.add("read back", False, str(error), began_s)
        return
    if core.arming.is_enforcing():
        missing = [one for one in wanted if one not in there]
        detail = f"{len(there):,} of {len(wanted):,} looked up are in the kernel"
        found.add("read back", not missing, detail, began_s)


async def _ledger(core: Core, found: Findings) -> None:
    began_s = time.monotonic()
    try:
        verdict, problems = await verified(core)
    except StoreError as error:
        found.add("audit", False, str(error), began_s)
        return
    said = verdict.problem or "; ".join(problems[:2])
    detail = f"{count(verdict.rows, 'row')}, compared with {count(verdict.heads_checked, 'head')}"
    found.add("audit", verdict.ok and not problems, said or detail, began_s)
    trouble = core.scribe.trouble
    waits = count(core.scribe.waiting, "change waits", "changes wait")
    found.add("ledger", not trouble, trouble or f"{waits} to be written")


def _lists(core: Core, found: Findings) -> None:
    texts = core.loaded.texts
    size = core.knowledge.intel.index.size
    if texts.demo:
        found.add("lists", False, "only the demonstration list is loaded: name your lists under lists:")
    else:
        listed = f"{size:,}" if size else "nothing is listed, so nothing is found: put something into your lists"
        problems = "; ".join(core.reloading.problems[:2])
        found.add("lists", size > 0 and not problems, problems or listed)


def _system(core: Core, found: Findings) -> None:
    """Settings of the machine that make blocks pointless, or evidence worthless."""
    for interface in core.station.interfaces:
        values = [_setting(f"ipv4/conf/{one}/rp_filter") for one in (interface, "all")]
        said = "is not strict: hosts may send under others' addresses (sysctl net.ipv4.conf)"
        if UNREADABLE in values:
            said = f"cannot be read from here; look yourself: sysctl net.ipv4.conf.{interface}.rp_filter (1 is strict)"
        elif max(values) == 1:  # the larger of both holds (Linux, ip-sysctl.rst)
            said = "strict"
        found.add(f"rp_filter {interface}", True, said)
    if core.volume is not None:
        found.add("volume", True, _volume(core.volume.screen()))
    user = "root: run it as its own user (systemd unit)" if os.geteuid() == 0 else f"user {os.geteuid()}"
    found.add("privileges", True, user)


def _volume(seen: dict[str, Any]) -> str:
    """Whether bytes are counted; the command that turns it on fits a line."""
    if seen["observed"]:
        return f"{count(seen['flows'], 'flow')}, {seen['flows_uncounted']:,} of them from before the kernel counted"
    return f"off: {TURN_ON}" if TURN_ON in seen["problem"] else f"not observed: {seen['problem']}"


def _setting(name: str) -> int:
    try:
        return int((_SETTINGS / name).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return UNREADABLE
