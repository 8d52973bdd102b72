"""DHCP servers' lease files as text: dnsmasq's, ISC dhcpd's, and the CSV of Kea for IPv4 and IPv6.

Which of them it is shows the content. What is no lease, or one cut short because the server is just writing, is left
out; nothing is raised. Times are epoch microseconds.

Host names in them are the hosts' own words, which must end no line, open no block and quote nothing: a line ends at a
line feed and nowhere else, whatever Unicode or CSV take for an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from egressd.detect.devices import Lease
from egressd.detect.mac import parse_mac
from egressd.intel.networks import parse_address
from egressd.units import SECOND_US

MAX_LEASE_BYTES: Final = 16 << 20
NO_LEASES: Final = "is no lease file of dnsmasq, ISC dhcpd or Kea"
MAX_LEASES: Final = 65_536
MAX_LINE: Final = 4_096
_MAX_S: Final = 1 << 33  # a time after the year 2200 is a mistake
_ISC: Final = re.compile(r"\s*lease\s+([0-9.]+)\s*\{\s*$")
_ISC_HEAD: Final = re.compile(r"^(lease\s+[0-9.]+\s*\{|server-duid|authoring-byte-order|# .*dhcpd)", re.M | re.I)
_BEGINNINGS: Final = ("address,", "lease ", "server-duid", "authoring-byte-order", "duid ")
_STATEMENT: Final = re.compile(r"\s*(starts|ends|binding state|hardware ethernet|client-hostname)\s+([^;]*);")


def parse_leases(text: str) -> list[Lease]:
    """The leases of a file, the last word on each address only, at most MAX_LEASES."""
    if _is_kea(text):
        found = _kea(text)
    elif _is_isc(text):
        found = _isc(text)
    else:
        found = _dnsmasq(text)
    leases: dict[bytes, Lease] = {}
    for lease in found:
        if lease.address in leases:
            del leases[lease.address]  # where it stands tells which is younger
        if lease.mac:
            leases[lease.address] = lease
        if len(leases) > MAX_LEASES:
            del leases[next(iter(leases))]
    return list(leases.values())


def is_of_leases(text: str) -> bool:
    """Whether a text is in one of the forms that are read, if only without leases; else it is another file. A last
    line without an end is just being written, if it begins as theirs do."""
    if _is_kea(text) or _is_isc(text):
        return True
    *whole, last = text.split("\n")
    lines = [line[:MAX_LINE] for line in whole if line.strip() and not line.startswith("#")]
    return any(map(_is_of_dnsmasq, lines)) if lines else _is_beginning(last.lstrip())


def _is_beginning(line: str) -> bool:
    """Whether a lease file may go on from here."""
    if not line or line[0] in "#0123456789":
        return True
    return any(line.startswith(one[: len(line)]) for one in _BEGINNINGS)


def _is_kea(text: str) -> bool:
    return text.lstrip().startswith("address,")


def _is_isc(text: str) -> bool:
    return _ISC_HEAD.search(text.lstrip()[:4_096]) is not None


def _is_of_dnsmasq(line: str) -> bool:
    fields = line.split()
    return fields[0] == "duid" or (len(fields) >= 5 and _is_time(fields[0]) and parse_address(fields[2]) != b"")


def _dnsmasq(text: str) -> Iterator[Lease]:
    """`EXPIRY MAC ADDRESS NAME CLIENT-ID`; below a line `duid`, `EXPIRY IAID ADDRESS NAME DUID` (dnsmasq(8))."""
    for line in text.split("\n"):
        fields = line[:MAX_LINE].split()
        if len(fields) < 5:
            continue
        address = parse_address(fields[2])
        mac = parse_mac(fields[1]) if len(address) == 4 else _mac_of_duid(fields[4])
        if address and mac and _is_time(fields[0]):
            yield Lease(address, mac, 0, int(fields[0]) * SECOND_US, fields[3])


def _isc(text: str) -> Iterator[Lease]:
    """dhcpd.leases(5): a journal, the last block of an address holds."""
    address = b""
    said: dict[str, str] = {}
    for whole in text.split("\n"):
        line = whole[:MAX_LINE]
        begins = _ISC.match(line)
        if begins is not None:
            address = parse_address(begins[1])
            said = {}
        elif address and line.strip() == "}":
            yield _isc_lease(address, said)
            address = b""
        elif address:
            statement = _STATEMENT.match(line)
            if statement is not None:
                said[statement[1]] = statement[2].strip()


def _isc_lease(address: bytes, said: dict[str, str]) -> Lease:
    mac = parse_mac(said.get("hardware ethernet", ""))
    if said.get("binding state", "active") != "active":
        mac = b""
    ends = said.get("ends", "never")
    until_us = 0 if ends == "never" else _isc_time(ends)
    if ends != "never" and not until_us:
        mac = b""
    return Lease(address, mac, _isc_time(said.get("starts", "")), until_us, said.get("client-hostname", "").strip('"'))


def _kea(text: str) -> Iterator[Lease]:
    """kea-leases4.csv and kea-leases6.csv, which is a journal too; commas in values are written as `&#x2c`."""
    head, *lines = text.lstrip().split("\n")
    columns = head.strip().split(",")
    for line in lines:
        row = dict(zip(columns, line[:MAX_LINE].rstrip("\r").split(","), strict=False))
        address = parse_address(row.get("address", ""))
        expire, lifetime = row.get("expire", ""), row.get("valid_lifetime", "")
        if not address or not _is_time(expire) or not _is_time(lifetime):
            continue
        mac = parse_mac(row.get("hwaddr", "")) or _mac_of_duid(row.get("duid", ""))
        if row.get("state", "") not in ("", "0") or lifetime == "0" or row.get("lease_type", "") not in ("", "0"):
            mac = b""  # declined, reclaimed, released; or a prefix, which is no host's address
        name = row.get("hostname", "").replace("&#x2c", "").rstrip(".")
        if int(lifetime) == 0xFFFFFFFF:
            yield Lease(address, mac, 0, 0, name)
        else:
            yield Lease(address, mac, (int(expire) - int(lifetime)) * SECOND_US, int(expire) * SECOND_US, name)


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _MAX_S


def _isc_time(text: str) -> int:
    """`4 2015/05/18 10:00:00`, in UTC, or `epoch 1431943200; # ...`; 0 for anything else."""
    fields = text.split()
    if len(fields) >= 2 and fields[0] == "epoch" and _is_time(fields[1]):
        return int(fields[1]) * SECOND_US
    if len(fields) != 3:
        return 0
    try:
        return (
            int(datetime.strptime(f"{fields[1]} {fields[2]}", "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
            * SECOND_US
        )
    except ValueError:
        return 0


def _mac_of_duid(text: str) -> bytes:
    """The MAC in a DUID of type 1 (with a time) or 3, of Ethernet (RFC 8415 section 11); b"" when there is none."""
    try:
        duid = bytes(int(part, 16) for part in text.split(":")) if len(text) <= 400 else b""
    except ValueError:
        return b""
    if duid[:4] == b"\0\1\0\1" and len(duid) == 14:
        return duid[8:]
    return duid[4:] if duid[:4] == b"\0\3\0\1" and len(duid) == 10 else b""
