"""Who may hold a connection to the API without having shown that it may use it: so many per peer, and so many in all.

Connections that have shown a valid key do not count, so clients without a key cannot keep those with one from being served. Where
there is no room, the oldest connection that is waiting for its peer makes place; one that is being served is left alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Protocol

OF_ONE_PEER = 128
"""Strangers' connections of one peer: an address, a /64 network, or a user of this machine."""

OF_ALL = 512
"""Strangers' connections in all."""

_TURNS = 6
"""Turns of the event loop after which what a client sent with its connection has been read."""


class Guest(Protocol):
    """One connection."""

    @property
    def waits(self) -> bool:
        """True while the peer is the one who has to send something."""
        ...

    def dismiss(self) -> None:
        """End it, since there are too many."""
        ...


class Gate:
    """Counts the connections of strangers; it does no input or output."""

    def __init__(self, of_one_peer: int = OF_ONE_PEER, of_all: int = OF_ALL) -> None:
        """Make an empty one.

        Args:
            of_one_peer: strangers' connections of one peer at most.
            of_all: strangers' connections in all at most.
        """
        self._of_one_peer = of_one_peer
        self._of_all = of_all
        self._turn = 0
        self._peers: dict[Guest, Hashable] = {}
        self._strangers: dict[Hashable, dict[Guest, int]] = {}
        self._count = 0

    @property
    def strangers(self) -> int:
        """Connections that have not shown that they may use the API."""
        return self._count

    @property
    def guests(self) -> tuple[Guest, ...]:
        """Every connection there is."""
        return tuple(self._peers)

    def turn(self) -> None:
        """Say that the event loop has come round."""
        self._turn += 1

    def has_room(self, peer: Hashable) -> bool:
        """Whether one more connection of a peer may enter; where there is none, room is made if that is possible."""
        own = self._strangers.get(peer, {})
        if len(own) >= self._of_one_peer:
            return self._make_room(own)
        if self._count >= self._of_all:
            # Whoever takes up the most gives way.
            return self._make_room(max(self._strangers.values(), key=len))
        return True

    def enter(self, guest: Guest, peer: Hashable) -> None:
        """Count a new connection as a stranger's."""
        self._peers[guest] = peer
        self._strangers.setdefault(peer, {})[guest] = self._turn
        self._count += 1

    def recognise(self, guest: Guest, *, valid: bool) -> None:
        """Say whether a connection has shown that it may use the API; what it showed may become invalid."""
        peer = self._peers.get(guest)
        if peer is None:
            return
        stranger = guest in self._strangers.get(peer, {})
        if valid and stranger:
            self._forget(guest, peer)
        elif not valid and not stranger:
            self.enter(guest, peer)

    def leave(self, guest: Guest) -> None:
        """Say that a connection has ended."""
        peer = self._peers.get(guest)
        if guest in self._strangers.get(peer, {}):
            self._forget(guest, peer)
        self._peers.pop(guest, None)

    def _forget(self, guest: Guest, peer: Hashable) -> None:
        own = self._strangers[peer]
        del own[guest]
        self._count -= 1
        if not own:
            del self._strangers[peer]

    def _make_room(self, crowd: dict[Guest, int]) -> bool:
        oldest = next(self._idle(crowd.items()), None)
        if oldest is None:
            return False
        self._forget(oldest, self._peers[oldest])
        oldest.dismiss()
        return True

    def _idle(self, crowd: Iterable[tuple[Guest, int]]) -> Iterator[Guest]:
        return (guest for guest, since in crowd if guest.waits and self._turn - since > _TURNS)
