"""Downloads that are not read hold nothing of what others need."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.lab import Lab, eventually
from tests.local.gateway.stand import CellNet, Program, Stand, client_hello, socket_in

from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.streams import splice as relay
from irons_local.gateway.streams import stream as streams
from irons_local.gateway.streams.splice import LEFT_BYTES, PIPE_BYTES, Flow, Pipes, Turns, share_of_pipes
from irons_local.gateway.streams.stream import LOOK_BYTES, Wire

BENCH = Path(__file__).parents[3] / "bench/lab"
OTHER = "sb_00000000000000bb"
NAME, ADDRESS = "files.example.test", "203.0.113.20"
BULK, STALLING, QUIET = 9001, 9003, 9005
STALLED = 300
DOWNLOAD = 100 << 20
SO_BUF_LOCK, SOCK_RCVBUF_LOCK = 72, 2
"""socket(7); the socket module does not know them."""


def ends() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection, of which neither holds much."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


class Relayed:
    """A flow between two TCP connections, and the ends of them that are a server's and a client's."""

    def __init__(self, loop: FairLoop, pipes: Pipes, turns: Turns) -> None:
        source, self.server = ends()
        sink, self.client = ends()
        self.over: list[OSError | None] = []
        self.wires = Wire(loop, source), Wire(loop, sink)
        self.flow = Flow(loop, *self.wires, pipes, turns, lambda _, error: self.over.append(error))
        self.flow.start()

    def fill(self) -> int:
        """Say as much as there is room for."""
        said = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                said += self.server.send(bytes(1 << 16))
        return said

    def close(self) -> None:
        """Close everything."""
        if not self.flow.done:
            self.flow.stop()
        for each in (self.server, self.client, *self.wires):
            each.close()


@pytest.fixture
def loop() -> Iterator[FairLoop]:
    """A loop to run by hand."""
    with contextlib.closing(FairLoop()) as loop:
        yield loop


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """The pipe of all flows."""
    with contextlib.closing(Pipes(pytest.fail)) as pipes:
        yield pipes


def settle(loop: FairLoop, relayed: list[Relayed]) -> None:
    """Run flows until none of them moves anything."""
    while True:
        before = [(each.flow.moved, each.fill()) for each in relayed]
        loop.run_until_complete(asyncio.sleep(0.02))
        if not any(said for _, said in before) and [each.flow.moved for each in relayed] == [
            moved for moved, _ in before
        ]:
            return


def test_flows_that_do_not_move_hold_no_pipe(loop: FairLoop, pipes: Pipes) -> None:
    """Next to many whose receivers take nothing, all of them with more to come, the one pipe is empty and another moves."""
    turns = Turns(loop, lambda: False)
    before = len(list(Path("/proc/self/fd").iterdir()))
    stalled = [Relayed(loop, pipes, turns) for _ in range(20)]
    moving = Relayed(loop, pipes, turns)
    try:
        settle(loop, stalled)
        with pytest.raises(BlockingIOError):
            os.read(pipes.outlet, 1)
        # The kernel may take a little less than it had room for.
        assert turns.left <= LEFT_BYTES
        # Four sockets each, and the loop's own.
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4 * 21 + 1
        moving.server.send(b"hello")
        heard = loop.run_until_complete(asyncio.wait_for(loop.sock_recv(moving.client, 16), 60))
        assert heard == b"hello"
    finally:
        for each in (*stalled, moving):
            each.close()


@pytest.mark.parametrize(("wide", "locked"), [(1, True), (1 << 40, False)])
def test_what_the_kernel_keeps_of_a_source_stops_growing(
    loop: FairLoop, pipes: Pipes, monkeypatch: pytest.MonkeyPatch, wide: int, locked: bool
) -> None:
    """A fast download's buffer grows to a bound and no further, so that one which then stalls holds little of TCP's memory."""
    monkeypatch.setattr(streams, "WIDE", wide)
    one = Relayed(loop, pipes, Turns(loop, lambda: False))
    source = one.wires[0].sock

    async def read(total: int) -> None:
        while one.flow.moved < total:
            one.fill()
            await loop.sock_recv(one.client, 1 << 20)

    try:
        assert not source.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) & SOCK_RCVBUF_LOCK
        loop.run_until_complete(asyncio.wait_for(read(2 * LOOK_BYTES), 60))
        assert bool(source.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) & SOCK_RCVBUF_LOCK) is locked
    finally:
        one.close()


@pytest.mark.parametrize(("wide", "locked"), [(1, True), (1 << 40, False)])
def test_what_the_kernel_keeps_of_what_is_read_stops_growing(
    loop: FairLoop, monkeypatch: pytest.MonkeyPatch, wide: int, locked: bool
) -> None:
    """What is looked at on its way, as requests and HTTP/2 are, comes from buffers that are bounded like those of a flow."""
    monkeypatch.setattr(streams, "WIDE", wide)
    near, far = ends()
    wire = Wire(loop, near)

    async def read(total: int) -> None:
        got = 0
        while got < total:
            with contextlib.suppress(BlockingIOError):
                far.send(bytes(1 << 16))
            got += len(await wire.recv())

    try:
        loop.run_until_complete(asyncio.wait_for(read(2 * LOOK_BYTES), 60))
        assert bool(near.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) & SOCK_RCVBUF_LOCK) is locked
    finally:
        wire.close()
        far.close()


@pytest.mark.parametrize(
    ("allowed", "left"), [(streams.WIDE, streams.WIDE), (streams.WIDE // 2 - 1, 3 * streams.WIDE)]
)
def test_a_buffer_that_grew_in_one_step_is_made_smaller(
    monkeypatch: pytest.MonkeyPatch, loop: FairLoop, allowed: int, left: int
) -> None:
    """What is far beyond the bound when it is looked at is brought back to it, where the machine allows buffers of that size."""
    asked: list[int] = []

    class Grown(socket.socket):
        """A socket whose buffer has grown."""

        def getsockopt(self, level: int, name: int, *more: int) -> Any:
            if name == socket.SO_RCVBUF:
                return 2 * asked[-1] if asked else 3 * streams.WIDE
            return super().getsockopt(level, name, *more)

        def setsockopt(self, level: int, name: int, value: Any, *more: Any) -> None:
            if name == socket.SO_RCVBUF:
                asked.append(value)
            super().setsockopt(level, name, value, *more)

    monkeypatch.setattr(streams, "_most_receive_buffer", lambda: allowed)
    wire = Wire(loop, Grown(socket.AF_INET, socket.SOCK_STREAM))
    try:
        assert wire.widen_no_more()
        assert wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == left
        assert wire.sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) & SOCK_RCVBUF_LOCK
    finally:
        wire.close()


@pytest.mark.parametrize("closed", [False, True])
def test_both_ends_become_narrow_once_something_has_come(loop: FairLoop, *, closed: bool) -> None:
    """No option is set before that; then the kernel keeps little for either, and one that is closed is left alone."""
    pairs = ends(), ends()
    near, other = wires = [Wire(loop, each) for each, _ in pairs]

    def sizes() -> set[int]:
        return {
            wire.sock.getsockopt(socket.SOL_SOCKET, option)
            for wire in wires
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)
        }

    near.narrow_later(other)
    other.narrow_later(near)
    near.came(1)
    try:
        assert sizes() != {2 * streams.NARROW}
        if closed:
            other.close()
            near.came(streams.LITTLE)
        else:
            near.came(streams.LITTLE)
            assert sizes() == {2 * streams.NARROW}
    finally:
        for wire, (_, far) in zip(wires, pairs, strict=True):
            wire.close()
            far.close()


@pytest.mark.parametrize("fits", [True, False])
def test_an_end_leaves_the_kernel_nothing_to_keep(loop: FairLoop, *, fits: bool) -> None:
    """What a peer has no room for is taken back with a reset; what it has room for arrives, and its end."""
    near, far = ends()
    wire = Wire(loop, near)
    sent = 0
    try:
        with contextlib.suppress(BlockingIOError):
            while not (fits and sent):
                sent += near.send(bytes(1000))
        wire.abandon()
        far.settimeout(60)
        got = 0
        with contextlib.nullcontext() if fits else pytest.raises(ConnectionResetError):
            while more := far.recv(1 << 16):
                got += len(more)
        assert (got == sent) is fits
    finally:
        wire.close()
        far.close()


def test_what_was_not_taken_yet_is_waited_for(loop: FairLoop) -> None:
    """The wait ends once the peer has had room for all of it, or is gone."""

    async def waited(take: bool) -> None:
        near, far = ends()
        wire = Wire(loop, near)
        try:
            with contextlib.suppress(BlockingIOError):
                while True:
                    near.send(bytes(1 << 16))
            waiting = asyncio.ensure_future(wire.delivered())
            done, _ = await asyncio.wait({waiting}, timeout=2 * streams.DELIVERED[0])
            assert not done
            if take:
                while not waiting.done():
                    await asyncio.wait({waiting}, timeout=0.001)
                    with contextlib.suppress(BlockingIOError):
                        far.recv(1 << 20)
            else:
                far.close()
            await asyncio.wait_for(waiting, 60)
            assert bool(wire.unsent) is not take
        finally:
            wire.close()
            far.close()

    for take in (True, False):
        loop.run_until_complete(waited(take))


def test_a_connection_lasts_until_its_client_has_taken_all(stand: Stand, net: CellNet) -> None:
    """One whose two sides have closed counts, and has no closing record, for as long as the kernel keeps bytes for it."""
    stand.policy("deny", [f"{NAME}:*"])
    size = 200_000
    with socket_in(stand.lab.internet) as listener:
        listener.bind((ADDRESS, QUIET))
        listener.listen()
        sock = net.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with Program(sock, stand.resolve(NAME), QUIET) as program:
            program.send(b"\1\2\3\n").finish()
            server, _ = listener.accept()
            with server:
                server.settimeout(60)
                server.sendall(bytes(size))
                server.shutdown(socket.SHUT_WR)
                while server.recv(4096):
                    pass
            # The gateway has been at work since it heard of both ends.
            assert stand.resolve("web.example.test")
            eventually(lambda: stand.ask("stats")["undecided"] == 0)
            assert stand.ask("stats")["connections"] == 1
            assert not [each for each in stand.records() if each["kind"] == "close"]
            assert len(program.rest()) == size
        eventually(lambda: stand.ask("stats")["connections"] == 0)
        closing = stand.event(host=NAME, port=QUIET, kind="close")
        assert (closing["ended"], closing["bytes_in"]) == ("closed", size)


def counted(pid: int, which: str) -> tuple[int, int, dict[str, int]]:
    """What the kernel has for one connection: bytes to be read, bytes that its peer has not taken, and counts."""
    words = ["nsenter", "-t", str(pid), "-n", "ss", "-tinHO", "state", "established", which]
    found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=100).stdout
    (line,) = found.splitlines()
    counts = dict(each.split(":", 1) for each in line.split() if each.startswith("bytes_"))
    unread, unsent = line.split()[:2]
    return int(unread), int(unsent), {name: int(count) for name, count in counts.items()}


@pytest.mark.parametrize(
    ("port", "first"),
    [
        (9006, b"POST / HTTP/1.1\r\nHost: files.example.test\r\nContent-Length: 99999999\r\n\r\n"),
        (9007, b"\x05\x06\x07\n"),
    ],
    ids=["http", "anything"],
)
def test_an_upload_that_nobody_reads_waits_with_its_client(
    stand: Stand, net: CellNet, port: int, first: bytes
) -> None:
    """What the server has no room for stays in the kernel's buffers: the gateway's own memory holds next to none of it."""
    stand.policy("deny", [f"{NAME}:*"])
    with socket_in(stand.lab.internet) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind((ADDRESS, port))
        listener.listen()
        with Program(net.socket(), stand.resolve(NAME), port) as program:
            program.send(first)
            server, _ = listener.accept()
            program.sock.setblocking(False)

            def held() -> tuple[int, int]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        program.sock.send(bytes(1 << 16))
                assert stand.process is not None
                unread, _, near = counted(net.pid, f"sport = :{port}")
                _, unsent, far = counted(stand.process.pid, f"dport = :{port}")
                return near["bytes_received"] - unread, far["bytes_acked"] + unsent

            with server:
                found = [(0, 0)]

                def waits() -> bool:
                    found.append(held())
                    taken, passed_on = found[-1]
                    return found[-1] == found[-2] and taken > 1 << 15 and taken - passed_on < 1 << 13

                eventually(waits)


def test_what_a_sink_did_not_take_after_all_goes_first(
    loop: FairLoop, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel takes less than it had room for, the rest waits in memory, little of it, and nothing is lost."""
    monkeypatch.setattr(Wire, "room", lambda _: PIPE_BYTES)
    turns = Turns(loop, lambda: False)
    stalled = [Relayed(loop, pipes, turns) for _ in range(12)]
    try:
        settle(loop, stalled)
        assert 0 < turns.left <= LEFT_BYTES + PIPE_BYTES
        one = stalled[0]
        said = bytes(range(256)) * 64
        one.server.setblocking(True)
        got = 0
        tail = b""

        async def read() -> None:
            nonlocal got, tail
            one.server.setblocking(False)
            rest = memoryview(said)
            while rest or not tail.endswith(said):
                if rest:
                    with contextlib.suppress(BlockingIOError):
                        rest = rest[one.server.send(rest) :]
                with contextlib.suppress(BlockingIOError):
                    more = one.client.recv(1 << 16)
                    got += len(more)
                    tail = (tail + more)[-len(said) :]
                await asyncio.sleep(0)

        loop.run_until_complete(asyncio.wait_for(read(), 100))
        assert got == one.flow.moved
        one.flow.stop()
    finally:
        for each in stalled:
            each.close()
    assert turns.left == 0


def test_a_sink_that_breaks_leaves_the_pipe_empty(
    loop: FairLoop, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was on its way to a connection that broke reaches no other."""
    turns = Turns(loop, lambda: False)
    broken = Relayed(loop, pipes, turns)
    splice = os.splice

    def breaking(source: int, sink: int, count: int) -> int:
        if sink == broken.wires[1].fd:
            raise ConnectionResetError
        return splice(source, sink, count)

    monkeypatch.setattr(os, "splice", breaking)
    try:
        broken.server.send(b"secret")
        while not broken.over:
            loop.run_until_complete(asyncio.sleep(0.01))
        assert isinstance(broken.over[0], ConnectionResetError)
        with pytest.raises(BlockingIOError):
            os.read(pipes.outlet, 1)
    finally:
        broken.close()


def test_a_pipe_that_stays_small_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user's limit leaves no room one line is logged, and it is tried again after a while."""
    said: list[str] = []
    set_size, now, refused = fcntl.fcntl, 100.0, True

    def limited(fd: int, command: int, size: int = 0) -> int:
        if command == 1031 and refused:
            raise PermissionError
        return set_size(fd, command, size)

    monkeypatch.setattr(fcntl, "fcntl", limited)
    monkeypatch.setattr(relay, "monotonic", lambda: now)
    pipes = Pipes(said.append)
    try:
        assert pipes.size < PIPE_BYTES
        pipes.enlarge()
        assert len(said) == 1
        assert "fs.pipe-user-pages-soft" in said[0]
        refused = False
        pipes.enlarge()
        assert pipes.size < PIPE_BYTES
        now += relay.LARGER
        pipes.enlarge()
        assert pipes.size == PIPE_BYTES
        assert len(said) == 1
    finally:
        pipes.close()


def test_pipes_are_shared_by_workers() -> None:
    """All workers together have at most half of what the kernel lets their user have, and each has a page."""
    page = resource.getpagesize()
    assert share_of_pipes(1, 16_384) == share_of_pipes(4, 0) == PIPE_BYTES
    assert 4 * share_of_pipes(4, 1024) <= 512 * page
    assert share_of_pipes(64, 16) == page


@contextlib.contextmanager
def serving(lab: Lab, bulk: int, *kept: str) -> Iterator[None]:
    """A server that sends much to everyone; the kernel keeps so much for it of each download."""
    words = [
        sys.executable,
        str(BENCH / "far_end.py"),
        ADDRESS,
        str(bulk),
        str(DOWNLOAD),
        str(bulk + 1),
        *kept,
    ]
    argv = ["nsenter", "-t", str(lab.internet), "-n", *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.stdin.close()


@pytest.fixture
def _served(lab: Lab) -> Iterator[None]:
    """Servers: one for those that stall, another for the neighbour.

    All of TCP's memory is one kernel's, and a real server's is on another machine.
    """
    with serving(lab, BULK), serving(lab, STALLING, str(64 << 10)):
        yield


def cost(stand: Stand, net: CellNet) -> float:
    """Seconds of the processor that the gateway takes for three downloads in a cell: the least of three tries.

    The first try also pays for what went on before it, such as the buffers of connections that have just begun.
    """
    return min(_cost_once(stand, net) for _ in range(3))


def _cost_once(stand: Stand, net: CellNet) -> float:
    words = [sys.executable, str(BENCH / "near_end.py"), "bulk", ADDRESS, str(BULK), NAME]
    argv = ["nsenter", "-t", str(net.pid), "-n", *words]
    before = _used(stand)
    for _ in range(3):
        told = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=120).stdout)
        assert told["bytes"] == DOWNLOAD
    return _used(stand) - before


def _used(stand: Stand) -> float:
    assert stand.process is not None
    # proc(5): user and system time in ticks, counted from behind the name.
    fields = Path(f"/proc/{stand.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.usefixtures("_served")
@pytest.mark.alone
def test_stalled_downloads_do_not_slow_a_neighbour(stand: Stand, net: CellNet) -> None:
    """Next to three hundred downloads that are not read, another sandbox's download costs the gateway what it did.

    Its time is measured, and not the download's: how fast that goes depends on what else this machine does.
    """
    stand.stop()
    # Without root's rights, as in life: only then does the kernel count a user's pipes.
    os.chown(stand.home, GATEWAY_ID, GATEWAY_ID)
    for path in stand.home.iterdir():
        shutil.rmtree(path)
    stand.start(confined=True)
    other = CellNet()
    try:
        stand.attach(OTHER, other)
        for cell in ({}, {"cell": OTHER}):
            stand.policy("deny", [f"{NAME}:*"], **cell)
        before = cost(stand, other)
        hello = client_hello(NAME)
        with contextlib.ExitStack() as held:
            for _ in range(STALLED):
                sock = net.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                held.enter_context(Program(sock, ADDRESS, STALLING)).send(hello)
            eventually(lambda: stand.ask("stats")["undecided"] == 0)
            beside = cost(stand, other)
            assert stand.ask("stats")["connections"] == STALLED
        print(f"{before:.2f} s alone, {beside:.2f} s beside {STALLED} that stall")
        # With a pipe for each it was a hundred times as much.
        assert beside <= 3 * before + 0.1
    finally:
        other.close()
