"""Commands as a shell starts them in the background of a script (`&`, nohup): SIGINT is ignored when they begin."""

from __future__ import annotations

from collections.abc import Sequence

IGNORING = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""What goes before such a command."""

JOBS = ("foreground", "background")
"""Names for the two ways in which a test starts a command."""


def job(way: str, argv: Sequence[str]) -> list[str]:
    """The words that start a command in one of the two ways of `JOBS`."""
    return [*(IGNORING if way == "background" else ()), *argv]
