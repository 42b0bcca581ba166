"""Making the files of a merged layer of a machine's disk: `flatten` in a process without rights, which gets descriptors alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from irons_local.bundle.machine import Machine
from irons_local.engines.vm import chain
from irons_local.images.merging import Fill
from irons_local.linux.userns_call import call

_FLATTEN = "irons_local.engines.vm.merge.flatten:flatten"


def flattening(machine: Machine) -> Fill:
    """What makes a layer of several of a machine's."""

    async def fill(trees: Sequence[Path], target: Path) -> None:
        with ExitStack() as stack:
            disks, made = _opened(stack, trees, target)
            request = {"disks": disks, "target": made, "size": machine.limits.disk or 0}
            await call("b", _FLATTEN, request, fds=[*disks, made])

    return fill


def _opened(stack: ExitStack, trees: Sequence[Path], target: Path) -> tuple[list[int], int]:
    """Descriptors of the disks, and of a new one that whoever may walk to it may read, as QEMU does."""
    disks = []
    for tree in trees:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        disks.append(os.open(chain.file_of(tree), flags))
        stack.callback(os.close, disks[-1])
    target.mkdir()
    target.chmod(0o755)
    made = os.open(chain.file_of(target), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, made)
    os.fchmod(made, 0o644)
    return disks, made
