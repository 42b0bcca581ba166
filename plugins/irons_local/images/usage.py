"""What each layer takes of the disk, and who uses it: sandboxes, snapshots and images, by the names that people know."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from irons_local.images.layers import Layers
from irons_local.images.record import Image
from irons_local.images.snapshots import FILE, Snapshots


class LayerUse(NamedTuple):
    """One layer.

    Attributes:
        id: the layer.
        used: bytes of its blocks; None until they are counted.
        users: what names it, such as `snapshot clean`, sorted.
    """

    id: str
    used: int | None
    users: tuple[str, ...]


def by_layer(images: Path, sandboxes: Path) -> list[LayerUse]:
    """Return every layer, the largest first; records that cannot be read are passed over.

    Args:
        images: the directory of the images.
        sandboxes: the directory of the sandboxes.
    """
    users: defaultdict[str, set[str]] = defaultdict(set)
    for what, name, layers in _records(images, sandboxes):
        for layer in layers:
            users[layer].add(f"{what} {name}")
    found = [
        LayerUse(layer.id, layer.used, tuple(sorted(users[layer.id])))
        for layer in Layers.beside(images).listed()
    ]
    return sorted(found, key=lambda each: (-(each.used or 0), each.id))


def _records(images: Path, sandboxes: Path) -> Iterator[tuple[str, str, Iterable[str]]]:
    for path in sorted(sandboxes.glob("sb_*/machine.json")):
        yield from _of("sandbox", path)
    for home in Snapshots.beside(images).homes():
        yield from _of("snapshot", home / FILE)
    for home in sorted(images.glob("img_*")):
        image = Image.read(home)
        if image is not None:
            yield "image", image.name or image.id, image.layers


def _of(what: str, path: Path) -> Iterator[tuple[str, str, Iterable[str]]]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        body = json.loads(path.read_bytes())
        yield what, str(body["name"] or "of a fork"), [str(layer) for layer in body.get("layers", ())]
