"""An image as it is written down, in the directory that holds it."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from irons_plugins.local.engines import EngineError

ROOTFS = "rootfs"
_FILE = "image.json"
_NAME_AT_MOST = 64


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        id: `img_` and 16 hexadecimal digits.
        name: what people call it.
        created_at: microseconds since 1970, UTC.
        source: where it came from, for people.
        os: its own name for itself.
        size: bytes of its files.
        sshd: path of its SSH server.
        tini: path of its init, or "" where its SSH server is process 1.
        home: its directory.
    """

    id: str
    name: str
    created_at: int
    source: str
    os: str
    size: int
    sshd: str
    tini: str
    home: Path

    @property
    def rootfs(self) -> Path:
        """The directory that holds its files."""
        return self.home / ROOTFS

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The image of a directory; None where there is none, or it cannot be read."""
        try:
            return cls(**json.loads((home / _FILE).read_bytes()), home=home)
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    def put(cls, draft: Path, root: Path, name: str, source: str, found: dict[str, Any]) -> Self:
        """Write the record into a finished draft, and put the draft into its place with one rename.

        Args:
            draft: the directory that was made.
            root: the directory of the images.
            name: what to call it.
            source: where it came from, for people.
            found: what unpacking found, by the names of the attributes.
        """
        identifier = f"img_{secrets.token_hex(8)}"
        image = cls(identifier, name, now(), source, home=root / identifier, **found)
        body = {key: value for key, value in asdict(image).items() if key != "home"}
        with (draft / _FILE).open("w", encoding="utf-8") as file:
            json.dump(body, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(image.home)
        return image


def now() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def check_name(name: str) -> None:
    """Refuse what is no name for an image.

    Raises:
        EngineError: it is none; with what one is.
    """
    plain = name.replace("-", "").replace(".", "").replace("_", "")
    if not plain.isascii() or not plain.isalnum() or name[0] in "-._" or len(name) > _NAME_AT_MOST:
        allowed = f"letters, digits, - . _ and at most {_NAME_AT_MOST} of them"
        raise EngineError("input", f"{name!r} is no name for an image: {allowed}")
