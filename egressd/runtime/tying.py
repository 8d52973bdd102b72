"""Verbs about campaigns: a person says that a candidate is part of one, or that it is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from egressd.plural import count
from egressd.runtime.acts import Acts, Done, Record
from egressd.store import audit, incidents
from egressd.store.audit import Act
from egressd.web.peers import Peer
from egressd.web.requests import Refused


class Tying:
    """Each method takes (peer, args) and returns the answer's result, or raises Refused."""

    def __init__(self, acts: Acts) -> None:
        self._acts = acts
        self._core = acts.core

    def table(self) -> dict[str, Callable[[Peer, Record], Awaitable[Record]]]:
        """Verb -> what does it."""
        return {"tie": self.tie, "untie": self.untie}

    async def tie(self, peer: Peer, args: Record) -> Record:
        """Two campaigns are one from now on; the older takes over the younger."""
        core = self._core
        one, other = self._known(args["campaign"]), self._known(args["candidate"])
        if one == other:
            raise Refused(f"{args['candidate']} is part of {one} already")
        act = Act(peer.actor, "socket", "tie", one, args["reason"], None, {"with": other})
        core.scribe.put(audit.append, act, core.clock.now_us())
        core.campaigns.tie(one, other, f"{peer.actor}: {args['reason']}")
        await self._acts.settle()
        self._acts.remember(peer, Done(stays=f"last you tied {one} and {other}, which nothing takes apart"))
        kept = core.campaigns.current(one)
        gone = other if kept == one else one
        hosts = len(core.campaigns.campaigns[kept].incidents)
        return {"text": f"{gone} is part of {kept} now, which has {count(hosts, 'incident')}", "lines": []}

    async def untie(self, peer: Peer, args: Record) -> Record:
        """A candidate is no part of a campaign, and is not proposed again."""
        core = self._core
        one, other = self._known(args["campaign"]), self._known(args["candidate"])
        if not core.campaigns.reject(one, other):
            raise Refused(f"{other} is no candidate of {one}; what is one already cannot be taken apart")
        act = Act(peer.actor, "socket", "untie", one, args["reason"], None, {"from": other})
        core.scribe.put(incidents.put_campaign, core.intake.copies.copy(core.campaigns.campaigns[one]))
        core.scribe.put(incidents.reject_tie, one, other, core.clock.now_us(), act)
        await self._acts.settle()
        self._acts.remember(
            peer, Done(stays=f"last you untied {other}, which is taken back by egressd tie {one} {other}")
        )
        return {"text": f"{other} is no candidate of {one} any more", "lines": []}

    def _known(self, id_: str) -> str:
        current = self._core.campaigns.current(id_)
        if current not in self._core.campaigns.campaigns:
            raise Refused(f"there is no campaign {id_}; egressd incidents lists them under CASE")
        return current
