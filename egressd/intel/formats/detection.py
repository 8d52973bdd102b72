"""Which format a text is in, by its first lines."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Final

from egressd.intel.formats.fields import parse_columns
from egressd.intel.lines import Wrong, split_lines

OURS: Final = "egressd"

_LOOKED_AT: Final = 65_536  # characters; every format shows itself earlier than that
_KEY: Final = re.compile(r'"([A-Za-z_|]{1,40})"\s*:')
_OPTION: Final = re.compile(r"\S+\s+(?:.*\s)?(?:scope|threat|confidence|expires|added|first_seen|ref|owner|force)=")
_HOSTS: Final = re.compile(r"(?:0\.0\.0\.0|127\.0\.0\.1|::1?)\s+[^\s#]")
_DNSMASQ: Final = re.compile(r"(?:--)?(?:local|address|server)=/")
_RPZ: Final = re.compile(r"\$(?:TTL|ORIGIN)\b|[^#!|;]*\s(?:SOA|CNAME)\s", re.I)
_ADBLOCK: Final = re.compile(r"!|@@|\|\||\[ad(?:block|guard)", re.I)
_PORT: Final = re.compile(r"[^\s:/|]+:[0-9]{1,5}")
_MALTRAIL: Final = re.compile(r"# (?:Reference:|Aliases:|Copyright .*Maltrail)")
_ZEEK: Final = re.compile(r"#(?:separator\s|fields\t)")
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_HEADERS: Final = (  # column names that only one format has
    ("urlhaus", {"dateadded", "url"}),
    ("threatfox", {"ioc_value", "threat_type"}),
    ("feodo", {"dst_ip"}),
    ("maltrail-csv", {"trail", "info"}),
    ("crowdsec", {"scope", "value"}),
    ("crowdsec", {"duration", "value"}),
    ("crowdsec", {"ip", "expiration"}),
)
_JSON_KEYS: Final = (
    ("misp", {"Event"}),
    ("stix", {"pattern", "pattern_type"}),
    ("stix", {"objects"}),
    ("threatfox", {"ioc_value", "ioc_type"}),
    ("threatfox", {"ioc", "threat_type"}),
    ("threatfox", {"query_status"}),
    ("feodo", {"ip_address", "port"}),
    ("crowdsec", {"decisions"}),
    ("crowdsec", {"scope", "value"}),
    ("crowdsec", {"new", "deleted"}),
    *(("suricata", {key}) for key in ("value", "indicator", "ioc", "domain", "hostname", "host", "ip", "cidr", "url")),
)


def detect_format(text: str) -> str:
    """One of FORMATS; our own where nothing speaks for another, or something speaks for ours too."""
    head = text[:_LOOKED_AT].removeprefix("\ufeff")
    if head.lstrip()[:1] in ("{", "[") and not head.lstrip().lower().startswith("[ad"):
        keys = set(_KEY.findall(head))
        return next((name for name, needed in _JSON_KEYS if needed <= keys), OURS)
    lines = [line.strip() for line in split_lines(head)]
    if len(text) > _LOOKED_AT:
        lines.pop()  # it may be cut
    lines = [line for line in lines if line]
    entries = [line for line in lines if line[0] not in "#!;"]
    if any(_OPTION.match(line) for line in entries):
        return OURS
    for format_, speaks in _SIGNS:
        if any(map(speaks, lines)):
            return format_
    for line in lines:
        columns = _columns(line)
        for format_, needed in _HEADERS:
            if needed <= columns:
                return format_
    if entries and all(_is_trail_record(line) for line in entries[:20]):
        return "maltrail-csv"
    if any(_PORT.fullmatch(line) for line in entries):
        return "maltrail"
    if any(_is_dataset_line(line) for line in entries):
        return "suricata"
    return OURS


_SIGNS: Final[tuple[tuple[str, Callable[[str], object]], ...]] = (
    ("zeek", _ZEEK.match),
    ("maltrail", _MALTRAIL.match),
    ("dnsmasq", _DNSMASQ.match),
    ("rpz", _RPZ.match),
    ("adblock", _ADBLOCK.match),
    ("hosts", _HOSTS.match),
)


def _columns(line: str) -> set[str]:
    if "," not in line:
        return set()
    try:
        return {name.lower() for name in parse_columns(line.lstrip("# "))}
    except Wrong:
        return set()


def _is_trail_record(line: str) -> bool:
    try:
        columns = parse_columns(line)
    except Wrong:
        return False
    return len(columns) == 3 and (columns[2] == "(static)" or columns[1].endswith(("(malware)", "(suspicious)")))


def _is_dataset_line(line: str) -> bool:
    """Whether a line is base64 of something that has a dot, which base64 itself has not."""
    value = line.partition(",")[0]
    return _BASE64.fullmatch(value) is not None and b"." in b64decode(value)
