"""Traffic for the benchmarks: the same options give the same bytes, on any machine.

`python bench/traffic.py bulk FILE --packets N` writes a link full of downloads, uploads, acknowledgements and QUIC, in
which about 1.3 % of the packets carry a name; `names` writes nothing but DNS, ClientHellos and HTTP requests, each on
a flow of its own. Beside FILE come FILE.list, a blocklist of the planted domains, and FILE.json, which tells at what
packet each planted name is complete. No planted name stands in more than one conversation, so that a tool which finds
it has read that conversation.

Checksums are zero, as on a host whose network card fills them in.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pcaps.hellos import QUIC_V1, SERVER_HELLO, crypto, extension, initial, records, server_name

BULK_PACKETS: Final = 2_100_000
NAMES_PACKETS: Final = 100_000
SEED: Final = 20261121

PLANTED_DOMAINS: Final = 40
PLANTED_EVERY: Final = 50  # one name in so many is planted
SITES: Final = 3000
CLIENTS: Final = 250
ACTIVE_FLOWS: Final = 96  # at the same time
PACKET_US: Final = 25  # mean time between packets: 40 k a second
START_S: Final = 1_790_000_000
WRITE_AT: Final = 4096  # packets held before they are written

# Share of each kind of conversation. A DNS exchange is two packets, the others are some hundreds: together this makes
# 1.3 % of packets that carry a name.
BULK_KINDS: Final = {"dns": 50, "tls": 30, "http": 10, "quic": 7, "other": 3}
NAMES_KINDS: Final = {"dns": 30, "tls": 36, "http": 20}
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
AGENTS: Final = (
    b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    b"curl/8.14.1",
)

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


def server_address(draw: Random, wide: bool) -> bytes:
    """One of the servers there are: 762, each with an IPv4 and an IPv6 address."""
    host = int(draw.random() * 762)
    if wide:
        return b"\x20\x01\x0d\xb8" + struct.pack("!QI", 0xF, host + 1)
    return (b"\xc0\x00\x02", b"\xc6\x33\x64", b"\xcb\x00\x71")[host // 254] + bytes((host % 254 + 1,))


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


# -- messages


def client_hello(draw: Random, name: bytes, post_quantum: bool) -> bytes:
    """A ClientHello as browsers send it: extensions in random order, 512 bytes with a classic key share (517 with the
    record header), 1.8 KB with a post-quantum one."""
    share = struct.pack(">HH", 0x001D, 32) + draw.randbytes(32)
    if post_quantum:
        share = struct.pack(">HH", 0x11EC, 1216) + draw.randbytes(1216) + share
    parts = [
        server_name(name),
        extension(23, b""),
        extension(65281, b"\0"),
        extension(10, bytes.fromhex("000811ec001d00170018")),
        extension(11, b"\x01\0"),
        extension(35, b""),
        extension(16, b"\x00\x0c\x02h2\x08http/1.1"),
        extension(5, b"\x01\0\0\0\0"),
        extension(13, bytes.fromhex("001004030804040105030805050108060601")),
        extension(18, b""),
        extension(51, struct.pack(">H", len(share)) + share),
        extension(45, b"\x01\x01"),
        extension(43, b"\x06\xca\xca\x03\x04\x03\x03"),
        extension(27, b"\x02\0\x02"),
        extension(0xCACA, b""),
    ]
    if post_quantum:
        grease = b"\0\0\x01\0\x01\x2a\0\x20" + draw.randbytes(32) + b"\0\xb0" + draw.randbytes(176)
        parts.append(extension(0xFE0D, grease))
    draw.shuffle(parts)
    extensions = b"".join(parts)
    body = b"\x03\x03" + draw.randbytes(32) + b"\x20" + draw.randbytes(32)
    body += b"\0\x20" + bytes.fromhex("caca130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035") + b"\x01\0"
    short = 508 - len(body) - 2 - len(extensions)
    if short >= 4 and not post_quantum:
        extensions += extension(21, bytes(short - 4))  # padding to 512 bytes: RFC 7685
    body += struct.pack(">H", len(extensions)) + extensions
    return b"\x01" + len(body).to_bytes(3, "big") + body


def dns_messages(draw: Random, name: bytes) -> tuple[bytes, bytes]:
    """A question as stub resolvers send it, and its answer: addresses, in two of five behind a CNAME."""
    question = b"".join(bytes((len(label),)) + label for label in name.split(b".")) + b"\0"
    wide = draw.random() < 0.4
    question += b"\0\x1c\0\1" if wide else b"\0\1\0\1"
    txid = struct.pack(">H", draw.getrandbits(16))
    records: list[bytes] = []
    owner = b"\xc0\x0c"
    if draw.random() < 0.4:
        target = b"\x04edge" + bytes((7,)) + b"site%03d" % draw.randrange(999) + b"\x07example\0"
        records.append(owner + struct.pack(">HHIH", 5, 1, 300, len(target)) + target)
        owner = struct.pack(">H", 0xC000 | (12 + len(question) + 12))
    for _ in range(1 + draw.randrange(4)):
        address = server_address(draw, wide)
        records.append(owner + struct.pack(">HHIH", 28 if wide else 1, 1, 60, len(address)) + address)
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    asked = txid + b"\x01\0\0\1\0\0\0\0\0\1" + question + opt
    answered = txid + b"\x81\x80\0\1" + struct.pack(">H", len(records)) + b"\0\0\0\1" + question
    return asked, answered + b"".join(records) + opt


def http_request(draw: Random, name: bytes) -> bytes:
    """A GET with the headers of a browser."""
    return (
        b"GET /%08x/index.html?v=%d HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive\r\nUser-Agent: %s\r\n"
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
        b"Accept-Encoding: gzip, deflate\r\nAccept-Language: en-GB,en;q=0.9\r\nCookie: id=%032x\r\n\r\n"
    ) % (draw.getrandbits(32), draw.randrange(100), name, draw.choice(AGENTS), draw.getrandbits(128))


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


def hello(sketch: Sketch, ends: Ends) -> Burst:
    """A ClientHello in one or two segments."""
    name, planted = sketch.name("tls")
    octets = records(client_hello(sketch.draw, name, sketch.draw.random() < POST_QUANTUM_SHARE))
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


BULK: Final = {"dns": dns, "tls": tls, "http": http, "quic": quic, "other": other}
NAMES: Final = {"dns": dns, "tls": lone_hello, "http": lone_request}


def bursts(sketch: Sketch, names_only: bool) -> Iterator[Burst]:
    """Conversations without end, so many at a time, each with its next burst when chance picks it."""
    makers = NAMES if names_only else BULK
    kinds = NAMES_KINDS if names_only else BULK_KINDS
    row = [kind for kind, weight in kinds.items() for _ in range(weight)]
    draw = sketch.draw
    active = [makers[draw.choice(row)](sketch) for _ in range(ACTIVE_FLOWS)]
    while True:
        at = int(draw.random() * ACTIVE_FLOWS)
        burst = next(active[at], None)
        if burst is None:
            active[at] = makers[draw.choice(row)](sketch)
        else:
            yield burst


def write(path: Path, names_only: bool, packets: int, seed: int = SEED) -> dict[str, object]:
    """Write the capture, its list and its description; returns the description."""
    sketch = Sketch(seed)
    ts_us, number = START_S * 1_000_000, 0
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as out:
        out.write(_FILE_HEADER)
        held: list[bytes] = []
        for burst in bursts(sketch, names_only):
            for packet in burst[: packets - number]:
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
        octets = out.tell()
    listed = "".join(f"planted{at:02}.example\n" for at in range(PLANTED_DOMAINS))
    path.with_name(path.name + ".list").write_text(listed, encoding="ascii")
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
    parser.add_argument("kind", choices=("bulk", "names"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--packets", type=int, default=0, help=f"default {BULK_PACKETS} and {NAMES_PACKETS}")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args(argv)
    names_only = args.kind == "names"
    told = write(args.file, names_only, args.packets or (NAMES_PACKETS if names_only else BULK_PACKETS), args.seed)
    planted = told.pop("planted")
    assert isinstance(planted, dict)
    print(json.dumps({**told, "planted": len(planted)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
