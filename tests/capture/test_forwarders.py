"""Whom resolvers on this machine ask, as they are told in their files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture.forwarders import (
    FILES,
    MAX_FILE_BYTES,
    MAX_FORWARDERS,
    parse_forwarders,
    read_forwarders,
)
from tests.detect.scene import packed


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("no-resolv\nserver=203.0.113.53\nserver=203.0.113.54#5353@wan0\n", ["203.0.113.53", "203.0.113.54"]),
        ("server=/corp.example/10.example/192.0.2.7\nserver = 2001:db8::53\n", ["192.0.2.7", "2001:db8::53"]),
        ("rev-server=192.0.2.0/24,192.0.2.8\n#server=192.0.2.9\nserver=/lan/\naddress=/a/192.0.2.1\n", ["192.0.2.8"]),
        ('forward-zone:\n  name: "."\n  forward-addr: 203.0.113.53@853#dns.isp.example\n', ["203.0.113.53"]),
        ("\tforward-addr:2001:db8::53\nstub-addr: 192.0.2.5\n# stub-addr: 192.0.2.6\n", ["2001:db8::53", "192.0.2.5"]),
        ("options { forwarders { 192.0.2.3; 192.0.2.4 port 5353; /* 192.0.2.1; */ }; };", ["192.0.2.3", "192.0.2.4"]),
        ("forwarders port 53 {\n2001:db8::53; // 192.0.2.1;\n\t# 192.0.2.2;\n};\nx { 192.0.2.3; };", ["2001:db8::53"]),
        ("nameserver 203.0.113.53\nnameserver fe80::1%wan0\nsearch isp.example\n", ["203.0.113.53", "fe80::1"]),
        ("server=dns.isp.example\nserver=\nforwarders { };\nforwarders", []),
        ("server=203.0.113.53\r\n", ["203.0.113.53"]),
    ],
)  # fmt: skip
def test_forwarders_of_a_file(text: str, want: list[str]) -> None:
    assert parse_forwarders(text) == [packed(one) for one in want]


@given(st.text(max_size=300))
def test_files_of_any_text(text: str) -> None:
    for one in (text, f"forwarders {{{text}", f"server={text}"):
        assert all(len(address) in (4, 16) for address in parse_forwarders(one))


@pytest.mark.parametrize("piece", ["forwarders ", "forwarders {", "forwarders /*", "server=/", "server=/a/\t", " "])
def test_a_large_file_is_read_in_no_time(piece: str) -> None:
    """Every two seconds, beside the event loop but in the same interpreter."""
    text = piece * (MAX_FILE_BYTES // len(piece))
    began_s = time.process_time()
    parse_forwarders(text)
    assert time.process_time() - began_s < 0.5


def test_files_are_found_by_pattern_and_lead_to_others(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "isp.conf").write_text("nameserver 203.0.113.54\n")
    (tmp_path / "dnsmasq.conf").write_text(f"resolv-file={tmp_path}/isp.conf # DHCP\nresolv-file={tmp_path}/x\n")
    (tmp_path / "d" / "1.conf").write_text("server=203.0.113.53\nserver=203.0.113.54\n")
    (tmp_path / "d" / "2.conf").mkdir()
    patterns = [str(tmp_path / "dnsmasq.conf"), str(tmp_path / "d" / "*"), str(tmp_path / "none")]
    assert read_forwarders(patterns) == [packed("203.0.113.53"), packed("203.0.113.54")]


def test_their_number_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("".join(f"server=203.0.{n >> 8}.{n & 255}\n" for n in range(2_000)))
    assert len(read_forwarders([str(tmp_path / "a")])) == MAX_FORWARDERS


def test_the_files_of_this_machine_can_be_read() -> None:
    assert all(pattern.startswith("/") for pattern in FILES)
    assert len(read_forwarders()) <= MAX_FORWARDERS
