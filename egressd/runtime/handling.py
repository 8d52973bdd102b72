"""The verb that ends an incident: a person is done with a machine, and what it does next opens another one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from egressd.intel.networks import render_address
from egressd.model import Incident
from egressd.notify.eve import spoken_time
from egressd.runtime.acts import Acts, Done, Record
from egressd.runtime.core import Core
from egressd.store import incidents
from egressd.store.audit import Act
from egressd.web.peers import Peer

log = logging.getLogger("egressd")


class Handling:
    """Each method takes (peer, args) and returns the answer's result, or raises Refused or StoreError."""

    def __init__(self, acts: Acts) -> None:
        self._acts = acts
        self._core = acts.core

    def table(self) -> dict[str, Callable[[Peer, Record], Awaitable[Record]]]:
        """Verb -> what does it."""
        return {"close": self.close}

    async def close(self, peer: Peer, args: Record) -> Record:
        """An incident is off the list. What blocks its host's destinations stays."""
        core = self._core
        id_ = core.campaigns.current(args["incident"])
        act = Act(peer.actor, "socket", "close", id_, args["reason"])
        await core.scribe.settled()
        await core.ledger.run(incidents.close, id_, core.clock.now_us(), act)
        incident = core.casebook.close(id_)
        if incident is None:  # more of them than are kept in memory
            self._acts.remember(peer, Done(stays=f"last you closed {id_}, which its host's next contact opens anew"))
            return {"text": f"{id_} is closed", "lines": []}
        host = render_address((incident.addresses or [incident.client])[-1])
        log.info("incident %s of %s is closed by %s: %s", id_, host, peer.actor, args["reason"])
        core.casebook.tell(incident, "closed", core.clock.now_us(), f"{peer.actor}: {args['reason']}")
        self._acts.remember(peer, Done(closed=(incident,)))
        return {
            "text": f"{id_} of {host} is closed; its last contact was {spoken_time(incident.last_us)}",
            "lines": [
                "what is blocked stays blocked, and the host's next contact opens another incident",
                "take it back with: egressd undo",
            ],
        }


async def out_of_hand(core: Core, peer: Peer, id_: str, reason: str) -> str:
    """Take an acknowledgement back; what became of it, in words."""
    act = Act(peer.actor, "socket", "undo-ack", id_, reason)
    await core.scribe.settled()
    taken_back = await core.ledger.run(incidents.take_back_acknowledgement, id_, core.clock.now_us(), act)
    return f"{id_} is in nobody's hand again" if taken_back else f"{id_} is not acknowledged any more"


async def reopen(core: Core, peer: Peer, incident: Incident, reason: str) -> str:
    """Take a close back; what became of it, in words. Raises StoreError, and it stays closed."""
    await core.scribe.settled()
    row = await core.ledger.read(incidents.load_incident, incident.id)
    other = core.casebook.reopen(incident, row.leaks if row is not None else 0)
    if other:
        return f"{incident.id} stays closed: its host was met again, which is {other}"
    act = Act(peer.actor, "socket", "reopen", incident.id, reason)
    is_kept = False
    try:
        is_kept = await core.ledger.run(incidents.reopen, incident.id, core.clock.now_us(), act)
    finally:
        if not is_kept:  # what its host does from now on would be counted where nobody sees it
            core.casebook.close(incident.id)
    if not is_kept:
        return f"{incident.id} is not kept any more"
    core.casebook.tell(incident, "reopened", core.clock.now_us(), f"{peer.actor}: {reason}")
    return f"{incident.id} is not closed any more"
