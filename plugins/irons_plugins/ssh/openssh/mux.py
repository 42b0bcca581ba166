"""A session on a connection that OpenSSH keeps, asked of its master by the protocol of OpenSSH's own client (PROTOCOL.mux, version 4).

Starting that client only to pass three descriptors on would take longer than the rest of a short program.
"""

from __future__ import annotations

import array
import contextlib
import math
import os
import socket
import struct
import time
from typing import IO

from irons.errors import IronsError
from irons_plugins.ssh.openssh.child import PIPE
from irons_plugins.ssh.openssh.exit_codes import CONNECTION_LOST, SESSION_KILLED

VERSION = 4
HELLO, NEW_SESSION, ALIVE_CHECK = 0x00000001, 0x10000002, 0x10000004
PERMISSION_DENIED, FAILURE = 0x80000002, 0x80000003
EXIT_MESSAGE, ALIVE, SESSION_OPENED = 0x80000004, 0x80000005, 0x80000006

_REQUEST = 1
_NO_ESCAPES = 0xFFFFFFFF
_KILLED = -9
_LOOK_EVERY = 0.01
_ALIVE_WITHIN = 60.0
"""Seconds that a master has for the answer that it lives; it answers at once."""

_LARGEST = 1 << 16
"""Bytes of a message from the master; those that are read here have 12."""


def hello() -> bytes:
    """Return the message that begins a connection to a master."""
    return _message(HELLO, struct.pack(">I", VERSION))


def new_session(line: str) -> bytes:
    """Return the request for a session without a terminal that runs a line; descriptors 0, 1 and 2 of the program go after it."""
    command = line.encode(errors="surrogateescape")
    # No terminal, X11, agent, subsystem; then the escape character, the kind of terminal, and no variables.
    fields = struct.pack(">IIIIIIII", _REQUEST, 0, 0, 0, 0, 0, _NO_ESCAPES, 0)
    return _message(NEW_SESSION, fields + struct.pack(">I", len(command)) + command)


def alive_check() -> bytes:
    """Return the question whether the master lives, which it answers at once."""
    return _message(ALIVE_CHECK, struct.pack(">I", _REQUEST))


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", 4 + len(body), kind) + body


class _Control:
    """A connection to the master."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._got = bytearray()

    @property
    def rest(self) -> bytes:
        """What has come and is not a whole message."""
        return bytes(self._got)

    def received(self) -> tuple[int, bytes] | None:
        """Return the next message's kind and body; None at the end, and where it is not a message. Raises `OSError`."""
        while True:
            if len(self._got) >= 8:
                length, kind = struct.unpack_from(">II", self._got)
                if not 4 <= length <= _LARGEST:
                    return None
                if len(self._got) >= 4 + length:
                    body = bytes(self._got[8 : 4 + length])
                    del self._got[: 4 + length]
                    return kind, body
            more = self.sock.recv(_LARGEST)
            if not more:
                return None
            self._got += more


class MuxSession:
    """A program that runs in a session on a kept connection. Ends as a child would; see `irons_plugins.ssh.openssh.child.Attached`.

    The master closes a session's connection where the session is over, and also where the master itself ends with the connection
    that it keeps; then what the program wrote last may never have come, even where its exit code has. So a second connection is a
    witness: while it is open the master does not end by itself, and only a master that lives answers on it.

    Attributes:
        stdin: What it reads from, where `PIPE` was asked for; likewise `stdout` and `stderr`.
    """

    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None
    stderr: IO[bytes] | None = None

    def __init__(self) -> None:
        """Make the connections, which lead nowhere yet; `open_session` makes the session."""
        self._session = self._watched = _Control()
        self._witness = _Control()
        self._exit: int | None = None
        self._code: int | None = None
        self._answers_until = math.inf

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when there is something to `wait` for; None once `wait` has its answer."""
        return self._watched.sock.fileno() if self._code is None else None

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code, or `SESSION_KILLED`, `CONNECTION_LOST`, -9 once killed; None where it runs on after so many seconds."""
        if self._code is not None:
            return self._code
        lives = False
        try:
            # The master closes the connection once it has written all of the program's output, which may be after the exit code.
            if self._watched is self._session:
                self._follow(seconds)
                self._watched = self._witness
                self._witness.sock.settimeout(None)
                self._witness.sock.sendall(hello() + alive_check())
                self._answers_until = time.monotonic() + _ALIVE_WITHIN
            left = max(0.0, self._answers_until - time.monotonic())
            self._witness.sock.settimeout(left if seconds is None else min(seconds, left))
            while not lives and (message := self._witness.received()):
                lives = message[0] == ALIVE
        except (TimeoutError, BlockingIOError):
            if time.monotonic() < self._answers_until:
                return None
        except OSError:
            pass
        self._end((SESSION_KILLED if self._exit is None else self._exit) if lives else CONNECTION_LOST)
        return self._code

    def _follow(self, seconds: float | None) -> None:
        """Read what the master says of the session, to its end."""
        self._session.sock.settimeout(seconds)
        try:
            while message := self._session.received():
                kind, body = message
                if kind == EXIT_MESSAGE and len(body) == 8:
                    (self._exit,) = struct.unpack_from(">I", body, 4)
        except ConnectionResetError:
            """An end as well."""

    def _end(self, code: int) -> None:
        self._code = code
        self.close()

    def close(self) -> None:
        """Close the connections to the master."""
        self._session.sock.close()
        self._witness.sock.close()

    def kill(self) -> None:
        """End the session: the master closes the program's streams."""
        if self._code is None:
            self._end(_KILLED)

    def connect(self, path: str, within: float) -> bool:
        """Connect to a master; False where it does not greet, speaks another version, or another has its place. Raises `OSError`."""
        _connect(self._session.sock, path, within)
        self._session.sock.sendall(hello())
        first = self._session.received()
        if first is None or first[0] != HELLO or first[1][:4] != struct.pack(">I", VERSION):
            return False
        _connect(self._witness.sock, path, within)
        return _listener(self._session.sock) == _listener(self._witness.sock)

    def ask(self, line: str, descriptors: tuple[int, int, int], within: float) -> bool:
        """Ask the master, which has greeted, for the session; False where it refuses.

        Where it goes before it has answered, the session has ended as one that lost its connection.

        Raises:
            IronsError: It does not answer. The program may run by then or later, so nothing may take its place.
        """
        sock = self._session.sock
        sock.settimeout(within)
        try:
            sock.sendall(new_session(line))
            for each in descriptors:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [each]))
                sock.sendmsg([b"\0"], [rights])
            answer = self._session.received()
        except TimeoutError:
            raise _unanswered(f"in {within:g} s") from None
        except OSError:
            answer = None
        known = answer is not None and answer[0] in (SESSION_OPENED, PERMISSION_DENIED, FAILURE)
        if not known and (answer is not None or self._session.rest):
            raise _unanswered("as OpenSSH does")
        if answer is None:
            self._end(CONNECTION_LOST)
        return answer is None or answer[0] == SESSION_OPENED


def _connect(sock: socket.socket, path: str, within: float) -> None:
    """Connect; where as many wait already as the listener lets wait, Linux refuses at once, and it is tried again."""
    until = time.monotonic() + within
    sock.settimeout(within)
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK_EVERY)
        else:
            return


def _listener(sock: socket.socket) -> int:
    """Return the process that listens at the other end (unix(7), SO_PEERCRED)."""
    size = struct.calcsize("iII")
    pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)


def _unanswered(how: str) -> IronsError:
    return IronsError(
        f"the connection that OpenSSH keeps to the sandbox did not answer {how}",
        hint="the program may have been started; look before you run it again",
    )


def open_session(
    path: str,
    line: str,
    stdin: int,
    stdout: int,
    stderr: int,
    *,
    within: float,
    answered_within: float,
) -> MuxSession | None:
    """Run a line in a session on a kept connection; None where there is none to be had, and nothing was run or read.

    Args:
        path: The master's socket.
        line: For the sandbox's shell.
        stdin: What it reads from: a descriptor, or `PIPE`.
        stdout: Where it writes, likewise.
        stderr: Where it writes, likewise.
        within: Seconds until the master must have greeted: before that nothing is asked of it.
        answered_within: Seconds that it may take to open the session.

    Raises:
        IronsError: The master was asked and does not answer: whether the line runs is not known.
    """
    session = MuxSession()
    with contextlib.ExitStack() as failed, contextlib.ExitStack() as theirs:
        failed.callback(session.close)
        given: list[int] = []
        for number, asked in enumerate((stdin, stdout, stderr)):
            if asked != PIPE:
                given.append(asked)
                continue
            reading, writing = os.pipe()
            mine, other = (writing, reading) if number == 0 else (reading, writing)
            theirs.callback(os.close, other)
            given.append(other)
            pipe = os.fdopen(mine, "wb" if number == 0 else "rb")
            failed.callback(pipe.close)
            setattr(session, ("stdin", "stdout", "stderr")[number], pipe)
        try:
            greeted = session.connect(path, within)
        except OSError:
            greeted = False
        if not greeted or not session.ask(line, (given[0], given[1], given[2]), answered_within):
            return None
        failed.pop_all()
    return session
