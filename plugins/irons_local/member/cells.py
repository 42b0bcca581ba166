"""The cells of a member: made, found again after a death of its keeper, and dropped; noted on its disk."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from pathlib import Path

from irons.files import write_whole
from irons_local.cell import veth
from irons_local.cell.layout import Veth, outer_name
from irons_local.control.clients.keeper import KeeperClient
from irons_local.errors import CellError
from irons_local.ipc.fields import SANDBOX_ID
from irons_local.ipc.framing import RequestError
from irons_local.member.identity import read_state

_log = logging.getLogger(__name__)


class OwnCells:
    """The cells on this member.

    Args:
        directory: has the note of each; made when it is needed.
        keeper: makes and holds them.
    """

    def __init__(self, directory: Path, keeper: KeeperClient) -> None:
        self._directory, self._keeper = directory, keeper

    def names(self) -> list[str]:
        """The cells that are noted."""
        return list(self._notes())

    def __len__(self) -> int:
        return len(self._notes())

    async def make(self, cell: str) -> Veth:
        """Make a cell with a veth, in place of one of a start that the server did not hear the end of.

        Raises:
            RequestError: it cannot be made.
        """
        await self.drop(cell)
        try:
            made = await self._keeper.make_with_veth(cell)
            await asyncio.to_thread(self._note, cell, made)
        except CellError as error:
            raise RequestError("cell", str(error)) from error
        except OSError as error:
            await self.drop(cell)
            raise RequestError("cell", f"{cell} cannot be noted: {error.strerror}") from error
        return made

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        """Hold a cell again.

        Raises:
            RequestError: it is not there any more.
        """
        try:
            await self._keeper.adopt(cell, pid, started)
        except CellError as error:
            raise RequestError("absent", str(error)) from error

    async def drop(self, cell: str) -> None:
        """Let go of a cell; nothing of its veth is left, whoever died.

        Raises:
            RequestError: the keeper does not answer.
        """
        try:
            await self._keeper.drop(cell)
            await asyncio.to_thread(veth.remove_lost, outer_name(cell))
            self._path(cell).unlink(missing_ok=True)
        except CellError as error:
            raise RequestError("cell", str(error)) from error
        except OSError as error:
            raise RequestError("cell", f"{cell} cannot be removed: {error.strerror}") from error

    async def connect(self, cell: str, address: str, port: int, within: float) -> socket.socket:
        """Connect inside a cell.

        Raises:
            RequestError: that failed; where connect(2) did, its code is the name of the error.
        """
        try:
            return await self._keeper.connect(cell, address, port, within=within)
        except CellError as error:
            raise RequestError("cell", str(error)) from error
        except OSError as error:
            code = errno.errorcode.get(
                error.errno or 0, "ETIMEDOUT" if isinstance(error, TimeoutError) else "EIO"
            )
            raise RequestError(code, error.strerror or str(error)) from error

    async def recover(self) -> None:
        """Hold again what was made, as after the death of the keeper and the gateway together."""
        for cell, noted in self._notes().items():
            try:
                await self._keeper.adopt(cell, noted.pid, noted.started)
            except CellError as error:
                # Its engine drops it, and the next start makes another.
                _log.warning("the cell %s is not held: %s", cell, error)

    def _note(self, cell: str, made: Veth) -> None:
        write_whole(self._path(cell), json.dumps(made._asdict()), durable=True)

    def _notes(self) -> dict[str, Veth]:
        found = {}
        for path in sorted(self._directory.glob("*.json")):
            noted = read_state(path)
            if SANDBOX_ID.fullmatch(path.stem) and set(noted) == set(Veth._fields):
                found[path.stem] = Veth(**noted)
        return found

    def _path(self, cell: str) -> Path:
        return self._directory / f"{cell}.json"
