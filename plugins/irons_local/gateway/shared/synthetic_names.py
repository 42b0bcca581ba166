"""Synthetic names: what a cell's DNS answered with a made-up address, and the way back from that address.

An address is given to one name and never to another as long as the sandbox lives, also across restarts: each new
name is appended to the cell's file before its address is answered, and its line number is its address.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from irons_local.config.synthetic_pool import POOL
from irons_local.gateway.budget.bucket import Bucket
from irons_policy.addresses import Address

CAPACITY = 60_000
"""Names a sandbox may have in its life."""
KEPT = 5_000
"""Names beyond them, for those that a rule covers."""
RATE = 200.0
"""New names a second, on average: more than any program asks for, and five minutes until a flood has used them up."""
BURST = 2_000.0
"""New names in one go."""


class NamesFullError(Exception):
    """The cell has asked for more names than it may have in its life, or at once."""


class SyntheticNames:
    """The synthetic names of one cell.

    Args:
        path: the file that keeps them.
        capacity: how many names a cell may have.
        bucket: makes what limits new names a second: those that a rule covers, and the others.
        pool: where its addresses are taken from.
        pooled: tells whether an address is of any pool, also an earlier one.
    """

    def __init__(
        self,
        path: Path,
        capacity: int = CAPACITY,
        bucket: Callable[[], Bucket] = lambda: Bucket(RATE, BURST),
        pool: IPv4Network = POOL,
        pooled: Callable[[Address], bool] = POOL.__contains__,
    ) -> None:
        self._base, self._mask = int(pool.network_address), int(pool.netmask)
        self._pooled = pooled
        self._capacity = capacity
        self._buckets = {True: bucket(), False: bucket()}
        self._path = path
        self._by_index: list[str] = []
        self._by_name: dict[str, int] = {}
        self._size = 0
        path.parent.mkdir(mode=0o750, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._load()

    def __len__(self) -> int:
        return len(self._by_index)

    def address(self, name: str, covered: Callable[[str], bool] = lambda _: False) -> IPv4Address:
        """The address that stands for a canonical name, now and always.

        Args:
            name: the name.
            covered: whether a rule covers it: room is kept for such names, no matter how many others were asked for.

        Raises:
            NamesFullError: the cell has used up its names, or those of this moment.
            OSError: the name cannot be kept, so it may not be given.
        """
        index = self._by_name.get(name)
        if index is None:
            index = self._add(name, covered=covered(name))
        # The first address of the pool stands for nothing.
        return IPv4Address(self._base + index + 1)

    def name(self, address: Address) -> str | None:
        """The name an address stands for; None where it stands for none."""
        if address.version != 4:
            return None
        number = int(address)
        if number & self._mask != self._base:
            return None
        index = number - self._base - 1
        return self._by_index[index] if 0 <= index < len(self._by_index) else None

    def synthetic(self, address: Address) -> bool:
        """True for an address of a pool, given out or not."""
        return (address.version == 4 and int(address) & self._mask == self._base) or self._pooled(address)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _add(self, name: str, *, covered: bool) -> int:
        if len(self._by_index) >= self._capacity + covered * KEPT:
            raise NamesFullError(f"this sandbox has asked for {self._capacity} names")
        if not self._buckets[covered].take():
            raise NamesFullError(f"this sandbox asks for more than {RATE:.0f} new names a second")
        line = name.encode("ascii") + b"\n"
        if os.write(self._fd, line) != len(line):
            os.ftruncate(self._fd, self._size)
            raise OSError(28, "no room for another name")
        self._size += len(line)
        index = len(self._by_index)
        self._by_index.append(name)
        self._by_name[name] = index
        return index

    def _load(self) -> None:
        data = b""
        while chunk := os.read(self._fd, 1 << 20):
            data += chunk
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            # A kill in the middle of a write left half a name, whose address was never answered.
            os.ftruncate(self._fd, whole)
        self._size = whole
        for line in data[:whole].splitlines():
            name = line.decode("ascii", "replace")
            self._by_name.setdefault(name, len(self._by_index))
            self._by_index.append(name)
