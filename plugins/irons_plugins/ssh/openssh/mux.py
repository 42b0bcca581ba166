"""A session on a connection that OpenSSH keeps, asked of its master by the protocol of OpenSSH's own client (PROTOCOL.mux, version 4).

Starting that client only to pass three descriptors on would take longer than the rest of a short program.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from typing import IO

from irons.errors import IronsError
from irons_plugins.ssh.openssh.child import PIPE
from irons_plugins.ssh.openssh.exit_codes import OPENSSH_FAILED

VERSION = 4
HELLO, NEW_SESSION = 0x00000001, 0x10000002
PERMISSION_DENIED, FAILURE = 0x80000002, 0x80000003
EXIT_MESSAGE, SESSION_OPENED = 0x80000004, 0x80000006

_REQUEST = 1
_NO_ESCAPES = 0xFFFFFFFF
_KILLED = -9
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


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", 4 + len(body), kind) + body


class MuxSession:
    """A program that runs in a session on a kept connection. Ends as a child would; see `irons_plugins.ssh.openssh.child.Attached`.

    Attributes:
        stdin: What it reads from, where `PIPE` was asked for; likewise `stdout` and `stderr`.
    """

    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None
    stderr: IO[bytes] | None = None

    def __init__(self, sock: socket.socket) -> None:
        """Take a connection to the master; `open_session` makes the session."""
        self._sock = sock
        self._got = bytearray()
        self._exit: int | None = None
        self._code: int | None = None

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when there is something to `wait` for; None once `wait` has its answer."""
        return self._sock.fileno() if self._code is None else None

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code, 255 where the connection was lost, -9 once killed; None where it runs on after so many seconds."""
        if self._code is not None:
            return self._code
        try:
            self._sock.settimeout(seconds)
            # The master closes the connection once it has written all of the program's output, which may be after the exit code.
            while message := self._received():
                kind, body = message
                if kind == EXIT_MESSAGE and len(body) == 8:
                    (self._exit,) = struct.unpack_from(">I", body, 4)
        except (TimeoutError, BlockingIOError):
            return None
        except OSError:
            pass
        self._code = OPENSSH_FAILED if self._exit is None else self._exit
        self._sock.close()
        return self._code

    def kill(self) -> None:
        """End the session: the master closes the program's streams."""
        if self._code is None:
            self._code = _KILLED
            self._sock.close()

    def greet(self, within: float) -> bool:
        """Greet the master; False where it does not greet in turn, or speaks another version. Raises `OSError`."""
        self._sock.settimeout(within)
        self._sock.sendall(hello())
        first = self._received()
        return first is not None and first[0] == HELLO and first[1][:4] == struct.pack(">I", VERSION)

    def ask(self, line: str, descriptors: tuple[int, int, int], within: float) -> bool:
        """Ask the master, which has greeted, for the session; False where it refuses.

        Where it goes before it has answered, the session has ended as one that lost its connection.

        Raises:
            IronsError: It does not answer. The program may run by then or later, so nothing may take its place.
        """
        self._sock.settimeout(within)
        try:
            self._sock.sendall(new_session(line))
            for each in descriptors:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [each]))
                self._sock.sendmsg([b"\0"], [rights])
            answer = self._received()
        except TimeoutError:
            raise _unanswered(f"in {within:g} s") from None
        except OSError:
            answer = None
        known = answer is not None and answer[0] in (SESSION_OPENED, PERMISSION_DENIED, FAILURE)
        if not known and (answer is not None or self._got):
            raise _unanswered("as OpenSSH does")
        if answer is None:
            self._code = OPENSSH_FAILED
            self._sock.close()
        return answer is None or answer[0] == SESSION_OPENED

    def _received(self) -> tuple[int, bytes] | None:
        """Return the next message's kind and body; None at the end, and where it is not a message."""
        while True:
            if len(self._got) >= 8:
                length, kind = struct.unpack_from(">II", self._got)
                if not 4 <= length <= _LARGEST:
                    return None
                if len(self._got) >= 4 + length:
                    body = bytes(self._got[8 : 4 + length])
                    del self._got[: 4 + length]
                    return kind, body
            more = self._sock.recv(_LARGEST)
            if not more:
                return None
            self._got += more


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
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.ExitStack() as failed, contextlib.ExitStack() as theirs:
        failed.callback(sock.close)
        session = MuxSession(sock)
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
            sock.settimeout(within)
            sock.connect(path)
            greeted = session.greet(within)
        except OSError:
            greeted = False
        if not greeted or not session.ask(line, (given[0], given[1], given[2]), answered_within):
            return None
        failed.pop_all()
    return session
