"""Exporting an image that is the disk of a virtual machine: one raw file of what its layers show, with its holes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from irons_local.engines.vm import chain
from irons_local.errors import EngineError
from irons_local.images import origins
from irons_local.images.bootable import store
from irons_local.images.catalog import Image, Images
from irons_local.images.drafts import drafted
from irons_local.linux.userns_call import call
from irons_local.progress import Progress, unheard

_WRITE = "irons_local.engines.vm.saved.whole:write"


async def export(images: Images, image: Image, path: Path, progress: Progress = unheard) -> None:
    """Write a disk; `path` is it whole, or what it was before.

    Args:
        images: where images and layers are.
        image: one of the kind `disk`.
        path: the file.
        progress: called with the progress.

    Raises:
        EngineError: the image is damaged, or the file cannot be written.
    """
    async with images.keeping():
        await origins.of_disk(images, image)
        base = store.disk_of(images.by_id(image.base))
        with ExitStack() as stack:
            disks = [_opened(stack, chain.file_of(tree)) for tree in images.layers.trees(image.layers)]
            below = _opened(stack, base)
            target = stack.enter_context(drafted(path))
            request: dict[str, Any] = {"disks": disks, "base": below, "target": target, "size": image.disk}
            await call("b", _WRITE, request, fds=(*disks, below, target), progress=progress)


def _opened(stack: ExitStack, path: Path) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise EngineError("image", f"{path}: {error.strerror}") from error
    stack.callback(os.close, descriptor)
    return descriptor
