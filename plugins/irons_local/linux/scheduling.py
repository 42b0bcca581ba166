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
_RESET_ON_FORK = 1
"""`SCHED_FLAG_RESET_ON_FORK`, of the same."""


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


def lengthen_turns(nanoseconds: int) -> None:
    """Have threads with shorter turns that are woken next to the calling one run before it; its share stays what it is.

    Of those that wait the scheduler takes the one whose turn would end first, and one that is woken takes the place of one
    with longer turns at once (EEVDF, Linux 6.12; an earlier kernel ignores it). A kernel that refuses changes nothing. What
    the thread starts does not inherit it. That would take a niceness below 0 from it too, so there nothing is changed.

    Args:
        nanoseconds: 100,000 to 100,000,000; by default a turn has up to 3,000,000.
    """
    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if policy not in {os.SCHED_OTHER, os.SCHED_BATCH} or nice < 0:
        return
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, _RESET_ON_FORK, nice, 0, nanoseconds, 0, 0)
    with suppress(OSError):
        checked(libc.syscall(_numbers().setattr, 0, wanted, 0), "sched_setattr")


def _numbers() -> _Numbers:
    found = _NUMBERS.get(platform.machine())
    if found is None:
        raise OSError("the numbers of this architecture's system calls are not known")
    return found
