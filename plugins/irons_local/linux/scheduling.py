"""How long the scheduler lets a thread run while others wait, which Python's standard library cannot say."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from contextlib import suppress
from typing import NamedTuple

from irons_local.linux.namespaces import checked, libc

_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr` in its first size (sched_setattr(2))."""


class _Numbers(NamedTuple):
    """Numbers of system calls, which differ from one architecture to another."""

    setattr: int
    getattr: int


_NUMBERS = {"x86_64": _Numbers(314, 315), "aarch64": _Numbers(274, 275)}


def slice_of_turns() -> int:
    """Return how long a turn of the calling thread is, in nanoseconds; 0 where the kernel does not say (before Linux 6.12).

    Raises:
        OSError: the kernel cannot be asked.
    """
    attributes = ctypes.create_string_buffer(_ATTRIBUTES.size)
    numbers = _numbers()
    checked(libc.syscall(numbers.getattr, 0, attributes, _ATTRIBUTES.size, 0), "sched_getattr")
    return int(_ATTRIBUTES.unpack(attributes.raw)[5])


def shorten_turns(nanoseconds: int) -> None:
    """Let a thread that is woken next to the calling one wait at most about so long for it; its share stays what it is.

    A kernel before Linux 6.12 ignores it, and one that refuses changes nothing.

    Args:
        nanoseconds: 100,000 to 100,000,000.
    """
    policy = os.sched_getscheduler(0)
    if policy not in {os.SCHED_OTHER, os.SCHED_BATCH}:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, nice, 0, nanoseconds, 0, 0)
    with suppress(OSError):
        checked(libc.syscall(_numbers().setattr, 0, wanted, 0), "sched_setattr")


def _numbers() -> _Numbers:
    found = _NUMBERS.get(platform.machine())
    if found is None:
        raise OSError("the numbers of this architecture's system calls are not known")
    return found
