"""Files that irons keeps: written whole or not at all, and their owner's alone."""

from __future__ import annotations

import os
from pathlib import Path


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are missing, for their owner alone. Raises `OSError`."""
    if not directory.is_dir():
        if directory.parent != directory:
            make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def write_whole(path: Path, text: str, *, mode: int = 0o600, durable: bool = False) -> None:
    """Put a file in the place of the one there is, at once: nobody sees half of it.

    Args:
        path: The file; directories that are missing are made, for their owner alone. A link is replaced, not followed.
        text: What it says, as UTF-8; bytes that came in as surrogate escapes go out as they were.
        mode: Its mode.
        durable: Wait until the disk has it.

    Raises:
        OSError: It can't be written; the old one is still there.
    """
    import tempfile

    make_private(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:32]}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
