"""Messages between the local backend's processes: length-prefixed JSON over a unix stream socket, with descriptors.

A message is a 4-byte big-endian length and that many bytes of one UTF-8 JSON object; its descriptors travel
with its first byte (`SCM_RIGHTS`, unix(7)). A request has `id` and `op`, its answer the same `id` and `ok` or
`error`; a message with no `id` is a notice. `asynclink` has the same for asyncio.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

Body = dict[str, Any]

MAX_BYTES = 4 * 1024 * 1024
MAX_DESCRIPTORS = 64
_HEADER = 4
_CREDENTIALS = struct.Struct("3i")
_SUN_PATH = 107


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


class Message(NamedTuple):
    """What arrived: the JSON object, and descriptors that now belong to the receiver."""

    body: Body
    fds: list[int]

    def close(self) -> None:
        """Close descriptors that nobody wants."""
        while self.fds:
            os.close(self.fds.pop())


class Peer(NamedTuple):
    """Who is at the other end of a unix socket, as the kernel knew it at connect time."""

    pid: int
    uid: int
    gid: int


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


def peer_of(sock: socket.socket) -> Peer:
    """Who connected this socket (`SO_PEERCRED`)."""
    return Peer(
        *_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    )


def reach(path: Path) -> socket.socket:
    """Connect to a unix stream socket, however long its path is.

    Raises:
        OSError: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _by_name(path, sock.connect)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(path: Path, backlog: int = 128) -> socket.socket:
    """Listen on a unix stream socket that only its owner can reach, in place of whatever was there.

    The name appears by a rename, once the socket is ready: a client never finds one that refuses it.

    Raises:
        OSError: the directory cannot be written.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        _by_name(fresh, sock.bind)
        fresh.chmod(0o600)
        sock.listen(backlog)
        fresh.rename(path)
    except BaseException:
        sock.close()
        fresh.unlink(missing_ok=True)
        raise
    return sock


def _by_name(path: Path, use: Callable[[str], None]) -> None:
    name = os.fspath(path)
    if len(os.fsencode(name)) <= _SUN_PATH:
        use(name)
        return
    # sun_path is 108 bytes; the directory's descriptor gives a short name for a long one.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


class Receiver:
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


class Link:
    """A blocking link; one user at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._receiver = Receiver(sock)
        self._notices: deque[Message] = deque()
        self._last = 0

    @classmethod
    def to(cls, path: Path, timeout: float | None = None) -> Link:
        """Connect to the socket at `path`; `timeout` in seconds holds for every later call too.

        Raises:
            OSError: nobody listens there.
        """
        sock = reach(path)
        sock.settimeout(timeout)
        return cls(sock)

    def send(self, body: Body, fds: Sequence[int] = ()) -> None:
        """Send one message; the descriptors stay the caller's.

        Raises:
            LinkClosedError: the other side is gone, or took too long.
        """
        data = memoryview(encode(body))
        try:
            sent = socket.send_fds(self.sock, [data], list(fds)) if fds else 0
            self.sock.sendall(data[sent:])
        except OSError as error:
            raise LinkClosedError(str(error)) from error

    def recv(self) -> Message:
        """The next message that is not an answer to a `request` of ours.

        Raises:
            LinkClosedError: the other side is gone.
            LinkError: what came is not a message, or did not come in time.
        """
        return self._notices.popleft() if self._notices else self._next()

    def request(self, op: str, fds: Sequence[int] = (), /, **fields: Any) -> Message:
        """Ask, and wait for the answer; notices that come first are kept for `recv`.

        Returns:
            The answer's `ok`, with its descriptors.

        Raises:
            RequestError: the other side answered with an error.
            LinkClosedError: the other side is gone.
        """
        self._last += 1
        self.send({"id": self._last, "op": op, **fields}, fds)
        while True:
            message = self._next()
            if "op" in message.body:
                self._notices.append(message)
            elif message.body.get("id") == self._last:
                return answer_of(message)
            else:
                message.close()

    def notices(self) -> list[Body]:
        """What came beside the answers and was not received yet; descriptors that came with it are closed."""
        bodies = []
        while self._notices:
            message = self._notices.popleft()
            message.close()
            bodies.append(message.body)
        return bodies

    def close(self) -> None:
        """Close the socket, and descriptors nobody took."""
        self._receiver.close()
        while self._notices:
            self._notices.popleft().close()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> Message:
        message = self._receiver.step()
        if message is None:
            raise LinkClosedError("the other side took too long")
        return message
