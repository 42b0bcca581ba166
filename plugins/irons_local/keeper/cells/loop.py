"""The keeper's event loop: descriptors, moments and signals, in one thread; children are collected as they end."""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

Callback = Callable[[], None]

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """Something that will be done later, unless cancelled."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Do it never."""
        self.callback = None


class Loop:
    """Waits, and calls back; nothing that is called back may wait itself."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._signals: dict[int, Callback] = {}
        self._running = False
        self._wake, wake = socket.socketpair()
        for end in (self._wake, wake):
            end.setblocking(False)
        self._waker = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.watch(self._wake.fileno(), READ, self._awake)

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call back whenever a descriptor is ready; replaces what was watched of it."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more; must come before it is closed."""
        with suppress(KeyError):
            self._selector.unregister(fd)

    def after(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, so many seconds from now."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def on_signal(self, number: int, callback: Callback) -> None:
        """Call back, in the loop, when a signal comes."""
        self._signals[number] = callback
        signal.signal(number, lambda *_: None)

    def stop(self) -> None:
        """Make `run` come back."""
        self._running = False

    def run(self) -> None:
        """Wait and call back until `stop`."""
        self._running = True
        while self._running:
            for key, _ in self._selector.select(self._patience()):
                # An earlier callback of this round may have forgotten this one.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            self._due()

    def close(self) -> None:
        """Give back the loop's own descriptors."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake.close()
        self._waker.close()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _due(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()

    def _awake(self) -> None:
        with suppress(BlockingIOError):
            for number in set(self._wake.recv(4096)):
                if number in self._signals:
                    self._signals[number]()
        self._reap()

    def _reap(self) -> None:
        """Collect every child that ended: those of others too, which the kernel gave to this subreaper."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
