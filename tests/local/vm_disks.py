"""Disks of machines on the host, for the tests: a machine that is stopped, and a QEMU without a guest that has its disk."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from irons_local.bundle.machine import VIRTUAL_DISK, Machine
from irons_local.engines.vm import chain, qemu, qmp
from irons_local.images.layers import Layers
from irons_local.limits import Limits
from irons_local.spec import Spec

SIZE = 1 << 30
MARK = b"what the guest wrote"
DEVICE = "/machine/peripheral/disk/virtio-backend"


def stopped_machine(root: Path, mark: bytes = MARK) -> tuple[Path, Layers]:
    """A machine that does not run and has written something, and where layers are."""
    home = root / "sandboxes" / "sb_0000000000000001"
    home.mkdir(parents=True)
    spec = Spec(home.name, "box", "key", limits=Limits(disk=SIZE, memory=512 << 20, cpus=1))
    Machine.of(spec, "img_1", "debian-vm", "host key").write(home)
    chain.write_empty(home / VIRTUAL_DISK, SIZE)
    append(home / VIRTUAL_DISK, mark)
    return home, Layers(root / "layers")


def append(path: Path, data: bytes) -> None:
    """Write behind the end of a file."""
    with path.open("ab") as file:
        file.write(data)


def begun(home: Path, layers: Layers) -> Machine:
    """Begin to make a layer of a machine's disk."""
    return chain.begin(home, Machine.read(home), layers)


def settled(home: Path, layers: Layers) -> None:
    """Finish that, of a machine that does not run."""
    asyncio.run(chain.settle(home, layers, None))


def _disk_options(base: Path, disk: Path, layers: Sequence[Path]) -> list[str]:
    """The options of a machine's disk, with the paths of here."""
    words = qemu.arguments(qemu.PROGRAM, qemu.Hardware(1, 512 << 20), len(layers))
    here = {qemu.BASE: base, qemu.DISK: disk, **{qemu.layer(each): path for each, path in enumerate(layers)}}
    places = {f"{qemu.FILES}/{name}": str(path) for name, path in here.items()}
    found: list[str] = []
    for name, word in pairwise(words):
        if name == "-blockdev" and "settings" not in word:
            options = [each.partition("=") for each in word.split(",")]
            found += [name, ",".join(f"{key}={places.get(value, value)}" for key, _, value in options)]
    return found


@contextmanager
def running_qemu(
    home: Path, base: Path, layers: Sequence[Path] = (), more: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A QEMU without a guest that has the machine's disk over a base, as QEMU is told to, and answers on `home/qmp`.

    Args:
        home: the machine's directory.
        base: the disk of its image.
        layers: the disks between, topmost first.
        more: further words of the command line.
    """
    # Shown to it by a name of its own, which leads to the same file when that is a layer, as the mount in its cell does.
    shown = base.with_name("shown")
    shown.unlink(missing_ok=True)
    shown.hardlink_to(home / VIRTUAL_DISK)
    words = [
        *(qemu.PROGRAM, "-S", "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg"),
        *_disk_options(base, shown, layers),
        *("-device", f"virtio-blk-pci,id=disk,drive={qemu.ROOT}"),
        *("-sandbox", ",".join(("on", *qemu.DENIED))),
        *more,
    ]
    with qmp.listening(home / "qmp") as listener:
        listener.set_inheritable(True)
        words += ["-chardev", f"socket,id=m,fd={listener.fileno()},server=on,wait=off"]
        process = subprocess.Popen(
            [*words, "-mon", "chardev=m,mode=control"],
            pass_fds=(listener.fileno(),),
            stdout=subprocess.PIPE,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def guest_runs(home: Path, *lines: str, device: str = DEVICE) -> None:
    """Run commands of qemu-io(1) on the guest's disk, as its device would; what they say is told on standard output."""
    async with qmp.connected(home / "qmp") as monitor:
        for line in lines:
            said = await monitor.execute(
                "human-monitor-command", command_line=f'qemu-io -d {device} "{line}"'
            )
            assert "rror" not in said, said


async def guest_does(home: Path, text: str, what: str) -> None:
    """Write a sector of a letter to the guest's disk, or read it; what is read and is not `text` is told on standard output."""
    await guest_runs(home, f"{what} -P {ord(text)} {ord(text) << 17} 512", "flush")


def opened(process: subprocess.Popen[bytes]) -> set[str]:
    """What a process has open."""
    found: set[str] = set()
    for path in Path(f"/proc/{process.pid}/fd").iterdir():
        # It may still be closing the connection that it answered on.
        with suppress(FileNotFoundError):
            found.add(str(path.readlink()))
    return found


def told_well(process: subprocess.Popen[bytes], read: int) -> None:
    """Check that what was read from a guest's disk is what was written."""
    assert process.stdout is not None
    with process.stdout as said:
        told = said.read().decode()
    assert "failed" not in told
    assert told.count("read 512/512 bytes") == read
