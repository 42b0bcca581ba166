"""Moves bytes from one socket to another without looking at them: splice(2) through a pipe.

A pipe is borrowed only while bytes are under way, so an idle connection costs two registrations and no buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from time import monotonic

from irons_plugins.local.gateway.wire import Wire

PIPE_BYTES = 1 << 20
TURN_BYTES = 8 << 20
"""What the flows of one cell move together, about, in one turn of it, while no other cell is at work."""
CROWDED_BYTES = 512 << 10
"""The same while others are."""
LEAST_BYTES = 64 << 10
SPARE = 32
_F_SETPIPE_SZ = 1031

Pipe = tuple[int, int]


class Pipes:
    """Pipes for reuse; one that may still hold bytes is never given again."""

    def __init__(self) -> None:
        self._spare: list[Pipe] = []

    def borrow(self) -> Pipe:
        """An empty pipe.

        Raises:
            OSError: there are no descriptors left.
        """
        if self._spare:
            return self._spare.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # beyond the user's soft limit: a smaller pipe does as well
            fcntl.fcntl(pipe[1], _F_SETPIPE_SZ, PIPE_BYTES)
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Return a pipe."""
        if empty and len(self._spare) < SPARE:
            self._spare.append(pipe)
            return
        for fd in pipe:
            os.close(fd)

    def close(self) -> None:
        """Close what is spare."""
        while self._spare:
            self.give_back(self._spare.pop(), empty=False)


class Turns:
    """Shares the loop among cells: the more flows of a cell are ready at once, the less each moves at a time.

    Args:
        loop: the loop that runs the flows.
        crowded: tells whether other cells are at work.
    """

    __slots__ = ("_crowded", "_loop", "_ready", "_running")

    def __init__(self, loop: asyncio.AbstractEventLoop, crowded: Callable[[], bool]) -> None:
        self._loop = loop
        self._crowded = crowded
        self._ready = 1
        self._running = 0

    def take(self) -> int:
        """How many bytes a flow that is ready now may move."""
        if not self._running:
            self._loop.call_soon(self._next)
        self._running += 1
        return max(LEAST_BYTES, (CROWDED_BYTES if self._crowded() else TURN_BYTES) // self._ready)

    def _next(self) -> None:
        self._ready, self._running = self._running, 0


class Flow:
    """One direction of a connection.

    Args:
        loop: the loop that runs it.
        source: where bytes come from; nothing may be held of it.
        sink: where they go.
        pipes: where pipes are borrowed.
        turns: of the cell whose connection it is.
        ended: called once, with None at the end of `source` (which `sink` has then been told) or with what broke.

    Attributes:
        moved: bytes that `sink` has taken.
        reading: it was last at work on `source`, not on `sink`.
        done: it will move nothing more.
    """

    __slots__ = (
        "_ended",
        "_loop",
        "_paused",
        "_pending",
        "_pipe",
        "_pipes",
        "_sink",
        "_source",
        "_turns",
        "_waits",
        "done",
        "moved",
        "reading",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: Wire,
        sink: Wire,
        pipes: Pipes,
        turns: Turns,
        ended: Callable[[Flow, OSError | None], None],
    ) -> None:
        self._loop = loop
        self._source = source
        self._sink = sink
        self._pipes = pipes
        self._turns = turns
        self._ended = ended
        self._pipe: Pipe | None = None
        self._pending = 0
        self._waits = 0
        self._paused: asyncio.Future[None] | None = None
        self.moved = 0
        self.reading = True
        self.done = False

    def start(self) -> None:
        """Begin to move bytes."""
        self._wait_to_read()

    def stop(self) -> None:
        """Stop, wherever it is; nothing is told to anyone."""
        self.done = True
        if self._waits == 1:
            self._loop.remove_reader(self._source.fd)
        elif self._waits == 2:
            self._loop.remove_writer(self._sink.fd)
        self._waits = 0
        self._return_pipe()
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)

    async def pause(self) -> None:
        """Stop once everything that was taken from `source` has gone on."""
        if not self.done and self._pending:
            self._paused = self._loop.create_future()
            await self._paused
        if not self.done:
            self.stop()

    def _wait_to_read(self) -> None:
        if self._waits == 2:
            self._loop.remove_writer(self._sink.fd)
        if self._waits != 1:
            self._loop.add_reader(self._source.fd, self._run)
            self._waits = 1

    def _wait_to_write(self) -> None:
        if self._waits == 1:
            self._loop.remove_reader(self._source.fd)
        if self._waits != 2:
            self._loop.add_writer(self._sink.fd, self._run)
            self._waits = 2

    def _run(self) -> None:
        try:
            over = self._move()
        except OSError as error:
            self.stop()
            self._ended(self, error)
            return
        if over:
            self.stop()
            self._sink.finish()
            self._ended(self, None)
        elif self._pending:
            self._wait_to_write()
        elif self._paused is not None:
            self.stop()
        else:
            self._return_pipe()
            self._wait_to_read()

    def _move(self) -> bool:
        """Move what can be moved now; True at the end."""
        if self._pipe is None:
            self._pipe = self._pipes.borrow()
        outlet, inlet = self._pipe
        left = self._turns.take()
        turn = self._source.pace.turn
        while left > 0:
            if not self._pending:
                self.reading = True
                try:
                    self._pending = os.splice(self._source.fd, inlet, min(left, PIPE_BYTES))
                except BlockingIOError:
                    return False
                if not self._pending:
                    return True
                left -= self._pending
            self.reading = False
            try:
                while self._pending:
                    gone = os.splice(outlet, self._sink.fd, self._pending)
                    self._pending -= gone
                    self.moved += gone
            except BlockingIOError:
                return False
            # What comes in small pieces takes long before it is many bytes.
            if monotonic() >= turn.until:
                return False
        return False

    def _return_pipe(self) -> None:
        if self._pipe is not None:
            self._pipes.give_back(self._pipe, empty=not self._pending)
            self._pipe = None
            self._pending = 0
