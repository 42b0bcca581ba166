"""What the keeper does in a worker's place while there is none: it refuses.

The listening sockets live on without a gateway worker, so that connections of the moment of a restart wait and are then
judged. Were no one to come, they would wait for ever; so after a short while the keeper resets them, and counts.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from irons_local.keeper.cells.loop import READ, Loop
from irons_local.keeper.cells.registry import CellSockets

_PATIENCE = 1.0
"""Seconds for which connections wait for the next process of a worker that ended."""
_PRESENT_AFTER = 0.5
_AT_ONCE = 64
_RESET = struct.pack("ii", 1, 0)
_TCP = 2


class StandbyRefuser:
    """Watches over the time without one worker, for its cells.

    Args:
        loop: the keeper's.
        missed: called with a cell's name and how many of its connections were refused, once there is a gateway; what it
            does not confirm goes to the next one.
    """

    def __init__(self, loop: Loop, missed: Callable[[str, int], None]) -> None:
        self._loop = loop
        self._tell = missed
        self._cells: dict[str, list[socket.socket]] = {}
        self._missed: dict[str, int] = {}
        self._given: dict[str, int] = {}
        self._refusing = False
        self._patience = loop.after(0, lambda: None)
        self._waiting = False
        self._present = loop.after(0, lambda: None)

    def add(self, cell: CellSockets, missed: int = 0) -> None:
        """A cell is there; `missed` of its connections were refused elsewhere, and are reported here."""
        missed += self.remove(cell.name)
        self._cells[cell.name] = [socket.socket(fileno=os.dup(fd)) for fd in cell.sockets[:_TCP]]
        self._missed[cell.name] = missed
        if self._refusing:
            self._watch(cell.name)

    def remove(self, name: str) -> int:
        """A cell is gone; gives how many of its connections were refused and not reported yet."""
        for sock in self._cells.pop(name, []):
            self._loop.forget(sock.fileno())
            sock.close()
        self._given.pop(name, None)
        return self._missed.pop(name, 0)

    def gateway_ended(self, patience: float | None = None) -> None:
        """The gateway ended, or has not begun yet; one that ends again and again counts as absent all the while.

        Args:
            patience: seconds after which connections that wait are refused; None where it had begun before.
        """
        self._present.cancel()
        self._given.clear()
        if not self._waiting:
            self._waiting = True
            self._patience = self._loop.after(_PATIENCE if patience is None else patience, self._refuse)

    def gateway_begun(self) -> None:
        """A gateway was started; it is believed in once it has lived for a moment."""
        self._present.cancel()
        self._present = self._loop.after(_PRESENT_AFTER, self._trust)

    def _trust(self) -> None:
        self._patience.cancel()
        self._waiting = self._refusing = False
        for socks in self._cells.values():
            for sock in socks:
                self._loop.forget(sock.fileno())

    def gateway_alive(self) -> None:
        """A gateway reported that it is alive, and is given the numbers: one that only was started may end before it notes them."""
        for name, count in self._missed.items():
            if count and name not in self._given:
                self._given[name] = count
                self._tell(name, count)

    def gateway_noted(self, name: str) -> None:
        """The gateway has noted how many of a cell's connections were refused."""
        told = self._given.pop(name, 0)
        if told:
            self._missed[name] -= told

    def _refuse(self) -> None:
        self._refusing = True
        for name in self._cells:
            self._watch(name)

    def _watch(self, name: str) -> None:
        for sock in self._cells[name]:
            self._loop.watch(sock.fileno(), READ, partial(self._reset, name, sock))

    def _reset(self, name: str, sock: socket.socket) -> None:
        with suppress(OSError):  # no one waits any more
            for _ in range(_AT_ONCE):
                refused, _ = sock.accept()
                refused.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                refused.close()
                self._missed[name] += 1
