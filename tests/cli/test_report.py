"""The report of a replay stays readable where texts are longer than its 80 columns."""

from __future__ import annotations

import pytest

from egressd.cli.report import _about, _widths

NOTE = "holds 96 bytes of a packet at most: names behind are missed"


@pytest.mark.parametrize(
    ("hosts", "domains", "widths"),
    [
        (["10.0.0.5"], ["bad.example"], (8, 22)),
        (["192.168.200.105"], ["news-portal.bad.example"], (15, 15)),
        (["2a00:d40:1:3:7aac:c0ff:fea7:d4c", "10.0.0.5"], ["facebook.example"], (15, 15)),
        (["2a00:d40:1:3:7aac:c0ff:fea7:d4c"], ["waze.example"], (18, 12)),
    ],
)
def test_an_ipv6_address_leaves_room_for_the_domain(
    hosts: list[str], domains: list[str], widths: tuple[int, int]
) -> None:
    """Seven columns were left, `fac..om`, as soon as one host had an IPv6 address."""
    assert _widths(hosts, domains) == widths


def test_what_is_wrong_with_a_file_names_the_file() -> None:
    """The middle of the line was cut out, with the file's name and half of what is wrong."""
    assert _about("a.pcap", NOTE) == [f"! a.pcap: {NOTE}"]
    assert _about("/srv/captures/of/november/a.pcap", NOTE) == [f"! a.pcap: {NOTE}"]
    first, second = _about("/srv/captures/" + "a" * 90 + ".pcap", NOTE)
    assert (len(first), first[:8], first[-6:], second) == (80, "! /srv/c", ".pcap:", f"    {NOTE}")
