"""The argument lists of all processes, which everyone on a machine may read, sampled while something happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def argument_lists() -> Iterator[set[bytes]]:
    """Sample without a pause; what is yielded is whole once the block has ended."""
    found: set[bytes] = set()
    over = threading.Event()

    def sample() -> None:
        while not over.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    found.add((process / "cmdline").read_bytes())

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        yield found
    finally:
        over.set()
        sampling.join()
