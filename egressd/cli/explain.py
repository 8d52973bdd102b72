"""`egressd explain NAME|ADDRESS [FILE...]`: the chain from packet to verdict.

Without files: over the lists alone. With captures: they are replayed. With the saved output of `replay --json`: that is
read instead. With --live: the daemon is asked, which knows its feeds, its operators' lines and what it decided. The
chain is packet, name, registered domain and suffix rule, list line, decision, what came after.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from io import StringIO
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from egressd.cli.check import describe, tell_out_of_force, unread_feeds
from egressd.cli.client import add_socket_argument, ask
from egressd.cli.exit_codes import OK, USAGE
from egressd.cli.explain_live import render_live
from egressd.cli.options import SYSTEM_CONFIG, add_intel_arguments, base_dir, load, take_system_config
from egressd.cli.paths import path_given
from egressd.cli.replay import Given, JsonWriter, replay_into
from egressd.cli.terminal import fit, print_json, printable, room
from egressd.config.load import LoadedIntel
from egressd.config.schema import Config
from egressd.config.settings import policy_settings
from egressd.errors import ConfigError, Problem
from egressd.notify.eve import render_address
from egressd.plural import count
from egressd.runtime.question import Question, judge, parse_question

SHOWN: Final = 6  # lines of a kind before the rest is counted
MAX_LINE_BYTES: Final = 1 << 20
# What is shown of an event, by its type: fields of its object `egressd`, and their types (docs/events.md).
_SHOWN_OF: Final[dict[str, dict[str, type]]] = {
    "sighting": {"client": str, "retro": bool, "count": int, "via": str, "name": str, "match_level": str},
    "decision": {"decision_id": str, "action": str, "targets": list, "reason": str, "evidence": str},
    "incident": {"incident": str, "client": str, "match_level": str, "last_seen": str},
    "totals": {"count": int, "attempts": int, "answered": int},  # of an incident in that state, too
    "attempt": {},
    "leak": {},
}  # fmt: skip

Record = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("subject", metavar="NAME|ADDRESS|URL", help="what to explain")
    parser.add_argument(
        "files", nargs="*", metavar="FILE", type=path_given, help="captures, or the saved output of replay --json"
    )
    add_intel_arguments(parser, f"without FILEs {SYSTEM_CONFIG} if there")
    parser.add_argument("--json", action="store_true", help="the events concerned, one a line")
    parser.add_argument("--live", action="store_true", help="ask the daemon: by all its lists, feeds and allowances")
    add_socket_argument(parser)


def run(args: Namespace) -> int:
    """Explain; the exit code is 0 whether or not anything was found."""
    if args.live:
        return _live(args)
    question = parse_question(args.subject)
    if not args.files:
        take_system_config(args)
    config, loaded = load(args)
    records = _records(args, config, loaded)
    domain = loaded.intel.suffixes.registered_domain(question.name) if question.name else ""
    concerned = [record for record in records if _concerns(record, question, domain)]
    if args.json:
        for record in concerned:
            print_json(record)
        return OK
    settings = policy_settings(config, loaded.policy)._replace(mode="monitor" if args.files else config.mode)
    # Whether an indicator is in force is a question of the capture's time, not of ours.
    times = [record["egressd"]["last_seen"] for record in records if record["event_type"] == "incident"]
    now_s = _epoch_s(max(times)) if times else int(time.time())
    verdict = judge(question, loaded, settings, now_s)
    print("\n".join(describe(verdict, settings.mode, loaded.demo, unread_feeds(config))))
    if verdict.match is None:
        tell_out_of_force(question, loaded, now_s)
    if verdict.rules:
        print("\n".join(["  rules, in order", *(fit(printable(f"    {one}"), 100) for one in verdict.rules)]))
    if args.files:
        print("\n".join(["", *_story(concerned, len(args.files))]))
    return OK


def _live(args: Namespace) -> int:
    """What the daemon knows."""
    if args.files or args.config or args.lists or args.allow:
        print("egressd: --live asks the daemon, with its own lists", file=sys.stderr)
        return USAGE
    answer = ask(args, "explain", {"what": args.subject})
    if args.json:
        print_json(answer.result)
    else:
        print("\n".join(render_live(args.subject, answer)))
    return OK


def _records(args: Namespace, config: Config, loaded: LoadedIntel) -> list[Record]:
    if not args.files:
        return []
    if all(_is_events(file) for file in args.files):
        return [record for file in args.files for record in _load_events(Path(file))]
    out = StringIO()
    writer = JsonWriter(config, args.files, out, False)
    writer.summary(replay_into(writer, config, loaded, Given(args.files, base_dir(args))), loaded)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def _is_events(file: str) -> bool:
    if file == "-" or not os.path.isfile(file):  # noqa: PTH113  False for a name too long for a file
        return False
    with Path(file).open("rb") as opened:
        return opened.read(1) == b"{"


def _load_events(path: Path) -> list[Record]:
    """Events that `replay --json` wrote. Raises ConfigError naming the first line that is not one."""
    records: list[Record] = []
    with path.open("rb") as opened:
        for number, line in enumerate(iter(lambda: opened.readline(MAX_LINE_BYTES), b""), 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError([Problem(str(path), number, 1, f"is not JSON: {error}")]) from error
            if not isinstance(record, dict) or not _is_whole(record):
                raise ConfigError([Problem(str(path), number, 1, "is not an event of egressd replay --json")])
            records.append(record)
    return records


def _is_whole(record: Record) -> bool:
    """Whether an event has what is shown of it. Those of other types are not shown, nor are other programs'."""
    sort, ours = record.get("event_type"), record.get("egressd")
    if not isinstance(sort, str):
        return False
    if sort not in _SHOWN_OF:
        return True
    if not isinstance(ours, dict) or not isinstance(record.get("timestamp"), str):
        return False
    shown = _SHOWN_OF[sort] | (_SHOWN_OF["totals"] if sort == "incident" and ours.get("state") == "totals" else {})
    if not all(isinstance(ours.get(field), kind) for field, kind in shown.items()):
        return False
    targets = ours.get("targets", [])
    named = isinstance(targets, list) and all(
        isinstance(one, dict) and {"kind", "value"} <= one.keys() for one in targets
    )
    return (
        named
        and bool(targets or sort != "decision")
        and isinstance(ours.get("indicator"), dict)
        and (sort != "incident" or _epoch_s(ours["last_seen"]) > 0)
    )


def _concerns(record: Record, question: Question, domain: str) -> bool:
    """Whether an event is about what was asked: the name, its registered domain, the address, or the client."""
    ours = record.get("egressd")
    if not isinstance(ours, dict) or record["event_type"] == "summary":
        return False
    if question.address:
        text = render_address(question.address)
        values = [target.get("value") for target in ours.get("targets", [])]
        return text in (ours.get("client"), record.get("dest_ip"), *values) or (
            ours.get("indicator", {}).get("value") == text
        )
    return (bool(domain) and ours.get("registered_domain") == domain) or ours.get("name") == question.name


def _story(records: list[Record], files: int) -> list[str]:
    """What happened, in order, for people."""
    if not records:
        return [f"Nothing about it in {count(files, 'file')}."]
    lines: list[str] = []
    decisions = [record for record in records if record["event_type"] == "decision"]
    incidents = [r for r in records if r["event_type"] == "incident" and r["egressd"].get("state") == "totals"]
    sightings = [record for record in records if record["event_type"] == "sighting"]
    attempts = [record for record in records if record["event_type"] == "attempt"]
    first = {record["egressd"]["client"]: record for record in reversed(sightings)}
    lines.append(f"First sighting of each of {count(len(first), 'host')} ({len(sightings):,} in all)")
    lines += _some([_sighting_line(record) for record in sightings if first[record["egressd"]["client"]] is record], 10)
    lines += ["", f"Decisions ({len(decisions)})"]
    lines += _some([line for record in decisions for line in _decision_lines(record)], 3 * SHOWN)
    lines += ["", f"Incidents ({len(incidents)}), with attempts after the block ({len(attempts)} in all)"]
    lines += _some([_incident_line(record) for record in incidents], 2 * SHOWN)
    return lines


def _some(lines: list[str], shown: int = SHOWN) -> list[str]:
    if len(lines) <= shown:
        return lines
    return [*lines[:shown], f"  ... and {len(lines) - shown} more; --json shows all"]


def _place(record: Record) -> str:
    file = str(record.get("pcap_filename", ""))
    if not record.get("pcap_cnt"):
        return ""
    return f"{Path(file).name} #{record.get('pcap_cnt', 0)}" if file else f"#{record.get('pcap_cnt', 0)}"


def _sighting_line(record: Record) -> str:
    ours = record["egressd"]
    retro = f", from history, {count(ours['count'], 'contact')}" if ours["retro"] else ""
    text = f"  {_clock(record)} {ours['client']} {ours['via']} {ours['name'] or record.get('dest_ip', '')}"
    return fit(printable(f"{text} ({ours['match_level']}{retro}) {_place(record)}".rstrip()), room())


def _decision_lines(record: Record) -> list[str]:
    ours = record["egressd"]
    target = ours["targets"][0]
    head = f"  {_clock(record)} {ours['decision_id'] or '-'} {ours['action']} {target['kind']} {target['value']}"
    because = wrap(
        printable(f"because: {ours['reason']} [{ours['evidence']}]"),
        room() - 4,
        initial_indent="    ",
        subsequent_indent="      ",
    )
    return [fit(printable(head), room()), *because]


def _incident_line(record: Record) -> str:
    ours = record["egressd"]
    contacts = count(ours["count"], "contact")
    text = f"  {ours['incident']} {ours['client']} {ours['match_level']}: {contacts}, {ours['attempts']}"
    return fit(f"{text} after the block, {ours['answered']} answered", room())


def _clock(record: Record) -> str:
    stamp: str = record["timestamp"]
    return stamp[5:16].replace("T", " ")


def _epoch_s(stamp: str) -> int:
    from datetime import datetime

    try:
        return int(datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp())
    except ValueError:
        return 0
