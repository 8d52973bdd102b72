"""The report of a replay: at most 25 lines, for somebody who has never seen egressd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from egressd.capture.merge import FileResult
from egressd.cli.terminal import WIDTH, cut, fit, moment, printable, room, span
from egressd.detect.blocks import Block, main_target
from egressd.detect.engine import Engine
from egressd.detect.sharing import without_lead
from egressd.detect.stages import Watched, stage_text
from egressd.model import BEHAVIOUR, TAP, Campaign, Decision, Incident
from egressd.names import Suffixes
from egressd.notify.eve import VIA, render_address
from egressd.plural import count

if TYPE_CHECKING:
    from egressd.capture.logfile import LogResult

ROWS: Final = 8  # incidents or domains shown; the rest is counted
HOST_WIDTH: Final = 15  # any IPv4 address; of IPv6 addresses both ends are shown, in what domains leave
FIXED_WIDTH: Final = 30  # host and domain share what the other columns leave of WIDTH, and what there is beyond
VIA_WIDTH: Final = 9
# How surely each shows a contact with the destination itself; the column has room for two.
_VIA_ORDER: Final = ("http", "tls", "quic", "socks", "flow", "dns", "dns-answer", "behaviour")


class ListSummary(NamedTuple):
    """What was matched with."""

    name: str
    indicators: int


class Read(NamedTuple):
    """What was read, of all files together."""

    files: int
    packets: int
    first_us: int
    last_us: int
    failed: list[FileResult | LogResult]
    logs: Sequence[LogResult] = ()
    noted: Sequence[FileResult] = ()

    @classmethod
    def of(cls, files: Sequence[FileResult], logs: Sequence[LogResult] = ()) -> Read:
        """Sum up."""
        filled: list[FileResult | LogResult] = [f for f in files if f.packets]
        filled += [one for one in logs if one.observations]
        return cls(
            len(files) + len(logs),
            sum(f.packets for f in files),
            min((min(f.first_us, f.last_us) for f in filled), default=0),
            max((max(f.first_us, f.last_us) for f in filled), default=0),
            [*(f for f in files if f.error), *(one for one in logs if one.error)],
            logs,
            [f for f in files if f.note],
        )

    def amount(self) -> str:
        """How much was read, in words."""
        lines = sum(one.lines for one in self.logs)
        parts = [count(self.packets, "packet")] if self.packets or not self.logs else []
        return ", ".join([*parts, count(lines, "log line")] if self.logs else parts)


def watched_of(read: Read, engine: Engine) -> Watched:
    """What a replay looked at; a capture file does not say what was lost before it was written."""
    measures = engine.measures_volume and read.packets > 0  # logs alone do not say how much
    return Watched(read.packets, read.first_us, read.last_us, 0, engine.blind.totals(), measures)


def render_report(
    read: Read,
    engine: Engine,
    decisions: Sequence[Decision],
    lists: Sequence[ListSummary],
    demo: bool,
    suffixes: Suffixes,
    seconds: float,
    options: str,
    arguments: str,
) -> list[str]:
    """The lines of the report. `options` are those of the lists, `arguments` what follows `explain NAME` to look
    further."""
    incidents = list(engine.campaigns.incidents.values())
    lines = _head(read, lists, demo, seconds)
    if incidents:
        lines += _findings(read, engine, incidents)
        lines += _blocks(decisions, engine)
        lines += _sources(engine, incidents)
    else:
        lines += _nothing_found(read, engine, suffixes)
    lines += _blind(engine)
    if incidents:
        name = incidents[0].match.registered_domain or incidents[0].match.indicator.value
        step = printable(f"Next: egressd explain {options}{name} {arguments}")
        if len(step) > room():
            same = f"   (with the same {options.partition(' ')[0]})" if options else ""
            step = f"{fit(f'Next: egressd explain {name}', 48)} FILE...{same}"
        lines += ["", cut(step)]
    elif demo:
        lines += ["", "Next: give your own list: egressd replay --list FILE ..."]
    return lines


def _head(read: Read, lists: Sequence[ListSummary], demo: bool, seconds: float) -> list[str]:
    when = f"{span(read.last_us - read.first_us)} from {moment(read.first_us):%Y-%m-%d %H:%M} UTC, "
    lines = [f"{count(read.files, 'file')}, {read.amount()}, {when if read.last_us else ''}read in {seconds:.1f} s"]
    for file in read.failed[:2]:
        lines += _about(file.path, file.error)
    if len(read.failed) > 2:
        lines.append(f"! and {count(len(read.failed) - 2, 'more file')} with damage; --json lists them")
    for noted in read.noted[:2]:
        lines += _about(noted.path, noted.note)
    if len(read.noted) > 2:
        more = count(len(read.noted) - 2, "more file that misleads", "more files that mislead")
        lines.append(f"! and {more}; --json lists them")
    bad = [one for one in read.logs if one.malformed]
    if bad:
        lost = ", ".join(
            f"{one.malformed:,} of {one.lines:,} of {printable(one.path.rpartition('/')[2])}" for one in bad
        )
        lines.append(fit(f"! lines that are none of their format: {lost}", room()))
    names = ", ".join(f"{printable(one.name)} ({one.indicators:,})" for one in lists[:3])
    more = f" and {len(lists) - 3} more" if len(lists) > 3 else ""
    what = "List: demo, reserved names only" if demo else f"List: {names}{more}"
    lines.append(fit(what, room() - 42) + ". Mode: monitor, nothing was changed.")
    return lines


def _about(path: str, said: str) -> list[str]:
    """What is wrong with a file: neither which it is nor what it is is cut away while there is room for both."""
    for shown in (printable(path), printable(path.rpartition("/")[2])):
        line = f"! {shown}: {said}"
        if len(line) <= room():
            return [line]
    return [f"! {fit(printable(path), room() - 3)}:", cut(f"    {said}")]


def _findings(read: Read, engine: Engine, incidents: Sequence[Incident]) -> list[str]:
    contacts = sum(incident.contacts for incident in incidents)
    attempts = sum(incident.attempts for incident in incidents if incident.match.level != "url")  # no block stops one
    unheld = sum(
        incident.attempts
        for incident in incidents
        if _is_name_only(engine.blocks.by_target.get(main_target(incident.match)))
    )
    after = (
        f"; {unheld:,} more went where only the name is blocked." if unheld else ": all that came after the decision."
    )
    hosts = len({one.device or one.client for one in incidents if one.match.level != BEHAVIOUR})
    shown = incidents[:ROWS]
    host_width, domain_width = _widths(
        [render_address(one.client) for one in shown],
        [one.match.registered_domain or one.match.indicator.value for one in shown],
    )
    lines = [
        f"{hosts} of {count(_machines(engine), 'host')} reached a listed registered domain; a block would have",
        f"stopped {attempts - unheld:,} of {count(contacts, 'contact')}{after}",
        "",
        f"{'HOST':<{host_width}} {'DOMAIN':<{domain_width}} {'MATCH':<7} {'VIA':<{VIA_WIDTH}}"
        f" {'SINCE (UTC)':<11} {'FOR':<5} {'HITS':>5} {'AFTER':>5}",
    ]
    lines += [_row(incident, host_width, domain_width) for incident in shown]
    if len(incidents) > ROWS:
        lines.append(f"... and {len(incidents) - ROWS} more; --json shows all")
    if any(incident.retro for incident in shown):
        lines.append("* found in history when the indicator arrived later (retro-hunt)")
    lines.append("")
    campaigns = list(engine.campaigns.campaigns.values())
    for campaign in campaigns[:2]:
        lines += _campaign(campaign, engine, read, alone=len(campaigns) == 1)
    if len(campaigns) > 2:
        lines.append(f"... and {count(len(campaigns) - 2, 'more campaign')}")
    return lines


def _is_name_only(block: Block | None) -> bool:
    """Whether all that its name led to is protected, shared or over a budget, so that it keeps nobody from it."""
    if block is None or block.target.kind not in ("registered_domain", "host", "exact"):
        return False
    return bool(block.refused) and not (block.addresses or block.pairs or block.resting)


def _widths(hosts: Sequence[str], domains: Sequence[str]) -> tuple[int, int]:
    """Of the columns of hosts and domains: long addresses leave a domain what it needs, as far as there is room."""
    longest_host, longest_domain = max(map(len, hosts)), max(map(len, domains))
    both = max(FIXED_WIDTH, min(longest_host + longest_domain, FIXED_WIDTH + room() - WIDTH))
    domain_width = max(both - longest_host, min(longest_domain, both - HOST_WIDTH))
    return both - domain_width, domain_width


def _machines(engine: Engine) -> int:
    """Hosts, by device where that is known."""
    devices = engine.devices
    return len(
        {
            devices.device_of(client, devices.now_us) or client
            for client in {*engine.clients.keys(), *engine.hearing.clients}
        }
    )


def _row(incident: Incident, host_width: int, domain_width: int) -> str:
    match = incident.match
    level = "behaves" if match.level == BEHAVIOUR else match.level + ("*" if incident.retro else "")
    kinds = sorted({VIA.get(via, via) for via in incident.via}, key=_VIA_ORDER.index)
    if len(kinds) > 1 and kinds[0] in ("http", "tls", "quic"):
        kinds = [kind for kind in kinds if kind != "flow"]  # the connection that carried the name
    via = ""
    for kind in kinds:
        if len(via) + bool(via) + len(kind) > VIA_WIDTH:
            via += "+"
            break
        via = f"{via},{kind}" if via else kind
    return (
        f"{fit(render_address(incident.client), host_width):<{host_width}}"
        f" {fit(match.registered_domain or match.indicator.value, domain_width):<{domain_width}} {level:<7}"
        f" {via:<{VIA_WIDTH}} {moment(incident.first_us):%m-%d %H:%M}"
        f" {span(incident.last_us - incident.first_us):<5} {incident.contacts:>5} {incident.attempts:>5}"
    )


def _campaign(campaign: Campaign, engine: Engine, read: Read, *, alone: bool) -> list[str]:
    first = engine.campaigns.incidents[campaign.incidents[0]]
    indicator = first.match.indicator
    subject = first.match.registered_domain or indicator.value
    where = printable(indicator.source.rsplit("/", 1)[-1]) + (f":{indicator.line}" if indicator.line else "")
    text = f"{campaign.id}: {subject}, {count(len(campaign.incidents), 'host')}, by {indicator.value} ({where})"
    names = {name for one in campaign.incidents for name in engine.campaigns.incidents[one].names}
    stage = stage_text([engine.campaigns.incidents[one] for one in campaign.incidents], watched_of(read, engine))
    said = printable(indicator.ref) if first.match.level == BEHAVIOUR else "names: " + ", ".join(sorted(names))
    stages = _wrapped(stage) if alone else [cut(_wrapped(stage)[0].rstrip(","))]
    lines = [fit(f"Campaign {text}", room()), cut(f"  {said}"), *stages]
    if campaign.ties:
        lines.append(cut(f"  tied: {'; '.join(campaign.ties)}"))
    for candidate, reason in list(campaign.candidates.items())[:1]:
        lines.append(cut(f"  candidate {candidate}: {reason}"))
    return lines


def _blocks(decisions: Sequence[Decision], engine: Engine) -> list[str]:
    stands: dict[str, str] = {}  # what was blocked and given free again would not be
    for d in decisions:
        if d.action == "block" and d.targets[0].kind != "url":
            stands[d.id] = d.targets[0].value
        elif d.action == "withdraw" and d.targets[0].value == stands.get(d.id):
            del stands[d.id]
    by_id = engine.blocks.by_id
    blocked = [f"{value} (name only)" if _is_name_only(by_id.get(id_)) else value for id_, value in stands.items()]
    added = [d.targets[0] for d in decisions if d.action == "extend"]
    refused = [d for d in decisions if d.action in ("refuse", "withdraw")]
    settled = {d.targets for d in decisions if d.action == "block"}  # since then a list names it
    asks = [d for d in decisions if d.action == "ask" and d.targets not in settled]
    told = settled | {d.targets for d in asks}
    alerts = [d for d in decisions if d.action == "alert" and d.targets not in told]
    lines = []
    if blocked:
        shown = ", ".join(blocked[:3]) + (f" and {len(blocked) - 3} more" if len(blocked) > 3 else "")
        wide = sum(1 for target in added if target.kind == "address")
        parts = [fit(shown, room() - 36)]
        if wide:
            parts.append(count(wide, "address", "addresses"))
        if len(added) > wide:
            parts.append(f"{len(added) - wide} for one host only")
        lines.append("Would block: " + " + ".join(parts))
    if refused:
        example = refused[0]
        text = f"Would not block {len(refused)}: {example.targets[0].value}, {without_lead(example.reason)}"
        lines.append(cut(text))
    if asks:
        text = f"Ask a person about {len(asks)}: {asks[0].targets[0].value}, {printable(asks[0].reason)}"
        lines.append(cut(text))
    if alerts:
        reason = printable(without_lead(alerts[0].reason))
        text = f"Alert only {len(alerts)}: {alerts[0].targets[0].value}, {reason}"
        lines.append(cut(text))
    return lines


def _sources(engine: Engine, incidents: Sequence[Incident]) -> list[str]:
    """Who told of the contacts, where others than our own tap did."""
    if engine.agreement is None:
        return []
    told: dict[str, int] = {}
    for incident in incidents:
        for source, contacts in incident.sources.items():
            told[source] = told.get(source, 0) + contacts
    parts = []
    for source in sorted(told, key=lambda source: (source != TAP, source)):
        ahead_s = engine.agreement.difference_us(source) / 1e6
        parts.append(f"{source} {told[source]:,}" + (f" (clock {ahead_s:+.1f} s)" if abs(ahead_s) >= 0.05 else ""))
    return [cut("Told by: " + ", ".join(parts))]


def _nothing_found(read: Read, engine: Engine, suffixes: Suffixes) -> list[str]:
    if not read.last_us:
        return ["!! Nothing was seen in there: whether a listed domain was reached is not known."]
    hosts_seen = _machines(engine)
    if not hosts_seen:
        return [f"!! No host was seen in {read.amount()}:", "whether a listed domain was reached is not known."]
    lines = [
        f"No listed domain observed in {read.amount()} of {count(hosts_seen, 'host')},",
        f"from {moment(read.first_us):%Y-%m-%d %H:%M} to {moment(read.last_us):%Y-%m-%d %H:%M} UTC.",
    ]
    hosts: dict[str, set[bytes]] = {}
    contacts: dict[str, int] = {}
    for client, what, contact in engine.history.contacts():
        if isinstance(what, str):
            domain = suffixes.registered_domain(what) or what
            hosts.setdefault(domain, set()).add(client)
            contacts[domain] = contacts.get(domain, 0) + contact.count
    if contacts:
        lines += ["", "Registered domains seen, by hosts:"]
        ranked = sorted(contacts, key=lambda domain: (-len(hosts[domain]), -contacts[domain], domain))
        for domain in ranked[:ROWS]:
            whose, hits = count(len(hosts[domain]), "host"), count(contacts[domain], "hit")
            lines.append(f"  {fit(domain, 44):<44} {whose:>12} {hits:>12}")
        if len(ranked) > ROWS:
            lines.append(f"  ... and {len(ranked) - ROWS:,} more")
    return lines


def _blind(engine: Engine) -> list[str]:
    totals = engine.blind.totals()
    if not totals:
        return []
    hosts = len(engine.blind.by_client)
    parts = ", ".join(f"{sort} {number}" for sort, number in totals.items())
    text = f"Blind spots of {count(hosts, 'host')} (names not readable): {parts}"
    return [cut(text if len(text) <= room() else text.replace(" (names not readable)", ""))]


def _wrapped(sentence: str) -> list[str]:
    """At most two lines."""
    from textwrap import wrap  # with its expressions it takes a millisecond, and many reports have no such sentence

    lines = wrap(sentence, room(), initial_indent="  ", subsequent_indent="    ")
    return lines if len(lines) <= 2 else [lines[0], cut(lines[1] + " " + lines[2].strip())]
