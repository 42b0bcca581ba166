"""Gives the terminal back for a program that was killed before it could."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prompt_toolkit.output import Output

SCRIPT = r"""
title=
while IFS= read -r said; do
  case $said in over) exit ;; esac
  title=$said
done
stty "$1" <&1
printf '\033[0m\033[?1049l\033[?2004l\033[?7h'
[ -z "$title" ] || printf '\033[23;2t'
printf '\033[?25h'
"""
"""Reads lines from stdin: `over`, or whether the terminal keeps a title; an empty one is no. Where stdin ends without `over`, the program is
gone: restore the terminal's settings, its first screen, and the title that it keeps."""


class TerminalGuard:
    """Gives one terminal back."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def note_title(self, kept: bool) -> None:
        """Note whether the terminal keeps a title that is to be shown again."""
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.write(b"title\n" if kept else b"\n")

    @contextmanager
    def around(self, output: Output) -> Iterator[None]:
        """Have a small process next to this one restore the terminal if this one is killed. Without `stty` there is none.

        It has a session of its own, so that neither keys nor the end of this process's group reach it.
        """
        self._process = _started(output)
        try:
            yield
        finally:
            process, self._process = self._process, None
            if process is not None:
                process.communicate(b"over\n")


def _started(output: Output) -> subprocess.Popen[bytes] | None:
    try:
        terminal = output.fileno()
        saved = (
            subprocess.run(("stty", "-g"), stdin=terminal, capture_output=True, check=True)
            .stdout.decode()
            .strip()
        )
        return subprocess.Popen(
            ("/bin/sh", "-c", SCRIPT, "irons-watch-guard", saved),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, subprocess.CalledProcessError, NotImplementedError):
        return None
