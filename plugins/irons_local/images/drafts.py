"""Files that are exported: written next to where they belong, and put into their place once they are whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from irons_local.errors import EngineError


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[int]:
    """Open a file to write; afterwards `path` is it whole, or what it was before.

    Yields:
        Its descriptor.

    Raises:
        EngineError: there is no such directory, or it cannot be written to.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EngineError("input", f"{path.parent}: {error.strerror}") from error
    try:
        yield descriptor
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
