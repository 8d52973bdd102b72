"""What a new block must leave alone."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.kept import Kept
from egressd.intel.allowances import NEVER_BLOCK, Allowance, Allowances
from egressd.model import Target

IPV4 = st.builds(
    lambda high, low, length: f"198.51.{high}.{low}/{length}", *[st.integers(0, 255)] * 2, st.integers(8, 32)
)
IPV6 = st.builds(
    lambda high, low, length: f"{high:x}::{low:x}/{length}", *[st.integers(0x2800, 0x2FFF)] * 2, st.integers(8, 128)
)
NETWORKS = st.one_of(IPV4, IPV6)


def never(network: str, line: int, expires_s: int = 0) -> Allowance:
    return Allowance(NEVER_BLOCK, network, "", "o", "r", expires_s, "allow.txt", line)


@given(st.lists(st.tuples(NETWORKS, st.sampled_from((0, 50, 200))), max_size=12), NETWORKS)
def test_the_first_line_in_force_that_shares_an_address(lines: list[tuple[str, int]], blocked: str) -> None:
    found = Kept(Allowances([never(one, line, until) for line, (one, until) in enumerate(lines)], ())).inside(
        Target("network", blocked), 100
    )
    block = ip_network(blocked, strict=False)
    wanted = None
    for line, (one, until) in enumerate(lines):
        other = ip_network(one, strict=False)
        if until != 50 and other.version == block.version and other.overlaps(block):  # type: ignore[arg-type]
            wanted = line
            break
    assert (found.line if found is not None else None) == wanted


def test_thousands_of_allowances_are_not_gone_through_for_each_block() -> None:
    """A new list or allowance asks this of every block of a network, in one go: 1,000 took three seconds."""
    kept = Kept(Allowances([never(f"203.0.{n // 200}.{n % 200}", n) for n in range(2_000)]))
    assert kept._sharing(b"\xc6\x33\x64\x00", 24) == []
    assert kept._sharing(b"\xcb\x00\x05\x00", 30) == [1_000, 1_001, 1_002, 1_003]
