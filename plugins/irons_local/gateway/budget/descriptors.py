"""The descriptors this process may have, divided among cells so that none can use up what the others need.

A cell gets more only as long as there is at least as much left over as it holds already. So one cell alone stops at
half of them, a second finds half of the rest, and whoever comes next always finds some, without anything being kept
aside for cells that may never want it (dynamic thresholds, Choudhury and Hahne).
"""

from __future__ import annotations

RESERVED = 160
"""For what belongs to no cell: the log, links, the pipe of the relays, files that are opened for a moment, resolvers that hang."""
CELL = 10
"""What each cell takes by being there: its sockets, its names, what waits for them, and its pace."""
ACCEPTED = 1
DIALLED = 6
"""What a connection may take beyond its client's side: those it dials at once."""


class Share:
    """What one cell holds."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Files:
    """All descriptors of this process.

    Args:
        limit: how many it may have.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.free = limit - RESERVED

    def attach(self) -> None:
        """A cell is there."""
        self.free -= CELL

    def detach(self) -> None:
        """A cell is gone."""
        self.free += CELL

    def take(self, share: Share, count: int) -> bool:
        """Let a cell have so many more; False where it may not."""
        if share.held + count > self.free - count:
            return False
        share.held += count
        self.free -= count
        return True

    def give(self, share: Share, count: int) -> None:
        """Take them back."""
        share.held -= count
        self.free += count
