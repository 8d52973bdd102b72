"""Traffic for the benchmarks: the same options give the same bytes, on any machine.

`python bench/traffic.py KIND FILE --packets N`. The kinds: `bulk`, a link full of downloads, uploads, acknowledgements
and QUIC, in which about 1.3 % of the packets carry a name; `names`, nothing but DNS, ClientHellos and HTTP requests,
each on a flow of its own; `subdomains`, a flood of names that nobody asked for before; `syn`, openings that nobody
answers; `hellos`, post-quantum ClientHellos; `quic`, Initials alone; `all`, everything together. Beside FILE come
FILE.list, a blocklist of the planted domains, and FILE.json, which tells at what packet each planted name is complete.
No planted name stands in more than one conversation, so that a tool which finds it has read that conversation.

Checksums are zero, as on a host whose network card fills them in.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import BinaryIO, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # who measures a compiled copy has put it before
    sys.path.insert(0, str(ROOT))

from bench.messages import client_hello, dns_messages, http_request, server_address
from pcaps.hellos import QUIC_V1, SERVER_HELLO, crypto, initial, records

SEED: Final = 20261121

PLANTED_DOMAINS: Final = 40
PLANTED_EVERY: Final = 50  # one name in so many is planted
SITES: Final = 3000
CLIENTS: Final = 250
ACTIVE_FLOWS: Final = 96  # at the same time
PACKET_US: Final = 25  # mean time between packets: 40 k a second
START_S: Final = 1_790_000_000
WRITE_AT: Final = 4096  # packets held before they are written

IPV6_SHARE: Final = 0.12
POST_QUANTUM_SHARE: Final = 0.5  # of ClientHellos; these are 1.8 KB in two segments
FULL_SIZE_SHARE: Final = 0.22  # of bulk conversations; higher is truer and makes the file larger than 1 GB
UPLOAD_SHARE: Final = 0.15
MEAN_TURNS: Final = 17.0  # of three packets each, in the shortest half of conversations
MAX_TURNS: Final = 8000

_RECORD: Final = struct.Struct("<IIII").pack
_IPV4: Final = struct.Struct("!12sHBBHHHBBH8s").pack
_IPV6: Final = struct.Struct("!12sHIHBB32s").pack
_TCP: Final = struct.Struct("!4sIIBBHHH").pack
_UDP: Final = struct.Struct("!4sHH").pack
_TIMESTAMPS: Final = bytes.fromhex("0101080a0001e2400001e240")
_FILE_HEADER: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
_MACS: Final = (bytes.fromhex("020000000001020000000002"), bytes.fromhex("020000000002020000000001"))

FIN, SYN, PSH, ACK = 1, 2, 8, 16
Burst = list[bytes]


class Planted(NamedTuple):
    """A listed name in the traffic: the conversation's kind, and the packet that completes the name."""

    kind: str
    number: int


class Sketch:
    """What the traffic is made from: random numbers, names, addresses, and a pool of payload."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)
        self.pool = self.draw.randbytes(1 << 16)
        self.planted: dict[str, Planted] = {}
        self.name_packets = 0
        self._serial = 0
        self._flows = [0] * CLIENTS
        self._marks: dict[int, tuple[str, str]] = {}

    def name(self, kind: str) -> tuple[bytes, str]:
        """A name for a conversation, and itself again when it is planted (else "")."""
        self._serial += 1
        draw = self.draw
        if self._serial % PLANTED_EVERY == 0:
            name = f"{kind}{self._serial}.planted{draw.randrange(PLANTED_DOMAINS):02}.example"
            return name.encode(), name
        host = ("www", "api", "cdn", "static", "img-3", "telemetry.eu", "m")[int(draw.random() * 7)]
        return f"{host}.site{int(SITES * draw.random() ** 2):04}.example".encode(), ""  # some sites are asked for often

    def carries(self, packet: bytes, kind: str, planted: str) -> bytes:
        """Note that `packet` completes a name."""
        self._marks[id(packet)] = (kind, planted)
        return packet

    def written(self, packet: bytes, number: int) -> None:
        """`packet` has become packet `number` of the file."""
        mark = self._marks.pop(id(packet), None)
        if mark is not None:
            self.name_packets += 1
            if mark[1] and mark[1] not in self.planted:
                self.planted[mark[1]] = Planted(mark[0], number)

    def addresses(self) -> tuple[bytes, int, bytes]:
        """Client, its port, server: no two conversations have the same three."""
        client = int(self.draw.random() * CLIENTS)
        self._flows[client] += 1
        port = 32768 + self._flows[client] % 28000
        wide = self.draw.random() < IPV6_SHARE
        own = b"\x20\x01\x0d\xb8" + struct.pack("!QI", 0xC, client + 1) if wide else bytes((10, 20, 0, client + 1))
        return own, port, server_address(self.draw, wide)

    def payload(self, size: int) -> bytes:
        """Bytes that nobody can read."""
        at = int(self.draw.random() * (len(self.pool) - size))
        return self.pool[at : at + size]


class Ends:
    """The two ends of a conversation: makes its packets. `side` is 0 for what the client sends, 1 for the server."""

    def __init__(self, sketch: Sketch, proto: int, server_port: int) -> None:
        client, port, server = sketch.addresses()
        self._addresses = (client + server, server + client)
        self._ports = (struct.pack("!HH", port, server_port), struct.pack("!HH", server_port, port))
        self._proto = proto
        self._wide = len(client) == 16
        self._options = _TIMESTAMPS if sketch.draw.random() < 0.7 else b""  # Windows sends none
        self._seq = [sketch.draw.getrandbits(32), sketch.draw.getrandbits(32)]

    def _ip(self, side: int, body: bytes) -> bytes:
        size = len(body)
        if self._wide:
            return _IPV6(_MACS[side], 0x86DD, 6 << 28, size, self._proto, 64, self._addresses[side]) + body
        head = _IPV4(
            _MACS[side], 0x0800, 0x45, 0, 20 + size, size, 0x4000, 64 - side, self._proto, 0, self._addresses[side]
        )
        return (head + body).ljust(60, b"\0")  # the shortest Ethernet frame

    def tcp(self, side: int, payload: bytes = b"", flags: int = ACK) -> bytes:
        """The next segment of a side; nothing is ever lost, so it acknowledges all that the other sent."""
        seq = self._seq
        options = self._options
        head = _TCP(self._ports[side], seq[side], seq[1 - side], (20 + len(options)) << 2, flags, 502, 0, 0)
        seq[side] = (seq[side] + len(payload) + (flags & (SYN | FIN) != 0)) & 0xFFFFFFFF
        return self._ip(side, head + options + payload)

    def udp(self, side: int, payload: bytes) -> bytes:
        """A datagram."""
        return self._ip(side, _UDP(self._ports[side], 8 + len(payload), 0) + payload)

    def handshake(self) -> Iterator[Burst]:
        """SYN, SYN-ACK, ACK."""
        yield [self.tcp(0, flags=SYN)]
        yield [self.tcp(1, flags=SYN | ACK), self.tcp(0)]

    def goodbye(self) -> Iterator[Burst]:
        """FIN each way."""
        yield [self.tcp(0, flags=FIN | ACK), self.tcp(1, flags=FIN | ACK), self.tcp(0)]


# -- conversations, each a row of bursts


def turns(sketch: Sketch) -> int:
    """How long a conversation goes on: most are short, a few carry most of the packets."""
    return min(int(MEAN_TURNS * sketch.draw.paretovariate(1.15)), MAX_TURNS)


def bulk(sketch: Sketch, ends: Ends, side: int, count: int, prefix: bytes = b"") -> Iterator[Burst]:
    """`side` sends, two segments to an acknowledgement; its first bytes are `prefix`."""
    size = 1448 if sketch.draw.random() < FULL_SIZE_SHARE else 80 + int(sketch.draw.random() * 420)
    for _ in range(count):
        first, second = prefix + sketch.payload(size - len(prefix)), sketch.payload(size)
        prefix = b""
        yield [ends.tcp(side, first), ends.tcp(side, second, ACK | PSH), ends.tcp(1 - side)]


def dns(sketch: Sketch, ends: Ends | None = None) -> Iterator[Burst]:
    """A question and its answer."""
    name, planted = sketch.name("dns")
    ends = ends or Ends(sketch, 17, 53)
    asked, answered = dns_messages(sketch.draw, name)
    yield [sketch.carries(ends.udp(0, asked), "dns", planted)]
    yield [sketch.carries(ends.udp(1, answered), "dns", planted)]


def hello(sketch: Sketch, ends: Ends, share: float = POST_QUANTUM_SHARE) -> Burst:
    """A ClientHello, post-quantum and in two segments in `share` of all cases, else in one."""
    name, planted = sketch.name("tls")
    octets = records(client_hello(sketch.draw, name, sketch.draw.random() < share))
    parts = [ends.tcp(0, octets[at : at + 1448], ACK | PSH) for at in range(0, len(octets), 1448)]
    sketch.carries(parts[-1], "tls", planted)
    return parts


def tls(sketch: Sketch) -> Iterator[Burst]:
    """Handshake, ClientHello, records."""
    ends = Ends(sketch, 6, 443)
    yield from ends.handshake()
    yield hello(sketch, ends)
    yield [ends.tcp(1), ends.tcp(1, SERVER_HELLO + sketch.payload(1200))]
    yield [ends.tcp(0, b"\x14\x03\x03\0\x01\x01\x17\x03\x03\0\x35" + sketch.payload(53), ACK | PSH)]
    side = 0 if sketch.draw.random() < UPLOAD_SHARE else 1
    yield from bulk(sketch, ends, side, turns(sketch), b"\x17\x03\x03\x40\x11")
    yield from ends.goodbye()


def http(sketch: Sketch) -> Iterator[Burst]:
    """One to three requests on a connection, each with its answer."""
    ends = Ends(sketch, 6, 80)
    yield from ends.handshake()
    left = turns(sketch)
    for _ in range(1 + sketch.draw.randrange(3)):
        name, planted = sketch.name("http")
        yield [sketch.carries(ends.tcp(0, http_request(sketch.draw, name), ACK | PSH), "http", planted), ends.tcp(1)]
        count = 1 + int(sketch.draw.random() * left)
        yield from bulk(sketch, ends, 1, count, b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n")
    yield from ends.goodbye()


def quic(sketch: Sketch) -> Iterator[Burst]:
    """One or two Initials with the ClientHello, then packets with short headers."""
    ends = Ends(sketch, 17, 443)
    name, planted = sketch.name("quic")
    message = client_hello(sketch.draw, name, sketch.draw.random() < POST_QUANTUM_SHARE)
    dcid = sketch.draw.randbytes(8)
    parts = [
        ends.udp(0, initial(QUIC_V1, dcid, number, crypto(at, message[at : at + 1100])))
        for number, at in enumerate(range(0, len(message), 1100))
    ]
    sketch.carries(parts[-1], "quic", planted)
    yield parts
    for _ in range(turns(sketch)):
        server = [ends.udp(1, b"\x4a" + sketch.payload(1 + int(sketch.draw.random() * 600))) for _ in range(2)]
        yield [*server, ends.udp(0, b"\x4b" + sketch.payload(34))]


def other(sketch: Sketch) -> Iterator[Burst]:
    """Conversations without a name: their beginning was not captured, or the protocol has none."""
    if sketch.draw.random() < 0.5:
        ends = Ends(sketch, 6, (22, 443, 993)[sketch.draw.randrange(3)])
        return bulk(sketch, ends, 1, turns(sketch), b"\x17\x03\x03\x01\x40")
    return datagrams(sketch, Ends(sketch, 17, 51820))


def datagrams(sketch: Sketch, ends: Ends) -> Iterator[Burst]:
    """A tunnel that nobody can read."""
    for _ in range(turns(sketch)):
        yield [ends.udp(at & 1, b"\x04\0\0\0" + sketch.payload(200)) for at in range(3)]


def lone_hello(sketch: Sketch) -> Iterator[Burst]:
    """A ClientHello and nothing else."""
    yield hello(sketch, Ends(sketch, 6, 443))


def lone_request(sketch: Sketch) -> Iterator[Burst]:
    """An HTTP request and nothing else."""
    name, planted = sketch.name("http")
    yield [sketch.carries(Ends(sketch, 6, 80).tcp(0, http_request(sketch.draw, name), ACK | PSH), "http", planted)]


def post_quantum(sketch: Sketch) -> Iterator[Burst]:
    """A handshake and a ClientHello of 1.8 KB, whose name stands in either of its two segments."""
    ends = Ends(sketch, 6, 443)
    yield from ends.handshake()
    yield hello(sketch, ends, 1.0)


def lone_initials(sketch: Sketch) -> Iterator[Burst]:
    """The Initials that open a QUIC connection, and nothing else."""
    yield next(quic(sketch))


def random_subdomain(sketch: Sketch) -> Iterator[Burst]:
    """A name that nobody has asked for before and that does not exist, as in floods against a domain's servers; planted
    names among them."""
    name, planted = sketch.name("dns")
    if not planted:
        name = b"%016x." % sketch.draw.getrandbits(64) + name.partition(b".")[2]
    ends = Ends(sketch, 17, 53)
    asked, _ = dns_messages(sketch.draw, name)
    yield [sketch.carries(ends.udp(0, asked), "dns", planted)]
    yield [sketch.carries(ends.udp(1, asked[:2] + b"\x81\x83" + asked[4:]), "dns", planted)]


def syn_flood(sketch: Sketch) -> Iterator[Burst]:
    """Openings that nobody answers, a burst of them from one client to one server."""
    yield [Ends(sketch, 6, 443).tcp(0, flags=SYN) for _ in range(8)]


# What each kind of traffic is made of, by weight.
Makers = dict[Callable[[Sketch], Iterator[Burst]], int]
KINDS: Final[dict[str, Makers]] = {
    "bulk": {dns: 50, tls: 30, http: 10, quic: 7, other: 3},  # of packets 1.3 % carry a name
    "names": {dns: 30, lone_hello: 36, lone_request: 20},
    "subdomains": {random_subdomain: 1},
    "syn": {syn_flood: 8, dns: 1},
    "hellos": {post_quantum: 1},
    "quic": {lone_initials: 1},
    "all": {dns: 60, tls: 10, http: 5, quic: 5, other: 2, lone_hello: 30, lone_request: 20, post_quantum: 20,
            lone_initials: 20, random_subdomain: 60, syn_flood: 10},
}  # fmt: skip
PACKETS: Final = {"bulk": 2_100_000, "names": 100_000, "subdomains": 100_000, "syn": 100_000, "hellos": 100_000,
                  "quic": 100_000, "all": 100_000}  # fmt: skip


def bursts(sketch: Sketch, kind: str) -> Iterator[Burst]:
    """Conversations without end, so many at a time, each with its next burst when chance picks it."""
    row = [maker for maker, weight in KINDS[kind].items() for _ in range(weight)]
    draw = sketch.draw
    active = [draw.choice(row)(sketch) for _ in range(ACTIVE_FLOWS)]
    while True:
        at = int(draw.random() * ACTIVE_FLOWS)
        burst = next(active[at], None)
        if burst is None:
            active[at] = draw.choice(row)(sketch)
        else:
            yield burst


def stream(out: BinaryIO, kind: str, packets: int, seed: int = SEED) -> Sketch:
    """Write a capture; returns what it was made from. Without end when `packets` is 0."""
    sketch = Sketch(seed)
    ts_us, number = START_S * 1_000_000, 0
    out.write(_FILE_HEADER)
    held: list[bytes] = []
    for burst in bursts(sketch, kind):
        for packet in burst[: packets - number] if packets else burst:
            number += 1
            ts_us += 1 + int(sketch.draw.random() * 2 * PACKET_US)
            size = len(packet)
            held.append(_RECORD(ts_us // 1_000_000, ts_us % 1_000_000, size, size))
            held.append(packet)
            sketch.written(packet, number)
        if len(held) >= 2 * WRITE_AT or number == packets:
            out.write(b"".join(held))
            held.clear()
        if number == packets:
            break
    return sketch


def planted_list() -> str:
    """A blocklist of what is planted."""
    return "".join(f"planted{at:02}.example\n" for at in range(PLANTED_DOMAINS))


def write(path: Path, kind: str, packets: int, seed: int = SEED) -> dict[str, object]:
    """Write the capture, its list and its description; returns the description."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as out:
        sketch = stream(out, kind, packets, seed)
        octets = out.tell()
    path.with_name(path.name + ".list").write_text(planted_list(), encoding="ascii")
    told: dict[str, object] = {
        "packets": packets,
        "octets": octets,
        "seed": seed,
        "name_packets": sketch.name_packets,
        "planted": sketch.planted,
    }
    path.with_name(path.name + ".json").write_text(json.dumps(told, indent=1) + "\n", encoding="ascii")
    partial.replace(path)
    return told


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write a capture for the benchmarks.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file", type=Path, help="- writes to standard output, without end")
    parser.add_argument("--packets", type=int, default=0, help=f"default {PACKETS}")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args(argv)
    if str(args.file) == "-":
        with suppress(BrokenPipeError):  # whoever reads has had enough
            stream(sys.stdout.buffer, args.kind, args.packets, args.seed)
        return 0
    told = write(args.file, args.kind, args.packets or PACKETS[args.kind], args.seed)
    planted = told.pop("planted")
    assert isinstance(planted, dict)
    print(json.dumps({**told, "planted": len(planted)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
