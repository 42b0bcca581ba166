"""Whose the project of irons in an Incus is: one server's, by its id and an epoch. Another server's sandboxes are not touched.

A project without instances is anyone's. One with instances changes hands by `irons fleet takeover` alone, which counts its epoch up:
the server that had it, or an older copy of this one's state, is refused from then on.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from irons.files import write_whole
from irons_local.engines.incus import project
from irons_local.engines.incus.client import Incus
from irons_local.engines.incus.reach.ways import Way
from irons_local.errors import EngineError

_SERVER, _EPOCH = "user.irons.server", "user.irons.epoch"
FILE = "incus-server.json"
"""Next to the directory of the sandboxes: the id of this server, and the epoch in which it took the project."""


class ServerEpoch(NamedTuple):
    """A server, and the epoch in which it took the project.

    Attributes:
        server: its id, 16 hexadecimal digits.
        epoch: counted from 1.
    """

    server: str
    epoch: int


class ProjectOwner:
    """See the module.

    Args:
        incus: the Incus.
        path: of the file that says who this server is.
    """

    def __init__(self, incus: Incus, path: Path) -> None:
        self._incus = incus
        self._path = path

    async def check(self) -> None:
        """Take a project that is anyone's, and refuse another server's.

        Raises:
            EngineError: it is another's, or Incus does not answer.
        """
        refused = await self.refusal()
        if refused:
            raise EngineError(
                "state",
                refused,
                "where the other one is ended for good: irons fleet takeover makes it this one's",
            )

    async def refusal(self) -> str:
        """Why the project is not this server's, after taking one that is anyone's; "" where it is.

        Raises:
            EngineError: Incus does not answer.
        """
        config = await self._config()
        if config is None:
            # Whoever makes it takes it; and one that is not of irons has no instance of ours.
            return ""
        own, found = await self._own(), _read(config)
        if found == own:
            return ""
        if not found.server or not await self._incus.get("instances"):
            await self._take(ServerEpoch(own.server, max(own.epoch, found.epoch + 1)))
            return ""
        if found.server == own.server:
            return f"the Incus project {self._incus.project} is of epoch {found.epoch}, and the state of this server of {own.epoch}"
        return f"the Incus project {self._incus.project} has sandboxes of another server, {found.server[:8]}"

    async def take_over(self) -> ServerEpoch:
        """Make the project this server's, whoever has it.

        Raises:
            EngineError: there is none of irons, or Incus does not answer.
        """
        config = await self._config()
        if config is None:
            raise EngineError("absent", f"Incus has no project {self._incus.project} of irons")
        own, found = await self._own(), _read(config)
        return await self._take(ServerEpoch(own.server, max(own.epoch, found.epoch) + 1))

    async def _config(self) -> Mapping[str, str] | None:
        """The configuration of the project; None where there is none of irons."""
        found = await self._incus.find(f"projects/{self._incus.project}")
        config: Mapping[str, str] = (found or {}).get("config") or {}
        return config if project.is_ours(config) else None

    async def _own(self) -> ServerEpoch:
        return await asyncio.to_thread(self._read_own)

    def _read_own(self) -> ServerEpoch:
        try:
            body = json.loads(self._path.read_bytes())
            return ServerEpoch(str(body["server"]), int(body["epoch"]))
        except FileNotFoundError:
            own = ServerEpoch(secrets.token_hex(8), 1)
            self._write_own(own)
            return own
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError("machine", f"{self._path} cannot be read: {error}") from error

    def _write_own(self, own: ServerEpoch) -> None:
        write_whole(self._path, json.dumps(own._asdict()), durable=True)

    async def _take(self, taken: ServerEpoch) -> ServerEpoch:
        # All of it is sent: what is left out counts as unset, features included, which those with instances cannot have changed.
        where = f"projects/{self._incus.project}"
        now = await self._incus.get(where)
        config = {**(now.get("config") or {}), _SERVER: taken.server, _EPOCH: str(taken.epoch)}
        # The project first: where this ends in between, this server is refused, and can take it again.
        await self._incus.change("PUT", where, {"description": now.get("description", ""), "config": config})
        await asyncio.to_thread(self._write_own, taken)
        return taken


async def take_over(way: Way, local: Path) -> ServerEpoch:
    """See `ProjectOwner.take_over`.

    Args:
        way: the way to Incus.
        local: the directory of the local backend's state.
    """
    incus = Incus(way, project.NAME)
    try:
        return await ProjectOwner(incus, local / FILE).take_over()
    finally:
        await incus.close()


def _read(config: Mapping[str, str]) -> ServerEpoch:
    epoch = config.get(_EPOCH, "")
    return ServerEpoch(config.get(_SERVER, ""), int(epoch) if epoch.isascii() and epoch.isdigit() else 0)
