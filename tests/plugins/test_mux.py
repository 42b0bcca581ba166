"""Sessions on a connection that OpenSSH keeps, by its own protocol, with a master of the test's own."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import subprocess as processes
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from irons.errors import IronsError
from irons_plugins.ssh.openssh import mux, subprocess
from irons_plugins.ssh.openssh.child import PIPE
from irons_plugins.ssh.openssh.exit_codes import CONNECTION_LOST, SESSION_KILLED
from irons_plugins.ssh.openssh.mux import (
    ALIVE,
    ALIVE_CHECK,
    EXIT_MESSAGE,
    FAILURE,
    HELLO,
    NEW_SESSION,
    PERMISSION_DENIED,
    SESSION_OPENED,
    VERSION,
    MuxSession,
    open_session,
)

WITHIN = 60.0
SOON = 0.05
"""Seconds for what never comes."""
OPENED = (SESSION_OPENED, struct.pack(">II", 1, 0))
EXITED = (EXIT_MESSAGE, struct.pack(">II", 1, 7))
GREETING = (HELLO, struct.pack(">I", VERSION))


class Master:
    """Serves one client: greets, takes its request and three descriptors, then does what the test asks.

    Attributes:
        greeting: what it greets with; a client that is not content asks for nothing.
        lives: whether it lives on once its session is over, and answers the witness.
        command: the line of the request; None where there was no request.
    """

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/master"
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(self.path)
        self.listening.listen()
        self.greeting: tuple[tuple[int, bytes], ...] = (GREETING,)
        self.lives = True
        self.command: bytes | None = None
        self.descriptors: list[int] = []
        self.thread: threading.Thread | None = None

    def serve(self, then: Callable[[socket.socket], None]) -> None:
        """Begin; `then` gets the connection once the request is there, or the client has left."""

        def run() -> None:
            connection, _ = self.listening.accept()
            with connection:
                try:
                    self._take(connection)
                    then(connection)
                finally:
                    self.close()
                    if not self.lives:
                        self.listening.close()
            if self.lives and self.command is not None:
                self._answer()

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def _answer(self) -> None:
        witness, _ = self.listening.accept()
        with witness, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send(witness, GREETING)
            asked = struct.pack(">IIIIII", 8, HELLO, VERSION, 8, ALIVE_CHECK, 1)
            if witness.recv(len(asked), socket.MSG_WAITALL) == asked:
                send(witness, (ALIVE, struct.pack(">II", 1, os.getpid())))

    def close(self) -> None:
        """Close what the client handed over."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def _take(self, connection: socket.socket) -> None:
        assert connection.recv(12, socket.MSG_WAITALL) == struct.pack(">III", 8, HELLO, VERSION)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send(connection, *self.greeting)
        try:
            head = connection.recv(8, socket.MSG_WAITALL)
        except ConnectionResetError:
            head = b""
        if not head:
            return
        length, kind = struct.unpack(">II", head)
        assert kind == NEW_SESSION
        body = connection.recv(length - 4, socket.MSG_WAITALL)
        assert struct.unpack(">IIIIIIII", body[:32]) == (1, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0)
        self.command = body[36:]
        assert struct.unpack(">I", body[32:36]) == (len(self.command),)
        for _ in range(3):
            _, rights, _, _ = connection.recvmsg(1, 64)
            found = array.array("i")
            found.frombytes(rights[0][2])
            self.descriptors += found


@pytest.fixture
def master() -> Iterator[Master]:
    """A master, and nothing left of it."""
    with tempfile.TemporaryDirectory(prefix="irons-") as directory:
        made = Master(directory)
        try:
            yield made
        finally:
            made.listening.close()
            if made.thread is not None:
                made.thread.join(WITHIN)
            made.close()


def send(connection: socket.socket, *messages: tuple[int, bytes]) -> None:
    """Send messages, each as its kind and body."""
    for kind, body in messages:
        connection.sendall(struct.pack(">II", 4 + len(body), kind) + body)


def opened(
    master: Master, line: str = "true", *, within: float = WITHIN, answered_within: float = WITHIN
) -> MuxSession | None:
    """Ask for a session whose streams are all pipes."""
    return open_session(master.path, line, PIPE, PIPE, PIPE, within=within, answered_within=answered_within)


def close_pipes(session: MuxSession) -> None:
    """Close this end of a session's streams."""
    for pipe in (session.stdin, session.stdout, session.stderr):
        assert pipe is not None
        pipe.close()


def test_a_session_hands_over_streams_and_returns_the_exit_code(master: Master) -> None:
    """The line and the three streams arrive, and the code counts once the master has closed the connection."""
    waited: list[int | None] = []
    looked = threading.Event()

    def run(connection: socket.socket) -> None:
        send(connection, OPENED, (EXIT_MESSAGE, struct.pack(">II", 0, 7)))
        assert looked.wait(WITHIN)
        stdin, stdout, stderr = master.descriptors
        os.write(stdout, os.read(stdin, 100))
        os.write(stderr, b"told")

    master.serve(run)
    session = opened(master, "echo 'ü'")
    assert session is not None
    assert session.stdin is not None
    assert session.stdout is not None
    assert session.stderr is not None
    waited.append(session.wait(0))
    with session.stdin as stdin:
        stdin.write(b"given")
    looked.set()
    with session.stdout as stdout, session.stderr as stderr:
        assert (stdout.read(), stderr.read()) == (b"given", b"told")
    assert master.command == "echo 'ü'".encode()
    waited += [session.wait(), session.wait(0)]
    assert waited == [None, 7, 7]


@pytest.fixture
def before() -> set[Path]:
    """The descriptors that are open before the test."""
    return set(Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(
    "greeting",
    [
        ((HELLO, struct.pack(">I", VERSION + 1)),),
        (OPENED, GREETING),
        ((HELLO, b"x" * 100_000),),
    ],
    ids=["another version", "no greeting", "too long"],
)
def test_what_does_not_greet_as_a_master_is_asked_for_nothing(
    master: Master, before: set[Path], greeting: tuple[tuple[int, bytes], ...]
) -> None:
    """There is no session, no request has left, so that another way may be taken, and no descriptor stays open."""
    master.greeting = greeting
    master.serve(lambda _: None)
    assert opened(master) is None
    assert master.thread is not None
    master.thread.join(WITHIN)
    assert master.command is None
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_a_master_that_hangs_is_asked_for_nothing(master: Master, before: set[Path]) -> None:
    """The kernel takes the connection of one that is stopped; without its greeting no request leaves."""
    master.greeting = ()
    master.serve(lambda _: None)
    assert opened(master, within=SOON) is None
    assert master.thread is not None
    master.thread.join(WITHIN)
    assert master.command is None
    assert set(Path("/proc/self/fd").iterdir()) <= before


@pytest.mark.parametrize("kind", [FAILURE, PERMISSION_DENIED])
def test_where_a_master_refuses_nothing_is_left(master: Master, before: set[Path], kind: int) -> None:
    """A refusal says that nothing runs: there is no session, and no descriptor stays open."""
    master.serve(lambda connection: send(connection, (kind, struct.pack(">II", 1, 0))))
    assert opened(master) is None
    assert master.thread is not None
    master.thread.join(WITHIN)
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_a_master_that_goes_before_its_answer_is_a_lost_connection(master: Master) -> None:
    """The program may run, so nothing takes its place: the session has ended as one that was lost."""
    master.lives = False
    master.serve(lambda _: None)
    session = opened(master)
    assert session is not None
    assert session.wait() == CONNECTION_LOST
    close_pipes(session)


def test_a_lost_connection_is_one_within_a_limit_too(master: Master) -> None:
    """There is nothing to wait for any more, so the limit is none."""
    master.lives = False
    master.serve(lambda _: None)
    session = opened(master)
    assert session is not None
    assert session.fileno() is None
    assert subprocess._wait(session, lambda: time.monotonic() + WITHIN) == CONNECTION_LOST
    close_pipes(session)


@pytest.mark.parametrize(
    "answers",
    [(), ((HELLO, b"x" * 100_000),), ((EXIT_MESSAGE, struct.pack(">II", 0, 0)),)],
    ids=["nothing", "too long", "another answer"],
)
def test_a_request_without_its_answer_is_an_error(
    master: Master, before: set[Path], answers: tuple[tuple[int, bytes], ...]
) -> None:
    """Whether the program runs is not known then, so it is not run a second time; no descriptor stays open."""

    def run(connection: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send(connection, *answers)
            connection.recv(1)

    master.serve(run)
    with pytest.raises(IronsError, match="did not answer"):
        opened(master, answered_within=WITHIN if answers else SOON)
    assert master.thread is not None
    master.thread.join(WITHIN)
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_where_no_master_listens_there_is_no_session(tmp_path: Path) -> None:
    """A socket that is not there is as one that refuses."""
    none = str(tmp_path / "none")
    assert open_session(none, "true", PIPE, PIPE, PIPE, within=WITHIN, answered_within=WITHIN) is None


@pytest.mark.parametrize("limited", [False, True], ids=["no limit", "limit"])
@pytest.mark.parametrize(
    ("messages", "lives", "code"),
    [
        ((OPENED, EXITED), True, 7),
        ((OPENED, EXITED), False, CONNECTION_LOST),
        ((OPENED,), True, SESSION_KILLED),
        ((OPENED,), False, CONNECTION_LOST),
    ],
    ids=["over", "lost after its code", "no code", "lost"],
)
def test_a_code_counts_only_where_the_master_lives(
    master: Master, messages: tuple[tuple[int, bytes], ...], lives: bool, code: int, limited: bool
) -> None:
    """A master that ends with its connection may hold output that comes no more; one that lives has written all of it."""
    master.lives = lives
    master.serve(lambda connection: send(connection, *messages))
    session = opened(master)
    assert session is not None
    deadline = (lambda: time.monotonic() + WITHIN) if limited else None
    assert subprocess._wait(session, deadline) == code
    assert session.wait(0) == code
    close_pipes(session)


def test_a_killed_session_closes_the_connection(master: Master) -> None:
    """The master sees it at once; a later end of the program changes nothing."""
    gone: list[bytes] = []

    def run(connection: socket.socket) -> None:
        send(connection, OPENED)
        gone.append(connection.recv(1))

    master.serve(run)
    session = opened(master)
    assert session is not None
    session.kill()
    assert session.wait() == -9
    assert master.thread is not None
    master.thread.join(WITHIN)
    assert gone == [b""]
    close_pipes(session)


def test_a_master_that_many_wait_for_is_tried_again(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux refuses a connection at once where as many wait as the master lets wait; that is not a master that is gone."""
    master.listening.listen(0)
    with contextlib.ExitStack() as waiting:
        count = fill(master.path, waiting)

        def pause(_: float) -> None:
            for _ in range(count):
                master.listening.accept()[0].close()
            master.serve(lambda connection: send(connection, OPENED, EXITED))

        monkeypatch.setattr(time, "sleep", pause)
        session = opened(master)
    assert session is not None
    close_pipes(session)
    assert session.wait() == 7


def fill(path: str, waiting: contextlib.ExitStack) -> int:
    """Connect as often as a listener lets callers wait; return how often."""
    count = 0
    while True:
        one = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        one.setblocking(False)
        try:
            one.connect(path)
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.process
def test_a_session_has_its_witness_at_the_same_master(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process took the socket's place between the two connections, nothing is asked of either."""
    other = f"{master.path}-other"
    listens = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", listens, other]
    with processes.Popen(argv, stdin=processes.PIPE, stdout=processes.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        take = master._take

        def taken(connection: socket.socket) -> None:
            Path(other).replace(master.path)
            take(connection)

        monkeypatch.setattr(master, "_take", taken)
        master.serve(lambda _: None)
        assert opened(master) is None
        assert master.thread is not None
        master.thread.join(WITHIN)
        assert master.command is None


def test_a_master_that_hangs_at_the_end_is_lost(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that closes the session and never answers the witness does not hold the call up for good."""
    monkeypatch.setattr(mux, "_ALIVE_WITHIN", SOON)
    monkeypatch.setattr(master, "_answer", lambda: None)
    master.serve(lambda connection: send(connection, OPENED, EXITED))
    session = opened(master)
    assert session is not None
    close_pipes(session)
    assert session.wait() == CONNECTION_LOST
