"""Messages as bytes on a unix stream socket: length-prefixed JSON with descriptors; non-blocking, without a loop."""

from __future__ import annotations

import array
import errno
import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

Body = dict[str, Any]


MAX_BYTES = 4 * 1024 * 1024


MAX_DESCRIPTORS = 64


_HEADER = 4


class LinkError(Exception):
    """The other side sent something that is not a message; the link is of no further use."""


class LinkClosedError(LinkError):
    """The other side is gone."""


class RequestError(Exception):
    """A request was answered with an error.

    Attributes:
        code: a word for programs.
        message: one line for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def line_of(error: Exception) -> str:
    """Return what the answer to a request says of an error, as one line: of the system's errors no number, and of a full disk what to do."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space"
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


class Message(NamedTuple):
    """What arrived: the JSON object, and descriptors that now belong to the receiver."""

    body: Body
    fds: list[int]

    def close(self) -> None:
        """Close descriptors that no one wants."""
        while self.fds:
            os.close(self.fds.pop())


def encode(body: Body) -> bytes:
    """One message as bytes.

    Raises:
        LinkError: the message is larger than `MAX_BYTES`.
    """
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        raise LinkError(f"a message of {len(data)} bytes is too large")
    return len(data).to_bytes(_HEADER, "big") + data


def answer_of(message: Message) -> Message:
    """The `ok` of an answer, with its descriptors.

    Raises:
        RequestError: the answer is an error; its descriptors are closed.
    """
    error = message.body.get("error")
    if error is not None:
        message.close()
        detail = error if isinstance(error, dict) else {}
        raise RequestError(str(detail.get("code", "failed")), str(detail.get("message", "failed")))
    ok = message.body.get("ok")
    return Message(ok if isinstance(ok, dict) else {}, message.fds)


class FrameReader:
    """Takes messages off a socket, blocking or not, never reading beyond the message at hand.

    Not reading ahead is what ties descriptors to their message: the kernel hands them over with the first byte
    read of the bytes they were sent with.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()
        self._size: int | None = None
        self._fds: list[int] = []

    def step(self) -> Message | None:
        """Read until a message is whole or a non-blocking socket has no more.

        Returns:
            The message, or None where the socket would block.

        Raises:
            LinkClosedError: the other side is gone.
            LinkError: what came is not a message.
        """
        size = self._size
        if size is None:
            if not self._fill(_HEADER):
                return None
            size = self._size = int.from_bytes(self._data, "big")
            self._data.clear()
            if size > MAX_BYTES:
                raise LinkError(f"a message of {size} bytes is too large")
        return self._take() if self._fill(size) else None

    def close(self) -> None:
        """Close descriptors of a message that never became whole."""
        while self._fds:
            os.close(self._fds.pop())

    def _take(self) -> Message:
        data, self._data, self._size = self._data, bytearray(), None
        try:
            body = json.loads(data)
        except ValueError as error:
            raise LinkError("a message is not JSON") from error
        if not isinstance(body, dict):
            raise LinkError("a message is not a JSON object")
        fds, self._fds = self._fds, []
        return Message(body, fds)

    def _fill(self, size: int) -> bool:
        while len(self._data) < size:
            if not self._read(size - len(self._data)):
                return False
        return True

    def _read(self, want: int) -> bool:
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
        try:
            data, control, flags, _ = self._sock.recvmsg(want, space, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as error:
            raise LinkClosedError(str(error)) from error
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self._fds.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise LinkError("a message carries too many descriptors")
        if not data:
            raise LinkClosedError("the other side is gone")
        self._data += data
        return True


class Sender:
    """Puts messages on a non-blocking socket, keeping what it does not take yet."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._queue: deque[tuple[memoryview, list[int]]] = deque()

    @property
    def waiting(self) -> bool:
        """True while something is left to send."""
        return bool(self._queue)

    def push(self, body: Body, fds: Sequence[int] = ()) -> None:
        """Queue a message; its descriptors are duplicated and stay the caller's."""
        self._queue.append((memoryview(encode(body)), [os.dup(fd) for fd in fds]))

    def flush(self) -> bool:
        """Send what the socket takes.

        Returns:
            True when nothing is left.

        Raises:
            LinkClosedError: the other side is gone.
        """
        while self._queue:
            data, fds = self._queue[0]
            try:
                sent = socket.send_fds(self._sock, [data], fds) if fds else self._sock.send(data)
            except BlockingIOError:
                return False
            except OSError as error:
                raise LinkClosedError(str(error)) from error
            for fd in fds:
                os.close(fd)
            if sent < len(data):
                self._queue[0] = (data[sent:], [])
            else:
                self._queue.popleft()
        return True

    def close(self) -> None:
        """Forget what is left and close its descriptors."""
        while self._queue:
            for fd in self._queue.popleft()[1]:
                os.close(fd)
