"""Whether KVM runs guests here: found out by booting a tiny one, since a `/dev/kvm` that exists may not run any."""

from __future__ import annotations

import asyncio
import grp
import os
import stat
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import NamedTuple

from irons_local.engines.vm.boot import device_group
from irons_local.linux.userns_call import end

DEVICE = Path("/dev/kvm")
_WITHIN = 10.0
_PREFIX = "qemu-system-x86_64: "
_PORT = 0xF4
_VALUE = 0x10
_ENDED = _VALUE << 1 | 1
"""What QEMU exits with when a guest writes `_VALUE` to the device isa-debug-exit."""

_ROM_SIZE = 64 << 10
_RESET_VECTOR = 16
"""Bytes before the end of the firmware: there a processor begins (Intel SDM volume 3, 10.1.4)."""


class KvmProbe(NamedTuple):
    """What was found.

    Attributes:
        usable: KVM runs guests.
        why: why not, for people; empty where it does.
    """

    usable: bool
    why: str = ""


def guest() -> bytes:
    """The firmware of a guest that ends QEMU with its first instructions: mov al, value; out port, al; hlt."""
    code = bytes((0xB0, _VALUE, 0xE6, _PORT, 0xF4))
    start = _ROM_SIZE - _RESET_VECTOR
    return bytes(start) + code.ljust(_RESET_VECTOR, b"\xf4")


def words(qemu: str, firmware: str) -> list[str]:
    """The command that boots it."""
    return [
        qemu,
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "16M", "-bios", firmware),
        *("-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1"),
    ]


def judged(status: int | None, complaint: bytes) -> KvmProbe:
    """What the end of the tiny guest means.

    Args:
        status: QEMU's exit code; None where it had to be killed.
        complaint: what it printed to standard error.
    """
    if status == _ENDED:
        return KvmProbe(True)
    if status is None:
        return KvmProbe(False, f"a tiny guest did not run within {_WITHIN:.0f} s")
    if status < 0:
        return KvmProbe(False, f"{DEVICE} is there and runs no guest: QEMU died by signal {-status}")
    said = [line for line in complaint.decode(errors="replace").splitlines() if line.strip()]
    reason = next(
        (line for line in said if "KVM" in line or "kvm" in line), said[-1] if said else f"exit code {status}"
    )
    text = "".join(each if each.isprintable() else "?" for each in reason.rpartition(_PREFIX)[2].strip())
    return KvmProbe(False, text[:160])


def in_use(answer: object) -> KvmProbe:
    """What QEMU's answer to `query-kvm` means."""
    if isinstance(answer, dict) and answer.get("enabled") is True:
        return KvmProbe(True)
    return KvmProbe(False, f"QEMU, with a user id of its own, could not open {DEVICE}")


def closed(device: Path, *, root: bool) -> str:
    """Why a QEMU with an id of its own cannot open a device; "" where it can.

    Args:
        device: KVM's device.
        root: the machine's root starts QEMU, and lets it keep the group of the device. Another user cannot keep one group alone.
    """
    found = device.stat()
    everyone = stat.S_IROTH | stat.S_IWOTH
    if not stat.S_ISCHR(found.st_mode) or found.st_mode & everyone == everyone:
        return ""
    group = device_group(found)
    if group is None:
        return f"{device} is open to its owner alone, and QEMU has a user id of its own"
    if root:
        return ""
    try:
        name = grp.getgrgid(group).gr_name
    except KeyError:
        name = str(group)
    return f"{device} is open to the group {name} alone, and QEMU has none of your groups: chmod 0666 {device} opens it to all"


async def probe(qemu: str, device: Path = DEVICE) -> KvmProbe:
    """Boot the tiny guest.

    Args:
        qemu: path of QEMU.
        device: KVM's device.
    """
    if not os.access(device, os.F_OK):
        return KvmProbe(False, f"there is no {device}")
    if not os.access(device, os.R_OK | os.W_OK):
        return KvmProbe(False, f"{device} cannot be opened by this user")
    why = closed(device, root=os.geteuid() == 0)
    if why:
        return KvmProbe(False, why)
    with tempfile.NamedTemporaryFile(prefix="irons-kvm-") as firmware:
        firmware.write(guest())
        firmware.flush()
        process = await asyncio.create_subprocess_exec(
            *words(qemu, firmware.name), stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, cwd="/"
        )
        try:
            async with asyncio.timeout(_WITHIN):
                _, complaint = await process.communicate()
            status = process.returncode
        except TimeoutError:
            status, complaint = None, b""
        finally:
            await asyncio.shield(end(process))
    return judged(status, complaint)
