"""A prompt that is signalled to end restores the terminal first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_toolkit.application import Application

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Ended(SystemExit):
    """A signal ended the program; unwinding restores the terminal. `number` is the signal's, `status` the exit code it makes.

    It is a `SystemExit` because an event loop swallows every other exception that a signal handler raises in one of its callbacks.
    """

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        super().__init__(128 + number)
        self.number = number

    @property
    def status(self) -> int:
        """128 and the signal's number."""
        return 128 + self.number


@contextmanager
def ended_by_signals(app: Application[Any]) -> Iterator[None]:
    """End with `Ended` when SIGTERM or SIGHUP comes: through the application while it runs, which restores the terminal; else at once."""

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        loop = app.loop
        if loop is None or not app.is_running:
            raise Ended(number)
        loop.call_soon_threadsafe(leave, number)

    def leave(number: int) -> None:
        if app.is_running and not app.is_done:
            app.exit(exception=Ended(number))

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
