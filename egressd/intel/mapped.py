"""An index that lies in a file: what `intel.index` answers, for ten million names, in the memory of all who ask.

Most names are in no list, and a look at the filter says so: two words of memory that all processes share. What passes
it is looked up in the table, whose bytes are read as they are needed. Indicators are made when they are told, not
before. The layout is in `intel.index_format`; `intel.mapped_build` writes it.

Its answers are those of `Index.build` with the same indicators, with one bound: see MAX_GROUP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from egressd.errors import IndexDamaged
from egressd.intel.index import NEVER_S, Skip, covers_path
from egressd.intel.index_format import (
    COUNT_BITS,
    ENTRY,
    HEAD_BYTES,
    MANY_CHANGES,
    MODE_NAMES,
    MODE_PATHS,
    MODE_RECORDS,
    OFFSET,
    OFFSETS,
    Head,
    Record,
    Template,
    indicator_of,
    key_of,
    masks,
    parse_head,
    parse_record,
    parse_template,
    text_of,
    url_text,
)
from egressd.intel.paths import normal_path
from egressd.model import Indicator, Match
from egressd.names import Suffixes

MAX_BUCKET_BYTES: Final = 64 << 20  # one key of one list: no list is longer
MAX_READ_TEMPLATES: Final = 65_536  # kept as read
_NAME_SEED: Final = crc32(b"n")
_MASK_BITS: Final = 4095
_READ_AT_ONCE: Final = 1 << 20  # bytes of the table, where all of it is gone through

Read = Callable[[int, int], bytes]


class MappedIndex:
    """Indicators in a file. Every question may raise IndexDamaged: the file is no more what it was when it was built.

    `read(at, size)` gives bytes of the file, fewer only past its end; `words` is the filter, mapped, as unsigned 64-bit
    numbers; `reopen` and its arguments make this index again in another process.
    """

    def __init__(
        self,
        head: Head,
        read: Read,
        words: memoryview,
        suffixes: Suffixes,
        reopen: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
    ) -> None:
        if len(words) != head.filter_words:
            raise IndexDamaged("the filter is not all there")
        self.head = head
        self._read = read
        self._words = words
        self._word_count = head.filter_words
        self._masks = masks()
        self._suffixes = suffixes
        self.reopen = reopen
        self._templates: dict[int, Template] = {}
        self._lengths4 = [length for length in range(32, -1, -1) if head.lengths4 >> length & 1]
        self._lengths6 = [length for length in range(128, -1, -1) if head.lengths6 >> length & 1]

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: they open the same file."""
        if self.reopen is None:
            raise TypeError("an index in memory does not travel")
        return self.reopen

    @property
    def size(self) -> int:
        """How many indicators there are, in force or not."""
        return self.head.indicators

    # -- the four questions

    def match_name(self, name: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a normal name at a time (epoch seconds), those left out that `skip` is true of."""
        registered, _, rule = self._suffixes.split(name)
        return self.match_split(name, registered, rule, now_s, skip)

    def match_split(self, name: str, registered: str, rule: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """As `match_name`, of a name that is split already."""
        text = registered or name
        raw = text.encode()
        crc = crc32(raw, _NAME_SEED)
        mask = self._masks[crc & _MASK_BITS]
        if self._words[(crc * self._word_count) >> 32] & mask != mask:
            return None
        mode, count, body = self._entry(b"n" + raw, False)
        if mode == MODE_NAMES:
            listed = name
            while True:
                found = self._host(listed, name, registered, rule, now_s, skip)
                if found is not None or not registered or listed == registered:
                    break
                listed = listed[listed.find(".") + 1 :]
            if found is not None:
                return found
        return self._among(body, count, text, name, registered, rule, now_s, skip)

    def _among(
        self, body: bytes, count: int, text: str, name: str, registered: str, rule: str, now_s: int, skip: Skip | None
    ) -> Match | None:
        """The best of the records of a registered domain, which are in order of preference."""
        sibling: Indicator | None = None
        at = 0
        for _ in range(count):
            record, at = parse_record(body, at, text, "n")
            if record.added_s > now_s or (record.expires_s and now_s >= record.expires_s):
                continue
            value = record.value
            below = registered != "" and name.endswith(value) and name[-len(value) - 1 : -len(value)] == "."
            if name != value and not below and sibling is not None:
                continue
            one = self._indicator(record)
            if skip is not None and skip(one):
                continue
            if name == value or (below and one.scope != "exact"):
                return Match("host", one, registered, rule)
            if sibling is None and registered and one.scope == "registered":
                sibling = one
        return Match("sibling", sibling, registered, rule) if sibling is not None else None

    def _host(self, listed: str, name: str, registered: str, rule: str, now_s: int, skip: Skip | None) -> Match | None:
        """What a listed name says of `name`, where the names of its domain lie in the second table."""
        _, count, body = self._entry(b"h" + listed.encode(), True)
        for one in self._in_force(body, count, listed, "h", now_s, skip):
            if one.scope != "exact" or listed == name:
                return Match("host", one, registered, rule)
        return None

    def match_packed(self, addr: bytes, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a packed address, of that form alone, at a time; the most specific network first."""
        bits = 8 * len(addr)
        number = int.from_bytes(addr, "big")
        for length in self._lengths4 if bits == 32 else self._lengths6:
            shift = bits - length
            key = b"a" + bytes((length,)) + (number >> shift << shift).to_bytes(len(addr), "big")
            if self._may_hold(key):
                _, count, body = self._entry(key, False)
                for one in self._in_force(body, count, "", "a", now_s, skip):
                    return Match("address", one, "", "")
        return None

    def match_url(self, host: str, path: str, now_s: int, skip: Skip | None = None) -> Match | None:
        """What covers a request at a time; the longest listed path wins. `host` is a normal name or an address as text,
        `path` in origin form with its query."""
        key = b"u" + host.encode("utf-8", "surrogatepass")
        if not self._may_hold(key):
            return None
        mode, count, body = self._entry(key, False)
        path = normal_path(path if path.startswith("/") else "/" + path)
        if mode == MODE_PATHS:
            if len(body) != 4 * count:
                raise IndexDamaged("an entry is damaged")
            for length in memoryview(body).cast("I"):
                if covers_path(length, path):
                    start = host + path[:length]
                    _, found, records = self._entry(b"p" + start.encode("utf-8", "surrogatepass"), True)
                    for one in self._in_force(records, found, start, "p", now_s, skip):
                        return Match("url", one, one.registered_domain, one.suffix_rule)
            return None
        for one in self._in_force(body, count, host, "u", now_s, skip):
            listed = one.value[one.value.find("/") :] if "/" in one.value else ""
            if covers_path(len(listed), path) and path.startswith(listed):
                return Match("url", one, one.registered_domain, one.suffix_rule)
        return None

    def holds(self, one: Indicator) -> bool:
        """Whether this very indicator is listed, on whatever line."""
        wanted = one._replace(line=0)
        return any(other._replace(line=0) == wanted for other in self.alike(one))

    def alike(self, one: Indicator) -> Iterator[Indicator]:
        """The indicators that lie under the same key."""
        try:
            key, text = key_of(one)
        except ValueError:  # no indicator that anybody listed
            return iter(())
        mode, count, body = self._entry(key, False) if self._may_hold(key) else (MODE_RECORDS, 0, b"")
        letter = key[:1]
        if mode != MODE_RECORDS:
            letter, text = (b"h", one.value) if mode == MODE_NAMES else (b"p", url_text(one.value))
            _, count, body = self._entry(letter + text.encode("utf-8", "surrogatepass"), True)
        return self._records(body, count, text, letter.decode())

    def pending_after(self, now_s: int) -> list[Indicator]:
        """Indicators that come into force after a time, in order of `added_s`: for searching history then. Those of
        which that was no more to come when the index was built are left out."""
        found: list[Indicator] = []
        head = self.head
        for number in range(head.pending - 1, -1, -1):
            start, end = OFFSETS.unpack(self._exactly(head.pending_at + 8 * number, 16))
            record, _ = parse_record(self._exactly(start, end - start), 0, "", "")
            if record.added_s <= now_s:
                break
            found.append(self._indicator(record))
        return found[::-1]

    def changes_around(self, now_s: int) -> tuple[int, int]:
        """The time since when, and the one until before which, the same indicators are in force; 0 and NEVER_S for
        always."""
        head = self.head
        if head.changes == MANY_CHANGES:
            return now_s, now_s + 1
        low, high = 0, head.changes
        while low < high:
            middle = (low + high) // 2
            if self._change(middle) <= now_s:
                low = middle + 1
            else:
                high = middle
        return self._change(low - 1) if low else 0, self._change(low) if low < head.changes else NEVER_S

    def _change(self, number: int) -> int:
        return int(OFFSET.unpack(self._exactly(self.head.changes_at + 8 * number, 8))[0])

    def listed(self) -> Iterator[Indicator]:
        """Every indicator, in no order that means anything."""
        head = self.head
        for key, mode, count, body in self._entries(head.entries_at, head.entries_bytes):
            if mode == MODE_RECORDS:
                yield from self._records(body, count, text_of(key), key[:1].decode("latin-1"))
        for key, _, count, body in self._entries(head.entries2_at, head.entries2_bytes):
            yield from self._records(body, count, text_of(key), key[:1].decode("latin-1"))

    # -- the file

    def _may_hold(self, key: bytes) -> bool:
        crc = crc32(key)
        mask = self._masks[crc & _MASK_BITS]
        return bool(self._words[(crc * self._word_count) >> 32] & mask == mask)

    def _exactly(self, at: int, size: int) -> bytes:
        if not 0 <= size <= MAX_BUCKET_BYTES or at < 0 or at + size > self.head.file_bytes:
            raise IndexDamaged("a place outside the file")
        raw = self._read(at, size)
        if len(raw) != size:
            raise IndexDamaged("the file has become shorter")
        return raw

    def _entry(self, key: bytes, second: bool) -> tuple[int, int, bytes]:
        """(mode, number of records, the rest) of a key; no records when it is not there."""
        head = self.head
        hashed = int.from_bytes(blake2b(key, digest_size=8, key=head.salt).digest(), "big")
        if second:
            directory_at, buckets, entries_at, total = (
                head.directory2_at, head.buckets2, head.entries2_at, head.entries2_bytes
            )  # fmt: skip
        else:
            directory_at, buckets, entries_at, total = (
                head.directory_at, head.buckets, head.entries_at, head.entries_bytes
            )  # fmt: skip
        start, end = OFFSETS.unpack(self._exactly(directory_at + 8 * (hashed * buckets >> 64), 16))
        if not 0 <= start <= end <= total:
            raise IndexDamaged("a bucket outside the table")
        raw = self._exactly(entries_at + start, end - start)
        at = 0
        while at < len(raw):
            size, body_at = _measures(raw, at)
            if raw[at + 10 : body_at] == key:
                packed = int(ENTRY.unpack_from(raw, at)[2])
                return packed >> COUNT_BITS, packed & (1 << COUNT_BITS) - 1, raw[body_at : at + size]
            at += size
        return MODE_RECORDS, 0, b""

    def _entries(self, at: int, total: int) -> Iterator[tuple[bytes, int, int, bytes]]:
        """All entries of a table: key, mode, number of records, the rest."""
        end = at + total
        raw = b""
        while at < end or raw:
            if at < end:
                size = min(_READ_AT_ONCE, end - at)
                raw += self._exactly(at, size)
                at += size
            place = 0
            while place + 10 <= len(raw) and place + int(ENTRY.unpack_from(raw, place)[0]) <= len(raw):
                size, body_at = _measures(raw, place)
                packed = int(ENTRY.unpack_from(raw, place)[2])
                body = raw[body_at : place + size]
                yield raw[place + 10 : body_at], packed >> COUNT_BITS, packed & (1 << COUNT_BITS) - 1, body
                place += size
            if at >= end and place < len(raw):
                raise IndexDamaged("an entry is cut off")
            raw = raw[place:]

    def _records(self, body: bytes, count: int, text: str, letter: str) -> Iterator[Indicator]:
        at = 0
        for _ in range(count):
            record, at = parse_record(body, at, text, letter)
            yield self._indicator(record)

    def _in_force(
        self, body: bytes, count: int, text: str, letter: str, now_s: int, skip: Skip | None
    ) -> Iterator[Indicator]:
        for one in self._records(body, count, text, letter):
            if one.added_s <= now_s and (one.expires_s == 0 or now_s < one.expires_s):
                if skip is None or not skip(one):
                    yield one

    def _indicator(self, record: Record) -> Indicator:
        return indicator_of(record, record.own or self._template(record.template))

    def _template(self, number: int) -> Template:
        found = self._templates.get(number)
        if found is None:
            if not 0 <= number < self.head.templates:
                raise IndexDamaged("a template that is not there")
            start, end = OFFSETS.unpack(self._exactly(self.head.templates_at + 8 * number, 16))
            found, _ = parse_template(self._exactly(start, end - start), 0)
            if len(self._templates) < MAX_READ_TEMPLATES:
                self._templates[number] = found
        return found


def _measures(raw: bytes, at: int) -> tuple[int, int]:
    """(bytes of the entry, where its records begin). Raises IndexDamaged."""
    if at + 10 > len(raw):
        raise IndexDamaged("an entry is cut off")
    size, key_bytes, _ = ENTRY.unpack_from(raw, at)
    body_at = at + 10 + key_bytes
    if at + size > len(raw) or body_at > at + size:
        raise IndexDamaged("an entry is cut off")
    return size, body_at


def open_mapped(
    file_bytes: int,
    read: Read,
    map_words: Callable[[int, int], memoryview],
    suffixes: Suffixes,
    reopen: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
) -> MappedIndex:
    """The index in a file of `file_bytes`, in time that does not grow with it. `map_words(at, size)` maps that part, as
    unsigned 64-bit numbers. Raises IndexDamaged."""
    head = parse_head(read(0, HEAD_BYTES), file_bytes)
    return MappedIndex(head, read, map_words(head.filter_at, 8 * head.filter_words), suffixes, reopen)


def is_gone(index: MappedIndex) -> bool:
    """Whether somebody has taken away the file that other processes would open an index from. Of a folder that was
    closed to us nobody can say: it counts as there."""
    if index.reopen is None:
        return False
    try:
        return not Path(str(index.reopen[1][0])).exists()
    except OSError:
        return False
