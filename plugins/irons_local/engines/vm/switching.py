"""Having a QEMU that runs write to another disk, over the one that it writes to: an external snapshot, by QMP.

The disk travels as a descriptor: QEMU has no path to it, and gets none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

from irons_local.engines.vm import qemu, qmp

SWITCHED_WITHIN = 120.0
"""Seconds for all of it: QEMU has what the guest wrote on the host's disk first, and that disk may be busy."""

_OVER = qemu.over("")


async def switch(commands: Path, disk: Path, layer: str) -> float:
    """Have QEMU write to an empty disk from now on, and only read the one that it writes to.

    Args:
        commands: path of the socket on which it answers.
        disk: the empty disk.
        layer: id of the layer that the other becomes.

    Returns:
        Seconds for which the guest could not write; 0 where QEMU had done it before.

    Raises:
        qmp.QmpError: QEMU refuses, or does not answer.
        OSError: the disk cannot be opened.
    """
    try:
        async with (
            asyncio.timeout(SWITCHED_WITHIN),
            qmp.connected(commands, SWITCHED_WITHIN) as monitor,
        ):
            return await _switch(monitor, disk, qemu.over(layer))
    except TimeoutError as error:
        raise qmp.QmpError(f"QEMU did not answer within {SWITCHED_WITHIN:.0f} s") from error


async def _switch(monitor: qmp.Monitor, disk: Path, name: str) -> float:
    active = _active(await monitor.execute("query-block"))
    if active == name:
        return 0.0
    with contextlib.suppress(qmp.QmpError):
        # One that was added, and never written to.
        await monitor.execute("blockdev-del", node_name=name)
    place = await _hand(monitor, disk)
    await monitor.execute(
        "blockdev-add",
        driver="qcow2",
        node_name=name,
        discard="unmap",
        file={"driver": "file", "filename": place},
        backing=None,
    )
    begun = time.monotonic()
    await monitor.execute("blockdev-snapshot", node=active, overlay=name)
    return time.monotonic() - begun


async def _hand(monitor: qmp.Monitor, disk: Path) -> str:
    """Give QEMU a disk, to write and, once that is a layer too, only to read; gives its name there."""
    numbers: dict[str, int] = {}
    for flags in (os.O_RDWR, os.O_RDONLY):
        descriptor = await asyncio.to_thread(os.open, disk, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            told = await monitor.execute("add-fd", handed=descriptor, **numbers)
        finally:
            os.close(descriptor)
        if not isinstance(told, dict) or not isinstance(told.get("fdset-id"), int):
            raise qmp.QmpError("QEMU does not say where it has the disk")
        numbers = {"fdset_id": told["fdset-id"]}
    return f"/dev/fdset/{numbers['fdset_id']}"


def _active(told: Any) -> str:
    """The block node that the guest's disk is, by what `query-block` says."""
    for device in told if isinstance(told, list) else ():
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            name = device["inserted"]["node-name"]
            if name == qemu.ROOT or name.startswith(_OVER):
                return str(name)
    raise qmp.QmpError("QEMU does not say which disk the guest writes to")
