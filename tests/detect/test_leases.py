"""Lease files of four kinds, and what is written badly in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.devices import Lease
from egressd.detect.leases import is_of_leases, parse_leases
from tests.detect.scene import packed

US = 1_000_000
MAC = bytes.fromhex("021a2b000001")
OTHER = bytes.fromhex("021a2b000002")
A7, A9, SIX = packed("10.1.1.7"), packed("10.1.1.9"), packed("2001:db8::a")

DNSMASQ = """\
1431943200 02:1a:2b:00:00:01 10.1.1.7 pc-kasuga 01:02:1a:2b:00:00:01
0 02:1a:2b:00:00:02 10.1.1.9 * *
duid 00:01:00:01:1c:aa:bb:cc:02:1a:2b:00:00:01
1431943200 1234 2001:db8::a pc-kasuga 00:01:00:01:1c:aa:bb:cc:02:1a:2b:00:00:01
"""
ISC = """\
# The format of this file is documented in the dhcpd.leases(5) manual page.
lease 10.1.1.7 {
  starts 1 2015/05/18 09:00:00;
  ends 1 2015/05/18 10:00:00;
  binding state active;
  hardware ethernet 02:1a:2b:00:00:02;
}
lease 10.1.1.7 {
  starts 1 2015/05/18 09:30:00;
  ends epoch 1431945000; # Mon May 18 10:30:00 2015
  binding state active;
  hardware ethernet 02:1a:2b:00:00:01;
  uid "\\001\\002";
  client-hostname "pc-kasuga";
}
lease 10.1.1.9 {
  starts 1 2015/05/18 09:00:00;
  ends never;
  binding state free;
  hardware ethernet 02:1a:2b:00:00:02;
}
"""
KEA4 = """\
address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
10.1.1.7,02:1a:2b:00:00:02,,3600,1431940000,1,0,0,old,0,,0
10.1.1.7,02:1a:2b:00:00:01,01:02,3600,1431943200,1,0,0,pc-kasuga.,0,,0
10.1.1.9,02:1a:2b:00:00:02,,3600,1431943200,1,0,0,,2,,0
"""
KEA6 = """\
address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,hwaddr,state
2001:db8::a,00:03:00:01:02:1a:2b:00:00:01,3600,1431943200,1,1800,0,7,128,0,0,pc-kasuga,,0
2001:db8:1::,00:03:00:01:02:1a:2b:00:00:01,3600,1431943200,1,1800,2,7,56,0,0,,,0
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            DNSMASQ,
            [
                Lease(A7, MAC, 0, 1431943200 * US, "pc-kasuga"),
                Lease(A9, OTHER, 0, 0, "*"),
                Lease(SIX, MAC, 0, 1431943200 * US, "pc-kasuga"),
            ],
        ),
        (ISC, [Lease(A7, MAC, 1431941400 * US, 1431945000 * US, "pc-kasuga")]),
        (KEA4, [Lease(A7, MAC, 1431939600 * US, 1431943200 * US, "pc-kasuga")]),
        (KEA6, [Lease(SIX, MAC, 1431939600 * US, 1431943200 * US, "pc-kasuga")]),
        ("", []),
        ("10.1.1.7\n", []),
    ],
    ids=["dnsmasq", "isc", "kea4", "kea6", "empty", "not one"],
)
def test_each_kind(text: str, wanted: list[Lease]) -> None:
    assert parse_leases(text) == wanted


@pytest.mark.parametrize("text", [DNSMASQ, ISC, KEA4, KEA6, KEA4.split("\n")[0], "", "\n", "# nothing yet\n"])
def test_files_of_leases(text: str) -> None:
    assert is_of_leases(text)


@pytest.mark.parametrize(
    "text",
    [
        "authoring-byte-order little-endian;\n",
        "duid 00:01:00:01:1c:ee:5a:3b:02:1a:2b:00:00:01\n",
        "1431943200 02:1a",  # is just being written
    ],
)
def test_files_without_leases_yet(text: str) -> None:
    assert is_of_leases(text)
    assert parse_leases(text) == []


@pytest.mark.parametrize(
    "text",
    ["10.1.1.7\n", "c2.listed.example\n", "mode: monitor\nlists: [a.txt, b.txt, c.txt, d.txt]\n", "\x7fELF\0\n\0\n"],
)
def test_other_files(text: str) -> None:
    assert not is_of_leases(text)


@pytest.mark.parametrize(
    "line",
    [
        "never 02:1a:2b:00:00:01 10.1.1.7 x *",
        "99999999999 02:1a:2b:00:00:01 10.1.1.7 x *",
        "1431943200 02:1a:2b:00:00 10.1.1.7 x *",
        "1431943200 02:1a:2b:00:00:01 10.1.1.300 x *",
        "1431943200 7 2001:db8::a x 00:02:00:00:ab:11:02:1a:2b:00:00:01",
        "1431943200 02:1a:2b:00:00:01 10.1.1.7",
    ],
)
def test_what_is_no_lease_of_dnsmasq(line: str) -> None:
    assert parse_leases(line + "\n" + DNSMASQ) == parse_leases(DNSMASQ)


NAMES = [
    '"quoted',
    "a}b",
    "a{b",
    "x\x0b",
    "x\x85",
    "x\u2028",
    "x\r",
    "x\x1c",
    "a}\x0blease 10.1.1.9 {",
    "%s",
    "\x1b[2J",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_host_name_hides_no_lease_and_makes_none(name: str) -> None:
    """A host calls itself what it likes: a quote made all leases behind its own a part of its name (CSV), a brace its
    own lease none, and what Unicode takes for the end of a line began another one, of whose address it liked."""
    forged = name + "10.1.1.9,02:1a:2b:00:00:01,,3600,1431943200,1,0,0,x,0,,0"
    kea = KEA4.replace(",old,", f",{forged},") + "10.1.1.9,02:1a:2b:00:00:02,,3600,1431943200,1,0,0,,0,,0\n"
    macs = {lease.address: lease.mac for lease in parse_leases(kea)}
    assert macs == {A7: MAC, A9: OTHER}
    isc = ISC.replace("pc-kasuga", name)
    assert [(lease.address, lease.mac) for lease in parse_leases(isc)] == [(A7, MAC)]
    line = f"0 02:1a:2b:00:00:01 10.1.1.7 {name}0 02:1a:2b:00:00:01 10.1.1.9 x *\n"
    assert [lease.address for lease in parse_leases(line)] == [A7]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("password=secret", False), ("<html>", False), ("{", False), ("\x7fELF", False),
        ("1431943200 02:00", True), ("1", True), ("du", True), ("duid 00:01", True), ("addr", True), ("# The", True),
        ("leas", True), ("lease 10.0.", True), ("server-d", True), ("authoring", True), ("", True), ("\n", True),
    ],
)  # fmt: skip
def test_one_line_without_an_end_is_being_written_if_it_begins_as_leases_do(text: str, is_one: bool) -> None:
    """Any other file of one line passed for an empty one, and what was read before was forgotten."""
    assert is_of_leases(text) is is_one


def test_a_file_cut_short_while_it_is_written() -> None:
    for text in (DNSMASQ, ISC, KEA4, KEA6):
        for end in range(len(text)):
            assert len(parse_leases(text[:end])) <= 3


@given(st.text(max_size=400), st.sampled_from(("", "address,hwaddr,expire,valid_lifetime\n", "lease 10.0.0.1 {\n")))
def test_any_text(text: str, head: str) -> None:
    for lease in parse_leases(head + text):
        assert len(lease.mac) == 6
        assert len(lease.address) in (4, 16)
