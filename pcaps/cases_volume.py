"""Cases of volume: how many bytes connections carried, known to the byte though their bulk is not read."""

from __future__ import annotations

from pcaps.cases import Made, case
from pcaps.hellos import SERVER_HELLO, hello
from pcaps.packets import CLIENT, Capture, Tcp, resolve

DROP = "203.0.113.9"
# With segmentation offload a capture on the sender shows segments of this size; the snapshot length cuts them.
OFFLOADED = 60_000
SNAPLEN = 160


@case(
    "volume-upload",
    """An upload of 3,000,000 bytes by TLS, captured with a snapshot length of 160 on a host with segmentation offload.
    Its sequence numbers pass 2^32, a part of it is sent again, and the server's answer is short. A second host sends
    400,000 bytes to an address without a name and resets the connection; a third one downloads 500,000. A set quantity
    of 1 MiB an hour is exceeded by the first alone.""",
)
def volume_upload() -> Made:
    capture = Capture(snaplen=SNAPLEN)
    resolve(capture, "files.drop.example", DROP)
    octets = hello("files.drop.example")
    data = octets + b"\x17" * (3_000_000 - len(octets))
    tcp = Tcp(capture, (CLIENT, 40_000), (DROP, 443), isn=(2**32 - 1_000_000, 5)).open()
    tcp.send(data[: len(octets)]).receive(SERVER_HELLO)
    for at in range(len(octets), len(data), OFFLOADED):
        tcp.segment(data[at : at + OFFLOADED], at=at)
        capture.wait(0.05)
        if at > 2_000_000:
            tcp.segment(data[at : at + 1_400], at=at)
    tcp.close()
    bare = Tcp(capture, ("10.0.0.6", 40_001), ("198.51.100.7", 8_443)).open()
    bare.send(b"\xab" * 400_000, OFFLOADED)
    bare.segment(flags="RA")
    page = Tcp(capture, ("10.0.0.7", 40_002), (DROP, 443)).open()
    page.send(hello("www.shop.example")).receive(SERVER_HELLO)
    for _ in range(10):
        page.receive(b"\x17" * 50_000)
    page.close()
    return capture
