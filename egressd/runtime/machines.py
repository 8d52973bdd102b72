"""Verbs about machines of ours: isolate one, cut a segment off, and what still flows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from egressd.config.forms import read_spared
from egressd.enforce.adapter import CLIENT, SEGMENT, AdapterError
from egressd.intel.lines import Wrong
from egressd.intel.networks import first_address, parse_address, parse_network, render_address, render_network
from egressd.model import Target
from egressd.plural import count
from egressd.runtime.acts import Acts, Done, Record, how_long, no_line, no_segment
from egressd.runtime.identity import device_text
from egressd.web.peers import Peer
from egressd.web.requests import WRONG, Refused

SHOWN_FLOWS = 20


class Machines:
    """Each method takes (peer, args) and returns the answer's result, or raises Refused."""

    def __init__(self, acts: Acts) -> None:
        self._acts = acts
        self._core = acts.core

    def table(self) -> dict[str, Callable[[Peer, Record], Awaitable[Record]]]:
        """Verb -> what does it."""
        return {"isolate": self.isolate, "release": self.release, "cut": self.cut, "uncut": self.uncut}

    async def isolate(self, peer: Peer, args: Record) -> Record:
        """Cut one client off at the gateway, but for remediation servers."""
        core = self._core
        self._acts.require_armed()
        client = parse_address(args["client"])
        if not client:
            raise Refused(f"{args['client']} is not an address; egressd hosts and egressd incidents have them", WRONG)
        if core.station.is_own(client):
            raise Refused(f"{args['client']} is this gateway, its gateway or its resolver: it is never isolated")
        target = Target(CLIENT, render_address(client))
        standing = core.register.isolated().get(target.value)
        if standing is not None:
            raise Refused(f"{target.value} is isolated already by {standing}")
        for text in args["remedy"]:
            try:
                read_spared(text)
            except Wrong as wrong:
                raise Refused(f"--remedy: {wrong.what} ({wrong.advice})", WRONG) from None
        ends_us = self._acts.until(args["for_s"])
        mac = core.devices.device_of(client, core.clock.now_us())
        if not core.isolation.is_ours(client, mac):
            raise Refused(
                f"{target.value} is outside your networks: isolated, it would be cut off from everybody. To keep hosts"
                f" from it: egressd block {target.value} --reason TEXT. If it is a machine of yours, name its network"
                " under segments: first"
            )
        targets = [target, *(one for one in core.isolation.others_of(mac) if one != target)]
        made = self._acts.make(peer, targets, no_line(target), ends_us, args["reason"], "isolate")
        if args["remedy"]:
            core.isolation.remember(made.id, args["remedy"])
        await self._acts.settle(renew=bool(args["remedy"]))
        self._acts.remember(peer, Done((made.id,)))
        lines = self._covers(mac, targets)
        lines.append("it still reaches DHCP, DNS and ping of this gateway, and hosts of its own network segment")
        left = [*core.config.enforce.remedies, *args["remedy"]]
        lines.append(f"it may reach: {', '.join(left)}" if left else "no remediation server is configured")
        return {"decision_id": made.id, "text": f"{target.value} is isolated{how_long(args)}", "lines": lines}

    async def release(self, peer: Peer, args: Record) -> Record:
        """End an isolation."""
        client = parse_address(args["client"])
        register = self._core.register
        id_ = register.isolated().get(render_address(client), "") if client else ""
        decision = register.by_id.get(id_) or register.by_target.get(Target(CLIENT, args["client"]))
        if decision is None:
            raise Refused(f"{args['client']} is not isolated")
        lifted = self._acts.as_they_stand((decision,))
        await self._acts.end(peer, decision, args["reason"])
        self._acts.remember(peer, Done(lifted=lifted))
        return {"decision_id": decision.id, "text": f"{decision.target.value} is released", "lines": []}

    def _covers(self, mac: bytes, targets: Sequence[Target]) -> list[str]:
        """Which addresses are cut off, and whether that follows the device."""
        if not mac:
            return [f"covered: {targets[0].value} only; its device is not known, so another address of it is not"]
        name = device_text(self._core.devices, mac)
        covered = ", ".join(target.value for target in targets)
        return [f"covered: {covered}, of {name}; addresses that a lease or the neighbour table gives it later follow"]

    async def cut(self, peer: Peer, args: Record) -> Record:
        """Cut a whole segment off; without confirmation only say what that would do."""
        core = self._core
        texts = core.config.segments.get(args["segment"])
        if not texts:
            raise no_segment(core, args["segment"])
        networks = [(first_address(*one), one[1]) for one in map(parse_network, texts) if one is not None]
        if args["confirm"] is None:
            lines = [f"segment {args['segment']}: {', '.join(texts)}", *await self._flows(networks)]
            return {"text": f"this would cut off {args['segment']}{how_long(args)}", "lines": lines}
        self._acts.require_armed()
        if args["confirm"] != args["segment"]:
            raise Refused("the name given to confirm is another one; nothing was cut", WRONG)
        targets = tuple(Target(SEGMENT, render_network(*one)) for one in networks)
        standing = core.register.by_target.get(targets[0])
        if standing is not None:
            raise Refused(f"{args['segment']} is cut already by {standing.id}")
        ends_us = self._acts.until(args["for_s"])
        made = self._acts.make(peer, targets, no_line(targets[0]), ends_us, args["reason"], "cut")
        await self._acts.settle()
        self._acts.remember(peer, Done((made.id,)))
        lines = await self._flows(networks)
        return {"decision_id": made.id, "text": f"segment {args['segment']} is cut off{how_long(args)}", "lines": lines}

    async def uncut(self, peer: Peer, args: Record) -> Record:
        """End a cut."""
        core = self._core
        for text in core.config.segments.get(args["segment"], ()):
            network = parse_network(text)
            target = Target(SEGMENT, render_network(first_address(*network), network[1])) if network else None
            decision = core.register.by_target.get(target) if target is not None else None
            if decision is not None:
                lifted = self._acts.as_they_stand((decision,))
                await self._acts.end(peer, decision, args["reason"])
                self._acts.remember(peer, Done(lifted=lifted))
                text = f"segment {args['segment']} is connected again"
                return {"decision_id": decision.id, "text": text, "lines": []}
        cuts = [one for one in core.register.by_id.values() if one.target.kind == SEGMENT]
        other = f"; {cuts[0].id} cuts {cuts[0].target.value}, and ends with: egressd undo {cuts[0].id}" if cuts else ""
        if args["segment"] not in core.config.segments:  # it may have been when it was cut
            raise Refused(no_segment(core, args["segment"]).text + other, WRONG)
        raise Refused(f"{args['segment']} is not cut{other}")

    async def _flows(self, networks: list[tuple[bytes, int]]) -> list[str]:
        """What still flows, as the kernel's table of connections and the interfaces tell."""
        core = self._core
        try:
            flows = [one for one in await core.enforcement.flows(networks) if one.is_open]
        except AdapterError as error:
            return [f"what still flows cannot be told: {error}"]
        known = count(len(flows), "established flow of it is", "established flows of it are")
        lines = [f"{known} known to this gateway"]
        for one in flows[:SHOWN_FLOWS]:
            lines.append(
                f"flow {render_address(one.source)}:{one.source_port} > "
                f"{render_address(one.destination)}:{one.destination_port}"
            )
        lines.append("not seen here: lines that do not pass this gateway (a second exit, mobile, mail)")
        return lines
