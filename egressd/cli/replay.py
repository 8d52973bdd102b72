"""`egressd replay`: captures and logs in, a report (or events) out. Needs no root, no configuration, no network."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from egressd.capture.merge import STANDARD_INPUT
from egressd.cli.exit_codes import FINDINGS, OK
from egressd.cli.options import add_intel_arguments, base_dir, intel_options, load
from egressd.cli.paths import path_given
from egressd.cli.report import ListSummary, Read, render_report, watched_of
from egressd.cli.terminal import Progress, printable
from egressd.config.load import LoadedIntel
from egressd.config.schema import Config
from egressd.config.sensor_options import LOG_FORMATS
from egressd.config.settings import policy_settings, segment_table, volume_settings
from egressd.config.texts import escape_path, read_text
from egressd.detect.devices import Lease
from egressd.detect.engine import Engine
from egressd.detect.leases import MAX_LEASE_BYTES, NO_LEASES, is_of_leases, parse_leases
from egressd.detect.mac import parse_mac
from egressd.detect.stages import stage_text, stages_of
from egressd.errors import ConfigError, Problem
from egressd.model import BARE, REPLY, Decision, Event, Incident, Observation
from egressd.notify.eve import (
    render_address,
    render_event,
    render_line,
    render_observation,
    render_summary,
    render_time,
)
from egressd.runtime.replay import LogGiven, ReplayRun

MOST_VOLUME: Final = 10  # pairs of client and destination in a summary


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE", type=path_given, help="pcap or pcapng, may be gzip'd; - is standard input"
    )
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        type=log_given,
        metavar="FORMAT:FILE",
        help=f"the log of another sensor, with the captures or alone; {', '.join(LOG_FORMATS)} (docs/sensors.md)",
    )
    add_intel_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one event a line instead of the report (docs/events.md)")
    parser.add_argument("--observations", action="store_true", help="with --json: also every destination that was seen")
    parser.set_defaults(usage=parser.error)
    parser.add_argument("--exit-code", action="store_true", help="exit 10 when a listed destination was reached")
    parser.add_argument(
        "--jobs", type=jobs, default=1, metavar="N",
        help="read large files with N processes, 0: one for each processor (default 1); same results",
    )  # fmt: skip
    parser.add_argument("--no-prefilter", action="store_true", help="read every packet in full: slower, same results")


def jobs(text: str) -> int:
    """The number of --jobs. Raises ValueError."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def run(args: Namespace) -> int:
    """Replay; the exit code is 0, or 10 with --exit-code and findings."""
    if not args.files and not args.log:
        args.usage("name a capture, or a log with --log FORMAT:FILE")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # the lower one is for programs that use select(2)
    with suppress(OSError, ValueError):  # setrlimit(2): EPERM beyond fs.nr_open, or of who confines us
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with _to_its_end(args.files):
        return _replay(args)


@contextmanager
def _to_its_end(files: Sequence[str]) -> Iterator[None]:
    """In `tcpdump -w - | egressd replay -` Control-C tells tcpdump to stop: what is in the pipe is read and reported
    all the same. The next one is meant for us."""
    if STANDARD_INPUT not in files or os.isatty(0) or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(OSError):  # print is not to be called again while it runs
            os.write(2, b"egressd: reads to the end of the input; interrupt again to stop at once\n")

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _replay(args: Namespace) -> int:
    config, loaded = load(args)
    given = Given(args.files, base_dir(args), args.log, not args.no_prefilter, args.jobs)
    if args.json or args.observations:
        writer = JsonWriter(config, args.files, sys.stdout, args.observations)
        replay = replay_into(writer, config, loaded, given)
        writer.summary(replay, loaded)
    else:
        collector = Collector()
        once = bool(args.log) or STANDARD_INPUT in args.files  # cannot be read again
        started_s = time.monotonic()
        replay = replay_into(collector, config, loaded, given)
        lines = render_report(
            Read.of(replay.files, replay.logs),
            replay.engine,
            collector.decisions,
            [ListSummary(one.name, one.indicators) for one in loaded.lists],
            loaded.demo,
            loaded.intel.suffixes,
            time.monotonic() - started_s,
            "" if once else intel_options(args),
            "EVENTS   (saved output of this with --json)" if once else " ".join(map(shlex.quote, args.files)),
        )
        print("\n".join(lines))
    return FINDINGS if args.exit_code and replay.engine.campaigns.incidents else OK


def log_given(text: str) -> LogGiven:
    """FORMAT:FILE of the command line. Raises ArgumentTypeError."""
    format_, separator, path = text.partition(":")
    if not separator or format_ not in LOG_FORMATS or not path:
        raise ArgumentTypeError(f'"{printable(text)}" is not FORMAT:FILE; formats are {", ".join(LOG_FORMATS)}')
    return LogGiven(format_, path)


class Given(NamedTuple):
    """What is replayed, and how. Relative paths of the configuration start at `base_dir`."""

    files: Sequence[str]
    base_dir: Path
    logs: Sequence[LogGiven] = ()
    prefilter: bool = True
    jobs: int = 1


class Collector:
    """Keeps the decisions; everything else of the report the engine knows at the end."""

    observations = False

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def event(self, event: Event, file: int) -> None:
        """Take an event."""
        if isinstance(event, Decision):
            self.decisions.append(event)

    def observation(self, seen: Observation, file: int) -> None:
        """Not wanted."""


class JsonWriter:
    """Writes records as they come. `paths` names the file of each record when there are several."""

    def __init__(self, config: Config, paths: list[str], out: TextIO, observations: bool) -> None:
        self.observations = observations
        self._out = out
        self._names = paths if len(paths) > 1 else [""]
        self._segments = segment_table(config)
        self._opened: set[str] = set()
        self.engine: Engine | None = None

    def event(self, event: Event, file: int) -> None:
        """Write an event; an incident's second appearance is its totals."""
        state = "opened"
        if isinstance(event, Incident):
            state = "totals" if event.id in self._opened else "opened"
            self._opened.add(event.id)
        client = event.client if isinstance(event, Decision | Incident) else event.flow.client
        name, stages, may_be = self._more(event) if isinstance(event, Incident) else ("", [], [])
        segment = self._segments.longest(client) or ""
        self._write(render_event(event, self._names[file], segment, state, name, stages, may_be))

    def observation(self, seen: Observation, file: int) -> None:
        """Write an observation."""
        if seen.kind != REPLY and seen.note != BARE:
            self._write(render_observation(seen, self._names[file]))

    def summary(self, replay: ReplayRun, loaded: LoadedIntel) -> None:
        """Write the last record."""
        self._write(render_summary(Read.of(replay.files, replay.logs).last_us, summary_fields(replay, loaded)))

    def _more(self, incident: Incident) -> tuple[str, list[str], list[tuple[str, str]]]:
        """The device's name, the campaign's stages, and what it may be part of."""
        if self.engine is None:
            return "", [], []
        campaigns = self.engine.campaigns
        campaign = campaigns.campaigns[campaigns.current(incident.campaign)]
        name = self.engine.devices.name_of(parse_mac(incident.device))
        return name, stages_of(campaign), campaigns.candidates.of(campaign.id)

    def _write(self, record: dict[str, Any]) -> None:
        self._out.write(render_line(record))
        self._out.write("\n")


def summary_fields(replay: ReplayRun, loaded: LoadedIntel) -> dict[str, Any]:
    """What a summary record says."""
    engine = replay.engine
    incidents = engine.campaigns.incidents.values()
    blind = engine.blind
    watched = watched_of(Read.of(replay.files), engine)
    return {
        "mode": engine.policy.settings.mode,
        "packets": sum(file.packets for file in replay.files),
        "files": [
            {
                "path": file.path,
                "format": file.format,
                "packets": file.packets,
                "truncated_bytes": file.truncated_bytes,
                "error": file.error,
                **({"note": file.note} if file.note else {}),
            }
            for file in replay.files
        ],
        **_logs_told(replay),
        "lists": [{"source": one.name, "indicators": one.indicators} for one in loaded.lists],
        "demo": loaded.demo,
        "clients": len({*engine.clients.keys(), *engine.hearing.clients}),
        "observations": dict(sorted(engine.observations.items())),
        "blind": {
            "totals": blind.totals(),
            "clients": {render_address(c): dict(sorted(blind.by_client[c].items())) for c in sorted(blind.by_client)},
        },
        "left_out": {**replay.counts(), **engine.counts(), **_volume_left_out(replay)},
        "volume": _volume(replay),
        "incidents": len(engine.campaigns.incidents),
        "contacts": sum(incident.contacts for incident in incidents),
        "attempts": sum(incident.attempts for incident in incidents),
        "blocks": sum(not block.waits for block in engine.blocks.by_id.values()),
        "campaigns": [
            {
                "campaign": campaign.id,
                "keys": campaign.keys,
                "incidents": campaign.incidents,
                "ties": campaign.ties,
                "candidates": [
                    {"campaign": candidate, "reason": reason} for candidate, reason in campaign.candidates.items()
                ],
                "stage": stage_text([engine.campaigns.incidents[one] for one in campaign.incidents], watched),
            }
            for campaign in engine.campaigns.campaigns.values()
        ],
    }


def _volume(replay: ReplayRun) -> dict[str, Any]:
    """How much TCP connections carried, and who sent most where."""
    volume = replay.volume
    return {
        "bytes_out": volume.out_bytes,
        "bytes_in": volume.in_bytes,
        "most": [
            {
                "client": render_address(client),
                "destination": destination,
                "bytes_out": row.out_bytes,
                "bytes_in": row.in_bytes,
                "first_seen": render_time(row.first_us),
                "last_seen": render_time(row.last_us),
            }
            for client, destination, row in volume.rows()[:MOST_VOLUME]
        ],
    }


def _logs_told(replay: ReplayRun) -> dict[str, Any]:
    """What was read of other sensors' logs, and what each told of."""
    agreement = replay.engine.agreement
    if agreement is None:
        return {}
    sensors = sorted({one.format for one in replay.logs})
    return {
        "logs": [
            {
                "path": one.path,
                "format": one.format,
                "lines": one.lines,
                "malformed": one.malformed,
                "observations": one.observations,
                "error": one.error,
            }
            for one in replay.logs
        ],
        "sensors": [
            {
                "sensor": name,
                "agreed": agreement.agreed.get(name, 0),
                "clock_ahead_us": agreement.difference_us(name),
            }
            for name in sensors
        ],
    }


def _volume_left_out(replay: ReplayRun) -> dict[str, int]:
    counts = {"volume_evicted": replay.volume.evicted, "volume_over_share": replay.volume.uncounted}
    return {name: count for name, count in counts.items() if count}


def read_leases(config: Config, base_dir: Path) -> list[Lease]:
    """The leases that the configuration names; a file that does not say since when counts for the whole capture.
    Raises ConfigError when one cannot be read."""
    leases: list[Lease] = []
    for name in config.devices.leases:
        text = read_text(base_dir / name, escape_path(name), MAX_LEASE_BYTES)
        if isinstance(text, Problem):
            raise ConfigError([text])
        if not is_of_leases(text):
            raise ConfigError(
                [Problem(escape_path(name), 0, 0, NO_LEASES, "name the file that the DHCP server writes")]
            )
        leases += parse_leases(text)
    return leases if config.devices.names else [one._replace(name="") for one in leases]


def replay_into(taker: Collector | JsonWriter, config: Config, loaded: LoadedIntel, given: Given) -> ReplayRun:
    """Run what is given and give `taker` what comes of it. Raises CaptureError and ConfigError."""
    progress = Progress() if Progress.wanted() and any(Path(f).is_file() for f in given.files) else None
    settings = policy_settings(config, loaded.policy)._replace(mode="monitor", modes=())
    replay = ReplayRun(
        given.files,
        loaded.intel.protecting(settings.of_our_hosts()),
        settings,
        on_event=taker.event,
        on_observation=taker.observation if taker.observations else None,
        conversations=config.limits.conversations,
        history=config.limits.history,
        volume=volume_settings(config),
        prefilter=given.prefilter,
        jobs=given.jobs,
        progress=progress,
        logs=given.logs,
    )
    for lease in read_leases(config, given.base_dir):
        replay.engine.devices.leased(lease)
    if isinstance(taker, JsonWriter):
        taker.engine = replay.engine
    try:
        replay.run()
    finally:
        if progress is not None:
            progress.close()
    return replay
