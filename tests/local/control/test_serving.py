"""Connections to the API: those with a key are served no matter what others do, and every phase ends in time."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import pytest
from tests.local.control.lab import ForwardLoop, Lab, control_plane, run, until
from tests.local.control.test_audit_api import Writer
from tests.local.control.test_keys import certificate, free_port  # noqa: F401 (a fixture)

from irons_local.control.http import listeners
from irons_local.control.http.conversation import HttpConnection
from irons_local.control.http.gate import OF_ONE_PEER, Gate
from irons_local.control.http.phases import Phase, TimesAllowed

LIMIT = 1000.0
"""Seconds that each phase may take where a test puts the clock forward: no machine stands still for so long."""
LIMITS = TimesAllowed(*[LIMIT] * len(TimesAllowed._fields))._replace(kept=100 * LIMIT)


class Served(NamedTuple):
    """A control plane that listens on TCP, and a key for it."""

    lab: Lab
    port: int
    key: str
    tls: ssl.SSLContext | None

    @property
    def gate(self) -> Gate:
        """Where its TCP connections are counted."""
        return self.lab.server._listeners[0]._gate

    def client(self, **more: Any) -> httpx.AsyncClient:
        """A client with the key."""
        scheme, verify = ("http", False) if self.tls is None else ("https", self.tls)
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{self.port}", headers=headers, verify=verify, timeout=60, **more
        )

    async def comes_to(self, phase: Phase) -> None:
        """Wait until a connection is at this phase, and its time has begun."""

        async def there() -> bool:
            guests = [cast("HttpConnection", guest) for guest in self.gate.guests]
            return any(guest._phase is phase and guest._timer is not None for guest in guests)

        await until(there)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare TCP connection, without TLS."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    def request(self, line: str = "GET /version HTTP/1.1", *headers: str) -> bytes:
        """The head of a request with the key."""
        return "\r\n".join([line, "Host: x", f"Authorization: Bearer {self.key}", *headers, "", ""]).encode()


@asynccontextmanager
async def served(directory: Path, files: tuple[str, str] | None = None) -> AsyncIterator[Served]:
    """A control plane on loopback, with TLS where there is a certificate."""
    port = free_port()
    more: dict[str, Any] = {} if files is None else {"tls_cert": files[0], "tls_key": files[1]}
    tls = None if files is None else ssl.create_default_context(cafile=files[0])
    async with control_plane(directory, host="127.0.0.1", port=port, **more) as lab:
        key = (await lab.client.post("/keys", json={"label": "laptop"})).json()["key"]
        yield Served(lab, port, key, tls)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """One answer: its status, headers and JSON."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, json.loads(body)


@pytest.mark.process
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_silent_connections_shut_nobody_out(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    secure: bool,
) -> None:
    """400 connections that say nothing, and 400 that say half of it, leave room for whoever has a key."""
    files = request.getfixturevalue("certificate") if secure else None

    async def work() -> None:
        async with served(tmp_path, files) as there, there.client() as client:
            held = []
            for said in (b"", b"\x16\x03\x01\x02" if secure else b"GET /version HTTP/1.1\r\nHo"):
                for _ in range(400):
                    _, writer = await there.connect()
                    writer.write(said)
                    held.append(writer)
                    if len(held) % 100 == 0:
                        async with there.client() as fresh:
                            assert (await fresh.get("/version")).status_code == 200
                            assert (await client.get("/version")).status_code == 200
            assert there.gate.strangers <= OF_ONE_PEER
            for writer in held:
                writer.close()

    run(work())


def test_who_makes_place_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is ended for another one gets 503 with the contract's error and a time to try again."""

    async def work() -> None:
        async with served(tmp_path) as there, there.client() as client:
            monkeypatch.setattr(there.gate, "_of_one_peer", 1)
            reader, writer = await there.connect()

            async def counted() -> bool:
                return there.gate.strangers == 1

            await until(counted)
            assert (await client.get("/version")).status_code == 200
            status, headers, body = await answer_of(reader)
            assert (status, headers["retry-after"], list(body)) == (503, "1", ["error"])
            writer.close()

    run(work())


@pytest.mark.slow
def test_a_flood_of_connections_shuts_nobody_out(tmp_path: Path) -> None:
    """While one peer connects as fast as it can, a client at the same address is served on every new connection."""

    async def work() -> None:
        async with served(tmp_path) as there:
            over = asyncio.Event()
            loop = asyncio.get_running_loop()

            async def flood(said: bytes) -> None:
                held: list[socket.socket] = []
                while not over.is_set():
                    held.append(socket.socket())
                    held[-1].setblocking(False)
                    with suppress(OSError):
                        await loop.sock_connect(held[-1], ("127.0.0.1", there.port))
                        await loop.sock_sendall(held[-1], said)
                    if len(held) > 60:
                        held.pop(0).close()
                for each in held:
                    each.close()

            said = (
                b"",
                b"GET / HTTP/1.1\r\n",
                b"GET / HTTP/1.1\r\nAuthorization: Bearer irons_no\r\nHost: x\r\n\r\n",
            )
            floods = [asyncio.create_task(flood(said[number % 3])) for number in range(9)]
            for _ in range(30):
                async with there.client() as fresh:
                    assert (await fresh.get("/version")).status_code == 200
            over.set()
            await asyncio.gather(*floods)
            assert there.gate.strangers <= OF_ONE_PEER + 1

    run(work())


@pytest.mark.slow
def test_500_long_polls_beside_normal_use(tmp_path: Path) -> None:
    """500 clients wait for events over TCP, another one is served in between, and all 500 are woken."""

    async def work() -> None:
        async with served(tmp_path) as there, there.client() as other:
            cell = (await there.lab.create("box"))["id"]
            polls = []
            for _ in range(500):
                polls.append(await there.connect())
                polls[-1][1].write(there.request("GET /audit/egress?wait=60 HTTP/1.1"))

            async def all_wait() -> bool:
                assert (await other.get("/sandboxes")).status_code == 200
                return len(there.gate.guests) >= 501 and there.gate.strangers == 0

            await until(all_wait)
            for _ in range(20):
                assert (await other.get("/egress/mode")).status_code == 200
            log = Writer(there.lab)
            await log.attempt(cell, "a.test")
            told = [await answer_of(reader) for reader, _ in polls]
            log.close()
            assert all((status, len(body["events"])) == (200, 1) for status, _, body in told)
            for _, poll in polls:
                poll.close()

    run(work())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "phase", "status"),
    [
        ("", Phase.FRESH, None),
        ("GET /version HTTP/1.1\r\nHost: x\r\nX: y", Phase.HEAD, 408),
        (
            "POST /egress/allow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\nContent-Length: 9\r\n\r\n{",
            Phase.BODY,
            408,
        ),
    ],
    ids=["silence", "half a head", "half a body"],
)
def test_a_request_has_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, phase: Phase, status: int | None
) -> None:
    """Silence is closed; a head or a body that does not end is answered with 408 in the contract's form, and closed."""
    monkeypatch.setattr(listeners, "TIMES", LIMITS)
    loop = ForwardLoop()

    async def work() -> None:
        async with served(tmp_path) as there:
            reader, writer = await there.connect()
            writer.write(said.replace("KEY", there.key).encode())
            await there.comes_to(phase)
            loop.skip(LIMIT)
            if status is not None:
                told, headers, body = await answer_of(reader)
                assert (told, headers["connection"], list(body)) == (status, "close", ["error"])
            assert await reader.read() == b""
            writer.close()

    run(work(), loop)


@pytest.mark.slow
def test_a_drip_does_not_extend_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is not an end of the head."""
    monkeypatch.setattr(listeners, "TIMES", LIMITS)
    loop = ForwardLoop()

    async def work() -> None:
        async with served(tmp_path) as there:
            reader, writer = await there.connect()
            writer.write(b"GET /version HTTP/1.1\r\n")
            await there.comes_to(Phase.HEAD)
            for _ in range(5):
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.01)
                loop.skip(LIMIT / 5)
            assert (await answer_of(reader))[0] == 408
            writer.close()

    run(work(), loop)


def test_a_handshake_has_its_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: tuple[str, str],  # noqa: F811
) -> None:
    """A TLS handshake that does not end is closed, and no longer counted."""
    monkeypatch.setattr(listeners, "TIMES", LIMITS)
    loop = ForwardLoop()

    async def work() -> None:
        async with served(tmp_path, certificate) as there:
            reader, writer = await there.connect()
            writer.write(b"\x16\x03\x01\x02\x00\x01")

            async def counted() -> bool:
                return there.gate.strangers == 1

            await until(counted)
            loop.skip(LIMIT)
            # Its time may have begun after that.
            reading = asyncio.ensure_future(reader.read())
            while not reading.done():
                await asyncio.wait({reading}, timeout=0.05)
                loop.skip(LIMIT)
            with suppress(ConnectionError):
                assert await reading == b""
            writer.close()

            async def gone() -> bool:
                return there.gate.strangers == 0 and not there.gate.guests

            await until(gone)

    run(work(), loop)


@pytest.mark.slow
def test_only_a_valid_key_keeps_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an answer a connection without a valid key is closed soon; one with a key is kept."""
    monkeypatch.setattr(listeners, "TIMES", LIMITS)
    loop = ForwardLoop()

    async def work() -> None:
        async with served(tmp_path) as there:
            keyed, known = await there.connect()
            known.write(there.request())
            assert (await answer_of(keyed))[0] == 200
            reader, writer = await there.connect()
            writer.write(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            status, headers, _ = await answer_of(reader)
            assert (status, "connection" in headers) == (401, False)
            await there.comes_to(Phase.KEPT)
            loop.skip(LIMIT)
            assert await reader.read() == b""
            known.write(there.request())
            assert (await answer_of(keyed))[0] == 200
            for each in (known, writer):
                each.close()

    run(work(), loop)


@pytest.mark.slow
def test_one_who_does_not_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks and asks and never reads gets no further answers made, and is cut after a while."""
    monkeypatch.setattr(listeners, "TIMES", LIMITS)
    loop = ForwardLoop()

    async def work() -> None:
        async with served(tmp_path) as there:
            _, writer = await there.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(there.request("GET /openapi.json HTTP/1.1") * 2_000)

            await there.comes_to(Phase.SENDING)
            while there.gate.guests:
                # As long as the kernel takes something of an answer, its time begins again.
                loop.skip(LIMIT)
                await asyncio.sleep(0.005)
            writer.transport.abort()

    run(work(), loop)


@pytest.mark.slow
def test_the_unix_socket_counts_users(tmp_path: Path) -> None:
    """Of connections that ask nothing one user holds so many; whoever asks is served and counts no more."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            gate = lab.server._listeners[-1]._gate
            held = [await asyncio.open_unix_connection(str(lab.paths.api_socket)) for _ in range(300)]
            assert (await lab.client.get("/version")).status_code == 200

            async def counted() -> bool:
                return 0 < gate.strangers <= OF_ONE_PEER

            await until(counted)
            for _, writer in held:
                writer.close()

    run(work())


@pytest.mark.slow
def test_a_half_closed_request_is_answered(tmp_path: Path) -> None:
    """Who sends a request and then says that nothing more comes gets its answer, also when it takes a while."""

    async def work() -> None:
        async with served(tmp_path) as there:
            for path in ("/version", "/audit/egress?wait=0.3"):
                reader, writer = await there.connect()
                writer.write(there.request(f"GET {path} HTTP/1.1"))
                writer.write_eof()
                assert (await answer_of(reader))[0] == 200
                assert await reader.read() == b""
                writer.close()

    run(work())


REFUSED = {
    "two lengths": ["Content-Length: 2", "Transfer-Encoding: chunked"],
    "two keys": ["Authorization: Bearer other"],
    "bad length": ["Content-Length: -1"],
    "bad name": ["X y: z"],
}


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_what_is_ambiguous_is_refused_and_closed(tmp_path: Path, headers: list[str]) -> None:
    """A request that two readers could read in two ways is 400 in the contract's form, and nothing after it is read."""

    async def work() -> None:
        async with served(tmp_path) as there:
            reader, writer = await there.connect()
            writer.write(
                there.request("POST /egress/allow HTTP/1.1", *headers) + b"0\r\n\r\n" + there.request()
            )
            status, head, body = await answer_of(reader)
            assert (status, head["connection"], list(body)) == (400, "close", ["error"])
            assert await reader.read() == b""
            writer.close()

    run(work())


def test_what_http_allows_works(tmp_path: Path) -> None:
    """Pipelined requests, HEAD, HTTP/1.0, 100-continue, the absolute form and slashes in front get their answers."""

    async def work() -> None:
        async with served(tmp_path) as there:
            reader, writer = await there.connect()
            writer.write(there.request() * 3)
            for _ in range(3):
                assert (await answer_of(reader))[0] == 200
            for target in (
                f"http://127.0.0.1:{there.port}/egress/mode",
                "//egress/mode",
                "///egress//../mode",
            ):
                writer.write(there.request(f"GET {target} HTTP/1.1"))
                assert (await answer_of(reader))[0] == (404 if ".." in target else 200)
            writer.write(there.request("HEAD /version HTTP/1.1"))
            assert b" 200 " in (await reader.readuntil(b"\r\n\r\n"))
            body = b'{"domain": "a.test"}'
            writer.write(
                there.request(
                    "POST /egress/allow HTTP/1.1", "Expect: 100-continue", f"Content-Length: {len(body)}"
                )
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(body)
            assert (await answer_of(reader))[0] == 200
            writer.write(
                there.request("GET /version HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
            )
            assert (await answer_of(reader))[0] == 200
            writer.write(there.request("GET /version HTTP/1.0"))
            assert (await answer_of(reader))[0] == 200
            assert await reader.read() == b""
            writer.close()

    run(work())


@pytest.mark.slow
def test_an_encoded_slash_is_a_part_of_a_name(tmp_path: Path) -> None:
    """`%2F` separates nothing: it leads to no other route, and a key's label may have one."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("ssh1")
            answer = await lab.client.get("/sandboxes/ssh1%2Fssh")
            assert (answer.status_code, answer.json()["error"]) == (404, "no sandbox is named 'ssh1/ssh'")
            for label in ("a/b", "a%2Fb", "a%b"):
                await lab.client.post("/keys", json={"label": label})
            for path in ("a%2Fb", "a%252Fb", "a%25b"):
                assert (await lab.client.delete(f"/keys/{path}")).status_code == 200, path

    run(work())


def test_an_application_that_fails_is_answered_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No matter what goes wrong below, there is one JSON answer with status 500."""

    async def work() -> None:
        async with served(tmp_path) as there, there.client() as client:

            async def broken(*_: object) -> None:
                raise ZeroDivisionError

            monkeypatch.setattr(there.lab.server._listeners[0], "_app", broken)
            answer = await client.get("/version")
            assert (answer.status_code, list(answer.json())) == (500, ["error"])

    run(work())


def test_a_server_that_ends_answers_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that is held when the control plane stops gets its answer; idle connections are closed."""
    monkeypatch.setattr(listeners, "_GRACE", LIMIT)

    async def work() -> None:
        async with served(tmp_path) as there:
            reader, writer = await there.connect()
            writer.write(there.request("GET /audit/egress?wait=50 HTTP/1.1"))
            idle, other = await there.connect()

            async def both() -> bool:
                return len(there.gate.guests) == 2 and there.gate.strangers == 1

            await until(both)
            there.lab.server.stop()
            assert (await answer_of(reader))[0] == 200
            assert await idle.read() == b""
            for each in (writer, other):
                each.close()

    run(work())


def test_an_application_hears_when_its_client_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for more after the end of a body waits, and learns that the client is gone."""

    async def work() -> None:
        async with served(tmp_path) as there:
            heard: list[str] = []
            over = asyncio.Event()

            async def listening(_scope: object, receive: Any, _send: object) -> None:
                while not over.is_set():
                    heard.append((await receive())["type"])
                    if heard[-1] == "http.disconnect":
                        over.set()

            monkeypatch.setattr(there.lab.server._listeners[0], "_app", listening)
            _, writer = await there.connect()
            writer.write(there.request("POST /egress/allow HTTP/1.1", "Content-Length: 2") + b"{}")

            async def began() -> bool:
                return bool(heard)

            await until(began)
            # An end without a reset may be half of one: its answer is still wanted.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()
            await over.wait()
            assert heard[-1] == "http.disconnect"
            assert len(heard) <= 3

    run(work())


@pytest.mark.parametrize(
    ("head", "rest", "status"),
    [
        ("POST /sandboxes HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", b"1\r\na\r\n" * 40_000, 401),
        ("GET /version HTTP/1.1\r\n" + "a:\n" * 3_000, b"", 431),
        ("GET /version HTTP/1.1\r\n" + "a:\n" * 3_000, b"GET / HTTP/1.1\r\n\r\n" * 3_000, 431),
    ],
    ids=["chunks", "lines", "lines and requests"],
)
def test_bytes_that_are_dear_to_read_keep_nobody_waiting(
    tmp_path: Path, head: str, rest: bytes, status: int
) -> None:
    """A quarter of a megabyte in tiny pieces, of someone without a key, takes no turn of the loop for itself."""

    async def check() -> None:
        async with served(tmp_path) as api:
            reader, writer = await api.connect()
            # All of it is there when the server looks.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            writer.write(f"{head}Host: x\r\n\r\n".encode() + rest)
            answered = asyncio.ensure_future(answer_of(reader))
            # What a turn costs, not how long it lasts: this machine may stand still.
            longest, before = 0.0, time.thread_time()
            while not answered.done():
                await asyncio.sleep(0)
                longest, before = max(longest, time.thread_time() - before), time.thread_time()
            assert (await answered)[0] == status
            assert longest < 0.1
            writer.close()

    gc.disable()
    try:
        run(check())
    finally:
        gc.enable()
