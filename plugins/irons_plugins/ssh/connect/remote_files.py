"""Paths in a sandbox that go on from what is typed, for completion: only over a connection that is kept already, and only briefly.

The sandbox is not trusted: what it answers is cut at a time, a size and a number of names, and names that can't be shown and typed
as they are are left out.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from irons_plugins.ssh.connect.kept import existing

if TYPE_CHECKING:
    from pathlib import Path

    from irons.settings.settings import Settings

WITHIN = 0.3
"""Seconds that a person waits for a Tab."""

MOST = 2000
"""Names taken."""

_LONGEST = 255
"""Bytes of one name, as on Linux's file systems."""

_BYTES = MOST * (_LONGEST + 2)

# printf is a part of each shell, so the names are in no argument list.
_LIST = r"""
case $1 in
  "~") cd || exit ;;
  "~/"*) CDPATH= cd -- "$HOME/${1#"~/"}" || exit ;;
  ?*) CDPATH= cd -- "$1" || exit ;;
esac
irons_left=$3
for irons_file in "$2"*; do
  [ -e "$irons_file" ] || [ -L "$irons_file" ] || continue
  [ "$irons_left" -gt 0 ] || exit
  irons_left=$((irons_left - 1))
  if [ -d "$irons_file" ]; then printf '%s/\0' "$irons_file"; else printf '%s\0' "$irons_file"; fi
done
"""


def paths_like(settings: Settings, sandbox: str, path: str) -> dict[str, str]:
    """Return the paths in a sandbox that begin with `path`, directories with a slash after them, and what each is.

    Args:
        settings: Whose connections.
        sandbox: The sandbox, as it was named when the connection was made.
        path: What is typed; a relative one is below the home there.
    """
    if not path.isprintable():
        return {}
    until = time.monotonic() + WITHIN
    over = existing(settings, sandbox, WITHIN)
    if over is None:
        return {}
    folder, slash, begins = path.rpartition("/")
    line = shlex.join(["exec", "sh", "-c", _LIST, "irons-names", folder or slash, begins, str(MOST)])
    names = _names(_answer(settings, over, line, until))
    found = {
        f"{folder}{slash}{name}": "folder" if name.endswith("/") else ""
        for name in names
        if name.startswith(begins) and "/" not in name[:-1] and name not in ("./", "../")
    }
    return dict(sorted(found.items()))


def _names(answer: bytes) -> Iterator[str]:
    """The whole names of an answer that can be shown and typed as they are."""
    *names, _ = answer.split(b"\0")
    for name in names[:MOST]:
        if 0 < len(name) <= _LONGEST + 1:
            with contextlib.suppress(UnicodeDecodeError):
                text = name.decode()
                # Neither control characters, nor what changes the direction of text, nor blanks that look like another.
                if text.isprintable():
                    yield text


def _answer(settings: Settings, over: Path, line: str, until: float) -> bytes:
    """Return what a line prints in the sandbox, as much of it as comes in time."""
    options = {
        "ControlPath": f"./{over.name}",
        "ControlMaster": "no",
        # Should the connection be gone by now, no other is made.
        "ProxyCommand": "false",
        "BatchMode": "yes",
        "LogLevel": "QUIET",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    try:
        process = subprocess.Popen(
            ["ssh", "-F", "none", *words, "-n", "-T", "irons", "--", line],
            env=dict(settings.env),
            cwd=over.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return b""
    try:
        return _read(process, until)
    finally:
        process.kill()
        process.wait()


def _read(process: subprocess.Popen[bytes], until: float) -> bytes:
    answer = b""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    with process.stdout as pipe:
        while len(answer) < _BYTES:
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                break
            chunk = os.read(pipe.fileno(), 65536)
            if not chunk:
                break
            answer += chunk
    return answer
