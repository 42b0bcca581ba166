"""Snapshots as what sandboxes start from: found with all that they need, and removed; the same for every engine."""

from __future__ import annotations

from irons_local.errors import EngineError
from irons_local.images.catalog import Images
from irons_local.images.snapshots import Snapshot


async def usable(images: Images, snapshot: str) -> Snapshot:
    """Return a snapshot whose layers are all there, and as they were.

    Raises:
        EngineError: its record or a layer is gone or damaged.
    """
    origin = images.snapshots.read(snapshot)
    try:
        image = images.by_id(origin.image)
        layers = (*origin.layers, *image.layers)
        images.layers.trees(layers)
        await images.layers.check(layers)
    except EngineError as error:
        raise EngineError(
            "image",
            f"the snapshot {origin.name or origin.id} is damaged: {error.message}",
            "irons local status shows what else uses that layer; bring its files back from a backup, or remove the snapshot",
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
