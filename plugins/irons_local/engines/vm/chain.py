"""A machine's disk on the host as a chain: what it writes now, over layers that never change again, over its image's disk.

A snapshot makes a layer of the disk as it is and puts an empty one over it. The steps, in this order, so that a process
killed at any of them leaves a whole machine: the layer's record and an empty disk `disk.next`; the machine's record, which
names the layer; the disk into the layer; `disk.next` in its place; a QEMU that runs writes to that; the layer is whole. What
a kill leaves between them, `settle` finishes: an empty disk over another reads as that, whether QEMU writes to the one or
the other, and no snapshot names the layer before it is whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from irons_local.bundle.machine import NEXT_DISK, VIRTUAL_DISK, Machine
from irons_local.disk_room import Room
from irons_local.engines.vm import qcow2
from irons_local.errors import EngineError
from irons_local.images.layers import Layers

DEEPEST = 16
"""Layers between a machine's disk and its image's, at most: each is one more file to look in for what is in none."""

_FILE = "disk"


def files(machine: Machine, layers: Layers) -> list[Path]:
    """The files of a machine's layers, topmost first.

    Raises:
        EngineError: one of them is not there.
    """
    return [tree / _FILE for tree in layers.trees(machine.layers)]


def file_of(tree: Path) -> Path:
    """Where the disk is in the directory of a layer."""
    return tree / _FILE


def whole(machine: Machine, layers: Layers) -> list[Path]:
    """Where the files of a machine's layers are, topmost first, once these are whole."""
    return [layers.tree(layer) / _FILE for layer in machine.layers]


def check(home: Path, machine: Machine, layers: Layers) -> None:
    """Refuse a machine one of whose disks says that more belongs to it than irons names.

    QEMU gets the name of what each disk is read over. A file of data that a header names it would open by itself.

    Raises:
        EngineError: one does, or cannot be read.
    """
    for place in (home / VIRTUAL_DISK, *files(machine, layers)):
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as disk:
                found = qcow2.foreign(disk.read(qcow2.HEAD))
        except OSError as error:
            raise EngineError("failed", f"{place}: {error.strerror}") from error
        if found:
            raise EngineError(
                "image",
                f"the disk {place} of {machine.name} is refused: {found}",
                "only a program that broke out of the guest writes that: restore an older snapshot, or destroy the sandbox",
            )


def is_empty(home: Path, machine: Machine) -> bool:
    """Whether a machine's disk is as `write_empty` made it; its length says little, since who broke out of the guest chooses that."""
    disk, empty = home / VIRTUAL_DISK, qcow2.empty(machine.limits.disk or 0)
    return disk.stat().st_size == len(empty) and disk.read_bytes() == empty


def flush(home: Path) -> None:
    """Have what a machine wrote on the host's disk: QEMU does that while writes wait, and has less to do then."""
    with contextlib.suppress(OSError):
        # What fails here fails in QEMU too, which says so.
        descriptor = os.open(home / VIRTUAL_DISK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def write_empty(path: Path, size: int) -> None:
    """Write an empty disk, also for a power loss; whoever may walk to it may read it, as QEMU does when it is a layer.

    Args:
        path: where; what is there is replaced.
        size: bytes that the guest sees.

    Raises:
        OSError: it cannot be written.
    """
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o644)
        file.write(qcow2.empty(size))
        file.flush()
        os.fsync(descriptor)


def begin(home: Path, machine: Machine, layers: Layers, most: int | None = DEEPEST) -> Machine:
    """Begin to make a layer of a machine's disk, which `settle` finishes; gives the machine's new record.

    Args:
        home: the machine's directory; it is held.
        machine: its record.
        layers: where layers are; nothing sweeps.
        most: how many layers it may have; None where they are replaced afterwards.

    Raises:
        EngineError: it has too many, or there is no room.
        OSError: something cannot be written.
    """
    if most is not None and len(machine.layers) >= most:
        raise EngineError(
            "limit",
            f"the disk of {machine.name} consists of {len(machine.layers)} layers already, and one more is too many",
            "an older snapshot has fewer: irons create NEW --from SNAP, or irons restore; without one, irons scp copies the files"
            " to a new sandbox. To remove snapshots helps: layers that only this machine uses are merged",
        )
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        Room(directory, "the snapshot").take(len(qcow2.empty(machine.limits.disk or 0)))
        write_empty(home / NEXT_DISK, machine.limits.disk or 0)
        os.fsync(directory)
    finally:
        os.close(directory)
    layer = layers.begin("disk")
    _make(layers.filling(layer.id))
    changed = replace(machine, layers=(layer.id, *machine.layers))
    changed.write(home)
    return changed


def _make(filling: Path) -> None:
    filling.mkdir(parents=True, exist_ok=True)
    # Who counts the files of layers is not their owner; only the directory above keeps others out.
    filling.chmod(0o755)


async def settle(home: Path, layers: Layers, switch: Callable[[Path, str], Awaitable[float]] | None) -> float:
    """Finish what `begin` began; the machine is held.

    Args:
        home: the machine's directory.
        layers: where layers are.
        switch: has a QEMU that runs write to a disk, over the one it writes to, of which the layer is made; gives for how
            long it did not write. None where the machine does not run.

    Returns:
        What `switch` gave, or 0.

    Raises:
        EngineError: the machine's record cannot be read.
        OSError: something cannot be moved.
    """
    fresh, disk = home / NEXT_DISK, home / VIRTUAL_DISK
    top = Machine.read(home).layers[:1]
    if not top or layers.tree(top[0]).exists():
        fresh.unlink(missing_ok=True)
        return 0.0
    filling = layers.filling(top[0])
    if fresh.exists():
        if not (filling / _FILE).exists():
            # A power loss may have taken the directory, but not the record that names the layer.
            _make(filling)
            disk.rename(filling / _FILE)
        fresh.rename(disk)
    if not (filling / _FILE).exists():
        # Someone removed the layer; the start says so.
        return 0.0
    paused = 0.0 if switch is None else await switch(disk, top[0])
    layers.filled(top[0])
    return paused
