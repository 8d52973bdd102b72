"""Builds the file of a mapped index from a stream of indicators, in memory that does not grow with their number.

Every indicator becomes the bytes of an entry, sorted by a hash of its key: into 256 parts as they come, which wait in a
scratch file, and within a part when its turn comes. Entries of one key are put together then. What is held is one
part, the filter (two bytes a name), the directory (one) and the templates (bounded); a list that has all its names
under one registered domain makes one part as large as itself.
"""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import groupby
from typing import IO, Final
from zlib import crc32

from egressd.intel.index import preference
from egressd.intel.index_format import (
    BITS_PER_KEY,
    ENTRY,
    HEAD_BYTES,
    KEYS_PER_BUCKET,
    MANY_CHANGES,
    MASKS,
    MAX_GROUP,
    MAX_INLINE,
    MAX_TEMPLATES,
    MODE_NAMES,
    MODE_PATHS,
    MODE_RECORDS,
    RECORD,
    WHOLE,
    Head,
    Template,
    indicator_of,
    key_of,
    parse_record,
    render_entry,
    render_head,
    render_record,
    render_template,
    text_of,
    url_text,
)
from egressd.model import Indicator

PARTS: Final = 256
MAX_WAITING: Final = 400_000  # entries held before they go to the scratch file: 40 MB
MAX_PENDING: Final = 65_536  # indicators that come into force later; the soonest are kept
MAX_CHANGES: Final = 1 << 20  # times that are kept apart; when there are more, every second is one

Scratch = Callable[[], IO[bytes]]


class IndexBuilder:
    """Takes indicators one by one and writes the file."""

    def __init__(self, salt: bytes, suffixes: bytes, built_s: int, scratch: Scratch) -> None:
        """`salt` is 16 bytes that no list's author knows. `suffixes` is the digest of the suffix list under which
        indicators were read. Of those that come into force by `built_s` (epoch seconds; 0 for none of them) it is not
        noted when. `scratch` makes a temporary file, open for reading and writing."""
        self.count = 0
        self._salt = salt
        self._suffixes = suffixes
        self._built_s = built_s
        self.max_inline = MAX_INLINE
        self.max_templates = MAX_TEMPLATES
        self.max_changes = MAX_CHANGES
        self.first = Table(salt, scratch)
        self.second = Table(salt, scratch)
        self._templates: dict[Template, int] = {}
        self._by_number: list[Template] = []
        self._pending: list[Indicator] = []
        self._changes: set[int] | None = set()
        self._lengths = [0, 0]

    def extend(self, indicators: Iterable[Indicator]) -> None:
        """Take indicators, whose registered domain must be that of the index's suffix list. Raises ValueError for what
        is no indicator."""
        templates = self._templates
        put = self.first.put
        pack_entry, pack_record = ENTRY.pack, RECORD.pack
        count = 0
        for one in indicators:
            (kind, value, scope, narrowed, registered, rule, source, line, threat, confidence, added_s, expires_s, ref,
             owner, seen_s) = one  # fmt: skip
            count += 1
            template = (kind, scope, narrowed, rule, source, threat, confidence, owner)
            number = templates.get(template, -1)
            if number < 0 and len(templates) < self.max_templates:
                number = templates[template] = len(templates)
                self._by_number.append(template)
            if value == registered and number >= 0 and kind == "domain" and not (added_s or expires_s or ref or seen_s):
                key = b"n" + value.encode()  # the way of nearly every line of a long list
                put(key, pack_entry(19 + len(key), len(key), 1) + key + pack_record(WHOLE, number, line))
                continue
            key, text = key_of(one)
            put(key, render_entry(key, MODE_RECORDS, 1, render_record(one, text, number)))
            if key[:1] == b"a":
                self._lengths[len(key) == 18] |= 1 << key[1]
            if added_s or expires_s:
                self._note_times(one)
        self.count += count

    def write(self, file: IO[bytes]) -> Head:
        """Write everything; the file is empty and open for writing and seeking."""
        file.write(bytes(HEAD_BYTES))
        filter_words = max(64, -(-self.first.count * BITS_PER_KEY // 64))
        words = array("Q", bytes(8 * filter_words))
        filter_at = _pad(file)
        file.seek(8 * filter_words, 1)
        first = self._write_table(file, self.first, words)
        second = self._write_table(file, self.second, None)
        templates_at, templates = _write_blobs(file, [render_template(one) for one in self._by_number])
        self._pending.sort(key=lambda one: one.added_s)
        blobs = [render_record(one, "", -1) for one in self._pending[:MAX_PENDING]]
        pending_at, pending = _write_blobs(file, blobs)
        changes_at = _pad(file)
        changes = array("Q", sorted(self._changes or ()))
        file.write(changes.tobytes())
        file_bytes = file.tell()
        file.seek(filter_at)
        file.write(words.tobytes())
        many = self._changes is None
        head = Head._make(
            (
                *(self._salt, file_bytes, self.count, self._built_s, filter_at, filter_words, *first, *second),
                *(templates_at, templates, pending_at, pending, changes_at, MANY_CHANGES if many else len(changes)),
                *(*self._lengths, self._suffixes, b""),
            )
        )
        file.seek(0)
        file.write(render_head(head))
        file.flush()
        return head

    def _note_times(self, one: Indicator) -> None:
        if one.added_s > self._built_s:
            self._pending.append(one)
            if len(self._pending) > 2 * MAX_PENDING:
                self._pending.sort(key=lambda one: one.added_s)
                del self._pending[MAX_PENDING:]
        if self._changes is not None:
            self._changes.update(time for time in (one.added_s, one.expires_s) if time)
            if len(self._changes) > self.max_changes:
                self._changes = None

    def _write_table(self, file: IO[bytes], table: Table, words: array[int] | None) -> tuple[int, int, int, int]:
        """(place of the directory, buckets, place of the entries, their bytes)."""
        buckets = max(1, table.count // KEYS_PER_BUCKET)
        directory = array("Q", bytes(8 * (buckets + 1)))
        entries_at = file.tell()
        place = filled = 0  # `filled` buckets have their beginning noted
        word_count = len(words) if words is not None else 0
        unpack_entry = ENTRY.unpack_from
        for pieces in table.sorted_parts():
            out: list[bytes] = []
            for hashed, entry in self._merged(pieces):
                bucket = int.from_bytes(hashed, "big") * buckets >> 64
                while filled <= bucket:
                    directory[filled] = place
                    filled += 1
                place += len(entry)
                out.append(entry)
                if words is not None:
                    crc = crc32(entry[10 : 10 + unpack_entry(entry)[1]])
                    words[(crc * word_count) >> 32] |= MASKS[crc & 4095]
            file.write(b"".join(out))
        while filled <= buckets:
            directory[filled] = place
            filled += 1
        directory_at = _pad(file)
        file.write(directory.tobytes())
        return directory_at, buckets, entries_at, place

    def _merged(self, pieces: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """(hash, entry) of each key once. Pieces are a hash and the entry of one record, sorted."""
        at, end = 0, len(pieces)
        while at < end:
            piece = pieces[at]
            hashed = piece[:8]
            start = at
            at += 1
            if at < end and pieces[at].startswith(hashed):
                while at < end and pieces[at].startswith(hashed):
                    at += 1
                yield from self._together(pieces[start:at])
            else:
                yield hashed, piece[8:]

    def _together(self, group: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Entries of several records of one key; of two keys that share a hash one after the other."""
        for key, pieces in groupby(sorted(group, key=_key), key=_key):
            same = list(pieces)
            yield group[0][:8], self._joined(key, same) if len(same) > 1 else same[0][8:]

    def _joined(self, key: bytes, pieces: list[bytes]) -> bytes:
        """One entry of all records of a key, the preferred one first."""
        text, letter = text_of(key), key[:1].decode()
        body_at = 18 + len(key)
        found = [(self._indicator(piece[body_at:], text, letter), piece[body_at:]) for piece in pieces]
        found.sort(key=lambda row: preference(row[0]))
        if len(found) > self.max_inline and letter == "n":
            for one, _ in found:
                self._put_second(b"h" + one.value.encode(), one, one.value)
            siblings = [row for row in found if row[0].registered_domain and row[0].scope == "registered"]
            kept = self._kept(siblings)
            return render_entry(key, MODE_NAMES, len(kept), b"".join(body for _, body in kept))
        if len(found) > self.max_inline and letter == "u":
            lengths: set[int] = set()
            for one, _ in found:
                start = url_text(one.value)
                lengths.add(len(start) - len(text))
                self._put_second(b"p" + start.encode("utf-8", "surrogatepass"), one, start)
            packed = array("I", sorted(lengths, reverse=True))
            return render_entry(key, MODE_PATHS, len(packed), packed.tobytes())
        kept = self._kept(found)
        return render_entry(key, MODE_RECORDS, len(kept), b"".join(body for _, body in kept))

    def _put_second(self, key: bytes, one: Indicator, text: str) -> None:
        template = (
            one.kind,
            one.scope,
            one.narrowed,
            one.suffix_rule,
            one.source,
            one.threat,
            one.confidence,
            one.owner,
        )
        record = render_record(one, text, self._templates.get(template, -1))
        self.second.put(key, render_entry(key, MODE_RECORDS, 1, record))

    def _kept(self, found: list[Row]) -> list[Row]:
        """Not more of each source than one question may read: those that are in force longest, then the preferred."""
        if len(found) <= MAX_GROUP:
            return found
        of_source: dict[str, int] = {}
        kept: list[int] = []
        for number in sorted(range(len(found)), key=lambda number: _lasting(found[number][0])):
            source = found[number][0].source
            of_source[source] = of_source.get(source, 0) + 1
            if of_source[source] <= MAX_GROUP:
                kept.append(number)
        return [found[number] for number in sorted(kept)]

    def _indicator(self, body: bytes, text: str, letter: str) -> Indicator:
        record, _ = parse_record(body, 0, text, letter)
        return indicator_of(record, record.own or self._by_number[record.template])


Row = tuple[Indicator, bytes]  # an indicator and its record


class Table:
    """Entries on their way into a table: a part for each first byte of their hash."""

    def __init__(self, salt: bytes, scratch: Scratch) -> None:
        self.count = 0
        self._salt = salt
        self._scratch = scratch
        self._file: IO[bytes] | None = None
        self._parts: list[list[bytes]] = [[] for _ in range(PARTS)]
        self._written: list[list[int]] = [[] for _ in range(PARTS)]  # where parts begin in the scratch file
        self._waiting = 0
        self.max_waiting = MAX_WAITING

    def put(self, key: bytes, entry: bytes) -> None:
        """An entry of one record; those of the same key are put together later."""
        hashed = blake2b(key, digest_size=8, key=self._salt).digest()
        self._parts[hashed[0]].append(hashed + entry)
        self.count += 1
        self._waiting += 1
        if self._waiting >= self.max_waiting:
            self._flush()

    def _flush(self) -> None:
        file = self._file = self._file or self._scratch()
        for number, pieces in enumerate(self._parts):
            if pieces:
                self._written[number].append(file.tell())
                marshal.dump(pieces, file)  # our own bytes, in a file that nobody else can open
                self._parts[number] = []
        self._waiting = 0

    def sorted_parts(self) -> Iterator[list[bytes]]:
        """The pieces (hash and entry) in order of hash, part by part; each is let go when the next is asked for."""
        for number in range(PARTS):
            pieces = self._parts[number]
            self._parts[number] = []
            for place in self._written[number]:
                if self._file is not None:
                    self._file.seek(place)
                    pieces += marshal.load(self._file)
            pieces.sort()
            yield pieces
        if self._file is not None:
            self._file.close()


def _key(piece: bytes) -> bytes:
    return piece[18 : 18 + int(ENTRY.unpack_from(piece, 8)[1])]


def _lasting(one: Indicator) -> tuple[bool, int, int, tuple[int, int, str, int]]:
    return one.expires_s != 0, -one.expires_s, one.added_s, preference(one)


def _pad(file: IO[bytes]) -> int:
    """Go on at a multiple of eight bytes; where that is."""
    file.write(bytes(-file.tell() % 8))
    return file.tell()


def _write_blobs(file: IO[bytes], blobs: list[bytes]) -> tuple[int, int]:
    """(place of the offsets, how many blobs): one offset more than blobs, then the blobs."""
    at = _pad(file)
    place = at + 8 * (len(blobs) + 1)
    offsets = array("Q", [place])
    for blob in blobs:
        place += len(blob)
        offsets.append(place)
    file.write(offsets.tobytes() + b"".join(blobs))
    return at, len(blobs)
