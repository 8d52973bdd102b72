"""Hypothesis strategies of what packet processes tell: events of every kind, matches, and any JSON at all."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from egressd.model import Attempt, Decision, FlowKey, Indicator, Match, Part, Sighting, Target
from egressd.runtime.messages import ACTIONS, EVIDENCE, MAX_NUMBER, MODES, VIAS

TEXTS = st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=12)
NUMBERS = st.integers(-MAX_NUMBER + 1, MAX_NUMBER - 1)
ADDRESSES = st.one_of(st.just(b""), st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
COUNTS = st.integers(0, MAX_NUMBER - 1)
PORTS = st.integers(0, 65_535)
FLOWS = st.sampled_from([4, 16]).flatmap(
    lambda size: st.builds(
        FlowKey, st.integers(0, 255), st.binary(min_size=size, max_size=size), PORTS,
        st.binary(min_size=size, max_size=size), PORTS,
    )
)  # fmt: skip
IDS = st.integers(1, 10**18 - 1).map(lambda number: f"D{number}")
INDICATORS = st.builds(
    Indicator, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, NUMBERS, TEXTS, NUMBERS, NUMBERS, NUMBERS, TEXTS, TEXTS,
    NUMBERS,
)  # fmt: skip
MATCHES = st.builds(Match, TEXTS, INDICATORS, TEXTS, TEXTS)
TARGETS = st.builds(Target, TEXTS, TEXTS)
PARTS = st.builds(Part, TEXTS, st.integers(0, 100), TEXTS)
VIA = st.sampled_from(sorted(VIAS))

# The packet number, incident and campaign do not travel: live there is none, and the core gives out the ids.
SIGHTINGS = st.builds(
    Sighting, NUMBERS, st.just(0), FLOWS, TEXTS, MATCHES, VIA, TEXTS, st.booleans(), COUNTS, NUMBERS, NUMBERS, TEXTS,
    ADDRESSES, new=st.booleans(), parts=st.lists(PARTS, max_size=3).map(tuple),
)  # fmt: skip
DECISIONS = st.builds(
    Decision, IDS, NUMBERS, st.just(0), st.sampled_from(sorted(ACTIONS)),
    st.lists(TARGETS, min_size=1, max_size=3).map(tuple), TEXTS, TEXTS, st.sampled_from(sorted(EVIDENCE)),
    st.sampled_from(sorted(MODES)), MATCHES, ADDRESSES, TEXTS,
    st.just(""),
)  # fmt: skip
ATTEMPTS = st.builds(
    Attempt, NUMBERS, st.just(0), FLOWS, TEXTS, VIA, IDS, TARGETS, MATCHES, st.booleans(), COUNTS, st.booleans(),
    st.just(""), st.just(""), st.booleans(),
)  # fmt: skip
EVENTS = st.one_of(SIGHTINGS, DECISIONS, ATTEMPTS)

# What a packet process that somebody took over may send.
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(alphabet=string.printable + "\ud800é", max_size=8),
    st.sampled_from(["s", "d", "a", "flow", "dns_query", "block", "extend", "0a000005", "zz", ""]),
)
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=14), st.dictionaries(st.sampled_from(["a", "flow", "0a000005", ""]), inner, max_size=3)
    ),
    max_leaves=20,
)


def places(packed: Any, at: tuple[int | str, ...] = ()) -> list[tuple[int | str, ...]]:
    """Where something stands inside plain values."""
    found = [at] if at else []
    if isinstance(packed, list):
        for number, one in enumerate(packed):
            found += places(one, (*at, number))
    elif isinstance(packed, dict):
        for name, one in packed.items():
            found += places(one, (*at, name))
    return found


def put_at(packed: Any, at: tuple[int | str, ...], value: Any) -> Any:
    """`packed` with something else in one place."""
    if not at:
        return value
    copy = list(packed) if isinstance(packed, list) else dict(packed)
    copy[at[0]] = put_at(copy[at[0]], at[1:], value)  # type: ignore[index,call-overload]
    return copy
