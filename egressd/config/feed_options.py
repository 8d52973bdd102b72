"""The options of one feed (docs/feeds.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from egressd.config.kinds import CHOICE, FLAG, NUMBER, PATH, TEXT, URL, option

# intel.formats has the same, and what each is.
FEED_FORMATS: Final = (
    *("egressd", "hosts", "adblock", "dnsmasq", "rpz", "maltrail", "maltrail-csv", "urlhaus", "threatfox", "feodo"),
    *("misp", "stix", "zeek", "suricata", "crowdsec"),
)
SCOPES: Final = ("registered", "host", "exact")  # intel.formats has the same
MAX_FEEDS: Final = 32  # each is a label's value in metrics, and a task


@dataclass(frozen=True)
class FeedOptions:
    """One feed of the mapping `feeds`."""

    url: str = option(
        URL,
        "",
        "Where the feed is, https:// as a rule. It may hold {credential}, in whose place the credential is put. "
        "Wherever it is shown, all after a ? and before an @ is left out.",
        example="https://feeds.example/c2.txt",
    )
    format: str = option(
        CHOICE,
        "egressd",
        "How it is written. egressd: one domain, address, network or URL a line, with options. The others are in "
        "docs/lists.md.",
        choices=FEED_FORMATS,
    )
    enabled: bool = option(FLAG, True, "Whether it is fetched and used. false: what was kept of it stays on disk.")
    every_s: int = option(
        NUMBER,
        3_600,
        "How often to ask whether there is a new version, in seconds. After a failure it is asked again earlier, "
        "after 60 s at first, then after ever longer times up to this.",
        low=300,
        high=604_800,
    )
    credential: str = option(
        PATH,
        "",
        "A file with the key or password for it and nothing else, readable by egressd alone. "
        "${CREDENTIALS_DIRECTORY}/NAME is what systemd's LoadCredential=NAME hands over. What is in it is never "
        "logged or shown.",
        example="${CREDENTIALS_DIRECTORY}/feed-key",
    )
    header: str = option(
        TEXT,
        "Authorization",
        "The header of the request that carries the credential, just as it stands in its file (such as Bearer KEY); "
        "not used where url holds {credential}.",
        example="Auth-Key",
    )
    ca_file: str = option(
        PATH,
        "",
        "A file of certificate authorities (PEM) to trust for this feed, instead of the system's.",
        example="/etc/egressd/our-ca.pem",
    )
    insecure: bool = option(
        FLAG,
        False,
        "Whether url may be http:// where it is not on this machine. Whoever is on the way can change the feed then, "
        "and so what is blocked.",
    )
    scope: str = option(
        CHOICE,
        "registered",
        "What a name in it covers. registered: its whole registered domain. host: itself and below. exact: itself.",
        choices=SCOPES,
    )
    threat: str = option(TEXT, "", "What its lines are, where they do not say it.", example="c2")
    confidence: int = option(
        NUMBER,
        75,
        "The confidence of its lines, where they do not say it. Below policy.block_confidence they alert only.",
        high=100,
    )
    max_mib: int = option(
        NUMBER,
        64,
        "The largest version that is taken, in MiB, as it comes over the net and unpacked.",
        low=1,
        high=1_024,
    )
    allow_empty: bool = option(
        FLAG,
        False,
        "Whether an empty version is right too, as it is of a list that has entries at times. false: it is refused.",
    )
    shrink_percent: int = option(
        NUMBER,
        50,
        "A version that lost this share of the indicators, or more, is refused, unless it lost fewer than 20 of them.",
        low=1,
        high=100,
    )
    grow_times: int = option(
        NUMBER,
        10,
        "A version with this many times the indicators, or more, is refused, unless it gained fewer than 20 of them.",
        low=2,
        high=1_000_000,
    )
    quarantine_most: int = option(
        NUMBER,
        20,
        "Lines that name what must never be blocked (public suffixes, protected addresses, what you allow, popular "
        "and shared sites) are kept out one by one. With more of them than this, if that is more than one line in a "
        "thousand too, or with more than one line in ten, the version is refused whole. 0: a single one is enough.",
        high=100_000,
    )


PLACEHOLDER: Final = "{credential}"
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110 section 5.6.2
_NOT_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "user-agent", "cookie"})
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def wrong_with(feed: FeedOptions) -> Iterator[tuple[str, str, str]]:
    """(option, what, advice) for what is wrong with options that are right each by itself. Quotes no address."""
    if not feed.url:
        yield "url", "is missing", "write where the feed is: url: https://host/path"
        return
    parts = urlsplit(feed.url)
    if parts.scheme == "http" and not feed.insecure and parts.hostname not in _LOOPBACK:
        what = "is http://: whoever is on the way can change what is blocked"
        yield "url", what, "write https://, or insecure: true if it must be so"
    rest = feed.url.replace(PLACEHOLDER, "")
    if "{" in rest or "}" in rest:
        yield "url", "has braces around something else than credential", f"write {PLACEHOLDER}"
    if PLACEHOLDER in feed.url and not feed.credential:
        yield "url", f"holds {PLACEHOLDER}, and there is none", "name the file that has it: credential: PATH"
    if _TOKEN.fullmatch(feed.header) is None or feed.header.lower() in _NOT_OURS:
        yield "header", "cannot carry a credential", "write a header's name, such as Authorization or Auth-Key"


def feed_host(feed: FeedOptions) -> str:
    """The host that a feed comes from, for what must never be blocked."""
    return urlsplit(feed.url).hostname or ""
