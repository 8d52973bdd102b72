"""The configuration's one schema: frozen dataclasses whose fields carry their own documentation, kind and bounds.

The validator (document.py), the reference file and the documents are made from it, so an option is described once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from egressd.config.behaviour_options import BehaviourOptions
from egressd.config.capture_options import CaptureOptions
from egressd.config.enforce_options import EnforceOptions
from egressd.config.feed_options import FeedOptions
from egressd.config.guard_options import GuardOptions
from egressd.config.kinds import (
    ADDRESSES,
    CHOICE,
    FLAG,
    LISTENING,
    MODES,
    NAMED,
    NAMES,
    NETWORKS,
    NUMBER,
    PATH,
    PATHS,
    PREFIXES,
    SECTION,
    SEGMENT_MODES,
    SEGMENTS,
    TAGS,
    WORDS,
    Option,
    option,
    options_of,
    told,
)
from egressd.config.policy_options import PolicyOptions
from egressd.config.sensor_options import SensorOptions
from egressd.config.volume_options import VolumeOptions


@dataclass(frozen=True)
class Limits:
    """Section `limits`."""

    conversations: int = option(
        NUMBER,
        32_768,
        "The most TCP conversations, and the most UDP ones, that are remembered at once. The longest quiet are "
        "forgotten first, and counted.",
        low=1_024,
        high=4_194_304,
    )
    history: int = option(
        NUMBER,
        131_072,
        "In a replay, the most pairs of client and contacted name (or address) that are remembered, so that an "
        "indicator that comes later finds earlier contacts. Those forgotten are counted. The daemon's history is on "
        "disk: state.history_days and state.history_rows.",
        low=1_024,
        high=16_777_216,
    )


@dataclass(frozen=True)
class DeviceOptions:
    """Section `devices`."""

    leases: tuple[str, ...] = option(
        PATHS,
        (),
        "Lease files of the DHCP server, where it runs on this machine or its file is brought here: dnsmasq.leases, "
        "dhcpd.leases of ISC, kea-leases4.csv and kea-leases6.csv of Kea. Which it is shows the content. A host that "
        "changes its address then stays one incident at once, also behind a relay.",
        example="[/var/lib/misc/dnsmasq.leases]",
    )
    neighbours: bool = option(
        FLAG, True, "Whether the daemon asks the kernel's neighbour table (ARP, NDP) who has which address."
    )
    names: bool = option(
        FLAG, True, "Whether names of devices are kept and shown. They often are people's names; false leaves them out."
    )
    reverse_zone: bool = option(
        FLAG,
        False,
        "Whether the daemon asks this machine's resolver for the name of a host that has an incident and none by a "
        "lease (PTR): at most one question a second.",
    )


@dataclass(frozen=True)
class ControlOptions:
    """Section `control`."""

    socket: str = option(PATH, "/run/egressd/control.sock", "The daemon's socket for its commands.")
    viewers: tuple[str, ...] = option(
        WORDS, (), "Unix groups that may look at everything and change nothing.", example="[adm]"
    )
    operators: tuple[str, ...] = option(
        WORDS, (), "Unix groups that may also block, allow, isolate, cut and undo.", example="[netops]"
    )
    admins: tuple[str, ...] = option(
        WORDS, (), "Unix groups that may also change the mode and lift everything. root always may.", example="[wheel]"
    )


@dataclass(frozen=True)
class MetricsOptions:
    """Section `metrics`."""

    address: str = option(
        LISTENING, "127.0.0.1", "Where /metrics and /healthz are served. Empty: nowhere.", example='"::1"'
    )
    port: int = option(NUMBER, 9469, "The TCP port of /metrics and /healthz.", low=0, high=65_535)
    hosts: tuple[str, ...] = option(
        WORDS,
        (),
        "Names by which a Prometheus may ask beside localhost; others are refused, against DNS rebinding.",
        example="[gateway.ours.example]",
    )


@dataclass(frozen=True)
class StateOptions:
    """Section `state`."""

    directory: str = option(PATH, "/var/lib/egressd", "Where the ledger and the history lie.")
    events: str = option(
        PATH,
        "/var/log/egressd/eve.json",
        "The log of events, one JSON object a line (docs/events.md). Empty: none.",
    )
    heads: str = option(
        PATH,
        "/var/log/egressd/audit-heads",
        "Where the head of the audit chain is written once a minute, apart from the ledger: copy it to another "
        "machine, and no one can rewrite the audit unseen.",
    )
    history_days: int = option(NUMBER, 30, "How long it is remembered who contacted what.", low=1, high=3_650)
    history_rows: int = option(
        NUMBER, 5_000_000, "The most rows of history that are kept; the oldest go first.", low=1_000, high=100_000_000
    )
    ledger_days: int = option(
        NUMBER, 400, "How long ended decisions, closed incidents and audit rows are kept.", low=1, high=36_500
    )


@dataclass(frozen=True)
class Config:
    """Everything that can be set, with working defaults. Paths are as written, relative to the configuration's folder;
    addresses, networks and names are in their normal form."""

    mode: str = option(
        CHOICE,
        "monitor",
        "What egressd does about a sighting. monitor: it shows what it would block and blocks nothing. approve: a "
        "person decides on each block. enforce: it blocks. A replay never blocks anything, whatever stands here.",
        choices=MODES,
    )
    modes: Mapping[str, str] = option(
        SEGMENT_MODES,
        {},
        "Modes of single segments, where they differ from mode: the segment that a client is in decides what is done "
        "about what it contacts. So one segment can be armed first (docs/policy.md says what is held apart).",
        example="{laboratory: enforce}",
    )
    lists: tuple[str, ...] = option(
        PATHS,
        (),
        "Block lists: text files with one domain, address, network or URL a line. An entry may be a pattern with * or "
        "?. Relative paths start at this file's folder. Without any list a built-in demonstration list of reserved "
        "names is used.",
        example='["lists/*.txt"]',
    )
    allow: tuple[str, ...] = option(
        PATHS,
        (),
        "Files of allowances, which take precedence over every list: ignore-indicator, allow-destination, "
        "ignore-client and never-block, one a line, each with owner= and reason=.",
        example="[lists/allow.txt]",
    )
    feeds: Mapping[str, FeedOptions] = field(
        default_factory=dict,
        metadata=told(
            FeedOptions,
            "Lists that others publish, by names that you give them: a to z, 0 to 9 and hyphens. The daemon fetches "
            "them; a version that looks wrong is refused and the last good one stays in force (docs/feeds.md). "
            "feeds.example.yaml has some to paste here. Each has these options.",
            NAMED,
            "{c2: {url: https://feeds.example/c2.txt}}",
        ),
    )
    sensors: Mapping[str, SensorOptions] = field(
        default_factory=dict,
        metadata=told(
            SensorOptions,
            "Logs of other sensors, by names that you give them: a to z, 0 to 9 and hyphens. What they tell of is "
            "judged as what is captured; a contact that several tell of counts once, and names its sources "
            "(docs/sensors.md). Each has these options.",
            NAMED,
            "{proxy: {path: /var/log/squid/access.log, format: squid}}",
        ),
    )
    segments: Mapping[str, tuple[str, ...]] = option(
        SEGMENTS,
        {},
        "Names of your networks (tenants, sites, VLANs), each with its addresses. Reports show a client with the "
        "segment it is in; the most specific network decides. Whoever is in one is a host of yours: public networks "
        "wider than /8 (IPv4) or /16 (IPv6) are refused, for they hold others too.",
        example="{office: [10.1.0.0/16], laboratory: [10.2.0.0/16]}",
    )
    tags: Mapping[str, tuple[str, ...]] = option(
        TAGS,
        {},
        "Names of sorts of machines, each with their addresses and networks: rules of the policy can ask for them. A "
        "machine may have several.",
        example="{printers: [10.1.9.0/24], finance: [10.1.4.0/24, 10.1.9.7]}",
    )
    devices: DeviceOptions = field(
        default_factory=DeviceOptions,
        metadata=told(DeviceOptions, "Which addresses are one machine's, and what it is called (docs/devices.md)."),
    )
    resolvers: tuple[str, ...] = option(
        ADDRESSES,
        (),
        "Addresses of your own DNS resolvers. They are never blocked. When given, only their answers can tie an "
        "address to a listed name for every client; answers of other servers count for the client that asked.",
        example="[10.0.0.53]",
    )
    protected: tuple[str, ...] = option(
        NETWORKS,
        (),
        "Addresses and networks that are never blocked, beside the special-purpose ranges: gateways, servers, "
        "partners, administrators' own machines.",
        example="[192.0.2.1, 198.51.100.0/24]",
    )
    own_domains: tuple[str, ...] = option(
        NAMES,
        (),
        "Your own registered domains. A listed name under one of them covers that name and below, never the whole "
        "domain.",
        example="[ours.example]",
    )
    guard: GuardOptions = field(
        default_factory=GuardOptions,
        metadata=told(
            GuardOptions, "Registered domains that many innocent people share, where a block must stay narrow."
        ),
    )
    suffix_list: str = option(
        PATH,
        "",
        "A Public Suffix List to use instead of the shipped one, whole as publicsuffix.org has it. It decides where "
        "registered domains end. Empty: the shipped one.",
        example="public_suffix_list.dat",
    )
    nat64_prefixes: tuple[str, ...] = option(
        PREFIXES,
        (),
        "Your network's own NAT64 prefixes (RFC 6052), beside the well-known 64:ff9b::/96. An IPv6 address under one "
        "is listed, blocked, protected, shared or allowed when the IPv4 address in it is.",
        example='["2001:db8:64::/96"]',
    )
    policy: PolicyOptions = field(
        default_factory=PolicyOptions,
        metadata=told(PolicyOptions, "What justifies a block, and how many there may be."),
    )
    behaviour: BehaviourOptions = field(
        default_factory=BehaviourOptions,
        metadata=told(BehaviourOptions, "What no list names, found by how it behaves (docs/detection.md)."),
    )
    volume: VolumeOptions = field(
        default_factory=VolumeOptions,
        metadata=told(VolumeOptions, "How much hosts may send where, and what is unusual (docs/detection-volume.md)."),
    )
    capture: CaptureOptions = field(
        default_factory=CaptureOptions, metadata=told(CaptureOptions, "Where the daemon looks at packets, and how.")
    )
    enforce: EnforceOptions = field(
        default_factory=EnforceOptions, metadata=told(EnforceOptions, "How the daemon blocks, in mode enforce.")
    )
    control: ControlOptions = field(
        default_factory=ControlOptions, metadata=told(ControlOptions, "Who may tell the daemon what.")
    )
    metrics: MetricsOptions = field(
        default_factory=MetricsOptions, metadata=told(MetricsOptions, "What the daemon tells a Prometheus.")
    )
    state: StateOptions = field(
        default_factory=StateOptions, metadata=told(StateOptions, "What the daemon keeps on disk.")
    )
    limits: Limits = field(default_factory=Limits, metadata=told(Limits, "Bounds of the tables that traffic fills."))

    # Where it was read from, for problems that show only later. Not options.
    origin: str = field(default="", compare=False, repr=False)
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)


def options(cls: type[Any] = Config, prefix: str = "") -> Iterator[Option]:
    """The options directly in a section, in order; a section is one of kind SECTION."""
    return options_of(cls, prefix)


def every_option(cls: type[Any] = Config, prefix: str = "") -> Iterator[Option]:
    """All options in order of the schema, each section before what is in it. What is in a mapping of kind NAMED has no
    key until an operator gives it a name: `named_options` has those."""
    for one in options(cls, prefix):
        yield one
        if one.kind == SECTION and one.section is not None:
            yield from every_option(one.section, one.key + ".")
