"""Images of irons as Incus has them: sent once, and found again by the id that their properties name."""

from __future__ import annotations

import io
import platform
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from irons_local.engines.incus.client import Incus
from irons_local.images.catalog import Image, Images
from irons_local.progress import Progress

_PROPERTY = "irons.image"


async def ensure(incus: Incus, images: Images, image: Image, room: Path, progress: Progress) -> str:
    """The fingerprint of an image at Incus, which is sent it where it has it not.

    Args:
        incus: the Incus.
        images: the images of irons.
        image: the image.
        room: a directory for the archive that is sent, which gets no name there.
        progress: called with the progress.

    Raises:
        EngineError: it cannot be packed or sent.
    """
    found = await find(incus, image.id)
    if found:
        return found
    progress(f"sending the image {image.name} to Incus, once", None)
    with tempfile.TemporaryFile(dir=room) as archive:
        await images.pack(image, archive.fileno(), progress=progress)
        return await incus.upload(_metadata(image), archive)


async def find(incus: Incus, identifier: str) -> str:
    """The fingerprint of an image that Incus has; "" where it has not."""
    listed: list[dict[str, Any]] = await incus.get("images", recursion="1")
    ours = (each for each in listed if (each.get("properties") or {}).get(_PROPERTY) == identifier)
    return str(next((each["fingerprint"] for each in ours), ""))


def _metadata(image: Image) -> bytes:
    text = (
        f"architecture: {platform.machine()}\n"
        f"creation_date: {image.created_at // 1_000_000}\n"
        "properties:\n"
        f"  {_PROPERTY}: {image.id}\n"
        "  os: irons\n"
    ).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("metadata.yaml")
        member.size, member.mode = len(text), 0o644
        tar.addfile(member, io.BytesIO(text))
    return out.getvalue()
