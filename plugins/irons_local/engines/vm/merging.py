"""Merging a machine's layers while it runs: QEMU copies what they have into the disk that it writes to, and needs them no more.

Nothing is lost by a kill at any moment: that disk reads the same over the layers as without them, and the machine's record names
them until all of it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from irons_local.engines.vm import qemu, qmp, switching

FROM = 8
"""Layers from which on a machine that runs merges them."""

_JOB = "merge"
_ASK_AGAIN = 1.0
_BYTES_A_SECOND = 64 << 20
"""What the copy takes of the disk at most: the guest needs it too."""


class Merging:
    """The merges that go on, one for each machine."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, machine: str, work: Coroutine[Any, Any, None]) -> None:
        """Have a merge go on in the background, in the place of one that is over."""
        task = asyncio.create_task(work, name=f"merge {machine}")
        self._tasks[machine] = task
        task.add_done_callback(lambda done: self._forget(machine, done))

    def __contains__(self, machine: str) -> bool:
        return machine in self._tasks

    async def end(self, machine: str) -> None:
        """Let a merge be, where one goes on."""
        task = self._tasks.pop(machine, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _forget(self, machine: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(machine) is task:
            del self._tasks[machine]


async def merge(commands: Path) -> None:
    """Come back when the disk that QEMU writes to needs no layers, and all of it is on the host's disk.

    Args:
        commands: path of the socket on which QEMU answers.

    Raises:
        qmp.QmpError: QEMU refuses, does not answer, or could not copy all.
    """
    async with qmp.connected(commands) as monitor:
        if not await _is_merging(monitor):
            disk = switching.active(await monitor.execute("query-block"))
            await monitor.execute(
                "block-stream",
                device=disk.name,
                job_id=_JOB,
                base_node=qemu.BASE,
                speed=_BYTES_A_SECOND,
            )
    # Not over one connection: there is one at a time, and others have questions too.
    while True:
        async with qmp.connected(commands) as monitor:
            if not await _is_merging(monitor):
                break
        await asyncio.sleep(_ASK_AGAIN)
    async with qmp.connected(commands) as monitor:
        disk = switching.active(await monitor.execute("query-block"))
        if disk.depth != 1:
            raise qmp.QmpError("QEMU could not merge the layers")
        said = await monitor.execute("human-monitor-command", command_line=f"qemu-io {disk.name} flush")
        if said != "":
            raise qmp.QmpError("QEMU could not write the merged disk")


async def cancel(commands: Path) -> None:
    """Have QEMU stop merging, and come back when it has.

    Raises:
        qmp.QmpError: QEMU refuses or does not answer.
    """
    async with qmp.connected(commands) as monitor:
        if not await _is_merging(monitor):
            return
        with contextlib.suppress(qmp.QmpError):
            # It may be over by now.
            await monitor.execute("block-job-cancel", device=_JOB, force=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(qmp.ANSWERED_WITHIN):
            while True:
                async with qmp.connected(commands) as monitor:
                    if not await _is_merging(monitor):
                        return
                await asyncio.sleep(_ASK_AGAIN / 10)
    raise qmp.QmpError("QEMU does not stop merging")


async def _is_merging(monitor: qmp.Monitor) -> bool:
    return bool(await monitor.execute("query-block-jobs"))
