"""A guest that QEMU stopped since the host's disk is full, and that goes on once there is room.

QEMU stops a guest whose write does not fit, and continues it at QMP's `cont` alone, which tries that write again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from irons_local.disk_room import RESERVE, Room
from irons_local.engines.vm import qmp
from irons_local.errors import EngineError

LOOK_EVERY = 5.0
"""Seconds between two looks at the room, at most one try in each, and until a QEMU that does not answer is asked again."""

_WANTED = 16 << 20

NOTE = (
    "the host's disk is full: the guest stands still, and goes on by itself once "
    f"{(RESERVE + _WANTED) >> 20} MiB are free, or less on a small disk"
)
_log = logging.getLogger(__name__)


def is_full(event: qmp.QmpEvent) -> bool:
    """Whether an event says that a guest was stopped for want of room."""
    data = event.data
    return event.name == "BLOCK_IO_ERROR" and data.get("nospace") is True and data.get("action") == "stop"


class Stalled:
    """Whether one machine stands still, and what has it go on.

    Args:
        home: its directory, on the disk in question.
        commands: path of the socket on which its QEMU answers.
    """

    def __init__(self, home: Path, commands: Path) -> None:
        self._home = home
        self._commands = commands
        self._full = asyncio.Event()

    @property
    def stands_still(self) -> bool:
        """Whether it waits for room."""
        return self._full.is_set()

    def take(self, event: qmp.QmpEvent) -> None:
        """Note what an event says."""
        if is_full(event):
            self._full.set()

    async def serve(self) -> None:
        """Have it go on whenever there is room again; runs until it is cancelled."""
        while not (self._full.is_set() or await self._looked()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._full.wait()
        while True:
            await self._full.wait()
            if not self._has_room():
                await asyncio.sleep(LOOK_EVERY)
                continue
            # What fails after this is said by an event that comes after this.
            self._full.clear()
            try:
                async with qmp.connected(self._commands) as monitor:
                    await monitor.execute("cont")
                _log.info("%s goes on: there is room on the disk", self._home.name)
            except (qmp.QmpError, OSError) as error:
                _log.warning("%s does not go on: %s", self._home.name, error)
                self._full.set()
            await asyncio.sleep(LOOK_EVERY)

    async def _looked(self) -> bool:
        """Find out whether it stands still already, as after a restart of the control plane; False where QEMU does not say."""
        try:
            async with qmp.connected(self._commands) as monitor:
                said = await monitor.execute("query-status")
        except (qmp.QmpError, OSError):
            return False
        if isinstance(said, dict) and said.get("status") == "io-error":
            self._full.set()
        return True

    def _has_room(self) -> bool:
        try:
            directory = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            Room(directory, "what the guest writes").take(_WANTED)
        except EngineError:
            return False
        finally:
            os.close(directory)
        return True
