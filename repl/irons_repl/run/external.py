"""Other programs on the prompt's terminal: the system shell, ssh."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TextIO

from irons.errors import IronsError

SHELL = "/bin/sh"
"""What runs `!command` and the pipeline after `|`: the POSIX shell of the system, the same for every user."""

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended."""


def run_program(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdout: TextIO | None = None,
    stdin: IO[bytes] | int | None = None,
) -> int:
    """Run a program with the terminal until it ends; return its exit code, 128 and the signal's number where one ended it.

    Ctrl-C reaches the program too, since the terminal sends it to both; what it means is the program's to say.

    Raises:
        IronsError: It is not installed, or can't be run.
    """
    with left_to_programs():
        try:
            process = subprocess.Popen(tuple(argv), env=dict(env), stdout=stdout, stdin=stdin)
        except FileNotFoundError:
            raise IronsError(
                f"{argv[0]} is not installed", hint=f"install the package that has {argv[0]}"
            ) from None
        except OSError as error:
            raise IronsError(f"{argv[0]} can't be run: {error.strerror}") from None
        return code_of(process)


@contextmanager
def left_to_programs() -> Iterator[None]:
    """Let Ctrl-C end programs on the terminal, and not this process while it waits for them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A handler, not SIG_IGN: an ignored signal would be inherited by the program.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def code_of(process: subprocess.Popen[bytes]) -> int:
    """Wait for a program to end and return its exit code."""
    code = process.wait()
    return 128 - code if code < 0 else code
