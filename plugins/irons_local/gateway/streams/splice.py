"""Moves bytes from one socket to another without looking at them: splice(2) through a pipe.

One pipe serves all relays of this process, one pass after the other: no more is read from a source than its sink has
room for, so the pipe is empty again after each pass, and a connection that does not move holds nothing but its two
sockets. What the kernel counts of pipes per user does not depend on what sandboxes do.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from time import monotonic

from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.streams.stream import Wire

PIPE_BYTES = 1 << 20
TURN_BYTES = 8 << 20
"""What the flows of one cell move together, about, in one turn of it, while no other cell is at work."""
CROWDED_BYTES = 512 << 10
"""The same while others are."""
LEAST_BYTES = 64 << 10
LEFT_BYTES = 4 << 20
"""What the flows of one cell may have taken from their sources and not got rid of, together."""
LEFT_PASS = 4 << 10
"""What a flow moves at a time while they have more."""
LARGER = 10.0
"""Seconds after which a pipe that could not be made as large as it should be is tried again."""
SMALL = "a pipe of {} bytes is all that the limit fs.pipe-user-pages-soft leaves: relays are slower than they could be"
_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032


def share_of_pipes(workers: int, soft_limit: int) -> int:
    """How large the pipe of one of several workers may be, in bytes.

    Args:
        workers: processes of the gateway that run under the same user id.
        soft_limit: pages of pipes that a user may have (`fs.pipe-user-pages-soft`); 0 for no limit.

    Returns:
        At most `PIPE_BYTES`, and all workers together half of the limit: an ordinary user has pipes of other programs too.
    """
    if not soft_limit:
        return PIPE_BYTES
    return max(
        os.sysconf("SC_PAGE_SIZE"), min(PIPE_BYTES, soft_limit * os.sysconf("SC_PAGE_SIZE") // 2 // workers)
    )


class Pipes:
    """The pipe of one worker, empty whenever no one is using it.

    Args:
        complain: is called once where the pipe could not be made as large as it should be.
        wanted: bytes that it should hold.

    Attributes:
        size: bytes that it holds.
    """

    def __init__(self, complain: Callable[[str], None], wanted: int = PIPE_BYTES) -> None:
        self._complain = complain
        self._wanted = wanted
        self.outlet, self.inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.size = 0
        self._again = -1.0
        self.enlarge()

    def enlarge(self) -> None:
        """Make it as large as it should be, where it is not and was not tried a moment ago."""
        if self.size >= self._wanted or monotonic() < self._again:
            return
        try:
            fcntl.fcntl(self.inlet, _F_SETPIPE_SZ, self._wanted)
        except OSError:
            if not self.size:
                self._complain(SMALL.format(fcntl.fcntl(self.inlet, _F_GETPIPE_SZ)))
            self._again = monotonic() + LARGER
        self.size = fcntl.fcntl(self.inlet, _F_GETPIPE_SZ)

    def empty(self, count: int) -> bytes:
        """Take out what it still holds."""
        found: list[bytes] = []
        while count:
            part = os.read(self.outlet, count)
            found.append(part)
            count -= len(part)
        return b"".join(found)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.outlet)
        os.close(self.inlet)


class Turns:
    """Shares the loop among cells: the more flows of a cell are ready at once, the less each moves at a time.

    Args:
        loop: the loop that runs the flows.
        crowded: tells whether other cells are at work.

    Attributes:
        left: bytes that flows have taken from their sources and not got rid of.
    """

    __slots__ = ("_crowded", "_most", "_ready", "_running", "_seen", "_turn", "left")

    def __init__(self, loop: FairLoop, crowded: Callable[[], bool]) -> None:
        self._turn = loop.fair.turn
        self._seen = self._turn.until
        self._crowded = crowded
        self._most = CROWDED_BYTES if crowded() else TURN_BYTES
        self._ready = 1
        self._running = 0
        self.left = 0

    def take(self) -> int:
        """How many bytes a flow that is ready now may move."""
        if self._turn.until != self._seen:
            # Another turn: as many as were ready in the last one will be again.
            self._seen = self._turn.until
            self._ready, self._running = self._running or 1, 0
            self._most = CROWDED_BYTES if self._crowded() else TURN_BYTES
        self._running += 1
        return max(LEAST_BYTES, self._most // self._ready)


class Flow:
    """One direction of a connection.

    Args:
        loop: the loop that runs it.
        source: where bytes come from; nothing may be held of it.
        sink: where they go.
        pipes: what they go through.
        turns: of the cell whose connection it is.
        ended: called once, with None at the end of `source` (which `sink` has then received) or with what broke.

    Attributes:
        moved: bytes that `sink` has taken.
        reading: it was last at work on `source`, not on `sink`.
        done: it will move nothing more.
    """

    __slots__ = (
        "_ended",
        "_full",
        "_left",
        "_loop",
        "_paused",
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
        self._left = b""
        self._full = False
        self._waits = 0
        self._paused: asyncio.Future[None] | None = None
        self.moved = 0
        self.reading = True
        self.done = False

    def start(self) -> None:
        """Begin to move bytes."""
        self._wait_to_read()

    def stop(self) -> None:
        """Stop at once; no callback is called."""
        self.done = True
        if self._waits == 1:
            self._source.watch.unread()
        elif self._waits == 2:
            self._sink.watch.unwrite()
        self._waits = 0
        self._keep(b"")
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)

    async def pause(self) -> None:
        """Stop once everything that was taken from `source` has gone on."""
        if not self.done and self._left:
            self._paused = self._loop.create_future()
            await self._paused
        if not self.done:
            self.stop()

    def _wait_to_read(self) -> None:
        if self._waits == 2:
            self._sink.watch.unwrite()
        if self._waits != 1:
            self._source.watch.read(self.move)
            self._waits = 1

    def _wait_to_write(self) -> None:
        if self._waits == 1:
            self._source.watch.deafen()
        if self._waits != 2:
            self._sink.watch.write(self.move)
            self._waits = 2

    def move(self) -> None:
        """Move what can be moved now, and wait for more."""
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
        elif self._left:
            self._wait_to_write()
        elif self._paused is not None:
            self.stop()
        elif self._full:
            self._wait_to_write()
        else:
            self._wait_to_read()

    def _move(self) -> bool:
        """Move what can be moved now; True at the end."""
        self._full = False
        if self._left and not self._send_left():
            return False
        pipes, turns, sink = self._pipes, self._turns, self._sink
        turn = self._source.pace.turn
        allowed = turns.take()
        while allowed > 0:
            # What its sink has no room for stays at the source.
            room = sink.room()
            if not room:
                self._full = True
                return False
            if turns.left > LEFT_BYTES:
                room = min(room, LEFT_PASS)
            self.reading = True
            try:
                taken = os.splice(self._source.fd, pipes.inlet, min(allowed, room, pipes.size))
            except BlockingIOError:
                return False
            if not taken:
                return True
            allowed -= taken
            self._source.came(taken)
            self.reading = False
            if not self._pass_on(taken):
                return False
            # What comes in small pieces takes long before it is many bytes.
            if monotonic() >= turn.until:
                return False
        return False

    def _pass_on(self, count: int) -> bool:
        """Move so many bytes from the pipe to the sink; False where it did not take them all after all."""
        pipes, sink = self._pipes, self._sink.fd
        try:
            while count:
                gone = os.splice(pipes.outlet, sink, count)
                count -= gone
                self.moved += gone
        except BlockingIOError:
            self._keep(pipes.empty(count))
            return False
        except OSError:
            pipes.empty(count)
            raise
        return True

    def _send_left(self) -> bool:
        self.reading = False
        try:
            gone = self._sink.sock.send(self._left)
        except BlockingIOError:
            return False
        self.moved += gone
        self._keep(self._left[gone:])
        return not self._left

    def _keep(self, data: bytes) -> None:
        self._turns.left += len(data) - len(self._left)
        self._left = data
