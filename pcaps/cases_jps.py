"""The incident of 2015 that egressd exists for: beats a to d, with the innocent traffic beside them.

What public reports state is the order of events, the plain HTTP GETs with unknown strings appended, that the subdomain
was blocked two hours after the traffic began, that the second attack used another subdomain of the same registered
domain, that three machines failed to get out after the domain block, and that nobody watched. Everything else here is
invented: clock times, names, addresses, ports, paths, intervals, DNS details, the number of attempts, the innocents.
"""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime
from typing import Final

from pcaps.cases import Made, case
from pcaps.files import pcap
from pcaps.hellos import hello
from pcaps.packets import ETHERNET, Capture, Tcp, answer, get, question, resolve

EVIL: Final = "news-portal.example"
UNLISTED: Final = "weather-sync.example"

MINISTRY_RESOLVER: Final = "10.1.0.53"
OFFICE_RESOLVER: Final = "10.2.0.53"
APRIL_HOST: Final = "10.1.3.23"
MAY_HOST: Final = "10.2.5.41"
LATER_HOSTS: Final = ("10.2.7.11", "10.2.7.52", "10.2.9.30")
BEACON_HOST: Final = "10.2.9.77"

FIRST_ADDRESS: Final = "203.0.113.66"
SECOND_ADDRESS: Final = "203.0.113.67"
BEACON_ADDRESS: Final = "203.0.113.99"
CDN: Final = "192.0.2.80"
PAGES: Final = "192.0.2.90"
CDN_NAMES: Final = ("static.shop.example", "img.photos.example", "media.school.example", "files.library.example")
SITES: Final = {"www.cityoffice.example": "192.0.2.21", "www.timetable.example": "192.0.2.22"}
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def at(capture: Capture, text: str) -> None:
    """Go on at this time (UTC)."""
    capture.now_us = round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


class Traffic:
    """Seeded choices and running numbers, so that each run gives the same bytes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.capture = Capture()
        self._port = 40_000
        self._txid = seed

    def port(self) -> int:
        """The next client port."""
        self._port += 1
        return self._port

    def txid(self) -> int:
        """The next transaction id."""
        self._txid = (self._txid * 75 + 74) % 65_537 & 0xFFFF
        return self._txid

    def resolve(self, client: str, name: str, *addresses: str) -> None:
        """Ask the segment's resolver."""
        resolver = MINISTRY_RESOLVER if client.startswith("10.1.") else OFFICE_RESOLVER
        resolve(self.capture, name, *addresses, client=client, resolver=resolver, port=self.port(), txid=self.txid())

    def opaque(self) -> str:
        """A path with an unknown string appended: the one trait that the reports give."""
        tail = base64.urlsafe_b64encode(self.random.randbytes(self.random.randrange(18, 60))).decode().rstrip("=")
        return f"/info/index.php?id={tail}"

    def beacon(self, client: str, name: str, address: str) -> None:
        """One GET that is answered."""
        self.connection(client, address, 80).open().send(get(name, self.opaque())).receive(OK).close()

    def blocked(self, client: str, address: str) -> None:
        """A connection that the block of 8 May stops: three SYNs, no answer."""
        connection = self.connection(client, address, 80)
        for wait_s in (1.0, 2.0, 4.0):
            connection.segment(flags="S")
            self.capture.wait(wait_s)

    def browse(self, client: str) -> None:
        """An innocent page by TLS and one by HTTP."""
        for name, address in SITES.items():
            self.resolve(client, name, address)
            if self.random.random() < 0.5:
                self.connection(client, address, 443).open().send(hello(name)).receive(
                    b"\x16\x03\x03\x00\x04\x02\0\0\0"
                )
            else:
                self.connection(client, address, 80).open().send(get(name, "/")).receive(OK).close()

    def content(self, client: str) -> None:
        """Innocent names on the shared address."""
        for name in CDN_NAMES:
            self.resolve(client, name, CDN)
            self.connection(client, CDN, 443).open().send(hello(name)).receive(b"\x16\x03\x03\x00\x04\x02\0\0\0")

    def connection(self, client: str, server: str, port: int) -> Tcp:
        """A new connection."""
        isn = (self.random.randrange(1 << 32), self.random.randrange(1 << 32))
        return Tcp(self.capture, (client, self.port()), (server, port), isn)

    def pcap(self) -> bytes:
        """The capture file."""
        return pcap(self.capture.packets, ETHERNET)


@case("jps-2015", __doc__ or "")
def jps_2015() -> Made:
    """One file a beat, in the order of time."""
    return {
        "1-april-22.pcap": april(),
        "2-may-8.pcap": may(),
        "3-may-18.pcap": later(),
        "4-may-20.pcap": unlisted(),
    }


def april() -> bytes:
    """Beat a: the ministry's host reports every two to five minutes; the indicator arrives two hours after."""
    traffic = Traffic(422)
    at(traffic.capture, "2015-04-22T00:05:00")
    for client in (APRIL_HOST, "10.1.3.24", "10.1.4.8"):
        traffic.browse(client)
        traffic.content(client)
    at(traffic.capture, "2015-04-22T00:12:00")
    traffic.resolve(APRIL_HOST, f"a.{EVIL}", FIRST_ADDRESS)
    end_us = traffic.capture.now_us + 2 * 3_600_000_000
    while traffic.capture.now_us < end_us:
        traffic.beacon(APRIL_HOST, f"a.{EVIL}", FIRST_ADDRESS)
        traffic.capture.wait(traffic.random.uniform(120, 300))
    at(traffic.capture, "2015-04-22T02:13:00")
    traffic.resolve(APRIL_HOST, f"a.{EVIL}", FIRST_ADDRESS)
    for _ in range(3):
        traffic.blocked(APRIL_HOST, FIRST_ADDRESS)
        traffic.capture.wait(traffic.random.uniform(120, 300))
    traffic.browse(APRIL_HOST)
    return traffic.pcap()


def may() -> bytes:
    """Beat b: an office host asks for another subdomain, never listed, for four hours. In 2015 nothing stopped it."""
    traffic = Traffic(508)
    at(traffic.capture, "2015-05-08T01:00:00")
    traffic.browse("10.2.5.40")
    traffic.resolve(MAY_HOST, f"b.{EVIL}", SECOND_ADDRESS)
    traffic.capture.wait(0.001)
    end_us = traffic.capture.now_us + 4 * 3_600_000_000
    while traffic.capture.now_us < end_us:
        traffic.beacon(MAY_HOST, f"b.{EVIL}", SECOND_ADDRESS)
        traffic.capture.wait(traffic.random.uniform(240, 600))
    traffic.browse(MAY_HOST)
    return traffic.pcap()


def later() -> bytes:
    """Beat c: three more hosts try for three days and fail. Beside them: a name that answers with addresses that must
    never be blocked, one on the shared address, and two tenants of a shared suffix, one of them listed."""
    traffic = Traffic(518)
    at(traffic.capture, "2015-05-18T00:30:00")
    for client in ("10.2.5.40", *LATER_HOSTS):
        traffic.browse(client)
        traffic.content(client)
    traffic.resolve("10.2.5.40", "meeting-notes-2015.github.io", PAGES)
    traffic.connection("10.2.5.40", PAGES, 443).open().send(hello("meeting-notes-2015.github.io"))
    for hour in range(0, 72, 3):
        for number, client in enumerate(LATER_HOSTS):
            at(traffic.capture, f"2015-05-{18 + hour // 24}T{hour % 24:02}:{40 + 5 * number}:00")
            name = f"{'bc'[number % 2]}.{EVIL}"
            traffic.resolve(client, name, SECOND_ADDRESS)
            traffic.blocked(client, SECOND_ADDRESS)
        if hour % 24 == 9:
            traffic.browse(LATER_HOSTS[0])
            traffic.content(LATER_HOSTS[1])
    # The attacker turns the names on us: the resolvers, the gateway, a public resolver, the shared address.
    at(traffic.capture, "2015-05-20T22:10:00")
    for name, address in (
        ("d", OFFICE_RESOLVER),
        ("e", "10.2.0.1"),
        ("f", "8.8.8.8"),
        ("g", CDN),
    ):
        traffic.resolve(LATER_HOSTS[2], f"{name}.{EVIL}", address)
    traffic.content("10.2.5.40")
    traffic.capture.udp(("10.2.5.40", traffic.port()), ("8.8.8.8", 53), question("www.timetable.example", 7))
    return traffic.pcap()


def unlisted() -> bytes:
    """Beat d: GETs of the same shape to a registered domain that no list knows. Only behaviour tells."""
    traffic = Traffic(520)
    at(traffic.capture, "2015-05-20T23:00:00")
    port = traffic.port()
    traffic.capture.udp((BEACON_HOST, port), (OFFICE_RESOLVER, 53), question(f"cdn.{UNLISTED}", 9))
    traffic.capture.udp(
        (OFFICE_RESOLVER, 53),
        (BEACON_HOST, port),
        answer(f"cdn.{UNLISTED}", 9, f"cdn.{UNLISTED} A {BEACON_ADDRESS}"),
    )
    for _ in range(20):
        traffic.beacon(BEACON_HOST, f"cdn.{UNLISTED}", BEACON_ADDRESS)
        traffic.capture.wait(traffic.random.uniform(240, 420))
    return traffic.pcap()
