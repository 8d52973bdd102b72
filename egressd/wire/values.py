"""Observations as plain values and back: what `marshal` can carry from one process of ours to another.

Written out for each class, because this is done for every observation: to go through `dataclasses` or `pickle` takes
several times as long. tests/wire/test_values.py fails when a class has a field that is not here.
"""

from __future__ import annotations

from typing import Any, Final

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

Values = tuple[Any, ...]

_DNS: Final = 1
_HTTP: Final = 2
_TLS: Final = 3
_SOCKS: Final = 4


def values_of(seen: Observation) -> Values:
    """An observation as values of Python's own types."""
    flow = seen.flow
    return (
        seen.kind,
        seen.ts_us,
        seen.number,
        flow.proto,
        flow.client,
        flow.client_port,
        flow.server,
        flow.server_port,
        seen.name,
        seen.raw_name,
        seen.version,
        seen.note,
        seen.sensor,
        _detail_values(seen.detail),
    )


def observation_of(values: Values) -> Observation:
    """The observation that `values_of` took apart."""
    (
        kind,
        ts_us,
        number,
        proto,
        client,
        client_port,
        server,
        server_port,
        name,
        raw_name,
        version,
        note,
        sensor,
        detail,
    ) = values
    flow = FlowKey(proto, client, client_port, server, server_port)
    return Observation(kind, ts_us, number, flow, name, raw_name, _detail_of(detail), version, note, sensor)


def _detail_values(detail: DnsMessage | HttpRequest | ClientHello | SocksRequest | None) -> Values | None:
    if detail is None:
        return None
    if isinstance(detail, DnsMessage):
        return (
            _DNS,
            detail.txid,
            detail.is_response,
            detail.opcode,
            detail.rcode,
            detail.truncated,
            tuple([(one.name, one.raw_name, one.rrtype) for one in detail.questions]),
            tuple([_record_values(one) for one in detail.answers]),
            detail.answer_count,
            detail.edns,
            detail.error,
        )
    if isinstance(detail, ClientHello):
        return _TLS, detail.sni, detail.raw_sni, detail.version, detail.alpn, detail.ech, detail.ech_reason
    if isinstance(detail, HttpRequest):
        return (
            _HTTP,
            detail.method,
            detail.target,
            detail.host,
            detail.raw_host,
            detail.port,
            detail.user_agent,
            detail.header_host,
            detail.path,
        )
    return _SOCKS, detail.version, detail.command, detail.host, detail.raw_host, detail.address, detail.port


def _record_values(record: DnsRecord) -> Values:
    return (
        record.name,
        record.raw_name,
        record.rrtype,
        record.ttl_s,
        record.address,
        record.target,
        record.raw_target,
        record.hints,
        record.has_ech,
    )


def _detail_of(values: Values | None) -> DnsMessage | HttpRequest | ClientHello | SocksRequest | None:
    if values is None:
        return None
    what = values[0]
    if what == _DNS:
        _, txid, is_response, opcode, rcode, truncated, questions, answers, answer_count, edns, error = values
        return DnsMessage(
            txid,
            is_response,
            opcode,
            rcode,
            truncated,
            tuple([DnsQuestion(name, raw_name, rrtype) for name, raw_name, rrtype in questions]),
            tuple([_record_of(one) for one in answers]),
            answer_count,
            edns,
            error,
        )
    if what == _TLS:
        _, sni, raw_sni, version, alpn, ech, ech_reason = values
        return ClientHello(sni, raw_sni, version, alpn, ech, ech_reason)
    if what == _HTTP:
        _, method, target, host, raw_host, port, user_agent, header_host, path = values
        return HttpRequest(method, target, host, raw_host, port, user_agent, header_host, path)
    _, socks_version, command, socks_host, raw_socks_host, address, socks_port = values
    return SocksRequest(socks_version, command, socks_host, raw_socks_host, address, socks_port)


def _record_of(values: Values) -> DnsRecord:
    name, raw_name, rrtype, ttl_s, address, target, raw_target, hints, has_ech = values
    return DnsRecord(name, raw_name, rrtype, ttl_s, address, target, raw_target, hints, has_ech)
