"""How many public keys lie in a sandbox's own changes, where its SSH server reads them too. Runs by `linux.userns_main` in namespace B.

Whoever has been inside may have put them there, and they open each copy.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any

from irons_local.linux import syscalls
from irons_local.linux.userns_main import Say

_PLACE = ".ssh/authorized_keys"
_AT_MOST = 1 << 20
_HOMES_AT_MOST = 10_000


def count(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Count the keys of root and of whoever has a home directory, for `userns_main`; a link is not followed.

    Args:
        request: descriptors of the directories of the layers, by their numbers, 0 for the topmost.

    Returns:
        `keys`, how many there are.
    """
    found: dict[str, int] = {}
    for number in sorted(request, key=int):
        for home in ("root", *_homes(request[number])):
            keys = _keys(request[number], f"{home}/{_PLACE}")
            if keys is not None:
                # What a layer has of a file hides what those below it have.
                found.setdefault(home, keys)
    return {"keys": sum(found.values())}


def _homes(layer: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        directory = syscalls.open_beneath(layer, "home", os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(directory) as entries:
                for _, entry in zip(range(_HOMES_AT_MOST), entries, strict=False):
                    yield f"home/{entry.name}"
        finally:
            os.close(directory)


def _keys(layer: int, path: str) -> int | None:
    """How many keys a file has; None where this layer says nothing of it."""
    try:
        # A whiteout, which says that it was removed, is a device, and no one can open that here.
        found = syscalls.open_beneath(layer, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return 0
    finally:
        os.close(found)
    try:
        file = syscalls.open_beneath(layer, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(file, "rb") as opened:
        lines = opened.read(_AT_MOST).splitlines()
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith(b"#"))
