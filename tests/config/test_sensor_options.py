"""The section `sensors`: names that an operator gives, each with a log."""

from __future__ import annotations

import pytest

from egressd.config.document import parse_config
from egressd.config.sensor_options import LOG_FORMATS, MAX_SENSORS, SensorOptions
from egressd.logs.formats import PARSERS


def test_a_sensor() -> None:
    text = "sensors:\n  proxy: {path: /var/log/squid/access.log, format: squid, silence_s: 600, clock: right}\n"
    config, problems = parse_config(text, "c.yaml")
    assert problems == []
    assert config.sensors == {"proxy": SensorOptions("/var/log/squid/access.log", "squid", True, 600, "right")}
    assert parse_config("sensors:\n", "c.yaml")[0].sensors == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sensors: {proxy: {}}", "sensors.proxy.path: is missing"),
        ("sensors: {tap: {path: /a}}", "egressd's own"),
        ("sensors: {Proxy: {path: /a}}", "cannot be a sensor's name"),
        ("sensors: {a: {path: /a, format: snort}}", "it is one of suricata, zeek"),
        ("sensors: {a: {path: '/run/*.sock', format: dnstap}}", "a socket has one path"),
        ("sensors: {" + ", ".join(f"s{n}: {{path: /a}}" for n in range(MAX_SENSORS + 1)) + "}", "one sensor too many"),
    ],
)
def test_what_is_wrong_is_told(text: str, what: str) -> None:
    (problem,) = parse_config(text, "c.yaml")[1]
    assert what in str(problem)


def test_every_format_can_be_read() -> None:
    assert set(LOG_FORMATS) == set(PARSERS)
