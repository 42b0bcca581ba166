"""One line on leaving a session: how long it took, how many connections the sandbox tried, and how many were refused."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.errors import IronsError

if TYPE_CHECKING:
    from irons.client.models.audit import Totals
    from irons.context import Context

SHORT = 10.0
"""Seconds below which a command that was named is a script, and no line is printed."""

LOST = 255
"""OpenSSH's exit code where it did not get there, or lost the connection."""

PATIENCE = 2.0
"""Seconds that the server may take for its answer: no one waits for a line at the end."""


class Leaving:
    """Counts from the moment it is made."""

    def __init__(self, ctx: Context, name: str, before: Totals) -> None:
        """Take the sandbox, and what it had tried when the session began."""
        self._ctx = ctx
        self._name = name
        self._before = before
        self._began = time.monotonic()

    @classmethod
    def of(cls, ctx: Context, name: str) -> Leaving | None:
        """Ask the server for what the sandbox has tried so far; None where it cannot tell."""
        before = _totals(ctx, name)
        return None if before is None else cls(ctx, name, before)

    def report(self, code: int, *, command: bool) -> None:
        """Write the line to stderr; nothing after a short command, or where the connection was not made.

        Args:
            code: OpenSSH's exit code.
            command: The session was a command of the caller's and not a shell.
        """
        took = time.monotonic() - self._began
        if code == LOST or (command and took < SHORT):
            return
        after = _totals(self._ctx, self._name)
        if after is None:
            return
        line = told(
            self._name,
            took,
            after.connections - self._before.connections,
            after.refused - self._before.refused,
        )
        if line:
            self._ctx.progress(line)


def _totals(ctx: Context, name: str) -> Totals | None:
    with suppress(IronsError):
        if "audit-totals" in ctx.api.extensions:
            return ctx.api.totals(name, within=PATIENCE)
    return None


def told(name: str, seconds: float, connections: int, refused: int) -> str:
    """Return the line: numbers and the name that the caller gave, no text of the sandbox's; empty where the log was replaced."""
    if connections < 0 or refused < 0:
        return ""
    parts = [_duration(seconds), f"{connections:,} connection{'s' if connections != 1 else ''}"]
    if not refused:
        return ", ".join(parts)
    return f"{', '.join(parts)}, {refused:,} denied: irons audit why {name}"


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    if not minutes:
        return f"{int(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
