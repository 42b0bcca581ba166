"""A process that ends in the sandbox what a killed call has left there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_WAIT = 'read -r over || { cd "$1" && shift && exec "$@"; }'
"""The pipe of a call that is killed ends without a word."""

_OVER = b"over\n"


@contextmanager
def heir(argv: Sequence[str], directory: Path, env: Mapping[str, str]) -> Iterator[None]:
    """Have a process wait that runs a command where this process dies within the context.

    Args:
        argv: The command.
        directory: Where it runs.
        env: Its environment.

    Raises:
        OSError: It can't be started.
    """
    reading, writing = os.pipe()
    try:
        # `subprocess` takes longer to import than this takes in all. A session of its own: what kills a process group does not reach it.
        pid = os.posix_spawnp(
            "sh",
            ["sh", "-c", _WAIT, "irons-heir", str(directory), *argv],
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            os.write(writing, _OVER)
        os.close(writing)
        # It ends soon, and the call need not wait for that.
        threading.Thread(target=_reap, args=(pid,), daemon=True).start()


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
