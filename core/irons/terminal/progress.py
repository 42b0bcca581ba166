"""A spinner for a terminal's stderr: what is waited for, and for how long."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from irons.text import clean

if TYPE_CHECKING:
    from irons.terminal.streams import Streams

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Spinner:
    """A line that turns while something is waited for; nothing at all where stderr is not a terminal."""

    def __init__(self, streams: Streams, line: str) -> None:
        """Take the streams of the call and the first line."""
        self._stderr = streams.stderr
        self._width = streams.stderr_columns or 80
        self._shown = streams.stderr_is_tty and streams.env.get("TERM") != "dumb"
        self._line = line
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, line: str) -> None:
        """Change the line."""
        self._line = line

    def __enter__(self) -> Self:
        if self._shown:
            self._thread = threading.Thread(target=self._turn, name="irons-spinner", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._stderr.write("\r\x1b[K")
            self._stderr.flush()

    def _turn(self) -> None:
        frame = 0
        while not self._over.wait(0.1):
            elapsed = time.monotonic() - self._began
            told = f" {elapsed:.0f}s"
            # A line that wraps could not be wiped.
            line = clean(self._line, limit=max(self._width - len(told) - 3, 1))
            self._stderr.write(f"\r\x1b[K{_FRAMES[frame % len(_FRAMES)]} {line}{told}")
            self._stderr.flush()
            frame += 1
