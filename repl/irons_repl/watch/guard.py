"""Gives the terminal back for a program that was killed before it could."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prompt_toolkit.output import Output

SCRIPT = r"""
IFS= read -r over && exit
stty "$1" <&1
printf '\033[0m\033[?1049l\033[?2004l\033[?7h'
[ -z "$2" ] || printf '\033[23;2t'
printf '\033[?25h'
"""
"""Waits for a line on stdin; where it ends without one, the program is gone: restore the terminal's settings, its first screen, and with a second argument the title that it kept."""


@contextmanager
def given_back(output: Output, *, has_title: bool = False) -> Iterator[None]:
    """Have a small process next to this one restore the terminal, with its title where that is changed, if this one is killed.

    Without `stty` there is none.

    It has a session of its own, so that neither keys nor the end of this process's group reach it.
    """
    guard = _guard(output, has_title=has_title)
    try:
        yield
    finally:
        if guard is not None:
            guard.communicate(b"over\n")


def _guard(output: Output, *, has_title: bool) -> subprocess.Popen[bytes] | None:
    try:
        terminal = output.fileno()
        saved = (
            subprocess.run(("stty", "-g"), stdin=terminal, capture_output=True, check=True)
            .stdout.decode()
            .strip()
        )
        return subprocess.Popen(
            ("/bin/sh", "-c", SCRIPT, "irons-watch-guard", saved, "title" if has_title else ""),
            stdin=subprocess.PIPE,
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, subprocess.CalledProcessError, NotImplementedError):
        return None
