"""Which threat tags tie, and which would tie half the world together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressd.detect.tags import GENERIC, SHARED_TOOLS, family_of


@pytest.mark.parametrize(
    ("threat", "family"),
    [
        ("emotet", "emotet"),
        ("Emotet C2", "emotet"),
        ("malware: emotet (botnet_cc)", "emotet"),
        ("APT28", "apt28"),
        ("win.plugx", "plugx"),
        ("lazarus group", "lazarus"),
        ("c2", ""),
        ("C&C", ""),
        ("malware", ""),
        ("phishing site", ""),
        ("Cobalt Strike", ""),
        ("malware download", ""),
        ("2015", ""),
        ("abc", ""),
        ("", ""),
    ],
)
def test_family(threat: str, family: str) -> None:
    assert family_of(threat) == family


@given(st.lists(st.sampled_from(sorted(GENERIC | SHARED_TOOLS)), max_size=6), st.sampled_from(" ,;/_-"))
def test_generic_words_alone_never_tie(words: list[str], between: str) -> None:
    assert family_of(between.join(words)) == ""


@given(st.text(max_size=300))
def test_any_tag(threat: str) -> None:
    assert len(family_of(threat)) <= 64
