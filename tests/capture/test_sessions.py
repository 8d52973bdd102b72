"""Who is logged in from afar, by utmp and by logind."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.capture.sessions import parse_session, parse_utmp, read_sessions


def record(kind: int, address: str = "") -> bytes:
    """A record as login writes it (bits/utmp.h)."""
    raw = ip_address(address).packed if address else b""
    return struct.pack(
        "=hxxi32s4s32s256shhiii16s20x", kind, 4711, b"pts/0", b"ts/0", b"root", address.encode(), 0, 0, 1, 2, 3, raw
    )


def test_users_sessions_with_an_address_count() -> None:
    octets = record(2) + record(7) + record(7, "192.0.2.7") + record(8, "192.0.2.8") + record(7, "2001:db8::7")
    assert parse_utmp(octets) == [ip_address("192.0.2.7").packed, ip_address("2001:db8::7").packed]


def test_a_record_that_is_being_written_is_left_out() -> None:
    octets = record(7, "192.0.2.7") + record(7, "192.0.2.8")[:-1]
    assert parse_utmp(octets) == [ip_address("192.0.2.7").packed]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("UID=0\nSTATE=active\nREMOTE=1\nREMOTE_HOST=192.0.2.7\n", ["192.0.2.7"]),
        ("STATE=online\nREMOTE=1\nREMOTE_HOST=2001:db8::7\n", ["2001:db8::7"]),
        ("STATE=active\nREMOTE=1\nREMOTE_HOST=fe80::1%eth0\n", ["fe80::1"]),
        ("STATE=closing\nREMOTE=1\nREMOTE_HOST=192.0.2.7\n", []),
        ("STATE=active\nREMOTE=0\nREMOTE_HOST=192.0.2.7\n", []),
        ("STATE=active\nREMOTE=1\nREMOTE_HOST=admin.ours.example\n", []),
        ("STATE=active\nREMOTE=1\n", []),
        ("", []),
    ],
)
def test_sessions_of_logind(text: str, want: list[str]) -> None:
    assert parse_session(text.encode()) == [ip_address(one).packed for one in want]


@given(st.binary(max_size=1_000))
def test_records_of_any_bytes(octets: bytes) -> None:
    assert all(len(one) in (4, 16) for one in (*parse_utmp(octets), *parse_session(octets)))


def test_both_records_are_read_and_neither_need_be_there(tmp_path: Path) -> None:
    utmp, logind = tmp_path / "utmp", tmp_path / "sessions"
    assert read_sessions(str(utmp), str(logind)) == []
    utmp.write_bytes(record(7, "192.0.2.7"))
    logind.mkdir()
    (logind / "3").write_text("STATE=active\nREMOTE=1\nREMOTE_HOST=192.0.2.7\n")
    (logind / "5").write_text("STATE=active\nREMOTE=1\nREMOTE_HOST=192.0.2.9\n")
    (logind / "5.ref").mkdir()
    assert read_sessions(str(utmp), str(logind)) == [ip_address(one).packed for one in ("192.0.2.7", "192.0.2.9")]
