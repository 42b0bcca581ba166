"""What happens on a signal while OpenSSH runs: here, and in the child when this process is killed."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def handling(number: int, handler: object) -> Iterator[None]:
    """Handle a signal this way for a while; only the main thread can, and elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(number, before)


def ended_with_parent(number: int) -> Callable[[], object] | None:
    """Return what a forked child calls to get a signal when the thread that forked it ends (prctl(2)); None off Linux.

    The library is looked up here, so that the child makes one system call.
    """
    if sys.platform != "linux":
        return None
    from ctypes import CDLL
    from functools import partial

    return partial(CDLL(None).prctl, _PR_SET_PDEATHSIG, int(number), 0, 0, 0)
