"""rpz: against dnspython's reader of zone files, and what a line parser can get wrong."""

from __future__ import annotations

import dns.name
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.errors import Problem
from egressd.intel.formats.judgement import ALLOWANCE, Ignored
from egressd.model import Indicator
from tests.intel.formats.scene import SAMPLES, found_in, render_found


def listed(text: str) -> set[str]:
    return {
        ("*." if one.scope == "host" and "subtree" in one.narrowed else "") + one.value
        for one in found_in(text, "rpz")
        if isinstance(one, Indicator)
    }


def listed_by_dnspython(text: str, origin: str | None = None) -> set[str]:
    """Names whose policy is a block, by another reader of the file."""
    zone = dns.zone.from_text(text, origin=origin, relativize=True, check_origin=False)
    found = set()
    for name, node in zone.items():
        for rdataset in node:
            for rdata in rdataset:
                # dnspython makes the root and names of other zones absolute, those of this zone relative.
                target = str(rdata.target) if rdataset.rdtype == dns.rdatatype.CNAME else ""
                sink = str(rdata) in ("0.0.0.0", "::") and rdataset.rdtype != dns.rdatatype.TXT
                if target in (".", "*.", "rpz-drop.") or sink:
                    found.add(str(name))
    return found


def test_the_sample_is_read_as_dnspython_reads_it() -> None:
    lines = (SAMPLES / "rpz.zone").read_text(encoding="utf-8").split("\n")
    text = "\n".join(line for line in lines if "$INCLUDE" not in line and not line.startswith(("novalue", "elsewhere")))
    theirs = {name for name in listed_by_dnspython(text) if "rpz-" not in name and name not in ("*", "co.uk")}
    ours = {name for name in listed(text) if not name[0].isdigit()}
    assert ours == theirs - {"*.bad.example"}, "which bad.example covers"


LABEL = st.sampled_from(["a", "bad", "WORSE", "x-1", "_y", "c2"])
NAME = st.builds(
    lambda star, labels: star + ".".join([*labels, "example"]),
    st.sampled_from(["", "*."]),
    st.lists(LABEL, min_size=1, max_size=3),
)
RECORD = st.builds(
    lambda name, gap, middle, data, end: f"{name}{gap}{middle}{data}{end}\n",
    NAME,
    st.sampled_from([" ", "\t", "  "]),
    st.sampled_from(["", "60 ", "IN ", "60 IN ", "IN 60 ", "in "]),
    st.sampled_from(["CNAME .", "cname .", "CNAME *.", "CNAME rpz-passthru.", "A 0.0.0.0", "A 192.0.2.1",
                     "TXT \"a;(\"", "CNAME ( \n . )"]),
    st.sampled_from(["", " ; why", " ;(", "\t"]),
)  # fmt: skip


@given(st.lists(RECORD, max_size=8))
def test_zones_are_read_as_dnspython_reads_them(records: list[str]) -> None:
    unique: dict[str, str] = {}
    for record in records:
        unique.setdefault(record.split()[0].lower(), record)  # it refuses a second CNAME, or data beside one
    text = "$TTL 60\n$ORIGIN rpz.test.\n@ IN SOA . . 1 1 1 1 1\n" + "".join(unique.values())
    theirs = {name.lower() for name in listed_by_dnspython(text)}
    plain = {name for name in theirs if name[0] != "*"}
    ours = listed(text)
    assert {one for one in ours if one[0] != "*"} == plain
    assert {one for one in theirs if one[0] == "*"} - {f"*.{name}" for name in plain} <= ours
    assert ours <= theirs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("r.test. IN SOA . . 1 1 1 1 1\nbad.example.r.test. CNAME .",
         ["1 ignored: a record of the zone itself", "2 domain bad.example registered"]),
        ("a.example CNAME .\n CNAME .", ["1 domain a.example registered", "2 ignored: an earlier line says the same"]),
        (" CNAME .", ["1:1 problem: a record without an owner"]),
        ("a.example 60", ['1:1 problem: not a record: "a.example"']),
        ("a.example (\nCNAME\n. )\nb.example CNAME .",
         ["1 domain a.example registered", "4 domain b.example registered"]),
        ("a.example CNAME ( .\nb.example CNAME .",
         ["1:1 problem: a parenthesis is not closed: what follows it is not read"]),
        ("$ORIGIN rpz", ['1:1 problem: an origin without its last dot: "rpz"']),
        ("$GENERATE 1-9 a$ CNAME .", ['1:1 problem: a directive that is not read: "$GENERATE"']),
        ("1.2.3.4 CNAME .", ['1:1 problem: not an IPv4 address: "1.2.3.4"']),
        ("a\\.b.example CNAME .", ['1:1 problem: not a legal name: "a\\.b.example"']),
        ("48.zz.1.db8.2001.rpz-ip CNAME .", ["1 network 2001:db8:1::/48 exact"]),
        ("128.7.6.5.4.3.2.db8.2001.rpz-ip CNAME .", ["1 address 2001:db8:2:3:4:5:6:7 exact"]),
        ("33.1.0.51.198.rpz-ip CNAME .", ['1:1 problem: not a network: "198.51.0.1/33"']),
        ("x.rpz-ip CNAME .", ['1:1 problem: not an address in labels: "x"']),
        ("rpz-ip CNAME .", ['1:1 problem: not an address in labels: ""']),
    ],
)  # fmt: skip
def test_corners(text: str, expected: list[str]) -> None:
    assert [render_found(one) for one in found_in(text, "rpz")] == expected


def test_a_parenthesis_that_stays_open_costs_a_hundred_lines_at_most() -> None:
    found = found_in("a.example CNAME ( .\n" + "b.example CNAME .\n" * 200, "rpz")
    assert [render_found(one) for one in found][:2] == [
        "1:1 problem: a parenthesis is not closed: what follows it is not read",
        "102 domain b.example registered",
    ]


BY_BIND = """\
$ORIGIN .
$TTL 3600	; 1 hour
rpz.test		IN SOA	localhost. root.localhost. (
				1 3600 600 86400 60 )
			NS	localhost.
$ORIGIN com.rpz.test.
evil1			CNAME	.
good1			CNAME	good1
good2			CNAME	good2.com.
$ORIGIN evil2.com.rpz.test.
@			CNAME	.
*			CNAME	*.
www.a			CNAME	.
$ORIGIN rpz.test.
plain.example		CNAME	.
other.org.rpz.test.	CNAME	.
$ORIGIN 100.51.198.rpz-ip.rpz.test.
32.7			CNAME	.
$ORIGIN com.other.test.
next			CNAME	.
"""


def test_the_origins_under_which_name_servers_write_a_zone() -> None:
    """As `named` writes the zones that it transfers (masterfile-style relative): one origin for each level of names."""
    found = found_in(BY_BIND, "rpz")
    assert [(one.line, one.value, one.scope) for one in found if isinstance(one, Indicator)] == [
        (7, "evil1.com", "registered"), (11, "evil2.com", "registered"), (13, "www.a.evil2.com", "registered"),
        (15, "plain.example", "registered"), (16, "other.org", "registered"), (18, "198.51.100.7", "exact"),
    ]  # fmt: skip
    assert [one.line for one in found if isinstance(one, Problem)] == [20]
    assert [(one.line, one.reason) for one in found if isinstance(one, Ignored) and one.line in (8, 9)] == [
        (8, ALLOWANCE), (9, ALLOWANCE),
    ]  # fmt: skip


def test_an_origin_may_be_relative_and_leaves_the_last_owner() -> None:
    """Names were cut short (www.evil), or put under the wrong one, behind a line that was told as broken."""
    text = """\
$ORIGIN rpz.test.
@ SOA a. b. 1 1 1 1 1
$ORIGIN com
www.evil CNAME .
evil2 TXT x
$ORIGIN net.rpz.test.
\tCNAME .
"""
    found = found_in(text, "rpz")
    assert [(one.line, one.value) for one in found if isinstance(one, Indicator)] == [
        (4, "www.evil.com"), (7, "evil2.com"),
    ]  # fmt: skip
