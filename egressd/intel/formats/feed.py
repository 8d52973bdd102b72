"""One entry for every format: its text in, what was found out, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Final

from egressd.intel.formats.judgement import Found, Rules

Reader = Callable[[str, str, Rules], Iterator[Found]]

FORMATS: Final = {
    "egressd": "our own lists: one entry a line, options after it",
    "hosts": "hosts files",
    "adblock": "AdBlock and AdGuard DNS filters",
    "dnsmasq": "dnsmasq configuration",
    "rpz": "response policy zones (zone files)",
    "maltrail": "Maltrail's static trails (text)",
    "maltrail-csv": "Maltrail's trails.csv",
    "urlhaus": "abuse.ch URLhaus (CSV)",
    "threatfox": "abuse.ch ThreatFox (CSV, JSON)",
    "feodo": "abuse.ch Feodo Tracker (CSV, JSON)",
    "misp": "MISP events (JSON)",
    "stix": "STIX 2.1 bundles and TAXII 2.1 envelopes",
    "zeek": "Zeek intelligence files",
    "suricata": "Suricata datasets (base64 lines, JSON, JSON lines)",
    "crowdsec": "CrowdSec decisions (JSON, CSV)",
}
_READERS: Final = {
    "egressd": ("ours", "read_ours"),
    "hosts": ("hosts", "read_hosts"),
    "adblock": ("adblock", "read_adblock"),
    "dnsmasq": ("dnsmasq", "read_dnsmasq"),
    "rpz": ("rpz", "read_rpz"),
    "maltrail": ("maltrail", "read_maltrail"),
    "maltrail-csv": ("maltrail", "read_maltrail_csv"),
    "urlhaus": ("abusech", "read_urlhaus"),
    "threatfox": ("abusech", "read_threatfox"),
    "feodo": ("abusech", "read_feodo"),
    "misp": ("misp", "read_misp"),
    "stix": ("stix", "read_stix"),
    "zeek": ("zeek", "read_zeek"),
    "suricata": ("suricata", "read_suricata"),
    "crowdsec": ("crowdsec", "read_crowdsec"),
}


def read_feed(text: str, format: str, source: str, rules: Rules) -> Iterator[Found]:
    """Everything that a text in one of FORMATS comes to, in order of its lines: an Indicator, a Problem at its line and
    column, or an Ignored. Each line that is not blank or comment comes to one of them, or more.

    `source` is the name that indicators and problems carry. Nothing leaves it for any text; raises ValueError for a
    format that does not exist.
    """
    if format not in _READERS:
        raise ValueError(f"no such format: {format}")
    file, name = _READERS[format]  # imported when needed: a start-up reads one or two of them
    reader: Reader = getattr(import_module(f"egressd.intel.formats.{file}"), name)
    return reader(text, source, rules)
