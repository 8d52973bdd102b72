"""One version of a feed over HTTP(S): bounded in time and size, unpacked, and nothing of its credential told.

The server is not trusted. It may stall, drip, lie about the length, send a bomb, redirect in circles or to where the
credential must not go. All that it can do ends in a `FeedError` with a word and a sentence. That sentence is made here,
never taken from the HTTP library or the server: theirs quote addresses, and the credential may stand in an address.
"""

from __future__ import annotations

import asyncio
import errno
import io
import lzma
import os
import re
import ssl
import zipfile
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from egressd import __version__
from egressd.config.feed_options import PLACEHOLDER
from egressd.errors import EgressdError

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

# Why a version was not had; words for metrics and screens.
CREDENTIAL: Final = "credential"
UNREACHABLE: Final = "unreachable"
TLS: Final = "tls"
STALLED: Final = "stalled"
STATUS: Final = "status"
REDIRECT: Final = "redirect"
TOO_LARGE: Final = "too-large"
BOMB: Final = "bomb"
CUT_OFF: Final = "cut-off"
PACKED: Final = "packed"
NOT_TEXT: Final = "not-text"
PROTOCOL: Final = "protocol"
ANSWER: Final = "answer"
KINDS: Final = (
    *(CREDENTIAL, UNREACHABLE, TLS, STALLED, STATUS, REDIRECT, TOO_LARGE, BOMB, CUT_OFF, PACKED, NOT_TEXT, PROTOCOL),
    ANSWER,
)

MAX_REDIRECTS: Final = 5
MAX_LAYERS: Final = 2  # a .gz file that the server has packed once more for the way
MAX_RATIO: Final = 1_000  # unpacked bytes for one packed: deflate's own bound is 1,032, lists reach 5 to 20
RATIO_FROM_BYTES: Final = 4 << 20  # below it no ratio is worth a word
MAX_MEMBERS: Final = 1_000  # of a zip file: each costs ten times what it takes there, before one is looked at
MAX_RETRY_AFTER_S: Final = 86_400
MAX_VALIDATOR: Final = 512  # characters of an ETag

USER_AGENT: Final = f"egressd/{__version__}"

_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_ZIP_MEMBER: Final = b"PK\x01\x02"  # begins each entry of its directory (APPNOTE.TXT section 4.3.12)
_NO_ZIP: Final = (  # what zipfile raises of one that is broken, or packed in a way that it does not read
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")
_CHUNK: Final = 1 << 16
_PACKED_CHUNK: Final = 1 << 12
_LIST_ENDINGS: Final = (".txt", ".csv", ".list", ".hosts", ".json", ".intel", ".dat", ".rpz", ".zone", ".conf")


class FeedError(EgressdError):
    """A version that was not had. `kind` is one of the words above; the message is ours, safe in every sink. `status`
    is the server's, where it is what is wrong."""

    def __init__(self, kind: str, text: str, retry_after_s: int = 0, status: int = 0) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.retry_after_s = retry_after_s
        self.status = status


class Validators(NamedTuple):
    """What a server said of a version, to be asked with whether there is another: ETag and Last-Modified as sent."""

    etag: str = ""
    last_modified: str = ""


class Fetched(NamedTuple):
    """A version: its bytes as they are after unpacking, and its validators. `wire_bytes` is what came over the net.
    `added_last` is a TAXII server's word on when the last object of it was added, `short` what is not in it that should
    be, for people."""

    body: bytes
    validators: Validators
    wire_bytes: int
    added_last: str = ""
    short: str = ""


class _Packed(NamedTuple):
    """An answer as it came."""

    body: bytes
    validators: Validators
    added_last: str


class Times(NamedTuple):
    """Limits in seconds: until connected, without a byte, and for all of it."""

    connect_s: float = 10.0
    stall_s: float = 30.0
    total_s: float = 120.0


class Source(NamedTuple):
    """Where a feed comes from. `url` may hold {credential}; else the credential goes into `header`. It stands in no
    repr: whoever logs a Source logs no secret."""

    url: str
    header: str
    credential: str
    max_bytes: int
    times: Times = Times()
    tls: ssl.SSLContext | None = None  # where the system's authorities are not the ones to trust
    accept: str = "*/*"

    def __repr__(self) -> str:
        return f"Source({redact(self.url)!r})"


def redact(url: str) -> str:
    """A URL as it may be shown: who logs in and what is asked for are taken out; {credential} stays."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = "?..." if parts.query else ""
    return f"{parts.scheme}://{host}{parts.path}{query}"


def open_session() -> ClientSession:
    """A session for fetching; the caller closes it. No cookies, no proxy of the environment, certificates verified."""
    from aiohttp import ClientSession, DummyCookieJar, TCPConnector

    connector = TCPConnector(limit=8, ssl=trust(), force_close=True)
    return ClientSession(connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False, trust_env=False)


def trust(ca_file: str = "") -> ssl.SSLContext:
    """Whom to trust: the system's authorities, or those of a file alone. Raises FeedError when the file is none."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise FeedError(TLS, "ca_file: cannot be read, or holds no certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def fetch_feed(session: ClientSession, source: Source, known: Validators = Validators()) -> Fetched | None:  # noqa: B008
    """The feed's version of now; None when it is still the one that `known` tells of. Raises FeedError."""
    try:
        async with asyncio.timeout(source.times.total_s):
            got = await _follow(session, source, known)
    except TimeoutError:
        raise FeedError(STALLED, f"not done within {source.times.total_s:g} s") from None
    if got is None:
        return None
    body = await asyncio.to_thread(unpack, got.body, source.max_bytes)
    if len(source.credential) >= 8 and source.credential.encode() in body:
        raise FeedError(CREDENTIAL, "the answer holds the credential itself; it is not kept")
    return Fetched(body, got.validators, len(got.body), got.added_last)


async def _follow(session: ClientSession, source: Source, known: Validators) -> _Packed | None:
    """Ask, and go where the server points: never from https to http, the credential only to the host it is for."""
    url = source.url.replace(PLACEHOLDER, quote(source.credential, safe=""))
    origin = urlsplit(url)[:2]
    for _ in range(MAX_REDIRECTS + 1):
        headers = _headers(source, known, to_origin=urlsplit(url)[:2] == origin)
        answer = await _ask(session, source, url, headers)
        if not isinstance(answer, str):
            return answer
        target = urljoin(url, answer)
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FeedError(REDIRECT, "the server points to what is no web address")
        if url.startswith("https:") and parts.scheme != "https":
            raise FeedError(REDIRECT, "the server points from https to http; set url: to where it should go")
        url = target
    raise FeedError(REDIRECT, f"more than {MAX_REDIRECTS} redirects")


def _headers(source: Source, known: Validators, *, to_origin: bool) -> dict[str, str]:
    headers = {"User-Agent": USER_AGENT, "Accept": source.accept, "Accept-Encoding": "gzip"}
    if known.etag:
        headers["If-None-Match"] = known.etag
    if known.last_modified:
        headers["If-Modified-Since"] = known.last_modified
    if source.credential and to_origin and PLACEHOLDER not in source.url:
        headers[source.header] = source.credential
    return headers


async def _ask(session: ClientSession, source: Source, url: str, headers: Mapping[str, str]) -> _Packed | str | None:
    """One request: the packed body with its validators, where it points to, or None for "not modified"."""
    import aiohttp
    from yarl import URL

    times = source.times
    timeout = aiohttp.ClientTimeout(
        total=None, connect=times.connect_s, sock_connect=times.connect_s, sock_read=times.stall_s
    )
    try:
        # encoded=True: what an operator wrote is sent as it is written.
        request = session.get(
            URL(url, encoded=True), headers=headers, timeout=timeout, allow_redirects=False, ssl=source.tls or True
        )
        async with request as answer:
            return await _take(answer, source, known="If-None-Match" in headers or "If-Modified-Since" in headers)
    except aiohttp.ClientConnectorCertificateError as error:
        raise FeedError(TLS, f"the server's certificate is not trusted: {_verify_message(error)}") from None
    except aiohttp.ClientSSLError as error:
        raise FeedError(TLS, f"no TLS with the server: {_verify_message(error)}") from None
    except aiohttp.ServerTimeoutError:
        within = f"no connection within {times.connect_s:g} s, or nothing came for {times.stall_s:g} s"
        raise FeedError(STALLED, within) from None
    except aiohttp.ClientConnectorError as error:
        raise FeedError(UNREACHABLE, f"no connection: {_why(error.os_error)}") from None
    except aiohttp.ClientPayloadError:
        raise FeedError(CUT_OFF, "the connection ended before all of it had come") from None
    except aiohttp.ServerDisconnectedError:
        raise FeedError(CUT_OFF, "the server closed the connection without an answer") from None
    except (aiohttp.ClientError, ValueError) as error:  # ValueError: a header or address that no request can carry
        raise FeedError(PROTOCOL, f"what answers does not speak HTTP as it should ({type(error).__name__})") from None
    except OSError as error:
        raise FeedError(UNREACHABLE, f"the connection failed: {error.strerror or 'no reason given'}") from None


async def _take(answer: ClientResponse, source: Source, *, known: bool) -> _Packed | str | None:
    status = answer.status
    if status == 304 and known:
        return None
    if status in (301, 302, 303, 307, 308):
        location = answer.headers.get("Location", "")
        if not location:
            raise FeedError(REDIRECT, f"status {status} without saying where to")
        return location
    if status != 200:
        raise FeedError(STATUS, _told(status), _retry_after_s(answer.headers.get("Retry-After", "")), status)
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise FeedError(PACKED, "it is packed in a way that was not asked for")
    length = answer.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length[:19]) > source.max_bytes:
        raise FeedError(TOO_LARGE, larger_than(source.max_bytes))
    parts: list[bytes] = []
    size = 0
    async for part in answer.content.iter_chunked(_CHUNK):
        size += len(part)
        if size > source.max_bytes:
            raise FeedError(TOO_LARGE, larger_than(source.max_bytes))
        parts.append(part)
    validators = Validators(
        _printable(answer.headers.get("ETag", "")), _printable(answer.headers.get("Last-Modified", ""))
    )
    return _Packed(b"".join(parts), validators, _moment(answer.headers.get("X-TAXII-Date-Added-Last", "")))


def _told(status: int) -> str:
    advice = {
        401: "; is the credential right?",
        403: "; is the credential right, and may it be fetched so often?",
        404: "; has it moved?",
        429: "; it is fetched too often: a longer every_s",
    }.get(status, "")
    return f"the server answers with status {status}{advice}"


def _retry_after_s(value: str) -> int:
    """Seconds of a Retry-After header (RFC 9110 section 10.2.3); its form as a date is left to the back-off."""
    digits = value.strip()
    return min(int(digits[:9]), MAX_RETRY_AFTER_S) if digits.isascii() and digits.isdigit() else 0


def _printable(value: str) -> str:
    return value if value.isascii() and value.isprintable() and len(value) <= MAX_VALIDATOR else ""


def _moment(value: str) -> str:
    """A time in the one form that TAXII 2.1 has (its `timestamp`: RFC 3339, UTC), "" for anything else."""
    return value if _MOMENT.fullmatch(value) is not None else ""


def _verify_message(error: BaseException) -> str:
    """OpenSSL's own words for what is wrong with a certificate, up to where names come in."""
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message.partition(",")[0] or "verification failed"
    return "the handshake failed"


def _why(error: OSError) -> str:
    """Why there is no connection. The unit that comes with egressd forbids them, until somebody wants feeds."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return "the service may not speak to other machines (IPAddressAllow, see docs/feeds.md)"
    if error.errno and error.errno > 0:  # asyncio puts words of its own into strerror
        return os.strerror(error.errno)
    return error.strerror or "refused, or no such name"


def larger_than(limit: int) -> str:
    """What is wrong with a version of more bytes than that."""
    return f"it is larger than {limit >> 20} MiB (max_mib)" if limit >= 1 << 20 else f"it is larger than {limit} bytes"


# -- unpacking


def unpack(raw: bytes, max_bytes: int) -> bytes:
    """The text inside gzip and zip, told by content; anything else as it is. Raises FeedError."""
    packed = len(raw)
    for _ in range(MAX_LAYERS):
        if raw.startswith(_GZIP):
            raw = _gunzip(raw, max_bytes, packed)
        elif raw.startswith(_ZIP):
            raw = _unzip(raw, max_bytes)
        else:
            break
    if raw.startswith((_GZIP, _ZIP)):
        raise FeedError(PACKED, f"packed more than {MAX_LAYERS} times")
    if raw.startswith(_UTF16):
        raise FeedError(NOT_TEXT, "it is UTF-16 text; UTF-8 is read")
    if b"\0" in raw:
        raise FeedError(NOT_TEXT, "it holds zero bytes: this is no text")
    return raw


def _gunzip(raw: bytes, max_bytes: int, packed: int) -> bytes:
    """All members of a gzip file. What is left over after the last is ignored as gzip does only when it is zeros. A few
    bytes of it at a time: zlib copies what it has not used, and a hostile file has a member every twenty bytes."""
    parts: list[bytes] = []
    size = 0
    at = 0
    while raw.startswith(_GZIP, at):
        stream = zlib.decompressobj(wbits=31)
        try:
            while not stream.eof:
                fed = raw[at : at + _PACKED_CHUNK]
                part = stream.decompress(fed, _CHUNK)
                at += len(fed) - len(stream.unconsumed_tail) - len(stream.unused_data)
                size += len(part)
                _bound(size, max_bytes, packed)
                parts.append(part)
                if not part and not fed and not stream.eof:
                    raise FeedError(CUT_OFF, "its packed form is cut off")
        except zlib.error:
            raise FeedError(PACKED, "its packed form is broken") from None
    if raw[at:].strip(b"\0"):
        raise FeedError(PACKED, "something else follows its packed form")
    return b"".join(parts)


def _unzip(raw: bytes, max_bytes: int) -> bytes:
    """The one list in a zip file."""
    if raw.count(_ZIP_MEMBER) > MAX_MEMBERS:
        raise FeedError(PACKED, f"the zip file holds more than {MAX_MEMBERS:,} files; one list is read")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            lists = [one for one in members if one.filename.lower().endswith(_LIST_ENDINGS)]
            chosen = members if len(members) == 1 else lists
            if len(chosen) != 1:
                raise FeedError(PACKED, f"the zip file holds {len(members)} files; one list is read")
            if chosen[0].flag_bits & 1:
                raise FeedError(PACKED, "the zip file is encrypted")
            parts: list[bytes] = []
            size = 0
            with archive.open(chosen[0]) as stream:
                while part := stream.read(_CHUNK):
                    size += len(part)
                    _bound(size, max_bytes, len(raw))
                    parts.append(part)
            return b"".join(parts)
    except _NO_ZIP:
        raise FeedError(PACKED, "the zip file is broken, or packed in a way that is not read") from None


def _bound(size: int, max_bytes: int, packed: int) -> None:
    if size > RATIO_FROM_BYTES and size > packed * MAX_RATIO:
        raise FeedError(BOMB, f"it unpacks to over {MAX_RATIO} times its size")
    if size > max_bytes:
        raise FeedError(BOMB, f"unpacked {larger_than(max_bytes)}")
