"""Who is the client of a conversation.

The rule, first hit decides: (1) a SYN is sent by the client, a SYN-ACK by the server; (2) content: a request, question
or ClientHello comes from the client, an answer from the server; (3) a port known as a service's is the server's, when
only one of the two is; (4) between a private and a public address the private one is the client, because egressd stands
at an exit; (5) the lower port is the server's when one is ephemeral (RFC 6335 section 6); (6) who sent first.
Rules 1 and 2 are certain; the rest is a guess that content may still correct. Of UDP, which has no SYN, rules 3 to 5
are for what comes in only: a host chooses its own port, and would be the server of whom it sends to.

Whoever is the client by what a server sent is told of once it is seen to send, itself, more than a bare RST: an answer
to nothing can come to any host from anybody, under any address.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from egressd.model import FlowKey
from egressd.wire.octets import COMPILED, read_u16, read_u32

if TYPE_CHECKING:  # a machine integer to mypyc, and nothing at run time
    from mypy_extensions import i64

SYSTEM_PORTS_END: Final = 1024
_EPHEMERAL_FIRST: Final = 32768  # Linux; IANA says 49152
# Registered ports that servers listen on although they are above the system range.
_SERVICE_PORTS: Final = frozenset(
    (
        *(1080, 1194, 1433, 1521, 1701, 1723, 1883, 1935, 2049, 2083, 2087, 3128, 3268, 3306, 3389, 3478, 3544, 3690),
        *(4443, 4500, 4789, 5060, 5061, 5222, 5223, 5228, 5269, 5353, 5355, 5432, 5672, 5900, 5938, 6379, 6443, 6667),
        *(8000, 8008, 8080, 8081, 8088, 8118, 8443, 8444, 8853, 8883, 8888, 9001, 9030, 9050, 9090, 9092, 9200, 9418),
        *(11211, 25565, 27017),
    )
)


# A key: source address, target address, source port, target port.
_FIELDS_4: Final = Struct("!4s4sHH").unpack
_FIELDS_6: Final = Struct("!16s16sHH").unpack
_UNPACK_4: Final = Struct("4s4s2s2s").unpack
_UNPACK_6: Final = Struct("16s16s2s2s").unpack
_PACK_4: Final = Struct("4s4s2s2s").pack
_PACK_6: Final = Struct("16s16s2s2s").pack
_new: Final = tuple.__new__  # makes a NamedTuple at half the cost of calling it
# Many tables hold the same client, each time as part of another key: one object for each is enough.
MAX_SHARED: Final = 8_192
_SHARED: Final[dict[bytes, bytes]] = {}
# The same for the numbers of servers' ports, nearly all of which are these.
_PORTS: Final[tuple[object, ...]] = tuple(range(SYSTEM_PORTS_END))
_DNS_PORT: Final = 53


def _shared(address: bytes) -> bytes:
    """An address as an object that was met before, if it was lately."""
    known = _SHARED.get(address)
    if known is None:
        if len(_SHARED) >= MAX_SHARED:
            _SHARED.clear()
        known = _SHARED[address] = address
    return known


def flow_of(proto: int, key: bytes) -> FlowKey:
    """The conversation whose client sent a packet with this `key` (addresses and ports as on the wire)."""
    if COMPILED:
        width = 4 if len(key) == 12 else 16
        client, server = key[:width], key[width : 2 * width]
        client_port, server_port = read_u16(key, 2 * width), read_u16(key, 2 * width + 2)
    else:
        client, server, client_port, server_port = _FIELDS_4(key) if len(key) == 12 else _FIELDS_6(key)
    return _flow(proto, client, client_port, server, server_port)


def flow_toward(proto: int, key: bytes) -> FlowKey:
    """The conversation whose server sent a packet with this `key`."""
    if COMPILED:
        width = 4 if len(key) == 12 else 16
        server, client = key[:width], key[width : 2 * width]
        server_port, client_port = read_u16(key, 2 * width), read_u16(key, 2 * width + 2)
    else:
        server, client, server_port, client_port = _FIELDS_4(key) if len(key) == 12 else _FIELDS_6(key)
    return _flow(proto, client, client_port, server, server_port)


def _flow(proto: int, client: bytes, client_port: int, server: bytes, server_port: i64) -> FlowKey:
    if server_port >= SYSTEM_PORTS_END:
        return _new(FlowKey, (proto, _shared(client), client_port, server, server_port))
    if server_port == _DNS_PORT:
        server = _shared(server)  # there are few resolvers
    return _new(FlowKey, (proto, _shared(client), client_port, server, _PORTS[server_port]))


def reverse_key(key: bytes) -> bytes:
    """The `key` of a packet in the other direction."""
    if COMPILED:
        width = 4 if len(key) == 12 else 16
        ports = 2 * width
        return key[width:ports] + key[:width] + key[ports + 2 :] + key[ports : ports + 2]
    if len(key) == 12:
        source, target, source_port, target_port = _UNPACK_4(key)
        return _PACK_4(target, source, target_port, source_port)
    source, target, source_port, target_port = _UNPACK_6(key)
    return _PACK_6(target, source, target_port, source_port)


def pair_key(key: bytes) -> bytes:
    """The lesser of a packet's `key` and that of packets in the other direction: the same for both."""
    ports = len(key) - 4
    if COMPILED and ports == 8:
        first: i64 = read_u32(key, 0)
        second: i64 = read_u32(key, 4)
        if first != second:
            return key if first < second else reverse_key(key)
    width = ports >> 1
    source, target = key[:width], key[width:ports]
    if source < target or (source == target and key[ports : ports + 2] <= key[ports + 2 :]):
        return key
    return reverse_key(key)


def is_private(address: bytes) -> bool:
    """Whether an address is of a kind that hosts inside a network have (RFC 1918, 6598, 3927, 4193, 4291)."""
    first = address[0]
    if len(address) == 4:
        second = address[1]
        return (
            first == 10
            or (first == 192 and second == 168)
            or (first == 172 and 16 <= second < 32)
            or (first == 100 and 64 <= second < 128)
            or (first == 169 and second == 254)
        )
    return (first & 0xFE) == 0xFC or (first == 0xFE and (address[1] & 0xC0) == 0x80)


def is_group(address: bytes) -> bool:
    """Multicast or limited broadcast (RFC 5771, RFC 4291 section 2.7): never an egress destination."""
    first = address[0]
    if len(address) == 4:
        return 224 <= first < 240 or address == b"\xff\xff\xff\xff"
    return first == 0xFF


def goes_out(flow: FlowKey) -> bool:
    """Whether a packet whose sender stands as `client` goes from a private address to a public one."""
    return is_private(flow.client) and not is_private(flow.server)


def sender_is_client(flow: FlowKey) -> bool:
    """Rules 3 to 6 for a packet whose sender stands as `client` in `flow`: whether that is right."""
    client_port = flow.client_port
    server_port = flow.server_port
    sender_serves = client_port < SYSTEM_PORTS_END or client_port in _SERVICE_PORTS
    receiver_serves = server_port < SYSTEM_PORTS_END or server_port in _SERVICE_PORTS
    if sender_serves != receiver_serves:
        return receiver_serves
    sender_private = is_private(flow.client)
    if sender_private != is_private(flow.server):
        return sender_private
    if (client_port >= _EPHEMERAL_FIRST) != (server_port >= _EPHEMERAL_FIRST):
        return client_port > server_port
    return True
