"""KVM's device in the sandbox of a QEMU: a stand-in of another kind shows whose right to open it QEMU has."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.local.engine_cells import OwnCells

from irons_local.engines import starting
from irons_local.engines.vm import boot, kvm, launch, qemu, qmp
from irons_local.linux.idmap import outer_map
from irons_local.linux.processes import ends

CELL = "sb_0000000000000001"
GROUP = 54321
OPENS = "grep Groups: /proc/self/status; (exec 3<>/dev/kvm) 2>/dev/null && echo opened || echo refused"


def _node(directory: Path, mode: int, group: int) -> Path:
    """A device that reads as nothing and takes everything, with an owner and rights as KVM's may have."""
    path = directory / "node"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chown(path, 0, group)
    path.chmod(mode)
    return path


async def _said(directory: Path, device: Path) -> str:
    """What a program prints that is started in QEMU's place, with the device."""
    files = {}
    for name in (qemu.DISK, qemu.BASE, qemu.KERNEL, qemu.INITRD):
        (directory / name).touch()
        files[name] = str(directory / name)
    cells = OwnCells()
    await cells.make(CELL)
    try:
        with ExitStack() as stack:
            given = stack.enter_context(ExitStack())
            ours, theirs = starting.console(stack, given)
            spaces = starting.kept(stack, await cells.namespaces(CELL))
            held = os.open(directory, os.O_RDONLY)
            stack.callback(os.close, held)
            monitors = [stack.enter_context(qmp.listening(directory / name)) for name in ("one", "two")]
            note = starting.note(stack, directory / "note")
            handed = launch.Handed(spaces, (), theirs, note, held, monitors)
            ids = outer_map()
            order = boot.VmOrder(
                user=spaces.user,
                net=spaces.net,
                mount=spaces.mount,
                cgroups=[],
                console=theirs,
                note=note,
                monitors=[each.fileno() for each in monitors],
                owner=[ids.host_uid(1), ids.host_gid(1)],
                files=files,
                device=str(device),
                threads=16,
                settings="",
                config=launch.configuration(["/usr/bin/sh", "-c", OPENS], kvm=True),
                crun=starting.crun(),
                cell=CELL,
            )
            process = await launch.run(order, handed)
            given.close()
            if process is not None:
                assert await ends(process, 60)
            os.set_blocking(ours, False)
            return os.read(ours, 4096).decode()
    finally:
        await cells.close()


@pytest.mark.needs("root", "user-namespaces", "crun")
@pytest.mark.parametrize(
    ("mode", "group", "opens"),
    [(0o660, GROUP, True), (0o666, 0, True), (0o600, GROUP, False), (0o660, 0, False)],
    ids=["group", "everyone", "owner", "root's group"],
)
def test_qemu_has_the_group_of_the_device_and_no_other(
    tmp_path: Path, mode: int, group: int, *, opens: bool
) -> None:
    """Started by root it opens what is open to a group or to all, never by root's own rights; and what is said before agrees."""
    device = _node(tmp_path, mode, group)
    lines = asyncio.run(_said(tmp_path, device)).split("\n")
    groups = lines[0].removeprefix("Groups:").split()
    # A group without a number in the namespace is shown by that of nobody.
    assert len(groups) == (1 if group and opens else 0)
    assert lines[-2] == ("opened" if opens else "refused")
    assert (kvm.closed(device, root=True) == "") is opens


@pytest.mark.needs("root")
def test_a_group_is_not_kept_for_an_ordinary_user(tmp_path: Path) -> None:
    """Who is not root cannot hand on one group alone: that is said, with the group and what opens the device."""
    device = _node(tmp_path, 0o660, GROUP)
    assert f"open to the group {GROUP} alone" in kvm.closed(device, root=False)
    assert f"chmod 0666 {device}" in kvm.closed(device, root=False)
    device.chmod(0o666)
    assert kvm.closed(device, root=False) == ""
