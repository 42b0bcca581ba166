"""An SSH server inside that is hostile: it opens channels back to the client, again and again, and gets nothing for it."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncssh
import pytest
from asyncssh.packet import String, UInt32

from irons.settings.settings import load
from irons.testing import FakeApi
from irons_plugins.ssh.connect.kept import end_all

from .conftest import Irons, until
from .test_kept import master, sockets

OPENINGS = {
    b"forwarded-tcpip": (String("localhost"), UInt32(80), String("198.51.100.1"), UInt32(1)),
    b"forwarded-streamlocal@openssh.com": (String("/run/docker.sock"), String("")),
    b"direct-tcpip": (String("localhost"), UInt32(22), String("198.51.100.1"), UInt32(1)),
    b"x11": (String("198.51.100.1"), UInt32(1)),
    b"auth-agent@openssh.com": (),
    b"session": (),
    b"tun@openssh.com": (UInt32(1), UInt32(0)),
}
"""Kinds of channels, with what an opening of each says (RFC 4254, 5.1, 6.3.2 and 7.2; OpenSSH's PROTOCOL)."""

WARM, MANY, AT_ONCE = 700, 7000, 70
MOST = 1 << 20
"""Bytes that a client may have more after so many openings, which is 150 bytes for each."""


@dataclass
class Hostile:
    """The server, in a thread of its own: each session that a client begins has it open channels, in two rounds."""

    answers: Counter[str] = field(default_factory=Counter)
    warm: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)
    many: int = MANY
    port: int = 0

    def __enter__(self) -> Self:
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready),))
        self._thread.start()
        assert ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.go, self.leave):
            each.set()
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    @property
    def host_key(self) -> str:
        """Its host key, as known_hosts has it."""
        return str(self._key.export_public_key().decode().strip())

    async def _serve(self, ready: threading.Event) -> None:
        self._over = asyncio.Event()
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self._key],
            server_factory=_anybody,
            process_factory=self._session,
        )
        self.port = server.get_port()
        ready.set()
        await self._over.wait()
        server.close()
        await server.wait_closed()

    async def _session(self, process: asyncssh.SSHServerProcess[str]) -> None:
        connection = process.get_extra_info("connection")
        await self._open(connection, WARM)
        self.warm.set()
        await asyncio.to_thread(self.go.wait)
        await self._open(connection, self.many)
        self.done.set()
        await asyncio.to_thread(self.leave.wait)
        process.exit(0)
        if set(self.answers) != {"refused"}:
            # The client stays for as long as a channel is open.
            connection.abort()

    async def _open(self, connection: asyncssh.SSHServerConnection, count: int) -> None:
        kinds = list(OPENINGS)
        for begin in range(0, count, AT_ONCE):
            tried = (self._try(connection, kinds[at % len(kinds)]) for at in range(begin, begin + AT_ONCE))
            await asyncio.gather(*tried)

    async def _try(self, connection: asyncssh.SSHServerConnection, kind: bytes) -> None:
        channel = connection.create_tcp_channel()
        try:
            await channel._open(kind, *OPENINGS[kind])
        except asyncssh.ChannelOpenError:
            self.answers["refused"] += 1
        else:
            self.answers[f"opened {kind.decode()}"] += 1


def _anybody() -> asyncssh.SSHServer:
    """Return what lets anybody in."""
    kind = type("Anybody", (asyncssh.SSHServer,), {"begin_auth": lambda _self, _username: False})
    server: asyncssh.SSHServer = kind()
    return server


@contextmanager
def agent(directory: Path) -> Iterator[str]:
    """A person's SSH agent."""
    path = directory / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL) as process:
        try:
            until(path.exists)
            yield str(path)
        finally:
            process.terminate()


def memory(pid: int) -> int:
    """The most bytes of memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize(
    "words", [("ssh", "one", "--", "x"), ("exec", "one", "--", "x")], ids=["ssh", "exec"]
)
def test_a_server_that_opens_channels_gets_nothing(
    irons_process: Irons, fake_api: FakeApi, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Every channel that it opens is refused, no matter what the person has here; the client needs no more memory for more of them."""
    assert tried(irons_process, fake_api, tmp_path, words, MANY) == {"refused": WARM + MANY}


def test_a_server_gets_what_the_client_was_asked_to_forward(
    irons_process: Irons, fake_api: FakeApi, tmp_path: Path
) -> None:
    """`--forward-agent` opens the agent to it, and nothing else: what the test above sees refused could be had."""
    words = ("ssh", "--forward-agent", "one", "--", "x")
    found = tried(irons_process, fake_api, tmp_path, words, 0)
    assert set(found) == {"refused", "opened auth-agent@openssh.com"}
    assert found["refused"] == WARM - WARM // len(OPENINGS)


def tried(
    irons_process: Irons, fake_api: FakeApi, tmp_path: Path, words: tuple[str, ...], many: int
) -> Counter[str]:
    """Run a command against the server, test that its client stays small, and return what became of the channels."""
    with (
        Hostile(many=many) as server,
        agent(tmp_path) as agent_socket,
        tempfile.TemporaryDirectory(prefix="irons-") as runtime,
    ):
        fake_api.add("one")
        fake_api.ssh = {
            "host": "127.0.0.1",
            "port": server.port,
            "username": "irons",
            "host_keys": [server.host_key],
        }
        env = {
            **irons_process.env,
            "XDG_RUNTIME_DIR": runtime,
            "SSH_AUTH_SOCK": agent_socket,
            "DISPLAY": "127.0.0.1:0",
        }
        irons = Irons(env)
        try:
            process = irons.start(*words)
            assert server.warm.wait(60), process.communicate()
            # `ssh` takes the place of irons; what `exec` runs comes by the connection that is kept.
            client = process.pid if words[0] == "ssh" else master(sockets(irons)[0])
            assert b"ssh" in Path(f"/proc/{client}/comm").read_bytes()
            before = memory(client)
            server.go.set()
            assert server.done.wait(300)
            assert memory(client) - before < MOST
            server.leave.set()
            process.communicate(timeout=60)
        finally:
            irons.end()
            end_all(load({}, env))
    return server.answers
