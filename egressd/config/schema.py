"""The configuration's one schema: frozen dataclasses whose fields carry their own documentation, kind and bounds.

The validator (document.py), the reference file and the documents are made from it, so an option is described once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

SECTION: Final = "section"
CHOICE: Final = "choice"
NUMBER: Final = "number"
PATH: Final = "path"
PATHS: Final = "list of paths"
ADDRESSES: Final = "list of addresses"
NETWORKS: Final = "list of networks"
PREFIXES: Final = "list of NAT64 prefixes"
NAMES: Final = "list of names"
SEGMENTS: Final = "mapping of name to list of networks"

MODES: Final = ("monitor", "approve", "enforce")


class Option(NamedTuple):
    """One option as the schema tells it. `key` is its dotted path; `example` is YAML that stands after the key."""

    key: str
    kind: str
    default: Any
    doc: str
    low: int
    high: int
    choices: tuple[str, ...]
    example: str
    section: type[Any] | None

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]


def _option(
    kind: str,
    default: Any,
    doc: str,
    *,
    low: int = 0,
    high: int = 0,
    choices: tuple[str, ...] = (),
    example: str = "",
) -> Any:
    told = {"kind": kind, "doc": doc, "low": low, "high": high, "choices": choices, "example": example}
    if kind == SEGMENTS:
        return field(default_factory=dict, metadata=told)
    return field(default=default, metadata=told)


def _told(cls: type[Any], doc: str) -> dict[str, Any]:
    return {"kind": SECTION, "doc": doc, "low": 0, "high": 0, "choices": (), "example": "", "section": cls}


@dataclass(frozen=True)
class GuardOptions:
    """Section `guard`."""

    popular_file: str = _option(
        PATH,
        "",
        "A list of popular names in order of rank: Tranco's CSV (rank,name) or one name a line. A listed name under a "
        "popular registered domain covers that name and below, not its siblings. Empty: no such list.",
        example="top-1m.csv",
    )
    popular_top: int = _option(
        NUMBER,
        10_000,
        "How many ranks of popular_file count. Further down, malware has bought its way into such lists.",
        low=0,
        high=1_000_000,
    )
    file: str = _option(
        PATH,
        "",
        "A guard file to use instead of the shipped one: lines of `name category=WORD # reason` for hosting, dynamic "
        "DNS and other registered domains that many innocent people share. Empty: the shipped one.",
        example="guard.txt",
    )


@dataclass(frozen=True)
class PolicyOptions:
    """Section `policy`."""

    block_confidence: int = _option(
        NUMBER, 50, "A sighting by an indicator of less confidence than this alerts and does not block.", high=100
    )
    shared_after: int = _option(
        NUMBER,
        3,
        "An address on which this many other registered domains were seen is shared: it is not blocked, neither for "
        "everybody nor for one client; the name still is.",
        low=1,
        high=1_000,
    )
    addresses_per_indicator_hour: int = _option(
        NUMBER,
        16,
        "The most addresses that are added to one block within an hour. Beyond it the name stays blocked and each "
        "further address is refused with that reason.",
        high=4_096,
    )
    blocks_per_hour: int = _option(
        NUMBER,
        200,
        "The most automatic blocks within an hour. Beyond it a sighting alerts only, so that a bad list cannot cut "
        "off a whole network.",
        high=100_000,
    )


@dataclass(frozen=True)
class Limits:
    """Section `limits`."""

    conversations: int = _option(
        NUMBER,
        32_768,
        "The most TCP conversations, and the most UDP ones, that are remembered at once. The longest quiet are "
        "forgotten first, and counted.",
        low=1_024,
        high=4_194_304,
    )
    history: int = _option(
        NUMBER,
        131_072,
        "The most pairs of client and contacted name (or address) that are remembered, so that an indicator that "
        "comes later finds earlier contacts. Those forgotten are counted.",
        low=1_024,
        high=16_777_216,
    )


@dataclass(frozen=True)
class Config:
    """Everything that can be set, with working defaults. Paths are as written, relative to the configuration's folder;
    addresses, networks and names are in their normal form."""

    mode: str = _option(
        CHOICE,
        "monitor",
        "What egressd does about a sighting. monitor: it shows what it would block and blocks nothing. approve: a "
        "person decides on each block. enforce: it blocks. A replay never blocks anything, whatever stands here.",
        choices=MODES,
    )
    lists: tuple[str, ...] = _option(
        PATHS,
        (),
        "Block lists: text files with one domain, address, network or URL a line. An entry may be a pattern with * or "
        "?. Relative paths start at this file's folder. Without any list a built-in demonstration list of reserved "
        "names is used.",
        example='["lists/*.txt"]',
    )
    allow: tuple[str, ...] = _option(
        PATHS,
        (),
        "Files of allowances, which take precedence over every list: ignore-indicator, allow-destination, "
        "ignore-client and never-block, one a line, each with owner= and reason=.",
        example="[lists/allow.txt]",
    )
    segments: Mapping[str, tuple[str, ...]] = _option(
        SEGMENTS,
        {},
        "Names of your networks (tenants, sites, VLANs), each with its addresses. Reports show a client with the "
        "segment it is in; the most specific network decides.",
        example="{office: [10.1.0.0/16], laboratory: [10.2.0.0/16]}",
    )
    resolvers: tuple[str, ...] = _option(
        ADDRESSES,
        (),
        "Addresses of your own DNS resolvers. They are never blocked. When given, only their answers can tie an "
        "address to a listed name for every client; answers of other servers count for the client that asked.",
        example="[10.0.0.53]",
    )
    protected: tuple[str, ...] = _option(
        NETWORKS,
        (),
        "Addresses and networks that are never blocked, beside the special-purpose ranges: gateways, servers, "
        "partners, administrators' own machines.",
        example="[192.0.2.1, 198.51.100.0/24]",
    )
    own_domains: tuple[str, ...] = _option(
        NAMES,
        (),
        "Your own registered domains. A listed name under one of them covers that name and below, never the whole "
        "domain.",
        example="[ours.example]",
    )
    guard: GuardOptions = field(
        default_factory=GuardOptions,
        metadata=_told(
            GuardOptions, "Registered domains that many innocent people share, where a block must stay narrow."
        ),
    )
    suffix_list: str = _option(
        PATH,
        "",
        "A Public Suffix List to use instead of the shipped one (publicsuffix.org). It decides where registered "
        "domains end. Empty: the shipped one.",
        example="public_suffix_list.dat",
    )
    nat64_prefixes: tuple[str, ...] = _option(
        PREFIXES,
        (),
        "Your network's own NAT64 prefixes (RFC 6052), beside the well-known 64:ff9b::/96. An IPv6 address under one "
        "is protected when the IPv4 address in it is.",
        example='["2001:db8:64::/96"]',
    )
    policy: PolicyOptions = field(
        default_factory=PolicyOptions,
        metadata=_told(PolicyOptions, "What justifies a block, and how many there may be."),
    )
    limits: Limits = field(default_factory=Limits, metadata=_told(Limits, "Bounds of the tables that traffic fills."))

    # Where it was read from, for problems that show only later. Not options.
    origin: str = field(default="", compare=False, repr=False)
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)


def options(cls: type[Any] = Config, prefix: str = "") -> Iterator[Option]:
    """The options directly in a section, in order; a section is one of kind SECTION."""
    for one in fields(cls):
        told = one.metadata
        if not told:
            continue
        default = () if told["kind"] == SECTION else {} if told["kind"] == SEGMENTS else one.default
        yield Option(
            prefix + one.name, told["kind"], default, told["doc"], told["low"], told["high"], told["choices"],
            told["example"], told.get("section"),
        )  # fmt: skip


def every_option(cls: type[Any] = Config, prefix: str = "") -> Iterator[Option]:
    """All options in order of the schema, each section before what is in it."""
    for option in options(cls, prefix):
        yield option
        if option.section is not None:
            yield from every_option(option.section, option.key + ".")
