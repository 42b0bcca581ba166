"""Files that irons keeps: written whole or not at all, and their owner's alone."""

from __future__ import annotations

import os
from _blake2 import blake2b
from contextlib import suppress
from pathlib import Path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are missing, for their owner alone. Raises `OSError`."""
    if not directory.is_dir():
        if directory.parent != directory:
            make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def write_whole(
    path: Path, text: str, *, mode: int = 0o600, durable: bool = False, parents: bool = True
) -> None:
    """Put a file in the place of the one there is, at once: no one sees half of it.

    Args:
        path: The file. A link is replaced, not followed.
        text: What it says, as UTF-8; bytes that came in as surrogate escapes go out as they were.
        mode: Its mode.
        durable: Wait until the disk has both the file and its name, so that a power loss leaves one of the two files whole.
        parents: Make directories that are missing, for their owner alone; False where a missing one was removed.

    Raises:
        OSError: It can't be written; the old one is still there.
    """
    if parents:
        make_private(path.parent)
    # Without `tempfile`: a confined process may be unable to import anything.
    temporary = path.with_name(f".{path.name[:32]}-{os.urandom(6).hex()}")
    descriptor = os.open(temporary, _CREATE, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_names(path.parent)


def _sync_names(directory: Path) -> None:
    """Have the disk keep the names in a directory; some file systems can't, and keep them in their own time."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_new(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file that must not exist yet; anything at its path, a link without a target included, is left alone.

    Args:
        path: The file; missing directories are made, for their owner alone.
        text: Its content, written as UTF-8.
        mode: Its mode.

    Raises:
        FileExistsError: Something has that path.
        NotADirectoryError: A file is where a directory is needed.
        OSError: It can't be written; nothing is left of it.
    """
    try:
        make_private(path.parent)
    except FileExistsError as error:
        raise NotADirectoryError(*error.args) from None
    descriptor = os.open(path, _CREATE, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def digest(*parts: str) -> str:
    """Return 32 hexadecimal digits that stand for some texts, for names of files.

    `hashlib` would load OpenSSL's library for it, which takes longer than all the rest of a command.
    """
    whole = "\0".join(parts).encode(errors="surrogateescape")
    return str(blake2b(whole, digest_size=16).hexdigest())
