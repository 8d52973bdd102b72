"""What is on the desk: what the ledger has of incidents and watches, and a desk that begins anew with it."""

from __future__ import annotations

from egressd.detect.campaigns import Campaigns
from egressd.runtime.watched import WatchSum
from egressd.store import attempts, incidents
from egressd.store.attempts import WatchRow
from egressd.store.incidents import IncidentRow
from egressd.store.ledger import load_all
from tests.runtime.scene import Desk


def rows(desk: Desk) -> dict[str, IncidentRow]:
    desk.settle()
    return {row.incident.id: row for row in desk.ledger.call(incidents.load_incidents)}


def watches(desk: Desk) -> list[WatchRow]:
    desk.settle()
    return desk.ledger.call(attempts.load_watches)


def restarted(desk: Desk) -> None:
    """The daemon begins anew with what the ledger knows."""
    desk.settle()
    found = desk.ledger.call(load_all, desk.clock.now_us())
    desk.campaigns = desk.rulings._campaigns = Campaigns()
    desk.campaigns.restore(found.campaigns, [row.incident for row in found.incidents])
    desk.campaigns.number_after(found.last["I"], found.last["C"])
    desk.intake = desk.new_intake("2-2")
    desk.intake.leaks = {row.incident.id: row.leaks for row in found.incidents if row.leaks}
    for row in found.watches:
        watched = WatchSum(row.first_us, row.last_us, row.attempts, row.leaks)
        desk.intake.watched.restore(row.decision_id, row.client, watched)
