"""The keeper's side of its links: requests come in, answers and notices go out, nothing ever waits."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from irons_local.ipc.framing import Body, FrameReader, LinkError, Message, Sender
from irons_local.keeper.cells.children import Child
from irons_local.keeper.cells.loop import READ, WRITE, Loop


class Client:
    """One link of the keeper's."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        heard: Callable[[KeeperRequest], None],
        gone: Callable[[Client], None],
    ) -> None:
        sock.setblocking(False)
        self._loop, self._sock, self._heard, self._gone = loop, sock, heard, gone
        self._receiver, self._sender = FrameReader(sock), Sender(sock)
        self._closing = False
        self.open = True
        loop.watch(sock.fileno(), READ, self._ready)

    def send(self, body: Body, fds: Sequence[int] = ()) -> None:
        """Send a message, now or as soon as the other side takes it; lost if the link is gone."""
        if not self.open:
            return
        try:
            self._sender.push(body, fds)
            self._flush()
        except LinkError:
            self.close()

    def drain(self) -> None:
        """Hear what has come and was not heard yet, as the last words of one that has ended."""
        with suppress(LinkError):
            while self.open and (message := self._receiver.step()) is not None:
                self._heard(KeeperRequest(self, message))

    def close(self) -> None:
        """End the link."""
        if self.open:
            self.open = False
            self._loop.forget(self._sock.fileno())
            self._sender.close()
            self._receiver.close()
            self._sock.close()
            self._gone(self)

    def _flush(self) -> None:
        done = self._sender.flush()
        self._loop.watch(self._sock.fileno(), READ if done else READ | WRITE, self._ready)

    def _ready(self) -> None:
        try:
            self._flush()
            # One message at a time: other links are served in between.
            message = self._receiver.step()
        except LinkError:
            self.close()
            return
        if message is not None:
            self._heard(KeeperRequest(self, message))


class KeeperRequest:
    """A message that came in on a link, and the way to answer it."""

    def __init__(self, client: Client, message: Message) -> None:
        self.client = client
        self.body = message.body
        self.fds = message.fds
        self._message = message

    @property
    def op(self) -> str:
        """What is asked; empty for an answer."""
        return str(self.body.get("op", ""))

    def ok(self, body: Body | None = None, fds: Sequence[int] = ()) -> None:
        """Answer; a notice gets none. The descriptors stay the caller's."""
        if "id" in self.body:
            self.client.send({"id": self.body["id"], "ok": body or {}}, fds)
        self.drop()

    def refuse(self, code: str, message: str) -> None:
        """Answer with an error."""
        if "id" in self.body:
            self.client.send({"id": self.body["id"], "error": {"code": code, "message": message}})
        self.drop()

    def drop(self) -> None:
        """Close the descriptors that came with it."""
        self._message.close()


class ChildResult:
    """The one report of a forked child: an answer's `ok` or `error`, or None where it ended without a word.

    Args:
        loop: the keeper's.
        child: the child; one that takes too long is ended.
        done: called with the report.
        within: how many seconds it may take.

    Attributes:
        within: how many seconds it may take.
        late: it took longer, and was ended.
    """

    def __init__(
        self, loop: Loop, child: Child, done: Callable[[Message | None], None], within: float
    ) -> None:
        child.sock.setblocking(False)
        self._loop, self._child, self._done = loop, child, done
        self._receiver = FrameReader(child.sock)
        self.within = within
        self.late = False
        self._timer = loop.after(within, self._end)
        loop.watch(child.sock.fileno(), READ, self._ready)

    def _ready(self) -> None:
        try:
            message = self._receiver.step()
        except LinkError:
            self._finish(None)
            return
        if message is not None:
            self._finish(message)

    def _end(self) -> None:
        self.late = True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)

    def _finish(self, message: Message | None) -> None:
        self._timer.cancel()
        self._loop.forget(self._child.sock.fileno())
        self._receiver.close()
        self._child.sock.close()
        os.close(self._child.pidfd)
        self._done(message)
