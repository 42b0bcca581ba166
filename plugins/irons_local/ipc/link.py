"""Messages between the local backend's processes: length-prefixed JSON over a unix stream socket, with descriptors.

A message is a 4-byte big-endian length and that many bytes of one UTF-8 JSON object; its descriptors travel
with its first byte (`SCM_RIGHTS`, unix(7)). A request has `id` and `op`, its answer the same `id` and `ok` or
`error`; a message with no `id` is a notice. `aio` has the same for asyncio.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from irons_local.ipc.framing import Body, FrameReader, LinkClosedError, Message, answer_of, encode
from irons_local.ipc.unixsock import reach


class Link:
    """A blocking link; one user at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._receiver = FrameReader(sock)
        self._notices: deque[Message] = deque()
        self._last = 0

    @classmethod
    def to(cls, path: Path, timeout: float | None = None) -> Link:
        """Connect to the socket at `path`; `timeout` in seconds holds for every later call too.

        Raises:
            OSError: no one listens there.
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
            if sent < len(data):
                # Even of nothing it would raise where the other side took all and ended the link.
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
        """What came next to the answers and was not received yet; descriptors that came with it are closed."""
        bodies = []
        while self._notices:
            message = self._notices.popleft()
            message.close()
            bodies.append(message.body)
        return bodies

    def close(self) -> None:
        """Close the socket, and descriptors no one took."""
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
