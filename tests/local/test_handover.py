"""The program that hands OpenSSH a connection: what it passes on, what it imports, and what happens where it cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from irons_local.daemon import handover
from irons_local.ipc import framing, link, unixsock
from irons_local.paths import Paths
from irons_plugins.local.backend import handover_command

pytestmark = pytest.mark.process

PROGRAM = (sys.executable, "-I", "-S", str(handover.__file__))
CELL = "sb_00000000000000aa"


@contextmanager
def keeper(path: Path, *, refuses: bool = False) -> Iterator[list[framing.Body]]:
    """A stand-in keeper that answers one request: with one end of a pair whose other end has sent a greeting, or with an error."""
    asked: list[framing.Body] = []
    near, far = socket.socketpair()
    near.sendall(b"hello")

    def serve() -> None:
        with link.Link(listener.accept()[0]) as client:
            asked.append(client.recv().body)
            if refuses:
                client.send({"id": 1, "error": {"code": "absent", "message": "there is no cell"}})
            else:
                # The program may have ended before all of it was sent: it has what it needs.
                with suppress(framing.LinkClosedError):
                    client.send({"id": 1, "ok": {}}, [far.fileno()])

    with unixsock.listen(path) as listener, near, far:
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def run(path: Path, *options: str, home: Path) -> tuple[list[int], str]:
    """Run the program as OpenSSH would; gives the descriptors that it handed over and what it reported."""
    ours, theirs = socket.socketpair()
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    with ours, theirs:
        words = [PROGRAM[0], *options, *PROGRAM[1:], str(path), CELL]
        out = theirs.fileno()
        done = subprocess.run(words, env=env, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
        theirs.close()
        data, fds, _, _ = socket.recv_fds(ours, 10, 4)
    assert data == (b"\0" if fds else b"")
    return fds, done.stderr


@pytest.mark.parametrize("deep", [False, True], ids=["short", "long"])
def test_the_keepers_descriptor_is_passed_on(tmp_path: Path, deep: bool) -> None:
    """OpenSSH gets the connection that the keeper made to port 22 of the cell, however long the path of the keeper's socket is."""
    place = tmp_path / ("d" * 120 if deep else "d")
    place.mkdir()
    with keeper(place / "keeper.sock") as asked:
        fds, said = run(place / "keeper.sock", home=tmp_path)
        assert said == ""
        with socket.socket(fileno=fds[0]) as connection:
            assert connection.recv(5) == b"hello"
    assert asked == [{"id": 1, "op": "cell.connect", "cell": CELL, "address": "127.0.0.1", "port": 22}]


def test_it_imports_next_to_nothing(tmp_path: Path) -> None:
    """Next to what the interpreter imports by itself there is one module, written in C."""
    with keeper(tmp_path / "keeper.sock") as asked:
        fds, told = run(tmp_path / "keeper.sock", "-X", "importtime", home=tmp_path)
    assert asked
    os.close(fds[0])
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", "-c", ""],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert _modules(told) - _modules(bare.stderr) <= {"_socket", "__future__"}


def _modules(told: str) -> set[str]:
    return {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("refuses", [False, True], ids=["none", "refuses"])
def test_what_is_wrong_is_said_by_irons_itself(tmp_path: Path, refuses: bool) -> None:
    """Without a keeper, or where it refuses, nothing is handed over and the whole of irons says why."""
    path = tmp_path / "keeper.sock"
    if refuses:
        with keeper(path, refuses=True) as asked:
            fds, said = run(path, home=tmp_path)
        assert asked
    else:
        fds, said = run(path, home=tmp_path)
    assert fds == []
    assert "the irons daemon does not run" in said


def test_the_backend_names_this_program(tmp_path: Path) -> None:
    """The command that OpenSSH is given names the program's file, which is there, and the keeper's socket."""
    paths = Paths(tmp_path / "state", tmp_path / "run")
    command = handover_command(paths)
    assert command == (*PROGRAM, str(paths.keeper_socket))
