"""From the bytes of connections in a capture to the volume between clients and destinations by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from egressd.detect.behaviour.volume import Volume
from egressd.detect.evidence import Evidence
from egressd.detect.resolutions import Resolutions
from egressd.intel.networks import render_address
from egressd.model import FlowKey
from egressd.wire.table import RecentTable

MAX_NAMED: Final = 32_768


class Carrying:
    """Names the server of each amount and counts it. What is too much goes to `on_evidence`."""

    def __init__(
        self,
        resolutions: Resolutions,
        volume: Volume,
        on_evidence: Callable[[Evidence], None],
        lasting_bytes: int = 0,
    ) -> None:
        """`lasting_bytes`: what is told of less than this is a connection's end, so that its name is needed no more."""
        self._resolutions = resolutions
        self._volume = volume
        self._on_evidence = on_evidence
        self._lasting_bytes = lasting_bytes
        # A name that was known when a connection began is its name for as long as it lasts.
        self._named: RecentTable[tuple[bytes, bytes], str] = RecentTable(MAX_NAMED)

    def carried(self, flow: FlowKey, ts_us: int, out_bytes: int, in_bytes: int, counts_us: int = 0) -> None:
        """A connection carried so much more (wire/meter.py), which counts as of `counts_us` when it is told late."""
        destination = self._destination(flow.client, flow.server, ts_us, out_bytes + in_bytes >= self._lasting_bytes)
        if counts_us < ts_us:  # one comparison, where max() is a call
            counts_us = ts_us
        for evidence in self._volume.add(flow.client, flow.server, destination, counts_us, out_bytes, in_bytes):
            self._on_evidence(evidence)

    def _destination(self, client: bytes, server: bytes, ts_us: int, lasts: bool) -> str:
        """The registered domain that the client said or asked for to get there; else the one that lives there, if it
        is only one; else the address."""
        name = self._resolutions.name_for(client, server, ts_us)
        if name:
            domain = self._resolutions.domain_of(name)
            if lasts:
                self._named.put((client, server), domain)
            return domain
        known = self._named.get((client, server)) if len(self._named) else None
        if known is not None:
            return known
        return self._resolutions.only_tenant(server, ts_us) or render_address(server)
