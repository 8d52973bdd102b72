"""`egressd decode FILE N`: one packet of a capture, as scapy reads it and as egressd does."""

from __future__ import annotations

import struct
import sys
from argparse import ArgumentParser, Namespace
from typing import Final

from egressd.capture.merge import iter_packets
from egressd.cli.exit_codes import OK, RUNTIME, USAGE
from egressd.cli.paths import path_given
from egressd.cli.terminal import printable
from egressd.model import Observation
from egressd.notify.eve import render_line, render_observation, render_time
from egressd.plural import count
from egressd.wire.dissector import Dissector

# What its dissectors were seen to raise over broken packets, and what such code may.
_OF_SCAPY: Final = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RecursionError),
    struct.error,
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", type=path_given, help="pcap or pcapng, may be gzip'd")
    parser.add_argument("number", metavar="N", type=int, help="the packet's number, from 1 (pcap_cnt in events)")


def run(args: Namespace) -> int:
    """Explain the packet."""
    if args.number < 1:
        print("egressd: packets are numbered from 1", file=sys.stderr)
        return USAGE
    seen: list[Observation] = []
    dissector = Dissector(seen.append)
    packets = 0
    for ts_us, number, link, frame, orig_len in iter_packets(args.file):
        packets = number
        # Earlier packets are read too: a name may have begun in one of them.
        dissector.packet(ts_us, number, link, frame, 0, len(frame), orig_len)
        if number == args.number:
            print(
                f"packet {number} at {render_time(ts_us)}, link type {link}, {len(frame)} of {orig_len} bytes captured"
            )
            print(_explain(link, frame))
            mine = [one for one in seen if one.number == number and one.kind != "reply"]
            print("egressd sees:" if mine else "egressd sees no destination complete in this packet.")
            for one in mine:
                print("  " + render_line(render_observation(one)))
            return OK
    print(f"egressd: {printable(args.file)} has {count(packets, 'packet')}, no number {args.number:,}", file=sys.stderr)
    return RUNTIME


def _explain(link: int, frame: bytes) -> str:
    """scapy's view, layer by layer. Names in it are poison: every line is escaped."""
    # Imported here: scapy takes a second, is GPL-2.0-only, and nothing else of egressd's run time touches it.
    import logging

    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.config import conf
    from scapy.error import Scapy_Exception
    from scapy.layers import all as _  # noqa: F401  (registers the link types)
    from scapy.packet import Raw

    layer = conf.l2types.num2layer.get(link, Raw)
    try:
        text = str(layer(frame).show(dump=True))
    except (*_OF_SCAPY, Scapy_Exception) as error:
        return f"scapy cannot read it: {type(error).__name__}"
    return "\n".join(printable(line.rstrip()) for line in text.splitlines())
