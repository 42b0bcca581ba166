"""How long turns of a thread are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from irons_local.linux.scheduling import lengthen_turns, slice_of_turns

T = TypeVar("T")
LONG = 20_000_000
KNOWN = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "aarch64"}, reason="numbers of system calls are not known"
)


def in_a_thread(work: Callable[[], T]) -> T:
    """What `work` returns in a thread of its own, whose niceness is not below 0 and which is gone afterwards."""

    def done() -> T:
        os.setpriority(os.PRIO_PROCESS, 0, max(0, os.getpriority(os.PRIO_PROCESS, 0)))
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(done).result()


@KNOWN
def test_turns_of_one_thread_become_longer() -> None:
    """Its turns have the length that was asked for, where the kernel knows such a thing; its niceness and other threads stay."""

    def lengthened() -> tuple[int, int, int]:
        lengthen_turns(LONG)
        return slice_of_turns(), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)

    before, nice = slice_of_turns(), max(0, os.getpriority(os.PRIO_PROCESS, 0))
    found, kept, policy = in_a_thread(lengthened)
    assert found in ({LONG} if before else {0})
    assert (kept, policy & ~os.SCHED_RESET_ON_FORK) == (nice, os.sched_getscheduler(0))
    assert slice_of_turns() == before


@KNOWN
@pytest.mark.process
def test_what_such_a_thread_starts_has_turns_as_before() -> None:
    """A program that it starts, such as one in a sandbox, has turns like any other, however often they were made longer."""

    def child() -> int:
        lengthen_turns(LONG)
        lengthen_turns(LONG)
        code = "from irons_local.linux.scheduling import slice_of_turns; print(slice_of_turns())"
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

    assert in_a_thread(child) == slice_of_turns()


@KNOWN
def test_a_thread_with_precedence_keeps_it_for_what_it_starts() -> None:
    """Where the niceness is below 0 nothing is changed, since what the thread starts would lose that."""

    def preferred() -> tuple[int, int]:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 40)
        except PermissionError:
            pytest.skip("a niceness below 0 is refused here")
        before = slice_of_turns()
        lengthen_turns(LONG)
        return before, slice_of_turns()

    before, after = in_a_thread(preferred)
    assert before == after


def test_an_unknown_architecture_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the number of the system call is not known it is not made."""
    monkeypatch.setattr(platform, "machine", lambda: "other")
    lengthen_turns(LONG)
    with pytest.raises(OSError, match="architecture"):
        slice_of_turns()
