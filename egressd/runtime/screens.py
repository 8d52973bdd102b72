"""What the control socket answers to those who look: its state as plain values (the field names are a contract)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from egressd import __version__
from egressd.config.texts import escape_path
from egressd.detect.blocks import main_target
from egressd.detect.mac import is_local, parse_mac, render_mac
from egressd.detect.review import match_target
from egressd.detect.site import MONITOR
from egressd.detect.stages import Watched, stage_text
from egressd.enforce.adapter import AdapterError, Existing
from egressd.intel.networks import parse_address, render_address
from egressd.metrics.histogram import Histogram
from egressd.model import BEHAVIOUR, Incident, Target
from egressd.notify.eve import VIA, render_time
from egressd.runtime.alarms import warnings
from egressd.runtime.block_plan import BlockPlan
from egressd.runtime.canary import Canary
from egressd.runtime.core import Core
from egressd.runtime.in_force import ROLLBACK, InForce, Register
from egressd.runtime.modes import How
from egressd.runtime.preview import Preview, told
from egressd.runtime.sensing import resident_bytes
from egressd.store import audit, queries
from egressd.store.decisions import ACTIVE, PROPOSED
from egressd.store.heads import Head, load_heads
from egressd.units import HOUR_US, SECOND_US
from egressd.web.requests import REFUSED, WRONG, Refused

SHOWN_CLIENTS: Final = 20
NAMES: Final = 20  # of an incident, looked up when what was decided may be about one of them alone
SILENT_US: Final = 300_000_000

Record = dict[str, Any]


def timed(value: Any) -> Any:
    """Every `x_us` of a query as `x` in ISO 8601, or null; all the rest as it is."""
    if isinstance(value, dict):
        return {
            key.removesuffix("_us"): (render_time(one) if one else None) if key.endswith("_us") else timed(one)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [timed(one) for one in value]
    return value


async def status(
    core: Core,
    canary: Canary,
    loss: float,
    degraded: bool,
    lag_s: float,
    first: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Record:
    """One screen's worth of everything. `first` and `more` are warnings of parts that the core does not know, that
    stand before its own and behind them: the command shows as many as there is room for."""
    now_us = core.clock.now_us()
    told = await core.ledger.read(queries.status, now_us, core.arming.armed_first_us())
    sensing = core.sensing
    return {
        "mode": core.arming.mode,
        "modes": dict(core.arming.modes),
        "arming": armed_how(core),
        "version": __version__,
        "started": render_time(core.started_us),
        "uptime_s": (now_us - core.started_us) // SECOND_US,
        "interfaces": _interfaces(core, canary),
        "packet_processes": list(sensing.rows()),
        "sensors": core.listening.screen(),
        "loss_ratio": loss,
        "degraded": degraded,
        "lists": lists(core, now_us),
        "list_problems": [str(one) for one in core.knowledge.problems] + core.reloading.problems,
        "blind": sensing.totals("blind"),
        "adapters": [timed(one) for one in core.enforcement.adapters()],
        "blocks": _blocks(core.register),
        "watch": timed(told["watch"]),
        "incidents": told["incidents"],
        "devices": {"known": core.devices.count, "leased": core.devices.leases},
        "protected": len(core.knowledge.intel.protected.networks),
        "canary": canary.told(),
        "volume": core.volume.screen() if core.volume is not None else None,
        "time_to_block_ms": quantiles(sensing.time_to_block()),
        "memory_bytes": {
            "core": resident_bytes(os.getpid()),
            "packet": sum(one["rss_bytes"] for one in sensing.rows()),
        },
        "loop_lag_s": round(lag_s, 3),
        "warnings": [*first, *warnings(core), *more],
    }


def _interfaces(core: Core, canary: Canary) -> list[Record]:
    """Those that are captured from, or will be."""
    captured: list[Record] = [
        {
            "name": one["name"],
            "state": state_of(core, canary, one),
            "problem": one["problem"],
            "packets": one["packets"],
            "kernel_drops": one["kernel_drops"],
            "last_packet": render_time(one["last_us"]) if one["last_us"] else None,
        }
        for one in core.sensing.interfaces()
    ]
    return captured or [
        {"name": name, "state": "starting", "packets": 0, "kernel_drops": 0, "last_packet": None}
        for name in core.station.interfaces
    ]


def _blocks(register: Register) -> Record:
    """What stands, by sort."""
    active = sum(one.state == ACTIVE for one in register.by_id.values())
    return {
        "active": active,
        "proposed": len(register.by_id) - active,
        "addresses": register.count("address"),
        "pairs": register.count("pair"),
        "clients_isolated": len(set(register.isolated().values())),
        "segments_cut": len(register.cut()),
    }


def armed_how(core: Core) -> list[Record]:
    """Each mode that is in force, that of all whose segment has none first: since when, by whom and why, and what the
    configuration says."""
    arming, config = core.arming, core.config
    return [
        {
            "segment": name or None,
            "mode": mode,
            "since": render_time(how.since_us) if how.since_us else None,
            "by": how.by or None,
            "reason": how.reason or None,
            "configured": config.modes.get(name, config.mode) if name else config.mode,
        }
        for name, mode in arming.by_name().items()
        for how in [arming.how.get(name, How())]
    ]


def armed(core: Core, client: str | None) -> str | None:
    """Since when what a client contacts is not under monitor any more; None: it is, or it always was."""
    since_us = core.arming.armed_us(parse_address(client or ""))
    return render_time(since_us) if since_us else None


def state_of(core: Core, canary: Canary, interface: Record) -> str:
    """An interface that is up and has shown for long that it sees nothing is silent, whatever it says of itself."""
    state = str(interface["state"])
    silent_us = core.clock.now_us() - shown_us(core, canary, interface)
    return "silent" if state == "up" and silent_us > SILENT_US else state


def shown_us(core: Core, canary: Canary, interface: Record) -> int:
    """When an interface showed last that it sees what there is to see: by a packet, or by a canary, for at night hosts
    may be quiet. On a mirror port a canary shows nothing: what others send does not come the way that it comes."""
    mirrors = core.config.capture.packets == "all"
    proved_us = canary.seen_us.get(interface["name"], 0) if canary.enabled and not mirrors else 0
    return max(int(interface["last_us"]), core.started_us, proved_us)


def quantiles(times: Histogram) -> Record:
    """Milliseconds of the middle and of the slowest hundredth."""
    p50, p99 = times.quantile(0.5), times.quantile(0.99)
    return {
        "p50": round(p50 * 1000, 3) if p50 is not None else None,
        "p99": round(p99 * 1000, 3) if p99 is not None else None,
        "count": times.count,
    }


def lists(core: Core, now_us: int) -> list[Record]:
    """Where indicators come from."""
    paths = {one.name: one.path for one in core.loaded.texts.files}
    found = []
    for one in core.loaded.texts.lists:
        sign = core.loaded.signs.get(paths[one.name]) if one.name in paths else None
        saved_us = sign[3] // 1_000 if sign is not None else core.reloading.at_us
        found.append(
            {
                "source": escape_path(one.name),
                "indicators": one.indicators,
                "problems": one.problems,
                "loaded": render_time(core.reloading.at_us),
                "age_s": max(0, now_us - saved_us) // SECOND_US,
            }
        )
    found += [
        {
            "source": name,
            "indicators": one.built.size,
            "problems": 0,  # what is wrong in a feed is its publisher's affair: egressd feeds
            "loaded": render_time(one.confirmed_us),
            "age_s": max(0, now_us - one.confirmed_us) // SECOND_US,
        }
        for name, one in core.fed.items()
    ]
    mine = sum(one.kind == "indicator" for one in core.entries)
    if mine:
        found.append(
            {
                "source": "operator",
                "indicators": mine,
                "problems": 0,
                "loaded": render_time(core.reloading.at_us),
                "age_s": 0,
            }
        )
    return found


async def hosts(core: Core) -> Record:
    """The census of infected hosts."""
    found = await core.ledger.read(queries.hosts)
    for one in found:
        one.update(device_fields(core, one["device"]))
        one["blocked"] = is_blocked(core, one["client"], one["incidents"])
        one["armed"] = armed(core, one["client"])
        about = list(filter(None, map(core.campaigns.incidents.get, one["incidents"])))
        one["listed"] = not about or any(is_listed(core, incident) for incident in about)
    return {"hosts": timed(found)}


def is_blocked(core: Core, client: str, ids: Sequence[str]) -> bool | None:
    """Whether all that these incidents of a client are about is blocked; False: its segment is under monitor, or of one
    of them a person has to say, or no address may be blocked; None: nothing is decided, or it was lifted."""
    if core.arming.site.mode_of(parse_address(client)) == MONITOR:
        return False
    told: bool | None = None
    for incident in filter(None, map(core.campaigns.incidents.get, ids)):
        match = incident.match
        about = core.register.about(match) or next(
            filter(None, (core.register.about(match, name) for name in islice(incident.names, NAMES))), None
        )
        if about is not None and core.rulings.enforces(about) and not about.keeps_nobody():
            told = True
        elif about is not None and match.level != BEHAVIOUR:
            return False
    return told


def is_listed(core: Core, incident: Incident) -> bool:
    """Whether a list still names what an incident is about; what behaviour led to none ever did."""
    match, now_s = incident.match, core.clock.now_us() // SECOND_US
    if match.level == BEHAVIOUR:
        return True
    index = core.knowledge.intel.index
    if match_target(index, main_target(match), now_s) is not None:
        return True
    return any(index.match_name(name, now_s) is not None for name in islice(incident.names, NAMES))


def device_fields(core: Core, device: str | None) -> Record:
    """What is known of a device beyond its MAC: a name, and whether it made the MAC up."""
    mac = parse_mac(device or "")
    return {"device_name": core.devices.name_of(mac) or None, "device_random": bool(mac) and is_local(mac)}


def campaign_fields(core: Core, id_: str, watched: Watched) -> Record:
    """How far a campaign got, what ties it, and what may be part of it."""
    campaign = core.campaigns.campaigns.get(core.campaigns.current(id_))
    if campaign is None:
        return {"stage": None, "ties": [], "candidates": []}
    incidents = [core.campaigns.incidents[one] for one in campaign.incidents]
    return {
        "stage": stage_text(incidents, watched) if incidents else None,
        "ties": list(campaign.ties),
        "candidates": [{"campaign": one, "reason": reason} for one, reason in campaign.candidates.items()],
    }


def watched_of(core: Core) -> Watched:
    """What this run has looked at so far."""
    sensing = core.sensing
    interfaces = sensing.interfaces()
    last_us = max((one["last_us"] for one in interfaces), default=0) or core.clock.now_us()
    return Watched(
        sensing.total("packets"), core.started_us, last_us, sum(one["kernel_drops"] for one in interfaces),
        sensing.totals("blind"), core.volume is not None and not core.volume.problem,
    )  # fmt: skip


async def incidents(core: Core, state: str | None, client: str | None) -> Record:
    """Incidents, of one state or client. Raises Refused."""
    packed = b""
    if client is not None:
        packed = parse_address(client)
        if not packed:
            raise Refused(f"{client} is not an address; egressd hosts has them", WRONG)
    found = await core.ledger.read(queries.incidents, state or "", packed)
    watched, isolated = watched_of(core), core.register.isolated()
    for one in found:
        one["via"] = {VIA.get(via, via): contacts for via, contacts in one["via"].items()}
        one.update(device_fields(core, one["device"]))
        one.update(campaign_fields(core, one["campaign"], watched))
        one["armed"] = armed(core, one["client"])
        about = core.campaigns.incidents.get(one["id"])
        one["listed"] = about is None or is_listed(core, about)
        one["blocked"] = None if one["state"] == "closed" else is_blocked(core, one["client"], [one["id"]])
        if one["client"] in isolated and core.arming.is_enforcing():
            one["blocked"] = True
    return {"incidents": timed(found)}


async def watch(core: Core, id_: str | None) -> Record:
    """What is watched, with the kernel's own counters if it tells them."""
    found = await core.ledger.read(queries.watches, core.clock.now_us(), id_ or "")
    wanted = [
        Target(one["kind"], one["value"]) for row in found for one in row["addresses"] if one["state"] == "active"
    ]
    counters: dict[Target, Existing] = {}
    with suppress(AdapterError):  # what does not answer stands in the adapter's state
        counters = await core.enforcement.counters(wanted[:10_000])
    for row in found:
        standing = core.register.by_id.get(row["decision_id"])
        row["name_only"] = standing is not None and standing.keeps_nobody()
        spared = standing.left_open() if standing is not None else {}
        row["spared"] = [{"kind": one.kind, "value": one.value, "reason": why} for one, why in spared.items()]
        for one in row["clients"]:
            mac = core.devices.device_of(parse_address(one["client"] or ""), one["last_us"])
            one["device"] = render_mac(mac) or None
            one.update(device_fields(core, one["device"]))
            one["armed"] = armed(core, one["client"])
        for one in row["addresses"]:
            held = counters.get(Target(one["kind"], one["value"]))
            one["packets"] = held.packets if held is not None else 0
    return {"watches": timed(found)}


async def decisions(core: Core, args: Record) -> Record:
    """Decisions with their targets, and what adapters made of them: the newest, and whether there are `more`."""
    limit = args["limit"]
    found = await core.ledger.read(queries.decisions_told, args["state"] or "open", limit + 1, args["id"] or "")
    for one in found:
        standing = core.register.by_id.get(one["id"])
        if standing is not None and standing.state == PROPOSED:
            one["waiting"] = waiting_of(core, standing)
            if standing.rule == ROLLBACK:  # its reason is not kept over a restart: the audit has it
                why = standing.reason if standing.reason != one["reason"] else "too many hosts ran into it"
                one["waiting"]["taken_back"] = why
    return {"decisions": timed(found[-limit:]), "more": len(found) > limit}


async def plan(of: BlockPlan, args: Record) -> Record:
    """What enforcing now would do."""
    record: Record = timed(await of.plan(args))
    return record


def waiting_of(core: Core, one: InForce) -> Record:
    """What a person needs who decides about a proposal: who ran into it, what saying yes does, when it lapses."""
    watched = core.intake.watched.of(one.id)
    clients = {*watched, *((one.client,) if one.client else ())}
    addresses = sum(held.state == ACTIVE and target.kind == "address" for target, held in one.held.items())
    pairs = sum(held.state == ACTIVE and target.kind == "pair" for target, held in one.held.items())
    if one.target.kind == "client":
        does = f"keeps {one.target.value} from everything outside but remedies"
    else:
        wide = f"{addresses} {'address' if addresses == 1 else 'addresses'} for everybody, {pairs} for one client each"
        does = f"blocks {one.target.kind.replace('_', ' ')} {one.target.value}: {wide}, and what it leads to later"
    return {
        "clients": [render_address(client) for client in sorted(clients)][:SHOWN_CLIENTS],
        "hosts": len(clients),
        "contacts": sum(found.count for found in watched.values()) + 1,
        "approving": does,
        "lapses_us": one.waits_since_us + core.config.policy.lapse_h * HOUR_US,
    }


async def preview(over: Preview, args: Record) -> Record:
    """What a change of lists would do."""
    effect, problems = await over.of_lines(args["lines"])
    record: Record = timed(told(effect, problems))
    return record


def listed(core: Core) -> Record:
    """Lists, and what operators added."""
    return {
        "lists": lists(core, core.clock.now_us()),
        "operator": [
            {
                "id": one.id,
                "kind": one.kind,
                "text": one.text,
                "author": one.author,
                "reason": one.reason,
                "created": render_time(one.created_us),
                "expires": render_time(one.expires_us) if one.expires_us else None,
            }
            for one in core.entries
        ],
        "allowances": core.loaded.texts.allowances,
    }


async def audit_rows(core: Core, args: Record) -> Record:
    """The audit chain's end, or whether the whole of it is sound."""
    if not args["verify"]:
        rows = await core.ledger.read(audit.rows, args["limit"], args["actor"] or "")
        head = await core.ledger.read(audit.head)
        return {"rows": timed(rows), "head": {"seq": head.seq, "hash": head.hash}}
    seq, _, digest = (args["head"] or "").partition(":")
    verdict, problems = await verified(core, [Head(int(seq), digest, 0)] if seq else [])
    problem = verdict.problem or "; ".join(problems[:3])
    return {
        "ok": verdict.ok and not problems,
        "rows": verdict.rows,
        "head": {"seq": verdict.head.seq, "hash": verdict.head.hash},
        "problem": problem or None,
        "heads_checked": verdict.heads_checked,
        "put_back": verdict.put_back,
    }


async def verified(core: Core, more: Sequence[Head] = ()) -> tuple[audit.Verdict, list[str]]:
    """The whole chain verified in parts, between which others may write, by the heads that were kept, and `more`; and
    what is wrong with the file of those. Raises StoreError."""
    heads, problems = await asyncio.to_thread(load_heads, core.loaded.base_dir / core.config.state.heads)
    verifier = audit.Verifier([*more, *heads])
    while await core.ledger.read(verifier.step):
        pass
    return verifier.verdict(), problems


def version() -> Record:
    """Which egressd this is."""
    return {"version": __version__}


def refuse(text: str, code: int = REFUSED) -> Refused:
    """A request that is not done."""
    return Refused(text, code)
