"""An office's network traffic, made up: what its machines contact, in order of time, the same for the same seed.

Two days of a few hundred clients that browse, update, poll, call and back up, with innocents chosen to look like C&C
traffic; on the second day there are new programs, guests, and what is planted to be found. docs/detection.md tells what
is in it; bench/office.py measures the detectors of behaviour on it. Only reserved names and addresses stand in it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from heapq import heappop, heappush
from random import Random
from typing import Final, NamedTuple

SEED: Final = 20261126
CLIENTS: Final = 300
HOURS: Final = 8
START_S: Final = 1_790_150_400  # 08:00 UTC of a weekday
DAY_S: Final = 86_400
OWN: Final = "bureau.example"
RESOLVER: Final = "10.0.0.53"
SYLLABLES: Final = (
    "ka", "ri", "no", "ta", "mo", "sel", "ber", "lin", "dor", "van", "mar", "tis", "pol", "gra", "fen", "ost",
    "wel", "ham", "bur", "ton", "ley", "ford", "net", "web", "soft", "ware", "data", "shop", "news", "port",
    "line", "page", "time", "tech", "lab", "plan", "mail", "file", "cloud", "post", "home", "land", "park", "view",
    "side", "work", "bank", "care", "food", "book"
)  # fmt: skip
HEX: Final = "0123456789abcdef"
B64: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Contact(NamedTuple):
    """One thing a client does. `kind` is tls, http, quic, hidden (TLS without a name), flow (nothing but a connection)
    or dns (only a question); `port` and `target` where they apply; `rcode` of the answer. `planted` names what it
    belongs to, "" for innocents."""

    ts_us: int
    client: str
    kind: str
    name: str
    address: str
    port: int = 443
    target: str = "/"
    rrtype: int = 1
    rcode: int = 0
    udp: bool = False
    planted: str = ""


Step = Iterator[tuple[float, Contact]]  # waits of so many seconds, then the contact


class World:
    """Names, addresses and who has what: the same on both days."""

    def __init__(self, seed: int, clients: int) -> None:
        self.random = Random(seed)
        self.clients = [f"10.{1 + number // 200}.{number % 200 // 50}.{10 + number % 50}" for number in range(clients)]
        self._addresses: dict[str, str] = {}
        self._taken: set[str] = set()
        self.sites = [self.domain() for _ in range(1_200)]
        self.third = [self.domain() for _ in range(160)]
        self.vendors = [self.domain() for _ in range(10)]  # of software that nearly all have
        self.rare = [self.domain() for _ in range(clients // 5)]  # of software that one to three have
        self.personal = [[self.domain() for _ in range(5)] for _ in self.clients]  # sites that only one visits
        self.third_of = {site: self.random.sample(self.third, self.random.randint(3, 12)) for site in self.sites}

    def domain(self) -> str:
        """A registered domain nobody has yet."""
        while True:
            name = "".join(self.random.choice(SYLLABLES) for _ in range(self.random.randint(2, 4)))
            if name not in self._taken:
                self._taken.add(name)
                return f"{name}.example"

    def address(self, name: str) -> str:
        """Where a name lives: in the range for benchmarks (RFC 2544)."""
        known = self._addresses.get(name)
        if known is None:
            number = len(self._addresses) + 1
            known = self._addresses[name] = f"198.{18 + (number >> 16 & 1)}.{number >> 8 & 255}.{number & 255}"
        return known


class Day:
    """The actors of one day. `measured` adds what is new that day: new software, guests, and what is planted."""

    def __init__(self, world: World, seed: int, start_s: int, hours: int, measured: bool) -> None:
        self.world = world
        self.random = Random(seed * 2 + measured)
        self.start_s = start_s
        self.end_s = start_s + hours * 3_600
        self.measured = measured
        self.planted: dict[str, tuple[str, str]] = {}  # name of a plant -> (client, destination)
        self._actors: list[Step] = []
        self._asked: dict[tuple[str, str], float] = {}

    def contacts(self) -> Iterator[Contact]:
        """Everything in order of time."""
        heap: list[tuple[float, int, Contact]] = []
        steps = self._actors
        for number, step in enumerate(steps):
            self._push(heap, self.start_s, number, step)
        while heap:
            now_s, number, contact = heappop(heap)
            yield contact._replace(ts_us=round(now_s * 1_000_000))
            self._push(heap, now_s, number, steps[number])

    def _push(self, heap: list[tuple[float, int, Contact]], now_s: float, number: int, step: Step) -> None:
        following = next(step, None)
        if following is not None and now_s + following[0] < self.end_s:
            heappush(heap, (now_s + following[0], number, following[1]))

    def add(self, step: Step) -> None:
        """One more actor."""
        self._actors.append(step)

    def of(self, client: str, name: str, kind: str = "tls", **more: object) -> Contact:
        """A contact with a name."""
        return Contact(0, client, kind, name, self.world.address(name), **more)  # type: ignore[arg-type]

    def token(self, length: int, letters: str = HEX) -> str:
        """A random string."""
        return "".join(self.random.choice(letters) for _ in range(length))

    # -- people

    def browse(self, client: str, personal: list[str]) -> Step:
        """Sessions of pages with think times, favourites before others, now and then a site nobody has seen."""
        draw, world = self.random, self.world
        favourites = [world.sites[min(int(draw.expovariate(1 / 120)), 1_199)] for _ in range(12)]
        yield draw.uniform(0, 2_400), self.of(client, favourites[0])
        while True:
            roll = draw.random()
            site = draw.choice(personal) if roll < 0.12 else draw.choice(favourites)
            third = world.third_of.get(site) or draw.sample(world.third[:60], 5)
            if roll > 0.93:
                site = world.domain()
            for _ in range(1 + int(draw.expovariate(1 / 3))):
                yield draw.lognormvariate(3.2, 1.1), self.of(client, f"www.{site}")
                yield from self.page(client, site, third)
            yield draw.expovariate(1 / 500), self.of(client, draw.choice(favourites))

    def page(self, client: str, site: str, third: list[str]) -> Step:
        """What a page loads: third parties, hashed assets, random subdomains of a CDN, a tracker with tokens."""
        draw = self.random
        for other in draw.sample(third, min(len(third), draw.randint(2, 8))):
            roll = draw.random()
            if roll < 0.08:
                target = f"/static/{self.token(20)}.{draw.choice(('js', 'css', 'png'))}"
                yield draw.uniform(0.01, 0.4), self.of(client, f"cdn.{other}", "http", port=80, target=target)
            elif roll < 0.14:
                yield draw.uniform(0.01, 0.4), self.of(client, f"{self.token(12)}.edge.{other}")
            elif roll < 0.2:
                target = f"/collect?v=1&cid={self.token(16)}&z={self.token(24, B64)}"
                yield draw.uniform(0.01, 0.4), self.of(client, f"stats.{other}", "http", port=80, target=target)
            else:
                kind = "quic" if draw.random() < 0.25 else "tls"
                yield draw.uniform(0.01, 0.4), self.of(client, f"a{draw.randint(1, 3)}.{other}", kind)

    def tab(self, client: str, site: str, every_s: float, pages: int, with_others: bool) -> Step:
        """A tab left open that loads itself again, with its third parties or (a poll of a script) without."""
        draw = self.random
        third = draw.sample(self.world.third, 6)
        yield draw.uniform(600, 7_200), self.of(client, f"www.{site}")
        yield from self.page(client, site, third)
        for _ in range(pages):
            yield every_s * draw.uniform(0.99, 1.02), self.of(client, f"www.{site}")
            if with_others:
                yield from self.page(client, site, third)

    def mistype(self, client: str) -> Step:
        """Typing errors, and the browser's probes with random names at each start (under the search domain)."""
        draw = self.random
        while True:
            for _ in range(3):
                probe = self.token(draw.randint(7, 15), "abcdefghijklmnopqrstuvwxyz")
                yield draw.uniform(0.01, 0.1), self.failing(client, f"{probe}.{OWN}")
            site = draw.choice(self.world.sites)
            at = draw.randrange(len(site) - 9)
            yield (
                draw.expovariate(1 / 9_000),
                self.failing(client, f"www.{site[:at]}{draw.choice('aeiou')}{site[at + 1 :]}"),
            )

    def failing(self, client: str, name: str, rrtype: int = 1, planted: str = "") -> Contact:
        """A look-up of what does not exist."""
        return Contact(0, client, "dns", name, "", 53, "", rrtype, 3, planted=planted)

    def call(self, client: str, provider: str) -> Step:
        """Video calls: a name, then media to addresses, some of them of other people's machines."""
        draw = self.random
        while True:
            yield draw.expovariate(1 / 9_000), self.of(client, f"meet.{provider}", "quic")
            for _ in range(draw.randint(2, 5)):
                peer = f"192.0.2.{draw.randrange(1, 255)}"
                yield draw.uniform(0.1, 2), Contact(0, client, "flow", "", peer, draw.randint(16_384, 60_000), udp=True)
            for _ in range(draw.randint(10, 60)):
                yield draw.uniform(55, 65), self.of(client, f"keep.{provider}", "quic")

    # -- programs

    def poll(self, client: str, name: str, every_s: float, jitter: float, kind: str = "tls", **more: object) -> Step:
        """A program that contacts its server at intervals, with jitter either way, from some moment on."""
        draw = self.random
        yield draw.uniform(0, every_s), self.of(client, name, kind, **more)
        while True:
            yield every_s * draw.uniform(1 - jitter, 1 + jitter), self.of(client, name, kind, **more)

    def fixed(self, client: str, address: str, port: int, every_s: float, jitter: float, udp: bool = False) -> Step:
        """A device that knows an address and no name."""
        draw = self.random
        while True:
            yield every_s * draw.uniform(1 - jitter, 1 + jitter), Contact(0, client, "flow", "", address, port, udp=udp)

    def nonce(self, client: str, name: str, every_s: float, length: int) -> Step:
        """Telemetry over plain HTTP whose last parameter is another each time."""
        draw = self.random
        session = self.token(32)
        while True:
            target = f"/v1/ping?session={session}&n={self.token(length)}"
            yield every_s * draw.uniform(0.95, 1.05), self.of(client, name, "http", port=80, target=target)

    def ocsp(self, client: str) -> Step:
        """Certificates asked about over GET, at the authority of some company."""
        draw = self.random
        while True:
            request = bytes((0x30, 66)) + b"\x30\x40\x30\x3e\x30\x3c\x30\x3a" + draw.randbytes(58)
            target = "/" + b64encode(request).decode().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
            yield (
                draw.expovariate(1 / 1_500),
                self.of(client, f"ocsp.{self.world.rare[0]}", "http", port=80, target=target),
            )

    def scan(self, client: str, vendor: str) -> Step:
        """An antivirus asks its cloud about files: a hash a name, in bursts."""
        draw = self.random
        while True:
            for _ in range(draw.randint(5, 150)):
                name = f"{self.token(32)}.av.{vendor}"
                yield draw.uniform(0.05, 3), Contact(0, client, "dns", name, "127.0.0.4", 53)
            yield draw.expovariate(1 / 3_600), self.of(client, f"www.{vendor}")

    def mail_server(self, client: str) -> Step:
        """Each mail: block lists, the sender's domain (of spam: drawn, or gone)."""
        draw = self.random
        while True:
            octets = ".".join(str(draw.randrange(256)) for _ in range(4))
            yield draw.expovariate(1 / 40), self.failing(client, f"{octets}.zen.{self.world.vendors[9]}")
            yield 0.05, self.failing(client, f"{octets}.bl.{self.world.vendors[8]}")
            roll = draw.random()
            if roll < 0.05:
                yield 0.1, self.failing(client, f"{self.token(14, 'abcdefghijklmnopqrstuvwxyz')}.example", 15)
            elif roll < 0.15:
                yield 0.1, self.failing(client, self.world.domain(), 15)
            else:
                sender = draw.choice(self.world.sites)
                yield 0.1, Contact(0, client, "dns", sender, self.world.address(sender), 53, "", 15)
                yield 0.1, Contact(0, client, "dns", f"{self.token(10)}._domainkey.{sender}", "", 53, "", 16)

    # -- what is planted

    def plant(self, name: str, client: str, destination: str, step: Step) -> None:
        """An actor whose contacts are to be found."""
        self.planted[name] = (client, destination)
        self.add(step)

    def beacon(self, name: str, client: str, domain: str, every_s: float, jitter: float, kind: str) -> Step:
        """C&C contacts: TLS, HTTP with an opaque tail or a plain path, or DNS with a few digits of report."""
        draw = self.random
        yield draw.uniform(0, min(every_s, 1_200)), self._report(name, client, domain, kind)
        while True:
            yield every_s * draw.uniform(1 - jitter, 1 + jitter), self._report(name, client, domain, kind)

    def _report(self, name: str, client: str, domain: str, kind: str) -> Contact:
        if kind == "dns":
            return Contact(0, client, "dns", f"{self.token(10)}.{domain}", "192.0.2.9", 53, "", 16, planted=name)
        if kind == "opaque":
            target = f"/info/index.php?id={self.token(self.random.randint(24, 80), B64)}"
            return self.of(client, f"www.{domain}", "http", port=80, target=target, planted=name)
        port = 443 if kind == "tls" else 80
        return self.of(client, f"www.{domain}", kind, port=port, target="/api/status.php", planted=name)

    def tunnel(self, name: str, client: str, domain: str) -> Step:
        """A DNS tunnel: bursts of long names for TXT."""
        draw = self.random
        yield draw.uniform(600, 6_000), self.failing(client, f"hello.{domain}", 16, name)
        while True:
            for _ in range(draw.randint(50, 300)):
                label = f"{self.token(60, HEX)}.{self.token(draw.randint(20, 60))}.{domain}"
                yield draw.uniform(0.05, 1), Contact(0, client, "dns", label, "192.0.2.9", 53, "", 16, planted=name)
            yield (
                draw.expovariate(1 / 1_200),
                Contact(
                    0, client, "dns", f"poll{draw.randrange(1000)}.{domain}", "192.0.2.9", 53, "", 16, planted=name
                ),
            )

    def generator(self, name: str, client: str, found: str) -> Step:
        """A DGA: names drawn until one exists; that is then contacted."""
        draw = self.random
        yield draw.uniform(600, 9_000), self.of(client, self.world.sites[0])
        for _ in range(draw.randint(25, 80)):
            drawn = self.token(draw.randint(10, 16), "abcdefghijklmnopqrstuvwxyz")
            yield draw.uniform(0.5, 6), self.failing(client, f"{drawn}.example", 1, name)
        yield 1.0, self.of(client, found, planted=name)

    def dropper(self, name: str, client: str, address: str) -> Step:
        """A machine that reports straight to an address, in no protocol that shows a name."""
        draw = self.random
        every_s = draw.uniform(120, 900)
        while True:
            yield every_s * draw.uniform(0.8, 1.2), Contact(0, client, "flow", "", address, 4_443, planted=name)

    def darkened(self, name: str, client: str) -> Step:
        """A machine whose names were readable for hours, and then none are: connections to addresses, no question."""
        draw = self.random
        site = self.world.sites[3]
        for number in range(120):
            yield draw.uniform(60, 160), self.of(client, f"a{number % 7}.{site}")
        while True:
            address = f"2001:db8:{draw.randrange(1, 9)}::{draw.randrange(1, 99)}"
            yield draw.uniform(20, 60), Contact(0, client, "hidden", "", address, 443, planted=name)


def make_day(world: World, seed: int, start_s: int, hours: int, measured: bool, plants: int) -> Day:
    """A day with all its actors; `measured` is the second one."""
    day = Day(world, seed, start_s, hours, measured)
    _everybody(day)
    _some(day)
    if measured:
        _newcomers(day)
        _planted(day, plants)
    return day


def _everybody(day: Day) -> None:
    """What runs on every client."""
    world, draw = day.world, Random(1)  # who has what is the same on both days
    for number, client in enumerate(world.clients):
        day.add(day.browse(client, world.personal[number]))
        day.add(day.mistype(client))
        for vendor in draw.sample(world.vendors[:8], 6):
            day.add(day.poll(client, f"update.{vendor}", 3_600, draw.choice((0.0, 0.05, 0.3))))
        day.add(day.poll(client, f"telemetry.{world.vendors[0]}", 600, 0.0))
        day.add(
            day.poll(client, f"connectivity.{world.vendors[1]}", 300, 0.01, "http", port=80, target="/generate_204")
        )
        day.add(day.poll(client, f"imap.{OWN}", 300, 0.02, port=993))
        day.add(day.poll(client, f"push.{world.vendors[2]}", 1_680, 0.0, port=5_228))
        day.add(day.fixed(client, f"198.51.100.{1 + number % 4}", 123, draw.choice((64, 256, 1_024)), 0.02, udp=True))
        day.add(day.poll(client, f"backup.{world.vendors[3]}", 3_600, 0.1))
        if number % 2:
            day.add(day.call(client, world.vendors[4]))
        if number % 10 < 7:
            day.add(day.scan(client, world.vendors[5]))


def _some(day: Day) -> None:
    """What only a few clients have, and had yesterday too."""
    world, draw = day.world, Random(2)
    clients = world.clients
    for number, domain in enumerate(world.rare):
        every_s = draw.choice((60, 120, 300, 300, 600, 900, 1_800, 3_600, 7_200))
        jitter = draw.choice((0.0, 0.0, 0.02, 0.1, 0.3))
        for client in draw.sample(clients, draw.choice((1, 1, 1, 2, 3))):
            day.add(day.poll(client, f"api.{domain}", every_s, jitter, draw.choice(("tls", "tls", "http"))))
        if number < 3:
            day.add(day.nonce(draw.choice(clients), f"beat.{domain}", 600, (8, 10, 20)[number]))
    for number in range(12):  # cameras, clocks, printers
        client = f"10.9.0.{10 + number}"
        day.add(day.fixed(client, f"203.0.113.{number + 1}", 8_883, draw.choice((30, 60, 300)), 0.05))
    for client in draw.sample(clients, 15):
        day.add(day.tab(client, draw.choice(world.personal[0]), draw.choice((60, 120, 300, 600)), 24, True))
    for client in draw.sample(clients, 8):
        day.add(day.tab(client, draw.choice(world.personal[1]), draw.choice((60, 120, 300)), 40, False))
    for client in draw.sample(clients, 25):
        day.add(day.ocsp(client))
    for client in draw.sample(clients, 2):
        day.add(day.scan(client, world.rare[5]))
    day.add(day.mail_server("10.8.0.25"))


def _newcomers(day: Day) -> None:
    """What nobody had yesterday: tabs on new sites, a new program on two machines, guests with their telephones."""
    world, draw = day.world, day.random
    for client in draw.sample(world.clients, 8):
        day.add(day.tab(client, world.domain(), draw.choice((60, 120, 300, 600)), 24, True))
    day.add(day.tab(draw.choice(world.clients), world.domain(), 300, 30, False))
    day.add(day.poll(draw.choice(world.clients), f"licence.{world.domain()}", 1_200, 0.02))
    for number in range(6):
        guest = f"10.7.0.{10 + number}"
        day.add(day.browse(guest, [world.domain() for _ in range(4)]))
        day.add(day.poll(guest, f"push.{world.vendors[2]}", 1_680, 0.0, port=5_228))
        day.add(
            day.poll(guest, f"m.{world.domain()}", draw.uniform(900, 2_400), 0.7)
        )  # woken by the system, in batches


def _planted(day: Day, plants: int) -> None:
    """Beacons on `plants` clients, each to a domain of its own; and a few of each other sort."""
    world, draw = day.world, day.random
    hosts = draw.sample(world.clients, plants + 20)
    for number in range(plants):
        kind = ("tls", "http", "opaque", "dns")[number % 4]
        every_s = 60.0 * 60.0 ** draw.random()  # one to sixty minutes, evenly on a logarithmic scale
        domain = world.domain()
        name = f"beacon-{kind}-{number}"
        day.plant(
            name, hosts[number], domain, day.beacon(name, hosts[number], domain, every_s, 0.3 * draw.random(), kind)
        )
    for number in range(5):
        rest = hosts[plants + 4 * number :]
        domain, found = world.domain(), f"{day.token(13, 'abcdefghijklmnopqrstuvwxyz')}.example"
        day.plant(f"tunnel-{number}", rest[0], domain, day.tunnel(f"tunnel-{number}", rest[0], domain))
        day.plant(f"dga-{number}", rest[1], "", day.generator(f"dga-{number}", rest[1], found))
        address = f"203.0.113.{100 + number}"
        day.plant(f"direct-{number}", rest[2], address, day.dropper(f"direct-{number}", rest[2], address))
        day.plant(f"dark-{number}", rest[3], "", day.darkened(f"dark-{number}", rest[3]))
