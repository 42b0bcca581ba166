"""Marks that the sandbox's part of `exec` writes into the program's stderr, taken out again before anyone sees them.

OpenSSH hands over one exit code and nothing else: not the signal that killed a program, and not whether a code of 255 is the
program's or OpenSSH's own. A mark is a line that begins with a zero byte and a token that only this call knows.
"""

from __future__ import annotations

import time
from typing import Literal

from irons.record import NamedTuple

_LONGEST = 64
"""Bytes of a mark after its token."""

Killed = Literal["yes", "no", "maybe", "time"]


class ProgramEnd(NamedTuple):
    """How the program ended.

    Attributes:
        code: Its exit code, as a shell gives it: 128 and the signal's number where a signal killed it.
        killed: Whether a signal killed it; `maybe` where the sandbox's shell can't tell; `time` where
            its time ran out.
    """

    code: int
    killed: Killed


class Marks:
    """Reads one program's stderr piece by piece. No I/O.

    Args:
        token: What the marks of this call carry.
        host: The host as OpenSSH names it where the connection ends.

    Attributes:
        began: When the program was started (monotonic seconds); None before.
        end: How it ended; None before, and where that was never reported.
        failed: The sandbox's part ended before the program began, and reported why.
        killed: The shell that waited for the program was killed; the program has been ended.
        closed: OpenSSH's last line says that the connection was closed.
    """

    def __init__(self, token: str, host: str = "") -> None:
        self.began: float | None = None
        self.end: ProgramEnd | None = None
        self.failed = False
        self.killed = False
        self.closed = False
        self._begin = f"\0irons {token} ".encode()
        self._last_words = f"Connection to {host} closed by remote host.\r\n".encode()
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take what was read and return what of it is the program's, as far as that is known yet."""
        data = self._held + data
        out = b""
        while (at := data.find(self._begin)) >= 0:
            out += data[:at]
            mark, newline, rest = data[at + len(self._begin) :].partition(b"\n")
            if not newline and len(mark) <= _LONGEST:
                self._held = data[at:]
                return out
            self._take(mark.decode("ascii", "replace").split())
            data = rest
        keep = max(_overlap(data, self._begin), _overlap(data, self._last_words))
        self._held = data[len(data) - keep :]
        return out + data[: len(data) - keep]

    def finish(self) -> bytes:
        """Return what was held back, at the end of the stream; OpenSSH's own last line is left out."""
        held, self._held = self._held, b""
        if held == self._last_words:
            self.closed = True
            return b""
        return held

    def _take(self, words: list[str]) -> None:
        match words:
            case ["began"]:
                self.began = time.monotonic()
            case ["failed"]:
                self.failed = True
            case ["killed"]:
                self.killed = True
            case ["ended", code, ("yes" | "no" | "maybe" | "time") as killed] if (
                code.isdigit() and int(code) < 256
            ):
                self.end = ProgramEnd(int(code), killed)
            case _:
                """`alive`, or what a newer or a hostile sandbox says: nothing to learn."""


def _overlap(data: bytes, text: bytes) -> int:
    """Return how many of the last bytes of `data` are the beginning of `text`."""
    for length in range(min(len(data), len(text)), 0, -1):
        if data.endswith(text[:length]):
            return length
    return 0
