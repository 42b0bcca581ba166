"""Blocks from which made-up addresses are taken: the one of each sandbox, and all that there ever were on this machine.

A sandbox keeps the block that was set when it was made. A program may have kept an address of an earlier one, so an
address of any of them stands for a name that was given out in that very sandbox, or for nothing; it is never a literal.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from irons.files import write_whole
from irons_local.config.synthetic_pool import POOL, PoolError, read_pool
from irons_policy.addresses import Address

_MOST = 64
_MOST_BYTES = 4096


class Pools:
    """The blocks of one gateway.

    Args:
        kept: the file that has every block but the usual one, one a line; a gateway's workers share it.
        close: called with the blocks, to whose addresses no name may lead.
    """

    def __init__(self, kept: Path, close: Callable[[tuple[IPv4Network, ...]], None]) -> None:
        self._kept = kept
        self._close = close
        self.known: tuple[IPv4Network, ...] = (POOL,)
        self.current = POOL
        with contextlib.suppress(OSError):
            lines = kept.read_bytes()[:_MOST_BYTES].decode("ascii", "replace").splitlines()
            for line in lines[:_MOST]:
                self._add(line)
        self._close(self.known)

    def put(self, text: object, *, keep: bool = True) -> None:
        """Take the block that sandboxes made from now on have.

        Args:
            text: the block; None is the usual one.
            keep: write it to the file, which one worker does for all.

        Raises:
            PoolError: it is not one.
            OSError: it could not be kept, so it may not be used.
        """
        pool = POOL if text is None else read_pool(str(text))
        if pool not in self.known:
            if keep:
                self._write(pool)
            self._add(str(pool))
            self._close(self.known)
        self.current = pool

    def _write(self, pool: IPv4Network) -> None:
        fd = os.open(self._kept, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"{pool}\n")

    def of(self, names: Path) -> IPv4Network:
        """The block of a sandbox, by the file that keeps its names; noted now if that is yet to be made.

        Raises:
            OSError: it could not be noted.
        """
        note = names.with_name(f"{names.name}.pool")
        try:
            return read_pool(note.read_text(encoding="ascii").strip())
        except FileNotFoundError:
            if names.exists() or self.current == POOL:
                return POOL
        except (PoolError, ValueError):
            return POOL
        note.parent.mkdir(mode=0o750, exist_ok=True)
        write_whole(note, f"{self.current}\n", parents=False)
        return self.current

    def hold(self, address: Address) -> bool:
        """True for an address of any of them."""
        return any(address in pool for pool in self.known)

    def _add(self, text: str) -> None:
        with contextlib.suppress(PoolError):
            self.known = tuple(dict.fromkeys((*self.known, read_pool(text))))
