"""Runs the coroutine of one connection in the calls that bring its events.

A task would go on in the turn after: for each wait a future, a handle and another round of the loop. Here what happens
calls `go_on`, and the connection has moved when that returns. Any other awaitable of asyncio may be waited for too, but
there is no current task: what needs one (`asyncio.timeout`) runs in a task of its own, which is waited for.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


@types.coroutine
def pause() -> Generator[None, None, None]:
    """Wait until `Course.go_on` is called; only for what a course runs itself."""
    yield


class Course:
    """One coroutine.

    Args:
        loop: the loop that calls.
        steps: the coroutine.
        context: what it runs in.
        ended: called once in that context, with what it raised or None.

    Attributes:
        stepping: it runs at this moment, in the call of whoever looks.
    """

    __slots__ = ("_cancelled", "_context", "_ended", "_loop", "_over", "_steps", "_waits", "stepping")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        steps: Coroutine[asyncio.Future[Any] | None, None, None],
        context: contextvars.Context,
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._loop = loop
        self._steps: Coroutine[asyncio.Future[Any] | None, None, None] | None = steps
        self._context = context
        self._ended: Callable[[BaseException | None], None] | None = ended
        self._waits: asyncio.Future[Any] | None = None
        self._over: asyncio.Future[None] | None = None
        self._cancelled = False
        self.stepping = False

    def go_on(self) -> None:
        """Begin, or go on after `pause`."""
        self._step()

    def cancel(self) -> None:
        """Raise `CancelledError` where it waits, in a later call of the loop's."""
        if self._steps is None or (self._waits is not None and self._waits.cancel()):
            return
        self._cancelled = True
        if self._waits is None and not self.stepping:
            self._loop.call_soon(self._interrupt)

    async def ended(self) -> None:
        """Wait until it has ended."""
        if self._steps is None:
            return
        if self._over is None:
            self._over = self._loop.create_future()
        await asyncio.wait({self._over})

    def _interrupt(self) -> None:
        # It may have gone on to something else, and heard of it there.
        if self._cancelled and self._waits is None:
            self._step()

    def _step(self, _: object = None) -> None:
        steps, self._waits = self._steps, None
        if steps is None:
            return
        self.stepping = True
        try:
            if self._cancelled:
                self._cancelled = False
                waits = self._context.run(steps.throw, asyncio.CancelledError())
            else:
                waits = self._context.run(steps.send, None)
        except StopIteration:
            self._end(None)
        except (KeyboardInterrupt, SystemExit) as error:
            self._end(error)
            raise
        except BaseException as error:  # noqa: BLE001 (it is handed on, as a task keeps it)
            self._end(error)
        else:
            self._wait(waits)
        finally:
            self.stepping = False

    def _wait(self, waits: asyncio.Future[Any] | None) -> None:
        if waits is None:
            if self._cancelled:
                self._loop.call_soon(self._interrupt)
            return
        # Whoever runs a coroutine clears this, which shows that the future was awaited and not only yielded.
        waits._asyncio_future_blocking = False  # noqa: SLF001
        waits.add_done_callback(self._step)
        self._waits = waits
        if self._cancelled and waits.cancel():
            self._cancelled = False

    def _end(self, error: BaseException | None) -> None:
        ended, self._ended, self._steps = self._ended, None, None
        try:
            if ended is not None:
                # Not in that of whoever called: what begins in here is to be charged to whom this one was.
                self._context.run(ended, error)
        finally:
            if self._over is not None and not self._over.done():
                self._over.set_result(None)
