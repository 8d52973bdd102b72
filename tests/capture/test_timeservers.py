"""Time servers as the programs that keep the clock are told of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture.timeservers import FILES, MAX_SERVERS, parse_time_servers, read_time_servers


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("[Time]\n#NTP=\nNTP=time.ours.example 192.0.2.123\n", ["time.ours.example", "192.0.2.123"]),
        ("FallbackNTP=0.pool.example 1.pool.example", ["0.pool.example", "1.pool.example"]),
        ("pool 2.debian.pool.ntp.example iburst\n", ["2.debian.pool.ntp.example"]),
        ("server 192.0.2.1 iburst prefer\npeer 2001:db8::7\n! server x.example\n", ["192.0.2.1", "2001:db8::7"]),
        (
            "server -4 four.example\nserver fe80::1%eth0\nSERVER Big.Example.\n",
            ["four.example", "fe80::1", "big.example"],
        ),
        ("server\npool\nserver ..\nserver 127.127.1.0\nrestrict 192.0.2.9\nkeyfile /x\n", ["127.127.1.0"]),
        ("server one.example\r\n\r\n", ["one.example"]),
        ("", []),
    ],
)
def test_servers_of_a_file(text: str, want: list[str]) -> None:
    assert parse_time_servers(text.encode()) == want


@given(st.binary(max_size=300))
def test_files_of_any_bytes(octets: bytes) -> None:
    assert all(isinstance(one, str) and one for one in parse_time_servers(octets))


def test_files_are_found_by_pattern_and_read_once_each(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "chrony.conf").write_text("pool a.example\n")
    (tmp_path / "conf.d" / "1.conf").write_text("server a.example\nserver b.example\n")
    (tmp_path / "conf.d" / "2.conf").mkdir()
    patterns = [str(tmp_path / "chrony.conf"), str(tmp_path / "conf.d" / "*.conf"), str(tmp_path / "none")]
    assert read_time_servers(patterns) == ["a.example", "b.example"]


def test_the_number_of_servers_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "ntp.conf"
    file.write_text("".join(f"server s{number}.example\n" for number in range(1_000)))
    assert len(read_time_servers([str(file)])) == MAX_SERVERS


def test_the_files_of_this_machine_can_be_read() -> None:
    assert all(pattern.startswith("/") for pattern in FILES)
    assert len(read_time_servers()) <= MAX_SERVERS
