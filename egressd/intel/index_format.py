"""The file of a mapped index: where everything lies in it, and how one entry and one record are written and read.

    head         fixed size, ends with its own digest: opening checks it and nothing else
    filter       words of 64 bits: what most names that are in no list are recognised by
    directory    of each bucket of the table, where its entries begin
    entries      bucket after bucket
    (directory and entries of the second table)
    templates    what many indicators have in common, once
    pending      indicators that come into force later, soonest first
    changes      the times at which an indicator comes into force or lapses, sorted

A key is one letter and what is looked up: `n` registered domain (or the name, where that is a public suffix itself),
`a` prefix length and first address, `u` a URL's host; in the second table `h` a listed name, `p` host and path. An
entry holds its key in full, so that what a hash finds is compared with what was asked for: two keys never meet.

**Hostile lists.** Which bucket a key falls into depends on BLAKE2b under a secret made anew for each file: nobody who
writes lists can fill one bucket. The filter's hash is a CRC, and a list can be made to collide in it: that sets fewer
bits, not more. Who sends names that pass it costs us what a listed name costs. How many records of one key are read
for one question is bounded too (MAX_GROUP of each source).

Numbers are in the byte order of the machine that wrote the file, which the head tells.
"""

from __future__ import annotations

import struct
from functools import cache
from hashlib import blake2b
from typing import Final, NamedTuple

from egressd.errors import IndexDamaged
from egressd.intel.networks import first_address, parse_network
from egressd.model import Indicator

MAGIC: Final = b"egr-idx\n"
VERSION: Final = 3  # another layout, or form of what is in it, another number: a file of another version is built anew
ORDER_MARK: Final = 0x01020304
SALT_BYTES: Final = 16
DIGEST_BYTES: Final = 16

# Records that one question reads at most, of each source. Only a list that has more lines than that for one registered
# domain or one name, and all of them with dates, can tell the difference, and only by which of its lines is told.
MAX_GROUP: Final = 64
MAX_INLINE: Final = 64  # records of a registered domain or host in one entry; more lie in the second table
KEYS_PER_BUCKET: Final = 8
BITS_PER_KEY: Final = 16  # of the filter; one name of 200 that is not listed passes it
MAX_TEMPLATES: Final = 65_536  # beyond it a record tells everything itself

MODE_RECORDS: Final = 0  # the entry holds its records, the preferred one first
MODE_NAMES: Final = 1  # it holds those that tell of siblings; the names are in the second table
MODE_PATHS: Final = 2  # it holds the lengths of paths, longest first; the paths are in the second table

# -- the head

_HEAD: Final = struct.Struct("=8sII16sQQq 16Q 5s17s 16s")
HEAD_BYTES: Final = _HEAD.size + DIGEST_BYTES


class Head(NamedTuple):
    """The head's numbers. Places and sizes are in bytes from the start of the file; `lengths4` and `lengths6` have a
    bit for every prefix length in use; `suffixes` is a digest of the suffix list that names were split by."""

    salt: bytes
    file_bytes: int
    indicators: int
    built_s: int
    filter_at: int
    filter_words: int
    directory_at: int
    buckets: int
    entries_at: int
    entries_bytes: int
    directory2_at: int
    buckets2: int
    entries2_at: int
    entries2_bytes: int
    templates_at: int
    templates: int
    pending_at: int
    pending: int
    changes_at: int
    changes: int  # how many; MANY_CHANGES when they are too many to tell
    lengths4: int
    lengths6: int
    suffixes: bytes
    digest: bytes = b""


MANY_CHANGES: Final = (1 << 64) - 1


def render_head(head: Head) -> bytes:
    """The bytes of a head; its `digest` is worked out."""
    body = _HEAD.pack(
        MAGIC, VERSION, ORDER_MARK, *head[:20],
        head.lengths4.to_bytes(5, "little"), head.lengths6.to_bytes(17, "little"), head.suffixes,
    )  # fmt: skip
    return body + blake2b(body, digest_size=DIGEST_BYTES).digest()


def parse_head(raw: bytes, file_bytes: int) -> Head:
    """Read a head. Raises IndexDamaged when it is none, of another version or machine, or not that of a whole file."""
    if len(raw) < HEAD_BYTES or raw[:8] != MAGIC:
        raise IndexDamaged("not an index")
    body, digest = raw[: _HEAD.size], raw[_HEAD.size : HEAD_BYTES]
    _, version, mark, *numbers, lengths4, lengths6, suffixes = _HEAD.unpack(body)
    if (version, mark) != (VERSION, ORDER_MARK):
        raise IndexDamaged("an index of another version, or of another kind of machine")
    if blake2b(body, digest_size=DIGEST_BYTES).digest() != digest:
        raise IndexDamaged("the head is damaged")
    head = Head._make(
        (*numbers, int.from_bytes(lengths4, "little"), int.from_bytes(lengths6, "little"), suffixes, digest)
    )
    parts = (
        (head.filter_at, 8 * head.filter_words), (head.directory_at, 8 * (head.buckets + 1)),
        (head.entries_at, head.entries_bytes), (head.directory2_at, 8 * (head.buckets2 + 1)),
        (head.entries2_at, head.entries2_bytes), (head.templates_at, 8 * (head.templates + 1)),
        (head.pending_at, 8 * (head.pending + 1)),
        (head.changes_at, 8 * head.changes if head.changes != MANY_CHANGES else 0),
    )  # fmt: skip
    if head.file_bytes != file_bytes or any(at + size > file_bytes for at, size in parts):
        raise IndexDamaged("not as long as it says")
    if not head.filter_words or not head.buckets or not head.buckets2 or head.filter_at % 8:
        raise IndexDamaged("the head is damaged")
    return head


# -- the filter


def _mask(number: int) -> int:
    """Four of 60 bits: those above would not fit a compiled integer."""
    picked = blake2b(number.to_bytes(2, "big"), digest_size=8, person=b"egressd filter").digest()
    mask = 0
    for byte in picked[:4]:
        mask |= 1 << byte % 60
    return mask


@cache  # made when an index is opened or built: most commands do neither
def masks() -> tuple[int, ...]:
    """The bits of a key in its word of the filter, by the low 12 bits of its CRC; the high bits choose the word."""
    return tuple(_mask(number) for number in range(4096))


# -- keys


def key_of(one: Indicator) -> tuple[bytes, str]:
    """The key that an indicator lies under in the first table, and the text that its record is told from. Raises
    ValueError for a kind that is none of model.Indicator's, or an address or network that is none."""
    if one.kind == "domain":
        text = one.registered_domain or one.value
        return b"n" + text.encode(), text
    if one.kind == "url":
        text = one.value.partition("/")[0].strip("[]")
        return b"u" + text.encode("utf-8", "surrogatepass"), text
    network = parse_network(one.value)
    if network is None or one.kind not in ("address", "network"):
        raise ValueError(f"no indicator: {one.kind} {one.value}")
    return b"a" + bytes((network[1],)) + first_address(*network), ""


def url_text(value: str) -> str:
    """What a URL indicator's path is looked up by."""
    host, slash, path = value.partition("/")
    return host.strip("[]") + slash + path


def text_of(key: bytes) -> str:
    """The text that records under a key are told from. Raises IndexDamaged."""
    if key[:1] == b"a":
        return ""
    try:
        return key[1:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise IndexDamaged("a key is damaged") from error


# -- entries and records

ENTRY: Final = struct.Struct("=IHI")  # bytes of the entry, of its key; mode and number of records
COUNT_BITS: Final = 24
RECORD: Final = struct.Struct("=BII")  # which parts follow, template, line
_TEXT: Final = struct.Struct("=I")
_TIME: Final = struct.Struct("=q")
OFFSET: Final = struct.Struct("=Q")
OFFSETS: Final = struct.Struct("=QQ")

WHOLE: Final = 1  # the value is the key's text; else it follows
OWN_TEMPLATE: Final = 2
ADDED: Final = 4
EXPIRES: Final = 8
REF: Final = 16
REGISTERED: Final = 32  # the registered domain is not the key's text: it follows
FIRST_SEEN: Final = 64

_SCOPES: Final = ("registered", "host", "exact")
_KINDS: Final = ("domain", "address", "network", "url")

Template = tuple[str, str, str, str, str, str, int, str]  # kind scope narrowed rule source threat confidence owner


def render_template(template: Template) -> bytes:
    """What many records have in common."""
    kind, scope, narrowed, rule, source, threat, confidence, owner = template
    head = bytes((_KINDS.index(kind), _SCOPES.index(scope), confidence))
    return head + b"".join(map(_render_text, (narrowed, rule, source, threat, owner)))


def parse_template(raw: bytes, at: int) -> tuple[Template, int]:
    """A template and where it ends. Raises IndexDamaged."""
    if at + 3 > len(raw) or raw[at] >= len(_KINDS) or raw[at + 1] >= len(_SCOPES):
        raise IndexDamaged("a template is damaged")
    kind, scope, confidence = _KINDS[raw[at]], _SCOPES[raw[at + 1]], raw[at + 2]
    narrowed, at = _parse_text(raw, at + 3)
    rule, at = _parse_text(raw, at)
    source, at = _parse_text(raw, at)
    threat, at = _parse_text(raw, at)
    owner, at = _parse_text(raw, at)
    return (kind, scope, narrowed, rule, source, threat, confidence, owner), at


def _render_text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return _TEXT.pack(len(raw)) + raw


def _parse_text(raw: bytes, at: int) -> tuple[str, int]:
    if at + 4 > len(raw):
        raise IndexDamaged("a text is cut off")
    start = at + 4
    end = start + int(_TEXT.unpack_from(raw, at)[0])
    if end > len(raw):
        raise IndexDamaged("a text is cut off")
    try:
        return raw[start:end].decode("utf-8", "surrogatepass"), end
    except UnicodeDecodeError as error:
        raise IndexDamaged("a text is damaged") from error


def render_record(one: Indicator, text: str, template: int) -> bytes:
    """An indicator under a key of which `text` is all but the letter. `template` is its number, -1 for none.
    Raises ValueError when it is not under that key."""
    flags = 0
    rest = b""
    value = one.value
    if value == text:
        flags = WHOLE
    elif one.kind == "domain" and text:
        if not value.endswith("." + text):
            raise ValueError(f"{value} is not under {text}")
        rest = _render_text(value[: -len(text) - 1])
    else:
        rest = _render_text(value)
    if template < 0:
        flags |= OWN_TEMPLATE
        rest += render_template((one.kind, one.scope, one.narrowed, one.suffix_rule, one.source, one.threat,
                                 one.confidence, one.owner))  # fmt: skip
    if one.added_s:
        flags |= ADDED
        rest += _TIME.pack(one.added_s)
    if one.expires_s:
        flags |= EXPIRES
        rest += _TIME.pack(one.expires_s)
    if one.ref:
        flags |= REF
        rest += _render_text(one.ref)
    if one.registered_domain != text:
        flags |= REGISTERED
        rest += _render_text(one.registered_domain)
    if one.first_seen_s:
        flags |= FIRST_SEEN
        rest += _TIME.pack(one.first_seen_s)
    return RECORD.pack(flags, max(template, 0), one.line) + rest


class Record(NamedTuple):
    """A record as read: everything of an indicator, with its template by number or in full."""

    value: str
    template: int
    own: Template | None
    line: int
    added_s: int
    expires_s: int
    ref: str
    registered_domain: str
    first_seen_s: int


def parse_record(raw: bytes, at: int, text: str, letter: str) -> tuple[Record, int]:
    """A record and where it ends. Raises IndexDamaged."""
    if at + 9 > len(raw):
        raise IndexDamaged("a record is cut off")
    flags, template, line = RECORD.unpack_from(raw, at)
    at += 9
    value = registered = text
    own: Template | None = None
    added_s = expires_s = first_seen_s = 0
    ref = ""
    if not flags & WHOLE:
        value, at = _parse_text(raw, at)
        if letter == "n":
            value = f"{value}.{text}"
    if flags & OWN_TEMPLATE:
        own, at = parse_template(raw, at)
    if flags & ADDED:
        added_s, at = _parse_time(raw, at)
    if flags & EXPIRES:
        expires_s, at = _parse_time(raw, at)
    if flags & REF:
        ref, at = _parse_text(raw, at)
    if flags & REGISTERED:
        registered, at = _parse_text(raw, at)
    if flags & FIRST_SEEN:
        first_seen_s, at = _parse_time(raw, at)
    return Record(value, template, own, line, added_s, expires_s, ref, registered, first_seen_s), at


def indicator_of(record: Record, template: Template) -> Indicator:
    """What a record says, in full."""
    kind, scope, narrowed, rule, source, threat, confidence, owner = template
    return Indicator(
        kind, record.value, scope, narrowed, record.registered_domain, rule, source, record.line, threat, confidence,
        record.added_s, record.expires_s, record.ref, owner, record.first_seen_s,
    )  # fmt: skip


def _parse_time(raw: bytes, at: int) -> tuple[int, int]:
    if at + 8 > len(raw):
        raise IndexDamaged("a time is cut off")
    return int(_TIME.unpack_from(raw, at)[0]), at + 8


def render_entry(key: bytes, mode: int, count: int, body: bytes) -> bytes:
    """An entry of a table."""
    return ENTRY.pack(10 + len(key) + len(body), len(key), mode << COUNT_BITS | count) + key + body


def suffix_digest(text: str) -> bytes:
    """What tells one suffix list from another."""
    return blake2b(text.encode(), digest_size=16).digest()
