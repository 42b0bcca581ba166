"""The control plane as a process: up at once, down on request, and one line on stderr where it cannot be."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from irons_local.ipc.link import Link
from irons_local.paths import Paths

pytestmark = pytest.mark.process


class Started:
    """A control plane that a test started, with the keeper's end of its link."""

    def __init__(self, home: Path, **more: str) -> None:
        env = {
            **os.environ,
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_RUNTIME_DIR": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
        }
        self.paths = Paths.of(env)
        near, far = socket.socketpair()
        near.settimeout(60)
        self.link = Link(near)
        with far:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "irons_local.control.server"],
                env={**env, "IRONS_LINK": str(far.fileno()), **more},
                pass_fds=(far.fileno(),),
                stderr=subprocess.PIPE,
                text=True,
            )

    def get(self, path: str) -> Any:
        """The JSON that a path answers on the unix socket."""
        connection = http.client.HTTPConnection("irons", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.paths.api_socket))
        connection.request("GET", path)
        found = json.loads(connection.getresponse().read())
        connection.close()
        return found

    def ended(self) -> tuple[int, str]:
        """Wait for the end; gives the exit code and what was printed."""
        _, said = self.process.communicate(timeout=300)
        return self.process.returncode, said

    def close(self) -> None:
        """End it, however it is."""
        self.process.kill()
        self.process.communicate()
        self.link.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A short directory, for the unix sockets in it."""
    tmp_path.chmod(0o700)
    return tmp_path


def test_it_is_up_at_once_and_ends_when_told(home: Path) -> None:
    """It says `ready` within a second, serves, and ends on SIGTERM with exit code 0; the state is its owner's alone."""

    def up() -> float:
        began = time.monotonic()
        started = Started(home)
        try:
            assert started.link.recv().body == {"op": "ready"}
            took = time.monotonic() - began
            assert started.get("/version")["name"] == "irons"
            assert started.paths.database.stat().st_mode & 0o777 == 0o600
            started.process.send_signal(signal.SIGTERM)
            assert started.ended()[0] == 0
        finally:
            started.close()
        return took

    # Alone it takes a third of a second; a machine that is busy or stands still meanwhile only adds to it.
    assert any(up() < 5 for _ in range(20))


def test_it_ends_with_its_keeper(home: Path) -> None:
    """Without a place to wait for the next keeper, it ends when the keeper does."""
    started = Started(home)
    try:
        assert started.link.recv().body == {"op": "ready"}
        started.link.sock.shutdown(socket.SHUT_RDWR)
        assert started.ended()[0] == 0
    finally:
        started.close()


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("state/irons/local/irons.db", "not a database " * 100, "damaged or not a database"),
        ("state/irons/local/server.json", "{", "server.json cannot be read"),
        (
            "state/irons/local/server.json",
            '{"host": "0.0.0.0", "port": 1}',
            "can be reached from other machines",
        ),
        (
            "state/irons/local/server.json",
            '{"ssh_host": "192.0.2.1"}',
            "SSH ports cannot be opened on 192.0.2.1",
        ),
        ("config/irons/config.toml", "[local", "config.toml cannot be read"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(home: Path, path: str, content: str, said: str) -> None:
    """A damaged database, a bad configuration, an address of another machine: one line, exit code 1."""
    Paths.of({"XDG_STATE_HOME": str(home / "state"), "XDG_RUNTIME_DIR": str(home)}).create()
    (home / path).parent.mkdir(parents=True, exist_ok=True)
    (home / path).write_text(content)
    started = Started(home)
    try:
        code, words = started.ended()
        assert code == 1
        assert said in words.strip().splitlines()[-1]
        assert "Traceback" not in words
    finally:
        started.close()


def test_a_port_that_is_taken_is_one_line(home: Path) -> None:
    """Where another program has the address that the API shall be served on, that is reported."""
    paths = Paths.of({"XDG_STATE_HOME": str(home / "state"), "XDG_RUNTIME_DIR": str(home)}).create()
    with socket.create_server(("127.0.0.1", 0)) as other:
        asked = {"host": "127.0.0.1", "port": other.getsockname()[1]}
        (paths.local / "server.json").write_text(json.dumps(asked))
        started = Started(home)
        try:
            code, words = started.ended()
            assert code == 1
            assert f"the API cannot listen on 127.0.0.1:{asked['port']}: Address already in use" in words
        finally:
            started.close()


def test_it_is_not_for_people_to_start(home: Path) -> None:
    """Without a link it says who starts it."""
    started = Started(home, IRONS_LINK="nonsense")
    try:
        code, words = started.ended()
        assert (code, "the keeper starts this program" in words) == (1, True)
    finally:
        started.close()
