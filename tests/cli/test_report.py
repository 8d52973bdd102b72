"""The report of a replay stays readable where texts are longer than its 80 columns, and takes what a terminal has."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from egressd.cli.report import _about, _widths
from tests.cli.commands import ROOT

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


def replayed(columns: int, case: str = "listed-address-shared") -> list[str]:
    """The report of one case on a terminal so wide; 0: in a pipe."""
    folder = ROOT / "pcaps" / case
    argv = [sys.executable, "-m", "egressd", "replay", *map(str, sorted(folder.glob("*.pcap")))]
    if (folder / "list.txt").exists():
        argv += ["--list", "list.txt"]
    if not columns:
        done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, check=True)
        return done.stdout.splitlines()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(argv, stdout=theirs, stderr=subprocess.DEVNULL, cwd=folder):
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 65_536):
                said += piece
        except OSError:  # the other side is closed
            pass
    os.close(ours)
    return said.decode().splitlines()


def test_what_a_block_by_name_alone_would_not_have_stopped_is_not_counted() -> None:
    """All that the name led to is shared, so no address is blocked, and enforcing keeps nobody from it: `a block would
    have stopped 1 of 2 contacts` said the report."""
    told = replayed(0, "shared-cdn-address")
    assert told[2:4] == [
        "1 of 5 hosts reached a listed registered domain; a block would have",
        "stopped 0 of 2 contacts; 1 more went where only the name is blocked.",
    ]
    assert "Would block: bad.example (name only)" in told
    assert "stopped 189 of 227 contacts: all that came after the decision." in replayed(0, "jps-2015")


def test_a_wide_terminal_shows_more_and_a_file_is_the_same_everywhere() -> None:
    piped, narrow, wide = replayed(0), replayed(60), replayed(160)
    assert max(map(len, piped)) <= 80 and piped[1:] == narrow[1:], "the first line tells how long it took"
    assert any(".." in line for line in piped)
    assert any(line.startswith("Would not block 1: 198.51.100.66, ") for line in piped)
    assert not any(line.startswith("Would block: ") for line in piped), "it was given free again"
    assert not any(".." in line.replace("...", "") for line in wide) and 80 < max(map(len, wide)) <= 160
