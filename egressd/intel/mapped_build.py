"""Builds the file of a mapped index from a stream of indicators, in memory that does not grow with their number.

Every indicator becomes the bytes of an entry, sorted by a hash of its key (mapped_parts.py). Entries of one key are put
together when their turn comes. What is held is one part of 256, the filter (two bytes a name), the directory (one) and
the templates (bounded); a list that has all its names under one registered domain makes one part as large as itself.

Reading and writing can be shared by processes: each of several builders takes its lists, `told` and `join` bring them
together, and `write` hands out stretches of the table to whoever runs them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import IO, Final, NamedTuple
from zlib import crc32

from egressd.intel.index import preference
from egressd.intel.index_format import (
    BITS_PER_KEY,
    ENTRY,
    HEAD_BYTES,
    KEYS_PER_BUCKET,
    MANY_CHANGES,
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
    masks,
    parse_record,
    render_entry,
    render_head,
    render_record,
    render_template,
    text_of,
    url_text,
)
from egressd.intel.mapped_parts import PARTS, MakeScratch, Table, Told
from egressd.model import Indicator

MAX_PENDING: Final = 65_536  # indicators that come into force later; the soonest are kept
MAX_CHANGES: Final = 1 << 20  # times that are kept apart; when there are more, every second is one
COPIED_BYTES: Final = 1 << 20  # at a time


class Gathered(NamedTuple):
    """What a builder in another process has taken in, beside what is in its scratch file."""

    taken: int
    entries: Told
    templates: list[Template]
    pending: list[Indicator]
    changes: set[int] | None
    lengths: list[int]


class Stretch(NamedTuple):
    """Some parts of a table, written: where each bucket that they fill begins, counted from the first of their bytes;
    and how many bytes that is."""

    starts: array[int]
    size_bytes: int
    words: bytes  # of the filter
    second: Told  # what they put into the other table


Work = Callable[[], Stretch]


def in_turn(work: list[Work]) -> list[Stretch]:
    """One process does it all."""
    return [one() for one in work]


class IndexBuilder:
    """Takes indicators one by one and writes the file."""

    def __init__(
        self, salt: bytes, suffixes: bytes, built_s: int, scratch: MakeScratch, lane: int = 0, lanes: int = 1
    ) -> None:
        """`salt` is 16 bytes that no list's author knows. `suffixes` is the digest of the suffix list under which
        indicators were read. Of those that come into force by `built_s` (epoch seconds; 0 for none of them) it is not
        noted when. `scratch` makes a temporary file (mapped_parts.Table). Of several builders for one file each is one
        of the `lanes`, numbered from 0."""
        self.count = 0
        self._lane = lane
        self._lanes = lanes
        self._scratch = scratch
        self._salt = salt
        self._suffixes = suffixes
        self._built_s = built_s
        self.max_inline = MAX_INLINE
        self.max_templates = MAX_TEMPLATES // lanes
        self.max_changes = MAX_CHANGES
        self.first = Table(salt, scratch)
        self.second = Table(salt, scratch)
        self._into = self.second  # what is written just now puts there what belongs into the second table
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
                number = templates[template] = len(templates) * self._lanes + self._lane
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

    def part(self) -> None:
        """Make what another process, which is about to take this builder over, shares with this one."""
        self.first.open()

    def told(self) -> Gathered:
        """Everything that was taken in, for `join` in the process that this one parted from."""
        return Gathered(
            self.count, self.first.told(), self._by_number, self._pending, self._changes, self._lengths
        )  # fmt: skip

    def join(self, other: IndexBuilder, told: Gathered) -> None:
        """Take over what `other`, one of several lanes, took in in its own process. This one takes in nothing else."""
        self.count += told.taken
        self.first.join(other.first, told.entries)
        for at, template in enumerate(told.templates):
            number = at * other._lanes + other._lane
            while len(self._by_number) <= number:
                self._by_number.append(template)
            self._by_number[number] = template
            self._templates[template] = number
        for one in told.pending:
            self._note_pending(one)
        self._note_changes(told.changes)
        self._lengths = [mine | others for mine, others in zip(self._lengths, told.lengths, strict=True)]

    def write(self, file: IO[bytes], run: Callable[[list[Work]], list[Stretch]] = in_turn, stretches: int = 1) -> Head:
        """Write everything; the file is empty and open for writing and seeking. The table is written in so many
        stretches, which `run` may let other processes do, all but the first."""
        file.write(bytes(HEAD_BYTES))
        filter_words = max(64, -(-self.first.count * BITS_PER_KEY // 64))
        filter_at = _pad(file)
        file.seek(8 * filter_words, 1)
        words, first = self._write_table(file, self.first, filter_words, run, stretches)
        _, second = self._write_table(file, self.second, 0, in_turn, 1)
        templates_at, templates = _write_blobs(file, [render_template(one) for one in self._by_number])
        self._pending.sort(key=lambda one: one.added_s)
        blobs = [render_record(one, "", -1) for one in self._pending[:MAX_PENDING]]
        pending_at, pending = _write_blobs(file, blobs)
        changes_at = _pad(file)
        changes = array("Q", sorted(self._changes or ()))
        file.write(changes.tobytes())
        file_bytes = file.tell()
        file.seek(filter_at)
        file.write(words)
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
            self._note_pending(one)
        self._note_changes({time for time in (one.added_s, one.expires_s) if time})

    def _note_pending(self, one: Indicator) -> None:
        self._pending.append(one)
        if len(self._pending) > 2 * MAX_PENDING:
            self._pending.sort(key=lambda one: one.added_s)
            del self._pending[MAX_PENDING:]

    def _note_changes(self, times_s: set[int] | None) -> None:
        if times_s is None:
            self._changes = None
        elif self._changes is not None:
            self._changes.update(times_s)
            if len(self._changes) > self.max_changes:
                self._changes = None

    def _write_table(
        self, file: IO[bytes], table: Table, filter_words: int, run: Callable[[list[Work]], list[Stretch]], count: int
    ) -> tuple[bytes, tuple[int, int, int, int]]:
        """(the filter, (place of the directory, buckets, place of the entries, their bytes))."""
        buckets = max(1, table.count // KEYS_PER_BUCKET)
        entries_at = file.tell()
        files = [self._scratch() for _ in range(1, count)]
        sinks: list[Callable[[bytes], object]] = [file.write, *(one.append for one in files)]
        seconds = [Table(self._salt, self._scratch) for _ in sinks]
        bounds = [number * PARTS // count for number in range(count + 1)]
        work: list[Work] = []
        for number, second in enumerate(seconds):
            second.open()
            parts = (bounds[number], bounds[number + 1])
            work.append(partial(self._write_stretch, table, parts, sinks[number], second, buckets, filter_words))
        directory = array("Q")
        place = words = 0
        for number, stretch in enumerate(run(work)):
            # A bucket on the border began in the stretch before; those between have nothing in them.
            begins = (bounds[number] << 56) * buckets >> 64
            starts = stretch.starts[1:] if len(directory) > begins else stretch.starts
            directory.extend([place] * (begins - len(directory)))
            directory.extend([place + start for start in starts])
            place += stretch.size_bytes
            words |= int.from_bytes(stretch.words, "little")
            if number:
                for at in range(0, stretch.size_bytes, COPIED_BYTES):
                    file.write(files[number - 1].read(at, min(COPIED_BYTES, stretch.size_bytes - at)))
                files[number - 1].close()
            self.second.join(seconds[number], stretch.second)
        directory.extend([place] * (buckets + 1 - len(directory)))
        directory_at = _pad(file)
        file.write(directory.tobytes())
        return words.to_bytes(8 * filter_words, "little"), (directory_at, buckets, entries_at, place)

    def _write_stretch(
        self, table: Table, parts: tuple[int, int], sink: Callable[[bytes], object], second: Table, buckets: int,
        filter_words: int,
    ) -> Stretch:  # fmt: skip
        """Write the entries of some parts (the first, and the one after the last) into `sink`, which may be done in
        another process."""
        self._into = second
        starts = array("Q")
        words = array("Q", bytes(8 * filter_words))
        place = 0
        filled = (parts[0] << 56) * buckets >> 64  # buckets up to here have their beginning noted
        unpack_entry, bits = ENTRY.unpack_from, masks()
        for pieces in table.sorted_parts(parts[0], parts[1]):
            out: list[bytes] = []
            for hashed, entry in self._merged(pieces):
                bucket = int.from_bytes(hashed, "big") * buckets >> 64
                while filled <= bucket:
                    starts.append(place)
                    filled += 1
                place += len(entry)
                out.append(entry)
                if filter_words:
                    crc = crc32(entry[10 : 10 + unpack_entry(entry)[1]])
                    words[(crc * filter_words) >> 32] |= bits[crc & 4095]
            sink(b"".join(out))
        return Stretch(starts, place, words.tobytes(), second.told())

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
        self._into.put(key, render_entry(key, MODE_RECORDS, 1, record))

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
