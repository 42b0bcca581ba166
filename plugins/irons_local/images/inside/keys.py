"""How many public keys lie in a sandbox's own changes, where its SSH server reads them too. Runs by `linux.userns_main` in namespace B.

Whoever has been inside may have put them there, and they open each copy.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
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
    layers = [request[number] for number in sorted(request, key=int)]
    homes = dict.fromkeys(("root", *(home for layer in layers for home in _homes(layer))))
    return {"keys": sum(_seen(layers, f"{home}/{_PLACE}") for home in homes)}


def _seen(layers: Sequence[int], path: str) -> int:
    """How many keys a file has as the topmost layer shows it that says something of it."""
    return next((keys for layer in layers if (keys := _keys(layer, path)) is not None), 0)


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
    parts = path.split("/")
    hides = False
    for number in range(1, len(parts) + 1):
        try:
            found = syscalls.open_beneath(layer, "/".join(parts[:number]), os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return 0 if hides else None
        try:
            mode = os.fstat(found).st_mode
            # What is no directory here, such as the device that says that one was removed, hides that of the layers below.
            if not (stat.S_ISDIR(mode) if number < len(parts) else stat.S_ISREG(mode)):
                return 0
            hides = hides or (number < len(parts) and _is_opaque(found))
        finally:
            os.close(found)
    try:
        file = syscalls.open_beneath(layer, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return 0 if hides else None
    with os.fdopen(file, "rb") as opened:
        lines = opened.read(_AT_MOST).splitlines()
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith(b"#"))


def _is_opaque(directory: int) -> bool:
    """Whether a directory hides those of the layers below it; what the machine's root marked so cannot be read here."""
    with contextlib.suppress(OSError):
        return os.getxattr(f"/proc/self/fd/{directory}", syscalls.OPAQUE) == b"y"
    return False
