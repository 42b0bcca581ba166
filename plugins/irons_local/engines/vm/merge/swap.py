"""Having a QEMU that runs read a merged layer in the place of those that it was made of, by QMP.

Both show the same, so that the guest notices nothing, and nothing is lost whichever of them a QEMU has when something is killed. No
data moves: QEMU waits for what is under way, and then reads the next one from the other file (`blockdev-reopen`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from irons_local.engines.vm import qemu, qmp

SWAPPED_WITHIN = 120.0
"""Seconds for all of it."""

_JSON = "json:"
_DEEPEST = 300
_FDSET = "/dev/fdset/"
_DIGITS = 10


class _Node(NamedTuple):
    """A disk as QEMU has it.

    Attributes:
        name: the block node.
        file: the node of its file.
        path: what QEMU opened the file by.
    """

    name: str
    file: str
    path: str


async def swap(commands: Path, merged: Path, layer: str, depth: int, at: int, count: int) -> bool:
    """Have QEMU read one disk in the place of several; gives whether it does.

    Args:
        commands: path of the socket on which it answers.
        merged: the disk, which shows what they show.
        layer: id of the layer that it is.
        depth: how many layers the machine's record names.
        at: the number of the first of those that it replaces.
        count: how many these are.

    Returns:
        False where QEMU has another number of layers, as after a kill between this and the record: nothing has changed then.

    Raises:
        qmp.QmpError: QEMU refuses, or does not answer.
        OSError: the disk cannot be opened.
    """
    try:
        async with (
            asyncio.timeout(SWAPPED_WITHIN),
            qmp.connected(commands, SWAPPED_WITHIN) as monitor,
        ):
            return await _swap(monitor, merged, layer, depth, at, count)
    except TimeoutError as error:
        raise qmp.QmpError(f"QEMU did not answer within {SWAPPED_WITHIN:.0f} s") from error


async def _swap(monitor: qmp.Monitor, merged: Path, layer: str, depth: int, at: int, count: int) -> bool:
    nodes = await _chain(monitor)
    # The disk that is written to, the layers, and the image's.
    if len(nodes) != depth + 2:
        return False
    above, below = nodes[at], nodes[at + count + 1]
    name, place = f"merged-{layer}", await _hand(monitor, merged)
    try:
        await monitor.execute(
            "blockdev-add",
            driver="qcow2",
            node_name=name,
            read_only=True,
            file={"driver": "file", "filename": place, "locking": "off"},
            backing=below.name,
        )
        try:
            # What is not named here is reset to what it is by itself.
            options = {"driver": "qcow2", "node-name": above.name, "file": above.file, "backing": name}
            more = {"discard": "unmap"} if at == 0 else {"read-only": True}
            await monitor.execute("blockdev-reopen", options=[{**options, **more}])
        except qmp.QmpError:
            await monitor.execute("blockdev-del", node_name=name)
            raise
    except qmp.QmpError:
        await _forget(monitor, place)
        raise
    for node in nodes[at + 1 : at + count + 1]:
        # Where QEMU keeps one, it keeps its room on the disk until it ends, and nothing else.
        with contextlib.suppress(qmp.QmpError):
            await monitor.execute("blockdev-del", node_name=node.name)
            await _forget(monitor, node.path)
    return True


async def _chain(monitor: qmp.Monitor) -> list[_Node]:
    """The disks that the guest's is made of, topmost first."""
    devices = await monitor.execute("query-block")
    known = await monitor.execute("query-named-block-nodes", flat=True)
    with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError, RecursionError):
        paths: list[str] = []
        described = _described(devices)
        while described is not None and len(paths) < _DEEPEST:
            paths.append(described["file"]["filename"])
            described = described.get("backing")
        files = {node["file"]: node["node-name"] for node in known if node["drv"] == "file"}
        disks = {_path(node["file"]): node["node-name"] for node in known if node["drv"] in ("qcow2", "raw")}
        return [_Node(str(disks[path]), str(files[path]), path) for path in paths]
    raise qmp.QmpError("QEMU does not say which disks the guest's is made of")


def _described(devices: Any) -> Any:
    for device in devices:
        inserted = device.get("inserted") or {}
        name = str(inserted.get("node-name"))
        if name == qemu.ROOT or name.startswith(qemu.over("")):
            return json.loads(inserted["file"].removeprefix(_JSON))
    raise ValueError("no disk")


def _path(told: str) -> str:
    """What a disk's file is called, which QEMU says with all that the disk is read over, or, where that is nothing, alone."""
    return str(json.loads(told.removeprefix(_JSON))["file"]["filename"]) if told.startswith(_JSON) else told


async def _hand(monitor: qmp.Monitor, disk: Path) -> str:
    descriptor = await asyncio.to_thread(os.open, disk, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        told = await monitor.execute("add-fd", handed=descriptor)
    finally:
        os.close(descriptor)
    if not isinstance(told, dict) or not isinstance(told.get("fdset-id"), int):
        raise qmp.QmpError("QEMU does not say where it has the disk")
    return f"{_FDSET}{told['fdset-id']}"


async def _forget(monitor: qmp.Monitor, place: str) -> None:
    """Have QEMU close a descriptor that it was given, if that is what it had a disk by."""
    number = place.removeprefix(_FDSET)
    # Whoever broke out of QEMU says what it is called.
    if number != place and number.isascii() and number.isdigit() and len(number) < _DIGITS:
        with contextlib.suppress(qmp.QmpError):
            await monitor.execute("remove-fd", fdset_id=int(number))
