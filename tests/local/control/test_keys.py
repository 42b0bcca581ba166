"""The API over TCP: no one without a key, TLS where others can listen in, and keys that are stored as hashes."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import subprocess
import threading
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.local.control.lab import KEY, by_tcp, control_plane, run, until
from tests.local.control.test_audit_api import Writer

from irons_local.config.server import ServerConfig
from irons_local.control.http.gate import Gate
from irons_local.control.http.listeners import ListenError, tcp_listener


def free_port() -> int:
    """A TCP port of loopback that no one uses, of those that neither the kernel nor sandboxes are given."""
    while True:
        port = secrets.choice(range(10_000, 20_000))
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


async def _app(_scope: Any, _receive: Any, _send: Any) -> None:
    """Never called."""


def test_keys_open_the_tcp_listener(tmp_path: Path) -> None:
    """Over TCP every path asks for a valid key; a revoked one is worthless at once; the unix socket asks for none."""

    async def work() -> None:
        port = free_port()
        async with (
            control_plane(tmp_path, host="127.0.0.1", port=port) as lab,
            by_tcp(port) as remote,
        ):
            made = (await lab.client.post("/keys", json={"label": "laptop"})).json()
            listed = (await lab.client.get("/keys")).json()["keys"]
            assert [(each["id"], each["label"], each["used_at"]) for each in listed] == [
                (made["id"], "laptop", None)
            ]
            assert made["key"] not in (await lab.client.get("/keys")).text
            good = {"authorization": f"Bearer {made['key']}"}
            for said in (
                b"",
                b"Bearer",
                b"Bearer irons_wrong",
                b"Bearer \xe9",
                made["key"].encode(),
                f"Basic {made['key']}".encode(),
            ):
                for path in ("/sandboxes", "/nothing", "/openapi.json", "/version"):
                    answer = await remote.get(path, headers={b"authorization": said})
                    assert (answer.status_code, list(answer.json())) == (401, ["error"])
                    assert answer.headers["www-authenticate"] == "Bearer"
            assert (await remote.get("/sandboxes", headers=good)).json() == {"sandboxes": []}
            assert (await lab.client.get("/keys")).json()["keys"][0]["used_at"] is not None
            assert (await lab.client.delete("/keys/laptop")).status_code == 200
            assert (await remote.get("/sandboxes", headers=good)).status_code == 401
            gone = await lab.client.delete("/keys/laptop")
            assert gone.status_code == 404
            assert "irons local key list" in gone.json()["hint"]

    run(work())


def test_a_hold_over_tcp_ends_with_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of another machine holds its sandbox by a request with a key; when its connection closes, the sandbox goes."""
    monkeypatch.setattr("irons_local.control.sandbox.holds.ANSWERED_AFTER", 3600.0)

    async def work() -> None:
        port = free_port()
        async with control_plane(tmp_path, host="127.0.0.1", port=port) as lab:
            key = (await lab.client.post("/keys", json={"label": "laptop"})).json()["key"]
            holds = lab.server.plane.holds
            holds._grace = 3600
            body = {"name": "box", "public_key": KEY, "held": True}

            async def asked(line: str, key: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                head = (
                    f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n"
                )
                writer.write(head.encode())
                return reader, writer

            async with by_tcp(port) as remote:
                made = await remote.post("/sandboxes", json=body, headers={"authorization": f"Bearer {key}"})
            assert made.status_code == 202
            reader, stranger = await asked("POST /sandboxes/box/hold?wait=3600", "irons_wrong")
            assert b" 401 " in await reader.readline()
            stranger.close()
            _, writer = await asked("POST /sandboxes/box/hold?wait=3600", key)

            async def held() -> bool:
                return bool(holds._open)

            async def gone() -> bool:
                return (await lab.client.get("/sandboxes/box")).status_code == 404

            await until(held)
            holds._grace = 0.05
            writer.close()
            await until(gone)

    run(work())


def test_a_key_that_may_not_do_all_takes_so_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond that an idle one of its own ends; where all are held, it gets 503, until one ends. A key that may do all is served."""
    most = 8
    monkeypatch.setattr("irons_local.control.http.listeners.Gate", partial(Gate, of_one_key=most))
    monkeypatch.setattr("irons_local.control.sandbox.holds.ANSWERED_AFTER", 3600.0)

    async def work() -> None:
        port = free_port()
        async with control_plane(tmp_path, host="127.0.0.1", port=port) as lab, AsyncExitStack() as ends:
            holds = lab.server.plane.holds
            holds._grace = 3600
            user, admin = [
                (await lab.client.post("/keys", json={"label": role, "role": role})).json()["key"]
                for role in ("user", "admin")
            ]

            async def asked(line: str, key: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                ends.push_async_callback(closed, writer)
                head = (
                    f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n"
                )
                writer.write(head.encode())
                return reader, writer

            async def status(key: str) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asked("GET /version", key)
                return int((await reader.readline()).split()[1]), reader, writer

            async with by_tcp(port) as remote:
                body = {"name": "box", "public_key": KEY, "held": True}
                made = await remote.post("/sandboxes", json=body, headers={"authorization": f"Bearer {user}"})
            assert made.status_code == 202
            idle = [await status(user) for _ in range(most + 1)]
            assert [each[0] for each in idle] == [200] * (most + 1)
            # After its answer: that there are too many.
            assert b"503" in await idle[0][1].read()
            held = [(await asked("POST /sandboxes/box/hold?wait=3600", user))[1] for _ in range(most)]

            async def are_held() -> bool:
                return [*holds._open.values()] == [most]

            await until(are_held)
            assert (await status(user))[0] == 503
            assert (await status(admin))[0] == 200
            await closed(held[0])

            async def is_served() -> bool:
                found, _, writer = await status(user)
                await closed(writer)
                return found == 200

            await until(is_served)

    run(work())


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, which may have ended."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def test_a_revoked_key_ends_a_long_poll(tmp_path: Path) -> None:
    """What was asked for while the key was valid is not answered any more once it is revoked."""

    async def work() -> None:
        port = free_port()
        async with (
            control_plane(tmp_path, host="127.0.0.1", port=port) as lab,
            by_tcp(port, timeout=None) as remote,
        ):
            made = (await lab.client.post("/keys", json={"label": "laptop"})).json()
            headers = {"authorization": f"Bearer {made['key']}"}
            cell = (await lab.create("box"))["id"]
            poll = asyncio.ensure_future(remote.get("/audit/egress", params={"wait": "60"}, headers=headers))

            async def used() -> bool:
                return (await lab.client.get("/keys")).json()["keys"][0]["used_at"] is not None

            await until(used)
            assert (await lab.client.delete("/keys/laptop")).status_code == 200
            writer = Writer(lab)
            await writer.attempt(cell, "secret.test")
            answer = await poll
            writer.close()
            assert (answer.status_code, list(answer.json())) == (401, ["error"])

    run(work())


def test_a_label_that_two_keys_have_names_neither(tmp_path: Path) -> None:
    """Revoking by a label that is not one key's alone is 409, by id it works."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            first = (await lab.client.post("/keys", json={"label": "twin"})).json()
            await lab.client.post("/keys", json={"label": "twin"})
            assert (await lab.client.delete("/keys/twin")).status_code == 409
            assert (await lab.client.delete(f"/keys/{first['id']}")).status_code == 200
            assert (await lab.client.delete("/keys/twin")).status_code == 200

    run(work())


def test_keys_are_stored_as_hashes_only(tmp_path: Path) -> None:
    """No file of the database holds the key itself."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            made = (await lab.client.post("/keys", json={"label": "laptop"})).json()
        for path in lab.paths.local.glob("irons.db*"):
            assert made["key"].encode() not in path.read_bytes()

    run(work())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    where = tmp_path_factory.mktemp("tls")
    cert, key = where / "cert.pem", where / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=irons", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return str(cert), str(key)


@pytest.mark.process
def test_tls_is_spoken_where_it_is_asked_for(tmp_path: Path, certificate: tuple[str, str]) -> None:
    """With a certificate the listener speaks TLS only, also on every address; SSH is answered at the address in use."""

    async def work() -> None:
        port = free_port()
        cert, key = certificate
        config: dict[str, Any] = {
            "host": "0.0.0.0",
            "port": port,
            "tls_cert": cert,
            "tls_key": key,
            "ssh_host": "0.0.0.0",
        }
        trusting = ssl.create_default_context(cafile=cert)
        async with (
            control_plane(tmp_path, **config) as lab,
            httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=trusting) as remote,
        ):
            made = (await lab.client.post("/keys", json={"label": "laptop"})).json()
            remote.headers["authorization"] = f"Bearer {made['key']}"
            await lab.create("box")
            answer = (await remote.get("/sandboxes/box/ssh")).json()
            assert answer["host"] == "127.0.0.1"
            reader, writer = await asyncio.open_connection("127.0.0.1", answer["port"])
            assert (await reader.readline()).startswith(b"SSH-2.0")
            writer.close()
            async with by_tcp(port) as plain:
                with pytest.raises(httpx.HTTPError):
                    await plain.get("/version")

    run(work())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"host": "0.0.0.0", "port": 1}, "can be reached from other machines"),
        ({"host": "::", "port": 1}, "can be reached from other machines"),
        ({"host": "nonsense", "port": 1}, "it is not an address"),
        ({"host": "127.0.0.1", "port": 1, "tls_cert": "/x"}, "go together"),
        ({"host": "127.0.0.1", "port": 1, "tls_cert": "/x", "tls_key": "/x"}, "cannot be used"),
        ({"host": "192.0.2.1", "port": 1, "tls_cert": "CERT", "tls_key": "KEY"}, "cannot listen on"),
    ],
)
def test_a_listener_that_cannot_be_is_one_line(
    config: dict[str, Any], said: str, certificate: tuple[str, str]
) -> None:
    """No TLS beyond loopback, half a certificate, a foreign address: refused before anything listens."""
    named: dict[Any, Any] = {"CERT": certificate[0], "KEY": certificate[1]}
    with pytest.raises(ListenError, match=said) as caught:
        tcp_listener(_app, ServerConfig(**{key: named.get(value, value) for key, value in config.items()}))
    assert "\n" not in str(caught.value)


def test_a_taken_port_is_one_line() -> None:
    """A port that another program listens on is named, with the reason."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            tcp_listener(_app, ServerConfig(host="127.0.0.1", port=port))


def test_keys_are_the_owners_alone(tmp_path: Path) -> None:
    """Over TCP a valid key neither lists, makes nor revokes keys: 403 with the reason, and nothing has changed."""

    async def work() -> None:
        port = free_port()
        async with (
            control_plane(tmp_path, host="127.0.0.1", port=port) as lab,
            by_tcp(port) as remote,
        ):
            made = (await lab.client.post("/keys", json={"label": "laptop"})).json()
            remote.headers["authorization"] = f"Bearer {made['key']}"
            for method, path, body in (
                ("GET", "/keys", None),
                ("POST", "/keys", {"label": "minted"}),
                ("DELETE", "/keys/laptop", None),
            ):
                answer = await remote.request(method, path, json=body)
                assert answer.status_code == 403
                assert "unix socket" in answer.json()["error"]
            assert [each["label"] for each in (await lab.client.get("/keys")).json()["keys"]] == ["laptop"]

    run(work())


def test_a_key_is_looked_up_beside_a_slow_question(tmp_path: Path) -> None:
    """While the database answers someone's heavy question, others with a key are let in, and others without refused."""

    async def work() -> None:
        port = free_port()
        async with (
            control_plane(tmp_path, host="127.0.0.1", port=port) as lab,
            by_tcp(port) as remote,
        ):
            key = (await lab.client.post("/keys", json={"label": "laptop"})).json()["key"]
            good = {"authorization": f"Bearer {key}"}
            assert (await remote.get("/version", headers=good)).status_code == 200
            over = threading.Event()
            slow = asyncio.ensure_future(lab.store.read(lambda _: over.wait()))
            assert (await remote.get("/version", headers=good)).status_code == 200
            assert (await remote.get("/version", headers={"authorization": "Bearer no"})).status_code == 401
            assert not slow.done()
            over.set()
            assert await slow

    run(work())
