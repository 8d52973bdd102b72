"""Observations survive the way from one process to another, field for field."""

from __future__ import annotations

import marshal
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from egressd import model
from egressd.model import (
    ClientHello,
    DnsMessage,
    DnsQuestion,
    DnsRecord,
    FlowKey,
    HttpRequest,
    Observation,
    SocksRequest,
)
from egressd.wire.values import observation_of, values_of

TEXT = st.text(max_size=20)  # lone surrogates too
NUMBER = st.integers(0, 1 << 63)
ADDRESS = st.sampled_from((b"", b"\n\0\0\1", bytes(16)))
QUESTION = st.builds(DnsQuestion, TEXT, TEXT, NUMBER)
RECORD = st.builds(
    DnsRecord, TEXT, TEXT, NUMBER, NUMBER, ADDRESS, TEXT, TEXT, st.lists(ADDRESS, max_size=2).map(tuple), st.booleans()
)
DETAIL = st.one_of(
    st.none(),
    st.builds(
        DnsMessage, NUMBER, st.booleans(), NUMBER, NUMBER, st.booleans(), st.lists(QUESTION, max_size=2).map(tuple),
        st.lists(RECORD, max_size=3).map(tuple), NUMBER, st.booleans(), TEXT,
    ),
    st.builds(HttpRequest, TEXT, TEXT, TEXT, TEXT, NUMBER, TEXT, TEXT, TEXT),
    st.builds(ClientHello, TEXT, TEXT, NUMBER, st.lists(TEXT, max_size=2).map(tuple), TEXT, TEXT),
    st.builds(SocksRequest, NUMBER, NUMBER, TEXT, TEXT, ADDRESS, NUMBER),
)  # fmt: skip
OBSERVATION = st.builds(
    Observation, TEXT, NUMBER, NUMBER, st.builds(FlowKey, NUMBER, ADDRESS, NUMBER, ADDRESS, NUMBER), TEXT, TEXT, DETAIL,
    NUMBER, TEXT, TEXT,
)  # fmt: skip


@given(OBSERVATION)
def test_there_and_back(seen: Observation) -> None:
    again = observation_of(marshal.loads(marshal.dumps(values_of(seen), 2)))
    assert again == seen
    assert type(again.flow) is FlowKey and type(again.detail) is type(seen.detail)


def test_no_field_stays_behind() -> None:
    """Each class has the fields that egressd/wire/values.py carries; another field needs a place there."""
    assert [one.name for one in fields(Observation)] == [
        "kind", "ts_us", "number", "flow", "name", "raw_name", "detail", "version", "note", "sensor",
    ]  # fmt: skip
    counts = {name: len(fields(getattr(model, name))) for name in (
        "DnsMessage", "DnsQuestion", "DnsRecord", "HttpRequest", "ClientHello", "SocksRequest",
    )}  # fmt: skip
    assert counts == {
        "DnsMessage": 10, "DnsQuestion": 3, "DnsRecord": 9, "HttpRequest": 8, "ClientHello": 6, "SocksRequest": 6,
    }  # fmt: skip
    assert len(FlowKey._fields) == 5
