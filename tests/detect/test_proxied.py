"""Which conversations go by a proxy."""

from __future__ import annotations

import pytest

from egressd.detect.proxied import Proxied
from egressd.model import FLOW, HTTP_HOST, SOCKS_HOST, TLS_SNI, HttpRequest, Observation
from tests.detect.scene import A, X, at, flow

KEY = flow(A, X)


def http(target: str, method: str = "GET", note: str = "") -> Observation:
    request = HttpRequest(method, target, "bad.example", "bad.example", 0, "", "", "")
    return Observation(HTTP_HOST, at(0), 1, KEY, "bad.example", "bad.example", request, 0, note)


def seen(kind: str, note: str = "") -> Observation:
    return Observation(kind, at(0), 1, KEY, "", "", None, 0, note)


@pytest.mark.parametrize(
    ("observation", "direct"),
    [
        (http("/"), True),
        (http("*", "OPTIONS"), True),
        (http("http://bad.example/"), False),
        (http("bad.example:443", "CONNECT"), False),
        (http("/", note="proxied"), False),
        (seen(TLS_SNI), True),
        (seen(TLS_SNI, "partial"), True),
        (seen(TLS_SNI, "proxied"), False),
        (seen(SOCKS_HOST), False),
        (seen(FLOW), True),
    ],
)
def test_what_goes_by_a_proxy_and_all_after_it_in_the_conversation(observation: Observation, direct: bool) -> None:
    proxied = Proxied()
    assert proxied.is_direct(observation) is direct
    for later in (http("/"), seen(TLS_SNI, "partial")):
        assert proxied.is_direct(later) is direct
    assert proxied.is_direct(seen(FLOW))  # the next conversation on these ports
    assert proxied.is_direct(http("/"))


def test_bounded() -> None:
    proxied = Proxied(10)
    for sport in range(1, 100):
        proxied.is_direct(Observation(SOCKS_HOST, at(0), 1, flow(A, X, sport), "", "", None))
    assert len(proxied._table) <= 10
