"""Saving a stopped virtual machine as an image: its disk becomes a layer, as for a snapshot, and the image names its layers.

A process that is killed leaves a whole machine and a whole image, or a whole machine and no image: what it wrote is then in one layer more.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

from irons_local.bundle.machine import Machine
from irons_local.engines.homes import reserved
from irons_local.engines.vm import chain
from irons_local.errors import EngineError
from irons_local.images.catalog import Images
from irons_local.images.record import Image, check_name
from irons_local.images.saving import DRAFT, explained
from irons_local.linux.remove_tree import remove_tree
from irons_local.times import now


async def save(images: Images, home: Path, name: str) -> Image:
    """Make an image of a virtual machine.

    Args:
        images: where images and layers are.
        home: the machine's directory.
        name: what to call the image.

    Raises:
        EngineError: it runs, has too many layers, is damaged, or the disk is full; nothing has changed then.
    """
    check_name(name)
    async with reserved(home), images.keeping():
        if Machine.running(home) is not None:
            raise EngineError("state", f"sandbox {home.name} runs", "stop it first")
        draft = images.root / f"{DRAFT}{secrets.token_hex(8)}"
        try:
            machine = await _kept(images, home)
            parent = images.by_id(machine.image)
            identifier = f"img_{secrets.token_hex(8)}"
            image = replace(
                parent,
                id=identifier,
                name=name,
                created_at=now(),
                source=f"saved from {machine.name}",
                home=images.root / identifier,
                base=parent.id,
                layers=machine.layers,
                redirects=False,
                digest="",
                disk=machine.limits.disk or 0,
            )
            image.begin(draft)
            image.finish(draft)
        except OSError as error:
            raise explained(error, "the image") from error
        finally:
            await asyncio.shield(remove_tree(draft))
        return image


async def _kept(images: Images, home: Path) -> Machine:
    """The machine, with all that it wrote in layers."""
    await chain.settle(home, images.layers, None)
    machine = Machine.read(home)
    if not chain.is_empty(home, machine):
        machine = chain.begin(home, machine, images.layers)
        await chain.settle(home, images.layers, None)
    return machine
