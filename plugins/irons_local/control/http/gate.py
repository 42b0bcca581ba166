"""Who may hold a connection to the API without having shown that it may use it: so many per peer, and so many in all.

Connections that have shown a valid key do not count, so clients without a key cannot keep those with one from being served. Those of
each key that may not do all are counted apart, so that such a key cannot use up the server's descriptors. Where there is no room, the
oldest connection that is waiting for its peer makes place; one that is being served is left alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Protocol

OF_ONE_PEER = 128
"""Strangers' connections of one peer: an address, a /64 network, or a user of this machine."""

OF_ALL = 512
"""Strangers' connections in all."""

OF_ONE_KEY = 256
"""Connections of one key of another role than `admin`."""

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
    """Counts the connections of strangers, and of keys that may not do all; it does no input or output."""

    def __init__(
        self, of_one_peer: int = OF_ONE_PEER, of_all: int = OF_ALL, of_one_key: int = OF_ONE_KEY
    ) -> None:
        """Make an empty one.

        Args:
            of_one_peer: strangers' connections of one peer at most.
            of_all: strangers' connections in all at most.
            of_one_key: connections of a key that counts at most.
        """
        self._of_one_key = of_one_key
        self._keyed: dict[str, dict[Guest, int]] = {}
        self._keys: dict[Guest, str] = {}
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

    def recognise(self, guest: Guest, *, valid: bool, key: str | None = None) -> bool:
        """Say whether a connection has shown that it may use the API; what it showed may become invalid.

        Args:
            guest: the connection.
            valid: it has.
            key: the id of the key that it showed, where connections with that key count.

        Returns:
            Whether it may: not where its key has too many connections, and all are being served. It is a stranger's then.
        """
        peer = self._peers.get(guest)
        if peer is None:
            return valid
        stranger = guest in self._strangers.get(peer, {})
        key = key if valid else None
        if key != self._keys.get(guest):
            self._forget_key(guest)
            valid = valid and (key is None or self._take(guest, key))
        if valid and stranger:
            self._forget(guest, peer)
        elif not valid and not stranger:
            self.enter(guest, peer)
        return valid

    def leave(self, guest: Guest) -> None:
        """Say that a connection has ended."""
        self._uncount(guest)
        self._peers.pop(guest, None)

    def _take(self, guest: Guest, key: str) -> bool:
        """Count a connection as one of a key; returns whether there was room."""
        own = self._keyed.get(key, {})
        if len(own) >= self._of_one_key and not self._make_room(own):
            return False
        # What it sent first has been read: its key was in that.
        self._keyed.setdefault(key, {})[guest] = self._turn - _TURNS - 1
        self._keys[guest] = key
        return True

    def _uncount(self, guest: Guest) -> None:
        self._forget_key(guest)
        peer = self._peers.get(guest)
        if guest in self._strangers.get(peer, {}):
            self._forget(guest, peer)

    def _forget_key(self, guest: Guest) -> None:
        key = self._keys.pop(guest, None)
        if key is not None:
            del self._keyed[key][guest]
            if not self._keyed[key]:
                del self._keyed[key]

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
        self._uncount(oldest)
        oldest.dismiss()
        return True

    def _idle(self, crowd: Iterable[tuple[Guest, int]]) -> Iterator[Guest]:
        return (guest for guest, since in crowd if guest.waits and self._turn - since > _TURNS)
