"""How long programs wait for a server that accepts a connection and says nothing, as mode `ask` does while a person decides.

    python -m bench.patience [--most SECONDS] [--python PROGRAM] [--only NAME]

Each program is run by its defaults against ports of its own on the loopback, in plain and, where it speaks it, in TLS. The time is that
from the connection's arrival until the program ends it or makes another one; most try again after that. A program that is not installed is
left out. All run at once: they only wait. Without bars: the figures are those of docs/egress.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

GO = """package main
import ("fmt"; "net/http"; "os")
func main() { answer, err := http.Get(os.Args[1]); fmt.Println(answer != nil, err) }
"""
JAVA = """import java.net.URI; import java.net.http.*;
class Get { public static void main(String[] a) throws Exception {
  HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(a[0])).build(), HttpResponse.BodyHandlers.ofString()); } }
"""
AIOHTTP = """import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession() as session, session.get(sys.argv[1]) as answer: print(answer.status)
asyncio.run(main())
"""


class Program(NamedTuple):
    """A program and how it is run.

    Attributes:
        name: as people call it.
        words: with {url}, {port} and {room}, a directory of its own.
        schemes: of the URL; `tcp` for what speaks another protocol.
    """

    name: str
    words: Sequence[str]
    schemes: Sequence[str] = ("http", "https")


def programs(python: str) -> list[Program]:
    """Those that are looked for."""
    apt = (
        "-o",
        "Dir::Etc::sourcelist={room}/list",
        "-o",
        "Dir::Etc::sourceparts=-",
        "-o",
        "Dir::State::lists={room}",
    )
    return [
        Program("curl", ("curl", "-sS", "{url}")),
        Program("wget", ("wget", "-q", "-O", "-", "{url}")),
        Program("apt-get", ("apt-get", *apt, "update")),
        Program("pip", (python, "-m", "pip", "--isolated", "download", "--no-deps", "-d", "{room}", "-i", "{url}", "none")),
        Program("uv", ("uv", "pip", "install", "--target", "{room}/to", "--cache-dir", "{room}/c", "--index-url", "{url}", "none")),
        Program("npm", ("npm", "view", "none", "--registry", "{url}", "--cache", "{room}")),
        Program("node's fetch", ("node", "-e", "fetch(process.argv[1])", "{url}")),
        Program("git", ("git", "ls-remote", "{url}")),
        Program("cargo", ("cargo", "search", "none", "--index", "sparse+{url}")),
        Program("Go's net/http", ("go", "run", "{room}/get.go", "{url}")),
        Program("Java's HttpClient", ("java", "{room}/Get.java", "{url}")),
        Program("Python's urllib", (python, "-c", "import sys, urllib.request as u; u.urlopen(sys.argv[1])", "{url}")),
        Program("requests", (python, "-c", "import sys, requests; requests.get(sys.argv[1])", "{url}")),
        Program("httpx", (python, "-c", "import sys, httpx; httpx.get(sys.argv[1])", "{url}")),
        Program("aiohttp", (python, "-c", AIOHTTP, "{url}")),
        Program("psql", ("psql", "host=127.0.0.1 port={port} user=none dbname=none"), ("tcp",)),
        Program("ssh", ("ssh", "-o", "BatchMode=yes", "-p", "{port}", "none@127.0.0.1"), ("tcp",)),
    ]  # fmt: skip


def lay(room: Path, url: str) -> None:
    """Write the files that some programs are given."""
    (room / "list").write_text(f"deb [trusted=yes] {url} stable main\n")
    (room / "get.go").write_text(GO)
    (room / "Get.java").write_text(JAVA)


async def patience(program: Program, scheme: str, most: float) -> str:
    """Run a program against a server of its own; return how long its first connection lasted."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[float] = loop.create_future()
    began: list[float] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began.append(loop.time())
        if len(began) == 1:
            with contextlib.suppress(OSError):
                while await reader.read(65536):
                    pass
        # Some leave the first connection as it is, and try by another.
        if not over.done():
            over.set_result(loop.time() - began[0])
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="irons-patience-") as room:
        url = f"{scheme}://127.0.0.1:{port}/"
        lay(Path(room), url)
        words = [
            each.format(url=url, port=port, room=room) if "{" in each and "import" not in each else each
            for each in program.words
        ]
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GOCACHE": f"{room}/go", "HOME": room, "PIP_CONFIG_FILE": os.devnull},
            start_new_session=True,
        )
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait((over, ended), timeout=most, return_when=asyncio.FIRST_COMPLETED)
        if not over.done() and ended.done():
            # Its last connection ends with it.
            await asyncio.wait((over,), timeout=1.0)
        found = (
            f"{over.result():.1f} s"
            if over.done()
            else "did not connect"
            if ended.done()
            else f"> {most:.0f} s"
        )
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await ended
    server.close()
    return found


async def measure(most: float, python: str, only: str) -> None:
    """Measure all that are installed, or only those of a name, and print a table."""
    asked = [
        (each, scheme)
        for each in programs(python)
        if shutil.which(each.words[0]) and only in ("", each.name)
        for scheme in each.schemes
    ]
    found = await asyncio.gather(*(patience(each, scheme, most) for each, scheme in asked))
    print(f"{'program':<20}{'protocol':<10}waits")
    for (each, scheme), waited in zip(asked, found, strict=True):
        print(f"{each.name:<20}{scheme:<10}{waited}")


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--most", type=float, default=150.0, help="seconds after which a program is not waited for"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="the Python with requests, httpx and aiohttp"
    )
    parser.add_argument("--only", default="", help="the one program to measure, by its name")
    options = parser.parse_args()
    asyncio.run(measure(options.most, options.python, options.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
