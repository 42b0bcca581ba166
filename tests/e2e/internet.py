"""The stand-in internet: name server and servers behind a route, run in a network namespace of the test's own.

`python internet.py LOG CERT KEY` serves until its standard input ends, and writes one JSON line to LOG for all that arrives:
a DNS query, an HTTP request, the first bytes of a TCP connection, a datagram. What arrived here is what got out.
`python internet.py LOG CERT KEY PORT` listens on that one port instead, as something on the user's own machine would.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from posixpath import normpath
from typing import Any

from dnslib import AAAA, QTYPE, RR, SRV, TXT, A, DNSRecord
from dnslib.dns import DNSError

NAMES = {
    "web.example.test": "203.0.113.10",
    "other.example.test": "203.0.113.11",
    "evil.example.test": "203.0.113.66",
    "files.example.test": "203.0.113.20",
    "apt.example.test": "203.0.113.21",
    "db.example.test": "203.0.113.30",
    "git.example.test": "203.0.113.40",
    "mail.example.test": "203.0.113.50",
    "rebind-loopback.example.test": "127.0.0.1",
    "rebind-private.example.test": "10.9.8.7",
    "rebind-metadata.example.test": "169.254.169.254",
    "rebind-host.example.test": "198.51.100.1",
    "rebind-own.example.test": "198.51.100.2",
}
"""The zone; names below `slow.example.test` are answered after ten minutes."""

TURNING = {
    "turning.example.test": (("203.0.113.10",), ("10.9.8.7",)),
    "both.example.test": (("10.9.8.7", "127.0.0.1", "203.0.113.10"),),
}
"""Names that are answered otherwise each time, and by more than one address."""

RECORDS: dict[tuple[str, str], list[SRV | TXT]] = {
    ("_mongodb._tcp.db.example.test", "SRV"): [
        SRV(0, 5, 5432, "db.example.test"),
        SRV(0, 5, 27017, "evil.example.test"),
    ],
    ("db.example.test", "TXT"): [TXT("authSource=admin&replicaSet=rs0")],
}
"""Records of other types; every name below `tunnel.example.test` has some."""

NAME_SERVER = "203.0.113.53"
CLIENT_FIRST = 5432
POSTGRES = 5433
SSL_REQUEST = b"\x04\xd2\x16\x2f"
SERVER_FIRST = 25
OPAQUE = (853, 8080, 9418, 9999)
FILES = ("/repo.git/", "/registry/")
"""Where files are, below the directory of the log."""


class Internet:
    """All servers, and the log of what reached them."""

    def __init__(self, log: str, certificate: str, key: str) -> None:
        self._log = Path(log).open("a", buffering=1)  # noqa: SIM115 - it lives as long as the process
        self._files = Path(log).parent
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        self._asked: Counter[str] = Counter()

    def note(self, kind: str, **seen: Any) -> None:
        """Record that something arrived."""
        self._log.write(json.dumps({"at": time.time(), "kind": kind, **seen}) + "\n")

    async def serve(self) -> None:
        """Serve until standard input ends."""
        loop = asyncio.get_running_loop()
        dns = _datagram_socket(socket.AF_INET, NAME_SERVER, 53)
        await loop.create_datagram_endpoint(lambda: Datagrams(self.answer_dns), sock=dns)
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for port in (443, 123, 5353, 4500):
                sink = _datagram_socket(family, host, port)
                await loop.create_datagram_endpoint(lambda: Datagrams(self.note_datagram), sock=sink)
            await asyncio.start_server(self.http, host, 80, family=family)
            await asyncio.start_server(self.http, host, 443, family=family, ssl=self._tls)
            await asyncio.start_server(self.banner, host, SERVER_FIRST, family=family)
            await asyncio.start_server(self.database, host, CLIENT_FIRST, family=family)
            await asyncio.start_server(self.postgres, host, POSTGRES, family=family)
            await asyncio.start_server(self.dns_tcp, host, 53, family=family)
            for port in OPAQUE:
                await asyncio.start_server(self.echo, host, port, family=family)
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)

    async def serve_as_host(self, port: int) -> None:
        """Serve one port of every address until standard input ends."""
        loop = asyncio.get_running_loop()
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            sink = _datagram_socket(family, host, port)
            await loop.create_datagram_endpoint(lambda: Datagrams(self.note_datagram), sock=sink)
            await asyncio.start_server(self.echo, host, port, family=family)
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)

    def answer_dns(self, data: bytes, reply: Callable[[bytes], None], where: str) -> None:
        """Answer a query from the zone."""
        try:
            query = DNSRecord.parse(data)
        except DNSError:
            return
        name = str(query.q.qname).rstrip(".").lower()
        self.note("dns", name=name, type=QTYPE[query.q.qtype], server=where)
        answer = query.reply()
        if query.q.qtype in (QTYPE.SRV, QTYPE.TXT):
            for found in self._records(name, QTYPE[query.q.qtype]):
                answer.add_answer(RR(query.q.qname, query.q.qtype, ttl=1, rdata=found))
        addresses = self._addresses(name, query.q.qtype)
        if addresses and query.q.qtype == QTYPE.A:
            for address in addresses:
                answer.add_answer(RR(query.q.qname, QTYPE.A, ttl=1, rdata=A(address)))
        elif name == "six.example.test" and query.q.qtype == QTYPE.AAAA:
            answer.add_answer(RR(query.q.qname, QTYPE.AAAA, ttl=1, rdata=AAAA("2001:db8:113::10")))
        elif not addresses and not answer.rr and name != "six.example.test":
            answer.header.rcode = 3
        if name.endswith(".slow.example.test"):
            asyncio.get_running_loop().call_later(600, reply, bytes(answer.pack()))
        else:
            reply(bytes(answer.pack()))

    def _addresses(self, name: str, kind: int) -> tuple[str, ...]:
        if name in TURNING:
            self._asked[name] += kind == QTYPE.A
            return TURNING[name][self._asked[name] % len(TURNING[name])]
        if name.endswith(".slow.example.test"):
            return ("203.0.113.10",)
        return (NAMES[name],) if name in NAMES else ()

    def _records(self, name: str, kind: str) -> list[SRV | TXT]:
        if name.endswith("tunnel.example.test"):
            return [SRV(0, 0, 443, "back.tunnel.example.test") if kind == "SRV" else TXT("come on in")]
        return RECORDS.get((name, kind), [])

    def note_datagram(self, data: bytes, _reply: Callable[[bytes], None], where: str) -> None:
        """Record a datagram."""
        self.note("udp", bytes=len(data), server=where)

    async def dns_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Record that DNS over TCP was tried."""
        self.note("tcp", port=53, server=_here(writer))
        await self._finish(reader, writer)

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer HTTP/1.1 requests with what was seen, keep-alive; `/big/N` gives N megabytes."""
        tls = writer.get_extra_info("ssl_object")
        self.note("connect", port=443 if tls else 80, server=_here(writer))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, _, rest = head.decode("latin-1").partition("\r\n")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (h.partition(":") for h in rest.split("\r\n") if h)
                }
                length = int(headers.get("content-length", "0"))
                body = await reader.readexactly(length) if length else b""
                seen = {
                    "line": line,
                    "host": headers.get("host", ""),
                    "server": _here(writer),
                    "tls": bool(tls),
                    "body": len(body),
                    "upgrade": headers.get("upgrade") or headers.get("http2-settings") or "",
                }
                self.note("http", **seen)
                if headers.get("upgrade", "").lower() == "websocket":
                    writer.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                    )
                    await self._finish(reader, writer)
                    return
                path = line.split(" ")[1] if line.count(" ") >= 2 else "/"
                if path.startswith(FILES):
                    origin = f"{'https' if tls else 'http'}://{seen['host']}"
                    self._give_file(writer, normpath(path.partition("?")[0]), path.endswith("/"), origin)
                    await writer.drain()
                    continue
                answer = (
                    b"x" * (int(path[5:]) << 20)
                    if path.startswith("/big/")
                    else (json.dumps(seen) + "\n").encode()
                )
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                    % len(answer)
                    + answer
                )
                await writer.drain()
        except (
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
            ssl.SSLError,
            ValueError,
        ):
            pass
        finally:
            writer.close()

    def _give_file(self, writer: asyncio.StreamWriter, path: str, is_page: bool, origin: str) -> None:
        """Answer with a file next to the log: of the repository, for git's dumb HTTP transport, or of the registries."""
        file = self._files / path.lstrip("/") / ("index.html" if is_page else "")
        body = file.read_bytes() if path.startswith(FILES) and file.is_file() else b""
        if is_text := path.startswith(FILES[1]) and not path.endswith((".whl", ".zip")):
            body = body.replace(b"{origin}", origin.encode())
        status = b"200 OK" if body else b"404 Not Found"
        kind = b"text/html" if is_page else b"application/json" if is_text else b"application/octet-stream"
        head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (status, kind, len(body)) + body)

    async def banner(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak first, as SMTP servers do, then give back what comes."""
        self.note("connect", port=SERVER_FIRST, server=_here(writer))
        writer.write(b"220 mail.example.test ESMTP\r\n")
        await self._echo(reader, writer, SERVER_FIRST)

    async def database(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Refuse a Postgres SSLRequest with `N` and give back what follows."""
        self.note("connect", port=CLIENT_FIRST, server=_here(writer))
        try:
            first = await reader.read(4096)
        except ConnectionError:
            return
        self.note("tcp", port=CLIENT_FIRST, server=_here(writer), first=first[:64].decode("latin-1"))
        writer.write(b"N" if first[4:8] == SSL_REQUEST else b"R" + first)
        await self._echo(reader, writer, CLIENT_FIRST)

    async def postgres(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Refuse TLS, let anyone in, and answer each query with no rows."""
        self.note("connect", port=POSTGRES, server=_here(writer))
        ready = b"Z\0\0\0\5I"
        try:
            while await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4) == SSL_REQUEST:
                writer.write(b"N")
            writer.write(b"R\0\0\0\x08\0\0\0\0" + ready)
            while await reader.readexactly(1) == b"Q":
                await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
                writer.write(b"C\0\0\0\x0dSELECT 0\0" + ready)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give back what comes."""
        port = writer.get_extra_info("sockname")[1]
        self.note("connect", port=port, server=_here(writer))
        await self._echo(reader, writer, port)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        try:
            while data := await reader.read(4096):
                self.note("tcp", port=port, server=_here(writer), first=data[:64].decode("latin-1"))
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _finish(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._echo(reader, writer, int(writer.get_extra_info("sockname")[1]))


class Datagrams(asyncio.DatagramProtocol):
    """Hands each datagram on, with how to answer it."""

    def __init__(self, heard: Callable[[bytes, Callable[[bytes], None], str], None]) -> None:
        self._heard = heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        address, port = self._transport.get_extra_info("sockname")[:2]
        here = f"{address}:{port}"
        self._heard(data, lambda answer: self._transport.sendto(answer, addr), here)


def _datagram_socket(family: int, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((host, port))
    made.setblocking(False)
    return made


def _here(writer: asyncio.StreamWriter) -> str:
    return str(writer.get_extra_info("sockname")[0])


if __name__ == "__main__":
    served = Internet(*sys.argv[1:4])
    asyncio.run(served.serve_as_host(int(sys.argv[4])) if sys.argv[4:] else served.serve())
