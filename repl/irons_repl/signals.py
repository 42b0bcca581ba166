"""A prompt that is told to end gives the terminal back first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Ended(SystemExit):
    """A signal ended the program; unwinding restores the terminal. `code` is 128 and the signal's number.

    It is a `SystemExit` because an event loop swallows every other exception that a signal handler raises in one of its callbacks.
    """

    code: int

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        super().__init__(128 + number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `Ended` in the main thread when SIGTERM or SIGHUP comes."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise Ended(number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
