"""Snapshots as what sandboxes start from: found with all that they need, and removed; the same for every engine."""

from __future__ import annotations

from irons_local.errors import EngineError
from irons_local.images.catalog import Image, Images
from irons_local.images.snapshots import Snapshot


async def usable(images: Images, snapshot: str) -> Snapshot:
    """Return a snapshot whose layers are all there, and as they were.

    Raises:
        EngineError: its record or a layer is gone or damaged.
    """
    origin = images.snapshots.read(snapshot)
    return await _whole(
        images,
        origin,
        f"the snapshot {origin.name or origin.id}",
        "irons local status shows what else uses that layer; bring its files back from a backup, or remove the snapshot",
    )


async def of_disk(images: Images, image: Image) -> Snapshot | None:
    """What a machine starts from whose image is a disk, as a snapshot has it; None of an image of files.

    Raises:
        EngineError: a layer, or the image below it, is gone or damaged.
    """
    if not image.disk:
        return None
    origin = Snapshot("", image.name, "", image.base, image.name, layers=image.layers, disk=image.disk)
    return await _whole(
        images, origin, f"the image {image.name}", "bring its files back from a backup, or remove the image"
    )


async def _whole(images: Images, origin: Snapshot, what: str, hint: str) -> Snapshot:
    try:
        image = images.by_id(origin.image)
        layers = (*origin.layers, *image.layers)
        images.layers.trees(layers)
        await images.layers.check(layers)
    except EngineError as error:
        raise EngineError(
            "image",
            f"{what} is damaged: {error.message}",
            hint,
        ) from error
    return origin


async def discard(images: Images, snapshot: str) -> None:
    """Remove a snapshot, and the layers that nothing else uses; one that is absent is passed over.

    Raises:
        EngineError: it cannot be removed.
    """
    try:
        await images.snapshots.remove(snapshot)
        await images.sweep()
    except OSError as error:
        raise EngineError("failed", f"the snapshot could not be removed: {error.strerror}") from error
