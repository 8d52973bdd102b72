"""Hardware addresses and their text."""

from __future__ import annotations

from egressd.detect.mac import is_host, is_local, mac_within, parse_mac, render_mac
from tests.detect.scene import packed

LAPTOP = bytes.fromhex("021a2b000001")
PRINTER = bytes.fromhex("001a2b000002")


def test_text_of_a_mac() -> None:
    assert render_mac(LAPTOP) == "02:1a:2b:00:00:01"
    assert parse_mac("2:1A:2b:0:0:01") == LAPTOP
    assert [
        parse_mac(one) for one in ("", "02:1a:2b:00:00", "02:1a:2b:00:00:0g", "02-1a-2b-00-00-01", "٠2:1:1:1:1:1")
    ] == [b""] * 5
    assert (is_local(LAPTOP), is_local(PRINTER)) == (True, False)


def test_a_group_and_nobody_are_no_hosts() -> None:
    assert is_host(LAPTOP)
    assert is_host(PRINTER)
    nobodys = ("000000000000", "ffffffffffff", "01005e000001", "0200", "")
    assert [is_host(bytes.fromhex(one)) for one in nobodys] == [False] * 5


def test_the_mac_that_an_address_was_made_from() -> None:
    assert mac_within(packed("fe80::1a:2bff:fe00:1")) == LAPTOP
    assert mac_within(packed("2001:db8::21a:2bff:fe00:2")) == PRINTER
    assert mac_within(packed("2001:db8::a")) == b""
