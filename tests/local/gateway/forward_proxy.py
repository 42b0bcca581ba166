"""A stand-in company proxy: `python forward_proxy.py LOG ADDRESS PORT [OPTION…]` serves until its standard input ends.

It answers CONNECT and requests in absolute form, and writes one JSON line to LOG for each. Options: `auth=BASE64` wants
that Basic authorization; `refuse=PORT` refuses to CONNECT to a port; `own=STATUS` answers requests in absolute form
itself, with a page of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from tests.e2e.internet import NAMES

ELSEWHERE = {"hidden.outside.test": "203.0.113.10", "inner.outside.test": "10.9.8.7"}
"""Names that only the proxy can resolve."""
PAGE = "the proxy of Example Corp says no to 198.51.100.2"


class ForwardProxy:
    """The proxy and its log."""

    def __init__(self, log: str, options: dict[str, str]) -> None:
        self._log = Path(log).open("a", buffering=1)  # noqa: SIM115 - it lives as long as the process
        self._options = options

    async def serve(self, address: str, port: int) -> None:
        """Serve until standard input ends."""
        await asyncio.start_server(self.client, address, port)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            await self._client(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, _, rest = head.partition("\r\n")
        method, target, _ = line.split(" ")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (field.partition(":") for field in rest.split("\r\n") if field)
        }
        seen = {"method": method, "target": target, "host": fields.get("host"), "fields": fields}
        self._log.write(json.dumps(seen) + "\n")
        if "auth" in self._options and fields.get("proxy-authorization") != f"Basic {self._options['auth']}":
            await self._say(writer, "407 Proxy Authentication Required")
            return
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            if self._options.get("refuse") == port:
                await self._say(writer, "403 Forbidden")
                return
            await self._tunnel(host.strip("[]"), int(port), reader, writer)
            return
        if "own" in self._options:
            await self._say(writer, self._options["own"])
            return
        url = urlsplit(target)
        kept = "".join(
            f"{name}: {value}\r\n" for name, value in fields.items() if not name.startswith("proxy-")
        )
        line = f"{method} {url.path} HTTP/1.1\r\n"
        await self._forward(url, f"{line}{kept}\r\n", int(fields.get("content-length", "0")), reader, writer)

    async def _say(self, writer: asyncio.StreamWriter, status: str) -> None:
        text = f"HTTP/1.1 {status}\r\nX-Squid-Error: ERR\r\nContent-Length: {len(PAGE)}\r\n\r\n{PAGE}"
        writer.write(text.encode())
        await writer.drain()

    async def _reach(
        self, host: str, port: int, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            return await asyncio.open_connection({**NAMES, **ELSEWHERE}.get(host, host), port)
        except OSError:
            await self._say(writer, "503 Service Unavailable")
            return None

    async def _tunnel(
        self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if (far := await self._reach(host, port, writer)) is None:
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: corp\r\n\r\n")
        await asyncio.gather(_pipe(reader, far[1]), _pipe(far[0], writer))

    async def _forward(
        self,
        url: SplitResult,
        head: str,
        length: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if (far := await self._reach(url.hostname or "", url.port or 80, writer)) is None:
            return
        far[1].write(head.encode("latin-1") + await reader.readexactly(length))
        # The server of these tests ends a connection when its client does.
        far[1].write_eof()
        answer = await far[0].readuntil(b"\r\n\r\n")
        writer.write(
            answer.replace(b"\r\n", b"\r\nVia: 1.1 proxy.corp.test\r\nConnection: keep-alive\r\n", 1)
        )
        await _pipe(far[0], writer)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        writer.close()


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[4:])
    asyncio.run(ForwardProxy(sys.argv[1], words).serve(sys.argv[2], int(sys.argv[3])))
