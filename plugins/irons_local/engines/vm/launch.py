"""How the `vm` engine starts a machine: the order for `boot`, its run, and the wait for the guest's SSH server."""

from __future__ import annotations

import asyncio
import base64
import math
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irons.text import size_text
from irons_local.bundle import oci, session
from irons_local.bundle.machine import VIRTUAL_DISK, Machine
from irons_local.cell.layout import Namespaces
from irons_local.engines import starting
from irons_local.engines.homes import settings_of
from irons_local.engines.protocol import Cells
from irons_local.engines.vm import boot, guest, qemu
from irons_local.errors import EngineError
from irons_local.images.bootable.store import Bootable
from irons_local.images.catalog import Image
from irons_local.limits import Limits
from irons_local.linux.processes import Process, ended, open_process

BOOT = "irons_local.engines.vm.boot"
COMMANDS, EVENTS = "qmp", "qmp-events"
"""In the sandbox's directory: the sockets that its QEMU listens on."""

READY_WITHIN = 300.0
"""Seconds in which a guest's SSH server must answer: emulated on a busy machine, a boot takes a minute and more."""

_BOOT_WITHIN = 60.0
_GREETING_WITHIN = 2.0
_MOST_PATIENCE = 30.0
"""Seconds for one greeting at last: each connection that is given up costs a slow guest another process of its server."""

_MORE_PATIENCE = 1.5
_ASK_AGAIN = 0.2
_RESERVE = 128 << 20


def hardware(limits: Limits, *, kvm: bool, services: bool) -> qemu.Hardware:
    """What a machine with these limits is made of.

    Raises:
        EngineError: they say no memory.
    """
    if limits.memory is None or limits.cpus is None:
        raise EngineError("state", "the record of the machine names no memory or no processors", "destroy it")
    return qemu.Hardware(max(1, math.ceil(limits.cpus)), limits.memory, kvm, services)


def group_limits(limits: Limits) -> Limits:
    """What the control group of QEMU allows: the guest's limits, and a stated overhead."""
    memory = None if limits.memory is None else limits.memory + qemu.OVERHEAD
    return Limits(cpus=limits.cpus, memory=memory, processes=qemu.THREADS + math.ceil(limits.cpus or 1))


def check_memory(wanted: int, meminfo: str) -> None:
    """Refuse a machine that this host has no memory for.

    Args:
        wanted: bytes of the guest.
        meminfo: text of /proc/meminfo.

    Raises:
        EngineError: there is not enough, with the sum.
    """
    available = next(
        (int(line.split()[1]) << 10 for line in meminfo.splitlines() if line.startswith("MemAvailable:")),
        None,
    )
    needed = wanted + qemu.OVERHEAD + _RESERVE
    if available is not None and needed > available:
        raise EngineError(
            "machine",
            f"too little memory: a guest of {size_text(wanted)} needs {size_text(needed)} with what QEMU and this"
            f" machine need, and {size_text(available)} is free",
            "stop a sandbox, or give it less: create --memory 512M",
        )


class Handed(NamedTuple):
    """Descriptors that `boot` inherits.

    Attributes:
        spaces: the cell's namespaces.
        cgroups: the `cgroup.procs` to join.
        console: becomes QEMU's standard output and error.
        note: the answer is also written to it.
        held: keeps others from starting this sandbox, also should this process end before `boot` does.
        monitors: the sockets that QEMU listens on.
    """

    spaces: Namespaces
    cgroups: Sequence[int]
    console: int
    note: int
    held: int
    monitors: Sequence[socket.socket]


def order(
    home: Path,
    machine: Machine,
    image: Image,
    bootable: Bootable,
    layers: Sequence[Path],
    made_of: qemu.Hardware,
    given: Handed,
    shown: Mapping[str, str],
    device: str,
) -> boot.VmOrder:
    """The order for `boot`.

    Args:
        home: the sandbox's directory.
        machine: what is recorded of it.
        image: its image.
        bootable: what it boots from.
        layers: the disks between its own and that, topmost first.
        made_of: its hardware.
        given: what `boot` inherits.
        shown: files that are the same for all sandboxes.
        device: path of KVM's device, or "".

    Raises:
        EngineError: a program or subordinate ids are missing.
    """
    crun, ids = starting.crun(), starting.subordinate_ids()
    kit = bootable.kit
    files = guest.settings(
        instance=machine.id,
        name=machine.name,
        server=image.sshd,
        own={**session.of_image(image.config.env, image.config.workdir), **settings_of(home)},
        shown=shown,
        programs=None if kit is None else kit.programs,
        services=made_of.services,
    )
    return boot.VmOrder(
        user=given.spaces.user,
        net=given.spaces.net,
        mount=given.spaces.mount,
        cgroups=list(given.cgroups),
        console=given.console,
        note=given.note,
        monitors=[each.fileno() for each in given.monitors],
        owner=[ids.host_uid(1), ids.host_gid(1)],
        files={
            qemu.DISK: str(home / VIRTUAL_DISK),
            qemu.BASE: str(bootable.disk),
            qemu.KERNEL: str(bootable.kernel),
            qemu.INITRD: str(bootable.initrd),
            **({} if kit is None else {qemu.KIT: str(kit.disk)}),
            **{qemu.layer(number): str(path) for number, path in enumerate(layers)},
        },
        device=device,
        threads=group_limits(machine.limits).processes or qemu.THREADS,
        settings=base64.b64encode(guest.archive(files)).decode("ascii"),
        config=configuration(
            qemu.arguments(qemu.find(), made_of, len(layers), kit=kit is not None),
            kvm=bool(device),
            layers=len(layers),
            kit=kit is not None,
        ),
        crun=crun,
        cell=machine.id,
    )


def configuration(words: list[str], *, kvm: bool, layers: int = 0, kit: bool = False) -> dict[str, Any]:
    """The OCI configuration of QEMU's own sandbox: no capabilities, nothing to write but the machine's disk.

    Args:
        words: QEMU's command line.
        kvm: let it open KVM's device.
        layers: how many there are between its disk and its image's.
        kit: it has the disk of a kernel kit.
    """
    whole = oci.config(
        rootfs=str(boot.ROOTFS),
        hostname="vm",
        args=words,
        settings="",
        machine="x86_64",
        cgroup_namespace=Path("/proc/self/ns/cgroup").exists(),
    )
    more = (qemu.KIT,) if kit else ()
    names = (qemu.DISK, *map(qemu.layer, range(layers)), qemu.BASE, qemu.KERNEL, qemu.INITRD, *more)
    files = [_shown(name, write=name == qemu.DISK) for name in names]
    device = {
        "destination": "/dev/kvm",
        "type": "bind",
        "source": f"{boot.FILES_STAGE}/kvm",
        "options": ["bind"],
    }
    mounts = [
        each
        for each in whole["mounts"]
        if each["destination"] in ("/proc", "/dev", "/dev/pts", "/dev/shm")  # noqa: S108 (its own)
    ]
    usr = {
        "destination": "/usr",
        "type": "bind",
        "source": "/usr",
        "options": ["rbind", "ro", "nosuid", "nodev"],
    }
    process = {
        **whole["process"],
        "env": ["PATH=/usr/bin", "HOME=/", "LC_ALL=C"],
        "noNewPrivileges": True,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), ()),
    }
    return {
        **whole,
        "process": process,
        "root": {"path": str(boot.ROOTFS), "readonly": True},
        "mounts": [*mounts, usr, *files, _shown(qemu.SETTINGS, write=False), *([device] if kvm else [])],
        # `boot` has left none but that of the device.
        "annotations": {"run.oci.keep_original_groups": "1"} if kvm else {},
    }


def _shown(name: str, *, write: bool) -> dict[str, Any]:
    return {
        "destination": f"{qemu.FILES}/{name}",
        "type": "bind",
        "source": f"{boot.FILES_STAGE}/{name}",
        "options": ["bind", "rw" if write else "ro", "nosuid", "nodev", "noexec"],
    }


async def run(told: boot.VmOrder, given: Handed) -> Process | None:
    """Have `boot` carry out an order; gives QEMU's process, None where it has ended already.

    Raises:
        EngineError: it failed, or took too long.
    """
    inherited = (
        *given.spaces,
        *given.cgroups,
        given.console,
        given.note,
        given.held,
        *(each.fileno() for each in given.monitors),
    )
    answer = await starting.carried_out(BOOT, "the start", told, inherited, _BOOT_WITHIN)
    if "error" in answer:
        raise EngineError("failed", f"the start failed: {answer['error']}", "`irons doctor` may show why")
    return None if answer["started"] is None else Process(answer["pid"], answer["started"])


async def greeted(cells: Cells, cell: str, process: Process | None, console: int) -> None:
    """Return when the guest's SSH server has sent its version.

    Args:
        cells: the keeper.
        cell: the sandbox's.
        process: QEMU; None where it has ended.
        console: descriptor to read what QEMU printed.

    Raises:
        EngineError: QEMU ended, or the server does not answer in `READY_WITHIN`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_WITHIN
    descriptor = None if process is None else open_process(process)
    patience = _GREETING_WITHIN
    try:
        while descriptor is not None and loop.time() < deadline:
            asked = loop.time()
            if await starting.greets(cells, cell, patience):
                return
            # A guest that refuses at once has no server yet, and is none the worse for being asked soon again.
            if loop.time() - asked >= patience:
                patience = min(patience * _MORE_PATIENCE, _MOST_PATIENCE)
            if await ended(descriptor, _ASK_AGAIN):
                break
    finally:
        if descriptor is not None:
            os.close(descriptor)
    said = starting.last_line(console)
    if loop.time() >= deadline:
        raise EngineError("timeout", f"its SSH server did not answer within {READY_WITHIN:.0f} s{said}")
    raise EngineError("failed", f"QEMU ended as soon as it was started{said}")
