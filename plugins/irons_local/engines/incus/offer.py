"""The `incus` engine as the control plane has it: what does its work is imported when a sandbox of it is, or is to be, there.

So a daemon whose sandboxes are all of other engines imports neither its HTTP client nor the rest.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irons_local.bundle.machine import Machine
from irons_local.config.incus import CLUSTER, addresses, joined_directory
from irons_local.engines.protocol import SSH_PORT, Activity, Kit, Look, Made, Spec
from irons_local.progress import Progress, unheard

if TYPE_CHECKING:
    from irons_local.engines.incus.engine import IncusContainers


def _mark(joined: Path) -> tuple[int, int] | None:
    """What tells one joining from another; None where no cluster is joined."""
    try:
        found = (joined / CLUSTER).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


class IncusEngine:
    """See the module; the methods are those of `Engine`."""

    name = "incus"

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._made: IncusContainers | None = None
        self._joined: tuple[int, int] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def _engine(self) -> IncusContainers:
        # A cluster is joined and left while no sandbox of this engine is there, by a process of its own.
        joined = joined_directory(self._kit.sandboxes.parent)
        mark = _mark(joined)
        if self._made is None or self._joined != mark:
            from irons.settings.settings import config_path
            from irons_local.config.incus import incus_socket
            from irons_local.engines.incus.engine import IncusContainers
            from irons_local.engines.incus.reach.ways import SocketWay, joined_way

            here = SocketWay(incus_socket(config_path(os.environ)))
            cluster = joined_way(joined)
            before, self._made = (
                self._made,
                IncusContainers(self._kit, here)
                if cluster is None
                else IncusContainers(self._kit, cluster, here),
            )
            # Last: where the cluster could not be read, the next call does not go on with the engine of another Incus.
            self._joined = mark
            if before is not None:
                closing = asyncio.ensure_future(before.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        return self._made

    async def close(self) -> None:
        """Close the connections to Incus; nothing else is asked of it."""
        if self._made is not None:
            await self._made.close()
        await asyncio.gather(*self._closing)

    @property
    def _has_any(self) -> bool:
        try:
            return any(Machine.is_instance(home) for home in self._kit.sandboxes.iterdir())
        except FileNotFoundError:
            return False

    async def recover(self) -> Sequence[str]:
        """See `Engine.recover`."""
        return await self._engine.recover() if self._has_any else ()

    async def create(self, spec: Spec, progress: Progress = unheard) -> Made:
        """See `Engine.create`."""
        return await self._engine.create(spec, progress)

    async def start(self, sandbox: str, *, boot: bool = True) -> None:
        """See `Engine.start`."""
        await self._engine.start(sandbox, boot=boot)

    async def stop(self, sandbox: str, *, grace: float = 5.0) -> None:
        """See `Engine.stop`."""
        await self._engine.stop(sandbox, grace=grace)

    async def destroy(self, sandbox: str) -> None:
        """See `Engine.destroy`."""
        if self._has_any:
            await self._engine.destroy(sandbox)

    async def abandon(self, sandbox: str) -> str:
        """See `IncusContainers.abandon`."""
        return await self._engine.abandon(sandbox) if self._has_any else ""

    async def look(self, sandbox: str) -> Look:
        """See `Engine.look`."""
        return await self._engine.look(sandbox) if self._has_any else Look("absent")

    def listening(self) -> Sequence[tuple[str, int]]:
        """See `Listens.listening`."""
        return addresses(self._kit.sandboxes.parent)

    def member_of(self, sandbox: str) -> str:
        """See `Spread.member_of`."""
        return self._engine.member_of(sandbox)

    async def activity(self, sandbox: str) -> Activity | None:
        """See `Observer.activity`."""
        return await self._engine.activity(sandbox)

    async def boot_output(self, sandbox: str) -> bytes:
        """See `Booter.boot_output`."""
        return await self._engine.boot_output(sandbox)

    async def connect(self, sandbox: str, *, port: int = SSH_PORT, within: float = 10.0) -> socket.socket:
        """See `Engine.connect`."""
        return await self._engine.connect(sandbox, port=port, within=within)

    async def wait(self, sandbox: str) -> None:
        """See `Engine.wait`."""
        await self._engine.wait(sandbox)
