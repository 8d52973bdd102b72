"""A web server on loopback that does whatever a test says, byte for byte, with TLS or without."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Handler = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


class Request:
    """What a client asked for."""

    def __init__(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ")
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }


class Server:
    """`answer` is what it does with every request; `requests` has those that came."""

    def __init__(self, scheme: str) -> None:
        self.requests: list[Request] = []
        self.answer: Handler = respond(b"")
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.scheme = scheme

    @property
    def url(self) -> str:
        return self.at("/feed.txt")

    def at(self, path: str) -> str:
        """The address of a path."""
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            request = Request(await reader.readuntil(b"\r\n\r\n"))
            self.requests.append(request)
            await self.answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server("https" if tls else "http")
    listening = await asyncio.start_server(server.take, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        stuck = list(server.tasks)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


def head(status: int = 200, length: int | None = None, **more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", "Connection: close"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def respond(body: bytes, status: int = 200, *, length: int | None = None, **more: str) -> Handler:
    """Answer with a body; `length` is a lie about it."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, len(body) if length is None else length, **more) + body)
        await writer.drain()

    return answer


def versioned(body: bytes, etag: str) -> Handler:
    """Answer as a server that knows ETags."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.headers.get("if-none-match") == etag:
            writer.write(head(304, 0, ETag=etag))
        else:
            writer.write(head(200, len(body), ETag=etag) + body)
        await writer.drain()

    return answer


def site(places: Mapping[str, Handler]) -> Handler:
    """Answer by path, what follows a ? left out; 404 elsewhere. The mapping may change meanwhile."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await places.get(request.target.partition("?")[0], respond(b"", 404))(request, writer)

    return answer


async def stall(request: Request, writer: asyncio.StreamWriter) -> None:
    """Say hello and nothing more."""
    writer.write(head(200, 1_000) + b"one.bad.example\n")
    await writer.drain()
    await asyncio.get_running_loop().create_future()


async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
    """Take the request and say nothing."""
    await asyncio.get_running_loop().create_future()


async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
    """Send for as long as anybody listens, and do not say how much."""
    writer.write(head(200, Content_Type="text/plain"))
    with suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b"x.bad.example\n" * 4_096)
            await writer.drain()


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS with a certificate that nobody signed; the certificate lies in `folder`/cert.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
