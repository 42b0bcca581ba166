"""exec over a connection that breaks off at each step of a program's end: all of its output and its code, or 125 and one line."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import UInt32

from irons.testing import FakeApi

from .conftest import Irons, until, with_a_short_runtime_directory

TOKEN = re.compile("irons-exec ([0-9a-f]{32}) ")

OUTPUT_FIRST = ("began", "output", "ended", "exit", "eof")
CODE_FIRST = ("began", "exit", "ended", "output", "eof")
"""Orders in which a server may report a program's end: OpenSSH's sends the exit code before what is still in its pipes."""


SIZE = 2_200_000
"""Bytes of output that are more than OpenSSH lets a channel hold, and no more than its server's pipe holds as well."""


class Scripted:
    """A server that lets anybody in, runs nothing, and plays the steps of a script for each program.

    Args:
        steps: `began` and `ended` are marks, `failed` that and the mark of an end with 255, `output` is what the program writes, `exit` its code, `eof` the end of its output,
            `close` the end of the session; `cut` ends the connection, `reset` likewise without a word; `wait` waits for `go`.
    """

    def __init__(self, *steps: str) -> None:
        self.port = 0
        self.waits, self.go = threading.Event(), threading.Event()
        self._steps = steps
        self._connections: list[asyncssh.SSHServerConnection] = []
        self._key = asyncssh.generate_private_key("ssh-ed25519")

    @property
    def host_key(self) -> str:
        """Its host key, as known_hosts has it."""
        return str(self._key.export_public_key().decode().strip())

    async def serve(self, ready: threading.Event, over: asyncio.Event) -> None:
        """Serve until it is over."""
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self._key],
            server_factory=_anybody,
            process_factory=self._play,
            encoding=None,
        )
        self.port = server.get_port()
        ready.set()
        await over.wait()
        server.close()
        # From Python 3.12 on the server waits for its connections, and the one that is kept has a minute left.
        for connection in self._connections:
            connection.abort()
            await connection.wait_closed()
        await server.wait_closed()
        # A transport closes its socket in the loop's next round.
        await asyncio.sleep(0)

    async def _play(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        found = TOKEN.search(process.command or "")
        token = found[1].encode() if found else b""
        channel: Any = process.channel
        connection: Any = process.get_extra_info("connection")
        self._connections.append(connection)
        transport = connection._transport
        for step in self._steps:
            match step:
                case "began":
                    process.stderr.write(b"\0irons %s began\n" % token)
                case "output":
                    process.stdout.write(b"all of it\n")
                case "ended":
                    process.stderr.write(b"\0irons %s ended 0 no\n" % token)
                case "failed":
                    process.stderr.write(b"\0irons %s began\n\0irons %s ended 255 no\n" % (token, token))
                case "exit":
                    channel._send_request(b"exit-status", UInt32(0))
                case "eof":
                    process.stdout.write_eof()
                case "close":
                    channel.close()
                case "wait":
                    self.waits.set()
                    await asyncio.to_thread(self.go.wait)
                case "cut":
                    transport.close()
                case "reset":
                    raw: socket.socket = transport.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    transport.close()
        await channel.wait_closed()


def _anybody() -> asyncssh.SSHServer:
    kind = type("Anybody", (asyncssh.SSHServer,), {"begin_auth": lambda _self, _username: False})
    server: asyncssh.SSHServer = kind()
    return server


@contextmanager
def serving(fake_api: FakeApi, kept: bool, *steps: str) -> Iterator[Scripted]:
    """Have the sandbox `one` be such a server; without a host key no connection is kept to it."""
    server, loop, ready, over = Scripted(*steps), asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(ready, over),))
    thread.start()
    try:
        assert ready.wait(60)
        fake_api.add("one")
        keys = [server.host_key] if kept else []
        fake_api.ssh = {"host": "127.0.0.1", "port": server.port, "username": "irons", "host_keys": keys}
        yield server
    finally:
        server.go.set()
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@pytest.fixture
def irons(irons_process: Irons) -> Iterator[Irons]:
    """`irons`, and no connection that is left of it."""
    with with_a_short_runtime_directory(irons_process) as irons:
        yield irons


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "own"])
@pytest.mark.parametrize(
    "steps",
    [
        *((*OUTPUT_FIRST[:length], "cut") for length in range(6)),
        *((*CODE_FIRST[:length], "cut") for length in range(2, 6)),
        *((*CODE_FIRST[:length], "reset") for length in (0, 2, 5)),
    ],
    ids="-".join,
)
def test_a_connection_that_is_lost_is_never_success(
    irons: Irons, fake_api: FakeApi, steps: tuple[str, ...], kept: bool
) -> None:
    """Wherever it breaks off before the session is over, the code is 125 and one line says so, also where an exit code had come."""
    with serving(fake_api, kept, *steps):
        done = irons("exec", "one", "--", "true")
    assert done.returncode == 125
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("irons: the connection to one was lost")
    assert done.stdout in (b"", b"all of it\n")


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "own"])
@pytest.mark.parametrize("order", [OUTPUT_FIRST, CODE_FIRST], ids="-".join)
def test_a_session_that_ends_has_all_of_its_output(
    irons: Irons, fake_api: FakeApi, order: tuple[str, ...], kept: bool
) -> None:
    """Where the session ends as it should, the output is whole and the code is the program's, whichever comes first."""
    with serving(fake_api, kept, *order, "close"):
        done = irons("exec", "one", "--", "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"all of it\n", b"")


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "own"])
def test_a_slow_server_is_waited_for(irons: Irons, fake_api: FakeApi, kept: bool) -> None:
    """An exit code ends nothing while output may come: the call goes on until the session is over."""
    with serving(fake_api, kept, "began", "exit", "wait", "output", "ended", "eof", "close") as server:
        process = irons.start("exec", "one", "--", "true")
        assert server.waits.wait(60)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        server.go.set()
        assert process.communicate(timeout=60) == (b"all of it\n", b"")
    assert process.returncode == 0


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "own"])
def test_what_holds_on_to_a_session_is_not_a_lost_connection(
    irons: Irons, fake_api: FakeApi, kept: bool
) -> None:
    """Where the program has ended and its session goes on until the time is up, the code is the program's: 255 too."""
    with serving(fake_api, kept, "failed", "wait"):
        done = irons("exec", "--timeout", "1", "one", "--", "true")
    assert (done.returncode, done.stderr) == (255, b"")


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "own"])
def test_a_report_of_a_lost_connection(irons: Irons, fake_api: FakeApi, kept: bool) -> None:
    """`-o json` has the output that came, 125 and the error."""
    with serving(fake_api, kept, *CODE_FIRST, "cut"):
        done = irons("-o", "json", "exec", "one", "--", "true")
    assert done.returncode == 125
    for part in (
        b'"exit": 125',
        b'"stdout": "all of it\\n"',
        b"the connection to one was lost; the program ended with code 0",
    ):
        assert part in done.stdout


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "own"])
def test_output_that_openssh_holds_is_not_lost_silently(
    into: Irons, fake_api: FakeApi, tmp_path: Path, kept: bool
) -> None:
    """A program has ended well, its output waits for a slow reader, and its server dies: that something is missing is reported."""
    if not kept:
        fake_api.ssh["host_keys"] = []
    # More than a channel's window takes, which its exit code does not wait for.
    script = f"""
    below=$$ at=$PPID
    while read -r _ name _ parent _ </proc/$at/stat; do
      case $name in "(sshd"*) break ;; esac
      below=$at at=$parent
    done
    echo $at $below >{tmp_path}/part
    mv {tmp_path}/part {tmp_path}/pids
    head -c {SIZE} /dev/zero"""
    process = into.start("exec", "one", "--", "sh", "-c", script)
    noted = tmp_path / "pids"
    until(noted.exists)
    server, session = map(int, noted.read_text().split())
    until(lambda: not Path(f"/proc/{session}").exists())
    os.kill(server, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert len(out) < SIZE
    assert process.returncode == 125
    assert re.fullmatch(rb"irons: the connection to one was lost[^\n]*\n", err)


def test_a_slow_reader_of_both_streams_loses_nothing(into: Irons) -> None:
    """With `2>&1` OpenSSH and irons write to one pipe, which OpenSSH sets not to block: each waits until there is room."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        words = ("exec", "one", "--", "sh", "-c", f"head -c {SIZE} /dev/zero | tr '\\0' e >&2; echo over")
        with subprocess.Popen(
            into.argv(*words), env=dict(into.env), stdout=writing, stderr=writing
        ) as process:
            until(lambda: not select.select([], [writing], [], 0)[1])
            os.close(writing)
            out = pipe.read()
        assert process.returncode == 0
    # The two streams come in any order.
    assert (len(out), out.count(b"e"), out.count(b"over\n")) == (SIZE + 5, SIZE + 1, 1)
