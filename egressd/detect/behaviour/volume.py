"""How much each client sends to each destination, against what is usual for it and against set quantities.

A destination is a registered domain, or an address as text where no name is known. Who counts bytes is elsewhere: the
kernel's table of connections live, TCP's sequence numbers in a replay. Hours and days are those of UTC.

Unusual is what passes five tests: it is much; nearly all of it goes out (a call or a page is not so); the client has
been known for the time of learning; neither this client has sent so much there before, in an hour like any or once in a
while, nor has any other client (the backup server, the cloud that all use). What speaks for harm then makes the score.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from egressd.detect.behaviour.usual import DAY_HOURS, TIMES_PEAK, Hours
from egressd.detect.evidence import Evidence
from egressd.intel.networks import NetworkTable
from egressd.native import mypyc_attr
from egressd.units import HOUR_US, MINUTE_US
from egressd.wire.direction import is_group, is_private
from egressd.wire.table import RecentTable

DETECTOR: Final = "volume"
MAX_PAIRS: Final = 32_768
# What one client may open of the pairs within an hour; a scan or a flood of forged destinations goes uncounted beyond.
SHARE: Final = 8
ASYMMETRY: Final = 4  # times as much out as in: a video call is 1 to 2, a download below 0.1, an upload over 20
SET_SCORE: Final = 100  # over a set quantity is over it
ALERT_SCORE: Final = 70  # evidence of less alerts nobody by itself
_USUAL_SCORE: Final = 50
_MORE_SCORE: Final = 10  # of one more circumstance that speaks for harm
_HABIT_SCORE: Final = 20  # the client sends as much elsewhere
_DOUBLING_SCORE: Final = 5
_MAX_DOUBLINGS: Final = 4
_AGAIN_SCORE: Final = 10  # so much more certain than what was told today: told again

_NOTHING: Final[list[Evidence]] = []


class VolumeSettings(NamedTuple):
    """What an operator sets (docs/detection-volume.md). Quantities are bytes out, 0 for none: of one client to one
    destination in an hour and a day, and of one client to all together. `baseline`: whether what is unusual counts, of
    `floor_bytes` an hour at least and `learn_hours` after a client was seen first. Excepted clients and destinations
    are counted and never told."""

    baseline: bool = True
    floor_bytes: int = 64 << 20
    learn_hours: int = 72
    out_hour: int = 0
    out_day: int = 0
    client_hour: int = 0
    client_day: int = 0
    except_domains: frozenset[str] = frozenset()
    except_networks: NetworkTable[str] = NetworkTable(())
    except_clients: NetworkTable[str] = NetworkTable(())
    pairs: int = MAX_PAIRS

    @property
    def excepts(self) -> bool:
        """Whether anything is excepted at all."""
        return bool(self.except_domains or self.except_networks.size or self.except_clients.size)

    @property
    def has_sets(self) -> bool:
        """Whether any quantity is set."""
        return self.out_hour > 0 or self.out_day > 0 or self.client_hour > 0 or self.client_day > 0

    @property
    def judges(self) -> bool:
        """Whether anything of it is ever told."""
        return self.baseline or self.has_sets


class Carried(NamedTuple):
    """What a client sent to a destination and got from it, in bytes, and when first and last."""

    out_bytes: int
    in_bytes: int
    first_us: int
    last_us: int


@mypyc_attr(acyclic=True)
class _Pair(Hours):
    """One client and one destination; `now` are the bytes out of this hour."""

    __slots__ = (
        "begun_us", "day_out", "first_us", "hour_in", "in_bytes", "last_us", "out_bytes", "settings", "told_day",
        "told_hour", "told_score", "told_unusual", "watched",
    )  # fmt: skip

    def __init__(self, hour: int, ts_us: int) -> None:
        super().__init__(hour)
        self.first_us = ts_us
        self.last_us = ts_us
        self.out_bytes = 0
        self.in_bytes = 0
        self.begun_us = ts_us  # this hour's first bytes
        self.hour_in = 0
        self.day_out = 0
        self.told_hour = -1  # the hour, and the day, in which a set quantity was told to be exceeded
        self.told_day = -1
        self.told_unusual = -1  # the day in which it was told to be unusual, and how sure that was
        self.told_score = 0
        self.settings = -1  # by which `watched` was judged
        self.watched = True  # not excepted


@mypyc_attr(acyclic=True)
class _Client(Hours):
    """One client; `now` is the most that it sent to one destination this hour, `opened` the pairs it began."""

    __slots__ = ("day_out", "first_hour", "hour_out", "opened", "told_day", "told_hour")

    def __init__(self, hour: int) -> None:
        super().__init__(hour)
        self.first_hour = hour
        self.hour_out = 0
        self.day_out = 0
        self.opened = 0
        self.told_hour = -1
        self.told_day = -1


@mypyc_attr(acyclic=True)
class _Place(Hours):
    """One destination; `now` is the most that one client sent there this hour. `client` is the first that used it, and
    `shared` says that another did too."""

    __slots__ = ("client", "first_us", "shared")

    def __init__(self, hour: int, ts_us: int, client: bytes) -> None:
        super().__init__(hour)
        self.first_us = ts_us
        self.client = client
        self.shared = False


class Volume:
    """Counts bytes and tells what is too much. Bounded: at most `settings.pairs` pairs of client and destination, half
    as many clients and as many destinations again; those used longest ago are forgotten first, and counted."""

    def __init__(self, settings: VolumeSettings) -> None:
        self._version = -1
        self.swap(settings)
        self._pairs: RecentTable[tuple[bytes, str], _Pair] = RecentTable(settings.pairs)
        self._clients: RecentTable[bytes, _Client] = RecentTable(max(2, settings.pairs // 2))
        self._places: RecentTable[str, _Place] = RecentTable(max(2, settings.pairs // 2))
        self._share = max(16, settings.pairs // SHARE)
        self.out_bytes = 0
        self.in_bytes = 0
        self.uncounted = 0  # amounts of clients beyond their share

    @property
    def evicted(self) -> int:
        """Pairs, clients and destinations that were forgotten to make room."""
        return self._pairs.evicted + self._clients.evicted + self._places.evicted

    def swap(self, settings: VolumeSettings) -> None:
        """Other settings hold from now on; the bound of the tables stays."""
        self._settings = settings
        self._has_sets = settings.has_sets
        self._excepts = settings.excepts
        self._version += 1

    def of(self, client: bytes, destination: str) -> Carried | None:
        """What went between a client and a destination since they met first, or were forgotten; None for nothing."""
        pair = self._pairs.peek((client, destination))
        return Carried(pair.out_bytes, pair.in_bytes, pair.first_us, pair.last_us) if pair is not None else None

    def rows(self) -> list[tuple[bytes, str, Carried]]:
        """Every pair that is remembered, those that sent most first."""
        rows = [
            (client, destination, Carried(pair.out_bytes, pair.in_bytes, pair.first_us, pair.last_us))
            for (client, destination), pair in self._pairs.items()
        ]
        rows.sort(key=_by_size)
        return rows

    def add(
        self, client: bytes, server: bytes, destination: str, ts_us: int, out_bytes: int, in_bytes: int
    ) -> list[Evidence]:
        """`client` sent `out_bytes` to `destination` at address `server`, and got `in_bytes`, until `ts_us` and since
        this was told before. Returns what is too much by now. Traffic to private addresses and groups leaves no
        network, and is not counted."""
        if is_private(server) or is_group(server):
            return _NOTHING
        hour = ts_us // HOUR_US
        person = self._clients.get(client)
        if person is None:
            person = _Client(hour)
            self._clients.add(client, person)
        elif hour != person.hour and person.is_over(hour):
            _turn_client(person, hour)
        pair = self._pair(client, destination, person, hour, ts_us)
        if pair is None:
            self.uncounted += 1
            return _NOTHING
        self.out_bytes += out_bytes
        self.in_bytes += in_bytes
        pair.out_bytes += out_bytes
        pair.in_bytes += in_bytes
        if ts_us > pair.last_us:
            pair.last_us = ts_us
        pair.now += out_bytes
        pair.hour_in += in_bytes
        pair.day_out += out_bytes
        place = self._place(client, destination, hour, ts_us)
        if pair.settings != self._version:
            pair.settings = self._version
            pair.watched = self._is_watched(client, server, destination)
        if not pair.watched:
            return _NOTHING
        person.hour_out += out_bytes
        person.day_out += out_bytes
        found = self._over_set(client, destination, pair, person, ts_us) if self._has_sets else _NOTHING
        if self._settings.baseline and pair.now >= self._settings.floor_bytes:
            unusual = self._unusual(client, destination, pair, person, place, ts_us)
            found = [*found, unusual] if unusual is not None else found
        if pair.now > person.now:
            person.now = pair.now
        if pair.now > place.now:
            place.now = pair.now
        return found

    # -- tables

    def _pair(self, client: bytes, destination: str, person: _Client, hour: int, ts_us: int) -> _Pair | None:
        key = (client, destination)
        pair = self._pairs.get(key)
        if pair is None:
            if person.opened >= self._share:
                return None
            person.opened += 1
            pair = _Pair(hour, ts_us)
            self._pairs.add(key, pair)
        elif hour != pair.hour and pair.is_over(hour):
            if hour // DAY_HOURS != pair.hour // DAY_HOURS:
                pair.day_out = 0
            if hour < pair.hour:
                pair.first_us = min(pair.first_us, ts_us)
                pair.last_us = ts_us
            pair.turn(hour)
            pair.begun_us = ts_us
            pair.hour_in = 0
        return pair

    def _place(self, client: bytes, destination: str, hour: int, ts_us: int) -> _Place:
        place = self._places.get(destination)
        if place is None:
            place = _Place(hour, ts_us, client)
            self._places.add(destination, place)
            return place
        place.turn(hour)
        if ts_us < place.first_us:
            place.first_us = ts_us
        if not place.shared and place.client != client:
            place.shared = True
        return place

    def _is_watched(self, client: bytes, server: bytes, destination: str) -> bool:
        settings = self._settings
        return not self._excepts or (
            destination not in settings.except_domains
            and settings.except_networks.longest(server) is None
            and settings.except_clients.longest(client) is None
        )

    # -- judgement

    def _over_set(self, client: bytes, destination: str, pair: _Pair, person: _Client, ts_us: int) -> list[Evidence]:
        """Set quantities that are exceeded, each told once in its hour or day."""
        settings = self._settings
        day = pair.hour // DAY_HOURS
        found: list[Evidence] = []
        if 0 < settings.out_hour < pair.now and pair.told_hour != pair.hour:
            pair.told_hour = pair.hour
            found.append(self._set(client, destination, pair.now, "hour", settings.out_hour, False, pair, ts_us))
        if 0 < settings.out_day < pair.day_out and pair.told_day != day:
            pair.told_day = day
            found.append(self._set(client, destination, pair.day_out, "day", settings.out_day, False, pair, ts_us))
        if 0 < settings.client_hour < person.hour_out and person.told_hour != person.hour:
            person.told_hour = person.hour
            found.append(
                self._set(client, destination, person.hour_out, "hour", settings.client_hour, True, pair, ts_us)
            )
        if 0 < settings.client_day < person.day_out and person.told_day != day:
            person.told_day = day
            found.append(self._set(client, destination, person.day_out, "day", settings.client_day, True, pair, ts_us))
        return found

    def _set(
        self, client: bytes, destination: str, sent: int, period: str, limit: int, to_all: bool, pair: _Pair, ts_us: int
    ) -> Evidence:
        each = "an hour" if period == "hour" else "a day"
        whom = f"to all destinations together, last to {destination}" if to_all else f"to {destination}"
        reason = f"sent {size_text(sent)} {whom} in this {period} (UTC); the set quantity is {size_text(limit)} {each}"
        return Evidence(DETECTOR, client, destination, SET_SCORE, reason, min(pair.begun_us, ts_us), ts_us)

    def _unusual(
        self, client: bytes, destination: str, pair: _Pair, person: _Client, place: _Place, ts_us: int
    ) -> Evidence | None:
        """What this hour's bytes say, unless they are usual, or told today."""
        sent = pair.now
        if sent < ASYMMETRY * pair.hour_in or pair.hour - person.first_hour < self._settings.learn_hours:
            return None
        usual = max(pair.bound(), TIMES_PEAK * place.peak)
        if sent <= usual:
            return None
        named = not destination[-1:].isdigit() and ":" not in destination
        score = _USUAL_SCORE + _MORE_SCORE * ((not named) + (not place.shared))
        if ts_us - place.first_us < DAY_HOURS * HOUR_US:
            score += _MORE_SCORE
        score += _DOUBLING_SCORE * _doublings(sent, max(usual, self._settings.floor_bytes))
        if person.peak >= sent:
            score -= _HABIT_SCORE
        day = pair.hour // DAY_HOURS
        if pair.told_unusual == day and score < pair.told_score + _AGAIN_SCORE:
            return None
        pair.told_unusual = day
        pair.told_score = score
        minutes = max(1, (ts_us - pair.begun_us + MINUTE_US - 1) // MINUTE_US)
        before = f"{size_text(pair.mean)} an hour, at most {size_text(pair.peak)}" if pair.peak else "nothing"
        reason = (
            f"sent {size_text(sent)} in {minutes} min to {destination}{'' if named else ' (no name)'}; usual for it: "
            f"{before}; of others there: {f'at most {size_text(place.peak)} an hour' if place.shared else 'nobody'}"
        )
        return Evidence(DETECTOR, client, destination, score, reason, pair.begun_us, ts_us)


def _turn_client(person: _Client, hour: int) -> None:
    if hour // DAY_HOURS != person.hour // DAY_HOURS:
        person.day_out = 0
    person.first_hour = min(person.first_hour, hour)
    person.turn(hour)
    person.hour_out = 0
    person.opened = 0


def _doublings(amount: int, bound: int) -> int:
    """How often `bound` doubles within `amount`, up to a limit."""
    count = 0
    while count < _MAX_DOUBLINGS and amount >= 2 * bound:
        bound *= 2
        count += 1
    return count


def _by_size(row: tuple[bytes, str, Carried]) -> tuple[int, bytes, str]:
    return -row[2].out_bytes, row[0], row[1]


def size_text(octets: int) -> str:
    """An amount for people, in units of 1024."""
    if octets < 1 << 20:
        return f"{octets / (1 << 10):.0f} KiB" if octets >= 1 << 10 else f"{octets} bytes"
    return f"{octets / (1 << 30):.1f} GiB" if octets >= 1 << 30 else f"{octets / (1 << 20):.0f} MiB"
