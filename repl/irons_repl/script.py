"""Lines that no one types: `irons shell -c`, `irons < script`."""

from __future__ import annotations

from collections.abc import Iterable

from irons_repl.line.lexer import left_open
from irons_repl.run.running import Leave, LineRunner


def run_script(runner: LineRunner, lines: Iterable[str]) -> int:
    """Run lines as they come, up to the first that fails; return its exit code, or 0.

    Args:
        runner: A strict runner.
        lines: Lines with or without their ends; an open quote or a last backslash takes the next one along.
    """
    held = ""
    code = 0
    try:
        for line in lines:
            held += line.removesuffix("\n").removesuffix("\r")
            if left_open(held):
                held += "\n"
                continue
            code = runner.run(held)
            held = ""
            if code:
                return code
        if held.strip():
            code = runner.run(held.removesuffix("\n"))
    except Leave as leave:
        return leave.code
    return code
