"""A real OpenSSH server on the loopback address, and the installed `irons` in processes of its own."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest

import irons
from irons import aio
from irons.settings.settings import load
from irons.testing import EXTENSIONS, FakeApi
from irons_plugins.ssh.connect.kept import end_all
from tests.background import job
from tests.machine import Machine
from tests.ports import reserved_port

from .boxes import Hello, Make


def hosts(api_lines: list[str]) -> list[str]:
    """Return the hosts of plain lines."""
    return [line.split()[2] for line in api_lines]


def until(holds: Callable[[], Any], seconds: float = 200.0) -> Any:
    """Return the first true answer of `holds`, or fail at the deadline."""
    deadline = time.monotonic() + seconds
    pause = _Pause()
    while True:
        answer = holds()
        if answer:
            return answer
        assert time.monotonic() < deadline, "it did not come to pass in time"
        pause(0.02)


class _Pause:
    def __call__(self, seconds: float) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as quiet:
            quiet.settimeout(seconds)
            quiet.bind(("127.0.0.1", 0))
            try:
                quiet.recv(1)
            except TimeoutError:
                return


@dataclass(frozen=True)
class Sshd:
    """A running server: its port, its host key as known_hosts has it, the private key that opens it, the home of a login."""

    port: int
    host_key: str
    identity: Path
    user: str
    home: Path

    def address(self, **more: Any) -> dict[str, Any]:
        """Return what a v0 API answers about it."""
        return {"host": "127.0.0.1", "port": self.port, "username": self.user, **more}


@pytest.fixture(scope="module", autouse=True)
def short_pauses() -> Iterator[None]:
    """Pause for a moment only where a command in this process asks the fake server again, for a state or after a failure."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("irons.client.following.waiting.FIRST_PAUSE", 0.001)
        patched.setattr("irons.client.transport.BACK_OFF", 0.001)
        yield


@pytest.fixture
def one(fake_api: FakeApi) -> FakeApi:
    """A plain v0 server with one sandbox."""
    fake_api.add("one")
    return fake_api


@pytest.fixture
def own(own_api: FakeApi) -> FakeApi:
    """A server of irons' own kind with one sandbox."""
    own_api.add("one")
    return own_api


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> Iterator[Sshd]:
    """An OpenSSH server for this machine's own user."""
    machine.require("sshd", "ssh-keygen")
    home = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True)
    with reserved_port() as port:
        yield from _serving(home, port)


def _serving(home: Path, port: int) -> Iterator[Sshd]:
    # What this machine's user has in the start-up files of a shell may print things, or run for long.
    (bare := home / "bare").mkdir()
    config = home / "sshd_config"
    config.write_text(
        f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host
PidFile none
AuthorizedKeysFile {home}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AcceptEnv *
SetEnv HOME={bare}
AllowAgentForwarding yes
Subsystem sftp internal-sftp
"""
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", config], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: _answers(port))
        key = (home / "host.pub").read_text().rsplit(" ", 1)[0]
        yield Sshd(port, key, home / "user", getpass.getuser(), bare)
    finally:
        server.terminate()
        server.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
            return one.recv(4) == b"SSH-"
    except OSError:
        return False


_PATIENTLY = """
import sys
from importlib import import_module
for name in sys.argv.pop(1).split():
    module, _, constant = name.rpartition(".")
    setattr(import_module(module), constant, 3600.0)
from irons.__main__ import main
sys.exit(main())
"""


@dataclass
class Irons:
    """`irons` in a process of its own."""

    env: Mapping[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    patient: tuple[str, ...] = ()
    """Constants, as `module.NAME`: limits in seconds that these processes must not reach, however long the machine stands still."""

    def argv(self, *words: str) -> list[str]:
        """Return the words of the process."""
        if self.patient:
            return [sys.executable, "-c", _PATIENTLY, " ".join(self.patient), *words]
        return [sys.executable, "-m", "irons", *words]

    def __call__(
        self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        return subprocess.run(
            self.argv(*words),
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *words: str, way: str = "foreground") -> subprocess.Popen[bytes]:
        """Start it, as a job of this kind; the fixture ends what is left."""
        process = subprocess.Popen(
            job(way, self.argv(*words)),
            env={**self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End what is left."""
        for process in self.started:
            with process:
                process.kill()


@contextmanager
def with_a_short_runtime_directory(irons: Irons) -> Iterator[Irons]:
    """Give the same `irons` with a runtime directory of its own, short enough for OpenSSH's sockets; nothing that it keeps is left."""
    with tempfile.TemporaryDirectory(prefix="irons-") as directory:
        env = {**irons.env, "XDG_RUNTIME_DIR": directory}
        short = Irons(env, patient=irons.patient)
        try:
            yield short
        finally:
            short.end()
            end_all(load({}, env))


@pytest.fixture
def irons_process(irons_env: dict[str, str], fake_api: FakeApi) -> Iterator[Irons]:
    """`irons` in processes of its own, against the fake API."""
    passed = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE")}
    found = Irons({**irons_env, **passed, "IRONS_API_URL": fake_api.url, "COLUMNS": "100"})
    try:
        yield found
    finally:
        found.end()
        end_all(load({}, irons_env))


@pytest.fixture
def into(irons_env: dict[str, str], irons_process: Irons, fake_api: FakeApi, sshd: Sshd) -> Irons:
    """`irons` whose sandbox `one` is this machine, reached by the real server, opened by the key that is remembered."""
    fake_api.add("one")
    fake_api.ssh = sshd.address(host_keys=[sshd.host_key])
    state = Path(irons_env["XDG_STATE_HOME"]) / "irons" / "ssh"
    state.mkdir(parents=True, mode=0o700)
    (state / "identities.json").write_text(json.dumps({"default": {"one": str(sshd.identity)}}))
    return irons_process


@pytest.fixture
def agent_env(into: Irons, fake_api: FakeApi, sshd: Sshd) -> dict[str, str]:
    """An environment whose sandboxes are this machine, on a server of irons' own kind."""
    fake_api.extensions = EXTENSIONS
    into.env = {**into.env, "IRONS_PUBLIC_KEY": f"{sshd.identity}.pub"}
    return dict(into.env)


@pytest.fixture
def make_box(into: Irons, fake_api: FakeApi, sshd: Sshd) -> Make:
    """`irons.sandbox` against a server of irons' own kind, with the key that opens this machine."""
    fake_api.extensions = EXTENSIONS
    env = {**into.env, "IRONS_PUBLIC_KEY": f"{sshd.identity}.pub"}
    return partial(irons.sandbox, env=env)


@pytest.fixture
def make_async(make_box: Make) -> Callable[..., Any]:
    """`irons.aio.sandbox`, likewise."""
    assert isinstance(make_box, partial)
    return partial(aio.sandbox, **make_box.keywords)


@pytest.fixture
def served() -> Any:
    """The port of a server in the sandbox."""
    server = HTTPServer(("127.0.0.1", 0), Hello)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()
