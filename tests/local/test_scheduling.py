"""How long turns of a thread are."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor

import pytest

from irons_local.linux.scheduling import shorten_turns, slice_of_turns

SHORT = 200_000


@pytest.mark.skipif(
    platform.machine() not in {"x86_64", "aarch64"}, reason="numbers of system calls are not known"
)
def test_turns_of_one_thread_become_shorter() -> None:
    """Its turns have the length that was asked for, where the kernel knows such a thing; its niceness and other threads stay."""

    def short() -> tuple[int, int]:
        shorten_turns(SHORT)
        return slice_of_turns(), os.getpriority(os.PRIO_PROCESS, 0)

    before, nice = slice_of_turns(), os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(short).result()
    assert found in {(SHORT, nice), (0, nice)}
    assert slice_of_turns() == before


def test_an_unknown_architecture_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the number of the system call is not known it is not made."""
    monkeypatch.setattr(platform, "machine", lambda: "other")
    shorten_turns(SHORT)
    with pytest.raises(OSError, match="architecture"):
        slice_of_turns()
