"""The hardware that a virtual machine gets where its limits leave it open, and what `status` says of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from irons.text import size_text
from irons_local.engines.vm import qemu
from irons_local.errors import EngineError
from irons_local.limits import Limits

MEMORY = 1 << 30
LEAST_MEMORY = 256 << 20
DISK = 16 << 30
_LEAST_ROOM = 64 << 20
_SECTOR = 512
_MEGABYTE = 1 << 20
_PROCESSORS = 2
_SAID = {
    "guest-shutdown": "the guest shut itself down",
    "guest-panic": "the guest's kernel panicked",
    "host-signal": "QEMU was asked to end by a signal",
    "host-qmp-quit": "QEMU was asked to end",
}


def filled(limits: Limits) -> Limits:
    """The limits with what a machine must have; a disk that is not limited is left open.

    Raises:
        EngineError: one is too low.
    """
    limits.check()
    memory = MEMORY if limits.memory is None else limits.memory
    if memory < LEAST_MEMORY:
        raise EngineError(
            "input",
            f"memory of a virtual machine can't be {size_text(memory)}: the least is {size_text(LEAST_MEMORY)}",
        )
    processors = float(min(_PROCESSORS, os.cpu_count() or 1)) if limits.cpus is None else limits.cpus
    return replace(limits, memory=memory - memory % _MEGABYTE, cpus=processors)


def check(limits: Limits) -> None:
    """Refuse, before anything is made, what no virtual machine could run in, or a host that lacks a program.

    Raises:
        EngineError: the first thing that is in the way.
    """
    filled(limits)
    qemu.find()


def memory_of(limits: Limits) -> int:
    """Bytes of memory of the guest."""
    return MEMORY if limits.memory is None else limits.memory


def on_host(limits: Limits) -> int:
    """Bytes of memory that a machine may take of the host, QEMU's own included."""
    return memory_of(limits) + qemu.OVERHEAD


def disk_of(limits: Limits, image: int, copied: int = 0) -> int:
    """Bytes of the disk that the guest sees.

    Args:
        limits: the machine's.
        image: bytes of the image's own file system, which is on it.
        copied: bytes of the disk that it is a copy of; 0 where it is none.

    Raises:
        EngineError: the image, or what is copied, does not fit.
    """
    if copied:
        size = copied if limits.disk is None else limits.disk - limits.disk % _SECTOR
        if size < copied:
            raise EngineError(
                "input",
                f"disk can't be {size_text(size)}: that of the snapshot has {size_text(copied)}, and it cannot shrink",
            )
        return size
    size = max(DISK, image + _LEAST_ROOM) if limits.disk is None else limits.disk
    if size < image + _LEAST_ROOM:
        raise EngineError(
            "input",
            f"disk can't be {size_text(size)}: the image alone takes {size_text(image)}, and it is on that disk",
        )
    return size - size % _SECTOR


def slow(why: str) -> str:
    """The line about a machine that is emulated."""
    return f"no KVM ({why}): QEMU emulates the processor, which is slow (a start takes 15 to 60 seconds) and not a security boundary"


def facts(limits: Limits, *, kvm: bool, why: str) -> Mapping[str, str]:
    """What `status` says of a machine: its hardware is its limits, with or without a control group.

    Args:
        limits: the machine's.
        kvm: KVM runs it.
        why: why KVM does not.
    """
    found = {
        "cpus": f"{limits.cpus or 0:g}",
        "memory": str(limits.memory),
        "memory_note": f"and {size_text(qemu.OVERHEAD)} for QEMU",
        "disk": str(limits.disk),
        "processes": "the guest's own",
        "accelerator": "kvm" if kvm else "tcg",
    }
    return found if kvm else {**found, "accelerator_note": slow(why)}


def used(found: Mapping[str, str]) -> Mapping[str, str]:
    """Of what a control group counts, what is about the machine: its processes are QEMU's threads."""
    return {name: text for name, text in found.items() if name != "processes_used"}


def disk_facts(disks: Sequence[Path]) -> Mapping[str, str]:
    """What a machine's disk takes on the host, its layers included; a file that is not there is passed over."""
    used = 0
    for disk in disks:
        with contextlib.suppress(OSError):
            used += disk.stat().st_blocks * 512
    return {"disk_used": str(used)}


def ended(data: Mapping[str, Any]) -> str:
    """Why a guest ended, by the data of QEMU's event `SHUTDOWN`."""
    return _SAID.get(str(data.get("reason")), "the guest ended")
