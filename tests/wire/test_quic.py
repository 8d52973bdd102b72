"""QUIC Initial packets: the RFCs' own vectors, packets for every way to cut a hello, and hostile bytes."""

from __future__ import annotations

import hmac
import itertools
import random
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from egressd.wire import quic, quic_stream
from egressd.wire.quic import MAX_INITIALS, MAX_NETWORK_TRIES, MAX_SENDER_TRIES, QuicConnections, quic_version
from egressd.wire.quic_keys import SCHEMES, InitialKeys, Numbering, Scheme
from egressd.wire.quic_stream import MAX_CRYPTO_BYTES, MAX_RUNS
from tests.loops import HANG_S

V1 = 0x00000001
V2 = 0x6B3343CF
DRAFT_29 = 0xFF00001D
SALTS = {
    V1: "38762cf7f55934b34d179ae6a4c80cadccbb7f0a",
    V2: "0dede3def700a6db819381be6e269dcbf9bd2ed9",
    DRAFT_29: "afbfec289993d24c9e9786f19c6111e04390a899",
    0xFF000020: "afbfec289993d24c9e9786f19c6111e04390a899",
    0xFF00001B: "c3eef712c72ebb5a11a7d2432bb46365bef9f502",
    0xFF000017: "c3eef712c72ebb5a11a7d2432bb46365bef9f502",
    0xFF000022: "38762cf7f55934b34d179ae6a4c80cadccbb7f0a",
}
KEY = b"client to server"
DCID = bytes.fromhex("8394c8f03e515708")
OTHER_DCID = bytes.fromhex("f067a5502a4262b5")


# -- A builder of packets, written from RFC 9001 section 5 apart from the code under test


def varint(value: int) -> bytes:
    for size, prefix in ((1, 0x00), (2, 0x40), (4, 0x80), (8, 0xC0)):
        if value < 1 << (8 * size - 2):
            encoded = bytearray(value.to_bytes(size, "big"))
            encoded[0] |= prefix
            return bytes(encoded)
    raise AssertionError(value)


def expand(secret: bytes, label: str, length: int) -> bytes:
    full = b"tls13 " + label.encode()
    block = length.to_bytes(2, "big") + bytes((len(full),)) + full + b"\x00" + b"\x01"
    return hmac.new(secret, block, "sha256").digest()[:length]


def initial(
    payload: bytes,
    version: int = V1,
    dcid: bytes = DCID,
    scid: bytes = b"",
    token: bytes = b"",
    number: int = 0,
    number_bytes: int = 4,
    keys_of: bytes | None = None,
    side: str = "client in",
    pad_to: int = 0,
    form: int = 0xC0,
) -> bytes:
    """One protected Initial packet. `keys_of` is the connection id that the keys come from when it is not `dcid`;
    `form` has the bits of its form."""
    payload = payload + bytes(max(0, pad_to - len(payload)))
    prefix = "quicv2 " if version == V2 else "quic "
    secret = hmac.new(bytes.fromhex(SALTS[version]), dcid if keys_of is None else keys_of, "sha256").digest()
    secret = expand(secret, side, 32)
    key, iv, hp = (
        expand(secret, prefix + "key", 16),
        expand(secret, prefix + "iv", 12),
        expand(secret, prefix + "hp", 16),
    )
    first = form | (0x10 if version == V2 else 0x00) | (number_bytes - 1)
    head = bytes((first,)) + version.to_bytes(4, "big") + bytes((len(dcid),)) + dcid + bytes((len(scid),)) + scid
    length = number_bytes + len(payload) + 16
    head += varint(len(token)) + token + (0x4000 | length).to_bytes(2, "big") + number.to_bytes(number_bytes, "big")
    nonce = bytes(a ^ b for a, b in zip(iv, number.to_bytes(12, "big"), strict=True))
    sealed = AESGCM(key).encrypt(nonce, payload, head)
    mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(sealed[4 - number_bytes :][:16])
    packet = bytearray(head + sealed)
    packet[0] ^= mask[0] & 0x0F
    for at in range(number_bytes):
        packet[len(head) - number_bytes + at] ^= mask[1 + at]
    return bytes(packet)


def crypto(offset: int, content: bytes) -> bytes:
    return b"\x06" + varint(offset) + varint(len(content)) + content


def client_hello(name: bytes, filler: int = 0, client_random: bytes = bytes(32)) -> bytes:
    def vector(width: int, content: bytes) -> bytes:
        return len(content).to_bytes(width, "big") + content

    share = random.Random(filler).randbytes(
        filler
    )  # like a post-quantum key share: does not compress, looks like noise
    extensions = b"\x00\x33" + vector(2, share) if filler else b""
    extensions += b"\x00\x00" + vector(2, vector(2, b"\x00" + vector(2, name)))
    extensions += b"\x00\x10" + vector(2, vector(2, b"\x02h3"))
    body = b"\x03\x03" + client_random + b"\x00" + vector(2, b"\x13\x01") + b"\x01\x00" + vector(2, extensions)
    return b"\x01" + vector(3, body)


def names_of(datagrams: list[bytes], connections: QuicConnections | None = None) -> list[str]:
    table = QuicConnections() if connections is None else connections
    return [hello.sni for datagram in datagrams for hello in table.feed(KEY, datagram, 0, len(datagram))]


SMALL = client_hello(b"a.example")
LARGE = client_hello(b"pq.example", 1700)

# -- The RFCs' vectors. Both appendices protect the same CRYPTO frame, padded to 1162 bytes.
RFC_FRAME = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c000004130113"
    "02010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d00170018001000070005"
    "04616c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce1"
    "5d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c0002400100"
    "3900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806"
    "048000ffff"
)


@pytest.mark.parametrize(
    ("version", "begins", "ends"),
    [
        # RFC 9001 A.2: protected header, then the sample; and the tag, which vouches for all before it.
        (
            V1,
            "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b",
            "e221af44860018ab0856972e194cd934",
        ),
        # RFC 9369 A.2
        (
            V2,
            "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071",
            "a18b2faa745b6fe189cf772a9f84cbfc",
        ),
    ],
)
def test_vectors_of_the_rfcs(version: int, begins: str, ends: str) -> None:
    packet = initial(RFC_FRAME, version, number=2, pad_to=1162)
    assert len(packet) == 1200
    assert packet.startswith(bytes.fromhex(begins))
    assert packet.endswith(bytes.fromhex(ends))
    connections = QuicConnections()
    (hello,) = connections.feed(KEY, packet, 0, len(packet))
    assert (hello.sni, hello.alpn, hello.version) == ("example.com", ("alpn",), 0x0304)
    assert connections.version == version


# -- One packet


@pytest.mark.parametrize("version", sorted(SALTS))
def test_versions(version: int) -> None:
    packet = initial(crypto(0, SMALL), version, pad_to=1162)
    connections = QuicConnections()
    assert names_of([packet], connections) == ["a.example"]
    assert connections.version == quic_version(packet, 0, len(packet)) == version


@pytest.mark.parametrize("number_bytes", [1, 2, 3, 4])
@pytest.mark.parametrize("number", [0, 1, 200])
def test_packet_numbers(number: int, number_bytes: int) -> None:
    assert names_of([initial(crypto(0, SMALL), number=number, number_bytes=number_bytes)]) == ["a.example"]


@pytest.mark.parametrize(
    "packet",
    [
        initial(crypto(0, SMALL), token=b"t" * 70, scid=b"s" * 20),
        initial(crypto(0, SMALL), dcid=b"d" * 20),
        initial(b"\x01" + bytes(30) + b"\x01" + crypto(0, SMALL)),
        initial(crypto(5, SMALL[5:]) + b"\x01" + crypto(0, SMALL[:5])),
        initial(b"\x02\x05\x41\x00\x01\x03\x02\x01" + crypto(0, SMALL)),
        initial(b"\x03\x05\x01\x00\x03\x01\x01\x01" + crypto(0, SMALL)),
        initial(b"\x1c\x01\x06\x02no" + crypto(0, SMALL)),
        initial(crypto(0, SMALL) + b"\x08 no such frame here"),
    ],
)
def test_headers_and_frames(packet: bytes) -> None:
    assert names_of([packet]) == ["a.example"]


@pytest.mark.parametrize(
    "payload",
    [
        b"\x08" + crypto(0, SMALL),  # unknown first
        b"\x06\x40",
        b"\x06\x00\x7f\xff" + SMALL,
        b"\x02\xc0\x00",
        b"\x02\x05\x01\xff\xff\xff\xff\xff\xff\xff\xff\x01" + crypto(0, SMALL),
        b"\x1c\x01\x06\x7f" + crypto(0, SMALL)[:20],
        crypto(0, b""),
        bytes(64),
        crypto(1, SMALL[1:]),
    ],
)
def test_payloads_without_a_hello(payload: bytes) -> None:
    connections = QuicConnections()
    assert names_of([initial(payload, pad_to=40)], connections) == []
    assert connections.undecryptable == 0
    assert not connections.done(KEY)


@pytest.mark.parametrize("version", [V1, V2])
def test_a_client_may_clear_the_quic_bit_for_a_server_that_it_knows(version: int) -> None:
    """RFC 9287 section 3.1: of an Initial, too."""
    greased = initial(crypto(0, SMALL), version, form=0x80)
    assert names_of([greased]) == ["a.example"]
    assert names_of(
        [initial(crypto(0, SMALL[:20]), version) + initial(crypto(20, SMALL[20:]), version, number=1, form=0x80)]
    ) == ["a.example"]


@pytest.mark.parametrize("same", [True, False], ids=["one id", "an id each"])
def test_a_datagram_has_keys_made_once(monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    """36 Initials fit in one, and keys cost more than all else: 0.6 ms a datagram, with another port each time."""
    made: list[bytes] = []

    def counted(scheme: Scheme, dcid: bytes, numbering: Numbering) -> InitialKeys:
        made.append(dcid)
        return InitialKeys(scheme, dcid, numbering)

    monkeypatch.setattr(quic_stream, "InitialKeys", counted)
    shut = [initial(bytes(4), dcid=DCID if same else bytes((at,)) * 8, keys_of=OTHER_DCID) for at in range(12)]
    connections = QuicConnections()
    assert names_of([b"".join(shut)], connections) == []
    assert (len(made), connections.undecryptable) == (1, 12)
    assert names_of([shut[0] + initial(crypto(0, SMALL), dcid=shut[0][6:14])]) == ["a.example"]


def test_reads_inside_a_larger_buffer() -> None:
    packet = initial(crypto(0, SMALL))
    buf = b"\xee" * 42 + packet + b"\xee" * 9
    (hello,) = QuicConnections().feed(KEY, buf, 42, 42 + len(packet))
    assert hello.sni == "a.example"
    assert QuicConnections().feed(KEY, buf, 42, 41 + len(packet)) == []


def test_coalesced_packets() -> None:
    handshake = b"\xe0" + V1.to_bytes(4, "big") + b"\x08" + DCID + b"\x00" + varint(100) + bytes(100)
    first, second = initial(crypto(0, LARGE[:900])), initial(crypto(900, LARGE[900:]), number=1)
    assert names_of([handshake + first + second]) == ["pq.example"]
    assert names_of([first + handshake, second + b"\x40" + bytes(50)]) == ["pq.example"]
    assert names_of([b"\x40" + bytes(50) + first + second]) == []


# -- Numbers that are tried before the mask is taken off


def test_numbering_follows_what_begins_alike() -> None:
    numbering = Numbering()
    assert (numbering.number, numbering.number_bytes()) == (1, 1)
    numbering.began(0, 2)
    assert (numbering.number, numbering.number_bytes()) == (1, 1)  # one that differs
    numbering.began(1, 1)
    numbering.began(0, 2)
    assert numbering.number_bytes() == 1
    numbering.began(7, 2)
    assert numbering.number_bytes() == 0  # two running: nothing is tried
    numbering.began(8, 4)
    numbering.began(9, 4)
    assert numbering.number_bytes() == 0
    numbering.began(9, 4)
    assert (numbering.number, numbering.number_bytes()) == (9, 4)


def test_a_number_that_was_tried_right_needs_no_mask() -> None:
    numbering = Numbering()
    keys = InitialKeys(SCHEMES[V1.to_bytes(4, "big")], DCID, numbering)
    pn_at = 6 + len(DCID) + 1 + 1 + 2  # no source id, no token
    for number in (1, 2, 3):
        packet = initial(crypto(0, SMALL), number=number, number_bytes=1)
        assert keys.open(packet, 0, pn_at, len(packet)) == crypto(0, SMALL)
    assert keys._mask is None
    packet = initial(crypto(0, SMALL), number=5, number_bytes=1)
    assert keys.open(packet, 0, pn_at, len(packet)) == crypto(0, SMALL)
    assert keys._mask is not None
    assert keys.open(packet[:-1] + bytes((packet[-1] ^ 1,)), 0, pn_at, len(packet)) is None


@settings(max_examples=60, deadline=None)
@given(
    begins=st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 200, 255, 0x7FFF_FFFF]), st.integers(1, 4), st.booleans()), max_size=12
    ),
    step=st.integers(1, 3),
)
def test_what_was_tried_before_changes_nothing(begins: list[tuple[int, int, bool]], step: int) -> None:
    """Whatever numbers connections had before, and whether packets are lost: every hello is read, by its own keys."""
    connections = QuicConnections()
    for at, (number, number_bytes, server) in enumerate(begins):
        key = at.to_bytes(12, "big")
        dcid = at.to_bytes(8, "big")
        number %= (1 << 8 * number_bytes) - step
        if server:
            other = initial(crypto(0, SMALL), dcid=dcid, number=number, number_bytes=number_bytes, side="server in")
            before = connections.undecryptable
            assert connections.feed(b"back" + key, other, 0, len(other)) == []
            assert connections.undecryptable == before + 1
        first = initial(crypto(0, LARGE[:900]), dcid=dcid, number=number, number_bytes=number_bytes)
        second = initial(crypto(900, LARGE[900:]), dcid=dcid, number=number + step, number_bytes=number_bytes)
        assert connections.feed(key, first, 0, len(first)) == []
        (hello,) = connections.feed(key, second, 0, len(second))
        assert hello.sni == "pq.example"
    assert connections.undecryptable == sum(server for _, _, server in begins)


# -- Hellos over several packets


def spread(version: int, parts: int, seed: int) -> list[bytes]:
    """LARGE over some datagrams, cut into overlapping pieces, in a random order, as Chrome and quic-go do."""
    rng = random.Random(seed)
    edges = sorted({0, len(LARGE), *(rng.randrange(len(LARGE)) for _ in range(12))})
    pieces = [crypto(max(0, start - 3), LARGE[max(0, start - 3) : end]) for start, end in itertools.pairwise(edges)]
    rng.shuffle(pieces)
    payloads = [b"\x00\x00\x01".join([b"", *pieces[at::parts]]) for at in range(parts)]
    return [initial(payload, version, number=number) for number, payload in enumerate(payloads)]


@settings(max_examples=60, deadline=None)
@given(
    version=st.sampled_from([V1, V2, DRAFT_29]),
    parts=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    order=st.randoms(use_true_random=False),
)
def test_any_cut_and_order_gives_the_name_once(version: int, parts: int, seed: int, order: random.Random) -> None:
    datagrams = spread(version, parts, seed)
    order.shuffle(datagrams)
    assert names_of(datagrams + datagrams) == ["pq.example"]


def test_out_of_order_and_repeated() -> None:
    first, second = initial(crypto(0, LARGE[:900])), initial(crypto(800, LARGE[800:]), number=1)
    assert names_of([second, second, first, first]) == ["pq.example"]
    connections = QuicConnections()
    assert names_of([second], connections) == [] and not connections.done(KEY)
    assert names_of([first], connections) == ["pq.example"] and connections.done(KEY)


def test_second_packet_goes_to_the_id_that_the_server_chose() -> None:
    chosen = b"\x01" * 20
    second = initial(crypto(900, LARGE[900:]), dcid=chosen, keys_of=DCID, number=1)
    connections = QuicConnections()
    assert names_of([initial(crypto(0, LARGE[:900])), second, second], connections) == ["pq.example"]
    assert connections.undecryptable == 0


def test_after_retry_keys_follow_the_new_id() -> None:
    again = [
        initial(crypto(0, LARGE[:900]), dcid=OTHER_DCID, token=b"token", number=1),
        initial(crypto(900, LARGE[900:]), dcid=OTHER_DCID, token=b"token", number=2),
    ]
    assert names_of([initial(crypto(0, LARGE[:900])), *again]) == ["pq.example"]
    assert names_of([initial(crypto(900, LARGE[900:])), *again]) == ["pq.example"]  # the two flights do not mix


def test_a_hello_sent_again_after_retry_is_returned_once() -> None:
    connections = QuicConnections()
    again = initial(crypto(0, SMALL), dcid=OTHER_DCID, token=b"token", number=1)
    acknowledgement = initial(b"\x01", dcid=b"chosen", keys_of=OTHER_DCID, number=2, pad_to=40)
    assert names_of([initial(crypto(0, SMALL)), again, again, acknowledgement], connections) == ["a.example"]
    assert connections.undecryptable == 0


def test_after_the_hello_its_connection_is_quiet_and_the_next_one_is_heard() -> None:
    connections = QuicConnections()
    assert names_of([initial(crypto(0, SMALL))], connections) == ["a.example"]
    acknowledgements = [
        initial(b"\x02\x01\x00\x00\x00", dcid=b"srv", keys_of=DCID, number=at, pad_to=40) for at in range(40)
    ]
    assert names_of(acknowledgements, connections) == []
    assert connections.undecryptable == connections.given_up == 0
    following = initial(crypto(0, client_hello(b"b.example", client_random=b"\x09" * 32)), dcid=OTHER_DCID)
    assert names_of([following, following], connections) == ["b.example"]


# -- More hellos between the same addresses and ports


def test_the_hello_after_hello_retry_request_is_read() -> None:
    """The same random (RFC 8446 section 4.1.2), further on in the same CRYPTO stream, to the id the server chose."""
    second = client_hello(b"second.example", 900)
    connections = QuicConnections()
    more = [
        initial(crypto(len(SMALL), second[:600]), dcid=b"chosen by server", keys_of=DCID, number=1),
        initial(crypto(len(SMALL) + 600, second[600:]), dcid=b"chosen by server", keys_of=DCID, number=2),
    ]
    assert names_of([initial(crypto(0, SMALL)), *more, *more], connections) == ["a.example", "second.example"]
    assert connections.undecryptable == connections.malformed == 0
    again = initial(crypto(len(SMALL), SMALL), dcid=b"chosen by server", keys_of=DCID, number=1)
    assert names_of([initial(crypto(0, SMALL)), again]) == ["a.example"]  # as it mostly is: the same name


def test_a_hello_longer_than_is_kept_does_not_hide_the_one_behind_it() -> None:
    long = padded_hello(60_000)
    pieces = [initial(crypto(at, long[at : at + 1500])) for at in range(0, len(long), 1500)]
    assert names_of([*pieces, initial(crypto(len(long), client_hello(b"second.example")), number=99)]) == [
        "a.example",
        "second.example",
    ]


def test_another_hello_after_retry_is_read() -> None:
    again = initial(crypto(0, client_hello(b"second.example")), dcid=OTHER_DCID, token=b"token", number=1)
    assert names_of([initial(crypto(0, SMALL)), again]) == ["a.example", "second.example"]


def test_another_hello_under_the_same_keys_is_read() -> None:
    """The first one was sent so that it did not reach the server."""
    decoy = client_hello(b"a.example", 500)
    for harmless in (SMALL, decoy):
        for real in (client_hello(b"real.example"), client_hello(b"real.example", 1700)):
            packets = [initial(crypto(0, harmless)), initial(crypto(0, real[:200])), initial(crypto(200, real[200:]))]
            assert names_of(packets) == ["a.example", "real.example"]
            behind = initial(crypto(len(real), client_hello(b"last.example")), number=9)
            assert names_of([*packets, behind]) == ["a.example", "real.example", "last.example"]


@pytest.mark.parametrize("cut", [60, 900])
def test_half_a_hello_under_the_same_keys_is_read_too(cut: int) -> None:
    name = LARGE.index(b"pq.example")
    for other in (b"aa.example", b"zz.example"):
        decoy = LARGE.replace(b"pq.example", other)
        parts = [crypto(0, decoy[:cut]), crypto(0, LARGE[:cut]), crypto(cut, LARGE[cut:])]
        if cut < name:
            parts = [crypto(0, LARGE[:cut]), crypto(cut, decoy[cut:-1]), crypto(cut, LARGE[cut:]), crypto(0, decoy)]
        names = names_of([initial(part, number=at) for at, part in enumerate(parts)])
        assert sorted(names) == sorted(["pq.example", other.decode()]), (cut, other)


def test_connections_side_by_side_do_not_hide_each_other() -> None:
    connections = QuicConnections()
    first, second = initial(crypto(0, LARGE[:900])), initial(crypto(900, LARGE[900:]), number=1)
    between = initial(crypto(0, SMALL), dcid=OTHER_DCID)
    assert names_of([first, between, second], connections) == ["a.example", "pq.example"]
    assert connections.finish(KEY) is None


def test_keys_that_are_let_go_after_the_handshake_are_made_anew() -> None:
    connections = QuicConnections()
    handshake = b"\xe0" + V1.to_bytes(4, "big") + b"\x08" + DCID + b"\x00" + varint(100) + bytes(100)
    assert names_of([initial(crypto(0, SMALL)) + handshake], connections) == ["a.example"]
    (space,) = connections._table[KEY].spaces
    assert space._keys is None
    second = initial(crypto(len(SMALL), client_hello(b"second.example")), dcid=b"srv", keys_of=DCID, number=1)
    assert names_of([second], connections) == ["second.example"]


def test_the_servers_answers_are_known() -> None:
    connections = QuicConnections()
    assert names_of([initial(crypto(0, SMALL), scid=b"client")], connections) == ["a.example"]
    for dcid, answers in ((b"client", True), (b"other", False), (b"", False)):
        packet = initial(crypto(0, SMALL), dcid=dcid, side="server in")
        assert connections.answers(KEY, packet, 0, len(packet)) is answers
        assert not connections.answers(b"another key", packet, 0, len(packet))
        assert not connections.answers(KEY, packet, 0, 6)


def test_directions_do_not_mix() -> None:
    connections = QuicConnections()
    first, second = initial(crypto(0, LARGE[:900])), initial(crypto(900, LARGE[900:]), number=1)
    assert connections.feed(b"one", first, 0, len(first)) == []
    assert connections.feed(b"two", second, 0, len(second)) == []
    assert len(connections) == 2


# -- What is no hello


def test_server_packets_give_nothing() -> None:
    connections = QuicConnections()
    server = [
        initial(crypto(0, SMALL), dcid=b"", keys_of=DCID, side="server in"),
        initial(crypto(0, SMALL), dcid=OTHER_DCID, keys_of=DCID, side="server in"),
    ]
    assert names_of(server, connections) == []
    assert connections.undecryptable == 2


def test_other_versions_are_passed_over() -> None:
    connections = QuicConnections()
    grease = b"\xc0\x1a\x2a\x3a\x4a\x08" + DCID + bytes(1200)
    negotiation = b"\xc0\x00\x00\x00\x00\x08" + DCID + b"\x00" + b"\x00\x00\x00\x01"
    gquic = b"\xc3Q046\x50" + DCID + bytes(1200)
    assert names_of([grease, negotiation, gquic, b"", b"\xc0", b"\x40" + bytes(60)], connections) == []
    assert (connections.unknown_versions, connections.negotiations, len(connections)) == (2, 1, 0)
    for datagram in (grease, negotiation, gquic, b"", b"\xc0\x00\x00"):
        assert quic_version(datagram, 0, len(datagram)) == 0


def test_what_is_no_whole_initial_is_not_tried() -> None:
    connections = QuicConnections()
    packet, v2 = initial(crypto(0, SMALL)), initial(crypto(0, SMALL), V2)
    damaged = [
        b"\xe0" + packet[1:],  # Handshake
        b"\xf0" + packet[1:],  # Retry
        bytes((v2[0] & 0xCF,)) + v2[1:],  # Retry in version 2
        packet[:5] + b"\x15" + packet[6:],  # connection id of 21 bytes
        packet[:-1],
    ]
    assert names_of(damaged, connections) == []
    assert (len(connections), connections.undecryptable) == (0, 0)


def test_hello_that_cannot_be_read_is_counted() -> None:
    connections = QuicConnections()
    broken = b"\x01\x00\x00\x32" + bytes(50)
    not_a_hello = b"\x02" + client_hello(b"a.example", client_random=b"\x09" * 32)[1:]
    assert names_of([initial(crypto(0, broken)), initial(crypto(0, not_a_hello), dcid=OTHER_DCID)], connections) == []
    assert connections.malformed == 2
    assert connections.done(KEY)


# -- Bounds


def test_table_is_bounded_and_the_longest_unheard_makes_room() -> None:
    connections = QuicConnections(max_connections=3)
    first, second = initial(crypto(0, LARGE[:900])), initial(crypto(900, LARGE[900:]), number=1)
    for key in (b"a", b"b", b"c", b"a", b"d"):
        connections.feed(key, first, 0, len(first))
    assert (len(connections), connections.evicted) == (3, 1)
    assert connections.feed(b"a", second, 0, len(second)) != []
    assert connections.feed(b"b", second, 0, len(second)) == []


def test_a_connection_is_given_up_but_not_its_name() -> None:
    connections = QuicConnections()
    head = LARGE[:-5]  # the name is there, ALPN behind it is cut
    assert b"pq.example" in head
    datagrams = [initial(crypto(0, head), number=number) for number in range(MAX_INITIALS + 5)]
    assert names_of(datagrams[: MAX_INITIALS - 1], connections) == []
    assert names_of(datagrams[MAX_INITIALS - 1 :], connections) == ["pq.example"]
    assert connections.given_up == 1
    assert connections.done(KEY)
    assert connections.finish(KEY) is None


def test_junk_cannot_make_work_without_end() -> None:
    connections = QuicConnections()
    most = MAX_INITIALS + MAX_SENDER_TRIES

    def junk(count: int, key: bytes, ts_us: int) -> int:
        packet = initial(b"\x01" * 30, dcid=bytes(8), keys_of=OTHER_DCID)
        before = connections.undecryptable
        for _ in range(count):
            assert connections.feed(key, packet, 0, len(packet), ts_us) == []
        return connections.undecryptable - before

    assert junk(most + 9, b"\x0a\0\0\1 some other", 0) == most
    assert connections.given_up == 1
    assert connections.over_share == 9
    assert junk(MAX_INITIALS + 9, b"\x0a\0\0\1 next other", 999_999) == MAX_INITIALS  # flows of one sender share
    assert junk(MAX_INITIALS + 9, b"\x0a\0\0\2 some other", 999_999) == MAX_INITIALS + 9  # others have their own
    assert junk(most, b"\x0a\0\0\1 some other", 1_000_000) == MAX_SENDER_TRIES


def test_a_host_with_many_ipv6_addresses_makes_no_work_without_end() -> None:
    connections = QuicConnections()
    packet = initial(b"\x01" * 30, dcid=bytes(8), keys_of=OTHER_DCID)
    network = bytes.fromhex("20010db800000001")
    for host in range(9):
        key = network + host.to_bytes(8, "big") + bytes(20)
        for _ in range(MAX_INITIALS + MAX_NETWORK_TRIES // 8):
            connections.feed(key, packet, 0, len(packet), 0)
    assert connections.undecryptable == 9 * MAX_INITIALS + MAX_NETWORK_TRIES


def test_a_packet_of_many_pieces_counts_as_many() -> None:
    connections = QuicConnections()
    packets = [initial(b"".join(crypto(9 + 2 * at, b"x") for at in range(320)), number=number) for number in range(200)]
    for packet in packets:
        connections.feed(KEY, packet, 0, len(packet))
    looked_at = len(packets) - connections.over_share
    assert looked_at == MAX_INITIALS + 49  # of 1,024 tries 21 each


def test_a_name_behind_junk_is_read() -> None:
    connections = QuicConnections()
    junk = [initial(b"\x01" * 30, dcid=bytes(8), keys_of=at.to_bytes(8, "big")) for at in range(1, 100)]
    assert names_of([*junk, initial(crypto(0, SMALL))], connections) == ["a.example"]


def padded_hello(padding_bytes: int) -> bytes:
    """A hello with the name before its padding."""
    hello = client_hello(b"a.example")
    extensions_at = 4 + 2 + 32 + 1 + 4 + 2
    padding = b"\x00\x15" + padding_bytes.to_bytes(2, "big") + bytes(padding_bytes)
    body = hello[4:extensions_at] + (len(hello) - extensions_at - 2 + len(padding)).to_bytes(2, "big")
    body += hello[extensions_at + 2 :] + padding
    return b"\x01" + len(body).to_bytes(3, "big") + body


def test_crypto_over_the_bound() -> None:
    long = padded_hello(20_000)
    datagrams = [initial(crypto(at, long[at : at + 1500]), number=at // 1500) for at in range(0, len(long), 1500)]
    assert names_of(datagrams) == ["a.example"]
    connections = QuicConnections()
    assert names_of([initial(crypto(MAX_CRYPTO_BYTES, SMALL)), initial(crypto(1 << 40, SMALL))], connections) == []
    scattered = [
        initial(b"".join(crypto(at * 2, b"x") for at in range(first, first + 400)), number=first)
        for first in (9, 400, 800)
    ]
    assert names_of(scattered, connections) == []
    assert all(len(space.runs) <= MAX_RUNS for space in connections._table[KEY].spaces)
    assert names_of([initial(crypto(0, SMALL))], connections) == ["a.example"]


def test_bytes_kept_are_bounded_and_the_longest_unheard_makes_room() -> None:
    connections = QuicConnections(max_bytes=5_000)
    first, second = initial(crypto(0, LARGE[:900])), initial(crypto(900, LARGE[900:]), number=1)
    for at in range(20):
        connections.feed(bytes((at,)), first, 0, len(first))
        assert connections.kept_bytes == sum(connection.kept_bytes for connection in connections._table.values())
    assert (len(connections), connections.kept_bytes, connections.evicted) == (5, 4_500, 15)
    assert connections.feed(b"\x13", second, 0, len(second)) != []
    assert connections.kept_bytes == 3_600
    for at in range(20):
        connections.finish(bytes((at,)))
    assert connections.kept_bytes == 0


def test_what_comes_behind_a_hello_is_bounded() -> None:
    connections = QuicConnections()
    names_of([initial(crypto(0, SMALL))], connections)
    for at in range(0, 200_000, 2_000):
        names_of([initial(crypto(at + 1, bytes(1_000))), initial(crypto(at + 1, b"x" * 1_000))], connections)
    assert connections.kept_bytes <= 4 * MAX_CRYPTO_BYTES
    second = client_hello(b"second.example")
    assert names_of([initial(crypto(len(SMALL), second))], connections) == ["second.example"]


def test_key_spaces_are_bounded() -> None:
    connections = QuicConnections()
    datagrams = [initial(crypto(3, b"x"), dcid=at.to_bytes(8, "big"), pad_to=40) for at in range(8)]
    assert names_of(datagrams, connections) == []
    assert len(connections._table[KEY].spaces) == quic.MAX_KEY_SPACES


def test_finish_salvages_and_forgets() -> None:
    connections = QuicConnections()
    assert connections.finish(KEY) is None
    assert names_of([initial(crypto(0, LARGE[:-5]))], connections) == []
    hello = connections.finish(KEY)
    assert hello is not None and hello.sni == "pq.example"
    assert len(connections) == 0
    assert names_of([initial(crypto(0, LARGE[:900]))], connections) == []
    assert connections.finish(KEY) is None  # the name was not there yet
    assert names_of([initial(crypto(0, SMALL))], connections) == ["a.example"]
    assert connections.finish(KEY) is None  # returned once


# -- Hostile bytes

SEEDS = [
    initial(crypto(0, SMALL)),
    initial(crypto(0, LARGE[:900]), V2),
    initial(crypto(900, LARGE[900:]), DRAFT_29, token=b"t"),
]


@settings(max_examples=250, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=5),
    length=st.integers(0, 1300),
)
def test_damaged_datagrams_never_raise(seed: bytes, edits: list[tuple[int, int]], length: int) -> None:
    damaged = bytearray(seed)
    for at, value in edits:
        damaged[at] = value
    datagram = bytes(damaged[:length])
    connections = QuicConnections()
    for _ in range(3):
        connections.feed(KEY, datagram, 0, len(datagram))
    connections.finish(KEY)


@settings(max_examples=150, deadline=None)
@given(payload=st.binary(max_size=200), tail=st.binary(max_size=60), version=st.sampled_from([V1, V2]))
def test_random_payloads_and_tails_never_raise(payload: bytes, tail: bytes, version: int) -> None:
    """What is inside a packet is under the sender's control as well: it only has to be encrypted."""
    datagram = initial(payload, version, pad_to=4) + tail
    connections = QuicConnections()
    connections.feed(KEY, datagram, 0, len(datagram))
    connections.feed(KEY, tail, 0, len(tail))
    stream = initial(crypto(0, payload), version, pad_to=4)
    connections.feed(b"other", stream, 0, len(stream))
    connections.finish(b"other")
    assert connections.undecryptable == 0


def test_every_truncation_is_silent() -> None:
    packet = SEEDS[0]
    connections = QuicConnections()
    for length in range(len(packet)):
        assert connections.feed(KEY, packet, 0, length) == []
    assert names_of([packet], connections) == ["a.example"]


def test_importing_the_module_does_not_load_cryptography() -> None:
    code = "import sys, egressd.wire.quic; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=HANG_S).returncode == 0


def test_what_was_prepared_is_not_loaded_at_the_first_initial() -> None:
    """A packet process must not stop for it."""
    program = (
        "import sys; from egressd.wire import quic; lib = 'cryptography.hazmat.primitives.ciphers.aead'; "
        "assert lib not in sys.modules; quic.prepare(); assert lib in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
