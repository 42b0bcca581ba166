"""QEMU's command line for one machine. Nothing secret is ever in it: it is public (proc_pid_cmdline(5))."""

from __future__ import annotations

import os
import platform
import shutil
from typing import NamedTuple

from irons_local.cell.layout import GATEWAY4
from irons_local.errors import EngineError
from irons_local.linux.programs import search_path
from irons_local.spec import SSH_PORT

PROGRAM = "qemu-system-x86_64"
FILES = "/vm"
"""The directory of QEMU's own root file system in which the machine's files are."""

ROOT = "root"
"""The block node that a guest's disk is at first."""

DISK, BASE, KERNEL, INITRD, SETTINGS, KIT = "disk", "base", "kernel", "initrd", "settings", "kit"
ADDRESS, PREFIX, ROUTER = "10.0.2.15", 24, "10.0.2.2"
"""The guest's address in the user-mode network, and the router there, as QEMU has them by default."""

CODE_BUFFER = 96 << 20
"""Bytes of translated code that QEMU keeps where it emulates."""

OVERHEAD = CODE_BUFFER + (96 << 20)
"""Bytes that its control group allows QEMU in addition to the guest's memory."""

THREADS = 64
"""Threads that QEMU may have, and one more for each processor."""

COMMANDS, EVENTS = 3, 4
"""Descriptors of the listening sockets on which QEMU answers commands and tells what happened."""

CONSOLE = "console"
CONSOLE_KEPT = 1 << 20
"""Bytes of the console's output that are kept; a power of two."""

DENIED = ("obsolete=deny", "elevateprivileges=deny", "spawn=deny", "resourcecontrol=deny")
_READ_ONLY = "read-only=on,file.driver=file,file.locking=off"
"""Of a file that never changes: other machines read it too, and one of which someone has the QEMU could keep it locked."""

_KERNEL_WORDS = (
    *("console=ttyS0", "quiet", "loglevel=4", "systemd.show_status=1", "panic=-1"),
    *("net.ifnames=0", "mitigations=off", "nokaslr", "random.trust_cpu=on", "no_timer_check", "tsc=reliable"),
)


class Hardware(NamedTuple):
    """What a machine is made of.

    Attributes:
        processors: how many the guest sees.
        memory: bytes.
        kvm: let the processor run the guest; QEMU falls back to emulation where it cannot.
        services: start the guest's own services.
    """

    processors: int
    memory: int
    kvm: bool = False
    services: bool = True


def find() -> str:
    """The path of QEMU.

    Raises:
        EngineError: this is another kind of machine, or QEMU is not installed.
    """
    if platform.machine() != "x86_64":
        raise EngineError("machine", f"virtual machines need an x86_64 host, not {platform.machine()}")
    program = shutil.which(PROGRAM, path=search_path())
    if program is None:
        raise EngineError(
            "machine",
            f"{PROGRAM} is not installed",
            "apt-get install qemu-system-x86 (see `irons doctor`: vm)",
        )
    return os.path.realpath(program)


def layer(number: int) -> str:
    """The name, in `FILES`, of one of the layers between the machine's disk and its image's, of which 0 is the topmost."""
    return f"layer{number}"


def over(layer_id: str) -> str:
    """The name of the block node that is written to since a layer was made of the one before."""
    return f"over-{layer_id}"


def arguments(program: str, hardware: Hardware, layers: int = 0, *, kit: bool = False) -> list[str]:
    """The command line, as it is run in QEMU's own root file system.

    Args:
        program: QEMU's path.
        hardware: what the machine is made of.
        layers: how many there are between its disk and its image's.
        kit: it has a disk with the programs and modules of a kernel kit.
    """
    accelerators = ("kvm", f"tcg,thread=multi,tb-size={CODE_BUFFER >> 20}")
    chosen = accelerators if hardware.kvm else accelerators[1:]
    return [
        program,
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
        *("-machine", "q35,vmport=off,sata=off,usb=off,smbus=off,hpet=off"),
        *(word for name in chosen for word in ("-accel", name)),
        *("-cpu", "max", "-smp", str(hardware.processors), "-m", f"{hardware.memory >> 20}M"),
        *("-kernel", f"{FILES}/{KERNEL}", "-initrd", f"{FILES}/{INITRD}"),
        *("-append", " ".join(_KERNEL_WORDS + (() if hardware.services else ("systemd.unit=basic.target",)))),
        *_chain(layers),
        *("-device", f"virtio-blk-pci,drive={ROOT}"),
        *_block("settings", f"driver=raw,read-only=on,file.driver=file,file.filename={FILES}/{SETTINGS}"),
        *("-device", "virtio-blk-pci,drive=settings"),
        *(_kit_disk() if kit else ()),
        *("-netdev", f"user,id=net,dns=10.0.2.3,hostfwd=tcp:127.0.0.1:{SSH_PORT}-{ADDRESS}:{SSH_PORT}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"ringbuf,id={CONSOLE},size={CONSOLE_KEPT}", "-serial", f"chardev:{CONSOLE}"),
        *_monitor("commands", COMMANDS),
        *_monitor("events", EVENTS),
        *("-sandbox", ",".join(("on", *DENIED))),
    ]


def _chain(layers: int) -> list[str]:
    """The machine's disk over its layers over its image's: each with its format and what it is read over, which no file says."""
    below = BASE
    words = _block(BASE, f"driver=raw,{_READ_ONLY},file.filename={FILES}/{BASE}")
    for number in reversed(range(layers)):
        name = layer(number)
        words += _block(
            name,
            f"driver=qcow2,{_READ_ONLY},file.filename={FILES}/{name},backing={below}",
        )
        below = name
    # What the guest discards is given back to the host's file system.
    description = f"driver=qcow2,discard=unmap,file.driver=file,file.filename={FILES}/{DISK},backing={below}"
    return words + _block(ROOT, description)


def _kit_disk() -> list[str]:
    return [
        *_block(KIT, f"driver=raw,{_READ_ONLY},file.filename={FILES}/{KIT}"),
        *("-device", f"virtio-blk-pci,drive={KIT}"),
    ]


def _block(name: str, description: str) -> list[str]:
    return ["-blockdev", f"node-name={name},{description}"]


def _monitor(name: str, descriptor: int) -> list[str]:
    return [
        *("-chardev", f"socket,id={name},fd={descriptor},server=on,wait=off"),
        *("-mon", f"chardev={name},mode=control"),
    ]


def resolv_conf() -> str:
    """What QEMU's name server forwards to: the cell's own."""
    return f"nameserver {GATEWAY4}\n"
