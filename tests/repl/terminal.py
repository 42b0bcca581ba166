"""A real pseudo-terminal with a program in it, and the screen that a person would see."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import pyte

PATIENCE = 200.0
"""Seconds to wait for what must come: a last resort, however busy the machine is."""


class _Screen(pyte.Screen):
    """A screen that answers the program's questions (cursor position) as a terminal does."""

    answer: Callable[[str], None]

    def write_process_input(self, data: str) -> None:
        self.answer(data)

    def set_margins(self, *args: Any, **kwargs: Any) -> None:
        """Ignore the private form that pyte mistakes for margins."""
        kwargs.pop("private", None)
        super().set_margins(*args, **kwargs)

    def select_graphic_rendition(self, *attrs: int, **kwargs: Any) -> None:
        """Ignore the private forms (xterm's modifyOtherKeys)."""
        if not kwargs.get("private"):
            super().select_graphic_rendition(*attrs)


class Terminal:
    """A program on a pseudo-terminal of its own, as its session's leader."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        columns: int = 100,
        rows: int = 30,
        cwd: str | None = None,
    ) -> None:
        self.screen = _Screen(columns, rows)
        self.screen.answer = lambda text: self._write(text.encode())
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.exit: int | None = None
        self.fd, program_side = os.openpty()
        self.resize(columns, rows)
        self.modes_before = self.modes()
        # setsid makes the program its session's leader with this terminal, and becomes the program.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            env=dict(env),
            cwd=cwd,
            stdin=program_side,
            stdout=program_side,
            stderr=program_side,
        )
        os.close(program_side)
        self.pid = self._process.pid

    def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size, as a window manager does."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def send(self, text: str | bytes) -> None:
        """Type."""
        data = text.encode() if isinstance(text, str) else text
        while data:
            self._write(data[:1024])
            data = data[1024:]
            self.read(0)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fd, data) :]

    def read(self, seconds: float) -> bool:
        """Take in what the program wrote, waiting at most so long for it; False once it is gone."""
        while self.fd >= 0 and select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            if not data:
                return False
            self.raw += data
            self._stream.feed(data)
            seconds = 0
        return True

    @property
    def text(self) -> str:
        """The screen as text, blank line ends cut."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def line_of_cursor(self) -> str:
        """The line the cursor stands in."""
        return self.screen.display[self.screen.cursor.y].rstrip()

    def until(self, wanted: str | Callable[[], bool], patience: float = PATIENCE) -> str:
        """Wait until the screen matches a regular expression, or a condition holds; return the screen."""
        holds = wanted if callable(wanted) else lambda: re.search(wanted, self.text) is not None
        deadline = time.monotonic() + patience
        self.read(0)
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"never came: {wanted!r}; the screen:\n{self.text}")
            if not self.read(0.05) and not holds():
                raise AssertionError(f"the program ended before {wanted!r}; the screen:\n{self.text}")
        return self.text

    def ended(self, patience: float = PATIENCE) -> int:
        """Wait for the program to end and return its exit code."""
        deadline = time.monotonic() + patience
        while self.exit is None:
            if self.fd >= 0:
                self.read(0.02)
                self.exit = self._process.poll()
            else:
                with suppress(subprocess.TimeoutExpired):
                    self.exit = self._process.wait(0.02)
            if self.exit is not None:
                self.read(0)
            elif time.monotonic() > deadline:
                raise AssertionError(f"still running; the screen:\n{self.text}")
        return self.exit

    def modes(self) -> list[Any]:
        """The terminal's settings (termios); `modes_before` has those from before the program began."""
        return termios.tcgetattr(self.fd)

    def runs_a_job(self) -> bool:
        """Tell whether a shell has given the terminal, and with it the keys, to one of its jobs."""
        return os.tcgetpgrp(self.fd) != self.pid

    def hang_up(self) -> None:
        """Go away, as a closed window does."""
        os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.exit is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                os.kill(self.pid, number)
                try:
                    self.ended(3.0)
                except AssertionError:
                    continue
                break
        if self.fd >= 0:
            os.close(self.fd)
