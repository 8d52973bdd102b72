"""Lines that somebody understands at three in the morning."""

from __future__ import annotations

from typing import Final

from egressd.model import BEHAVIOUR, Attempt, Incident
from egressd.notify.eve import render_address, spoken_time
from egressd.notify.journal import ERROR, WARNING, Line
from egressd.notify.plain import defang, escape
from egressd.notify.throttle import Digest
from egressd.plural import count
from egressd.units import MINUTE_US

# One id for each sort of line, for `journalctl MESSAGE_ID=...`.
MESSAGE_IDS: Final = {
    "incident": "9d55b69668d14f8a9e320dc97b3aa018",
    "leak": "f06105c565da4b0baace59a0f6113656",
    "digest": "af9c324e7f5d464cb99116bc83cdf128",
}


def incident_line(incident: Incident, outcome: str, *, segment: str = "", hosts: int = 1, short: bool = False) -> Line:
    """A host of ours contacted what is listed. `outcome` is what was done about it, a sentence without its full stop
    such as `BLOCKED by D3, still watched`; `hosts` counts those of the campaign, this one with them."""
    match = incident.match
    who = _who(incident.client, segment)
    what = defang(match.registered_domain or match.indicator.value)
    fields = _fields("incident", incident.client, incident.campaign, match.registered_domain or match.indicator.value)
    fields["EGRESSD_INCIDENT"] = incident.id
    if short:
        among = f"{count(hosts, 'host')} in campaign {incident.campaign}"
        text = f"ONE MORE HOST: {who} contacted {what} too; {among}. {outcome}."
        return Line(WARNING, f"{text} ({incident.id})", fields)
    indicator = match.indicator
    if match.level == BEHAVIOUR:
        reason = escape(indicator.ref.replace(indicator.value, what), 300)
        text = (
            f"HOST {who} BEHAVES UNUSUALLY: {reason} (score {indicator.confidence}). "
            f"{outcome}. See: egressd incidents ({incident.id})"
        )
        return Line(WARNING, text, fields)
    why = f"listed in {indicator.source}:{indicator.line}"
    if match.level == "sibling":
        why = f"same registered domain as {defang(indicator.value)}, {why}"
    elif indicator.value not in (match.registered_domain, ""):
        why = f"{defang(indicator.value)} is {why}"
    if indicator.threat:
        why += f" as {indicator.threat}"
    when = spoken_time(incident.first_us)
    past = f", found in history: {count(incident.contacts, 'contact')} before it was listed" if incident.retro else ""
    others = "first host" if hosts <= 1 else count(hosts, "host")
    text = (
        f"HOST {who} LOOKS INFECTED: contacted {what} ({why}) since {when}{past}. {outcome}. "
        f"{others} of campaign {incident.campaign}. See: egressd incidents ({incident.id})"
    )
    return Line(ERROR, text, fields)


def leak_line(attempt: Attempt, *, segment: str = "") -> Line:
    """What is blocked has answered: the block does not hold."""
    what = attempt.match.registered_domain or attempt.match.indicator.value
    fields = _fields("leak", attempt.flow.client, attempt.campaign, what)
    fields["EGRESSD_DECISION"] = attempt.decision_id
    text = (
        f"BLOCK DOES NOT HOLD: {_who(attempt.flow.client, segment)} got an answer from {defang(what)} at "
        f"{defang(render_address(attempt.flow.server))} although {attempt.decision_id} blocks it. "
        f"Next: egressd doctor; to cut the host off: egressd isolate {render_address(attempt.flow.client)}"
    )
    return Line(ERROR, text, fields)


def _who(client: bytes, segment: str) -> str:
    return f"{render_address(client)} ({escape(segment, 60)})" if segment else render_address(client)


def _fields(sort: str, client: bytes, campaign: str, what: str) -> dict[str, str]:
    return {
        "MESSAGE_ID": MESSAGE_IDS[sort],
        "EGRESSD_CLIENT": render_address(client),
        "EGRESSD_CAMPAIGN": campaign,
        "EGRESSD_DOMAIN": what,  # as it is: for programs
    }


def digest_line(digest: Digest, what: str = "") -> Line:
    """A digest for people; `what` is the campaign's domain."""
    minutes = max(1, digest.over_us // MINUTE_US)
    over = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
    if digest.campaign:
        whose = f"campaign {digest.campaign}" + (f" ({defang(what)})" if what else "")
    else:
        whose = count(digest.campaigns, "further campaign")
    text = f"IT GOES ON: {whose}: {count(digest.events, 'more contact')} in the last {over}"
    if digest.new_hosts:
        text += f", {count(digest.new_hosts, 'more host')} that no line named"
    if digest.hosts:
        text += f"; {count(digest.hosts, 'host')} in all"
    fields = {"MESSAGE_ID": MESSAGE_IDS["digest"], "EGRESSD_CAMPAIGN": digest.campaign}
    return Line(WARNING, f"{text}. See: egressd hosts", fields)
