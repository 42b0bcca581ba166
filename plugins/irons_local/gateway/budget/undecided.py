"""What the connections of a cell hold in memory until it is clear what they want: one budget for all of them.

A connection that is looked through to its end, as HTTP/2 is, also counts what has come of a frame that is not whole.
"""

from __future__ import annotations

FREE = 4 << 10
"""Bytes that each connection may hold in any case: a ClientHello has 2 to 4 kB, a request head less."""
SHARED = 4 << 20
"""Bytes beyond them that the connections of one cell may hold together."""


class TooMuchError(Exception):
    """Undecided connections of the cell hold as much as they may; the message is for people."""


class Budget:
    """What the undecided connections of one cell hold beyond what each may in any case.

    Args:
        most: bytes that they may.

    Attributes:
        held: bytes that they do.
    """

    __slots__ = ("held", "most")

    def __init__(self, most: int = SHARED) -> None:
        self.most = most
        self.held = 0

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            TooMuchError: there is no room for them.
        """
        if self.held + size > self.most:
            raise TooMuchError("the connections of this sandbox that have not got anywhere yet hold too much")
        self.held += size

    def give(self, size: int) -> None:
        """Hold so many fewer."""
        self.held -= size


class Meter:
    """What one connection has sent while it is undecided.

    Args:
        budget: of its cell.
    """

    __slots__ = ("_budget", "_free", "_taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._free = FREE
        self._taken = 0

    def count(self, size: int) -> None:
        """More has come.

        Raises:
            TooMuchError: there is no room for it.
        """
        self._free -= size
        if self._free >= 0:
            return
        more, self._free = -self._free, 0
        self._budget.take(more)
        self._taken += more

    def close(self) -> None:
        """It is decided, or has ended."""
        self._budget.give(self._taken)
        self._taken = 0


class Holding:
    """What one connection holds now, which may become more and less.

    Args:
        budget: of its cell.
    """

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0

    def now(self, size: int) -> None:
        """It holds so many bytes.

        Raises:
            TooMuchError: there is no room for them.
        """
        beyond = size - FREE if size > FREE else 0
        if beyond > self._taken:
            self._budget.take(beyond - self._taken)
        elif beyond < self._taken:
            self._budget.give(self._taken - beyond)
        self._taken = beyond
